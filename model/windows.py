"""Windows gathered from the series when asked for: memory grows with the series, not with series x window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Windows:
    """A z-scored series and its labels; a window is named by the row it ends at.

    Attributes:
        series: `[L, N, F]`; what is missing is 0, the training mean.
        labels: `[L, N]`, z-scored; NaN where unknown.
        window, horizon: T and H.
        dilation: rows a step.
    """

    series: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    window: int
    horizon: int
    dilation: int

    def inputs(self, ends: Tensor) -> Tensor:
        """x `[B, T, N, F]` of windows that end at rows `ends [B]`."""
        behind = self.dilation * torch.arange(self.window - 1, -1, -1, device=ends.device)
        return self.series[ends[:, None] - behind]

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
