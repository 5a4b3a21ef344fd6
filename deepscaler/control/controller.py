"""The controller: metrics -> quality gate -> policy -> guard rails -> replicas, again and again."""

from __future__ import annotations

import logging
import math
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepscaler.artefacts import utc_text
from deepscaler.cluster import Cluster, Pod, Workload
from deepscaler.control.guard_rails import HELD, LEFT_ALONE, Decision, RecommendationHistory, Stance, decide
from deepscaler.control.quality import (
    BEFORE_SECONDS,
    RECENT_SECONDS,
    DropWatch,
    Quality,
    assess,
    blank_panel,
    error_share,
)
from deepscaler.control.recorder import (
    ACTING,
    DRY_RUN,
    STANDBY,
    DecisionRow,
    Recorder,
    Statistics,
    count_pods,
    pod_rows,
)
from deepscaler.errors import DeepScalerError, MetricsError
from deepscaler.panel import FEATURES
from deepscaler.policies.base import Observation, Policy, Proposal, Reason
from deepscaler.policies.reactive import usage_floor
from deepscaler.runs import PolicyName
from deepscaler.settings import Settings

log = logging.getLogger(__name__)
_NAP_SECONDS = 1.0
_EPSILON = 1e-6


class Controller:
    """Runs one policy on one cluster; the same object on the testbed and in production.

    Args:
        cluster: the world, clock included.
        policy: what proposes.
        settings: of the application.
        recorder: keeps the rows; in memory by default.
        survive_bugs: go on after an error that isn't one of ours as well, with its traceback logged; False raises it, so
            that an experiment doesn't go on with a policy that can't decide.
        leading: may this controller write now? Without leave it decides along, so that it can take over at any tick.

    Attributes:
        statistics: counters.
        incumbents: service -> autoscalers seen acting on it.
        last_rows: of the newest tick.
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
    ) -> None:
        self.cluster, self.policy, self.recorder = cluster, policy, recorder or Recorder()
        self.statistics = Statistics()
        self.incumbents: dict[str, tuple[str, ...]] = {}
        self._settings, self._scale = settings, settings.scale
        self._scaled = frozenset(name for name, service in settings.app.services.items() if service.scaled)
        rails = self._scale.guard_rails
        self._history = RecommendationHistory(rails.scale_down_window)
        self._history.restore(self.recorder.decisions(), cluster.now(), rails.round_up_threshold)
        self._watch = DropWatch()
        self._survive_bugs, self._leading = survive_bugs, leading
        self.last_rows: list[DecisionRow] = []
        self._pods_are_kept = cluster.pod_history(cluster.now(), cluster.now()) is not None
        self._left_at: dict[str, int] = {}
        self._states: dict[str, Reason | None] = {}

    @property
    def decision_seconds(self) -> list[float]:
        """Time each tick took, from reading the cluster to the last write."""
        return self.statistics.decision_seconds

    @property
    def failed_ticks(self) -> int:
        """Ticks that ended in an error."""
        return self.statistics.failed_ticks

    def decisions(self) -> pd.DataFrame:
        """`DECISION_COLUMNS` so far, times in seconds."""
        return self.recorder.decisions()

    # --------------------------------------------------------------------------------------------------------- the loop
    def run(
        self, duration: float | None = None, *, once: bool = False, stop: threading.Event | None = None
    ) -> None:
        """Tick at once and then each `policy.period_seconds`, until `duration` seconds are over or `stop` is set.

        A failed tick is logged and counted and the loop goes on. Pods are sampled each `collect.step` between the ticks,
        unless the cluster keeps their history itself (`pod_history`).

        Args:
            duration: seconds; None runs until `stop`.
            once: one tick, whose errors are raised.
            stop: ends the run after the tick under way.
        """
        if once:
            self.tick()
            return
        start = self.cluster.now()
        end = math.inf if duration is None else start + duration
        due, sample = start, math.inf if self._pods_are_kept else start
        while True:
            self._sleep(min(due, sample, end), stop)
            now = self.cluster.now()
            if (stop is not None and stop.is_set()) or now >= end - _EPSILON:
                return
            ticking = now >= due - _EPSILON
            self._attempt(self.tick if ticking else self._sample, counted=ticking)
            now = self.cluster.now()
            due = _following(due, self.policy.period_seconds, now) if ticking else due
            sample = sample if math.isinf(sample) else _following(sample, self._settings.collect.step, now)

    def _sleep(self, moment: float, stop: threading.Event | None) -> None:
        """In naps where somebody may want to stop us."""
        while stop is not None and not stop.is_set() and (now := self.cluster.now()) < moment - _NAP_SECONDS:
            self.cluster.sleep_until(now + _NAP_SECONDS)
        if stop is None or not stop.is_set():
            self.cluster.sleep_until(moment)

    def _attempt(self, action: Callable[[], object], counted: bool) -> None:
        try:
            action()
        except Exception as error:
            if not (self._survive_bugs or isinstance(error, DeepScalerError)):
                raise
            self.statistics.failed_ticks += counted
            known = isinstance(error, DeepScalerError)
            log.error(
                "%s failed, going on: %s",
                "tick" if counted else "sampling of pods",
                error,
                exc_info=not known,
            )

    def describe(self, seed: int, start: float) -> dict[str, Any]:
        """`run.json` of a run that began at `start`: all that `calculate.py` needs, whichever the cluster."""
        settings, bundle = self._settings, Path(self._scale.bundle)
        workloads = self.cluster.workloads()
        of_bundle = self.policy.name.startswith("deepscaler") and bundle.is_file()
        return {
            **PolicyName.parse(self.policy.name).to_dict(),
            **self.policy.describe(),
            "app": settings.app.name,
            "seed": seed,
            "start": utc_text(start),
            "mode": DRY_RUN if self._scale.dry_run else ACTING,
            "limits": {item.service: item.cpu_limit_cores for item in workloads},
            "requests": {item.service: item.cpu_request_cores for item in workloads},
            "sla": {entry.name: entry.sla for entry in settings.app.entries},
            "slo": {entry.name: entry.slo for entry in settings.app.entries},
            "incumbents": {service: list(names) for service, names in self.incumbents.items() if names},
            "bundle_sha256": sha256(bundle.read_bytes()).hexdigest() if of_bundle else None,
            "versions": {
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in ("numpy", "pandas")},
            },
            "settings": settings.model_dump(mode="json"),
            **self.statistics.to_dict(),
        }

    # ---------------------------------------------------------------------------------------------------------- a tick
    def tick(self) -> list[DecisionRow]:
        """Decide once for all services, write what differs, record a row a service.

        Raises:
            ClusterError: the orchestrator can't be read. Unreadable metrics and refused writes are no errors but reasons.
        """
        began = time.perf_counter()
        now = self.cluster.now()
        workloads, pods = self._read_pods(now)
        quality = self._gate(now, [workload for workload in workloads if workload.replicas > 0])
        proposals = self._proposals(Observation(now, quality.panel, workloads, pods), quality)
        stance = Stance(not self._scale.dry_run, self.policy.guarded, self._no_scale_down(quality, now))
        for workload in workloads:
            if not self._history.knows(workload.service):
                self._history.record(workload.service, now, workload.replicas)
        decisions = decide(
            proposals, workloads, self._history, now, rails=self._scale.guard_rails, stance=stance
        )
        self._notice(workloads, decisions)
        mode = self.mode()
        written, failed = self._write(decisions, mode)
        rows = self._rows(now, decisions, proposals, count_pods(pods)[0], mode)
        rows = [_outcome(row, written, failed) for row in rows]
        for decision in decisions:
            self._history.record(decision.service, now, decision.recommended)
        self.statistics.decision_seconds.append(time.perf_counter() - began)
        self.last_rows = rows
        self.recorder.add_decisions(rows)
        self.statistics.ticks += 1
        return rows

    def mode(self) -> str:
        """What a tick of this moment may do: `act`, `standby` (another controller leads) or `dry_run`."""
        if self._scale.dry_run:
            return DRY_RUN
        return ACTING if self._leading() else STANDBY

    def _read_pods(self, now: float) -> tuple[list[Workload], Sequence[Pod]]:
        """Workloads of the scaled services and all pods; recorded on the way."""
        workloads, pods = self.cluster.workloads(), self.cluster.pods()
        if not self._pods_are_kept:
            self.recorder.add_pods(pod_rows(now, workloads, pods))
        return [workload for workload in workloads if workload.service in self._scaled], pods

    def _sample(self) -> None:
        self._read_pods(self.cluster.now())

    def _gate(self, now: float, workloads: Sequence[Workload]) -> Quality:
        """Metrics of the services that run, judged; nothing is held for a policy that needs no metrics."""
        if not self.policy.history_seconds:
            return Quality(
                blank_panel(self.cluster.services, tuple(FEATURES), np.zeros(0)), np.zeros(0), {}, frozenset()
            )
        step = self._settings.collect.step
        back = max(
            self.policy.history_seconds, self._scale.stale_after + step, RECENT_SECONDS + BEFORE_SECONDS
        )
        count = math.ceil(back / step - _EPSILON)
        try:
            raw = self.cluster.metrics(now - (count - 1) * step, now, step)
        except MetricsError as error:
            self.statistics.metrics_failures += 1
            log.error("no metrics: %s", error)
            raw = blank_panel(
                self.cluster.services, tuple(FEATURES), now - step * np.arange(count - 1, -1, -1.0)
            )
        live = {workload.service for workload in workloads}
        quality = assess(
            raw, self._settings.process.features, now, self._scale.fill_samples, self._scale.stale_after
        )
        held = {service: reason for service, reason in quality.held.items() if service in live}
        held.update({service: Reason.HELD_MISSING for service in live if service not in raw.services})
        return Quality(quality.panel, quality.ages, held, quality.doubtful & live)

    def _proposals(self, observation: Observation, quality: Quality) -> dict[str, Proposal]:
        """The policy's, but services without trustworthy data are held: only the cores that their pods use may raise them."""
        proposals: dict[str, Proposal] = {}
        running = {
            workload.service: workload.replicas for workload in observation.workloads if workload.replicas > 0
        }
        held = dict(quality.held)
        if set(running) - set(held):
            try:
                proposals = dict(self.policy.decide(observation))
            except MetricsError as error:
                self.statistics.metrics_failures += 1
                log.error("%s can't decide: %s", self.policy.name, error)
                held.update({service: Reason.HELD_MISSING for service in running})
        floors = self._usage_floors(observation) if held else {}
        for service, reason in held.items():
            floor = floors.get(service)
            raised = floor is not None and floor > running[service]
            proposals[service] = (
                Proposal(floor, Reason.FLOOR, floor=floor) if raised else Proposal(None, reason, floor=floor)
            )
        self.statistics.held += len(held)
        return proposals

    def _usage_floors(self, observation: Observation) -> Mapping[str, float]:
        floor = self._scale.floor
        if not floor.enabled:
            return {}
        return usage_floor(
            observation.workloads, observation.pods, observation.now, self._scale.stale_after, floor.rho_max
        )

    def _no_scale_down(self, quality: Quality, now: float) -> frozenset[str]:
        """Services whose newest samples are missing, or whose traffic fell together with errors or lost metrics."""
        suspicious = self._watch.watching or bool(self._watch.drops(quality.panel))
        troubled = suspicious and (quality.lost or self._failing(now))
        return quality.doubtful | self._watch.update(quality.panel, troubled)

    def _failing(self, now: float) -> bool:
        """Do more requests fail than `scale.error_share`? Unknown is no."""
        try:
            return (
                error_share(self.cluster.latencies(now - RECENT_SECONDS, now, self._settings.collect.step))
                > self._scale.error_share
            )
        except MetricsError as error:
            log.warning("errors of the entries unknown: %s", error)
            return False

    def _notice(self, workloads: Sequence[Workload], decisions: Sequence[Decision]) -> None:
        """Log what isn't ours to decide, once when it changes: edited replicas, rival autoscalers, services held or left alone."""
        for workload, decision in zip(workloads, decisions, strict=True):
            service, rivals = workload.service, workload.autoscalers
            left_at = self._left_at.get(service, workload.replicas)
            if left_at != workload.replicas and not rivals:
                self.statistics.foreign_edits += 1
                log.warning(
                    "%s: somebody set %d replicas, they were left at %d here",
                    service,
                    workload.replicas,
                    left_at,
                )
            if rivals != self.incumbents.get(service, ()):
                refusing = "; refused until it is gone" if rivals and not self._scale.dry_run else ""
                log.warning(
                    "%s: other autoscalers on it: %s%s",
                    service,
                    ", ".join(rivals) or "none any more",
                    refusing,
                )
            self.incumbents[service] = rivals
            state = decision.reason if decision.reason in LEFT_ALONE | HELD else None
            if state is not self._states.get(service):
                log.warning(
                    "%s: %s",
                    service,
                    f"stays at {decision.target} ({state.value})" if state else "decided again",
                )
            self._states[service] = state

    def _write(self, decisions: Sequence[Decision], mode: str) -> tuple[Mapping[str, int], Mapping[str, str]]:
        """One pass over what differs: replicas written, and why the others weren't."""
        due = {
            decision.service: decision.target for decision in decisions if decision.target != decision.current
        }
        current = {decision.service: decision.current for decision in decisions}
        if mode != ACTING or not due:
            self._left_at = current if mode == ACTING else {}
            return {}, {}
        try:
            report = self.cluster.scale(due)
            written, failed = dict(report.applied), dict(report.failed)
        except DeepScalerError as error:
            written, failed = {}, dict.fromkeys(due, str(error))
        for service, why in failed.items():
            log.error("%s: not set to %d: %s", service, due[service], why)
        self.statistics.writes += len(written)
        self.statistics.failed_writes += len(failed)
        self._left_at = {
            service: replicas for service, replicas in {**current, **written}.items() if service not in failed
        }
        return written, failed

    def _rows(
        self,
        now: float,
        decisions: Sequence[Decision],
        proposals: Mapping[str, Proposal],
        ready: Mapping[str, int],
        mode: str,
    ) -> list[DecisionRow]:
        """A row a service, before anything is written."""
        rows = []
        for item in decisions:
            proposal = proposals.get(item.service, Proposal(None, Reason.UNKNOWN_SERVICE))
            bare = proposal.predicted is None and proposal.floor is None
            row = DecisionRow(
                time=now,
                service=item.service,
                current=item.current,
                ready=ready.get(item.service, 0),
                predicted=_finite(proposal.target if bare else proposal.predicted),
                floor=_finite(proposal.floor),
                target=item.target,
                applied=None,
                reason=item.reason.value,
                mode=mode,
            )
            rows.append(row)
        return rows


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _outcome(row: DecisionRow, written: Mapping[str, int], failed: Mapping[str, str]) -> DecisionRow:
    """The row with what came of the write."""
    why = failed.get(row.service)
    if why is None:
        return row._replace(applied=written.get(row.service))
    return row._replace(reason=(Reason.CONFLICT if "conflict" in why.lower() else Reason.WRITE_FAILED).value)


def _following(due: float, period: float, now: float) -> float:
    """The first of due, due + period, due + 2 period, … after now: what was missed isn't made up for."""
    return due + period * max(math.floor((now - due) / period + _EPSILON) + 1, 0)


@contextmanager
def stopping_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, so that a controller ends after its tick; earlier handlers come back."""
    stop = threading.Event()

    def end(number: int, _frame: object) -> None:
        log.info("%s: ending after the tick", signal.Signals(number).name)
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
