"""Range queries whose span moves on from tick to tick: what is known of an answer isn't asked for again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepscaler.adapters.prometheus import grid
from deepscaler.errors import MetricsError

_LOG = logging.getLogger(__name__)
Array = NDArray[np.float64]
NEWEST_ROWS = 12
"""So many of the newest known rows are asked for again each time, because samples may arrive late."""
OLDER_ROWS = 60
"""So many older rows are asked for again in turn, because a store may fill a gap long afterwards."""
MOST_QUERIES = 48
"""So many answers are remembered: more than are asked for, since queries' texts change when names do."""
MOST_LENGTHS = 2
"""So many lengths of one query are remembered: that of a tick, and that of whoever asks between ticks."""
TURN = 8
"""Each query asks for older rows at one of so many of its readings."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What a range query says of each service.

    Attributes:
        times: `[L]` seconds since the epoch.
        values: `[N, L]`; NaN where unknown.
        known: whether the store knows such series at all, whosever they are.
        partial: whether the store says that series may lack.
    """

    times: Array
    values: Array = field(repr=False)
    known: bool = True
    partial: bool = False


Read = Callable[[float, float, float, Callable[[], None] | None], Rows]
"""Reads a query from, to, by step; told after each request."""


_Key = tuple[Hashable, int]
"""A query and the number of its rows."""


@dataclass
class _Known:
    """An answer that was whole, and where its older rows are asked for next."""

    answer: Rows
    readings: int
    next_older: int = 0

    def turn(self, rows: int, moved: int) -> tuple[int, int]:
        """From which row to which older ones are asked for again at this reading; 0, 0 for none.

        Args:
            rows: how many of the oldest rows are not asked for anyway.
            moved: by how many rows the grid has moved on.
        """
        self.readings += 1
        self.next_older = max(self.next_older - moved, 0)
        if self.readings % TURN:
            return 0, 0
        first = self.next_older if self.next_older < rows else 0
        self.next_older = first + OLDER_ROWS
        return first, min(first + OLDER_ROWS, rows)


class GrowingAnswers:
    """Reads as it is told to, and remembers the last whole answer to each query and number of rows.

    Of a query that is asked again for a span that has moved on, only the newest rows are requested, and now
    and then a stretch of older ones. An answer that is partial isn't remembered, so all that came after the
    last whole one is asked for until the answers are whole again. A span that doesn't go on where the last
    one was (another step, another phase, a clock that was set back) is read anew.
    """

    def __init__(self) -> None:
        self._known: dict[_Key, _Known] = {}

    def rows(
        self,
        query: Hashable,
        read: Read,
        start: float,
        end: float,
        step: float,
        progress: Callable[[], None] | None = None,
    ) -> Rows:
        """The rows at start, start + step, … <= end, as if all were read now.

        Args:
            query: names what is asked; equal for the same text, read in the same way.
            read: asks it.
            start: seconds since the epoch.
            end: likewise.
            step: seconds.
            progress: told after each request for new rows.

        Raises:
            MetricsError: the reading fails; what is known stays known.
        """
        times = grid(start, end, step)
        key = query, len(times)
        known = self._known.get(key)
        moved = None if known is None else _rows_moved(known.answer.times, times, step)
        if known is None or moved is None:
            return self._remember(key, read(start, end, step, progress), None)
        base = _moved(known.answer, times, moved)
        fresh = max(len(times) - moved - NEWEST_ROWS, 0)
        answer = _joined(base, read(times[fresh], end, step, progress), fresh)
        first, last = known.turn(fresh, moved)
        if last > first:
            try:
                answer = _joined(answer, read(times[first], times[last - 1], step, None), first)
            except MetricsError as error:
                _LOG.info("older samples can't be read again, so they stay as they were: %s", error)
        return self._remember(key, answer, known)

    def _remember(self, key: _Key, answer: Rows, known: _Known | None) -> Rows:
        if answer.partial:
            return answer
        self._known.pop(key, None)  # so that the last one is the newest
        if known is None:
            # Queries that are first asked at the same tick have their turns at different ones.
            self._known[key] = _Known(answer, readings=len(self._known))
        else:
            known.answer = answer
            self._known[key] = known
        for old in [other for other in self._known if other[0] == key[0]][:-MOST_LENGTHS]:
            del self._known[old]
        if len(self._known) > MOST_QUERIES:
            del self._known[next(iter(self._known))]
        return answer


def _rows_moved(before: Array, now: Array, step: float) -> int | None:
    """By how many rows a grid has moved on; None where it isn't the same one, or shares no row with it."""
    if len(before) != len(now) or not len(now):
        return None
    rows = round((now[0] - before[0]) / step)
    same = abs(now[0] - before[0] - rows * step) <= 0.002 + 1e-3 * step and _is_step(before, step)
    return rows if same and 0 <= rows < len(now) else None


def _is_step(times: Array, step: float) -> bool:
    return len(times) < 2 or abs((times[-1] - times[0]) / (len(times) - 1) - step) <= 1e-6 * step


def _moved(answer: Rows, times: Array, rows: int) -> Rows:
    """The answer on a grid `rows` further on, NaN in the new rows."""
    values = np.full_like(answer.values, np.nan)
    values[:, : len(times) - rows] = answer.values[:, rows:]
    return Rows(times, values, bool(np.isfinite(values).any()))


def _joined(base: Rows, part: Rows, row: int) -> Rows:
    """`base` with the rows from `row` on as `part` has them; its values are written over."""
    base.values[:, row : row + len(part.times)] = part.values
    return Rows(base.times, base.values, base.known or part.known, base.partial or part.partial)
