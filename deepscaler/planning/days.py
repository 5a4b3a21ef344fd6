"""Scenarios from long seasons, such as days and weeks: what the load did at this time on earlier days.

Of weeks only the load of all entries is kept, minute by minute. What it did after this time of an earlier day
is a good guess of what comes in the next minutes, even on a day that is busier or calmer as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepscaler.load_history import LoadHistory
from deepscaler.planning.live import anchors, trailing_means
from deepscaler.planning.scenarios import LEAST_RATE, Moment, Scenarios
from deepscaler.planning.seasons import Season, find_season

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

SHORTEST_SECONDS = 3 * 3600.0
"""Shorter seasons are found in the samples of the last hours."""
RENEWED_SECONDS = 600.0
"""The season is looked for anew so often."""
DAYS = 6
"""Courses are taken from at most this many periods back."""
LIKE_SECONDS = 3600.0
"""A day weighs by how well its last hour went like the last hour of today."""
LONGEST_GAP = 5
"""So many missing minutes are bridged; a day with a longer gap at this time is left out."""
JITTER_SECONDS = (0.0, -60.0, 60.0)
"""A day's course is taken as it was, and somewhat earlier and later."""
RIPPLE_SECONDS = 60.0
"""Ripples are deviations from the mean of this long."""
DAY_SURPRISE = 0.25
"""Surprise of what a season doesn't foresee: as that of past increments."""


class LongSeasons:
    """Scenarios from what the load did one period ago, two periods ago and so on, with the ripple of now.

    The services share the rise and fall of the load in proportion to their present rates.

    Args:
        horizon: H, rows that scenarios look ahead.
        count: M, number of scenarios.
        step: seconds per row.
        entries: columns of the entry services.
        usual: `[N]` requests of each service per request of all entries, for moments without any.
    """

    def __init__(self, horizon: int, count: int, step: float, entries: Sequence[int], usual: Array) -> None:
        self._horizon, self._count, self._step, self._entries = horizon, count, step, list(entries)
        self._usual = usual
        self._season: Season | None = None
        self._looked = -np.inf

    def scenarios(self, moment: Moment) -> Scenarios | None:
        """See `ScenarioSource`; None without a long history, or if it doesn't repeat."""
        rates = moment.rates
        if moment.load is None or len(rates) <= self._horizon:
            return None
        past = moment.load.since_known().bridged(LONGEST_GAP)
        if not len(past.load):
            return None
        if not 0.0 <= moment.now - self._looked < RENEWED_SECONDS:
            self._season, self._looked = find_season(past.load, past.step, SHORTEST_SECONDS), moment.now
        if self._season is None:
            return None
        period = self._season.rows * past.step
        load = rates[:, self._entries].sum(axis=1)
        ahead = self._step * np.arange(1, self._horizon + 1)
        days, weights = like_today(past, moment.now, period, float(ahead[-1]))
        if not len(days):
            return None
        turns = np.arange(self._count)
        chosen = days[turns % len(days)]
        jitter = np.array(JITTER_SECONDS)[turns // len(days) % len(JITTER_SECONDS)]
        before = moment.now - chosen * period + jitter
        rises = past.at(before[:, None] + ahead) - past.at(before)[:, None]  # [M, H]
        level = anchors(rates, load, self._step)[-1]  # [N]
        entering = float(level[self._entries].sum())
        shares = level / entering if entering > LEAST_RATE else self._usual
        courses = level + rises[:, :, None] * shares + self._ripples(rates)
        share = weights[turns % len(days)]
        return Scenarios(
            np.maximum(courses, 0.0), share / share.sum(), "day", DAY_SURPRISE, season_seconds=period
        )

    def _ripples(self, rates: Array) -> Array:
        """How the rates deviated from their means after moments of the past, `[M, H, N]`."""
        apart = rates - trailing_means(rates, max(round(RIPPLE_SECONDS / self._step), 1))
        last = len(rates) - self._horizon
        first: Rows = np.floor((np.arange(self._count) + 0.5) * last / self._count).astype(np.int64)
        ripples: Array = apart[first[:, None] + np.arange(self._horizon)]
        return ripples


def like_today(past: LoadHistory, now: float, period: float, ahead: float) -> tuple[Rows, Array]:
    """Which periods back are known in the hour before this time and `ahead` seconds after, and their weights.

    A day weighs the more, the less its rises and falls of that hour differ from today's. Both `[D]`.
    """
    days: Rows = np.arange(1, DAYS + 1)
    widest = max(JITTER_SECONDS)
    hour = np.arange(-LIKE_SECONDS, 1.0, past.step)
    starts = now - days * period
    whole = past.at(starts[:, None] + np.arange(-LIKE_SECONDS, ahead + widest + past.step, past.step))
    today, then = past.at(now + hour), past.at(starts[:, None] + hour)  # [K], [D, K]
    known = np.isfinite(whole).all(axis=1)
    apart = (then - then.mean(axis=1, keepdims=True)) - (today - np.nanmean(today)) if known.any() else then
    both = np.isfinite(apart)
    distance = np.where(both, apart, 0.0) ** 2
    mean = distance.sum(axis=1) / np.maximum(both.sum(axis=1), 1)
    mean = mean[known]
    return days[known], 1.0 / np.maximum(mean, max(float(mean.min(initial=np.inf)), LEAST_RATE**2))
