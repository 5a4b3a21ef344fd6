"""How the requests to one server went: how many, how long they took, and which failed."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds, in seconds, of the time that a request takes; the bucket above them is open."""
TIMEOUT, CONNECTION = "timeout", "connection"
"""Errors without an answer; an answer of 400 or more is the error `http_<status>`."""


@dataclass(frozen=True)
class Requests:
    """What was counted so far.

    Attributes:
        buckets: how many took up to each of `BUCKETS` and more than the one before, and those beyond.
        seconds: that all took together.
        errors: kind of error -> how often.
    """

    buckets: tuple[int, ...]
    seconds: float
    errors: dict[str, int]


class Upstream:
    """Counts the requests to one server; several threads may do so at once.

    Attributes:
        clock_ahead: seconds that the server's clock was ahead of ours at its last answer; None if it never
            told the time.
    """

    def __init__(self) -> None:
        self.clock_ahead: float | None = None
        self._lock = threading.Lock()
        self._buckets, self._seconds = [0] * (len(BUCKETS) + 1), 0.0
        self._errors: Counter[str] = Counter()

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count a request that the block makes, and how it fails if it raises."""
        began, error = time.perf_counter(), ""
        try:
            yield
        except BaseException as failure:
            error = TIMEOUT if _timed_out(failure) else CONNECTION
            raise
        finally:
            took = time.perf_counter() - began
            with self._lock:
                self._buckets[bisect_left(BUCKETS, took)] += 1
                self._seconds += took
            if error:
                self.failed(error)

    def answered(self, status: int, date: str | None = None) -> None:
        """Count the status of an answer as an error, if it is one, and read the clock of its header Date."""
        if status >= 400:
            self.failed(f"http_{status}")
        try:
            told = parsedate_to_datetime(date or "").timestamp()
        except (ValueError, OverflowError):
            return
        self.clock_ahead = told - time.time()

    def failed(self, error: str) -> None:
        """Count an error."""
        with self._lock:
            self._errors[error] += 1

    def requests(self) -> Requests:
        """What was counted so far."""
        with self._lock:
            return Requests(tuple(self._buckets), self._seconds, dict(self._errors))


def _timed_out(failure: BaseException) -> bool:
    """Whether a library's error is of a time-out, whatever its class."""
    return isinstance(failure, TimeoutError) or "timeout" in type(failure).__name__.lower()
