"""Experiments whose runs are written by hand, so that nothing is simulated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from deepscaler.runs import write_run
from deepscaler.settings import Experiment
from helpers.moments import START
from helpers.paths import ROOT
from helpers.run_samples import endpoint_row, make_run
from testbed.experiments.matrix import Task
from testbed.experiments.references import played

LENGTH = 300


def small_experiment(output: Path, **changes: Any) -> Experiment:
    """One load, one policy and one seed on Boutique, all of which is judged."""
    text = {
        "config": str(ROOT / "config" / "boutique.yaml"),
        "set": ["evaluate.warmup=0", "testbed.history=0"],
        "loads": {"steady": {}},
        "policies": ["hpa_70"],
        "seeds": [1000],
        "output": str(output),
    }
    return Experiment.model_validate({**text, **changes})


def write_task_run(task: Task, replicas: int = 2, slow_minutes: int = 0) -> None:
    """Five minutes with so many replicas of each service, where the first minute needs two of web."""
    times = range(15, LENGTH + 1, 15)
    rows = [endpoint_row(t, "GET /", 10, 0.6 if t <= 60 * slow_minutes else 0.1) for t in times]
    pods = [(START + t, name, replicas, 0, replicas) for t in times for name in ("web", "db")]
    stated = {
        **{"settings": played(task.settings, task.seed).model_dump(mode="json"), "wall_seconds": 1.0},
        **{"family": task.entrant.name.family, "knob": task.entrant.name.knob},
        **task.about(),
    }
    run = make_run(rows, pods, policy=str(task.entrant.name), seed=task.seed, start=START, **stated)
    web = [2 if t <= 60 else 1 for t in times]
    run.needed = pd.DataFrame({"time": [START + t for t in times], "web": web, "db": [1] * len(web)})
    write_run(run, task.place)


def write_runs_of(tasks: Sequence[Task], *_: object, **__: object) -> None:
    """In place of `run_tasks`: each run is there at once."""
    for task in tasks:
        write_task_run(task)
