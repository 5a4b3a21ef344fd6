"""Compare policies from their run directories: violations, cost, elasticity, statistics, pictures.

python calculate.py --config config/demo.yaml --runs runs/demo
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

from deepscaler.artefacts import plain, write_json
from deepscaler.errors import DataError, DeepScalerError
from deepscaler.evaluation.comparison import REFERENCES, Outcome, compare
from deepscaler.evaluation.measures import evaluate_run
from deepscaler.evaluation.text import by_violations, elasticity_table, table, verdict
from deepscaler.logs import start_logging
from deepscaler.pictures.runs import draw_pareto, draw_timeline
from deepscaler.runs import Run, find_runs, read_run
from deepscaler.settings import Evaluate, load_settings

log = logging.getLogger("calculate")
MAX_LINES = 4
Places = dict[tuple[str, str], Path]
"""Where the run of each (policy, unit) lies."""


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
    parser.add_argument("--json", action="store_true", help="print summary.json instead of the table")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Read runs, print the comparison, write summary.json and the pictures."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    try:
        settings = load_settings(arguments.config, arguments.overrides).evaluate
        log.info("settings: %s", settings.model_dump_json())
        output = Path(arguments.output or settings.output_dir)
        outcomes, places = gather(arguments.runs or [settings.runs], settings.warmup)
        summary = {
            **compare(outcomes, settings.baseline),
            "runs": [_row(outcome) for outcome in outcomes],
            "baseline": settings.baseline,
        }
        write_summary(output / "summary.json", summary)
        pictures = draw(summary, outcomes, places, settings, output)
    except DeepScalerError as error:
        print(f"calculate: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(plain(summary), indent=2, allow_nan=False))
    else:
        paragraph = textwrap.fill(verdict(summary, settings.baseline), 120, break_on_hyphens=False)
        print("\n\n".join(part for part in (table(summary), elasticity_table(summary), paragraph) if part))
    log.info("wrote %s and %s", output / "summary.json", ", ".join(path.name for path in pictures))
    return 0


def gather(directories: list[str], warmup: float) -> tuple[list[Outcome], Places]:
    """Every run's measures, and where each (policy, unit) lies.

    Policies are named `<directory>/<policy>` when one of them lies in several directories. A unit is a seed, with the
    subdirectory before it where runs lie deeper.

    Raises:
        DataError: no runs, a broken one (named), or two of one policy and seed.
    """
    found: list[tuple[str, str, str, Path, dict[str, Any]]] = []
    for directory in dict.fromkeys(directories):
        for place in find_runs(directory):
            run = _read(place)
            try:
                measures = evaluate_run(run, warmup)
            except DataError as error:
                raise DataError(f"{place}: {error}") from error
            inner = place.relative_to(directory).parent.as_posix()
            seed = str(run.info.get("seed", "?"))
            found.append(
                (directory, run.info["policy"], seed if inner == "." else f"{inner}/{seed}", place, measures)
            )
    shared = Counter(policy for _, policy in {(directory, policy) for directory, policy, *_ in found})
    prefixed = any(count > 1 for count in shared.values())
    outcomes: list[Outcome] = []
    places: Places = {}
    for directory, policy, unit, place, measures in found:
        name = f"{Path(directory).resolve().name}/{policy}" if prefixed else policy
        if (name, unit) in places:
            twice = f"same policy and seed ({name}, {unit}) as {places[name, unit]}"
            raise DataError(f"{place}: {twice}; give their directories one by one to --runs")
        places[name, unit] = place
        outcomes.append(Outcome(name, unit, measures))
    return outcomes, places


def _read(place: Path) -> Run:
    try:
        return read_run(place)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{place / 'run.json'}: not valid JSON ({error}); make the run again with: python predict_scale.py"
        ) from error


def _row(outcome: Outcome) -> dict[str, Any]:
    return {"policy": outcome.policy, "unit": outcome.unit, **outcome.measures}


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write summary.json; `stages` (how long each stage took, written by `make demo`) survive."""
    try:
        stages = json.loads(path.read_text(encoding="utf-8")).get("stages")
    except (FileNotFoundError, json.JSONDecodeError, AttributeError):
        stages = None
    write_json(path, {**summary, **({"stages": stages} if stages is not None else {})})


def _label(outcome: Outcome) -> str:
    violations, minutes, cost = (
        outcome.measures[name] for name in ("violation_minutes", "minutes", "core_hours")
    )
    return f"{outcome.policy}: {violations} of {minutes} min over the SLA, {cost:.2f} core-hours"


def draw(
    summary: dict[str, Any], outcomes: list[Outcome], places: Places, settings: Evaluate, output: Path
) -> list[Path]:
    """pareto.png, and timeline-<seed>.png of the first `evaluate.timelines` seeds."""
    order = by_violations(summary)
    wanted = settings.timeline_policies or ["deepscaler", settings.baseline]
    chosen = [
        name for plain_name in wanted for name in order if plain_name in (name, name.rpartition("/")[2])
    ]
    if not settings.timeline_policies:
        rest = [name for name in order if name not in chosen and not REFERENCES.match(name)]
        chosen += sorted(rest, key=lambda name: name not in summary["pareto"])[:1]
    chosen = chosen[:MAX_LINES]
    pictures = [output / "pareto.png"]
    draw_pareto(summary, pictures[0])
    units = dict.fromkeys(unit for name, unit in places if name in chosen)
    for unit in list(units)[: settings.timelines]:
        runs = {name: _read(places[name, unit]) for name in chosen if (name, unit) in places}
        pictures.append(output / f"timeline-{unit.replace('/', '-')}.png")
        labels = {outcome.policy: _label(outcome) for outcome in outcomes if outcome.unit == unit}
        draw_timeline(
            runs, labels, settings.warmup, pictures[-1], f"One load, {len(runs)} policies (seed {unit})"
        )
    return pictures


if __name__ == "__main__":
    raise SystemExit(main())
