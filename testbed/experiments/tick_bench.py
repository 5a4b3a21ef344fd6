"""How long a live tick takes, part by part: `python -m testbed.experiments.tick_bench`.

The controller runs the policy deepscaler (an untrained bundle of the published size) or plan_bootstrap
against the emulated Kubernetes API and a scripted Prometheus in a process of their own. Times are processor
time of the controller's process. Between ticks a period passes, by a clock that is moved on.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.control import controller as control
from deepscaler.control.controller import Controller
from deepscaler.control.guard_rails import decide
from deepscaler.control.live import patient_collector
from deepscaler.control.recorder import Recorder
from deepscaler.labels.demand import DemandModel
from deepscaler.learning.scenarios import NetworkScenarios
from deepscaler.learning.untrained import untrained_forecaster
from deepscaler.policies.base import Policy
from deepscaler.policies.deepscaler import DeepScalerPolicy
from deepscaler.policies.planned import bootstrap_policy, plan_policy
from deepscaler.policies.reactive import ReactiveFloor
from deepscaler.settings import Settings
from testbed.experiments.tick_server import LIMIT_CORES, document, serving

PUBLISHED = {"window": 80, "channels": 128}
WIDE = {"window": 12, "channels": 64}
"""The size for hundreds of services and more, as in `deepscaler.learning.bench`."""
TEMPLATES = 256
"""Of scenarios, in the bundle of AdapGLQ."""
PARTS = ("fetch", "forecast", "policy", "rails", "write", "record", "tick", "without_fetch")


class Stopwatch:
    """Processor seconds of the parts of the present tick; a part inside another counts for itself only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = []

    def timed(self, part: str, action: Callable[..., Any]) -> Callable[..., Any]:
        """`action`, whose time counts for `part`."""

        def run(*arguments: Any, **keywords: Any) -> Any:
            began = time.process_time()
            self._inner.append(0.0)
            try:
                return action(*arguments, **keywords)
            finally:
                spent = time.process_time() - began
                inside = self._inner.pop()
                self.seconds[part] = self.seconds.get(part, 0.0) + spent - inside
                if self._inner:
                    self._inner[-1] += spent

        return run


def demand_of(settings: Settings) -> DemandModel:
    """A demand fit that suits the scripted answers."""
    names, count = tuple(settings.app.services), len(settings.app.services)
    return DemandModel(
        services=names,
        idle_cores=np.zeros(count),
        demand_seconds=np.full(count, 0.01),
        limit_cores=np.full(count, LIMIT_CORES),
        boot_seconds=np.full(count, 20.0),
        entries=names[:1],
        visits=np.ones((1, count)),
        external_share=np.ones(1),
        sla_seconds=0.5,
        think_seconds=None,
        rho_max=0.9,
        sla_margin=0.8,
        response=None,
        quality={},
    )


def policy_of(name: str, settings: Settings, watch: Stopwatch) -> Policy:
    """`plan_bootstrap`, or the policy deepscaler with the network `name`: AdapGLQ's plans over scenarios."""
    demand, plan, step = demand_of(settings), settings.scale.plan, settings.collect.step
    horizon = round(plan.horizon / step)
    if name == "plan_bootstrap":
        return bootstrap_policy(settings, demand)
    size = PUBLISHED if len(settings.app.services) < 200 else WIDE
    if name == "AdapGLQ":
        joint = untrained_forecaster(name, settings, demand, **size, horizon=horizon, scenarios=TEMPLATES)
        joint.scenarios = watch.timed("forecast", joint.scenarios)  # type: ignore[method-assign]
        network = NetworkScenarios(joint, demand.services, horizon, plan.scenarios)
        # Alone, so that all scenarios are the network's.
        return plan_policy(settings, demand, network, "deepscaler_network")
    forecaster = untrained_forecaster(name, settings, demand, **size)
    forecaster.forecast = watch.timed("forecast", forecaster.forecast)  # type: ignore[method-assign]
    floor = ReactiveFloor(demand, settings.scale.floor)
    return DeepScalerPolicy(forecaster, floor, settings.scale.period, settings.collect.step)


@contextmanager
def bench(services: int, policy: str) -> Iterator[Callable[[], dict[str, float]]]:
    """A function that makes one tick and returns the seconds of its parts."""
    watch, clock = Stopwatch(), [time.time()]
    with ExitStack() as stack:
        stack.enter_context(patient_collector())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        where = stack.enter_context(serving(services, directory))
        settings = Settings.model_validate(document(services, *where))
        cluster = KubernetesCluster(settings, clock=lambda: clock[0], steady=lambda: clock[0])
        for part, names in {
            "fetch": ("workloads", "pods", "metrics", "latencies"),
            "write": ("scale",),
        }.items():
            for name in names:
                setattr(cluster, name, watch.timed(part, getattr(cluster, name)))
        stack.enter_context(patch.object(control, "decide", watch.timed("rails", decide)))
        recorder = Recorder(directory / "run")
        made = policy_of(policy, settings, watch)
        made.decide = watch.timed("policy", made.decide)  # type: ignore[method-assign]
        for name in ("add_decisions", "add_pods"):
            setattr(recorder, name, watch.timed("record", getattr(recorder, name)))
        tick = watch.timed("rest", Controller(cluster, made, settings, recorder).tick)

        def once() -> dict[str, float]:
            watch.seconds.clear()
            clock[0] += made.period_seconds + 0.003
            tick()
            whole = sum(watch.seconds.values())
            found = {**dict.fromkeys(PARTS, 0.0), **watch.seconds, "tick": whole}
            return {**found, "without_fetch": whole - found["fetch"]}

        yield once


def measure(services: int, policy: str, ticks: int) -> dict[str, dict[str, float]]:
    """Part -> median, 99th percentile and maximum in milliseconds, without the first tick; `first` beside."""
    with bench(services, policy) as tick:
        first = tick()
        rows = [tick() for _ in range(ticks)]
    table = {part: 1e3 * np.array([row[part] for row in rows]) for part in PARTS}
    return {
        part: {
            "first": 1e3 * first[part],
            "p50": float(np.median(values)),
            "p99": float(np.percentile(values, 99)),
            "max": float(values.max()),
        }
        for part, values in table.items()
    }


def profiled(services: int, policy: str, lines: int) -> None:
    """Print where the time of three ticks after the first goes."""
    with bench(services, policy) as tick:
        tick()
        profile = cProfile.Profile()
        for _ in range(3):
            profile.runcall(tick)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(lines)


def main(argv: list[str] | None = None) -> int:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", default="10,41,1000", help="sizes (default: %(default)s)")
    parser.add_argument(
        "--policies", default="AdapGLA,AdapGLS,AdapGLQ,plan_bootstrap", help="networks, or plan_bootstrap"
    )
    parser.add_argument(
        "--ticks", type=int, default=0, help="ticks per row (default: 100, 12 at 200 and more)"
    )
    parser.add_argument("--profile", type=int, metavar="LINES", help="print the profile of one case instead")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args(argv)
    results = {}
    for services in map(int, arguments.services.split(",")):
        for policy in arguments.policies.split(","):
            if arguments.profile:
                profiled(services, policy, arguments.profile)
                continue
            ticks = arguments.ticks or (100 if services < 200 else 12)
            found = results[f"{policy}/{services}"] = measure(services, policy, ticks)
            if not arguments.json:
                _print(f"{policy}, {services} services, {ticks} ticks (processor ms)", found)
    if arguments.json:
        print(json.dumps(results))
    return 0


def _print(title: str, found: dict[str, dict[str, float]]) -> None:
    print(title)
    for part, figures in found.items():
        print(f"  {part:14s}" + "".join(f"  {name} {value:9.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    raise SystemExit(main())
