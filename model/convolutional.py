"""Convolutional networks on a graph that is given: GCN and ASTGCN."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.layers import Graphs, TemporalAttention, TemporalConvolution, chebyshev_terms
from model.network import Network, Shape
from model.windows import Known


def symmetric_adjacency(graphs: Graphs, *, self_loops: bool) -> Tensor:
    """`D^-1/2 A D^-1/2` of the undirected graph, `[N, N]`; rows without edges are zero.

    An edge counts in both directions, with the larger weight of the two.
    """
    adjacency = torch.maximum(graphs.down, graphs.down.T)
    if self_loops:
        adjacency = adjacency + torch.eye(len(adjacency), dtype=adjacency.dtype, device=adjacency.device)
    degree = adjacency.sum(dim=1)
    scale = torch.where(degree > 0, degree.clamp(min=1e-12).rsqrt(), torch.zeros_like(degree))
    return scale[:, None] * adjacency * scale


class GCN(Network):
    """Graph convolutions over services whose channels are the flattened window; a linear head.

    Source: Kipf and Welling 2017, equation 2.
    """

    graph_use: ClassVar = "static"

    def __init__(self, shape: Shape, *, channels: int, layers: int) -> None:
        super().__init__()
        widths = [shape.window * shape.features] + [channels] * layers
        self.maps = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.head = nn.Linear(channels, shape.horizon)

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`."""
        adjacency = symmetric_adjacency(graphs, self_loops=True)
        hidden = x.transpose(1, 2).flatten(2)  # [B, N, T * F]
        for layer in self.maps:
            hidden = torch.relu(adjacency @ layer(hidden))  # [B, N, C]
        out: Tensor = self.head(hidden)
        return out.transpose(1, 2)


class SpatialAttention(nn.Module):
    """Weights between services, `[B, N, N]`.

    They are softmax(V_s sigmoid((x w1) W2 (w3 x)ᵀ + b_s)) over the last axis.

    Source: ASTGCN, Guo et al. 2019, section 4.1 (spatial attention).
    """

    def __init__(self, *, services: int, window: int, features: int) -> None:
        super().__init__()
        self.over_window = nn.Parameter(torch.empty(window))
        self.features_to_window = nn.Parameter(torch.empty(features, window))
        self.over_features = nn.Parameter(torch.empty(features))
        self.bias = nn.Parameter(torch.zeros(services, services))
        self.value = nn.Parameter(torch.empty(services, services))
        for parameter, fan in (
            (self.over_window, window),
            (self.features_to_window, features),
            (self.over_features, features),
        ):
            nn.init.uniform_(parameter, -1 / math.sqrt(fan), 1 / math.sqrt(fan))
        nn.init.xavier_uniform_(self.value)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, N]` from x `[B, T, N, F]`, row = receiver."""
        left = torch.einsum("btnf,t->bnf", x, self.over_window) @ self.features_to_window  # [B, N, T]
        right = x @ self.over_features  # [B, T, N]
        return torch.softmax(self.value @ torch.sigmoid(self.bias + left @ right), dim=-1)


class ChebyshevAttention(nn.Module):
    """A Chebyshev convolution whose terms are weighted by an attention S: ReLU(Σ_k (T_k ⊙ S) x W_k).

    Source: ASTGCN, Guo et al. 2019, section 4.2.
    """

    def __init__(self, *, features: int, channels: int, order: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / (order * features + channels))
        self.weight = nn.Parameter(torch.empty(order, features, channels).uniform_(-bound, bound))

    def forward(self, x: Tensor, terms: Tensor, attention: Tensor) -> Tensor:
        """`[B, T, N, C]` from x `[B, T, N, F]`, terms `[K, N, N]`, attention `[B, N, N]`."""
        batch, window, services, features = x.shape
        beside = x.transpose(1, 2).reshape(
            batch, services, -1
        )  # [B, N, T * F]: one product per sample, not one per step
        narrow, total = (
            features <= self.weight.shape[-1],
            x.new_zeros(()),
        )  # mix services on the narrower side of the linear map
        for term, weight in zip(terms, self.weight, strict=True):
            mixing = term * attention  # [B, N, N]
            if narrow:
                one = (mixing @ beside).view(batch, services, window, features) @ weight
            else:
                one = (
                    mixing @ (beside.view(batch, services, window, features) @ weight).flatten(2)
                ).unflatten(2, (window, -1))
            total = total + one  # [B, N, T, C]
        total = total.transpose(1, 2)
        return torch.relu(total)


class AttentiveBlock(nn.Module):
    """Attention over time and services, graph convolution, temporal convolution.

    The output is LayerNorm(ReLU(. + 1x1 of the input)).
    """

    def __init__(
        self, *, services: int, window: int, features: int, channels: int, order: int, kernel: int
    ) -> None:
        super().__init__()
        self.over_time = TemporalAttention(services=services, window=window, features=features)
        self.over_services = SpatialAttention(services=services, window=window, features=features)
        self.graph = ChebyshevAttention(features=features, channels=channels, order=order)
        self.time = TemporalConvolution(inputs=channels, channels=channels, kernel=kernel)
        self.residual = nn.Linear(features, channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, terms: Tensor) -> Tensor:
        """`[B, T, N, C]` from x `[B, T, N, F]`."""
        attended = self.over_time(x)
        mixed = self.graph(attended, terms, self.over_services(attended))
        out: Tensor = self.norm(functional.relu(self.time(mixed) + self.residual(x)))
        return out


class ASTGCN(Network):
    """Blocks with attention over time and services on a graph that is given; one linear map as head.

    Source: ASTGCN, Guo et al. 2019, its recent component.
    Differs: the largest eigenvalue of the Laplacian is taken as its bound 2; both convolutions see the window
    after temporal attention, as in the paper's text.
    """

    graph_use: ClassVar = "static"

    def __init__(self, shape: Shape, *, channels: int, order: int, kernel: int, blocks: int) -> None:
        super().__init__()
        self.order = order
        widths = [shape.features] + [channels] * blocks
        self.blocks = nn.ModuleList(
            AttentiveBlock(
                services=shape.services,
                window=shape.window,
                features=width,
                channels=channels,
                order=order,
                kernel=kernel,
            )
            for width in widths[:-1]
        )
        self.head = nn.Linear(shape.window * channels, shape.horizon)

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`."""
        laplacian = -symmetric_adjacency(graphs, self_loops=False)  # 2 L / 2 - I
        identity = torch.eye(len(laplacian), dtype=laplacian.dtype, device=laplacian.device)
        terms = torch.cat((identity[None], chebyshev_terms(laplacian, self.order)))  # [K, N, N]
        for block in self.blocks:
            x = block(x, terms)  # [B, T, N, C]
        weight = self.head.weight.view(len(self.head.weight), x.shape[1], x.shape[3])  # [H, T, C]
        return torch.einsum("btnc,htc->bhn", x, weight) + self.head.bias[:, None]
