"""Which services of a namespace its users reach."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from deepscaler.adapters.discover.services import CHECKER, FoundService, items_or_none, pod_labels
from deepscaler.adapters.kubernetes.api import ApiError, KubeApi
from deepscaler.adapters.kubernetes.checked import Route, ServiceObject, WorkloadObject
from deepscaler.adapters.kubernetes.objects import name_of, selects
from deepscaler.adapters.names import quoted
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.errors import MetricsError, SettingsError
from deepscaler.settings import Prometheus

_TRAFFIC = (
    'sum by (destination_workload) (rate(istio_requests_total{{reporter="destination",'
    'destination_workload_namespace="{namespace}",source_workload_namespace!="{namespace}"}}[1h])) > 0'
)
_Key = Literal["destination", "backendRefs", "service"]
_ROUTES: tuple[tuple[str, str, _Key], ...] = (
    ("Istio's VirtualServices", "networking.istio.io/v1/namespaces/{}/virtualservices", "destination"),
    ("HTTPRoutes", "gateway.networking.k8s.io/v1/namespaces/{}/httproutes", "backendRefs"),
    ("Ingresses", "networking.k8s.io/v1/namespaces/{}/ingresses", "service"),
)
"""Objects that lead traffic to Services: their name, their path, the key under which they name a Service."""


def entries_of(
    api: KubeApi, services: Sequence[FoundService], namespace: str, prometheus: str | None, now: float
) -> tuple[list[str], str]:
    """Services that users reach, and how that is known.

    The first source that names any service counts: traffic from outside in the hour before `now`
    (Prometheus), Istio's VirtualServices, routes of the Gateway API, Ingresses, Services of type NodePort or
    LoadBalancer. Where none does, the first service is a guess.

    Raises:
        SettingsError: `prometheus` is no address.
        ClusterError: the namespace can't be read.
    """
    if prometheus:
        by_workload = {workload: item.name for item in services for workload in item.workloads}
        seen = _traffic(prometheus, namespace, now)
        reached = [by_workload[workload] for workload in seen if workload in by_workload]
        if reached:
            return list(dict.fromkeys(reached)), "traffic from outside in the last hour"
    sources = [(how, _led_to(api, f"/apis/{path.format(namespace)}", key)) for how, path, key in _ROUTES]
    sources.append(("Services of type NodePort or LoadBalancer", _open_services(api, namespace)))
    names = [item.name for item in services]
    for how, found in sources:
        reached = [name for name in names if name in found]
        if reached:
            return reached, how
    return names[:1], "CHECK a guess: nothing says which service users reach"


def _traffic(address: str, namespace: str, now: float) -> list[str]:
    """Workloads that outside traffic reaches, the busiest first; none where Prometheus can't be asked."""
    try:
        client = PrometheusClient(Prometheus(url=address, retries=1))
    except ValidationError as error:
        raise SettingsError(f"--prometheus {address}: expected http://host:port or https://…") from error
    try:
        rows = client.query(_TRAFFIC.format(namespace=quoted(namespace)), now)
    except MetricsError as error:
        print(f"discover: entries by traffic unknown: {error}", file=sys.stderr)
        return []
    return [
        labels["destination_workload"]
        for labels, rate in sorted(rows, key=lambda row: -row[1])
        if rate > 0 and "destination_workload" in labels
    ]


def _led_to(api: KubeApi, path: str, key: _Key) -> set[str]:
    """Names of the Services that routing objects lead to. An Istio host may be the Service's full name."""
    try:
        items = items_or_none(api, path)
    except ApiError:
        return set()
    found: set[str] = set()
    for item in CHECKER.sound(Route, "route", items, "it is left out"):
        if key == "destination" and (item["spec"].get("gateways") or ["mesh"]) == ["mesh"]:
            continue  # it routes between services only
        for part in _under(item["spec"], key):
            for target in part if isinstance(part, list) else [part]:
                if isinstance(target, Mapping):
                    found.add(str(target.get("host") or target.get("name") or "").partition(".")[0])
    return found


def _under(value: Any, key: str) -> list[Any]:
    """Every value of `key` at any depth."""
    if isinstance(value, Mapping):
        return [
            part for name, item in value.items() for part in ([item] if name == key else _under(item, key))
        ]
    return [part for item in value for part in _under(item, key)] if isinstance(value, list) else []


def _open_services(api: KubeApi, namespace: str) -> set[str]:
    """Names of Services that are open to the outside, and the inner names of the same pods.

    Boutique's `frontend-external` is open, and `frontend` is the Service and the Deployment of the same pods.
    """
    items = api.items(f"/api/v1/namespaces/{namespace}/services")
    items = CHECKER.sound(ServiceObject, "Service", items, "it is left out")
    selectors = [
        item["spec"].get("selector")
        for item in items
        if item["spec"].get("type") in ("NodePort", "LoadBalancer")
    ]
    names = {name_of(item) for item in items if item["spec"].get("selector") in selectors}
    deployments = items_or_none(api, f"/apis/apps/v1/namespaces/{namespace}/deployments")
    for item in CHECKER.sound(WorkloadObject, "Deployment", deployments, "it is left out"):
        labels = pod_labels(item)
        if any(selector and selects({"matchLabels": selector}, labels) for selector in selectors):
            names.add(name_of(item))
    return names
