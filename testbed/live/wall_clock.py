"""The engine at the pace of real time: requests are answered at their simulated end."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.errors import ClusterError
from testbed.engine import kernel as core
from testbed.engine.simulator import Simulator, Snapshot

LOG = logging.getLogger(__name__)
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """A finished request: engine seconds, and whether it succeeded."""

    start: float
    finish: float
    ok: bool


class WallClock:
    """A thread that moves a simulator to the real time elapsed, every few milliseconds.

    Engine time is real time since construction. A step that comes late changes no finish time, because the
    engine doesn't depend on how time is cut up: only the answer is late then.

    Args:
        simulator: with no load of its own.
        pause: seconds between two steps.
        clock: monotonic seconds.
        on_failure: called once if the engine fails; nothing is answered from then on.

    Attributes:
        epoch: engine time 0 in seconds since the epoch.
        step_seconds: how long the last steps took.
    """

    def __init__(
        self,
        simulator: Simulator,
        *,
        pause: float = 0.005,
        clock: Callable[[], float] = time.monotonic,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._simulator, self._pause, self._clock, self._on_failure = simulator, pause, clock, on_failure
        self._start, self.epoch = clock(), time.time()
        self._engine = threading.Lock()  # held by whoever touches the simulator
        # Guards the arrivals that the engine hasn't seen, and the time that they are stamped with.
        self._door = threading.Lock()
        self._arrivals: list[tuple[float, int, int]] = []
        self._waiting: dict[int, Future[Answer]] = {}
        self._last_id = 0
        self._closed: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.step_seconds: deque[float] = deque(maxlen=4096)

    # --------------------------------------------------------------------------------------------------- life
    def start(self) -> None:
        """Begin to move."""
        self._thread.start()

    def stop(self) -> None:
        """Stand still; requests under way get a `ClusterError`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        self._close("the testbed is shutting down")

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._pause):
                self.step()
        except Exception:
            LOG.exception("the engine failed")
            self._close("the engine failed; see the log of the testbed")
            self._on_failure()

    def _close(self, why: str) -> None:
        with self._door:
            self._closed = self._closed or why
            left, self._waiting = list(self._waiting.values()), {}
        for future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(ClusterError(why))

    # ----------------------------------------------------------------------------------------------- requests
    def submit(self, endpoint: int) -> Future[Answer]:
        """A request to this endpoint, arriving now.

        Raises:
            ClusterError: the clock was stopped.
        """
        future: Future[Answer] = Future()
        with self._door:
            if self._closed is not None:
                raise ClusterError(self._closed)
            self._last_id += 1
            self._arrivals.append((self._clock() - self._start, self._last_id, endpoint))
            self._waiting[self._last_id] = future
        return future

    def step(self) -> None:
        """Move the engine to the present, and answer what has finished."""
        began = time.perf_counter()
        with self._engine:
            with self._door:  # no request may be stamped with a time that the engine has passed
                until = self._clock() - self._start
                arrivals, self._arrivals = self._arrivals, []
            done = self._simulator.advance(until, _table(arrivals))
            if len(done):
                with self._door:
                    answered = [(self._waiting.pop(int(row["id"]), None), row) for row in done]
        self.step_seconds.append(time.perf_counter() - began)
        if len(done):
            for future, row in answered:
                if future is not None and future.set_running_or_notify_cancel():
                    future.set_result(Answer(float(row["start"]), float(row["time"]), bool(row["ok"])))

    # ---------------------------------------------------------------------------------------- the application
    @property
    def now(self) -> float:
        """Engine seconds of the last step."""
        with self._engine:
            return self._simulator.now

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        with self._engine:
            return self._simulator.in_flight

    def scale(self, service: int, replicas: int) -> None:
        """Set the replicas of a service now."""
        with self._engine:
            self._simulator.scale(service, replicas)

    def snapshot(self) -> Snapshot:
        """Counters of this moment, to the last step."""
        with self._engine:
            return self._simulator.snapshot()

    def pod_times(self) -> NDArray[Any]:
        """See `Simulator.pod_times`."""
        with self._engine:
            return self._simulator.pod_times()


def _table(arrivals: list[tuple[float, int, int]]) -> NDArray[Any]:
    return np.array(arrivals, core.ARRIVAL) if arrivals else np.empty(0, core.ARRIVAL)
