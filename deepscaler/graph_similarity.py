"""How alike two graphs over the same services are, and a picture of several side by side.

A graph is a matrix `[N, N]` of weights >= 0, row = caller; the diagonal never counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import replacing
from deepscaler.errors import DataError

Matrix = NDArray[np.float64]
Graph = tuple[tuple[str, ...], NDArray[np.floating]]
SHARED, OWN, INK = "#0072B2", "#D55E00", "#333333"


# ------------------------------------------------------------------------------------------------------------ measures
def without_diagonal(matrix: NDArray[np.floating]) -> Matrix:
    """A float64 copy with zeros on the diagonal."""
    copy = np.array(matrix, np.float64)
    np.fill_diagonal(copy, 0.0)
    return copy


def scaled(matrix: NDArray[np.floating]) -> Matrix:
    """Off-diagonal weights over the largest of them: calls per second, probabilities and 0/1 become comparable."""
    weights = without_diagonal(matrix)
    largest = weights.max(initial=0.0)
    return weights / largest if largest > 0 else weights


def weighted_jaccard(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Σ min / Σ max over *all* off-diagonal pairs, in [0, 1]; 1 only for equal graphs (two without edges are equal)."""
    a, b = without_diagonal(one), without_diagonal(other)
    union = np.maximum(a, b).sum()
    return float(np.minimum(a, b).sum() / union) if union > 0 else 1.0


def published_shared_edge_ratio(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """The published similarity: mean over nodes with a shared edge of Σ min / Σ max over their *shared* edges; 0 without any.

    Its flaw: an edge that only one graph has is ignored, so a graph of one edge can score 1 against any graph that has
    that edge with that weight. Kept to reproduce the number; read `weighted_jaccard` instead.

    Source: the published similarity.py. Differs: edges are directed (a node's are those it calls); there they were read
    as undirected, with one of the two weights dropped.
    """
    a, b = without_diagonal(one), without_diagonal(other)
    shared = (a > 0) & (b > 0)
    union = np.where(shared, np.maximum(a, b), 0.0).sum(axis=1)
    inside = np.where(shared, np.minimum(a, b), 0.0).sum(axis=1)
    nodes = union > 0
    return float((inside[nodes] / union[nodes]).mean()) if nodes.any() else 0.0


def edges(matrix: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Edges `[N, N]`: off-diagonal weights above `threshold` times the largest (and above 0)."""
    return scaled(matrix) > threshold


def edge_overlap(one: NDArray[np.floating], other: NDArray[np.floating], threshold: float) -> dict[str, float]:
    """`edges` of the first graph, and precision, recall and F1 of as many heaviest edges of the other against them.

    Where the other has fewer edges than that, all of them are taken; equal weights are taken in row order.
    """
    truth = edges(one, threshold)
    weights = without_diagonal(other)
    heaviest = np.argsort(-weights, axis=None, kind="stable")[: truth.sum()]
    taken = heaviest[weights.flat[heaviest] > 0]
    hits = int(truth.flat[taken].sum())
    precision = hits / len(taken) if len(taken) else 0.0
    recall = hits / int(truth.sum()) if truth.any() else 0.0
    return {
        "edges": int(truth.sum()),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
    }


def spectral_similarity(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """1 − half the mean distance of the sorted eigenvalues of the symmetrised graphs' normalised Laplacians, in [0, 1].

    It sees the shape (hubs, clusters), not the names: the same graph with services permuted scores 1.
    """
    return float(1 - np.abs(_spectrum(one) - _spectrum(other)).mean() / 2)


def _spectrum(matrix: NDArray[np.floating]) -> Matrix:
    weights = without_diagonal(matrix)
    weights = (weights + weights.T) / 2
    degree = weights.sum(axis=1)
    root = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1.0)), 0.0)
    laplacian = np.diag((degree > 0).astype(np.float64)) - root[:, None] * weights * root[None, :]
    return np.asarray(np.sort(np.linalg.eigvalsh(laplacian)), np.float64)


def similarity(one: NDArray[np.floating], other: NDArray[np.floating], threshold: float) -> dict[str, float]:
    """All measures of two graphs, each scaled to its largest weight first."""
    a, b = scaled(one), scaled(other)
    return {
        "weighted_jaccard": weighted_jaccard(a, b),
        **edge_overlap(a, b, threshold),
        "spectral": spectral_similarity(a, b),
        "published_shared_edge_ratio": published_shared_edge_ratio(a, b),
    }


def align(graphs: Mapping[str, Graph], common: bool = False) -> tuple[tuple[str, ...], dict[str, Matrix]]:
    """The graphs over the same services in the first one's order, matched by name; with `common` over those all have.

    Raises:
        DataError: the services differ (named), fewer than two remain, or a weight is negative.
    """
    first = next(iter(graphs))
    names = graphs[first][0]
    for name, (other, matrix) in graphs.items():
        if (np.asarray(matrix) < 0).any():
            raise DataError(f"graph {name}: negative weights; similarities are defined for weights >= 0")
        if set(other) != set(names) and not common:
            only = [f"only in {label}: {', '.join(sorted(extra))}" for label, extra in _extras(first, names, name, other) if extra]
            raise DataError(f"graphs {first} and {name} hold different services ({'; '.join(only)}); --common compares those that all have")
    kept = tuple(name for name in names if all(name in other for other, _ in graphs.values()))
    if len(kept) < 2:
        raise DataError(f"graphs {', '.join(graphs)} have {len(kept)} service(s) in common, at least 2 are needed")
    aligned = {}
    for name, (other, matrix) in graphs.items():
        rows = [other.index(service) for service in kept]
        aligned[name] = without_diagonal(np.asarray(matrix)[np.ix_(rows, rows)])
    return kept, aligned


def _extras(first: str, names: Sequence[str], second: str, other: Sequence[str]) -> list[tuple[str, set[str]]]:
    return [(first, set(names) - set(other)), (second, set(other) - set(names))]


# ------------------------------------------------------------------------------------------------------------- picture
def draw_graphs(names: Sequence[str], graphs: Mapping[str, Matrix], entries: Sequence[str], threshold: float, path: str | Path) -> None:
    """PNG of the graphs side by side at the same positions: columns by `layers` of the first graph;
    width by weight; edges the first graph has too are blue, others orange."""
    from matplotlib.figure import Figure

    first = next(iter(graphs.values()))
    places = positions(edges(first, threshold), [names.index(entry) for entry in entries if entry in names])
    tallest = max(np.unique(places[:, 0], return_counts=True)[1])
    figure = Figure(figsize=(5.6 * len(graphs), max(4.2, 0.34 * tallest + 1.2)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(graphs)))
    labels = short_names(names)
    for axis, (name, matrix) in zip(axes, graphs.items(), strict=True):
        kept, known = edges(matrix, threshold), edges(first, threshold)
        _draw_graph(axis, places, scaled(matrix), kept, known)
        for label, (x, y) in zip(labels, places, strict=True):
            box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
            axis.annotate(label, (x, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8, color=INK, bbox=box, zorder=5)
        shared = "" if matrix is first else f", {int((kept & known).sum())} of them in {next(iter(graphs))}"
        axis.set_title(f"{name}\n{int(kept.sum())} edges{shared}", fontsize=11, color=INK)
        axis.set(xlim=(-0.5, places[:, 0].max() + 0.5), ylim=(places[:, 1].min() - 0.06, places[:, 1].max() + 0.09))
        axis.set_axis_off()
    figure.supxlabel(f"blue: edges that {next(iter(graphs))} has too; orange: edges it lacks; width: weight", fontsize=9, color=INK)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, facecolor="white")


def _draw_graph(axis: Any, places: Matrix, weights: Matrix, kept: NDArray[np.bool_], known: NDArray[np.bool_]) -> None:
    import networkx as nx

    graph: Any = nx.DiGraph()
    graph.add_nodes_from(range(len(places)))
    where = dict(enumerate(places))
    nx.draw_networkx_nodes(graph, where, ax=axis, node_size=55, node_color=INK)
    thin = min(1.0, (30 / max(int(kept.sum()), 1)) ** 0.5)
    for common, colour in ((False, OWN), (True, SHARED)):
        for level in (False, True):
            pairs = np.argwhere(kept & (known == common) & ((places[:, None, 0] == places[None, :, 0]) == level))
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
