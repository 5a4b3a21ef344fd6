"""Windows and training, by expectation-maximisation and end to end.

For each published defect there is a test that the published way fails.
"""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_samples import (
    BOUNDS,
    EDGES,
    SIZES,
    call_graph,
    cascade,
    learner_settings,
    make_trainer,
    trainer_settings,
)
from torch import Tensor

from model import fitting
from model.fitting import Patience, mean_loss
from model.graph_check import Judge, check_graph, read_graph, slow_scores, slowest
from model.graph_learners import build_learner, resting
from model.graph_metrics import edges_above, ranking
from model.layers import Graphs
from model.network import Shape
from model.networks import build_network
from model.rivals import rivals
from model.settings import CheckSettings
from model.trainer import Trainer
from model.windows import Windows, absolute_error, batches

FLOOR = 2 * resting(5)


def run(trainer: Trainer) -> Trainer:
    while not trainer.finished:
        trainer.iterate()
    return trainer


# ---------------------------------------------------------------------------------------------------- windows
def test_a_window_ends_at_its_row_and_its_label_is_one_step_later() -> None:
    rows = torch.arange(40, dtype=torch.float32)
    windows = Windows(rows[:, None, None], rows[:, None], window=3, horizon=2, dilation=4)
    assert windows.inputs(torch.tensor([20]))[0, :, 0, 0].tolist() == [12, 16, 20]  # now is in it
    assert windows.targets(torch.tensor([20]))[0, :, 0].tolist() == [24, 28]


def test_windows_take_no_memory_of_their_own() -> None:
    series = torch.zeros(100, 2, 3)
    windows = Windows(series, series[:, :, 0], window=50, horizon=1, dilation=1)
    assert windows.series.data_ptr() == series.data_ptr()
    assert (
        sum(value.numel() for value in vars(windows).values() if isinstance(value, Tensor))
        == 100 * 2 * 3 + 2 * 100 * 2
    )  # features; labels as they are and filled


def test_unknown_labels_are_no_error() -> None:
    summed, count = absolute_error(torch.tensor([1.0, 2.0]), torch.tensor([math.nan, 5.0]))
    assert (float(summed), count) == (3.0, 1)
    prediction = torch.ones(2, requires_grad=True)
    absolute_error(prediction, torch.tensor([math.nan, 5.0]))[0].backward()
    assert prediction.grad is not None and prediction.grad.tolist() == [0.0, -1.0]


def test_batches_are_shuffled_by_seed_and_cover_all_unlike_the_published_fixed_order() -> None:
    ends = torch.arange(100)
    one, same, other = (torch.cat(list(batches(ends, 7, seed))) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other) and not torch.equal(one, ends)
    assert torch.equal(one.sort().values, ends)
    assert torch.equal(torch.cat(list(batches(ends, 7))), ends)


# ------------------------------------------------------------------------------------------ published defects
def published_loss(trainer: Trainer, batch_size: int) -> float:
    """Mean of batch means, divided by the number of batches once more."""
    parts = list(batches(trainer.validation, batch_size))
    graphs = trainer.learner.graphs(trainer.affinity)
    with torch.no_grad():
        sums = [
            absolute_error(trainer.network(trainer.windows.inputs(p), graphs), trainer.windows.targets(p))
            for p in parts
        ]
    return float(sum(total / count for total, count in sums)) / len(parts) ** 2


def test_validation_loss_does_not_depend_on_the_batch_size_unlike_the_published_one() -> None:
    trainer = make_trainer()
    graphs = trainer.learner.graphs(trainer.affinity)
    ours = [
        mean_loss(trainer.network, graphs, trainer.windows, trainer.validation, size)
        for size in (10, 64, 1000)
    ]
    assert ours == pytest.approx([ours[0]] * 3, rel=1e-5)
    assert published_loss(trainer, 10) < 0.2 * published_loss(trainer, 1000)


@pytest.mark.parametrize(("compare", "stops"), [("best", True), ("previous", False)])
def test_a_noisy_plateau_stops_training_unlike_the_published_comparison(compare: Any, stops: bool) -> None:
    patience = Patience(5, compare)
    plateau = [0.5 + 0.01 * (epoch % 2) for epoch in range(100)]
    assert any(patience.exhausted(loss) for loss in plateau) == stops


def test_the_learning_rate_falls_over_the_whole_run_not_once_an_iteration() -> None:
    trainer = make_trainer(num_iter=4, num_epoch=3)
    rates: list[float] = []
    step = trainer.optimiser.step

    def recording(*arguments: Any, **named: Any) -> Any:
        rates.append(trainer.optimiser.param_groups[0]["lr"])
        return step(*arguments, **named)

    trainer.optimiser.step = recording  # type: ignore[method-assign]
    run(trainer)
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(5e-3)
    assert rates[-1] < 0.01 * rates[0]
    middle = rates[len(rates) // 2]
    assert middle == pytest.approx(0.5 * rates[0], rel=0.05)


def test_the_newest_graph_is_what_the_learner_made_even_when_it_left_the_set() -> None:
    trainer = make_trainer(
        num_iter=1, num_epoch=1, graph_max_graph_num=1
    )  # the last iteration: A* is the newest graph
    old = torch.full((5, 5), 0.5)
    trainer.candidates.graphs = [(old, 0.1)]
    trainer.score = lambda affinity: 0.1 if torch.equal(affinity, old) else 9.0  # type: ignore[method-assign]
    trainer.e_step()
    published = trainer.candidates.graphs[-1][0]
    assert torch.equal(published, old)  # the set's last: stale
    torch.testing.assert_close(trainer.affinity, trainer.learner().detach())


def test_the_affinity_is_the_weighted_union_for_most_of_the_run() -> None:
    trainer = make_trainer(num_iter=10, num_epoch=1)
    trainer.m_step()
    trainer.candidates.graphs = [(torch.full((5, 5), 0.9), 0.0)]
    trainer.e_step()
    torch.testing.assert_close(trainer.affinity, trainer.candidates.union("spread"))
    assert not torch.equal(trainer.affinity, trainer.learner().detach())


def test_the_e_step_leaves_the_predictor_alone_and_the_m_step_the_learner() -> None:
    trainer = make_trainer(num_epoch=1)
    learner = [p.clone() for p in trainer.learner.parameters()]
    trainer.m_step()
    assert all(torch.equal(a, b) for a, b in zip(learner, trainer.learner.parameters(), strict=True))
    network = [p.clone() for p in trainer.network.parameters()]
    trainer.e_step()
    assert all(torch.equal(a, b) for a, b in zip(network, trainer.network.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(learner, trainer.learner.parameters(), strict=True))
    assert all(p.requires_grad for p in trainer.network.parameters())


@pytest.mark.parametrize("cells", [200_000, 600])
def test_training_steps_are_those_of_the_predictor_however_often_its_batches_are_split(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "CELLS", cells)
    network = build_network("AdapGLD", Shape(5, 2, 6, 1), {"channels": 2, "diffusion": 1, "layers": 1})
    learner = build_learner("gates", 5, {}, learner_settings())
    ends, settings = torch.arange(5, 205), replace(trainer_settings(num_epoch=1), batch_size=50)
    trainer = Trainer(network, learner, cascade(300), training=ends, validation=ends + 50, settings=settings)
    counts = []
    for step in (trainer.m_step, trainer.e_step, trainer.m_step):
        step()
        counts.append(int(network.steps))  # type: ignore[arg-type]
    assert counts == [4, 4, 8]


@pytest.mark.parametrize("seed", [20260105120000, 2**63 - 1])
def test_the_largest_seeds_train_too(seed: int) -> None:
    trainer = make_trainer(num_epoch=1, num_iter=1, seed=seed, windows=cascade(1900))
    trainer.m_step()
    assert math.isfinite(trainer.best.loss)


def test_the_best_epoch_is_kept_not_the_last() -> None:
    trainer = make_trainer(num_epoch=4, learning_rate=0.2)  # far too fast: epochs differ
    trainer.m_step()
    losses = [entry["validation"] for entry in trainer.course.history]
    assert trainer.score(trainer.affinity) == pytest.approx(min(losses), rel=1e-5)


# ----------------------------------------------------------------------------------------- is the graph real?
@pytest.mark.parametrize("trainer_kind", ["em", "end_to_end"])
def test_from_the_identity_the_affinity_gains_the_edges_that_matter(trainer_kind: str) -> None:
    trainer = make_trainer(num_iter=5, graph_trainer=trainer_kind)
    assert not edges_above(trainer.affinity.numpy(), FLOOR).any()
    affinity = run(trainer).finish().numpy()
    assert edges_above(affinity, FLOOR).sum() >= len(EDGES)
    assert ranking(affinity, call_graph().numpy())["auroc"] > 0.95


def test_one_iteration_from_the_call_graph_loses_none_of_its_edges() -> None:
    trainer = make_trainer(call_graph())
    trainer.iterate()
    changes = read_graph(trainer.affinity.numpy(), {"call": call_graph().numpy()}, FLOOR, {}, None)[
        "against_priors"
    ]["call"]
    assert changes["kept"] == len(EDGES) and changes["dropped"] == 0


@pytest.mark.parametrize("wrong", ["transposed", "permuted", "identity"])
def test_a_predictor_fitted_anew_is_worse_on_the_wrong_graph(wrong: str) -> None:
    order = torch.tensor([3, 0, 4, 2, 1])
    graph = 0.4 * call_graph()
    others = {
        "transposed": graph.T.contiguous(),
        "permuted": graph[order][:, order],
        "identity": torch.zeros(5, 5),
    }
    losses = []
    for start in (graph, others[wrong]):
        trainer = make_trainer(num_epoch=12, num_iter=1, learning_rate=1e-2, graph_learner="none")
        trainer.affinity = start
        trainer.iterate()
        losses.append(trainer.best.loss)
    assert losses[0] < 0.7 * losses[1]


@pytest.mark.parametrize("prior", [None, torch.zeros(5, 5), torch.eye(5)], ids=["none", "empty", "identity"])
def test_without_a_learner_and_without_an_edge_no_service_sees_another(prior: Tensor | None) -> None:
    trainer = run(make_trainer(prior, learner="none", graph_learner="none", num_iter=1, num_epoch=1))
    affinity = trainer.finish()
    assert not affinity.any()
    network = build_network("AdapGLA", Shape(5, 2, 6, 1), {**SIZES, "attention": False})  # that mixes, too
    x = torch.randn(1, 6, 5, 2, requires_grad=True)
    made = network(x, trainer.learner.graphs(affinity))
    for service in range(5):
        (slope,) = torch.autograd.grad(made[0, 0, service], x, retain_graph=True)
        moved = slope.abs().sum(dim=(0, 1, 3))
        assert moved[service] > 0 and moved.sum() == moved[service]


def test_without_a_learner_the_priors_edges_are_all_there_are() -> None:
    trainer = run(make_trainer(call_graph(), learner="none", graph_learner="none", num_iter=1, num_epoch=1))
    affinity = trainer.finish()
    assert torch.equal(affinity > 0, call_graph() > 0)


def test_a_graph_without_any_edge_has_none_in_either_direction() -> None:
    """Another graph is shown with the prior's reverse, which a callee's caller receives by."""
    learner = make_trainer(call_graph()).learner
    assert not any(matrix.any() for matrix in learner.graphs(torch.zeros(5, 5)))
    shown = learner.graphs(call_graph())
    assert torch.equal(shown[0], learner.prior())


def test_the_check_reports_every_rival_and_a_sentence() -> None:
    trainer = run(make_trainer(call_graph(), num_iter=2, num_epoch=3))
    affinity = trainer.finish()
    test = torch.arange(BOUNDS[1] + 5, 2399)
    splits = {"validation": trainer.validation, "test": test}
    scores = {
        name: slow_scores(None, trainer.windows.labels.numpy(), ends.numpy(), 1)
        for name, ends in splits.items()
    }
    slow = {name: slowest(scores[name], ends) for name, ends in splits.items()}
    assert len(slow["test"]) == pytest.approx(0.1 * len(test), abs=2)
    graphs = rivals(trainer.learner, affinity, {"call": call_graph()}, entries=[0], count=5, seed=1)
    assert [name for name in graphs if name.startswith("random")] == [
        f"random_{index}" for index in range(1, 6)
    ]
    for name in ("random_1", "permuted"):
        torch.testing.assert_close(graphs[name].flatten().sort().values, affinity.flatten().sort().values)
        assert not torch.equal(graphs[name], affinity)
    assert graphs["identity"].abs().sum() == 0
    assert (graphs["entry_to_all"][0, 1:] > 0).all() and graphs["entry_to_all"][1:].abs().sum() == 0
    result = check_graph(
        trainer.network,
        Judge(trainer.learner, trainer.windows, trainer.training, splits, slow),
        graphs,
        settings=CheckSettings(refit_epochs=3, refit_seeds=1, refit_graphs=()),
        training=trainer.settings,
        fresh=lambda seed: make_trainer(seed=seed).network,
    )
    assert (
        set(result["errors"])
        == set(graphs)
        >= {"learned", "prior call", "identity", "full", "entry_to_all", "permuted", "random_5"}
    )
    assert set(result["errors"]["learned"]) == {"validation", "test", "validation_slow", "test_slow"}
    assert result["refitted"]["learned"]["test"] < result["refitted"]["identity"]["test"]
    assert result["verdict"].startswith("The learned graph errs less than no edge: ")


def test_slow_windows_are_the_tenth_with_the_worst_entry_response() -> None:
    ends = np.arange(10, 110)
    response = np.zeros((200, 1))
    response[50:55] = 1.0
    response[60:65] = 2.0
    chosen = slowest(slow_scores(response, np.zeros((200, 1)), ends, 1), torch.from_numpy(ends))
    assert chosen.tolist() == [*range(50, 55), *range(60, 65)]
    assert (
        len(slowest(slow_scores(np.ones((200, 1)), np.zeros((200, 1)), ends, 1), torch.from_numpy(ends))) == 0
    )


# ---------------------------------------------------------------------------------------- the same every time
def values(trainer: Trainer) -> list[Tensor]:
    return [*trainer.network.state_dict().values(), *trainer.learner.state_dict().values(), trainer.affinity]


@pytest.mark.parametrize("kind", ["em", "end_to_end"])
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(kind: str) -> None:
    one, again, other = (
        run(make_trainer(num_iter=2, num_epoch=1, graph_trainer=kind, seed=seed)) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(values(one), values(again), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(values(one), values(other), strict=True))


@pytest.mark.parametrize("kind", ["em", "end_to_end"])
def test_a_run_interrupted_and_continued_equals_one_that_was_not(kind: str) -> None:
    whole = run(make_trainer(num_iter=4, num_epoch=1, graph_trainer=kind))
    first = make_trainer(num_iter=4, num_epoch=1, graph_trainer=kind)
    first.iterate()
    first.iterate()
    buffer = io.BytesIO()
    torch.save(first.state(), buffer)
    buffer.seek(0)
    second = make_trainer(num_iter=4, num_epoch=1, graph_trainer=kind)
    second.load(torch.load(buffer, weights_only=True))
    run(second)
    assert all(torch.equal(a, b) for a, b in zip(values(whole), values(second), strict=True))
    assert (whole.best.loss, whole.best.iteration) == (second.best.loss, second.best.iteration)
    one, other = (
        [{**entry, "seconds": 0} for entry in trainer.course.history] for trainer in (whole, second)
    )
    assert one == other


def test_a_run_at_a_constant_rate_ends_without_better_pairs_and_a_cosine_is_run_to_its_end() -> None:
    still = {"num_epoch": 1, "patience": 2, "learning_rate": 1e-12, "graph_learning_rate": 1e-12}
    assert run(make_trainer(num_iter=50, schedule="constant", **still)).iteration < 10
    assert run(make_trainer(num_iter=6, schedule="cosine", **still)).iteration == 6


def test_without_a_learner_the_prior_stays() -> None:
    trainer = make_trainer(call_graph(), graph_learner="none", num_iter=2, num_epoch=1)
    start = trainer.affinity.clone()
    assert torch.equal(run(trainer).finish(), start)


def test_the_antisymmetric_learner_trains_too() -> None:
    trainer = make_trainer(call_graph(), learner="antisymmetric", num_iter=2, num_epoch=2)
    before = trainer.score(trainer.affinity)
    affinity = run(trainer).finish()
    assert trainer.best.loss < before and torch.isfinite(affinity).all()
    shown = trainer.learner.graphs(affinity)
    assert torch.equal(shown.up, shown.down)


def test_z_scores_per_service_keep_small_services_in_the_loss() -> None:
    """With one mean and scale for all, a service a hundred times smaller has next to no part in the error."""
    raw = np.random.default_rng(1).normal(size=(500, 2)) * [100.0, 1.0] + [500.0, 5.0]
    own = (raw - raw.mean(0)) / raw.std(0)
    shared = (raw - raw.mean()) / raw.std()
    share = {
        name: np.abs(z - z.mean(0)).mean(0)[1] / np.abs(z - z.mean(0)).mean(0).sum()
        for name, z in (("own", own), ("shared", shared))
    }
    assert share["own"] == pytest.approx(0.5, abs=0.05)
    assert share["shared"] < 0.02


def test_a_forward_pass_with_gates_gives_the_learner_a_gradient_where_data_needs_an_edge() -> None:
    windows = cascade()
    torch.manual_seed(1)
    network = build_network("AdapGLA", Shape(5, 2, 6, 1), SIZES)
    learner = build_learner("gates", 5, {}, learner_settings())
    affinity = learner()
    out = network(windows.inputs(torch.arange(10, 40)), Graphs(torch.zeros(5, 5), affinity))
    out.abs().sum().backward()
    gradient = learner.free.grad
    assert gradient is not None and (gradient[~torch.eye(5, dtype=torch.bool)] != 0).all()
    assert gradient.diagonal().abs().sum() == 0
