"""`static`: replicas set by hand, or what is."""

from __future__ import annotations

from collections.abc import Mapping

from deepscaler.policies.base import Observation, Policy, Proposal, Reason


class StaticPolicy(Policy):
    """Proposes `replicas` where it names the service, else what is.

    It needs no metrics; tolerance and stabilization have nothing to add to a constant.
    """

    name = "static"
    history_seconds = 0.0
    guarded = False

    def __init__(self, replicas: Mapping[str, int], period_seconds: float) -> None:
        self.period_seconds = period_seconds
        self._replicas = dict(replicas)

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """The same in every tick."""
        return {
            workload.service: Proposal(
                float(self._replicas.get(workload.service, workload.replicas)), Reason.STATIC
            )
            for workload in observation.workloads
        }
