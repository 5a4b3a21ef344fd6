"""What forecasts would cost: cores that lack or lie idle, how early rises are seen, missed and false peaks.

Equal mean errors can cost very unequal time in violation: a peak that is missed against one that was false, a
rise that is seen late against one that is seen early. Numpy only.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from model.forecast_errors import round_replicas

Array = NDArray[np.float64]
LEVELS = np.linspace(0.05, 0.95, 19)
"""Quantiles that CRPS is summed over."""
REACH_SECONDS = 300.0
"""Leads and delays beyond this count as this."""
PEAK = 0.9
"""A service peaks where it is at this quantile of its own values or above."""


def forecast_costs(
    predicted: Array, target: Array, replicas: bool, cores: Array, gap: float
) -> dict[str, float]:
    """What forecasts `[M, H, N]` of consecutive windows cost; NaN where there is nothing to judge.

    Args:
        predicted: the forecasts.
        target: the truth; NaN where unknown.
        replicas: they are replicas, and judged as whole ones, forecasts and truth by one rule.
        cores: `[N]` cores of one replica; ones where values aren't replicas.
        gap: seconds between windows.

    Returns:
        `deficient`, `excess`: core-seconds per hour that the forecast is short of and above the truth, all
        services together. `lead_seconds`: how long before a rise of step 1 the forecast has its new level,
        below 0 where it comes late, mean over the rises of all services; leads lie within `REACH_SECONDS`.
        `missed_peaks`: share of the peaks that the forecast doesn't see; `false_peaks`: share of its own
        peaks that are none.
    """
    made, wanted = (round_replicas(predicted), round_replicas(target)) if replicas else (predicted, target)
    short = np.where(np.isfinite(made - wanted), wanted - made, np.nan)
    per_hour = 3600.0 * cores
    missed, false = _peaks(made, wanted)
    return {
        "deficient": float(np.nansum(_mean(np.maximum(short, 0.0)) * per_hour)),
        "excess": float(np.nansum(_mean(np.maximum(-short, 0.0)) * per_hour)),
        "lead_seconds": _lead(made[:, 0], wanted[:, 0], replicas, gap),
        "missed_peaks": missed,
        "false_peaks": false,
    }


def _mean(values: Array) -> Array:
    """Means `[N]` of the known values of `[M, H, N]`."""
    known = np.isfinite(values)
    return np.asarray(
        np.where(known, values, 0.0).sum(axis=(0, 1)) / np.maximum(known.sum(axis=(0, 1)), 1), np.float64
    )


def _peaks(made: Array, target: Array) -> tuple[float, float]:
    """Shares of the peaks that are missed, and of the forecast's peaks that are false."""
    both = np.isfinite(made - target)
    missed = peaks = false = seen = 0
    for service in range(target.shape[2]):
        known = both[:, :, service]
        truth, forecast = target[:, :, service][known], made[:, :, service][known]
        if not len(truth) or np.quantile(truth, PEAK) <= np.median(truth):
            continue  # it has no peaks
        bound = np.quantile(truth, PEAK)
        high, foreseen = truth >= bound, forecast >= bound
        peaks, missed = peaks + int(high.sum()), missed + int((high & ~foreseen).sum())
        seen, false = seen + int(foreseen.sum()), false + int((foreseen & ~high).sum())
    return missed / peaks if peaks else math.nan, false / seen if seen else math.nan


def _lead(made: Array, target: Array, replicas: bool, gap: float) -> float:
    """Mean lead in seconds of the rises of `target [M, N]`; NaN without one.

    A rise is one replica or more from window to window, or one standard deviation. The forecast has the new
    level where it is within half of the rise below it; replicas have to reach it.
    """
    reach = max(math.floor(REACH_SECONDS / gap + 1e-9), 1)
    padded = np.pad(made, ((reach, reach), (0, 0)), constant_values=np.nan)
    leads: list[Array] = []
    for service in range(target.shape[1]):
        truth = target[:, service]
        least = 1.0 if replicas else max(float(np.nanstd(truth)) if np.isfinite(truth).any() else 0.0, 1e-9)
        rises = 1 + np.flatnonzero(np.diff(truth) >= least - 1e-9)
        if not len(rises):
            continue
        spare = 0.0 if replicas else 0.5 * (truth[rises] - truth[rises - 1])
        level = (truth[rises] - spare)[:, None]
        around = padded[rises[:, None] + np.arange(2 * reach + 1), service]  # [K, 2 reach + 1], rise at reach
        has = around >= level - 1e-9
        early = np.cumprod(has[:, reach::-1], axis=1).sum(axis=1) - 1  # -1: it hasn't at the rise
        late = np.where(has[:, reach:].any(axis=1), has[:, reach:].argmax(axis=1), reach)
        leads.append(np.where(early >= 0, early, -late) * gap)
    return float(np.concatenate(leads).mean()) if leads else math.nan


def residual_quantiles(predicted: Array, target: Array) -> Array:
    """Quantiles `[Q, H, N]` of truth less forecasts, both `[M, H, N]`, at `LEVELS`; 0 if unknown."""
    residuals = target - predicted
    known = np.isfinite(residuals).any(axis=0)  # [H, N]
    found = np.zeros((len(LEVELS), *residuals.shape[1:]))
    if known.any():
        found[:, known] = np.nanquantile(residuals[:, known], LEVELS, axis=0)
    return found


def crps(predicted: Array, target: Array, residuals: Array) -> float:
    """Continuous ranked probability score: twice the mean pinball loss over `LEVELS`; NaN if none is known.

    Args:
        predicted: `[M, H, N]` point forecasts.
        target: `[M, H, N]` the truth; NaN where unknown.
        residuals: `[Q, H, N]` what is added to a point forecast to make its quantiles.

    Source: Laio and Tamea 2007, equation 10 (CRPS as an integral of quantile losses).
    """
    total, count = 0.0, 0
    for level, offset in zip(LEVELS.tolist(), residuals, strict=True):
        error = target - (predicted + offset)
        known = np.isfinite(error)
        total += float(np.maximum(level * error[known], (level - 1) * error[known]).sum())
        count += int(known.sum())
    return 2 * total / count if count else math.nan
