"""The picture of graphs side by side."""

import numpy as np

from deepscaler.pictures.graphs import heaviest, layers, short_names


def test_calls_point_right_and_a_dense_graph_falls_back_to_distance():
    diamond = np.zeros((5, 5), bool)
    diamond[0, [1, 2]] = diamond[1, 2] = True  # 0 -> 1 -> 2, 0 -> 2; 3 and 4 alone
    assert layers(diamond, []).tolist() == [0, 1, 2, 3, 3]
    ring = np.roll(np.eye(4, dtype=bool), 1, axis=1)
    assert layers(ring, [2]).tolist() == [2, 3, 0, 1]
    assert layers(np.zeros((3, 3), bool), [1]).tolist() == [0, 0, 0]


def test_names_lose_what_all_share():
    assert short_names(["ts-order-service", "ts-order-other-service"]) == ["order", "order-other"]
    assert short_names(["frontend", "cart-service"]) == ["frontend", "cart-service"]
    assert short_names(["a-service"]) == ["a-service"]


def test_the_heaviest_edges_are_drawn():
    weights = np.array([[0, 3.0, 1], [2, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(heaviest(weights, weights > 0, 2), weights > 1)
    np.testing.assert_array_equal(heaviest(weights, weights > 0, 9), weights > 0)
