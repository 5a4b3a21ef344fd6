"""The policy `static`: replicas that are set by hand."""

from __future__ import annotations

from collections.abc import Mapping

from deepscaler.policies.base import Observation, Policy, Proposal, Reason


class StaticPolicy(Policy):
    """Proposes the `replicas` of a service, or its current ones if there are none.

    It needs no metrics, and no guard rails of a changing target: a constant needs no tolerance and no
    stabilization.
    """

    name = "static"
    history_seconds = 0.0
    guarded = False

    def __init__(self, replicas: Mapping[str, int], period_seconds: float) -> None:
        self.period_seconds = period_seconds
        self._replicas = dict(replicas)

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """The same replicas at every tick."""
        return {
            workload.service: Proposal(
                float(self._replicas.get(workload.service, workload.replicas)), Reason.STATIC
            )
            for workload in observation.workloads
        }
