"""A recurrent network without a graph."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from model.layers import Graphs
from model.network import Network, Shape
from model.windows import Known


class LSTM(Network):
    """An LSTM over time of all services jointly; a linear map of its last state forecasts all of them.

    Source: Hochreiter and Schmidhuber 1997, with forget gates (torch.nn.LSTM).
    """

    graph_use: ClassVar = "none"

    def __init__(self, shape: Shape, *, channels: int, layers: int) -> None:
        super().__init__()
        self.cells = nn.LSTM(shape.services * shape.features, channels, layers, batch_first=True)
        self.head = nn.Linear(channels, shape.horizon * shape.services)

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`; the cells in float32, which every processor has."""
        with torch.autocast(x.device.type, enabled=False):
            states, _ = self.cells(x.flatten(2).float())  # [B, T, C]
        out: Tensor = self.head(states[:, -1])  # [B, H * N]
        return out.view(len(x), -1, x.shape[2])
