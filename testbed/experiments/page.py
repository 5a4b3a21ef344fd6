"""The page that explains an experiment: made from its run directories when all are there."""

from __future__ import annotations

from pathlib import Path

from deepscaler.evaluation.summary import gather, summarize
from deepscaler.reports.comparison import write_report
from deepscaler.settings import Experiment, load_settings


def write_experiment_page(experiment: Experiment, command: str) -> Path:
    """Write `report.html` into the experiment's directory; returns where it is.

    Args:
        experiment: all of its runs are there.
        command: what makes the page again.

    Raises:
        DataError: there are no runs, or one is broken.
    """
    settings = load_settings(experiment.config, experiment.set)
    outcomes = gather([experiment.output], settings.evaluate.warmup)
    path = Path(experiment.output) / "report.html"
    write_report(path, summarize(outcomes, settings.evaluate.baseline), outcomes, settings, command)
    return path
