"""Scenarios of the policy `plan_analog`: what followed the moments of the past that were most like now."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepscaler.planning.live import trailing_means
from deepscaler.planning.scenarios import SURPRISE, Moment, Scenarios

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
LIKE_SECONDS = 360.0
"""Moments are alike if all services did the same over this long before them."""
APART_SECONDS = 60.0
"""Of moments closer together than this, only the one most like now counts."""
LEVEL_SECONDS = 60.0
"""A course starts from the mean of the last minute."""


class AnalogHistory:
    """Scenarios from the moments whose last six minutes, of all services, were most like the last six.

    A moment weighs less the less it is like now: `exp(-d² / d0²)`, with d its distance in standard deviations
    of each service's rate and d0 the first quartile of those chosen.

    Args:
        horizon: H, rows that scenarios look ahead.
        count: M, most scenarios.
        step: seconds per row.
    """

    def __init__(self, horizon: int, count: int, step: float) -> None:
        self._horizon, self._count, self._step = horizon, count, step

    def scenarios(self, moment: Moment) -> Scenarios | None:
        """See `ScenarioSource`."""
        rates = moment.rates
        window = max(round(LIKE_SECONDS / self._step), 1)
        distances = distances_to_now(rates, window)[: -self._horizon]  # what follows them is known
        if not np.isfinite(distances).any():
            return None
        moments = nearest(distances, self._count, max(round(APART_SECONDS / self._step), 1))
        level = trailing_means(rates, max(round(LEVEL_SECONDS / self._step), 1))
        ahead = moments[:, None] + 1 + np.arange(self._horizon)  # [M, H]
        courses = np.maximum(level[-1] + rates[ahead] - level[moments][:, None], 0.0)  # [M, H, N]
        usual = max(float(np.quantile(distances[moments], 0.25)), 1e-12)
        weights = np.exp(-(distances[moments] - distances[moments].min()) / usual)
        return Scenarios(courses, weights / weights.sum(), "analog", SURPRISE)


def distances_to_now(rates: Array, window: int) -> Array:
    """`[L]` squared distance of the `window` rows up to each row from the newest ones; inf before the first.

    Args:
        rates: `[L, N]`; each service counts in units of its own standard deviation.
        window: rows that are compared.
    """
    deviation = rates.std(axis=0)
    scores = rates / np.where(deviation > 1e-9, deviation, np.inf)
    found = np.full(len(rates), np.inf)
    if len(rates) >= window:
        found[window - 1 :] = 0.0
        for back in range(window):
            apart = scores[window - 1 - back : len(scores) - back] - scores[-1 - back]
            found[window - 1 :] += (apart**2).sum(axis=1)
    return found


def nearest(distances: Array, count: int, apart: int) -> Rows:
    """Up to `count` rows with the least finite distances, at least `apart` rows from one another."""
    free = np.isfinite(distances)
    chosen: list[int] = []
    for row in np.argsort(distances, kind="stable").tolist():
        if len(chosen) == count:
            break
        if free[row]:
            chosen.append(row)
            free[max(row - apart + 1, 0) : row + apart] = False
    return np.array(chosen, np.int64)
