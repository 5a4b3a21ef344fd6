"""The policy `showar`: a PID controller per service on its response time, callees first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deepscaler.cluster import Workload
from deepscaler.policies.base import Observation, Policy, Proposal, Reason
from deepscaler.policies.calls import Calls, newest_p90

PERIOD = 15.0
GAIN = 1 / 3
"""Of the error, of its integral and of its derivative."""
BUFFER = 0.2
"""α: outputs within half of this share around the SLO change nothing."""
SHARE = 0.1
"""β: the share of the pods that is added or taken, at least one pod."""
WINDUP = 2.0
"""The integral stays between 0 and this many times the SLO."""


@dataclass(frozen=True)
class Pid:
    """What a controller remembers.

    Attributes:
        integral: of the error, already times its gain.
        response: the last response time, in seconds; None at first.
    """

    integral: float = 0.0
    response: float | None = None


def steer(state: Pid, response: float, slo: float, seconds: float = PERIOD) -> tuple[float, Pid]:
    """Output of the controller (large: too slow) at a response time in seconds, and what it remembers next.

    Source: SHOWAR (Baarzi and Kesidis, SoCC 2021), as the published repository of PBScaler runs it.
    Differs: the integral is bounded. Unbounded, every quiet minute would have to be made up for by a slow one
        before anything is scaled out.
    """
    error = response - slo
    integral = min(max(state.integral + GAIN * error * seconds, 0.0), WINDUP * slo)
    slope = 0.0 if state.response is None else (response - state.response) / seconds
    return GAIN * error + integral + GAIN * slope, Pid(integral, response)


def stepped(replicas: int, output: float, slo: float) -> int:
    """Replicas after an output: max(1, 10 %) more above 1.1 SLO, as many fewer below 0.9 SLO."""
    change = max(1.0, replicas * SHARE)
    if output > slo * (1 + BUFFER / 2):
        return int(replicas + change)
    if output < slo * (1 - BUFFER / 2):
        return max(int(replicas - change), 1)
    return replicas


class ShowarPolicy(Policy):
    """Scales a service only when all replicas of the services that it calls are ready.

    Telemetry has no p90 per service: it is told from the mean of the last minute (`P90_OVER_MEAN`).

    Args:
        slo: bound on the p90, in seconds.
        calls: who calls whom.
    """

    name = "showar"
    guarded = False
    period_seconds = PERIOD
    history_seconds = 60.0

    def __init__(self, slo: float, calls: Calls) -> None:
        self._slo, self._calls = slo, calls
        self._states: dict[str, Pid] = {}

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """Replicas of every service; one without a response time, or with callees that start, is held."""
        responses = newest_p90(observation.panel)
        ready = {pod.service: 0 for pod in observation.pods}
        for pod in observation.pods:
            ready[pod.service] += bool(pod.ready and not pod.deleting)
        starting = {
            item.service for item in observation.workloads if ready.get(item.service, 0) < item.replicas
        }
        return {
            item.service: self._steered(item, responses.get(item.service, math.nan), starting)
            for item in observation.workloads
        }

    def _steered(self, workload: Workload, response: float, starting: set[str]) -> Proposal:
        service = workload.service
        if not np.isfinite(response):
            return Proposal(None, Reason.HELD_MISSING)
        output, self._states[service] = steer(self._states.get(service, Pid()), response, self._slo)
        if self._calls.callees(service) & starting:
            return Proposal(float(workload.replicas), Reason.RULE)
        return Proposal(float(stepped(workload.replicas, output, self._slo)), Reason.RULE)
