"""Who keeps undoing the replicas that this controller writes, and for how long it gives way.

A single edit is the owner's wish: it is told, and the next tick decides anew. Whoever undoes write after
write is a rival, whatever it is (a script, a GitOps tool, another autoscaler), and fighting it helps nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from deepscaler.cluster import ScaleReport, Workload

ROUNDS = 3
"""So many writes that were undone within `WINDOW_SECONDS` make a rival."""
WINDOW_SECONDS = 1800.0
FIRST_PAUSE_SECONDS = 300.0
LONGEST_PAUSE_SECONDS = 3600.0
"""After a pause a write is tried again. If it is undone, the next pause is twice as long."""
SETTLED_SECONDS = 900.0
"""A rival that has undone nothing for so long after a pause is gone."""


@dataclass
class _Rival:
    """Whoever undoes writes to one service."""

    names: dict[str, None] = field(default_factory=dict)  # in the order in which they were seen
    rounds: list[float] = field(default_factory=list)
    pause: float = 0.0
    until: float = 0.0

    def undid(self, name: str, now: float) -> None:
        self.names.setdefault(name)
        self.rounds = [time for time in self.rounds if 0 <= now - time < WINDOW_SECONDS] + [now]
        if self.pause or len(self.rounds) >= ROUNDS:
            self.pause = min(2 * self.pause or FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
            self.until, self.rounds = now + self.pause, []

    def gone(self, now: float) -> bool:
        """Whether nothing was undone for so long that it can be forgotten."""
        if self.pause:
            return now >= self.until + SETTLED_SECONDS
        return now - self.rounds[-1] >= WINDOW_SECONDS


class Contests:
    """Remembers what was written and what became of it."""

    def __init__(self) -> None:
        self._wrote: dict[str, int] = {}  # service -> replicas that were written and stand
        self._met: dict[str, int] = {}  # service -> replicas that were read before a write that conflicted
        self._rivals: dict[str, _Rival] = {}

    def wrote(self, report: ScaleReport, current: Mapping[str, int]) -> None:
        """Remember what a tick wrote.

        Args:
            report: what became of the writes.
            current: service -> replicas that were read before, where they weren't stale. A write that met
                somebody else's in between (a conflict) was undone before it was done.
        """
        self._wrote |= report.applied
        self._met = {
            name: current[name]
            for name, why in report.failed.items()
            if "conflict" in why.lower() and name in current
        }

    def forget(self) -> None:
        """Another controller writes now."""
        self._wrote, self._met = {}, {}

    def observe(self, workloads: Sequence[Workload], now: float) -> None:
        """Notice which writes were undone since the last tick.

        A stale workload tells nothing: it may be as it was before the write.
        """
        expected = {**self._wrote, **self._met}
        for workload in workloads:
            service = workload.service
            if workload.stale:
                continue
            if expected.get(service, workload.replicas) != workload.replicas:
                self._wrote.pop(service, None)
                name = f"field manager {workload.manager}" if workload.manager else "an unknown field manager"
                self._rivals.setdefault(service, _Rival()).undid(name, now)
        self._met = {}
        self._rivals = {name: rival for name, rival in self._rivals.items() if not rival.gone(now)}

    def refused(self, workloads: Sequence[Workload], now: float) -> list[Workload]:
        """The workloads; those that are left to a rival for now name it among their autoscalers."""
        giving_way = {name for name, rival in self._rivals.items() if 0 < rival.until - now <= rival.pause}
        return [self._named(item) if item.service in giving_way else item for item in workloads]

    def rivalled(self, workloads: Sequence[Workload]) -> list[Workload]:
        """The workloads; those whose rival isn't known to be gone name it among their autoscalers."""
        return [
            self._named(item) if (rival := self._rivals.get(item.service)) and rival.pause else item
            for item in workloads
        ]

    def _named(self, workload: Workload) -> Workload:
        names = tuple(self._rivals[workload.service].names)
        return replace(workload, autoscalers=(*workload.autoscalers, *names))
