"""What the rivals that go by response times share: who calls whom, and what services did of late."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepscaler.calls import read_calls
from deepscaler.panel import MetricPanel
from deepscaler.settings import Settings
from deepscaler.statistics import nan_mean

RECENT_SECONDS = 60.0
P90_OVER_MEAN = math.log(10)
"""Telemetry has no p90 per service: that of exponential response times stands in, by their mean."""


@dataclass(frozen=True)
class Calls:
    """Who calls whom.

    Attributes:
        edges: pairs of caller and callee.
    """

    edges: Sequence[tuple[str, str]]

    def callees(self, service: str) -> frozenset[str]:
        """The services that a service calls."""
        return frozenset(callee for caller, callee in self.edges if caller == service)


def calls_file(settings: Settings) -> Path:
    """Where the calls of the application were collected."""
    return Path(settings.collect.output_dir) / "calls.csv"


def recorded_calls(settings: Settings) -> Calls:
    """The calls that were collected between the application's services.

    Raises:
        DataError: none were; the message names the command.
    """
    services = tuple(settings.app.services)
    rates = read_calls(calls_file(settings)).mean_rates(services)
    pairs = np.argwhere((rates > 0) & ~np.eye(len(services), dtype=bool))
    return Calls([(services[caller], services[callee]) for caller, callee in pairs])


def newest_p90(panel: MetricPanel) -> Mapping[str, float]:
    """p90 of each service's response over the last minute, in seconds, told from the mean; NaN if unknown."""
    return {name: P90_OVER_MEAN * mean for name, mean in newest_means(panel, "res").items()}


def newest_means(panel: MetricPanel, feature: str) -> Mapping[str, float]:
    """Mean of a feature over the last minute, by service; NaN where it was never measured then."""
    if not len(panel) or feature not in panel.features:
        return {}
    recent = panel.times > panel.times[-1] - RECENT_SECONDS
    means = nan_mean(panel.feature(feature)[recent], axis=0)
    return dict(zip(panel.services, means.tolist(), strict=True))
