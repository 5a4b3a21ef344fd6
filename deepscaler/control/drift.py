"""Whether the live inputs are still distributed as those that the bundle learned from.

The measure is the population stability index (PSI) of each service and feature: the live values of a day
fall into the bins that the training deciles make, and Σ (p - q) ln(p / q) over the bins says how far the
shares are from those of training. By common usage below 0.1 nothing changed, and above 0.25 much did.

Source: Siddiqi 2006, Credit Risk Scorecards; Yurdakul and Naranjo 2020 on its thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepscaler.learning.inputs import Inputs, stability
from deepscaler.panel import MetricPanel
from deepscaler.statistics import nan_mean

Counts = NDArray[np.int64]
HOURS = 24
HOUR_SECONDS = 3600.0
LEAST_HOURS = 20
"""Hours of the last day that need samples: parts of a day have another distribution than days."""
MOST_NAMED = 3


@dataclass(frozen=True)
class Drift:
    """How far inputs are from those of training.

    Attributes:
        score: of the feature that drifted most, the median of the PSI over services.
        feature: that feature.
        services: those whose PSI of it is highest, up to `MOST_NAMED`.
    """

    score: float
    feature: str
    services: tuple[str, ...]


class DriftMeter:
    """Counts live inputs by hour over the last day.

    Args:
        inputs: of the training.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self._hours: dict[int, Counts] = {}

    def add(self, now: float, panel: MetricPanel) -> None:
        """Count the newest inputs: means over the model's step, as training saw them."""
        inputs = self.inputs
        values = np.full((len(inputs.services), len(inputs.features)), np.nan)
        recent = panel.times > now - inputs.step - 1e-3
        if recent.any():
            rows = [panel.services.index(name) for name in inputs.services if name in panel.services]
            places = [index for index, name in enumerate(inputs.services) if name in panel.services]
            for column, feature in enumerate(inputs.features):
                if feature in panel.features:
                    values[places, column] = nan_mean(panel.feature(feature)[recent][:, rows], 0)
        hour = int(now // HOUR_SECONDS)
        blank = np.zeros((*values.shape, inputs.bins), np.int64)
        self._hours[hour] = self._hours.get(hour, blank) + inputs.counted(values[None])
        self._hours = {key: one for key, one in self._hours.items() if hour - HOURS < key <= hour}

    def drift(self) -> Drift | None:
        """How far the last day is from training; None before a day is over."""
        if len(self._hours) < LEAST_HOURS:
            return None
        counts = np.sum(list(self._hours.values()), axis=0)
        found = stability(self.inputs.shares, counts)  # [N, F]
        by_feature = np.array([_median(found[:, column]) for column in range(found.shape[1])])
        if not np.isfinite(by_feature).any():
            return None
        most = int(np.nanargmax(by_feature))
        column = np.nan_to_num(found[:, most])
        worst = np.argsort(-column, kind="stable")[:MOST_NAMED]
        services = tuple(self.inputs.services[index] for index in worst if column[index] > 0)
        return Drift(float(by_feature[most]), self.inputs.features[most], services)


def _median(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")
