"""One set of parameters for all recorded runs: read from the records, or tuned where they don't show it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from scipy.optimize import nnls

from deepscaler.settings import Settings
from testbed.applications.application import Application
from testbed.applications.loading import load_application
from testbed.fidelity.records import Cell, Floats, Record, compared
from testbed.fidelity.replay import own_policy, replay

SETTLED_SECONDS = 300.0
"""CPU per visit is read from what came later: start-up and overload are over."""
CALM_SECONDS = 0.5
"""CPU per visit is read from moments in which the median at the entry is below this."""
HOPS_MS = (0.2, 8.0)
"""The range in which the time of a call on its way is sought."""
WAKEUPS = (1.0, 1.1, 1.2)
"""Factors of a wake-up that are tried."""
SLOWDOWNS = (1.0, 2.0, 4.0)
"""Factors on the CPU time of a pod's first minute that are tried."""
PROXY_CALLS_MS = (0.5, 0.75, 1.0, 1.25)
"""CPU times of a proxy per call that are tried."""
WARM_SECONDS = 60.0
EARLY_SECONDS = 75.0
"""Until then few pods are overloaded: the requests they serve tell what work costs without wake-ups."""
EARLY_SCALE = 0.05
"""What counts as one error of them, in logarithms."""
SCALES = {"throughput": 0.02, "p50": 0.2, "p90": 0.2, "violating": float(np.log(1.5))}
"""What counts as one error: the reach of each measure, in logarithms."""
TUNING_SEED = 1
Fields = dict[str, object]


@dataclass(frozen=True, eq=False)
class Parameters:
    """What the records tell of an application.

    Attributes:
        services: the N names.
        demand_ms: `[N]` CPU time per visit that finds its pod at work.
        idle_millicores: `[N]` CPU of a pod without any visit.
        hop_ms: time of a call on its way.
        wakeup: factor on the CPU time of work that finds its pod idle.
        slowdown: factor on the CPU time of work within a pod's first minute.
        proxy_call_ms: CPU time of a proxy per call.
    """

    services: tuple[str, ...]
    demand_ms: Floats
    idle_millicores: Floats
    hop_ms: float
    wakeup: float = 1.0
    slowdown: float = 1.0
    proxy_call_ms: float = 1.0

    def fields(self, application: Application) -> Fields:
        """What an application file says of them: `hop_ms`, `proxy` and `services`."""
        proxy = application.proxy
        return {
            "hop_ms": round(self.hop_ms, 2),
            "proxy": {
                "request_millicores": round(1000 * proxy.request_cores, 1),
                "idle_millicores": round(1000 * proxy.idle_cores, 1),
                "call_ms": self.proxy_call_ms,
            },
            "services": {
                name: {
                    "demand_ms": round(float(demand), 2),
                    "idle_millicores": round(float(idle), 1),
                    "wakeup": self.wakeup,
                    "warmup": {"seconds": WARM_SECONDS, "slowdown": self.slowdown},
                }
                for name, demand, idle in zip(
                    self.services, self.demand_ms, self.idle_millicores, strict=True
                )
            },
        }


@dataclass(frozen=True)
class Lab:
    """Emulates recorded runs with parameters.

    Attributes:
        settings: those of the application.
        base: the application file that the parameters change.
    """

    settings: Settings
    base: Path

    def emulate(
        self,
        cells: Sequence[Cell],
        found: Parameters,
        *,
        own: bool = False,
        seed: int = TUNING_SEED,
    ) -> list[Record]:
        """Each recorded run, with the recorded replicas or, with `own`, with the policy of its name."""
        fields = found.fields(load_application(self.base))
        return self.run(cells, {"extends": str(self.base.resolve()), **fields}, own=own, seed=seed)

    def run(self, cells: Sequence[Cell], document: Fields, *, own: bool = False, seed: int) -> list[Record]:
        """Each recorded run in the application of `document`, which says what an application file says."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "variant.yaml"
            path.write_text(yaml.safe_dump(document))
            return [
                replay(
                    cell,
                    self.settings,
                    str(path),
                    policy=own_policy(cell) if own else None,
                    seed=seed,
                )
                for cell in cells
            ]


def fit(cells: Sequence[Cell], lab: Lab) -> Parameters:
    """The parameters that explain these runs best.

    CPU per visit and idle CPU come from the records alone. What shows only together with the engine is tuned
    on the recorded replicas: hops by the median latency, wake-ups and the first minute by a small grid. The
    proxies' CPU, which only HPAs see, is tuned by the replicas of the recorded HPAs.
    """
    start = read_demands(cells, load_application(lab.base))
    best, lowest = start, np.inf
    for wakeup in WAKEUPS:
        tuned = tune_hops(cells, lab, tune_demands(cells, lab, replace(start, wakeup=wakeup)))
        for slowdown in SLOWDOWNS:
            found = replace(tuned, slowdown=slowdown)
            loss = misfit(cells, lab.emulate(cells, found))
            if loss < lowest:
                best, lowest = found, loss
    return tune_proxies(cells, lab, best)


def read_demands(cells: Sequence[Cell], application: Application) -> Parameters:
    """CPU of a service = pods x idle + requests x demand, by least squares of relative errors; none below 0.

    A service that no run shows in calm keeps what the application says.
    """
    services = cells[0].record.services
    demand, idle = np.zeros(len(services)), np.zeros(len(services))
    given = {service.name: service for service in application.services}
    for column, name in enumerate(services):
        parts = [_calm(cell.record, column) for cell in cells]
        pods, requests, cores = (np.concatenate([part[row] for part in parts]) for row in range(3))
        if len(cores) < 2:
            idle[column], demand[column] = given[name].idle_cores, given[name].demand_seconds
            continue
        (idle[column], demand[column]), _ = nnls(
            np.column_stack([pods, requests]) / cores[:, None], np.ones(len(cores))
        )
    return Parameters(services, np.maximum(1000 * demand, 0.01), 1000 * idle, hop_ms=2.5)


def _calm(record: Record, column: int) -> tuple[Floats, Floats, Floats]:
    every = max(round(15.0 / float(np.median(np.diff(record.seconds)))), 1)
    kept = (record.seconds > SETTLED_SECONDS) & (record.quantiles[:, 0] < CALM_SECONDS)
    kept &= record.cores[:, column] > 0
    pods, requests, cores = (
        table[kept, column][::every] for table in (record.pods, record.requests, record.cores)
    )
    return pods, requests, cores


def tune_demands(cells: Sequence[Cell], lab: Lab, found: Parameters) -> Parameters:
    """Scale the demands until emulated visits take the CPU that was read, wake-ups included."""
    if found.wakeup == 1.0:
        return found
    ratios = []
    for record in lab.emulate(cells, found):
        calm, idle = record.quantiles[:, 0] < CALM_SECONDS, found.idle_millicores / 1000
        if calm.mean() > 0.5:
            used = (record.cores - record.pods * idle)[calm].sum(axis=0)
            ratios.append(used / (record.requests * found.demand_ms / 1000)[calm].sum(axis=0))
    if not ratios:
        return found
    return replace(found, demand_ms=found.demand_ms / np.clip(np.mean(ratios, axis=0), 1.0, found.wakeup))


def tune_hops(cells: Sequence[Cell], lab: Lab, found: Parameters) -> Parameters:
    """The time on the way with which the median latencies at the entry agree on average, by two steps."""
    calm = [cell for cell in cells if compared(cell.record)["p50"] < 1000 * CALM_SECONDS]
    for _ in range(2 if calm else 0):
        records = lab.emulate(calm, found)
        gap = np.mean(
            [
                compared(cell.record)["p50"] - compared(record)["p50"]
                for cell, record in zip(calm, records, strict=True)
            ]
        )
        calls = np.mean([record.requests.sum() / record.requests[:, 0].sum() for record in records])
        found = replace(found, hop_ms=float(np.clip(found.hop_ms + gap / calls, *HOPS_MS)))
    return found


def tune_proxies(cells: Sequence[Cell], lab: Lab, found: Parameters) -> Parameters:
    """The CPU of a proxy per call with which HPAs take closest to the recorded cores."""
    scaled = [cell for cell in cells if (own_policy(cell) or "").startswith("hpa_r")]
    if not scaled:
        return found
    tried = [replace(found, proxy_call_ms=call) for call in PROXY_CALLS_MS]
    gaps = [
        sum(
            abs(float(np.log(compared(record)["cores"] / compared(cell.record)["cores"])))
            for cell, record in zip(scaled, lab.emulate(scaled, one, own=True), strict=True)
        )
        for one in tried
    ]
    return tried[int(np.argmin(gaps))]


def early(record: Record) -> float:
    """Requests per second to the entry in the first moments that were recorded."""
    return max(float(record.requests[record.seconds < EARLY_SECONDS, 0].mean()), 1e-9)


def misfit(cells: Sequence[Cell], records: Sequence[Record]) -> float:
    """Mean squared error of what is compared and of the early requests, each in units of its reach."""
    errors = []
    for cell, record in zip(cells, records, strict=True):
        real, seen = compared(cell.record), compared(record)
        for name, scale in SCALES.items():
            floor = 0.005 if name == "violating" else 1e-9
            errors.append(np.log(max(seen[name], floor) / max(real[name], floor)) / scale)
        errors.append(np.log(early(record) / early(cell.record)) / EARLY_SCALE)
    return float(np.mean(np.square(np.clip(errors, -5, 5))))
