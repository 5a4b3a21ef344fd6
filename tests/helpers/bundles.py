"""A small bundle of known weights, written as training writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from deepscaler.learning.bundle import Bundle, save_bundle
from deepscaler.learning.dataset import Normalizer
from model.analogs import Moments
from model.joint import LEVELS
from model.network import Shape
from model.networks import build_network

SIZES = {"graph_channels": 4, "time_channels": 4, "order": 2, "kernel": 3, "blocks": 1, "attention": True}
FEATURES = ("pod", "cpu", "res", "req")


def write_bundle(
    path: Path,
    services: Sequence[str] = ("web", "api", "db"),
    means: Sequence[float] | None = None,
    features: Sequence[str] = FEATURES,
    **meta: object,
) -> Path:
    """An AdapGLA that forecasts the training means, whatever it sees.

    Args:
        path: of the `.pt`.
        services: their names.
        means: replicas by service; by default 1, 2, and so on.
        features: their names.
        meta: changes what the data set says about itself.
    """
    count, width = len(services), len(features)
    network = build_network("AdapGLA", Shape(count, width, 5, 1), SIZES)
    weights = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    blank, graph = np.zeros((count, width), np.float32), torch.zeros(count, count)
    levels = np.array(range(1, count + 1) if means is None else means, np.float32)
    whole = {
        **{"app": "shop", "services": list(services), "features": list(features), "step": 60.0},
        **{"base_step": 15.0, "window": 5, "horizon": 1, "label": "required", "lead": 0.0, "demand": None},
        **meta,
    }
    normalizer = Normalizer(blank, blank + 1, levels, np.ones(count, np.float32))
    save_bundle(
        Bundle("AdapGLA", SIZES, weights, {}, graph, graph, graph, normalizer, whole, {}, {}, {}), path
    )
    return path


def write_scenario_bundle(
    path: Path,
    demand: dict[str, object],
    services: Sequence[str] = ("web", "api", "db"),
    rises: float = 0.0,
    followed: float | None = None,
) -> Path:
    """An AdapGLQ whose scenarios start at the present rates, and spread by a share of the recent level.

    Args:
        path: of the `.pt`.
        demand: the demand fit.
        services: their names.
        rises: gap between neighbouring quantiles, as a share of the recent level.
        followed: what followed every moment of the training, likewise; None: no moments are kept.
    """
    count, sizes = len(services), {"channels": 4, "blocks": 1, "dropout": 0.0}
    network = build_network("AdapGLQ", Shape(count, 2, 4, 8), sizes)
    weights = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    gap = 3.0 + float(np.log(np.expm1(max(rises, 1e-6))))
    weights["head.bias"] = torch.full_like(weights["head.bias"], gap)
    weights["head.bias"].view(-1, len(LEVELS))[:, LEVELS.index(0.5)] = 0.0
    meta = {
        **{"app": "shop", "services": list(services), "features": ["req", "res"], "step": 15.0},
        **{"base_step": 15.0, "window": 4, "horizon": 8, "label": "offered", "lead": 0.0, "demand": demand},
    }
    blank, ones, graph = (
        np.zeros((count, 2), np.float32),
        np.ones(count, np.float32),
        torch.zeros(count, count),
    )
    normalizer = Normalizer(blank, blank + 1, 0 * ones, ones)
    places = torch.tensor([0.02, 0.5, 0.98])[:, None, None].expand(3, 8, count)
    moments = None if followed is None else Moments(torch.zeros(5, 4), torch.full((5, 8, count), followed))
    made = Bundle(
        "AdapGLQ", sizes, weights, {}, graph, graph, graph, normalizer, meta, {}, {}, {}, places, moments
    )
    save_bundle(made, path)
    return path
