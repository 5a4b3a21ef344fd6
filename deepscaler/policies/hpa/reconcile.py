"""One sync of an HPA: from what its metrics ask for to the replicas that it sets, and what it remembers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from deepscaler.policies.hpa.limits import normalize
from deepscaler.policies.hpa.recommendation import Measured
from deepscaler.policies.hpa.spec import HpaSpec
from deepscaler.policies.hpa.state import HpaState, Stamped, Status


@dataclass(frozen=True)
class HpaDecision:
    """The decision of one sync.

    Attributes:
        target: `spec.replicas` from now on; the current number if nothing is to be done.
        recommendation: what the metrics ask for before windows and limits, as it is remembered; None if
            nothing.
        reason: why it rescales, in the words of the SuccessfulRescale event; empty if it doesn't.
        failed: why the first failing metric failed, even if another one decided; None if none failed.
        state: what to remember until the next sync; `store_scale_event` adds the rescale to it.
    """

    target: int
    recommendation: int | None
    reason: str
    failed: str | None
    state: HpaState


def reconcile(spec: HpaSpec, state: HpaState, current: int, measured: Measured, now: float) -> HpaDecision:
    """Decide what one sync does.

    Args:
        spec: the HPA.
        state: what the last sync left to remember.
        current: `spec.replicas` of the workload.
        measured: what the metrics ask for; it isn't used when the limits decide alone.
        now: seconds on one clock for all syncs.

    Source: reconcileAutoscaler.
    """
    if not state.recommendations:
        # recordInitialRecommendation: this alone delays a scale-down after the controller restarts
        state = replace(state, recommendations=(Stamped(current, now),))
    status = replace(state.status, able_to_scale="True/SucceededGetScale", usages=())
    if current == 0:
        status = replace(status, desired=0, scaling_active="False/ScalingDisabled")
        return HpaDecision(0, None, "", None, replace(state, status=status))
    if current > spec.max_replicas:
        return _rescale(
            state, status, current, spec.max_replicas, "Current number of replicas above Spec.MaxReplicas"
        )
    if current < spec.min_replicas:
        return _rescale(
            state, status, current, spec.min_replicas, "Current number of replicas below Spec.MinReplicas"
        )
    status = replace(status, usages=measured.usages)
    if measured.replicas is None:
        status = replace(status, scaling_active=f"False/{measured.failed_reason}")
        return HpaDecision(current, None, "", measured.failed, replace(state, status=status))
    recommendation = measured.replicas
    state, able, limited, target = normalize(spec, state, current, recommendation, now)
    status = replace(
        status, able_to_scale=f"True/{able}", scaling_active="True/ValidMetricFound", scaling_limited=limited
    )
    reason = f"{measured.metric} above target" if recommendation > current else ""
    reason = "All metrics below target" if recommendation < current else reason
    decision = _rescale(state, status, current, target, reason)
    return replace(decision, recommendation=recommendation, failed=measured.failed)


def _rescale(state: HpaState, status: Status, current: int, target: int, reason: str) -> HpaDecision:
    status = replace(status, desired=target)
    if target != current:
        status = replace(status, able_to_scale="True/SucceededRescale")
    return HpaDecision(target, None, reason if target != current else "", None, replace(state, status=status))
