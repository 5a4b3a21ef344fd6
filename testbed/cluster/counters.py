"""The counters that the exporters of a cluster would show, from a snapshot of the engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepscaler.calls import EXTERNAL
from deepscaler.cluster import LATENCY_BUCKETS
from deepscaler.settings import App
from testbed.cluster.exposition import (
    ISTIO_BOUNDS_SECONDS,
    CounterSnapshot,
    Durations,
    PodCounters,
    ServiceCounters,
    deployment_of,
    pod_name,
)
from testbed.engine import kernel as core
from testbed.engine.program import Program
from testbed.engine.simulator import Snapshot

BOUNDS_SECONDS = tuple(bound for bound in ISTIO_BOUNDS_SECONDS if bound in LATENCY_BUCKETS)
"""Bounds of Istio's histogram that the engine's has too."""
_BUCKETS = [LATENCY_BUCKETS.index(bound) for bound in BOUNDS_SECONDS]
OK, FAILED = 200, 503


def counter_snapshot(program: Program, app: App, snapshot: Snapshot, origin: float) -> CounterSnapshot:
    """The counters of every service, with pods named as `app` says.

    `origin` is engine time 0 in seconds since the epoch.
    """
    services = {}
    for index, name in enumerate(program.services):
        requests = _requests(program, snapshot, index)
        services[name] = ServiceCounters(
            pods=_pods(program, snapshot, index, origin, deployment_of(app, name)),
            spec_replicas=int(snapshot.spec[index]),
            requests=requests,
            durations=_durations(program, snapshot, index, requests),
            cpu_limit_cores=float(program.limit_cores[index]),
            cpu_request_cores=float(program.request_cores[index]),
            memory_limit_bytes=float(program.limit_memory_bytes[index]),
            memory_request_bytes=float(program.request_memory_bytes[index]),
        )
    return CounterSnapshot(origin + snapshot.time, services, BOUNDS_SECONDS)


def _pods(
    program: Program, snapshot: Snapshot, service: int, origin: float, deployment: str
) -> tuple[PodCounters, ...]:
    base, each = float(program.memory_base_bytes[service]), float(program.memory_per_request_bytes[service])
    return tuple(
        PodCounters(
            name=pod_name(deployment, int(snapshot.pod_uid[pod])),
            cpu_seconds=float(snapshot.pod_cpu[pod]),
            memory_bytes=base + each * int(snapshot.pod_in_flight[pod]),
            ready=int(snapshot.pod_state[pod]) == core.READY,
            start_time=origin + float(snapshot.pod_created[pod]),
            deleting_since=origin + snapshot.time if snapshot.pod_state[pod] == core.DRAINING else None,
        )
        for pod in np.flatnonzero(snapshot.pod_service == service)
    )


def _requests(program: Program, snapshot: Snapshot, service: int) -> dict[tuple[str, int], float]:
    """(caller, code) -> requests answered; a code appears with its first request, 200 at once."""
    requests: dict[tuple[str, int], float] = {}
    for (caller, callee), (_, done, failed) in zip(program.edges, snapshot.edges, strict=True):
        if callee == service:
            name = program.services[caller] if caller >= 0 else EXTERNAL
            requests[name, OK] = float(done)
            if failed:
                requests[name, FAILED] = float(failed)
    return requests


def _durations(
    program: Program, snapshot: Snapshot, service: int, requests: dict[tuple[str, int], float]
) -> dict[tuple[str, int], Durations]:
    """Durations of answered requests from outside, with their histogram; all others under one other key.

    The way to an entry is part of what a user waits, but not of what the entry's sidecar reports. So where
    calls travel, an entry that nobody else calls reports its visits, those that failed included.

    Differs: where calls travel and services call an entry as well, the way of requests from outside counts.
    """
    seconds, count = float(snapshot.service_seconds[service]), float(snapshot.service_finished[service])
    mine = np.flatnonzero(program.endpoint_service == service)
    if not len(mine):
        return {next(iter(requests), (EXTERNAL, OK)): Durations(seconds, count)}
    if (program.ops == core.HOP).any() and {caller for caller, _ in requests} == {EXTERNAL}:
        return {(EXTERNAL, OK): Durations(seconds, count, _below(snapshot.service_buckets[service]))}
    entered, taken = float(snapshot.endpoints[mine, 1].sum()), float(snapshot.endpoint_seconds[mine].sum())
    below = _below(snapshot.endpoint_buckets[mine].sum(axis=0))
    durations = {(EXTERNAL, OK): Durations(taken, entered, below)}
    if count > entered:
        other = next((key for key in requests if key[0] != EXTERNAL), (EXTERNAL, FAILED))
        # A difference of sums may lose its last bits, and a counter must never fall: whole microseconds.
        durations[other] = Durations(round(max(seconds - taken, 0.0), 6), count - entered)
    return durations


def _below(buckets: NDArray[np.int64]) -> tuple[float, ...]:
    """How many took at most each of the bounds, from the engine's counts `[B]` between its own."""
    return tuple(float(value) for value in np.cumsum(buckets)[_BUCKETS])
