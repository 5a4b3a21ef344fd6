"""Linear constraints over several services: replicas x what each takes add up to no more than there is."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from deepscaler.control.decision import HELD, LEFT_ALONE, Decision, Stance
from deepscaler.policies.base import Reason
from deepscaler.settings import Constraint, GuardRails

_SLACK = 1e-9


def shared(
    plan: Sequence[Decision], rails: GuardRails, stance: Stance
) -> tuple[list[Decision], dict[str, str]]:
    """The plan within the constraints, and constraint -> what is wrong with those that can't be kept."""
    lows = {
        item.service: min(max(low, stance.minimums.get(item.service, 0)), high)
        for item in plan
        for low, high in [rails.bounds(item.service)]
    }
    kept = within_constraints(plan, rails.constraints, lows, stance.fixed)
    decided = {item.service: item for item in kept}
    crowded = {
        each.name: f"constraint {each.name}: {excess:g} more than the {each.at_most:g} there are is taken, "
        "and no service of its `reduce` may be cut further"
        for each in rails.constraints
        if (excess := excess_of(each, decided, stance.fixed)) > _SLACK
    }
    return kept, crowded


def within_constraints(
    plan: Sequence[Decision],
    constraints: Sequence[Constraint],
    lows: Mapping[str, int],
    fixed: Collection[str] = (),
) -> list[Decision]:
    """The plan, cut in the order that each constraint states until all are kept, as far as that goes.

    Services that are left alone or advised count as they are and aren't cut. A service that is held is cut no
    lower than its current replicas, because its data are in doubt; any other no lower than its minimum.
    Constraints are kept one after the other; a later one only cuts more.

    Args:
        plan: one decision per service.
        constraints: those of the settings.
        lows: service -> the fewest replicas that it may be cut to.
        fixed: services whose replicas somebody else decides.
    """
    decided = {item.service: item for item in plan}
    for constraint in constraints:
        for service in constraint.reduce:
            item, excess = decided.get(service), excess_of(constraint, decided, fixed)
            if item is None or excess <= _SLACK or _untouchable(item, fixed):
                continue
            low = max(lows[service], item.current if item.reason in HELD else 1)
            cut = max(item.target - math.ceil(excess / constraint.takes[service] - _SLACK), low)
            if cut < item.target:
                bound = f"constraint {constraint.name}"
                decided[service] = replace(item, target=cut, reason=Reason.CONSTRAINT, bound_by=bound)
    return [decided[item.service] for item in plan]


def excess_of(constraint: Constraint, decided: Mapping[str, Decision], fixed: Collection[str] = ()) -> float:
    """By how much the plan takes more than there is; 0 or less: it fits."""
    taken = sum(
        takes * (item.current if _untouchable(item, fixed) else item.target)
        for service, takes in constraint.takes.items()
        if (item := decided.get(service)) is not None
    )
    return taken - constraint.at_most


def _untouchable(item: Decision, fixed: Collection[str]) -> bool:
    return item.reason in LEFT_ALONE or item.service in fixed
