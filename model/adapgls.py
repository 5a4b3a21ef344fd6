"""AdapGLS, this project's own: a small residual network on differences, a season it trusts as far as it fits, and a twin for shifts."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.layers import Graphs
from model.network import Network, Shape
from model.windows import Known

LEVELS = (0.5, 0.9)
SHARPNESS = 15.0
HALF_LIFE = 100


class Mixing(nn.Module):
    """A residual step per service: its own state, its callers' and its callees'."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.own = nn.Linear(channels, channels)
        self.up = nn.Linear(channels, channels, bias=False)
        self.down = nn.Linear(channels, channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, graphs: Graphs) -> Tensor:
        """h `[B, N, C]` -> same shape."""
        z = self.norm(h)
        mixed = self.own(z) + torch.einsum("ij,bjc->bic", graphs.up, self.up(z)) + torch.einsum("ji,bjc->bic", graphs.down, self.down(z))
        return h + self.out(self.dropout(functional.gelu(mixed)))


class Expert(nn.Module):
    def __init__(self, shape: Shape, channels: int, blocks: int, dropout: float, levels: bool) -> None:
        super().__init__()
        self.levels = levels
        self.horizon = shape.horizon
        width = (shape.features + 1) * shape.window + 2 * shape.horizon + (shape.features + 1 if levels else 0)
        self.embed = nn.Parameter(torch.randn(shape.services, channels) * 0.1)
        self.enter = nn.Linear(width, channels)
        self.blocks = nn.ModuleList(Mixing(channels, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, shape.horizon * len(LEVELS))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, graphs: Graphs, known: Known) -> Tensor:
        signals = torch.cat((x, known.past[..., None]), -1)  # [B, T, N, F+1]
        last = signals[:, -1]  # [B, N, F+1]
        diffs = (signals - last[:, None]).permute(0, 2, 1, 3).flatten(2)
        base = known.past[:, -1:]
        ahead = known.season_ahead - known.season_past[:, -1:]
        trust = torch.zeros_like(ahead)
        parts = [diffs, torch.nan_to_num(ahead).transpose(1, 2), trust.transpose(1, 2)]
        if self.levels:
            parts.append(2 * torch.tanh(last / 2))
        h = self.enter(torch.cat(parts, -1)) + self.embed
        for block in self.blocks:
            h = block(h, graphs)
        out = self.head(functional.gelu(self.norm(h)))  # [B, N, H*Q]
        out = out.view(*out.shape[:2], self.horizon, len(LEVELS)).permute(3, 0, 2, 1)  # [Q, B, H, N]
        median = base + out[0]
        return torch.stack((median, median + functional.softplus(out[1])))


class AdapGLS(Network):
    uses_known: ClassVar[bool] = True
    unrounded: ClassVar[bool] = True
    quantiles = LEVELS

    def __init__(self, shape: Shape, *, channels: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.full = Expert(shape, channels, blocks, dropout, True)
        self.twin = Expert(shape, channels, blocks, dropout, False)

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        return (self.full(x, graphs, known)[0] + self.twin(x, graphs, known)[0]) / 2

    def loss(self, x, graphs, known, target):
        mask = torch.isfinite(target)
        t = torch.nan_to_num(target)
        total = 0
        for e in (self.full, self.twin):
            q = e(x, graphs, known)
            for k, level in enumerate(LEVELS):
                err = t - q[k]
                total = total + (torch.maximum(level * err, (level - 1) * err) * mask).sum()
        return total, int(mask.sum())
