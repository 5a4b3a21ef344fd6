"""What the controller remembers of an HPA from one sync to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from deepscaler.policies.hpa.usage import Usage


class Stamped(NamedTuple):
    """A recommendation, or a number of pods added or removed, and its time."""

    value: int
    time: float


@dataclass(frozen=True)
class Status:
    """`status` of an HPA. Conditions read `status/reason` and are None until they are first set."""

    desired: int = 0
    able_to_scale: str | None = None
    scaling_active: str | None = None
    scaling_limited: str | None = None
    usages: tuple[Usage | None, ...] = ()


@dataclass(frozen=True)
class HpaState:
    """What the controller remembers of one HPA, until the controller restarts or the HPA is deleted."""

    recommendations: tuple[Stamped, ...] = ()
    scale_ups: tuple[Stamped, ...] = ()
    scale_downs: tuple[Stamped, ...] = ()
    status: Status = field(default_factory=Status)


def recorded(
    old: tuple[Stamped, ...], new: Stamped, outdated: Callable[[Stamped], bool]
) -> tuple[Stamped, ...]:
    """The entries with a new one, which replaces the last outdated entry or is appended."""
    for index in reversed(range(len(old))):
        if outdated(old[index]):
            return (*old[:index], new, *old[index + 1 :])
    return (*old, new)
