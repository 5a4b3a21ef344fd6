"""STID: a plain MLP that knows which service and what time of day it looks at."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from model.layers import Graphs
from model.network import Network, Shape
from model.windows import Known, Windows

LEAST_DAYS = 3
"""Days on which training has to see a time of day for its embedding to count."""


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
    Differs: no day-of-week embedding: recordings are of hours to days. A time of day that training didn't see
    on `LEAST_DAYS` days has no embedding of its own: an effect that was never seen to return is no effect of
    the time of day. Such times share one.
    """

    graph_use: ClassVar = "none"

    def __init__(self, shape: Shape, *, channels: int, layers: int, slots: int, dropout: float) -> None:
        super().__init__()
        self.window = nn.Linear(shape.window * shape.features, channels)
        self.service = nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape.services, channels)))
        self.time_of_day = nn.Parameter(nn.init.xavier_uniform_(torch.empty(slots, channels)))
        self.anytime = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, channels)))
        self.covered: Tensor
        self.register_buffer("covered", torch.ones(slots))
        self.encoder = nn.Sequential(
            *(ResidualMLP(channels=3 * channels, dropout=dropout) for _ in range(layers))
        )
        self.head = nn.Linear(3 * channels, shape.horizon)

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`."""
        batch, _, services, _ = x.shape
        seen = self.window(x.transpose(1, 2).flatten(2))  # [B, N, C]
        slot = self._slots(x.new_zeros(batch) if known is None else known.clock)  # [B]
        times = self.anytime + self.covered[slot, None] * self.time_of_day[slot]  # [B, C]
        parts = (
            seen,
            self.service.expand(batch, -1, -1),
            times[:, None].expand(-1, services, -1),
        )
        out: Tensor = self.head(self.encoder(torch.cat(parts, dim=-1)))  # [B, N, H]
        return out.transpose(1, 2)

    def _slots(self, clock: Tensor) -> Tensor:
        """The slot of the day of each `clock [B]`."""
        slots = len(self.time_of_day)
        return (clock * slots).long().clamp(0, slots - 1)

    @torch.no_grad()
    def prepare(self, windows: Windows, training: Tensor, validation: Tensor) -> None:
        """Find the times of day that training sees on enough days."""
        if windows.clock is None:
            return
        slots, slot = len(self.time_of_day), self._slots(windows.clock)
        day = torch.cat((slot.new_zeros(1), (torch.diff(windows.clock) < 0).long())).cumsum(0)
        seen = torch.unique(day[training] * slots + slot[training]) % slots
        days = torch.bincount(seen, minlength=slots)
        self.covered.copy_(days >= LEAST_DAYS)
