"""The emulated cluster under the load of a recorded run, with its replicas or with a policy of ours."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import nnls

from deepscaler.artefacts import utc_seconds
from deepscaler.cluster import LATENCY_BUCKETS
from deepscaler.control.controller import Controller
from deepscaler.errors import DataError
from deepscaler.policies.registry import make_policy
from deepscaler.settings import Settings
from testbed.applications.application import Application
from testbed.applications.loading import load_application
from testbed.cluster.virtual import VirtualCluster
from testbed.engine.simulator import LoadPlan
from testbed.fidelity.records import QUANTILES, SCRAPE_SECONDS, Cell, Floats, Record

STEP = SCRAPE_SECONDS
LEAD = 4 * STEP
"""Seconds of an idle cluster before the load."""
OBSERVED_LATE = STEP / 2
"""Prometheus sees a change of replicas this much later than it happens, on average."""
WINDOW = 2
"""Steps over which the recordings take quantiles."""
RATE_WINDOW = 4
"""Steps over which the recordings take rates: CPU and requests of the last minute."""
GATEWAY_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Buckets of Istio's histogram in seconds, those below 5 ms as one; quantiles are interpolated in them."""
HELD_SECONDS = 60.0
"""Seconds between two samples of the metrics server in the recordings: HPAs act once a minute."""


def replay(
    cell: Cell, settings: Settings, application: str, *, policy: str | None = None, seed: int = 2000
) -> Record:
    """The emulated run, measured as the recording was.

    Args:
        cell: the recorded run, whose load it gets.
        settings: those of the application.
        application: name or path of the emulated application.
        policy: who scales; None: the recorded replicas are set when the recording says.
        seed: of every random stream.
    """
    shift = LEAD + (-cell.phase + OBSERVED_LATE if policy is None else -cell.phase) % STEP
    length = math.ceil(cell.record.seconds[-1] / STEP) * STEP
    told = _told(settings, cell, application, length + LEAD + STEP)
    plan = _plan(cell, load_application(application), shift)
    cluster = VirtualCluster(told, seed=seed, plan=plan)
    origin = utc_seconds(told.testbed.start)
    if policy is None:
        _follow(cluster, cell, origin + shift)
        cluster.sleep_until(origin + shift + length)
    else:
        made = make_policy(policy, told, seed=seed)
        Controller(cluster, made, told, survive_bugs=False).run(duration=shift + length)
    return _measured(cluster, cell, origin, shift)


def own_policy(cell: Cell) -> str | None:
    """Our policy that does what the recorded one is said to do; None where there is none."""
    found = re.fullmatch(r"KHPA-(\d+)", cell.policy)
    return f"hpa_r{found.group(1)}" if found else None


def _told(settings: Settings, cell: Cell, application: str, length: float) -> Settings:
    bed = settings.testbed.model_copy(
        update={
            "application": application,
            "initial_replicas": 1,
            "warmup": 0.0,
            "duration": length,
            "usage_seconds": HELD_SECONDS,
        }
    )
    rails = settings.scale.guard_rails.model_copy(update={"min_replicas": 1, "max_replicas": _most(cell)})
    return settings.model_copy(
        update={
            "testbed": bed,
            "collect": settings.collect.model_copy(update={"step": STEP}),
            "scale": settings.scale.model_copy(update={"guard_rails": rails}),
        }
    )


def _most(cell: Cell) -> int:
    return max(int(cell.record.pods.max()), 8)


def _plan(cell: Cell, application: Application, shift: float) -> LoadPlan:
    times = np.concatenate([[0.0], cell.user_seconds + shift])
    users = np.concatenate([[0], cell.users])
    changed = np.concatenate([[True], np.diff(users) != 0])
    return LoadPlan.closed(times[changed], users[changed], task_weights(cell, application), spread=1.0)


def task_weights(cell: Cell, application: Application) -> NDArray[np.float64]:
    """How often users chose each task, `[S]`, from what Locust counted.

    Locust doesn't count what a browser asks when it is redirected: a GET that follows a POST.

    Raises:
        DataError: it counted none of the application's requests.
    """
    seen = np.zeros((len(application.endpoints), len(application.tasks)))
    for column, task in enumerate(application.tasks):
        before = ""
        for request in task.requests:
            name = application.endpoints[request].name
            seen[request, column] += not (before.startswith("POST") and name.startswith("GET"))
            before = name
    asked = np.array([cell.asked.get(name, 0.0) for name in application.endpoint_names])
    weights, _ = nnls(seen, asked)
    if not weights.sum() > 0:
        raise DataError(
            f"{cell.name}/_stats.csv: no requests to {', '.join(application.endpoint_names)}; "
            "leave this run out of the archive, or name the application's settings in --config"
        )
    return np.asarray(weights / weights.sum())


def _follow(cluster: VirtualCluster, cell: Cell, began: float) -> None:
    pods, seconds = cell.record.pods.astype(int), cell.record.seconds
    current = np.ones(pods.shape[1], int)
    for at in np.flatnonzero(np.r_[True, (np.diff(pods, axis=0) != 0).any(axis=1)]):
        cluster.sleep_until(began + max(seconds[at] - OBSERVED_LATE, 0.0))
        differ = np.flatnonzero(pods[at] != current)
        cluster.scale({cell.record.services[service]: int(pods[at, service]) for service in differ})
        current = pods[at]


def _measured(cluster: VirtualCluster, cell: Cell, origin: float, shift: float) -> Record:
    record, program = cell.record, cluster.program
    names = record.services
    end = cluster.now()
    panel = cluster.metrics(origin + STEP, end, STEP)
    table = cluster.pod_history(origin, end)
    asked = table["starting"] + table["ready"]
    pods = asked.to_numpy(np.float64).reshape(len(panel.times), len(names))
    at = panel.times - origin - shift
    order = [panel.services.index(name) for name in names]
    limits = program.limit_cores[[program.services.index(name) for name in names]]
    cpu = panel.feature("cpu").astype(np.float64)[:, order] * limits * panel.feature("pod")[:, order]
    kept = (at >= record.seconds[0]) & (at <= record.seconds[-1])
    requests = panel.feature("req").astype(np.float64)[:, order]
    cpu, requests = _rolled(np.nan_to_num(cpu)), _rolled(requests)
    return Record(
        seconds=at[kept],
        services=names,
        limits=limits,
        pods=pods[:, order][kept],
        cores=cpu[kept],
        requests=requests[kept],
        quantiles=_quantiles(cluster, origin, end)[kept],
    )


def _rolled(table: Floats) -> Floats:
    """Means over the last `RATE_WINDOW` rows, `[T, N]`; of fewer at the beginning."""
    return pd.DataFrame(table).rolling(RATE_WINDOW, min_periods=1).mean().to_numpy(np.float64)


def _quantiles(cluster: VirtualCluster, start: float, end: float) -> Floats:
    """Latency over the last `WINDOW` steps, `[T, Q]`, as PromQL takes it from Istio's buckets."""
    frame = cluster.latencies(start, end, STEP)
    counts = frame[[name for name in frame.columns if name.startswith("le_")]].to_numpy(np.float64)
    counts = counts.reshape(-1, len(cluster.program.endpoints), counts.shape[1]).sum(axis=1)  # [T, B]
    place = np.searchsorted(GATEWAY_BOUNDS, [*LATENCY_BUCKETS, GATEWAY_BOUNDS[-1]])
    coarse = np.zeros((len(counts), len(GATEWAY_BOUNDS)))
    for column, target in enumerate(place):
        coarse[:, target] += counts[:, column]
    rolled = np.cumsum(coarse, axis=0)
    rolled[WINDOW:] = rolled[WINDOW:] - rolled[:-WINDOW]
    return np.array([[bucket_quantile(row, share) for share in QUANTILES] for row in rolled])


def bucket_quantile(counts: Floats, share: float) -> float:
    """The quantile of a histogram with `GATEWAY_BOUNDS`, NaN if it is empty.

    Source: PromQL, histogram_quantile.
    """
    total = counts.sum()
    if total <= 0:
        return math.nan
    below = np.concatenate([[0.0], np.cumsum(counts)])
    at = min(int(np.searchsorted(below[1:], share * total)), len(counts) - 1)
    low = GATEWAY_BOUNDS[at - 1] if at else 0.0
    return float(low + (GATEWAY_BOUNDS[at] - low) * (share * total - below[at]) / counts[at])
