"""Built-in PromQL templates, and the names that lead from series back to services.

A template has placeholders. `{namespace}` and `{window}` stand for themselves. The others are escaped lists
of alternatives for an anchored `=~"…"` matcher: `{deployments}`, `{containers}`, `{workloads}`, `{pods}` (pod
names, with the Deployment's name as group 1) and `{services}` (the names that the query's `label` carries).
Other braces are PromQL's own.

Source: the five templates of the published metrics_fetch.py (irate over one minute, usage by quota/period,
duration by count).
Differs: one query serves all services. `req` counts the destination's report only. Pods are known by name
instead of by container, because upstream Boutique calls every container `server`. `pod` counts ready
replicas, not running containers. Memory is the working set, which is what a limit acts on. A limit counts
only while its container's usage does, so both sides of a ratio speak of the same pods.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from deepscaler.errors import MetricsError, SettingsError
from deepscaler.settings import App, CallsQuery, Feature, Query

POD_SUFFIX = "(?:-[a-z0-9]{5,10}-[a-z0-9]{5}|-[0-9]+)"
"""What pods have after their Deployment's name (hashes of ReplicaSet and pod) or StatefulSet's (ordinal)."""

_CONTAINER = 'namespace="{namespace}",container=~"{containers}",pod=~"{pods}"'
_SERVED = (
    'reporter="destination",destination_workload_namespace="{namespace}",destination_workload=~"{workloads}"'
)


def _by_deployment(aggregation: str, vector: str) -> str:
    return f'{aggregation} by (deployment) (label_replace({vector}, "deployment", "$1", "pod", "{{pods}}"))'


def _present(function: str, selector: str) -> str:
    """`function` over the window, of the series that exist *now*.

    Otherwise a pod that has vanished would count for the rest of the window.
    """
    return f"({function}({selector}[{{window}}]) and {selector})"


_DEPLOYMENT = 'namespace="{namespace}",deployment=~"{deployments}"'
_CPU_USED = _present("irate", f'container_cpu_usage_seconds_total{{{_CONTAINER},cpu=~"total|"}}')
_CPU_QUOTA = f"(container_spec_cpu_quota{{{_CONTAINER}}} > 0) / container_spec_cpu_period{{{_CONTAINER}}}"
_CPU_LIMIT = f"""(
  max by (pod, container) ({_CPU_QUOTA})
  or max by (pod, container) (kube_pod_container_resource_requests{{{_CONTAINER},resource="cpu"}})
) and on (pod, container) {_CPU_USED}"""
_MEMORY_USED = _present("last_over_time", f"container_memory_working_set_bytes{{{_CONTAINER}}}")
_MEMORY_LIMIT = f"""(
  max by (pod, container) (container_spec_memory_limit_bytes{{{_CONTAINER}}} > 0)
  or max by (pod, container) (kube_pod_container_resource_requests{{{_CONTAINER},resource="memory"}})
) and on (pod, container) {_MEMORY_USED}"""
_CONTAINERS = f"group by (pod) {_present('last_over_time', f'container_spec_cpu_period{{{_CONTAINER}}}')}"


def _served(metric: str) -> str:
    return f"sum by (destination_workload) {_present('irate', f'{metric}{{{_SERVED}}}')}"


FEATURE_QUERIES: Mapping[Feature, Query] = {
    "pod": Query(
        label="deployment",
        query=f"max by (deployment) (kube_deployment_status_replicas_ready{{{_DEPLOYMENT}}})\n"
        f"or {_by_deployment('count', _CONTAINERS)}",
    ),
    "cpu": Query(
        label="deployment",
        query=_by_deployment("sum", _CPU_USED),
        divide_by=_by_deployment("sum", _CPU_LIMIT),
    ),
    "mem": Query(
        label="deployment",
        query=_by_deployment("sum", _MEMORY_USED),
        divide_by=_by_deployment("sum", _MEMORY_LIMIT),
    ),
    "res": Query(
        label="destination_workload",
        query=f"{_served('istio_request_duration_milliseconds_sum')} / 1000",
        divide_by=_served("istio_request_duration_milliseconds_count"),
    ),
    "req": Query(label="destination_workload", query=_served("istio_requests_total")),
}

CALLS_QUERY = CallsQuery(
    label="destination_workload",
    query="sum by (source_workload, source_workload_namespace, destination_workload) "
    f"(rate(istio_requests_total{{{_SERVED}}}[{{window}}]))",
)

# Requests from outside the application at its entry services: {workloads} are those of the entries,
# {callers} are all of the application.
_ENTERED = f'{_SERVED},source_workload!~"{{callers}}"'
_FAILED = "5..|0"  # 0: the connection broke before an answer
ENTRY_QUERIES: Mapping[str, str] = {
    "offered": f"sum by (destination_workload) (rate(istio_requests_total{{{_ENTERED}}}[{{window}}]))",
    "failed": "sum by (destination_workload) (rate(istio_requests_total"
    f'{{{_ENTERED},response_code=~"{_FAILED}"}}[{{window}}]))',
    "milliseconds": "sum by (destination_workload) (rate(istio_request_duration_milliseconds_sum"
    f'{{{_ENTERED},response_code!~"{_FAILED}"}}[{{window}}]))',
    "buckets": "sum by (destination_workload, le) (rate(istio_request_duration_milliseconds_bucket"
    f'{{{_ENTERED},response_code!~"{_FAILED}"}}[{{window}}]))',
}


def _amounts(metric: str) -> str:
    return _by_deployment("max", f"{metric}{{{_CONTAINER}}}").replace(
        "by (deployment)", "by (deployment, resource)"
    )


def _limit(resource: str, vector: str) -> str:
    """The limit of one resource as cAdvisor knows it, with the labels that kube-state-metrics gives it."""
    return f'label_replace({_by_deployment("max", vector)}, "resource", "{resource}", "", "")'


_POD = 'namespace="{namespace}",pod=~"{pods}"'
_USED_SECONDS = f'container_cpu_usage_seconds_total{{{_CONTAINER},cpu=~"total|"}}'
_HPA = 'namespace="{namespace}",scaletargetref_kind="Deployment",scaletargetref_name=~"{deployments}"'
# Without kube-state-metrics, running containers are counted as replicas, limits come from cAdvisor, and
# requests stay unknown.
WORKLOAD_QUERIES: Mapping[str, str] = {
    "replicas": f"max by (deployment) (kube_deployment_spec_replicas{{{_DEPLOYMENT}}})\n"
    f"or {_by_deployment('count', _CONTAINERS)}",
    "requests": _amounts("kube_pod_container_resource_requests"),
    "limits": f"{_amounts('kube_pod_container_resource_limits')}\n"
    f"or {_limit('cpu', f'({_CPU_QUOTA})')}\n"
    f"or {_limit('memory', f'(container_spec_memory_limit_bytes{{{_CONTAINER}}} > 0)')}",
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
    "usage": f"sum by (pod) (rate({_USED_SECONDS}[{{window}}]))",
    "usage_time": f"max by (pod) (timestamp({_USED_SECONDS}))",
    "request": f'sum by (pod) (kube_pod_container_resource_requests{{{_CONTAINER},resource="cpu"}})',
}


class Names:
    """Which Deployments, containers and Istio workloads belong to which service.

    Attributes:
        namespace: of the application.
        services: in the order of the configuration.
        workloads: Istio workload -> service.
        deployments: Deployment -> service.
        containers: container -> services that have one of this name.
        scaled: service -> the Deployment whose replicas are its own.

    Raises:
        SettingsError: two services claim one Deployment or workload.
    """

    def __init__(self, app: App) -> None:
        self.namespace = app.namespace
        self.services = tuple(app.services)
        self.workloads: dict[str, str] = {}
        self.deployments: dict[str, str] = {}
        self.containers: dict[str, set[str]] = {}
        self.scaled: dict[str, str] = {}
        for service, spec in app.services.items():
            workloads = spec.workloads or [spec.deployment or service]
            self.scaled[service] = spec.deployment or workloads[0]
            self.containers.setdefault(spec.container or service, set()).add(service)
            for known, names in (
                (self.workloads, workloads),
                (self.deployments, [self.scaled[service], *workloads]),
            ):
                for name in names:
                    if known.setdefault(name, service) != service:
                        raise SettingsError(
                            f"app.services: {service} and {known[name]} both claim the workload {name!r}"
                        )
        self._pod = re.compile(f"({'|'.join(map(re.escape, self.deployments))}){POD_SUFFIX}")

    def service(self, label: str, value: str) -> str | None:
        """The service that a series with this label and value belongs to; None for none.

        Raises:
            MetricsError: the label can't tell, because several services share that container name.
        """
        if label == "container":
            owners = self.containers.get(value, set())
            if len(owners) > 1:
                raise MetricsError(
                    f"collect.queries: label 'container' can't tell {', '.join(sorted(owners))} apart, "
                    f"whose containers are all called {value!r}; group by pod or deployment instead"
                )
            return next(iter(owners), None)
        if label == "pod":
            found = self._pod.fullmatch(value)
            return self.deployments[found[1]] if found else None
        if "workload" in label:
            return self.workloads.get(value)
        return self.deployments.get(value) or (value if value in self.services else None)

    def render(
        self, template: str, label: str = "deployment", *, window: str, entries: tuple[str, ...] | None = None
    ) -> str:
        """The template with its placeholders filled.

        Args:
            template: PromQL with placeholders.
            label: label of the query, which decides what `{services}` are.
            window: a Prometheus duration.
            entries: services that `{workloads}` is narrowed to; None: all.
        """
        workloads = [
            name for name, service in self.workloads.items() if entries is None or service in entries
        ]
        deployments = f"({alternatives(self.deployments)})"
        values = {
            "namespace": quoted(self.namespace),
            "window": window,
            "deployments": alternatives(self.deployments),
            "containers": alternatives(self.containers),
            "workloads": alternatives(workloads),
            "callers": alternatives(self.workloads),
            "pods": deployments + POD_SUFFIX,
        }
        plural = {"container": "containers", "pod": "pods"}.get(
            label, "workloads" if "workload" in label else "deployments"
        )
        values["services"] = values[plural]
        return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), template)


def alternatives(names: Mapping[str, object] | list[str]) -> str:
    """`a|b|c` with the characters of regular expressions escaped, to stand inside double quotes of PromQL."""
    return quoted("|".join(re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", name) for name in names))


def quoted(text: str) -> str:
    """`text` as it stands inside double quotes of PromQL."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def seconds(window: str) -> float:
    """Seconds of a Prometheus duration such as `1m` or `1m30s`."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"([0-9]+)(ms|[smhd])", window))


def duration(span_seconds: float) -> str:
    """A span as a Prometheus duration, to the millisecond."""
    return f"{round(span_seconds * 1000)}ms"
