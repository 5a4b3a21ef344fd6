"""The time before a controller's first tick, for its page: from the metrics, and from what others decided.

What was decided is known from decisions.csv, if an earlier controller ran on this node, and from the
controllers' own metrics in the store, whichever is newer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.adapters.deadline import sharing
from deepscaler.cluster import Cluster
from deepscaler.control.recorder import Recorder
from deepscaler.errors import DeepScalerError
from deepscaler.panel import MetricPanel

log = logging.getLogger(__name__)
Array = NDArray[np.float64]
SHOWN_SECONDS = 10_800.0
"""So much of the past is remembered."""
READ_SECONDS = 10.0
"""Reading it takes no longer; what isn't known by then stays unknown."""
LONGEST_GAP = 300.0
"""What was decided longer ago says nothing of a moment."""
READY, PROPOSED, FLOOR, APPLIED = range(4)
"""Rows of `Moment.replicas`."""
_Read = TypeVar("_Read")
_COLUMNS = ("ready", "proposed", "floor", "applied")


@dataclass(frozen=True, eq=False)
class Moment:
    """One moment of the past; what isn't known is NaN.

    Attributes:
        time: seconds since the epoch.
        load: requests per second of all entries.
        responses: `[E]` mean response of each entry's service, in seconds.
        replicas: `[4, N]` ready, proposed, floor and applied replicas of each service.
        foreseen: the load that was foreseen for it `FORESEEN_LEAD` before.
    """

    time: float
    load: float
    responses: NDArray[np.float32]
    replicas: NDArray[np.float32]
    foreseen: float = float("nan")


@dataclass(frozen=True, eq=False)
class Before:
    """What was decided, and which load came, before a controller began.

    Attributes:
        times: `[K]` at which something was decided, rising.
        replicas: `[K, 4, N]` as in a `Moment`.
        load: `[K]` requests per second of all entries.
    """

    times: Array
    replicas: NDArray[np.float32]
    load: Array

    def at(self, time: float) -> NDArray[np.float32] | None:
        """What had been decided by a time; None if that isn't known."""
        place = int(np.searchsorted(self.times, time + 1e-6, side="right")) - 1
        known = place >= 0 and time - self.times[place] <= LONGEST_GAP
        return self.replicas[place] if known else None


def read_before(cluster: Cluster, recorder: Recorder, services: Sequence[str], step: float) -> Before:
    """What files and store say of the last `SHOWN_SECONDS`; what they don't is logged and left out.

    Args:
        cluster: knows the store.
        recorder: knows the files of this node.
        services: whose replicas are told.
        step: seconds between two moments, at least.
    """
    now = cluster.now()
    start = now - SHOWN_SECONDS
    with sharing(READ_SECONDS):
        stored = _tried(lambda: _stored(cluster.past_decisions(start, now)))
        filed = _tried(lambda: _filed(recorder.recent(start)))
        known = [table for table in (filed, stored) if table is not None and len(table)]
        rows = max(known, key=_newest, default=None)
        if rows is None:
            none = np.zeros(0)
            return Before(none, np.zeros((0, len(_COLUMNS), len(services)), np.float32), none)
        rows = rows[(rows["time"] < now) & rows["service"].isin(services)]
        times = _thinned(np.unique(rows["time"].to_numpy(np.float64)), step)
        load = _tried(lambda: cluster.entered(start, now, step))
    replicas = np.stack([_matrix(rows, column, times, services) for column in _COLUMNS], axis=1)
    came = np.full(len(times), np.nan)
    if load is not None and len(load):
        came = load[np.clip(np.ceil((times - start) / step).astype(np.int64) - 1, 0, len(load) - 1)]
    return Before(times, replicas.astype(np.float32), came)


def earlier(
    panel: MetricPanel,
    load: Array,
    responses: NDArray[np.float32],
    ready: Array,
    now: float,
    before: Before,
) -> list[Moment]:
    """The moments before the first tick: those of its metrics, and older ones at which others decided.

    Args:
        panel: the metrics of that tick.
        load: `[L]` requests per second of all entries in it.
        responses: `[L, E]` of the entries.
        ready: `[L, N]` pods.
        now: when it began, seconds since the epoch.
        before: what is known beside the metrics.
    """
    found: list[Moment] = []
    for row, time in enumerate(panel.times.tolist()):
        known = np.isfinite(load[row]) or np.isfinite(ready[row]).any()
        if known and now - SHOWN_SECONDS <= time < now - 1.0:
            decided = before.at(time)
            replicas = np.full((len(_COLUMNS), ready.shape[1]), np.nan, np.float32)
            replicas = replicas if decided is None else decided.copy()
            replicas[READY] = ready[row]
            found.append(Moment(time, float(load[row]), responses[row], replicas))
    first = found[0].time if found else now
    unknown = np.full(responses.shape[1], np.nan, np.float32)
    known_before = zip(before.times.tolist(), before.load.tolist(), before.replicas, strict=True)
    older = [
        Moment(time, came, unknown, replicas)
        for time, came, replicas in known_before
        if now - SHOWN_SECONDS <= time < first - 1.0
    ]
    return [*older, *found]


def _newest(rows: pd.DataFrame) -> float:
    """When something was proposed last; minus infinity where nothing was."""
    return float(rows["time"].where(rows["proposed"].notna(), -math.inf).max())


def _tried(read: Callable[[], _Read]) -> _Read | None:
    try:
        return read()
    except DeepScalerError as error:
        log.warning("the page begins without a part of its past: %s", error)
        return None


def _filed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of decisions.csv as `time`, `service` and what a moment tells."""
    left = rows["applied"].where(rows["applied"].notna(), rows["current"])
    wish = np.fmax(rows["predicted"].astype(np.float64), rows["floor"].astype(np.float64))
    return rows.assign(proposed=wish, applied=left)


def _stored(rows: pd.DataFrame) -> pd.DataFrame:
    """What the store says, likewise."""
    return rows.assign(proposed=rows["predicted"], applied=rows["current"], ready=math.nan)


def _thinned(times: Array, step: float) -> Array:
    """Those of the times that are a step apart at least, counted from the newest."""
    kept: list[float] = []
    for time in times[::-1].tolist():
        if not kept or kept[-1] - time >= 0.9 * step:
            kept.append(time)
    return np.array(kept[::-1])


def _matrix(rows: pd.DataFrame, column: str, times: Array, services: Sequence[str]) -> Array:
    """One column by time and service, `[K, N]`."""
    table = rows.pivot_table(index="time", columns="service", values=column, aggfunc="last", dropna=False)
    return table.reindex(index=times, columns=list(services)).to_numpy(np.float64)
