"""Small data whose truth is known, for the tests of networks, training and bundles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepscaler.learning.dataset import Dataset, Normalizer
from deepscaler.learning.hyperparameters import fill
from deepscaler.settings import DataSettings, Graph, ModelConfig, Optimiser, Train
from model.adapgla import AdapGLA
from model.graph_learners import PRIOR_EDGE, build_learner
from model.network import Shape
from model.networks import build_network
from model.settings import LearnerSettings, TrainSettings
from model.trainer import Trainer
from model.windows import Windows

EDGES = ((0, 1), (0, 2), (1, 3), (2, 4))
SIZES = {
    "graph_channels": 16,
    "time_channels": 16,
    "order": 2,
    "kernel": 3,
    "blocks": 1,
    "attention": True,
}
BOUNDS = (1200, 1800)


def call_graph(services: int = 5, edges: tuple[tuple[int, int], ...] = EDGES) -> Tensor:
    """Row = caller."""
    graph = torch.zeros(services, services)
    for caller, callee in edges:
        graph[caller, callee] = 1
    return graph


def road(services: int, seed: int = 0) -> torch.Tensor:
    """Points in a square, joined with their four nearest in both directions: cycles everywhere."""
    points = torch.rand(services, 2, generator=torch.Generator().manual_seed(seed))
    apart = torch.cdist(points, points).fill_diagonal_(torch.inf)
    near = torch.zeros(services, services)
    near.scatter_(1, apart.topk(min(4, services - 1), largest=False).indices, 1.0)
    return torch.maximum(near, near.T)


def cascade(length: int = 2400, services: int = 5, seed: int = 0) -> Windows:
    """What a callee needs next is what its callers were asked for a step ago: nothing else tells it."""
    generator = torch.Generator().manual_seed(seed)
    load, state = torch.zeros(length, services), torch.zeros(services)
    for row in range(length):
        state = 0.7 * state + 0.7 * torch.randn(services, generator=generator)
        load[row] = state
    label = torch.zeros(length, services)
    label[1:] = 0.3 * load[:-1]
    for caller, callee in EDGES:
        label[1:, callee] += load[:-1, caller]
    label = (label - label.mean(0)) / label.std(0)
    noise = 0.1 * torch.randn(length, services, generator=generator)
    return Windows(torch.stack([load, noise], -1), label, window=6, horizon=1, dilation=1)


def learner_settings(**changes: Any) -> LearnerSettings:
    """The defaults, changed by name."""
    return fill(LearnerSettings, Graph.model_validate(changes))


def trainer_settings(**changes: Any) -> TrainSettings:
    """The defaults, changed by name: of `train`, of its optimiser, and of `graph` as `graph_<name>`."""
    parts: dict[str, dict[str, Any]] = {"optimiser": {}, "graph": {}, "train": {}}
    for name, value in changes.items():
        if name in Optimiser.model_fields:
            parts["optimiser"][name] = value
        elif name.startswith("graph_"):
            parts["graph"][name.removeprefix("graph_")] = value
        else:
            parts["train"][name] = value
    train = {**parts["train"], "optimiser": parts["optimiser"], "graph": parts["graph"]}
    return fill(TrainSettings, Train.model_validate(train), DataSettings())


def make_trainer(
    prior: Tensor | None = None, *, windows: Windows | None = None, learner: str = "gates", **changes: Any
) -> Trainer:
    """A trainer of a small AdapGLA on `cascade`."""
    small = {"num_epoch": 3, "num_iter": 4, "learning_rate": 5e-3, "graph_learning_rate": 5e-2}
    settings = trainer_settings(**{**small, **changes})
    windows = windows or cascade()
    torch.manual_seed(settings.seed)
    network = build_network("AdapGLA", Shape(5, 2, 6, 1), SIZES)
    priors = {} if prior is None else {"call": prior}
    made = build_learner(learner, 5, priors, learner_settings())
    return Trainer(
        network,
        made,
        windows,
        training=torch.arange(5, BOUNDS[0] - 1),
        validation=torch.arange(BOUNDS[0] + 5, BOUNDS[1] - 1),
        settings=settings,
        priors=[made.given(graph, PRIOR_EDGE) for graph in priors.values()],
    )


def make_dataset(services: int = 5, length: int = 2400, window: int = 6, **meta: Any) -> Dataset:
    """`cascade` in raw units, services hundredfold apart; labels are replicas."""
    windows = cascade(length)
    scale = np.array([100.0, 1.0, 10.0, 0.1, 1.0])[None, :, None]
    series = np.concatenate(
        [windows.labels.numpy()[..., None] + 3, windows.series.numpy() * scale + 5 * scale], axis=2
    ).astype(np.float32)
    labels = np.round(windows.labels.numpy() * 1.5 + 5).clip(1).astype(np.float32)
    bounds = (length // 2, length * 3 // 4)
    described = {
        "app": "toy",
        "services": ["web", "cart", "pay", "db", "mail"][:services],
        "features": ["pod", "req", "cpu"],
        "units": ["count", "1/s", "ratio"],
        "step": 60.0,
        "base_step": 60.0,
        "window": window,
        "horizon": 1,
        "label": "required",
        "lead": 60.0,
        "demand": None,
        "source": {"file": "toy"},
        "settings": {},
        "version": 1,
        **meta,
    }
    normalizer = Normalizer.fit(series[: bounds[0], :services], labels[: bounds[0], :services])
    priors = {"call": call_graph().numpy()[:services, :services]}
    return Dataset(
        60.0 * np.arange(1, length + 1),
        series[:, :services],
        labels[:, :services],
        bounds,
        normalizer,
        described,
        priors,
    )


def small_settings(**changes: Any) -> tuple[ModelConfig, Train]:
    """Settings of a training of seconds."""
    train = {"num_epoch": 1, "num_iter": 2, "random_graphs": 1, "refit_epochs": 0, **changes}
    return ModelConfig.model_validate(
        {"AdapGLA": SIZES, "dataset": {"device": "cpu", "threads": 1}}
    ), Train.model_validate(train)


def permuted_copy(network: AdapGLA, order: Tensor) -> AdapGLA:
    """The same network for services in another order: per-service parameters follow them."""
    import copy

    again = copy.deepcopy(network)
    with torch.no_grad():
        for block in again.blocks:
            block.attention.over_services.copy_(block.attention.over_services[order])
            block.attention.features_to_services.copy_(block.attention.features_to_services[:, order])
    return again
