"""What processes held over time."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from deepscaler.pictures.style import INK, SERIES, new_figure, put_title, save, tidy

SHOWN = ("memory MiB", "handles", "threads", "heap MiB")
"""What is drawn, a panel each."""


def draw_holdings(found: pd.DataFrame, path: str | Path) -> None:
    """One panel per kind, one line per process.

    Args:
        found: `minutes`, `who`, `what`, `value`, a row per sample.
        path: of the PNG.
    """
    figure = new_figure(11.0, 2.8)
    kinds = [what for what in SHOWN if what in set(found["what"])]
    axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    colours = dict(zip(dict.fromkeys(found["who"]), (*SERIES, INK), strict=False))
    for axis, what in zip(axes, kinds, strict=True):
        for who, rows in found[found["what"] == what].groupby("who", sort=False):
            axis.plot(rows["minutes"], rows["value"], color=colours[who], label=who)
        put_title(axis, what)
        axis.set(xlabel="minutes", ylim=(0, None))
        tidy(axis, grid="y")
    lines = {line.get_label(): line for axis in axes for line in axis.get_lines()}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=7, frameon=False, labelcolor=INK)
    save(figure, path)
