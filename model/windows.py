"""Windows that are gathered from the series when asked for.

Memory grows with the series, not with series x window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

CYCLES = 3
"""Earlier cycles of a season that are averaged, as far as the data reaches back."""
RECENT = 8
"""Newest rows shown at the collection's own step."""


class Known(NamedTuple):
    """What is known at the end of a window beside its features; labels are z-scored.

    Attributes:
        past: labels `[B, T, N]`; the last is the newest one that is complete at the window's end, the others
            are whole steps before it. In place of an unknown label stands the last known one, or 0 (the
            training mean) where none came before.
        season_past: `[B, T, N]`, mean of the same labels in up to three earlier cycles; NaN where there is
            none.
        season_ahead: `[B, H, N]`, mean of the labels to forecast in up to three earlier, complete cycles; NaN
            where there is none.
        recent: `[B, R, N]`, what is known about the next label at the newest R = 8 rows (not steps), newest
            last; see `Windows.present`.
        clock: `[B]`, share of the day (UTC) that has passed at the window's end.
    """

    past: Tensor
    season_past: Tensor
    season_ahead: Tensor
    recent: Tensor
    clock: Tensor


@dataclass(frozen=True, eq=False)
class Windows:
    """A z-scored series and its labels; a window is named by the row it ends at.

    Attributes:
        series: `[L, N, F]`; what is missing is 0, the training mean.
        labels: `[L, N]`, z-scored; NaN where unknown.
        window, horizon: T and H.
        dilation: rows per step.
        lag: rows between now and the newest label that is complete now (a `required` label looks ahead by its
            lead).
        season: rows per cycle; None: no season.
        present: `[L, N]`, what is known at each row about the next label, z-scored as labels are. A
            `required` label covers minutes behind as well as ahead, so part of it is known. None: the newest
            complete label stands in.
        clock: `[L]`, share of the day as in `Known`; None: it is unknown, and 0 stands in.
        zero: `[N]`, z-score of the label 0; None: it is unknown.
        first: number of the first row in a count that goes on from call to call, so that forecasts can be
            remembered; None: the series stands alone.
    """

    series: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    window: int
    horizon: int
    dilation: int
    lag: int = 0
    season: int | None = None
    present: Tensor | None = field(default=None, repr=False)
    clock: Tensor | None = field(default=None, repr=False)
    zero: Tensor | None = field(default=None, repr=False)
    first: int | None = None
    filled: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "filled", _fill_forward(self.labels))
        if self.present is not None:
            object.__setattr__(self, "present", _fill_forward(self.present))

    @property
    def nothing(self) -> Tensor:
        """`[N]`, z-score of the label 0; where that is unknown, 0."""
        return self.labels.new_zeros(self.labels.shape[1]) if self.zero is None else self.zero

    def inputs(self, ends: Tensor) -> Tensor:
        """Inputs `[B, T, N, F]` of windows that end at rows `ends [B]`; rows before the first repeat it."""
        return self.series[(ends[:, None] - self._behind(ends)).clamp(min=0)]

    def known(self, ends: Tensor) -> Known:
        """What is known beside the features at the end of each window."""
        newest = (ends - self.lag)[:, None]  # [B, 1]
        behind, ahead = newest - self._behind(ends), ends[:, None] + self._ahead(ends)  # [B, T], [B, H]
        clock = self.series.new_zeros(len(ends)) if self.clock is None else self.clock[ends]
        before = (behind >= 0)[..., None]
        past = torch.where(before, self.filled[behind.clamp(min=0)], torch.zeros_like(self.filled[:1]))
        return Known(
            past, self._cycles(behind, newest), self._cycles(ahead, newest), self._recent(ends), clock
        )

    def _recent(self, ends: Tensor) -> Tensor:
        rows = ends[:, None] - torch.arange(RECENT - 1, -1, -1, device=ends.device)
        return (
            self.filled[(rows - self.lag).clamp(min=0)]
            if self.present is None
            else self.present[rows.clamp(min=0)]
        )

    def targets(self, ends: Tensor) -> Tensor:
        """Labels `[B, H, N]` of the steps after `ends`; NaN where unknown."""
        return self.labels[ends[:, None] + self._ahead(ends)]

    def _behind(self, ends: Tensor) -> Tensor:
        return self.dilation * torch.arange(self.window - 1, -1, -1, device=ends.device)

    def _ahead(self, ends: Tensor) -> Tensor:
        return self.dilation * torch.arange(1, self.horizon + 1, device=ends.device)

    def _cycles(self, rows: Tensor, newest: Tensor) -> Tensor:
        """Means `[B, S, N]` of the labels whole cycles before `rows [B, S]`.

        Only labels count that are complete at rows `newest [B, 1]`.
        """
        if self.season is None:
            return self.series.new_full((*rows.shape, self.labels.shape[1]), torch.nan)
        first = torch.clamp(
            torch.div(rows - newest + self.season - 1, self.season, rounding_mode="floor"), min=1
        )
        back = first[..., None] + torch.arange(CYCLES, device=rows.device)
        earlier = rows[..., None] - back * self.season  # [B, S, cycles]
        values = self.labels[earlier.clamp(min=0)]  # [B, S, cycles, N]
        return torch.where((earlier >= 0)[..., None], values, values.new_full((), torch.nan)).nanmean(dim=2)


def _fill_forward(labels: Tensor) -> Tensor:
    """`[L, N]` with each unknown label replaced by the last known one, 0 before the first."""
    rows = torch.arange(len(labels), device=labels.device)[:, None]
    latest = torch.where(torch.isfinite(labels), rows, -1).cummax(dim=0).values
    values = torch.gather(torch.nan_to_num(labels), 0, latest.clamp(min=0))
    return torch.where(latest >= 0, values, torch.zeros_like(values))


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
