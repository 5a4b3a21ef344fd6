"""What becomes of a plan, service by service: nothing (shadow), minimums (advise) or replicas (act)."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from deepscaler.artefacts import utc_text
from deepscaler.cluster import Autoscaler, Cluster, ScaleReport, Workload
from deepscaler.control.advice import Change, advisable, change, lead_seconds
from deepscaler.control.contests import Contests
from deepscaler.control.decision import Decision
from deepscaler.control.happenings import Happenings
from deepscaler.control.notices import Notices
from deepscaler.control.recorder import ACTING, ADVISING, DRY_RUN, STANDBY, WRITING, Statistics
from deepscaler.errors import DeepScalerError
from deepscaler.logs import OnChange
from deepscaler.settings import Settings

log = logging.getLogger(__name__)
_Wish = TypeVar("_Wish")


class Modes:
    """Applies what was decided, as far as the mode of each service allows it.

    Args:
        cluster: where it is applied.
        settings: those of the application.
        statistics: where writes are counted.
        notices: told of writes.
        leading: tells whether this controller may write now.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        statistics: Statistics,
        notices: Notices,
        leading: Callable[[], bool],
    ) -> None:
        self._cluster, self._scale, self._used = cluster, settings.scale, settings.modes
        self._watching = settings.watching
        self._statistics, self._notices, self._leading = statistics, notices, leading
        self._replicas, self._minimums = Contests(), Contests()  # who undoes which of the two
        self._holder = settings.cluster.lease.identity or socket.gethostname()
        self._on_change, self._happenings = OnChange(log), Happenings()

    def configured(self) -> str:
        """What a tick of the leader may do at most: `act`, `advise` or `dry_run`."""
        if self._watching:
            return DRY_RUN
        return ACTING if "act" in self._used else ADVISING

    def now(self) -> str:
        """What a tick may do at most: `act`, `advise`, `standby` (another controller leads) or `dry_run`."""
        configured = self.configured()
        return configured if configured == DRY_RUN or self._leading() else STANDBY

    def of(self, service: str, now: str) -> str:
        """What a tick may do to one service, while it may do `now` at most."""
        mode = self._scale.mode_of(service)
        return DRY_RUN if mode == "shadow" else now if now not in WRITING else mode

    # ------------------------------------------------------------------------------------ before the decision
    def observe(self, workloads: Sequence[Workload], steady: float) -> list[Workload]:
        """The workloads; those that somebody else fights for name that rival among their autoscalers."""
        self._replicas.observe(workloads, steady)
        self._minimums.observe(_as_minimums(workloads), steady)
        return self._minimums.refused(self._replicas.refused(workloads, steady), steady)

    def rivalled(self, workloads: Sequence[Workload]) -> list[Workload]:
        """The workloads; those whose rival isn't known to be gone name it among their autoscalers."""
        return self._minimums.rivalled(self._replicas.rivalled(workloads))

    def beside(self, workloads: Sequence[Workload]) -> frozenset[str]:
        """The services whose autoscaler stays in charge, so that it is no reason to refuse them."""
        return frozenset(
            item.service
            for item in workloads
            if (mode := self._scale.mode_of(item.service)) == "shadow"
            or (mode == "advise" and (advisable(item) is not None or not item.autoscalers))
        )

    # ------------------------------------------------------------------------------------- after the decision
    def apply(
        self, decisions: Sequence[Decision], workloads: Sequence[Workload], now: float, mode: str
    ) -> ScaleReport:
        """Write what differs, if this tick may write at all (`mode`).

        Args:
            decisions: one per workload.
            workloads: as `observe` gave them.
            now: seconds since the epoch.
            mode: as `Modes.now` said when the tick began to write.

        Returns:
            Replicas, or minimums, that were written.
        """
        if mode not in WRITING:
            self._replicas.forget()
            self._minimums.forget()
            self._notices.leave({})
            return ScaleReport({})
        by_mode: dict[str, list[Decision]] = {"act": [], "advise": [], "shadow": []}
        for decision in decisions:
            by_mode[self._scale.mode_of(decision.service)].append(decision)
        named = {item.service: item for item in workloads}
        acted = self._act(by_mode["act"], {item.service for item in workloads if item.stale})
        due = self._changes(by_mode["advise"], named, now)
        advised = self._rewrite(due, {service: named[service].hpas[0] for service in due})
        report = ScaleReport({**acted.applied, **advised.applied}, {**acted.failed, **advised.failed})
        if self._scale.events or self._scale.annotations:
            told = self._happenings.of([*by_mode["act"], *by_mode["advise"]], named, report, due)
            if self._scale.events:
                self._cluster.announce(told)
            if self._scale.annotations:
                self._cluster.annotate(told)
        return report

    def _act(self, decisions: Sequence[Decision], stale: Collection[str]) -> ScaleReport:
        """Write all targets that differ from the current replicas in one pass."""
        current = {item.service: item.current for item in decisions if item.service not in stale}
        due = {item.service: item.target for item in decisions if item.target != item.current}
        if not due:
            self._notices.leave(current, stale)
            return ScaleReport({})
        report = self._written(due, self._cluster.scale)
        self._notices.wrote(decisions, report)
        self._replicas.wrote(report, current)
        left = {**current, **report.applied}
        known = {name: count for name, count in left.items() if name not in report.failed}
        self._notices.leave(known, stale)
        return report

    def _written(
        self, due: Mapping[str, _Wish], write: Callable[[Mapping[str, _Wish]], ScaleReport]
    ) -> ScaleReport:
        """What became of one pass of writes; it is counted."""
        try:
            report = write(due)
        except DeepScalerError as error:
            report = ScaleReport({}, dict.fromkeys(due, str(error)))
        self._statistics.writes += len(report.applied)
        self._statistics.failed_writes += len(report.failed)
        return report

    # ------------------------------------------------------------------------------------------------- advice
    def _changes(
        self, decisions: Sequence[Decision], workloads: Mapping[str, Workload], now: float
    ) -> dict[str, Change]:
        """Which minimums of the autoscalers that are in charge are raised or given back."""
        due: dict[str, Change] = {}
        for decision in decisions:
            workload = workloads[decision.service]
            if workload.stale:
                continue  # its minimum may be the one of before our own write
            hpa = self._autoscaler(workload)
            if hpa is None:
                continue
            lead = lead_seconds(workload, self._scale)
            wanted = change(decision, hpa, now, lead, self._holder)
            if wanted is not None:
                due[decision.service] = wanted
        return due

    def _autoscaler(self, workload: Workload) -> Autoscaler | None:
        """The autoscaler of a service that is to be advised; None, and why is logged, if there is none."""
        service, hpa = workload.service, advisable(workload)
        if not workload.autoscalers:
            text = "no HorizontalPodAutoscaler acts on it, so there is nothing to advise"
            self._on_change.trouble(service, f"{service}: {text}; choose another of scale.modes.{service}")
        elif hpa is None:
            self._on_change.trouble(service, f"{service}: can't be advised: {_hindrance(workload)}")
        else:
            self._on_change.well(service)
        return hpa

    def _rewrite(self, due: Mapping[str, Change], found: Mapping[str, Autoscaler]) -> ScaleReport:
        if not due:
            return ScaleReport({})
        report = self._written({name: each.advice for name, each in due.items()}, self._cluster.advise)
        for service, each in due.items():
            before = found[service].minimum
            if service in report.failed:
                log.error("%s: the minimum stays at %d: %s", service, before, report.failed[service])
            elif each.advice is None:
                log.info("%s: minimum %d given back: %s", service, report.applied[service], each.why)
            else:
                until = utc_text(each.advice.until)
                log.info(
                    "%s: minimum %d -> %d until %s (%s)", service, before, each.advice.raised, until, each.why
                )
        self._minimums.wrote(report, {service: hpa.minimum for service, hpa in found.items()})
        return report

    def end(self) -> None:
        """Give back what was raised, if this controller may still write."""
        if "advise" not in self._used or self.now() not in WRITING:
            return
        try:
            workloads = self._cluster.workloads()
        except DeepScalerError as error:
            log.error("raised minimums are left until their time is over: %s", error)
            return
        found = {
            item.service: item.hpas[0]
            for item in workloads
            if self._scale.mode_of(item.service) == "advise" and len(item.hpas) == 1 and item.hpas[0].advice
        }
        self._rewrite(dict.fromkeys(found, Change(None, "this controller ends")), found)


def _as_minimums(workloads: Sequence[Workload]) -> list[Workload]:
    """The workloads that one autoscaler scales, with its minimum in the place of their replicas."""
    return [
        replace(item, replicas=item.hpas[0].minimum, manager="") for item in workloads if len(item.hpas) == 1
    ]


def _hindrance(workload: Workload) -> str:
    """Why a service with autoscalers can't be advised."""
    for hpa in workload.hpas:
        if hpa.unsound:
            return f"HorizontalPodAutoscaler/{hpa.name}: {hpa.unsound}; mend or remove the annotation"
        if hpa.owner:
            return f"HorizontalPodAutoscaler/{hpa.name} belongs to {hpa.owner}, which would undo it"
    return f"one HorizontalPodAutoscaler alone may act on it, found {', '.join(workload.autoscalers)}"
