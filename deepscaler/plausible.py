"""Which values a metric can have: what lies outside is a fault of its source, and therefore missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

RANGES: Mapping[str, tuple[float, float]] = {
    "pod": (0.0, 1e5),
    "cpu": (0.0, 1e3),  # a share of the request may be far above 1
    "mem": (0.0, 1e3),
    "res": (0.0, 1e5),  # seconds
    "req": (0.0, 1e8),  # per second
}
"""Feature -> the least and the greatest value that it can have, in its unit."""
GREATEST = float(np.finfo(np.float32).max)
"""No value of another feature may be further from 0: panels are float32."""


def range_of(feature: str) -> tuple[float, float]:
    """The least and the greatest value of a feature; for one that isn't ours, what float32 holds."""
    return RANGES.get(feature, (-GREATEST, GREATEST))


def without_nonsense(
    values: NDArray[np.float64], services: Sequence[str], features: Sequence[str]
) -> tuple[NDArray[np.float64], dict[str, str]]:
    """The values `[L, N, F]` with NaN for impossible ones, and what was wrong.

    The latter is a text for each `<feature> of <service>`.
    """
    kept, found = values.copy(), dict[str, str]()
    for column, feature in enumerate(features):
        low, high = range_of(feature)
        impossible = (values[:, :, column] < low) | (values[:, :, column] > high)  # [L, N]
        for row in np.flatnonzero(impossible.any(axis=0)).tolist():
            wrong, service = impossible[:, row], services[row]
            first = values[wrong, row, column][0]
            kept[wrong, row, column] = np.nan
            found[f"{feature} of {service}"] = (
                f"{feature} of {service}: {int(wrong.sum())} of {len(wrong)} values are impossible "
                f"(the first is {first:g}, expected {low:g} to {high:g}), so they are missing"
            )
    return kept, found
