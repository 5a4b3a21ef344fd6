"""Windows gathered from the series when asked for: memory grows with the series, not with series x window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Known(NamedTuple):
    """What is known of the T steps of a window and of the A steps after it.

    Attributes:
        season: `[B, T + A, N]`: what the label's anchor was in earlier cycles of its season, z-scored as labels are; NaN where
            there is none.
        clock: `[B, T + A]`: share of the day (UTC) that has passed.
    """

    season: Tensor
    clock: Tensor


class Anchor(NamedTuple):
    """What is needed *now*, in the label's z-units: `gain * x[..., column] + offset` of a z-scored window.

    The labelled feature itself; of `required` labels the replicas that the present request rate takes.

    Attributes:
        column: of the feature.
        gain, offset: `[N]`.
    """

    column: int
    gain: Tensor
    offset: Tensor

    def of(self, x: Tensor) -> Tensor:
        """x `[..., N, F]` -> `[..., N]`."""
        return torch.addcmul(self.offset, x[..., self.column], self.gain)


@dataclass(frozen=True, eq=False)
class Windows:
    """A z-scored series and its labels; a window is named by the row it ends at.

    Attributes:
        series: `[L, N, F]`; what is missing is 0, the training mean.
        labels: `[L, N]`, z-scored; NaN where unknown.
        window, horizon: T and H.
        dilation: rows a step.
        lead: steps that a label looks beyond its own.
        anchor: see `Anchor`; None where the label has none.
        season: `[L + dilation * A, N]`, see `Known`; None: no season.
        clock: `[L + dilation * A]`; None: unknown, 0.
    """

    series: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    window: int
    horizon: int
    dilation: int
    lead: int = 0
    anchor: Anchor | None = field(default=None, repr=False)
    season: Tensor | None = field(default=None, repr=False)
    clock: Tensor | None = field(default=None, repr=False)

    def inputs(self, ends: Tensor) -> Tensor:
        """x `[B, T, N, F]` of windows that end at rows `ends [B]`."""
        behind = self.dilation * torch.arange(self.window - 1, -1, -1, device=ends.device)
        return self.series[ends[:, None] - behind]

    def known(self, ends: Tensor) -> Known:
        """Of the same windows, up to the last step that their labels depend on."""
        steps = self.dilation * torch.arange(1 - self.window, self.horizon + self.lead + 1, device=ends.device)
        rows = ends[:, None] + steps  # [B, T + A]
        nothing = (*rows.shape, self.series.shape[1])
        season = self.series.new_full(nothing, torch.nan) if self.season is None else self.season[rows]
        return Known(season, self.series.new_zeros(rows.shape) if self.clock is None else self.clock[rows])

    def targets(self, ends: Tensor) -> Tensor:
        """Labels `[B, H, N]` of the steps after `ends`; NaN where unknown."""
        ahead = self.dilation * torch.arange(1, self.horizon + 1, device=ends.device)
        return self.labels[ends[:, None] + ahead]


def batches(ends: Tensor, size: int, shuffle_seed: int | None = None) -> Iterator[Tensor]:
    """`ends` in batches; shuffled by a generator of its own where a seed is given."""
    if shuffle_seed is not None:
        order = torch.randperm(len(ends), generator=torch.Generator().manual_seed(shuffle_seed))
        ends = ends[order.to(ends.device)]
    for start in range(0, len(ends), size):
        yield ends[start : start + size]


def absolute_error(predicted: Tensor, target: Tensor) -> tuple[Tensor, int]:
    """Sum of |error| over the known labels, and their number."""
    known = torch.isfinite(target)
    error = torch.where(known, predicted - torch.nan_to_num(target), torch.zeros_like(predicted))
    return error.abs().sum(), int(known.sum())
