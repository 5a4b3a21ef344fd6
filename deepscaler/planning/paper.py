"""Replicas on paper: what would run by now if other decisions had been made."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepscaler.planning.plan import Running

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


class Paper:
    """The replicas that other decisions would have led to, with pods that start as the fit says.

    Args:
        boot_seconds: `[N]` time until a new replica is ready.
    """

    def __init__(self, boot_seconds: Array) -> None:
        self._boot = boot_seconds.tolist()
        self._ready: Counts = np.zeros(len(self._boot), np.int64)
        self._due: list[list[float]] = [[] for _ in self._boot]

    @property
    def ready(self) -> Counts:
        """`[N]` replicas that were ready when it was last asked what runs."""
        return self._ready

    @property
    def held(self) -> Counts:
        """`[N]` replicas that are ready or starting."""
        return self._ready + np.array([len(due) for due in self._due], np.int64)

    def follow(self, running: Running, now: float) -> None:
        """Take over what really runs."""
        self._ready = running.ready.astype(np.int64).copy()
        self._due = [[now + seconds for seconds in each] for each in running.remaining]

    def running(self, now: float) -> Running:
        """What would run now: replicas whose start-up is over are ready."""
        for service, due in enumerate(self._due):
            if due:
                self._due[service] = sorted(moment for moment in due if moment > now + 1e-9)
                self._ready[service] += len(due) - len(self._due[service])
        return Running(self._ready.copy(), tuple(tuple(m - now for m in due) for due in self._due))

    def scale(self, replicas: Counts, now: float) -> Counts:
        """Start and stop replicas, the last that began first; how many started, `[N]`."""
        more = replicas - self.held
        for service in np.flatnonzero(more).tolist():
            due, change = self._due[service], int(more[service])
            if change > 0:
                due.extend([now + self._boot[service]] * change)
                continue
            kept = max(len(due) + change, 0)
            self._ready[service] += min(len(due) + change, 0)
            self._due[service] = sorted(due)[:kept]
        started: Counts = np.maximum(more, 0)
        return started
