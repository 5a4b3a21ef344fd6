"""What a run says about its graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.model_samples import call_graph, make_dataset, small_settings

from deepscaler.learning.graph_report import (
    entry_columns,
    gains,
    known_calls,
    list_edges,
    stability,
)
from deepscaler.learning.graph_text import gain_text, gain_verdict, graph_lines
from deepscaler.learning.task import TrainingTask
from deepscaler.learning.train import train
from deepscaler.statistics import rank_correlation, t_interval

CALLS = call_graph().numpy()


def with_evidence(length: int = 2400, **changes: Any) -> Any:
    evidence = {"calls": 8 * CALLS, "structural": 0.3 * CALLS, "structural_t": 12 * CALLS}
    return replace(make_dataset(length=length), evidence=evidence, **changes)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The graph block of a small run without a prior, calls recorded."""
    config, settings = small_settings(
        refit_epochs=1, refit_seeds=2, refit_graphs=["identity", "random_1"], graph_seeds=1
    )
    path: Path = tmp_path_factory.mktemp("run") / "x.pt"
    return train(TrainingTask(with_evidence(800, priors={}), "AdapGLA", config, settings, path)).bundle.graph


def test_both_graphs_are_listed_by_name_and_ranked_against_calls_and_reachability(
    judged: dict[str, Any],
) -> None:
    assert judged["calls_source"] == "recorded"
    assert (
        judged["calls"][0] == {"caller": "web", "callee": "cart", "calls_per_second": 8.0}
        and len(judged["calls"]) == 4
    )
    assert judged["structural"][0] == {
        "caller": "web",
        "callee": "cart",
        "share": pytest.approx(0.3),
        "t": 12.0,
    }
    assert all({"caller", "callee", "weight"} == set(edge) for edge in judged["influence"])
    assert judged["against_calls"]["structural"]["auroc"] == 1.0
    assert (
        judged["against_calls"]["influence"]["edges"] == 4
        and judged["against_reachability"]["influence"]["edges"] == 6
    )


def test_errors_of_refits_are_kept_by_seed_and_compared_in_pairs(judged: dict[str, Any]) -> None:
    by_seed = judged["refitted_by_seed"]
    assert list(by_seed) == ["learned", "identity", "random_1"], "those that were asked for"
    assert len(by_seed["learned"]["test"]) == 2
    assert judged["refitted"]["learned"]["test"] == pytest.approx(np.mean(by_seed["learned"]["test"]))
    change = np.array(by_seed["learned"]["test"]) / np.array(by_seed["identity"]["test"]) - 1
    assert judged["gain"]["test"]["mean"] == pytest.approx(100 * change.mean())
    assert set(judged["gain"]) == {"validation", "test", "validation_slow", "test_slow"}


def test_further_trainings_say_whether_the_graph_comes_out_alike(judged: dict[str, Any]) -> None:
    found = judged["stability"]
    assert found["graphs"] == 2 and len(found["auroc"]) == 2
    assert -1 <= found["spearman"] <= 1 and 0 <= found["jaccard"] <= 1


def test_the_report_says_all_of_it_in_words(judged: dict[str, Any]) -> None:
    text = "\n".join(graph_lines(judged))
    for expected in (
        "graph against recorded calls",
        "influence",
        "structural",
        "4 calls, 6 pairs in reach",
        "2 trainings of other seeds",
        "learned against identity, refitted, test: ",
        "Learned graph against no edge, test: overall ",
        "Learned graph against the same weights on random pairs, test: overall ",
    ):
        assert expected in text


def test_gains_are_paired_by_seed() -> None:
    by_seed = {"learned": {"test": [0.9, 1.8, 2.7]}, "identity": {"test": [1.0, 2.0, 3.0]}}
    gain = gains(by_seed)["test"]
    assert (
        gain["mean"] == pytest.approx(-10)
        and gain["low"] == pytest.approx(-10)
        and gain["high"] == pytest.approx(-10)
    )
    alone = gains({"learned": {"test": [0.9]}, "identity": {"test": [1.0]}})["test"]
    assert np.isnan(alone["low"]) and gain_text(alone) == "-10.0 %, 1 seed(s)"
    assert gains({}) == {}


def test_an_interval_over_zero_is_said_to_tell_nothing() -> None:
    noisy = gains({"learned": {"test": [0.9, 1.1, 1.0]}, "identity": {"test": [1.0, 1.0, 1.0]}})
    assert "not told apart from no edge" in gain_verdict(noisy, "no edge")[0]
    worse = gains({"learned": {"test": [1.1, 1.11, 1.1]}, "identity": {"test": [1.0, 1.0, 1.0]}})
    assert gain_verdict(worse, "no edge")[0].endswith(": worse.")


def test_t_interval_and_rank_correlation_on_paper() -> None:
    low, high = t_interval([1.0, 2.0, 3.0]) or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 - 4.3027 / np.sqrt(3), 2 + 4.3027 / np.sqrt(3)), abs=1e-3)
    assert t_interval([1.0]) is None
    assert rank_correlation([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0.0


def test_equal_graphs_are_stable_and_one_alone_says_nothing() -> None:
    graph = CALLS.astype(np.float64) * 0.5
    found = stability([graph, graph], CALLS.astype(np.float64), 0.0)
    assert (
        found is not None
        and found["spearman"] == pytest.approx(1)
        and found["jaccard"] == 1
        and found["auroc"] == [1.0, 1.0]
    )
    assert stability([graph], None, 0.0) is None


def test_calls_are_recorded_ones_else_the_prior_else_what_telemetry_says() -> None:
    dataset = with_evidence()
    assert known_calls(dataset)[0] == "recorded"
    evidence = {name: graph for name, graph in dataset.evidence.items() if name != "calls"}
    assert known_calls(replace(dataset, evidence=evidence))[0] == "prior call"
    assert known_calls(replace(dataset, evidence=evidence, priors={}))[0] == "structural"
    assert known_calls(replace(dataset, evidence={}, priors={})) == ("unknown", None)


def test_entries_are_services_that_call_and_are_not_called() -> None:
    assert entry_columns(with_evidence(priors={})) == [0]
    assert entry_columns(replace(with_evidence(), evidence={}, priors={})) == [0, 1, 2, 3, 4]


def test_a_long_list_of_edges_is_cut_at_the_strongest() -> None:
    graph = np.random.default_rng(1).random((5, 5))
    listed = list_edges(make_dataset(), graph, "weight")
    assert len(listed) == 20 and listed[0]["weight"] >= listed[-1]["weight"]
    assert list_edges(make_dataset(), None, "weight") == []
