"""AdapGLA: attention over time, graph convolution, temporal convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.layers import (
    DirectedGraphConvolution,
    Graphs,
    Polynomials,
    TemporalAttention,
    TemporalConvolution,
    polynomials,
)
from model.network import Network, Shape
from model.windows import Known


class AttentionBlock(nn.Module):
    """Temporal attention, graph convolution, temporal convolution; LayerNorm(ReLU(. + 1x1 of the input))."""

    def __init__(
        self,
        *,
        services: int,
        window: int,
        features: int,
        graph_channels: int,
        time_channels: int,
        order: int,
        kernel: int,
        attention: bool,
    ) -> None:
        super().__init__()
        self.attention = (
            TemporalAttention(services=services, window=window, features=features)
            if attention
            else nn.Identity()
        )
        self.graph = DirectedGraphConvolution(features=features, channels=graph_channels, order=order)
        self.time = TemporalConvolution(inputs=graph_channels, channels=time_channels, kernel=kernel)
        self.residual = nn.Linear(features, time_channels)
        self.norm = nn.LayerNorm(time_channels)

    def forward(self, x: Tensor, terms: Polynomials) -> Tensor:
        """`[B, T, N, C]` from x `[B, T, N, F]`."""
        out: Tensor = self.norm(
            functional.relu(self.time(self.graph(self.attention(x), terms)) + self.residual(x))
        )
        return out


class AdapGLA(Network):
    """Attention, directed graph convolution and temporal convolution, twice; one linear map as head.

    Source: DeepScaler (Meng et al., ASE 2023), section on the attention-based model.

    Args:
        shape: of the data.
        graph_channels, time_channels, order, kernel, blocks: sizes.
        attention: False: without attention over time, for comparison.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        graph_channels: int,
        time_channels: int,
        order: int,
        kernel: int,
        blocks: int,
        attention: bool,
    ) -> None:
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
                attention=attention,
            )
            for width in widths[:-1]
        )
        self.head = nn.Linear(shape.window * widths[-1], shape.horizon)

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`."""
        terms = polynomials(graphs, self.order)
        for block in self.blocks:
            x = block(x, terms)  # [B, T, N, C]
        weight = self.head.weight.view(len(self.head.weight), x.shape[1], x.shape[3])  # [H, T, C]
        return torch.einsum("btnc,htc->bhn", x, weight) + self.head.bias[:, None]
