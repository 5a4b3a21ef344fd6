"""From a recommendation to replicas: stabilization windows, rates of change, and the limits of the spec."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from deepscaler.policies.hpa.spec import HpaSpec, ScalingRules
from deepscaler.policies.hpa.state import HpaState, Stamped, recorded


class Normalized(NamedTuple):
    """A recommendation after all limits.

    Attributes:
        state: the state that remembers the recommendation.
        able: reason of the condition AbleToScale.
        limited: the condition ScalingLimited.
        target: replicas.
    """

    state: HpaState
    able: str
    limited: str
    target: int


def normalize(spec: HpaSpec, state: HpaState, current: int, recommendation: int, now: float) -> Normalized:
    """Apply the windows, the rates and the limits of the spec to a recommendation."""
    rules = _normalize if spec.behavior is None else _normalize_with_behavior
    return rules(spec, state, current, recommendation, now)


def _limited(stabilized: int, result: int, reason: str) -> str:
    return f"{result != stabilized}/{reason}"


def scale_up_limit(current: int) -> int:
    """The most replicas that one sync may set without `behavior`.

    Source: calculateScaleUpLimit.
    """
    return max(2 * current, 4)


def _normalize(spec: HpaSpec, state: HpaState, current: int, recommendation: int, now: float) -> Normalized:
    """Without `spec.behavior`: take the highest recommendation of the window, then apply the limits.

    A recommendation exactly as old as the window still counts.

    Source: normalizeDesiredReplicas, stabilizeRecommendation, convertDesiredReplicasWithRules.
    """
    cutoff = now - spec.flags.downscale_stabilization_seconds
    stabilized = max([recommendation, *(value for value, time in state.recommendations if time >= cutoff)])
    kept = recorded(state.recommendations, Stamped(recommendation, now), lambda entry: entry.time < cutoff)
    state = replace(state, recommendations=kept)
    able = "ReadyForNewScale" if stabilized == recommendation else "ScaleDownStabilized"
    limit = scale_up_limit(current)
    cap, why = (
        (limit, "ScaleUpLimit") if spec.max_replicas > limit else (spec.max_replicas, "TooManyReplicas")
    )
    if stabilized < spec.min_replicas:
        return Normalized(
            state, able, _limited(stabilized, spec.min_replicas, "TooFewReplicas"), spec.min_replicas
        )
    if stabilized > cap:
        return Normalized(state, able, _limited(stabilized, cap, why), cap)
    return Normalized(state, able, _limited(stabilized, stabilized, "DesiredWithinRange"), stabilized)


def _normalize_with_behavior(
    spec: HpaSpec, state: HpaState, current: int, recommendation: int, now: float
) -> Normalized:
    """With `spec.behavior`: apply the windows of both directions, then the rates, then the limits.

    Source: normalizeDesiredReplicasWithBehaviors, convertDesiredReplicasWithBehaviorRate.
    """
    assert spec.behavior is not None
    state, stabilized = _stabilize_with_behavior(spec, state, current, recommendation, now)
    direction = "ScaleUpStabilized" if recommendation >= current else "ScaleDownStabilized"
    able = "ReadyForNewScale" if stabilized == recommendation else direction
    result, reason = stabilized, "DesiredWithinRange"
    if stabilized > current:
        limit = max(current, rate_limit(spec.behavior.up, +1, current, state, now))
        cap, why = (
            (limit, "ScaleUpLimit") if spec.max_replicas > limit else (spec.max_replicas, "TooManyReplicas")
        )
        if stabilized > cap:
            result, reason = cap, why
    elif stabilized < current:
        limit = min(current, rate_limit(spec.behavior.down, -1, current, state, now))
        floor, why = (
            (limit, "ScaleDownLimit") if spec.min_replicas < limit else (spec.min_replicas, "TooFewReplicas")
        )
        if stabilized < floor:
            result, reason = floor, why
    return Normalized(state, able, _limited(stabilized, result, reason), result)


def _stabilize_with_behavior(
    spec: HpaSpec, state: HpaState, current: int, recommendation: int, now: float
) -> tuple[HpaState, int]:
    """`current`, moved into the range of the recommendations within the window of each direction.

    A recommendation exactly as old as a window no longer counts.

    Source: stabilizeRecommendationWithBehaviors, maybeInitScaleDownStabilizationWindow.
    """
    assert spec.behavior is not None
    up, down = (
        now
        - (
            spec.flags.downscale_stabilization_seconds
            if rules.window_seconds is None
            else rules.window_seconds
        )
        for rules in (spec.behavior.up, spec.behavior.down)
    )
    low = min([recommendation, *(value for value, time in state.recommendations if time > up)])
    high = max([recommendation, *(value for value, time in state.recommendations if time > down)])
    kept = recorded(
        state.recommendations, Stamped(recommendation, now), lambda entry: entry.time < min(up, down)
    )
    return replace(state, recommendations=kept), min(max(current, low), high)


def rate_limit(rules: ScalingRules, direction: int, current: int, state: HpaState, now: float) -> int:
    """How far the policies of one direction (+1 up, -1 down) allow the replicas to go.

    Source: calculateScaleUpLimitWithScalingRules, calculateScaleDownLimitWithBehaviors.
    """
    if rules.select == "Disabled":
        return current
    proposals = []
    for policy in rules.policies:
        added, removed = (
            changed_within(policy.period_seconds, events, now)
            for events in (state.scale_ups, state.scale_downs)
        )
        base = current - added + removed
        if policy.kind == "Pods":
            proposals.append(base + direction * policy.value)
        elif direction > 0:
            proposals.append(math.ceil(base * (1 + policy.value / 100)))  # float64: 50 + 10 % is 56
        else:
            proposals.append(int(base * (1 - policy.value / 100)))  # toward zero: 10 - 90 % is 0
    largest_change = rules.select != "Min"
    return max(proposals) if largest_change == (direction > 0) else min(proposals)


def changed_within(period_seconds: float, events: Collection[Stamped], now: float) -> int:
    """Number of pods that the events within the period added or removed.

    Source: getReplicasChangePerPeriod.
    """
    return sum(value for value, time in events if time > now - period_seconds)


def store_scale_event(state: HpaState, spec: HpaSpec, before: int, after: int, now: float) -> HpaState:
    """The state after a rescale of this HPA was written. Without `behavior` nothing is remembered.

    The new event overwrites one of its direction that is older than the direction's longest period, even if a
    longer period of the other direction would still have counted that one.

    Source: storeScaleEvent, markScaleEventsOutdated.
    """
    if spec.behavior is None or after == before:
        return state
    rules = spec.behavior.up if after > before else spec.behavior.down
    cutoff = now - max(policy.period_seconds for policy in rules.policies)
    events = state.scale_ups if after > before else state.scale_downs
    events = recorded(events, Stamped(abs(after - before), now), lambda event: event.time < cutoff)
    return replace(state, scale_ups=events) if after > before else replace(state, scale_downs=events)
