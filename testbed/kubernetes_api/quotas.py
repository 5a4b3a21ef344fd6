"""ResourceQuotas and LimitRanges: what a pod counts, what a namespace has used, and what is refused.

Source: the public documentation of resource quotas, limit ranges and effective requests of pods.
Differs: quotas with the scope CrossNamespacePodAffinity count nothing, and LimitRanges hold for pods and
containers only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from testbed.kubernetes_api import quantities
from testbed.kubernetes_api.resources import Resource
from testbed.kubernetes_api.status import Object, Refused, about, qualified

_STATED = ("cpu", "memory")
_LEGACY = (
    *("configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets"),
    "services",
)
Amounts = dict[str, Decimal]


# ----------------------------------------------------------------------------------------------- limit ranges
def with_limits(spec: Object, ranges: Iterable[Object]) -> Object:
    """The spec of a pod with the defaults that the API server and LimitRanges give its containers."""
    items = [item for each in ranges for item in (each.get("spec") or {}).get("limits") or ()]
    filled = dict(spec)
    for field in ("containers", "initContainers"):
        if spec.get(field):
            filled[field] = [_container(container, items) for container in spec[field]]
    return filled


def _container(container: Object, items: Iterable[Object]) -> Object:
    stated = container.get("resources") or {}
    limits: Object = dict(stated.get("limits") or {})
    requests: Object = {**limits, **(stated.get("requests") or {})}
    for item in items:
        if item.get("type") == "Container":
            limits = {**(item.get("default") or {}), **limits}
            requests = {**(item.get("defaultRequest") or {}), **requests}
    amounts = {name: found for name, found in (("limits", limits), ("requests", requests)) if found}
    return {**container, "resources": {**stated, **amounts}}


def complete_limit_range(obj: Object) -> None:
    """Set the defaults of a LimitRange: the most is the default limit, that or the least the request."""
    for item in (obj.get("spec") or {}).get("limits") or ():
        if item.get("type") == "Container":
            default = {**(item.get("max") or {}), **(item.get("default") or {})}
            request = {**(item.get("min") or {}), **default, **(item.get("defaultRequest") or {})}
            item |= {
                name: found for name, found in (("default", default), ("defaultRequest", request)) if found
            }


def outside(spec: Object, ranges: Iterable[Object]) -> list[str]:
    """What of a pod lies outside of the LimitRanges, in words."""
    found = list[str]()
    every = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for item in (item for each in ranges for item in (each.get("spec") or {}).get("limits") or ()):
        if item.get("type") == "Container":
            for container in every:
                stated = container.get("resources") or {}
                found += _breaches(item, stated.get("limits") or {}, stated.get("requests") or {})
        elif item.get("type") == "Pod":
            found += _breaches(item, _whole(spec, "limits"), _whole(spec, "requests"))
    return found


def _whole(spec: Object, kind: str) -> dict[str, str]:
    """What the containers of a pod state together: nothing of a resource that none of them states."""
    every = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    names = {name for each in every for name in (each.get("resources") or {}).get(kind) or ()}
    return {name: quantities.text(_effective(spec, kind, name), name == "memory") for name in sorted(names)}


def _breaches(item: Object, limits: Mapping[str, str], requests: Mapping[str, str]) -> list[str]:
    """Which bounds of one item of a LimitRange aren't kept, as the API server words it."""
    found, kind = list[str](), item["type"]
    for resource, most in (item.get("max") or {}).items():
        said = f"maximum {resource} usage per {kind} is {most}"
        if resource not in limits:
            found.append(f"{said}.  No limit is specified")
        found += _first_beyond(said, resource, {"limit": limits, "request": requests}, most, 1)
    for resource, least in (item.get("min") or {}).items():
        said = f"minimum {resource} usage per {kind} is {least}"
        if resource not in requests:
            found.append(f"{said}.  No request is specified")
        found += _first_beyond(said, resource, {"request": requests, "limit": limits}, least, -1)
    return found + _ratios(item, limits, requests)


def _first_beyond(
    said: str, resource: str, stated: Mapping[str, Mapping[str, str]], bound: str, sign: int
) -> list[str]:
    """The first of limit and request that lies above the bound (sign 1) or below it (-1), in words."""
    for kind, amounts in stated.items():
        found = amounts.get(resource)
        if found is not None and sign * (quantities.value(found) - quantities.value(bound)) > 0:
            return [f"{said}, but {kind} is {found}"]
    return []


def _ratios(item: Object, limits: Mapping[str, str], requests: Mapping[str, str]) -> list[str]:
    found = list[str]()
    for resource, most in (item.get("maxLimitRequestRatio") or {}).items():
        said = f"{resource} max limit to request ratio per {item['type']} is {most}"
        request, limit = (quantities.value(each.get(resource, 0)) for each in (requests, limits))
        if not request:
            found.append(f"{said}, but no request is specified or request is 0")
        elif not limit:
            found.append(f"{said}, but no limit is specified or limit is 0")
        elif limit / request > quantities.value(most):
            found.append(f"{said}, but provided ratio is {limit / request:.6f}")
    return found


# ----------------------------------------------------------------------------------------------------- quotas
def _amount(container: Object, kind: str, resource: str) -> Decimal:
    found = ((container.get("resources") or {}).get(kind) or {}).get(resource)
    return quantities.value(found) if found is not None else Decimal(0)


def _effective(spec: Object, kind: str, resource: str) -> Decimal:
    """What a pod counts: all that runs together, or its start if that takes more."""
    beside, peak = Decimal(0), Decimal(0)
    for container in spec.get("initContainers") or ():
        amount = _amount(container, kind, resource)
        peak = max(peak, beside + amount)
        if container.get("restartPolicy") == "Always":
            beside += amount
    together = sum((_amount(item, kind, resource) for item in spec.get("containers") or ()), beside)
    overhead = (spec.get("overhead") or {}).get(resource)
    return max(together, peak) + (quantities.value(overhead) if overhead is not None else 0)


def _split(key: str) -> tuple[str, str]:
    """`limits` or `requests`, and the resource, of what a quota bounds."""
    first, _, rest = key.partition(".")
    return (first, rest) if first in ("limits", "requests") else ("requests", key)


def _counts(spec: Object, quota: Object) -> bool:
    """Whether a quota counts such a pod."""
    wanted = quota.get("spec") or {}
    best_effort = not any(
        _effective(spec, kind, resource) for kind in ("limits", "requests") for resource in _STATED
    )
    ends, name = spec.get("activeDeadlineSeconds") is not None, spec.get("priorityClassName")
    scopes = {"BestEffort": best_effort, "NotBestEffort": not best_effort}
    scopes |= {"Terminating": ends, "NotTerminating": not ends, "PriorityClass": bool(name)}
    for rule in (wanted.get("scopeSelector") or {}).get("matchExpressions") or ():
        values, operator = rule.get("values") or (), rule.get("operator")
        known = scopes.get(rule.get("scopeName", ""), False)
        fits = {"In": name in values, "NotIn": bool(name) and name not in values}
        if not {**fits, "Exists": known, "DoesNotExist": not known}.get(str(operator), False):
            return False
    return all(scopes.get(scope, False) for scope in wanted.get("scopes") or ())


def _over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def charge(pod: Object, quota: Object) -> Amounts:
    """What a pod counts of each resource of a quota."""
    found: Amounts = {}
    if not _counts(pod["spec"], quota):
        return found
    for key in (quota.get("spec") or {}).get("hard") or {}:
        if key in ("pods", "count/pods"):
            found[key] = Decimal(0 if key == "pods" and _over(pod) else 1)
        elif not key.startswith("count/") and key not in _LEGACY:
            found[key] = Decimal(0) if _over(pod) else _effective(pod["spec"], *_split(key))
    return {key: amount for key, amount in found.items() if amount}


def counted(resource: Resource, quota: Object) -> str | None:
    """The key by which a quota counts objects of a resource other than pods; None if it doesn't."""
    names = [f"count/{qualified(resource.plural, resource.group)}"]
    names += [resource.plural] if not resource.group and resource.plural in _LEGACY else []
    hard = (quota.get("spec") or {}).get("hard") or {}
    return next((name for name in names if name in hard and resource.plural != "pods"), None)


def used(quota: Object, pods: Iterable[Object], objects: Mapping[str, int]) -> Object:
    """The status of a quota.

    Args:
        quota: whose.
        pods: those of the namespace.
        objects: how many objects there are, by the keys of the quota that count them.
    """
    hard = (quota.get("spec") or {}).get("hard") or {}
    sums: Amounts = {key: Decimal(objects.get(key, 0)) for key in hard}
    for pod in pods:
        for key, amount in charge(pod, quota).items():
            sums[key] += amount
    texts = {
        key: quantities.text(amount, "memory" in key or "storage" in key) for key, amount in sums.items()
    }
    return {"hard": dict(hard), "used": texts}


def require(quotas: Iterable[Object], pod: Object, name: str, reserved: Iterable[Object] = ()) -> None:
    """Return if a pod fits into the quotas of its namespace.

    Args:
        quotas: with their status.
        pod: that is about to be created.
        name: what it is called in the message.
        reserved: pods that are about to be created, too.

    Raises:
        Refused: 403 if a quota has no room for it, or if it doesn't state what a quota counts.
    """
    for quota in quotas:
        title, amounts = quota["metadata"]["name"], charge(pod, quota)
        lacks = _unstated(pod["spec"], quota) if _counts(pod["spec"], quota) else ""
        if lacks:
            raise forbidden("pods", "", name, f"failed quota: {title}: must specify {lacks}")
        before: Amounts = {}
        for other in reserved:
            for key, amount in charge(other, quota).items():
                before[key] = before.get(key, Decimal(0)) + amount
        exceed(quota, amounts, before, "pods", "", name)


def exceed(quota: Object, asked: Amounts, before: Amounts, plural: str, group: str, name: str) -> None:
    """Return if a quota has room for what is asked.

    Raises:
        Refused: 403 if it hasn't.
    """
    hard = (quota.get("spec") or {}).get("hard") or {}
    known = (quota.get("status") or {}).get("used") or {}
    over = {
        key: amount
        for key, amount in sorted(asked.items())
        if quantities.value(known.get(key, 0)) + before.get(key, Decimal(0)) + amount
        > quantities.value(hard[key])
    }
    if over:
        wants = ",".join(f"{key}={quantities.text(value, 'memory' in key)}" for key, value in over.items())
        has = ",".join(f"{key}={known.get(key, 0)}" for key in over)
        most = ",".join(f"{key}={hard[key]}" for key in over)
        title = quota["metadata"]["name"]
        raise forbidden(
            plural, group, name, f"exceeded quota: {title}, requested: {wants}, used: {has}, limited: {most}"
        )


def _unstated(spec: Object, quota: Object) -> str:
    """What a quota counts and containers don't state, as in `limits.cpu for: web; requests.cpu for: web`."""
    found = []
    for key in sorted((quota.get("spec") or {}).get("hard") or {}):
        kind, resource = _split(key)
        containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
        names = [
            item.get("name", "")
            for item in containers
            if ((item.get("resources") or {}).get(kind) or {}).get(resource) is None
        ]
        if resource in _STATED and names:
            found.append(f"{key} for: {','.join(names)}")
    return "; ".join(found)


def forbidden(plural: str, group: str, name: str, why: str) -> Refused:
    """The refusal 403 of what the API server's admission doesn't let in."""
    said = f'{qualified(plural, group)} "{name}" is forbidden: {why}'
    return Refused(403, "Forbidden", said, about(name, group, plural))
