"""Ways of foreseeing on trial: each is followed on paper, and the one that cost least lately decides.

On paper, replicas start, get ready and stop as a plan over one way's scenarios would have it. What they would
have held, lacked and started is priced like the plan's own choices, so a way is judged by what it is for and
not by how close its curves are. Older cost counts for less.

Source: follow the leader, with discounted losses (Cesa-Bianchi and Lugosi: "Prediction, Learning, and Games",
2006, 2.11 and 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepscaler.planning.paper import Paper
from deepscaler.planning.scenarios import ANALOGS, SEASON, TOGETHER, Desk, Moment, Scenarios

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Memory = dict[tuple[int, bytes, tuple[tuple[float, ...], ...]], Counts]

HALF_LIFE = 7200.0
"""Seconds after which what a way cost counts half."""
HEAD_STARTS = {SEASON: 750.0, TOGETHER: 500.0, ANALOGS: 480.0}
"""What another way has to be cheaper by, in seconds of holding what was needed, to lead instead.

One unforeseen step costs about 500. Being prepared is paid for until it has cost as much as one such step; a
load that is calm until then is taken for calm. Less is cheaper on loads that stay calm, more is safer from a
cold start. Analogs are prepared for such steps, too, so alone they lead soon after that was cheaper than
together with the live past: the training then knew such a load (docs/planning.md).

Source: ski rental, as in Lin, Wierman, Andrew, Thereska (see `deepscaler.planning.plan`).
"""
LONGEST_GAP = 4
"""After a longer pause, in steps, nobody knows what would have been: paper starts again from what runs."""


class Ways(Protocol):
    """Several ways of foreseeing."""

    def ways(self, moment: Moment) -> Mapping[str, Scenarios]:
        """Name -> what may come; always the same names in the same order, or none if nothing is known."""
        ...


class Trials:
    """Scenarios of the way that cost least lately.

    Args:
        ways: the ways of foreseeing; of equals the first leads.
        step: seconds between decisions.
        half_life: seconds after which a cost counts half.
        head_starts: by way, in seconds of holding what was needed; none for others.
    """

    def __init__(
        self,
        ways: Ways,
        step: float,
        *,
        half_life: float = HALF_LIFE,
        head_starts: Mapping[str, float] = HEAD_STARTS,
    ) -> None:
        self._ways, self._step, self._half_life = ways, step, half_life
        self._head_starts = dict(head_starts)
        self._papers: dict[str, Paper] = {}
        self._last = -np.inf
        self.costs: dict[str, float] = {}
        self.led: dict[str, int] = {}

    def scenarios(self, moment: Moment) -> Scenarios | None:
        """See `ScenarioSource`."""
        ways = self._ways.ways(moment)
        if not ways:
            return None
        if len({id(way) for way in ways.values()}) == 1:  # nothing to choose, so nothing to judge
            self._papers.clear()
            return next(iter(ways.values()))
        self._settle(ways, moment)
        chosen = ways[self.leader(_distinct(ways))]
        self.led[chosen.source] = self.led.get(chosen.source, 0) + 1
        if moment.desk is not None:
            self._follow(ways, moment.now, moment.desk)
        return chosen

    def leader(self, names: Sequence[str]) -> str:
        """The way that decides; the first if nothing speaks against it."""
        return min(names, key=lambda name: self.costs.get(name, 0.0) - self._head_starts.get(name, 0.0))

    def describe(self) -> Mapping[str, Any]:
        """How often each source decided; what each way cost lately, in seconds of holding what was needed."""
        return {"led": dict(self.led), "cost_seconds": {name: round(c, 1) for name, c in self.costs.items()}}

    def state(self) -> dict[str, float]:
        """What each way cost lately, to go on from after a restart."""
        return dict(self.costs)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what each way had cost before a restart; what isn't a number is left out.

        How long ago that was doesn't count: nothing was learned since then.
        """
        numbers = {name: cost for name, cost in state.items() if isinstance(cost, int | float)}
        self.costs = {name: float(cost) for name, cost in numbers.items() if np.isfinite(cost)}

    def _settle(self, ways: Mapping[str, Scenarios], moment: Moment) -> None:
        """Charge each way for the time since the last decision."""
        passed, desk = moment.now - self._last, moment.desk
        self._last = moment.now
        if desk is None:
            return
        fading = 0.5 ** (passed / self._half_life) if 0.0 < passed < np.inf else 1.0
        self.costs = {name: fading * self.costs.get(name, 0.0) for name in ways}
        if set(self._papers) != set(ways) or not 0.0 < passed <= LONGEST_GAP * self._step:
            self._papers = {name: Paper(desk.boot_seconds) for name in ways}
            for paper in self._papers.values():
                paper.follow(desk.running, moment.now)
            return
        for name, paper in self._papers.items():
            short = np.maximum(desk.needed - paper.ready, 0)
            cores = float(desk.limits @ (paper.held + desk.prices.shortage * short))
            self.costs[name] += passed * cores / desk.worth

    def _follow(self, ways: Mapping[str, Scenarios], now: float, desk: Desk) -> None:
        """Each way's replicas from now on. Ways that agree, and have the same replicas, are planned once."""
        known: Memory = {}
        for name, paper in self._papers.items():
            running = paper.running(now)
            key = (id(ways[name]), running.ready.tobytes(), running.remaining)
            if key not in known:
                known[key] = desk.decide(ways[name], running)
            started = paper.scale(known[key], now)
            self.costs[name] += desk.prices.start * float(desk.limits @ started) / desk.worth


def _distinct(ways: Mapping[str, Scenarios]) -> list[str]:
    """The names of different ways; of those that are the same, the first."""
    first: dict[int, str] = {}
    for name, way in ways.items():
        first.setdefault(id(way), name)
    return list(first.values())
