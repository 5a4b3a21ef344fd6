"""Ways of foreseeing on trial: each is followed on paper, and the one that cost least lately decides.

On paper, replicas start, get ready and stop as a plan over one way's scenarios would have it. What they would
have held, lacked and started is priced like the plan's own choices, so a way is judged by what it is for and
not by how close its curves are. Older cost counts for less.

Source: follow the leader, with discounted losses (Cesa-Bianchi and Lugosi: "Prediction, Learning, and Games",
2006, 2.11 and 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepscaler.planning.plan import Running
from deepscaler.planning.scenarios import ALL, SEASON, Desk, Moment, Scenarios

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Memory = dict[tuple[int, bytes, tuple[tuple[float, ...], ...]], Counts]

HALF_LIFE = 7200.0
"""Seconds after which what a way cost counts half."""
HEAD_STARTS = {SEASON: 500.0, ALL: 250.0}
"""What another way has to be cheaper by, in seconds of holding what was needed, to lead instead.

The one of all sources says how long a load has to be calm before nothing is held against surprises: more is
safer from a cold start and dearer on loads that stay calm (docs/planning.md).
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
        self._papers: dict[str, _Paper] = {}
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
        chosen = ways[self.leader(tuple(ways))]
        self.led[chosen.source] = self.led.get(chosen.source, 0) + 1
        if moment.desk is not None:
            self._follow(ways, moment.now, moment.desk)
        return chosen

    def leader(self, names: tuple[str, ...]) -> str:
        """The way that decides; the first if nothing speaks against it."""
        return min(names, key=lambda name: self.costs.get(name, 0.0) - self._head_starts.get(name, 0.0))

    def describe(self) -> Mapping[str, Any]:
        """How often each source decided; what each way cost lately, in seconds of holding what was needed."""
        return {"led": dict(self.led), "cost_seconds": {name: round(c, 1) for name, c in self.costs.items()}}

    def resume(self, costs: Mapping[str, float]) -> None:
        """Take over what each way had cost when an earlier controller ended."""
        self.costs = {name: float(cost) for name, cost in costs.items() if np.isfinite(cost)}

    def _settle(self, ways: Mapping[str, Scenarios], moment: Moment) -> None:
        """Charge each way for the time since the last decision."""
        passed, desk = moment.now - self._last, moment.desk
        self._last = moment.now
        if desk is None:
            return
        fading = 0.5 ** (passed / self._half_life) if 0.0 < passed < np.inf else 1.0
        self.costs = {name: fading * self.costs.get(name, 0.0) for name in ways}
        if set(self._papers) != set(ways) or not 0.0 < passed <= LONGEST_GAP * self._step:
            self._papers = {name: _Paper(desk.running, moment.now) for name in ways}
            return
        for name, paper in self._papers.items():
            self.costs[name] += paper.cost(desk, passed)

    def _follow(self, ways: Mapping[str, Scenarios], now: float, desk: Desk) -> None:
        """Each way's replicas from now on. Ways that agree, and have the same replicas, are planned once."""
        known: Memory = {}
        for name, paper in self._papers.items():
            running = paper.running(now)
            key = (id(ways[name]), running.ready.tobytes(), running.remaining)
            if key not in known:
                known[key] = desk.decide(ways[name], running)
            started = paper.follow(known[key], now, desk.boot_seconds)
            self.costs[name] += desk.prices.start * float(desk.limits @ started) / desk.worth


class _Paper:
    """Replicas that following one way would have had.

    Args:
        running: what runs at the beginning.
        now: the time.
    """

    def __init__(self, running: Running, now: float) -> None:
        self._ready = running.ready.copy()
        self._due = [[now + seconds for seconds in remaining] for remaining in running.remaining]

    def cost(self, desk: Desk, seconds: float) -> float:
        """What the time since the last decision cost, in seconds of holding what was needed."""
        held = self._ready + np.array([len(due) for due in self._due])
        short = np.maximum(desk.needed - self._ready, 0)
        return seconds * float(desk.limits @ (held + desk.prices.shortage * short)) / desk.worth

    def running(self, now: float) -> Running:
        """What would run now: replicas whose start-up is over are ready."""
        for service, due in enumerate(self._due):
            if due:
                self._due[service] = [moment for moment in due if moment > now + 1e-9]
                self._ready[service] += len(due) - len(self._due[service])
        return Running(self._ready.copy(), tuple(tuple(m - now for m in sorted(due)) for due in self._due))

    def follow(self, replicas: Counts, now: float, boot_seconds: Array) -> Counts:
        """Start or stop replicas, those that are starting first; how many started, `[N]`."""
        more = replicas - self._ready - np.array([len(due) for due in self._due])
        for service in np.flatnonzero(more).tolist():
            due, change = self._due[service], int(more[service])
            if change > 0:
                due.extend([now + float(boot_seconds[service])] * change)
                continue
            due.sort()
            dropped = min(len(due), -change)
            del due[len(due) - dropped :]
            self._ready[service] += change + dropped
        started: Counts = np.maximum(more, 0)
        return started
