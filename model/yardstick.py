"""AdapGLA and AdapGLT written plainly, layer by layer as their equations read.

The benchmark measures the networks against them.

Layout `[B, N, F, T]`; an N x N product for each step and term, before the linear map; NCHW convolutions with
transposes around them; a GRU stepped in Python. Built from a network of `model.adapgla` or `model.adapglt`,
with its parameters: outputs are equal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.adapgla import AdapGLA, AttentionBlock
from model.adapglt import AdapGLT, RecurrentBlock
from model.layers import DirectedGraphConvolution, Graphs, TemporalAttention
from model.network import Network
from model.windows import Known


def copied(value: Tensor) -> nn.Parameter:
    """A parameter of its own with these values."""
    return nn.Parameter(value.detach().clone(memory_format=torch.contiguous_format))


def bias_of(layer: nn.Conv2d) -> Tensor:
    """The bias of a convolution."""
    if layer.bias is None:
        raise ValueError("a convolution without bias")
    return layer.bias


def terms_of(operator: Tensor, order: int) -> list[Tensor]:
    """T_0..T_{order-1} of `operator`, each `[N, N]`."""
    terms = [torch.eye(len(operator), dtype=operator.dtype, device=operator.device), operator]
    while len(terms) < order:
        terms.append(2 * operator @ terms[-1] - terms[-2])
    return terms[:order]


class PlainGraphConvolution(nn.Module):
    """ReLU([Σ_k T_k(up) x W_k ‖ Σ_k T_k(downᵀ) x U_k])."""

    def __init__(self, fast: DirectedGraphConvolution) -> None:
        super().__init__()
        half = fast.own.shape[1] // 2
        self.up = copied(torch.cat((fast.own[None, :, :half], fast.up)))  # [K, F, C/2]
        self.down = copied(torch.cat((fast.own[None, :, half:], fast.down)))

    def forward(self, x: Tensor, graphs: Graphs) -> Tensor:
        """`[B, N, C, T]` from x `[B, N, F, T]`."""
        sides = []
        for weight, operator in ((self.up, graphs.up), (self.down, graphs.down.T)):
            terms, steps = terms_of(operator, len(weight)), []
            for signal in x.unbind(-1):  # [B, N, F]
                summed = torch.zeros((), dtype=x.dtype, device=x.device)
                for term, one in zip(terms, weight, strict=True):
                    summed = summed + torch.matmul(term, signal) @ one
                steps.append(summed)
            sides.append(torch.stack(steps, dim=-1))
        return torch.relu(torch.cat(sides, dim=2))


class PlainAttention(nn.Module):
    """`x E` over time."""

    def __init__(self, fast: TemporalAttention) -> None:
        super().__init__()
        self.over_services, self.over_features = copied(fast.over_services), copied(fast.over_features)
        self.features_to_services, self.bias, self.value = (
            copied(fast.features_to_services),
            copied(fast.bias),
            copied(fast.value),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, F, T]` from x of the same shape."""
        left = torch.matmul(
            torch.matmul(x.permute(0, 3, 2, 1), self.over_services), self.features_to_services
        )  # [B, T, N]
        right = torch.matmul(self.over_features, x)  # [B, N, T]
        weights = torch.softmax(
            torch.matmul(self.value, torch.sigmoid(torch.matmul(left, right) + self.bias)), dim=-1
        )
        mixed = torch.matmul(x.reshape(len(x), -1, x.shape[-1]), weights.transpose(1, 2))
        return mixed.reshape(x.shape)


class PlainAttentionBlock(nn.Module):
    """The block of AdapGLA."""

    def __init__(self, fast: AttentionBlock) -> None:
        super().__init__()
        if not isinstance(fast.attention, TemporalAttention):
            raise ValueError("the published block attends over time; build AdapGLA with attention=True")
        self.attention, self.graph = PlainAttention(fast.attention), PlainGraphConvolution(fast.graph)
        given = fast.time.convolution
        self.time = nn.Conv2d(
            given.in_channels,
            given.out_channels,
            (1, given.kernel_size[0]),
            padding=(0, int(given.padding[0])),
        )
        self.time.weight, self.time.bias = copied(given.weight.transpose(2, 3)), copied(bias_of(given))
        self.residual = nn.Conv2d(fast.residual.in_features, fast.residual.out_features, (1, 1))
        self.residual.weight, self.residual.bias = (
            copied(fast.residual.weight[:, :, None, None]),
            copied(fast.residual.bias),
        )
        self.norm = nn.LayerNorm(given.out_channels)
        self.norm.weight, self.norm.bias = copied(fast.norm.weight), copied(fast.norm.bias)

    def forward(self, x: Tensor, graphs: Graphs) -> Tensor:
        """`[B, N, C, T]` from x `[B, N, F, T]`."""
        mixed = self.graph(self.attention(x), graphs)
        moved = self.time(mixed.permute(0, 2, 1, 3)) + self.residual(x.permute(0, 2, 1, 3))  # [B, C, N, T]
        out: Tensor = self.norm(functional.relu(moved).permute(0, 3, 2, 1))  # [B, T, N, C]
        return out.permute(0, 2, 3, 1)


class PlainRecurrentBlock(nn.Module):
    """The block of AdapGLT."""

    def __init__(self, fast: RecurrentBlock) -> None:
        super().__init__()
        self.graph = PlainGraphConvolution(fast.graph)
        given, channels = fast.time, len(fast.time.candidate)
        self.gates = copied(torch.cat((given.inputs[:, : 2 * channels], given.gates)))  # [F + C, 2C]
        self.candidate = copied(torch.cat((given.inputs[:, 2 * channels :], given.candidate)))  # [F + C, C]
        self.gates_bias, self.candidate_bias = (
            copied(given.bias[: 2 * channels]),
            copied(given.bias[2 * channels :]),
        )
        self.widen, self.narrow = copied(fast.attention.widen.weight), copied(fast.attention.narrow.weight)
        self.norm = nn.LayerNorm(channels)
        self.norm.weight, self.norm.bias = copied(fast.norm.weight), copied(fast.norm.bias)

    def forward(self, x: Tensor, graphs: Graphs) -> Tensor:
        """`[B, N, C, T]` from x `[B, N, F, T]`."""
        mixed = self.graph(x, graphs)
        state, states = torch.zeros(*x.shape[:2], self.candidate.shape[1], dtype=x.dtype, device=x.device), []
        for now in mixed.unbind(-1):  # [B, N, F]
            gates = torch.sigmoid(torch.cat((now, state), dim=2) @ self.gates + self.gates_bias)
            reset, update = gates.chunk(2, dim=2)
            proposal = torch.tanh(
                torch.cat((now, reset * state), dim=2) @ self.candidate + self.candidate_bias
            )
            state = update * state + (1 - update) * proposal
            states.append(state)
        out = torch.stack(states, dim=1)  # [B, T, N, C]
        means = out.mean(dim=(2, 3))  # [B, T]
        weights = torch.sigmoid(
            functional.linear(functional.relu(functional.linear(means, self.widen)), self.narrow)
        )
        normed: Tensor = self.norm(out * weights[:, :, None, None])
        return normed.permute(0, 2, 3, 1)


class Plain(Network):
    """The blocks in turn, and the head as a convolution over all steps and channels."""

    def __init__(self, blocks: list[nn.Module], head: nn.Linear, window: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        weight = head.weight.view(head.out_features, window, 1, -1)  # [H, T, 1, C]
        self.head = nn.Conv2d(window, head.out_features, (1, weight.shape[-1]))
        self.head.weight, self.head.bias = copied(weight), copied(head.bias)

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`."""
        x = x.permute(0, 2, 3, 1)  # [B, N, F, T]
        for block in self.blocks:
            x = block(x, graphs)  # [B, N, C, T]
        out: Tensor = self.head(x.permute(0, 3, 1, 2))  # [B, H, N, 1]
        return out.squeeze(-1)


def yardstick(fast: Network, window: int) -> Plain | None:
    """The plain twin of a network, with its parameters; None where there is none."""
    if isinstance(fast, AdapGLA):
        return Plain([PlainAttentionBlock(block) for block in fast.blocks], fast.head, window)  # type: ignore[arg-type]
    if isinstance(fast, AdapGLT):
        return Plain([PlainRecurrentBlock(block) for block in fast.blocks], fast.head, window)  # type: ignore[arg-type]
    return None
