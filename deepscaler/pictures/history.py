"""The course of a training as a picture: `<name>.history.png`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from deepscaler.artefacts import replacing

COLOURS = {
    "predictor": "#1f5f99",
    "graph": "#c2571a",
    "joint": "#1f5f99",
    "plain": "#1f5f99",
    "closed_form": "#1f5f99",
}


def draw_history(history: pd.DataFrame, path: str | Path, title: str) -> None:
    """Losses by epoch, a colour a phase, the best pair marked; below, edges of the affinity and the learning rate."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9.0, 5.6), layout="constrained")
    losses, edges = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    epochs = pd.Series(range(1, len(history) + 1), index=history.index)
    for phase, rows in history.groupby("phase", sort=False):
        colour, shown = COLOURS.get(str(phase), "#555555"), str(phase).replace("_", " ")
        losses.plot(
            epochs[rows.index],
            rows["validation"],
            "o",
            markersize=4,
            color=colour,
            label=f"{shown}: validation",
        )
        losses.plot(
            epochs[rows.index],
            rows["training"],
            "_",
            markersize=8,
            color=colour,
            alpha=0.6,
            label=f"{shown}: training",
        )
    losses.plot(epochs, history["validation"], color="#999999", linewidth=0.8, zorder=0)
    best = int(history["validation"].to_numpy().argmin())
    losses.axvline(
        best + 1,
        color="#2a7a3b",
        linewidth=1,
        linestyle="--",
        label=f"lowest: {history['validation'].iloc[best]:.4f}",
    )
    losses.set_ylabel("mean |error|, z-units")
    losses.set_title(title)
    losses.legend(frameon=False, fontsize=9, ncols=2)
    edges.step(epochs, history["edges"], where="post", color="#333333")
    edges.set_ylim(0, max(int(history["edges"].max()), 1) * 1.1)
    edges.set_ylabel("edges")
    edges.set_xlabel("epoch of the run")
    edges.yaxis.set_major_locator(MaxNLocator(integer=True))
    edges.xaxis.set_major_locator(MaxNLocator(integer=True))
    rate = edges.twinx()
    leading = history[history["phase"] != "graph"]
    rate.plot(epochs[leading.index], leading["learning_rate"], color="#1f5f99", linewidth=1)
    rate.set_ylabel("learning rate", color="#1f5f99")
    for axis in (losses, edges):
        axis.spines[["top", "right"]].set_visible(False)
    rate.spines["top"].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, facecolor="white")
