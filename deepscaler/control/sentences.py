"""Why a service got its replicas, in a sentence for people."""

from __future__ import annotations

from collections.abc import Sequence

from deepscaler.control.recorder import ACTING, ADVISING, DecisionRow
from deepscaler.policies.base import Reason

PHRASES = {
    Reason.FORECAST: "the forecast wants {wish}",
    Reason.PLAN: "the plan by cost: {why}",
    Reason.FLOOR: "the present load needs {floor}",
    Reason.HPA: "the rules of the HPA want {wish}",
    Reason.RULE: "the rule of the policy wants {wish}",
    Reason.STATIC: "set by hand",
    Reason.EXPLORE: "varied on purpose, to collect training data",
    Reason.SLA_AT_RISK: "exploring pauses, because the response nears what was agreed",
    Reason.ORACLE: "looked up in the true future",
    Reason.UNCHANGED: "that is what the policy wants",
    Reason.HELD_STALE: "held, because its metrics are too old",
    Reason.HELD_MISSING: "held, because there are no metrics of it or no forecast",
    Reason.HELD_UNSOUND: "held, because what the API says of it can't be right",
    Reason.HELD_TROUBLE: "held, because traffic fell while requests failed or data were lost",
    Reason.UNKNOWN_SERVICE: "held, because the bundle doesn't know it",
    Reason.SCALED_TO_ZERO: "left alone, because its owner set 0 replicas",
    Reason.FORCED: "forced by the settings",
    Reason.PAUSED: "left alone, because it is paused",
    Reason.WITHIN_TOLERANCE: "the policy wants {wish}, too small a change to act on",
    Reason.STABILIZED: "the policy wants {wish}, but going down waits for the window",
    Reason.STEP_LIMIT: "the policy wants {wish}, cut to the largest step",
    Reason.MIN_REPLICAS: "the policy wants {wish}, but that is the fewest allowed",
    Reason.MAX_REPLICAS: "the policy wants {wish}, but that is the most allowed",
    Reason.CALENDAR: "the policy wants {wish}, but the calendar asks for no fewer now",
    Reason.CONSTRAINT: "the policy wants {wish}, but what it shares with others has no room for more",
    Reason.QUOTA: "the policy wants {wish}, but a quota has no room for more",
    Reason.RIVAL_AUTOSCALER: "left alone, because another autoscaler acts on it",
    Reason.CONFLICT: "not written: somebody changed it between reading and writing",
    Reason.WRITE_FAILED: "not written: the cluster refused it, and the next tick tries again",
}
"""Reason -> what it means for one service. `docs/decisions.md` says more of each."""
MOST_NAMED = 4


def sentence(row: DecisionRow, wish: float | None) -> str:
    """What was decided for one service, and why; `wish` are the replicas that its policy proposed."""
    given = {
        "wish": "as many" if wish is None else f"{wish:.3g}",
        "floor": "more" if row.floor is None else f"{row.floor:.3g}",
        "why": row.why or ("as it is" if wish is None else f"{wish:.3g} wanted"),
    }
    phrase = PHRASES[Reason(row.reason)].format(**given)
    if row.reason == Reason.UNCHANGED and row.why:
        phrase = row.why
    move = (
        f"stays at {row.target}" if row.target == row.current else f"goes from {row.current} to {row.target}"
    )
    return f"{row.service} {move}: {phrase}."


def headline(rows: Sequence[DecisionRow], mode: str) -> str:
    """What a tick decided, in a sentence."""
    moved = sorted(
        (row for row in rows if row.target != row.current), key=lambda row: -abs(row.target - row.current)
    )
    total = sum(row.target for row in rows)
    if not moved:
        return f"All {len(rows)} services stay as they are, at {total} replicas in all."
    named = ", ".join(f"{row.service} {row.current} → {row.target}" for row in moved[:MOST_NAMED])
    more = f" and {len(moved) - MOST_NAMED} more" if len(moved) > MOST_NAMED else ""
    verb = {ACTING: "changes", ADVISING: "advises to change"}.get(mode, "would change")
    return (
        f"DeepScaler {verb} {len(moved)} of {len(rows)} services to {total} replicas in all: {named}{more}."
    )
