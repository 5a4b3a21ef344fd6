"""The policy `target_tracking`: AWS target tracking on each service's CPU utilisation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepscaler.cluster import Workload
from deepscaler.policies.base import Observation, Policy, Proposal, Reason, containers_of, serving_factor
from deepscaler.statistics import nan_mean

MINUTE = 60.0
OUT_MINUTES = 3
"""So many minutes above the target start a scale-out."""
IN_MINUTES = 15
"""So many minutes below `IN_SHARE` of the target start a scale-in."""
IN_SHARE = 0.9
WARM_UP_SECONDS = 300.0
"""While the newest replicas warm up, nothing is scaled in, and they count as capacity that was ordered."""
_CLOSE = 1e-9


@dataclass(frozen=True)
class Tracked:
    """What one minute decides.

    Attributes:
        replicas: those to have from now on.
        out: whether replicas are added.
    """

    replicas: int
    out: bool = False


def track(minutes: Sequence[float], target: float, ready: float, replicas: int, warming: bool) -> Tracked:
    """Capacity `ceil(ready x metric / target)` once an alarm is raised.

    Args:
        minutes: mean utilisation of each past minute, newest last; NaN breaks an alarm.
        target: utilisation that is aimed at.
        ready: replicas that the newest utilisation is the mean of.
        replicas: those ordered so far.
        warming: whether the last scale-out is younger than the warm-up.

    Source: Amazon EC2 Auto Scaling, "Target tracking scaling policies": alarms of three and of fifteen
        minutes, scale-in below 90 % of the target, instance warm-up.
    """
    last = np.asarray(minutes, np.float64)
    if len(last) >= OUT_MINUTES and (last[-OUT_MINUTES:] > target).all():
        wanted = math.ceil(ready * float(last[-1]) / target - _CLOSE)
        return Tracked(wanted, out=True) if wanted > replicas else Tracked(replicas)
    if not warming and len(last) >= IN_MINUTES and (last[-IN_MINUTES:] < IN_SHARE * target).all():
        wanted = math.ceil(ready * float(last[-1]) / target - _CLOSE)
        return Tracked(max(min(wanted, replicas), 1))
    return Tracked(replicas)


class TargetTrackingPolicy(Policy):
    """One target-tracking policy per service, each minute.

    The utilisation is that of the replicas that serve: those that start count only as ordered.

    Args:
        percent: target utilisation in percent of the CPU limit.
        name: name of the policy in run directories.
    """

    guarded = False
    period_seconds = MINUTE
    history_seconds = IN_MINUTES * MINUTE

    def __init__(self, percent: int, name: str = "target_tracking") -> None:
        self.name = name
        self._target = percent / 100
        self._out: dict[str, float] = {}
        self._factors: list[tuple[float, dict[str, float]]] = []  # end of a minute -> see `serving_factor`

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """Replicas of every service; those without CPU and pods in the metrics are held."""
        panel = observation.panel
        seen = set(panel.services) if len(panel) and {"cpu", "pod"} <= set(panel.features) else set()
        if seen:
            self._remember(observation)
        return {
            item.service: self._tracked(item, observation)
            if item.service in seen
            else Proposal(None, Reason.HELD_MISSING)
            for item in observation.workloads
        }

    def _remember(self, observation: Observation) -> None:
        """Keep how the pods stand at the end of this minute, as long as its samples count."""
        panel = observation.panel
        newest = float(panel.times[-1])
        factors = serving_factor(*containers_of(observation)).tolist()
        kept = [each for each in self._factors if newest - IN_MINUTES * MINUTE < each[0] < newest]
        self._factors = [*kept, (newest, dict(zip(panel.services, factors, strict=True)))]

    def _serving(self, service: str, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """The factor at each sample, `[T]`: that of the end of its minute; 1 where none is known."""
        found = np.ones(len(times))
        for end, factors in self._factors:
            found[(times > end - MINUTE + 1e-6) & (times <= end + 1e-6)] = factors.get(service, 1.0)
        return found

    def _tracked(self, workload: Workload, observation: Observation) -> Proposal:
        panel, service = observation.panel, workload.service
        column = panel.services.index(service)
        ages = np.floor((panel.times[-1] - panel.times + 1e-6) / MINUTE)  # whole minutes
        cpu = panel.feature("cpu")[:, column] * self._serving(service, panel.times)
        minutes = [
            float(nan_mean(cpu[ages == age][:, None], axis=0)[0])
            for age in range(min(IN_MINUTES, int(ages[0]) + 1) - 1, -1, -1)
        ]
        ready = float(panel.feature("pod")[-1, column])
        if not (math.isfinite(minutes[-1]) and math.isfinite(ready)):
            return Proposal(None, Reason.HELD_MISSING)
        warming = observation.steady - self._out.get(service, -math.inf) < WARM_UP_SECONDS
        found = track(minutes, self._target, ready, workload.replicas, warming)
        if found.out:
            self._out[service] = observation.steady
        return Proposal(float(found.replicas), Reason.RULE)
