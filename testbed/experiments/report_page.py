"""The page that explains an experiment, made from its runs when all are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepscaler.evaluation.summary import summarize
from deepscaler.reports.comparison import write_report
from deepscaler.settings import Experiment
from testbed.experiments.cluster import outcome_of
from testbed.experiments.matrix import Task


def write_experiment_page(path: Path, tasks: Sequence[Task], experiment: Experiment, command: str) -> None:
    """Write the page over all cases; a policy's runs are paired by case and seed.

    Args:
        path: of the page.
        tasks: the runs, all of which are there; the settings of the first say where graphs lie.
        experiment: its question is the heading; the other policies are paired with its baseline.
        command: what makes the page again.

    Raises:
        DataError: a run is broken.
    """
    outcomes = [outcome_of(task, f"{task.case.name}/{task.seed}") for task in tasks]
    settings = tasks[0].case.settings
    summary = summarize(outcomes, experiment.baseline)
    write_report(path, summary, outcomes, settings, command, experiment.question)
