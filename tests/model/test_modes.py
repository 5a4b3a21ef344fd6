"""How the trainer treats networks by their use of graphs; its early end, first candidates, large batches."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch
from helpers.model_samples import (
    BOUNDS,
    call_graph,
    cascade,
    learner_settings,
    make_trainer,
    trainer_settings,
)
from torch import Tensor, nn

from deepscaler.settings import ModelConfig
from model import fitting, parallel
from model.candidates import Candidates
from model.fitting import TrainingError
from model.graph_learners import PRIOR_EDGE, build_learner
from model.layers import Graphs
from model.network import Network, Shape
from model.networks import NETWORKS, build_network
from model.trainer import Trainer
from model.windows import Known, Windows


class Dense(Network):
    """One linear map of the window, with dropout; keeps the graphs it was shown."""

    graph_use: ClassVar = "none"

    def __init__(self) -> None:
        super().__init__()
        self.map, self.dropout = nn.Linear(12, 1), nn.Dropout(0.3)
        self.shown: list[Graphs] = []

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        self.shown.append(graphs)
        return self.map(self.dropout(x.transpose(1, 2).flatten(2))).transpose(1, 2)  # type: ignore[no-any-return]


class Static(Dense):
    graph_use: ClassVar = "static"


class Constant(Network):
    """The mean label of the training windows: nothing is left to train."""

    graph_use: ClassVar = "none"

    def __init__(self) -> None:
        super().__init__()
        self.level: Tensor
        self.register_buffer("level", torch.full((5,), 9.0))

    @torch.no_grad()
    def prepare(self, windows: Windows, training: Tensor, validation: Tensor) -> None:
        self.level.copy_(windows.targets(training).mean((0, 1)))

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        return self.level.expand(len(x), 1, 5)


def of(network: Network, priors: Mapping[str, Tensor] | None = None, **changes: object) -> Trainer:
    learner = build_learner("gates", 5, priors or {}, learner_settings())
    settings = trainer_settings(**{"num_epoch": 2, "num_iter": 3, "learning_rate": 5e-3, **changes})  # type: ignore[arg-type]
    training, validation = torch.arange(5, 600), torch.arange(BOUNDS[0] + 5, BOUNDS[0] + 300)
    seeds = [learner.given(prior, PRIOR_EDGE) for prior in (priors or {}).values()]
    return Trainer(
        network, learner, cascade(), training=training, validation=validation, settings=settings, priors=seeds
    )


def run(trainer: Trainer) -> Trainer:
    while not trainer.finished:
        trainer.iterate()
    return trainer


# ------------------------------------------------------------------------------------------ the use of graphs
def test_a_network_without_a_graph_is_trained_alone_for_all_epochs_and_keeps_the_best_of_the_run() -> None:
    trainer = of(Dense(), {"call": call_graph()}, patience=1)
    learner = [parameter.clone() for parameter in trainer.learner.parameters()]
    run(trainer)
    assert [(entry["iteration"], entry["epoch"], entry["phase"]) for entry in trainer.course.history] == [
        (iteration, epoch, "plain") for iteration in range(3) for epoch in range(2)
    ]
    assert trainer.epochs == 6 and not trainer.candidates.graphs[0][1] < float("inf")
    assert trainer.best.loss == min(entry["validation"] for entry in trainer.course.history)
    assert trainer.score(trainer.finish()) == pytest.approx(trainer.best.loss, rel=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(learner, trainer.learner.parameters(), strict=True))


def test_a_network_with_a_static_graph_sees_the_prior_and_no_other_edge() -> None:
    network = Static()
    affinity = run(of(network, {"call": call_graph()}, num_iter=1)).finish()
    assert torch.equal(affinity, PRIOR_EDGE * call_graph())
    for graphs in network.shown:
        assert torch.equal(graphs.down, PRIOR_EDGE * call_graph()) and torch.equal(
            graphs.up, PRIOR_EDGE * call_graph()
        )
    assert of(Static()).affinity.abs().sum() == 0


def test_a_network_in_closed_form_is_prepared_and_not_trained() -> None:
    network = Constant()
    trainer = run(of(network))
    assert trainer.iteration == 1 and trainer.epochs == 1 and trainer.course.samples == 0
    assert [entry["phase"] for entry in trainer.course.history] == ["closed_form"]
    expected = trainer.windows.targets(trainer.training).mean((0, 1))
    trainer.finish()
    torch.testing.assert_close(network.level, expected)
    assert 0 < trainer.best.loss < 5


def test_networks_with_frozen_parameters_keep_them_frozen() -> None:
    trainer = make_trainer(num_iter=1, num_epoch=1)
    head = trainer.network.head  # type: ignore[attr-defined]
    head.bias.requires_grad_(False)
    again = Trainer(
        trainer.network,
        trainer.learner,
        trainer.windows,
        training=trainer.training[:100],
        validation=trainer.validation[:50],
        settings=trainer.settings,
    )
    run(again)
    assert not head.bias.requires_grad and head.weight.requires_grad


# ------------------------------------------------------------------------------------------------- its course
@pytest.mark.parametrize(("stop_early", "iterations"), [(True, 3), (False, 8)])
def test_under_a_cosine_the_run_stops_early_only_where_asked(stop_early: bool, iterations: int) -> None:
    trainer = run(
        of(Dense(), num_epoch=1, num_iter=8, patience=2, learning_rate=1e-30, stop_early=stop_early)
    )
    assert trainer.iteration == iterations  # the first is the best, then two idle ones


@pytest.mark.parametrize("name", ["STID", "AdapGLD"])
def test_dropout_and_sampling_continue_exactly_whatever_else_drew_random_numbers(name: str) -> None:
    def fresh() -> Trainer:
        torch.manual_seed(3)
        sizes = {
            "STID": {"channels": 8, "layers": 2, "slots": 24, "dropout": 0.5},
            "AdapGLD": {"channels": 8, "diffusion": 1, "layers": 1},
        }[name]
        return of(build_network(name, Shape(5, 2, 6, 1), sizes), num_epoch=1, num_iter=2)

    whole, first = run(fresh()), fresh()
    first.iterate()
    buffer = io.BytesIO()
    torch.save(first.state(), buffer)
    torch.rand(17)
    second = fresh()
    second.load(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    torch.rand(5)
    run(second)
    for one, other in zip(
        whole.network.state_dict().values(), second.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def test_epochs_leave_the_programs_own_random_numbers_alone() -> None:
    trainer = of(Dense(), num_iter=1)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    run(trainer)
    assert torch.equal(torch.rand(1), expected)


# ------------------------------------------------------------------------------------------------- candidates
def test_the_priors_are_candidates_from_the_start_and_scored_once_there_is_a_predictor() -> None:
    wrong = torch.zeros(5, 5)
    wrong[4, 0] = wrong[3, 1] = 1.0
    trainer = make_trainer(call_graph(), num_iter=2, num_epoch=1, graph_max_graph_num=3)
    trainer.candidates = Candidates(
        3, [trainer.learner.given(prior, PRIOR_EDGE) for prior in (call_graph(), wrong)]
    )
    assert [loss for _, loss in trainer.candidates.graphs] == [float("inf")] * 2
    trainer.m_step()
    assert [loss for _, loss in trainer.candidates.graphs] == [float("inf")] * 2
    expected = [trainer.score(graph) for graph, _ in trainer.candidates.graphs]
    trainer.e_step()
    assert [loss for _, loss in trainer.candidates.graphs][:2] == pytest.approx(expected)
    assert len(trainer.candidates.graphs) == 3


def test_more_priors_than_places_leave_the_best() -> None:
    losses = {1.0: 0.3, 2.0: 0.5, 3.0: 0.4, 4.0: 0.1}
    held = Candidates(2, [torch.full((2, 2), value) for value in (1.0, 2.0, 3.0)])
    held.add(torch.full((2, 2), 4.0), lambda graph: losses[float(graph[0, 0])])
    assert [float(graph[0, 0]) for graph, _ in held.graphs] == [1.0, 4.0]


# ----------------------------------------------------------------------------- batches, passes, ranks, losses
def weights_after_an_epoch(cells: int, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    monkeypatch.setattr(fitting, "CELLS", cells)
    trainer = make_trainer(call_graph(), num_iter=1, num_epoch=1)
    trainer.training, trainer.validation = trainer.training[:200], trainer.validation[:50]
    run(trainer)
    return [*trainer.network.parameters(), *trainer.learner.parameters()]


def test_a_batch_in_several_passes_has_the_gradient_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one, many = (
        weights_after_an_epoch(10**9, monkeypatch),
        weights_after_an_epoch(300, monkeypatch),
    )  # 300: ten windows of 5 x 6
    for a, b in zip(one, many, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_ranks_share_every_batch_without_loss_or_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = torch.arange(7)
    monkeypatch.setattr(parallel, "ranks", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        shares.append(parallel.share(ends))
        assert len(parallel.share(ends[:1])) == (rank == 0)
    assert torch.cat(shares).sort().values.tolist() == ends.tolist()


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_trainable_parameter_has_a_part_in_the_loss_as_data_parallel_training_needs(name: str) -> None:
    windows = Windows(torch.randn(60, 5, 2), torch.randn(60, 5), window=8, horizon=2, dilation=1)
    network = build_network(name, Shape(5, 2, 8, 2), getattr(ModelConfig(), name).model_dump())
    network.prepare(windows, torch.arange(8, 40), torch.arange(40, 55))
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if trainable:
        ends = torch.arange(20, 24)
        summed, known = network.loss(
            windows.inputs(ends),
            Graphs(torch.rand(5, 5), torch.rand(5, 5)),
            windows.known(ends),
            windows.targets(ends),
        )
        summed.backward()  # type: ignore[no-untyped-call]
        assert known == 4 * 2 * 5
    assert all(parameter.grad is not None for parameter in trainable)


def test_a_loss_that_is_no_number_is_an_error_not_a_silent_bundle() -> None:
    trainer = of(Dense(), learning_rate=1e30, gradient_clip=None)
    with pytest.raises(TrainingError, match="lower the learning rate"):
        run(trainer)
    unlabelled = of(Dense())
    unlabelled.windows.labels[:1000] = torch.nan
    with pytest.raises(TrainingError, match="no label is known in any training window"):
        run(unlabelled)
