"""Graphs against one another: identities, the published measure's flaw, and similarity.py."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.paths import ROOT
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import similarity
from deepscaler.errors import DataError
from deepscaler.graphs.priors import write_graph
from deepscaler.graphs.similarity import (
    align,
    edge_overlap,
    moved,
    published_shared_edge_ratio,
    scaled,
    spectral_similarity,
    weighted_jaccard,
)
from deepscaler.pictures.graphs import heaviest, layers, short_names

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
    assert similarity.similarity(CHAIN * 1e4, CHAIN, 0.1)["weighted_jaccard"] == 1


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


# -------------------------------------------------------------------------------------------------------------- script
def run_script(output, *more):
    return similarity.main(["--config", str(ROOT / "config/boutique.yaml"), "--output", str(output), *more])


@pytest.fixture
def csvs(tmp_path):
    paths = [tmp_path / "call.csv", tmp_path / "AdapGLA-od.affinity.csv"]
    write_graph(paths[0], ("frontend", "cart", "db"), CHAIN)
    write_graph(paths[1], ("frontend", "cart", "db"), CHAIN * 0.8)
    return [str(path) for path in paths]


def test_graphs_given_by_hand(csvs, tmp_path, capsys):
    assert run_script(tmp_path, "--graphs", *csvs) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].split() == ["call", "AdapGLA-od", "2", *["1.000"] * 6]
    assert "ignores every edge that only one graph has" in out
    assert (tmp_path / "similarity.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "similarity.json").read_text())["graphs"]["call"]["edges"] == 2


def test_names_and_json(csvs, tmp_path, capsys):
    assert run_script(tmp_path, "--graphs", *csvs, "--names", "truth", "learned", "--json") == 0
    pair = json.loads(capsys.readouterr().out)["pairs"][0]
    assert (pair["first"], pair["second"], pair["published_shared_edge_ratio"]) == ("truth", "learned", 1.0)
    assert run_script(tmp_path, "--graphs", *csvs, "--names", "one") == 1
    assert run_script(tmp_path, "--graphs", csvs[0], csvs[0]) == 1
    assert run_script(tmp_path, "--graphs", csvs[0]) == 1
    assert run_script(tmp_path, "--graphs", csvs[0], str(tmp_path / "none.csv")) == 1
    assert "none.csv: no such graph" in capsys.readouterr().err


def places(tmp_path):
    return [
        "--set",
        f"process.output_dir={tmp_path / 'data'}",
        "--set",
        f"scale.bundle={tmp_path / 'states' / 'AdapGLA.pt'}",
    ]


def test_by_default_the_calls_stand_against_what_was_learned_from_od_and_cc(tmp_path, capsys):
    for path in (
        "data/graphs/call",
        "data/graphs/od",
        "states/AdapGLA-od.affinity",
        "states/AdapGLA-cc.affinity",
        "states/AdapGLA.affinity",
    ):
        write_graph(tmp_path / f"{path}.csv", ("frontend", "cart", "db"), CHAIN)
    assert run_script(tmp_path, *places(tmp_path), "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["graphs"]) == ["call", "AdapGLA-od", "AdapGLA-cc"]


def test_without_those_bundles_it_compares_what_there_is_and_names_the_command(tmp_path, capsys, caplog):
    for path in ("data/graphs/call", "data/graphs/od", "states/AdapGLA.affinity"):
        write_graph(tmp_path / f"{path}.csv", ("frontend", "cart", "db"), CHAIN)
    with caplog.at_level("WARNING"):
        assert run_script(tmp_path, *places(tmp_path), "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["graphs"]) == ["call", "od", "AdapGLA"]
    assert "--set 'process.priors=[cc]'" in caplog.text
    assert "AdapGLA-cc.pt" in caplog.text


def test_without_any_graph_it_names_the_command(tmp_path, capsys):
    assert run_script(tmp_path, *places(tmp_path)) == 1
    err = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("similarity: two graphs are needed") for line in err) == 1
    assert "python data_process.py" in err[-1]


def test_forty_services_make_a_picture(tmp_path):
    rng = np.random.default_rng(1)
    names = tuple(f"ts-{index}-service" for index in range(41))
    dense = rng.random((41, 41))
    for name, matrix in (
        ("calls", np.triu(dense > 0.9, 1).astype(float)),
        ("learned", dense * (dense > 0.9)),
    ):
        write_graph(tmp_path / f"{name}.csv", names, matrix)
    assert run_script(tmp_path, "--graphs", str(tmp_path / "calls.csv"), str(tmp_path / "learned.csv")) == 0
    assert (tmp_path / "similarity.png").stat().st_size > 20_000


# ------------------------------------------------------------------------------------------------------------- changes
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


def test_changes_are_printed_for_each_later_pair(tmp_path, capsys):
    after = CHAIN.copy()
    after[0, 1] = 5
    for name, graph in (("calls-1", CHAIN), ("calls-2", after), ("found-1", CHAIN), ("found-2", after)):
        write_graph(tmp_path / f"{name}.csv", ("frontend", "cart", "db"), graph)
    paths = [str(tmp_path / f"{name}.csv") for name in ("calls-1", "calls-2", "found-1", "found-2")]
    assert run_script(tmp_path, "--changes", "--graphs", *paths) == 0
    assert (
        "found-1 -> found-2: rank correlation with the changes of calls-1 -> calls-2 +1.00"
        in capsys.readouterr().out
    )
    assert run_script(tmp_path, "--changes", "--graphs", *paths[:3]) == 1
    assert "needs two or more pairs" in capsys.readouterr().err


def test_calls_stand_beside_what_telemetry_says_and_what_was_learned(tmp_path, capsys):
    for path in ("data/graphs/calls", "data/graphs/structural", "states/AdapGLA.affinity"):
        write_graph(tmp_path / f"{path}.csv", ("frontend", "cart", "db"), CHAIN)
    assert run_script(tmp_path, *places(tmp_path), "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["graphs"]) == ["calls", "structural", "AdapGLA"]


def test_the_heaviest_edges_are_drawn():
    weights = np.array([[0, 3.0, 1], [2, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(heaviest(weights, weights > 0, 2), weights > 1)
    np.testing.assert_array_equal(heaviest(weights, weights > 0, 9), weights > 0)
