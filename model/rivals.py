"""Rivals of a learned graph: other graphs that a predictor could see instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.graph_learners import PRIOR_EDGE, GraphLearner, edge_floor
from model.graph_metrics import edges_above, pairs


def rivals(
    learner: GraphLearner,
    affinity: Tensor,
    priors: Mapping[str, Tensor],
    *,
    entries: Sequence[int],
    count: int,
    seed: int,
) -> dict[str, Tensor]:
    """The learned affinity and its rivals by name.

    They are each prior, identity, full, entry_to_all, transposed, permuted, and random_1 to random_<count>.
    With gates, graphs made elsewhere carry the mean weight of the learned edges, and the full graph the mean
    weight of all pairs. With the antisymmetric learner they get self loops and the norm.

    Args:
        learner: says how a graph made elsewhere becomes an affinity.
        affinity: the learned one, `[N, N]`.
        priors: `[N, N]` by name.
        entries: columns of the entry services.
        count: number of random graphs.
        seed: of the random and the permuted graphs.
    """
    rng = np.random.default_rng(seed)
    matrix = affinity.detach().cpu().double().numpy()
    size, off = len(matrix), ~np.eye(len(matrix), dtype=bool)
    found = edges_above(matrix, edge_floor(learner, size))
    weight = float(matrix[found].mean()) if found.any() else PRIOR_EDGE
    average = float(pairs(matrix).mean()) if size > 1 else 0.0

    def as_it_is(graph: NDArray[np.float64]) -> Tensor:
        return torch.as_tensor(graph, dtype=affinity.dtype, device=affinity.device)

    def given(graph: NDArray[np.float64], largest: float) -> Tensor:
        return learner.given(as_it_is(graph), largest)

    from_entries = np.zeros((size, size))
    from_entries[list(entries)] = 1.0
    np.fill_diagonal(from_entries, 0.0)
    order = _relabelling(matrix, rng)
    out = {
        "learned": affinity,
        **{f"prior {name}": given(prior.cpu().double().numpy(), weight) for name, prior in priors.items()},
        "identity": given(np.zeros((size, size)), 0.0),
        "full": given(off.astype(np.float64), average),
        "entry_to_all": given(from_entries, weight),
        "transposed": affinity.T.contiguous(),
        "permuted": as_it_is(matrix[np.ix_(order, order)]),
    }
    for index in range(count):
        shuffled = matrix.copy()
        shuffled[off] = rng.permutation(matrix[off])
        out[f"random_{index + 1}"] = as_it_is(shuffled)
    return out


def _relabelling(matrix: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A permutation of the services that changes the graph, where one is found in a few tries."""
    for _ in range(20):
        order = rng.permutation(len(matrix))
        if not np.allclose(matrix[np.ix_(order, order)], matrix):
            break
    return order
