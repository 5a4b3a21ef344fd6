"""The policy `reactive_holistic` and the reactive floor: the `required` rule on the present request rates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from deepscaler.cluster import Pod, Workload
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.rule import present_requirement, requirement_from_usage
from deepscaler.policies.base import Observation, Policy, Proposal, Reason
from deepscaler.settings import Floor

HISTORY_SECONDS = 60.0


class ReactiveFloor:
    """Computes the replicas that the present load needs, for all services at once.

    Args:
        model: the demand fit; None if there is none. Services that it can't size (they are new, their CPU was
            never seen, or their requests are missing now) are sized by the cores that they use, over rho_max
            of their limits.
        settings: the stretch of time that the rate is taken over, and rho_max.
    """

    def __init__(self, model: DemandModel | None, settings: Floor) -> None:
        self._model = model
        self._settings = settings
        self.history_seconds = max(HISTORY_SECONDS, settings.seconds)

    def replicas(self, observation: Observation) -> dict[str, float]:
        """Whole numbers of replicas by service; services with too little data are left out."""
        panel, rule = observation.panel, self._settings
        if not len(panel):
            return {}
        found: dict[str, float] = {}
        if {"cpu", "pod"} <= set(panel.features):
            found.update(
                zip(
                    panel.services,
                    requirement_from_usage(panel, rule.seconds, rule.rho_max).tolist(),
                    strict=True,
                )
            )
        if self._model is not None and {"req", "res"} <= set(panel.features):
            needed = present_requirement(self._model, panel, rule.seconds, rule.rho_max)
            live = set(panel.services)
            known = zip(self._model.services, needed.tolist(), strict=True)
            found.update(
                (service, value) for service, value in known if service in live and math.isfinite(value)
            )
        return {
            service: float(math.ceil(value - 1e-9))
            for service, value in found.items()
            if math.isfinite(value)
        }


class ReactivePolicy(Policy):
    """The reactive floor as a policy of its own: it sizes all services at once, without a forecast."""

    guarded = True

    def __init__(
        self, floor: ReactiveFloor, period_seconds: float = 15.0, name: str = "reactive_holistic"
    ) -> None:
        self.name = name
        self.period_seconds = period_seconds
        self.history_seconds = floor.history_seconds
        self._floor = floor

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """The floor of every service; services without data are held."""
        floors = self._floor.replicas(observation)
        held = {workload.service: Proposal(None, Reason.HELD_MISSING) for workload in observation.workloads}
        return {
            **held,
            **{service: Proposal(value, Reason.FLOOR, floor=value) for service, value in floors.items()},
        }


def usage_floor(
    workloads: Sequence[Workload], pods: Sequence[Pod], now: float, fresh_seconds: float, rho_max: float
) -> dict[str, float]:
    """Replicas by the cores that pods use now, over rho_max of the limit, for when Prometheus can't be read.

    Services without a limit (or else a request), or without a sample of at most `fresh_seconds`, are left
    out.
    """
    cores: dict[str, float] = {}
    for pod in pods:
        fresh = pod.usage_time is not None and now - pod.usage_time <= fresh_seconds
        if not pod.deleting and pod.usage_cores is not None and fresh and np.isfinite(pod.usage_cores):
            cores[pod.service] = cores.get(pod.service, 0.0) + pod.usage_cores
    limits = {
        workload.service: workload.cpu_limit_cores or workload.cpu_request_cores for workload in workloads
    }
    sized = [(service, used, limit) for service, used in cores.items() if (limit := limits.get(service))]
    return {
        service: float(max(math.ceil(used / (rho_max * limit) - 1e-6), 1)) for service, used, limit in sized
    }
