"""Graph learners, candidate graphs, and measures of graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.model_samples import learner_settings, road
from hypothesis import given, settings
from hypothesis import strategies as st

from model.candidates import Candidates, union_weights
from model.graph_check import graph_verdict
from model.graph_learners import (
    PRIOR_EDGE,
    Gates,
    build_learner,
    mean_where_present,
    resting,
    symmetric_norm,
    within_unit,
)
from model.graph_metrics import auprc, auroc, edge_changes, edges_above, precision_at, reachable

BOUTIQUE = (
    (0, 1),
    (0, 2),
    (0, 3),
    (0, 4),
    (0, 5),
    (0, 6),
    (0, 7),
    (3, 2),
    (3, 4),
    (3, 5),
    (3, 7),
    (3, 8),
    (3, 9),
    (6, 5),
)


def boutique() -> torch.Tensor:
    graph = torch.zeros(10, 10)
    for caller, callee in BOUTIQUE:
        graph[caller, callee] = 1
    return graph


def test_gates_start_from_the_prior_with_a_zero_diagonal() -> None:
    prior = boutique()
    affinity = build_learner("gates", 10, {"call": prior}, learner_settings()).initial().detach()
    torch.testing.assert_close(affinity[prior > 0], torch.full((14,), PRIOR_EDGE))
    off = (prior == 0) & ~torch.eye(10, dtype=torch.bool)
    torch.testing.assert_close(affinity[off], torch.full((76,), resting(10)))
    assert affinity.diagonal().abs().sum() == 0


def test_gates_show_the_learned_graph_to_callees_and_the_prior_to_callers() -> None:
    learner = build_learner("gates", 10, {"call": boutique()}, learner_settings())
    with torch.no_grad():
        learner.free.normal_()
    affinity = learner().detach()
    shown = learner.graphs(affinity)
    torch.testing.assert_close(shown.down, affinity / radius(affinity), rtol=0.01, atol=0)
    torch.testing.assert_close(shown.up, PRIOR_EDGE * boutique())
    alone = build_learner("gates", 10, {}, learner_settings())
    assert alone.graphs(affinity).up.abs().sum() == 0


def test_gates_use_a_logit_a_pair_up_to_fifty_services_and_embeddings_beyond() -> None:
    small, large = (build_learner("gates", size, {}, learner_settings()) for size in (50, 51))
    assert isinstance(small, Gates) and sum(p.numel() for p in small.parameters()) == 2500
    assert sum(p.numel() for p in large.parameters()) == 2 * 51 * 8 + 1
    large().sum().backward()
    assert large.callers.grad.abs().sum() > 0


def radius(matrix: torch.Tensor) -> float:
    return float(torch.linalg.eigvals(matrix.double()).abs().max())


@pytest.mark.parametrize("services", [10, 50, 51, 207, 1000])
@pytest.mark.parametrize("prior", ["none", "road", "full"])
def test_no_network_sees_a_graph_with_a_spectral_radius_above_one(services: int, prior: str) -> None:
    torch.manual_seed(services)
    graphs = {"road": road(services), "full": torch.ones(services, services)}
    learner = build_learner(
        "gates", services, {prior: graphs[prior]} if prior in graphs else {}, learner_settings()
    )
    assert isinstance(learner, Gates)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(torch.randn_like(parameter))  # a learned one, far from where it started
        affinity = learner()
        shown = learner.graphs(affinity)
    assert float(affinity.min()) >= 0 and float(affinity.max()) <= 1
    assert radius(shown.up) <= 1 + 1e-4 and radius(shown.down) <= 1 + 1e-4
    raw = radius(affinity)
    if raw > 1:
        assert radius(shown.down) > 0.97  # no smaller than it has to be


def test_a_graph_within_the_unit_circle_stays_as_it_is() -> None:
    assert torch.equal(within_unit(0.4 * boutique()), 0.4 * boutique())
    swap = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    torch.testing.assert_close(within_unit(swap), swap / 2)
    assert not within_unit(torch.zeros(3, 3)).any()


def test_the_union_of_priors_is_the_mean_where_an_entry_exists() -> None:
    one, other = torch.tensor([[0, 1.0], [0, 0]]), torch.tensor([[0, 0.5], [0.2, 0]])
    torch.testing.assert_close(
        mean_where_present({"a": one, "b": other}), torch.tensor([[0, 0.75], [0.2, 0]])
    )


@pytest.mark.parametrize(("term", "acts"), [("smooth", True), ("sign", False)])
def test_the_new_edge_term_reaches_the_learner_unlike_the_published_sign(term: str, acts: bool) -> None:
    torch.manual_seed(1)
    learner = build_learner(
        "antisymmetric", 10, {"call": boutique()}, learner_settings(embedding_size=64, new_edge_term=term)
    )
    affinity = learner(learner.initial())
    penalty = learner.penalty(affinity, learner.initial())
    assert penalty > 0
    penalty.backward()
    gradient = learner.first.grad
    assert (gradient is not None and bool(gradient.abs().sum() > 0)) == acts


@pytest.mark.parametrize(("threshold", "keeps"), [(0.0, True), (0.5, False)])
def test_no_call_is_cut_by_a_threshold_unlike_the_published_one(threshold: float, keeps: bool) -> None:
    torch.manual_seed(1)
    prior = boutique()
    learner = build_learner(
        "antisymmetric", 10, {"call": prior}, learner_settings(embedding_size=64, threshold=threshold)
    )
    with torch.no_grad():
        affinity = learner(learner.initial())
    assert bool((affinity[prior > 0] > 0).all()) == keeps


@pytest.mark.parametrize(
    ("learner", "threshold", "alive"),
    [("gates", 0.0, True), ("antisymmetric", 0.0, True), ("antisymmetric", 0.5, False)],
)
def test_edges_that_are_absent_can_enter(learner: str, threshold: float, alive: bool) -> None:
    torch.manual_seed(1)
    made = build_learner(learner, 10, {}, learner_settings(embedding_size=64, threshold=threshold))
    if learner == "antisymmetric":
        with torch.no_grad():
            made.first.mul_(
                0.1
            )  # weak edges: the published threshold leaves the identity, and nothing to learn from
    affinity = made(made.initial())
    (affinity * (1 - torch.eye(10))).sum().backward()
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in made.parameters()) == alive


def test_symmetric_norm_equals_its_formula_and_guards_rows_without_edges() -> None:
    matrix = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    torch.testing.assert_close(symmetric_norm(matrix), torch.tensor([[0.25, 0.0], [0.0, 0.0]]))


def test_union_weights_tell_close_losses_apart_unlike_the_published_softmax() -> None:
    losses = [0.300, 0.305, 0.310]
    best, middle, worst = union_weights(losses, "spread")
    assert best > 2 * middle > 4 * worst
    published = union_weights(losses, "raw")
    assert max(published) - min(published) < 0.004
    assert union_weights([0.3, 0.3], "spread") == [0.5, 0.5]


def test_the_worst_candidate_leaves_and_all_are_scored_again() -> None:
    losses = {1.0: 0.3, 2.0: 0.5, 3.0: 0.4}
    held = Candidates(2)
    for value in losses:
        held.add(torch.full((2, 2), value), lambda graph: losses[float(graph[0, 0])])
    assert [float(graph[0, 0]) for graph, _ in held.graphs] == [1.0, 3.0]
    losses[1.0] = 0.9
    held.add(torch.full((2, 2), 2.0), lambda graph: losses[float(graph[0, 0])])
    assert [float(graph[0, 0]) for graph, _ in held.graphs] == [3.0, 2.0]


def test_ranking_measures_on_paper() -> None:
    scores, truth = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])
    assert auroc(scores, truth) == pytest.approx(0.75)
    assert auprc(scores, truth) == pytest.approx((1 + 2 / 3) / 2)
    assert precision_at(scores, truth) == pytest.approx(0.5)
    assert np.isnan(auroc(scores, np.ones(4, bool)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=12))
def test_auroc_is_the_chance_that_an_edge_outranks_a_non_edge(pairs: list[tuple[int, bool]]) -> None:
    scores, truth = np.array([float(s) for s, _ in pairs]), np.array([t for _, t in pairs])
    wins = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
    if wins:
        assert auroc(scores, truth) == pytest.approx(np.mean(wins))
    if truth.any():
        assert auprc(np.zeros(len(truth)), truth) == pytest.approx(
            truth.mean()
        )  # all tied: the share of edges


def test_edges_are_read_relative_to_the_largest_off_diagonal_entry() -> None:
    matrix = np.array([[9.0, 0.5, 0.04], [0.3, 9.0, 0.0], [0.0, 0.06, 9.0]])
    assert edges_above(matrix).tolist() == [[False, True, False], [True, False, False], [False, True, False]]
    prior = np.array([[0, 1.0, 1.0], [0, 0, 0], [0, 0, 0]])
    assert edge_changes(matrix, prior, 0.0) == {"kept": 1, "added": 2, "dropped": 1}
    assert reachable(np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])).tolist() == [
        [False, True, True],
        [False, False, True],
        [False] * 3,
    ]


def test_the_verdict_says_when_the_graph_is_worth_nothing() -> None:
    def refits(
        learned: list[float], identity: list[float], random: list[float]
    ) -> dict[str, dict[str, list[float]]]:
        return {"learned": {"test": learned}, "identity": {"test": identity}, "random_1": {"test": random}}

    exchanged = {"learned": {"test": 0.2}, "identity": {"test": 0.3}}
    assert "isn't judged" in graph_verdict(exchanged, {})
    assert "beat" not in graph_verdict(exchanged, {}) and "train.refit_epochs" in graph_verdict(exchanged, {})
    assert "is no better than no edge" in graph_verdict(exchanged, refits([0.31], [0.30], [0.5]))
    assert "isn't told apart from no edge" in graph_verdict(
        exchanged, refits([0.31, 0.28], [0.30, 0.30], [0.5, 0.5])
    )
    assert "which edges it has doesn't matter" in graph_verdict(exchanged, refits([0.2], [0.3], [0.19]))
    assert graph_verdict(exchanged, refits([0.2, 0.21], [0.3, 0.3], [0.28, 0.28])).startswith(
        "The learned graph errs less than no edge with every seed: error 0.2050 with it, 0.3000 without"
    )
