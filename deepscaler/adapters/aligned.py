"""Samples of many series put on one regular grid at once, which loops over series would take long for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from deepscaler.adapters.matrix import Series

_Part = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


class Aligned:
    """Collects the samples of several answers; later ones replace earlier ones.

    Args:
        times: `[L]` the grid.
        step: seconds between its times; a sample counts at the first time that isn't before it.
    """

    def __init__(self, times: NDArray[np.float64], step: float) -> None:
        self._times, self._step = times, step
        self._places: dict[tuple[tuple[str, str], ...], int] = {}
        self._parts: list[_Part] = []

    @property
    def labels(self) -> tuple[Mapping[str, str], ...]:
        """The label sets of the S series, in the order in which they were met."""
        return tuple(dict(key) for key in self._places)

    def add(self, found: Sequence[Series]) -> Series | None:
        """Take the samples of an answer; returns a series that has some, but none within the grid."""
        if not found:
            return None
        places = np.array([self._place(series) for series in found], np.int64)
        owner = np.repeat(np.arange(len(found)), [len(series.moments) for series in found])
        slots = _slots(np.concatenate([series.moments for series in found]), self._times, self._step)
        values = np.concatenate([series.values for series in found])
        within = (slots >= 0) & (slots < len(self._times))
        reached = np.bincount(owner[within], minlength=len(found)) > 0
        self._parts.append((places[owner[within]], slots[within], values[within]))
        stray = (series for series, ok in zip(found, reached, strict=True) if len(series.moments) and not ok)
        return next(stray, None)

    def forget(self, moment: float) -> None:
        """Drop what all series have at this time of the grid."""
        rows = np.arange(len(self._places))
        slots = np.full(len(rows), np.searchsorted(self._times, moment))
        self._parts.append((rows, slots, np.full(len(rows), np.nan)))

    def matrix(self) -> NDArray[np.float64]:
        """`[S, L]`; NaN where there is no sample."""
        matrix = np.full((len(self._places), len(self._times)), np.nan)
        for rows, slots, values in self._parts:
            matrix[rows, slots] = values
        return matrix

    def _place(self, series: Series) -> int:
        return self._places.setdefault(tuple(sorted(series.labels.items())), len(self._places))


def _slots(moments: NDArray[np.float64], times: NDArray[np.float64], step: float) -> NDArray[np.int64]:
    """Where each of the moments counts in `times`: at the first time that isn't before it.

    Stores that cache answers move them to a grid of their own, at most one step back (VictoriaMetrics,
    Thanos' query-frontend). A slot outside `times` was never asked for.
    """
    tolerance = 0.002 + 1e-3 * step
    slots: NDArray[np.int64] = np.ceil((moments - times[0] - tolerance) / step).astype(np.int64)
    return slots
