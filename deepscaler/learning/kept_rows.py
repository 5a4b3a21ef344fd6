"""What is computed from metrics row by row, kept from forecast to forecast where the metrics are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.panel import MetricPanel

Arrays = Mapping[str, NDArray[Any]]


class KeptRows:
    """Arrays of one row per row of a panel, of which only those are computed that may have changed.

    Rows at the beginning keep what they were when more samples came before them.

    Args:
        make: arrays `[L, ...]` by name from a panel of L rows.
        back: rows before a row that its values depend on.
        ahead: rows after it, likewise.
    """

    def __init__(self, make: Callable[[MetricPanel], Arrays], back: int, ahead: int) -> None:
        self._make, self._back, self._ahead = make, back, ahead
        self._last: tuple[MetricPanel, Arrays] | None = None

    def of(self, panel: MetricPanel) -> Arrays:
        """The arrays of a regular panel."""
        found = self._grown(panel) or self._make(panel)
        self._last = panel, found
        return found

    def _grown(self, panel: MetricPanel) -> Arrays | None:
        """The arrays by way of the last ones; None where these are of no use."""
        if self._last is None:
            return None
        last, arrays = self._last
        moved = _rows_moved(last, panel)
        if moved is None:
            return None
        same = min(_rows_alike(*pair) for pair in _told(last, panel, moved))
        kept = max(same - self._ahead, 0)
        start = max(kept - self._back, 0)
        if not start:
            return None
        newest = panel.rows(slice(start, None))
        tail = self._make(newest)
        return {
            name: np.concatenate([values[moved : moved + kept], tail[name][kept - start :]])
            for name, values in arrays.items()
        }


def _rows_moved(last: MetricPanel, panel: MetricPanel) -> int | None:
    """By how many rows the panel begins later on the same grid; None where it is another one."""
    if len(last) < 2 or len(panel) < 2 or last.values.shape[1:] != panel.values.shape[1:]:
        return None
    step = panel.step
    rows = (panel.times[0] - last.times[0]) / step
    moved = round(float(rows))
    same = abs(rows - moved) < 1e-3 and abs(last.step - step) < 1e-3 * step
    return moved if same and 0 <= moved < len(last) else None


def _told(last: MetricPanel, panel: MetricPanel, moved: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """What both panels tell, where they overlap."""
    yield last.values[moved:], panel.values
    if last.waited is not None or panel.waited is not None:
        unknown = np.full(max(len(last), len(panel)), np.nan, np.float32)
        waited = (unknown[: len(one)] if one.waited is None else one.waited for one in (last, panel))
        before, now = waited
        yield before[moved:], now


def _rows_alike(one: NDArray[Any], other: NDArray[Any]) -> int:
    """How many of the first rows are equal in both, NaN being equal to NaN."""
    shared = min(len(one), len(other))
    one, other = one[:shared], other[:shared]
    differ = (one != other) & ~(np.isnan(one) & np.isnan(other))
    rows = np.flatnonzero(differ.reshape(shared, -1).any(axis=1))
    return int(rows[0]) if len(rows) else shared
