"""Objects as the rows that `kubectl get` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from testbed.kubernetes_api.resources import Resource
from testbed.kubernetes_api.status import Object

Row = list[Any]


@dataclass(frozen=True)
class _Table:
    """Columns, written as `Name` or `Name:type`, and what gives the cells of a row.

    A leading `+` marks a column that only `-o wide` shows.
    """

    columns: str
    cells: Callable[[Object, float], Row]


def age(seconds: float) -> str:
    """A span of time in at most two units: `45s`, `3m20s`, `5h`, `2d7h`, `40d`."""
    whole = max(int(seconds), 0)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m" + (f"{whole % 60}s" if whole % 60 else "")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h" + (f"{minutes % 60}m" if minutes % 60 else "")
    if days < 2:
        return f"{hours}h"
    if days < 8:
        return f"{days}d" + (f"{hours % 24}h" if hours % 24 else "")
    if days < 365 * 2:
        return f"{days}d"
    years, rest = divmod(days, 365)
    return f"{years}y" + (f"{rest}d" if rest and years < 8 else "")


def _since(text: str | None, now: float) -> str:
    return age(now - datetime.fromisoformat(text).timestamp()) if text else "<unknown>"


def _old(obj: Object, now: float) -> str:
    return _since(obj["metadata"].get("creationTimestamp"), now)


def _joined(pairs: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(pairs.items())) or "<none>"


def selector_text(obj: Object) -> str:
    """The label selector of a workload as a text."""
    selector = obj["spec"].get("selector") or {}
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for rule in selector.get("matchExpressions") or ():
        values = f"({','.join(rule.get('values') or ())})"
        words = {
            "In": f"{rule['key']} in {values}",
            "NotIn": f"{rule['key']} notin {values}",
            "DoesNotExist": f"!{rule['key']}",
        }
        parts.append(words.get(rule["operator"], rule["key"]))
    return ",".join(parts)


def _template(obj: Object) -> Row:
    containers = obj["spec"]["template"]["spec"].get("containers") or []
    return [
        ",".join(each["name"] for each in containers),
        ",".join(each.get("image", "") for each in containers),
        selector_text(obj),
    ]


def _deployment(obj: Object, now: float) -> Row:
    status = obj.get("status") or {}
    ready = f"{status.get('readyReplicas', 0)}/{obj['spec'].get('replicas', 1)}"
    return [
        ready,
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _old(obj, now),
        *_template(obj),
    ]


def _replica_set(obj: Object, now: float) -> Row:
    status = obj.get("status") or {}
    return [
        obj["spec"]["replicas"],
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        _old(obj, now),
        *_template(obj),
    ]


def _pod(obj: Object, now: float) -> Row:
    status, spec = obj.get("status") or {}, obj["spec"]
    states = status.get("containerStatuses") or []
    ready = f"{sum(bool(each.get('ready')) for each in states)}/{len(spec.get('containers') or [])}"
    phase = "Terminating" if "deletionTimestamp" in obj["metadata"] else status.get("phase", "Unknown")
    restarts = sum(each.get("restartCount", 0) for each in states)
    wide = [status.get("podIP", "<none>"), spec.get("nodeName", "<none>"), "<none>", "<none>"]
    return [ready, phase, str(restarts), _old(obj, now), *wide]


def _service(obj: Object, now: float) -> Row:
    spec = obj["spec"]
    ports = []
    for port in spec.get("ports") or ():
        node = f":{port['nodePort']}" if "nodePort" in port else ""
        ports.append(f"{port['port']}{node}/{port.get('protocol', 'TCP')}")
    outside = {"LoadBalancer": "<pending>", "ExternalName": spec.get("externalName", "")}.get(
        spec["type"], "<none>"
    )
    address = spec.get("clusterIP") or "<none>"
    return [
        spec["type"],
        address,
        outside,
        ",".join(ports) or "<none>",
        _old(obj, now),
        _joined(spec.get("selector") or {}),
    ]


def _autoscaler(obj: Object, now: float) -> Row:
    spec, status = obj["spec"], obj.get("status") or {}
    reference = f"{spec['scaleTargetRef'].get('kind')}/{spec['scaleTargetRef'].get('name')}"
    seen = {
        metric["resource"]["name"]: metric["resource"].get("current", {}).get("averageUtilization")
        for metric in status.get("currentMetrics") or ()
        if metric.get("type") == "Resource"
    }
    targets = []
    for metric in spec.get("metrics") or ():
        name, target = (
            metric.get("resource", {}).get("name", "?"),
            metric.get("resource", {}).get("target", {}),
        )
        current = seen.get(name)
        shown = "<unknown>" if current is None else f"{current}%"
        targets.append(f"{name}: {shown}/{target.get('averageUtilization', '?')}%")
    return [
        *(reference, ", ".join(targets) or "<none>", str(spec.get("minReplicas", 1)), spec["maxReplicas"]),
        *(status.get("currentReplicas", 0), _old(obj, now)),
    ]


def _event(obj: Object, now: float) -> Row:
    about = obj.get("involvedObject") or {}
    last, first = (
        obj.get("lastTimestamp") or obj.get("eventTime"),
        obj.get("firstTimestamp") or obj.get("eventTime"),
    )
    shown = f"{about.get('kind', '').lower()}/{about.get('name', '')}"
    source = (obj.get("source") or {}).get("component", "") or obj.get("reportingComponent", "")
    return [
        *(
            _since(last, now),
            obj.get("type", ""),
            obj.get("reason", ""),
            shown,
            about.get("fieldPath", ""),
            source,
        ),
        *(obj.get("message", ""), _since(first, now), obj.get("count", 1), obj["metadata"]["name"]),
    ]


_TABLES: Mapping[str, _Table] = {
    "Deployment": _Table("Ready Up-to-date Available Age +Containers +Images +Selector", _deployment),
    "ReplicaSet": _Table(
        "Desired:integer Current:integer Ready:integer Age +Containers +Images +Selector", _replica_set
    ),
    "Pod": _Table("Ready Status Restarts Age +IP +Node +Nominated_Node +Readiness_Gates", _pod),
    "Service": _Table("Type Cluster-IP External-IP Port(s) Age +Selector", _service),
    "HorizontalPodAutoscaler": _Table(
        "Reference Targets MinPods MaxPods:integer Replicas:integer Age", _autoscaler
    ),
    "Lease": _Table(
        "Holder Age", lambda obj, now: [(obj.get("spec") or {}).get("holderIdentity", ""), _old(obj, now)]
    ),
    "Namespace": _Table(
        "Status Age", lambda obj, now: [(obj.get("status") or {}).get("phase", ""), _old(obj, now)]
    ),
}
_OTHER = _Table("Age", lambda obj, now: [_old(obj, now)])
_EVENTS = _Table(
    "Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +Count:integer +Name", _event
)


def columns(resource: Resource) -> list[Object]:
    """Definitions of the columns of a resource. Descriptions are left empty."""
    text = (
        _EVENTS.columns if resource.kind == "Event" else "Name " + _TABLES.get(resource.kind, _OTHER).columns
    )
    found = []
    for word in text.split():
        name, _, kind = word.lstrip("+").partition(":")
        shape = "name" if name == "Name" else ""
        title = name.replace("_", " ")
        found.append(
            {
                "name": title,
                "type": kind or "string",
                "format": shape,
                "description": "",
                "priority": int(word.startswith("+")),
            }
        )
    return found


def table(
    resource: Resource, objects: Sequence[Object], now: float, metadata: Object, include: str = "Metadata"
) -> Object:
    """The Table of these objects.

    Args:
        resource: what the objects are.
        objects: one per row.
        now: in seconds since the epoch; ages count up to it.
        metadata: of the list.
        include: what each row also carries: `Metadata`, `Object` or `None`.
    """
    rows = []
    for obj in objects:
        if resource.kind == "Event":
            cells = _event(obj, now)
        else:
            cells = [obj["metadata"]["name"], *_TABLES.get(resource.kind, _OTHER).cells(obj, now)]
        row: Object = {"cells": cells}
        if include == "Object":
            row["object"] = obj
        elif include != "None":
            row["object"] = partial(obj)
        rows.append(row)
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    return {**head, "columnDefinitions": columns(resource), "rows": rows}


def partial(obj: Object) -> Object:
    """The metadata of an object, and nothing else of it."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
