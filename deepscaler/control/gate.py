"""The quality gate: reads the metrics of a tick and says which services must be held."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection

import numpy as np

from deepscaler.cluster import Cluster
from deepscaler.control.quality import (
    BEFORE_SECONDS,
    RECENT_SECONDS,
    DropWatch,
    Quality,
    assess,
    blank_panel,
    error_share,
)
from deepscaler.control.recorder import Statistics
from deepscaler.errors import MetricsError
from deepscaler.logs import OnChange
from deepscaler.panel import FEATURES
from deepscaler.policies.base import Reason
from deepscaler.settings import Settings

log = logging.getLogger(__name__)
LATE_SHARE = 0.25
EARLY_SHARE = 0.05
"""The newest sample is asked for at most this share of a step before now, or this share after it."""
_EPSILON = 1e-6
_SAME_SECONDS = 1e-3


class Gate:
    """Reads metrics and judges them; all it remembers is where traffic dropped.

    Args:
        cluster: the source of the metrics.
        settings: those of the application.
        statistics: where failures to read metrics are counted.
    """

    def __init__(self, cluster: Cluster, settings: Settings, statistics: Statistics) -> None:
        self._cluster, self._settings, self._scale = cluster, settings, settings.scale
        self._statistics = statistics
        self._watch, self._on_change = DropWatch(), OnChange(log, logging.ERROR)
        self._grid = cluster.now()  # samples are asked for at so many steps from it

    def judge(self, now: float, running: Collection[str], history_seconds: float) -> Quality:
        """Read the metrics of the last `history_seconds` or more, and judge them for the services that run.

        All of these are held if the metrics can't be read, and all are doubtful if the answer is partial. For
        a policy that needs no metrics (0 seconds) none are read, and nothing is held.
        """
        if not history_seconds:
            blank = blank_panel(self._cluster.services, tuple(FEATURES), np.zeros(0))
            return Quality(blank, np.zeros(0), {}, frozenset())
        step = self._settings.collect.step
        back = max(history_seconds, self._scale.stale_after + step, RECENT_SECONDS + BEFORE_SECONDS)
        count = math.ceil(back / step - _EPSILON)
        newest = self._newest(now, step)
        try:
            raw = self._cluster.metrics(newest - (count - 1) * step, newest, step)
        except MetricsError as error:
            self._statistics.metrics_failures += 1
            self._on_change.trouble("metrics", f"no metrics: {error}")
            times = newest - step * np.arange(count - 1, -1, -1.0)
            raw = blank_panel(self._cluster.services, tuple(FEATURES), times)
        else:
            self._on_change.well("metrics", "metrics are read again")
        features, scale = self._settings.process.features, self._scale
        behind = max(self._clock_ahead(step), 0.0)
        quality = assess(raw, features, now, scale.fill_samples, scale.stale_after, behind)
        held = {service: reason for service, reason in quality.held.items() if service in running}
        held.update({service: Reason.HELD_MISSING for service in running if service not in raw.services})
        doubtful = frozenset(running) if raw.partial else quality.doubtful & frozenset(running)
        return Quality(quality.panel, quality.ages, held, doubtful - held.keys())

    def _clock_ahead(self, step: float) -> float:
        """Seconds that the clock of the metrics' source is ahead of ours; 0 if it doesn't tell.

        A clock that is behind asks for old samples as if they were new ones.
        """
        source = self._cluster.upstreams.get("prometheus")
        ahead = (source and source.clock_ahead) or 0.0
        if abs(ahead) <= step:
            self._on_change.well("clock", "the clock agrees with that of Prometheus again")
        elif "clock" not in self._on_change:
            way = "behind" if ahead > 0 else "ahead of"
            self._on_change.trouble(
                "clock",
                f"this machine's clock is {abs(ahead):.0f} s {way} that of Prometheus, so its metrics are "
                f"{'old' if ahead > 0 else 'missing'}: set the clock, or that of Prometheus",
            )
        return ahead

    def _newest(self, now: float, step: float) -> float:
        """The time of the newest sample: on the grid of the tick before, where that comes close to now.

        A tick is never quite on time. On the same grid what the tick before has read needn't be read again.
        """
        late = now - self._grid - step * round((now - self._grid) / step)
        if abs(late) < _SAME_SECONDS:
            return now
        if not -EARLY_SHARE * step <= late <= LATE_SHARE * step:
            self._grid, late = now, 0.0
        return now - late

    def no_scale_down(self, quality: Quality, now: float) -> frozenset[str]:
        """Services whose newest samples are missing, or whose traffic fell with errors or lost data."""
        suspicious = self._watch.watching or bool(self._watch.drops(quality.panel))
        troubled = suspicious and (quality.lost or self._requests_fail(now))
        return quality.doubtful | self._watch.update(quality.panel, troubled)

    def _requests_fail(self, now: float) -> bool:
        """Whether more requests fail than `scale.error_share`; False if that isn't known."""
        try:
            latencies = self._cluster.latencies(now - RECENT_SECONDS, now, self._settings.collect.step)
        except MetricsError as error:
            log.warning("it isn't known how many requests fail: %s", error)
            return False
        return error_share(latencies) > self._scale.error_share
