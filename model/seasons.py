"""Is there a season in the training data, and how long is it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST_SEASON = 0.5
"""Autocorrelation below which training labels have no season."""


def strongest_season(series: Sequence[NDArray[np.float64]], longest: int, shortest: int) -> int | None:
    """Rows of the season of the first of `series`, or else of the one where it is strongest.

    None where none has a season.

    Args:
        series: `[L, N]` each.
        longest: rows that a season may take at most.
        shortest: rows that it takes at least.
    """
    first, *others = (find_season(one, longest, shortest) for one in series)
    found = first or max((one for one in others if one), key=lambda one: one.strength, default=None)
    return None if found is None else found.rows


class Season(NamedTuple):
    """A season's length in rows, and the autocorrelation there."""

    rows: int
    strength: float


def find_season(labels: NDArray[np.float64], longest: int, shortest: int) -> Season | None:
    """The season of `labels [L, N]`; None where there is no season.

    It is the highest peak of the autocorrelation after that first falls below 0; a peak below 0.5 is none.
    """
    known = np.isfinite(labels)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, labels, 0.0).sum(axis=0) / count
    scale = np.sqrt((np.where(known, labels - mean, 0.0) ** 2).sum(axis=0) / count)
    scores = np.where(known & (scale > 1e-9), (labels - mean) / np.where(scale > 1e-9, scale, 1), 0.0)
    length = len(scores)
    lags = np.arange(min(longest, length // 2) + 1)
    if len(lags) <= shortest + 1:
        return None
    power = np.abs(np.fft.rfft(scores, n=2 * length, axis=0)) ** 2
    products = np.fft.irfft(power.sum(axis=1))[lags] * length / (length - lags)
    correlation = products / products[0] if products[0] > 0 else np.zeros(len(lags))
    fallen = np.flatnonzero(correlation < 0)
    first = max(int(fallen[0]), shortest) if len(fallen) else len(lags)
    if first >= len(lags) - 1:
        return None
    inner = correlation[first:-1]
    peaks = (
        (inner >= correlation[first - 1 : -2]) & (inner >= correlation[first + 1 :]) & (inner >= LEAST_SEASON)
    )
    if not peaks.any():
        return None
    shortest_peak = int(np.flatnonzero(peaks & (inner >= 0.95 * inner[peaks].max()))[0])  # of its multiples
    return Season(first + shortest_peak, float(inner[shortest_peak]))
