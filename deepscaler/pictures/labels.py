"""The page of plots beside a data set with `required` labels: `labels.png`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.labels.diagnostics import RHO_EDGES, Diagnostics
from deepscaler.labels.regression import FEWEST_HOT, HOT
from deepscaler.pictures.graphs import short_names
from deepscaler.pictures.style import (
    BLUE,
    INK,
    NORMAL,
    ORANGE,
    QUIET,
    mark,
    new_figure,
    plain_numbers,
    put_title,
    save,
    tidy,
)

Array = NDArray[np.float64]
MOST_POINTS = 1500
"""More points than this can't be told apart on the time line."""


def draw_labels(found: Diagnostics, path: str | Path, title: str) -> None:
    """Write a PNG that shows how far to trust `required` labels.

    Its plots: CPU fit and its residuals, entry response, hidden demand, saturation, labels over time.

    Args:
        found: what `diagnose` found.
        path: where the picture goes.
        title: of the page.
    """
    count = len(found.model.services)
    figure = new_figure(15.5, max(10.0, 3.6 + 0.26 * count))
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
    save(figure, path)


def _residuals(axis: Any, found: Diagnostics) -> None:
    """One row per service: the middle 90 % and 50 % of its minutes, and the error of the fitted demand."""
    names, residuals, errors = short_names(found.model.services), 100 * found.residuals, found.demand_error
    for row in range(len(names)):
        known = residuals[np.isfinite(residuals[:, row]), row]
        if len(known):
            _spread(axis, row, known)
        if errors is not None and np.isfinite(errors[row]):
            axis.plot(100 * errors[row], row, "D", color=ORANGE, markersize=4.5, zorder=4)
    size = 8 if len(names) <= 20 else 6.5
    texts = [f"{name}\n{_fitted_text(found, row)}" for row, name in enumerate(names)]
    axis.set_yticks(range(len(names)), texts, fontsize=size)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.axvline(0, color=QUIET, linewidth=0.8)
    axis.set_xlabel("% of the service's mean cores")
    truth = ";\norange: error of the fitted demand" if errors is not None else ""
    put_title(axis, f"Measured minus fitted cores\n(90 % and 50 % of the minutes, median{truth})")
    tidy(axis, grid="x", labelsize=size)


def _spread(axis: Any, row: int, known: Array) -> None:
    low, quarter, middle, three_quarters, high = np.quantile(known, (0.05, 0.25, 0.5, 0.75, 0.95))
    bar = {"color": BLUE, "solid_capstyle": "butt"}
    axis.plot([low, high], [row, row], linewidth=1.2, **bar)
    axis.plot([quarter, three_quarters], [row, row], linewidth=5, alpha=0.55, **bar)
    axis.plot(middle, row, "|", color=INK, markersize=7)


def _fitted_text(found: Diagnostics, row: int) -> str:
    """CPU per request and how well the fit explains the minutes, for one service."""
    demand = 1e3 * found.model.demand_seconds[row]
    r2 = found.model.quality.get("cpu_r2", {}).get(found.model.services[row])
    told = "demand unknown" if np.isnan(demand) else f"{demand:.3g} ms"
    return told + (f", R² {r2:.3f}" if r2 is not None and np.isfinite(r2) else "")


def _cores(axis: Any, found: Diagnostics) -> None:
    """All services: measured cores against a · pod + s · req."""
    both = (found.measured_cores > 0) & (found.fitted_cores > 0)
    x, y = found.fitted_cores[both], found.measured_cores[both]
    _against(axis, x, y, np.where(both)[1] % 10.0, "tab10")
    axis.set(xlabel="a · pods + s · requests/s (cores, fitted)", ylabel="cores used (measured)")
    put_title(
        axis, f"CPU fit: {len(x)} minutes of {len(found.model.services)} services, one colour per service"
    )
    tidy(axis)


def _response(axis: Any, found: Diagnostics) -> None:
    """Measured entry response against the fitted form, by the busiest service's utilisation."""
    fit, sla = found.model.response, found.model.sla_seconds
    if fit is None:
        place = {"ha": "center", "va": "center", "transform": axis.transAxes, "color": ORANGE}
        axis.text(0.5, 0.5, "no response fit:\nρ_max alone decides", **place)
        put_title(axis, "Entry response")
        tidy(axis)
        return
    both = (found.measured_response > 0) & (found.predicted_response > 0) & np.isfinite(found.top_rho)
    x, y = 1e3 * found.predicted_response[both], 1e3 * found.measured_response[both]
    dots = _against(axis, x, y, np.clip(found.top_rho[both], 0.3, 1.0), "viridis")
    if dots is not None:
        axis.figure.colorbar(dots, ax=axis, label="utilisation of the busiest service", pad=0.02)
    mark(axis, 1e3 * sla, "SLA")
    error = found.model.quality.get("log_error", {}).get(fit.form, np.nan)
    axis.set(xlabel="predicted (ms)", ylabel="measured, entry mean of a minute (ms)")
    formula = f"{1e3 * fit.r0:.3g} ms + {fit.kappa:.3g} × waits ({fit.form.replace('_', ' ')})"
    put_title(axis, f"Entry response: {formula},\nheld-out log error {error:.2f}")
    tidy(axis)


def _against(axis: Any, x: Array, y: Array, colour: NDArray[Any], palette: str) -> Any:
    """Draw points about the line of equality, both axes logarithmic; None without points."""
    if not len(x):
        return None
    low, high = min(x.min(), y.min()) * 0.8, max(x.max(), y.max()) * 1.25
    axis.plot([low, high], [low, high], color=INK, linewidth=0.9, zorder=3)
    axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    for side in (axis.xaxis, axis.yaxis):
        plain_numbers(side)
    return axis.scatter(x, y, s=5, c=colour, cmap=palette, linewidths=0, alpha=0.5, rasterized=True)


def _saturation(axis: Any, found: Diagnostics) -> None:
    """Minutes by the busiest service's utilisation; without some near saturation there is no response fit."""
    known = found.top_rho[np.isfinite(found.top_rho)]
    hot = int(((known > HOT[0]) & (known < HOT[1])).sum())
    axis.axvspan(*HOT, color=ORANGE, alpha=0.15, linewidth=0)
    axis.hist(np.clip(known, RHO_EDGES[0], RHO_EDGES[-1]), RHO_EDGES, color=BLUE, alpha=0.8)
    mark(axis, found.model.rho_max, "ρ_max", vertical=True)
    axis.set(xlabel="utilisation of the busiest service", ylabel="minutes of the training split")
    counted = f"{hot} minutes at {HOT[0]:g}-{HOT[1]:g} ({FEWEST_HOT} needed)"
    put_title(axis, f"Samples near saturation: {counted}")
    tidy(axis)


def _hidden(axis: Any, found: Diagnostics) -> None:
    """Offered over observed request rate against the entry response, one point per minute."""
    sla = found.model.sla_seconds
    known = np.isfinite(found.measured_response) & (found.measured_response > 0)
    response, factor = 1e3 * found.measured_response[known], found.hidden[known]
    if len(response):
        axis.scatter(response, factor, s=7, color=BLUE, alpha=0.4, linewidths=0, rasterized=True)
        axis.set_xscale("log")
        plain_numbers(axis.xaxis)
    for bound, text in ((500 * sla, "SLA / 2"), (1000 * sla, "SLA")):
        mark(axis, bound, text, vertical=True)
    share = 100 * float((response > 500 * sla).mean()) if len(response) else 0.0
    highest = max(1.1, 1.05 * factor.max(initial=1.0))
    axis.set(xlabel="entry response (ms)", ylabel="offered / observed rate", ylim=(0.95, highest))
    unknown = "open loop or think time unknown: left out above the SLA"
    loop = "closed loop, corrected" if found.model.think_seconds else unknown
    put_title(axis, f"Hidden demand: {share:.1f} % of the minutes above half the SLA\n({loop})")
    tidy(axis)


def _time_line(axis: Any, found: Diagnostics) -> None:
    """Cores that the labels ask for beside those that ran, and how many labels the latency rule raised."""
    width = max(len(found.times) // MOST_POINTS, 1)
    hours = _blocks(found.times - found.times[0], width) / 3600
    recorded, required = _blocks(found.recorded_cores, width), _blocks(found.required_cores, width)
    axis.step(hours, recorded, where="mid", color=QUIET, linewidth=0.8, label="recorded (ready pods)")
    axis.step(hours, required, where="mid", color=BLUE, linewidth=1.2, label="required (label)")
    _mark_splits(axis, found)
    _raised(axis.twinx(), found, hours, width, behind=axis)
    known = np.isfinite(found.raised)
    share = 100 * float(found.raised[known].mean()) if known.any() else 0.0
    axis.set(xlabel="hours since the start", ylabel="CPU limits of all services (cores)", ylim=(0, None))
    axis.margins(x=0.005)
    axis.legend(loc="lower left", framealpha=0.9, edgecolor="none", fontsize=NORMAL, ncols=2)
    decided = f"ρ_max decided {100 - share:.1f} %, the latency rule {share:.1f} %"
    put_title(axis, f"Labels: {100 * known.mean():.0f} % known; {decided}")
    tidy(axis)


def _mark_splits(axis: Any, found: Diagnostics) -> None:
    """Dotted lines where the training, validation and test splits begin."""
    style = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": NORMAL}
    for row, name in zip((0, *found.bounds), ("training", "validation", "test"), strict=True):
        if row < len(found.times):
            hour = (found.times[row] - found.times[0]) / 3600
            axis.axvline(hour, color=INK, linewidth=0.8, linestyle=":")
            axis.annotate(name, (hour, 1), xytext=(3, -10), **style)


def _raised(axis: Any, found: Diagnostics, hours: Array, width: int, behind: Any) -> None:
    """Share of the services whose label the latency rule raised, drawn behind the lines of `behind`."""
    some = np.isfinite(found.raised).any(axis=1, keepdims=True)
    raised = 100 * _blocks(np.nanmean(np.where(some, found.raised, 0.0), axis=1), width)
    axis.fill_between(hours, raised, step="mid", color=ORANGE, alpha=0.45, linewidth=0)
    axis.set(ylim=(0, 100), ylabel="labels raised for latency (%)")
    axis.yaxis.label.set_color(ORANGE)
    axis.spines[["top", "left"]].set_visible(False)
    behind.set_zorder(axis.get_zorder() + 1)
    behind.patch.set_visible(False)


def _blocks(values: Array, width: int) -> Array:
    """Means over `width` rows without NaN; the last rows that don't fill a block are left out."""
    grouped = values[: len(values) // width * width].reshape(-1, width)
    known = np.isfinite(grouped)
    total, count = np.where(known, grouped, 0.0).sum(axis=1), known.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
