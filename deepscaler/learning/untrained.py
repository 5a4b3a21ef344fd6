"""A forecaster that was never trained, of any size: for measuring how long forecasts take."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from deepscaler.labels.demand import DemandModel
from deepscaler.learning.bundle import Bundle
from deepscaler.learning.dataset import Normalizer
from deepscaler.learning.forecaster import Forecaster
from deepscaler.learning.hyperparameters import network_sizes
from deepscaler.settings import ModelConfig, Settings
from model.network import Shape
from model.networks import build_network

CALLEES = 3
"""Services that each one calls, on average."""


def untrained_forecaster(
    network: str,
    settings: Settings,
    demand: DemandModel,
    *,
    window: int,
    channels: int,
    horizon: int = 1,
    scenarios: int = 0,
) -> Forecaster:
    """The network `network` with the weights that training begins with, for the services of the settings.

    Args:
        network: its name.
        settings: the application.
        demand: the fit that labels rest on.
        window: steps that it sees.
        channels: its size.
        horizon: steps that it forecasts.
        scenarios: above 0, the label is `offered`, and the bundle has so many templates of scenarios.
    """
    names, features = list(settings.app.services), settings.process.features
    sizes = network_sizes(ModelConfig(), network, channels=channels)
    torch.manual_seed(1)
    weights = build_network(network, Shape(len(names), len(features), window, horizon), sizes).state_dict()
    graph = (torch.rand(len(names), len(names)) < CALLEES / len(names)).float()
    blank, ones = np.zeros((len(names), len(features)), np.float32), np.ones(len(names), np.float32)
    meta: dict[str, Any] = {
        "app": settings.app.name,
        "services": names,
        "features": list(features),
        "step": settings.collect.step if scenarios else settings.process.step,
        "base_step": settings.collect.step,
        "window": window,
        "horizon": horizon,
        "label": "offered" if scenarios else "required",
        "lead": float(demand.boot_seconds.max() + settings.process.look_ahead),
        "demand": demand.to_dict(),
        "settings": settings.process.model_dump(mode="json"),
    }
    normalizer = Normalizer(blank, blank + 1, CALLEES * ones, ones)
    templates = torch.rand(scenarios, horizon, len(names)) if scenarios else None
    bundle = Bundle(network, sizes, weights, {}, graph, graph, graph, normalizer, meta, {}, {}, {}, templates)
    return Forecaster(bundle)
