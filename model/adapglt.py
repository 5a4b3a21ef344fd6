"""AdapGLT: graph convolution, then a GRU over time, then attention over the window's steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from model.layers import DirectedGraphConvolution, Graphs, Polynomials, polynomials
from model.network import Network, Shape
from model.recurrence import Weights, unroll
from model.windows import Known


class SharedGRU(nn.Module):
    """A GRU over time that all services share.

    Gates and candidate are linear maps of [x, h], with one bias each.

    Source: T-GCN, Zhao et al. 2020, equations 4-7.
    (torch.nn.GRU resets after the recurrent map and has two biases.)
    """

    def __init__(self, *, inputs: int, channels: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs + channels)
        self.inputs = nn.Parameter(torch.empty(inputs, 3 * channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(
            torch.cat((torch.ones(2 * channels), torch.zeros(channels)))
        )  # gates open at first
        self.gates = nn.Parameter(torch.empty(channels, 2 * channels).uniform_(-bound, bound))
        self.candidate = nn.Parameter(torch.empty(channels, channels).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """States `[T, M, C]` from x `[T, M, F]`."""
        start, none = x.new_zeros(x.shape[1], len(self.candidate)), x.new_zeros(0, 1, 1)
        return unroll(x, start, Weights(self.inputs, self.bias, self.gates[None], self.candidate[None]), none)


class StepAttention(nn.Module):
    """A weight in 0..1 for each step of the window, from the means of all steps: T -> 2T -> T.

    Source: squeeze-and-excitation, Hu et al. 2018, section 3, over steps in place of channels.
    Differs: widens to 2T where the source narrows.
    """

    def __init__(self, *, window: int) -> None:
        super().__init__()
        self.widen = nn.Linear(window, 2 * window, bias=False)
        self.narrow = nn.Linear(2 * window, window, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, N, C]` from x of the same shape."""
        means = x.mean(dim=(2, 3)).T  # [B, T]
        weights = torch.sigmoid(self.narrow(torch.relu(self.widen(means)))).T  # [T, B]
        return x * weights[:, :, None, None]


class RecurrentBlock(nn.Module):
    """LayerNorm(attention(GRU(graph convolution)))."""

    def __init__(
        self, *, window: int, features: int, graph_channels: int, time_channels: int, order: int
    ) -> None:
        super().__init__()
        self.graph = DirectedGraphConvolution(features=features, channels=graph_channels, order=order)
        self.time = SharedGRU(inputs=graph_channels, channels=time_channels)
        self.attention = StepAttention(window=window)
        self.norm = nn.LayerNorm(time_channels)

    def forward(self, x: Tensor, terms: Polynomials) -> Tensor:
        """`[T, B, N, C]` from x `[T, B, N, F]`."""
        mixed = self.graph(x, terms)
        states = self.time(mixed.flatten(1, 2)).view(*x.shape[:3], -1)
        out: Tensor = self.norm(self.attention(states))
        return out


class AdapGLT(Network):
    """Directed graph convolution, GRU and attention over steps, twice; one linear map as head.

    Time comes first inside, so that a step of the recurrence is contiguous.
    Source: DeepScaler (Meng et al., ASE 2023), section on the T-GCN-based model.
    """

    def __init__(
        self, shape: Shape, *, graph_channels: int, time_channels: int, order: int, blocks: int
    ) -> None:
        super().__init__()
        self.order = order
        widths = [shape.features] + [time_channels] * blocks
        self.blocks = nn.ModuleList(
            RecurrentBlock(
                window=shape.window,
                features=width,
                graph_channels=graph_channels,
                time_channels=time_channels,
                order=order,
            )
            for width in widths[:-1]
        )
        self.head = nn.Linear(shape.window * widths[-1], shape.horizon)

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`."""
        terms = polynomials(graphs, self.order)
        x = x.transpose(0, 1).contiguous()  # [T, B, N, F]
        for block in self.blocks:
            x = block(x, terms)  # [T, B, N, C]
        weight = self.head.weight.view(len(self.head.weight), len(x), -1).permute(1, 2, 0)  # [T, C, H]
        out = torch.bmm(x.flatten(1, 2), weight).sum(dim=0) + self.head.bias  # [B * N, H]
        return out.view(*x.shape[1:3], -1).transpose(1, 2)
