"""How well calls were recovered by strengths between services: threshold and measures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.graph_metrics import auprc, auroc, pairs

Array = NDArray[np.float64]
TRIED = 400
"""Thresholds that are tried: quantiles of the strengths."""


def f1(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Directed F1: twice the hits over all found and all true edges."""
    return float(2 * (found & truth).sum() / max(found.sum() + truth.sum(), 1))


def call_count(calls: Array) -> int:
    """Number of pairs that call, of rates `[N, N]`."""
    return int((pairs(calls) > 0).sum())


def threshold(given: Sequence[tuple[Array, Array] | None]) -> tuple[float, float] | None:
    """The strength from which on a pair is an edge, by the highest mean F1, and that F1.

    Args:
        given: for each application strengths and calls, both `[N, N]`; None, where a method had no answer,
            counts as an F1 of 0. The result is None if there are no strengths at all.
    """
    answers = [(pairs(strengths), pairs(calls) > 0) for strengths, calls in filter(None, given)]
    above = [strengths[strengths > 0] for strengths, _ in answers]
    if not sum(map(len, above)):
        return None
    tried = np.unique(np.quantile(np.concatenate(above), np.linspace(0, 1, TRIED), method="nearest"))
    means = [sum(f1(strengths >= at, truth) for strengths, truth in answers) for at in tried]
    best = int(np.argmax(means))
    return float(tried[best]), float(means[best]) / len(given)


def recovered(strengths: Array, calls: Array, at: float) -> dict[str, float]:
    """F1 and SHD of the edges of strength `at` and more; AUPRC and AUROC of the strengths.

    SHD is the number of pairs of services that aren't as they are called; a reversed edge is one.
    """
    truth = pairs(calls) > 0
    wrong = (strengths >= at) != (calls > 0)
    np.fill_diagonal(wrong, False)
    return {
        "f1": f1(pairs(strengths) >= at, truth),
        "shd": float(np.triu(wrong | wrong.T).sum()),
        "auprc": auprc(pairs(strengths), truth),
        "auroc": auroc(pairs(strengths), truth),
    }
