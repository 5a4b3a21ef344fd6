"""What the page shows, as JSON: about the controller, the last hours, and what is foreseen now.

The shape is a contract between this module and `deepscaler/control/page/page.js`. Numbers that aren't known
are null. A moment of the past is a list: time, load, load that was foreseen for it, responses of the entries,
and for all services at once ready, proposed, floor and applied replicas.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deepscaler import __version__
from deepscaler.control.past import Moment
from deepscaler.control.sentences import headline, sentence
from deepscaler.control.tally import ALL, Matured
from deepscaler.control.watch import Snapshot, Watch
from deepscaler.policies.outlook import Budget, Learned, Outlook
from deepscaler.scrubbing import scrubbed
from deepscaler.settings import App
from deepscaler.upstream import Upstream

MOST_CELLS = 120_000
"""The past has so many numbers of replicas at most; of a long past of many services moments are left out."""
MOST_EDGES = 240
"""Of each graph, the heaviest so many edges are shown."""
_COUNTERS = (
    *("failed_ticks", "metrics_failures", "held", "failed_writes", "foreign_edits"),
    *("lost_rows", "clock_jumps"),
)
Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Story:
    """One state of the page.

    Attributes:
        about: what stays the same.
        past: moments, the newest last.
        now: what the newest tick decided and foresees; None before the first.
    """

    about: Json
    past: Sequence[list[Any]]
    now: Json | None
    _texts: dict[float | None, str] = field(default_factory=dict, repr=False)

    @property
    def newest(self) -> float:
        """Time of the newest moment; minus infinity without any."""
        return float(self.past[-1][0]) if self.past else -math.inf

    def text(self, since: float | None = None) -> str:
        """The story as JSON; without `about` and with the moments after `since` only, if that is given."""
        known = self._texts.get(since)
        if known is None:
            part = {"past": self.past, "now": self.now, "about": self.about}
            if since is not None:
                part = {"past": [row for row in self.past if row[0] > since], "now": self.now}
            known = json.dumps(part, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            if len(self._texts) < 4:
                self._texts[since] = known
        return known


class Stories:
    """Makes the story of the newest snapshot, once per snapshot, however many ask for it."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self._lock = watch, threading.Lock()
        self._of: Snapshot | None = None
        self._made = Story(about(watch), [], None)

    def newest(self) -> Story:
        """The story of the newest tick."""
        snapshot = self._watch.snapshot
        with self._lock:
            if snapshot is not None and snapshot is not self._of:
                self._made = Story(about(self._watch), _past(snapshot), _now(self._watch, snapshot))
                self._of = snapshot
            return self._made


def about(watch: Watch) -> Json:
    """What stays the same while a controller runs."""
    policy = watch.controller.policy
    return {
        **application(watch.settings.app, watch.services, watch.entries),
        "policy": policy.name,
        "period": policy.period_seconds,
    }


def application(app: App, services: Sequence[str], entries: Sequence[str]) -> Json:
    """Whom the page is about."""
    sla = {name: min(entry.sla for entry in app.entries if entry.service == name) for name in entries}
    return {
        "app": app.name,
        "version": __version__,
        "policy": None,
        "period": None,
        "services": list(services),
        "entries": [{"service": name, "sla": seconds} for name, seconds in sla.items()],
    }


def row_of(moment: Moment) -> list[Any]:
    """A moment as the page has it."""
    return [
        round(moment.time, 3),
        _number(moment.load),
        _number(moment.foreseen),
        _numbers(moment.responses.tolist()),
        *(_numbers(values) for values in moment.replicas.tolist()),
    ]


def upstreams_of(asked: Mapping[str, Upstream]) -> list[Json]:
    """How the requests to each server went."""
    found = []
    for name, upstream in asked.items():
        told = upstream.requests()
        count, errors = sum(told.buckets), sum(told.errors.values())
        mean = told.seconds / count if count else None
        found.append({"name": name, "requests": count, "errors": errors, "mean": _number(mean)})
    return found


def _past(snapshot: Snapshot) -> list[list[Any]]:
    cells = sum(moment.replicas.size for moment in snapshot.past)
    every = max(math.ceil(cells / MOST_CELLS), 1)
    return [row_of(moment) for moment in snapshot.past[(len(snapshot.past) - 1) % every :: every]]


def _now(watch: Watch, snapshot: Snapshot) -> Json:
    outlook = snapshot.outlook
    return {
        "time": snapshot.now,
        "mode": snapshot.mode,
        "took": _number(snapshot.took_seconds),
        "late": _number(snapshot.late_seconds),
        "headline": scrubbed(headline(snapshot.rows, snapshot.mode)),
        "services": _services(watch.services, snapshot),
        "band": _band(outlook),
        "plan": _plan(watch.services, outlook),
        "sources": _sources(snapshot),
        "trials": _trials(snapshot.outlook),
        "season": _number(outlook.season_seconds),
        "budget": _budget(outlook.budget),
        "model": _model(snapshot.learned, watch.services),
        "inputs": _inputs(watch, snapshot),
    }


def _services(services: Sequence[str], snapshot: Snapshot) -> list[Json | None]:
    rows = {row.service: row for row in snapshot.rows}
    found: list[Json | None] = []
    for name in services:
        row, proposal = rows.get(name), snapshot.proposals.get(name)
        if row is None:
            found.append(None)
            continue
        wish = None if proposal is None else proposal.target
        found.append(
            {
                "current": row.current,
                "ready": row.ready,
                "target": row.target,
                "reason": row.reason,
                "why": scrubbed(sentence(row, wish)),
            }
        )
    return found


def _budget(budget: Budget | None) -> Json | None:
    if budget is None:
        return None
    return {
        "asked": _number(budget.asked),
        "consumed": _number(budget.consumed),
        "unit": budget.unit,
        "price": _number(budget.price),
        "note": budget.note,
    }


def _band(outlook: Outlook) -> Json | None:
    if outlook.load is None:
        return None
    low, middle, high = (_numbers(edge) for edge in outlook.load.T.tolist())
    return {"from": outlook.made, "step": outlook.step, "low": low, "middle": middle, "high": high}


def _plan(services: Sequence[str], outlook: Outlook) -> Json | None:
    if not outlook.replicas:
        return None
    bands = [outlook.replicas.get(name) for name in services]
    edges = [None if band is None else [_numbers(edge) for edge in band.T.tolist()] for band in bands]
    return {"from": outlook.made, "step": outlook.step * outlook.every, "services": edges}


def _sources(snapshot: Snapshot) -> list[Json]:
    """Each source that decides or did, and how its forecasts turned out."""
    weights = {name: source.weight for name, source in snapshot.outlook.sources.items()}
    matured: dict[str, dict[float, Matured]] = {}
    for (name, lead), one in sorted(snapshot.counts.matured.items()):
        matured.setdefault(name, {})[lead] = one
    names = [*weights, *(name for name in matured if name not in weights and name != ALL)]
    return [
        {
            "name": name,
            "weight": _number(weights.get(name, 0.0)) if name != ALL else None,
            "done": [
                {
                    "lead": lead,
                    "count": one.count,
                    "error": _number(one.relative),
                    "inside": None if one.inside is None else _number(one.inside / one.count),
                }
                for lead, one in matured.get(name, {}).items()
            ],
        }
        for name in [*names, *([ALL] if ALL in matured and len(names) > 1 else [])]
    ]


def _trials(outlook: Outlook) -> list[Json]:
    """By how many seconds of holding each way of foreseeing would have cost more than the cheapest."""
    least = min(outlook.costs.values(), default=0.0)
    ranked = sorted(outlook.costs.items(), key=lambda item: item[1])
    return [{"name": name, "behind": _number(cost - least)} for name, cost in ranked]


def _model(learned: Learned | None, services: Sequence[str]) -> Json | None:
    if learned is None:
        return None
    place = {name: index for index, name in enumerate(services)}
    graphs = {"calls": learned.calls, "influence": learned.influence}
    return {
        "sha256": learned.sha256,
        "until": learned.trained_until,
        **{name: _edges(edges, place) for name, edges in graphs.items()},
    }


def _edges(edges: Iterable[tuple[str, str, float]], place: Mapping[str, int]) -> list[list[float]]:
    """The heaviest edges between shown services: caller, callee, and weight over the largest."""
    known = [
        (place[caller], place[callee], weight)
        for caller, callee, weight in edges
        if caller in place and callee in place and caller != callee
    ]
    largest = max((weight for *_, weight in known), default=0.0) or 1.0
    heaviest = sorted(known, key=lambda edge: -edge[2])[:MOST_EDGES]
    return [[caller, callee, round(weight / largest, 4)] for caller, callee, weight in heaviest]


def _inputs(watch: Watch, snapshot: Snapshot) -> Json:
    oldest = max(snapshot.ages.items(), key=lambda item: item[1], default=None)
    return {
        "oldest": None if oldest is None else {"service": oldest[0], "age": _number(oldest[1])},
        "stale_after": watch.settings.scale.stale_after,
        "partial": snapshot.counts.partial_answers,
        "upstreams": upstreams_of(watch.controller.cluster.upstreams),
        "ticks": snapshot.statistics["ticks"],
        "counters": {name: snapshot.statistics[name] for name in _COUNTERS},
    }


def _number(value: float | None) -> float | None:
    """The value to five digits; None where it isn't known or finite."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() else short


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [_number(value) for value in values]


Newest = Callable[[], Story]
"""Tells the newest story."""
