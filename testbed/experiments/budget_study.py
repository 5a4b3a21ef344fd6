"""What becomes of a budget of violating minutes: asked and obtained over days of load, in replicas alone.

python -m testbed.experiments.budget_study --hours 100 --shares 0.005 0.01 0.02 0.05

The policy is `plan_bootstrap` with `scale.budget`; the cluster is reduced to what a budget is about. Rates
are drawn around the users' (Poisson), pods take the application's start-up times, and a minute violates if
the mean response that the demand fit predicts for the ready replicas exceeds the SLA. No request is
simulated, so an overload leaves no queue behind. `--prices` runs fixed shortage prices beside the budgets.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.cluster import Pod, Workload
from deepscaler.errors import DeepScalerError
from deepscaler.labels.demand import DemandModel
from deepscaler.learning.description import load_demand
from deepscaler.logs import start_logging
from deepscaler.panel import MetricPanel
from deepscaler.policies.base import Observation
from deepscaler.policies.registry import make_policy
from deepscaler.settings import Load, Settings, load_settings
from deepscaler.text import aligned
from testbed.experiments.flags import positive
from testbed.experiments.references import true_demand
from testbed.shapes import users

Array = NDArray[np.float64]
START = 1_767_571_200.0
"""Midnight, so that minutes begin with the load."""
LOADS = ("square", "fluctuation", "mixed", "bursts", "drift")


@dataclass(frozen=True)
class Cell:
    """One line of the table: a load under a budget, or under a fixed price."""

    load: str
    share: float | None
    price: float | None
    seed: int


def build_parser() -> argparse.ArgumentParser:
    """Flags of the study."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.experiments.budget_study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default="config/demo.yaml", help="settings of the application")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--shares", nargs="*", type=positive, default=[0.005, 0.01, 0.02, 0.05])
    parser.add_argument("--prices", nargs="*", type=positive, default=[], help="fixed prices, for comparison")
    parser.add_argument("--hours", type=int, default=100, help="judged hours, after a day that settles")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="the rows as JSON")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Simulate all cells and print a row for each."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    logging.getLogger().setLevel(logging.WARNING)
    cells = [
        *itertools.starmap(
            Cell, itertools.product(arguments.loads, arguments.shares, [None], arguments.seeds)
        ),
        *itertools.starmap(
            Cell, itertools.product(arguments.loads, [None], arguments.prices, arguments.seeds)
        ),
    ]
    try:
        settings = load_settings(arguments.config, ["scale.shapes=[]", *arguments.overrides])
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        with ProcessPoolExecutor(arguments.workers) as pool:
            jobs = [pool.submit(judged, settings, cell, arguments.hours) for cell in cells]
            rows = [job.result() for job in jobs]
    except DeepScalerError as error:
        print(f"budget_study: {error}", file=sys.stderr)
        return 1
    print(json.dumps(rows, indent=2) if arguments.json else "\n".join(table(rows)))
    return 0


def table(rows: list[dict[str, Any]]) -> list[str]:
    """One line per cell."""
    lines = [["load", "asked", "min>SLA %", "worst day %", "core-h/h", "price", "note"]]
    for row in rows:
        asked = f"{100 * row['asked']:g} %" if row["asked"] is not None else f"price {row['fixed']:g}"
        numbers = [f"{100 * row[name]:.2f}" for name in ("obtained", "worst_day")]
        lines.append(
            [row["load"], asked, *numbers, f"{row['cores']:.2f}", f"{row['price']:.3g}", row["note"]]
        )
    return aligned(lines, numbers=True)


# ------------------------------------------------------------------------------------------------- simulation
def judged(settings: Settings, cell: Cell, hours: int) -> dict[str, Any]:
    """What one cell obtains: shares of violating minutes, and mean cores held, after the first day."""
    settings = asked(settings, cell)
    fit = load_demand(settings)
    step = settings.collect.step
    offered = offered_users(settings, cell, 24 + hours)
    violating, cores, policy = simulate(settings, fit, offered, cell.seed)
    rows = round(60 / step)
    first = round(86400 / 60)
    minutes, held = violating[first:], cores[first * rows :]
    window = min(1440, len(minutes))
    rolling = np.convolve(minutes, np.ones(window) / window, "valid")
    account = policy.describe().get("budget") or {}
    return {
        "load": cell.load,
        "seed": cell.seed,
        "asked": cell.share,
        "fixed": cell.price,
        "hours": hours,
        "obtained": float(minutes.mean()),
        "worst_day": float(rolling.max()),
        "cores": float(held.mean()),
        "price": account.get("price", cell.price or settings.scale.prices.shortage),
        "note": account.get("note", ""),
    }


def asked(settings: Settings, cell: Cell) -> Settings:
    """The settings of one cell; a budget keeps what `scale.budget` says beside its share."""
    scale = settings.scale
    changed: dict[str, Any] = {"budget": None}
    if cell.share is not None:
        changed["budget"] = {**(scale.budget.model_dump() if scale.budget else {}), "share": cell.share}
    if cell.price is not None:
        changed["prices"] = scale.prices.model_copy(update={"shortage": cell.price})
    return settings.model_copy(update={"scale": type(scale).model_validate({**dict(scale), **changed})})


def offered_users(settings: Settings, cell: Cell, hours: int) -> Array:
    """Users `[L]` in each step; the seed draws them."""
    step, seconds = settings.collect.step, 3600.0 * hours
    if cell.load in ("bursts", "drift"):
        return _bursts(seconds, step, cell)
    load = Load(shape=cell.load, low=20.0, high=100.0, step=step)
    return np.asarray(users(load, seconds, cell.seed)[1], np.float64)


def _bursts(seconds: float, step: float, cell: Cell) -> Array:
    """Forty users and bursts of one to ten minutes, one in 20 minutes, that nothing announces.

    Under `drift` they grow and shrink over two and a half days: from ten users more to sixty, and back.
    """
    random = np.random.default_rng([cell.seed, LOADS.index(cell.load)])
    count = round(seconds / step)
    level = 40.0 + 2.0 * random.standard_normal(count)
    at = 0.0
    while (at := at + random.exponential(1200.0)) < seconds:
        day = at / 86400
        swing = 0.5 if cell.load == "bursts" else 0.5 - 0.5 * np.cos(2 * np.pi * day / 2.5)
        height = (10 + 50 * swing) * random.uniform(0.6, 1.4)
        first, last = round(at / step), round((at + random.uniform(60, 600)) / step)
        level[first:last] = np.maximum(level[first:last], 40.0 + height)
    return np.maximum(level, 1.0)


@dataclass
class Pods:
    """When each replica of a service is ready, in seconds since the epoch."""

    ready: list[float]
    boot: float

    def scale(self, wanted: int, now: float) -> None:
        """Start replicas, or stop those that would be ready last."""
        self.ready.sort()
        self.ready = [*self.ready[:wanted], *[now + self.boot] * (wanted - len(self.ready))]


def simulate(settings: Settings, fit: DemandModel, offered: Array, seed: int) -> tuple[Array, Array, Any]:
    """Whether each minute violates `[minutes]`, cores held in each step `[L]`, and the policy at the end.

    Args:
        settings: those of the policy.
        fit: its demand fit, by which the response is computed too.
        offered: `[L]` users in each step.
        seed: of the rates' noise.
    """
    policy = make_policy("plan_bootstrap", settings, seed=seed)
    step, random = settings.collect.step, np.random.default_rng([seed, 77])
    boots = true_demand(settings).boot_seconds
    pods = [Pods([START - 1000.0] * 4, float(boot)) for boot in boots]
    limits = fit.limit_cores
    count, back = len(offered), round(policy.history_seconds / step)
    times: Array = START + step * np.arange(1, count + 1, dtype=np.float64)
    values = np.full((count, len(fit.services), 2), 0.01, np.float32)
    response, cores = np.zeros(count), np.zeros(count)
    for row in range(count):
        now = float(times[row])
        ready = np.array([sum(moment <= now - step / 2 for moment in each.ready) for each in pods])
        rate, response[row] = served(fit, offered[row], np.maximum(ready, 1))
        values[row, :, 0] = random.poisson(np.maximum(rate, 0) * step) / step
        values[row, fit.entry_columns, 1] = response[row]
        cores[row] = float(limits @ [len(each.ready) for each in pods])
        first = max(row + 1 - back, 0)
        panel = MetricPanel(times[first : row + 1], fit.services, ("req", "res"), values[first : row + 1])
        decided = policy.decide(_observation(now, panel, fit, pods))
        for service, each in zip(fit.services, pods, strict=True):
            target = decided[service].target
            if target is not None:
                most = settings.scale.guard_rails.max_replicas
                each.scale(min(max(round(target), 1), most), now)
    rows = round(60 / step)
    done = values[: count // rows * rows, fit.entry_columns, 0].sum(axis=1).reshape(-1, rows)
    summed = (done * response[: done.size].reshape(-1, rows)).sum(axis=1)
    sla = min(entry.sla for entry in settings.app.entries)
    return (summed > sla * done.sum(axis=1)).astype(np.float64), cores, policy


def served(fit: DemandModel, users_now: float, ready: NDArray[np.int64]) -> tuple[Array, float]:
    """Requests per second of each service `[N]` and the entry response: where a closed loop comes to rest."""
    tasks, think = fit.requests_per_think, fit.think_seconds or 0.0
    visits = fit.external_share @ fit.visits
    low, high = fit.unloaded, 30.0
    for _ in range(24):
        middle = (low + high) / 2
        rate = users_now * tasks / (think + tasks * middle) * visits
        if float(fit.response_at(rate[None], ready[None].astype(np.float64))[0]) > middle:
            low = middle
        else:
            high = middle
    return users_now * tasks / (think + tasks * high) * visits, high


def _observation(now: float, panel: MetricPanel, fit: DemandModel, pods: list[Pods]) -> Observation:
    found = zip(fit.services, fit.limit_cores.tolist(), pods, strict=True)
    workloads = [Workload(name, len(each.ready), limit, limit) for name, limit, each in found]
    running = [
        Pod(
            service=name, name=f"{name}-{number}", phase="Running", deleting=False,
            start_time=moment - each.boot, ready=moment <= now, ready_since=moment, usage_cores=None,
            usage_time=None, usage_window_seconds=15.0, cpu_request_cores=None,
        )
        for name, each in zip(fit.services, pods, strict=True)
        for number, moment in enumerate(each.ready)
    ]  # fmt: skip
    return Observation(now, panel, workloads, running)


if __name__ == "__main__":
    raise SystemExit(main())
