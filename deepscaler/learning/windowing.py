"""From a data set to what a network sees: windows of z-scored series and labels on a device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepscaler.errors import DataError
from deepscaler.learning.dataset import ADVICE, NEEDED, SPLITS, Dataset, Normalizer
from model.seasons import strongest_season
from model.windows import Windows

SECONDS_A_DAY = 86400.0


def split_ends(dataset: Dataset, stride: int, evaluation_stride: int) -> dict[str, NDArray[np.int64]]:
    """Rows that the windows of each split end at.

    Raises:
        DataError: training or validation has none; the message says how many there are and what to change.
    """
    ends = {name: dataset.window_ends(name) for name in SPLITS}
    short = [name for name in NEEDED if not len(ends[name])]
    if short:
        meta, edges = dataset.meta, (0, *dataset.bounds, len(dataset.times))
        needed = dataset.dilation * (meta["window"] + meta["horizon"])
        rows = ", ".join(f"{name} {edges[index + 1] - edges[index]}" for index, name in enumerate(SPLITS))
        counts = ", ".join(f"{name} {len(ends[name])}" for name in SPLITS)
        raise DataError(
            f"no window fits the {' and '.join(short)} split (windows: {counts}): "
            f"a window of {meta['window']} + {meta['horizon']} steps takes {needed} rows of "
            f"{meta['base_step']:g} s with a known label, the splits have {rows}; {ADVICE}"
        )
    return {name: rows[:: stride if name == "train" else evaluation_stride] for name, rows in ends.items()}


def make_windows(
    dataset: Dataset, device: torch.device, *, unrounded: bool = False, longest_season: int = 0
) -> Windows:
    """z-scored series and labels by the training statistics, on the device.

    Args:
        dataset: series and labels.
        device: where they go.
        unrounded: take the labels before they were rounded up to whole replicas, where the data set has them.
            Whoever shows such forecasts rounds them up. Rounding keeps the order, so the median stays the
            median, where |error| is least.
        longest_season: longest season that is looked for in the training rows, in steps; 0: none is.
    """
    normalizer, dilation = dataset.normalizer, dataset.dilation
    present = (
        None
        if dataset.present is None
        else torch.from_numpy(normalizer.label_scores(dataset.present)).to(device)
    )
    chosen = dataset.unrounded if unrounded and dataset.unrounded is not None else dataset.labels
    season = _season(dataset, longest_season * dilation)
    return Windows(
        series=torch.from_numpy(normalizer.apply(dataset.series)).to(device),
        labels=torch.from_numpy(normalizer.label_scores(chosen)).to(device),
        window=dataset.meta["window"],
        horizon=dataset.meta["horizon"],
        dilation=dilation,
        lag=label_lag(dataset.meta),
        season=season,
        present=present,
        clock=torch.from_numpy(day_share(dataset.times)).to(device),
        zero=label_zero(normalizer).to(device),
    )


def label_zero(normalizer: Normalizer) -> torch.Tensor:
    """z-scores `[N]` of the label 0."""
    return torch.from_numpy(normalizer.label_scores(np.zeros_like(normalizer.label_mean)))


def _season(dataset: Dataset, longest: int) -> int | None:
    """Rows per season: as the settings of the processing say, or as found in the training rows.

    Args:
        dataset: series and labels.
        longest: rows of the longest season that is looked for; 0: none is.
    """
    given: float | None = dataset.meta.get("season")
    if given:
        return max(round(given / float(dataset.meta["base_step"])), 1)
    if not longest:
        return None
    rows = slice(0, dataset.bounds[0])
    features = [dataset.series[rows, :, index] for index in range(dataset.series.shape[2])]
    training = [np.asarray(one, np.float64) for one in (dataset.labels[rows], *features)]
    return strongest_season(training, longest, 2 * dataset.dilation)


def day_share(times: NDArray[np.float64]) -> NDArray[np.float32]:
    """Share of the day (UTC) that has passed, `[L]`."""
    return np.asarray((times % SECONDS_A_DAY) / SECONDS_A_DAY, np.float32)


def label_lag(meta: dict[str, Any]) -> int:
    """Rows between now and the newest label that is complete now.

    It is 0 except for labels that look ahead by a lead.

    The label of a row covers up to a step less than its lead beyond that row.
    """
    ahead = math.ceil((meta.get("lead") or 0.0) / meta["base_step"] - 1e-9)
    return int(max(ahead - round(meta["step"] / meta["base_step"]), 0))
