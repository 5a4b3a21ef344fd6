"""Cumulative counters of the emulated application as the series that the exporters of a cluster would show.

A `CounterSnapshot` is what one virtual scrape sees. `samples` turns it into named, labelled values:
cAdvisor's containers, Istio's two reports of each request, kube-state-metrics's objects. From there go

* `exposition_series`: snapshots -> series for remote write (`testbed.live.prometheus_server.remote_write`),
  with the staleness markers that a real scrape leaves where a series ends;
* `exposition_text`: one snapshot -> a `/metrics` page.

Counters start anywhere and only grow; a pod that is gone is simply absent from the next snapshot.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from deepscaler.calls import EXTERNAL
from deepscaler.settings import App

ISTIO_BOUNDS_SECONDS = (
    *(0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    *(2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0),
)
"""Upper bounds of Istio's default duration histogram."""
CFS_PERIOD_MICROSECONDS = 100_000.0
STALE = float(struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0])
"""The NaN that tells Prometheus that a series ends here."""

Labels = tuple[tuple[str, str], ...]
"""Sorted label pairs, the name as `__name__`."""


@dataclass(frozen=True)
class PodCounters:
    """One pod whose container runs (starting, ready or draining).

    Attributes:
        name: as a Deployment names its pods, see `pod_name`; other names aren't recognised by the queries.
        cpu_seconds: CPU time used since the pod's start.
        memory_bytes: working set now.
        ready: the Ready condition.
        start_time: seconds since the epoch; None leaves `kube_pod_start_time` out.
        deleting_since: since when it drains; None where it doesn't.
    """

    name: str
    cpu_seconds: float
    memory_bytes: float
    ready: bool = True
    start_time: float | None = None
    deleting_since: float | None = None


@dataclass(frozen=True)
class Durations:
    """Durations of finished requests since the start.

    Attributes:
        sum_seconds: their sum.
        count: how many.
        buckets: how many took at most each of the bounds (cumulative over bounds, without the open bucket);
            empty where no histogram is kept.
    """

    sum_seconds: float
    count: float
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True)
class ServiceCounters:
    """One service at one moment. All counts are cumulative since the start of the run.

    Attributes:
        pods: those whose container runs.
        spec_replicas: what its Deployment asks for.
        ready_replicas: what its Deployment's status says; by default the ready pods that aren't being
            deleted.
        requests: (caller, response code) -> requests that this service has answered; caller `external` is the
            world outside, shown as `istio-ingressgateway`.
        durations: (caller, response code) -> their durations at this service. Where only a service's totals
            are kept, give them under one key of `requests`: the mean response time needs no more, and an
            entry that only the world outside calls gets its exact histogram from `(EXTERNAL, 200)`.
        cpu_limit_cores, memory_limit_bytes: of one pod; None where it has none.
        cpu_request_cores, memory_request_bytes: likewise.
    """

    pods: tuple[PodCounters, ...]
    spec_replicas: int
    cpu_limit_cores: float | None
    cpu_request_cores: float | None
    memory_limit_bytes: float | None = None
    memory_request_bytes: float | None = None
    ready_replicas: int | None = None
    requests: Mapping[tuple[str, int], float] = field(default_factory=dict)
    durations: Mapping[tuple[str, int], Durations] = field(default_factory=dict)


@dataclass(frozen=True)
class CounterSnapshot:
    """What one scrape at `time` (seconds since the epoch) sees; a service that can't be seen is absent.

    Attributes:
        bounds_seconds: bounds of all `Durations.buckets`.
    """

    time: float
    services: Mapping[str, ServiceCounters]
    bounds_seconds: tuple[float, ...] = ISTIO_BOUNDS_SECONDS


@dataclass(frozen=True, eq=False)
class Series:
    """One time series: labels, `[L]` seconds since the epoch (rising), `[L]` values (`STALE` ends it)."""

    labels: Labels
    times: NDArray[np.float64]
    values: NDArray[np.float64]


def pod_name(deployment: str, number: int) -> str:
    """A name such as Kubernetes gives the number-th pod of a Deployment: `<deployment>-<hash>-<hash>`."""
    letters = "bcdfghjklmnpqrstvwxz2456789"
    tail = ""
    for _ in range(5):
        number, letter = divmod(number, len(letters))
        tail = letters[letter] + tail
    return f"{deployment}-7d9c5b8f6d-{tail}"


def deployment_of(app: App, service: str) -> str:
    """The Deployment that is scaled for this service."""
    spec = app.services[service]
    return spec.deployment or (spec.workloads or [service])[0]


def labels(metric: str, /, **pairs: str) -> Labels:
    """Sorted labels of a series of this metric."""
    return tuple(sorted({"__name__": metric, **pairs}.items()))


def samples(snapshot: CounterSnapshot, app: App) -> Iterator[tuple[Labels, float]]:
    """Every series of the snapshot with its value; Deployments and workloads are named as `app` says."""
    for service, counters in snapshot.services.items():
        deployment = deployment_of(app, service)
        yield from _deployment(app.namespace, deployment, counters)
        for replica_set in dict.fromkeys(replica_set_of(pod.name) for pod in counters.pods):
            yield _replica_set_labels(app.namespace, replica_set, deployment), 1.0
        for pod in counters.pods:
            yield from _pod(app.namespace, app.services[service].container or service, pod, counters)
        yield from _istio(app, workload_of(app, service), counters, snapshot.bounds_seconds)


def exposition_series(snapshots: Sequence[CounterSnapshot], app: App) -> list[Series]:
    """Snapshots in time order as series ready for remote write.

    A series that is in one snapshot and not in the next gets a `STALE` sample at the next one's time, as a
    real scrape leaves it: gauges of a vanished pod end at once instead of counting for five more minutes.
    """
    columns: dict[Labels, tuple[list[float], list[float]]] = {}
    before: set[Labels] = set()
    for snapshot in snapshots:
        seen: set[Labels] = set()
        for key, value in samples(snapshot, app):
            times, values = columns.setdefault(key, ([], []))
            times.append(snapshot.time)
            values.append(value)
            seen.add(key)
        for key in before - seen:
            columns[key][0].append(snapshot.time)
            columns[key][1].append(STALE)
        before = seen
    return [Series(key, np.array(times), np.array(values)) for key, (times, values) in columns.items()]


def exposition_text(snapshot: CounterSnapshot, app: App) -> str:
    """One snapshot in Prometheus's text format, series of one name together."""
    families: dict[str, list[str]] = {}
    for key, value in samples(snapshot, app):
        pairs = dict(key)
        name = pairs.pop("__name__")
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in pairs.items())
        families.setdefault(name, []).append(f"{name}{{{inside}}} {_number(value)}")
    return "\n".join(line for lines in families.values() for line in lines) + "\n"


# -------------------------------------------------------------------------------------------------- exporters
# Label sets are made once and cached: a day of scrapes asks for the same ones thousands of times.
def _deployment(namespace: str, deployment: str, counters: ServiceCounters) -> Iterator[tuple[Labels, float]]:
    ready = counters.ready_replicas
    if ready is None:
        ready = sum(pod.ready and pod.deleting_since is None for pod in counters.pods)
    spec_labels, ready_labels = _deployment_labels(namespace, deployment)
    yield spec_labels, float(counters.spec_replicas)
    yield ready_labels, float(ready)


@cache
def _deployment_labels(namespace: str, deployment: str) -> tuple[Labels, Labels]:
    names = ("kube_deployment_spec_replicas", "kube_deployment_status_replicas_ready")
    spec, ready = (labels(name, namespace=namespace, deployment=deployment) for name in names)
    return spec, ready


@lru_cache(maxsize=4096)
def _replica_set_labels(namespace: str, replica_set: str, deployment: str) -> Labels:
    owner = {"owner_name": deployment, **owned("Deployment")}
    return labels("kube_replicaset_owner", namespace=namespace, replicaset=replica_set, **owner)


def _pod(
    namespace: str, container: str, pod: PodCounters, counters: ServiceCounters
) -> Iterator[tuple[Labels, float]]:
    """What cAdvisor and kube-state-metrics say of a pod.

    cAdvisor shows a CPU quota only where there is a limit, and a memory limit of 0 where there is none.
    """
    limit = counters.cpu_limit_cores
    values = (
        pod.cpu_seconds,
        pod.memory_bytes,
        CFS_PERIOD_MICROSECONDS,
        None if limit is None else limit * CFS_PERIOD_MICROSECONDS,
        counters.memory_limit_bytes or 0.0,
        limit,
        counters.memory_limit_bytes,
        counters.cpu_request_cores,
        counters.memory_request_bytes,
        1.0,
        float(pod.ready),
        pod.start_time,
        pod.deleting_since,
        1.0,
    )
    for key, value in zip(_pod_labels(namespace, container, pod.name), values, strict=True):
        if value is not None:
            yield key, value


@lru_cache(maxsize=4096)
def _pod_labels(namespace: str, container: str, pod: str) -> tuple[Labels, ...]:
    where = {"namespace": namespace, "pod": pod}
    inside = {
        **where,
        "container": container,
        "image": f"testbed/{container}:1",
        "name": f"{pod}-{container}",
        "job": "kubelet",
    }
    inside["id"] = f"/kubepods/{pod}/{container}"
    cpu, memory = {"resource": "cpu", "unit": "core"}, {"resource": "memory", "unit": "byte"}
    return (
        labels("container_cpu_usage_seconds_total", cpu="total", **inside),
        labels("container_memory_working_set_bytes", **inside),
        labels("container_spec_cpu_period", **inside),
        labels("container_spec_cpu_quota", **inside),
        labels("container_spec_memory_limit_bytes", **inside),
        labels("kube_pod_container_resource_limits", container=container, **cpu, **where),
        labels("kube_pod_container_resource_limits", container=container, **memory, **where),
        labels("kube_pod_container_resource_requests", container=container, **cpu, **where),
        labels("kube_pod_container_resource_requests", container=container, **memory, **where),
        labels("kube_pod_status_phase", phase="Running", **where),
        labels("kube_pod_status_ready", condition="true", **where),
        labels("kube_pod_start_time", **where),
        labels("kube_pod_deletion_timestamp", **where),
        labels("kube_pod_owner", owner_name=replica_set_of(pod), **owned("ReplicaSet"), **where),
    )


def replica_set_of(pod: str) -> str:
    """The ReplicaSet that owns a pod."""
    return pod.rpartition("-")[0]


def owned(kind: str) -> dict[str, str]:
    """Labels by which kube-state-metrics says who controls an object."""
    return {"owner_kind": kind, "owner_is_controller": "true"}


def _istio(
    app: App, workload: str, counters: ServiceCounters, bounds: tuple[float, ...]
) -> Iterator[tuple[Labels, float]]:
    """Both sidecars' reports of the same requests."""
    for (caller, code), count in counters.requests.items():
        for key in _request_labels(app.namespace, _caller(app, caller), workload, code):
            yield key, count
    for (caller, code), taken in counters.durations.items():
        values = (
            taken.sum_seconds * 1000,
            taken.count,
            *((*taken.buckets, taken.count) if taken.buckets else ()),
        )
        for report in _duration_labels(
            app.namespace, _caller(app, caller), workload, code, bounds if taken.buckets else None
        ):
            yield from zip(report, values, strict=True)


@lru_cache(maxsize=65536)
def _request_labels(namespace: str, caller: str | None, workload: str, code: int) -> tuple[Labels, ...]:
    """The destination's and the source's label set."""
    return tuple(
        labels("istio_requests_total", **route) for route in _routes(namespace, caller, workload, code)
    )


@lru_cache(maxsize=65536)
def _duration_labels(
    namespace: str, caller: str | None, workload: str, code: int, bounds: tuple[float, ...] | None
) -> tuple[tuple[Labels, ...], ...]:
    """The destination's and the source's label sets: sum, count and, with bounds, the buckets."""
    name = "istio_request_duration_milliseconds"
    edges = () if bounds is None else (*(f"{bound * 1000:g}" for bound in bounds), "+Inf")
    return tuple(
        (
            labels(f"{name}_sum", **route),
            labels(f"{name}_count", **route),
            *(labels(f"{name}_bucket", le=le, **route) for le in edges),
        )
        for route in _routes(namespace, caller, workload, code)
    )


def _routes(namespace: str, caller: str | None, workload: str, code: int) -> list[dict[str, str]]:
    """Labels that both reports share, with each one's reporter; caller None is the world outside."""
    route = {
        "source_workload": caller or "istio-ingressgateway",
        "source_workload_namespace": namespace if caller else "istio-system",
        "destination_workload": workload,
        "destination_workload_namespace": namespace,
        "destination_service_name": workload,
        "request_protocol": "http",
        "response_code": str(code),
    }
    return [{**route, "reporter": reporter} for reporter in ("destination", "source")]


def _caller(app: App, caller: str) -> str | None:
    return None if caller == EXTERNAL else workload_of(app, caller)


def workload_of(app: App, service: str) -> str:
    """The Istio workload that reports this service's requests."""
    spec = app.services.get(service)
    return (spec.workloads or [spec.deployment or service])[0] if spec else service


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return repr(float(value)) if math.isfinite(value) else ("+Inf" if value > 0 else "-Inf")
