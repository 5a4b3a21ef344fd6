"""Pictures of runs: load, latency and cores over time, and cost against violations of all policies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepscaler.artefacts import replacing
from deepscaler.evaluation.span import (
    Span,
    entry_sla,
    limits,
    minute_sums,
    moment_seconds,
    replicas,
    run_span,
)
from deepscaler.evaluation.text import OWN, by_violations
from deepscaler.runs import Run

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Okabe and Ito: told apart by colour-blind readers too."""
INK, QUIET = "#333333", "#8A8A8A"


def draw_timeline(
    runs: Mapping[str, Run], labels: Mapping[str, str], warmup: float, path: str | Path, title: str
) -> None:
    """PNG over time: offered load, entry mean latency with the SLA, and cores in use (starting pods included), a line a policy.

    `labels` say in the legend what each policy achieved. Where policies throttle a closed loop differently, the load is the highest.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 7.4), layout="constrained")
    load, latency, cores = figure.subplots(3, 1, sharex=True, height_ratios=(0.75, 1.5, 1.3))
    first, offered = next(iter(runs.values())), []
    for (name, run), colour in zip(runs.items(), COLOURS, strict=False):
        span = run_span(run, warmup)
        moments, sums, seconds = _windows(run, span)
        offered.append(pd.Series(sums["offered"].to_numpy() / seconds, moments))
        own = run.policy.text == OWN
        line = {"color": colour, "linewidth": 2.4 if own else 1.5, "zorder": 3 if own else 2}
        mean = (sums["duration_seconds"] / sums["done"].where(sums["done"] > 0)).to_numpy() * 1000
        latency.plot(moments, mean, label=labels.get(name, name), **line)
        samples, total = _cores(run, span)
        cores.step(samples, total, where="pre", **line)
    highest = pd.concat(offered, axis=1).max(axis=1)
    load.fill_between(highest.index, highest.to_numpy(), color="#C9D3DC", linewidth=0)
    load.plot(highest.index, highest.to_numpy(), color="#6B7C8C", linewidth=1.2)
    load.set(ylabel="offered load\n(requests/s)", ylim=(0, None))
    _latency_axis(latency, entry_sla(first) * 1000)
    _oracle(cores, first, run_span(first, warmup))
    cores.set(
        ylabel="CPU allocated, all services\n(cores)",
        xlabel="time since the start of the load (minutes)",
        ylim=(0, None),
    )
    for axis in (load, latency, cores):
        axis.margins(x=0.005)
        _tidy(axis)
    figure.align_ylabels()
    lines = latency.get_legend_handles_labels()
    legend = figure.legend(
        *lines,
        loc="outside upper center",
        ncols=2,
        frameon=False,
        fontsize=10,
        title=title,
        title_fontsize=13,
    )
    legend.get_title().set_color(INK)
    _save(figure, path)


def _windows(run: Run, span: Span) -> tuple[Any, pd.DataFrame, float]:
    """Centres in minutes since the run's start, sums by window, and the window's length: about 240 of them, 15 s at least."""
    seconds = max(span.step, 15.0 * math.ceil((span.end - span.start) / 240 / 15.0))
    sums = minute_sums(span.cut(run.endpoints), span, seconds)
    return (span.start - span.begin + (sums.index.to_numpy() + 0.5) * seconds) / 60, sums, seconds


def _cores(run: Run, span: Span) -> tuple[Any, Any]:
    pods, cores = span.cut(run.pods), limits(run)
    alive = replicas(pods, "ready") + replicas(pods, "starting")
    return (alive.index.to_numpy() - span.begin) / 60, alive.to_numpy() @ [
        cores[str(service)] for service in alive.columns
    ]


def _oracle(axis: Any, run: Run, span: Span) -> None:
    if not run.info.get("oracle"):
        return
    times = np.array([moment_seconds(moment) for moment in run.info["oracle_times"]])
    cores = limits(run)
    total = sum(
        cores[name] * np.asarray(values, float)
        for name, values in run.info["oracle"].items()
        if name in cores
    )
    inside = (times > span.start - 1e-6) & (times <= span.end + 1e-6)
    line = {"color": INK, "linewidth": 1, "linestyle": ":", "label": "needed (oracle)"}
    axis.step((times[inside] - span.begin) / 60, np.asarray(total)[inside], where="post", **line)
    axis.legend(loc="lower right", framealpha=0.9, edgecolor="none", fontsize=9)


def _latency_axis(axis: Any, sla: float) -> None:
    axis.axhline(sla, color=INK, linewidth=1, linestyle="--", zorder=1)
    low, high = axis.get_ylim()
    axis.axhspan(sla, 1e9, color="#D55E00", alpha=0.06, linewidth=0, zorder=0)
    if high > 5 * sla:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_ylim(max(min(low, sla / 2), sla / 20), high * 1.3)
    else:
        axis.set_ylim(0, max(high, 1.25 * sla))
    place = {
        "xycoords": ("axes fraction", "data"),
        "xytext": (-4, 3),
        "textcoords": "offset points",
        "ha": "right",
    }
    axis.annotate(f"SLA {sla:g} ms", (1, sla), fontsize=9, color=INK, **place)
    axis.set_ylabel("mean response at the entry\n(ms)")


def draw_pareto(summary: Mapping[str, Any], path: str | Path) -> None:
    """PNG: cost against violating minutes, a point a policy with its 95 % intervals; settings of one sweep are joined."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 5.4), layout="constrained")
    axis = figure.subplots()
    rows = summary["policies"]
    names = [name for name in by_violations(summary) if not math.isnan(rows[name]["violation_rate"])]
    families: dict[tuple[str, str], list[str]] = {}
    for name in names:
        families.setdefault((rows[name]["directory"], rows[name]["family"]), []).append(name)
    order = sorted(families, key=lambda key: (key[1] != OWN, key[1] != "hpa", key))
    palette = (*COLOURS, "#56B4E9", "#E69F00", INK, QUIET)
    for index, family in enumerate(order):
        _draw_family(axis, rows, families[family], palette[index % len(palette)])
    axis.set(xlabel="cost (core-hours, starting pods included)", ylabel="minutes over the SLA (%)")
    axis.set_title("Cost and violations: towards the lower left is better")
    axis.margins(x=0.12, y=0.1)
    axis.set_ylim(bottom=min(0, -0.03 * axis.get_ylim()[1]))
    _tidy(axis)
    axis.grid(axis="x", color="#E6E6E6", linewidth=0.8)
    colours = {
        name: palette[index % len(palette)] for index, family in enumerate(order) for name in families[family]
    }
    _label_points(
        axis,
        {name: (rows[name]["core_hours"], rows[name]["violation_rate"] * 100) for name in names},
        colours,
        [name for name in names if rows[name]["policy"] == OWN],
    )
    _save(figure, path)


def _label_points(
    axis: Any, points: Mapping[str, tuple[float, float]], colours: Mapping[str, str], bold: Sequence[str]
) -> None:
    """Names beside their points, each where it covers the fewest others."""
    axis.figure.draw_without_rendering()
    scale = axis.figure.dpi / 72
    spots = {name: axis.transData.transform(point) for name, point in points.items()}
    taken = [(x - 7 * scale, y - 7 * scale, x + 7 * scale, y + 7 * scale) for x, y in spots.values()]
    for name, (x, y) in spots.items():
        wide, best = 5.6 * len(name), None
        for dx, dy in (
            (8, 4),
            (-8 - wide, 4),
            (8, -13),
            (-8 - wide, -13),
            *((-wide / 2, up) for up in (10, -19, 20, 30)),
        ):
            box = (x + dx * scale, y + dy * scale, x + (dx + wide) * scale, y + (dy + 11) * scale)
            low, high = axis.bbox.min, axis.bbox.max
            hidden = sum(_overlap(box, other) for other in taken) + 9e9 * (
                box[0] < low[0] or box[2] > high[0] or box[1] < low[1]
            )
            if best is None or hidden < best[0]:
                best = hidden, (dx, dy), box
        assert best is not None
        taken.append(best[2])
        weight = "bold" if name in bold else "normal"
        axis.annotate(
            name,
            points[name],
            xytext=best[1],
            textcoords="offset points",
            fontsize=9,
            color=colours[name],
            weight=weight,
        )


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    return max(0.0, min(one[2], other[2]) - max(one[0], other[0])) * max(
        0.0, min(one[3], other[3]) - max(one[1], other[1])
    )


def _draw_family(axis: Any, rows: Mapping[str, Any], members: Sequence[str], colour: str) -> None:
    members = sorted(members, key=lambda name: rows[name]["core_hours"])
    x = [rows[name]["core_hours"] for name in members]
    y = [rows[name]["violation_rate"] * 100 for name in members]
    if len(members) > 1:
        axis.plot(x, y, color=colour, linewidth=1.2, alpha=0.6)
    for name, cost, violations in zip(members, x, y, strict=True):
        main = rows[name]["policy"] == OWN
        errors = [
            _error(rows[name]["core_hours_ci"], cost, 1),
            _error(rows[name]["violation_rate_ci"], violations, 100),
        ]
        mark = {"marker": "D", "markersize": 8} if main else {"marker": "o", "markersize": 6}
        axis.errorbar(cost, violations, xerr=errors[0], yerr=errors[1], color=colour, elinewidth=1, **mark)


def _error(bounds: Sequence[float] | None, centre: float, factor: float) -> Any:
    if bounds is None:
        return None
    return [[max(centre - bounds[0] * factor, 0.0)], [max(bounds[1] * factor - centre, 0.0)]]


def _tidy(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(QUIET)
    axis.tick_params(colors=INK, labelsize=9)
    axis.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axis.set_axisbelow(True)


def _save(figure: Any, path: str | Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, facecolor="white")
