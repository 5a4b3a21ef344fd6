"""STID: a plain MLP that knows which service and what time of day it looks at."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from model.layers import Graphs
from model.network import Network, Shape
from model.windows import Known


class ResidualMLP(nn.Module):
    """x + W2 dropout(ReLU(W1 x))."""

    def __init__(self, *, channels: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(channels, channels)
        self.second = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., C]` from x of the same shape."""
        out: Tensor = x + self.second(self.dropout(torch.relu(self.first(x))))
        return out


class STID(Network):
    """The flattened window, an embedding of the service and one of the time of day, through residual MLPs.

    Source: Shao et al. 2022 (CIKM), section 3.
    Differs: no day-of-week embedding: recordings are of hours to days. Without a clock it is always midnight.
    """

    graph_use: ClassVar = "none"

    def __init__(self, shape: Shape, *, channels: int, layers: int, slots: int, dropout: float) -> None:
        super().__init__()
        self.window = nn.Linear(shape.window * shape.features, channels)
        self.service = nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape.services, channels)))
        self.time_of_day = nn.Parameter(nn.init.xavier_uniform_(torch.empty(slots, channels)))
        self.encoder = nn.Sequential(
            *(ResidualMLP(channels=3 * channels, dropout=dropout) for _ in range(layers))
        )
        self.head = nn.Linear(3 * channels, shape.horizon)

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`."""
        batch, _, services, _ = x.shape
        seen = self.window(x.transpose(1, 2).flatten(2))  # [B, N, C]
        slots = len(self.time_of_day)
        clock = x.new_zeros(batch) if known is None else known.clock
        slot = (clock * slots).long().clamp(0, slots - 1)  # [B]
        parts = (
            seen,
            self.service.expand(batch, -1, -1),
            self.time_of_day[slot][:, None].expand(-1, services, -1),
        )
        out: Tensor = self.head(self.encoder(torch.cat(parts, dim=-1)))  # [B, N, H]
        return out.transpose(1, 2)
