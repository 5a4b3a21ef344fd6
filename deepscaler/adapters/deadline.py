"""A bound on the whole time of a request, also when a server sends its answer byte by byte."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import requests

MOST_HANGING = 4
"""While so many requests hang that were given up, no new one is begun."""
Answer = TypeVar("Answer")


class Deadline:
    """Carries out requests in threads, and gives up those that take too long; they end by themselves.

    The time-out of `requests` bounds the wait for the next byte only.
    """

    def __init__(self) -> None:
        self._hanging: list[threading.Thread] = []

    def within(self, seconds: float, request: Callable[[], Answer]) -> Answer:
        """What `request` returns or raises.

        Raises:
            requests.Timeout: it took more than so many seconds, or too many others still hang.
        """
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= MOST_HANGING:
            raise requests.Timeout(f"{len(self._hanging)} earlier requests still hang")
        answers: list[Answer] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                answers.append(request())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, name="request", daemon=True)
        thread.start()
        thread.join(seconds)
        if errors:
            raise errors[0]
        if not answers:
            self._hanging.append(thread)
            raise requests.Timeout(f"timed out: no whole answer within {seconds:g} s")
        return answers[0]
