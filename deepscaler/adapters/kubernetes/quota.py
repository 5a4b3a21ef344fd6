"""What a namespace's ResourceQuotas leave to the services that are scaled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deepscaler.adapters.kubernetes.api import Object
from deepscaler.adapters.kubernetes.objects import Kind, name_of, quantity
from deepscaler.adapters.kubernetes.pod_needs import effective, in_scopes, states
from deepscaler.cluster import QuotaClaim

_COUNTS = frozenset({"pods", "count/pods"})
_HAVE_TO_BE_STATED = frozenset({"cpu", "memory"})
"""Where a quota counts these, the API server refuses a pod that has a container without them."""


@dataclass(frozen=True)
class NextPod:
    """The next pod of a service.

    Attributes:
        spec: what it will be.
        pods: how many there are already, besides those that are going.
    """

    spec: Object
    pods: int


def quota_claims(
    quotas: Iterable[Object], services: Mapping[str, NextPod]
) -> dict[str, tuple[QuotaClaim, ...]]:
    """Service -> what its next pod takes of each quota that counts it, and what that quota has left.

    A quota that was made just now doesn't say yet what is used of it; then the pods of these services count.
    """
    claims: dict[str, list[QuotaClaim]] = {service: [] for service in services}
    for quota in quotas:
        spec, status = quota.get("spec") or {}, quota.get("status") or {}
        counted = {service: item for service, item in services.items() if in_scopes(item.spec, spec)}
        for key, text in (spec.get("hard") or {}).items():
            takes = {service: _takes(item.spec, key) for service, item in counted.items()}
            used = quantity((status.get("used") or {}).get(key))
            if used is None:
                used = sum(
                    takes[name] * item.pods for name, item in counted.items() if takes[name] < math.inf
                )
            free = (quantity(text) or 0.0) - used
            name = f"ResourceQuota/{name_of(quota)} {key}"
            for service, value in takes.items():
                if value:
                    claims[service].append(QuotaClaim(name, free, value))
    return {service: tuple(found) for service, found in claims.items()}


def _takes(spec: Object, key: str) -> float:
    """What a pod takes of what a quota calls `key`; infinite where the quota refuses such a pod."""
    if key in _COUNTS:
        return 1.0
    first, _, rest = key.partition(".")
    kind: Kind = "limits" if first == "limits" else "requests"
    resource = rest if first in ("limits", "requests") else key
    if resource in _HAVE_TO_BE_STATED and not states(spec, kind, resource):
        return math.inf
    return effective(spec, kind, resource)
