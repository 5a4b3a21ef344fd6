"""Parts of the report that look into runs: courses, response times, reasons, sources of scenarios, graphs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepscaler.evaluation.measures import QUANTILES, quantile
from deepscaler.evaluation.portraits import Portrait
from deepscaler.evaluation.text import by_violations, number
from deepscaler.graphs.comparison import compare_pairs
from deepscaler.graphs.priors import read_graph
from deepscaler.graphs.similarity import align, edges_above_share
from deepscaler.pictures.graphs import graphs_figure
from deepscaler.pictures.report import course_figure, drawn_policies, responses_figure
from deepscaler.pictures.vector import inline_svg
from deepscaler.reports.compared import Compared
from deepscaler.reports.rendering import PageSection, PageTable
from deepscaler.runs import read_run
from deepscaler.settings import Settings


# -------------------------------------------------------------------------------------------- runs one by one
def courses(compared: Compared) -> PageSection:
    """Time lines of the worst and the median run of the policy that the report is about."""
    own = [one for one in compared.of(compared.main) if one.outcome.measures["minutes"]]
    own = [one for one in own if not math.isnan(one.outcome.measures["violation_rate"])]
    if not own:
        return PageSection("courses", "The worst and the median run")
    order = sorted(own, key=_badness)
    chosen = {"worst": order[-1], "median": order[(len(order) - 1) // 2]}
    pictures = [_course(compared, kind, one) for kind, one in chosen.items()]
    text = (
        f"Of the runs of {compared.main}: the one with the most violating minutes (then slow requests), and "
        "the one in the middle. The oracle is told the load; replicas of all services are added up."
    )
    return PageSection("courses", "The worst and the median run", [text], pictures=pictures)


def _badness(one: Portrait) -> tuple[float, float]:
    return float(one.outcome.measures["violation_rate"]), float(one.outcome.measures["slow_rate"])


def _course(compared: Compared, kind: str, chosen: Portrait) -> tuple[str, str]:
    unit = chosen.outcome.unit
    there = {one.name: one.outcome for one in compared.portraits if one.outcome.unit == unit}
    rivals = [name for name in compared.rivals if name in there]
    names = drawn_policies(rivals or [compared.main], compared.main, compared.baseline)[:3]
    places = {name: place for name in names if (place := there[name].place) is not None}
    runs = {name: read_run(place) for name, place in places.items()}
    said = "; ".join(
        f"{name}: {there[name].measures['violation_minutes']} of {there[name].measures['minutes']} minutes "
        f"over the SLA, {there[name].measures['core_hours']:.2f} core-hours"
        for name in runs
    )
    title = f"The {kind} run: {chosen.load.replace('_', ' ')}, seed {chosen.info.get('seed', '?')}"
    figure = course_figure(runs, chosen.outcome.warmup)
    return inline_svg(figure, f"course-{kind}", title, said), f"{title}. {said}."


def responses(compared: Compared) -> PageSection:
    """How long requests took, by policy."""
    sums = {
        name: np.sum([one.details.buckets for one in compared.of(name)], axis=0)
        for name in by_violations(compared.summary)
        if compared.of(name)
    }
    counts = {name: found for name, found in sums.items() if found.sum() > 0}
    if not counts:
        return PageSection("responses", "Response times")
    rivals = [name for name in compared.rivals if name in counts]
    shown = drawn_policies(rivals or list(counts), compared.main, compared.baseline)
    slo = min([min(one.info["slo"].values()) for one in compared.portraits if one.info.get("slo")] or [0.5])
    rows = [
        [name, *(number(quantile(found, share), 0, 1000) for share in QUANTILES.values())]
        for name, found in counts.items()
    ]
    heads = ["policy", *(f"{name.removesuffix('_seconds')} ms" for name in QUANTILES)]
    table = PageTable("Response times of all finished requests", heads, rows)
    told_ = "; ".join(f"{row[0]}: half within {row[1]} ms, 99 % within {row[3]} ms" for row in rows)
    figure = responses_figure({name: counts[name] for name in shown}, slo)
    drawing = inline_svg(figure, "responses", "Share of requests slower than a response time", told_)
    caption = "How many requests are slower than a response time; lower is better."
    return PageSection("responses", "Response times", tables=[table], pictures=[(drawing, caption)])


# -------------------------------------------------------------------------------------------------- decisions
def _shares(counted: Mapping[str, Counter[str]]) -> tuple[list[str], list[list[str]]]:
    """Columns, the most frequent first, and per row the shares in percent."""
    total: Counter[str] = Counter()
    for counts in counted.values():
        total.update(counts)
    columns = [key for key, _ in total.most_common()]
    rows = []
    for name, counts in counted.items():
        whole = sum(counts.values())
        cells = [f"{100 * counts[key] / whole:.1f}" if counts.get(key) else "" for key in columns]
        rows.append([name, f"{whole:,.0f}", *cells])
    return columns, rows


def reasons(compared: Compared) -> PageSection:
    """How often each reason decided, by policy."""
    counted: dict[str, Counter[str]] = {}
    for name in by_violations(compared.summary):
        found = sum((one.details.reasons for one in compared.of(name)), Counter())
        if found:
            counted[name] = found
    if not counted:
        return PageSection("reasons", "Why it was decided so")
    columns, rows = _shares(counted)
    caption = "Decisions per policy, and the share of each reason in %"
    table = PageTable(
        caption, ["policy", "decisions", *columns], rows, "docs/decisions.md explains each word."
    )
    return PageSection("reasons", "Why it was decided so", tables=[table])


def sources(compared: Compared) -> PageSection:
    """For how long each source of scenarios decided, by policy and load, where that was recorded."""
    counted = {}
    for load in compared.loads:
        for name in by_violations(compared.summary):
            found: Counter[str] = Counter()
            for one in compared.of(name):
                if one.load == load:
                    found.update({key: round(value) for key, value in one.details.sources.items()})
            if found:
                counted[f"{name}, {load}"] = found
    if not counted:
        return PageSection("sources", "Which scenarios decided")
    columns, rows = _shares(counted)
    caption = "Seconds planned per policy and load, and the share of each source of scenarios in %"
    note = "none: too little history for a plan, so the reactive floor decides."
    table = PageTable(caption, ["policy, load", "seconds", *columns], rows, note)
    return PageSection("sources", "Which scenarios decided", tables=[table])


# ----------------------------------------------------------------------------------------------------- graphs
def graphs_of(settings: Settings) -> PageSection:
    """The structural and the learned graph beside the calls, where two of them are there."""
    data = Path(settings.process.output_dir) / "graphs"
    bundle = Path(settings.scale.bundle)
    calls = data / ("call.csv" if (data / "call.csv").is_file() else "calls.csv")
    paths = {
        "calls": calls,
        "structural": data / "structural.csv",
        "learned": bundle.with_suffix(".affinity.csv"),
    }
    found = {name: path for name, path in paths.items() if path.is_file()}
    read = {name: read_graph(path) for name, path in found.items()}
    shared = set.intersection(*(set(names) for names, _ in read.values())) if read else set()
    if len(found) < 2 or len(shared) < 2:
        return PageSection("graphs", "Graphs")
    services, graphs = align(read, False)
    threshold = settings.evaluate.edge_threshold
    reference = next(iter(graphs))
    rows = [
        [str(pair["second"]), *(number(pair[key], 2) for key in ("precision", "recall", "f1"))]
        for pair in compare_pairs(graphs, threshold)
        if pair["first"] == reference
    ]
    table = PageTable(f"Edges of the {reference} found", ["graph", "precision", "recall", "F1"], rows)
    entries = list(dict.fromkeys(entry.service for entry in settings.app.entries))
    pictures = []
    for name in graphs:
        figure = graphs_figure(services, graphs, entries, threshold, [name])
        title = f"Graph of the services: {name}"
        edges = "; ".join(_edges(services, graphs[name], threshold))
        pictures.append((inline_svg(figure, f"graph-{name}", title, edges), title))
    text = "Who calls whom as recorded, as read from telemetry alone (structural), and what training learned."
    return PageSection("graphs", "Graphs", [text], [table], pictures)


def _edges(services: Sequence[str], matrix: Any, threshold: float) -> list[str]:
    pairs = np.argwhere(edges_above_share(matrix, threshold))
    return [f"{services[row]} to {services[column]}" for row, column in pairs]
