"""Experiments in virtual time: every policy on every seed, one directory per run."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deepscaler.artefacts import ensure_writable
from deepscaler.control.controller import Controller
from deepscaler.learning.description import load_demand
from deepscaler.policies.registry import TOLD, make_policy
from deepscaler.runs import PolicyName, Run, write_run
from deepscaler.settings import Settings
from testbed.cluster.virtual import VirtualCluster
from testbed.engine.program import Program
from testbed.experiments.references import Ahead, look_ahead, played

log = logging.getLogger(__name__)
ORACLE_STEP = 60.0
"""Seconds between the replicas that run.json keeps of the oracle."""


def seed_use(seed: int) -> str:
    """What a seed is for: 1-999 training, 1000-1999 validation, 2000-2999 test."""
    return {0: "train", 1: "validate", 2: "test"}.get(seed // 1000, "other")


@dataclass(frozen=True)
class Kept:
    """How a run is kept where it isn't the plain run of a policy.

    Attributes:
        name: what tables call the policy.
        about: further entries of run.json.
        compact: tables are compressed, and metrics aren't kept.
    """

    name: PolicyName
    about: Mapping[str, Any] = field(default_factory=dict)
    compact: bool = False


def run_one(
    settings: Settings, policy_name: str, seed: int, ahead: Ahead | None = None, kept: Kept | None = None
) -> Path:
    """Run one policy on one seed and return the run directory.

    The run lasts `scale.duration` (default `testbed.duration`). What is known ahead depends on the seed only;
    it is computed here where it isn't given.
    """
    kept = kept or Kept(PolicyName.parse(policy_name))
    ahead = ahead or look_ahead(settings, seed, [policy_name])
    settings = played(settings, seed)
    bed = settings.testbed
    cluster = VirtualCluster(settings, seed=seed)
    policy = make_policy(policy_name, settings, seed=seed, ahead=ahead.policies)
    controller = Controller(cluster, policy, settings, survive_bugs=False)
    start, began = cluster.now(), time.perf_counter()
    controller.run(duration=bed.duration)
    end = cluster.now()
    minutes = np.arange(start + ORACLE_STEP, end + 1e-6, ORACLE_STEP)
    info = {
        **controller.describe(seed, start),
        "seed_use": seed_use(seed),
        "shape": bed.load.shape,
        "duration_seconds": end - start,
        "wall_seconds": time.perf_counter() - began,
        "oracle": ahead.oracle.replicas_at(minutes),
        "oracle_times": minutes,
        "in_flight_at_end": cluster.in_flight,
        "history_seconds": bed.history,
        **warm_up_of(cluster.program),
        **kept.name.to_dict(),
        **kept.about,
    }
    run = Run(
        info=info,
        endpoints=cluster.latencies(start, end, settings.collect.step),
        decisions=controller.recorder.decisions(),
        pods=cluster.pod_history(start, end),
        panel=None
        if kept.compact
        else cluster.metrics(start + settings.collect.step, end, settings.collect.step),
        needed=ahead.needed[ahead.needed["time"] <= end + 1e-6],
    )
    directory = Path(settings.scale.run_dir) / f"{kept.name}-{seed}"
    write_run(run, directory, compact=kept.compact)
    return directory


def warm_up_of(program: Program) -> dict[str, Any]:
    """What run.json says of pods that are slow at first; nothing where none are."""
    told = zip(program.services, program.warm_seconds.tolist(), program.warm_slowdown.tolist(), strict=True)
    found = {
        name: {"seconds": seconds, "slowdown": slowdown}
        for name, seconds, slowdown in told
        if seconds > 0 and slowdown > 1
    }
    return {"warm_up": found} if found else {}


def check_policies(settings: Settings, policies: Sequence[str]) -> None:
    """Find out what the policies lack before a load is played: each that isn't told the future is made once.

    Raises:
        SettingsError: a name is unknown.
        BundleError, DataError: what a policy needs is missing or doesn't fit.
    """
    for name in policies:
        family = PolicyName.parse(name).family
        if family not in TOLD:
            make_policy(name, settings)
        elif family != "oracle":
            load_demand(settings)


def run_many(settings: Settings, policies: Sequence[str], seeds: Sequence[int]) -> list[Path]:
    """Run every policy on every seed, `scale.workers` at a time; run directories by policy, then by seed."""
    ensure_writable(settings.scale.run_dir)
    check_policies(settings, policies)
    jobs = [(policy, seed) for policy in policies for seed in seeds]
    found: dict[tuple[str, int], Path] = {}
    with tqdm(total=len(jobs), desc="simulate", unit="run", disable=None, leave=False) as bar:
        for job, directory in _done(settings, policies, seeds):
            found[job] = directory
            bar.update()
    return [found[job] for job in jobs]


def _done(
    settings: Settings, policies: Sequence[str], seeds: Sequence[int]
) -> Iterator[tuple[tuple[str, int], Path]]:
    """(policy, seed) and run directory of each run that is done; look-ahead is computed once per seed."""
    if min(settings.scale.workers, len(policies) * len(seeds)) == 1:
        for seed in seeds:
            ahead = look_ahead(settings, seed, policies)
            yield from (((policy, seed), run_one(settings, policy, seed, ahead)) for policy in policies)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(settings.scale.workers, mp_context=context, initializer=_one_thread)
    try:
        futures = {pool.submit(look_ahead, settings, seed, policies): seed for seed in seeds}
        runs = {}
        for made in as_completed(futures):
            seed = futures[made]
            runs.update(
                {
                    pool.submit(run_one, settings, policy, seed, made.result()): (policy, seed)
                    for policy in policies
                }
            )
        for run in as_completed(runs):
            yield runs[run], run.result()
    finally:
        pool.shutdown(cancel_futures=True)  # an error doesn't wait for the runs that haven't begun


def _one_thread() -> None:
    """Keep linear algebra to one thread, as there is one process per core."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
