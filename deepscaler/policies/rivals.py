"""The policies that DeepScaler is compared with, by family; a number after `_` is their knob, in percent.

`hpa_70` is a family with a knob, `queueing_trend` one whose knob has a default. `docs/decisions.md` describes
each.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

from deepscaler.learning.description import load_demand
from deepscaler.policies.ahead import (
    TREND_SECONDS,
    Ahead,
    Highest,
    a_season_ago,
    following_the_trend,
    persisting,
)
from deepscaler.policies.base import Policy
from deepscaler.policies.calls import recorded_calls
from deepscaler.policies.pbscaler import PbScalerPolicy
from deepscaler.policies.reactive import ReactiveFloor
from deepscaler.policies.showar import ShowarPolicy
from deepscaler.policies.tracking import TargetTrackingPolicy
from deepscaler.runs import PolicyName
from deepscaler.settings import Settings

DEFAULT_TARGET = 70
"""Percent of the CPU limit that targets have where the name states none."""


@dataclass(frozen=True)
class Asked:
    """A rival as it was asked for.

    Attributes:
        name: as the user writes it.
        percent: the number after `_`; None without one.
        settings: those of the application.
    """

    name: str
    percent: int | None
    settings: Settings

    def rho_max(self) -> float | None:
        """Highest utilisation of the CPU limit: the number as a share, or else that of the floor.

        None where the floor leaves it to the demand fit.
        """
        return self.settings.scale.floor.stated_rho_max if self.percent is None else self.percent / 100


@dataclass(frozen=True)
class Family:
    """Rivals that differ in one number.

    Attributes:
        make: makes a member.
        numbers: the numbers that its names may end in; None stands for no number.
    """

    make: Callable[[Asked], Policy]
    numbers: Container[int | None]


class _Percentages(Container[int | None]):
    """Percentages above 0 and up to `most`, and no number at all where that is allowed."""

    def __init__(self, most: int, *, needed: bool = False) -> None:
        self._most, self._needed = most, needed

    def __contains__(self, number: object) -> bool:
        return not self._needed if number is None else isinstance(number, int) and 0 < number <= self._most


def is_rival(asked: PolicyName) -> bool:
    """Whether there is a rival of that name."""
    family, knob = RIVALS.get(asked.family), asked.knob
    if family is None or (knob is not None and not knob.is_integer()):
        return False
    return (None if knob is None else int(knob)) in family.numbers


def make_rival(asked: PolicyName, settings: Settings) -> Policy | None:
    """The rival of that name; None where there is none.

    Raises:
        DataError: the demand fit or the recorded calls that it needs are missing; the message names the
            command.
    """
    if not is_rival(asked):
        return None
    percent = None if asked.knob is None else int(asked.knob)
    return RIVALS[asked.family].make(Asked(asked.text, percent, settings))


def _hpa(asked: Asked) -> Policy:
    from deepscaler.policies.hpa.policy import HpaPolicy

    return HpaPolicy(asked.percent or DEFAULT_TARGET, asked.settings)


def _hpa_of_request(asked: Asked) -> Policy:
    from deepscaler.policies.hpa.policy import HpaPolicy

    return HpaPolicy(asked.percent or DEFAULT_TARGET, asked.settings, of_request=True)


def _predictive_hpa(asked: Asked) -> Policy:
    from deepscaler.policies.hpa.predictive import PredictiveHpaPolicy

    return PredictiveHpaPolicy(asked.percent or DEFAULT_TARGET, asked.settings, asked.name)


def _target_tracking(asked: Asked) -> Policy:
    return TargetTrackingPolicy(asked.percent or DEFAULT_TARGET, asked.name)


def _season(asked: Asked) -> Policy:
    scale, model = asked.settings.scale, load_demand(asked.settings)
    return Ahead(
        model,
        a_season_ago,
        floor=ReactiveFloor(model, scale.floor),
        history_seconds=scale.plan.history,
        step=asked.settings.collect.step,
        rho_max=asked.rho_max(),
        name=asked.name,
    )


def _queueing_persistence(asked: Asked) -> Policy:
    return _queueing(asked, persisting)


def _queueing_trend(asked: Asked) -> Policy:
    return _queueing(asked, following_the_trend)


def _queueing(asked: Asked, highest: Highest) -> Policy:
    return Ahead(
        load_demand(asked.settings),
        highest,
        floor=None,
        history_seconds=TREND_SECONDS,
        step=asked.settings.collect.step,
        rho_max=asked.rho_max(),
        name=asked.name,
    )


def _showar(asked: Asked) -> Policy:
    sla = min(entry.sla for entry in asked.settings.app.entries)
    return ShowarPolicy(sla, recorded_calls(asked.settings))


def _pbscaler(asked: Asked) -> Policy:
    settings = asked.settings
    bounds = settings.scale.guard_rails.bounds
    return PbScalerPolicy(load_demand(settings), recorded_calls(settings), bounds)


RIVALS: dict[str, Family] = {
    "hpa": Family(_hpa, _Percentages(1000, needed=True)),
    "hpa_r": Family(_hpa_of_request, _Percentages(1000, needed=True)),
    "predictive_hpa": Family(_predictive_hpa, _Percentages(1000)),
    "target_tracking": Family(_target_tracking, _Percentages(100)),
    "season": Family(_season, _Percentages(99)),
    "queueing_persistence": Family(_queueing_persistence, _Percentages(99)),
    "queueing_trend": Family(_queueing_trend, _Percentages(99)),
    "showar": Family(_showar, (None,)),
    "pbscaler": Family(_pbscaler, (None,)),
}
"""Families by name."""
