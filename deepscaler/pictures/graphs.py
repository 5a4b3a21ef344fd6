"""A picture of graphs over the same services side by side: arrows, and the weights as a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import replacing
from deepscaler.graphs.similarity import Matrix, edges, scaled

SHARED, OWN, INK = "#0072B2", "#D55E00", "#333333"
DRAWN = 2
"""Arrows a service that a picture draws at most, the heaviest first; its matrix shows all weights."""


def draw_graphs(
    names: Sequence[str],
    graphs: Mapping[str, Matrix],
    entries: Sequence[str],
    threshold: float,
    path: str | Path,
) -> None:
    """PNG of the graphs side by side: arrows at the same positions (columns by `layers` of the first graph) and, below, weights.

    Width by weight; edges the first graph has too are blue, others orange. In the matrices the first graph's edges are framed.
    """
    from matplotlib.figure import Figure

    first = next(iter(graphs.values()))
    places = positions(edges(first, threshold), [names.index(entry) for entry in entries if entry in names])
    tallest = max(np.unique(places[:, 0], return_counts=True)[1])
    side = 1.6 + max(0.17 * len(names), 2.6)
    figure = Figure(figsize=(5.6 * len(graphs), max(4.2, 0.34 * tallest + 1.2) + side), layout="constrained")
    rows = figure.subplots(
        2, len(graphs), squeeze=False, height_ratios=[max(4.2, 0.34 * tallest + 1.2), side]
    )
    labels, known = short_names(names), edges(first, threshold)
    for (arrows, cells), (name, matrix) in zip(rows.T, graphs.items(), strict=True):
        found = edges(matrix, threshold)
        drawn = heaviest(matrix, found, DRAWN * len(names))
        _draw_graph(arrows, places, scaled(matrix), drawn, known)
        for label, (x, y) in zip(labels, places, strict=True):
            box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
            arrows.annotate(
                label,
                (x, y),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=INK,
                bbox=box,
                zorder=5,
            )
        shared = "" if matrix is first else f", {int((found & known).sum())} of them in {next(iter(graphs))}"
        part = f"; the {int(drawn.sum())} heaviest drawn" if drawn.sum() < found.sum() else ""
        arrows.set_title(f"{name}\n{int(found.sum())} edges{shared}{part}", fontsize=11, color=INK)
        arrows.set(
            xlim=(-0.5, places[:, 0].max() + 0.5), ylim=(places[:, 1].min() - 0.06, places[:, 1].max() + 0.09)
        )
        arrows.set_axis_off()
        _draw_matrix(cells, labels, scaled(matrix), known)
    reference = next(iter(graphs))
    figure.supxlabel(
        f"blue: edges that {reference} has too; orange: edges it lacks; width and shade: weight; framed: edges of {reference}",
        fontsize=9,
        color=INK,
    )
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, facecolor="white")


def heaviest(matrix: Matrix, found: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """At most `count` of the edges `found`, by weight."""
    if found.sum() <= count:
        return found
    kept: NDArray[np.bool_] = found & (matrix >= np.sort(matrix[found])[-count])
    return kept


def _draw_matrix(axis: Any, labels: Sequence[str], weights: Matrix, known: NDArray[np.bool_]) -> None:
    """Weights as shades, row = caller; the pairs of `known` are framed."""
    from matplotlib.patches import Rectangle

    axis.imshow(weights, cmap="Greys", vmin=0, vmax=1)
    for row, column in np.argwhere(known):
        axis.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=SHARED, linewidth=1.2)
        )
    size = 8 if len(labels) <= 20 else 5
    axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size, color=INK)
    axis.set_yticks(range(len(labels)), labels, fontsize=size, color=INK)
    axis.set_ylabel("caller", fontsize=8, color=INK)
    axis.set_xlabel("callee", fontsize=8, color=INK)
    axis.tick_params(length=0)


def _draw_graph(
    axis: Any, places: Matrix, weights: Matrix, kept: NDArray[np.bool_], known: NDArray[np.bool_]
) -> None:
    import networkx as nx

    graph: Any = nx.DiGraph()
    graph.add_nodes_from(range(len(places)))
    where = dict(enumerate(places))
    nx.draw_networkx_nodes(graph, where, ax=axis, node_size=55, node_color=INK)
    thin = min(1.0, (30 / max(int(kept.sum()), 1)) ** 0.5)
    for common, colour in ((False, OWN), (True, SHARED)):
        for level in (False, True):
            pairs = np.argwhere(
                kept & (known == common) & ((places[:, None, 0] == places[None, :, 0]) == level)
            )
            found = [(int(i), int(j)) for i, j in pairs]
            graph.add_edges_from(found)
            style = {
                "edge_color": colour,
                "alpha": 0.75,
                "arrowsize": 8,
                "node_size": 55,
                "connectionstyle": f"arc3,rad={0.3 if level else 0.06}",
            }
            widths = [thin * (0.5 + 2.2 * weights[edge]) for edge in found]
            if found:
                nx.draw_networkx_edges(graph, where, edgelist=found, ax=axis, width=widths, **style)


def positions(adjacency: NDArray[np.bool_], entries: Sequence[int]) -> Matrix:
    """Places `[N, 2]`: x = the column of `layers`, y spread within a column, services near those that call them."""
    layer = layers(adjacency, entries)
    places = np.zeros((len(adjacency), 2))
    for column in range(layer.max() + 1):
        members = np.flatnonzero(layer == column)
        callers = [np.flatnonzero(adjacency[:, member] & (layer < column)) for member in members]
        pull = [places[found, 1].mean() if len(found) else -9.0 for found in callers]
        order = members[np.argsort([-value for value in pull], kind="stable")]
        heights = (np.arange(len(order)) + 0.5) / max(len(order), 1)
        places[order] = np.column_stack([np.full(len(order), column), 1 - heights])
    places[:, 1] += 0.03 * (places[:, 0] % 2)
    return places


def layers(adjacency: NDArray[np.bool_], entries: Sequence[int]) -> NDArray[np.int64]:
    """The column of each service: calls away from a service that nobody calls, by the longest chain, so that calls point right.

    Services that call one another in a circle share a column; where more than half of all do (a dense learned graph), columns
    are the shortest chains from an entry. Services without calls or out of reach come last.
    """
    import networkx as nx

    graph: Any = nx.from_numpy_array(adjacency.astype(int), create_using=nx.DiGraph)
    layer = np.full(len(adjacency), -1)
    alone = ~(adjacency.any(axis=0) | adjacency.any(axis=1))
    circles = nx.condensation(graph)
    members = {node: sorted(inside) for node, inside in circles.nodes(data="members")}
    if max(map(len, members.values())) <= max(len(adjacency) / 2, 1):
        for depth, generation in enumerate(nx.topological_generations(circles)):
            layer[[service for node in generation for service in members[node]]] = depth
        layer[alone] = -1
    else:
        callers_only = [int(node) for node in np.flatnonzero(~adjacency.any(axis=0) & ~alone)]
        for root in entries or callers_only or [0]:
            for node, depth in nx.single_source_shortest_path_length(graph, root).items():
                layer[node] = depth if layer[node] < 0 else min(layer[node], depth)
    layer[layer < 0] = layer.max() + 1
    return layer


def short_names(names: Sequence[str]) -> list[str]:
    """Names without the words at the beginning and the end that all share (`ts-`, `-service`); one word always stays."""
    words = [name.split("-") for name in names]
    spare = min(len(word) for word in words) - 1 if len(words) > 1 else 0
    end = next((at for at in range(spare) if len({word[-1 - at] for word in words}) > 1), spare)
    start = next((at for at in range(spare - end) if len({word[at] for word in words}) > 1), spare - end)
    return ["-".join(word[start : len(word) - end]) for word in words]
