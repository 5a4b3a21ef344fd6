"""How all pictures look: one palette, one kind of axis, one way to save them. Change the looks here."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from deepscaler.artefacts import replacing

BLUE, ORANGE, GREEN, PINK, SKY, AMBER = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER)
"""Colours of lines and points, in the order in which they are handed out.

Source: Okabe and Ito 2008; readers with colour blindness can tell them apart as well.
"""
INK, QUIET, GRID = "#333333", "#8A8A8A", "#E6E6E6"
"""Text and reference lines; what stands in the background; grid lines."""
DPI = 130
COLOURS = 128
"""Of a picture's palette."""
SMALL, NORMAL = 8, 9
"""Font sizes of labels inside a picture, in points; titles are a point larger than `NORMAL`."""


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure, its size in inches, whose parts arrange themselves without overlaps."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: str | Path) -> None:
    """Write `figure` as a small PNG; a process killed meanwhile leaves the previous picture as it was."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DPI)
    with replacing(path) as temporary:
        write_small(drawn, temporary, COLOURS)


def shrink(path: str | Path, colours: int = COLOURS) -> None:
    """Give a PNG a palette of so many colours: a third of the size, for pages that people load."""
    with replacing(path) as temporary:
        write_small(path, temporary, colours)


def write_small(drawn: str | Path | io.BytesIO, path: Path, colours: int) -> None:
    """Write a picture as PNG with a palette of so many colours."""
    from PIL import Image

    with Image.open(drawn) as picture:
        small = picture.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    small.save(path, format="PNG", optimize=True)


def tidy(axis: Any, grid: str = "both", labelsize: float = NORMAL) -> None:
    """Quiet spines at the left and the bottom only, and a grid behind the data.

    Args:
        axis: a matplotlib axis.
        grid: the direction of the grid's lines: `x`, `y` or `both`.
        labelsize: of the tick labels, in points.
    """
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(QUIET)
    axis.tick_params(colors=INK, labelsize=labelsize)
    axis.grid(axis=grid, color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)


def put_title(axis: Any, text: str) -> None:
    """A small title above the left end of the axis."""
    axis.set_title(text, fontsize=NORMAL + 1, color=INK, loc="left")


def mark(axis: Any, value: float, text: str, *, vertical: bool = False, at_end: bool = False) -> None:
    """Draw a dashed line at `value` and write `text` beside it.

    Args:
        axis: a matplotlib axis.
        value: on the y axis, or with `vertical` on the x axis.
        text: name of the line.
        vertical: the line is upright, its name at the top.
        at_end: the name of a level line stands at its right end instead of its left.
    """
    place: tuple[float, float]
    if vertical:
        line, coordinates, place, offset = axis.axvline, ("data", "axes fraction"), (value, 1), (-3, -10)
    else:
        line, coordinates = axis.axhline, ("axes fraction", "data")
        place, offset = ((1, value), (-4, 3)) if at_end else ((0, value), (4, 3))
    line(value, color=INK, linewidth=1, linestyle="--", zorder=1)
    axis.annotate(
        text,
        place,
        xycoords=coordinates,
        xytext=offset,
        textcoords="offset points",
        fontsize=NORMAL,
        color=INK,
        ha="right" if vertical or at_end else "left",
        annotation_clip=True,
    )


def plain_numbers(side: Any) -> None:
    """Label a logarithmic x or y axis at 1, 2, 5, 10, ... with plain numbers instead of powers."""
    from matplotlib.ticker import LogLocator

    side.set_major_locator(LogLocator(subs=(1, 2, 5)))
    side.set_major_formatter(lambda value, _: f"{value:g}")
    side.set_minor_formatter(lambda value, _: "")
