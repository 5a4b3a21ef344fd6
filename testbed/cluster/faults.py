"""A virtual cluster that fails as real ones do, at moments that a seed draws."""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from unittest.mock import patch

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.calls import CallGraph
from deepscaler.cluster import Advice, Happening, Pod, ScaleReport, Undisputed, Workload
from deepscaler.control import tables
from deepscaler.errors import ClusterError, MetricsError
from deepscaler.panel import MetricPanel
from deepscaler.upstream import Upstream
from testbed.cluster.virtual import VirtualCluster

KINDS = (
    *("metrics_out", "metrics_partial", "metrics_late", "api_out", "write_errors"),
    *("restart", "edit", "clock_back", "clock_forward", "disk_full"),
)
MOMENTARY = ("edit",)
"""Kinds that are over as soon as they have come."""
GAP_SECONDS = (300.0, 1200.0)
FAULT_SECONDS = (30.0, 900.0)
LATE_ROWS = 6
"""So many of the newest samples are missing while metrics are late."""
CLOCK_SECONDS: Mapping[str, float] = {"clock_back": -3600.0, "clock_forward": 86_400.0}


class Killed(BaseException):
    """The controller's process is killed at this moment."""


@dataclass(frozen=True)
class Fault:
    """What is wrong from `start` to `end`, in seconds of the steady clock."""

    kind: str
    start: float
    end: float


def draw_faults(start: float, seconds: float, seed: int) -> list[Fault]:
    """Faults one after the other, each kind as often as any other; the last is over long before the end."""
    random = np.random.default_rng([seed, 7])
    found: list[Fault] = []
    moment, kinds = start, list[str]()
    while True:
        kinds = kinds or [str(kind) for kind in random.permutation(KINDS)]
        kind = kinds.pop()
        moment += random.uniform(*GAP_SECONDS)
        length = 0.0 if kind in MOMENTARY else random.uniform(*FAULT_SECONDS)
        if moment + length + GAP_SECONDS[0] > start + seconds:
            return found
        found.append(Fault(kind, moment, moment + length))
        moment += length


class FaultyCluster:
    """`deepscaler.cluster.Cluster` over a virtual one, through which faults act.

    Args:
        inner: the cluster itself.
        faults: one after the other.
        seed: of what a fault hits.

    Attributes:
        unsafe: (time, fault, service) of each write that took replicas away while the metrics couldn't be
            read or were partial.
    """

    def __init__(self, inner: VirtualCluster, faults: Sequence[Fault], seed: int) -> None:
        self.inner, self.unsafe = inner, list[tuple[float, str, str]]()
        self._faults, self._random = list(faults), np.random.default_rng([seed, 8])
        self._starts = [fault.start for fault in faults]
        self._done: set[Fault] = set()
        self._store = Upstream()

    def active(self, *kinds: str) -> bool:
        """Whether a fault of one of these kinds acts now."""
        now = self.inner.now()
        begun = bisect_right(self._starts, now)
        return begun > 0 and self._faults[begun - 1].kind in kinds and now < self._faults[begun - 1].end

    # ------------------------------------------------------------------------------------------------- clocks
    def now(self) -> float:
        """The wall clock, which faults set."""
        return self.inner.now() + sum(seconds for kind, seconds in CLOCK_SECONDS.items() if self.active(kind))

    def steady(self) -> float:
        """Virtual time."""
        return self.inner.now()

    def sleep_until(self, moment: float) -> None:
        """Simulate up to `moment`.

        Raises:
            Killed: a restart begins before.
        """
        for fault in self._faults:
            if fault.start <= moment and fault not in self._done and fault.kind in ("edit", "restart"):
                self.inner.sleep_until(max(fault.start, self.inner.now()))
                self._done.add(fault)
                if fault.kind == "restart":
                    raise Killed
                self._edit()
        self.inner.sleep_until(max(moment, self.inner.now()))

    def _edit(self) -> None:
        """Somebody sets the replicas of a service."""
        service = str(self._random.choice(self.inner.services))
        self.inner.scale({service: int(self._random.integers(1, 12))})

    # ---------------------------------------------------------------------------------------------- the rest
    @property
    def services(self) -> tuple[str, ...]:
        """The services in the order of the configuration."""
        return self.inner.services

    @property
    def api_failures(self) -> Mapping[int, int]:
        """Always empty: errors are raised."""
        return {}

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """The store of metrics, whose clock nobody sets; requests aren't counted."""
        return {"prometheus": self._store}

    def metrics(self, start: float, end: float, step: float) -> MetricPanel:
        """The features, as far as faults let them through.

        Raises:
            MetricsError: while they are out.
        """
        if self.active("metrics_out"):
            raise MetricsError("http://prometheus: connection refused")
        self._store.clock_ahead = self.inner.now() - self.now()
        panel = self.inner.metrics(start, end, step)
        if self.active("metrics_partial"):
            values = panel.values.copy()
            values[:, :, [panel.features.index(name) for name in ("pod", "cpu", "req")]] *= 0.5
            return replace(panel, values=values, partial=True)
        if self.active("metrics_late"):
            values = panel.values.copy()
            values[-LATE_ROWS:] = np.nan
            return replace(panel, values=values)
        return panel

    def calls(self, start: float, end: float) -> CallGraph:
        """As the cluster itself."""
        return self.inner.calls(start, end)

    def latencies(self, start: float, end: float, step: float) -> pd.DataFrame:
        """As the cluster itself.

        Raises:
            MetricsError: while metrics are out.
        """
        if self.active("metrics_out"):
            raise MetricsError("http://prometheus: connection refused")
        return self.inner.latencies(start, end, step)

    def entered(self, start: float, end: float, step: float) -> NDArray[np.float64]:
        """As the cluster itself.

        Raises:
            MetricsError: while metrics are out.
        """
        if self.active("metrics_out"):
            raise MetricsError("http://prometheus: connection refused")
        return self.inner.entered(start, end, step)

    def workloads(self) -> Sequence[Workload]:
        """As the cluster itself.

        Raises:
            ClusterError: while the API is out.
        """
        self._ask_the_api()
        return self.inner.workloads()

    def pods(self) -> Sequence[Pod]:
        """As the cluster itself, their samples of usage with the clock of the cluster.

        Raises:
            ClusterError: while the API is out.
        """
        self._ask_the_api()
        return self.inner.pods()

    def _ask_the_api(self) -> None:
        if self.active("api_out"):
            raise ClusterError("https://api: HTTP 500 InternalError: etcdserver: leader changed")

    def pod_history(self, start: float, end: float) -> None:
        """None, because the recorder samples the pods."""
        return

    def past_decisions(self, start: float, end: float) -> pd.DataFrame:
        """As the cluster itself."""
        return self.inner.past_decisions(start, end)

    def past_costs(self, start: float, end: float) -> tuple[float, Mapping[str, float]]:
        """As the cluster itself."""
        return self.inner.past_costs(start, end)

    def leadership(self, *, wait: bool = False) -> AbstractContextManager[Undisputed]:
        """That of the one controller there is."""
        return nullcontext(Undisputed())

    def scale(self, targets: Mapping[str, int]) -> ScaleReport:
        """Set replicas; while writes fail, those of half of the services aren't set."""
        self._ask_the_api()
        before = {item.service: item.replicas for item in self.inner.workloads()}
        for kind in ("metrics_out", "metrics_partial"):
            if self.active(kind):
                lowered = [name for name, count in targets.items() if count < before[name]]
                self.unsafe += [(self.steady(), kind, name) for name in lowered]
        if not self.active("write_errors"):
            return self.inner.scale(targets)
        failing = {name for name in targets if self._random.random() < 0.5}
        report = self.inner.scale({name: count for name, count in targets.items() if name not in failing})
        return ScaleReport(
            report.applied, {**report.failed, **dict.fromkeys(failing, "HTTP 503: overloaded")}
        )

    def advise(self, minimums: Mapping[str, Advice | None]) -> ScaleReport:
        """As the cluster itself."""
        self._ask_the_api()
        return self.inner.advise(minimums)

    def announce(self, happenings: Sequence[Happening]) -> None:
        """Nothing: nobody looks."""

    def annotate(self, happenings: Sequence[Happening]) -> None:
        """Nothing: nobody looks."""

    def reserve(self, spare: Mapping[str, int], until: float) -> None:
        """Nothing: there are no nodes."""


@contextmanager
def failing_disk(full: Callable[[], bool]) -> Iterator[None]:
    """Until the block ends the rows of controllers can't be written while `full()` is true."""
    write = tables.os.write  # type: ignore[attr-defined]

    def checked(handle: int, data: bytes) -> int:
        if full():
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(write(handle, data))

    with patch("deepscaler.control.tables.os.write", checked):
        yield
