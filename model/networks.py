"""The networks by name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from model.adapgla import AdapGLA
from model.adapglq import AdapGLQ
from model.adapgls import AdapGLS
from model.adapglt import AdapGLT
from model.convolutional import ASTGCN, GCN
from model.diffusion import DCRNN, AdapGLD
from model.linear import AR
from model.naive import KnownNow, Persistence, SeasonalNaive
from model.network import Network, Shape
from model.recurrent import LSTM
from model.stid import STID

NETWORKS: dict[str, type[Network]] = {
    "AdapGLA": AdapGLA,
    "AdapGLT": AdapGLT,
    "AdapGLD": AdapGLD,
    "AdapGLS": AdapGLS,
    "AdapGLQ": AdapGLQ,
    "Persistence": Persistence,
    "SeasonalNaive": SeasonalNaive,
    "KnownNow": KnownNow,
    "AR": AR,
    "STID": STID,
    "LSTM": LSTM,
    "GCN": GCN,
    "ASTGCN": ASTGCN,
    "DCRNN": DCRNN,
}
"""Every `--model_name`."""


def build_network(name: str, shape: Shape, sizes: Mapping[str, float]) -> Network:
    """The network `name` with its hyper-parameters `sizes`, on fresh parameters.

    Raises:
        ValueError: the name is unknown, or the sizes don't make a network.
    """
    if name not in NETWORKS:
        raise ValueError(f"network {name!r} is unknown; allowed: {', '.join(NETWORKS)}")
    return NETWORKS[name](shape, **sizes)


def parameter_count(module: nn.Module) -> int:
    """How many trainable numbers a module has."""
    return sum(parameter.numel() for parameter in module.parameters())
