"""How well calls were recovered."""

from __future__ import annotations

import numpy as np
import pytest

from deepscaler.graphs.recovery import call_count, f1, recovered, threshold

CALLS = np.array([[0, 3, 0], [0, 0, 2], [0, 0, 0]], np.float64)


def test_the_threshold_has_the_highest_mean_f1() -> None:
    first, second = 0.5 * (CALLS > 0) + 0.1 * (CALLS.T > 0), 0.4 * (CALLS > 0)
    found = threshold([(first, CALLS), (second, CALLS)])
    assert found is not None and 0.1 < found[0] <= 0.4 and found[1] == 1.0
    half = threshold([(first, CALLS), None])
    assert half is not None and half[1] == 0.5
    assert threshold([None]) is None and threshold([(0 * CALLS, CALLS)]) is None


def test_a_reversed_edge_is_one_mistake_and_a_missing_one_another() -> None:
    assert recovered(CALLS, CALLS, 1.0) == {"f1": 1.0, "shd": 0.0, "auprc": 1.0, "auroc": 1.0}
    assert recovered(CALLS.T, CALLS, 1.0)["shd"] == 2.0 and recovered(CALLS.T, CALLS, 1.0)["f1"] == 0.0
    one = recovered(CALLS, CALLS, 2.5)
    assert one["shd"] == 1.0 and one["f1"] == pytest.approx(2 / 3)
    both = recovered(CALLS + CALLS.T, CALLS, 1.0)
    assert both["shd"] == 2.0 and both["f1"] == pytest.approx(2 / 3)


def test_the_diagonal_never_counts() -> None:
    assert recovered(CALLS + 9 * np.eye(3), CALLS + np.eye(3), 1.0)["shd"] == 0.0
    assert call_count(CALLS + np.eye(3)) == 2
    assert f1(np.zeros(4, bool), np.zeros(4, bool)) == 0.0
