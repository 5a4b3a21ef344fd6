"""The report of a comparison: the answer first, then what it rests on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepscaler.evaluation.answer import by_load, prices_told, told, winner
from deepscaler.evaluation.comparison import REFERENCES, Outcome, mean_interval
from deepscaler.evaluation.portraits import Portrait, portray
from deepscaler.evaluation.text import OWN, TERMS, by_violations, interval, number, verdict_sentences
from deepscaler.pictures.report import WIDTH, drawn_policies
from deepscaler.pictures.runs import pareto_figure
from deepscaler.pictures.vector import inline_svg
from deepscaler.reports.compared import Compared
from deepscaler.reports.details import courses, graphs_of, reasons, responses, sources
from deepscaler.reports.rendering import PageSection, PageTable, render, write_page
from deepscaler.settings import Settings
from deepscaler.statistics import nan_mean, t_interval

PLANS = "plan_"
"""How names of plans without a network begin."""
MOST_LOADS = 12
"""With more loads than these, they get no pictures of their own."""


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    settings: Settings,
    command: str,
    question: str = "",
) -> None:
    """Write the page.

    Args:
        path: of the page.
        summary: what `summarize` returned for the outcomes.
        outcomes: the runs, each with the warm-up and the prices at which it was judged.
        settings: they say where graphs lie, and which of their edges count.
        command: what makes the page again.
        question: what the comparison answers, its heading; without one: which policy scales best.

    Raises:
        DataError: a run can't be read any more.
    """
    portraits, baseline = portray(outcomes), summary["baseline"]
    main = _main_policy(summary)
    compared = Compared(summary, portraits, baseline, main)
    lead = [told(winner(portraits)), *verdict_sentences(summary, baseline)]
    if portraits:
        lead.append(prices_told(portraits))
    sections = [
        _results(compared),
        _pareto(compared),
        _loads(compared),
        courses(compared),
        responses(compared),
        sources(compared),
        reasons(compared),
        graphs_of(settings),
        _repeat(compared, command),
    ]
    apps = ", ".join(sorted({str(one.info.get("app", "?")) for one in portraits}))
    policies, hours = len(summary["policies"]), sum(one.outcome.measures["hours"] for one in portraits)
    counts = f"{policies} policies, {len(compared.loads)} loads, {len(portraits)} runs"
    about = f"{apps}: {counts}, {hours:.0f} hours of load"
    write_page(path, render(question or "Which policy scales best?", about, lead, sections))


def _main_policy(summary: Mapping[str, Any]) -> str:
    rows = summary["policies"]
    own = [name for name in by_violations(summary) if rows[name]["policy"] == OWN]
    rivals = [name for name in by_violations(summary) if rows[name]["family"] not in REFERENCES]
    plans = [name for name in rivals if rows[name]["family"].startswith(PLANS)]
    plans.sort(key=lambda name: name != summary["baseline"])
    return str([*own, *plans, *summary["pareto"], *rivals, *rows][0])


# ---------------------------------------------------------------------------------------------------- results
def _results(compared: Compared) -> PageSection:
    rows = []
    for name in by_violations(compared.summary):
        row = compared.summary["policies"][name]
        costs = [one.cost for one in compared.of(name)]
        rows.append(
            [
                f"{name} *" if name in compared.summary["pareto"] else name,
                str(row["seeds"]),
                number(row["violation_rate"], 2, 100),
                interval(row["violation_rate_ci"], 2, 100),
                number(row["slow_rate"], 2, 100),
                number(row["core_hours"], 2),
                interval(row["core_hours_ci"], 2),
                number(nan_mean(costs), 2),
                interval(t_interval(costs, least=0.0), 2),
                number(row["changes_per_hour"], 1),
                number(row.get("starts_per_hour"), 1),
            ]
        )
    heads = ["policy", "runs", "violating minutes %", "95 %", "slow or failed %", "core-hours", "95 %"]
    heads += ["realised cost", "95 %", "changes per hour", "starts per hour"]
    table = PageTable("All policies, fewest violating minutes first", heads, rows, " ".join(TERMS.split()))
    return PageSection("results", "Results", tables=[table])


def _pareto(compared: Compared) -> PageSection:
    pictures, calm = [_pareto_picture(compared.summary["policies"], "all", "all loads")], []
    if 1 < len(compared.loads) <= MOST_LOADS:
        for place, load in enumerate(compared.loads):
            here = [one for one in compared.portraits if one.load == load]
            rows = {name: _means(compared, name, here) for name in {one.name for one in here}}
            if any(row["violation_rate"] > 0 for row in rows.values()):
                pictures.append(_pareto_picture(rows, f"load-{place}", load))
            else:
                calm.append(load.replace("_", " "))
    text = "Each point is a policy; towards the lower left is better. Whiskers are 95 % intervals over runs."
    texts = [text, *([f"No policy violates a minute under these loads: {', '.join(calm)}."] if calm else [])]
    return PageSection("pareto", "Cost against violations", texts, pictures=pictures)


def _means(compared: Compared, name: str, portraits: Sequence[Portrait]) -> dict[str, Any]:
    row = dict(compared.summary["policies"][name])
    for measure in ("violation_rate", "core_hours"):
        values = [float(one.outcome.measures[measure]) for one in portraits if one.name == name]
        row[measure], row[f"{measure}_ci"] = nan_mean(values), mean_interval(measure, values)
    return row


def _pareto_picture(rows: Mapping[str, Any], anchor: str, load: str) -> tuple[str, str]:
    known = [name for name, row in rows.items() if not math.isnan(row["violation_rate"])]
    points = "; ".join(
        f"{name}: {number(rows[name]['violation_rate'], 1, 100)} % at "
        f"{rows[name]['core_hours']:.2f} core-hours"
        for name in sorted(known, key=lambda name: (rows[name]["violation_rate"], name))
    )
    figure = pareto_figure({"policies": rows}, WIDTH, 4.2)
    figure.axes[0].set_title("")
    title = f"Cost against violating minutes, {load}"
    return inline_svg(figure, f"pareto-{anchor}", title, points), load.replace("_", " ")


def _loads(compared: Compared) -> PageSection:
    if len(compared.loads) < 2:
        return PageSection("loads", "Load by load")
    names = drawn_policies(compared.rivals, compared.main, compared.baseline)
    rows = by_load(compared.portraits, names)
    caption = (
        "Violating minutes in % @ core-hours by load, and the policy with the lowest realised cost there"
    )
    note = (
        "Told apart: every rival's p is below 0.05 after Holm's correction; "
        "with fewer than six runs per load that can't be reached."
    )
    table = PageTable(caption, ["load", "lowest cost", "told apart", *names], rows, note)
    return PageSection("loads", "Load by load", tables=[table])


# ----------------------------------------------------------------------------------------------- to repeat it
def _ranges(numbers: Sequence[int]) -> str:
    """`1-3, 7` for 1, 2, 3 and 7."""
    runs: list[list[int]] = []
    for one in numbers:
        if runs and one == runs[-1][1] + 1:
            runs[-1][1] = one
        else:
            runs.append([one, one])
    return ", ".join(f"{low}-{high}" if high > low else str(low) for low, high in runs)


def _repeat(compared: Compared, command: str) -> PageSection:
    rows = []
    for name in by_violations(compared.summary):
        own = compared.of(name)
        seeds = _ranges(sorted({int(one.info.get("seed") or 0) for one in own}))
        bundles = {str(one.info["bundle_sha256"])[:12] for one in own if one.info.get("bundle_sha256")}
        rows.append([name, seeds, ", ".join(sorted(bundles)) or "-"])
    table = PageTable(
        "Seeds and bundles (the beginning of their SHA-256)", ["policy", "seeds", "bundle"], rows
    )
    if not compared.portraits:
        return PageSection("repeat", "To repeat it", tables=[table])
    first = compared.portraits[0].info
    versions = ", ".join(f"{name} {text}" for name, text in (first.get("versions") or {}).items())
    texts = [f"This page: {command}", f"Versions: {versions or 'not recorded'}."]
    texts.append(f"All settings of the run {compared.portraits[0].outcome.place} follow.")
    listing = json.dumps(first.get("settings") or {}, indent=1)
    return PageSection("repeat", "To repeat it", texts, [table], listing=listing)
