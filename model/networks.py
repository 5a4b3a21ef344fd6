"""The networks by name. All take x `[B, T, N, F]` and a pair of graphs and give z-scored labels `[B, H, N]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from model.layers import AttentionBlock, Graphs, polynomials


@dataclass(frozen=True)
class Shape:
    """Sizes that the data states."""

    services: int
    features: int
    window: int
    horizon: int

    def to_dict(self) -> dict[str, int]:
        """Plain values."""
        return asdict(self)


class AdapGLA(nn.Module):
    """Attention, directed graph convolution and temporal convolution, twice; one linear map as head.

    Source: DeepScaler (Meng et al., ASE 2023), section on the attention-based model.
    """

    def __init__(self, shape: Shape, *, graph_channels: int, time_channels: int, order: int, kernel: int, blocks: int) -> None:
        super().__init__()
        self.order = order
        widths = [shape.features] + [time_channels] * blocks
        self.blocks = nn.ModuleList(
            AttentionBlock(
                services=shape.services,
                window=shape.window,
                features=width,
                graph_channels=graph_channels,
                time_channels=time_channels,
                order=order,
                kernel=kernel,
            )
            for width in widths[:-1]
        )
        self.head = nn.Linear(shape.window * widths[-1], shape.horizon)

    def forward(self, x: Tensor, graphs: Graphs) -> Tensor:
        """x `[B, T, N, F]` -> `[B, H, N]`."""
        terms = polynomials(graphs, self.order)
        for block in self.blocks:
            x = block(x, terms)  # [B, T, N, C]
        weight = self.head.weight.view(len(self.head.weight), x.shape[1], x.shape[3])  # [H, T, C]
        return torch.einsum("btnc,htc->bhn", x, weight) + self.head.bias[:, None]


NETWORKS: dict[str, Callable[..., nn.Module]] = {"AdapGLA": AdapGLA}
"""Networks that are trained."""


def build_network(name: str, shape: Shape, sizes: Mapping[str, int]) -> nn.Module:
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
