"""What the report of a comparison is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepscaler.evaluation.comparison import REFERENCES
from deepscaler.evaluation.portraits import Portrait, loads_of
from deepscaler.evaluation.text import by_violations


@dataclass(frozen=True, eq=False)
class Compared:
    """What a report is made of.

    Attributes:
        summary: what `summarize` returned.
        portraits: the runs.
        baseline: the policy that the others are paired with.
        main: the policy that the pictures are about: deepscaler, else a plan, else the best one.
    """

    summary: Mapping[str, Any]
    portraits: Sequence[Portrait]
    baseline: str
    main: str

    @property
    def loads(self) -> list[str]:
        """Names of the loads, in the order of the runs."""
        return loads_of(self.portraits)

    @property
    def rivals(self) -> list[str]:
        """Policies that don't know the future, fewest violating minutes first."""
        rows = self.summary["policies"]
        return [name for name in by_violations(self.summary) if rows[name]["family"] not in REFERENCES]

    def of(self, policy: str) -> list[Portrait]:
        """The runs of one policy."""
        return [one for one in self.portraits if one.name == policy]
