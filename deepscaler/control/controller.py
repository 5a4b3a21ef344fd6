"""The controller: metrics -> quality gate -> policy -> guard rails -> replicas, again and again."""

from __future__ import annotations

import logging
import math
import platform
import threading
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import pandas as pd

from deepscaler.adapters.deadline import sharing
from deepscaler.artefacts import utc_text
from deepscaler.cluster import Cluster, Pod, Workload
from deepscaler.control.behavior import Behaviors
from deepscaler.control.calendar import Calendar
from deepscaler.control.constraints import shared
from deepscaler.control.decision import Stance
from deepscaler.control.earlier import earlier_decisions
from deepscaler.control.gate import Gate
from deepscaler.control.guard_rails import decide
from deepscaler.control.health import Health, HealthWatch
from deepscaler.control.long_history import LongHistory
from deepscaler.control.modes import Modes
from deepscaler.control.notices import Notices
from deepscaler.control.recommendations import RecommendationHistory
from deepscaler.control.recorder import (
    DecisionRow,
    Recorder,
    Statistics,
    count_pods,
    decision_rows,
    pod_rows,
    with_outcome,
)
from deepscaler.control.renewal import Model, Renewal
from deepscaler.control.schedule import ClockWatch, Turns, sleep
from deepscaler.control.spare import Spare
from deepscaler.control.tick import Tick, Watcher
from deepscaler.control.trusted import trusted_proposals
from deepscaler.errors import DeepScalerError
from deepscaler.policies.base import Observation, Policy
from deepscaler.runs import PolicyName
from deepscaler.settings import Settings

log = logging.getLogger(__name__)
PATIENCE_PERIODS = 4
"""So many periods without a completed tick are too many."""
LEAST_PATIENCE_SECONDS = 60.0
"""No shorter time without a completed tick is too long."""
READING_SHARE = 2 / 3
"""So much of a tick's time may pass before it writes: the rest is left to the writes."""


class Controller:
    """Runs one policy on one cluster. It is the same object on the testbed and in production.

    Args:
        cluster: the world, its clock included.
        policy: proposes replicas.
        settings: those of the application.
        recorder: keeps the rows; in memory by default.
        survive_bugs: whether to go on, with the traceback logged, after an error that isn't one of ours. An
            experiment sets False, because it means nothing with a policy that can't decide.
        leading: tells whether this controller may write now. While it may not, it still decides at every
            tick, so that it can take over at any of them.
        renewal: has the policy over a new bundle ready; None: the policy stays.

    Attributes:
        statistics: the counters.
        last_rows: the decisions of the newest tick.
        watchers: are told of each completed tick; an error of theirs is logged and changes nothing.
    """

    def __init__(
        self,
        cluster: Cluster,
        policy: Policy,
        settings: Settings,
        recorder: Recorder | None = None,
        *,
        survive_bugs: bool = False,
        leading: Callable[[], bool] = lambda: True,
        renewal: Renewal | None = None,
    ) -> None:
        self.cluster, self.policy, self.recorder = cluster, policy, recorder or Recorder()
        self.statistics = Statistics()
        self.last_rows: list[DecisionRow] = []
        self.watchers: list[Watcher] = []
        self._health: HealthWatch | None = None
        self._late_seconds = 0.0
        self._settings, self._scale = settings, settings.scale
        self._scaled = frozenset(name for name, service in settings.app.services.items() if service.scaled)
        rails = self._scale.guard_rails
        self._history = RecommendationHistory(rails.scale_down_window)
        self._clock_watch = ClockWatch(cluster)
        seconds = READING_SHARE * self._scale.tick_timeout
        earlier = earlier_decisions(cluster, self.recorder, rails.scale_down_window, seconds)
        self._history.restore(earlier, cluster.steady(), rails.round_up_threshold)
        self._gate = Gate(cluster, settings, self.statistics)
        self._load = self._long_history(policy)
        level = logging.INFO if survive_bugs else logging.DEBUG  # an experiment isn't watched
        self._notices = Notices(self.statistics, self._scale.mode_of, level)
        self._calendar, self._behaviors = Calendar(rails.calendar), Behaviors(rails)
        self._modes = Modes(cluster, settings, self.statistics, self._notices, leading)
        self._spare = Spare(cluster, settings.scale)
        self._survive_bugs = survive_bugs
        self._renewal = renewal
        self._sound: Observation | None = None  # the newest one that nothing was held for
        self._completed, self._failed_in_a_row = cluster.steady(), 0
        self._samples_pods = cluster.pod_history(cluster.now(), cluster.now()) is None
        self._count_rows()

    @property
    def decision_seconds(self) -> list[float]:
        """The times that the newest ticks took, from reading the cluster to the last write."""
        return list(self.statistics.decision_seconds)

    @property
    def failed_ticks(self) -> int:
        """Number of ticks that ended in an error."""
        return self.statistics.failed_ticks

    def healthy(self) -> bool:
        """Whether a tick was completed lately, or the first may still be on its way.

        A controller that hangs or fails for `PATIENCE_PERIODS` isn't healthy: it must not lead.
        """
        slow = 2 * self._scale.tick_timeout
        patience = max(PATIENCE_PERIODS * self.policy.period_seconds, LEAST_PATIENCE_SECONDS, slow)
        return self.cluster.steady() - self._completed < patience

    def ready(self) -> bool:
        """Whether it is at work: a tick was completed, lately, and the last few didn't all fail."""
        return self.statistics.ticks > 0 and self._failed_in_a_row < PATIENCE_PERIODS and self.healthy()

    @property
    def model(self) -> Model | None:
        """Which bundle decides, and what became of newer ones; None if none is watched."""
        return None if self._renewal is None else self._renewal.model

    @property
    def health(self) -> Health | None:
        """How the model does; None unless `watch_health` was called."""
        return None if self._health is None else self._health.health

    def watch_health(self) -> None:
        """From now on measure what decisions lack or waste, and how inputs drift, and warn of it."""
        self._health = HealthWatch(self._settings, lambda: self.policy)
        self.watchers.append(self._health)

    def decisions(self) -> pd.DataFrame:
        """All decisions so far as `DECISION_COLUMNS`, times in seconds."""
        return self.recorder.decisions()

    # ----------------------------------------------------------------------------------------------- the loop
    def run(
        self, duration: float | None = None, *, once: bool = False, stop: threading.Event | None = None
    ) -> None:
        """Tick at once and every `policy.period_seconds`, until `duration` seconds are over or `stop` is set.

        A failed tick is logged and counted, and the loop goes on. Between the ticks pods are sampled every
        `collect.step`, unless the cluster keeps their history itself (`Cluster.pod_history`).

        Args:
            duration: seconds; None runs until `stop`.
            once: make one tick only, and raise its errors.
            stop: ends the run after the present tick.
        """
        if once:
            self.tick()
            return
        start = self.cluster.steady()
        end = Turns(math.inf if duration is None else start + duration, 1.0)
        ticks = Turns(start, self.policy.period_seconds)
        samples = Turns(start if self._samples_pods else math.inf, self._settings.collect.step)
        while True:
            sleep(self.cluster, min(ticks.due, samples.due, end.due), stop)
            now = self.cluster.steady()
            if (stop is not None and stop.is_set()) or end.come(now):
                return
            ticking = ticks.come(now)
            self._late_seconds = max(now - ticks.due, 0.0) if ticking else 0.0
            self._renew(ticks)
            self._attempt(self.tick if ticking else self._sample, counted=ticking)
            now = self.cluster.steady()
            if ticking:
                ticks.move_on(now)
            samples.move_on(now)

    def _long_history(self, policy: Policy) -> LongHistory | None:
        return LongHistory(self.cluster, policy.load_seconds) if policy.load_seconds else None

    def _renew(self, ticks: Turns) -> None:
        """From now on the policy over a new bundle decides, if there is one."""
        if self._renewal is not None:
            newer = self._renewal.newest(self.cluster.now(), self._sound)
            if newer is not None:
                newer.restore(self.policy.state())
                if newer.load_seconds != self.policy.load_seconds:
                    self._load = self._long_history(newer)
                self.policy = newer
            ticks.period = self.policy.period_seconds

    def _attempt(self, action: Callable[[], object], counted: bool) -> None:
        try:
            action()
        except Exception as error:
            known = isinstance(error, DeepScalerError)
            if not (self._survive_bugs or known):
                raise
            self.statistics.failed_ticks += counted
            self._failed_in_a_row += counted
            what = "tick" if counted else "sampling of pods"
            log.error("%s failed, going on: %s", what, error, exc_info=not known)

    def describe(self, seed: int, start: float) -> dict[str, Any]:
        """The content of `run.json` for a run that began at `start`: all that `calculate.py` needs."""
        settings = self._settings
        workloads, entries = self.cluster.workloads(), settings.app.entries
        incumbents = self._notices.incumbents.items()
        return {
            **PolicyName.parse(self.policy.name).to_dict(),
            **self.policy.describe(),
            "app": settings.app.name,
            "seed": seed,
            "start": utc_text(start),
            "mode": self._modes.configured(),
            "limits": {item.service: item.cpu_limit_cores for item in workloads},
            "requests": {item.service: item.cpu_request_cores for item in workloads},
            "sla": {entry.name: entry.sla for entry in entries},
            "slo": {entry.name: entry.slo for entry in entries},
            "incumbents": {service: list(names) for service, names in incumbents if names},
            **({} if self.model is None else {"model": self.model.to_dict()}),
            **({} if self.health is None else {"health": self.health.to_dict()}),
            "versions": {
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in ("numpy", "pandas")},
            },
            "settings": settings.model_dump(mode="json"),
            **self.statistics.to_dict(),
        }

    # ------------------------------------------------------------------------------------------------- a tick
    def tick(self) -> list[DecisionRow]:
        """Decide once for all services, write what differs, and record one row per service.

        Raises:
            ClusterError: the orchestrator can't be read. Metrics that can't be read and writes that are
                refused are no errors; the rows state them as reasons.
        """
        with sharing(self._scale.tick_timeout):
            return self._tick()

    def _tick(self) -> list[DecisionRow]:
        began = time.perf_counter()
        now, steady = self.cluster.now(), self.cluster.steady()
        self.statistics.clock_jumps += bool(self._clock_watch.jumped(now, steady))
        with sharing(READING_SHARE * self._scale.tick_timeout):
            deployed, pods = self.cluster.workloads(), self.cluster.pods()
            workloads = [workload for workload in deployed if workload.service in self._scaled]
            running = [workload.service for workload in workloads if workload.replicas > 0]
            quality = self._gate.judge(now, running, self.policy.history_seconds)
            load = None if self._load is None else self._load.upto(now)
            observation = Observation(now, quality.panel, workloads, pods, load, steady)
            proposals = trusted_proposals(self.policy, observation, quality, self._scale, self.statistics)
            self._sound = self._sound if quality.held else observation
            troubled = self._gate.no_scale_down(quality, now)
        for workload in workloads:
            if not self._history.knows(workload.service):
                self._history.record(workload.service, steady, workload.replicas)
        writable = self._modes.observe(workloads, steady)
        beside = self._modes.beside(writable)
        minimums = self._calendar.minimums([item.service for item in workloads], now)
        rules = self._behaviors.rules(workloads, steady)
        stance = Stance(not self._settings.watching, self.policy.guarded, troubled, beside, minimums, rules)
        rails = self._scale.guard_rails
        decisions = decide(proposals, writable, self._history, steady, rails=rails, stance=stance)
        decisions, crowded = shared(decisions, rails, stance)
        self._notices.crowded(crowded)
        self._notices.tell(self._modes.rivalled(workloads), decisions)
        mode = self.mode()
        self._notices.entered(mode)
        report = self._modes.apply(decisions, writable, now, mode)
        self._spare.ask(decisions, writable, self.policy, now, mode)
        ready = count_pods(pods)[0]
        rows = decision_rows(now, decisions, proposals, ready, lambda name: self._modes.of(name, mode))
        rows = [with_outcome(row, report) for row in rows]
        for decision in decisions:
            self._history.record(decision.service, steady, decision.recommended)
        acting = {item.service for item in decisions if self._modes.of(item.service, mode) == "act"}
        self._behaviors.record(decisions, report, steady, acting)
        took = time.perf_counter() - began
        self.statistics.took(took)
        self.last_rows = rows
        self.statistics.ticks += 1
        self._completed, self._failed_in_a_row = self.cluster.steady(), 0
        self.recorder.add_decisions(rows)
        self._record_pods(now, deployed, pods)
        self._tell(Tick(now, self._late_seconds, took, mode, tuple(rows), proposals, quality))
        return rows

    def _tell(self, tick: Tick) -> None:
        for watcher in self.watchers:
            try:
                watcher(tick)
            except Exception:
                log.exception("a watcher of the ticks failed, going on")

    def mode(self) -> str:
        """What a tick may do at most: `act`, `advise`, `standby` (another controller leads) or `dry_run`."""
        return self._modes.now()

    def end(self) -> None:
        """Give back what the cluster should not keep once this controller has ended."""
        self._modes.end()
        self._spare.end(self.cluster.now(), self.mode())

    def _record_pods(self, now: float, workloads: Sequence[Workload], pods: Sequence[Pod]) -> None:
        if self._samples_pods:
            self.recorder.add_pods(pod_rows(now, workloads, pods))
        self._count_rows()

    def _count_rows(self) -> None:
        self.statistics.lost_rows, self.statistics.skipped_rows = self.recorder.lost, self.recorder.skipped

    def _sample(self) -> None:
        with sharing(self._scale.tick_timeout):
            self._record_pods(self.cluster.now(), self.cluster.workloads(), self.cluster.pods())
