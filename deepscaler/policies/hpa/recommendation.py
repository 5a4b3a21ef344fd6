"""From usage to a recommendation: the replicas that the metrics ask for, before limits and history."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from deepscaler.errors import MetricsError
from deepscaler.policies.hpa.spec import HpaSpec, Metric
from deepscaler.policies.hpa.usage import (
    Groups,
    HpaPod,
    PodMetric,
    Usage,
    group_pods,
    metric_usage,
    pod_requests,
    resource_metrics,
    resource_utilization,
)


class Tolerances(NamedTuple):
    """Relative deviations from the target up to which nothing changes."""

    down: float
    up: float

    def hold(self, ratio: float) -> bool:
        """Whether the ratio is near enough to 1 to change nothing; the edges are."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


def tolerances_for(spec: HpaSpec) -> Tolerances:
    """The tolerance of each direction of `behavior`, or else the controller's flag.

    Source: tolerancesForHpa.
    """
    up = spec.behavior.up.tolerance if spec.behavior else None
    down = spec.behavior.down.tolerance if spec.behavior else None
    return Tolerances(
        spec.flags.tolerance if down is None else down, spec.flags.tolerance if up is None else up
    )


def metric_replicas(
    spec: HpaSpec,
    metric: Metric,
    current: int,
    pods: Sequence[HpaPod],
    now: float,
    *,
    strangers: Mapping[str, PodMetric] | None = None,
) -> tuple[int, Usage]:
    """Replicas that one metric asks for, and the usage that it reports, without limits and history.

    Args:
        spec: the HPA, for its tolerances and flags.
        metric: what is measured, and its target.
        current: `spec.replicas`.
        pods: all pods that match the selector, whatever their state.
        now: seconds on the pods' clock.
        strangers: see `resource_metrics`.

    Raises:
        MetricsError: no usable metric, a request is missing, or nobody serves such metrics.

    Source: GetResourceReplicas, GetRawResourceReplicas, calcPlainMetricReplicas.
    """
    if metric.custom:
        served_by = "external" if metric.custom == "External" else "custom"
        raise MetricsError(
            f"unable to get metric {metric.resource}: unable to fetch metrics from {served_by} metrics API: "
            "no known available metric versions found"
        )
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
        # `current` isn't looked at here: with fewer ready pods than replicas the result may go the other way.
        # ceil(ratio * n) on float64 in this order: 22 % at target 10 with 25 pods is 56, not 55.
        return (current if tolerances.hold(first.ratio) else math.ceil(first.ratio * groups.ready)), first
    filled = _filled(usage, first.ratio, groups, assumed)
    return _cautious(current, first.ratio, compare(filled).ratio, len(filled), tolerances), first


def _filled(
    usage: Mapping[str, int], ratio: float, groups: Groups, assumed: Mapping[str, int]
) -> dict[str, int]:
    """Usage with unknown pods filled in, to work against the change; none are at a ratio of exactly 1."""
    if ratio < 1.0:
        return {**usage, **assumed}
    if ratio > 1.0:
        return {**usage, **dict.fromkeys(groups.missing | groups.unready, 0)}
    return dict(usage)


def _cautious(current: int, first: float, ratio: float, entries: int, tolerances: Tolerances) -> int:
    """Replicas by the ratio of the filled set; the current ones if filling turned the change around."""
    crossed = first < 1.0 < ratio or ratio < 1.0 < first
    replicas = math.ceil(ratio * entries)
    turned = (ratio < 1.0 and replicas > current) or (ratio > 1.0 and replicas < current)
    return current if tolerances.hold(ratio) or crossed or turned else replicas


@dataclass(frozen=True)
class Measured:
    """What all metrics of an HPA together ask for.

    Attributes:
        replicas: the recommendation; None if the metrics that failed forbid one.
        metric: description of the metric that decided.
        usages: one per metric, None for one that failed.
        failed: why the first failing metric failed; None if none failed.
        failed_reason: reason of the condition for that failure.
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
    """The largest number that any metric asks for. If a metric fails, the others may not scale down.

    Source: computeReplicasForMetrics.
    """
    best, name, failed, failed_reason = 0, "", None, ""
    usages: list[Usage | None] = []
    for metric in spec.metrics:
        try:
            replicas, usage = metric_replicas(spec, metric, current, pods, now, strangers=strangers)
        except MetricsError as error:
            usages.append(None)
            if failed is None:
                failed = f"failed to get {metric.value}: {error}"
                failed_reason = f"FailedGet{metric.kind}Metric"
            continue
        usages.append(usage)
        if replicas > best or not name:
            best = replicas
            name = f"{metric.resource} resource" + (
                " utilization (percentage of request)" if metric.utilization is not None else ""
            )
    usable = any(usages) and (failed is None or best >= current)
    return Measured(best if usable else None, name, tuple(usages), failed, failed_reason)
