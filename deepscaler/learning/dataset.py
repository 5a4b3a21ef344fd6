"""The data set: one series, its labels, the bounds of the splits and training statistics.

The series is kept at the step of collection (`base_step`), as trailing means over `step` seconds. A window of
T steps takes every `dilation`-th row of it. So training sees every phase of the minute, as a controller may
ask at any moment.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import one_line, plain, replacing, write_json
from deepscaler.errors import DataError
from deepscaler.learning.dataset_file import check_dataset, read_arrays, read_meta

VERSION = 2
SPLITS = ("train", "validation", "test")
STATISTICS = ("mean", "scale", "label_mean", "label_scale")
NEEDED = ("train", "validation")
"""Splits that have to hold a window; without a test split, errors are those of validation."""
ADVICE = (
    "collect longer (collect.last, then python metrics_fetch.py), lower process.window or give that split a "
    "larger share (process.split), then: python data_process.py"
)
"""What helps where a split holds no window."""
OPTIONAL = ("unrounded", "present")
"""Arrays that only `required` labels bring."""


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Makes z-scores per service and feature, by statistics of the training split; a constant gets scale 1.

    Attributes:
        mean, scale: float32 `[N, F]`.
        label_mean, label_scale: float32 `[N]`, in the label's unit.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    label_mean: NDArray[np.float32]
    label_scale: NDArray[np.float32]

    @classmethod
    def fit(cls, series: NDArray[np.float32], labels: NDArray[np.float32]) -> Normalizer:
        """The normalizer of series `[L, N, F]` and labels `[L, N]`; NaN is left out.

        A column without a known value gets mean 0 and scale 1.
        """
        return cls(*_mean_and_scale(series), *_mean_and_scale(labels))

    def apply(self, series: NDArray[np.float32]) -> NDArray[np.float32]:
        """z-scores of `[..., N, F]`; NaN becomes 0, the training mean."""
        scores: NDArray[np.float32] = np.nan_to_num((series - self.mean) / self.scale, nan=0.0).astype(
            np.float32
        )
        return scores

    def label_scores(self, labels: NDArray[np.float32]) -> NDArray[np.float32]:
        """z-scores of labels `[..., N]`; NaN stays."""
        scores: NDArray[np.float32] = ((labels - self.label_mean) / self.label_scale).astype(np.float32)
        return scores

    def label_values(self, scores: NDArray[np.float64], signed: bool = False) -> NDArray[np.float64]:
        """Labels in their unit from z-scores `[..., N]`; never below 0 unless labels are `signed`."""
        values: NDArray[np.float64] = scores * self.label_scale + self.label_mean
        return values if signed else np.maximum(values, 0.0)


def _mean_and_scale(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, values, 0.0).astype(np.float64)
    mean = filled.sum(axis=0) / count
    variance = (np.where(known, values - mean, 0.0) ** 2).sum(axis=0) / count
    scale = np.sqrt(variance)
    scale = np.where(scale > 1e-6 * np.maximum(np.abs(mean), 1e-6), scale, 1.0)
    return mean.astype(np.float32), scale.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What `data_process.py` makes and `main.py` trains on.

    Attributes:
        times: `[L]` seconds since the epoch, regular, `base_step` apart; each the end of its sample.
        series: float32 `[L, N, F]`, raw units, trailing means over `step`; NaN where missing.
        labels: float32 `[L, N]`: replicas (or the labelled feature) of the step that ends at a row; NaN where
            unknown.
        bounds: rows of the splits: training is [0, bounds[0]), validation [bounds[0], bounds[1]), test
            [bounds[1], L).
        meta: services, features, units, app, step, base_step, window, horizon, label, lead (seconds that the
            label looks ahead), signed (a training label is below 0), season (seconds; None: it is looked
            for), source, demand (see `deepscaler.labels.demand.DemandModel.to_dict`; None without), version.
        priors: graphs that training starts from, float32 `[N, N]` by name, row = caller.
        unrounded: float32 `[L, N]`: `required` labels before they are rounded up; None with other labels.
        present: float32 `[L, N]`: what is known at each row about the next `required` label, unrounded; None
            with other labels.
        evidence: graphs that reports compare with and training never sees, float32 `[N, N]` by name, row =
            caller: `calls` (recorded, 1/s, over the whole span), `call_time` (their share of the caller's
            time), `structural` and `structural_t` (of the training rows, see `deepscaler.graphs.structural`).
    """

    times: NDArray[np.float64]
    series: NDArray[np.float32] = field(repr=False)
    labels: NDArray[np.float32] = field(repr=False)
    bounds: tuple[int, int]
    normalizer: Normalizer = field(repr=False)
    meta: dict[str, Any]
    priors: dict[str, NDArray[np.float32]] = field(repr=False)
    unrounded: NDArray[np.float32] | None = field(default=None, repr=False)
    present: NDArray[np.float32] | None = field(default=None, repr=False)
    evidence: dict[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    @property
    def services(self) -> tuple[str, ...]:
        """Their N names."""
        return tuple(self.meta["services"])

    @property
    def signed(self) -> bool:
        """Whether labels may be below 0: some of the training split are."""
        return bool(self.meta.get("signed"))

    @property
    def dilation(self) -> int:
        """Rows per step of the model."""
        rows: int = round(self.meta["step"] / self.meta["base_step"])
        return rows

    def window_ends(self, split: str) -> NDArray[np.int64]:
        """Rows at which a window of the split may end.

        Its T inputs and H labels lie inside the split, and one of the labels is known. An input is a mean
        over the step before its row, so the window reaches T whole steps back.
        """
        low, high = dict(
            zip(SPLITS, ((0, self.bounds[0]), self.bounds, (self.bounds[1], len(self.times))), strict=True)
        )[split]
        behind, ahead = self.dilation * self.meta["window"] - 1, self.dilation * self.meta["horizon"]
        ends = np.arange(low + behind, high - ahead, dtype=np.int64)
        known = np.asarray(np.isfinite(self.labels).any(axis=1))
        steps = self.dilation * np.arange(1, self.meta["horizon"] + 1)
        allowed: NDArray[np.int64] = ends[known[ends[:, None] + steps].any(axis=1)]
        return allowed


def check_windows(dataset: Dataset, shares: tuple[float, float, float]) -> None:
    """Check that training, validation and, if it has a share, test hold a window.

    Raises:
        DataError: a split holds none; the message says how long it is and how long a window is.
    """
    needed = dataset.dilation * (dataset.meta["window"] + dataset.meta["horizon"])
    edges = (0, *dataset.bounds, len(dataset.times))
    for index, split in enumerate(SPLITS):
        if (shares[index] > 0 or split in NEEDED) and not len(dataset.window_ends(split)):
            rows = edges[index + 1] - edges[index]
            why = "no label in it is known" if rows >= needed else "that is too short"
            raise DataError(
                f"{split} split: {rows} rows of {dataset.meta['base_step']:g} s, "
                f"a window and its horizon take {needed}: {why}; {ADVICE}"
            )


def write_dataset(dataset: Dataset, directory: str | Path) -> None:
    """Write `dataset.npz` and `meta.json`; `deepscaler.graphs.priors` writes `graphs/<prior>.csv`.

    Both files hold the description. Only `dataset.npz` is read back, so that a process killed between the two
    leaves no pair that disagrees; `meta.json` is for people and other tools.
    """
    directory = Path(directory)
    normalizer = dataset.normalizer
    statistics: dict[str, NDArray[np.float32]] = {name: getattr(normalizer, name) for name in STATISTICS}
    described = plain(
        {
            **dataset.meta,
            "version": VERSION,
            "bounds": dataset.bounds,
            "statistics": statistics,
            "priors": list(dataset.priors),
        }
    )
    arrays: dict[str, NDArray[Any]] = {
        "meta": np.frombuffer(json.dumps(described, allow_nan=False).encode(), np.uint8),
        "times": dataset.times,
        "series": dataset.series,
        "labels": dataset.labels,
        "valid": np.asarray(np.isfinite(dataset.series).all(axis=2)),
        "bounds": np.array(dataset.bounds),
        **statistics,
        **{f"prior_{name}": matrix for name, matrix in dataset.priors.items()},
        **{name: values for name in OPTIONAL if (values := getattr(dataset, name)) is not None},
        **{f"evidence_{name}": matrix for name, matrix in dataset.evidence.items()},
    }
    with replacing(directory / "dataset.npz") as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
    write_json(directory / "meta.json", described)


def read_dataset(directory: str | Path) -> Dataset:
    """Read what `write_dataset` wrote.

    Raises:
        DataError: the file is missing or broken, or was written by another version.
    """
    path = Path(directory) / "dataset.npz"
    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with: python data_process.py")
    try:
        arrays = read_arrays(path)
        meta = read_meta(arrays.pop("meta"))
        if (version := meta.get("version")) == VERSION:
            check_dataset(arrays, meta, STATISTICS)
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{path}: broken data set ({one_line(error)}); make it again with: python data_process.py"
        ) from error
    if version != VERSION:
        found = one_line(version, 40)
        raise DataError(
            f"{path}: version {found}, expected {VERSION}; make it again with: python data_process.py"
        )
    return Dataset(
        times=arrays["times"],
        series=arrays["series"],
        labels=arrays["labels"],
        bounds=(int(arrays["bounds"][0]), int(arrays["bounds"][1])),
        normalizer=Normalizer(**{name: arrays[name] for name in STATISTICS}),
        meta=meta,
        priors={
            name.removeprefix("prior_"): matrix
            for name, matrix in arrays.items()
            if name.startswith("prior_")
        },
        **{name: arrays.get(name) for name in OPTIONAL},
        evidence={
            name.removeprefix("evidence_"): matrix
            for name, matrix in arrays.items()
            if name.startswith("evidence_")
        },
    )
