"""Statistical tests and intervals for a handful of runs.

NaN means *unknown*: it is left out, and the number of units that remain is reported.

scipy is imported by the functions that need it: it takes a second and 60 MB, which the controller does
without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

DIGITS = 12
"""Differences are ranked to so many digits: equal shares of minutes differ in their last bits."""
EXACT_PAIRS = 50
"""Up to so many pairs the signed-rank test is exact."""


def t_interval(
    values: ArrayLike, level: float = 0.95, least: float = -math.inf, most: float = math.inf
) -> tuple[float, float] | None:
    """Student's interval of the mean; None with fewer than two known values.

    It suits a handful of values, for which a bootstrap is too narrow: of three values that draws from a
    normal distribution, a percentile bootstrap of 95 % misses the mean in 26 of 100 cases, of five in 16.

    Args:
        values: independent.
        level: share of such intervals that hold the mean.
        least: what the values measure is never below it.
        most: nor above this.
    """
    from scipy import stats

    known = _known(values)
    if len(known) < 2:
        return None
    if np.ptp(known) == 0:
        return float(known[0]), float(known[0])
    half = float(stats.t.ppf(0.5 + level / 2, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))
    mean = float(known.mean())
    return max(mean - half, least), min(mean + half, most)


def prediction_half(values: ArrayLike, usual: float, weight: float, level: float = 0.95) -> float:
    """Half of the interval around the mean of a few values in which one more lies; NaN without any value.

    So few values tell little of their spread, so what is usual counts, too.

    Args:
        values: independent, of the same kind as the one to come.
        usual: the standard deviation that such values have elsewhere.
        weight: of `usual`, in values.
        level: share of such intervals that hold the value to come.

    Source: the posterior predictive of a normal distribution whose variance has a scaled inverse chi-squared
    prior (Gelman et al.: "Bayesian Data Analysis", 2013, 2.6 and 3.2).
    """
    from scipy import stats

    known = _known(values)
    if not len(known):
        return math.nan
    freedom = weight + len(known) - 1
    squares = weight * usual**2 + float(((known - known.mean()) ** 2).sum())
    spread = math.sqrt(squares / freedom * (1 + 1 / len(known)))
    return float(stats.t.ppf(0.5 + level / 2, freedom)) * spread


def slope_interval(times: ArrayLike, values: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """The slope of `values` over `times`, and its interval; a few outliers change neither.

    Neighbouring values are taken for independent, so for what rises in few steps the interval is too narrow.

    Source: Theil 1950 and Sen 1968: the median of the slopes between all pairs.
    """
    from scipy import stats

    found = stats.theilslopes(np.asarray(values, np.float64), np.asarray(times, np.float64), level)
    return float(found.slope), float(found.low_slope), float(found.high_slope)


def percentile_tail(units: int, level: float = 0.95) -> float:
    """Share of the draws that a percentile interval of `level` leaves out at either end, for so few units.

    Source: Hesterberg, "What Teachers Should Know about the Bootstrap" (The American Statistician, 2015), the
        expanded percentile interval.
    """
    from scipy import stats

    wide = math.sqrt(units / (units - 1)) * float(stats.t.ppf(0.5 + level / 2, units - 1))
    return float(stats.norm.cdf(-wide))


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float:
    """Spearman's, ties by their mean rank; 0 where either is constant."""
    from scipy import stats

    a, b = stats.rankdata(one), stats.rankdata(other)
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(a, b)[0, 1])


def wilcoxon_p(differences: ArrayLike) -> float:
    """Two-sided p of the signed-rank test, without zeros; 1 if all are zero, NaN without any pair.

    It is exact for up to `EXACT_PAIRS` differences, ties included (by their mean ranks), and by the normal
    approximation beyond.
    """
    from scipy import stats

    known = _known(differences).round(DIGITS)
    if not len(known):
        return math.nan
    moved = known[known != 0]
    if not len(moved):
        return 1.0
    if len(moved) > EXACT_PAIRS:
        return float(stats.wilcoxon(moved, method="asymptotic").pvalue)
    doubled = np.rint(2 * stats.rankdata(np.abs(moved))).astype(int)  # mean ranks end in .0 or .5
    chances = np.zeros(doubled.sum() + 1)  # of each sum of the ranks above 0, if signs are tossed
    chances[0] = 1.0
    for rank in doubled:
        chances[rank:] = (chances[rank:] + chances[: len(chances) - rank]) / 2
        chances[:rank] /= 2
    above = doubled[moved > 0].sum()
    rarer = min(above, doubled.sum() - above)
    return min(1.0, 2 * float(chances[: rarer + 1].sum()))


def welch_p_below(values: ArrayLike, others: ArrayLike) -> float:
    """One-sided p of Welch's test that the mean of `values` is below that of `others`.

    1 where either has fewer than two known values; where neither varies, 0 or 1.
    """
    from scipy import stats

    one, other = _known(values), _known(others)
    if min(len(one), len(other)) < 2:
        return 1.0
    if np.ptp(one) == 0 and np.ptp(other) == 0:
        return 0.0 if one[0] < other[0] else 1.0
    return float(stats.ttest_ind(one, other, equal_var=False, alternative="less").pvalue)


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation in [-1, 1]; 0 if all are zero, NaN without any pair.

    It is (W+ - W-) / (W+ + W-) over the differences that aren't zero.

    Source: Kerby 2014, "The simple difference formula".
    """
    from scipy import stats

    known = _known(differences).round(DIGITS)
    if not len(known):
        return math.nan
    moved = known[known != 0]
    if not len(moved):
        return 0.0
    ranks = stats.rankdata(np.abs(moved))
    return float((ranks[moved > 0].sum() - ranks[moved < 0].sum()) / ranks.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given; NaN stays NaN and isn't counted."""
    adjusted = [math.nan] * len(p_values)
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[index] = highest
    return adjusted


def paired(values: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, Any]:
    """How `values` differ from `baseline`, unit by unit (value − baseline; below 0 is less).

    Returns:
        `pairs` (units known on both sides), `baseline_mean` (over these), `mean_difference`,
        `mean_difference_ci` (95 %, Student's), `p` (Wilcoxon), `effect` (rank biserial).
    """
    units = [unit for unit in values if math.isfinite(values[unit] - baseline.get(unit, math.nan))]
    differences = np.array([values[unit] - baseline[unit] for unit in units], np.float64)
    return {
        "pairs": len(differences),
        "baseline_mean": nan_mean([baseline[unit] for unit in units]),
        "mean_difference": float(differences.mean()) if len(differences) else math.nan,
        "mean_difference_ci": t_interval(differences),
        "p": wilcoxon_p(differences),
        "effect": rank_biserial(differences),
    }


@overload
def nan_mean(values: ArrayLike) -> float: ...


@overload
def nan_mean(values: ArrayLike, axis: int) -> NDArray[np.float64]: ...


def nan_mean(values: ArrayLike, axis: int | None = None) -> float | NDArray[np.float64]:
    """Mean of the known values: of all of them, or along `axis`; NaN where none is known.

    Unlike `numpy.nanmean` it doesn't warn when nothing is known. Infinity counts as unknown. Sums are made in
    float64.
    """
    if axis is None:
        known = _known(values)
        return float(known.mean()) if len(known) else math.nan
    array = np.asarray(values)
    present = np.isfinite(array)
    count = present.sum(axis=axis)
    total = np.where(present, array, 0.0).sum(axis=axis, dtype=np.float64)
    means: NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means


def _known(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    return array[np.isfinite(array)]
