"""How a bundle's training inputs were distributed, small enough to travel with it; without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.learning.dataset import Dataset

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
BINS = 10
LEAST_SHARE = 1e-3
"""An empty bin counts as this share: a logarithm of 0 would make one sample decide."""
DIGITS = 6


@dataclass(frozen=True, eq=False)
class Inputs:
    """Distribution of the training inputs.

    Attributes:
        services: N names.
        features: F names.
        step: seconds that each value is the mean of.
        edges: `[N, F, BINS - 1]` deciles of training, rising; NaN where nothing is known.
        shares: `[N, F, BINS]` share of the training values in each bin.
        usual: how far validation was from training, as `Drift.score` measures it.
    """

    services: tuple[str, ...]
    features: tuple[str, ...]
    step: float
    edges: Array
    shares: Array
    usual: float

    @property
    def bins(self) -> int:
        """Bins per service and feature."""
        return int(self.shares.shape[2])

    def counted(self, values: NDArray[np.floating]) -> Counts:
        """How many of the values `[L, N, F]` lie in each bin, `[N, F, BINS]`; NaN in none."""
        return _counted(values, self.edges)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for `from_dict`."""
        return {
            "services": list(self.services),
            "features": list(self.features),
            "step": self.step,
            "edges": _rounded(self.edges),
            "shares": _rounded(self.shares),
            "usual": self.usual,
        }

    @classmethod
    def from_dict(cls, found: Any) -> Inputs | None:
        """What `to_dict` gave; None if it isn't that."""
        try:
            edges, shares = (np.array(found[name], np.float64) for name in ("edges", "shares"))
            services, features = tuple(map(str, found["services"])), tuple(map(str, found["features"]))
            made = cls(services, features, float(found["step"]), edges, shares, float(found["usual"]))
        except (KeyError, TypeError, ValueError):
            return None
        size = (len(services), len(features))
        fits = edges.shape == (*size, BINS - 1) and shares.shape == (*size, BINS)
        return made if fits and made.step > 0 else None


def training_inputs(dataset: Dataset) -> Inputs:
    """The distribution of the training split, and how far the validation split is from it."""
    low, high = dataset.bounds
    training = dataset.series[:low].astype(np.float64)
    known = np.isfinite(training).any(axis=0)
    edges = np.full((*known.shape, BINS - 1), np.nan)
    edges[known] = np.nanquantile(training[:, known], np.arange(1, BINS) / BINS, axis=0).T
    counts = _counted(training, edges)
    shares = counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)
    apart = stability(shares, _counted(dataset.series[low:high], edges))  # [N, F]
    medians = [np.median(column[np.isfinite(column)]) for column in apart.T if np.isfinite(column).any()]
    meta = dataset.meta
    usual = float(max(medians, default=0.0))
    return Inputs(dataset.services, tuple(meta["features"]), float(meta["step"]), edges, shares, usual)


def stability(shares: Array, counts: Counts) -> Array:
    """The population stability index `[N, F]` of counts against shares; NaN where there is nothing."""
    total = counts.sum(axis=2)
    live = counts / np.maximum(total, 1)[:, :, None]
    p, q = np.maximum(live, LEAST_SHARE), np.maximum(shares, LEAST_SHARE)
    index = ((p - q) * np.log(p / q)).sum(axis=2)
    found: Array = np.where((total > 0) & (shares.sum(axis=2) > 0), index, np.nan)
    return found


def _counted(values: NDArray[np.floating], edges: Array) -> Counts:
    """See `Inputs.counted`. A value that is an edge lies below it, so constants fill one bin."""
    upper = edges + 1e-6 * np.maximum(np.abs(edges), 1e-6)
    known = (np.isfinite(values) & np.isfinite(edges).all(axis=2)).sum(axis=0)  # [N, F]
    above = [(values > upper[:, :, index]).sum(axis=0) for index in range(edges.shape[2])]
    reached = np.stack([known, *above, np.zeros_like(known)], axis=2)
    counts: Counts = reached[:, :, :-1] - reached[:, :, 1:]
    return counts


def _rounded(values: Array) -> list[Any]:
    flat = [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in values.ravel()]
    shaped: list[Any] = np.array(flat, object).reshape(values.shape).tolist()
    return shaped
