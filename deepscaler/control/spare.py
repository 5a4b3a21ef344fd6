"""Room on nodes before a peak: pods of each service that may soon be needed beyond those that are there."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from deepscaler.cluster import Cluster, Workload
from deepscaler.control.decision import HELD, LEFT_ALONE, Decision
from deepscaler.control.recorder import WRITING
from deepscaler.policies.base import Policy
from deepscaler.policies.outlook import Outlook
from deepscaler.settings import Scale

EVERY_SECONDS = 60.0
"""Room is asked for at most this often. Nodes take minutes, so more would help nobody."""
WINDOW_SECONDS = 300.0
"""The highest need of so long counts, so that a forecast that wavers doesn't make nodes come and go."""
LIFE_SECONDS = 1200.0
"""What was asked for is over after so long, unless it is asked again."""


class Spare:
    """Asks a cluster for the room that the policy's upper scenarios need, where that is switched on.

    Args:
        cluster: where it is asked for.
        scale: modes, bounds, horizon.
    """

    def __init__(self, cluster: Cluster, scale: Scale) -> None:
        self._cluster, self._scale = cluster, scale
        self._asked = -math.inf
        self._needs: dict[str, deque[tuple[float, int]]] = {}

    def ask(
        self,
        decisions: Sequence[Decision],
        workloads: Sequence[Workload],
        policy: Policy,
        now: float,
        mode: str,
    ) -> None:
        """Ask for the room of this tick, if it is time and this tick may write at all.

        Args:
            decisions: of this tick.
            workloads: as they were decided on.
            policy: tells what it foresees.
            now: seconds since the epoch.
            mode: what this tick may do at most.
        """
        if not self._scale.capacity_buffer.enabled or mode not in WRITING:
            return
        if 0 <= now - self._asked < EVERY_SECONDS:
            return
        self._asked = now
        highest = foreseen(policy.outlook(), now, self._scale.capacity_buffer.horizon)
        named = {item.service: item for item in workloads}
        spare = {
            item.service: self._beyond(item, named[item.service], highest.get(item.service), now)
            for item in decisions
            if self._scale.mode_of(item.service) != "shadow"
        }
        self._cluster.reserve(spare, now + LIFE_SECONDS)

    def end(self, now: float, mode: str) -> None:
        """Take back what was asked for, if this controller may still write."""
        if self._scale.capacity_buffer.enabled and mode in WRITING:
            self._cluster.reserve({}, now)

    def _beyond(self, decision: Decision, workload: Workload, need: int | None, now: float) -> int:
        """Pods of one service beyond those that are there or decided; none where the decision is in doubt."""
        if need is None or decision.reason in HELD | LEFT_ALONE:
            self._needs.pop(decision.service, None)
            return 0
        most = self._scale.guard_rails.bounds(decision.service)[1]
        there = max(decision.current, decision.target)
        if self._scale.mode_of(decision.service) == "advise":
            most = min((hpa.maximum for hpa in workload.hpas), default=0)
            there = max(decision.current, min(decision.target, most))
        needs = self._needs.setdefault(decision.service, deque())
        if decision.target < decision.current:
            needs.clear()  # what was foreseen has come and gone
        needs.append((now, need))
        while not 0 <= now - needs[0][0] <= WINDOW_SECONDS:  # the clock may have been set back, too
            needs.popleft()
        highest = min(max(count for _, count in needs), most)
        return min(max(highest - there, 0), self._scale.capacity_buffer.most)


def foreseen(outlook: Outlook, now: float, horizon: float) -> Mapping[str, int]:
    """Service -> the most replicas that the upper edge of its band reaches within the horizon.

    It is empty where nothing was foreseen at this tick.

    Args:
        outlook: what the policy foresees.
        now: seconds since the epoch.
        horizon: seconds ahead.
    """
    if outlook.made < now - 1.0 or not outlook.step:
        return {}
    rows = max(int(horizon / (outlook.step * outlook.every)), 1)
    highest = {name: float(np.max(band[:rows, -1])) for name, band in outlook.replicas.items() if len(band)}
    return {name: math.ceil(count) for name, count in highest.items() if math.isfinite(count)}
