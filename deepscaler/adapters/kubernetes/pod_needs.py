"""What one more pod of a Deployment takes of the resources that quotas count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deepscaler.adapters.kubernetes.api import Object
from deepscaler.adapters.kubernetes.objects import Kind, amounts, quantity


def next_pod(template: Object, seen: Object | None, limit_ranges: Iterable[Object] = ()) -> Object:
    """The spec that a pod will have that is created now.

    It is the template's, with the defaults of the namespace's LimitRanges, and with the containers that
    something in the cluster injects (sidecars): those of a pod that was seen and that the template lacks.

    Args:
        template: the spec of the Deployment's pod template.
        seen: the spec of a pod of the Deployment; None: none was seen.
        limit_ranges: those of the namespace.
    """
    defaults = [item for each in limit_ranges for item in (each.get("spec") or {}).get("limits") or ()]
    spec = dict(template)
    for field in ("containers", "initContainers"):
        own = [_with_defaults(container, defaults) for container in template.get(field) or ()]
        names = {container.get("name") for container in own}
        injected = [item for item in (seen or {}).get(field) or () if item.get("name") not in names]
        spec[field] = [*own, *injected]
    # The first class of all pods and the overhead of their runtime are filled in when a pod is created.
    for field in ("overhead", "priorityClassName"):
        if field not in spec and (seen or {}).get(field):
            spec[field] = (seen or {})[field]
    return spec


def _with_defaults(container: Object, limit_ranges: Iterable[Object]) -> Object:
    """The container as the API server stores it: a limit is the request too, then LimitRanges fill in."""
    stated = container.get("resources") or {}
    limits = dict(stated.get("limits") or {})
    requests = {**limits, **(stated.get("requests") or {})}
    for item in limit_ranges:
        if item.get("type") == "Container":
            default = {**(item.get("max") or {}), **(item.get("default") or {})}
            least = {**(item.get("min") or {}), **default, **(item.get("defaultRequest") or {})}
            limits = {**default, **limits}
            requests = {**least, **requests}
    return {**container, "resources": {"limits": limits, "requests": requests}}


def effective(spec: Object, kind: Kind, resource: str) -> float:
    """The effective limit or request of a pod: of its containers together, or of its start if that is more.

    Init containers run one after the other, beside the sidecars that were started before them. Resources that
    are stated for the whole pod count instead.
    """
    whole = ((spec.get("resources") or {}).get(kind) or {}).get(resource)
    if whole is not None:
        total = quantity(whole) or 0.0
    else:
        sidecars = peak = 0.0
        for container in spec.get("initContainers") or ():
            value = amounts(container, resource)[kind] or 0.0
            peak = max(peak, sidecars + value)
            sidecars += value if container.get("restartPolicy") == "Always" else 0.0
        running = sum(amounts(item, resource)[kind] or 0.0 for item in spec.get("containers") or ())
        total = max(sidecars + running, peak)
    overhead = quantity((spec.get("overhead") or {}).get(resource)) or 0.0
    return total + overhead if total or kind == "requests" else 0.0


def states(spec: Object, kind: Kind, resource: str) -> bool:
    """Whether every container states it, or the pod as a whole; where a quota counts it, each has to."""
    if ((spec.get("resources") or {}).get(kind) or {}).get(resource) is not None:
        return True
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return all(amounts(item, resource)[kind] is not None for item in containers)


def in_scopes(spec: Object, quota: Object) -> bool:
    """Whether a quota with scopes counts such a pod. What isn't known to count, doesn't.

    Source: Kubernetes' documentation of resource quotas, "Quota scopes".
    """
    rules = [{"scopeName": name, "operator": "Exists"} for name in quota.get("scopes") or ()]
    rules += (quota.get("scopeSelector") or {}).get("matchExpressions") or ()
    return all(_in_scope(spec, rule) for rule in rules)


def _in_scope(spec: Object, rule: Mapping[str, Any]) -> bool:
    best_effort = not any(
        effective(spec, kind, resource) for kind in ("limits", "requests") for resource in ("cpu", "memory")
    )
    ends, value = spec.get("activeDeadlineSeconds") is not None, spec.get("priorityClassName")
    plain = {"BestEffort": best_effort, "NotBestEffort": not best_effort}
    plain |= {"Terminating": ends, "NotTerminating": not ends}
    if rule.get("scopeName") in plain:
        return plain[str(rule["scopeName"])]
    if rule.get("scopeName") != "PriorityClass":
        return False
    values = rule.get("values") or ()
    fits = {"Exists": bool(value), "DoesNotExist": not value, "In": value in values}
    return {**fits, "NotIn": bool(value) and value not in values}.get(str(rule.get("operator")), False)
