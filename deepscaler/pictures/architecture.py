"""The picture of the architecture in docs/design.md.

python -m deepscaler.pictures.architecture docs/architecture.png
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepscaler.artefacts import replacing
from deepscaler.pictures.style import INK, write_small

WIDTH, HEIGHT = 117.0, 74.0
"""Size of the drawing in its own units, ten to an inch."""
DOTS_PER_INCH, PALETTE = 150, 64
"""Resolution, and how many colours the file keeps: flat drawings need few, and the file stays small."""
MUTED, PAPER = "#5B6770", "#FFFFFF"
LEARN, EVALUATE, SCALE, WORLD = "#0072B2", "#A8487F", "#00805C", "#C05200"
"""One colour per band: like `style.SERIES`, but dark enough for text."""
TINTS = {LEARN: "#EAF3F9", EVALUATE: "#FAF0F5", SCALE: "#E8F5F0", WORLD: "#FCF0E8"}

Point = tuple[float, float]


@dataclass(frozen=True)
class Band:
    """A tinted background with a title: one part of the system.

    Attributes:
        left, bottom, width, height: in the drawing's units.
        note: how often it runs, or where its code lives; written behind the title.
    """

    title: str
    note: str
    colour: str
    left: float
    bottom: float
    width: float
    height: float


@dataclass(frozen=True)
class Box:
    """One step.

    Attributes:
        code: the script or folder that does it, relative to the repository; empty for none.
        x, y: centre, in the drawing's units.
    """

    title: str
    code: str
    text: str
    colour: str
    x: float
    y: float
    width: float = 17.0
    height: float = 13.0


@dataclass(frozen=True)
class Arrow:
    """What passes from one step to the next along `points`; `label` is written at `at`."""

    points: tuple[Point, ...]
    label: str = ""
    at: Point = (0.0, 0.0)
    align: str = "center"


COLUMNS = (15.0, 37.5, 60.0, 82.5, 105.0)
TOP, MIDDLE, BOTTOM = 60.0, 33.0, 7.3
HALF = Box.width / 2
BANDS = (
    Band("Learn", "whenever there is new data", LEARN, 4.5, 51.3, 66.0, 21.7),
    Band("Compare", "after runs", EVALUATE, 72.0, 51.3, 43.5, 21.7),
    Band("Scale", "predict_scale.py: one tick every 15 seconds", SCALE, 4.5, 24.3, 111.0, 21.7),
    Band("One port, three clusters", "deepscaler/cluster.py", WORLD, 4.5, 1.0, 111.0, 17.0),
)
BOXES = (
    Box("Collect", "metrics_fetch.py", "metrics and calls\nof every service", LEARN, COLUMNS[0], TOP),
    Box("Process", "data_process.py", "labels: replicas that\nwould have sufficed", LEARN, COLUMNS[1], TOP),
    Box("Train", "main.py", "forecasting network\nand affinity graph", LEARN, COLUMNS[2], TOP),
    Box("Graphs", "similarity.py", "learned graph\nagainst the calls", EVALUATE, COLUMNS[3], TOP),
    Box("Policies", "calculate.py", "violations, cost,\nstatistics, pictures", EVALUATE, COLUMNS[4], TOP),
    Box("Live metrics", "", "the newest window\nand the pods", SCALE, COLUMNS[0], MIDDLE),
    Box("Quality gate", "", "what is stale or\nmissing is held", SCALE, COLUMNS[1], MIDDLE),
    Box("Forecast", "", "what will be needed", SCALE, COLUMNS[2], MIDDLE + 3.5, height=6.0),
    Box("Reactive floor", "", "what is needed now", SCALE, COLUMNS[2], MIDDLE - 3.5, height=6.0),
    Box("Guard rails", "", "limits, quota, pauses;\na reason per service", SCALE, COLUMNS[3], MIDDLE),
    Box("Deployments", "", "all written in one pass,\nonly where they differ", SCALE, COLUMNS[4], MIDDLE),
    Box("Emulated cluster", "testbed/", "virtual time, no network", WORLD, 23.0, BOTTOM, 33.0, 9.6),
    Box("Live testbed", "testbed/live/", "real time, real interfaces", WORLD, 60.0, BOTTOM, 33.0, 9.6),
    Box("Your cluster", "deepscaler/adapters/", "Prometheus and Kubernetes", WORLD, 97.0, BOTTOM, 33.0, 9.6),
)
_RISE = Box.height / 2
ARROWS = (
    *(Arrow(((COLUMNS[i] + HALF, TOP), (COLUMNS[i + 1] - HALF, TOP))) for i in range(3)),
    *(Arrow(((COLUMNS[i] + HALF, MIDDLE), (COLUMNS[i + 1] - HALF, MIDDLE))) for i in (0, 1, 3)),
    Arrow(((COLUMNS[2] + HALF, MIDDLE), (COLUMNS[3] - HALF, MIDDLE)), "max", (71.0, MIDDLE + 1.6)),
    Arrow(((COLUMNS[2], TOP - _RISE), (COLUMNS[2], MIDDLE + _RISE)), "bundle", (61.2, 48.6), "left"),
    Arrow(
        ((COLUMNS[4], MIDDLE + _RISE), (COLUMNS[4], TOP - _RISE)),
        "every decision with its reason",
        (103.8, 48.6),
        "right",
    ),
    Arrow(((COLUMNS[0], 18.0), (COLUMNS[0], MIDDLE - _RISE)), "metrics", (16.2, 21.1), "left"),
    Arrow(((COLUMNS[4], MIDDLE - _RISE), (COLUMNS[4], 18.0)), "replicas", (103.8, 21.1), "right"),
    Arrow(((4.5, 9.5), (1.8, 9.5), (1.8, TOP), (COLUMNS[0] - HALF, TOP)), "history", (3.0, 48.6), "left"),
)


def draw_architecture(path: str | Path) -> None:
    """PNG of the whole system on white: learn, compare and scale, above the three clusters they share."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 10, HEIGHT / 10))
    axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axis.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axis.set_axis_off()
    for band in BANDS:
        _draw_band(axis, band)
    for arrow in ARROWS:
        _draw_arrow(axis, arrow)
    for box in BOXES:
        _draw_box(axis, box)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DOTS_PER_INCH, facecolor=PAPER)
    with replacing(path) as temporary:
        write_small(drawn, temporary, PALETTE)


def _draw_band(axis: Any, band: Band) -> None:
    low = (band.left, band.bottom)
    _rounded(axis, low, band.width, band.height, facecolor=TINTS[band.colour], linewidth=0, zorder=0)
    spot = (band.left + 2.0, band.bottom + band.height - 2.6)
    title = axis.annotate(band.title, spot, fontsize=13, weight="bold", color=band.colour, va="center")
    axis.annotate(
        band.note,
        (1, 0.5),
        xycoords=title,
        xytext=(8, 0),
        textcoords="offset points",
        fontsize=10.5,
        color=MUTED,
        va="center",
    )


def _draw_box(axis: Any, box: Box) -> None:
    low = (box.x - box.width / 2, box.y - box.height / 2)
    _rounded(axis, low, box.width, box.height, facecolor=PAPER, edgecolor=box.colour, linewidth=1.6, zorder=2)
    centred: dict[str, Any] = {"ha": "center", "va": "center", "color": INK, "zorder": 3}
    lines = 1.0 + 0.9 * bool(box.code) + 0.85 * (box.text.count("\n") + 1) * bool(box.text)
    y = box.y + 1.3 * (lines - 1.0)
    axis.text(box.x, y, box.title, fontsize=11.5, weight="bold", **centred)
    if box.code:
        y -= 2.5
        axis.text(box.x, y, box.code, fontsize=9.5, family="monospace", **{**centred, "color": box.colour})
    for line in box.text.splitlines():
        y -= 2.25
        axis.text(box.x, y, line, fontsize=9.8, **{**centred, "color": MUTED})


def _draw_arrow(axis: Any, arrow: Arrow) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Line

    line = Line(list(arrow.points))
    style: dict[str, Any] = {
        "arrowstyle": "-|>,head_length=5,head_width=3",
        "color": INK,
        "linewidth": 1.6,
        "zorder": 1,
    }
    axis.add_patch(FancyArrowPatch(path=line, capstyle="butt", joinstyle="round", **style))
    if arrow.label:
        text: dict[str, Any] = {"ha": arrow.align, "va": "center", "color": INK, "style": "italic"}
        axis.text(*arrow.at, arrow.label, fontsize=10.5, **text)


def _rounded(axis: Any, low: Point, width: float, height: float, **style: Any) -> None:
    from matplotlib.patches import FancyBboxPatch

    axis.add_patch(FancyBboxPatch(low, width, height, boxstyle="round,pad=0,rounding_size=1.2", **style))


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the picture; returns 0."""
    parser = argparse.ArgumentParser(
        prog="python -m deepscaler.pictures.architecture", description="Draw the picture of the architecture."
    )
    parser.add_argument("path", help="PNG to write, for example docs/architecture.png")
    draw_architecture(parser.parse_args(argv).path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
