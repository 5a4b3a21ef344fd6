"""What of a tick is worth telling on a Deployment. Pure but for what was said in the ticks before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepscaler.cluster import Autoscaler, Condition, Happening, ScaleReport, Workload
from deepscaler.control.advice import Change
from deepscaler.control.decision import HELD, LEFT_ALONE, Decision


class Happenings:
    """Tells writes and failures as they come, and that a service is held or its HPA holds once it begins."""

    def __init__(self) -> None:
        self._states: dict[str, tuple[str, str]] = {}  # service -> why it is held, what its autoscaler says

    def of(
        self,
        decisions: Sequence[Decision],
        workloads: Mapping[str, Workload],
        report: ScaleReport,
        changes: Mapping[str, Change],
    ) -> list[Happening]:
        """The happenings of one tick.

        Args:
            decisions: of the services whose mode allows Events.
            workloads: by service.
            report: what became of the writes.
            changes: the writes to autoscalers.
        """
        found: list[Happening] = []
        for item in decisions:
            found += _written(item, report, changes.get(item.service))
            held = item.reason.value if item.reason in HELD | LEFT_ALONE else ""
            said = held_by(workloads[item.service].hpas)
            was = self._states.get(item.service, ("", ""))
            if held and held != was[0]:
                note = f"replicas stay at {item.target} ({held})"
                doubt = item.reason in HELD
                found.append(Happening(item.service, "Held", "Decide", note, doubt, item.target))
            if said and said != was[1]:
                found.append(Happening(item.service, "AutoscalerHolds", "Watch", said))
            self._states[item.service] = (held, said)
        return found


def _written(item: Decision, report: ScaleReport, change: Change | None) -> list[Happening]:
    service, why = item.service, item.reason.value
    if service in report.failed:
        action = "Scale" if change is None else "Advise"
        return [Happening(service, f"{action}Failed", action, report.failed[service], True, item.target)]
    if service not in report.applied:
        return []
    if change is None:
        reason = "ScaledUp" if item.target > item.current else "ScaledDown"
        note = f"{item.current} -> {item.target} replicas ({why})"
        return [Happening(service, reason, "Scale", note, target=item.target)]
    if change.advice is None:
        note = f"minimum {report.applied[service]} given back: {change.why}"
        return [Happening(service, "MinimumGivenBack", "Advise", note, target=report.applied[service])]
    note = f"minimum {change.advice.minimum} -> {change.advice.raised} ({change.why})"
    return [Happening(service, "MinimumRaised", "Advise", note, target=change.advice.raised)]


def held_by(hpas: Sequence[Autoscaler]) -> str:
    """Why autoscalers don't do what their metrics ask for, in their own words; "" where they do."""
    said = [
        f"HorizontalPodAutoscaler/{hpa.name}: {each.type} {each.status} ({each.reason})"
        + (f": {each.message}" if each.message and each.message != each.reason else "")
        for hpa in hpas
        for each in hpa.conditions
        if _holds(each)
    ]
    return "; ".join(said)


def _holds(condition: Condition) -> bool:
    """Whether a condition keeps an autoscaler from what its metrics ask for."""
    bad = "True" if condition.type == "ScalingLimited" else "False"
    return condition.status == bad and condition.reason != "ScalingDisabled"
