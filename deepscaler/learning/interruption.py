"""Trainings that are stopped from outside: SIGTERM ends them as Ctrl-C does.

`--resume` continues them.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from deepscaler.learning.task import TrainingTask


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt as Ctrl-C does; the error carries the signal's number."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_code(error: KeyboardInterrupt) -> int:
    """What a shell expects of a program that a signal has ended."""
    return 128 + int(error.args[0] if error.args else signal.SIGINT)


def how_to_go_on(task: TrainingTask | None) -> str:
    """What to tell after an interruption."""
    if task is None or not task.checkpoint.is_file():
        return "no iteration had finished, so nothing is kept"
    return "the same command with --resume continues after the last finished iteration"
