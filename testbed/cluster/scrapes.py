"""What the scrapes of a virtual cluster saw, and the CPU usage of each pod."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.cluster import ENDPOINT_COLUMNS
from deepscaler.panel import FEATURES
from testbed.engine.program import Program


class GrowingArray:
    """An array of rows of one shape that grows at its end."""

    def __init__(self, shape: tuple[int, ...], kind: type[np.generic]) -> None:
        self._array: NDArray[Any] = np.empty((256, *shape), kind)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: Any) -> None:
        """Add one row."""
        if self._count == len(self._array):
            self._array = np.concatenate([self._array, np.empty_like(self._array)])
        self._array[self._count] = row
        self._count += 1

    @property
    def rows(self) -> NDArray[Any]:
        """All rows, `[L, ...]`; a view."""
        return self._array[: self._count]


class ScrapeHistory:
    """What the scrapes saw, one row per scrape.

    Attributes:
        times: `[L]` seconds since the epoch.
        features: float32 `[L, N, 5]` in the order of `FEATURES`, as PromQL derives them from the last two
            scrapes.
        endpoints: `[L, K, 5 + B]` offered, done, failed, slow, seconds and buckets since the scrape before.
        edges: `[L, E]` calls finished since the scrape before.
        pods: `[L, N, 3]` spec, starting, ready.
    """

    def __init__(self, program: Program) -> None:
        self.times = GrowingArray((), np.float64)
        self.features = GrowingArray((program.num_services, len(FEATURES)), np.float32)
        self.endpoints = GrowingArray((len(program.endpoints), len(ENDPOINT_COLUMNS) - 2), np.float64)
        self.edges = GrowingArray((len(program.edges),), np.int64)
        self.pods = GrowingArray((program.num_services, 3), np.int64)


class PodUsage:
    """CPU of each pod at the last scrapes, found by its uid (uids count from 0).

    Args:
        every: seconds between two of the scrapes.
        delay: so many scrapes before the newest are seen.
    """

    def __init__(self, every: float, delay: int = 0) -> None:
        self.every = every
        self._work: NDArray[np.float64] = np.full(256, np.nan)
        self._cores: NDArray[np.float64] = np.full((delay + 1, 256), np.nan)  # the newest last
        self._times = [math.nan] * (delay + 1)

    def update(
        self, uid: NDArray[np.int64], work: NDArray[np.float64], now: float, seconds: float
    ) -> NDArray[np.float64]:
        """Cores that each pod has used since the scrape before, `[P]`; NaN for a new pod.

        Args:
            uid: `[P]` the pods.
            work: `[P]` CPU-seconds used since each pod's creation, up to a constant of the pod.
            now: time of this scrape.
            seconds: time since the scrape before.
        """
        while len(uid) and uid.max() >= len(self._work):
            self._work = np.concatenate([self._work, np.full_like(self._work, np.nan)])
            self._cores = np.concatenate([self._cores, np.full_like(self._cores, np.nan)], axis=1)
        cores: NDArray[np.float64] = (work - self._work[uid]) / seconds
        self._work[uid] = work
        self._cores[:-1, uid] = self._cores[1:, uid]
        self._cores[-1, uid] = cores
        self._times = [*self._times[1:], now]
        return cores

    def seen(self, uid: Sequence[int]) -> tuple[list[float | None], float]:
        """Cores of the pods, `[P]`, as `delay` scrapes ago, and when that was; None for new ones."""
        size, cores = len(self._work), self._cores[0]
        found = [float(cores[one]) if one < size else math.nan for one in uid]
        return [None if math.isnan(value) else value for value in found], self._times[0]
