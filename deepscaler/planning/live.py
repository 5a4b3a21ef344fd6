"""Scenarios from the last hours: the season that they have, and what followed their moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deepscaler.planning.scenarios import LEAST_RATE, SEASON, SURPRISE, Moment, Scenarios
from deepscaler.planning.seasons import Season, find_season

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

LEAST_PAST_SECONDS = 180.0
"""A scenario needs at least this much history beyond its own length."""
LEVEL_SECONDS = 60.0
"""The present level of a season is the mean of the last minute."""
SHIFT_SECONDS = 60.0
"""The difference between now and a period ago fades with this time constant."""
CYCLES = 6
"""A season's courses are taken from at most this many periods back."""
TREND_SECONDS = 300.0
"""The trend is the present level against the mean of the last five minutes."""
LIKENESS = np.array([1.0, 0.5])
"""Weights of the trend and the level in how alike two moments are."""
NEAREST_SHARE = 0.2
"""The most alike moments are this share of the history."""
ANCHOR_ROWS = (1, 2, 4, 8, 16)
"""Lengths, in rows, of the mean that may stand for the present level."""
AHEAD_SECONDS = 60.0
"""The mean that told the next minute best so far is taken."""
USUAL = 0.95
"""A ripple up to this quantile of all past ripples is usual; what goes beyond it is a step."""
BEYOND_KNOWN = 0.25
"""A course above every rate seen so far counts only to this share of what exceeds it."""


class LiveSeason:
    """Scenarios of a load that repeats: what followed one period ago, two periods ago and so on.

    The period is found in the live history, anew at each moment.

    Args:
        horizon: H, rows that scenarios look ahead.
        step: seconds per row.
        entries: columns of the entry services; their sum is the load that seasons are looked for in.
    """

    def __init__(self, horizon: int, step: float, entries: Sequence[int]) -> None:
        self._horizon, self._step, self._entries = horizon, step, list(entries)

    def scenarios(self, moment: Moment) -> Scenarios | None:
        """See `ScenarioSource`; None if the load doesn't repeat."""
        rates = moment.rates
        if len(rates) < self._horizon + round(LEAST_PAST_SECONDS / self._step):
            return None
        season = find_season(rates[:, self._entries].sum(axis=1), self._step)
        if season is None:
            return None
        courses = seasonal(rates, season, self._horizon, self._step)
        return replace(_alike(courses, SEASON, 0.0), season_seconds=season.rows * self._step)


class NoSeason:
    """Stands for a season where none is looked for."""

    def scenarios(self, moment: Moment) -> Scenarios | None:
        """See `ScenarioSource`."""
        return None


class LivePast:
    """Scenarios that followed moments of the live history, moved to the present level.

    Args:
        horizon: H, rows that scenarios look ahead.
        count: M, number of scenarios.
        step: seconds per row.
        entries: columns of the entry services; by their sum moments are told alike.
    """

    def __init__(self, horizon: int, count: int, step: float, entries: Sequence[int]) -> None:
        self._horizon, self._count, self._step, self._entries = horizon, count, step, list(entries)

    def scenarios(self, moment: Moment) -> Scenarios | None:
        """See `ScenarioSource`; None while the history is short."""
        rates = moment.rates
        if len(rates) < self._horizon + round(LEAST_PAST_SECONDS / self._step):
            return None
        load = rates[:, self._entries].sum(axis=1)
        return _alike(bootstrap(rates, load, self._horizon, self._count, self._step), "bootstrap", SURPRISE)


def _alike(courses: Array, source: str, surprise: float) -> Scenarios:
    return Scenarios(courses, np.full(len(courses), 1.0 / len(courses)), source, surprise)


def seasonal(rates: Array, season: Season, horizon: int, step: float) -> Array:
    """What followed one period ago, two periods ago and so on, `[M, H, N]` with M up to `CYCLES`.

    Each course is moved to the present level. The move fades within a minute or two, so that a phase which
    differs a little isn't carried on. A course that would run past now continues a period earlier.

    Args:
        rates: `[L, N]` history without gaps.
        season: the period.
        horizon: H rows ahead.
        step: seconds per row.
    """
    newest = len(rates) - 1
    level = trailing_means(rates, max(round(LEVEL_SECONDS / step), 1))
    cycles = np.arange(1, CYCLES + 1)
    moments = newest - np.rint(cycles[cycles * season.rows <= newest] * season.rows).astype(np.int64)  # [M]
    ahead = moments[:, None] + 1 + np.arange(horizon)  # [M, H]
    beyond = np.ceil(np.maximum(ahead - newest, 0) / season.rows)
    ahead = ahead - np.rint(beyond * season.rows).astype(np.int64)
    fade = np.exp(-step * np.arange(1, horizon + 1) / SHIFT_SECONDS)[:, None]
    courses: Array = np.maximum(rates[ahead] + (level[-1] - level[moments])[:, None] * fade, 0.0)
    return courses


def bootstrap(rates: Array, load: Array, horizon: int, count: int, step: float) -> Array:
    """The present level plus what the rates did after moments of the past, `[M, H, N]`.

    Half of the moments are spread evenly over the past: noise and jumps come as often as they did. The other
    half are those whose trend and level were most like now. Nothing is drawn at random, so that a decision
    doesn't flicker from tick to tick.

    Args:
        rates: `[L, N]` history without gaps, longer than the horizon.
        load: `[L]` the load that likeness is told by.
        horizon: H rows ahead.
        count: M scenarios.
        step: seconds per row.
    """
    anchor = anchors(rates, load, step)  # [L, N]
    level = anchor.sum(axis=1)
    long = trailing_means(load[:, None], max(round(TREND_SECONDS / step), 1))[:, 0]
    here, usual = max(level[-1], LEAST_RATE), max(long[-1], LEAST_RATE)
    features = np.stack([level / here - long / usual, level / here], axis=1)  # [L, 2]
    past = features[: len(rates) - horizon]
    apart = ((past - features[-1]) / np.maximum(past.std(axis=0), 1e-3)) ** 2 @ LIKENESS
    alike = np.argsort(apart, kind="stable")[: max(int(NEAREST_SHARE * len(past)), 1)]
    moments = np.concatenate([_spread(np.arange(len(past)), count // 2), _spread(alike, count - count // 2)])
    ahead = moments[:, None] + 1 + np.arange(horizon)  # [M, H]
    courses = anchor[-1] + rates[ahead] - anchor[moments][:, None]
    known = np.maximum(rates.max(axis=0), anchor[-1])
    courses = np.minimum(courses, known) + BEYOND_KNOWN * np.maximum(courses - known, 0.0)
    above: Array = np.maximum(courses, 0.0)
    return above


def anchors(rates: Array, load: Array, step: float) -> Array:
    """The level that each row stands at, `[L, N]`: a trailing mean, moved by what exceeds the usual ripple.

    The length of the mean is the one that would have told the next minute best so far: one row on a load that
    moves, many rows on noise. A deviation from the mean beyond `USUAL` of all past ones is a step, not a
    ripple, and counts at once.
    """
    lag = max(round(AHEAD_SECONDS / step), 1)
    ahead = trailing_means(load[:, None], lag)[:, 0][lag:]  # the mean of the minute after each row
    best, least = rates, np.inf
    for rows in ANCHOR_ROWS:
        mean = trailing_means(load[:, None], rows)[:, 0]
        ripple = load - mean
        size = np.abs(ripple)
        share = np.maximum(size - np.quantile(size, USUAL), 0.0) / np.maximum(size, 1e-12)
        error = float(np.abs(ahead - (mean + share * ripple)[:-lag]).mean()) if len(load) > lag else 0.0
        if error < least:
            means, least = trailing_means(rates, rows), error
            best = means + share[:, None] * (rates - means)
    return best


def trailing_means(values: Array, rows: int) -> Array:
    """Means `[L, N]` of the last `rows` rows up to each row; the first rows use what there is."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    high = np.arange(1, len(values) + 1)
    low = np.maximum(high - rows, 0)
    means: Array = (sums[high] - sums[low]) / (high - low)[:, None]
    return means


def _spread(values: Rows, count: int) -> Rows:
    """`count` of the values, evenly spread; repeated if there are fewer."""
    return values[np.floor((np.arange(count) + 0.5) * len(values) / count).astype(np.int64)]
