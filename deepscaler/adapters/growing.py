"""Range queries whose span moves on from tick to tick: what is known of an answer isn't asked for again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepscaler.adapters.prometheus import PrometheusClient, RangeVector, grid
from deepscaler.errors import MetricsError

_LOG = logging.getLogger(__name__)
Array = NDArray[np.float64]
NEWEST_ROWS = 12
"""So many of the newest known rows are asked for again each time, because samples may arrive late."""
OLDER_ROWS = 120
"""So many older rows are asked for again in turn, because a store may fill a gap long afterwards."""
MOST_QUERIES = 32
"""So many queries are remembered: more than a tick asks, since their texts change when names do."""
TURN = 8
"""Each query asks for older rows at one of so many of its readings."""


@dataclass
class _Known:
    """An answer that was whole, and where its older rows are asked for next."""

    answer: RangeVector
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
    """Answers like a `PrometheusClient`, and remembers the last whole answer to each query.

    Of a query that is asked again for a span that has moved on, only the newest rows are requested, and now
    and then a stretch of older ones. An answer that is partial isn't remembered, so all that came after the
    last whole one is asked for until the answers are whole again. A span that doesn't go on where the last
    one was (another step, another phase, a clock that was set back) is read anew.

    Args:
        client: carries the queries.
    """

    def __init__(self, client: PrometheusClient) -> None:
        self._client = client
        self._known: dict[str, _Known] = {}

    def query_range(
        self,
        query: str,
        start: float,
        end: float,
        step: float,
        *,
        chunk_points: int,
        progress: Callable[[], None] | None = None,
    ) -> RangeVector:
        """As `PrometheusClient.query_range`.

        Raises:
            MetricsError: as `PrometheusClient.query_range`; what is known stays known.
        """

        def ask(first: float, last: float, told: Callable[[], None] | None = None) -> RangeVector:
            return self._client.query_range(
                query, first, last, step, chunk_points=chunk_points, progress=told
            )

        times = grid(start, end, step)
        known = self._known.get(query)
        moved = None if known is None else _rows_moved(known.answer.times, times, step)
        if known is None or moved is None:
            return self._remember(query, ask(start, end, progress), None)
        base = _moved(known.answer, times, moved)
        fresh = max(len(times) - moved - NEWEST_ROWS, 0)
        answer = joined(base, ask(times[fresh], end, progress), fresh)
        first, last = known.turn(fresh, moved)
        if last > first:
            try:
                answer = joined(answer, ask(times[first], times[last - 1]), first)
            except MetricsError as error:
                _LOG.info("older samples can't be read again, so they stay as they were: %s", error)
        return self._remember(query, answer, known)

    def _remember(self, query: str, answer: RangeVector, known: _Known | None) -> RangeVector:
        if answer.partial:
            return answer
        self._known.pop(query, None)  # so that the last one is the newest
        if known is None:
            # Queries that are first asked at the same tick have their turns at different ones.
            self._known[query] = _Known(answer, readings=len(self._known))
        else:
            known.answer = answer
            self._known[query] = known
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


def _moved(answer: RangeVector, times: Array, rows: int) -> RangeVector:
    """The answer on a grid `rows` further on, NaN in the new rows; without series that have ended."""
    values = np.full((len(answer.labels), len(times)), np.nan)
    values[:, : len(times) - rows] = answer.values[:, rows:]
    alive: NDArray[np.bool_] = np.asarray(np.isfinite(values).any(axis=1))
    if alive.all():
        return RangeVector(times, answer.labels, values)
    labels = tuple(labels for labels, lives in zip(answer.labels, alive, strict=True) if lives)
    return RangeVector(times, labels, values[alive])


def joined(base: RangeVector, part: RangeVector, row: int) -> RangeVector:
    """`base` with the rows from `row` on as `part` has them: NaN there for series that `part` lacks."""
    until = row + len(part.times)
    partial = base.partial or part.partial
    if part.labels == base.labels:
        values = base.values.copy()
        values[:, row:until] = part.values
        return RangeVector(base.times, base.labels, values, partial)
    place = {tuple(sorted(labels.items())): index for index, labels in enumerate(base.labels)}
    rows = [place.setdefault(tuple(sorted(labels.items())), len(place)) for labels in part.labels]
    values = np.full((len(place), len(base.times)), np.nan)
    values[: len(base.labels)] = base.values
    values[:, row:until] = np.nan
    values[rows, row:until] = part.values
    return RangeVector(base.times, tuple(dict(key) for key in place), values, partial)
