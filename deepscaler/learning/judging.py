"""How good forecasts are, in the label's unit, beside those that need no training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepscaler.learning.dataset import Dataset
from deepscaler.learning.description import REPLICA_LABELS
from model.forecast_errors import forecast_errors
from model.layers import Graphs
from model.naive import Persistence, SeasonalNaive
from model.network import Network, Shape
from model.windows import Windows

Array = NDArray[np.float64]
JUDGED = ("validation", "test")
"""Splits that forecasts are judged on."""
MEASURES = {
    "mae": "MAE",
    "rmse": "RMSE",
    "mape": "MAPE",
    "under_provision": "under",
    "over_provision": "over",
}
"""Measures of `model.forecast_errors`, and their names in tables."""


def shape_of(meta: dict[str, Any]) -> Shape:
    """Sizes that the description of a data set states."""
    return Shape(len(meta["services"]), len(meta["features"]), int(meta["window"]), int(meta["horizon"]))


def in_units(scores: torch.Tensor, dataset: Dataset, unrounded: bool) -> Array:
    """z-scored forecasts `[M, H, N]` in the label's unit, never below 0.

    Args:
        scores: the forecasts.
        dataset: whose labels they forecast.
        unrounded: they forecast the requirement before it is rounded up, so they are rounded up here.
    """
    values = dataset.normalizer.label_values(scores.double().cpu().numpy())
    return round_up(values) if unrounded and dataset.unrounded is not None else values


def round_up(values: Array) -> Array:
    """Whole replicas, rounded up as the `required` rule does, at least 1."""
    return np.maximum(np.ceil(values - 1e-6), 1.0)


def is_replicas(meta: dict[str, Any]) -> bool:
    """Are the labels replicas? Else they are a feature."""
    return meta["label"] in REPLICA_LABELS


def targets(dataset: Dataset, ends: NDArray[np.int64]) -> Array:
    """Labels `[M, H, N]` of the steps after rows `ends`, in their unit; NaN where unknown."""
    steps = dataset.dilation * np.arange(1, dataset.meta["horizon"] + 1)
    return np.asarray(dataset.labels[ends[:, None] + steps], np.float64)


def judge_forecasts(
    dataset: Dataset,
    network: Network,
    graphs: Graphs,
    windows: Windows,
    plain: Windows,
    ends: Mapping[str, NDArray[np.int64]],
    batch_size: int,
    unrounded: bool,
) -> dict[str, Any]:
    """Errors of the network and of forecasts without training, by split and forecast; and a verdict.

    Persistence and SeasonalNaive forecast the same windows.

    Args:
        dataset: with labels in their unit.
        network: the trained network.
        graphs: what it sees.
        windows: what it was trained on.
        plain: the same windows, their labels not replaced by the unrounded requirement.
        ends: rows that windows end at, by split.
        batch_size: windows at a time.
        unrounded: the network was trained on the unrounded requirement.
    """
    shape, name = shape_of(dataset.meta), type(network).__name__
    replicas = is_replicas(dataset.meta)
    forecasts: list[tuple[Network, Windows, bool]] = [(network, windows, unrounded)]
    forecasts += [
        (kind(shape), plain, False) for kind in (Persistence, SeasonalNaive) if kind is not type(network)
    ]
    out: dict[str, Any] = {"unit": "replicas" if replicas else dataset.meta["label"].removeprefix("feature:")}
    for split in JUDGED:
        rows = ends[split]
        if not len(rows):
            continue
        wanted, chosen = targets(dataset, rows), torch.from_numpy(rows).to(windows.series.device)
        out[split] = {
            type(one).__name__: forecast_errors(
                in_units(one.forecast(seen, graphs, chosen, batch_size), dataset, rounds), wanted, replicas
            )
            for one, seen, rounds in forecasts
        }
    out["season_steps"] = None if plain.season is None else plain.season / dataset.dilation
    out["verdict"] = forecast_verdict(out["test" if "test" in out else "validation"], name)
    return out


def forecast_verdict(errors: dict[str, dict[str, Any]], name: str) -> str:
    """A plain sentence: does the network `name` beat what needs no training, by MAE and by RMSE?"""
    parts = []
    for key in ("mae", "rmse"):
        rival = min((other for other in errors if other != name), key=lambda other: errors[other][key])
        ours, theirs = errors[name][key], errors[rival][key]
        verb = "beats" if ours < theirs else "does not beat"
        parts.append(f"{verb} {rival} by {key.upper()} ({ours:.4f}, {theirs:.4f})")
    return f"{name} {parts[0]} and {parts[1]}."
