"""Errors of forecasts, with numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ROUND_UP_ABOVE = 0.35
"""A fraction of a replica above this is rounded up when scaling (the authors' value).

Under- and over-provision are judged after rounding.
"""


def forecast_errors(predicted: Array, target: Array, replicas: bool) -> dict[str, Any]:
    """MAE, RMSE and masked MAPE, overall, by horizon step and by service; NaN targets are left out.

    MAE also by service and step, `[N, H]`.

    Masked MAPE leaves out targets of 0. `under_provision` is the share of known targets that the forecast
    falls short of, `over_provision` of those it exceeds; where these are replicas, both are rounded by one
    rule to whole ones. Shapes `[M, H, N]`.
    """
    error = predicted - target
    known = np.isfinite(error)
    made, wanted = (round_replicas(predicted), round_replicas(target)) if replicas else (predicted, target)
    relative = np.where(
        known & (np.abs(target) > 1e-9),
        np.abs(error) / np.where(np.abs(target) > 1e-9, np.abs(target), 1),
        np.nan,
    )
    measures = {
        "mae": np.abs(error),
        "rmse": error**2,
        "mape": relative,
        "under_provision": np.where(known, made < wanted, np.nan),
        "over_provision": np.where(known, made > wanted, np.nan),
    }
    out: dict[str, Any] = {}
    for name, values in measures.items():
        finish = np.sqrt if name == "rmse" else np.asarray
        out[name] = float(finish(_mean(values, None)))
        out[f"{name}_by_step"] = finish(_mean(values, (0, 2))).tolist()
        out[f"{name}_by_service"] = finish(_mean(values, (0, 1))).tolist()
    out["mae_by_service_and_step"] = _mean(measures["mae"], (0,)).T.tolist()
    return {**out, "windows": len(target), "known": int(known.sum())}


def _mean(values: Array, axis: tuple[int, ...] | None) -> Array:
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan), np.float64)


def round_replicas(values: Array) -> Array:
    """Whole replicas: up where the fraction exceeds 0.35, else down; at least 1."""
    whole = np.floor(values)
    return np.asarray(
        np.maximum(np.where(values - whole > ROUND_UP_ABOVE, whole + 1, whole), 1.0), np.float64
    )
