"""A recorded run once more in the emulated cluster: its load, its demands, and another policy in charge.

What a replay knows comes from the record alone: request counts, CPU, replicas. The demands, the balancing
and the random streams of the cluster that was recorded are unknown to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from deepscaler.artefacts import utc_text
from deepscaler.errors import DataError
from deepscaler.evaluation.measures import evaluate_run
from deepscaler.evaluation.span import replicas
from deepscaler.labels.demand import DemandModel
from deepscaler.runs import Run
from deepscaler.settings import Settings
from testbed.applications.application import Application
from testbed.applications.loading import load_application
from testbed.applications.variation import with_visits
from testbed.cluster.virtual import VirtualCluster
from testbed.engine.program import compile_program
from testbed.engine.simulator import LoadPlan
from testbed.experiments.shadow import follow

Array = NDArray[np.float64]
SEEDS = (9001, 9002, 9003, 9004)
"""Random streams of the replays; no run has these."""


@dataclass(frozen=True, eq=False)
class Replayed:
    """Measures of the replays, one entry per random stream.

    Attributes:
        was: with the recorded replicas, set when the record says.
        would: with the other policy in charge.
    """

    was: Sequence[Mapping[str, Any]]
    would: Sequence[Mapping[str, Any]]


def replay(
    run: Run, settings: Settings, model: DemandModel, policy: str, warmup: float, seeds: Sequence[int] = SEEDS
) -> Replayed:
    """Replay the recorded replicas, and the policy in charge instead.

    Args:
        run: with metrics, of an application that can be emulated.
        settings: of the run; of `testbed` only the application and the number of replicas at the start count.
        model: the demands fitted to the run.
        policy: who is in charge.
        warmup: seconds cut from the start of each run before it is measured.
        seeds: of the random streams, one pair of replays each.

    Raises:
        DataError: the record lacks what a replay needs.
        SettingsError: the application can't be emulated.
    """
    told = _told(settings, run)
    application = fitted_application(load_application(told.testbed.application), run, model)
    plan = recorded_load(run, told, application)
    was, would = [], []
    for seed in seeds:
        cluster = VirtualCluster(told, seed=seed, plan=plan, program=compile_program(application))
        was.append(evaluate_run(_with_recorded_replicas(cluster, run, told), warmup))
        cluster = VirtualCluster(told, seed=seed, plan=plan, program=compile_program(application))
        seconds = float(told.testbed.duration)
        would.append(evaluate_run(follow(cluster, told, policy, None, seed, seconds), warmup))
    return Replayed(was, would)


def _told(settings: Settings, run: Run) -> Settings:
    times = np.unique(run.endpoints["time"].to_numpy(np.float64))
    if len(times) < 2:
        raise DataError("endpoints.csv: fewer than two samples; a replay needs a load over time")
    step = float(np.min(np.diff(times)))
    update = {
        "demand_sigma": 0.0,
        "balancing": "least_request",
        "history": 0.0,
        "start": utc_text(float(times[0] - step)),
        "duration": float(times[-1] - times[0] + step),
    }
    bed = settings.testbed.model_copy(update=update)
    scale = settings.scale.model_copy(update={"dry_run": False, "mode": "act", "modes": {}})
    collect = settings.collect.model_copy(update={"step": step})
    return settings.model_copy(update={"testbed": bed, "scale": scale, "collect": collect})


# -------------------------------------------------------------------------------------------- the application
def endpoint_counts(run: Run, application: Application) -> Array:
    """Requests offered to each endpoint of the application in the whole run, `[E]`."""
    sums = run.endpoints.groupby("endpoint")["offered"].sum()
    return np.array([float(sums.get(name, 0.0)) for name in application.endpoint_names])


def fitted_application(application: Application, run: Run, model: DemandModel) -> Application:
    """The application with the numbers of calls, CPU demands and idle cores that were fitted."""
    counts = endpoint_counts(run, application)
    if not counts.sum() > 0:
        known = ", ".join(application.endpoint_names)
        raise DataError(f"endpoints.csv: no request of the emulated application's endpoints ({known})")
    visits = dict(zip(model.services, model.external_share @ model.visits, strict=True))
    seen = np.array([visits.get(name, math.nan) for name in application.service_names])
    demand = dict(zip(model.services, model.demand_seconds.tolist(), strict=True))
    idle = dict(zip(model.services, model.idle_cores.tolist(), strict=True))
    services = [
        replace(service, demand_seconds=demand[service.name], idle_cores=idle[service.name])
        if demand.get(service.name, 0.0) > 0
        else service
        for service in application.services
    ]
    told = with_visits(application, counts / counts.sum(), seen)
    return replace(told, services=tuple(services))


# --------------------------------------------------------------------------------------------------- the load
def recorded_load(run: Run, settings: Settings, application: Application) -> LoadPlan:
    """The load of the record: users of a closed loop where the think time is known, else arrivals.

    Users are those who think, by Little's law, and those who wait for an answer.
    """
    counts = np.zeros((len(application.endpoints), len(application.tasks)))
    for column, task in enumerate(application.tasks):
        for request in task.requests:
            counts[request, column] += 1
    weights, _ = nnls(counts, endpoint_counts(run, application))
    share = weights / weights.sum()
    per_task = float(counts.sum(axis=0) @ share)
    step, warmup = settings.collect.step, settings.testbed.warmup
    sums = run.endpoints.groupby("time")[["offered", "done", "duration_seconds"]].sum()
    begins = sums.index.to_numpy(np.float64) - step - float(sums.index[0] - step)
    moments = np.concatenate([[0.0], begins[1:] + warmup])
    if settings.process.think_time is None:
        return LoadPlan.open(moments, sums["offered"].to_numpy() / step / per_task, share)
    think = (application.think_low + application.think_high) / 2
    tasks = sums["done"].to_numpy() / step / per_task
    users = tasks * think + sums["duration_seconds"].to_numpy() / step
    return LoadPlan.closed(moments, np.maximum(np.rint(users), 1).astype(int), share, spread=step)


def _with_recorded_replicas(cluster: VirtualCluster, run: Run, settings: Settings) -> Run:
    """Set the replicas of pods.csv when the record says, and measure as the record was measured.

    A change was made after the sample before the one that shows it.
    """
    start, step = cluster.now(), settings.collect.step
    table = replicas(run.pods, "spec")
    shift = start - float(run.endpoints["time"].min() - step)
    current: dict[str, int] = {}
    for moment, counts in zip(table.index.to_numpy(np.float64), table.to_numpy(), strict=True):
        wanted = {str(name): max(int(count), 1) for name, count in zip(table.columns, counts, strict=True)}
        changed = {name: value for name, value in wanted.items() if current.get(name) != value}
        current = wanted
        cluster.sleep_until(max(moment + shift - step, start))
        if changed:
            cluster.scale(changed)
    cluster.sleep_until(start + settings.testbed.duration)
    return Run(
        info={**run.info, "oracle": None, "start": settings.testbed.start},
        endpoints=cluster.latencies(start, cluster.now(), step),
        decisions=run.decisions.iloc[:0],
        pods=cluster.pod_history(start, cluster.now()),
    )
