"""How long the runs of an experiment take: learned from finished runs, guessed where there are none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from testbed.experiments.matrix import Task

GUESSES = {"deepscaler": 4.2, "plan": 2.0, "hpa": 0.8, "": 1.0}
"""Beginnings of policies' names -> seconds of one core per virtual hour of Online Boutique at 20-100 users.

Measured over the runs of `make demo` on a machine of 2026: `wall_seconds` of run.json.
"""
GUESSED_SERVICES = 10
"""Of that application; a guess grows with the number of services."""
TRUTH = 0.6
"""Seconds per virtual hour of the run that finds out what a load asks; it is made once per load."""

AROUND = 0.4
"""Seconds per virtual hour that a run takes to be looked ahead, written and measured."""

START = 8.0
"""Seconds until workers have started and loaded what they need."""


class Pace:
    """Seconds that runs take, by application and family of policies."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], list[float]] = defaultdict(list)

    def learn_from(self, task: Task, info: Mapping[str, Any]) -> None:
        """What run.json of a finished run says."""
        self.learn(task, float(info.get("wall_seconds") or 0.0) + AROUND * task.hours)

    def learn(self, task: Task, seconds: float) -> None:
        """A run of this kind took `seconds`."""
        self._seen[_kind(task)].append(seconds / max(task.hours, 1e-9))

    def seconds(self, task: Task) -> float:
        """Seconds that a run takes on one core: the median of those seen of its kind, else a guess."""
        seen = self._seen.get(_kind(task))
        return task.hours * (float(np.median(seen)) if seen else guess(task))

    def knows(self, tasks: Sequence[Task]) -> bool:
        """Whether a run of each kind has been seen."""
        return all(_kind(task) in self._seen for task in tasks)

    def total(self, tasks: Sequence[Task], workers: int) -> float:
        """Seconds that all of them take on so many cores, with the truths of their loads."""
        loads: Mapping[str, Task] = {task.load_key: task for task in tasks}
        truths = sum(TRUTH * _size(task) * task.hours for task in loads.values())
        return START + (sum(self.seconds(task) for task in tasks) + truths) / workers


def guess(task: Task) -> float:
    """Guessed seconds per virtual hour."""
    name = task.entrant.policy
    return next(value for start, value in GUESSES.items() if name.startswith(start)) * _size(task)


def _size(task: Task) -> float:
    return max(len(task.settings.app.services) / GUESSED_SERVICES, 0.3)


def _kind(task: Task) -> tuple[str, str]:
    return task.case.config, task.entrant.name.family


def told(seconds: float) -> str:
    """A length of time for people: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
