"""What is counted over ticks: decisions, replicas that lacked or idled, and how forecasts turned out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepscaler.control.recorder import DecisionRow
from deepscaler.control.tick import Tick
from deepscaler.policies.outlook import Outlook

LEADS = (60.0, 300.0, 600.0)
"""Forecasts are judged this many seconds after they were made."""
ALL = "all"
"""The name of the forecast that the sources make together, beside those of single sources."""
LONGEST_PERIOD_SECONDS = 300.0
"""A gap between two ticks counts as at most so much time without or with too many replicas."""
UP, DOWN, KEEP = "up", "down", "keep"
"""What a decision does to the replicas."""


@dataclass(frozen=True)
class Lack:
    """Replicas of a service against what its load needed, summed over time.

    Attributes:
        deficient: replica-seconds that lacked.
        excess: replica-seconds beyond the need.
    """

    deficient: float = 0.0
    excess: float = 0.0


@dataclass(frozen=True)
class Matured:
    """How forecasts of the load turned out, summed over those whose time has come.

    Attributes:
        count: of forecasts.
        error: sum of the absolute differences, in requests per second.
        load: sum of what came.
        inside: how many times what came lay in the band; None where no band was foreseen.
    """

    count: int = 0
    error: float = 0.0
    load: float = 0.0
    inside: int | None = None

    @property
    def relative(self) -> float:
        """Mean error relative to the mean load; NaN before the first."""
        return self.error / self.load if self.load > 0 else float("nan")

    def with_one(self, value: float, came: float, edges: tuple[float, float] | None) -> Matured:
        """The sums with one forecast more."""
        inside = self.inside
        if edges is not None:
            inside = (inside or 0) + int(edges[0] <= came <= edges[1])
        return Matured(self.count + 1, self.error + abs(value - came), self.load + came, inside)


@dataclass(frozen=True)
class Counts:
    """All sums so far.

    Attributes:
        decisions: (action, reason) -> how many decisions.
        lacks: service -> its replicas against its need, where a floor tells the need.
        matured: (source, lead in seconds) -> how the forecasts turned out.
        partial_answers: ticks whose metrics were partial.
        buckets: ticks by the time that they took, see `TICK_BUCKETS`.
        late_seconds: by which all ticks together were late.
    """

    decisions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    lacks: Mapping[str, Lack] = field(default_factory=dict)
    matured: Mapping[tuple[str, float], Matured] = field(default_factory=dict)
    partial_answers: int = 0
    buckets: tuple[int, ...] = ()
    late_seconds: float = 0.0


TICK_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0)
"""Upper bounds, in seconds, of the time that a tick takes; the bucket above them is open."""


@dataclass(frozen=True)
class _Due:
    """A forecast that will be judged at `time`."""

    time: float
    source: str
    lead: float
    value: float
    edges: tuple[float, float] | None


class Tally:
    """Adds up what ticks did."""

    def __init__(self) -> None:
        self._decisions: Counter[tuple[str, str]] = Counter()
        self._lacks: dict[str, Lack] = {}
        self._matured: dict[tuple[str, float], Matured] = {}
        self._due: deque[_Due] = deque()
        self._partial, self._late_seconds = 0, 0.0
        self._buckets = [0] * (len(TICK_BUCKETS) + 1)
        self._before: float | None = None

    def add(
        self, tick: Tick, outlook: Outlook, times: NDArray[np.float64], load: NDArray[np.float64]
    ) -> None:
        """Count one tick.

        Args:
            tick: what it did.
            outlook: what the policy foresees.
            times: `[L]` of the samples.
            load: `[L]` requests per second of all entries; NaN where unknown.
        """
        seconds = 0.0 if self._before is None else min(tick.now - self._before, LONGEST_PERIOD_SECONDS)
        self._before = tick.now
        for row in tick.rows:
            self._decisions[action_of(row), row.reason] += 1
            if row.floor is not None and row.current > 0:
                before, gap = self._lacks.get(row.service, Lack()), row.floor - row.ready
                self._lacks[row.service] = Lack(
                    before.deficient + max(gap, 0.0) * max(seconds, 0.0),
                    before.excess + max(-gap, 0.0) * max(seconds, 0.0),
                )
        self._partial += tick.quality.panel.partial
        self._late_seconds += tick.late_seconds
        self._buckets[int(np.searchsorted(TICK_BUCKETS, tick.took_seconds))] += 1
        self._judge(tick.now, times, load)
        self._foresee(outlook, tick.now)

    def counts(self) -> Counts:
        """The sums so far."""
        return Counts(
            dict(self._decisions),
            dict(self._lacks),
            dict(self._matured),
            self._partial,
            tuple(self._buckets),
            self._late_seconds,
        )

    def _judge(self, now: float, times: NDArray[np.float64], load: NDArray[np.float64]) -> None:
        """Compare forecasts whose time has come with the samples nearest to it."""
        waiting: deque[_Due] = deque()
        for due in self._due:
            if due.time > now:
                waiting.append(due)
                continue
            came = _at(due.time, times, load)
            if np.isfinite(came):
                key = (due.source, due.lead)
                self._matured[key] = self._matured.get(key, Matured()).with_one(due.value, came, due.edges)
        self._due = waiting

    def _foresee(self, outlook: Outlook, now: float) -> None:
        """Remember the forecasts of this tick, if it made any."""
        if outlook.load is None or outlook.made < now - 1.0:
            return
        for lead in LEADS:
            row = round(lead / outlook.step) - 1
            if not 0 <= row < len(outlook.load):
                continue
            low, middle, high = outlook.load[row].tolist()
            self._due.append(_Due(now + lead, ALL, lead, middle, (low, high)))
            for name, source in outlook.sources.items():
                self._due.append(_Due(now + lead, name, lead, float(source.load[row]), None))


def action_of(row: DecisionRow) -> str:
    """What a decision does to the replicas: `up`, `down` or `keep`."""
    return KEEP if row.target == row.current else UP if row.target > row.current else DOWN


def _at(moment: float, times: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """The value of the sample nearest to a moment, at most one step away; NaN where there is none."""
    if len(times) < 2:
        return float("nan")
    place = int(np.abs(times - moment).argmin())
    return float(values[place]) if abs(times[place] - moment) <= times[-1] - times[-2] else float("nan")
