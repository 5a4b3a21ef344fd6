"""What is decided for a service, which reasons there are to leave it as it is, and how strict a tick is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from deepscaler.policies.base import Reason

LEFT_ALONE = frozenset({Reason.SCALED_TO_ZERO, Reason.PAUSED, Reason.RIVAL_AUTOSCALER})
"""Services with these reasons are never written, whatever the other rails say."""
HELD = frozenset(
    {
        Reason.HELD_STALE,
        Reason.HELD_MISSING,
        Reason.HELD_UNSOUND,
        Reason.HELD_TROUBLE,
        Reason.UNKNOWN_SERVICE,
    }
)
"""Services with these reasons keep their replicas, because their data can't be trusted."""
RESTRICTING = (
    LEFT_ALONE
    | HELD
    | {
        Reason.FORCED,
        Reason.WITHIN_TOLERANCE,
        Reason.STABILIZED,
        Reason.STEP_LIMIT,
        Reason.MIN_REPLICAS,
        Reason.MAX_REPLICAS,
        Reason.CALENDAR,
        Reason.CONSTRAINT,
        Reason.QUOTA,
        Reason.CONFLICT,
        Reason.WRITE_FAILED,
    }
)
"""Services with these reasons don't get what the policy wants."""


@dataclass(frozen=True)
class Decision:
    """What is decided for one service.

    Attributes:
        current: replicas in the spec when they were read.
        target: replicas to have, a Python int; at least 1, unless the owner set 0, which is respected.
        reason: the rail that changed the target last, or else the policy's own reason; `unchanged` if the
            policy wants the current replicas.
        recommended: what the stabilization history remembers: the rounded wish before the rails, or the
            current replicas of a service that is held or left alone.
        bound_by: the quota that cut the target, if one did.
    """

    service: str
    current: int
    target: int
    reason: Reason
    recommended: int
    bound_by: str = ""


class Rules(Protocol):
    """Windows, step limits and tolerance of one service, in the place of the general ones."""

    def tolerance(self, up: bool, usual: float) -> float:
        """Relative change in a direction that is too small to act on."""
        ...

    def limit(self, current: int, wish: int, now: float) -> tuple[int, Reason | None]:
        """What windows and rates leave of a wish, and the reason if they change it."""
        ...


@dataclass(frozen=True)
class Stance:
    """How strict the rails are in this tick.

    Attributes:
        acting: False in a dry run. There a rival autoscaler is what the policy is compared with, no reason to
            refuse.
        guarded: False for a policy with its own tolerance, stabilization and step limits.
        no_scale_down: services whose traffic fell together with errors or missing data.
        beside: services whose autoscaler stays in charge, because they are only advised or watched.
        minimums: service -> the minimum that the calendar asks for now.
        rules: service -> its own windows, step limits and tolerance, where it has some.
    """

    acting: bool = True
    guarded: bool = True
    no_scale_down: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()
    minimums: Mapping[str, int] = field(default_factory=dict)
    rules: Mapping[str, Rules] = field(default_factory=dict)

    @property
    def fixed(self) -> frozenset[str]:
        """The services whose replicas somebody else decides, while this controller decides others'."""
        return self.beside if self.acting else frozenset()
