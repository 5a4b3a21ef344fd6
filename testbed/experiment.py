"""Run an experiment: loads x policies x seeds in virtual time, resumable, with a table per load.

python -m testbed.experiment config/experiments/repeating.yaml
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deepscaler.artefacts import write_json
from deepscaler.errors import DeepScalerError, SettingsError
from deepscaler.evaluation.measures import evaluate_run
from deepscaler.evaluation.realised import realised_cost
from deepscaler.evaluation.span import run_span
from deepscaler.logs import start_logging
from deepscaler.runs import read_info, read_run
from deepscaler.settings import Experiment, Settings, load_section, load_settings
from deepscaler.statistics import bootstrap_interval
from deepscaler.text import aligned
from testbed.experiments.page import write_experiment_page
from testbed.experiments.runs import look_ahead, played, run_one

REFERENCE = "oracle"
"""Costs are given as ratios of this policy's."""


INDIFFERENT = ("policy", "policies", "seeds", "shapes", "workers", "run_dir")
"""Keys of `scale` that a run of a named policy, load and seed doesn't depend on."""


@dataclass(frozen=True)
class Job:
    """All policies of one load and seed: they share what is known of the load beforehand."""

    load: str
    seed: int
    policies: tuple[str, ...]
    settings: Settings

    def directory(self, policy: str) -> Path:
        """The run directory of one policy."""
        return Path(self.settings.scale.run_dir) / f"{policy}-{self.seed}"

    def is_done(self, policy: str) -> bool:
        """Does this run exist already?

        Raises:
            SettingsError: a run of other settings lies in its place.
        """
        place = self.directory(policy)
        if not (place / "run.json").is_file():
            return False
        found = read_info(place / "run.json").get("settings")
        asked = played(self.settings, self.seed).model_dump(mode="json")
        if not isinstance(found, dict) or _decisive(found) != _decisive(asked):
            raise SettingsError(f"{place}: a run of other settings; remove it or choose another `output`")
        return True


def _decisive(settings: dict[str, Any]) -> dict[str, Any]:
    """What a run depends on: all settings but those that say what else is run, where and how it is judged."""
    scale = {key: value for key, value in settings.get("scale", {}).items() if key not in INDIFFERENT}
    return {**settings, "scale": scale, "evaluate": None}


def build_parser() -> argparse.ArgumentParser:
    """Flags of the runner."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.experiment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", help="config/experiments/<name>.yaml")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting of the experiment",
    )
    parser.add_argument("--loads", nargs="+", metavar="NAME", help="only these loads")
    parser.add_argument("--json", action="store_true", help="the summary as JSON")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run what is missing, then print one table per load."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    logging.getLogger().setLevel(logging.WARNING)
    try:
        experiment = load_section(Experiment, arguments.experiment, arguments.overrides)
        jobs = list(plan_jobs(experiment, arguments.loads))
        run_jobs(jobs, experiment.workers)
        summary = summarise(jobs)
        write_json(Path(experiment.output) / "summary.json", summary)
        page = write_experiment_page(experiment, f"python -m testbed.experiment {arguments.experiment}")
    except DeepScalerError as error:
        print(f"experiment: {error}", file=sys.stderr)
        return 1
    print(
        json.dumps(summary, indent=2)
        if arguments.json
        else "\n\n".join(load_table(name, rows) for name, rows in summary.items())
    )
    print(f"written: {page}", file=sys.stderr)
    return 0


def plan_jobs(experiment: Experiment, only: list[str] | None) -> Iterator[Job]:
    """One job per load and seed.

    Raises:
        SettingsError: a load isn't there, or its settings can't be read.
    """
    unknown = sorted(set(only or []) - set(experiment.loads))
    if unknown:
        raise SettingsError(f"--loads: unknown load {unknown[0]!r}; loads: {', '.join(experiment.loads)}")
    for name, case in experiment.loads.items():
        if only and name not in only:
            continue
        place = f"scale.run_dir={experiment.output}/{name}"
        settings = load_settings(experiment.config, [*experiment.set, *case.set, place])
        policies = tuple(case.policies if case.policies is not None else experiment.policies)
        for seed in case.seeds if case.seeds is not None else experiment.seeds:
            yield Job(name, seed, policies, settings)


def run_jobs(jobs: list[Job], workers: int) -> None:
    """Run what isn't there yet.

    Raises:
        SettingsError: a run of other settings lies where one of this experiment belongs.
    """
    missing = [(job, [one for one in job.policies if not job.is_done(one)]) for job in jobs]
    due = [(job, policies) for job, policies in missing if policies]
    runs = sum(len(policies) for _, policies in due)
    if not due:
        return
    began = time.perf_counter()
    with tqdm(total=runs, desc="simulate", unit="run", disable=None) as bar:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context)
        try:
            futures = {pool.submit(run_job, job, policies): policies for job, policies in due}
            for number, done in enumerate(as_completed(futures)):
                done.result()
                bar.update(len(futures[done]))
                if not number:
                    expected = (time.perf_counter() - began) / workers * len(due)
                    print(f"{runs} runs; expected: {expected / 60:.0f} min", file=sys.stderr, flush=True)
        finally:
            pool.shutdown(cancel_futures=True)


def run_job(job: Job, policies: list[str]) -> None:
    """Run these policies of a job; each run is complete or absent."""
    ahead = look_ahead(job.settings, job.seed, policies)
    for policy in policies:
        run_one(job.settings, policy, job.seed, ahead)


def summarise(jobs: list[Job]) -> dict[str, dict[str, dict[str, Any]]]:
    """Load -> policy -> means over seeds, intervals, and values by seed."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for job in jobs:
        for policy in job.policies:
            found.setdefault(job.load, {}).setdefault(policy, []).append(_measures(job, policy))
    return {
        load: {policy: _means(rows) for policy, rows in policies.items()} for load, policies in found.items()
    }


def _measures(job: Job, policy: str) -> dict[str, float]:
    run = read_run(job.directory(policy))
    warmup, prices = job.settings.evaluate.warmup, job.settings.scale.prices
    measured = evaluate_run(run, warmup)
    kept = (
        *("violation_rate", "slow_rate", "core_hours", "changes_per_hour", "starts_per_hour"),
        *("minutes", "unknown_rate"),
    )
    return {
        "seed": float(job.seed),
        **{name: float(measured[name]) for name in kept if name in measured},
        **realised_cost(run, run_span(run, warmup), prices.shortage, prices.start),
    }


def _means(rows: list[dict[str, float]]) -> dict[str, Any]:
    names = [name for name in rows[0] if name != "seed"]
    return {
        "seeds": [int(row["seed"]) for row in rows],
        "mean": {name: float(np.nanmean([row[name] for row in rows])) for name in names},
        "interval": {name: bootstrap_interval([row[name] for row in rows]) for name in names},
        "by_seed": {name: [row[name] for row in rows] for name in names},
    }


COLUMNS = {
    "min>SLA %": ("violation_rate", 100, 2),
    "slow %": ("slow_rate", 100, 2),
    "core-h": ("core_hours", 1, 2),
    "x oracle": ("times_oracle", 1, 3),
    "realised": ("realised_cost", 1, 2),
    "short core-h": ("short_core_hours", 1, 4),
    "changes/h": ("changes_per_hour", 1, 1),
    "starts/h": ("starts_per_hour", 1, 1),
}
"""Heading -> measure, factor and digits."""


def load_table(load: str, policies: dict[str, dict[str, Any]]) -> str:
    """One line per policy, the lowest realised cost first."""
    oracle = policies.get(REFERENCE, {}).get("mean", {}).get("core_hours", math.nan)
    rows = [[load, "seeds", *COLUMNS]]
    by_cost = sorted(policies.items(), key=lambda item: item[1]["mean"].get("realised_cost", math.inf))
    for name, row in by_cost:
        mean = {**row["mean"], "times_oracle": row["mean"]["core_hours"] / oracle}
        cells = [f"{mean.get(key, math.nan) * factor:.{digits}f}" for key, factor, digits in COLUMNS.values()]
        rows.append([name, str(len(row["seeds"])), *cells])
    return "\n".join(aligned(rows, numbers=True))


if __name__ == "__main__":
    raise SystemExit(main())
