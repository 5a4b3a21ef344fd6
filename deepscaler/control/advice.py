"""Advice to an HPA that stays in charge: when its minimum is raised, for how long, and when it is given back.

It is pure: a decision, the autoscaler and the time go in, and what to write comes out. All that is remembered
stands beside the autoscaler itself (`Advice`), so a controller that starts anew knows what one before it did.
"""

from __future__ import annotations

from dataclasses import dataclass

from deepscaler.cluster import Advice, Autoscaler, Workload
from deepscaler.control.decision import HELD, LEFT_ALONE, Decision
from deepscaler.settings import Scale

SYNC_SECONDS = 15.0
"""Time between two syncs of an HPA."""
LEAST_SECONDS = 60.0
LONGEST_SECONDS = 3600.0
"""No raise stands for longer than this; one that says so was written by a clock that is wrong."""
RENEWED_SHARE = 0.5
"""A raise that is still needed is renewed when so much of its time is over."""


@dataclass(frozen=True)
class Change:
    """What to write to an autoscaler.

    Attributes:
        advice: the raise; None: its owner's minimum is given back.
        why: in words, for the log.
    """

    advice: Advice | None
    why: str


def lead_seconds(workload: Workload, scale: Scale) -> float:
    """How long a raised minimum stands once there are as many replicas as were wanted."""
    if scale.advise.seconds is not None:
        return scale.advise.seconds
    return min(
        max((workload.boot_seconds or 0.0) + scale.period + SYNC_SECONDS, LEAST_SECONDS), LONGEST_SECONDS
    )


def advisable(workload: Workload) -> Autoscaler | None:
    """The one autoscaler that can be advised: nothing else acts on the service, and nobody manages it."""
    if len(workload.hpas) != 1 or len(workload.autoscalers) != 1:
        return None
    hpa = workload.hpas[0]
    return None if hpa.owner or hpa.unsound else hpa


def change(decision: Decision, hpa: Autoscaler, now: float, lead: float, holder: str) -> Change | None:
    """What to write to the autoscaler of one service; None: nothing.

    The minimum is raised while more replicas are wanted than there are, and never above the autoscaler's
    maximum. It stands for `lead` seconds after that, so that what starts is there when the load comes, and
    the autoscaler then sees the load itself. It is given back at once where the decision is in doubt (the
    service is held, paused or switched off) and where its owner has set another one meanwhile.

    Args:
        decision: what the guard rails left of the policy's wish.
        hpa: the autoscaler.
        now: seconds since the epoch.
        lead: seconds, see `lead_seconds`.
        holder: who writes.
    """
    standing = hpa.advice
    edited = standing is not None and standing.raised != hpa.minimum
    minimum = hpa.minimum if standing is None or edited else standing.minimum
    if decision.reason in HELD | LEFT_ALONE:
        return Change(None, f"in doubt ({decision.reason.value})") if standing else None
    wanted = min(decision.target, hpa.maximum)
    if wanted > max(decision.current, minimum):
        return _raised(standing if not edited else None, minimum, wanted, now, lead, holder, decision)
    if standing is None:
        return None
    if edited:
        return Change(None, f"somebody set a minimum of {hpa.minimum}, which stands")
    if not now < standing.until <= now + LONGEST_SECONDS:
        return Change(None, "its time is over")
    return None


def _raised(
    standing: Advice | None,
    minimum: int,
    wanted: int,
    now: float,
    lead: float,
    holder: str,
    decision: Decision,
) -> Change | None:
    """A raise to `wanted`, or no lower than the one that stands; None if that still has time."""
    sound = standing is not None and now < standing.until <= now + LONGEST_SECONDS
    level = max(wanted, standing.raised) if standing is not None and sound else wanted
    fresh = standing is not None and standing.until - now > (1 - RENEWED_SHARE) * lead
    if standing is not None and sound and fresh and level == standing.raised:
        return None
    return Change(Advice(minimum, level, now + lead, holder), decision.reason.value)
