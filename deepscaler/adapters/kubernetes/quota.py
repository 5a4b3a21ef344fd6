"""How many CPU cores a namespace's ResourceQuotas leave to the services that are scaled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deepscaler.adapters.kubernetes.api import Object
from deepscaler.adapters.kubernetes.objects import Amounts, Kind, quantity

_KEYS: tuple[tuple[str, Kind], ...] = (
    ("limits.cpu", "limits"),
    ("requests.cpu", "requests"),
    ("cpu", "requests"),
)


@dataclass(frozen=True)
class CpuQuota:
    """The quota that binds first.

    Attributes:
        cores: what all pods of the scaled services together may take.
        kind: whether the pods' limits or their requests count against it.
    """

    cores: float
    kind: Kind


def tightest(quotas: Iterable[Object], pods: Sequence[tuple[Amounts, int]]) -> CpuQuota | None:
    """The quota that leaves the least room, measured against what the scaled services take now; None without one.

    Args:
        quotas: the ResourceQuotas of the namespace. Those with a scope hold for some pods only and are left out.
        pods: per scaled Deployment, the cores of one whole pod and how many pods there are.
    """
    taken: dict[Kind, float] = {
        kind: sum((cores[kind] or 0.0) * count for cores, count in pods) for kind in ("limits", "requests")
    }
    offers: list[tuple[float, float, Kind]] = []
    for item in quotas:
        if item["spec"].get("scopes") or item["spec"].get("scopeSelector"):
            continue
        hard, used = item["spec"].get("hard") or {}, (item.get("status") or {}).get("used") or {}
        for key, kind in _KEYS:
            cores = quantity(hard.get(key))
            if cores is not None:
                free = cores - (quantity(used.get(key)) or 0.0)
                offers.append((free / max(taken[kind], 1e-9), free + taken[kind], kind))
    if not offers:
        return None
    _, cores, kind = min(offers)
    return CpuQuota(cores, kind)
