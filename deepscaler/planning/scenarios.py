"""Scenarios: sampled courses of all services' request rates over the next minutes, from live history.

A scenario is drawn for all services at once: it copies what the whole application did after one moment of its
past, so that services rise and fall together as they did then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepscaler.load_history import LoadHistory
from deepscaler.panel import MetricPanel
from deepscaler.planning.plan import Prices, Running
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


TOGETHER = "together"
"""Name of the way of foreseeing that leads until another one has proved cheaper: a mixture of sources."""
ANALOGS = "analogs"
"""Name of the source and way of foreseeing by what followed moments of a training."""
NETWORK = "network"
"""Name of the source and way of foreseeing by a network's quantiles."""
SEASON = "season"
"""Name of the source and way of foreseeing by a short season."""
SURPRISE = 0.25
"""Surprise of scenarios from past increments; chosen on validation seeds, see docs/planning.md."""

NETWORK_SURPRISE = 0.25
"""Surprise of a network's scenarios: that of past increments, taken over. With 0 far too little was held."""

LEAST_RATE = 1e-6
"""Requests per second that stand for no load at all where something is divided by a level."""


@dataclass(frozen=True, eq=False)
class Scenarios:
    """What may come.

    Attributes:
        rates: `[M, H, N]` requests per second of each service in each of the next H steps.
        weights: `[M]` weight of each scenario; they add up to 1.
        source: where they come from: `season`, `bootstrap`, `truth`.
        surprise: share of what comes that nobody can foresee even shortly before, see `plan_replicas`.
        parts: (source, number of its scenarios) in their order, if there are several sources.
        season_seconds: the period, if the load repeats.
    """

    rates: Array
    weights: Array
    source: str
    surprise: float = 0.0
    parts: tuple[tuple[str, int], ...] = ()
    season_seconds: float | None = None

    def by_source(self) -> dict[str, slice]:
        """Source -> its scenarios."""
        found, first = dict[str, slice](), 0
        for name, count in self.parts or ((self.source, len(self.weights)),):
            found[name] = slice(first, first + count)
            first += count
        return found


@dataclass(frozen=True, eq=False)
class Desk:
    """What it takes to tell what following some scenarios would have cost.

    Attributes:
        needed: `[N]` replicas that the newest rates need.
        running: what runs now.
        limits: `[N]` CPU limits in cores.
        boot_seconds: `[N]` start-up times.
        prices: of a shortage and a start.
        decide: replicas `[N]` that scenarios lead to, from what runs.
    """

    needed: NDArray[np.int64]
    running: Running
    limits: Array
    boot_seconds: Array
    prices: Prices
    decide: Callable[[Scenarios, Running], NDArray[np.int64]]

    @property
    def worth(self) -> float:
        """Cores of the replicas that are needed now: what costs are told in multiples of."""
        return max(float(self.limits @ self.needed), LEAST_RATE)


@dataclass(frozen=True, eq=False)
class Moment:
    """What a source of scenarios is told.

    Attributes:
        now: seconds since the epoch.
        rates: offered rates `[L, N]` up to now, without gaps.
        panel: the metrics that they come from.
        desk: for sources that judge themselves by what they would have cost; None if nobody plans.
        load: the load of the last weeks, if it is known.
    """

    now: float
    rates: Array
    panel: MetricPanel
    desk: Desk | None = None
    load: LoadHistory | None = None


class ScenarioSource(Protocol):
    """Something that says what may come."""

    def scenarios(self, moment: Moment) -> Scenarios | None:
        """What may come; None if unknown."""
        ...


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


class Together:
    """Ways of foreseeing: mixtures of sources, a season if there is one, and each source alone.

    What no source knows alone is among the scenarios of a mixture: the live past knows the noise and the
    bursts of this very load, a network how loads of its kind go on, earlier days what comes at this hour.
    Without a season, and for a source that knows nothing, their ways are the first mixture.

    Args:
        season: finds out whether the load repeats.
        sources: name -> source.
        mixtures: name -> sources, of which each has the same weight in it; all of them make up `TOGETHER` by
            default.
    """

    def __init__(
        self,
        season: ScenarioSource,
        sources: Mapping[str, ScenarioSource],
        mixtures: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._season, self._sources = season, dict(sources)
        self._mixtures = {TOGETHER: tuple(sources)} if mixtures is None else dict(mixtures)

    def ways(self, moment: Moment) -> Mapping[str, Scenarios]:
        """See `deepscaler.planning.trials.Ways`: the mixtures, `season`, and the names of the sources."""
        found = {name: source.scenarios(moment) for name, source in self._sources.items()}
        known = {
            name: made for name, made in found.items() if made is not None and np.isfinite(made.rates).all()
        }
        season = self._season.scenarios(moment)
        if not known:
            return {} if season is None else dict.fromkeys((*self._mixtures, SEASON, *self._sources), season)
        mixed = self._mixed(known)
        first = next(iter(mixed.values()))
        alone = {name: known.get(name, first) for name in self._sources}
        return {**mixed, SEASON: season or first, **alone}

    def _mixed(self, known: Mapping[str, Scenarios]) -> dict[str, Scenarios]:
        """The mixtures of what is known; those of the same sources are the same object."""
        made, mixed = dict[tuple[str, ...], Scenarios](), dict[str, Scenarios]()
        for name, members in self._mixtures.items():
            there = tuple(one for one in members if one in known) or tuple(known)
            if there not in made:
                made[there] = _evenly([known[one] for one in there])
            mixed[name] = made[there]
        return mixed


def _evenly(parts: Sequence[Scenarios]) -> Scenarios:
    """The scenarios of several sources, each source with the same weight."""
    if len(parts) == 1:
        return parts[0]
    seasons = [part.season_seconds for part in parts if part.season_seconds is not None]
    return Scenarios(
        np.concatenate([part.rates for part in parts]),
        np.concatenate([part.weights for part in parts]) / len(parts),
        " and ".join(part.source for part in parts),
        float(np.mean([part.surprise for part in parts])),
        tuple((part.source, len(part.rates)) for part in parts),
        seasons[0] if seasons else None,
    )


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
