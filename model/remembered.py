"""Forecasts of earlier windows, kept from one call to the next while what they were made from is the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.windows import CYCLES, RECENT, Windows


@dataclass(frozen=True, eq=False)
class _Made:
    """What was forecast from which windows: `made [Q, K, M, H, N]` at `rows [M]`."""

    windows: Windows
    rows: Tensor
    made: Tensor


class Remembered:
    """The forecasts that were made at the last call, of a network whose weights and graphs stay.

    Windows are compared by value, so what is kept is what would be made again. The time of day isn't
    compared: only forecasts that ignore `Known.clock` may be remembered.
    """

    def __init__(self) -> None:
        self._last: _Made | None = None

    def forecasts(self, windows: Windows, rows: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Forecasts `[Q, K, M, H, N]` of the windows that end at `rows [M]` (rising).

        Args:
            windows: the series; where its `first` is None, nothing is remembered.
            rows: ends of windows.
            make: forecasts of the windows that end at the rows it is given.
        """
        if windows.first is None:
            return make(rows)
        places = self._places(windows, rows)
        fresh = places < 0
        if self._last is None or bool(fresh.all()):
            made = make(rows)
        else:
            made = self._last.made[:, :, places.clamp(min=0)]
            if bool(fresh.any()):
                made[:, :, fresh] = make(rows[fresh])
        self._last = _Made(windows, rows, made)
        return made

    def _places(self, windows: Windows, rows: Tensor) -> Tensor:
        """Where among the last forecasts that of each row is, `[M]`; -1 where it has to be made."""
        nothing = torch.full_like(rows, -1)
        last = self._last
        if last is None or not _alike(last.windows, windows):
            return nothing
        moved = _first(windows) - _first(last.windows)
        if not 0 <= moved < len(last.windows.series):
            return nothing
        before = rows + moved
        places = torch.searchsorted(last.rows, before.contiguous()).clamp(max=len(last.rows) - 1)
        usable = (last.rows[places] == before) & _unchanged(last.windows, windows, moved, rows)
        return torch.where(usable, places, nothing)


def _first(windows: Windows) -> int:
    assert windows.first is not None
    return windows.first


def _alike(one: Windows, other: Windows) -> bool:
    names = ("window", "horizon", "dilation", "lag", "season")
    return (
        all(getattr(one, name) == getattr(other, name) for name in names)
        and one.series.shape[1:] == other.series.shape[1:]
        and (one.present is None) == (other.present is None)
    )


def _unchanged(last: Windows, now: Windows, moved: int, rows: Tensor) -> Tensor:
    """Whether all that the forecast at each of `rows [M]` sees is what was seen then, `[M]`.

    A window sees features and what is present up to its end, labels up to `lag` rows before it. One that
    reaches beyond the first row sees that again and again, so the first row must not have moved.
    """
    shared = min(len(last.series) - moved, len(now.series))

    def differ(name: str) -> Tensor:
        one, other = getattr(last, name)[moved : moved + shared], getattr(now, name)[:shared]
        same: Tensor = ((one == other) | (one.isnan() & other.isnan())).flatten(1).all(dim=1)
        return ~same  # [shared]

    seen = differ("series")
    if now.present is not None:
        seen |= differ("present")
    labels = differ("filled")
    if now.season is not None:
        labels |= differ("labels")
    reach = max((now.window - 1) * now.dilation + CYCLES * (now.season or 0), RECENT - 1) + now.lag
    from_row = (rows - reach).clamp(min=0)
    changes = _within(seen, from_row, rows) + _within(labels, from_row, rows - now.lag)
    inside = (rows - reach >= 0) | (moved == 0)
    unchanged: Tensor = (rows < shared) & inside & (changes == 0)
    return unchanged


def _within(differs: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """How many of the rows from `start [M]` to `end [M]`, both included, differ, `[M]`."""
    counts = torch.cat((differs.new_zeros(1, dtype=torch.long), differs.long().cumsum(dim=0)))
    last = len(counts) - 1
    return counts[(end + 1).clamp(0, last)] - counts[start.clamp(0, last)]
