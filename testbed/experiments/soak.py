"""The controller for days among faults, beside the same days without: `python -m testbed.experiments.soak`.

Each seed has a load, and faults of ten kinds one after the other: metrics that are out, partial or late, an
API that fails, writes that fail, restarts, edits by others, clocks that are set, a full disk.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import multiprocessing
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from deepscaler.control.controller import Controller
from deepscaler.control.decision import HELD
from deepscaler.control.recorder import DecisionRow, Recorder
from deepscaler.errors import DataError, DeepScalerError
from deepscaler.policies.base import Policy, Reason
from deepscaler.policies.planned import bootstrap_policy
from deepscaler.policies.reactive import ReactiveFloor, ReactivePolicy
from deepscaler.settings import Settings, load_settings
from testbed.cluster.faults import FaultyCluster, Killed, draw_faults, failing_disk
from testbed.cluster.virtual import VirtualCluster
from testbed.experiments.flags import positive
from testbed.experiments.references import true_demand
from testbed.experiments.soaked import (
    MINUTE,
    Soaked,
    place_of,
    read_all,
    read_soaked,
    report,
    to_dict,
    write_soaked,
)

WARMUP_SECONDS = 600.0
"""Minutes before this don't count: replicas start from a guess."""
TROUBLED = frozenset(reason.value for reason in (*HELD, Reason.WRITE_FAILED, Reason.CONFLICT))
POLICIES = ("plan_bootstrap", "reactive_holistic")


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
    began = time.process_time()
    logging.getLogger("deepscaler").setLevel(logging.CRITICAL)
    settings = make_settings(config, hours, seed)
    inner = VirtualCluster(settings, seed=seed)
    start, end = inner.now(), inner.now() + hours * 3600.0
    faults = draw_faults(start, hours * 3600.0, seed) if faulty else []
    cluster, result = (
        FaultyCluster(inner, faults, seed),
        Soaked(seed, faulty, asked_for(config, policy, hours)),
    )
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
        after = next((moment for moment in watch.calm_ticks if moment >= fault.end), None)
        result.faults.append(replace(fault, start=fault.start - start, end=fault.end - start))
        result.recoveries.append(None if after is None else after - fault.end)
    result.cpu_seconds = time.process_time() - began
    return result


def soak_into(directory: Path, config: str, policy: str, hours: float, seed: int, faulty: bool) -> None:
    """Make one run and write it into the directory."""
    write_soaked(directory, soak(config, policy, hours, seed, faulty))


def asked_for(config: str, policy: str, hours: float) -> dict[str, str | float]:
    """What has to be the same for runs in one directory."""
    return {"config": Path(config).stem, "policy": policy, "hours": hours}


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
    result.minutes = [int(one) for one in sums.index[sums["done"] > 0]]
    result.violating = [int(one) for one in sums.index[sums["duration_seconds"] > sla * sums["done"]]]
    pods: pd.DataFrame = inner.pod_history(start, inner.now())
    result.replica_hours = float(pods["spec"].sum() * settings.collect.step / 3600.0)


# ---------------------------------------------------------------------------------------------------- command
def build_parser() -> argparse.ArgumentParser:
    """Flags of the soak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="config/boutique.yaml", help="settings (default: %(default)s)")
    parser.add_argument("--policy", choices=POLICIES, default=POLICIES[0], help="default: %(default)s")
    parser.add_argument("--hours", type=positive, default=24.0, help="virtual hours (default: %(default)g)")
    parser.add_argument("--seeds", type=int, default=20, help="runs (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="runs side by side (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, help="keep each run in this directory; those that lie there aren't run again"
    )
    parser.add_argument(
        "--table", action="store_true", help="run nothing, tell of the runs that lie in --out"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def soak_all(arguments: argparse.Namespace, directory: Path) -> None:
    """Make all runs that don't lie in the directory yet.

    Raises:
        DataError: a run of something else lies there.
    """
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    asked = asked_for(arguments.config, arguments.policy, arguments.hours)
    jobs = []
    for seed, faulty in itertools.product(seeds, (False, True)):
        place = place_of(directory, seed, faulty)
        if not place.is_file():
            jobs.append((seed, faulty))
        elif (found := read_soaked(place).asked) != asked:
            raise DataError(f"{place}: a run of {found}, asked is {asked}; choose another --out")
    run = partial(soak_into, directory, arguments.config, arguments.policy, arguments.hours)
    with tqdm(total=len(jobs), desc="soak", disable=None, leave=False) as progress, ExitStack() as stack:
        if arguments.workers == 1:
            done = (run(*job) for job in jobs)
        else:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(arguments.workers, mp_context=context))
            done = (future.result() for future in as_completed([pool.submit(run, *job) for job in jobs]))
        for _ in done:
            progress.update()


def main(argv: list[str] | None = None) -> int:
    """Soak all seeds; 1 if anything crashed, or replicas were taken away on metrics that can't be trusted."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.table and arguments.out is None:
        parser.error("--table tells of the runs in --out")
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.out or Path(temporary)
        try:
            if not arguments.table:
                soak_all(arguments, directory)
            found = read_all(directory)
        except DeepScalerError as error:
            print(error, file=sys.stderr)
            return 1
    print(json.dumps(to_dict(found)) if arguments.json else report(found))
    for one in found:
        for text in (one.crash, *one.unsafe[:5]):
            if text:
                print(f"seed {one.seed}: {text}", file=sys.stderr)
    return int(any(one.crash or one.unsafe for one in found))


if __name__ == "__main__":
    raise SystemExit(main())
