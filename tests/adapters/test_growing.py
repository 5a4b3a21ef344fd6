"""Answers that grow: the same samples as if the whole span were asked for each time, for a fraction of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deepscaler.adapters.growing import MOST_QUERIES, NEWEST_ROWS, OLDER_ROWS, TURN, GrowingAnswers
from deepscaler.adapters.prometheus import PrometheusClient, RangeVector, grid
from deepscaler.errors import MetricsError
from deepscaler.settings import Prometheus

pytestmark = pytest.mark.stress
T0, STEP, ROWS = 1_767_571_200.0, 15.0, 320


class Store(PrometheusClient):
    """A store whose samples a function tells; NaN is none. Series without a sample are left out.

    Attributes:
        asked: rows of each request.
        partial, down: how it answers.
    """

    def __init__(
        self, sample: Callable[[str, float], float], names: tuple[str, ...] = ("web", "api")
    ) -> None:
        super().__init__(Prometheus())
        self.sample, self.names = sample, names
        self.asked: list[int] = []
        self.partial = self.down = False

    def query_range(self, query, start, end, step, *, chunk_points=11_000, progress=None):
        times = grid(start, end, step)
        self.asked.append(len(times))
        if self.down:
            raise MetricsError("no answer")
        values = np.array([[self.sample(name, moment) for moment in times] for name in self.names])
        there = np.isfinite(values).any(axis=1)
        labels = tuple({"deployment": name} for name, lives in zip(self.names, there, strict=True) if lives)
        return RangeVector(times, labels, values[there], self.partial)


def ask(answers: GrowingAnswers | Store, end: float, step: float = STEP, query: str = "up") -> RangeVector:
    return answers.query_range(query, end - (ROWS - 1) * step, end, step, chunk_points=11_000)


def same(one: RangeVector, other: RangeVector) -> None:
    np.testing.assert_allclose(one.times, other.times)
    key = "deployment"
    values = [
        {labels[key]: row for labels, row in zip(v.labels, v.values, strict=True)} for v in (one, other)
    ]
    assert values[0].keys() == values[1].keys()
    for name, row in values[0].items():
        np.testing.assert_array_equal(row, values[1][name])


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
    answers, whole = GrowingAnswers(store), Store(sample, ("web", "api", "new"))
    for tick in range(ROWS + 50):
        same(ask(answers, T0 + tick * STEP), ask(whole, T0 + tick * STEP))
    assert store.asked[0] == ROWS and max(store.asked[1:]) <= OLDER_ROWS
    assert np.mean(store.asked[1:]) < NEWEST_ROWS + 1 + OLDER_ROWS / TURN


def test_ticks_that_were_missed_are_asked_for_and_another_grid_is_read_anew() -> None:
    store = Store(wave)
    answers = GrowingAnswers(store)
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
        same(ask(answers, T0 + seconds), ask(Store(wave), T0 + seconds))
        assert store.asked[0] == rows, seconds
    store.asked.clear()
    ask(answers, T0, step=60.0)
    assert store.asked == [ROWS]


def test_late_samples_are_seen_soon_if_they_are_new_and_in_time_if_they_are_old() -> None:
    missing = [(T0 - 5 * STEP, T0), (T0 - 200 * STEP, T0 - 150 * STEP)]
    store = Store(lambda name, at: np.nan if any(a < at <= b for a, b in missing) else wave(name, at))
    answers = GrowingAnswers(store)
    assert np.isnan(ask(answers, T0).values).sum() == 2 * 55
    missing.clear()
    assert np.isnan(ask(answers, T0 + STEP).values).sum() == 2 * 50  # the newest rows are there
    for tick in range(2, 2 + TURN * (ROWS // OLDER_ROWS + 1)):
        answer = ask(answers, T0 + tick * STEP)
    same(answer, ask(Store(wave), T0 + tick * STEP))


def test_a_partial_answer_and_an_error_are_not_remembered() -> None:
    store, factor = Store(lambda name, at: factor[0] * wave(name, at)), [1.0]
    answers = GrowingAnswers(store)
    ask(answers, T0)
    store.partial, factor[0] = True, 0.5
    for tick in range(1, 30):
        assert ask(answers, T0 + tick * STEP).partial
    store.partial, store.down, factor[0] = False, True, 1.0
    with pytest.raises(MetricsError):
        ask(answers, T0 + 30 * STEP)
    store.down = False
    same(ask(answers, T0 + 31 * STEP), ask(Store(wave), T0 + 31 * STEP))


def test_older_samples_that_cant_be_read_again_cost_nothing() -> None:
    class Short(Store):
        def query_range(self, query, start, end, step, **rest):
            if self.asked and start < T0 - 20 * STEP:
                raise MetricsError("too far back")
            return super().query_range(query, start, end, step, **rest)

    answers = GrowingAnswers(Short(wave))
    for tick in range(3 * TURN):
        same(ask(answers, T0 + tick * STEP), ask(Store(wave), T0 + tick * STEP))


def test_queries_have_their_turns_at_different_ticks() -> None:
    store = Store(wave)
    answers = GrowingAnswers(store)
    for tick in range(20):
        store.asked.clear()
        for query in "abcdefgh":
            ask(answers, T0 + tick * STEP, query=query)
        assert tick == 0 or sum(store.asked) <= 8 * (NEWEST_ROWS + 1) + OLDER_ROWS


def test_queries_that_arent_asked_any_more_are_forgotten() -> None:
    store = Store(wave)
    answers = GrowingAnswers(store)
    for number in range(3 * MOST_QUERIES):
        ask(answers, T0, query="the same")
        ask(answers, T0, query=f"another {number}")
    assert len(answers._known) == MOST_QUERIES and "the same" in answers._known
