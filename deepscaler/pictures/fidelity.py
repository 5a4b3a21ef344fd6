"""Real and emulated runs on one axis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepscaler.pictures.style import BLUE, INK, NORMAL, ORANGE, new_figure, put_title, save, tidy

Floats = NDArray[np.float64]
Line = tuple[Floats, Floats, Floats]
"""Seconds, pods of all services, latency in ms; each `[T]`."""


def draw_pods(panels: Mapping[str, Mapping[str, Line]], path: str | Path) -> None:
    """Write a PNG: per run its pods above and the 95th percentile at the entry below, a line per cluster.

    Args:
        panels: run -> cluster -> its line, the real one first.
        path: of the PNG.
    """
    figure = new_figure(3.2 * len(panels), 4.6)
    axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
    for column, (run, lines) in enumerate(panels.items()):
        above, below = axes[:, column]
        for (name, (seconds, pods, latency)), colour in zip(lines.items(), (BLUE, ORANGE), strict=False):
            above.step(seconds / 60, pods, where="post", color=colour, label=name, linewidth=1.6)
            below.plot(seconds / 60, latency, color=colour, linewidth=1.2)
        put_title(above, run)
        above.legend(frameon=False, fontsize=NORMAL - 1, labelcolor=INK)
        below.set_yscale("log")
        below.set_xlabel("minutes since the load began", fontsize=NORMAL, color=INK)
        for axis in (above, below):
            tidy(axis)
    axes[0, 0].set_ylabel("pods, all services", fontsize=NORMAL, color=INK)
    axes[1, 0].set_ylabel("p95 at the entry, ms", fontsize=NORMAL, color=INK)
    save(figure, path)
