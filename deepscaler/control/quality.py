"""How far the metrics can be trusted: gaps, age, and drops in traffic that come with trouble."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.panel import MetricPanel
from deepscaler.policies.base import Reason
from deepscaler.statistics import nan_mean

NO_TRAFFIC = 1e-9
"""Requests per second up to which a service is idle: it then has no response time, so `res` isn't missing."""
RECENT_SECONDS = 60.0
BEFORE_SECONDS = 300.0
DROP_SHARE = 0.7
"""Traffic fell if the rate of the last minute is below this share of that of the five minutes before."""


@dataclass(frozen=True, eq=False)
class Quality:
    """Metrics and how far they can be trusted.

    Attributes:
        panel: the metrics. Short gaps are filled forward; what is missing for longer stays NaN.
        ages: `[N]` seconds since the newest usable sample of the feature that is most behind; inf if it has
            none.
        held: services whose metrics are stale or missing -> the reason.
        doubtful: services that aren't held, but whose newest samples are missing for longer than gaps are
            filled, or whose sums may be too low because the source answered in part.
    """

    panel: MetricPanel
    ages: NDArray[np.float64]
    held: dict[str, Reason]
    doubtful: frozenset[str]

    @property
    def lost(self) -> bool:
        """Whether some service had metrics and lost them."""
        return bool(self.doubtful) or Reason.HELD_STALE in self.held.values()


def assess(
    raw: MetricPanel,
    needed: Collection[str],
    now: float,
    fill_samples: int,
    stale_after: float,
    behind: float = 0.0,
) -> Quality:
    """Judge the metrics of each service.

    Args:
        raw: the metrics as they were read.
        needed: features by which a service is judged.
        now: by our clock.
        fill_samples: missing samples in a row that the last known value stands in for.
        stale_after: seconds without a usable sample after which a service is held.
        behind: seconds that our clock is behind that of the source: the samples are so much older. Clocks
            that differ by a step or less agree.
    """
    panel = fill_forward(raw, fill_samples)
    names = [name for name in raw.features if name in needed]
    usable = np.isfinite(raw.values[:, :, [raw.features.index(name) for name in names]])
    if "res" in names and "req" in raw.features:
        usable[:, :, names.index("res")] |= _silent(raw)
    since = np.where(usable, raw.times[:, None, None], -np.inf).max(axis=0, initial=-np.inf)
    step = (raw.times[-1] - raw.times[0]) / max(len(raw) - 1, 1) if len(raw) else 0.0
    ages = np.zeros(len(raw.services))
    if names:
        ages = np.maximum(now - since.min(axis=1, initial=np.inf), 0.0) + (behind if behind > step else 0.0)
    filled_until = fill_samples * step + (now - raw.times[-1] if len(raw) else 0.0)
    held, doubtful = {}, set()
    for service, age in zip(raw.services, ages, strict=True):
        if age > stale_after:
            held[service] = Reason.HELD_STALE if np.isfinite(age) else Reason.HELD_MISSING
        elif age > filled_until + 1e-3:
            doubtful.add(service)
    return Quality(panel, ages, held, frozenset(doubtful))


def _silent(panel: MetricPanel) -> NDArray[np.bool_]:
    """Where a service is known to have no traffic, `[L, N]`."""
    silent: NDArray[np.bool_] = panel.feature("req") <= NO_TRAFFIC
    return silent


def fill_forward(panel: MetricPanel, samples: int) -> MetricPanel:
    """The panel, with gaps of at most `samples` rows filled by the value before them, also at its end.

    Of a longer gap the first `samples` rows are filled. `res` without traffic is no gap and stays NaN.
    """
    if np.isfinite(panel.values).all():
        return panel
    values = _carried(panel.values, samples)
    waited = None if panel.waited is None else _carried(panel.waited[:, None, None], samples)[:, 0, 0]
    filled = replace(panel, values=values, waited=waited)
    if "res" in panel.features and "req" in panel.features:
        column = panel.features.index("res")
        values[:, :, column] = np.where(_silent(filled), panel.values[:, :, column], values[:, :, column])
    return filled


def _carried(values: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """The values `[L, N, F]`, with the last known value in gaps of at most `samples` rows."""
    rows = np.arange(len(values))[:, None, None]
    newest = np.maximum.accumulate(np.where(np.isfinite(values), rows, -1), axis=0)
    carried = np.take_along_axis(values, np.maximum(newest, 0), axis=0) if len(values) else values
    filled: NDArray[np.float32] = np.where(
        (newest >= 0) & (rows - newest <= samples), carried, np.float32(np.nan)
    )
    return filled


def blank_panel(
    services: tuple[str, ...], features: tuple[str, ...], times: NDArray[np.float64]
) -> MetricPanel:
    """Metrics of which nothing is known, for when their source can't be reached."""
    return MetricPanel(
        times, services, features, np.full((len(times), len(services), len(features)), np.nan, np.float32)
    )


def error_share(latencies: pd.DataFrame) -> float:
    """Share of the requests that failed, over all endpoints and rows; NaN if no request ended."""
    failed, done = float(latencies["failed"].sum()), float(latencies["done"].sum())
    return failed / (failed + done) if failed + done > 0 else float("nan")


class DropWatch:
    """Remembers services whose traffic fell while something was wrong: an outage makes its callers look idle.

    A service is watched from the drop until its traffic is back near the level before, or nothing is wrong
    any more.
    """

    def __init__(self) -> None:
        self._levels: dict[str, float] = {}

    @property
    def watching(self) -> bool:
        """Whether any service is watched."""
        return bool(self._levels)

    @staticmethod
    def drops(panel: MetricPanel) -> dict[str, tuple[float, float]]:
        """Services whose traffic fell -> requests per second of the last minute, and before it."""
        recent, before = DropWatch._rates(panel)
        fell = np.flatnonzero(recent < DROP_SHARE * before)
        return {panel.services[index]: (float(recent[index]), float(before[index])) for index in fell}

    def update(self, panel: MetricPanel, troubled: bool) -> frozenset[str]:
        """Services that must not be scaled down now."""
        if not troubled:
            self._levels.clear()
            return frozenset()
        recent, _ = self._rates(panel)
        for service, (_, level) in self.drops(panel).items():
            self._levels.setdefault(service, level)
        for service, rate in zip(panel.services, recent, strict=True):
            if rate >= DROP_SHARE * self._levels.get(service, np.inf):
                del self._levels[service]
        return frozenset(self._levels)

    @staticmethod
    def _rates(panel: MetricPanel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean request rates `[N]` of the last minute and of the five minutes before it; NaN if unknown."""
        unknown = np.full(len(panel.services), np.nan)
        if "req" not in panel.features or not len(panel):
            return unknown, unknown
        age = panel.times[-1] - panel.times
        recent = panel.feature("req")[age < RECENT_SECONDS]
        before = panel.feature("req")[(age >= RECENT_SECONDS) & (age < RECENT_SECONDS + BEFORE_SECONDS)]
        return nan_mean(recent, 0), nan_mean(before, 0)
