"""Seasons found live: does the load repeat, with what period, and how far did trusting it help so far?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEAST_ROWS = 20
"""No season is looked for in a shorter history."""
LEAST_CORRELATION = 0.5
"""An autocorrelation below this is no season."""
SHORTEST_SECONDS = 120.0
LONGEST_SHARE = 2 / 3
"""Of the history: a period must fit one and a half times."""
LEAST_KNOWN = 0.5
"""No season is looked for where more than half of the values are missing."""
MOVES = 1e-9
"""Share of the whole energy below which a part of a series doesn't move, but for rounding."""
ALIKE = 0.05
"""Peaks this close to the highest are as good; the shortest of them is the period."""


@dataclass(frozen=True)
class Season:
    """A period and its strength.

    Attributes:
        rows: length in rows of the series, to a fraction of a row.
        correlation: autocorrelation at that lag.
    """

    rows: float
    correlation: float


def find_season(series: Array, step: float, shortest: float = SHORTEST_SECONDS) -> Season | None:
    """The season of a series `[L]`, or None. Values that are missing (NaN) count for nothing.

    The period is the highest local peak of the autocorrelation beyond its first fall below 0, of those at
    least `LEAST_CORRELATION`; the shortest of peaks that are about as high. There both parts must be as alike
    around their own means: a single burst moves the mean of all, and parts without it look alike around that.

    Args:
        series: what may repeat.
        step: seconds per row.
        shortest: periods below so many seconds are none.
    """
    length = len(series)
    if length < LEAST_ROWS or np.isfinite(series).sum() < max(LEAST_ROWS, LEAST_KNOWN * length):
        return None
    lags, around_own = autocorrelation(series, int(LONGEST_SHARE * length))
    below = np.flatnonzero(lags < 0)
    if not len(below):
        return None
    first = max(int(below[0]), int(np.ceil(shortest / step)), 1)
    inner = np.arange(first, len(lags) - 1)
    peaks = inner[(lags[inner] >= lags[inner - 1]) & (lags[inner] >= lags[inner + 1])]
    peaks = peaks[np.minimum(lags, around_own)[peaks] >= LEAST_CORRELATION]
    if not len(peaks):
        return None
    highest = lags[peaks].max()
    row = int(peaks[lags[peaks] >= highest * (1 - ALIKE)][0])
    return Season(row + _vertex(lags[row - 1 : row + 2]), float(lags[row]))


def _vertex(values: Array) -> float:
    """Where the parabola through three equidistant values peaks, relative to the middle one: -0.5 ... 0.5."""
    before, middle, after = values
    bend = before - 2 * middle + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def autocorrelation(series: Array, longest: int) -> tuple[Array, Array]:
    """Autocorrelation at lags 0 ... longest, `[longest + 1]`: around the mean of all, and around own means.

    Both are normalised by the energies of the two parts that overlap; the second takes each part around its
    own mean, so it is Pearson's correlation. Pairs of which one value is missing don't count; where a part
    doesn't move, the correlation is 0.
    """
    known = np.isfinite(series)
    centred = np.where(known, series - np.mean(series, where=known), 0.0)
    length, size = len(centred), 1 << (2 * len(centred) - 1).bit_length()
    spectrum, lag = np.fft.rfft(centred, size), np.arange(longest + 1)

    def summed(product: NDArray[np.complex128]) -> Array:
        found: Array = np.fft.irfft(product, size)[: longest + 1]
        return found

    products = summed(spectrum * np.conj(spectrum))
    if known.all():
        sums, squares = (np.concatenate([[0.0], np.cumsum(values)]) for values in (centred, centred**2))
        count = (length - lag).astype(np.float64)
        head, tail = sums[length - lag], sums[length] - sums[lag]
        energies = np.stack([squares[length - lag], squares[length] - squares[lag]])
    else:
        power, there = np.fft.rfft(centred**2, size), np.fft.rfft(known.astype(np.float64), size)
        count = np.maximum(summed(there * np.conj(there)), 1.0)
        head, tail = summed(np.conj(spectrum) * there), summed(spectrum * np.conj(there))
        energies = np.stack([summed(np.conj(power) * there), summed(power * np.conj(there))])
    around_own = products - head * tail / count, energies - np.stack([head, tail]) ** 2 / count
    least = MOVES * float(centred @ centred)
    return _correlated(products, energies, least), _correlated(*around_own, least)


def _correlated(products: Array, energies: Array, least: float) -> Array:
    """Products over the root of both parts' energies `[2, ...]`; 0 where one is at most `least`."""
    moves = (energies > least).all(axis=0)
    scale = np.sqrt(np.where(moves, energies, 1.0).prod(axis=0))
    found: Array = np.where(moves, products, 0.0) / scale
    return found
