"""The pictures of the report's page: small enough for a phone, with letters that can still be read there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.cluster import LATENCY_BUCKETS
from deepscaler.evaluation.span import entry_sla, moment_seconds, replicas, run_span
from deepscaler.pictures.runs import latency_axis, windows
from deepscaler.pictures.style import INK, SERIES, mark, new_figure, tidy
from deepscaler.runs import Run

WIDTH = 5.2
"""Inches; half of a wide window, all of a phone."""
SHADOW_HEIGHT = 4.2
"""Of the pictures of a shadow run, which stand side by side."""
MOST_STEPS = 320
"""More can't be told apart, so means are drawn."""


def course_figure(runs: Mapping[str, Run], warmup: float) -> Any:
    """One load over time: offered load, mean response against the SLA, replicas of all services.

    Args:
        runs: by policy, at most as many as `SERIES` has colours; the first one's oracle is drawn.
        warmup: seconds at the beginning that aren't drawn.
    """
    figure = new_figure(WIDTH, 6.0)
    load, latency, pods = figure.subplots(3, 1, sharex=True, height_ratios=(0.7, 1.3, 1.3))
    offered, first = [], next(iter(runs.values()))
    for number, ((name, run), colour) in enumerate(zip(runs.items(), SERIES, strict=False)):
        span = run_span(run, warmup)
        moments, sums, seconds = windows(run, span)
        offered.append(pd.Series(sums["offered"].to_numpy() / seconds, moments))
        line = {"color": colour, "linewidth": 1.8 if number == 0 else 1.1, "zorder": 3 if number == 0 else 2}
        mean = (sums["duration_seconds"] / sums["done"].where(sums["done"] > 0)).to_numpy() * 1000
        latency.plot(moments, mean, label=name, **line)
        there = span.cut(run.pods)
        total = (replicas(there, "ready") + replicas(there, "starting")).sum(axis=1)
        pods.step((total.index.to_numpy() - span.begin) / 60, total.to_numpy(), where="pre", **line)
    highest = pd.concat(offered, axis=1).max(axis=1)
    load.fill_between(highest.index, highest.to_numpy(), color=INK, alpha=0.18, linewidth=0)
    load.plot(highest.index, highest.to_numpy(), color=INK, linewidth=0.9)
    load.set(ylabel="load\n(requests/s)", ylim=(0, None))
    latency_axis(latency, entry_sla(first) * 1000)
    latency.set_ylabel("mean response\n(ms)")
    _oracle_replicas(pods, first, warmup)
    pods.set(ylabel="replicas,\nall services", xlabel="minutes since the start of the load", ylim=(0, None))
    for axis in (load, latency, pods):
        axis.margins(x=0.005)
        tidy(axis, grid="y")
    figure.align_ylabels()
    handles = [*latency.get_legend_handles_labels()[0], *pods.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, labelcolor=INK)
    return figure


def _oracle_replicas(axis: Any, run: Run, warmup: float) -> None:
    """Draw the replicas that the oracle would have given, where the run knows them (on the testbed)."""
    if not run.info.get("oracle"):
        return
    span = run_span(run, warmup)
    times = np.array([moment_seconds(moment) for moment in run.info["oracle_times"]])
    total = np.sum([np.asarray(values, float) for values in run.info["oracle"].values()], axis=0)
    inside = (times > span.start - 1e-6) & (times <= span.end + 1e-6)
    style = {"color": INK, "linewidth": 1, "linestyle": ":", "label": "needed (oracle)"}
    axis.step((times[inside] - span.begin) / 60, total[inside], where="post", **style)


def responses_figure(counts: Mapping[str, NDArray[np.float64]], slo: float) -> Any:
    """The share of requests slower than each response time, one line per policy, both axes logarithmic.

    Args:
        counts: by policy `[len(LATENCY_BUCKETS) + 1]` requests done, at most as many as `SERIES` has colours.
        slo: seconds, marked.
    """
    figure = new_figure(WIDTH, 3.6)
    axis = figure.subplots()
    bounds = np.array(LATENCY_BUCKETS) * 1000
    for number, ((name, buckets), colour) in enumerate(zip(counts.items(), SERIES, strict=False)):
        total = buckets.sum()
        if total > 0:
            slower = 100 * (1 - np.cumsum(buckets)[: len(bounds)] / total)
            axis.plot(
                bounds,
                np.where(slower > 0, slower, np.nan),
                color=colour,
                label=name,
                linewidth=1.8 if number == 0 else 1.1,
            )
    axis.set(xscale="log", yscale="log", xlabel="response time (ms)", ylabel="slower requests (%)")
    axis.set(xlim=(10, 10_000), ylim=(0.01, 100))
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(lambda value, _: f"{value:g}")
    mark(axis, slo * 1000, f"SLO {slo * 1000:g} ms", vertical=True)
    tidy(axis)
    axis.legend(frameon=False, labelcolor=INK, loc="lower left")
    return figure


def drawn_policies(names: Sequence[str], first: str, baseline: str) -> list[str]:
    """At most four policies for a picture with lines: the one it's about, the baseline, then the others."""
    chosen = [name for name in (first, baseline) if name in names]
    return [*dict.fromkeys([*chosen, *names])][:4]


def shadow_response_figure(
    run: Run,
    warmup: float,
    expected: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    names: tuple[str, str],
) -> Any:
    """A shadow run over time: offered load, and the response as measured and as it was to be expected.

    Args:
        run: the record.
        warmup: seconds at the beginning that aren't drawn.
        expected: times `[K]` and seconds of the response that was to be expected; None if unknown.
        names: who was in charge, who decided in the shadow.
    """
    figure, span = new_figure(WIDTH, SHADOW_HEIGHT), run_span(run, warmup)
    load, latency = figure.subplots(2, 1, sharex=True, height_ratios=(0.6, 1.0))
    minutes, sums, seconds = windows(run, span)
    unit, label = _unit(span.end - span.begin)
    times = minutes * 60 / unit
    load.fill_between(times, sums["offered"].to_numpy() / seconds, color=INK, alpha=0.18, linewidth=0)
    load.set(ylabel="load\n(requests/s)", ylim=(0, None))
    mean = (sums["duration_seconds"] / sums["done"].where(sums["done"] > 0)).to_numpy() * 1000
    latency.plot(times, mean, color=SERIES[1], label=f"{names[0]}, measured", linewidth=1.1)
    if expected is not None:
        moments = (expected[0] - span.begin) / unit
        style = {"color": SERIES[0], "linewidth": 1.1, "label": f"{names[1]}, by the fit"}
        latency.plot(moments, expected[1] * 1000, **style)
    latency_axis(latency, entry_sla(run) * 1000)
    latency.set(ylabel="mean response\n(ms)", xlabel=label)
    _finished(figure, (load, latency))
    return figure


def shadow_cores_figure(
    run: Run,
    warmup: float,
    cores: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    names: tuple[str, str],
) -> Any:
    """A shadow run over time: cores that were held, and those that were wanted.

    Args:
        run: the record.
        warmup: seconds at the beginning that aren't drawn.
        cores: times `[L]`, cores held, cores wanted.
        names: who was in charge, who decided in the shadow.
    """
    figure, span = new_figure(WIDTH, SHADOW_HEIGHT), run_span(run, warmup)
    pods = figure.subplots()
    unit, label = _unit(span.end - span.begin)
    told = (f"{names[0]}, held", f"{names[1]}, wanted")
    width = (span.end - span.begin) / MOST_STEPS
    means = pd.DataFrame({"time": cores[0], "held": cores[1], "wanted": cores[2]})
    means = means.groupby(np.ceil((cores[0] - span.begin) / width)).mean()
    for column, name, colour in zip(("held", "wanted"), told, (SERIES[1], SERIES[0]), strict=True):
        style = {"color": colour, "label": name, "linewidth": 1.1}
        pods.step((means["time"] - span.begin) / unit, means[column], where="pre", **style)
    pods.set(ylabel="cores", xlabel=label, ylim=(0, None))
    _finished(figure, (pods,))
    return figure


def _unit(seconds: float) -> tuple[float, str]:
    """Seconds of the unit that fits a span, and what the axis is called."""
    for unit, name, least in ((86400.0, "days", 3.0), (3600.0, "hours", 4.0)):
        if seconds >= least * unit:
            return unit, f"{name} since the start"
    return 60.0, "minutes since the start"


def _finished(figure: Any, axes: Sequence[Any]) -> None:
    """Tidy the axes, and name the lines of the last one above them."""
    for axis in axes:
        axis.margins(x=0.005)
        tidy(axis, grid="y")
    figure.align_ylabels()
    handles = axes[-1].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False, labelcolor=INK)
