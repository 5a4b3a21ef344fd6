"""Draft `config/<own>.yaml` from a live namespace: services, Deployments, containers, workloads, limits and entries.

python -m deepscaler.adapters.discover --namespace boutique --prometheus http://127.0.0.1:30090

Only reads. What it can't know is marked `CHECK` in the file; the draft is valid settings as it stands.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi, Object
from deepscaler.adapters.kubernetes.objects import own_container, quantity, selects
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.adapters.queries import quoted
from deepscaler.artefacts import replacing
from deepscaler.errors import ClusterError, DeepScalerError, MetricsError, SettingsError
from deepscaler.settings import ClusterSection, Prometheus, Settings, load_settings

SIDECARS = frozenset({"istio-proxy", "linkerd-proxy", "envoy", "daprd", "vault-agent", "cloud-sql-proxy"})
STORES = re.compile(
    r"(redis|valkey|memcached|mysql|mariadb|postgres|postgresql|mongo|mongodb|cassandra|elasticsearch|opensearch|rabbitmq|kafka|zookeeper|"
    r"nats|etcd|minio|nacos-server)"
)
_ENTRIES_SEEN = (
    'sum by (destination_workload) (rate(istio_requests_total{{reporter="destination",destination_workload_namespace="{namespace}",'
    'source_workload_namespace!="{namespace}"}}[1h])) > 0'
)


@dataclass
class Found:
    """One service of the draft.

    Attributes:
        name: of the Kubernetes Service, else of the Deployment.
        kind: Deployment or what is not supported.
        workloads: names of the Deployments behind it; the first is scaled.
        notes: what the reader should know or check.
        reason: why it isn't scaled; "" if it is.
    """

    name: str
    kind: str
    workloads: list[str]
    container: str
    notes: list[str] = field(default_factory=list)
    reason: str = ""


def build_parser() -> argparse.ArgumentParser:
    """Flags of the draft."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--namespace", required=True, help="of the application")
    parser.add_argument("--name", help="of the application (default: the namespace's)")
    parser.add_argument(
        "--prometheus", metavar="URL", help="tells the entries by what outside traffic reaches (Istio)"
    )
    parser.add_argument(
        "--kubeconfig", help="default: KUBECONFIG, ~/.kube/config, then the pod's service account"
    )
    parser.add_argument("--context", help="of the kubeconfig (default: its current one)")
    parser.add_argument("--output", metavar="FILE", help="default: config/<name>.yaml; - for stdout")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Write the draft and say what to check."""
    arguments = build_parser().parse_args(argv)
    name = arguments.name or arguments.namespace
    output = (
        None if arguments.output == "-" else Path(arguments.output or f"config/{name.replace('-', '_')}.yaml")
    )
    try:
        if output is not None and output.exists() and not arguments.force:
            raise SettingsError(f"{output}: is there already; give another --output, or --force")
        cluster = _section(arguments)
        services = services_of(KubeApi(cluster), arguments.namespace)
        entries, how = entries_of(KubeApi(cluster), services, arguments.namespace, arguments.prometheus)
        text = draft(name, arguments.namespace, services, entries, how, arguments)
        _check(text)
        if output is None:
            print(text, end="")
        else:
            with replacing(output) as temporary:
                temporary.write_text(text, encoding="utf-8")
            scaled = sum(not item.reason for item in services)
            print(
                f"{output}: {len(services)} services, {scaled} of them scaled, {len(entries)} entries; look at the lines marked CHECK"
            )
    except DeepScalerError as error:
        print(f"discover: {error}", file=sys.stderr)
        return 1
    return 0


def _section(arguments: argparse.Namespace) -> ClusterSection:
    given = {"kubeconfig": arguments.kubeconfig, "context": arguments.context}
    return ClusterSection(kind="kubernetes", **{key: value for key, value in given.items() if value})


# --------------------------------------------------------------------------------------------------------------- services
def services_of(api: KubeApi, namespace: str) -> list[Found]:
    """Every Deployment of the namespace by the Service in front of it; StatefulSets and DaemonSets too, not scaled.

    Raises:
        ClusterError: the namespace can't be read, or nothing runs there.
    """
    base = f"namespaces/{namespace}"
    workloads = [("Deployment", item) for item in api.items(f"/apis/apps/v1/{base}/deployments")]
    for kind in ("StatefulSet", "DaemonSet"):
        workloads += [(kind, item) for item in _optional(api, f"/apis/apps/v1/{base}/{kind.lower()}s")]
    if not workloads:
        raise ClusterError(f"namespace {namespace}: no Deployments; check --namespace, --context")
    services = api.items(f"/api/v1/{base}/services")
    rivals = {
        item["spec"]["scaleTargetRef"]["name"]: str(item["metadata"]["name"])
        for item in _optional(api, f"/apis/autoscaling/v2/{base}/horizontalpodautoscalers")
        if item["spec"]["scaleTargetRef"].get("kind") == "Deployment"
    }
    groups: dict[str, list[tuple[str, Object]]] = {}
    for kind, item in workloads:
        groups.setdefault(_service_of(item, services), []).append((kind, item))
    return [_found(name, members, rivals) for name, members in sorted(groups.items())]


def _optional(api: KubeApi, path: str) -> list[Object]:
    """What may be absent or forbidden without harm."""
    try:
        return api.items(path)
    except ApiError as error:
        if error.status in (403, 404):
            return []
        raise


def _service_of(workload: Object, services: Sequence[Object]) -> str:
    """The one Service that selects its pods; of several the one of its own name, else the workload's own name."""
    own = str(workload["metadata"]["name"])
    labels = workload["spec"]["template"]["metadata"].get("labels") or {}
    names = [
        str(item["metadata"]["name"])
        for item in services
        if item["spec"].get("selector") and selects({"matchLabels": item["spec"]["selector"]}, labels)
    ]
    return names[0] if len(names) == 1 else own


def _found(name: str, members: Sequence[tuple[str, Object]], rivals: Mapping[str, str]) -> Found:
    kind, first = members[0]
    spec = first["spec"]["template"]["spec"]
    containers = [item for item in spec["containers"] if item["name"] not in SIDECARS] or list(
        spec["containers"]
    )
    container = own_container({"containers": containers}, name)
    names = [str(item["metadata"]["name"]) for _, item in members]
    found = Found(name, kind, names, str(container["name"]))
    if len(containers) > 1:
        found.notes.append(f"CHECK container: one of {', '.join(str(item['name']) for item in containers)}")
    if len(names) > 1:
        found.notes.append(f"CHECK deployment: {names[0]} is scaled, of {', '.join(names)}")
    for member in names:
        if member in rivals:
            found.notes.append(
                f"HorizontalPodAutoscaler/{rivals[member]} acts on {member}: remove it before DeepScaler acts"
            )
    found.notes.append(_limits(container))
    found.reason = _why_not(kind, first, container)
    return found


def _limits(container: Object) -> str:
    resources = container.get("resources") or {}
    limit, request = (quantity((resources.get(key) or {}).get("cpu")) for key in ("limits", "requests"))
    if limit is None and request is None:
        return "CHECK no CPU limit and no CPU request: set resources.limits.cpu, cpu can't be measured against nothing"
    text = f"cpu limit {limit:g}" if limit is not None else f"no cpu limit, request {request:g}"
    memory = (resources.get("limits") or {}).get("memory")
    return f"{text}, memory limit {memory}" if memory else text


def _why_not(kind: str, workload: Object, container: Object) -> str:
    """Why a workload had better not be scaled; "" if nothing speaks against it."""
    if kind != "Deployment":
        return f"a {kind}: only Deployments are scaled"
    image = str(container.get("image", "")).rpartition("/")[2].partition(":")[0].partition("@")[0]
    if STORES.fullmatch(image):
        return f"CHECK image {image}: a store, whose replicas wouldn't share their data"
    if any(
        "persistentVolumeClaim" in volume
        for volume in workload["spec"]["template"]["spec"].get("volumes") or ()
    ):
        return "CHECK it has a persistent volume"
    if (workload["spec"].get("strategy") or {}).get("type") == "Recreate":
        return "CHECK its strategy is Recreate: it may not run twice"
    return ""


# ---------------------------------------------------------------------------------------------------------------- entries
def entries_of(
    api: KubeApi, services: Sequence[Found], namespace: str, prometheus: str | None
) -> tuple[list[str], str]:
    """Services that users reach, and how that is known.

    By traffic from outside (Prometheus); else by Istio's VirtualServices, Gateway API routes, Ingresses, or Services of
    type NodePort or LoadBalancer; else the first service stands in.
    """
    by_workload = {workload: item.name for item in services for workload in item.workloads}
    names = [item.name for item in services]
    if prometheus:
        try:
            client = PrometheusClient(Prometheus(url=prometheus, retries=1))
        except ValidationError as error:
            raise SettingsError(
                f"--prometheus {prometheus}: expected http://host:port or https://…"
            ) from error
        try:
            seen = _traffic(client, namespace, time.time())
        except MetricsError as error:
            print(f"discover: entries by traffic unknown: {error}", file=sys.stderr)
            seen = []
        reached = [by_workload[workload] for workload in seen if workload in by_workload]
        if reached:
            return list(dict.fromkeys(reached)), "traffic from outside in the last hour"
    for how, found in (
        (
            "Istio's VirtualServices",
            _hosts(api, f"/apis/networking.istio.io/v1/namespaces/{namespace}/virtualservices", "host"),
        ),
        (
            "HTTPRoutes",
            _hosts(api, f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes", "backend"),
        ),
        ("Ingresses", _hosts(api, f"/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses", "ingress")),
        ("Services of type NodePort or LoadBalancer", _open_services(api, namespace)),
    ):
        reached = [name for name in names if name in found]
        if reached:
            return reached, how
    return names[:1], "CHECK a guess: nothing says which service users reach"


def _traffic(client: PrometheusClient, namespace: str, now: float) -> list[str]:
    rows = client.query(_ENTRIES_SEEN.format(namespace=quoted(namespace)), now)
    return [
        labels["destination_workload"] for labels, rate in sorted(rows, key=lambda row: -row[1]) if rate > 0
    ]


def _hosts(api: KubeApi, path: str, kind: str) -> set[str]:
    """Names of the Services that routing objects lead to. An Istio host may be the Service's full name."""
    try:
        items = _optional(api, path)
    except ApiError:
        return set()
    found: set[str] = set()
    for item in items:
        if kind == "host" and (item["spec"].get("gateways") or ["mesh"]) == ["mesh"]:
            continue  # between services
        key = {"host": "destination", "backend": "backendRefs", "ingress": "service"}[kind]
        for part in _under(item["spec"], key):
            for target in part if isinstance(part, list) else [part]:
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
    """Services that are open to the outside, and those that the same pods have within (Boutique: frontend-external)."""
    items = api.items(f"/api/v1/namespaces/{namespace}/services")
    selectors = [
        item["spec"].get("selector")
        for item in items
        if item["spec"].get("type") in ("NodePort", "LoadBalancer")
    ]
    names = {str(item["metadata"]["name"]) for item in items if item["spec"].get("selector") in selectors}
    workloads = _optional(api, f"/apis/apps/v1/namespaces/{namespace}/deployments")
    for item in workloads:
        labels = item["spec"]["template"]["metadata"].get("labels") or {}
        if any(selector and selects({"matchLabels": selector}, labels) for selector in selectors):
            names.add(str(item["metadata"]["name"]))
    return names


# ------------------------------------------------------------------------------------------------------------------ draft
def draft(
    name: str,
    namespace: str,
    services: Sequence[Found],
    entries: Sequence[str],
    how: str,
    arguments: argparse.Namespace,
) -> str:
    """The YAML text, a line a service."""
    lines = [
        "# yaml-language-server: $schema=app.schema.json",
        f"# Drafted from namespace {namespace}; look at the lines marked CHECK.",
        "app:",
    ]
    lines += [f"  name: {_scalar(name)}", f"  namespace: {_scalar(namespace)}", "  services:"]
    lines += [
        f"    {_scalar(item.name)}: {_service(item)}".ljust(72) + f"  # {'; '.join(_notes(item))}"
        for item in services
    ]
    lines += [f"  entries:  # by {how}" if not how.startswith("CHECK") else f"  entries:  # {how}"]
    for entry in entries:
        endpoint = "GET /" if len(entries) == 1 else entry
        text = f"{{name: {_scalar(endpoint)}, service: {_scalar(entry)}, sla: 0.2, slo: 0.5}}"
        lines.append(f"    - {text}  # CHECK name (as the load generator has it) and objectives")
    lines += ["", "cluster:", "  kind: kubernetes"]
    if arguments.kubeconfig:
        lines.append(f"  kubeconfig: {_scalar(arguments.kubeconfig)}")
    if arguments.context:
        lines.append(f"  context: {_scalar(arguments.context)}")
    url = arguments.prometheus or "http://127.0.0.1:30090"
    lines.append(f"  prometheus: {{url: {_scalar(url)}}}" + ("" if arguments.prometheus else "  # CHECK"))
    path = name.replace("-", "_")
    lines += ["", "collect:", f"  output_dir: data/{path}", "", "process:", f"  output_dir: data/{path}", ""]
    lines += [
        "scale:",
        f"  bundle: model_states/{path}/AdapGLA.pt",
        f"  run_dir: runs/{path}",
        "  dry_run: true  # shadow first; false lets it act",
    ]
    lines += ["", "evaluate:", f"  runs: runs/{path}", f"  output_dir: runs/{path}", ""]
    return "\n".join(lines)


def _service(item: Found) -> str:
    """The flow mapping of one service; nothing where all names are its own."""
    parts: dict[str, Any] = {}
    if item.workloads[0] != item.name or len(item.workloads) > 1:
        parts["deployment"] = item.workloads[0]
    if item.container != item.name:
        parts["container"] = item.container
    if len(item.workloads) > 1:
        parts["workloads"] = item.workloads
    if item.reason:
        parts["scaled"] = False
    return (
        yaml.safe_dump(parts, default_flow_style=True, sort_keys=False, width=10_000).strip()
        if parts
        else "{}"
    )


def _notes(item: Found) -> list[str]:
    return [text for text in (item.reason, *item.notes) if text]


def _scalar(text: str) -> str:
    return (
        yaml.safe_dump(text, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
    )


def _check(text: str) -> Settings:
    """The draft must be settings.

    Raises:
        SettingsError: it isn't (two services claim one workload).
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "draft.yaml"
        path.write_text(text, encoding="utf-8")
        return load_settings(path)


if __name__ == "__main__":
    raise SystemExit(main())
