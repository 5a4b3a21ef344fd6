"""The controller for days among faults, beside the same days without: `python -m testbed.experiments.soak`.

Each seed has a load, and faults of ten kinds one after the other: metrics that are out, partial or late, an
API that fails, writes that fail, restarts, edits by others, clocks that are set, a full disk.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import tempfile
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from deepscaler.control.controller import Controller
from deepscaler.control.guard_rails import HELD
from deepscaler.control.recorder import DecisionRow, Recorder
from deepscaler.policies.base import Policy, Reason
from deepscaler.policies.reactive import ReactiveFloor, ReactivePolicy
from deepscaler.policies.registry import bootstrap_policy
from deepscaler.settings import Settings, load_settings
from testbed.cluster.faults import KINDS, FaultyCluster, Killed, draw_faults, failing_disk
from testbed.cluster.virtual import VirtualCluster
from testbed.experiments.runs import true_demand

MINUTE = 60.0
WARMUP_SECONDS = 600.0
"""Minutes before this don't count: replicas start from a guess."""
TROUBLED = frozenset(reason.value for reason in (*HELD, Reason.WRITE_FAILED, Reason.CONFLICT))
POLICIES = ("plan_bootstrap", "reactive_holistic")


@dataclass
class Soaked:
    """What one run was like.

    Attributes:
        seed: of load, faults and requests.
        ticks, failed_ticks: of all controllers of the run.
        crash: the traceback of an error that isn't one of ours; "" without any.
        unsafe: writes that took replicas away while metrics were out or partial, or from a service that was
            held.
        violating, minutes: minutes whose mean response broke the SLA, and all that count.
        replica_hours: that were asked for.
        recoveries: kind of fault -> seconds from each one's end until a tick was complete and held nothing.
    """

    seed: int
    ticks: int = 0
    failed_ticks: int = 0
    crash: str = ""
    unsafe: list[str] = field(default_factory=list)
    violating: int = 0
    minutes: int = 0
    replica_hours: float = 0.0
    recoveries: dict[str, list[float]] = field(default_factory=dict)


def make_settings(application: str, hours: float, seed: int) -> Settings:
    """Settings of a run, without output."""
    return load_settings(application, [f"testbed.duration={hours * 3600.0}", f"testbed.seed={seed}"])


def make_policy(name: str, settings: Settings) -> Policy:
    """A policy that knows the true demands, so that what is seen is the controller's doing."""
    model, scale, step = true_demand(settings), settings.scale, settings.collect.step
    if name == "reactive_holistic":
        return ReactivePolicy(ReactiveFloor(model, scale.floor), step)
    return bootstrap_policy(settings, model)


class Watch:
    """Looks at every tick of the controllers of a run."""

    def __init__(self, cluster: FaultyCluster, result: Soaked) -> None:
        self._cluster, self._result = cluster, result
        self.calm_ticks: list[float] = []  # times at which a tick was complete and nothing was held

    def tick(self, controller: Controller) -> list[DecisionRow]:
        """Make one."""
        rows = Controller.tick(controller)
        now, troubled = self._cluster.steady(), False
        for row in rows:
            troubled |= row.reason in TROUBLED
            held = row.reason in {reason.value for reason in HELD}
            if held and row.applied is not None and row.applied < row.current:
                self._result.unsafe.append(f"{now:.0f} {row.service} was {row.reason}")
        if not troubled:
            self.calm_ticks.append(now)
        return rows

    def count(self, controller: Controller) -> None:
        """Add the ticks of a controller that has ended."""
        self._result.ticks += controller.statistics.ticks
        self._result.failed_ticks += controller.statistics.failed_ticks


def soak(config: str, policy: str, hours: float, seed: int, faulty: bool) -> Soaked:
    """One run, with faults or without."""
    logging.getLogger("deepscaler").setLevel(logging.CRITICAL)
    settings = make_settings(config, hours, seed)
    inner = VirtualCluster(settings, seed=seed)
    start, end = inner.now(), inner.now() + hours * 3600.0
    faults = draw_faults(start, hours * 3600.0, seed) if faulty else []
    cluster, result = FaultyCluster(inner, faults, seed), Soaked(seed)
    watch = Watch(cluster, result)
    with (
        tempfile.TemporaryDirectory() as directory,
        failing_disk(lambda: cluster.active("disk_full")),
    ):
        try:
            while inner.now() < end - 1.0:
                _life(cluster, make_policy(policy, settings), settings, Path(directory), watch, end)
                restart = next((fault for fault in faults if fault.start <= inner.now() < fault.end), None)
                if restart is not None:
                    cluster.sleep_until(restart.end)
        except Exception:
            result.crash = traceback.format_exc()
    result.unsafe += [f"{moment:.0f} {name} while {kind}" for moment, kind, name in cluster.unsafe]
    _judge(inner, settings, start, result)
    for fault in faults:
        after = next((moment for moment in watch.calm_ticks if moment >= fault.end), float("inf"))
        result.recoveries.setdefault(fault.kind, []).append(after - fault.end)
    return result


def _life(
    cluster: FaultyCluster, policy: Policy, settings: Settings, directory: Path, watch: Watch, end: float
) -> None:
    """One controller, until it is killed or the run is over."""
    controller = Controller(cluster, policy, settings, Recorder(directory))
    controller.tick = lambda: watch.tick(controller)  # type: ignore[method-assign]
    try:
        controller.run(end - cluster.steady())
    except Killed:
        pass
    finally:
        watch.count(controller)


def _judge(inner: VirtualCluster, settings: Settings, start: float, result: Soaked) -> None:
    """Count violating minutes and replicas, whatever the controller saw of them."""
    sla = min(entry.sla for entry in settings.app.entries)
    table = inner.latencies(start + WARMUP_SECONDS, inner.now(), settings.collect.step)
    minute = (table["time"] - start - 1e-6) // MINUTE
    sums = table.groupby(minute)[["duration_seconds", "done"]].sum()
    result.minutes = int((sums["done"] > 0).sum())
    result.violating = int((sums["duration_seconds"] > sla * sums["done"]).sum())
    pods: pd.DataFrame = inner.pod_history(start, inner.now())
    result.replica_hours = float(pods["spec"].sum() * settings.collect.step / 3600.0)


# ------------------------------------------------------------------------------------------------------ table
def report(calm: Sequence[Soaked], among_faults: Sequence[Soaked]) -> str:
    """The tables for people."""
    lines = ["seed  ticks  failed  crashes  unsafe  violating minutes (calm)  replica hours (calm)"]
    for one, other in zip(among_faults, calm, strict=True):
        lines.append(
            f"{one.seed:4d}{one.ticks:7d}{one.failed_ticks:8d}{bool(one.crash):9d}{len(one.unsafe):8d}"
            f"{one.violating:12d} of {one.minutes} ({other.violating}){'':4s}"
            f"{one.replica_hours:12.0f} ({other.replica_hours:.0f})"
        )
    lines += ["", "fault            times   recovery p50    p95    max (s)"]
    for kind in KINDS:
        taken = [seconds for one in among_faults for seconds in one.recoveries.get(kind, [])]
        if taken:
            p50, p95 = (float(np.quantile(taken, level, method="higher")) for level in (0.5, 0.95))
            lines.append(f"{kind:16s}{len(taken):6d}{p50:15.0f}{p95:7.0f}{max(taken):7.0f}")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """Flags of the soak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="config/boutique.yaml", help="settings (default: %(default)s)")
    parser.add_argument("--policy", choices=POLICIES, default=POLICIES[0], help="default: %(default)s")
    parser.add_argument("--hours", type=float, default=24.0, help="virtual hours (default: %(default)g)")
    parser.add_argument("--seeds", type=int, default=20, help="runs (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="runs side by side (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Soak all seeds; 1 if anything crashed, or replicas were taken away on metrics that can't be trusted."""
    arguments = build_parser().parse_args(argv)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    jobs = [(seed, faulty) for seed in seeds for faulty in (False, True)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(arguments.workers, len(jobs)), mp_context=context) as pool:
        futures = [
            pool.submit(soak, arguments.config, arguments.policy, arguments.hours, *job) for job in jobs
        ]
        found = [future.result() for future in tqdm(futures, desc="soak", disable=None, leave=False)]
    calm, among_faults = found[::2], found[1::2]
    if arguments.json:
        print(
            json.dumps({"calm": [asdict(one) for one in calm], "faults": [asdict(x) for x in among_faults]})
        )
    else:
        print(report(calm, among_faults))
    for one in found:
        for text in (one.crash, *one.unsafe[:5]):
            if text:
                print(f"seed {one.seed}: {text}", file=sys.stderr)
    return int(any(one.crash or one.unsafe for one in found))


if __name__ == "__main__":
    raise SystemExit(main())
