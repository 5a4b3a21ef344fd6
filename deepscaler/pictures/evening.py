"""What a dashboard shows and what a terminal says, as pictures for the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.pictures.style import INK, QUIET, SERIES, new_figure, put_title, save, tidy

Array = NDArray[np.float64]
COLUMNS = 3
MOST_NAMED = 5
"""A panel with more lines names none of them."""
TERMINAL = "#F7F7F7"


@dataclass(frozen=True, eq=False)
class Panel:
    """A panel of a dashboard.

    Attributes:
        title: above it.
        unit: as the dashboard calls it.
        lines: label -> times in seconds since the epoch, and values.
    """

    title: str
    unit: str
    lines: Mapping[str, tuple[Array, Array]]


def draw_panels(panels: Sequence[Panel], path: str | Path) -> None:
    """Write a PNG of the panels in their order, over hours since the first sample."""
    rows = -(-len(panels) // COLUMNS)
    figure = new_figure(11.0, 1.55 * rows)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    begin = min(float(times[0]) for panel in panels for times, _ in panel.lines.values())
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel, begin)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    save(figure, path)


def _draw(axis: Any, panel: Panel, begin: float) -> None:
    for number, (label, (times, values)) in enumerate(panel.lines.items()):
        axis.plot(
            (times - begin) / 3600,
            values,
            color=SERIES[number % len(SERIES)],
            linewidth=0.9,
            label=label or None,
        )
    put_title(axis, panel.title)
    axis.title.set_fontsize(8)
    if panel.unit not in ("", "none"):
        axis.set_ylabel(panel.unit, fontsize=7, color=QUIET)
    axis.margins(x=0.01)
    tidy(axis, grid="y", labelsize=7)
    if 1 < len(panel.lines) <= MOST_NAMED:
        axis.legend(frameon=False, fontsize=6, labelcolor=INK, ncols=2, loc="best")


def draw_text(lines: Sequence[str], path: str | Path) -> None:
    """Write a PNG of lines as a terminal shows them."""
    width = max(map(len, lines), default=1)
    figure = new_figure(0.078 * width + 0.3, 0.165 * len(lines) + 0.3)
    figure.set_facecolor(TERMINAL)
    figure.text(
        0.15 / figure.get_figwidth(), 0.5, "\n".join(lines), family="monospace", fontsize=9, va="center"
    )
    save(figure, path)
