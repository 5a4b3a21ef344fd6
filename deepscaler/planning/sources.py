"""Which sources of scenarios there are, and the mixtures of them that are followed on trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepscaler.planning.days import LongSeasons
from deepscaler.planning.live import LivePast, LiveSeason, NoSeason
from deepscaler.planning.scenarios import (
    ANALOGS,
    NETWORK,
    SEASON,
    TOGETHER,
    Moment,
    Scenarios,
    ScenarioSource,
)
from deepscaler.planning.trials import Trials

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """What is asked of every source.

    Attributes:
        horizon: H, rows that scenarios look ahead.
        count: M, number of scenarios.
        step: seconds per row, and between decisions.
        entries: columns of the entry services; their sum is the load.
        usual: `[N]` requests of each service per request of all entries, as the demand fit tells.
    """

    horizon: int
    count: int
    step: float
    entries: Sequence[int]
    usual: Array


def on_trial(asked: Asked, learned: Mapping[str, ScenarioSource], *, seasons: bool = True) -> Trials:
    """A live season, the live past, earlier days and the sources of a bundle, followed on trial.

    Args:
        asked: what is asked of them.
        learned: `NETWORK` and, where the bundle keeps moments of its training, `ANALOGS`; empty without one.
        seasons: False for no live season, for comparison.
    """
    horizon, count, step, entries = asked.horizon, asked.count, asked.step, asked.entries
    live: dict[str, ScenarioSource] = {
        "past": LivePast(horizon, count, step, entries),
        "day": LongSeasons(horizon, count, step, entries, asked.usual),
    }
    mixtures = {TOGETHER: (*live, *learned)}
    if ANALOGS in learned:  # courses that really happened; the quantiles are rather wide, and wait for proof
        mixtures = {TOGETHER: (*live, ANALOGS), f"{TOGETHER}_with_{NETWORK}": (*live, NETWORK)}
    season: ScenarioSource = LiveSeason(horizon, step, entries) if seasons else NoSeason()
    return Trials(Together(season, {**live, **learned}, mixtures), step)


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
