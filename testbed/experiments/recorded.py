"""What a replay takes from a record: the load, the application as fitted, the rates that policies see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from deepscaler.errors import DataError
from deepscaler.labels.demand import DemandModel, entered_response, told
from deepscaler.panel import FEATURES, MetricPanel
from deepscaler.runs import Run
from deepscaler.settings import Settings
from testbed.applications.application import Application
from testbed.applications.variation import with_visits
from testbed.cluster.virtual import VirtualCluster
from testbed.engine.program import Program
from testbed.engine.simulator import LoadPlan

Array = NDArray[np.float64]


class RecordedCluster(VirtualCluster):
    """A virtual cluster that shows the recorded request rates instead of those of its own random users.

    The load came from outside, so it would have been the same under another policy, noise included. A plan
    that sees other noise holds other replicas for hours. Only where users of a closed loop had to wait,
    in the record or here, are rates changed in proportion to what they then ask less. What was measured
    before the run began is shown as it was.

    Args:
        settings: see `VirtualCluster`.
        record: the metrics of the run, with what was known before it.
        model: the demands fitted to it.
        seed: of the random streams.
        plan: the recorded load.
        program: the application with the fitted demands.
        replicas: those that ran at the beginning.
    """

    def __init__(
        self,
        settings: Settings,
        record: MetricPanel,
        model: DemandModel,
        *,
        seed: int,
        plan: LoadPlan,
        program: Program,
        replicas: Mapping[str, int],
    ) -> None:
        super().__init__(settings, seed=seed, plan=plan, program=program, replicas=replicas)
        self._began = self.now()
        self._record, self._model = record.select(self.services, tuple(FEATURES)), model
        self._waited = _asked_less(model, self._record)

    def metrics(self, start: float, end: float, step: float) -> MetricPanel:
        """As `VirtualCluster.metrics`, with the rates of the record."""
        panel, record = super().metrics(start, end, step), self._record
        rows = np.rint((panel.times - record.times[0]) / record.step).astype(int)
        inside = (rows >= 0) & (rows < len(record))
        before, after = (
            np.flatnonzero(inside & part)
            for part in (panel.times <= self._began + 1e-6, panel.times > self._began + 1e-6)
        )
        values, rate = panel.values.copy(), panel.features.index("req")
        values[before] = record.values[rows[before]]
        factor = self._waited[rows[after]] / _asked_less(self._model, panel)[after]
        seen = record.values[rows[after], :, rate] * factor[:, None]
        values[after, :, rate] = np.where(np.isfinite(seen), seen, values[after, :, rate])
        return replace(panel, values=values)


def _asked_less(model: DemandModel, panel: MetricPanel) -> Array:
    """By how much users of a closed loop would ask more if nobody waited, `[L]`; 1 where that isn't known."""
    columns = [panel.services.index(name) for name in model.entries]
    served, response = (panel.feature(name)[:, columns].astype(np.float64) for name in ("req", "res"))
    return model.correction(told(panel.waited, entered_response(model.among_entries, served, response)))


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
