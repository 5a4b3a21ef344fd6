"""The policy `explore`: varies replicas on purpose, so that training data show what replicas do."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepscaler.labels.demand import entry_response
from deepscaler.panel import MetricPanel
from deepscaler.policies.base import Observation, Policy, Proposal, Reason, containers_of, serving_factor
from deepscaler.settings import Explore
from deepscaler.statistics import nan_mean

SMOOTH_SECONDS = 60.0
FULL = 0.98
"""Whatever is drawn, a service is never planned to use more than this share of its limits."""
SATURATED = 0.95
"""Above this utilisation, usage no longer tells the demand."""
RELIEF = 1.25
"""A saturated service gets this many times its ready replicas."""
CAREFUL = 0.7
"""Highest target utilisation until the next draw, after saturation or while the SLA is at risk."""


@dataclass
class _Draw:
    """How a service is varied until the next draw, the `count`th."""

    until: float
    utilisation: float
    offset: int
    count: int = 0


class SlaWatch:
    """Watches whether the SLA is at risk.

    It is once the response of an entry exceeds a share of the SLA or is unknown, until it was below for some
    time.

    Args:
        slas: entry service and its bound in seconds; if a service has several, the strictest counts.
        settings: the share and the time.
    """

    def __init__(self, slas: Sequence[tuple[str, float]], settings: Explore) -> None:
        self._slas, self._settings = tuple(slas), settings
        self._calm_at = -math.inf

    def at_risk(self, panel: MetricPanel, now: float) -> bool:
        """Whether it is, by the newest minute of each entry. Without data it is; without traffic not.

        Args:
            panel: the metrics.
            now: seconds of a clock that is never set.
        """
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
        mean = float(entry_response(served[None, busy], response[None, busy])[0])
        return bool(busy.any()) and not mean <= self._settings.sla_share * sla


class ExplorePolicy(Policy):
    """Sizes each service by a random target utilisation of its own, plus a random -1, 0 or 1 replica.

    They are drawn again every few minutes. Draws depend on the seed, the name of the service and the number
    of the draw only. Usage is the mean of the last minute. With a watch, exploring pauses while the SLA is at
    risk: no service loses replicas, and busy ones get more.

    Args:
        seed: seed of the draws.
        utilisation: range of target utilisations, as shares of the limit.
        seconds: range of times between draws.
        period_seconds: time between decisions.
        watch: of the SLA; None explores whatever happens, which is wanted for training data on the testbed.

    Source: the design's recipe for training data (utilisation .35-.95, ±1 replica).
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
        """Usage over the target utilisation, rounded up, plus the drawn -1, 0 or 1; more if saturated."""
        panel = observation.panel
        used, busy, ready = _present(panel, *containers_of(observation))
        risky = self._watch is not None and self._watch.at_risk(panel, observation.steady)
        current = {workload.service: workload.replicas for workload in observation.workloads}
        proposals = {}
        for index, service in enumerate(panel.services):
            draw = self._drawn(service, observation.steady)
            if not math.isfinite(used[index]):
                proposals[service] = Proposal(None, Reason.HELD_MISSING)
                continue
            if busy[index] > SATURATED or risky:
                draw.utilisation = min(draw.utilisation, CAREFUL)
                draw.offset = max(draw.offset, 0) if risky else draw.offset
            wish = math.ceil(used[index] / draw.utilisation - 1e-6) + draw.offset
            if busy[index] > SATURATED and math.isfinite(ready[index]):
                # Ready replicas count, so that starting pods don't escalate the wish.
                wish = max(wish, math.ceil(RELIEF * ready[index]))
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
        # The first draw ends early at random, so that services are drawn again at different times.
        length = random.uniform(*self._seconds) * (1.0 if draw else random.uniform())
        self._draws[service] = _Draw(
            now + length, random.uniform(*self._utilisation), int(random.integers(-1, 2)), count
        )
        return self._draws[service]


def _present(
    panel: MetricPanel, containers: NDArray[np.float64], starting: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Usage of the last minute in limits of one replica, newest utilisation, newest ready replicas.

    The utilisation is that of the replicas that serve. All are `[N]`, one value per service; NaN where
    unknown. `cpu` is the share of the limits of all `containers [N]`, those of `starting [N]` pods included,
    which use next to nothing.
    """
    if not len(panel):
        nothing = np.full(len(panel.services), np.nan)
        return nothing, nothing, nothing
    cpu, pod = panel.feature("cpu").astype(np.float64), panel.feature("pod").astype(np.float64)
    recent = panel.times > panel.times[-1] - SMOOTH_SECONDS
    used = (cpu * np.maximum(pod, containers))[recent]
    return nan_mean(used, 0), cpu[-1] * serving_factor(containers, starting), pod[-1]
