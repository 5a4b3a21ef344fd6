"""A diffusion over 200 nodes of a road graph, where a graph has cycles everywhere."""

from __future__ import annotations

import torch
from helpers.model_samples import learner_settings, road, trainer_settings

from model.graph_learners import PRIOR_EDGE, build_learner
from model.network import Shape
from model.networks import build_network
from model.trainer import Trainer
from model.windows import Windows

SIZES = {"graph_channels": 16, "time_channels": 16, "order": 3, "kernel": 3, "blocks": 1, "attention": False}


def diffusion(graph: torch.Tensor, length: int = 600, seed: int = 0) -> Windows:
    """Rare shocks that spread to the neighbours: what comes next is told by the graph alone."""
    generator = torch.Generator().manual_seed(seed)
    spread = (graph / graph.sum(1, keepdim=True)).T
    state, rows = torch.zeros(len(graph)), []
    for _ in range(length):
        hit = torch.rand(len(graph), generator=generator) < 0.02
        shock = 3 * torch.randn(len(graph), generator=generator) * hit
        state = 0.3 * state + 0.67 * spread @ state + shock
        rows.append(state)
    load = torch.stack(rows)
    load = (load - load.mean(0)) / load.std(0)
    return Windows(load[..., None], load, window=4, horizon=1, dilation=1)


def validation_error(learner: str, mode: str, seed: int) -> float:
    graph = road(200)
    torch.manual_seed(seed)
    network = build_network("AdapGLA", Shape(200, 1, 4, 1), SIZES)
    made = build_learner(learner, 200, {"road": graph}, learner_settings())
    settings = trainer_settings(
        num_epoch=1, num_iter=6, learning_rate=1e-2, seed=seed, graph_trainer=mode, graph_learner=learner
    )
    trainer = Trainer(
        network,
        made,
        diffusion(graph),
        training=torch.arange(4, 420),
        validation=torch.arange(425, 598),
        settings=settings,
        priors=[made.given(graph, PRIOR_EDGE)],
    )
    while not trainer.finished:
        trainer.iterate()
    return trainer.best.loss


def test_gates_are_at_least_as_good_as_the_published_learner() -> None:
    """By EM as good within chance, end to end better; without the norm their graph has a radius above 2."""
    errors = {
        learner: [validation_error(learner, mode, 1) for mode in ("em", "end_to_end")]
        for learner in ("gates", "antisymmetric")
    }
    assert sum(errors["gates"]) <= sum(errors["antisymmetric"])
    assert errors["gates"][0] <= 1.03 * errors["antisymmetric"][0]
