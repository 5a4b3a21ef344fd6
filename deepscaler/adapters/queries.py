"""Built-in PromQL templates.

A template has placeholders, which `Names` fills in. `{namespace}` and `{window}` stand for themselves, and
`{seconds}` are those of the window. The others are escaped lists of alternatives for an anchored `=~"…"`
matcher: `{deployments}`, `{containers}`, `{workloads}`, `{pods}` (pod names, with the Deployment's name as
group 1, or the beginning of a long one as group 2), `{strangers}` (pods that look like those but aren't) and
`{services}` (the names that the query's `label` carries). `{matchers}` are those of
`cluster.prometheus.matchers`, with a comma behind them. Other braces are PromQL's own.

Source: the five templates of the published metrics_fetch.py (irate over one minute, usage by quota/period,
duration by count).
Differs: one query serves all services. `req` counts one report only: the destination's, else its waypoint's.
Pods are known by their owners, or else by name, instead of by container, because upstream Boutique calls
every container `server`.
`pod` counts ready replicas, not running containers. Memory is the working set, which is what a limit acts on.
A limit counts only while its container's usage does, so both sides of a ratio speak of the same pods. A
container that several scrapes report counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from deepscaler.settings import CallsQuery, EntryPart, EntryQuery, Feature, Query

_HERE = '{matchers}namespace="{namespace}"'
_CONTAINER = f'{_HERE},container=~"{{containers}}",pod!~"{{strangers}}"'
_SERVED = (
    '{matchers}reporter="%s",destination_workload_namespace="{namespace}",destination_workload=~"{workloads}"'
)


def _renamed(vector: str, old: str, new: str) -> str:
    return f'label_replace({vector}, "{new}", "$1", "{old}", "(.+)")'


# Which pods belong to which Deployment (or StatefulSet, DaemonSet), as kube-state-metrics knows it.
_BY_REPLICA_SET = f'kube_pod_owner{{{_HERE},owner_kind="ReplicaSet",owner_is_controller="true"}}'
_REPLICA_SETS = f"group by (pod, replicaset) ({_renamed(_BY_REPLICA_SET, 'owner_name', 'replicaset')})"
_OWNED_REPLICA_SETS = f'kube_replicaset_owner{{{_HERE},owner_kind="Deployment",owner_is_controller="true"}}'
_DEPLOYMENTS = (
    f"group by (replicaset, deployment) ({_renamed(_OWNED_REPLICA_SETS, 'owner_name', 'deployment')})"
)
_BY_SET = f'kube_pod_owner{{{_HERE},owner_kind=~"StatefulSet|DaemonSet",owner_is_controller="true"}}'
POD_OWNERS = (
    f"max by (pod, deployment) (({_REPLICA_SETS} * on (replicaset) group_left (deployment) {_DEPLOYMENTS})\n"
    f"or ({_renamed(_BY_SET, 'owner_name', 'deployment')} unless on (deployment) {_DEPLOYMENTS}))"
)
"""One series per pod that has an owner, with the labels `pod` and `deployment`."""
_OWNER_KNOWN = (
    f"(group by (pod) (kube_pod_owner{{{_HERE}}} unless on (pod) {_BY_REPLICA_SET})\n"
    f"or group by (pod) ({_REPLICA_SETS} and on (replicaset) kube_replicaset_owner{{{_HERE}}}))"
)
POD_STRANGERS = f"{_OWNER_KNOWN} unless on (pod) {POD_OWNERS}"
"""One series per pod that belongs to nothing of which a service could have pods, such as a Job."""


def _by_deployment(aggregation: str, vector: str) -> str:
    """The sum, count or maximum by Deployment; the pods' names tell only where no owner is known."""
    nameless = f"{vector} unless on (pod) {_OWNER_KNOWN}"
    named = f'{{whole(}}label_replace({nameless}, "deployment", "$1$2", "pod", "{{pods}}"){{)whole}}'
    owned = f"({vector}) * on (pod) group_left (deployment) {POD_OWNERS}"
    return f"{aggregation} by (deployment) ({owned}\nor {named})"


def _once(vector: str) -> str:
    """One series per container of a pod, however many scrapes, exporters or restarts report it."""
    return f"max by (pod, container) ({vector})"


def _present(function: str, selector: str) -> str:
    """`function` over the window, of the series that exist *now*.

    Otherwise a pod that has vanished would count for the rest of the window.
    """
    return f"({function}({selector}[{{window}}]) and {selector})"


def _stated(kind: str, resource: str) -> str:
    """What kube-state-metrics says of the containers' limits or requests."""
    return _once(f'kube_pod_container_resource_{kind}{{{_CONTAINER},resource="{resource}"}}')


def _limits(resource: str) -> str:
    """Limits of the containers: as cAdvisor sees them enforced, else as kube-state-metrics knows them.

    Shares and `workloads.json` both take their limits from here.
    """
    return f"({_once(_ENFORCED[resource])}\nor {_stated('limits', resource)})"


_DEPLOYMENT = f'{_HERE},deployment=~"{{deployments}}"'
_ENFORCED: Mapping[str, str] = {
    "cpu": f"(container_spec_cpu_quota{{{_CONTAINER}}} > 0) / container_spec_cpu_period{{{_CONTAINER}}}",
    "memory": f"container_spec_memory_limit_bytes{{{_CONTAINER}}} > 0",
}
_CPU_SECONDS = f'container_cpu_usage_seconds_total{{{_CONTAINER},cpu=~"total|"}}'
_USED: Mapping[str, str] = {
    "cpu": _once(_present("irate", _CPU_SECONDS)),
    "memory": _once(_present("last_over_time", f"container_memory_working_set_bytes{{{_CONTAINER}}}")),
}
_RUNNING = _present("last_over_time", f"container_memory_working_set_bytes{{{_CONTAINER}}}")
_CONTAINERS = f"group by (pod) {_RUNNING}"


def _of_the_used(resource: str, vector: str) -> str:
    """The sum by Deployment, over the containers whose usage is known."""
    return _by_deployment("sum", f"{vector} and on (pod, container) {_USED[resource]}")


_SCRAPE = "job, endpoint, metrics_path, prometheus, prometheus_replica, replica"
"""Labels that say who scraped a series, not what it is about."""


def _rate(selector: str) -> str:
    """The increase per second of the window.

    That is what Prometheus calls `rate`. VictoriaMetrics' `rate` is the increase per second of the part of
    the window that has samples, so that pods which come and go would count for all of it.
    """
    return f"(increase({selector}[{{window}}]) / {{seconds}})"


def _newest_rate(selector: str) -> str:
    return _present("irate", selector)


def _reported(labels: str, metric: str, matchers: str = "", over: Callable[[str], str] = _rate) -> str:
    """The sum by `labels` of the rates of an Istio metric; a pod that several scrapes report counts once.

    The sidecars of the destination report, or else (ambient mode) its waypoint. Where series tell their pod,
    their instance only says which of the pod's ports was scraped.
    """

    def by(reporter: str) -> str:
        selector = f"{metric}{{{_SERVED % reporter}{matchers},pod"
        known, unknown = (over(f"{selector}{test}}}") for test in ('!=""', '=""'))
        return (
            f"sum by ({labels}) (max without (instance, {_SCRAPE}) ({known})\n"
            f"or max without ({_SCRAPE}) ({unknown}))"
        )

    return f"({by('destination')}\nor on (destination_workload) {by('waypoint')})"


def _served(metric: str, matchers: str = "") -> str:
    return _reported("destination_workload", metric, matchers, over=_newest_rate)


def _response(matchers: str = "") -> Query:
    """Mean response time in seconds: of the requests that were served, or of some of them."""
    took, count = (
        _served(f"istio_request_duration_milliseconds_{part}", matchers) for part in ("sum", "count")
    )
    return Query(label="destination_workload", query=f"{took} / 1000", divide_by=count)


FEATURE_QUERIES: Mapping[Feature, Query] = {
    "pod": Query(
        label="deployment",
        query=f"max by (deployment) (kube_deployment_status_replicas_ready{{{_DEPLOYMENT}}})\n"
        f"or {_by_deployment('count', _CONTAINERS)}",
    ),
    "cpu": Query(
        label="deployment",
        query=_by_deployment("sum", _USED["cpu"]),
        divide_by=_of_the_used("cpu", _limits("cpu")),
    ),
    "mem": Query(
        label="deployment",
        query=_by_deployment("sum", _USED["memory"]),
        divide_by=_of_the_used("memory", _limits("memory")),
    ),
    "res": _response(),
    "req": Query(label="destination_workload", query=_served("istio_requests_total")),
}
LIMITED: Mapping[str, str] = {"cpu": "cpu", "mem": "memory"}
"""Features that are shares of a limit -> the resource that is limited."""
USED_CONTAINERS: Mapping[str, str] = {
    resource: _by_deployment("count", used) for resource, used in _USED.items()
}
"""How many containers of each Deployment the usage of a resource is the sum of."""
USED_REQUESTS: Mapping[str, str] = {
    resource: _of_the_used(resource, _stated("requests", resource)) for resource in _USED
}
"""What these containers request, which stands in for a limit where none is set."""

CALLS_QUERY = CallsQuery(
    label="destination_workload",
    query=_reported(
        "source_workload, source_workload_namespace, destination_workload", "istio_requests_total"
    ),
)

REQUESTS_QUERY = Query(
    label="destination_workload", query=_reported("destination_workload", "istio_requests_total")
)
"""Requests per second that each service served, as a mean over the window."""

# Requests from outside the application at its entry services: {workloads} are those of the entries,
# {callers} are all of the application.
_ENTERED = ',source_workload!~"{callers}"'
_BROKEN = "5..|0"  # 0: the connection broke before an answer
# A gRPC error is HTTP 200. These codes are the server's: UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED,
# UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS; the others blame the request, as 4xx do.
_GRPC_FAILED = "2|4|8|12|13|14|15"
_DONE = f'{_ENTERED},response_code!~"{_BROKEN}",grpc_response_status!~"{_GRPC_FAILED}"'
ENTERED_RESPONSE = _response(_ENTERED)
"""What users wait at an entry; services that call it may ask for something else."""
ENTRY_QUERIES: Mapping[EntryPart, EntryQuery] = {
    "offered": EntryQuery(query=_reported("destination_workload", "istio_requests_total", _ENTERED)),
    "done": EntryQuery(query=_reported("destination_workload", "istio_requests_total", _DONE)),
    "milliseconds": EntryQuery(
        query=_reported("destination_workload", "istio_request_duration_milliseconds_sum", _DONE)
    ),
    "buckets": EntryQuery(
        query=_reported("destination_workload, le", "istio_request_duration_milliseconds_bucket", _DONE)
    ),
}


def _amounts(kind: str) -> str:
    """Limits or requests of one replica, with the labels deployment and resource."""
    return "\nor ".join(
        f'label_replace({_by_deployment("max", vector)}, "resource", "{resource}", "", "")'
        for resource in _USED
        for vector in [_limits(resource) if kind == "limits" else _stated(kind, resource)]
    )


_POD = _HERE
_HPA = (
    '{matchers}namespace="{namespace}",scaletargetref_kind="Deployment",scaletargetref_name=~"{deployments}"'
)
# Without kube-state-metrics, running containers are counted as replicas, limits come from cAdvisor, and
# requests stay unknown.
WORKLOAD_QUERIES: Mapping[str, str] = {
    "replicas": f"max by (deployment) (kube_deployment_spec_replicas{{{_DEPLOYMENT}}})\n"
    f"or {_by_deployment('count', _CONTAINERS)}",
    "requests": _amounts("requests"),
    "limits": _amounts("limits"),
    "autoscalers": "group by (horizontalpodautoscaler, scaletargetref_name) "
    f"(kube_horizontalpodautoscaler_info{{{_HPA}}})",
    "boot": f"max by (pod) (kube_pod_status_ready_time{{{_POD}}}) "
    f"- max by (pod) (kube_pod_created{{{_POD}}})",
}
POD_QUERIES: Mapping[str, str] = {
    "phase": f"max by (pod, phase) (kube_pod_status_phase{{{_POD}}} == 1)",
    "start": f"max by (pod) (kube_pod_start_time{{{_POD}}})",
    "ready": f'max by (pod) (kube_pod_status_ready{{{_POD},condition="true"}})',
    "ready_since": f"max by (pod) (kube_pod_status_ready_time{{{_POD}}})",
    "deleting": f"max by (pod) (kube_pod_deletion_timestamp{{{_POD}}})",
    "usage": f"sum by (pod) ({_once(_rate(_CPU_SECONDS))})",
    "usage_time": f"max by (pod) (timestamp({_CPU_SECONDS}))",
    "request": f"sum by (pod) ({_stated('requests', 'cpu')})",
}
