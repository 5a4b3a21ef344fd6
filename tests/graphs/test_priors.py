"""Graphs: CSV, matching, priors."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from deepscaler.calls import CallGraph
from deepscaler.errors import DataError, SettingsError
from deepscaler.graphs.priors import (
    EVIDENCE,
    build_prior,
    call_prior,
    cc_prior,
    match_graph,
    od_prior,
    prior_keys,
    read_graph,
    write_graph,
)
from model.graph_metrics import reachable

NAMES = ("carts", "carts-db", "ts-order_v1")


def test_a_graph_reads_back_equal(tmp_path):
    matrix = np.random.default_rng(1).random((3, 3)).astype(np.float32)
    write_graph(tmp_path / "graphs" / "x.csv", NAMES, matrix)
    names, read = read_graph(tmp_path / "graphs" / "x.csv")
    assert names == NAMES
    np.testing.assert_array_equal(read, matrix)
    assert (tmp_path / "graphs" / "x.csv").read_text().startswith("caller,carts,carts-db,ts-order_v1\ncarts,")


def test_rows_in_another_order_are_matched_by_name(tmp_path):
    (tmp_path / "g.csv").write_text("caller,a,b\nb,3,4\na,1,2\n")
    names, matrix = read_graph(tmp_path / "g.csv")
    assert names == ("a", "b")
    np.testing.assert_array_equal(matrix, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("caller,a,b\na,1,2\nc,3,4\n", "differ in b, c"),
        ("caller,a,b\na,1,2\n", "differ in b"),
        ("caller,a,a\na,1,2\na,1,2\n", "'a' more than once"),
        ("caller,a,b\na,1,x\nb,3,4\n", "line 2, column 'b': 'x' is not a number"),
        ("caller,a,b\na,1,inf\nb,3,4\n", "'inf' is not a number"),
        ("caller,a,b\na,1,2,3,4\nb,3,4\n", "not a readable CSV"),
        ("", "not a readable CSV"),
    ],
)
def test_a_broken_graph_is_one_line_that_names_file_and_place(tmp_path, text, says):
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(DataError, match=says) as error:
        read_graph(tmp_path / "g.csv")
    assert str(tmp_path / "g.csv") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_graph_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(DataError, match=r"python data_process\.py"):
        read_graph(tmp_path / "g.csv")


def test_a_matrix_of_another_size_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"\(3, 3\)"):
        write_graph(tmp_path / "g.csv", NAMES, np.zeros((2, 2)))


def test_matching_reorders_drops_strangers_and_refuses_absentees():
    matrix = np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(match_graph(("a", "b", "c"), matrix, ("c", "a")), [[8, 6], [2, 0]])
    with pytest.raises(DataError, match="service d is missing"):
        match_graph(("a", "b", "c"), matrix, ("a", "d"))


def test_reachability_follows_paths_and_cycles_but_leaves_the_diagonal_out():
    chain = np.zeros((4, 4))
    chain[0, 1] = chain[1, 2] = chain[2, 1] = 0.3
    expected = np.zeros((4, 4), bool)
    expected[0, 1] = expected[0, 2] = expected[1, 2] = expected[2, 1] = True
    np.testing.assert_array_equal(reachable(chain), expected)


@settings(deadline=None)
@given(npst.arrays(bool, st.integers(1, 7).map(lambda n: (n, n))))
def test_reachability_is_transitive_and_closed(edges):
    closure = reachable(edges.astype(float))
    assert not closure.diagonal().any()
    assert (closure | ~edges | np.eye(len(edges), dtype=bool)).all()
    np.testing.assert_array_equal(reachable(closure.astype(float)), closure)


def test_call_is_binary_and_od_is_relative_to_the_busiest_pair_with_weak_pairs_cut():
    rates = np.array([[9.0, 50, 1], [0, 0, 20], [0, 0, 0]])
    np.testing.assert_array_equal(call_prior(rates), [[0, 1, 1], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_allclose(od_prior(rates, 0.3), [[0, 1, 0], [0, 0, 0.4], [0, 0, 0]])
    assert not od_prior(np.zeros((2, 2)), 0.3).any()


def test_correlation_is_absolute_cut_and_finite_for_constant_and_missing_series():
    base = np.array([1.0, 2, 3, 4, 5, 6])
    noise = np.array([1.0, -1, 1, -1, 1, -1])
    gaps = np.where(base == 3, np.nan, -base)
    prior = cc_prior(np.stack([base, gaps, noise, np.full(6, 7.0), np.full(6, np.nan)], axis=1), cutoff=0.5)
    expected = np.zeros((5, 5))
    expected[0, 1] = expected[1, 0] = 1
    np.testing.assert_allclose(prior, expected, atol=1e-6)


def test_priors_by_name(tmp_path):
    frame = pd.DataFrame(
        {"time": [300.0, 600.0], "caller": ["a", "b"], "callee": ["b", "a"], "calls_per_second": [4.0, 8.0]}
    )
    options = {
        "services": ("a", "b"),
        "requests": None,
        "calls": CallGraph(frame),
        "end": 300.0,
        "cutoff": 0.1,
    }
    np.testing.assert_array_equal(
        build_prior("call", **options), [[0, 1], [0, 0]]
    )  # the later call is beyond the training split
    assert not build_prior("identity", **options).any()
    write_graph(tmp_path / "mine.csv", ("b", "a", "c"), np.arange(9.0).reshape(3, 3))
    np.testing.assert_array_equal(build_prior(str(tmp_path / "mine.csv"), **options), [[4, 3], [1, 0]])
    assert prior_keys(["od", str(tmp_path / "mine.csv")]) == {"od": "od", "mine": str(tmp_path / "mine.csv")}


@pytest.mark.field
@pytest.mark.parametrize("text", ["0,1,0\n0,0,2\n0.5,0,0\n", "0, 1, 0\n0, 0, 2\n0.5, 0, 0"])
def test_numbers_without_names_are_in_the_order_of_the_services_and_that_is_said(tmp_path, text, caplog):
    path = tmp_path / "adj.csv"
    path.write_text(text)
    options = {"requests": None, "calls": None, "end": 0.0, "cutoff": 0.1}
    prior = build_prior(str(path), ("web", "cart", "db"), **options)
    np.testing.assert_array_equal(prior, [[0, 1, 0], [0, 0, 2], [0.5, 0, 0]])
    assert "no names; rows and columns are taken in this order: web, cart, db" in caplog.text
    with pytest.raises(DataError, match=r"3 x 3 numbers without names, expected 2 x 2"):
        build_prior(str(path), ("web", "cart"), **options)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("call", "metrics_fetch.py"),
        ("od", "metrics_fetch.py"),
        ("cc", "feature req"),
        ("cal", "call, od, structural, cc"),
        ("structural", "pod, cpu, res, req"),
    ],
)
def test_a_prior_without_its_input_says_what_to_do(name, says):
    with pytest.raises(DataError, match=says):
        build_prior(name, ("a", "b"), None, None, end=0.0, cutoff=0.1)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["mine/one.csv", "theirs/one.csv"], "mine/one.csv and theirs/one.csv are both called 'one'"),
        (["call", "mine/call.csv"], "call and mine/call.csv are both called 'call'"),
        (["mine/structural.csv", "structural"], "mine/structural.csv is called 'structural'"),
        *(([f"mine/{name}.csv"], f"mine/{name}.csv is called '{name}'") for name in EVIDENCE),
    ],
)
def test_priors_that_would_replace_another_graph_are_refused(names, message):
    with pytest.raises(SettingsError, match=f"process.priors: {message}"):
        prior_keys(names)
    assert prior_keys(["call", "structural", "mine/od.csv"]).keys() == {"call", "structural", "od"}
