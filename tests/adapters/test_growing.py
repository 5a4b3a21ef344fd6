"""Answers that grow: the same samples as if the whole span were asked for each time, for a fraction of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deepscaler.adapters.growing import MOST_QUERIES, NEWEST_ROWS, OLDER_ROWS, TURN, GrowingAnswers, Rows
from deepscaler.adapters.prometheus import grid
from deepscaler.errors import MetricsError

pytestmark = pytest.mark.stress
T0, STEP, ROWS = 1_767_571_200.0, 15.0, 320


class Store:
    """A store whose samples of services a function tells; NaN is none.

    Attributes:
        asked: rows of each request.
        partial, down: how it answers.
    """

    def __init__(
        self, sample: Callable[[str, float], float], names: tuple[str, ...] = ("web", "api")
    ) -> None:
        self.sample, self.names = sample, names
        self.asked: list[int] = []
        self.partial = self.down = False

    def read(self, start: float, end: float, step: float, progress: Callable[[], None] | None = None) -> Rows:
        times = grid(start, end, step)
        self.asked.append(len(times))
        if self.down:
            raise MetricsError("no answer")
        values = np.array([[self.sample(name, moment) for moment in times] for name in self.names])
        return Rows(times, values, bool(np.isfinite(values).any()), self.partial)


def ask(
    store: Store, end: float, answers: GrowingAnswers | None = None, step: float = STEP, query: str = "up"
) -> Rows:
    """What the whole span reads, or what `answers` make of what they know."""
    start = end - (ROWS - 1) * step
    return (
        store.read(start, end, step) if answers is None else answers.rows(query, store.read, start, end, step)
    )


def same(one: Rows, other: Rows) -> None:
    np.testing.assert_allclose(one.times, other.times)
    np.testing.assert_array_equal(one.values, other.values)
    assert one.known == other.known


def wave(name: str, moment: float) -> float:
    return len(name) + np.sin(moment / 100)


def lives(name: str, moment: float) -> float:
    """`api` has a life that ends, `new` one that begins, and all are missing now and then."""
    if (name == "api" and moment > T0 + 40 * STEP) or (name == "new" and moment < T0 + 60 * STEP):
        return np.nan
    return np.nan if int(moment / STEP) % 37 == 0 else wave(name, moment)


@pytest.mark.parametrize("sample", [wave, lives])
def test_answers_are_those_of_the_whole_span_and_few_rows_are_asked_for(sample) -> None:
    store = Store(sample, ("web", "api", "new"))
    answers, whole = GrowingAnswers(), Store(sample, ("web", "api", "new"))
    for tick in range(ROWS + 50):
        same(ask(store, T0 + tick * STEP, answers), ask(whole, T0 + tick * STEP))
    assert store.asked[0] == ROWS and max(store.asked[1:]) <= OLDER_ROWS
    assert np.mean(store.asked[1:]) < NEWEST_ROWS + 1 + OLDER_ROWS / TURN


def test_ticks_that_were_missed_are_asked_for_and_another_grid_is_read_anew() -> None:
    store = Store(wave)
    answers = GrowingAnswers()
    moments = {
        0: ROWS,  # nothing is known
        15: NEWEST_ROWS + 1,
        150: NEWEST_ROWS + 9,  # nine ticks at once
        157.5: ROWS,  # another phase
        158: ROWS,
        158 + 20 * ROWS * STEP: ROWS,  # nothing in common
        158 + 10 * ROWS * STEP: ROWS,  # the clock was set back
    }
    for seconds, rows in moments.items():
        store.asked.clear()
        same(ask(store, T0 + seconds, answers), ask(Store(wave), T0 + seconds))
        assert store.asked[0] == rows, seconds
    store.asked.clear()
    ask(store, T0, answers, step=60.0)
    assert store.asked == [ROWS]


def test_late_samples_are_seen_soon_if_they_are_new_and_in_time_if_they_are_old() -> None:
    missing = [(T0 - 5 * STEP, T0), (T0 - 200 * STEP, T0 - 150 * STEP)]
    store = Store(lambda name, at: np.nan if any(a < at <= b for a, b in missing) else wave(name, at))
    answers = GrowingAnswers()
    assert np.isnan(ask(store, T0, answers).values).sum() == 2 * 55
    missing.clear()
    assert np.isnan(ask(store, T0 + STEP, answers).values).sum() == 2 * 50  # the newest rows are there
    for tick in range(2, 2 + TURN * (ROWS // OLDER_ROWS + 1)):
        answer = ask(store, T0 + tick * STEP, answers)
    same(answer, ask(Store(wave), T0 + tick * STEP))


def test_a_partial_answer_and_an_error_are_not_remembered() -> None:
    store, factor = Store(lambda name, at: factor[0] * wave(name, at)), [1.0]
    answers = GrowingAnswers()
    ask(store, T0, answers)
    store.partial, factor[0] = True, 0.5
    for tick in range(1, 30):
        assert ask(store, T0 + tick * STEP, answers).partial
    store.partial, store.down, factor[0] = False, True, 1.0
    with pytest.raises(MetricsError):
        ask(store, T0 + 30 * STEP, answers)
    store.down = False
    same(ask(store, T0 + 31 * STEP, answers), ask(Store(wave), T0 + 31 * STEP))


def test_older_samples_that_cant_be_read_again_cost_nothing() -> None:
    class Short(Store):
        def read(self, start, end, step, progress=None):
            if self.asked and start < T0 - 20 * STEP:
                raise MetricsError("too far back")
            return super().read(start, end, step)

    answers, store = GrowingAnswers(), Short(wave)
    for tick in range(3 * TURN):
        same(ask(store, T0 + tick * STEP, answers), ask(Store(wave), T0 + tick * STEP))


def test_queries_have_their_turns_at_different_ticks() -> None:
    store = Store(wave)
    answers = GrowingAnswers()
    for tick in range(20):
        store.asked.clear()
        for query in "abcdefgh":
            ask(store, T0 + tick * STEP, answers, query=query)
        assert tick == 0 or sum(store.asked) <= 8 * (NEWEST_ROWS + 1) + OLDER_ROWS


def test_queries_that_arent_asked_any_more_are_forgotten() -> None:
    store = Store(wave)
    answers = GrowingAnswers()
    for number in range(3 * MOST_QUERIES):
        ask(store, T0, answers, query="the same")
        ask(store, T0, answers, query=f"another {number}")
    assert len(answers._known) == MOST_QUERIES and ("the same", ROWS) in answers._known


@pytest.mark.parametrize("others", [[20], [240, 20], [240, 239, 5]])
def test_who_asks_for_another_length_between_ticks_costs_them_nothing(others: list[int]) -> None:
    store = Store(wave)
    answers = GrowingAnswers()
    ask(store, T0, answers)
    for tick in range(1, 20):
        store.asked.clear()
        same(ask(store, T0 + tick * STEP, answers), ask(Store(wave), T0 + tick * STEP))
        assert sum(store.asked) <= NEWEST_ROWS + 1 + OLDER_ROWS
        rows = others[tick % len(others)]
        start = T0 + (tick - rows) * STEP
        same(
            answers.rows("up", store.read, start, T0 + tick * STEP, STEP),
            Store(wave).read(start, T0 + tick * STEP, STEP),
        )
    assert len(answers._known) <= 2
