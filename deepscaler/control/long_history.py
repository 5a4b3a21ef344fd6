"""Weeks of the load at the entries, read piece by piece, so that no tick waits for them."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from deepscaler.cluster import Cluster
from deepscaler.errors import MetricsError
from deepscaler.load_history import LoadHistory
from deepscaler.logs import OnChange

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

STEP = 60.0
"""Seconds between values."""
PIECE = 7200
"""Rows of one reading: five days, which a store answers at once."""
NEWEST = 3
"""The newest rows are read again: late samples may have come."""
LATEST = 60
"""Rows without a value are read again as long as they are among so many: a store may be that late."""
MOST_PAUSE = 3600.0
"""After failures older pieces are asked for again after one minute, two, four, ..., at most this long."""


class LongHistory:
    """The load of the last weeks, kept up to date.

    At each minute the newest rows are read and, until all is there, one more piece of the past.

    Args:
        cluster: where the load is read.
        seconds: how far back it goes.
    """

    def __init__(self, cluster: Cluster, seconds: float) -> None:
        self._cluster, self._rows = cluster, max(int(seconds / STEP), 1)
        self._load: Array = np.full(self._rows, np.nan)
        self._end = -np.inf
        self._older = self._rows  # rows before this one weren't asked for yet
        self._answered = -np.inf  # end of the newest rows that the store answered for
        self._pause, self._again = STEP, -np.inf
        self._on_change = OnChange(log)

    def upto(self, now: float) -> LoadHistory:
        """What is known of the load up to now. What can't be read stays unknown, or as it was."""
        end = np.floor(now / STEP) * STEP
        if end != self._end:
            self._move(end)
            self._read_newest(end)
            self._read_older(end, now)
        return LoadHistory(self._end - (self._rows - 1) * STEP, STEP, self._load)

    def _move(self, end: float) -> None:
        """Make room for newer rows. A clock that was set back, or far ahead, begins anew."""
        moved = (end - self._end) / STEP
        if not 0 < moved < self._rows:
            self._load, self._older = np.full(self._rows, np.nan), self._rows
            self._answered = -np.inf
        else:
            gone = int(moved)
            self._load = np.concatenate([self._load[gone:], np.full(gone, np.nan)])
            self._older = max(self._older - gone, 0)
        self._end = end

    def _read_newest(self, end: float) -> None:
        """The rows from the last known one on, at most one piece."""
        known = np.flatnonzero(np.isfinite(self._load))
        first = int(known[-1]) + 1 - NEWEST if len(known) else self._rows
        unasked = min((end - self._answered) / STEP, PIECE)  # while nothing comes, nothing is asked for again
        first = max(first, self._rows - int(unasked) - LATEST, self._rows - PIECE, 0)
        if first < self._rows and self._read(end, first, self._rows):
            self._answered = end

    def _read_older(self, end: float, now: float) -> None:
        """One piece of the past that wasn't asked for yet."""
        if not self._older or now < self._again:
            return
        first = max(self._older - PIECE, 0)
        if self._read(end, first, self._older):
            self._older, self._pause = first, STEP
        else:
            self._again, self._pause = now + self._pause, min(2 * self._pause, MOST_PAUSE)

    def _read(self, end: float, first: int, until: int) -> bool:
        """Fill rows [first, until); whether that could be read."""
        start = end - (self._rows - first) * STEP  # the step of the first row begins here
        try:
            load = self._cluster.entered(start, start + (until - first) * STEP, STEP)
        except MetricsError as error:
            self._on_change.trouble("load", f"the load of earlier days can't be read: {error}")
            return False
        self._on_change.well("load", "the load of earlier days is read again")
        known = np.isfinite(load)
        self._load = self._load.copy()
        self._load[first:until] = np.where(known, load, self._load[first:until])
        return True
