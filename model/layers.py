"""Layers of the networks. One layout: x `[B, T, N, C]`; graphs `[N, N]`, row = caller, column = callee."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

NARROW, MANY = 16, 256
"""Columns below which, and rows from which, one product of all samples is faster than one per sample."""


class Graphs(NamedTuple):
    """The pair of graphs that a network sees, both `[N, N]` with row = caller.

    Attributes:
        up: by it a caller receives from its callees.
        down: by it a callee receives from its callers.
    """

    up: Tensor
    down: Tensor


class Polynomials(NamedTuple):
    """Chebyshev terms T_1..T_{K-1} of both directions, `[K-1, N, N]`, row = receiver; T_0 = I is left out."""

    up: Tensor
    down: Tensor


def chebyshev_terms(operator: Tensor, order: int) -> Tensor:
    """T_1..T_{order-1} of `operator [N, N]`: `[order-1, N, N]`; T_1 = A, T_k = 2 A T_{k-1} - T_{k-2}.

    Source: Defferrard et al. 2016, section 2.1, without rescaling.
    """
    size = operator.shape[0]
    if order < 2:
        return operator.new_zeros(0, size, size)
    before, terms = torch.eye(size, dtype=operator.dtype, device=operator.device), [operator]
    for _ in range(order - 2):
        latest = 2 * operator @ terms[-1] - before
        before = terms[-1]
        terms.append(latest)
    return torch.stack(terms)


def polynomials(graphs: Graphs, order: int) -> Polynomials:
    """The Chebyshev terms that all layers of one forward pass share."""
    return Polynomials(chebyshev_terms(graphs.up, order), chebyshev_terms(graphs.down.T, order))


class TemporalAttention(nn.Module):
    """`E x` over time, with E `[B, T, T]` from the window itself.

    E = softmax(V_e sigmoid(((xᵀ w1) W2) (w3 x) + b_e)), softmax over the last axis.
    Source: ASTGCN, Guo et al. 2019, section 4.1 (temporal attention).
    """

    def __init__(self, *, services: int, window: int, features: int) -> None:
        super().__init__()
        self.over_services = nn.Parameter(torch.empty(services))
        self.features_to_services = nn.Parameter(torch.empty(features, services))
        self.over_features = nn.Parameter(torch.empty(features))
        self.bias = nn.Parameter(torch.zeros(window, window))
        self.value = nn.Parameter(torch.empty(window, window))
        for parameter, fan in (
            (self.over_services, services),
            (self.features_to_services, features),
            (self.over_features, features),
        ):
            nn.init.uniform_(parameter, -1 / math.sqrt(fan), 1 / math.sqrt(fan))
        nn.init.xavier_uniform_(self.value)

    def weights(self, x: Tensor) -> Tensor:
        """E `[B, T, T]`."""
        left = torch.einsum("btnf,n->btf", x, self.over_services) @ self.features_to_services  # [B, T, N]
        right = x @ self.over_features  # [B, T, N]
        scores = torch.sigmoid(torch.baddbmm(self.bias, left, right.transpose(1, 2)))  # [B, T, T]
        return torch.softmax(self.value @ scores, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, N, F]` from x of the same shape."""
        return torch.bmm(self.weights(x), x.flatten(2)).view_as(x)


class DirectedGraphConvolution(nn.Module):
    """ReLU([Σ_k T_k(up) x W_k ‖ Σ_k T_k(downᵀ) x U_k]), half of the channels per direction.

    It has no bias. The k = 0 terms of both directions are one linear map. Terms are propagated before the
    linear map where that is the narrower side.
    Source: spectral graph convolution (Defferrard et al. 2016) on both directions, as in DeepScaler.
    """

    def __init__(self, *, features: int, channels: int, order: int) -> None:
        super().__init__()
        half = channels // 2
        if 2 * half != channels:
            raise ValueError(f"graph_channels: {channels} is odd, each direction takes half")
        bound = math.sqrt(6 / (order * features + half))
        self.own = nn.Parameter(torch.empty(features, channels).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.empty(order - 1, features, half).uniform_(-bound, bound))
        self.down = nn.Parameter(torch.empty(order - 1, features, half).uniform_(-bound, bound))

    def forward(self, x: Tensor, terms: Polynomials) -> Tensor:
        """`[B, T, N, C]` from x `[B, T, N, F]`."""
        if not len(self.up):
            return torch.relu(x @ self.own)
        mixed = (
            self._propagate_first(x, terms) if x.shape[-1] < self.up.shape[-1] else self._map_first(x, terms)
        )
        return torch.relu(mixed)

    def _propagate_first(self, x: Tensor, terms: Polynomials) -> Tensor:
        batch, window, services, features = x.shape
        stack = torch.cat((terms.up, terms.down)).transpose(0, 1).reshape(-1, services)  # [N * 2(K-1), N]
        sent = _mix(stack, x.reshape(batch * window, services, features))  # [B * T, N * 2(K-1), F]
        zero = torch.zeros_like(self.up)
        weight = torch.cat((torch.cat((self.up, zero), 2), torch.cat((zero, self.down), 2)))  # [2(K-1), F, C]
        every = torch.cat((x, sent.reshape(batch, window, services, -1)), dim=3)  # [B, T, N, (2K-1) F]
        return every @ torch.cat((self.own, weight.flatten(0, 1)))

    def _map_first(self, x: Tensor, terms: Polynomials) -> Tensor:
        batch, window, services, features = x.shape
        sides = []
        for weight, stack in ((self.up, terms.up), (self.down, terms.down)):
            flat = weight.transpose(0, 1).reshape(features, -1)  # [F, (K-1) * C/2]
            mapped = (x @ flat).view(batch * window, services * len(weight), -1)  # [B * T, N * (K-1), C/2]
            mixing = stack.permute(1, 2, 0).reshape(services, -1)  # [N, N * (K-1)]
            sides.append(_mix(mixing, mapped).reshape(batch, window, services, -1))
        return torch.cat(sides, dim=-1) + x @ self.own


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    """`matrix [R, M]` times each of `x [B, M, C]`: `[B, R, C]`.

    It is one product of all samples side by side where one per sample would be too narrow for its size.
    """
    if x.shape[2] >= NARROW and x.shape[1] < MANY:
        return torch.bmm(matrix.expand(len(x), *matrix.shape), x)
    beside = x.transpose(0, 1).reshape(x.shape[1], -1)  # [M, B * C]
    return (matrix @ beside).view(len(matrix), len(x), -1).transpose(0, 1)


class TemporalConvolution(nn.Module):
    """A convolution over T with same padding, for each service alone.

    Memory of `[B, T, N, C]` is channels-last for it.
    """

    def __init__(self, *, inputs: int, channels: int, kernel: int) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel: {kernel} is even, same padding needs an odd one")
        self.convolution = nn.Conv2d(inputs, channels, (kernel, 1), padding=(kernel // 2, 0))
        self.convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, N, C]` from x `[B, T, N, C_in]`."""
        out: Tensor = self.convolution(x.permute(0, 3, 1, 2))
        return out.permute(0, 2, 3, 1)
