"""What a namespace's ResourceQuotas leave to the services that are scaled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deepscaler.adapters.kubernetes.api import Object
from deepscaler.adapters.kubernetes.objects import Kind, name_of, quantity
from deepscaler.adapters.kubernetes.pod_needs import effective, in_scopes, states
from deepscaler.artefacts import one_line
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
        refused: why it can't be created whatever is free; "" if it can be.
    """

    spec: Object
    pods: int
    refused: str = ""


def pods_of(deployment: Object) -> int:
    """The pods that a Deployment has, besides those that are going."""
    return int((deployment.get("status") or {}).get("replicas") or 0)


def failure(deployment: Object) -> str:
    """Why a Deployment fails to create the pods that it lacks, as its status says it; "" if it doesn't fail.

    It tells of whatever refuses pods: an admission webhook, pod security, a LimitRange that isn't to be read.
    """
    if pods_of(deployment) >= int(deployment["spec"].get("replicas", 1)):
        return ""
    for condition in (deployment.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            said = one_line(condition.get("message") or condition.get("reason") or "", 200)
            return f"Deployment/{name_of(deployment)}: its pods can't be created: {said}"
    return ""


def quota_claims(
    quotas: Iterable[Object], services: Mapping[str, NextPod]
) -> dict[str, tuple[QuotaClaim, ...]]:
    """Service -> what its next pod takes of each quota that counts it, and what that quota has left.

    What lets no further pod of a service come up counts as a quota that has no room for one. A quota that was
    made just now doesn't say yet what is used of it; then the pods of these services count.
    """
    claims = {
        service: [QuotaClaim(item.refused, 0.0, math.inf)] if item.refused else []
        for service, item in services.items()
    }
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
