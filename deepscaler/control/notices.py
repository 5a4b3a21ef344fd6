"""What a controller logs about replicas that others edited, rival autoscalers, and services that it holds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from deepscaler.cluster import ScaleReport, Workload
from deepscaler.control.decision import HELD, LEFT_ALONE, Decision
from deepscaler.control.happenings import held_by
from deepscaler.control.recorder import Statistics
from deepscaler.logs import OnChange
from deepscaler.settings import Mode

log = logging.getLogger(__name__)
_CONSEQUENCES: dict[Mode, str] = {
    "shadow": "",
    "advise": "; it stays in charge",
    "act": "; refused until it is gone",
}


class Notices:
    """Logs each of them when it begins and when it is over, not at every tick.

    Args:
        statistics: where edits by others are counted.
        mode_of: what may be written for a service; rivals are refused where that is its replicas.
        level: of the lines that tell writes and modes; troubles are warnings and errors.

    Attributes:
        incumbents: service -> autoscalers seen acting on it.
    """

    def __init__(
        self, statistics: Statistics, mode_of: Callable[[str], Mode], level: int = logging.INFO
    ) -> None:
        self.incumbents: dict[str, tuple[str, ...]] = {}
        self._statistics = statistics
        self._mode_of = mode_of
        self._rivals, self._held, self._bound = OnChange(log), OnChange(log), OnChange(log)
        self._autoscalers, self._shared = OnChange(log, logging.INFO), OnChange(log)
        self._crowded: set[str] = set()
        self._left_at: Mapping[str, int] = {}
        self._mode, self._level = "", level

    def leave(self, replicas: Mapping[str, int], unsure: Collection[str] = ()) -> None:
        """Remember the replicas after a tick; if there are others at the next one, somebody edited them.

        Args:
            replicas: by service.
            unsure: services whose replicas weren't known at this tick; they are left as they were before.
        """
        before = {name: count for name, count in self._left_at.items() if name in unsure}
        self._left_at = {**before, **replicas}

    def tell(self, workloads: Sequence[Workload], decisions: Sequence[Decision]) -> None:
        """Log what changed since the last tick."""
        for workload, decision in zip(workloads, decisions, strict=True):
            self._tell_edit(workload)
            self._tell_rivals(workload)
            self._tell_held(decision)
            self._tell_bound(decision)

    def wrote(self, decisions: Sequence[Decision], report: ScaleReport) -> None:
        """Log each write, and what the tick changed in all."""
        for item in decisions:
            if item.service in report.applied:
                change = f"{item.current} -> {item.target} replicas"
                log.log(self._level, "%s: %s (%s)", item.service, change, item.reason.value)
            elif item.service in report.failed:
                log.error("%s: not set to %d: %s", item.service, item.target, report.failed[item.service])
        if report.applied or report.failed:
            before = sum(item.current for item in decisions)
            after = before + sum(
                report.applied.get(item.service, item.current) - item.current for item in decisions
            )
            log.log(
                self._level,
                "tick: %d of %d services changed, %d failed; %d -> %d replicas in all",
                len(report.applied),
                len(decisions),
                len(report.failed),
                before,
                after,
            )

    def entered(self, mode: str) -> None:
        """Log that the controller acts, stands by or only looks, when that changes."""
        if mode != self._mode:
            log.log(self._level, "mode: %s%s", mode, f" (before: {self._mode})" if self._mode else "")
            self._mode = mode

    def crowded(self, constraints: Mapping[str, str]) -> None:
        """Log the constraints that can't be kept, and those that are kept again."""
        for name, text in constraints.items():
            self._shared.trouble(name, text)
        for name in self._crowded - constraints.keys():
            self._shared.well(name, f"constraint {name}: kept again")
        self._crowded = set(constraints)

    def _tell_edit(self, workload: Workload) -> None:
        service, left_at = workload.service, self._left_at.get(workload.service, workload.replicas)
        if left_at != workload.replicas and not workload.autoscalers and not workload.stale:
            self._statistics.foreign_edits += 1
            log.warning(
                "%s: %s set %d replicas; this controller left it at %d",
                service,
                workload.manager or "somebody",
                workload.replicas,
                left_at,
            )

    def _tell_rivals(self, workload: Workload) -> None:
        service, rivals = workload.service, workload.autoscalers
        self.incumbents[service] = rivals
        said = held_by(workload.hpas)
        if said:
            self._autoscalers.trouble(service, f"{service}: {said}")
        else:
            self._autoscalers.well(service, f"{service}: its autoscaler holds nothing back any more")
        if rivals:
            consequence = _CONSEQUENCES[self._mode_of(service)]
            text = f"{service}: other autoscalers act on it: {', '.join(rivals)}{consequence}"
            self._rivals.trouble(service, text)
        else:
            self._rivals.well(service, f"{service}: no other autoscaler acts on it any more")

    def _tell_held(self, decision: Decision) -> None:
        service, reason = decision.service, decision.reason
        if reason in LEFT_ALONE | HELD:
            self._held.trouble(service, f"{service}: stays at {decision.target} ({reason.value})")
        else:
            self._held.well(service, f"{service}: decided again")

    def _tell_bound(self, decision: Decision) -> None:
        service, quota = decision.service, decision.bound_by
        if quota:
            self._bound.trouble(
                service,
                f"{service}: gets {decision.target} replicas, fewer than it needs ({decision.recommended}): "
                f"{quota} has no room for more",
            )
        else:
            self._bound.well(service, f"{service}: no quota keeps it from more replicas any more")
