"""The policy `predictive_hpa`: Holt-Winters over the recommendations of an HPA, and the maximum of both.

Source: predictive-horizontal-pod-autoscaler (decision type `maximum`, model Holt-Winters).
Differs: the length of the season is found live, as nobody states it; without a season it is Holt's linear
method. It looks ahead by the start-up of a pod and one sync, not by one sync, so the trend is smoothed more
than in that project's example (0.1, not 0.9).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deepscaler.cluster import Pod, Workload
from deepscaler.planning.seasons import find_season
from deepscaler.policies.hpa.policy import HpaPolicy
from deepscaler.policies.hpa.recommendation import Measured
from deepscaler.policies.hpa.spec import HpaSpec
from deepscaler.settings import Settings

LEVEL, TREND, SEASONAL = 0.9, 0.1, 0.9
"""Smoothing of the level, of the trend and of the season: α, β and γ."""


class PredictiveHpaPolicy(HpaPolicy):
    """An HPA that takes the larger of its recommendation and of what the recommendations are heading for.

    Windows, limits and tolerances of the HPA stay as they are.

    Args:
        percent: target utilisation in percent of the CPU limit.
        settings: those of the application.
        name: name of the policy in run directories.
    """

    def __init__(self, percent: int, settings: Settings, name: str = "predictive_hpa") -> None:
        super().__init__(percent, settings)
        self.name = name
        self._most = round(settings.scale.plan.history / self.period_seconds)
        self._asked: dict[str, list[float]] = {}
        self._boot_seconds = settings.process.boot_seconds

    def _measure(self, workload: Workload, pods: Sequence[Pod], now: float) -> tuple[HpaSpec, Measured]:
        spec, measured = super()._measure(workload, pods, now)
        if measured.replicas is None:
            return spec, measured
        asked = self._asked.setdefault(workload.service, [])
        asked.append(float(measured.replicas))
        del asked[: -self._most]
        boot = workload.boot_seconds or self._boot_seconds.get(workload.service, 0.0)
        predicted = predict(asked, self.period_seconds, boot)
        return spec, replace(measured, replicas=max(measured.replicas, predicted))


def predict(asked: Sequence[float], step: float, boot_seconds: float) -> int:
    """Replicas that the recommendations are heading for until a pod started now is ready.

    Args:
        asked: recommendations, one per sync.
        step: seconds between syncs.
        boot_seconds: start-up of a pod.
    """
    season = find_season(np.array(asked), step)
    ahead = math.ceil(boot_seconds / step) + 1
    forecast = holt_winters(asked, 0 if season is None else round(season.rows), ahead)
    return max(math.ceil(max(forecast) - 1e-6), 1)


def holt_winters(values: Sequence[float], season: int, ahead: int) -> list[float]:
    """The next `ahead` values by additive smoothing of level, trend and season.

    It starts from the mean of the first season and what that season differs from it.

    Args:
        values: the series, at least one value and one season long.
        season: rows per season; 0: there is none, and it is Holt's linear method.
        ahead: how many values.

    Source: Holt 1957, Winters 1960.
    """
    start = values[: max(season, 1)]
    level, trend = sum(start) / len(start), 0.0
    seasonal = [value - level for value in start] if season else [0.0]
    for row in range(len(start), len(values)):
        slot, before = row % len(seasonal), level
        level = LEVEL * (values[row] - seasonal[slot]) + (1 - LEVEL) * (level + trend)
        trend = TREND * (level - before) + (1 - TREND) * trend
        if season:
            seasonal[slot] = SEASONAL * (values[row] - level) + (1 - SEASONAL) * seasonal[slot]
    rows = range(len(values), len(values) + ahead)
    return [level + trend * (1 + index) + seasonal[row % len(seasonal)] for index, row in enumerate(rows)]
