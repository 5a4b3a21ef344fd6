"""Bounds on time: on a whole request, also where its answer comes byte by byte, and on a whole tick."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

MOST_HANGING = 4
"""While so many requests hang that were given up, no new one is begun."""
Answer = TypeVar("Answer")
_END: ContextVar[float] = ContextVar("end", default=math.inf)


@contextmanager
def sharing(seconds: float) -> Iterator[None]:
    """Until the block ends, all waits of this thread share so many seconds, or those of a block around it."""
    token = _END.set(min(_END.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _END.reset(token)


def seconds_left() -> float:
    """What is left of the time that this thread's waits share; infinite outside such a block."""
    return max(_END.get() - time.monotonic(), 0.0)


class Deadline:
    """Carries out requests in threads, and gives up those that take too long; they end by themselves.

    The time-outs of HTTP libraries bound the wait for the next byte only.
    """

    def __init__(self) -> None:
        self._hanging: list[threading.Thread] = []

    def within(self, seconds: float, request: Callable[[], Answer]) -> Answer:
        """What `request` returns or raises.

        Args:
            seconds: for the request; less if less is left of the time that is shared.
            request: is carried out.

        Raises:
            TimeoutError: it took longer, no shared time is left, or too many other requests still hang.
        """
        left = seconds_left()
        if left <= 0:
            raise TimeoutError("timed out: the time that all requests of this tick share is over")
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= MOST_HANGING:
            raise TimeoutError(f"timed out: {len(self._hanging)} earlier requests still hang")
        answers: list[Answer] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                answers.append(request())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, name="request", daemon=True)
        thread.start()
        thread.join(min(seconds, left))
        if errors:
            raise errors[0]
        if not answers:
            self._hanging.append(thread)
            raise TimeoutError(f"timed out: no whole answer within {min(seconds, left):.3g} s")
        return answers[0]
