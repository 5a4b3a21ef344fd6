"""The application on a real cluster: measurements from Prometheus, objects and replicas through the Kubernetes API."""

from __future__ import annotations

import logging
import operator
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TypeVar

import numpy as np
import pandas as pd
import requests
from numpy.typing import NDArray

from deepscaler.adapters.jaeger import JaegerClient
from deepscaler.adapters.kubernetes.api import ApiError
from deepscaler.adapters.kubernetes.lease import LeaseElection
from deepscaler.adapters.kubernetes.orchestrator import Orchestrator
from deepscaler.adapters.prometheus import PrometheusClient, RangeVector, grid, requests_needed
from deepscaler.adapters.queries import (
    CALLS_QUERY,
    ENTRY_QUERIES,
    FEATURE_QUERIES,
    POD_QUERIES,
    WORKLOAD_QUERIES,
    Names,
    duration,
    seconds,
)
from deepscaler.calls import COLUMNS as CALL_COLUMNS
from deepscaler.calls import EXTERNAL, CallGraph
from deepscaler.cluster import ENDPOINT_COLUMNS, LATENCY_BUCKETS, Pod, ScaleReport, Undisputed, Workload
from deepscaler.errors import ClusterError, MetricsError
from deepscaler.panel import FEATURES, MetricPanel
from deepscaler.settings import Settings

_LOG = logging.getLogger(__name__)
_Item = TypeVar("_Item")


class KubernetesCluster:
    """The `Cluster` port on Prometheus (cAdvisor, Istio, kube-state-metrics) and the Kubernetes API.

    Args:
        settings: the application and where its cluster is.
        session: carries the requests to Prometheus.
        clock: current time, seconds since the epoch.
        sleep: waits so many seconds.
        progress: told (requests done, requests in all) while `metrics` runs.
        past: the clock stands in the past: `workloads` and `pods` are told as of it, by Prometheus.

    Attributes:
        api_failures: HTTP status (0: no answer) -> times that the Kubernetes API couldn't be read.
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
    ) -> None:
        self._settings = settings
        self._names = Names(settings.app)
        self._prometheus = PrometheusClient(settings.cluster.prometheus, session, sleep)
        self._clock = clock
        self._sleep = sleep
        self._progress = progress
        self._limited: set[str] = set()  # services that have shown a CPU limit or request
        self._session = session
        self._orchestrator = Orchestrator(settings)
        self._past = past
        self._troubles: dict[str, str] = {}
        brief = settings.cluster.prometheus.model_copy(
            update={"retries": 0, "timeout": min(settings.cluster.prometheus.timeout, 5.0)}
        )
        self._brief = PrometheusClient(brief, session, sleep)  # for what can be done without
        self.api_failures: Counter[int] = Counter()

    @property
    def services(self) -> tuple[str, ...]:
        """The services in the order of the configuration."""
        return self._names.services

    def now(self) -> float:
        """Current time."""
        return self._clock()

    def sleep_until(self, moment: float) -> None:
        """Return when `moment` has come."""
        self._sleep(max(moment - self._clock(), 0.0))

    # --------------------------------------------------------------------------------------------------- measurements
    def metrics(self, start: float, end: float, step: float) -> MetricPanel:
        """The five features at start, start + step, … <= end; the number of requests doesn't depend on the services.

        Raises:
            MetricsError: Prometheus can't be reached, knows none of a feature's series, or a service has neither CPU limit nor
                CPU request (said at the first sight of it; one that loses them later becomes NaN and is logged).
        """
        collect = self._settings.collect
        queries = {feature: collect.queries.get(feature, query) for feature, query in FEATURE_QUERIES.items()}
        parts = sum(1 + (query.divide_by is not None) for query in queries.values())
        total = parts * requests_needed(len(grid(start, end, step)), collect.chunk_points)
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if self._progress:
                self._progress(done, total)

        def fetch(template: str, label: str) -> NDArray[np.float64]:
            text = self._names.render(template, label, window=collect.window)
            return self._by_service(
                self._prometheus.query_range(
                    text, start, end, step, chunk_points=collect.chunk_points, progress=advance
                ),
                label,
                text,
            )

        columns = []
        for feature, query in queries.items():
            values = fetch(query.query, query.label)
            if query.divide_by is not None:
                divisor = fetch(query.divide_by, query.label)
                if feature == "cpu":
                    self._refuse_unlimited(values, divisor)
                with np.errstate(divide="ignore", invalid="ignore"):
                    values = values / divisor
            columns.append(np.where(np.isfinite(values), values, np.nan).T)  # [L, N]
        panel = MetricPanel(
            grid(start, end, step),
            self.services,
            tuple(FEATURES),
            np.stack(columns, axis=2).astype(np.float32),  # [L, N, F]
        )
        self._name_the_unknown(panel)
        return panel

    def calls(self, start: float, end: float) -> CallGraph:
        """Calls in (start, end] by whole windows of `collect.calls_window`; a shorter span is one window.

        Callers that are no services of this application (gateways, `unknown`, other namespaces) are `external`.

        Raises:
            MetricsError: Prometheus can't be reached or knows no calls at all.
        """
        query = self._settings.collect.calls_query or CALLS_QUERY
        window = min(self._settings.collect.calls_window, end - start)
        if self._settings.cluster.call_graph == "jaeger":
            return JaegerClient(self._settings.cluster.jaeger, self._session).calls(
                self._names, start, end, window
            )
        text = self._names.render(query.query, query.label, window=duration(window))
        found = self._prometheus.query_range(
            text, start + window, end, window, chunk_points=self._settings.collect.chunk_points
        )
        self._require(found, text)
        frames = []
        for labels, rates in zip(found.labels, found.values, strict=True):
            callee = self._names.service(query.label, labels.get(query.label, ""))
            if callee is None:
                continue
            caller = None
            if labels.get(f"{query.caller}_namespace", self._names.namespace) == self._names.namespace:
                caller = self._names.service(query.caller, labels.get(query.caller, ""))
            frame = pd.DataFrame(
                {
                    "time": found.times,
                    "caller": caller or EXTERNAL,
                    "callee": callee,
                    "calls_per_second": rates,
                }
            )
            frames.append(frame[np.isfinite(rates)])
        calls: pd.DataFrame = pd.concat(frames) if frames else pd.DataFrame(columns=list(CALL_COLUMNS))
        sums = calls.groupby(["time", "caller", "callee"])["calls_per_second"].sum()
        return CallGraph(sums.reset_index())

    def latencies(self, start: float, end: float, step: float) -> pd.DataFrame:
        """Per entry and step in (start, end]: `ENDPOINT_COLUMNS`, from what the entry services' sidecars report.

        Istio doesn't know endpoints: a service with one entry gives a row of that entry's name, one with several a row of the
        *service's* name, whose `slow` counts against the tightest of their SLOs. Only calls from outside the application
        count; failed are 5xx and broken connections. Istio's bucket bounds (…, 50, 100, 250, 500, 1000, 2500, … ms) are
        exact; between them counts are spread evenly, as `histogram_quantile` does.

        Raises:
            MetricsError: Prometheus can't be reached or knows no requests at the entries.
        """
        entries = self._entries()
        span = max(step, seconds(self._settings.collect.window))
        results = {}
        for name, template in ENTRY_QUERIES.items():
            text = self._names.render(template, window=duration(span), entries=tuple(entries))
            chunk = self._settings.collect.chunk_points
            results[name] = self._prometheus.query_range(text, start + step, end, step, chunk_points=chunk)
            if name == "offered":
                self._require(results[name], text)
        label = "destination_workload"
        offered, failed, milliseconds = (
            self._by_service(results[name], label) * step for name in ("offered", "failed", "milliseconds")
        )  # [N, L] each
        times = results["offered"].times
        frames = []
        for service, (endpoint, slo) in entries.items():
            row = self.services.index(service)
            known = np.isfinite(offered[row])
            lost = np.nan_to_num(failed[row])
            bounds = np.array([*LATENCY_BUCKETS, slo, np.inf])
            below = _cumulative(self._buckets(results["buckets"], service), bounds, len(times)) * step
            counts = np.diff(np.delete(below, -2, axis=0), axis=0, prepend=0.0)  # [buckets, L]
            columns = [
                times,
                np.full(len(times), endpoint, dtype=object),
                offered[row],
                offered[row] - lost,
                lost,
                below[-1] - below[-2],
                np.nan_to_num(milliseconds[row]) / 1000,
                *counts,
            ]
            frames.append(pd.DataFrame(dict(zip(ENDPOINT_COLUMNS, columns, strict=True)))[known])
        table: pd.DataFrame = pd.concat(frames)
        return table.sort_values(["time", "endpoint"], ignore_index=True)

    # -------------------------------------------------------------------------------------------------------- objects
    def workloads(self) -> Sequence[Workload]:
        """One entry a service whose Deployment is there; limits and requests are those of the service's own container.

        From the Kubernetes API; where it can't be read, from Prometheus, and `scale` then checks replicas before it writes.

        Raises:
            ClusterError: the API has none of the Deployments, or neither it nor Prometheus can be read.
            MetricsError: in the past, neither can Prometheus.
        """
        if self._past:
            return self._measured_workloads()
        try:
            found = self._orchestrator.workloads()
        except ApiError as error:
            measured = self._instead("Deployments", error, self._measured_workloads)
            self._orchestrator.believe({self._names.scaled[item.service]: item.replicas for item in measured})
            return measured
        self._trouble("Deployments")
        return found

    def pods(self) -> Sequence[Pod]:
        """All pods of all services; usage from metrics.k8s.io where it is there, else from Prometheus.

        Raises:
            ClusterError: neither the API nor Prometheus can be read.
            MetricsError: in the past, neither can Prometheus.
        """
        if self._past:
            return self._measured_pods()
        try:
            usage = self._orchestrator.usage()
            found = self._orchestrator.pods(self._measured_usage() if usage is None else usage)
        except ApiError as error:
            return self._instead("pods", error, self._measured_pods)
        self._trouble("pods")
        return found

    def _instead(
        self, what: str, error: ApiError, measured: Callable[[], Sequence[_Item]]
    ) -> Sequence[_Item]:
        """What Prometheus says, because the API failed."""
        self.api_failures[error.status] += 1
        self._trouble(what, f"{what} can't be read from the Kubernetes API, Prometheus stands in: {error}")
        try:
            return measured()
        except MetricsError as second:
            raise ClusterError(f"{error}; Prometheus can't stand in: {second}") from error

    def _trouble(self, what: str, text: str = "") -> None:
        """Log loudly when a trouble begins or changes, and when it is over (without text)."""
        if text and text != self._troubles.get(what):
            _LOG.error("%s", text)
        elif not text and what in self._troubles:
            _LOG.warning("%s: well again", what)
        self._troubles.pop(what, None)
        if text:
            self._troubles[what] = text

    def _measured_usage(self) -> dict[str, tuple[float, float, float]]:
        """Pod -> cores, sample time, window seconds, from cAdvisor; nothing while Prometheus can't be read."""
        window, found = self._settings.collect.window, {}
        try:
            for name in ("usage", "usage_time"):
                text = self._names.render(POD_QUERIES[name], window=window)
                found[name] = {
                    labels["pod"]: value for labels, value in self._brief.query(text, self._clock())
                }
        except MetricsError as error:
            self._trouble("usage of pods", f"usage of pods unknown: {error}")
            return {}
        self._trouble("usage of pods")
        return {
            pod: (value, found["usage_time"][pod], seconds(window))
            for pod, value in found["usage"].items()
            if pod in found["usage_time"]
        }

    def _measured_workloads(self) -> list[Workload]:
        """As of `now()`, from kube-state-metrics; without it running containers stand for replicas and cAdvisor tells the limits.

        Raises:
            MetricsError: Prometheus can't be reached or knows none of the Deployments.
        """
        found = {name: self._now(template) for name, template in WORKLOAD_QUERIES.items()}
        if not found["replicas"]:
            raise MetricsError(self._unknown(self._names.render(WORKLOAD_QUERIES["replicas"], window="1m")))
        replicas = {labels["deployment"]: value for labels, value in found["replicas"]}
        amounts = {
            (kind, labels["deployment"], labels["resource"]): value
            for kind in ("requests", "limits")
            for labels, value in found[kind]
        }
        boots = self._boot_seconds(found["boot"])
        workloads = []
        for service in self.services:
            deployment = self._names.scaled[service]
            if deployment not in replicas:
                _LOG.warning(
                    "%s: Prometheus knows no Deployment %s/%s", service, self._names.namespace, deployment
                )
                continue
            workloads.append(
                Workload(
                    service=service,
                    replicas=round(replicas[deployment]),
                    cpu_limit_cores=amounts.get(("limits", deployment, "cpu")),
                    cpu_request_cores=amounts.get(("requests", deployment, "cpu")),
                    memory_limit_bytes=amounts.get(("limits", deployment, "memory")),
                    memory_request_bytes=amounts.get(("requests", deployment, "memory")),
                    boot_seconds=boots.get(service, self._settings.process.boot_seconds.get(service)),
                    autoscalers=tuple(
                        f"HorizontalPodAutoscaler/{labels['horizontalpodautoscaler']}"
                        for labels, _ in found["autoscalers"]
                        if labels["scaletargetref_name"] == deployment
                    ),
                )
            )
        return workloads

    def _boot_seconds(self, by_pod: Sequence[tuple[Mapping[str, str], float]]) -> dict[str, float]:
        """Medians by service; told of the past, the pods that the API has today stand in where Prometheus knows none."""
        values: dict[str, list[float]] = {}
        for labels, value in by_pod:
            service = self._names.service("pod", labels["pod"])
            if service is not None and value > 0:
                values.setdefault(service, []).append(value)
        boots = {service: median(seconds_) for service, seconds_ in values.items()}
        if self._past and set(self.services) - set(boots):
            try:
                boots = {**self._orchestrator.boot_seconds(), **boots}
            except ApiError as error:
                _LOG.info("start-up times aren't known from the Kubernetes API either: %s", error)
        return boots

    def _measured_pods(self) -> list[Pod]:
        """As of `now()`, from kube-state-metrics and cAdvisor.

        Raises:
            MetricsError: Prometheus can't be reached or knows none of the pods.
        """
        values = {name: template for name, template in POD_QUERIES.items() if name != "phase"}
        found = {
            name: {labels["pod"]: value for labels, value in self._now(template)}
            for name, template in values.items()
        }
        phases = {labels["pod"]: labels["phase"] for labels, _ in self._now(POD_QUERIES["phase"])}
        if not phases:
            raise MetricsError(self._unknown(self._names.render(POD_QUERIES["phase"], window="1m")))
        pods = []
        for name, phase in sorted(phases.items()):
            service = self._names.service("pod", name)
            if service is None:
                continue
            ready = found["ready"].get(name)
            pods.append(
                Pod(
                    service=service,
                    name=name,
                    phase=phase,
                    deleting=name in found["deleting"],
                    start_time=found["start"].get(name),
                    ready=None if ready is None else ready == 1,
                    ready_since=found["ready_since"].get(name) if ready == 1 else None,
                    usage_cores=found["usage"].get(name),
                    usage_time=found["usage_time"].get(name) if name in found["usage"] else None,
                    usage_window_seconds=seconds(self._settings.collect.window),
                    cpu_request_cores=found["request"].get(name),
                )
            )
        return pods

    def scale(self, targets: Mapping[str, int]) -> ScaleReport:
        """Set `spec.replicas` of these services' Deployments through the `scale` subresource, one after the other.

        What somebody else changed since `workloads()` isn't overwritten but reported as a conflict.

        Raises:
            ClusterError: an unknown service or a target that isn't an integer of at least 1, before any request.
        """
        return self._orchestrator.scale(
            {service: self._checked(service, target) for service, target in targets.items()}
        )

    # -------------------------------------------------------------------------------------------------------- the start
    def check(self) -> None:
        """Can this user read and scale all that is to be scaled?

        Raises:
            ClusterError: rights are missing (each is named), a service is no Deployment, or the API can't be asked.
        """
        lease = self._settings.cluster.lease
        missing = self._orchestrator.missing_rights(
            (lease.namespace or self._settings.app.namespace) if lease.enabled else None
        )
        if missing:
            raise ClusterError(
                f"missing rights: {'; '.join(map(str, missing))}. Bind a Role with them to this user or service account, "
                "or run with --dry-run"
            )
        for service, kind in self._orchestrator.unsupported().items():
            raise ClusterError(
                f"{service}: {self._names.namespace}/{self._names.scaled[service]} is a {kind}, which is not supported: "
                f"only Deployments are scaled; set app.services.{service}.scaled to false"
            )

    def pod_history(self, start: float, end: float) -> None:
        """None: the controller's recorder samples the pods."""
        return

    @contextmanager
    def leadership(self, *, wait: bool = False) -> Iterator[LeaseElection | Undisputed]:
        """Rights checked and, unless `cluster.lease` is off, an election that runs until the end; `scale` writes only while it is led.

        Args:
            wait: for as long as it takes to lead, or to know that another does.

        Raises:
            ClusterError: as `check`, or another leads after the wait.
        """
        self.check()
        if not self._settings.cluster.lease.enabled:
            _LOG.warning(
                "cluster.lease is off: nothing keeps another controller from scaling the same services"
            )
            yield Undisputed()
            return
        election = LeaseElection(self._settings)
        self._orchestrator.fence = election.seconds_left
        with election.running():
            if wait and not election.wait():
                raise ClusterError(
                    f"Lease {election.namespace}/{election.name}: {election.holder or 'nobody'} holds it, so nothing was written; "
                    "stop that controller, or run with --dry-run"
                )
            yield election

    # ------------------------------------------------------------------------------------------------------- helpers
    def _by_service(self, found: RangeVector, label: str, query: str | None = None) -> NDArray[np.float64]:
        """Values `[N, L]`: the series of each service added up; NaN where none has a sample.

        With `query` given, no series at all is an error.
        """
        if query is not None:
            self._require(found, query)
        out = np.full((len(self.services), len(found.times)), np.nan)
        for labels, values in zip(found.labels, found.values, strict=True):
            service = self._names.service(label, labels.get(label, ""))
            if service is not None:
                row = self.services.index(service)
                out[row] = np.where(
                    np.isnan(values), out[row], np.where(np.isnan(out[row]), values, out[row] + values)
                )
        return out

    def _require(self, found: RangeVector, query: str) -> None:
        if not found.labels:
            raise MetricsError(self._unknown(query))

    def _unknown(self, query: str) -> str:
        return (
            f"{self._prometheus.url}: Prometheus answered but knows no such series in this time; check app.namespace and app.services "
            f"(deployment, container, workloads), and that it scrapes the cluster; query: {' '.join(query.split())}"
        )

    def _refuse_unlimited(self, used: NDArray[np.float64], limits: NDArray[np.float64]) -> None:
        limited: NDArray[np.bool_] = np.asarray(np.isfinite(limits).any(axis=1))
        self._limited |= {service for service, has in zip(self.services, limited, strict=True) if has}
        bare = [
            service
            for row, service in enumerate(self.services)
            if np.isfinite(used[row]).any() and not limited[row]
        ]
        refused = [service for service in bare if service not in self._limited]
        if refused:
            raise MetricsError(
                f"cpu of {', '.join(refused)}: neither a CPU limit nor a CPU request to compare with (container_spec_cpu_quota, "
                "kube_pod_container_resource_requests); set resources.limits.cpu in the Deployment"
            )
        if bare:
            _LOG.warning("cpu of %s: the CPU limit is no longer known; left missing", ", ".join(bare))

    def _name_the_unknown(self, panel: MetricPanel) -> None:
        absent: NDArray[np.bool_] = np.asarray(np.isnan(panel.values).all(axis=0))  # [N, F]
        for row, service in enumerate(self.services):
            if absent[row].any():
                features = ", ".join(
                    feature for feature, gone in zip(panel.features, absent[row], strict=True) if gone
                )
                _LOG.warning(
                    "%s: no samples of %s; check app.services.%s (deployment, container, workloads)",
                    service,
                    features,
                    service,
                )

    def _entries(self) -> dict[str, tuple[str, float]]:
        """Entry service -> name of its row, tightest SLO in seconds."""
        entries: dict[str, tuple[str, float]] = {}
        for entry in self._settings.app.entries:
            several = entry.service in entries
            slo = min(entry.slo, entries[entry.service][1]) if several else entry.slo
            entries[entry.service] = (entry.service if several else entry.name, slo)
        return entries

    def _buckets(self, found: RangeVector, service: str) -> dict[float, NDArray[np.float64]]:
        """Bound in seconds -> cumulative rate `[L]` of one service."""
        buckets: dict[float, NDArray[np.float64]] = {}
        for labels, values in zip(found.labels, found.values, strict=True):
            if self._names.service("destination_workload", labels.get("destination_workload", "")) == service:
                bound = float(labels.get("le", "nan")) / 1000
                buckets[bound] = buckets.get(bound, 0.0) + np.nan_to_num(values)
        return buckets

    def _now(self, template: str) -> list[tuple[Mapping[str, str], float]]:
        return self._prometheus.query(
            self._names.render(template, window=self._settings.collect.window), self._clock()
        )

    def _checked(self, service: str, target: object) -> int:
        """The target as a Python integer; the official client refuses numpy's, and `null` would mean 0 to the API."""
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


def _cumulative(
    buckets: Mapping[float, NDArray[np.float64]], at: NDArray[np.float64], length: int
) -> NDArray[np.float64]:
    """Counts `[len(at), L]` up to each bound, interpolated between the histogram's; NaN where there is no histogram."""
    finite = sorted(bound for bound in buckets if np.isfinite(bound))
    if not finite:
        return np.full((len(at), length), np.nan)
    known = np.maximum.accumulate(np.stack([np.zeros(length), *(buckets[bound] for bound in finite)]), axis=0)
    bounds = np.array([0.0, *finite])
    right = np.clip(np.searchsorted(bounds, at), 1, len(bounds) - 1)
    share = np.clip(
        (np.where(np.isinf(at), bounds[-1], at) - bounds[right - 1]) / (bounds[right] - bounds[right - 1]),
        0.0,
        1.0,
    )[:, None]
    below: NDArray[np.float64] = known[right - 1] + share * (known[right] - known[right - 1])
    below[np.isinf(at)] = np.maximum(buckets.get(np.inf, known[-1]), known[-1])
    return below
