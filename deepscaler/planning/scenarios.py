"""Scenarios: sampled courses of all services' request rates over the next minutes.

A scenario is drawn for all services at once: it copies what the whole application did after one moment of a
past, so that services rise and fall together as they did then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepscaler.load_history import LoadHistory
from deepscaler.panel import MetricPanel
from deepscaler.planning.plan import Prices, Running

Array = NDArray[np.float64]

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
