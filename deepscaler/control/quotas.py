"""How many more replicas fit into the quotas, and who gets them."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from deepscaler.cluster import QuotaClaim

_SLACK = 1e-9


@dataclass(frozen=True)
class Wish:
    """The replicas of one service.

    Attributes:
        current: in the spec now.
        target: those that are wanted.
        pods: that exist, which is what the free part of a quota is beyond.
        claims: what one more of them takes of which quota.
    """

    current: int
    target: int
    pods: int
    claims: Sequence[QuotaClaim]

    def takes(self, replicas: int) -> dict[str, float]:
        """Quota -> what so many replicas take of it beyond the pods that exist."""
        more = replicas - self.pods
        # Of a service whose pods are refused no more come up, so they take nothing.
        return {claim.quota: claim.takes * more for claim in self.claims if claim.admits}


@dataclass(frozen=True)
class Grant:
    """Replicas that fit, and the quota that keeps the rest out ("": they all fit)."""

    replicas: int
    bound_by: str = ""


def share_out(wishes: Mapping[str, Wish]) -> dict[str, Grant]:
    """What each service gets, so that all quotas are kept.

    Scale-downs stand, and what they free is given away, too. What is free is handed out one replica at a
    time, always to the service that has the smallest share of what it asked for (by name if shares are
    equal), so that the bottleneck of the application is as wide as it can be. A service whose next replica
    doesn't fit into one of its quotas gets no more. None gets less than it has.
    """
    free = {claim.quota: claim.free for wish in wishes.values() for claim in wish.claims}
    for wish in wishes.values():
        for quota, amount in wish.takes(min(wish.current, wish.target)).items():
            free[quota] -= amount
    granted = {name: Grant(min(wish.current, wish.target)) for name, wish in wishes.items()}
    queue = [
        (wish.current / wish.target, name) for name, wish in wishes.items() if wish.target > wish.current
    ]
    heapq.heapify(queue)
    while queue:
        _, name = heapq.heappop(queue)
        wish, replicas = wishes[name], granted[name].replicas
        full = next((item.quota for item in wish.claims if not _fits(item.takes, free[item.quota])), "")
        if full:
            granted[name] = Grant(replicas, full)
            continue
        for claim in wish.claims:
            free[claim.quota] -= claim.takes
        granted[name] = Grant(replicas + 1)
        if replicas + 1 < wish.target:
            heapq.heappush(queue, ((replicas + 1) / wish.target, name))
    return granted


def share_out_beside(wishes: Mapping[str, Wish], fixed: Collection[str]) -> dict[str, Grant]:
    """What each service gets where the replicas of those in `fixed` are somebody else's to decide.

    For the others these count as they are, whatever is wished for them. What is told of them is then bounded
    by what the others leave; fewer replicas of theirs free nothing, since they may never come.
    """
    as_is = {name: replace(wish, target=wish.current) for name, wish in wishes.items() if name in fixed}
    granted = share_out({**wishes, **as_is})
    if not as_is:
        return granted
    left = {
        name: replace(wish, target=max(wish.target, wish.current))
        if name in fixed
        else replace(wish, current=granted[name].replicas, target=granted[name].replicas)
        for name, wish in wishes.items()
    }
    told = share_out(left)
    return {**granted, **{name: told[name] for name in as_is}}


def _fits(amount: float, free: float) -> bool:
    return amount <= free + _SLACK * max(1.0, abs(free))
