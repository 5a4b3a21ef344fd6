"""The Kubernetes HorizontalPodAutoscaler's decision (autoscaling/v2, v1.36) as pure functions.

    measured = measure(spec, current, pods, now)                  # pods and their metrics -> a recommendation
    decision = reconcile(spec, state, current, measured, now)     # limits, windows, rates -> replicas
    state = decision.state                                               # and, once the replicas are written:
    state = store_scale_event(state, spec, current, decision.target, now)

Amounts are integers in one unit a resource (millicores; any unit of memory), times are seconds on one clock. Nothing here
reads a clock, calls a server or logs. A `Source:` names the function of Kubernetes v1.36 pkg/controller/podautoscaler whose
behaviour is meant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from deepscaler.errors import MetricsError

Document = Mapping[str, Any]


# ------------------------------------------------------------------------------------------------- what the rules look at
@dataclass(frozen=True)
class Flags:
    """Flags of the controller, with Kubernetes' defaults.

    Source: RecommendedDefaultHPAControllerConfiguration.
    """

    downscale_stabilization_seconds: float = 300.0
    tolerance: float = 0.1
    cpu_initialization_seconds: float = 300.0
    initial_readiness_seconds: float = 30.0


@dataclass(frozen=True)
class Metric:
    """A Resource metric, or a ContainerResource metric where `container` is set; one of the two targets is set.

    Attributes:
        utilization: target, percent of the request.
        average_value: target, the resource's unit a pod.
    """

    resource: str
    utilization: int | None = None
    average_value: int | None = None
    container: str | None = None


@dataclass(frozen=True)
class RatePolicy:
    """At most `value` pods or percent in `period_seconds`."""

    kind: str
    value: int
    period_seconds: int


@dataclass(frozen=True)
class ScalingRules:
    """One direction of `spec.behavior`, its defaults filled in; a window of None is the controller's flag."""

    window_seconds: float | None
    select: str
    policies: tuple[RatePolicy, ...]
    tolerance: float | None = None


@dataclass(frozen=True)
class Behavior:
    """`spec.behavior`."""

    up: ScalingRules
    down: ScalingRules


@dataclass(frozen=True)
class HpaSpec:
    """`spec` of one HorizontalPodAutoscaler, and the flags of the controller that runs it."""

    min_replicas: int
    max_replicas: int
    metrics: tuple[Metric, ...]
    behavior: Behavior | None = None
    flags: Flags = field(default_factory=Flags)


@dataclass(frozen=True)
class Sample:
    """One PodMetrics item: container -> resource -> usage, the mean over the `window_seconds` before `time`."""

    usage: Mapping[str, Mapping[str, int]]
    time: float
    window_seconds: float


@dataclass(frozen=True)
class HpaPod:
    """What the autoscaler reads of a pod.

    Attributes:
        phase: Pending, Running, Succeeded, Failed or Unknown.
        deleting: deletionTimestamp is set.
        ready: status of the Ready condition, True, False or Unknown; None without one.
        ready_since: its lastTransitionTime.
        requests: container -> resource -> request; restartable init containers are containers too.
        pod_requests: requests on the level of the pod, where set.
        sample: None where the metrics server knows nothing of it.
    """

    name: str
    phase: str
    deleting: bool
    start_time: float | None
    ready: str | None
    ready_since: float
    requests: Mapping[str, Mapping[str, int]]
    sample: Sample | None
    pod_requests: Mapping[str, int] | None = None


class PodMetric(NamedTuple):
    """Usage of one pod."""

    value: int
    time: float
    window_seconds: float


# --------------------------------------------------------------------------------------------- from metrics to a proposal
def resource_metrics(
    pods: Sequence[HpaPod], metric: Metric, strangers: Mapping[str, PodMetric] | None = None
) -> dict[str, PodMetric]:
    """Usage of every pod that has it: the sum over its containers, or the named one's.

    Args:
        pods: all pods of the workload.
        metric: which resource, and which container.
        strangers: metrics the API returns for pods that aren't in the list.

    Raises:
        MetricsError: the metrics API returned no item at all.

    Source: GetResourceMetric, getPodMetrics, getContainerMetrics.
    """
    found = dict(strangers or {})
    items = [(pod.name, pod.sample) for pod in pods if pod.sample is not None]
    if not items and not found:
        raise MetricsError(
            f"unable to get metrics for resource {metric.resource}: no metrics returned from resource metrics API"
        )
    for name, sample in items:
        chosen = (
            sample.usage
            if metric.container is None
            else {metric.container: sample.usage.get(metric.container, {})}
        )
        if chosen and all(metric.resource in usage for usage in chosen.values()):
            total = sum(usage[metric.resource] for usage in chosen.values())
            found[name] = PodMetric(total, sample.time, sample.window_seconds)
    return found


@dataclass(frozen=True)
class Groups:
    """How many pods are counted, and the names of the others."""

    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def group_pods(
    pods: Sequence[HpaPod], metrics: Mapping[str, PodMetric], resource: str, flags: Flags, now: float
) -> Groups:
    """Sort pods into counted, unready, missing and ignored. Only CPU looks at readiness.

    Source: groupPods.
    """
    ready, unready, missing, ignored = 0, set(), set(), set()
    for pod in pods:
        if pod.deleting or pod.phase == "Failed":
            ignored.add(pod.name)
        elif pod.phase == "Pending":
            unready.add(pod.name)
        elif pod.name not in metrics:
            missing.add(pod.name)
        elif resource == "cpu" and _is_unready(pod, metrics[pod.name], flags, now):
            unready.add(pod.name)
        else:
            ready += 1
    return Groups(ready, frozenset(unready), frozenset(missing), frozenset(ignored))


def _is_unready(pod: HpaPod, metric: PodMetric, flags: Flags, now: float) -> bool:
    if pod.ready is None or pod.start_time is None:
        return True
    if pod.start_time + flags.cpu_initialization_seconds > now:
        return pod.ready == "False" or metric.time < pod.ready_since + metric.window_seconds
    # Once the initialization period is over, only a pod that was never ready is left out.
    return pod.ready == "False" and pod.start_time + flags.initial_readiness_seconds > pod.ready_since


def pod_requests(pods: Sequence[HpaPod], resource: str, container: str | None = None) -> dict[str, int]:
    """Request of every pod, deleted and failed ones included.

    Raises:
        MetricsError: a container that counts has no request, or the named one isn't there.

    Source: calculateRequests.
    """
    return {pod.name: _pod_request(pod, resource, container) for pod in pods}


def _pod_request(pod: HpaPod, resource: str, container: str | None) -> int:
    if container is None and pod.pod_requests:
        if resource in pod.pod_requests:
            return pod.pod_requests[resource]
        known = [requests[resource] for requests in pod.requests.values() if resource in requests]
        if not known:
            raise MetricsError(f"missing pod-level request for {resource} in Pod {pod.name}")
        return sum(known)
    if container is not None and container not in pod.requests:
        raise MetricsError(f"container {container} not found in Pod {pod.name}")
    total = 0
    for name, requests in pod.requests.items():
        if container in (None, name):
            if resource not in requests:
                raise MetricsError(f"missing request for {resource} in container {name} of Pod {pod.name}")
            total += requests[resource]
    return total


class Tolerances(NamedTuple):
    """Relative deviations from the target that are left alone."""

    down: float
    up: float

    def hold(self, ratio: float) -> bool:
        """Whether the ratio is near enough to 1; the edges are."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


def tolerances_for(spec: HpaSpec) -> Tolerances:
    """`behavior`'s tolerances, each on its own, else the flag.

    Source: tolerancesForHpa.
    """
    up = spec.behavior.up.tolerance if spec.behavior else None
    down = spec.behavior.down.tolerance if spec.behavior else None
    return Tolerances(
        spec.flags.tolerance if down is None else down, spec.flags.tolerance if up is None else up
    )


class Usage(NamedTuple):
    """Usage over target, with the integers that a status shows."""

    ratio: float
    utilization: int | None
    average: int


def resource_utilization(usage: Mapping[str, int], requests: Mapping[str, int], target: int) -> Usage:
    """Ratio of usage to target in whole percent of the requests: one integer division of totals, not a mean of ratios.

    Raises:
        MetricsError: the requests of the pods with a metric add up to nothing.

    Source: GetResourceUtilizationRatio.
    """
    known = [name for name in usage if name in requests]
    total, requested = sum(usage[name] for name in known), sum(requests[name] for name in known)
    if not requested:
        raise MetricsError("no metrics returned matched known pods")
    utilization = 100 * total // requested
    return Usage(utilization / target, utilization, total // len(known))


def metric_usage(usage: Mapping[str, int], target: int) -> Usage:
    """Ratio of the whole-numbered average to target; pods that aren't in the list count too.

    Source: GetMetricUsageRatio.
    """
    average = sum(usage.values()) // len(usage)
    return Usage(average / target, None, average)


def metric_replicas(
    spec: HpaSpec,
    metric: Metric,
    current: int,
    pods: Sequence[HpaPod],
    now: float,
    *,
    strangers: Mapping[str, PodMetric] | None = None,
) -> tuple[int, Usage]:
    """Replicas that one metric asks for, and the usage it reports. Knows no limits and no history.

    Args:
        spec: for its tolerances and flags.
        metric: what is measured and its target.
        current: `spec.replicas`.
        pods: all pods that match the selector, whatever their state.
        now: seconds on the pods' clock.
        strangers: see `resource_metrics`.

    Raises:
        MetricsError: no usable metric, or a request is missing.

    Source: GetResourceReplicas, GetRawResourceReplicas, calcPlainMetricReplicas.
    """
    metrics = resource_metrics(pods, metric, strangers)
    if not pods:
        raise MetricsError("no pods returned by selector while calculating replica count")
    groups = group_pods(pods, metrics, metric.resource, spec.flags, now)
    usage = {
        name: found.value for name, found in metrics.items() if name not in groups.ignored | groups.unready
    }
    if not usage:
        raise MetricsError("did not receive metrics for targeted pods (pods might be unready)")
    compare: Callable[[Mapping[str, int]], Usage]
    if metric.utilization is not None:
        requests = pod_requests(pods, metric.resource, metric.container)
        compare = partial(resource_utilization, requests=requests, target=metric.utilization)
        assumed = {name: requests[name] * max(100, metric.utilization) // 100 for name in groups.missing}
    else:
        assert metric.average_value is not None
        compare = partial(metric_usage, target=metric.average_value)
        assumed = dict.fromkeys(groups.missing, metric.average_value)
    first = compare(usage)
    tolerances = tolerances_for(spec)
    if not groups.missing and not (groups.unready and first.ratio > 1.0):
        # There is no comparison with `current` here: with fewer ready pods than replicas the result may go the other way.
        # ceil(ratio * n) on float64 in this order: 22 % at target 10 with 25 pods is 56, not 55.
        return (current if tolerances.hold(first.ratio) else math.ceil(first.ratio * groups.ready)), first
    filled = _filled(usage, first.ratio, groups, assumed)
    return _cautious(current, first.ratio, compare(filled).ratio, len(filled), tolerances), first


def _filled(
    usage: Mapping[str, int], ratio: float, groups: Groups, assumed: Mapping[str, int]
) -> dict[str, int]:
    """Usage with what isn't known filled in against the direction of the change; at a ratio of exactly 1 nothing is."""
    if ratio < 1.0:
        return {**usage, **assumed}
    if ratio > 1.0:
        return {**usage, **dict.fromkeys(groups.missing | groups.unready, 0)}
    return dict(usage)


def _cautious(current: int, first: float, ratio: float, entries: int, tolerances: Tolerances) -> int:
    """Replicas from the ratio of the filled set, unless filling turned the change around."""
    crossed = first < 1.0 < ratio or ratio < 1.0 < first
    replicas = math.ceil(ratio * entries)
    turned = (ratio < 1.0 and replicas > current) or (ratio > 1.0 and replicas < current)
    return current if tolerances.hold(ratio) or crossed or turned else replicas


@dataclass(frozen=True)
class Measured:
    """What all metrics together ask for.

    Attributes:
        replicas: the recommendation; None where the metrics that failed forbid one.
        metric: description of the metric that decided.
        usages: one a metric, None where it failed.
        failed: why the first failing metric failed; None if none did.
        failed_reason: its condition reason.
    """

    replicas: int | None
    metric: str = ""
    usages: tuple[Usage | None, ...] = ()
    failed: str | None = None
    failed_reason: str = ""


def measure(
    spec: HpaSpec,
    current: int,
    pods: Sequence[HpaPod],
    now: float,
    *,
    strangers: Mapping[str, PodMetric] | None = None,
) -> Measured:
    """The largest proposal of all metrics. Where some fail, it only counts if it isn't a scale-down.

    Source: computeReplicasForMetrics.
    """
    best, name, failed, failed_reason = 0, "", None, ""
    usages: list[Usage | None] = []
    for metric in spec.metrics:
        kind = "usage" if metric.utilization is None else "utilization"
        try:
            replicas, usage = metric_replicas(spec, metric, current, pods, now, strangers=strangers)
        except MetricsError as error:
            usages.append(None)
            if failed is None:
                failed = f"failed to get {metric.resource} {kind}: {error}"
                failed_reason = (
                    "FailedGetResourceMetric"
                    if metric.container is None
                    else "FailedGetContainerResourceMetric"
                )
            continue
        usages.append(usage)
        if replicas > best or not name:
            best = replicas
            name = f"{metric.resource} resource" + (
                " utilization (percentage of request)" if metric.utilization is not None else ""
            )
    usable = any(usages) and (failed is None or best >= current)
    return Measured(best if usable else None, name, tuple(usages), failed, failed_reason)


# ----------------------------------------------------------------------------------------------------- from one sync to all
class Stamped(NamedTuple):
    """A recommendation, or pods added or removed, and when."""

    value: int
    time: float


@dataclass(frozen=True)
class Status:
    """`status` of the HPA. Conditions are `status/reason`, None until they are first set."""

    desired: int = 0
    able_to_scale: str | None = None
    scaling_active: str | None = None
    scaling_limited: str | None = None
    usages: tuple[Usage | None, ...] = ()


@dataclass(frozen=True)
class HpaState:
    """What the controller remembers of one HPA. It is lost when the controller restarts."""

    recommendations: tuple[Stamped, ...] = ()
    scale_ups: tuple[Stamped, ...] = ()
    scale_downs: tuple[Stamped, ...] = ()
    status: Status = field(default_factory=Status)


@dataclass(frozen=True)
class HpaDecision:
    """What one sync decides.

    Attributes:
        target: `spec.replicas` from now on; the current number where nothing is to be done.
        recommendation: the metrics' number before windows and limits, as recorded; None where there was none.
        reason: why it rescales, in the words of the SuccessfulRescale event; empty where it doesn't.
        failed: why the first failing metric failed, even if another one decided; None if none did.
        state: what to remember; rescales are added by `store_scale_event`.
    """

    target: int
    recommendation: int | None
    reason: str
    failed: str | None
    state: HpaState


def reconcile(spec: HpaSpec, state: HpaState, current: int, measured: Measured, now: float) -> HpaDecision:
    """One sync.

    Args:
        spec: the HPA.
        state: what the last sync left.
        current: `spec.replicas` of the workload.
        measured: what the metrics ask for; unused where the limits decide.
        now: seconds on one clock for all syncs.

    Source: reconcileAutoscaler.
    """
    if (
        not state.recommendations
    ):  # recordInitialRecommendation: this alone delays a scale-down after a restart
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
    if spec.behavior is None:
        state, able, limited, target = _normalize(spec, state, current, recommendation, now)
    else:
        state, able, limited, target = _normalize_with_behavior(spec, state, current, recommendation, now)
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


Normalized = tuple[HpaState, str, str, int]
"""State with the recommendation, reason of AbleToScale, condition ScalingLimited, replicas."""


def _limited(stabilized: int, result: int, reason: str) -> str:
    return f"{result != stabilized}/{reason}"


def _record(
    old: tuple[Stamped, ...], new: Stamped, outdated: Callable[[Stamped], bool]
) -> tuple[Stamped, ...]:
    """The list with a new entry: in place of the last outdated one, else at the end, as the controller's memory has it."""
    for index in reversed(range(len(old))):
        if outdated(old[index]):
            return (*old[:index], new, *old[index + 1 :])
    return (*old, new)


def scale_up_limit(current: int) -> int:
    """Most replicas of one sync without `behavior`.

    Source: calculateScaleUpLimit.
    """
    return max(2 * current, 4)


def _normalize(spec: HpaSpec, state: HpaState, current: int, recommendation: int, now: float) -> Normalized:
    """Without `spec.behavior`: the highest recommendation of the window, then the limits. An age equal to it counts.

    Source: normalizeDesiredReplicas, stabilizeRecommendation, convertDesiredReplicasWithRules.
    """
    cutoff = now - spec.flags.downscale_stabilization_seconds
    stabilized = max([recommendation, *(value for value, time in state.recommendations if time >= cutoff)])
    recorded = _record(state.recommendations, Stamped(recommendation, now), lambda entry: entry.time < cutoff)
    state = replace(state, recommendations=recorded)
    able = "ReadyForNewScale" if stabilized == recommendation else "ScaleDownStabilized"
    limit = scale_up_limit(current)
    cap, why = (
        (limit, "ScaleUpLimit") if spec.max_replicas > limit else (spec.max_replicas, "TooManyReplicas")
    )
    if stabilized < spec.min_replicas:
        return state, able, _limited(stabilized, spec.min_replicas, "TooFewReplicas"), spec.min_replicas
    if stabilized > cap:
        return state, able, _limited(stabilized, cap, why), cap
    return state, able, _limited(stabilized, stabilized, "DesiredWithinRange"), stabilized


def _normalize_with_behavior(
    spec: HpaSpec, state: HpaState, current: int, recommendation: int, now: float
) -> Normalized:
    """With `spec.behavior`: the windows of both directions, then the rates, then the limits.

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
    return state, able, _limited(stabilized, result, reason), result


def _stabilize_with_behavior(
    spec: HpaSpec, state: HpaState, current: int, recommendation: int, now: float
) -> tuple[HpaState, int]:
    """`current`, moved into the range of the recommendations younger than each window. An age equal to a window is out.

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
    recorded = _record(
        state.recommendations, Stamped(recommendation, now), lambda entry: entry.time < min(up, down)
    )
    return replace(state, recommendations=recorded), min(max(current, low), high)


def rate_limit(rules: ScalingRules, direction: int, current: int, state: HpaState, now: float) -> int:
    """Farthest replicas that the policies of one direction (+1 up, -1 down) allow.

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
    """Pods of the events younger than the period.

    Source: getReplicasChangePerPeriod.
    """
    return sum(value for value, time in events if time > now - period_seconds)


def store_scale_event(state: HpaState, spec: HpaSpec, before: int, after: int, now: float) -> HpaState:
    """The state once this HPA's rescale is written. Without `behavior` nothing is kept.

    One event of the direction that is older than its longest period is overwritten, even if a longer period of the other
    direction would still have counted it.

    Source: storeScaleEvent, markScaleEventsOutdated.
    """
    if spec.behavior is None or after == before:
        return state
    rules = spec.behavior.up if after > before else spec.behavior.down
    cutoff = now - max(policy.period_seconds for policy in rules.policies)
    events = state.scale_ups if after > before else state.scale_downs
    events = _record(events, Stamped(abs(after - before), now), lambda event: event.time < cutoff)
    return replace(state, scale_ups=events) if after > before else replace(state, scale_downs=events)
