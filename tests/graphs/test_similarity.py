"""Graphs against one another: identities, and the published measure's flaw."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepscaler.errors import DataError
from deepscaler.graphs.similarity import (
    align,
    edge_overlap,
    moved,
    published_shared_edge_ratio,
    scaled,
    similarity,
    spectral_similarity,
    weighted_jaccard,
)

CHAIN = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]], float)
matrices = hnp.arrays(np.float64, (4, 4), elements=st.floats(0, 5).map(lambda value: round(value, 2)))


@given(matrices, matrices)
def test_weighted_jaccard_is_symmetric_within_0_and_1_and_1_for_itself(one, other):
    assert weighted_jaccard(one, one) == pytest.approx(1)
    assert weighted_jaccard(one, other) == weighted_jaccard(other, one)
    assert 0 <= weighted_jaccard(one, other) <= 1


@given(matrices, matrices, st.permutations(range(4)))
def test_spectral_similarity_is_within_0_and_1_and_blind_to_names(one, other, order):
    assert spectral_similarity(one, one) == pytest.approx(1)
    assert 0 <= spectral_similarity(one, other) <= 1
    assert spectral_similarity(one, one[np.ix_(order, order)]) == pytest.approx(1, abs=1e-6)


def test_weighted_jaccard_by_hand_and_without_the_diagonal():
    one = np.array([[9.0, 2, 0], [0, 9, 1], [0, 0, 9]])
    other = np.array([[0.0, 1, 1], [0, 0, 3], [0, 0, 0]])
    assert weighted_jaccard(one, other) == pytest.approx((1 + 1) / (2 + 1 + 3))
    assert weighted_jaccard(np.zeros((3, 3)), np.eye(3)) == 1


def test_spectral_similarity_by_hand():
    # two nodes: eigenvalues 0, 2 with an edge and 0, 0 without
    assert spectral_similarity(np.array([[0, 1.0], [0, 0]]), np.zeros((2, 2))) == pytest.approx(0.5)


def test_the_published_measure_ignores_edges_that_only_one_graph_has():
    full = np.ones((5, 5))
    single = np.zeros((5, 5))
    single[0, 1] = 1.0
    assert published_shared_edge_ratio(full, single) == 1.0  # 19 of 20 edges are missing
    assert weighted_jaccard(full, single) == pytest.approx(1 / 20)
    assert published_shared_edge_ratio(single, single.T) == 0.0
    assert published_shared_edge_ratio(
        np.array([[0, 2.0, 1], [0, 0, 1], [0, 0, 0]]), np.array([[0, 1.0, 1], [0, 0, 1], [0, 0, 0]])
    ) == pytest.approx((2 / 3 + 1) / 2)


def test_edge_overlap_takes_as_many_edges_as_the_first_graph_has():
    learned = np.array([[0, 0.9, 0.8], [0.1, 0, 0.2], [0, 0.3, 0]])
    assert edge_overlap(CHAIN, learned, 0.1) == pytest.approx(
        {"edges": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5}
    )
    assert edge_overlap(CHAIN, CHAIN[:, [0, 1, 2]] * [[1], [0], [1]], 0.1) == pytest.approx(
        {"edges": 2, "precision": 1.0, "recall": 0.5, "f1": 2 / 3}
    )
    assert edge_overlap(CHAIN, np.zeros((3, 3)), 0.1)["f1"] == 0
    assert (
        edge_overlap(np.array([[0, 100.0], [1, 0]]), CHAIN[:2, :2], 0.1)["edges"] == 1
    )  # 1 is under a tenth of 100


def test_units_do_not_count():
    assert np.array_equal(scaled(CHAIN * 1e4), CHAIN)
    assert similarity(CHAIN * 1e4, CHAIN, 0.1)["weighted_jaccard"] == 1


def test_graphs_are_matched_by_name():
    names, graphs = align({"a": (("x", "y", "z"), CHAIN), "b": (("z", "y", "x"), CHAIN[::-1, ::-1])})
    assert names == ("x", "y", "z")
    assert np.array_equal(graphs["a"], graphs["b"])


def test_different_services_are_refused_by_name_or_cut_to_the_common_ones():
    graphs = {"a": (("x", "y", "z"), CHAIN), "b": (("x", "y", "w"), CHAIN)}
    with pytest.raises(DataError, match=r"only in a: z; only in b: w.*--common"):
        align(graphs)
    assert align(graphs, common=True)[0] == ("x", "y")
    with pytest.raises(DataError, match="0 service"):
        align({"a": (("x", "y"), CHAIN[:2, :2]), "b": (("v", "w"), CHAIN[:2, :2])}, common=True)
    with pytest.raises(DataError, match="graph b: negative"):
        align({"a": (("x", "y", "z"), CHAIN), "b": (("x", "y", "z"), -CHAIN)})


def test_a_graph_follows_another_where_its_weights_move_the_same_way():
    before, after = np.zeros((3, 3)), np.zeros((3, 3))
    before[0, 1], before[0, 2], after[0, 1], after[0, 2] = 3, 1, 1, 3
    same = moved((before, after), (10 * before, 10 * after))
    assert same == {"pairs": 2, "correlation": pytest.approx(1), "large": 2, "right_way": 1}
    assert moved((before, after), (after, before))["right_way"] == 0
    assert moved((before, after), (before, before))["right_way"] == 0
    assert (
        moved((before, 5 * before), (before, 7 * after))["correlation"] == 0
    )  # a heavier load alone is no change
