"""From a shadow run: what was, what would have been, how sure that is, and where the two differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepscaler.artefacts import plain, utc_text
from deepscaler.errors import DataError
from deepscaler.evaluation.measures import evaluate_run
from deepscaler.evaluation.span import run_span
from deepscaler.labels.demand import DemandModel
from deepscaler.pictures.report import shadow_cores_figure, shadow_response_figure
from deepscaler.pictures.vector import inline_svg
from deepscaler.reports.decided import (
    ByResponse,
    Course,
    Estimate,
    by_hour,
    by_response,
    course,
    held,
    moments,
)
from deepscaler.reports.rendering import PageSection, PageTable, render, write_page
from deepscaler.runs import Run
from deepscaler.statistics import nan_mean, prediction_half
from deepscaler.text import aligned

USUAL_COST, USUAL_MINUTES, USUAL_WEIGHT = 0.015, 0.015, 4.0
"""By how much what happens differs from what replays foretell: the standard deviation, in shares of what was
held and of all minutes, and for how many replays that counts.

`python -m testbed.experiments.shadow_judge` measures it; docs/results.md has the figures. Most runs miss by
0.3 %, few by ten: these hold the cost of 33 of 35 runs, of which 14 served for the choice.
"""
VIOLATIONS_RUN = 2.4
"""Violating minutes come together, so their variance is so many times their number.

Measured on a load at the edge of its SLA, over runs that differ in their random streams alone.
"""
MOST_HOURS = 25
"""A longer record is told day by day."""


@dataclass(frozen=True)
class ByReplay:
    """The replays' answer.

    Attributes:
        was_core_hours, was_minutes: what the replay makes of the recorded replicas (core-hours, violating
            minutes).
        core_hours, minutes: what would have been: what was, plus the difference between the two replays. The
            interval should hold what would have happened in 95 % of the cases: it covers the luck of one run,
            as the replays' random streams and `USUAL` tell it, and how far replays miss what was.
    """

    was_core_hours: float
    was_minutes: float
    core_hours: Estimate
    minutes: Estimate


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """What is known of a shadow run.

    Attributes:
        acting: who was in charge, as the run says.
        shadow: who decided beside it.
        was: measures of the run.
        decided_core_hours: core-hours of the decided targets, each held until the next.
        response: by the fitted response; None with `response_why`.
        replay: None with `replay_why`.
        there: the replicas, sample by sample.
        run: the record.
        warmup: seconds cut from its start.
    """

    acting: str
    shadow: str
    was: Mapping[str, Any]
    decided_core_hours: float
    there: Course
    run: Run
    warmup: float
    response: ByResponse | None = None
    response_why: str = ""
    replay: ByReplay | None = None
    replay_why: str = ""


def counterfactual(run: Run, warmup: float, model: DemandModel | None) -> Counterfactual:
    """All that the record itself tells; `with_replays` adds the rest.

    Args:
        run: a shadow run: `run.json` says `mode: dry_run`, or decisions that weren't applied.
        warmup: seconds cut from its start.
        model: the demands fitted to it; None where they can't be fitted.

    Raises:
        DataError: it is no shadow run, or has no decisions.
    """
    if run.info.get("mode") != "dry_run":
        raise DataError(
            f"run.json: mode is {run.info.get('mode')!r}, expected 'dry_run': only a policy that decided in "
            "the shadow leaves what would have been; make such a run with: python predict_scale.py --dry-run"
        )
    span, was = run_span(run, warmup), evaluate_run(run, warmup)
    there = course(run, span)
    response, why = None, "no demand fit"
    if model is not None:
        try:
            response, why = by_response(run, span, there, model), ""
        except DataError as error:
            why = str(error)
    incumbents = sorted({name for names in (run.info.get("incumbents") or {}).values() for name in names})
    acting = run.info.get("acting") or ", ".join(incumbents) or "what was in charge"
    shadow, decided = str(run.info["policy"]), float(was["planned_core_hours"])
    return Counterfactual(acting, shadow, was, decided, there, run, warmup, response, why)


def replayed(
    was: Mapping[str, Any], before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> ByReplay:
    """What follows from replays of the recorded replicas (`before`) and of the policy in charge (`after`)."""
    hours = _estimate(was, before, after, "core_hours", USUAL_COST * float(was["core_hours"]))
    more = nan_mean([one["violation_minutes"] for one in after])
    usual = math.hypot(USUAL_MINUTES * float(was["minutes"]), math.sqrt(VIOLATIONS_RUN * more))
    minutes = _estimate(was, before, after, "violation_minutes", usual)
    return ByReplay(
        nan_mean([one["core_hours"] for one in before]),
        nan_mean([one["violation_minutes"] for one in before]),
        hours,
        minutes,
    )


def _estimate(
    was: Mapping[str, Any],
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    measure: str,
    usual: float,
) -> Estimate:
    differences = [
        float(would[measure]) - float(seen[measure]) for seen, would in zip(before, after, strict=True)
    ]
    value = max(float(was[measure]) + nan_mean(differences), 0.0)
    missed = abs(nan_mean([float(one[measure]) for one in before]) - float(was[measure]))
    half = math.hypot(prediction_half(differences, usual, USUAL_WEIGHT), missed)
    return Estimate(value, max(value - half, 0.0), value + half)


# --------------------------------------------------------------------------------------------- telling people
def to_dict(found: Counterfactual) -> dict[str, Any]:
    """The numbers as JSON knows them."""
    span = run_span(found.run, found.warmup)
    response, replay = found.response, found.replay
    return plain(  # type: ignore[no-any-return]
        {
            "acting": found.acting,
            "shadow": found.shadow,
            "was": {key: found.was[key] for key in ("core_hours", "violation_minutes", "minutes", "hours")},
            "decided_core_hours": found.decided_core_hours,
            "by_response": None
            if response is None
            else {"was_minutes": vars(response.was), "minutes": vars(response.would)},
            "by_response_why": found.response_why,
            "by_replay": None
            if replay is None
            else {
                "was_core_hours": replay.was_core_hours,
                "was_minutes": replay.was_minutes,
                "core_hours": vars(replay.core_hours),
                "minutes": vars(replay.minutes),
            },
            "by_replay_why": found.replay_why,
            "core_hours_more_by_service_and_hour": {
                str(name): row.tolist() for name, row in by_hour(found.there, span).iterrows()
            },
            "moments": [
                {**one, "time": utc_text(one["time"])} for one in moments(found.run, span, found.there)
            ],
            "held": [
                {"service": name, "reason": reason, "decisions": count}
                for name, reason, count in held(found.run, span)
            ],
        }
    )


def lead(found: Counterfactual) -> list[str]:
    """The answer in sentences, the most important one first."""
    was, replay, response = found.was, found.replay, found.response
    hours, minutes = float(was["core_hours"]), int(was["violation_minutes"])
    if replay is not None:
        would = replay.core_hours
        first = (
            f"{found.shadow} would have held {_told(would, 2)} core-hours instead of {hours:.2f} "
            f"({100 * (would.value / hours - 1):+.0f} %), with {_told(replay.minutes, 1)} violating minutes "
            f"of {was['minutes']} instead of {minutes}."
        )
        missed = (
            f"The replay makes {replay.was_core_hours:.2f} core-hours and {replay.was_minutes:.1f} violating "
            f"minutes of what was {hours:.2f} and {minutes}; the intervals cover that."
        )
        rest = [first, missed]
    else:
        first = (
            f"As decided, {found.shadow} would have held {found.decided_core_hours:.2f} core-hours instead "
            f"of {hours:.2f} ({100 * (found.decided_core_hours / hours - 1):+.0f} %)."
        )
        rest = [first, f"There is no replay: {found.replay_why}."]
    if response is not None:
        rest.append(
            f"By the fitted response, the decisions as they stand make {_told(response.would, 1)} violating "
            f"minutes; of what was it makes {_told(response.was, 1)}."
        )
    else:
        rest.append(f"There is no estimate by the fitted response: {found.response_why}.")
    rest.append(
        f"The decisions as they stand cost {found.decided_core_hours:.2f} core-hours. They were made beside "
        f"the replicas of {found.acting}; in charge, {found.shadow} would have seen its own."
    )
    return rest


def _told(estimate: Estimate, digits: int) -> str:
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def sections(found: Counterfactual, command: str) -> list[PageSection]:
    """The parts of the page below the answer."""
    span = run_span(found.run, found.warmup)
    parts, unit = by_hour(found.there, span), "hour"
    if parts.shape[1] > MOST_HOURS:
        parts, unit = parts.T.groupby(np.arange(parts.shape[1]) // 24).sum().T, "day"
    parts.loc["all"] = parts.sum()
    parts.insert(0, "sum", parts.sum(axis=1))
    rows = [[str(name), *map(_more, row)] for name, row in parts.iterrows()]
    heads = ["service", "in all", *(f"{unit} {number}" for number in range(1, parts.shape[1]))]
    note = f"Above 0: {found.shadow} would have held more than {found.acting} did."
    differences = PageTable(f"Core-hours more, by service and {unit}", heads, rows, note)
    told = [
        [
            utc_text(one["time"]),
            f"{one['was']:.2f}",
            f"{one['would']:.2f}",
            f"{1000 * one['response']:.0f}" if math.isfinite(one["response"]) else "-",
            str(one["violating"]),
            "; ".join(one["changes"]),
        ]
        for one in moments(found.run, span, found.there)
    ]
    heads = ["five minutes from", "cores", "wanted", "response ms", "violating minutes", "replicas -> wanted"]
    matter = PageTable("The moments that matter most, in the order of time", heads, told, texts=heads[-1:])
    kept = [[name, reason, str(count)] for name, reason, count in held(found.run, span)]
    holding = PageTable(
        "Decisions that a guard rail or the data made",
        ["service", "reason", "decisions"],
        kept,
        texts=["reason"],
    )
    return [
        PageSection("course", "What was, and what was wanted", pictures=_pictures(found)),
        PageSection("differences", "Where they differ", tables=[differences]),
        PageSection("moments", "The moments that matter", tables=[matter]),
        PageSection("held", "What was held, and why", tables=[holding] if kept else []),
        PageSection("repeat", "To repeat it", [f"This page: {command}"]),
    ]


def _more(value: float) -> str:
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0"


def _pictures(found: Counterfactual) -> list[tuple[str, str]]:
    there, response, names = found.there, found.response, (found.acting, found.shadow)
    cores = (there.times, there.paid @ there.limit, there.target @ there.limit)
    expected = None if response is None else (response.minutes, response.expected)
    answered = f"{found.was['violation_minutes']} of {found.was['minutes']} minutes above the SLA as measured"
    held = f"{found.was['core_hours']:.2f} core-hours held, {found.decided_core_hours:.2f} wanted"
    drawn = (
        (
            "response",
            shadow_response_figure(found.run, found.warmup, expected, names),
            f"Load and response with {found.acting} in charge"
            + (f", and what was to be expected with {found.shadow}" if expected else ""),
            answered,
        ),
        (
            "cores",
            shadow_cores_figure(found.run, found.warmup, cores, names),
            f"Cores that {found.acting} held and {found.shadow} wanted",
            held,
        ),
    )
    return [
        (inline_svg(figure, name, title, f"{title}: {told}."), f"{title}: {told}.")
        for name, figure, title, told in drawn
    ]


def text(found: Counterfactual) -> str:
    """The same for a terminal."""
    parts = ["\n".join(lead(found))]
    for section in sections(found, ""):
        for table in section.tables:
            lines = aligned([list(table.heads), *map(list, table.rows)], rule=True)
            parts.append("\n".join([table.caption, *lines, *([table.note] if table.note else [])]))
    return "\n\n".join(parts)


def write_counterfactual(path: Path, found: Counterfactual, command: str) -> None:
    """Write the page."""
    about = (
        f"{found.acting} in charge, {found.shadow} in the shadow, {found.was['hours']:.1f} hours from "
        f"{utc_text(float(np.min(found.there.times)))}"
    )
    write_page(path, render("What would have been?", about, lead(found), sections(found, command)))
