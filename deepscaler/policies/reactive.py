"""The policy `reactive_holistic` and the reactive floor: the `required` rule on the present request rates."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deepscaler.cluster import Pod, Workload
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.rule import present_requirement, requirement_from_usage
from deepscaler.logs import OnChange
from deepscaler.policies.base import Observation, Policy, Proposal, Reason, containers_of
from deepscaler.settings import Floor

HISTORY_SECONDS = 60.0
_SAME_LIMIT = 0.01
"""Limits that differ by less than this share are the same."""
log = logging.getLogger(__name__)


class ReactiveFloor:
    """Computes the replicas that the present load needs, for all services at once.

    Args:
        model: the demand fit; None if there is none. Services that it can't size (they are new, their CPU was
            never seen, or their requests are missing now) are sized by the cores that they use, over rho_max
            of their limits. A limit that has changed since the fit is replaced by the live one.
        settings: the stretch of time that the rate is taken over, and rho_max.
    """

    def __init__(self, model: DemandModel | None, settings: Floor) -> None:
        self._model = model
        self._on_change = OnChange(log)
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
                    requirement_from_usage(
                        panel, rule.seconds, rule.fixed_rho_max, containers_of(observation)[0]
                    ).tolist(),
                    strict=True,
                )
            )
        if self._model is not None and {"req", "res"} <= set(panel.features):
            model = self._at_live_limits(self._model, observation.workloads)
            needed = present_requirement(model, panel, rule.seconds, rule.stated_rho_max)
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

    def _at_live_limits(self, model: DemandModel, workloads: Sequence[Workload]) -> DemandModel:
        """The fit with the limits that replicas have now, where they differ from those of the data."""
        limits = limits_now(model, workloads)
        for service, then, now in zip(model.services, model.limit_cores, limits, strict=True):
            if now == then:
                self._on_change.well(service, f"{service}: its replicas have the fit's CPU limit again")
                continue
            self._on_change.trouble(
                service,
                f"{service}: its replicas have {now:g} cores, the demand was fitted at {then:g}: it is sized "
                "by the live limit; collect and train anew, so that the forecast knows it too",
            )
        return replace(model, limit_cores=limits)


def limits_now(model: DemandModel, workloads: Sequence[Workload]) -> NDArray[np.float64]:
    """CPU limits `[N]` of the replicas that run, in cores; those of the fit if unknown or nearly the same."""
    live = {item.service: item.cpu_limit_cores or item.cpu_request_cores for item in workloads}
    limits = model.limit_cores.copy()
    for column, service in enumerate(model.services):
        now = live.get(service)
        if now and abs(now - limits[column]) > _SAME_LIMIT * limits[column]:
            limits[column] = now
    return limits


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


class FrontPolicy(ReactivePolicy):
    """The reactive floor for the services that users' requests reach; all others keep their replicas."""

    def __init__(
        self,
        floor: ReactiveFloor,
        entries: Collection[str],
        period_seconds: float = 15.0,
        name: str = "reactive_front",
    ) -> None:
        super().__init__(floor, period_seconds, name)
        self._entries = frozenset(entries)

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """The floor of the entries, and the present replicas of the others."""
        held = Proposal(None, Reason.UNCHANGED)
        found = super().decide(observation)
        return {service: item if service in self._entries else held for service, item in found.items()}


class OneByOnePolicy(ReactivePolicy):
    """The reactive floor for one service at a time, as people scale who look for the one cause.

    Once per `seconds`, the service that is furthest from its floor gets it; the others keep their replicas.
    """

    def __init__(
        self,
        floor: ReactiveFloor,
        period_seconds: float = 15.0,
        name: str = "reactive_one_by_one",
        seconds: float = 60.0,
    ) -> None:
        super().__init__(floor, period_seconds, name)
        self._seconds, self._acted = seconds, -math.inf

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """The floor of one service, and the present replicas of the others."""
        found = dict(super().decide(observation))
        now = {workload.service: workload.replicas for workload in observation.workloads}
        gaps = {
            service: item.target - now[service]
            for service, item in found.items()
            if service in now and item.target is not None and item.target != now[service]
        }
        due = observation.steady - self._acted >= self._seconds - 1e-6
        chosen = max(gaps, key=lambda service: gaps[service]) if gaps and due else None
        if chosen is not None:
            self._acted = observation.steady
        held = {service: Proposal(None, Reason.UNCHANGED) for service in gaps if service != chosen}
        return {**found, **held}


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
