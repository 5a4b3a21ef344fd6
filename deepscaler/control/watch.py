"""Watches the ticks of a controller: one immutable snapshot per tick, which /metrics and the page read."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.control.controller import Controller
from deepscaler.control.past import SHOWN_SECONDS, Moment, earlier, read_before
from deepscaler.control.recorder import DecisionRow
from deepscaler.control.tally import Counts, Tally
from deepscaler.control.tick import Tick
from deepscaler.panel import MetricPanel
from deepscaler.policies.base import Proposal
from deepscaler.policies.outlook import Learned, Outlook
from deepscaler.settings import App, Settings

Array = NDArray[np.float64]
FORESEEN_LEAD = 300.0
"""The past shows what was foreseen this many seconds before."""


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
        self._before = read_before(
            controller.cluster, controller.recorder, self.services, settings.collect.step
        )
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
            ready, responses = _columns(panel, self.services, "pod"), entry_responses(panel, self.entries)
            self._past.extend(earlier(panel, load, responses, ready, tick.now, self._before))
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
