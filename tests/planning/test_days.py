"""Days and weeks found in a load minute by minute, and what they foresee at this time of the day."""

from __future__ import annotations

import time

import numpy as np
import pytest

from deepscaler.load_history import LoadHistory
from deepscaler.planning.days import LongSeasons, like_today
from deepscaler.planning.scenarios import Moment
from deepscaler.planning.seasons import find_season

MINUTE, STEP, DAY = 60.0, 15.0, 86400.0
HORIZON, COUNT = 40, 48
T0 = 1_767_571_200.0
ENTRY, USUAL = [0], np.array([1.0, 2.0])


def daily(times, week=False):
    """A calm night, a busy day, a jump to a peak at noon, calmer weekends."""
    hour = times % DAY / 3600
    load = 40 - 25 * np.cos(2 * np.pi * (hour - 3) / 24) + 40 * ((hour >= 12) & (hour < 13))
    return np.where((times // DAY % 7 >= 5) & week, 0.4 * load, load)


def past(now, days=6.0, shape=daily, noise=0.5, seed=1):
    times = np.arange(now - days * DAY, now + 1, MINUTE)
    noises = noise * np.random.default_rng(seed).standard_normal(len(times))
    return LoadHistory(float(times[0]), MINUTE, np.maximum(shape(times) + noises, 0.0))


def scenarios(now, history, shape=daily):
    rows = shape(now - STEP * np.arange(240, -1, -1.0))
    rates = np.stack([rows, 2 * rows], axis=1)
    source = LongSeasons(HORIZON, COUNT, STEP, ENTRY, USUAL)
    return source.scenarios(Moment(now, rates, None, None, history))


def median(found, service=0):
    return np.median(found.rates[:, :, service], axis=0)


@pytest.mark.parametrize("hour", [11.95, 12.9, 6.0, 23.9])
def test_what_comes_at_this_time_of_every_day_is_foreseen(hour):
    now = T0 + 6 * DAY + hour * 3600
    found, ahead = scenarios(now, past(now)), now + STEP * np.arange(1, HORIZON + 1)
    assert found.source == "day" and found.season_seconds == pytest.approx(DAY, rel=0.01)
    off = np.abs(median(found) - daily(ahead))
    jump = (
        np.abs(ahead % DAY / 3600 - np.rint(ahead % DAY / 3600)) * 3600 < 90
    )  # its minute is only known so well
    assert off[~jump].max() < 4.0
    assert median(found, 1) == pytest.approx(2 * median(found), rel=0.02)


def test_a_busier_day_rises_and_falls_as_the_others_did_from_its_own_level():
    now = T0 + 6 * DAY + 11.95 * 3600
    found = scenarios(now, past(now), shape=lambda times: daily(times) + 15)
    assert median(found)[-1] == pytest.approx(daily(now + 600) + 15, abs=4.0)


def test_a_weekend_is_told_from_working_days_by_its_own_season():
    week = lambda times: daily(times, week=True)  # noqa: E731
    now = T0 + 17 * DAY + 11.95 * 3600
    season = find_season(past(now, days=17, shape=week).load, MINUTE, 3 * 3600)
    assert season.rows * MINUTE == pytest.approx(7 * DAY, rel=0.01)
    found = scenarios(now, past(now, days=17, shape=week), shape=week)
    assert median(found)[-1] == pytest.approx(week(np.array(now + 600.0)), abs=5.0)


def test_a_missing_day_and_scattered_gaps_leave_the_season():
    now = T0 + 6 * DAY + 11.95 * 3600
    whole = past(now)
    load = whole.load.copy()
    load[2 * 1440 : 3 * 1440] = np.nan
    load[np.random.default_rng(0).random(len(load)) < 0.02] = np.nan
    load[-5 * 1440 :: 1440] = np.nan
    found = scenarios(now, LoadHistory(whole.start, MINUTE, load))
    assert np.isfinite(found.rates).all()
    assert median(found)[-1] == pytest.approx(daily(now + 600), abs=5.0)


def test_the_time_before_the_first_value_doesnt_count_against_a_season():
    now = T0 + 6 * DAY + 11.95 * 3600
    whole = past(now)
    unknown = 22 * 1440
    load = np.r_[np.full(unknown, np.nan), whole.load]
    found = scenarios(now, LoadHistory(whole.start - unknown * MINUTE, MINUTE, load))
    np.testing.assert_array_equal(found.rates, scenarios(now, whole).rates)


def test_days_like_today_weigh_more():
    def odd(times):  # one of the days has its peak at another hour
        return np.where(times // DAY == (T0 + 4 * DAY) // DAY, daily(times + 3 * 3600), daily(times))

    now = T0 + 6 * DAY + 12.5 * 3600
    days, weights = like_today(past(now, shape=odd), now, DAY, 600.0)
    assert days.tolist() == [1, 2, 3, 4, 5]  # of the sixth the hour before isn't known
    assert weights[1] < 0.1 * np.delete(weights, 1).min()


@pytest.mark.parametrize(
    "load",
    [
        np.full(8640, 40.0),
        40 + np.random.default_rng(0).standard_normal(8640),
        np.linspace(10, 90, 8640),
        np.full(8640, np.nan),
        np.r_[np.full(8000, np.nan), daily(60.0 * np.arange(640))],
        daily(T0 + 60.0 * np.arange(1000)),
        np.cumsum(np.random.default_rng(2).standard_normal(8640)),
    ],
    ids=["constant", "noise", "trend", "nothing", "little", "less than a day", "random walk"],
)
def test_without_a_season_there_are_no_scenarios(load):
    now = T0 + 9 * DAY
    assert scenarios(now, LoadHistory(now - (len(load) - 1) * MINUTE, MINUTE, load)) is None
    assert scenarios(now, None) is None


def test_four_weeks_take_less_than_a_tick_can_spare():
    now = T0 + 28 * DAY + 8 * 3600
    history, source = past(now, days=28), LongSeasons(HORIZON, COUNT, STEP, ENTRY, USUAL)
    rates = np.ones((241, 1000))
    source.scenarios(Moment(now, rates, None, None, history))
    began = time.process_time()
    source.scenarios(Moment(now + STEP, rates, None, None, history))
    assert time.process_time() - began < 2.0  # it was about .1 s for 1,000 services


def test_a_load_is_told_between_its_values_and_not_beside_gaps():
    history = LoadHistory(100.0, 10.0, np.array([1.0, 3.0, np.nan, 5.0]))
    asked = np.array([90.0, 100.0, 105.0, 110.0, 115.0, 125.0, 130.0, 131.0])
    np.testing.assert_allclose(history.at(asked), [np.nan, 1, 2, 3, np.nan, np.nan, 5, np.nan])
    assert history.end == 130.0
    np.testing.assert_allclose(history.bridged(1).load, [1, 3, 4, 5])


@pytest.mark.parametrize(("longest", "left"), [(0, 3), (1, 2), (2, 0), (9, 0)])
def test_only_short_gaps_inside_are_bridged(longest, left):
    load = np.array([np.nan, 1.0, np.nan, 3.0, np.nan, np.nan, 6.0, np.nan])
    found = LoadHistory(0.0, 60.0, load).bridged(longest).load
    assert np.isnan(found[1:7]).sum() == left and np.isnan(found[[0, 7]]).all()


@pytest.mark.parametrize("night", [0.0, 0.02])
def test_a_day_that_begins_from_nothing_is_foreseen(night):
    def shape(times):
        hour = np.asarray(times) % DAY / 3600
        return np.where((hour >= 8) & (hour < 18), 200.0, night)

    now = T0 + 28 * DAY + 7.95 * 3600
    found = scenarios(now, past(now, days=28, shape=shape, noise=0.0), shape)
    assert found.season_seconds == pytest.approx(DAY, rel=0.01)
    assert median(found)[-1] == pytest.approx(200, rel=0.05)
    assert median(found, 1)[-1] == pytest.approx(400, rel=0.05)
