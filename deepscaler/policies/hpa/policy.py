"""The policies `hpa_<percent>`, `hpa_r<percent>`: a Kubernetes HPA per service, to compare with."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from deepscaler.cluster import Pod, Workload
from deepscaler.errors import SettingsError
from deepscaler.logs import OnChange
from deepscaler.policies.base import Observation, Policy, Proposal, Reason
from deepscaler.policies.hpa.api import parse_spec
from deepscaler.policies.hpa.limits import store_scale_event
from deepscaler.policies.hpa.recommendation import Measured, measure
from deepscaler.policies.hpa.reconcile import reconcile
from deepscaler.policies.hpa.spec import Flags, HpaSpec, Metric
from deepscaler.policies.hpa.state import HpaState
from deepscaler.policies.hpa.usage import HpaPod, Sample
from deepscaler.settings import Hpa, Settings

log = logging.getLogger(__name__)
_NO_SAMPLES = (
    "none of its pods has a sample of CPU usage: do metrics.k8s.io (metrics-server) or, where that isn't "
    "there, Prometheus' container_cpu_usage_seconds_total know them?"
)
SYNC_LAG_SECONDS = 1e-3
"""By how much the downscale window is shortened.

Syncs of the real controller come 15.00-15.06 s apart, so a window of 300 s never holds the 20th earlier one.
Ticks here come exactly one period apart. Without `behavior` the 20th would still count, and hold every
scale-down one tick longer than the real controller does.
"""


class HpaTarget(NamedTuple):
    """One target, in percent of the CPU limit (None without one) and in percent of the CPU request."""

    limit_percent: int | None
    request_percent: int


class _Rescale(NamedTuple):
    before: int
    after: int
    time: float


class HpaPolicy(Policy):
    """One HPA per service, each with a memory of its own.

    Args:
        percent: target utilisation in percent of the CPU limit.
        settings: those of the application.
        of_request: the target is in percent of the CPU request, as Kubernetes has it. Limits are often
            several times the requests, so that 70 % of the request can be 20 % of the limit.

    Attributes:
        percent: as given.
        targets: service -> its target in both measures; filled by `decide`.
        failures: services that the last `decide` held -> why, in the words of the real controller if it has
            any.

    Raises:
        SettingsError: the API server would refuse `scale.hpa.behavior`.

    Differs: the real controller counts a rescale when its own write succeeds; this one counts it at its next
        sync, if the replicas are then what it asked for. So dry runs, refused writes and guard rails leave no
        trace in the rates.
    """

    history_seconds = 0.0
    guarded = False

    def __init__(self, percent: int, settings: Settings, *, of_request: bool = False) -> None:
        scale = settings.scale
        self.name = f"hpa_r{percent}" if of_request else f"hpa_{percent}"
        self._of_request = of_request
        self.period_seconds = scale.hpa.sync_period
        self.percent = percent
        self.targets: dict[str, HpaTarget] = {}
        self.failures: dict[str, str] = {}
        rails = scale.guard_rails
        self._specs = {
            name: _spec(scale.hpa, *rails.bounds(name))
            for name, service in settings.app.services.items()
            if service.scaled
        }
        self._states: dict[str, HpaState] = {}
        self._on_change = OnChange(log)
        self._pending: dict[str, _Rescale] = {}

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """Replicas of every service that is scaled. Without usable metrics it is held, within the limits."""
        pods: dict[str, list[Pod]] = {}
        for pod in observation.pods:
            pods.setdefault(pod.service, []).append(pod)
        self.failures = {}
        return {
            workload.service: self._sync(workload, pods.get(workload.service, []), observation)
            for workload in observation.workloads
            if workload.service in self._specs
        }

    def describe(self) -> Mapping[str, Any]:
        """`targets`: service -> target of its HPA, as seen so far."""
        return {"targets": self.targets}

    def _sync(self, workload: Workload, pods: Sequence[Pod], observation: Observation) -> Proposal:
        """One sync; windows and rates go by a clock that is never set, as monotonic times do in Go."""
        service, current, now = workload.service, workload.replicas, observation.steady
        state = self._states.get(service, HpaState())
        done = self._pending.pop(service, None)
        if done and done.after == current:
            state = store_scale_event(state, self._specs[service], done.before, done.after, done.time)
        spec, measured = self._measure(workload, pods, observation.now)
        decision = reconcile(spec, state, current, measured, now)
        self._states[service] = decision.state
        if decision.target != current:
            self._pending[service] = _Rescale(current, decision.target, now)
            return Proposal(float(decision.target), Reason.HPA)
        if decision.recommendation is not None:
            self._on_change.well(service, f"{service}: {self.name} decides again")
        if current == 0:
            return Proposal(None, Reason.SCALED_TO_ZERO)
        if decision.recommendation is None:
            self.failures[service] = decision.failed or ""
            self._on_change.trouble(service, f"{service}: {self.name} can't decide: {decision.failed}")
            return Proposal(None, Reason.HELD_MISSING)
        return Proposal(float(decision.target), Reason.HPA)

    def _measure(self, workload: Workload, pods: Sequence[Pod], now: float) -> tuple[HpaSpec, Measured]:
        service, spec = workload.service, self._specs[workload.service]
        limit, request = workload.cpu_limit_cores, workload.cpu_request_cores
        if not request or not (limit or self._of_request):
            lacks = f"no CPU limit, of which {self.name} is a share" if request else "missing request for cpu"
            setting = f"resources.{'limits' if request else 'requests'}.cpu"
            why = f"service {service}: {lacks}; set {setting} of its Deployment"
            return spec, Measured(None, failed=why, failed_reason="FailedGetResourceMetric")
        target = self._target(limit, request)
        self.targets[service] = target
        spec = replace(spec, metrics=(Metric("cpu", utilization=target.request_percent),))
        measured = measure(spec, workload.replicas, [hpa_pod(pod) for pod in pods], now)
        if measured.failed and not any(pod.usage_cores is not None for pod in pods):
            return spec, replace(measured, failed=f"{measured.failed}; {_NO_SAMPLES}")
        return spec, measured

    def _target(self, limit: float | None, request: float) -> HpaTarget:
        """The target of a service in both measures."""
        if self._of_request:
            return HpaTarget(round(self.percent * request / limit) if limit else None, self.percent)
        return HpaTarget(self.percent, max(1, round(self.percent * (limit or request) / request)))


def _spec(settings: Hpa, low: int, high: int) -> HpaSpec:
    flags = Flags(
        downscale_stabilization_seconds=max(0.0, settings.downscale_stabilization - SYNC_LAG_SECONDS),
        tolerance=settings.tolerance,
        cpu_initialization_seconds=settings.cpu_initialization_period,
        initial_readiness_seconds=settings.initial_readiness_delay,
    )
    document: dict[str, Any] = {"minReplicas": low, "maxReplicas": high, "behavior": settings.behavior}
    try:
        return parse_spec(document, flags)
    except SettingsError as error:
        raise SettingsError(f"scale.hpa: {error}") from error


def hpa_pod(pod: Pod) -> HpaPod:
    """The pod as an HPA sees it: with one container, and whole millicores, rounded up."""
    sample = None
    if pod.usage_cores is not None and pod.usage_time is not None:
        sample = Sample(
            {pod.service: {"cpu": millicores(pod.usage_cores)}}, pod.usage_time, pod.usage_window_seconds
        )
    return HpaPod(
        name=pod.name,
        phase=pod.phase,
        deleting=pod.deleting,
        start_time=pod.start_time,
        ready=None if pod.ready is None else str(pod.ready),
        ready_since=-math.inf if pod.ready_since is None else pod.ready_since,
        requests={
            pod.service: {} if pod.cpu_request_cores is None else {"cpu": millicores(pod.cpu_request_cores)}
        },
        sample=sample,
    )


def millicores(cores: float) -> int:
    """Whole millicores, rounded up from the whole nanocores of the metrics server.

    Source: Quantity.MilliValue.
    """
    return -(-round(cores * 1e9) // 1_000_000)
