"""Runs of an experiment on dask.distributed: on this machine by default, or on many."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
from tqdm import tqdm

from deepscaler.artefacts import one_line
from deepscaler.errors import ClusterError, DataError
from deepscaler.evaluation.comparison import ComparedPolicy, Outcome
from deepscaler.evaluation.measured import Measured, measured
from testbed.experiments.beforehand import check_inputs
from testbed.experiments.expected import Pace, told
from testbed.experiments.matrix import DATA_SECTIONS, Case, Task
from testbed.experiments.references import Truth, find_truth, look_ahead, played
from testbed.experiments.runs import Kept, run_one

ONE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
}
"""Environment of a worker: one thread for linear algebra, torch and numba, as there is a process per core."""
LOCAL = {
    "distributed.nanny.pre-spawn-environ": ONE_THREAD,
    "distributed.scheduler.worker-ttl": None,  # a worker that compiles doesn't answer for a while
    "distributed.scheduler.allowed-failures": 2,
}
"""Dask's settings for a cluster on this machine."""


LEAN = (
    *("process.plots=false", "process.window=1", "process.horizon=1"),
    "process.split=[0.85,0.15,0]",
)
"""Settings of a data set from which no network learns, so that the fit gets most of the telemetry."""


@contextmanager
def connected(workers: int | None, address: str | None) -> Iterator[Client]:
    """A client of the scheduler at `address`, or else of a cluster that lives as long as the block.

    That cluster listens on 127.0.0.1 only, and serves no dashboard.

    Raises:
        ClusterError: no scheduler answers at the address, or no worker is there.
    """
    if address is not None:
        with _remote(address) as client:
            yield client
        return
    with (
        dask.config.set(LOCAL),
        LocalCluster(
            n_workers=workers or os.cpu_count() or 1,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            memory_limit=0,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _remote(address: str) -> Iterator[Client]:
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(
            f"--scheduler {address}: no scheduler answers ({error}); start one with: dask scheduler"
        ) from error
    with client:
        if not client.nthreads():
            raise ClusterError(
                f"--scheduler {address}: no workers; start some in the repository, with: "
                f"dask worker {address} --nthreads 1"
            )
        yield client


def run_tasks(
    tasks: Sequence[Task],
    pace: Pace,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Run all of `tasks`, and measure each.

    A run is complete or absent. Whoever stops this process, or a worker, loses the runs under way and no
    other: a lost worker's runs are made again by the others.

    Args:
        tasks: runs that aren't there yet.
        pace: how long runs take; it learns from these.
        workers: processes on this machine; None: one per core.
        scheduler: address of a dask scheduler instead. Its workers must see the same directories.

    Raises:
        ClusterError: the scheduler doesn't answer, a worker dies of a run again and again, or a run isn't
            where it should be.
        DeepScalerError: a run can't be made; what can be known of that is said before the first run.
    """
    if not tasks:
        return
    check_inputs(tasks)
    with connected(workers, scheduler) as client:
        count = len(client.nthreads())
        weights = {id(task): pace.seconds(task) for task in tasks}
        known = "from finished runs" if pace.knows(tasks) else "a guess"
        expected = told(pace.total(tasks, count))
        print(
            f"{len(tasks)} runs on {count} workers; expected: {expected} ({known})",
            file=sys.stderr,
            flush=True,
        )
        pending = _submitted(client, tasks)
        shape = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        with tqdm(total=sum(weights.values()), desc="runs", disable=None, bar_format=shape) as bar:
            for number, (task, seconds) in enumerate(_results(pending), start=1):
                pace.learn(task, seconds)
                bar.set_description(f"run {number} of {len(tasks)}", refresh=False)
                bar.update(weights[id(task)])


def _submitted(client: Client, tasks: Sequence[Task]) -> dict[str, tuple[Future[float], Task]]:
    """The futures of all runs by their keys.

    The truth of a load is found, and the data of a case are made, once for all runs that need them.
    """
    truths: dict[str, Future[Truth]] = {}
    data: dict[Path, Future[None]] = {}
    pending = {}
    for task in tasks:
        if task.load_key not in truths:
            truths[task.load_key] = client.submit(
                find_truth, played(task.settings, task.seed), task.seed, key=f"truth-{task.load_key}"
            )
        case, key = task.case, f"run-{task.place}"
        if case.data is not None and case.data not in data:
            data[case.data] = client.submit(prepare, case, key=f"data-{case.data}")
        needed = [truths[task.load_key], *([data[case.data]] if case.data is not None else [])]
        pending[key] = (client.submit(play, task, *needed, key=key), task)
    return pending


def _results(pending: dict[str, tuple[Future[float], Task]]) -> Iterator[tuple[Task, float]]:
    """Each run with the seconds it took, as it is finished.

    A future is let go at once: what is forgotten isn't made again if the worker that made it is lost.
    """
    finished = as_completed([future for future, _ in pending.values()], with_results=True, raise_errors=False)
    for future, result in finished:
        _, task = pending.pop(future.key)
        if future.status == "error":
            _raise(task, result)
        if not (task.place / "run.json").is_file():
            raise ClusterError(
                f"{task.place}: a worker made this run, but it isn't here; workers and this process must see "
                "the same directories: start them in the repository, on a file system that they share"
            )
        yield task, float(result)


def _raise(task: Task, result: tuple[type[BaseException], BaseException, object]) -> None:
    error = result[1]
    if isinstance(error, KilledWorker):
        raise ClusterError(
            f"{task.place}: the process that made this run died, and those that tried it again did, too; "
            "is there enough memory? The other runs are kept"
        ) from error
    raise error


def prepare(case: Case) -> None:
    """Collect telemetry of a case and fit the demand to it, unless that has been done.

    Raises:
        DataError: a stage failed; the message is its last line.
    """
    if case.data is None or (case.data / "meta.json").is_file():
        return
    own = [text for text in case.overrides if re.split(r"[.=]", text)[0] in DATA_SECTIONS]
    overrides = [*own, *case.of_data, *LEAN, f"process.step={case.settings.collect.step}"]
    flags = [word for text in overrides for word in ("--set", text)]
    for stage in ("metrics_fetch.py", "data_process.py"):
        command = [sys.executable, stage, "--config", case.config, *flags]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            said = one_line((done.stderr.strip().splitlines() or ["nothing"])[-1])
            last = f"{case.settings.collect.last:g} s of telemetry"
            raise DataError(
                f"{case.data}: {stage} failed on {last}; if that is too little, raise collect.last: {said}"
            )


def play(task: Task, truth: Truth, prepared: None = None) -> float:
    """Make one run and keep its measures beside it; returns the seconds of the run.

    It may be there already: dask sends a run again if the worker that made it is lost before it told so.
    """
    began = time.perf_counter()
    if (info := task.finished()) is not None:
        return float(info["wall_seconds"])
    ahead = look_ahead(task.settings, task.seed, [task.entrant.policy], truth)
    kept = Kept(task.entrant.name, task.about(), compact=True)
    run_one(task.settings, task.entrant.policy, task.seed, ahead, kept)
    measure(task)
    return time.perf_counter() - began


def measure(task: Task) -> Measured:
    """Measures and details of a run, at the case's prices whatever the run's own were."""
    settings = task.case.settings
    return measured(task.place, settings.evaluate.warmup, settings.scale.prices, keep=True)


def outcome_of(task: Task, unit: str) -> Outcome:
    """A run with its measures, for a comparison in which `unit` pairs it with other policies' runs."""
    settings, known = task.case.settings, measure(task)
    entrant = ComparedPolicy(task.entrant.name)
    warmup, prices = settings.evaluate.warmup, settings.scale.prices
    return Outcome(entrant, unit, known.measures, task.place, warmup, prices, known.details)
