"""Weeks of the load, read piece by piece."""

from __future__ import annotations

import numpy as np
import pytest

from deepscaler.control.long_history import PIECE, STEP, LongHistory
from deepscaler.errors import MetricsError

NOW, WEEK = 1_767_571_200.0, 7 * 86400.0


class Store:
    """Knows the load as a function of time, and what it was asked."""

    def __init__(self, load=lambda times: times % 1000, since=-np.inf):
        self.load, self.since, self.asked, self.down = load, since, [], False

    def entered(self, start, end, step):
        self.asked.append((start, end))
        if self.down:
            raise MetricsError("http://prometheus: connection refused")
        times = start + step * np.arange(1, round((end - start) / step) + 1)
        return np.where(times > self.since, self.load(times), np.nan)

    @property
    def rows(self):
        return [round((end - start) / STEP) for start, end in self.asked]


def whole(history, now):
    return history.upto(now).load


def test_four_weeks_are_there_after_a_few_minutes_and_then_only_the_newest_rows_are_read():
    store = Store()
    history = LongHistory(store, 4 * WEEK)
    for minute in range(10):
        found = history.upto(NOW + minute * STEP)
    assert max(store.rows) <= PIECE and sum(store.rows) < 4 * WEEK / STEP + 100
    times = found.start + STEP * np.arange(len(found.load))
    np.testing.assert_array_equal(found.load, times % 1000)
    assert found.end == NOW + 9 * STEP
    before = len(store.asked)
    assert history.upto(NOW + 9 * STEP + 14) is not None and len(store.asked) == before  # within the minute
    history.upto(NOW + 10 * STEP)
    assert store.rows[before:] == [4]


@pytest.mark.stress
def test_while_the_store_is_down_it_is_asked_more_and_more_rarely_and_then_all_comes():
    store = Store()
    store.down = True
    history = LongHistory(store, WEEK)
    for minute in range(120):
        history.upto(NOW + minute * STEP)
    assert len(store.asked) < 10
    store.down = False
    for minute in range(120, 260):
        found = history.upto(NOW + minute * STEP)
    assert np.isfinite(found.load).all()


@pytest.mark.stress
def test_an_outage_leaves_no_hole_and_late_samples_are_taken():
    store = Store(load=lambda times: np.where(times > NOW + 600, np.nan, 1.0))
    history = LongHistory(store, WEEK)
    for minute in range(15):
        history.upto(NOW + minute * STEP)
    store.load = lambda times: np.full(len(times), 2.0)  # the store has caught up
    assert np.isfinite(whole(history, NOW + 15 * STEP)[-20:]).all()
    store.down = True
    for minute in range(16, 40):
        history.upto(NOW + minute * STEP)
    store.down = False
    assert np.isfinite(whole(history, NOW + 41 * STEP)[-60:]).all()


@pytest.mark.stress
@pytest.mark.parametrize("jump", [-7200.0, 3 * WEEK])
def test_a_clock_that_was_set_begins_anew(jump):
    store = Store()
    history = LongHistory(store, WEEK)
    for minute in range(4):
        history.upto(NOW + minute * STEP)
    for minute in range(4):
        found = history.upto(NOW + jump + minute * STEP)
    times = found.start + STEP * np.arange(len(found.load))
    np.testing.assert_array_equal(found.load, times % 1000)


def test_what_the_store_never_knew_stays_unknown_and_isnt_asked_for_again():
    store = Store(since=NOW - 3600)
    history = LongHistory(store, 4 * WEEK)
    for minute in range(30):
        found = history.upto(NOW + minute * STEP)
    assert np.isfinite(found.load).sum() == 60 + 29
    assert sum(store.rows) < 4 * WEEK / STEP + 30 * 5 + PIECE


@pytest.mark.stress
def test_of_a_night_without_requests_little_is_read_again():
    store = Store(load=lambda times: np.where(times > NOW + 600, np.nan, 1.0))
    history = LongHistory(store, WEEK)
    for minute in range(12 * 60):
        history.upto(NOW + minute * STEP)
    assert max(store.rows[20:]) <= 61 + 3
