"""How well an affinity ranks the edges of a known graph. Numpy only; the diagonal never counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.floating]
EDGE_SHARE = 0.1
"""An entry is read as an edge above this share of the largest off-diagonal entry."""


def pairs(matrix: Matrix) -> NDArray[np.float64]:
    """Off-diagonal entries `[N (N-1)]` in row order."""
    return np.asarray(matrix, np.float64)[~np.eye(len(matrix), dtype=bool)]


def edges_above(matrix: Matrix, floor: float = 0.0) -> NDArray[np.bool_]:
    """Edges `[N, N]`: off-diagonal entries above a tenth of the largest of them, and above `floor`."""
    weights = np.array(matrix, np.float64)
    np.fill_diagonal(weights, 0.0)
    found: NDArray[np.bool_] = weights > max(EDGE_SHARE * weights.max(initial=0.0), floor)
    return found


def auroc(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Probability that an edge scores above a pair without one; a tie counts half; NaN with only one kind."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    upper = np.cumsum(counts)
    ranks = (upper - (counts - 1) / 2)[inverse]
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def auprc(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Average precision; NaN without edges.

    It is Σ precision · gain in recall over the distinct scores; tied scores are taken together.
    """
    if not truth.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(truth[order])[last]
    taken = np.arange(1, len(scores) + 1)[last]
    gains = np.diff(hits, prepend=0)
    return float((hits / taken * gains).sum() / truth.sum())


def precision_at(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Share of edges among the highest scores, as many as there are edges.

    Ties at the cut count by their average; NaN without edges.
    """
    count = int(truth.sum())
    if not count:
        return float("nan")
    cut = np.sort(scores)[-count]
    above, tied = scores > cut, scores == cut
    return float((truth[above].sum() + (count - above.sum()) * truth[tied].mean()) / count)


def ranking(affinity: Matrix, truth: Matrix) -> dict[str, float]:
    """How well `affinity` ranks the entries of `truth` above 0: AUROC, AUPRC, precision.

    Precision is taken at the true number of edges.
    """
    scores, known = pairs(affinity), pairs(truth) > 0
    return {
        "edges": float(known.sum()),
        "auroc": auroc(scores, known),
        "auprc": auprc(scores, known),
        "precision": precision_at(scores, known),
    }


def reachable(matrix: Matrix) -> NDArray[np.bool_]:
    """`[N, N]`: is there a path of entries above 0 from row to column? The diagonal is False."""
    size = len(matrix)
    reached = (np.asarray(matrix) > 0) | np.eye(size, dtype=bool)
    for _ in range(max(size - 1, 1).bit_length()):
        reached = (reached.astype(np.float32) @ reached.astype(np.float32)) > 0
    result: NDArray[np.bool_] = reached & ~np.eye(size, dtype=bool)
    return result


def edge_changes(affinity: Matrix, prior: Matrix, floor: float) -> dict[str, int]:
    """Edges kept, added and dropped against `prior`."""
    found, before = edges_above(affinity, floor), edges_above(prior)
    return {
        "kept": int((found & before).sum()),
        "added": int((found & ~before).sum()),
        "dropped": int((before & ~found).sum()),
    }
