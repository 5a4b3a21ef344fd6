"""Run an experiment: applications x loads x policies x seeds in virtual time, resumable, a table per case.

python -m testbed.experiment config/experiments/repeating.yaml
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepscaler.artefacts import plain, utc_text, write_json
from deepscaler.errors import DeepScalerError, SettingsError
from deepscaler.evaluation.comparison import Outcome
from deepscaler.evaluation.summary import summarize
from deepscaler.logs import start_logging
from deepscaler.policies.registry import check_name
from deepscaler.settings import Experiment, load_section
from testbed.experiments.choice import CHOSEN, best_at_the_ends, choice_key, choose, read_chosen, write_chosen
from testbed.experiments.cluster import outcome_of, run_tasks
from testbed.experiments.expected import Pace
from testbed.experiments.matrix import TEST, Case, Task, cases_of, seeds_for_test, tasks_of
from testbed.experiments.report_page import write_experiment_page
from testbed.experiments.tables import TERMS, case_table, check_promise, holds_table

TEST_LOG = "test_seeds.jsonl"
"""In an experiment's directory: a line for each time that its test seeds were used."""


def build_parser() -> argparse.ArgumentParser:
    """Flags of the runner."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.experiment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flag = parser.add_argument
    flag("experiment", help="config/experiments/<name>.yaml")
    flag(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting of the experiment",
    )
    flag(
        "--with",
        dest="further",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting of every run (scale.duration=600), but where a variant or sweep sets that "
        "very key; needs another --output",
    )
    flag(
        "--only",
        nargs="+",
        default=[],
        metavar="KEY=A,B",
        help="only these runs: load=square policy=hpa_70,oracle seed=1000; keys: application, load, each "
        "factor, policy, seed",
    )
    flag("--test", action="store_true", help="run the points chosen on `seeds` on `test_seeds`")
    flag("--output", metavar="DIR", help="where runs and summary go (default: the experiment's)")
    flag("--workers", type=int, metavar="N", help="processes on this machine (default: one per core)")
    flag("--scheduler", metavar="ADDRESS", help="run on the workers of this dask scheduler instead")
    flag("--json", action="store_true", help="the summary as JSON")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run what is missing, then print one table per case."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    logging.getLogger().setLevel(logging.WARNING)
    try:
        experiment = read_experiment(arguments)
        summary = run(experiment, arguments)
        tables = [case_table(name, case) for name, case in summary["cases"].items()]
        if experiment.holds is not None:
            tables.append(holds_table(summary["cases"], experiment.holds))
    except DeepScalerError as error:
        print(f"experiment: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("experiment: stopped; finished runs are kept, the same command goes on", file=sys.stderr)
        return 130
    print(json.dumps(plain(summary), indent=2) if arguments.json else "\n\n".join([TERMS, *tables]))
    return 0


def read_experiment(arguments: argparse.Namespace) -> Experiment:
    """The experiment, with the flags that stand for its settings.

    Raises:
        SettingsError: a setting is wrong.
    """
    flags = {"output": arguments.output, "workers": arguments.workers}
    overrides = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    return load_section(Experiment, arguments.experiment, [*arguments.overrides, *overrides])


def run(experiment: Experiment, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing, and write summary.json.

    Raises:
        DeepScalerError: settings are wrong, a run can't be made, or runs of other settings lie in its place.
    """
    root = Path(experiment.output)
    cases = list(cases_of(experiment, arguments.further))
    if arguments.test:
        chosen = _chosen(experiment, cases)
        cases = list(cases_of(experiment, arguments.further, chosen))
    check_entrants(experiment, cases)
    tasks = tasks_of(cases, _only(arguments.only))
    if seeds := seeds_for_test(tasks):
        _log_test(root / TEST_LOG, tasks, seeds)
    pace = Pace()
    run_tasks(missing(tasks, pace), pace, workers=experiment.workers, scheduler=arguments.scheduler)
    began = time.perf_counter()
    if arguments.only:  # what earlier calls ran belongs to the answer, too
        tasks = [task for task in tasks_of(cases) if task.finished()]
    found = summarise(tasks, experiment.baseline)
    print(f"{len(tasks)} runs read in {time.perf_counter() - began:.1f} s", file=sys.stderr)
    about = {
        "name": Path(arguments.experiment).stem,
        "question": experiment.question,
        "seeds": sorted({task.seed for task in tasks}),
        "settings": experiment.model_dump(mode="json"),
        "arguments": sys.argv[1:] if sys.argv[0].endswith("experiment.py") else [],
    }
    summary = {"experiment": about, "cases": found}
    made = root / TEST if arguments.test else root
    write_json(made / "summary.json", summary)
    page = made / "report.html"
    write_experiment_page(page, tasks, experiment, command(arguments))
    print(f"written: {page}", file=sys.stderr)
    if experiment.sweeps and not arguments.test and not arguments.only:
        _keep_choice(experiment, cases, tasks, found)
    return summary


def _keep_choice(
    experiment: Experiment, cases: Sequence[Case], tasks: Sequence[Task], found: Mapping[str, Any]
) -> None:
    """Write which points of the sweeps go to the test, on which seeds that was chosen, and for what."""
    asked = experiment.most_violations, experiment.holds
    seeds = sorted({task.seed for task in tasks})
    path = Path(experiment.output) / CHOSEN
    write_chosen(path, choose(cases, found, *asked), seeds, choice_key(tasks, *asked))
    if ends := best_at_the_ends(cases, found, *asked):
        print(f"best at the end of their sweep, so beyond may be better: {', '.join(ends)}", file=sys.stderr)


def _chosen(experiment: Experiment, cases: Sequence[Case]) -> dict[str, list[str]]:
    """The points for `--test` that were chosen on the runs of `cases`.

    Raises:
        DeepScalerError: there is nothing to test on, or nothing was chosen, or not for these runs.
    """
    if not experiment.test_seeds:
        raise SettingsError("--test: the experiment has no `test_seeds`")
    key = choice_key(tasks_of(cases), experiment.most_violations, experiment.holds)
    return read_chosen(Path(experiment.output) / CHOSEN, key)


def command(arguments: argparse.Namespace) -> str:
    """The command that makes the page of these runs: all flags but those that say where they are made."""
    words = ["python", "-m", "testbed.experiment", arguments.experiment]
    words += [word for override in arguments.overrides for word in ("--set", override)]
    words += [word for override in arguments.further for word in ("--with", override)]
    words += ["--only", *arguments.only] if arguments.only else []
    words += ["--test"] if arguments.test else []
    words += ["--output", arguments.output] if arguments.output else []
    return shlex.join(words)


def check_entrants(experiment: Experiment, cases: Sequence[Case]) -> None:
    """Say before the first run what would be found out after hours.

    Raises:
        SettingsError: a policy is unknown, the baseline that was asked for takes no part, or a promise is
            about no measure.
    """
    names = {str(one.name): one.policy for case in cases for one in case.entrants}
    for policy in dict.fromkeys(names.values()):
        check_name(policy)
    if "baseline" in experiment.model_fields_set and experiment.baseline not in names:
        raise SettingsError(f"baseline: {experiment.baseline!r} is none of {', '.join(names)}")
    if experiment.holds is not None:
        check_promise(experiment.holds)


def missing(tasks: Sequence[Task], pace: Pace) -> list[Task]:
    """The runs that aren't there yet; `pace` learns from the others.

    Raises:
        SettingsError: a run of other settings lies where one of this experiment belongs.
    """
    due = []
    for task in tasks:
        info = task.finished()
        if info is None:
            due.append(task)
        else:
            pace.learn_from(task, info)
    return due


def summarise(tasks: Sequence[Task], baseline: str) -> dict[str, dict[str, Any]]:
    """Case -> where it lies, what tells it from the others, and what `calculate.py` would say of its runs."""
    grouped: dict[str, tuple[Case, list[Outcome]]] = {}
    for task in tasks:
        outcome = outcome_of(task, str(task.seed))
        grouped.setdefault(task.case.name, (task.case, []))[1].append(outcome)
    return {
        name: {
            "place": dict(case.place),
            "directory": str(case.directory),
            "warmup": case.settings.evaluate.warmup,
            **summarize(outcomes, baseline),
        }
        for name, (case, outcomes) in grouped.items()
    }


def _only(texts: Sequence[str]) -> Mapping[str, list[str]]:
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise SettingsError(f"--only {wrong[0]}: expected KEY=VALUE[,VALUE]")
    found: dict[str, list[str]] = {}
    for key, _, values in (text.partition("=") for text in texts):
        found.setdefault(key, []).extend(values.split(","))
    return found


def _log_test(path: Path, tasks: Sequence[Task], seeds: Sequence[int]) -> None:
    """Note that test seeds are used: when, which, by whom."""
    of_test = [task for task in tasks if task.seed in seeds]
    line = {
        "time": utc_text(time.time()),
        "seeds": list(seeds),
        "policies": sorted({str(task.entrant.name) for task in of_test}),
        "cases": sorted({task.case.name for task in of_test}),
        "new_runs": sum(not (task.place / "run.json").is_file() for task in of_test),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
