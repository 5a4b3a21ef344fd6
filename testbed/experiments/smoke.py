"""Do all experiments run? Each application, load and level of each in short, one seed, and its report.

python -m testbed.experiments.smoke config/experiments/*.yaml

The runs say nothing of the questions: they last a few minutes, after a quarter of an hour of history. That
all starts, fits, runs and is told is what is tried. Applications of more than `--most` services are left out.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from deepscaler.errors import DeepScalerError
from deepscaler.logs import start_logging
from deepscaler.settings import Experiment, load_section
from deepscaler.text import aligned
from testbed.experiment import missing, summarise
from testbed.experiments.cluster import run_tasks
from testbed.experiments.expected import Pace, told
from testbed.experiments.matrix import Case, cases_of, tasks_of
from testbed.experiments.report_page import write_experiment_page
from testbed.experiments.tables import case_table

SHORT = (
    *("scale.duration=300", "testbed.history=900", "testbed.earlier=0", "evaluate.warmup=0"),
    "collect.last=4800",
)
"""Overrides of all runs: 80 minutes of telemetry are the least that the demand fit takes."""
LEFT_OUT = "left out"
FINE = ("ok", "not tried", LEFT_OUT)
"""Beginnings of results that don't break the trial."""
CORES = 2
"""Of the machine for which the expected time of the whole experiment is told."""


def build_parser() -> argparse.ArgumentParser:
    """Flags of the trial."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", nargs="+", metavar="FILE", help="config/experiments/<name>.yaml")
    parser.add_argument("--most", type=int, default=50, help="services (default: %(default)s)")
    parser.add_argument("--output", default="runs/smoke", help="<name>/ go below (default: %(default)s)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="as that of testbed.experiment")
    parser.add_argument("--expect", action="store_true", help="run nothing, tell how long all of it takes")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Try each file; the exit code is 1 if one breaks."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.workers is not None and arguments.workers < 1:
        parser.error(f"argument --workers: expected 1 or more, found {arguments.workers}")
    start_logging()
    logging.getLogger().setLevel(logging.ERROR)
    rows = [["experiment", "runs in all", f"expected, {CORES} cores", "runs tried", "seconds", "result"]]
    for path in map(Path, arguments.experiments):
        began, tried, result = time.perf_counter(), 0, "not tried"
        try:
            experiment = load_section(Experiment, path, [f"output={Path(arguments.output) / path.stem}"])
            whole = tasks_of(list(cases_of(experiment)))
            if not arguments.expect:
                tried = tried_briefly(experiment, path, arguments)
                result = "ok" if tried else f"{LEFT_OUT}: more than {arguments.most} services (--most)"
        except DeepScalerError as error:
            whole, result = [], str(error)
        expected = told(Pace().total(whole, CORES)) if whole else "-"
        seconds = f"{time.perf_counter() - began:.0f}"
        rows.append([path.stem, str(len(whole)), expected, str(tried), seconds, result])
        print(f"{path.stem}: {result}", file=sys.stderr, flush=True)
    print("\n".join(aligned(rows, rule=True)))
    return int(any(not row[-1].startswith(FINE) for row in rows[1:]))


def tried_briefly(experiment: Experiment, path: Path, arguments: argparse.Namespace) -> int:
    """Run a part of the experiment in short, tell its tables and write its page; the number of runs.

    Nothing is run or written where all its applications are larger than `--most`.

    Raises:
        DeepScalerError: something in it doesn't work.
    """
    cases = covering(cases_of(ends_of_sweeps(experiment), SHORT), arguments.most)
    if not cases:
        return 0
    tasks = tasks_of(cases)
    pace = Pace()
    run_tasks(missing(tasks, pace), pace, workers=arguments.workers, scheduler=arguments.scheduler)
    for name, case in summarise(tasks, experiment.baseline).items():
        case_table(name, case)
    page = Path(experiment.output) / "report.html"
    write_experiment_page(page, tasks, experiment, f"python -m testbed.experiment {path}")
    return len(tasks)


def covering(cases: Iterable[Case], most: int) -> list[Case]:
    """So few cases that each application, load and level is in one of them, each on its first seed.

    Args:
        cases: of an experiment.
        most: services; cases of larger applications are left out.
    """
    seen: set[tuple[str, str]] = set()
    chosen = []
    for case in cases:
        if set(case.place.items()) <= seen or len(case.settings.app.services) > most:
            continue
        seen |= case.place.items()
        chosen.append(replace(case, seeds=case.seeds[:1]))
    return chosen


def ends_of_sweeps(experiment: Experiment) -> Experiment:
    """The experiment with the first and the last value of each sweep."""
    ends = {
        name: sweep.model_copy(update={"values": sorted({sweep.values[0], sweep.values[-1]})})
        for name, sweep in experiment.sweeps.items()
    }
    return experiment.model_copy(update={"sweeps": ends})


if __name__ == "__main__":
    raise SystemExit(main())
