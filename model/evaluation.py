"""Errors of forecasts, and the two forecasts that need no training: persistence and seasonal naive. Numpy but for `predict`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.layers import Graphs
from model.network import Network
from model.windows import Windows, batches

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
ROUND_UP_ABOVE = 0.35
"""A fraction of a replica above this is rounded up when scaling (the authors' value); under-provision is judged after it."""
LEAST_SEASON = 0.5
"""Autocorrelation below which training labels have no season."""


@torch.no_grad()
def predict(network: Network, graphs: Graphs, windows: Windows, ends: torch.Tensor, batch_size: int) -> Array:
    """z-scored forecasts `[M, H, N]` of the windows that end at `ends [M]`."""
    network.eval()
    parts = [network(windows.inputs(part), graphs, windows.known(part)).double().cpu().numpy() for part in batches(ends, batch_size)]
    return np.concatenate(parts)


def forecast_errors(predicted: Array, target: Array, replicas: bool) -> dict[str, Any]:
    """MAE, RMSE and masked MAPE, overall, by horizon step and by service; NaN targets are left out.

    Masked MAPE leaves out targets of 0. `under_provision` is the share of known targets that the forecast falls short
    of, `over_provision` of those it exceeds, after rounding both to whole replicas where these are replicas.
    Shapes `[M, H, N]`.
    """
    error = predicted - target
    known = np.isfinite(error)
    made, wanted = (round_replicas(predicted), np.round(target)) if replicas else (predicted, target)
    relative = np.where(known & (np.abs(target) > 1e-9), np.abs(error) / np.where(np.abs(target) > 1e-9, np.abs(target), 1), np.nan)
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
    return {**out, "windows": len(target), "known": int(known.sum())}


def _mean(values: Array, axis: tuple[int, ...] | None) -> Array:
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan), np.float64)


def round_replicas(values: Array) -> Array:
    """Whole replicas: up where the fraction exceeds 0.35, else down; at least 1."""
    whole = np.floor(values)
    return np.asarray(np.maximum(np.where(values - whole > ROUND_UP_ABOVE, whole + 1, whole), 1.0), np.float64)


class Persistence:
    """The label known last, for every step of the horizon.

    What is known *now* depends on the label: an observed label up to now itself; a `required` label looks ahead by its
    lead, so the newest complete one is `lag` rows older. The pod feature would be no fair stand-in: under an exploring
    policy it says what was tried, not what was needed. Before the first known label: `otherwise`.

    Args:
        labels: `[L, N]`, NaN where unknown.
        lag: rows between now and the newest label that is complete now.
        otherwise: `[N]`.
    """

    def __init__(self, labels: NDArray[np.floating], lag: int, otherwise: NDArray[np.floating]) -> None:
        self.lag = lag
        rows = np.arange(len(labels))[:, None]
        latest = np.maximum.accumulate(np.where(np.isfinite(labels), rows, -1), axis=0)
        values = np.take_along_axis(np.asarray(labels, np.float64), np.maximum(latest, 0), axis=0)
        self.known = np.where(latest >= 0, values, otherwise)

    def forecast(self, ends: Rows, horizon: int, dilation: int) -> Array:
        """`[M, H, N]`."""
        return np.repeat(self.known[np.maximum(ends - self.lag, 0)][:, None], horizon, axis=1)


class SeasonalNaive(Persistence):
    """The label one season (or as many as it takes to be known) before; persistence where training labels have no season.

    Args:
        labels, lag, otherwise: as for `Persistence`.
        training_rows: rows of the training split, in which the season is looked for.
        longest: longest season tried, rows.
        shortest: shortest season tried, rows.
    """

    def __init__(
        self, labels: NDArray[np.floating], lag: int, otherwise: NDArray[np.floating], *, training_rows: int, longest: int, shortest: int
    ) -> None:
        super().__init__(labels, lag, otherwise)
        self.season = find_season(np.asarray(labels[:training_rows], np.float64), longest, shortest)

    def forecast(self, ends: Rows, horizon: int, dilation: int) -> Array:
        """`[M, H, N]`."""
        if self.season is None:
            return super().forecast(ends, horizon, dilation)
        wanted = ends[:, None] + dilation * np.arange(1, horizon + 1)
        latest = (ends - self.lag)[:, None]
        seasons = np.maximum(np.ceil((wanted - latest) / self.season), 1).astype(np.int64)
        rows = wanted - seasons * self.season
        return self.known[np.where(rows >= 0, rows, np.maximum(latest, 0))]


def find_season(labels: Array, longest: int, shortest: int) -> int | None:
    """Rows of the season of `labels [L, N]`: the highest peak of autocorrelation beyond its first fall below 0; None below .5."""
    known = np.isfinite(labels)
    mean = _mean(labels, (0,))
    scale = np.sqrt(_mean(np.where(known, (labels - mean) ** 2, np.nan), (0,)))
    scores = np.where(known & (scale > 1e-9), (labels - mean) / np.where(scale > 1e-9, scale, 1), 0.0)
    count = len(scores)
    lags = np.arange(min(longest, count // 2) + 1)
    if len(lags) <= shortest + 1:
        return None
    power = np.abs(np.fft.rfft(scores, n=2 * count, axis=0)) ** 2
    products = np.fft.irfft(power.sum(axis=1))[lags] * count / (count - lags)
    correlation = products / products[0] if products[0] > 0 else np.zeros(len(lags))
    fallen = np.flatnonzero(correlation < 0)
    first = max(int(fallen[0]), shortest) if len(fallen) else len(lags)
    if first >= len(lags) - 1:
        return None
    inner = correlation[first:-1]
    peaks = (inner >= correlation[first - 1 : -2]) & (inner >= correlation[first + 1 :]) & (inner >= LEAST_SEASON)
    if not peaks.any():
        return None
    return first + int(np.flatnonzero(peaks & (inner >= 0.95 * inner[peaks].max()))[0])  # the shortest of its multiples
