"""The networks by name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from model.adapgla import AdapGLA
from model.naive import Persistence, SeasonalNaive
from model.network import Network, Shape

NETWORKS: dict[str, type[Network]] = {"AdapGLA": AdapGLA, "Persistence": Persistence, "SeasonalNaive": SeasonalNaive}
"""Every `--model_name`."""


def build_network(name: str, shape: Shape, sizes: Mapping[str, int]) -> Network:
    """The network `name` with its hyper-parameters `sizes`, on fresh parameters.

    Raises:
        ValueError: unknown name, or sizes that can't be.
    """
    if name not in NETWORKS:
        raise ValueError(f"network {name!r} is unknown; allowed: {', '.join(NETWORKS)}")
    return NETWORKS[name](shape, **sizes)


def parameter_count(module: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in module.parameters())
