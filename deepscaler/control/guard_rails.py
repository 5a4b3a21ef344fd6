"""Guard rails: from what a policy proposes to replicas that may be written, each with its reason.

The rails are pure: numbers, limits, history and the time go in, decisions come out. Their order is
opt-outs, pauses, forced values -> tolerance -> scale-down stabilization -> step limits -> min/max -> quota.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from deepscaler.cluster import QuotaClaim, Workload
from deepscaler.control.decision import Decision, Rules, Stance
from deepscaler.control.quotas import Wish, share_out_beside
from deepscaler.control.recommendations import RecommendationHistory, round_replicas
from deepscaler.policies.base import Proposal, Reason
from deepscaler.settings import GuardRails

PAUSE_ANNOTATION = "deepscaler.io/paused"
"""Annotation that keeps a Deployment from being scaled, unless its value is "false", "0", "no" or ""."""
_SLACK = 1e-9


def decide(
    proposals: Mapping[str, Proposal],
    workloads: Sequence[Workload],
    history: RecommendationHistory,
    now: float,
    *,
    rails: GuardRails,
    stance: Stance,
) -> list[Decision]:
    """One decision per workload, in their order; a workload without a proposal is held."""
    nothing = Proposal(None, Reason.UNKNOWN_SERVICE)
    plan = [
        _bounded(proposals.get(workload.service, nothing), workload, history, now, rails=rails, stance=stance)
        for workload in workloads
    ]
    return within_quotas(plan, workloads, rails.quota_cores, stance.fixed)


def cores_of(workload: Workload) -> float:
    """Cores of the quota that one replica takes: its CPU limit, or else its CPU request, or else 0."""
    return workload.cpu_limit_cores or workload.cpu_request_cores or 0.0


def _bounded(
    proposal: Proposal,
    workload: Workload,
    history: RecommendationHistory,
    now: float,
    *,
    rails: GuardRails,
    stance: Stance,
) -> Decision:
    """Apply all rails but the quota to one service."""
    service, current = workload.service, workload.replicas
    alone = left_alone(workload, rails, stance.acting and service not in stance.beside)
    if alone is not None:
        return Decision(service, current, current, alone, current)
    if service in rails.forced:
        value = rails.forced[service]
        return _clamped(Decision(service, current, value, Reason.FORCED, value), rails, {})
    wish = round_replicas(proposal.target, rails.round_up_threshold)
    if wish is None:
        # A forecast that isn't finite is none.
        reason = proposal.reason if proposal.target is None else Reason.HELD_MISSING
        return _clamped(Decision(service, current, current, reason, current), rails, stance.minimums)
    decision = Decision(service, current, wish, proposal.reason, wish)
    if stance.guarded:
        rules = stance.rules.get(service)
        decision = (
            _damped(decision, proposal.planned, history, now, rails=rails, stance=stance)
            if rules is None
            else _ruled(decision, rules, now, rails=rails, stance=stance)
        )
    decision = _clamped(decision, rails, stance.minimums)
    return (
        replace(decision, reason=Reason.UNCHANGED)
        if decision.target == current and decision.reason is proposal.reason
        else decision
    )


def _damped(
    decision: Decision,
    planned: bool,
    history: RecommendationHistory,
    now: float,
    *,
    rails: GuardRails,
    stance: Stance,
) -> Decision:
    """Apply the general tolerance, window and step limits."""
    decision = _tolerated(decision, rails.tolerance)
    troubled = decision.service in stance.no_scale_down
    if troubled or not planned:
        decision = _stabilized(decision, history, now, troubled)
    return _stepped(decision, rails)


def _ruled(decision: Decision, rules: Rules, now: float, *, rails: GuardRails, stance: Stance) -> Decision:
    """Apply the service's own; its windows hold for a plan, too."""
    decision = _tolerated(decision, rules.tolerance(decision.target > decision.current, rails.tolerance))
    if decision.service in stance.no_scale_down and decision.target < decision.current:
        return replace(
            decision, target=decision.current, reason=Reason.HELD_TROUBLE, recommended=decision.current
        )
    target, reason = rules.limit(decision.current, decision.target, now)
    return decision if reason is None else replace(decision, target=target, reason=reason)


def left_alone(workload: Workload, rails: GuardRails, acting: bool) -> Reason | None:
    """Why a workload isn't touched at all (owner's 0, pause or rival autoscaler); None if it may be."""
    if workload.replicas == 0:
        return Reason.SCALED_TO_ZERO
    annotation = workload.annotations.get(PAUSE_ANNOTATION, "false").strip().lower()
    if workload.service in rails.paused or annotation not in ("", "false", "0", "no"):
        return Reason.PAUSED
    return Reason.RIVAL_AUTOSCALER if acting and workload.autoscalers else None


def _tolerated(decision: Decision, tolerance: float) -> Decision:
    """Drop a relative change that lies within the tolerance."""
    change = abs(decision.target - decision.current)
    small = change <= tolerance * decision.current + _SLACK
    return (
        replace(decision, target=decision.current, reason=Reason.WITHIN_TOLERANCE)
        if change and small
        else decision
    )


def _stabilized(decision: Decision, history: RecommendationHistory, now: float, troubled: bool) -> Decision:
    """Let a scale-down go no lower than the highest recommendation of the window, and never up."""
    if decision.target >= decision.current:
        return decision
    if troubled:
        return replace(
            decision, target=decision.current, reason=Reason.HELD_TROUBLE, recommended=decision.current
        )
    highest = history.highest(decision.service, now)
    held = decision.target if highest is None else min(decision.current, highest)
    return replace(decision, target=held, reason=Reason.STABILIZED) if held > decision.target else decision


def _stepped(decision: Decision, rails: GuardRails) -> Decision:
    """Allow at most `max_step_up` more or `max_step_down` fewer replicas at once."""
    low, high = decision.current - rails.max_step_down, decision.current + rails.max_step_up
    limited = min(max(decision.target, low), high)
    return (
        decision
        if limited == decision.target
        else replace(decision, target=limited, reason=Reason.STEP_LIMIT)
    )


def _clamped(decision: Decision, rails: GuardRails, minimums: Mapping[str, int]) -> Decision:
    """Keep the target between the min and max of the service, even if it is held or within tolerance."""
    low, high = rails.bounds(decision.service)
    asked = min(minimums.get(decision.service, 0), high)
    if decision.target < asked and asked > low:
        return replace(decision, target=asked, reason=Reason.CALENDAR)
    if decision.target < low:
        return replace(decision, target=low, reason=Reason.MIN_REPLICAS)
    return replace(decision, target=high, reason=Reason.MAX_REPLICAS) if decision.target > high else decision


def within_quotas(
    plan: Sequence[Decision],
    workloads: Sequence[Workload],
    cores: float | None,
    fixed: Collection[str] = (),
) -> list[Decision]:
    """The plan, with smaller scale-ups where the quotas have no room for all; their reason is `quota`.

    Args:
        plan: one decision per workload.
        workloads: what the services are, and what their replicas take of the cluster's quotas.
        cores: most cores that the limits of all targets may add up to; None: no bound.
        fixed: services whose replicas somebody else decides.
    """
    wishes = {
        workload.service: Wish(
            item.current,
            item.target,
            _pods(workload),
            (*workload.quotas, *_own_quota(workload, workloads, cores)),
        )
        for item, workload in zip(plan, workloads, strict=True)
    }
    granted = share_out_beside(wishes, fixed)
    return [
        replace(item, target=grant.replicas, reason=Reason.QUOTA, bound_by=grant.bound_by)
        if (grant := granted[item.service]).replicas < item.target
        else item
        for item in plan
    ]


def _own_quota(
    workload: Workload, workloads: Sequence[Workload], cores: float | None
) -> tuple[QuotaClaim, ...]:
    """What a replica takes of the quota in the settings."""
    if cores is None:
        return ()
    free = cores - sum(cores_of(item) * _pods(item) for item in workloads)
    return (QuotaClaim("scale.guard_rails.quota_cores", free, cores_of(workload)),)


def _pods(workload: Workload) -> int:
    return workload.replicas if workload.pods is None else workload.pods
