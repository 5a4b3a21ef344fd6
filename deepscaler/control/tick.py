"""What one tick saw, decided and did: the record that watchers get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deepscaler.control.quality import Quality
from deepscaler.control.recorder import DecisionRow
from deepscaler.policies.base import Proposal


@dataclass(frozen=True, eq=False)
class Tick:
    """One tick, when all is written.

    Attributes:
        now: when it began, in seconds since the epoch.
        late_seconds: how much later than it was due.
        took_seconds: from reading the cluster to the last write.
        mode: what it was allowed to do.
        rows: what was decided for each service, and what became of it.
        proposals: what the policy wanted of them.
        quality: the metrics, and how far they can be trusted.
    """

    now: float
    late_seconds: float
    took_seconds: float
    mode: str
    rows: tuple[DecisionRow, ...]
    proposals: Mapping[str, Proposal]
    quality: Quality


Watcher = Callable[[Tick], None]
"""Called in the controller's thread after each completed tick; it should be quick. Its errors are logged."""
