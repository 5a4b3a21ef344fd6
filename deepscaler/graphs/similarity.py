"""How alike two graphs over the same services are, and whether one changed where another did.

A graph is a matrix `[N, N]` of weights >= 0, row = caller; the diagonal never counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from deepscaler.errors import DataError
from deepscaler.statistics import rank_correlation

Matrix = NDArray[np.float64]
Graph = tuple[tuple[str, ...], NDArray[np.floating]]


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


def edges_above_share(matrix: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Edges `[N, N]`: off-diagonal weights above `threshold` times the largest (and above 0)."""
    return scaled(matrix) > threshold


def edge_overlap(
    one: NDArray[np.floating], other: NDArray[np.floating], threshold: float
) -> dict[str, float]:
    """`edges_above_share` of the first graph, and precision, recall and F1 of as many heaviest edges of the other against them.

    Where the other has fewer edges than that, all of them are taken; equal weights are taken in row order.
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


def moved(reference: tuple[Matrix, Matrix], other: tuple[Matrix, Matrix]) -> dict[str, float]:
    """Did `other` (before, after) change where `reference` did? Over the pairs of services that either reference graph connects.

    Each graph is taken relative to its sum, so that a heavier load alone is no change.

    Returns:
        `pairs`; `correlation` of the changes (Spearman); `large`: pairs whose reference changed by a tenth of its largest
        change or more; `right_way`: share of these in which the other changed in the same direction (NaN without any).
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
            only = [
                f"only in {label}: {', '.join(sorted(extra))}"
                for label, extra in _extras(first, names, name, other)
                if extra
            ]
            raise DataError(
                f"graphs {first} and {name} hold different services ({'; '.join(only)}); --common compares those that all have"
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


def _extras(
    first: str, names: Sequence[str], second: str, other: Sequence[str]
) -> list[tuple[str, set[str]]]:
    return [(first, set(names) - set(other)), (second, set(other) - set(names))]
