"""Watches the ticks of a controller: one immutable snapshot per tick, which /metrics and the page read."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.control.controller import Controller
from deepscaler.control.recorder import DecisionRow
from deepscaler.control.tally import Counts, Tally
from deepscaler.control.tick import Tick
from deepscaler.panel import MetricPanel
from deepscaler.policies.base import Proposal
from deepscaler.policies.outlook import Learned, Outlook
from deepscaler.settings import App, Settings

Array = NDArray[np.float64]
SHOWN_SECONDS = 10_800.0
"""So much of the past is remembered."""
READY, PROPOSED, FLOOR, APPLIED = range(4)
"""Rows of `Moment.replicas`."""
FORESEEN_LEAD = 300.0
"""The past shows what was foreseen this many seconds before."""


@dataclass(frozen=True, eq=False)
class Moment:
    """One moment of the past; what isn't known is NaN.

    Attributes:
        time: seconds since the epoch.
        load: requests per second of all entries.
        responses: `[E]` mean response of each entry's service, in seconds.
        replicas: `[4, N]` ready, proposed, floor and applied replicas of each service.
        foreseen: the load that was foreseen for it `FORESEEN_LEAD` before.
    """

    time: float
    load: float
    responses: NDArray[np.float32]
    replicas: NDArray[np.float32]
    foreseen: float = float("nan")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All that is told of a tick.

    Attributes:
        now: when the tick began, in seconds since the epoch.
        late_seconds: how much later than it was due.
        took_seconds: that it took.
        mode: what it was allowed to do.
        rows: what was decided.
        proposals: what the policy wanted.
        ages: service -> seconds since its newest usable sample; infinite if it has none.
        partial: whether the metrics were partial.
        outlook: what the policy foresees.
        learned: the bundle that it goes by, if any.
        counts: sums over all ticks.
        statistics: the controller's counters.
        past: the last three hours, the newest moment last.
    """

    now: float
    late_seconds: float
    took_seconds: float
    mode: str
    rows: tuple[DecisionRow, ...]
    proposals: Mapping[str, Proposal]
    ages: Mapping[str, float]
    partial: bool
    outlook: Outlook
    learned: Learned | None
    counts: Counts
    statistics: Mapping[str, Any]
    past: tuple[Moment, ...]


class Watch:
    """Watches one controller, from its next tick on.

    Args:
        controller: gets a watcher more.
        settings: those of the application.

    Attributes:
        controller: likewise.
        settings: likewise.
        services: those that are scaled, in the order of the settings.
        entries: the services that users ask, each once.
        snapshot: of the newest tick; None before the first.
    """

    def __init__(self, controller: Controller, settings: Settings) -> None:
        self.controller, self.settings = controller, settings
        self.services = scaled_services(settings.app)
        self.entries = entry_services(settings.app)
        self.snapshot: Snapshot | None = None
        self._tally = Tally()
        self._past: deque[Moment] = deque()
        self._foreseen: deque[tuple[float, float]] = deque()  # (time, load) in the order of the times
        controller.watchers.append(self)

    def __call__(self, tick: Tick) -> None:
        """Publish a snapshot of this tick."""
        policy, panel = self.controller.policy, tick.quality.panel
        outlook = policy.outlook()
        load = entry_load(panel, self.entries)
        self._tally.add(tick, outlook, panel.times, load)
        self._remember(tick, panel, load)
        self._foresee(outlook, tick.now)
        self.snapshot = Snapshot(
            now=tick.now,
            late_seconds=tick.late_seconds,
            took_seconds=tick.took_seconds,
            mode=tick.mode,
            rows=tick.rows,
            proposals=tick.proposals,
            ages=dict(zip(panel.services, tick.quality.ages.tolist(), strict=False)),
            partial=panel.partial,
            outlook=outlook,
            learned=policy.learned(),
            counts=self._tally.counts(),
            statistics={**vars(self.controller.statistics), "decision_seconds": None},
            past=tuple(self._past),
        )

    def _remember(self, tick: Tick, panel: MetricPanel, load: Array) -> None:
        if not self._past:
            self._past.extend(earlier(panel, self.services, self.entries, tick.now))
        replicas = np.full((4, len(self.services)), np.nan, np.float32)
        column = {name: index for index, name in enumerate(self.services)}
        for row in tick.rows:
            place = column.get(row.service)
            if place is None:
                continue
            wish = tick.proposals[row.service].target if row.service in tick.proposals else None
            replicas[:, place] = [row.ready, number(wish), number(row.floor), row.left]
        responses = entry_responses(panel, self.entries)
        newest = responses[-1] if len(responses) else np.full(len(self.entries), np.nan, np.float32)
        while self._past and self._past[-1].time >= tick.now:  # the clock was set back
            self._past.pop()
        now = float(load[-1]) if len(load) else float("nan")
        self._past.append(Moment(tick.now, now, newest, replicas, self._foreseen_for(tick.now)))
        while self._past[0].time < tick.now - SHOWN_SECONDS:
            self._past.popleft()

    def _foresee(self, outlook: Outlook, now: float) -> None:
        if outlook.load is None or outlook.made < now - 1.0:
            return
        row = round(FORESEEN_LEAD / outlook.step) - 1
        if 0 <= row < len(outlook.load):
            self._foreseen.append((now + FORESEEN_LEAD, float(outlook.load[row, 1])))

    def _foreseen_for(self, now: float) -> float:
        """What was foreseen for this moment, within a period; NaN if nothing was."""
        value, period = float("nan"), self.controller.policy.period_seconds
        while self._foreseen and self._foreseen[0][0] <= now + period / 2:
            time, load = self._foreseen.popleft()
            value = load if abs(time - now) <= period else float("nan")
        return value


def scaled_services(app: App) -> tuple[str, ...]:
    """The services that are scaled, in the order of the settings."""
    return tuple(name for name, service in app.services.items() if service.scaled)


def entry_services(app: App) -> tuple[str, ...]:
    """The services that users ask, each once."""
    return tuple(dict.fromkeys(entry.service for entry in app.entries))


def entry_load(panel: MetricPanel, entries: Sequence[str]) -> Array:
    """Requests per second `[L]` of all entries together; NaN where one of them is unknown."""
    found: Array = _columns(panel, entries, "req").sum(axis=1)
    return found


def entry_responses(panel: MetricPanel, entries: Sequence[str]) -> NDArray[np.float32]:
    """Mean response in seconds of each entry's service, `[L, E]`; NaN where it is unknown."""
    return _columns(panel, entries, "res").astype(np.float32)


def earlier(
    panel: MetricPanel, services: Sequence[str], entries: Sequence[str], before: float
) -> list[Moment]:
    """What the metrics say of the time before the first tick: load, responses and ready pods."""
    load, responses = entry_load(panel, entries), entry_responses(panel, entries)
    ready = _columns(panel, services, "pod")
    found = []
    for row, time in enumerate(panel.times.tolist()):
        known = np.isfinite(load[row]) or np.isfinite(ready[row]).any()
        if known and before - SHOWN_SECONDS <= time < before - 1.0:
            replicas = np.full((4, len(services)), np.nan, np.float32)
            replicas[READY] = ready[row]
            found.append(Moment(time, float(load[row]), responses[row], replicas))
    return found


def number(value: float | None) -> float:
    """The value, NaN for None."""
    return float("nan") if value is None else float(value)


def _columns(panel: MetricPanel, services: Sequence[str], feature: str) -> Array:
    """A feature of these services `[L, n]`, NaN for those that the panel doesn't have."""
    values = np.full((len(panel), len(services)), np.nan)
    if feature in panel.features:
        whole = panel.feature(feature)
        for place, name in enumerate(services):
            if name in panel.services:
                values[:, place] = whole[:, panel.services.index(name)]
    return values
