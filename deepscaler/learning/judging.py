"""How good forecasts are, in the label's unit and in z-units, beside those that need no training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepscaler.learning.dataset import Dataset
from deepscaler.learning.description import REPLICA_LABELS
from model.forecast_costs import crps, forecast_costs, residual_quantiles
from model.forecast_errors import forecast_errors
from model.layers import Graphs
from model.linear import AR
from model.naive import KnownNow, Persistence, SeasonalNaive
from model.network import Network, Shape
from model.windows import Windows

Array = NDArray[np.float64]
JUDGED = ("validation", "test")
"""Splits that forecasts are judged on."""
MEASURES = {
    "mae": "MAE",
    "mae_z": "MAE z",
    "rmse": "RMSE",
    "mape": "MAPE",
    "under_provision": "under",
    "over_provision": "over",
    "crps": "CRPS",
    "deficient": "deficient",
    "excess": "excess",
    "lead_seconds": "lead s",
    "missed_peaks": "missed",
    "false_peaks": "false",
}
"""Measures of a forecast, and their names in tables; see `assess`."""
PARTS = ("mae", "mae_z", "rmse", "mape")
"""Those that are also shown by horizon step and by service; `mae_z` is in z-units."""
LARGEST_AR = 2e7
"""AR stands beside a network if its normal equations hold fewer numbers (8 bytes each)."""


def shape_of(meta: dict[str, Any]) -> Shape:
    """Sizes that the description of a data set states."""
    return Shape(len(meta["services"]), len(meta["features"]), int(meta["window"]), int(meta["horizon"]))


def in_units(scores: torch.Tensor, dataset: Dataset, unrounded: bool) -> Array:
    """z-scored forecasts `[M, H, N]` in the label's unit; not below 0 where no training label is.

    Args:
        scores: the forecasts.
        dataset: whose labels they forecast.
        unrounded: they forecast the requirement before it is rounded up, so they are rounded up here.
    """
    values = dataset.normalizer.label_values(scores.double().cpu().numpy(), dataset.signed)
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


def assess(dataset: Dataset, made: Array, rows: NDArray[np.int64], residuals: Array | None) -> dict[str, Any]:
    """How good forecasts are: `model.forecast_errors`, the same in z-units, and `model.forecast_costs`.

    Args:
        dataset: with labels in their unit.
        made: forecasts `[M, H, N]` in the label's unit.
        rows: `[M]` rows that their windows end at.
        residuals: `model.forecast_costs.residual_quantiles` of the validation split; None: these forecasts
            are that split, and their own residuals stand in.
    """
    wanted, replicas = targets(dataset, rows), is_replicas(dataset.meta)
    scale = dataset.normalizer.label_scale.astype(np.float64)
    in_z = forecast_errors(made / scale, wanted / scale, False)
    around = residual_quantiles(made, wanted) if residuals is None else residuals
    gap = float(np.median(np.diff(rows))) * dataset.meta["base_step"] if len(rows) > 1 else math.inf
    return {
        **forecast_errors(made, wanted, replicas),
        **{key.replace("mae", "mae_z", 1): value for key, value in in_z.items() if key.startswith("mae")},
        "crps": crps(made, wanted, around),
        **forecast_costs(made, wanted, replicas, replica_cores(dataset), gap),
    }


def replica_cores(dataset: Dataset) -> Array:
    """Cores `[N]` of a replica, by the demand fit; 1 where it has none, or labels aren't replicas."""
    demand = (dataset.meta.get("demand") or {}) if is_replicas(dataset.meta) else {}
    limits = dict(zip(demand.get("services", ()), demand.get("limit_cores", ()), strict=True))
    return np.array([float(limits.get(service) or 1.0) for service in dataset.services])


def assess_splits(dataset: Dataset, made: Mapping[str, Array], ends: Mapping[str, NDArray[np.int64]]) -> Any:
    """What `assess` says of each split; the residuals of validation make a distribution of test forecasts.

    Args:
        dataset: with labels in their unit.
        made: forecasts `[M, H, N]` by split.
        ends: rows that windows end at, by split.
    """
    first = made.get("validation")
    around = None if first is None else residual_quantiles(first, targets(dataset, ends["validation"]))
    return {
        split: assess(dataset, values, ends[split], None if split == "validation" else around)
        for split, values in made.items()
    }


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
    """What `assess` says of the network and of simple forecasts, by split and forecast; and a verdict.

    The simple ones forecast the same windows: Persistence, SeasonalNaive, AR where it isn't too large, and
    what is known now of the next label, where something is.

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
    name = type(network).__name__
    forecasts: list[tuple[Network, Windows, bool]] = [(network, windows, unrounded)]
    forecasts += [
        (simple, plain, simple.unrounded)
        for simple in _simple(dataset, plain, ends)
        if type(simple) is not type(network)
    ]
    out: dict[str, Any] = {
        "unit": "replicas" if is_replicas(dataset.meta) else dataset.meta["label"].removeprefix("feature:")
    }
    found = {
        type(one).__name__: assess_splits(
            dataset, forecasts_of(one, seen, graphs, dataset, ends, batch_size, rounds), ends
        )
        for one, seen, rounds in forecasts
    }
    for split in (split for split in JUDGED if len(ends[split])):
        out[split] = {forecast: errors[split] for forecast, errors in found.items()}
    out["season_steps"] = None if plain.season is None else plain.season / dataset.dilation
    out["verdict"] = forecast_verdict(out["test" if "test" in out else "validation"], name)
    return out


def forecasts_of(
    network: Network,
    windows: Windows,
    graphs: Graphs,
    dataset: Dataset,
    ends: Mapping[str, NDArray[np.int64]],
    batch_size: int,
    unrounded: bool,
    quantile: float = 0.5,
) -> dict[str, Array]:
    """Forecasts `[M, H, N]` in the label's unit, by split; splits without a window are left out."""
    out = {}
    for split in (split for split in JUDGED if len(ends[split])):
        rows = torch.from_numpy(ends[split]).to(windows.series.device)
        scores = network.forecast(windows, graphs, rows, batch_size, quantile)
        out[split] = in_units(scores, dataset, unrounded)
    return out


def _simple(dataset: Dataset, plain: Windows, ends: Mapping[str, NDArray[np.int64]]) -> Iterator[Network]:
    """Forecasts that need no training, ready."""
    shape = shape_of(dataset.meta)
    yield Persistence(shape)
    yield SeasonalNaive(shape)
    if dataset.present is not None:
        yield KnownNow(shape)
    lags = AR(shape).to(plain.series.device)
    width = lags.weight.shape[1]
    if shape.services * width**2 <= LARGEST_AR:
        rows = [torch.from_numpy(ends[split]).to(plain.series.device) for split in ("train", "validation")]
        lags.prepare(plain, *rows)
        yield lags


def forecast_verdict(errors: dict[str, dict[str, Any]], name: str) -> str:
    """A plain sentence: does the network `name` beat the strongest simple forecast, by MAE and by RMSE?"""
    parts = []
    for key in ("mae", "rmse"):
        rival = min((other for other in errors if other != name), key=lambda other: errors[other][key])
        ours, theirs = errors[name][key], errors[rival][key]
        verb = "beats" if ours < theirs else "does not beat"
        parts.append(f"{verb} {rival} by {key.upper()} ({ours:.4f}, {theirs:.4f})")
    return f"{name} {parts[0]} and {parts[1]}."
