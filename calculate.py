"""Compare policies from their run directories: violations, cost, elasticity, statistics, pictures.

python calculate.py --config config/demo.yaml --runs runs/demo
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepscaler.artefacts import plain
from deepscaler.errors import DataError, DeepScalerError
from deepscaler.evaluation.comparison import REFERENCES, Outcome
from deepscaler.evaluation.summary import gather, summarize, write_summary
from deepscaler.evaluation.text import OWN, by_violations, elasticity_table, full_table, main_table, verdict
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.record import fitted_to
from deepscaler.learning.description import load_demand
from deepscaler.logs import start_logging
from deepscaler.pictures.runs import draw_pareto, draw_timeline
from deepscaler.reports.comparison import write_report
from deepscaler.reports.counterfactual import (
    Counterfactual,
    counterfactual,
    replayed,
    to_dict,
    write_counterfactual,
)
from deepscaler.reports.counterfactual import text as counterfactual_text
from deepscaler.runs import read_run
from deepscaler.settings import Evaluate, Settings, load_settings
from deepscaler.settings.advice import follow

log = logging.getLogger("calculate")
MAX_LINES = 4
"""A timeline with more policies can't be read."""
WIDTH = 110


def build_parser() -> argparse.ArgumentParser:
    """Flags of the evaluation stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", default="config/boutique.yaml", help="application settings (default: %(default)s)"
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
        "--runs", nargs="+", metavar="DIR", help="directories of runs, side by side (default: evaluate.runs)"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="where summary.json and pictures go (default: evaluate.output_dir)"
    )
    parser.add_argument(
        "--report", metavar="FILE", help="also write a page (HTML) that explains the comparison to people"
    )
    parser.add_argument(
        "--counterfactual",
        metavar="RUN",
        help="a run with --dry-run: what was, and what the policy in the shadow would have made of it",
    )
    parser.add_argument("--full", action="store_true", help="print every measure, not only the main ones")
    parser.add_argument("--json", action="store_true", help="print summary.json instead of the table")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Read runs, print the comparison, write summary.json and the pictures."""
    arguments = build_parser().parse_args(argv)
    follow(arguments.config, arguments.overrides)
    start_logging()
    if arguments.counterfactual:
        return _counterfactual(arguments)
    try:
        whole = load_settings(arguments.config, arguments.overrides)
        settings = whole.evaluate
        log.info("settings: %s", settings.model_dump_json())
        output = Path(arguments.output or settings.output_dir)
        outcomes = gather(arguments.runs or [settings.runs], settings.warmup, whole.scale.prices)
        summary = summarize(outcomes, settings.baseline)
        write_summary(output / "summary.json", summary)
        pictures = draw(summary, outcomes, settings, output)
        if arguments.report:
            write_report(Path(arguments.report), summary, outcomes, whole, command(arguments))
    except DeepScalerError as error:
        print(f"calculate: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(plain(summary), indent=2, allow_nan=False))
    else:
        print(report(summary, settings.baseline, arguments.full))
    log.info("wrote %s and %s", output / "summary.json", ", ".join(path.name for path in pictures))
    return 0


def _counterfactual(arguments: argparse.Namespace) -> int:
    """Tell what a policy in the shadow would have made; the page goes to --report."""
    try:
        settings = load_settings(arguments.config, arguments.overrides)
        found = tell_counterfactual(Path(arguments.counterfactual), settings)
        if arguments.report:
            write_counterfactual(Path(arguments.report), found, command(arguments))
    except DeepScalerError as error:
        print(f"calculate: {error}", file=sys.stderr)
        return 1
    print(
        json.dumps(to_dict(found), indent=2, allow_nan=False)
        if arguments.json
        else counterfactual_text(found)
    )
    return 0


def tell_counterfactual(directory: Path, settings: Settings) -> Counterfactual:
    """Read the record, fit the demands to it and replay it, as far as that can be done.

    Raises:
        DataError: it is no shadow run.
    """
    from testbed.experiments.replay import replay

    run, warmup = read_run(directory), settings.evaluate.warmup
    model, why = None, ""
    try:
        model = fitted_to(run, settings, known_demand(settings))
    except DataError as error:
        why = str(error)
    found = counterfactual(run, warmup, model)
    if model is None:
        return replace(found, response_why=why, replay_why=why)
    try:
        replays = replay(run, settings, model, found.shadow, warmup)
    except DeepScalerError as error:
        return replace(found, replay_why=str(error))
    return replace(found, replay=replayed(found.was, replays.was, replays.would))


def known_demand(settings: Settings) -> DemandModel | None:
    """The demand fit of the bundle or the data set; None where there is none."""
    try:
        return load_demand(settings)
    except DeepScalerError as error:
        log.info("no demand fit beside the run's own: %s", error)
        return None


def command(arguments: argparse.Namespace) -> str:
    """The command that makes the page of this comparison."""
    words = ["python", "calculate.py", "--config", arguments.config]
    words += [word for override in arguments.overrides for word in ("--set", override)]
    words += ["--runs", *arguments.runs] if arguments.runs else []
    words += ["--counterfactual", arguments.counterfactual] if arguments.counterfactual else []
    return shlex.join([*words, "--report", arguments.report])


def report(summary: dict[str, Any], baseline: str, full: bool) -> str:
    """The table or, with `full`, the tables of all measures; then the paragraph that says who wins where."""
    tables = (full_table(summary), elasticity_table(summary)) if full else (main_table(summary),)
    paragraph = textwrap.fill(verdict(summary, baseline), WIDTH, break_on_hyphens=False)
    return "\n\n".join(part for part in (*tables, paragraph) if part)


def draw(summary: dict[str, Any], outcomes: list[Outcome], settings: Evaluate, output: Path) -> list[Path]:
    """Draw pareto.png, and timeline-<seed>.png of the first `evaluate.timelines` seeds; returns the files."""
    pictures = [output / "pareto.png"]
    draw_pareto(summary, pictures[0])
    chosen = in_timelines(summary, settings)
    shown = [outcome for outcome in outcomes if str(outcome.entrant) in chosen]
    units = dict.fromkeys(outcome.unit for outcome in shown)
    for unit in list(units)[: settings.timelines]:
        here = {str(outcome.entrant): outcome for outcome in shown if outcome.unit == unit}
        here = {name: here[name] for name in chosen if name in here}
        runs = {name: read_run(outcome.place) for name, outcome in here.items() if outcome.place}
        labels = {name: achieved(outcome) for name, outcome in here.items()}
        pictures.append(output / f"timeline-{unit.replace('/', '-')}.png")
        title = f"One load, {len(runs)} policies (seed {unit})"
        draw_timeline(runs, labels, settings.warmup, pictures[-1], title)
    return pictures


def in_timelines(summary: dict[str, Any], settings: Evaluate) -> list[str]:
    """Names of the policies to draw over time; by default deepscaler, the baseline and the best other one."""
    order, rows = by_violations(summary), summary["policies"]
    wanted = settings.timeline_policies or [OWN, settings.baseline]
    chosen = [name for text in wanted for name in order if text in (name, rows[name]["policy"])]
    if not settings.timeline_policies:
        rest = [name for name in order if name not in chosen and rows[name]["family"] not in REFERENCES]
        chosen += sorted(rest, key=lambda name: name not in summary["pareto"])[:1]
    return chosen[:MAX_LINES]


def achieved(outcome: Outcome) -> str:
    """What a policy achieved in one run, for the legend."""
    measures = outcome.measures
    minutes = f"{measures['violation_minutes']} of {measures['minutes']} min over the SLA"
    return f"{outcome.entrant}: {minutes}, {measures['core_hours']:.2f} core-hours"


if __name__ == "__main__":
    raise SystemExit(main())
