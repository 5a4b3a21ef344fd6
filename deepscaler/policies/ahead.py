"""The policies `season`, `queueing_persistence` and `queueing_trend`: the `required` rule on rates to come.

Each says which rate every service will have seen until a replica that is started now is ready, and the
`required` rule turns these rates into replicas. They differ in nothing but that rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deepscaler.cluster import Workload
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.history import offered_history, since_first_request
from deepscaler.labels.rule import required_replicas
from deepscaler.planning.live import trailing_means
from deepscaler.planning.seasons import find_season
from deepscaler.policies.base import Observation, Policy, Proposal, Reason
from deepscaler.policies.reactive import ReactiveFloor, limits_now

Array = NDArray[np.float64]
Highest = Callable[[Array, list[int], float, Array], Array | None]
"""From the means `[L, N]` of the offered rates, the entries' columns, seconds per row and `[N]` start-up
times to the highest rate `[N]` of each service until a replica started now is ready; None if unknown.
"""
MEAN_SECONDS = 30.0
"""Rates are means over this long, as those of the floor are."""
BEHIND_SECONDS = 60.0
"""The rule covers the minute behind as well: means hide both edges of a step."""
BEYOND_SECONDS = 75.0
"""The rule reaches this far past the start-up of a pod: a minute and one tick."""
TREND_SECONDS = 300.0
CYCLES = 3
"""A season's rates are the highest of up to this many periods back."""


class Ahead(Policy):
    """The rule at the rates that `highest` says are to come, over the floor where there is one.

    Args:
        model: the demand fit.
        highest: says which rates are to come.
        floor: the reactive floor; None: the rule decides alone.
        history_seconds: how much of the past `highest` reads.
        step: seconds between samples, and between decisions.
        rho_max: highest utilisation of the CPU limit; None: the bounds of the fit.
        name: name of the policy in run directories.
    """

    guarded = True

    def __init__(
        self,
        model: DemandModel,
        highest: Highest,
        *,
        floor: ReactiveFloor | None,
        history_seconds: float,
        step: float,
        rho_max: float | None,
        name: str,
    ) -> None:
        self.name, self.period_seconds = name, step
        self.history_seconds = max(history_seconds, floor.history_seconds if floor else 0.0)
        self._model, self._highest, self._floor, self._rho_max = model, highest, floor, rho_max
        self._boot_seconds = np.nan_to_num(model.boot_seconds)

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """The larger of the rule and the floor, for every live service."""
        floors = self._floor.replicas(observation) if self._floor else {}
        needed = self._needed(observation)
        return {
            item.service: _proposal(item, needed.get(item.service), floors.get(item.service))
            for item in observation.workloads
        }

    def _needed(self, observation: Observation) -> dict[str, float]:
        """Replicas by service; those that can't be told are left out."""
        panel = since_first_request(self._model, observation.panel)
        usable = len(panel) and {"req", "res"} <= set(panel.features)
        rates = offered_history(self._model, panel) if usable else None
        if rates is None:
            return {}
        step = self.period_seconds
        means = trailing_means(rates, max(round(MEAN_SECONDS / step), 1))
        highest = self._highest(means, self._model.entry_columns, step, self._boot_seconds)
        if highest is None:
            return {}
        model = replace(self._model, limit_cores=limits_now(self._model, observation.workloads))
        replicas = required_replicas(model, highest[None], self._rho_max)[0]
        return {
            service: value
            for service, value in zip(model.services, replicas.tolist(), strict=True)
            if math.isfinite(value)
        }


def _proposal(workload: Workload, needed: float | None, floor: float | None) -> Proposal:
    if needed is None:
        return Proposal(floor, Reason.HELD_MISSING if floor is None else Reason.FLOOR, floor=floor)
    if floor is not None and floor > needed:
        return Proposal(floor, Reason.FLOOR, needed, floor)
    return Proposal(needed, Reason.FORECAST, needed, floor)


def persisting(means: Array, entries: list[int], step: float, boot_seconds: Array) -> Array:
    """The rate goes on: the highest mean of the last minute, `[N]`."""
    last: Array = means[-max(round(BEHIND_SECONDS / step), 1) :].max(axis=0)
    return last


def following_the_trend(means: Array, entries: list[int], step: float, boot_seconds: Array) -> Array:
    """The line through the last five minutes goes on until a replica is ready; at least `persisting`."""
    recent = means[-max(round(TREND_SECONDS / step), 2) :]
    ages = step * np.arange(1 - len(recent), 1)  # seconds, 0 is now
    centred = ages - ages.mean()
    slope = centred @ recent / max(float(centred @ centred), 1e-12)  # [N], 1/s per second
    ahead = recent.mean(axis=0) + slope * (boot_seconds + BEYOND_SECONDS - ages.mean())
    highest: Array = np.maximum(ahead, persisting(means, entries, step, boot_seconds))
    return highest


def a_season_ago(means: Array, entries: list[int], step: float, boot_seconds: Array) -> Array | None:
    """The highest rate `[N]` in (now - 30 s, now + start-up + 75 s] one, two and three periods ago.

    The period is that of the entries' rate; None where it doesn't repeat.
    """
    season = find_season(means[:, entries].sum(axis=1), step)
    if season is None:
        return None
    newest = len(means) - 1
    first = 1 - round(MEAN_SECONDS / step)
    highest = np.zeros(means.shape[1])
    for service, boot in enumerate(boot_seconds.tolist()):
        last = round((boot + BEYOND_SECONDS) / step)
        for cycle in range(1, CYCLES + 1):
            moment = newest - round(cycle * season.rows)
            rows = means[max(moment + first, 0) : max(min(moment + last, newest) + 1, 0), service]
            highest[service] = max(highest[service], rows.max(initial=0.0))
    return highest
