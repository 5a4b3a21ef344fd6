"""The services of a namespace: which workloads stand behind each, and whether it should be scaled."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi, Object
from deepscaler.adapters.kubernetes.checked import Autoscaler, Checker, ServiceObject, WorkloadObject
from deepscaler.adapters.kubernetes.objects import name_of, own_container, quantity, selects
from deepscaler.errors import ClusterError
from deepscaler.logs import OnChange

SIDECARS = frozenset({"istio-proxy", "linkerd-proxy", "envoy", "daprd", "vault-agent", "cloud-sql-proxy"})
"""Containers that meshes and operators inject."""
STORES = re.compile(
    "redis|valkey|memcached|mysql|mariadb|postgres|postgresql|mongo|mongodb|cassandra|elasticsearch|opensearch"
    "|rabbitmq|kafka|zookeeper|nats|etcd|minio|nacos-server"
)
"""Images that keep data which replicas wouldn't share."""
CHECKER = Checker(OnChange(logging.getLogger(__name__)))
_OUT = "it is left out"


@dataclass
class FoundService:
    """One service of the draft.

    Attributes:
        name: of the Kubernetes Service, or of the workload where none selects its pods.
        workloads: names of the Deployments behind it; the first is the one that is scaled.
        container: the application's container.
        notes: what the reader should know or check.
        reason: why it isn't scaled; "" if it is.
    """

    name: str
    workloads: list[str]
    container: str
    notes: list[str] = field(default_factory=list)
    reason: str = ""


def services_of(api: KubeApi, namespace: str) -> list[FoundService]:
    """Every Deployment of the namespace under the Service in front of it, by name.

    StatefulSets and DaemonSets are listed too, but not scaled.

    Raises:
        ClusterError: the namespace can't be read, or nothing runs there.
    """
    base = f"namespaces/{namespace}"
    listed = {"Deployment": api.items(f"/apis/apps/v1/{base}/deployments")}
    for kind in ("StatefulSet", "DaemonSet"):
        listed[kind] = items_or_none(api, f"/apis/apps/v1/{base}/{kind.lower()}s")
    workloads = [
        (kind, item)
        for kind, items in listed.items()
        for item in CHECKER.sound(WorkloadObject, kind, items, _OUT)
    ]
    if not workloads:
        raise ClusterError(f"namespace {namespace}: no Deployments; check --namespace, --context")
    services = CHECKER.sound(ServiceObject, "Service", api.items(f"/api/v1/{base}/services"), _OUT)
    hpas = items_or_none(api, f"/apis/autoscaling/v2/{base}/horizontalpodautoscalers")
    rivals = {
        item["spec"]["scaleTargetRef"]["name"]: name_of(item)
        for item in CHECKER.sound(Autoscaler, "HorizontalPodAutoscaler", hpas, _OUT)
        if item["spec"]["scaleTargetRef"].get("kind") == "Deployment"
    }
    groups: dict[str, list[tuple[str, Object]]] = {}
    for kind, item in workloads:
        groups.setdefault(_service_of(item, services), []).append((kind, item))
    return [_found(name, members, rivals) for name, members in sorted(groups.items())]


def items_or_none(api: KubeApi, path: str) -> list[Object]:
    """The objects of a list that may be absent or forbidden without harm.

    Raises:
        ApiError: the list can't be read for another reason.
    """
    try:
        return api.items(path)
    except ApiError as error:
        if error.status in (403, 404):
            return []
        raise


def pod_labels(workload: Object) -> Mapping[str, str]:
    """The labels that the pods of a workload get."""
    labels: Mapping[str, str] = (workload["spec"]["template"].get("metadata") or {}).get("labels") or {}
    return labels


def _service_of(workload: Object, services: Sequence[Object]) -> str:
    """The name of the one Service that selects the workload's pods; else the workload's own name."""
    names = [
        name_of(item)
        for item in services
        if item["spec"].get("selector")
        and selects({"matchLabels": item["spec"]["selector"]}, pod_labels(workload))
    ]
    return names[0] if len(names) == 1 else name_of(workload)


def _found(name: str, members: Sequence[tuple[str, Object]], rivals: Mapping[str, str]) -> FoundService:
    kind, first = members[0]
    spec = first["spec"]["template"]["spec"]
    every = spec.get("containers") or [{"name": name}]
    containers = [item for item in every if item.get("name") not in SIDECARS] or every
    container = own_container({"containers": containers}, name)
    names = [name_of(item) for _, item in members]
    found = FoundService(
        name, names, str(container.get("name") or name), reason=_why_not(kind, first, container)
    )
    if len(containers) > 1:
        found.notes.append(
            f"CHECK container: one of {', '.join(str(item.get('name')) for item in containers)}"
        )
    if len(names) > 1:
        found.notes.append(f"CHECK deployment: {names[0]} is scaled, of {', '.join(names)}")
    found.notes += [
        f"HorizontalPodAutoscaler/{rivals[member]} acts on {member}: remove it before DeepScaler acts"
        for member in names
        if member in rivals
    ]
    found.notes.append(_limits(container))
    return found


def _limits(container: Object) -> str:
    resources = container.get("resources") or {}
    limit, request = (quantity((resources.get(key) or {}).get("cpu")) for key in ("limits", "requests"))
    if limit is None and request is None:
        return (
            "CHECK no CPU limit and no CPU request: set resources.limits.cpu, "
            "because the use of CPU is measured as a share of it"
        )
    text = f"cpu limit {limit:g}" if limit is not None else f"no cpu limit, request {request:g}"
    memory = (resources.get("limits") or {}).get("memory")
    return f"{text}, memory limit {memory}" if memory else text


def _why_not(kind: str, workload: Object, container: Object) -> str:
    """Why a workload should not be scaled; "" if nothing speaks against it."""
    if kind != "Deployment":
        return f"a {kind}: only Deployments are scaled"
    image = str(container.get("image", "")).rpartition("/")[2].partition(":")[0].partition("@")[0]
    if STORES.fullmatch(image):
        return f"CHECK image {image}: a store, whose replicas wouldn't share their data"
    volumes = workload["spec"]["template"]["spec"].get("volumes") or ()
    if any("persistentVolumeClaim" in volume for volume in volumes):
        return "CHECK it has a persistent volume"
    if (workload["spec"].get("strategy") or {}).get("type") == "Recreate":
        return "CHECK its strategy is Recreate: it may not run twice"
    return ""
