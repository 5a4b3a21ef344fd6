"""Which sources of scenarios there are, and the mixtures of them that are followed on trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deepscaler.planning.days import LongSeasons
from deepscaler.planning.scenarios import (
    ANALOGS,
    NETWORK,
    TOGETHER,
    LivePast,
    LiveSeason,
    NoSeason,
    ScenarioSource,
    Together,
)
from deepscaler.planning.trials import Trials


@dataclass(frozen=True)
class Asked:
    """What is asked of every source.

    Attributes:
        horizon: H, rows that scenarios look ahead.
        count: M, number of scenarios.
        step: seconds per row, and between decisions.
        entries: columns of the entry services; their sum is the load.
    """

    horizon: int
    count: int
    step: float
    entries: Sequence[int]


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
        "day": LongSeasons(horizon, count, step, entries),
    }
    mixtures = {TOGETHER: (*live, *learned)}
    if ANALOGS in learned:  # courses that really happened; the quantiles are rather wide, and wait for proof
        mixtures = {TOGETHER: (*live, ANALOGS), f"{TOGETHER}_with_{NETWORK}": (*live, NETWORK)}
    season: ScenarioSource = LiveSeason(horizon, step, entries) if seasons else NoSeason()
    return Trials(Together(season, {**live, **learned}, mixtures), step)
