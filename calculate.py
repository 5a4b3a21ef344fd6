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
from pathlib import Path
from typing import Any

from deepscaler.artefacts import plain
from deepscaler.errors import DeepScalerError
from deepscaler.evaluation.comparison import REFERENCES, Outcome
from deepscaler.evaluation.summary import gather, summarize, write_summary
from deepscaler.evaluation.text import OWN, by_violations, elasticity_table, full_table, main_table, verdict
from deepscaler.logs import start_logging
from deepscaler.pictures.runs import draw_pareto, draw_timeline
from deepscaler.reports.comparison import write_report
from deepscaler.runs import read_run
from deepscaler.settings import Evaluate, load_settings

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
    parser.add_argument("--full", action="store_true", help="print every measure, not only the main ones")
    parser.add_argument("--json", action="store_true", help="print summary.json instead of the table")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Read runs, print the comparison, write summary.json and the pictures."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    try:
        whole = load_settings(arguments.config, arguments.overrides)
        settings = whole.evaluate
        log.info("settings: %s", settings.model_dump_json())
        output = Path(arguments.output or settings.output_dir)
        outcomes = gather(arguments.runs or [settings.runs], settings.warmup)
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


def command(arguments: argparse.Namespace) -> str:
    """The command that makes the page of this comparison."""
    words = ["python", "calculate.py", "--config", arguments.config]
    words += [word for override in arguments.overrides for word in ("--set", override)]
    words += ["--runs", *arguments.runs] if arguments.runs else []
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
