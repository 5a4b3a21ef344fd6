"""What a policy proposes, and what stands in where the data of a service can't be trusted."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from deepscaler.cluster import Pod, Workload
from deepscaler.control.quality import Quality
from deepscaler.control.recorder import Statistics
from deepscaler.errors import MetricsError
from deepscaler.policies.base import Observation, Policy, Proposal, Reason
from deepscaler.policies.reactive import usage_floor
from deepscaler.settings import Scale

log = logging.getLogger(__name__)


def trusted_proposals(
    policy: Policy, observation: Observation, quality: Quality, scale: Scale, statistics: Statistics
) -> dict[str, Proposal]:
    """The proposals of the policy; services whose data can't be trusted are held instead.

    Only the cores that its pods use now may raise the replicas of a service that is held.

    Args:
        policy: is asked, unless all services are held.
        observation: what it decides by.
        quality: which services are held by their metrics.
        scale: settings.
        statistics: where services that are held and failures to read metrics are counted.
    """
    proposals: dict[str, Proposal] = {}
    running = {item.service: item.replicas for item in observation.workloads if item.replicas > 0}
    seen: list[Workload | Pod] = [*observation.workloads, *observation.pods]
    unsound = {item.service for item in seen if item.unsound and item.service in running}
    held = {**quality.held, **dict.fromkeys(sorted(unsound), Reason.HELD_UNSOUND)}
    if set(running) - set(held):
        try:
            proposals = dict(policy.decide(observation))
        except MetricsError as error:
            statistics.metrics_failures += 1
            log.error("%s can't decide: %s", policy.name, error)
            held.update(dict.fromkeys(running, Reason.HELD_MISSING))
    floors = _usage_floors(observation, scale) if held else {}
    for service, reason in held.items():
        floor = floors.get(service)
        if floor is not None and floor > running[service]:
            proposals[service] = Proposal(floor, Reason.FLOOR, floor=floor)
        else:
            proposals[service] = Proposal(None, reason, floor=floor)
    statistics.held += len(held)
    return proposals


def _usage_floors(observation: Observation, scale: Scale) -> Mapping[str, float]:
    if not scale.floor.enabled:
        return {}
    return usage_floor(
        observation.workloads, observation.pods, observation.now, scale.stale_after, scale.floor.fixed_rho_max
    )
