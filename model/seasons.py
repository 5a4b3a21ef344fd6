"""Is there a season in the training labels, and how long is it?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_SEASON = 0.5
"""Autocorrelation below which training labels have no season."""


def find_season(labels: NDArray[np.float64], longest: int, shortest: int) -> int | None:
    """Rows of the season of `labels [L, N]`; None where there is no season.

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
    return first + int(
        np.flatnonzero(peaks & (inner >= 0.95 * inner[peaks].max()))[0]
    )  # the shortest of its multiples
