"""The page of plots beside a data set with `required` labels: `labels.png`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import replacing
from deepscaler.labels.diagnostics import RHO_EDGES, Diagnostics
from deepscaler.labels.fit import FEWEST_HOT, HOT
from deepscaler.pictures.graphs import short_names

Array = NDArray[np.float64]
INK, QUIET, GRID = "#333333", "#8A8A8A", "#E6E6E6"
BLUE, ORANGE = "#0072B2", "#D55E00"
"""Okabe and Ito: told apart by colour-blind readers too."""
MOST_POINTS = 1500
"""Of the time line: more can't be seen."""


def draw_labels(found: Diagnostics, path: str | Path, title: str) -> None:
    """PNG: fit of CPU and its residuals by service, entry response, hidden demand, saturation, labels over time."""
    from matplotlib.figure import Figure

    count = len(found.model.services)
    figure = Figure(figsize=(15.5, max(10.0, 3.6 + 0.26 * count)), layout="constrained")
    sides: Any = figure.subfigures(1, 2, width_ratios=(0.82, 1.9))
    left, right = sides
    _residuals(left.subplots(), found)
    halves: Any = right.subfigures(2, 1, height_ratios=(2.0, 0.95))
    upper, lower = halves
    (cores, response), (saturation, hidden) = upper.subplots(2, 2)
    _cores(cores, found)
    _response(response, found)
    _saturation(saturation, found)
    _hidden(hidden, found)
    _time_line(lower.subplots(), found)
    figure.suptitle(title, fontsize=14, color=INK)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, facecolor="white")


def _residuals(axis: Any, found: Diagnostics) -> None:
    """A row a service: where 90 % and half of the minutes lie, and the fitted demand's error against the truth."""
    names, residuals, errors = short_names(found.model.services), 100 * found.residuals, found.demand_error
    quality = found.model.quality
    texts = []
    for row, (service, name) in enumerate(zip(found.model.services, names, strict=True)):
        known = residuals[np.isfinite(residuals[:, row]), row]
        if len(known):
            low, quarter, middle, three, high = np.quantile(known, (0.05, 0.25, 0.5, 0.75, 0.95))
            axis.plot([low, high], [row, row], color=BLUE, linewidth=1.2, solid_capstyle="butt")
            axis.plot(
                [quarter, three], [row, row], color=BLUE, linewidth=5, alpha=0.55, solid_capstyle="butt"
            )
            axis.plot(middle, row, "|", color=INK, markersize=7)
        if errors is not None and np.isfinite(errors[row]):
            axis.plot(100 * errors[row], row, "D", color=ORANGE, markersize=4.5, zorder=4)
        demand, r2 = 1e3 * found.model.demand_seconds[row], quality.get("cpu_r2", {}).get(service)
        told = "demand unknown" if np.isnan(demand) else f"{demand:.3g} ms"
        texts.append(f"{name}\n{told}" + (f", R² {r2:.3f}" if r2 is not None and np.isfinite(r2) else ""))
    axis.set_yticks(range(len(names)), texts, fontsize=8 if len(names) <= 20 else 6.5)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.axvline(0, color=QUIET, linewidth=0.8)
    axis.set_xlabel("% of the service's mean cores")
    truth = "; orange: error of the demand" if errors is not None else ""
    _titled(axis, f"Cores measured less fitted\n(90 %, 50 %, median{truth})", grid="x")


def _cores(axis: Any, found: Diagnostics) -> None:
    """All services: measured cores against a · pod + s · req."""
    both = (found.measured_cores > 0) & (found.fitted_cores > 0)
    x, y = found.fitted_cores[both], found.measured_cores[both]
    _against(axis, x, y, np.where(both)[1] % 10.0, "tab10")
    axis.set(xlabel="a · pods + s · requests/s (cores, fitted)", ylabel="cores used (measured)")
    _titled(axis, f"CPU fit: {len(x)} minutes of {len(found.model.services)} services, a colour each")


def _response(axis: Any, found: Diagnostics) -> None:
    """Measured entry response against the fitted form, by the busiest service's utilisation."""
    fit, sla = found.model.response, found.model.sla_seconds
    if fit is None:
        axis.text(
            0.5,
            0.5,
            "no response fit:\nρ_max alone decides",
            ha="center",
            va="center",
            transform=axis.transAxes,
            color=ORANGE,
        )
        _titled(axis, "Entry response")
        return
    both = (found.measured_response > 0) & (found.predicted_response > 0) & np.isfinite(found.top_rho)
    x, y = 1e3 * found.predicted_response[both], 1e3 * found.measured_response[both]
    dots = _against(axis, x, y, np.clip(found.top_rho[both], 0.3, 1.0), "viridis")
    if dots is not None:
        axis.figure.colorbar(dots, ax=axis, label="utilisation of the busiest service", pad=0.02)
    _bound(axis, 1e3 * sla, "SLA")
    error = found.model.quality.get("log_error", {}).get(fit.form, np.nan)
    axis.set(xlabel="predicted (ms)", ylabel="measured, entry mean of a minute (ms)")
    name = fit.form.replace("_", " ")
    _titled(
        axis,
        f"Entry response: {1e3 * fit.r0:.3g} ms + {fit.kappa:.3g} × waits ({name}),\nheld-out log error {error:.2f}",
    )


def _against(axis: Any, x: Array, y: Array, colour: NDArray[Any], palette: str) -> Any:
    """Points about the line of equality, both axes logarithmic."""
    if not len(x):
        return None
    low, high = min(x.min(), y.min()) * 0.8, max(x.max(), y.max()) * 1.25
    axis.plot([low, high], [low, high], color=INK, linewidth=0.9, zorder=3)
    axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    for side in (axis.xaxis, axis.yaxis):
        _plain_numbers(side)
    return axis.scatter(x, y, s=5, c=colour, cmap=palette, linewidths=0, alpha=0.5, rasterized=True)


def _saturation(axis: Any, found: Diagnostics) -> None:
    """Minutes by the busiest service's utilisation: the response can be told where some are hot."""
    known = found.top_rho[np.isfinite(found.top_rho)]
    hot = int(((known > HOT[0]) & (known < HOT[1])).sum())
    axis.axvspan(*HOT, color=ORANGE, alpha=0.15, linewidth=0)
    axis.hist(np.clip(known, RHO_EDGES[0], RHO_EDGES[-1]), RHO_EDGES, color=BLUE, alpha=0.8)
    _bound(axis, found.model.rho_max, "ρ_max", vertical=True)
    axis.set(xlabel="utilisation of the busiest service", ylabel="minutes of the training split")
    _titled(axis, f"Samples near saturation: {hot} minutes at {HOT[0]:g}-{HOT[1]:g} ({FEWEST_HOT} needed)")


def _hidden(axis: Any, found: Diagnostics) -> None:
    """Offered over observed rate against the response; the minutes' distribution behind it."""
    sla = found.model.sla_seconds
    known = np.isfinite(found.measured_response) & (found.measured_response > 0)
    response, factor = 1e3 * found.measured_response[known], found.hidden[known]
    if len(response):
        axis.scatter(response, factor, s=7, color=BLUE, alpha=0.4, linewidths=0, rasterized=True)
        axis.set_xscale("log")
        _plain_numbers(axis.xaxis)
    for bound, text in ((500 * sla, "SLA / 2"), (1000 * sla, "SLA")):
        _bound(axis, bound, text, vertical=True)
    share = 100 * float((response > 500 * sla).mean()) if len(response) else 0.0
    axis.set(
        xlabel="entry response (ms)",
        ylabel="offered / observed rate",
        ylim=(0.95, max(1.1, 1.05 * factor.max(initial=1.0))),
    )
    loop = (
        "closed loop, corrected"
        if found.model.think_seconds
        else "open loop or think time unknown: left out above the SLA"
    )
    _titled(axis, f"Hidden demand: {share:.1f} % of the minutes above half the SLA\n({loop})")


def _time_line(axis: Any, found: Diagnostics) -> None:
    """Cores that the labels ask for beside those that ran, and how many labels the latency rule raised."""
    length = len(found.times)
    width = max(length // MOST_POINTS, 1)
    hours = _blocks(found.times - found.times[0], width) / 3600
    axis.step(
        hours,
        _blocks(found.recorded_cores, width),
        color=QUIET,
        linewidth=0.8,
        label="recorded (ready pods)",
        where="mid",
    )
    axis.step(
        hours,
        _blocks(found.required_cores, width),
        color=BLUE,
        linewidth=1.2,
        label="required (label)",
        where="mid",
    )
    for row, name in zip((0, *found.bounds), ("training", "validation", "test"), strict=True):
        if row < length:
            hour = (found.times[row] - found.times[0]) / 3600
            axis.axvline(hour, color=INK, linewidth=0.8, linestyle=":")
            axis.annotate(
                name,
                (hour, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -10),
                textcoords="offset points",
                fontsize=9,
            )
    raised = np.nanmean(
        np.where(np.isfinite(found.raised).any(axis=1, keepdims=True), found.raised, 0.0), axis=1
    )
    other = axis.twinx()
    other.fill_between(
        hours,
        100 * _blocks(raised, width),
        step="mid",
        color=ORANGE,
        alpha=0.45,
        linewidth=0,
        label="raised for latency",
    )
    other.set(ylim=(0, 100), ylabel="labels raised for latency (%)")
    other.yaxis.label.set_color(ORANGE)
    other.spines[["top", "left"]].set_visible(False)
    axis.set_zorder(other.get_zorder() + 1)
    axis.patch.set_visible(False)
    known = np.isfinite(found.raised)
    share = 100 * float(found.raised[known].mean()) if known.any() else 0.0
    axis.set(xlabel="hours since the start", ylabel="CPU limits of all services (cores)", ylim=(0, None))
    axis.margins(x=0.005)
    axis.legend(loc="lower left", framealpha=0.9, edgecolor="none", fontsize=9, ncols=2)
    _titled(
        axis,
        f"Labels: {100 * known.mean():.0f} % known; ρ_max decided {100 - share:.1f} %, the latency rule {share:.1f} %",
    )


def _blocks(values: Array, width: int) -> Array:
    """Means over `width` rows, NaN left out; a rest at the end is left out."""
    grouped = values[: len(values) // width * width].reshape(-1, width)
    known = np.isfinite(grouped)
    total, count = np.where(known, grouped, 0.0).sum(axis=1), known.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _bound(axis: Any, value: float, text: str, vertical: bool = False) -> None:
    line, place = (
        (axis.axvline, ("data", "axes fraction")) if vertical else (axis.axhline, ("axes fraction", "data"))
    )
    line(value, color=INK, linewidth=1, linestyle="--", zorder=1)
    where, offset, side = ((value, 1), (-3, -10), "right") if vertical else ((0, value), (4, 3), "left")
    axis.annotate(
        text,
        where,
        xycoords=place,
        xytext=offset,
        textcoords="offset points",
        fontsize=9,
        color=INK,
        ha=side,
        annotation_clip=True,
    )


def _plain_numbers(side: Any) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5, 10, …, as they are spoken."""
    from matplotlib.ticker import LogLocator

    side.set_major_locator(LogLocator(subs=(1, 2, 5)))
    side.set_major_formatter(lambda value, _: f"{value:g}")
    side.set_minor_formatter(lambda value, _: "")


def _titled(axis: Any, title: str, grid: str = "both") -> None:
    axis.set_title(title, fontsize=10, color=INK, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(QUIET)
    axis.tick_params(
        colors=INK, labelsize=axis.yaxis.get_ticklabels()[0].get_fontsize() if grid == "x" else 9
    )
    axis.grid(axis=grid, color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
