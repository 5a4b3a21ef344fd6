"""The course of a training as a picture: `<name>.history.png`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from deepscaler.pictures.style import BLUE, GREEN, INK, ORANGE, QUIET, new_figure, save, tidy

COLOURS = {"predictor": BLUE, "graph": ORANGE, "joint": GREEN, "plain": BLUE, "closed_form": BLUE}
"""The colour of each phase of a training; an unknown phase is grey."""


def draw_history(history: pd.DataFrame, path: str | Path, title: str) -> None:
    """Write a PNG of the losses by epoch, above the number of edges and the learning rate.

    Args:
        history: one row per epoch of the run with the columns phase, training, validation (losses), edges and
            learning_rate.
        path: where the picture goes.
        title: of the picture.
    """
    figure = new_figure(9.0, 5.6)
    losses, edges = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    epochs = pd.Series(range(1, len(history) + 1), index=history.index)
    _draw_losses(losses, history, epochs)
    losses.set_title(title, color=INK)
    _draw_edges(edges, history, epochs)
    save(figure, path)


def _draw_losses(axis: Any, history: pd.DataFrame, epochs: pd.Series) -> None:
    """Validation and training losses, one colour per phase; the lowest validation loss is marked."""
    for phase, rows in history.groupby("phase", sort=False):
        shown = str(phase).replace("_", " ")
        for column, style in (
            ("validation", {"marker": "o", "markersize": 4}),
            ("training", {"marker": "_", "markersize": 8, "alpha": 0.6}),
        ):
            style |= {"color": COLOURS.get(str(phase), QUIET), "label": f"{shown}: {column}"}
            axis.plot(epochs[rows.index], rows[column], linestyle="", **style)
    axis.plot(epochs, history["validation"], color=QUIET, linewidth=0.8, zorder=0)
    best = int(history["validation"].to_numpy().argmin())
    lowest = f"lowest: {history['validation'].iloc[best]:.4f}"
    axis.axvline(best + 1, color=INK, linewidth=1, linestyle="--", label=lowest)
    axis.set_ylabel("mean |error|, z-units")
    axis.legend(frameon=False, fontsize=9, ncols=2)
    tidy(axis, grid="y")


def _draw_edges(axis: Any, history: pd.DataFrame, epochs: pd.Series) -> None:
    """Edges of the learned graph, and the learning rate of the network that training is leading."""
    from matplotlib.ticker import MaxNLocator

    axis.step(epochs, history["edges"], where="post", color=INK)
    axis.set(ylim=(0, max(int(history["edges"].max()), 1) * 1.1), ylabel="edges", xlabel="epoch of the run")
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axis, grid="y")
    rate = axis.twinx()
    leading = history[history["phase"] != "graph"]
    rate.plot(epochs[leading.index], leading["learning_rate"], color=BLUE, linewidth=1)
    rate.set_ylabel("learning rate", color=BLUE)
    rate.spines["top"].set_visible(False)
