"""AdapGLQ, this project's own network for scenarios: quantiles of each label at every step ahead.

It sees the past labels of all services as shares of their recent level, and that level, since a load near
its usual peak goes on differently. Each service's state mixes with those of its callers and callees. A head
gives quantiles of the change from now at some steps ahead; between them they are interpolated. Moments are
told alike by the states before the head.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.adapgls import Mixing, bounded
from model.joint import LEVELS
from model.layers import Graphs
from model.network import LEAST_LEVEL, Network, Shape
from model.windows import Known, Windows, batches

KNOTS = (1, 2, 3, 4, 6, 8, 12, 16, 22, 30, 40, 60, 90, 130)
"""Steps ahead that the head gives quantiles for, up to the horizon, which is always one."""
NARROW = 3.0
"""Subtracted before the softplus of the gaps between quantiles: training starts from narrow ones."""
MEDIAN = LEVELS.index(0.5)
LATE = 4
"""The mean of this many newest steps is shown beside the window."""


class AdapGLQ(Network):
    """Quantiles at `LEVELS` of labels that can't be negative, such as request rates.

    Args:
        shape: of the data; features are ignored, past labels are what it sees.
        channels, blocks, dropout: sizes.
    """

    uses_known = True
    quantiles = LEVELS

    def __init__(self, shape: Shape, *, channels: int, blocks: int, dropout: float) -> None:
        super().__init__()
        knots = [knot for knot in KNOTS if knot < shape.horizon] + [shape.horizon]
        self.horizon, self.knots = shape.horizon, len(knots)
        self.enter = nn.Linear(shape.window + 3, channels)
        self.service = nn.Parameter(torch.zeros(shape.services, channels))
        self.blocks = nn.ModuleList(Mixing(channels=channels, dropout=dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, self.knots * len(LEVELS))
        self.register_buffer("between", _between(knots), persistent=False)  # [H, K + 1]
        self.register_buffer("steps", torch.tensor(knots), persistent=False)  # [K]
        self.register_buffer("zero", torch.zeros(shape.services))
        self.register_buffer("peak", torch.zeros(()))  # of the sum of all services; 0: unknown
        self.between: Tensor
        self.steps: Tensor
        self.zero: Tensor
        self.peak: Tensor

    @torch.no_grad()
    def prepare(self, windows: Windows, training: Tensor, validation: Tensor) -> None:
        """Keep where 0 lies among the z-scores of each service, and how high their sum rises."""
        if windows.zero is not None:
            self.zero.copy_(windows.zero)
        totals = (windows.filled[training] - self.zero).clamp(min=0).sum(dim=1)
        if len(totals):
            self.peak.copy_(totals.max())

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """The medians, `[B, H, N]`; see `Network.forward`."""
        return self.grid(graphs, self._past(x, known))[MEDIAN]

    def loss(self, x: Tensor, graphs: Graphs, known: Known, target: Tensor) -> tuple[Tensor, int]:
        """Pinball loss at the knots, summed over the known labels and averaged over the levels."""
        made = self._at_knots(graphs, self._past(x, known))  # [Q, B, K, N]
        target = target[:, self.steps - 1]  # [B, K, N]
        there = torch.isfinite(target)
        error = torch.where(there, torch.nan_to_num(target) - made, torch.zeros_like(made))
        levels = made.new_tensor(LEVELS)[:, None, None, None]
        pinball = torch.maximum(levels * error, (levels - 1) * error)
        return 2 * pinball.mean(dim=0).sum(), int(there.sum())

    def grid(self, graphs: Graphs, past: Tensor) -> Tensor:
        """Quantiles `[Q, B, H, N]`, rising in Q and never below 0 in the label's unit.

        Args:
            graphs: the pair that the learner shows.
            past: z-scored labels of the window `[B, T, N]`.
        """
        now = past[:, -1].clamp(min=self.zero)[None, :, None].expand(len(LEVELS), -1, -1, -1)  # [Q, B, 1, N]
        knots = torch.cat((now, self._at_knots(graphs, past)), dim=2)
        return torch.einsum("hk,qbkn->qbhn", self.between, knots)  # [Q, B, H, N]

    def _at_knots(self, graphs: Graphs, past: Tensor) -> Tensor:
        """Quantiles `[Q, B, K, N]` at the knots."""
        values = (past - self.zero).clamp(min=0)  # [B, T, N]
        now, level = values[:, -1], _level(values)  # [B, N]
        raw = self.head(functional.gelu(self._state(graphs, values)))  # [B, N, K * Q]
        raw = raw.view(*raw.shape[:2], self.knots, len(LEVELS)).permute(3, 0, 2, 1)  # [Q, B, K, N]
        return (now[:, None] + level[:, None] * _rising(raw)).clamp(min=0) + self.zero

    def _state(self, graphs: Graphs, values: Tensor) -> Tensor:
        """What each service's labels `[B, T, N]`, counted from 0, say beside its neighbours', `[B, N, C]`."""
        now, level = values[:, -1], _level(values)  # [B, N]
        late = values[:, -LATE:].mean(dim=1)
        parts = [
            ((values - now[:, None]) / level[:, None]).transpose(1, 2),  # [B, N, T]
            ((late - now) / level)[..., None],
            bounded(now + self.zero)[..., None],
            bounded(level + self.zero)[..., None],
        ]
        state = self.enter(torch.cat(parts, dim=-1)) + self.service  # [B, N, C]
        for block in self.blocks:
            state = block(state, graphs)
        normed: Tensor = self.norm(state)
        return normed

    @torch.no_grad()
    def forecast(
        self, windows: Windows, graphs: Graphs, ends: Tensor, batch_size: int, quantile: float = 0.5
    ) -> Tensor:
        """One quantile, `[M, H, N]`; see `Network.forecast`."""
        return self.forecast_grid(windows, graphs, ends, batch_size)[LEVELS.index(quantile)]

    @torch.no_grad()
    def forecast_grid(self, windows: Windows, graphs: Graphs, ends: Tensor, batch_size: int) -> Tensor:
        """All quantiles, `[Q, M, H, N]`; see `Network.forecast_grid`."""
        self.eval()
        made = [self.grid(graphs, windows.known(part).past) for part in batches(ends, batch_size)]
        return torch.cat(made, dim=1)

    @torch.no_grad()
    def states(self, windows: Windows, graphs: Graphs, ends: Tensor, batch_size: int) -> Tensor:
        """The mean of all services' states, `[M, C]`; see `Network.states`.

        A window whose peak is above the training's is seen as one with that peak: what follows it is alike in
        shares of the level, and moments so high weren't there to be recalled.
        """
        self.eval()
        made = []
        for part in batches(ends, batch_size):
            values = (windows.known(part).past - self.zero).clamp(min=0)  # [B, T, N]
            highest = values.sum(dim=2).amax(dim=1)
            beyond = (self.peak > 0) & (highest > self.peak)
            share = torch.where(beyond, self.peak / highest, 1.0)[:, None, None]
            made.append(self._state(graphs, values * share).mean(dim=1))
        return torch.cat(made)

    def _past(self, x: Tensor, known: Known | None) -> Tensor:
        return torch.zeros_like(x[..., 0]) if known is None else known.past


def _level(values: Tensor) -> Tensor:
    return values.mean(dim=1).clamp(min=LEAST_LEVEL)


def _rising(raw: Tensor) -> Tensor:
    """Values that rise in dim 0: the median as it is, each other one a gap away from its neighbour."""
    gaps = functional.softplus(raw - NARROW)
    above = raw[MEDIAN] + gaps[MEDIAN + 1 :].cumsum(dim=0)
    below = raw[MEDIAN] - gaps[:MEDIAN].flip(0).cumsum(dim=0).flip(0)
    return torch.cat((below, raw[MEDIAN : MEDIAN + 1], above))


def _between(knots: list[int]) -> Tensor:
    """`[H, K + 1]`: weights of now and of the knots at each step ahead, for values between the knots."""
    edges = [0, *knots]
    weights = torch.zeros(knots[-1], len(edges))
    for index, (low, high) in enumerate(pairwise(edges)):
        share = torch.arange(1, high - low + 1) / (high - low)
        weights[low:high, index] = 1 - share
        weights[low:high, index + 1] = share
    return weights
