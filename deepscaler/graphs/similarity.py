"""How alike two graphs over the same services are, and whether one changed where another did.

A graph is a matrix `[N, N]` of weights >= 0, row = caller; the diagonal never counts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from deepscaler.errors import DataError
from deepscaler.statistics import rank_correlation

Matrix = NDArray[np.float64]
Graph = tuple[tuple[str, ...], NDArray[np.floating]]
"""The services' names and the matrix."""


def without_diagonal(matrix: NDArray[np.floating]) -> Matrix:
    """A float64 copy with zeros on the diagonal."""
    copy = np.array(matrix, np.float64)
    np.fill_diagonal(copy, 0.0)
    return copy


def scaled(matrix: NDArray[np.floating]) -> Matrix:
    """Off-diagonal weights over the largest of them, `[N, N]`.

    So calls per second, probabilities and zeros and ones become comparable. A graph without weights stays
    as it is.
    """
    weights = without_diagonal(matrix)
    largest = weights.max(initial=0.0)
    return weights / largest if largest > 0 else weights


def weighted_jaccard(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Σ min / Σ max over *all* off-diagonal pairs, in [0, 1].

    It is 1 for equal graphs only; two graphs without edges are equal.
    """
    a, b = without_diagonal(one), without_diagonal(other)
    union = np.maximum(a, b).sum()
    return float(np.minimum(a, b).sum() / union) if union > 0 else 1.0


def published_shared_edge_ratio(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """The published similarity: Σ min / Σ max over each node's *shared* edges, mean over nodes that have any.

    It is 0 without any shared edge. Its flaw: an edge that only one graph has is ignored, so a graph of one
    edge can score 1 against any graph that has that edge with that weight. It is kept to reproduce the
    published number; read `weighted_jaccard` instead.

    Source: the published similarity.py. Differs: edges are directed here (those of a node are the calls it
        makes);
    there they were read as undirected, with one of the two weights dropped.
    """
    a, b = without_diagonal(one), without_diagonal(other)
    shared = (a > 0) & (b > 0)
    union = np.where(shared, np.maximum(a, b), 0.0).sum(axis=1)
    inside = np.where(shared, np.minimum(a, b), 0.0).sum(axis=1)
    nodes = union > 0
    return float((inside[nodes] / union[nodes]).mean()) if nodes.any() else 0.0


def edges_above_share(matrix: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Which pairs are edges, `[N, N]`: off-diagonal weights above `threshold` times the largest of them."""
    return scaled(matrix) > threshold


def edge_overlap(
    one: NDArray[np.floating], other: NDArray[np.floating], threshold: float
) -> dict[str, float]:
    """How many edges of one graph are among the heaviest edges of the other.

    As many edges of the other graph are taken as the first has, the heaviest first (or all, where it has
    fewer); equal weights are taken in row order.

    Args:
        one: `[N, N]`; its edges are those of `edges_above_share`.
        other: `[N, N]`.
        threshold: share of the largest weight above which a weight of `one` is an edge.

    Returns:
        `edges` (of the first graph), and `precision`, `recall` and `f1` of the taken edges against them.
    """
    truth = edges_above_share(one, threshold)
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
    """Similarity of two graphs' shapes, in [0, 1].

    It is 1 − half the mean distance of the sorted eigenvalues of the normalised Laplacians of the
    symmetrised graphs. It sees hubs and clusters, not names: the same graph with services permuted scores
    1.
    """
    return float(1 - np.abs(_spectrum(one) - _spectrum(other)).mean() / 2)


def _spectrum(matrix: NDArray[np.floating]) -> Matrix:
    """Sorted eigenvalues `[N]` of the normalised Laplacian of the symmetrised graph."""
    weights = without_diagonal(matrix)
    weights = (weights + weights.T) / 2
    degree = weights.sum(axis=1)
    root = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1.0)), 0.0)
    laplacian = np.diag((degree > 0).astype(np.float64)) - root[:, None] * weights * root[None, :]
    return np.asarray(np.sort(np.linalg.eigvalsh(laplacian)), np.float64)


def similarity(one: NDArray[np.floating], other: NDArray[np.floating], threshold: float) -> dict[str, float]:
    """All measures of two graphs by name, after each graph is scaled to its largest weight."""
    a, b = scaled(one), scaled(other)
    return {
        "weighted_jaccard": weighted_jaccard(a, b),
        **edge_overlap(a, b, threshold),
        "spectral": spectral_similarity(a, b),
        "published_shared_edge_ratio": published_shared_edge_ratio(a, b),
    }


def moved(reference: tuple[Matrix, Matrix], other: tuple[Matrix, Matrix]) -> dict[str, float]:
    """Whether a graph changed where the reference did.

    Only the pairs of services that the reference connects before or after count. Each graph is taken
    relative to its sum, so that a heavier load alone is no change.

    Args:
        reference: the graph before and after, `[N, N]` each.
        other: another graph at the same times.

    Returns:
        `pairs`: their number. `correlation` of the changes (Spearman; NaN with fewer than two pairs).
        `large`: the number of pairs whose reference changed by a tenth of its largest change or more.
        `right_way`: the share of these in which the other changed in the same direction (NaN without any).
    """
    before, after = (
        without_diagonal(graph) / max(without_diagonal(graph).sum(), 1e-12) for graph in reference
    )
    theirs = [without_diagonal(graph) / max(without_diagonal(graph).sum(), 1e-12) for graph in other]
    connected = (before > 0) | (after > 0)
    known, made = (after - before)[connected], (theirs[1] - theirs[0])[connected]
    large = np.abs(known) >= 0.1 * np.abs(known).max(initial=0.0)
    right = np.sign(made[large]) == np.sign(known[large])
    return {
        "pairs": float(len(known)),
        "correlation": rank_correlation(known, made) if len(known) > 1 else float("nan"),
        "large": float(large.sum()),
        "right_way": float(right.mean()) if large.any() else float("nan"),
    }


def align(graphs: Mapping[str, Graph], common: bool = False) -> tuple[tuple[str, ...], dict[str, Matrix]]:
    """The graphs over the same services, matched by name, in the order of the first graph.

    Args:
        graphs: by name.
        common: keep the services that all graphs have, instead of refusing graphs over different services.

    Returns:
        The N services' names, and the matrices `[N, N]` by name, with zeros on the diagonal.

    Raises:
        DataError: services differ, fewer than two remain, or a weight is negative.
    """
    first = next(iter(graphs))
    names = graphs[first][0]
    for name, (other, matrix) in graphs.items():
        if (np.asarray(matrix) < 0).any():
            raise DataError(f"graph {name}: negative weights; similarities are defined for weights >= 0")
        if set(other) != set(names) and not common:
            extras = {first: set(names) - set(other), name: set(other) - set(names)}
            only = [
                f"only in {label}: {', '.join(sorted(extra))}" for label, extra in extras.items() if extra
            ]
            raise DataError(
                f"graphs {first} and {name} hold different services ({'; '.join(only)}); "
                "--common compares those that all have"
            )
    kept = tuple(name for name in names if all(name in other for other, _ in graphs.values()))
    if len(kept) < 2:
        raise DataError(
            f"graphs {', '.join(graphs)} have {len(kept)} service(s) in common, at least 2 are needed"
        )
    aligned = {}
    for name, (other, matrix) in graphs.items():
        rows = [other.index(service) for service in kept]
        aligned[name] = without_diagonal(np.asarray(matrix)[np.ix_(rows, rows)])
    return kept, aligned
