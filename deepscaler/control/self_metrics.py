"""The controller's own metrics for Prometheus: what docs/operator.md lists, from the newest snapshot."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from deepscaler import __version__
from deepscaler.control.decision import RESTRICTING
from deepscaler.control.health import Health
from deepscaler.control.recorder import WRITING, DecisionRow
from deepscaler.control.renewal import Model
from deepscaler.control.tally import ALL, LEADS, TICK_BUCKETS
from deepscaler.control.watch import Snapshot, Watch
from deepscaler.policies.base import Reason
from deepscaler.policies.outlook import Budget
from deepscaler.upstream import BUCKETS

PREFIX = "deepscaler_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_COUNTERS = {
    "ticks": "Ticks that ended without an error.",
    "failed_ticks": "Ticks that ended in an error.",
    "metrics_failures": "Times that the metrics couldn't be read.",
    "held": "Services held because their data couldn't be trusted, summed over ticks.",
    "writes": "Replicas written.",
    "failed_writes": "Writes that were refused or conflicted with another write.",
    "foreign_edits": "Times that somebody else was found to have edited replicas.",
    "lost_rows": "Rows of decisions.csv and pods.csv that couldn't be written.",
    "clock_jumps": "Times that the wall clock was found to have been set.",
    "skipped_rows": "Torn or broken lines of these files that were left out.",
}
_VALUES = {
    "current": "spec.replicas when the tick read them.",
    "ready": "Ready replicas.",
    "predicted": "Replicas that the policy wants, or its forecast if it makes one.",
    "floor": "The reactive floor.",
    "target": "Replicas that were decided.",
}
Labels = Mapping[str, str]
Samples = Iterable[tuple[Labels, float]]
_NONE: Labels = {}


def exposition(watch: Watch) -> bytes:
    """The page in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SelfMetrics(watch))
    return generate_latest(registry)


class SelfMetrics(Collector):
    """The metrics of one controller."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        """All families, those without samples left out."""
        snapshot = self._watch.snapshot
        families = [*self._of_the_controller(snapshot), *self._of_upstreams()]
        families += _of_renewal(self._watch.controller.model)
        families += _of_health(self._watch.controller.health)
        if snapshot is not None:
            families += [*_of_ticks(snapshot), *_of_services(snapshot), *_of_forecasts(snapshot)]
            families += [*self._of_entries(snapshot), *_of_the_model(snapshot)]
        return (family for family in families if family.samples)

    def _of_the_controller(self, snapshot: Snapshot | None) -> Iterator[Metric]:
        controller = self._watch.controller
        mode, learned = controller.mode(), controller.policy.learned()
        app = self._watch.settings.app
        about = {
            "app": app.name,
            "app_namespace": app.namespace,
            "policy": controller.policy.name,
            "mode": mode,
        }
        if learned is not None:
            about["bundle_sha256"] = learned.sha256
        text = "Application, its namespace, policy, bundle and mode of this controller."
        yield _gauge("info", text, [(about, 1.0)])
        versions = {"version": __version__, "python": platform.python_version()}
        yield _gauge("build_info", "Versions of DeepScaler and of Python.", [(versions, 1.0)])
        healthy = float(controller.healthy())
        yield _gauge("healthy", "1 if a tick was completed lately, else 0.", [(_NONE, healthy)])
        yield _gauge("leader", "1 if this controller may write, else 0.", [(_NONE, float(mode in WRITING))])
        ticks = 0 if snapshot is None else snapshot.statistics["ticks"]  # those whose decisions can be read
        counts = {**vars(controller.statistics), "ticks": ticks}
        for name, text in _COUNTERS.items():
            yield _counter(name, text, [(_NONE, float(counts[name]))])

    def _of_upstreams(self) -> Iterator[Metric]:
        cluster = self._watch.controller.cluster
        failures = [
            ({"status": str(code)}, float(count)) for code, count in sorted(cluster.api_failures.items())
        ]
        text = "Times that the Kubernetes API couldn't be read, by HTTP status (0 means no answer)."
        yield _counter("api_failures", text, failures)
        asked = {name: one.requests() for name, one in cluster.upstreams.items()}
        text = "Time that requests took, by the server that was asked."
        took = HistogramMetricFamily(f"{PREFIX}upstream_request_seconds", text, labels=["source"])
        for name, found in asked.items():
            took.add_metric([name], _buckets(BUCKETS, found.buckets), found.seconds)
        yield took
        errors = [
            ({"source": name, "error": error}, float(count))
            for name, found in asked.items()
            for error, count in sorted(found.errors.items())
        ]
        yield _counter(
            "upstream_errors", "Requests that failed, by the server and the kind of error.", errors
        )
        clocks = [
            ({"source": name}, one.clock_ahead)
            for name, one in cluster.upstreams.items()
            if one.clock_ahead is not None
        ]
        text = "How much the clock of the server was ahead of ours at its last answer."
        yield _gauge("upstream_clock_ahead_seconds", text, clocks)

    def _of_entries(self, snapshot: Snapshot) -> Iterator[Metric]:
        newest, entries = snapshot.past[-1], self._watch.entries
        sla: dict[str, float] = {}
        for entry in self._watch.settings.app.entries:
            sla[entry.service] = min(entry.sla, sla.get(entry.service, math.inf))
        load = [(_NONE, newest.load)] if math.isfinite(newest.load) else []
        yield _gauge("entry_requests_per_second", "Requests per second of all entries together.", load)
        measured = zip(entries, newest.responses.tolist(), strict=True)
        responses = [({"service": name}, value) for name, value in measured if math.isfinite(value)]
        yield _gauge("entry_response_seconds", "Mean response of an entry's service.", responses)
        agreed = [({"service": name}, seconds) for name, seconds in sla.items()]
        yield _gauge("entry_sla_seconds", "Mean response that was agreed for it.", agreed)


def _of_ticks(snapshot: Snapshot) -> Iterator[Metric]:
    counts = snapshot.counts
    took = HistogramMetricFamily(f"{PREFIX}decision_seconds", "Time that a tick took.", labels=[])
    seconds = float(snapshot.statistics["all_decision_seconds"])
    took.add_metric([], _buckets(TICK_BUCKETS, counts.buckets), seconds)
    yield took
    yield _gauge("last_tick_timestamp_seconds", "Time of the newest tick.", [(_NONE, snapshot.now)])
    late = [(_NONE, snapshot.late_seconds)]
    yield _gauge("tick_lateness_seconds", "How much later than it was due the newest tick began.", late)
    text = "How much later than they were due all ticks began, summed."
    yield _counter("lateness_seconds", text, [(_NONE, counts.late_seconds)])
    decisions = [
        ({"action": action, "reason": reason}, float(count))
        for (action, reason), count in sorted(counts.decisions.items())
    ]
    yield _counter("decisions", "Decisions by what they do to the replicas and by their reason.", decisions)
    partial = [(_NONE, float(counts.partial_answers))]
    yield _counter("partial_answers", "Ticks whose metrics were partial.", partial)
    ages = [({"service": name}, age) for name, age in snapshot.ages.items()]
    yield _gauge(
        "input_age_seconds", "Time since the newest usable sample of a service; +Inf without any.", ages
    )


def _of_services(snapshot: Snapshot) -> Iterator[Metric]:
    rows = snapshot.rows
    for name, text in _VALUES.items():
        yield _gauge(f"{name}_replicas", text, _by_service(rows, name))
    wishes = [
        ({"service": name}, proposal.target)
        for name, proposal in snapshot.proposals.items()
        if proposal.target is not None and math.isfinite(proposal.target)
    ]
    yield _gauge("proposed_replicas", "Replicas that the policy proposed, before the guard rails.", wishes)
    stand = [({"service": row.service}, float(row.left)) for row in rows]
    yield _gauge("applied_replicas", "spec.replicas when the tick was over.", stand)
    reasons = [({"service": row.service, "reason": row.reason}, 1.0) for row in rows]
    yield _gauge("decision", "1 for the reason why a service got its target.", reasons)
    restricted = Counter(row.reason for row in rows if Reason(row.reason) in RESTRICTING)
    bound = [({"reason": reason}, float(count)) for reason, count in sorted(restricted.items())]
    text = "Services whose target isn't what the policy wants, by the guard rail or the doubt that keeps it."
    yield _gauge("restricted", text, bound)
    lacks = snapshot.counts.lacks.items()
    text = "Replicas that the present load needed and that weren't ready, times seconds."
    yield _counter(
        "deficient_replica_seconds", text, [({"service": name}, one.deficient) for name, one in lacks]
    )
    text = "Ready replicas beyond those that the present load needed, times seconds."
    yield _counter("excess_replica_seconds", text, [({"service": name}, one.excess) for name, one in lacks])


def _of_forecasts(snapshot: Snapshot) -> Iterator[Metric]:
    outlook, matured = snapshot.outlook, sorted(snapshot.counts.matured.items())
    foreseen = []
    for lead in LEADS if outlook.load is not None else ():
        row = round(lead / outlook.step) - 1
        if outlook.load is not None and 0 <= row < len(outlook.load):
            edges = zip(("low", "middle", "high"), outlook.load[row].tolist(), strict=True)
            foreseen += [({"lead": f"{lead:g}", "edge": edge}, value) for edge, value in edges]
    text = "Requests per second of all entries that are foreseen so many seconds ahead; the band holds 80 %."
    yield _gauge("forecast_requests_per_second", text, foreseen)
    labels = [({"source": source, "lead": f"{lead:g}"}, one) for (source, lead), one in matured]
    text = "Forecasts of the load whose time has come, by source and seconds ahead."
    yield _counter("forecasts_matured", text, [(name, float(one.count)) for name, one in labels])
    text = "Absolute errors of these forecasts, in requests per second, summed."
    yield _counter("forecast_absolute_error", text, [(name, one.error) for name, one in labels])
    text = "What came, in requests per second, summed over these forecasts."
    yield _counter("forecast_matured_load", text, [(name, one.load) for name, one in labels])
    inside = [
        ({"lead": f"{lead:g}"}, float(one.inside))
        for (source, lead), one in matured
        if source == ALL and one.inside is not None
    ]
    yield _counter("forecasts_inside_band", "Of these, how many times what came lay in the band.", inside)
    weights = [({"source": name}, source.weight) for name, source in outlook.sources.items()]
    yield _gauge("source_weight", "Weight of each source of scenarios in the newest decision.", weights)
    costs = [({"way": name}, cost) for name, cost in outlook.costs.items()]
    text = (
        "What following each way of foreseeing would have cost lately, in seconds of holding what was needed."
    )
    yield _gauge("way_cost_seconds", text, costs)
    season = [(_NONE, outlook.season_seconds)] if outlook.season_seconds else []
    yield _gauge("season_seconds", "Period of the load, if it repeats.", season)


def _of_the_model(snapshot: Snapshot) -> Iterator[Metric]:
    learned, budget = snapshot.learned, snapshot.outlook.budget
    if learned is not None and learned.trained_until is not None:
        known = [({"bundle_sha256": learned.sha256}, learned.trained_until)]
        text = "Time of the newest sample that the bundle was trained on; its age is time() minus this."
        yield _gauge("model_trained_until_timestamp_seconds", text, known)
    if budget is not None:
        yield from _of_the_budget(budget)


def _of_the_budget(budget: Budget) -> Iterator[Metric]:
    unit = {"unit": budget.unit}
    yield _gauge("budget_asked", "What the policy is to keep to.", [(unit, budget.asked)])
    yield _gauge("budget_consumed", "What was used up of it.", [(unit, budget.consumed)])
    for name, text, value in (
        (
            "budget_shortage_price",
            "Price of a missing replica now, in units of holding one for the same time.",
            budget.price,
        ),
        ("budget_prior_shortage_price", "Price with which the first day began.", budget.prior_price),
        (
            "budget_spending_ratio",
            "Core-hours of the last day over those at the prior price.",
            budget.spending,
        ),
    ):
        yield _gauge(name, text, [(_NONE, value)] if math.isfinite(value) else [])
    standing = [({"standing": budget.standing}, 1.0)] if budget.standing else []
    yield _gauge("budget_standing", "1 for how the budget stands.", standing)


def _of_renewal(model: Model | None) -> Iterator[Metric]:
    if model is None or not model.path:
        return
    text = "Time from which the bundle decides."
    yield _gauge("model_since_timestamp_seconds", text, [({"bundle_sha256": model.sha256}, model.since)])
    results: Samples = [({"result": "taken"}, model.taken), ({"result": "refused"}, model.refused)]
    yield _counter("model_reloads", "New bundles by what became of them.", results)
    stale = [(_NONE, float(bool(model.refusal)))]
    yield _gauge("model_refused", "1 if the newest file isn't the bundle that decides, else 0.", stale)


def _of_health(health: Health | None) -> Iterator[Metric]:
    if health is None:
        return
    drift = math.nan if health.drift is None else health.drift.score
    for name, text, value in (
        (
            "decision_error_ratio",
            "Replicas that idled or, at a price, lacked, of the need.",
            health.error,
        ),
        ("decision_error_usual_ratio", "The same of the bundle on validation.", health.usual_error),
        ("input_drift", "Population stability index of the last day against training.", drift),
        ("input_drift_usual", "The same of validation against training.", health.usual_drift),
    ):
        yield _gauge(name, text, [(_NONE, value)] if math.isfinite(value) else [])
    text = "1 if the log advises to train again, else 0."
    yield _gauge("retraining_advised", text, [(_NONE, float(bool(health.warnings)))])


# --------------------------------------------------------------------------------------------------- families
def _gauge(name: str, text: str, samples: Samples) -> Metric:
    return _family(GaugeMetricFamily, name, text, samples)


def _counter(name: str, text: str, samples: Samples) -> Metric:
    return _family(CounterMetricFamily, name, text, samples)


def _family(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily], name: str, text: str, samples: Samples
) -> Metric:
    known = list(samples)
    family = kind(PREFIX + name, text, labels=list(known[0][0]) if known else [])
    for labels, value in known:
        family.add_metric(list(labels.values()), value)
    return family


def _buckets(bounds: tuple[float, ...], counts: tuple[int, ...]) -> list[tuple[str, float]]:
    """Cumulative counts up to each bound."""
    names = [*(f"{bound:g}" for bound in bounds), "+Inf"]
    return list(zip(names, map(float, accumulate(counts)), strict=True))


def _by_service(rows: tuple[DecisionRow, ...], name: str) -> Samples:
    known = [({"service": row.service}, getattr(row, name)) for row in rows]
    return [(labels, float(value)) for labels, value in known if value is not None]
