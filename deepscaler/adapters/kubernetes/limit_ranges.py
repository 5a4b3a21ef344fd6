"""Pods that a namespace's LimitRanges let nobody create."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from deepscaler.adapters.kubernetes.api import Object
from deepscaler.adapters.kubernetes.objects import Kind, amounts, name_of, quantity
from deepscaler.adapters.kubernetes.pod_needs import effective

_BOUNDS = ("min", "max", "maxLimitRequestRatio")
_KINDS: tuple[Kind, Kind] = ("requests", "limits")


def refusal(spec: Object, limit_ranges: Iterable[Object]) -> str:
    """Why no such pod can be created: `LimitRange/team: limit of cpu 2, at most 1`; "" if it can be.

    Args:
        spec: of a pod, with the defaults.
        limit_ranges: those of the namespace.

    Source: Kubernetes' documentation of limit ranges; the rules of the admission controller LimitRanger.
    """
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    ranges = list(limit_ranges)
    for name, item in _items(ranges, "Container"):
        for container in containers:
            why = _outside(item, container)
            if why:
                return f"LimitRange/{name}: container {container.get('name')}: {why}"
    for name, item in _items(ranges, "Pod"):
        resources = {key for kind in _BOUNDS for key in item.get(kind) or ()}
        why = _outside(item, _together(spec, resources))
        if why:
            return f"LimitRange/{name}: the pod's containers together: {why}"
    return _above_default(containers, ranges)


def _above_default(containers: Iterable[Object], ranges: Sequence[Object]) -> str:
    """A request above the limit that a LimitRange fills in; "" if there is none."""
    names = ", ".join(sorted({name for name, _ in _items(ranges, "Container")}))
    for container in containers if names else ():
        for resource in (container.get("resources") or {}).get("requests") or ():
            amount = amounts(container, resource)
            if amount["limits"] is not None and (amount["requests"] or 0.0) > amount["limits"]:
                found = f"request of {resource} {amount['requests']:g} above limit {amount['limits']:g}"
                return f"LimitRange/{names}: container {container.get('name')}: {found}"
    return ""


def _items(limit_ranges: Iterable[Object], kind: str) -> Iterator[tuple[str, Object]]:
    """The name of the LimitRange and each of its items of a kind."""
    for each in limit_ranges:
        for item in (each.get("spec") or {}).get("limits") or ():
            if item.get("type") == kind:
                yield name_of(each), item


def _outside(item: Object, container: Object) -> str:
    """Which of its bounds a container, or all of a pod together, doesn't keep; "" if it keeps all."""
    for resource, text in (item.get("min") or {}).items():
        found, least = amounts(container, resource), quantity(text) or 0.0
        for kind in _KINDS:
            value = found[kind]
            if value < least if value is not None else kind == "requests":
                return f"{kind[:-1]} of {resource} {_shown(value)}, at least {text}"
    for resource, text in (item.get("max") or {}).items():
        found, most = amounts(container, resource), quantity(text) or 0.0
        for kind in reversed(_KINDS):
            value = found[kind]
            if value > most if value is not None else kind == "limits":
                return f"{kind[:-1]} of {resource} {_shown(value)}, at most {text}"
    return _beyond_ratio(item.get("maxLimitRequestRatio") or {}, container)


def _beyond_ratio(most: Mapping[str, Any], container: Object) -> str:
    for resource, text in most.items():
        limit, request = (amounts(container, resource)[kind] for kind in reversed(_KINDS))
        if not limit or not request or limit / request > (quantity(text) or 0.0) * (1 + 1e-9):
            return f"limit {_shown(limit)} of {resource} to request {_shown(request)}, at most {text} to 1"
    return ""


def _shown(value: float | None) -> str:
    return "missing" if value is None else f"{value:g}"


def _together(spec: Object, resources: Iterable[str]) -> Object:
    """What a pod's containers state together, as if it were one container."""
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ()), spec]
    stated = {
        kind: {
            resource: str(effective({**spec, "overhead": None}, kind, resource))
            for resource in resources
            if any(resource in ((item.get("resources") or {}).get(kind) or {}) for item in containers)
        }
        for kind in _KINDS
    }
    return {"resources": stated}
