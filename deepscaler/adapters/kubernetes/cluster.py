"""The application on a real cluster, through Prometheus and the Kubernetes API."""

from __future__ import annotations

import logging
import operator
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd
import requests
from numpy.typing import NDArray

from deepscaler.adapters.kubernetes.api import ApiError
from deepscaler.adapters.kubernetes.lease import LeaseElection, steady_seconds
from deepscaler.adapters.kubernetes.measured_objects import MeasuredObjects
from deepscaler.adapters.kubernetes.objects import Usage
from deepscaler.adapters.kubernetes.orchestrator import Orchestrator
from deepscaler.adapters.kubernetes.past_decisions import past_costs, past_decisions
from deepscaler.adapters.kubernetes.telemetry import Telemetry
from deepscaler.adapters.names import Names
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.calls import CallGraph
from deepscaler.cluster import Advice, Happening, Pod, ScaleReport, Undisputed, Workload
from deepscaler.errors import ClusterError, MetricsError
from deepscaler.logs import OnChange
from deepscaler.panel import MetricPanel
from deepscaler.settings import Settings

_LOG = logging.getLogger(__name__)
_HASTY_SECONDS = 5.0
AHEAD_SECONDS = 60.0
"""So far ahead the clock of another machine may be."""
_Item = TypeVar("_Item")


class KubernetesCluster:
    """The `Cluster` port on Prometheus (cAdvisor, Istio, kube-state-metrics) and the Kubernetes API.

    Args:
        settings: the application and where its cluster is.
        session: carries the requests to Prometheus and Jaeger.
        clock: current time, seconds since the epoch.
        sleep: waits for the seconds that it is given.
        progress: told (requests done, requests in all) while `metrics` runs.
        past: whether the clock stands in the past. `workloads` and `pods` are then told as of that time, by
            Prometheus, and what it calls a partial answer is an error.
        steady: seconds of a clock that is never set.

    Attributes:
        api_failures: HTTP status (0: no answer) -> how often the Kubernetes API couldn't be read.
        upstreams: `prometheus`, `kubernetes` and, while it is a candidate, `lease` -> how requests went.
    """

    def __init__(
        self,
        settings: Settings,
        session: requests.Session | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        progress: Callable[[int, int], None] | None = None,
        *,
        past: bool = False,
        steady: Callable[[], float] = steady_seconds,
    ) -> None:
        self._settings = settings
        self._names = Names(settings.app, settings.cluster.prometheus.matchers)
        self._clock, self._sleep, self._past, self._steady = clock, sleep, past, steady
        address = settings.cluster.prometheus
        prometheus = PrometheusClient(address, session, sleep, whole=past)
        hasty = {"retries": 0, "timeout": min(address.timeout, _HASTY_SECONDS)}
        self._hasty = PrometheusClient(
            address.model_copy(update=hasty), session, sleep, upstream=prometheus.upstream
        )
        self._telemetry = Telemetry(settings, prometheus, session, progress, self._stated, live=not past)
        self._measured = MeasuredObjects(settings, prometheus, clock, self._stated)
        self._orchestrator = Orchestrator(settings, clock=clock)
        self._announcer = self._orchestrator.announcer()
        self._newest: Mapping[str, Workload] | None = None  # what the API said last
        self._on_change = OnChange(_LOG, logging.ERROR)
        self.api_failures: Counter[int] = Counter()
        self.upstreams = {"prometheus": prometheus.upstream, "kubernetes": self._orchestrator.upstream}

    @property
    def services(self) -> tuple[str, ...]:
        """The services in the order of the configuration."""
        return self._names.services

    def now(self) -> float:
        """Current time."""
        return self._clock()

    def steady(self) -> float:
        """Seconds of a clock that is never set."""
        return self._steady()

    def sleep_until(self, moment: float) -> None:
        """Return when `moment` of the steady clock has come."""
        self._sleep(max(moment - self._steady(), 0.0))

    # ------------------------------------------------------------------------------------------- measurements
    def metrics(self, start: float, end: float, step: float) -> MetricPanel:
        """The five features at start, start + step, … <= end.

        Raises:
            MetricsError: as `Telemetry.metrics`.
        """
        self._telemetry.names.strangers = self._strangers()
        return self._telemetry.metrics(start, end, step)

    def _strangers(self) -> Sequence[str]:
        """Pods that the API says belong to others though they look like ours; it is asked once if need be."""
        if self._orchestrator.strangers is None:
            try:
                self._orchestrator.pods()
            except ApiError as error:
                _LOG.info("the pods' owners aren't known from the Kubernetes API: %s", error)
                self._orchestrator.strangers = []
        return self._orchestrator.strangers or ()

    def calls(self, start: float, end: float) -> CallGraph:
        """Calls in (start, end] by whole windows of `collect.calls_window`; a shorter span is one window.

        Raises:
            MetricsError: as `Telemetry.calls`.
        """
        return self._telemetry.calls(start, end)

    def latencies(self, start: float, end: float, step: float) -> pd.DataFrame:
        """Per entry and step in (start, end]: `ENDPOINT_COLUMNS`.

        Raises:
            MetricsError: as `Telemetry.latencies`.
        """
        return self._telemetry.latencies(start, end, step)

    # ------------------------------------------------------------------------------------------------ objects
    def entered(self, start: float, end: float, step: float) -> NDArray[np.float64]:
        """Requests per second that came to all entries together in each step of (start, end].

        Raises:
            MetricsError: as `Telemetry.entered`.
        """
        return self._telemetry.entered(start, end, step)

    def workloads(self) -> Sequence[Workload]:
        """One entry per service whose Deployment exists; limits and requests are those of its own container.

        They come from the Kubernetes API. Where it can't be read, they come from Prometheus, and are `stale`;
        what Prometheus doesn't know (annotations, autoscalers, quotas) is as the API said last. `scale` then
        checks the replicas and annotations before it writes.

        Raises:
            ClusterError: the API has none of the Deployments, or neither it nor Prometheus can be read.
            MetricsError: the clock stands in the past and Prometheus can't be read.
        """
        if self._past:
            return self._measured.workloads(self._boot_seconds_of_today)
        try:
            found = self._orchestrator.workloads()
        except ApiError as error:
            measured = self._instead("Deployments", error, self._measured.workloads)
            replicas = {self._names.scaled[item.service]: item.replicas for item in measured}
            self._orchestrator.writer.believe(replicas)
            return [self._as_stated(item) for item in measured]
        self._on_change.well("Deployments")
        self._newest = {item.service: item for item in found}
        return found

    def _as_stated(self, measured: Workload) -> Workload:
        """What Prometheus says of a service, with what only the API says of it as that said it last."""
        known = (self._newest or {}).get(measured.service)
        if known is None:
            return replace(measured, stale=True)
        return replace(
            measured,
            annotations=known.annotations,
            autoscalers=tuple(dict.fromkeys((*known.autoscalers, *measured.autoscalers))),
            hpas=known.hpas,
            quotas=known.quotas,
            unsound=known.unsound,
            stale=True,
        )

    def pods(self) -> Sequence[Pod]:
        """All pods of all services; usage comes from metrics.k8s.io where it exists, else from Prometheus.

        Raises:
            ClusterError: neither the API nor Prometheus can be read.
            MetricsError: the clock stands in the past and Prometheus can't be read.
        """
        if self._past:
            return self._measured.pods()
        try:
            usage = self._orchestrator.usage()
            usage = self._measured_usage() if usage is None else usage
            found = self._orchestrator.pods(self._without_the_future(usage))
        except ApiError as error:
            return self._instead("pods", error, self._measured.pods)
        self._on_change.well("pods")
        return found

    def _instead(
        self, what: str, error: ApiError, measured: Callable[[], Sequence[_Item]]
    ) -> Sequence[_Item]:
        """What Prometheus says, because the API failed with `error`."""
        self.api_failures[error.status] += 1
        self._on_change.trouble(
            what, f"{what} can't be read from the Kubernetes API, so they come from Prometheus: {error}"
        )
        try:
            return measured()
        except MetricsError as second:
            raise ClusterError(f"{error}; Prometheus can't help either: {second}") from error

    def _without_the_future(self, usage: Mapping[str, Usage]) -> Mapping[str, Usage]:
        """The samples that aren't from the future, by more than clocks of machines differ."""
        latest = self._clock() + AHEAD_SECONDS
        known = {pod: sample for pod, sample in usage.items() if sample[1] <= latest}
        if len(known) < len(usage):
            text = f"usage of {len(usage) - len(known)} pods is from the future, so it is unknown: "
            self._on_change.trouble("clock of usage", text + "is a clock wrong?")
        else:
            self._on_change.well("clock of usage")
        return known

    def _measured_usage(self) -> dict[str, Usage]:
        """What pods use, from Prometheus; nothing while it can't be read, since a tick goes on without it."""
        try:
            usage = self._measured.usage(self._hasty)
        except MetricsError as error:
            self._on_change.trouble("usage of pods", f"what pods use is unknown: {error}")
            return {}
        self._on_change.well("usage of pods")
        return usage

    def _stated(self) -> Mapping[str, Workload]:
        """What the Kubernetes API said last of the services; it is asked once if it wasn't yet."""
        if self._newest is None:
            try:
                self._newest = {item.service: item for item in self._orchestrator.workloads()}
            except ClusterError as error:
                _LOG.info("limits aren't known from the Kubernetes API either: %s", error)
                self._newest = {}
        return self._newest

    def _boot_seconds_of_today(self) -> dict[str, float]:
        """Start-up times of the pods that the API has now, for a past that Prometheus doesn't know."""
        try:
            return self._orchestrator.boot_seconds()
        except ApiError as error:
            _LOG.info("start-up times aren't known from the Kubernetes API either: %s", error)
            return {}

    # ------------------------------------------------------------------------------------------------ scaling
    def scale(self, targets: Mapping[str, int]) -> ScaleReport:
        """Set `spec.replicas` of these services' Deployments, one after the other.

        What somebody else has changed since `workloads()` isn't overwritten but reported as a conflict.

        Raises:
            ClusterError: an unknown service, or a target that isn't an integer of at least 1. It is raised
                before any request.
        """
        return self._orchestrator.scale(
            {service: self._checked(service, target) for service, target in targets.items()}
        )

    def _checked(self, service: str, target: object) -> int:
        """The target as a Python integer: the client refuses numpy's, and the API would take `null` for 0."""
        if service not in self.services:
            raise ClusterError(f"scale: unknown service {service!r}; services: {', '.join(self.services)}")
        if not self._settings.app.services[service].scaled:
            raise ClusterError(f"scale: {service} is not scaled (app.services.{service}.scaled: false)")
        try:
            replicas = operator.index(target)  # type: ignore[arg-type]
        except TypeError:
            replicas = 0
        if isinstance(target, bool) or replicas < 1:
            raise ClusterError(
                f"scale: {service}: replicas must be an integer of at least 1, found {target!r}"
            )
        return replicas

    def advise(self, minimums: Mapping[str, Advice | None]) -> ScaleReport:
        """Raise the minimums of the HorizontalPodAutoscalers of these services, or give them back (None)."""
        return self._orchestrator.advise(minimums)

    def announce(self, happenings: Sequence[Happening]) -> None:
        """Write Events on the Deployments of these services, aggregated and within a budget."""
        self._announcer.announce(happenings, self._orchestrator.regarding)

    def annotate(self, happenings: Sequence[Happening]) -> None:
        """Write what happened last into an annotation of the Deployments of these services."""
        self._orchestrator.annotator.annotate(happenings, self._orchestrator.regarding)

    def reserve(self, spare: Mapping[str, int], until: float) -> None:
        """Keep a CapacityBuffer for each of these services that needs room, and none for the others."""
        self._orchestrator.buffers.keep(spare, self._orchestrator.regarding, until)

    def check(self) -> None:
        """Check that this user may read and scale all that is to be scaled.

        Raises:
            ClusterError: rights are missing (each is named), a service is no Deployment, or the API can't be
                asked.
        """
        lease = self._settings.cluster.lease
        missing = self._orchestrator.missing_rights(
            (lease.namespace or self._settings.app.namespace) if lease.enabled else None
        )
        if missing:
            raise ClusterError(
                f"missing rights: {'; '.join(map(str, missing))}. "
                "Bind a Role with them to this user or service account, or run with --dry-run"
            )
        for service, kind in self._orchestrator.unsupported().items():
            where = f"{self._names.namespace}/{self._names.scaled[service]}"
            raise ClusterError(
                f"{service}: {where} is a {kind}, which is not supported: only Deployments are scaled; "
                f"set app.services.{service}.scaled to false"
            )

    def pod_history(self, start: float, end: float) -> None:
        """None, because the controller's recorder samples the pods itself."""
        return

    def past_decisions(self, start: float, end: float) -> pd.DataFrame:
        """As their own metrics tell it, or else the replicas that Deployments asked for.

        Raises:
            MetricsError: Prometheus can't be reached.
        """
        return past_decisions(self._settings, self._hasty, self._names, start, end)

    def past_costs(self, start: float, end: float) -> tuple[float, Mapping[str, float]]:
        """As the controllers' own metrics tell it.

        Raises:
            MetricsError: Prometheus can't be reached.
        """
        return past_costs(self._settings, self._hasty, self._names, start, end)

    @contextmanager
    def leadership(self, *, wait: bool = False) -> Iterator[LeaseElection | Undisputed]:
        """Check the rights, then run an election until the block ends.

        `scale` writes only while this process leads. With `cluster.lease` off there is no election, and this
        process always leads.

        Args:
            wait: for as long as it takes to lead, or to know that another controller does.

        Raises:
            ClusterError: as `check`, or another controller leads after the wait.
        """
        self.check()
        if not self._settings.cluster.lease.enabled:
            _LOG.warning(
                "cluster.lease is off: nothing keeps another controller from scaling the same services"
            )
            yield Undisputed()
            return
        election = LeaseElection(self._settings)
        self.upstreams["lease"] = election.upstream
        api = self._orchestrator
        for writer in (api.writer, api.minimums, api.annotator, api.buffers):
            writer.fence = election.seconds_left
        with election.running():
            if wait and not election.wait():
                raise ClusterError(
                    f"Lease {election.namespace}/{election.name}: {election.holder or 'nobody'} holds it, "
                    "so nothing was written; stop that controller, or run with --dry-run"
                )
            yield election
