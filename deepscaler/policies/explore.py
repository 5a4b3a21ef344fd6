"""`explore`: varies replicas on purpose, so that the data shows what they do; for collecting training data."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepscaler.labels.demand import entry_response
from deepscaler.panel import MetricPanel
from deepscaler.policies.base import Observation, Policy, Proposal, Reason
from deepscaler.settings import Explore

SMOOTH_SECONDS = 60.0
FULL = 0.98
"""Measured usage never gets less than this share of its limits, whatever is drawn."""
SATURATED = 0.95
"""Beyond this utilisation usage no longer tells the demand."""
RELIEF = 1.25
CAREFUL = 0.7
"""After saturation, or while the SLA is at risk, the target utilisation is at most this until the next draw."""


@dataclass
class _Draw:
    """What a service is tried at until the next draw."""

    until: float
    utilisation: float
    offset: int
    count: int = 0


class SlaWatch:
    """Is the SLA at risk? From an entry response above a share of it, or unknown, until it has been below for a while.

    Args:
        slas: entry service and its bound in seconds; of several at one service the strictest counts.
        settings: the share and the while.
    """

    def __init__(self, slas: Sequence[tuple[str, float]], settings: Explore) -> None:
        self._slas, self._settings = tuple(slas), settings
        self._calm_at = -math.inf

    def at_risk(self, panel: MetricPanel, now: float) -> bool:
        """By the newest minute of each entry; an entry without requests is at no risk, one without data is."""
        if any(self._slow(panel, service, sla) for service, sla in self._slas):
            self._calm_at = now + self._settings.calm_seconds
        return now < self._calm_at

    def _slow(self, panel: MetricPanel, service: str, sla: float) -> bool:
        if service not in panel.services or not len(panel):
            return True
        recent, column = panel.times > panel.times[-1] - SMOOTH_SECONDS, panel.services.index(service)
        served, response = (panel.feature(name)[recent, column].astype(np.float64) for name in ("req", "res"))
        if not np.isfinite(served).any():
            return True
        busy = served > 0
        mean = float(
            entry_response(served[None, busy], response[None, busy])[0]
        )  # over the minute's requests
        return bool(busy.any()) and not mean <= self._settings.sla_share * sla


class ExplorePolicy(Policy):
    """Sizes each service by its own target utilisation, redrawn every few minutes, one replica more or fewer.

    Source: training data recipe of the design (utilisation .35-.95, ±1 replica); usage is the mean of the last minute.
    With a watch exploring pauses while the SLA is at risk: no service loses replicas, busy ones get more.
    The draws depend on the seed, the service's name and the number of the draw only.

    Args:
        seed: of the draws.
        utilisation: range of target utilisations of the limit.
        seconds: range of times between draws.
        period_seconds: time between decisions.
        watch: of the SLA; None explores through everything, as is wanted of training data on the testbed.
    """

    name = "explore"
    history_seconds = SMOOTH_SECONDS
    guarded = True

    def __init__(
        self,
        seed: int,
        utilisation: tuple[float, float],
        seconds: tuple[float, float],
        period_seconds: float = 15.0,
        watch: SlaWatch | None = None,
    ) -> None:
        self.period_seconds = period_seconds
        self._watch = watch
        self._seed = seed
        self._utilisation = utilisation
        self._seconds = seconds
        self._draws: dict[str, _Draw] = {}

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """Usage over target utilisation, rounded up, plus the drawn -1, 0 or 1; more when it is saturated."""
        panel = observation.panel
        used, busy, ready = _present(panel)
        risky = self._watch is not None and self._watch.at_risk(panel, observation.now)
        current = {workload.service: workload.replicas for workload in observation.workloads}
        proposals = {}
        for index, service in enumerate(panel.services):
            draw = self._drawn(service, observation.now)
            if not math.isfinite(used[index]):
                proposals[service] = Proposal(None, Reason.HELD_MISSING)
                continue
            if busy[index] > SATURATED or risky:
                draw.utilisation = min(draw.utilisation, CAREFUL)
                draw.offset = max(draw.offset, 0) if risky else draw.offset
            wish = math.ceil(used[index] / draw.utilisation - 1e-6) + draw.offset
            if busy[index] > SATURATED and math.isfinite(ready[index]):
                wish = max(
                    wish, math.ceil(RELIEF * ready[index])
                )  # of the ready ones: starting pods don't escalate
            wish = max(wish, math.ceil(used[index] / FULL - 1e-6), 1)
            if risky:
                wish = max(wish, current.get(service, wish))
            proposals[service] = Proposal(
                float(wish), Reason.SLA_AT_RISK if risky else Reason.EXPLORE, predicted=float(wish)
            )
        return proposals

    def _drawn(self, service: str, now: float) -> _Draw:
        draw = self._draws.get(service)
        if draw is not None and now < draw.until:
            return draw
        count = draw.count + 1 if draw else 0
        random = np.random.default_rng([self._seed, zlib.crc32(service.encode()), count])
        length = random.uniform(*self._seconds) * (
            1.0 if draw else random.uniform()
        )  # services redraw at different times
        self._draws[service] = _Draw(
            now + length, random.uniform(*self._utilisation), int(random.integers(-1, 2)), count
        )
        return self._draws[service]


def _present(panel: MetricPanel) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each service `[N]`: usage of the last minute in limits of one replica, newest utilisation, newest ready replicas."""
    if not len(panel):
        nothing = np.full(len(panel.services), np.nan)
        return nothing, nothing, nothing
    cpu, pod = panel.feature("cpu").astype(np.float64), panel.feature("pod").astype(np.float64)
    recent = panel.times > panel.times[-1] - SMOOTH_SECONDS
    used = (cpu * pod)[recent]
    known = np.isfinite(used)
    count = known.sum(axis=0)
    mean = np.where(count > 0, np.where(known, used, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    return mean, cpu[-1], pod[-1]
