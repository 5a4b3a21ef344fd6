"""A picture of graphs over the same services side by side: arrows, and the weights as a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.graphs.similarity import Matrix, edges_above_share, scaled
from deepscaler.pictures.style import BLUE, INK, NORMAL, ORANGE, SMALL, new_figure, save

SHARED, OWN = BLUE, ORANGE
"""Colours of the edges that the first graph has as well, and of those that it lacks."""
DRAWN = 2
"""At most this many arrows per service are drawn, the heaviest first; the matrix below shows all weights."""
NODE_SIZE = 55
Mask = NDArray[np.bool_]


def draw_graphs(
    names: Sequence[str],
    graphs: Mapping[str, Matrix],
    entries: Sequence[str],
    threshold: float,
    path: str | Path,
) -> None:
    """Write a PNG of the graphs side by side, see `graphs_figure`."""
    save(graphs_figure(names, graphs, entries, threshold), path)


def graphs_figure(
    names: Sequence[str],
    graphs: Mapping[str, Matrix],
    entries: Sequence[str],
    threshold: float,
    shown: Sequence[str] | None = None,
) -> Any:
    """The graphs side by side: services and arrows above, the matrix of weights below.

    Services stand at the same positions in all graphs, in the columns that `layers` gives for the first one.
    Blue arrows are edges that the first graph has too, orange ones it lacks; wider arrows weigh more. In the
    matrices, the edges of the first graph are framed.

    Args:
        names: of the services.
        graphs: matrix `[N, N]` by name of the graph, row = caller.
        entries: the services at which requests enter the application.
        threshold: share of the largest weight above which a weight is an edge.
        shown: names of the graphs to draw; None: all.
    """
    reference, first = next(iter(graphs.items()))
    known = edges_above_share(first, threshold)
    places = positions(known, [names.index(entry) for entry in entries if entry in names])
    tallest = max(np.unique(places[:, 0], return_counts=True)[1])
    height, side = max(4.2, 0.34 * tallest + 1.2), 1.6 + max(0.17 * len(names), 2.6)
    drawn_graphs = {name: graphs[name] for name in shown or graphs}
    figure = new_figure(5.6 * len(drawn_graphs), height + side)
    rows = figure.subplots(2, len(drawn_graphs), squeeze=False, height_ratios=[height, side])
    labels = short_names(names)
    for (arrows, cells), (name, matrix) in zip(rows.T, drawn_graphs.items(), strict=True):
        found = edges_above_share(matrix, threshold)
        drawn = heaviest(matrix, found, DRAWN * len(names))
        _draw_arrows(arrows, places, scaled(matrix), drawn, known)
        _name_services(arrows, places, labels)
        shared = "" if matrix is first else f", {int((found & known).sum())} of them in {reference}"
        part = f"; the {int(drawn.sum())} heaviest are drawn" if drawn.sum() < found.sum() else ""
        title = f"{name}\n{int(found.sum())} edges{shared}{part}"
        arrows.set_title(title, fontsize=NORMAL + 2, color=INK)
        _draw_matrix(cells, labels, scaled(matrix), known)
    wrap = "\n" if len(drawn_graphs) == 1 else " "
    figure.supxlabel(
        f"blue: edges that {reference} has too; orange: edges that it lacks;{wrap}"
        f"width and shade: weight; framed: edges of {reference}",
        fontsize=NORMAL,
        color=INK,
    )
    return figure


def heaviest(matrix: Matrix, found: Mask, count: int) -> Mask:
    """At most `count` of the edges `found`, those with the largest weights (more where weights are equal)."""
    if found.sum() <= count:
        return found
    kept: Mask = found & (matrix >= np.sort(matrix[found])[-count])
    return kept


def _name_services(axis: Any, places: Matrix, labels: Sequence[str]) -> None:
    """Write the service names above their points, and leave room around them."""
    box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
    style = {"textcoords": "offset points", "ha": "center", "fontsize": SMALL, "color": INK, "zorder": 5}
    for label, (x, y) in zip(labels, places, strict=True):
        axis.annotate(label, (x, y), xytext=(0, 7), bbox=box, **style)
    bottom, top = places[:, 1].min() - 0.06, places[:, 1].max() + 0.09
    axis.set(xlim=(-0.5, places[:, 0].max() + 0.5), ylim=(bottom, top))
    axis.set_axis_off()


def _draw_matrix(axis: Any, labels: Sequence[str], weights: Matrix, known: Mask) -> None:
    """Weights as shades of grey, row = caller; the pairs of `known` are framed."""
    from matplotlib.patches import Rectangle

    axis.imshow(weights, cmap="Greys", vmin=0, vmax=1)
    frame: dict[str, Any] = {"fill": False, "edgecolor": SHARED, "linewidth": 1.2}
    for row, column in np.argwhere(known):
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **frame))
    size = SMALL if len(labels) <= 20 else 5
    axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size, color=INK)
    axis.set_yticks(range(len(labels)), labels, fontsize=size, color=INK)
    axis.set_ylabel("caller", fontsize=SMALL, color=INK)
    axis.set_xlabel("callee", fontsize=SMALL, color=INK)
    axis.tick_params(length=0)


def _draw_arrows(axis: Any, places: Matrix, weights: Matrix, kept: Mask, known: Mask) -> None:
    """One point per service and one arrow per edge of `kept`, blue where `known` has it too.

    Arrows within a column are bent more than others, so that they don't run through the services between.
    """
    import networkx as nx

    graph: Any = nx.DiGraph()
    graph.add_nodes_from(range(len(places)))
    where = dict(enumerate(places))
    nx.draw_networkx_nodes(graph, where, ax=axis, node_size=NODE_SIZE, node_color=INK)
    thin = min(1.0, (30 / max(int(kept.sum()), 1)) ** 0.5)
    same_column = places[:, None, 0] == places[None, :, 0]
    for common, colour in ((False, OWN), (True, SHARED)):
        for level in (False, True):
            pairs = np.argwhere(kept & (known == common) & (same_column == level))
            found = [(int(i), int(j)) for i, j in pairs]
            if not found:
                continue
            graph.add_edges_from(found)
            style = {
                "edge_color": colour,
                "alpha": 0.75,
                "arrowsize": 8,
                "node_size": NODE_SIZE,
                "connectionstyle": f"arc3,rad={0.3 if level else 0.06}",
            }
            widths = [thin * (0.5 + 2.2 * weights[edge]) for edge in found]
            nx.draw_networkx_edges(graph, where, edgelist=found, ax=axis, width=widths, **style)


def positions(adjacency: Mask, entries: Sequence[int]) -> Matrix:
    """Places `[N, 2]` of the services in the picture.

    x is the column that `layers` gives; y is spread within a column, with services near those that call them.
    """
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


def layers(adjacency: Mask, entries: Sequence[int]) -> NDArray[np.int64]:
    """The column of each service `[N]`, so that calls point to the right.

    A service that nobody calls stands in column 0, others as far right as the longest chain of calls to them.
    Services that call one another in a circle share a column. Where more than half of all services do so (a
    dense learned graph), columns are the shortest chains from an entry instead. Services without calls, or
    out of reach of the entries, come last.
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
    """Names without the words that all share at either end (`ts-`, `-service`); one word always stays."""
    words = [name.split("-") for name in names]
    spare = min(len(word) for word in words) - 1 if len(words) > 1 else 0
    end = next((at for at in range(spare) if len({word[-1 - at] for word in words}) > 1), spare)
    start = next((at for at in range(spare - end) if len({word[at] for word in words}) > 1), spare - end)
    return ["-".join(word[start : len(word) - end]) for word in words]
