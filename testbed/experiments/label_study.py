"""What the label is worth: its replay with a perfect forecast, beside HPAs of several targets and the oracle.

python -m testbed.experiments.label_study --config config/studies/labels.yaml --balancing random

The study collects telemetry under the exploring policy and fits the demand model by the stage scripts, once
per draw of demands and call counts. Then the policy `foreseen` replays the labels that the fitted model gives
the true future load, each shape of load on every seed. Violations are minutes in which the mean response of
an entry is above its SLA.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deepscaler.artefacts import plain, write_json
from deepscaler.errors import DataError, DeepScalerError, SettingsError
from deepscaler.evaluation.measures import evaluate_run
from deepscaler.learning.description import load_demand
from deepscaler.logs import VARIABLE, start_logging
from deepscaler.policies.registry import HPA
from deepscaler.runs import PolicyName, read_run
from deepscaler.settings import Settings, load_settings
from deepscaler.text import aligned
from testbed.experiments.references import true_demand
from testbed.experiments.runs import run_many

SIGMA = 0.3
"""Log-normal spread of the demands and counts of a draw, where `testbed.demand_sigma` is 0."""
ROOT = Path(__file__).parents[2]
MEASURES = ("violation_rate", "core_hours", "slow_rate", "window_violation_rate")
MOST_VIOLATIONS = 0.01
"""Share of violating minutes up to which the label keeps its promise."""


HEADING = ("", "minutes over the SLA, %", "core-hours", "slow requests, %", "slowest endpoint, %", "runs")


@dataclass(frozen=True)
class Case:
    """One application to learn and replay on: a draw, with directories of its own.

    Attributes:
        overrides: its `--set` options for every stage.
    """

    name: str
    settings: Settings
    overrides: tuple[str, ...]


def build_parser() -> argparse.ArgumentParser:
    """Flags of the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config",
        default="config/studies/labels.yaml",
        help="application settings (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting",
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=0,
        help="number of draws of demands and call counts; 0: the application as it is",
    )
    parser.add_argument("--balancing", help="load balancing (default: testbed.balancing)")
    parser.add_argument(
        "--reuse", action="store_true", help="keep telemetry and fits that an earlier study left"
    )
    parser.add_argument("--json", action="store_true", help="print the result instead of the table")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Learn, replay, print the table and write <run_dir>/<name>.json."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    began = time.perf_counter()
    try:
        cases = make_cases(arguments.config, arguments.overrides, arguments.draws, arguments.balancing)
        settings = cases[0].settings
        learn(cases, arguments.config, arguments.reuse)
        runs = list(replay(cases))
        result = {
            "draws": arguments.draws,
            "balancing": settings.testbed.balancing,
            "seeds": settings.scale.seeds,
            "fits": {case.name: fit_errors(case.settings) for case in cases},
            "policies": summarize(runs),
            "verdicts": judge(runs),
            "runs": runs,
            "wall_seconds": round(time.perf_counter() - began, 1),
        }
        root = Path(settings.scale.run_dir).parent
        path = root.with_name(f"{root.name}.json")
        write_json(path, result)
    except DeepScalerError as error:
        print(f"label_study: {error}", file=sys.stderr)
        return 1
    print(
        json.dumps(plain(result), indent=2) if arguments.json else f"{study_table(result)}\n\nWritten: {path}"
    )
    return 0


# --------------------------------------------------------------------------------------------------- learning
def make_cases(config: str, overrides: Sequence[str], draws: int, balancing: str | None) -> list[Case]:
    """One case for the application as it is, or one for each of its draws 1 to `draws`.

    Raises:
        SettingsError: a setting is wrong, or there are no seeds or shapes to replay.
    """
    base = load_settings(config, list(overrides))
    if not base.scale.seeds or not base.scale.shapes or "foreseen" not in base.scale.policies:
        raise SettingsError(
            f"{config}: the study needs scale.seeds, scale.shapes and 'foreseen' among scale.policies"
        )
    balancing = balancing or base.testbed.balancing
    root = Path(base.scale.run_dir) / (f"{balancing}-drawn" if draws else balancing)
    cases = []
    for draw in range(1, draws + 1) if draws else (0,):
        place = root / (f"draw-{draw}" if draw else "as-it-is")
        own = [f"testbed.balancing={balancing}", f"scale.run_dir={place}", f"scale.bundle={place}/none.pt"]
        own += [f"collect.output_dir={place}/data", f"process.output_dir={place}/data"]
        if draw:
            own += [
                f"testbed.demand_sigma={base.testbed.demand_sigma or SIGMA}",
                f"testbed.demand_seed={draw}",
                f"testbed.seed={draw}",
            ]
        cases.append(Case(place.name, load_settings(config, [*overrides, *own]), (*overrides, *own)))
    return cases


def learn(cases: Sequence[Case], config: str, reuse: bool) -> None:
    """Collect telemetry and fit a model for every case, `scale.workers` cases side by side.

    Raises:
        DataError: a stage failed; the message is the last line that it printed.
    """
    fresh = [
        case
        for case in cases
        if not (reuse and (Path(case.settings.process.output_dir) / "meta.json").is_file())
    ]
    pool = ThreadPoolExecutor(cases[0].settings.scale.workers)
    try:
        steps = pool.map(lambda case: _stages(case, config), fresh)
        for _ in tqdm(steps, total=len(fresh), desc="learn", unit="draw", disable=None, leave=False):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _stages(case: Case, config: str) -> None:
    shutil.rmtree(case.settings.collect.output_dir, ignore_errors=True)
    options = ["--config", config, *(flag for text in case.overrides for flag in ("--set", text))]
    quiet = {**os.environ, VARIABLE: "ERROR", "OMP_NUM_THREADS": "1"}
    for script in ("metrics_fetch.py", "data_process.py"):
        command = [sys.executable, str(ROOT / script), *options]
        done = subprocess.run(command, check=False, env=quiet, capture_output=True, text=True)
        if done.returncode:
            raise DataError(f"{case.name}: {(done.stderr.strip().splitlines() or [f'{script} failed'])[-1]}")


def fit_errors(settings: Settings) -> dict[str, Any]:
    """Largest relative errors of the fitted demands and visits, and the form of the fitted response."""
    fit, truth = load_demand(settings), true_demand(settings)
    visits, true_visits = (model.external_share @ model.visits for model in (fit, truth))
    response = fit.response
    return {
        "demand_error": float(np.nanmax(np.abs(fit.demand_seconds / truth.demand_seconds - 1))),
        "visits_error": float(np.nanmax(np.abs(visits / true_visits - 1))),
        "form": response.form if response else None,
        "log_error": fit.quality["log_error"].get(response.form) if response else None,
    }


# ----------------------------------------------------------------------------------------------------- replay
def replay(cases: Sequence[Case]) -> Iterator[dict[str, Any]]:
    """The measures of each run (one row per case, shape, policy and seed)."""
    jobs = [(case, shape) for case in cases for shape in case.settings.scale.shapes]
    for case, shape in tqdm(jobs, desc="replay", unit="shape", disable=None, leave=False):
        scale = case.settings.scale
        own = scale.model_copy(update={"shapes": [shape], "run_dir": f"{scale.run_dir}/{shape}"})
        for place in run_many(case.settings.model_copy(update={"scale": own}), scale.policies, scale.seeds):
            run = read_run(place)
            measures = evaluate_run(run, case.settings.evaluate.warmup)
            slowest = max(entry["slow_rate"] for entry in measures["endpoints"].values())
            row = {"case": case.name, "shape": shape, "policy": run.info["policy"], "seed": run.info["seed"]}
            yield {**row, **{name: measures[name] for name in MEASURES}, "slowest_endpoint_rate": slowest}


def summarize(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means by shape and policy over cases and seeds, and the worst run's violations."""
    found = []
    for shape, policy in dict.fromkeys((run["shape"], run["policy"]) for run in runs):
        members = [run for run in runs if (run["shape"], run["policy"]) == (shape, policy)]
        means = {
            name: float(np.mean([run[name] for run in members]))
            for name in (*MEASURES, "slowest_endpoint_rate")
        }
        worst = max(run["violation_rate"] for run in members)
        found.append({"shape": shape, "policy": policy, **means, "worst": worst, "runs": len(members)})
    return found


def judge(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Whether `foreseen` violates at most 1 % of the minutes, for less than any HPA with as few violations.

    One verdict per case and shape. `saving` is against the cheapest such HPA; None where no HPA violates as
    little.
    """
    verdicts = []
    for case, shape in dict.fromkeys((run["case"], run["shape"]) for run in runs):
        rows = {
            row["policy"]: row
            for row in summarize([run for run in runs if (run["case"], run["shape"]) == (case, shape)])
        }
        own = rows["foreseen"]
        rivals = {
            name: row
            for name, row in rows.items()
            if PolicyName.parse(name).family == HPA and row["violation_rate"] <= own["violation_rate"]
        }
        best = min(rivals, key=lambda name: rivals[name]["core_hours"], default=None)
        saving = None if best is None else 1 - own["core_hours"] / rivals[best]["core_hours"]
        holds = own["violation_rate"] <= MOST_VIOLATIONS and (saving is None or saving > 0)
        verdicts.append(
            {
                "case": case,
                "shape": shape,
                "violation_rate": own["violation_rate"],
                "rival": best,
                "saving": saving,
                "holds": holds,
            }
        )
    return verdicts


# ------------------------------------------------------------------------------------------------------ table
def study_table(result: Mapping[str, Any]) -> str:
    """One block per shape: one row per policy, then a sentence."""
    rows = result["policies"]
    head, *cells = aligned([HEADING, *map(_cells, rows)], numbers=True)
    lines = [head]
    for shape in dict.fromkeys(row["shape"] for row in rows):
        lines += ["", shape]
        lines += [text for text, row in zip(cells, rows, strict=True) if row["shape"] == shape]
        lines.append(_sentence([verdict for verdict in result["verdicts"] if verdict["shape"] == shape]))
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["policy"],
        f"{100 * row['violation_rate']:.2f} (worst {100 * row['worst']:.1f})",
        f"{row['core_hours']:.2f}",
        f"{100 * row['slow_rate']:.2f}",
        f"{100 * row['slowest_endpoint_rate']:.2f}",
        f"{row['runs']}",
    ]


def _sentence(verdicts: Sequence[Mapping[str, Any]]) -> str:
    savings = [100 * verdict["saving"] for verdict in verdicts if verdict["saving"] is not None]
    held = sum(verdict["holds"] for verdict in verdicts)
    text = f"-> at most {100 * MOST_VIOLATIONS:g} % and cheaper than every HPA with as few violations: "
    text += f"{held} of {len(verdicts)}"
    if savings:
        text += f"; saving {np.median(savings):.1f} % (median; {min(savings):.1f} to {max(savings):.1f})"
    alone = len(verdicts) - len(savings)
    return text + (f"; no HPA of the sweep violates as little: {alone}" if alone else "")


if __name__ == "__main__":
    raise SystemExit(main())
