"""Pictures of runs: load, latency and cores over time, and cost against violations of all policies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

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
from deepscaler.pictures.style import INK, NORMAL, ORANGE, QUIET, SERIES, mark, new_figure, save, tidy
from deepscaler.runs import Run

LOAD_AREA, LOAD_LINE = "#C9D3DC", "#6B7C8C"
"""The offered load is a grey-blue area, apart from the policies' colours."""
Box = tuple[float, float, float, float]
"""Left, bottom, right and top in pixels."""
POINTS = 240
"""About this many windows make up a line over time."""


def draw_timeline(
    runs: Mapping[str, Run], labels: Mapping[str, str], warmup: float, path: str | Path, title: str
) -> None:
    """Write a PNG over time: offered load, mean response at the entry with the SLA, and allocated cores.

    Each policy is one line; its cores include pods that are starting. Slow responses hold the users of a
    closed loop back, so policies can see different loads; the highest of them is drawn.

    Args:
        runs: by policy, at most as many as `SERIES` has colours.
        labels: what the legend says of each policy.
        warmup: seconds at the beginning that aren't drawn.
        path: where the picture goes.
        title: of the legend.
    """
    figure = new_figure(10.5, 7.4)
    load, latency, cores = figure.subplots(3, 1, sharex=True, height_ratios=(0.75, 1.5, 1.3))
    first, offered = next(iter(runs.values())), []
    for (name, run), colour in zip(runs.items(), SERIES, strict=False):
        span = run_span(run, warmup)
        moments, sums, seconds = windows(run, span)
        offered.append(pd.Series(sums["offered"].to_numpy() / seconds, moments))
        width, order = (2.4, 3) if run.policy.text == OWN else (1.5, 2)
        line = {"color": colour, "linewidth": width, "zorder": order}
        mean = (sums["duration_seconds"] / sums["done"].where(sums["done"] > 0)).to_numpy() * 1000
        latency.plot(moments, mean, label=labels.get(name, name), **line)
        samples, total = _cores(run, span)
        cores.step(samples, total, where="pre", **line)
    highest = pd.concat(offered, axis=1).max(axis=1)
    load.fill_between(highest.index, highest.to_numpy(), color=LOAD_AREA, linewidth=0)
    load.plot(highest.index, highest.to_numpy(), color=LOAD_LINE, linewidth=1.2)
    load.set(ylabel="offered load\n(requests/s)", ylim=(0, None))
    latency_axis(latency, entry_sla(first) * 1000)
    _oracle(cores, first, run_span(first, warmup))
    cores.set(
        ylabel="CPU allocated, all services\n(cores)",
        xlabel="time since the start of the load (minutes)",
        ylim=(0, None),
    )
    for axis in (load, latency, cores):
        axis.margins(x=0.005)
        tidy(axis, grid="y")
    figure.align_ylabels()
    lines = latency.get_legend_handles_labels()
    place = {"loc": "outside upper center", "ncols": 2, "frameon": False}
    legend = figure.legend(*lines, **place, fontsize=NORMAL + 1, title=title, title_fontsize=13)
    legend.get_title().set_color(INK)
    save(figure, path)


def windows(run: Run, span: Span) -> tuple[Any, pd.DataFrame, float]:
    """Centres of windows in minutes since the run's start, sums by window, and a window's length in seconds.

    There are about `POINTS` windows; each is a multiple of 15 s long.
    """
    seconds = max(span.step, 15.0 * math.ceil((span.end - span.start) / POINTS / 15.0))
    sums = minute_sums(span.cut(run.endpoints), span, seconds)
    return (span.start - span.begin + (sums.index.to_numpy() + 0.5) * seconds) / 60, sums, seconds


def _cores(run: Run, span: Span) -> tuple[Any, Any]:
    """Minutes since the run's start, and the cores of all ready and starting pods at these moments."""
    pods, cores = span.cut(run.pods), limits(run)
    alive = replicas(pods, "ready") + replicas(pods, "starting")
    minutes = (alive.index.to_numpy() - span.begin) / 60
    return minutes, alive.to_numpy() @ [cores[str(service)] for service in alive.columns]


def _oracle(axis: Any, run: Run, span: Span) -> None:
    """Draw the cores that the oracle would have given, where the run knows them (on the testbed)."""
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
    axis.legend(loc="lower right", framealpha=0.9, edgecolor="none", fontsize=NORMAL)


def latency_axis(axis: Any, sla: float) -> None:
    """Mark the SLA in milliseconds, and show responses far above it on a logarithmic axis."""
    mark(axis, sla, f"SLA {sla:g} ms", at_end=True)
    low, high = axis.get_ylim()
    axis.axhspan(sla, 1e9, color=ORANGE, alpha=0.06, linewidth=0, zorder=0)
    if high > 5 * sla:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_ylim(max(min(low, sla / 2), sla / 20), high * 1.3)
    else:
        axis.set_ylim(0, max(high, 1.25 * sla))
    axis.set_ylabel("mean response at the entry\n(ms)")


def draw_pareto(summary: Mapping[str, Any], path: str | Path) -> None:
    """Write a PNG of cost against violating minutes, see `pareto_figure`."""
    save(pareto_figure(summary, 8.2, 5.4), path)


def pareto_figure(summary: Mapping[str, Any], width: float, height: float) -> Any:
    """Cost against violating minutes: one point per policy with its 95 % intervals, size in inches.

    The settings of one sweep (`hpa_50`, `hpa_70`) are joined by a line.
    """
    figure = new_figure(width, height)
    axis = figure.subplots()
    rows = summary["policies"]
    names = [name for name in by_violations(summary) if not math.isnan(rows[name]["violation_rate"])]
    families: dict[tuple[str, str], list[str]] = {}
    for name in names:
        families.setdefault((rows[name]["directory"], rows[name]["family"]), []).append(name)
    order = sorted(families, key=lambda key: (key[1] != OWN, key[1] != "hpa", key))
    palette = (*SERIES, INK, QUIET)
    for index, family in enumerate(order):
        _draw_family(axis, rows, families[family], palette[index % len(palette)])
    axis.set(xlabel="cost (core-hours, starting pods included)", ylabel="minutes over the SLA (%)")
    axis.set_title("Cost and violations: towards the lower left is better", color=INK)
    axis.margins(x=0.12, y=0.1)
    axis.set_ylim(bottom=min(0, -0.03 * axis.get_ylim()[1]))
    tidy(axis)
    colours = {
        name: palette[index % len(palette)] for index, family in enumerate(order) for name in families[family]
    }
    points = {name: (rows[name]["core_hours"], rows[name]["violation_rate"] * 100) for name in names}
    _label_points(axis, points, colours, [name for name in names if rows[name]["policy"] == OWN])
    return figure


def _label_points(
    axis: Any, points: Mapping[str, tuple[float, float]], colours: Mapping[str, str], bold: Sequence[str]
) -> None:
    """Write the names beside their points, each where it covers the least of other names and points."""
    axis.figure.draw_without_rendering()
    scale = axis.figure.dpi / 72
    spots = {name: axis.transData.transform(point) for name, point in points.items()}
    taken = [(x - 7 * scale, y - 7 * scale, x + 7 * scale, y + 7 * scale) for x, y in spots.values()]
    for name, spot in spots.items():
        offset, box = _best_place(axis, spot, 5.6 * len(name), scale, taken)
        taken.append(box)
        weight = "bold" if name in bold else "normal"
        style = {"textcoords": "offset points", "fontsize": NORMAL, "color": colours[name], "weight": weight}
        axis.annotate(name, points[name], xytext=offset, **style)


def _best_place(
    axis: Any, spot: Sequence[float], wide: float, scale: float, taken: Sequence[Box]
) -> tuple[tuple[float, float], Box]:
    """Where a name `wide` points wide covers the least: its offset from the point, and the box that it fills.

    Args:
        axis: names mustn't leave it to the left, to the right or below.
        spot: the point, in pixels.
        wide: width of the name in points.
        scale: pixels per point.
        taken: boxes of other names and of all points, in pixels.
    """
    low, high = axis.bbox.min, axis.bbox.max
    beside = [(8.0, 4.0), (-8 - wide, 4.0), (8.0, -13.0), (-8 - wide, -13.0)]
    centred = [(-wide / 2, up) for up in (10.0, -19.0, 20.0, 30.0)]
    found = []
    for dx, dy in (*beside, *centred):
        x, y = spot[0] + dx * scale, spot[1] + dy * scale
        box = (x, y, x + wide * scale, y + 11 * scale)
        outside = box[0] < low[0] or box[2] > high[0] or box[1] < low[1]
        found.append((sum(_overlap(box, other) for other in taken) + 9e9 * outside, (dx, dy), box))
    _, offset, box = min(found, key=lambda one: one[0])
    return offset, box


def _overlap(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    wide, high = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return max(0.0, wide) * max(0.0, high)


def _draw_family(axis: Any, rows: Mapping[str, Any], members: Sequence[str], colour: str) -> None:
    """Draw the policies of one family, and join them from the cheapest to the dearest."""
    members = sorted(members, key=lambda name: rows[name]["core_hours"])
    x = [rows[name]["core_hours"] for name in members]
    y = [rows[name]["violation_rate"] * 100 for name in members]
    if len(members) > 1:
        axis.plot(x, y, color=colour, linewidth=1.2, alpha=0.6)
    for name, cost, violations in zip(members, x, y, strict=True):
        wide = _error(rows[name]["core_hours_ci"], cost, 1)
        high = _error(rows[name]["violation_rate_ci"], violations, 100)
        own = rows[name]["policy"] == OWN
        shape = {"marker": "D", "markersize": 8} if own else {"marker": "o", "markersize": 6}
        axis.errorbar(cost, violations, xerr=wide, yerr=high, color=colour, elinewidth=1, **shape)


def _error(bounds: Sequence[float] | None, centre: float, factor: float) -> Any:
    """How far an interval reaches below and above its centre, as matplotlib's error bars want it."""
    if bounds is None:
        return None
    return [[max(centre - bounds[0] * factor, 0.0)], [max(bounds[1] * factor - centre, 0.0)]]
