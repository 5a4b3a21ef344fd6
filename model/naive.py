"""Forecasts that need no training: what was needed last, and what was needed a season ago."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from model.layers import Graphs
from model.network import Network, Shape
from model.windows import Known


class Persistence(Network):
    """The label known last, for every step of the horizon.

    An observed label is known up to now. A `required` label looks ahead by its lead, so the newest complete
    one is older. The pod feature would be no fair stand-in: under an exploring policy it says what was tried,
    not what was needed.
    """

    graph_use: ClassVar[Literal["learned", "static", "none"]] = "none"
    uses_known: ClassVar[bool] = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.horizon = shape.horizon

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`; without `known` the training mean."""
        if known is None:
            return x.new_zeros(len(x), self.horizon, x.shape[2])
        return known.past[:, -1:].expand(-1, self.horizon, -1)


class KnownNow(Persistence):
    """What is known now of the next label, for every step of the horizon.

    A `required` label covers minutes behind as well as ahead, so a part of it is known without any forecast.
    Rounded up it is what a network has to beat. With other labels it is the newest complete one.
    """

    unrounded: ClassVar[bool] = True

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`; without `known` the training mean."""
        if known is None:
            return x.new_zeros(len(x), self.horizon, x.shape[2])
        return known.recent[:, -1:].expand(-1, self.horizon, -1)


class SeasonalNaive(Persistence):
    """The mean label of up to three earlier cycles of the season; persistence where there is none."""

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`."""
        last = super().forward(x, graphs, known)
        return last if known is None else torch.where(known.season_ahead.isnan(), last, known.season_ahead)
