"""From the pods of a workload to usage against a target: which pods count, their requests, the ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from deepscaler.errors import MetricsError
from deepscaler.policies.hpa.spec import Flags, Metric


@dataclass(frozen=True)
class Sample:
    """One PodMetrics item: container -> resource -> mean usage over the `window_seconds` before `time`."""

    usage: Mapping[str, Mapping[str, int]]
    time: float
    window_seconds: float


@dataclass(frozen=True)
class HpaPod:
    """What an HPA reads of a pod.

    Attributes:
        phase: Pending, Running, Succeeded, Failed or Unknown.
        deleting: whether deletionTimestamp is set.
        ready: status of the Ready condition (True, False or Unknown); None if the pod has none.
        ready_since: lastTransitionTime of that condition.
        requests: container -> resource -> request; restartable init containers are containers too.
        pod_requests: requests on the level of the pod, if set.
        sample: usage of the pod; None if the metrics server knows nothing of it.
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


def resource_metrics(
    pods: Sequence[HpaPod], metric: Metric, strangers: Mapping[str, PodMetric] | None = None
) -> dict[str, PodMetric]:
    """Usage of every pod that has a metric: the sum over its containers, or that of the named one.

    Args:
        pods: all pods of the workload.
        metric: names the resource, and the container if only one counts.
        strangers: metrics that the API returns for pods that aren't in the list.

    Raises:
        MetricsError: the metrics API returned no item at all.

    Source: GetResourceMetric, getPodMetrics, getContainerMetrics.
    """
    found = dict(strangers or {})
    items = [(pod.name, pod.sample) for pod in pods if pod.sample is not None]
    if not items and not found:
        raise MetricsError(
            f"unable to get metrics for resource {metric.resource}: "
            "no metrics returned from resource metrics API"
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
    """How many pods count, and the names of those that don't, by why they don't."""

    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def group_pods(
    pods: Sequence[HpaPod], metrics: Mapping[str, PodMetric], resource: str, flags: Flags, now: float
) -> Groups:
    """Sort pods into ready (they count), unready, missing and ignored. Readiness matters for CPU only.

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
    """Request of every pod, including those that are being deleted or failed.

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


class Usage(NamedTuple):
    """Usage relative to its target, with the integers that a status shows."""

    ratio: float
    utilization: int | None
    average: int


def resource_utilization(usage: Mapping[str, int], requests: Mapping[str, int], target: int) -> Usage:
    """Usage in whole percent of the requests, and its ratio to the target.

    The percentage is one integer division of totals, not a mean of ratios.

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
    """The average usage as a whole number, and its ratio to the target; pods not in the list count, too.

    Source: GetMetricUsageRatio.
    """
    average = sum(usage.values()) // len(usage)
    return Usage(average / target, None, average)
