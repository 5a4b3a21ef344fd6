"""Seasons found in a live series: those that are there, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from deepscaler.planning.seasons import autocorrelation, find_season

STEP = 15.0


def series(seconds, shape, noise=1.0, seed=0):
    times = np.arange(0, seconds, STEP)
    return shape(times) + noise * np.random.default_rng(seed).standard_normal(len(times))


def square(period):
    return lambda times: 60 + 40 * np.sign(np.sin(2 * np.pi * times / period + 0.3))


def sine(period):
    return lambda times: 60 + 40 * np.sin(2 * np.pi * times / period)


@pytest.mark.parametrize("shape", [square, sine])
@pytest.mark.parametrize("period", [300.0, 700.0, 1234.0, 1800.0])
def test_a_period_is_found_to_a_fraction_of_a_row(shape, period):
    season = find_season(series(3 * 3600, shape(period)), STEP)
    assert season is not None
    assert season.rows * STEP == pytest.approx(period, abs=0.3 * STEP)
    assert season.correlation > 0.9


def test_a_period_is_found_as_soon_as_it_fits_one_and_a_half_times():
    assert find_season(series(1.2 * 700, square(700)), STEP) is None
    assert find_season(series(2.0 * 700, square(700)), STEP) is not None


def test_of_two_periods_the_one_that_explains_more_is_found():
    both = lambda times: sine(600)(times) + 0.3 * sine(150)(times)  # noqa: E731
    assert find_season(series(3 * 3600, both), STEP).rows * STEP == pytest.approx(600, abs=STEP)


def test_a_changed_period_is_followed_when_the_history_has_moved_on():
    before, after = series(3600, square(500)), series(2 * 3600, square(800), seed=1)
    found = find_season(np.concatenate([before, after])[-len(after) :], STEP)
    assert found.rows * STEP == pytest.approx(800, abs=STEP)


@pytest.mark.parametrize("seed", range(20))
def test_noise_has_no_season(seed):
    random = np.random.default_rng(seed)
    assert find_season(60 + 10 * random.standard_normal(720), STEP) is None


@pytest.mark.parametrize(
    "values",
    [np.full(400, 7.0), np.linspace(10, 90, 400), np.zeros(400), np.repeat([20.0, 90.0], 200)],
    ids=["constant", "trend", "nothing", "one step"],
)
def test_what_does_not_repeat_has_no_season(values):
    assert find_season(values, STEP) is None


def test_a_short_series_or_one_that_is_mostly_unknown_has_no_season():
    assert find_season(np.arange(19.0), STEP) is None
    broken = series(3600, square(700))
    broken[: int(0.6 * len(broken))] = np.nan
    assert find_season(broken, STEP) is None


@pytest.mark.parametrize("gaps", [[slice(3, 4)], [slice(100, 150)], [slice(20, 40), slice(300, 420)]])
def test_gaps_leave_the_season(gaps):
    whole = series(3 * 3600, square(700))
    broken = whole.copy()
    for gap in gaps:
        broken[gap] = np.nan
    season = find_season(broken, STEP)
    assert season is not None and season.rows * STEP == pytest.approx(700, abs=4)


@pytest.mark.parametrize("noise", [0.0, 1.8, 10.0])
@pytest.mark.parametrize("height", [0.5, 2.0, 20.0])
@pytest.mark.parametrize("minutes_ago", [50, 70, 85, 95, 105, 115, 125, 140])
@pytest.mark.parametrize("gap", [slice(0), slice(100, 130)], ids=["whole", "a gap"])
def test_a_single_burst_has_no_season(noise, height, minutes_ago, gap):
    values = series(3 * 3600, lambda times: np.full(len(times), 200.0), noise)
    begins = len(values) - 1 - 4 * minutes_ago
    values[begins : begins + 8] *= height
    values[gap] = np.nan
    assert find_season(values, STEP) is None


def test_a_single_burst_of_a_day_is_no_day():
    values = 200 + 1.8 * np.random.default_rng(0).standard_normal(1440)
    values[1440 - 13 * 60 :][:10] *= 3
    assert find_season(values, 60.0, 3 * 3600.0) is None


def test_a_burst_hides_no_season():
    values = series(3 * 3600, square(750))
    values[300:308] *= 2
    season = find_season(values, STEP)
    assert season is not None
    assert season.rows * STEP % 750 == pytest.approx(0, abs=0.5 * STEP)  # or longer, past the burst


def test_a_load_that_wanders_has_no_more_seasons_than_around_one_mean():
    found = [find_season(np.cumsum(np.random.default_rng(n).standard_normal(720)), STEP) for n in range(200)]
    assert sum(season is not None for season in found) <= 20  # around the parts' own means alone: 54


def correlation_of(values, lag):
    """As the docstring defines it, pair by pair."""
    pairs = np.array([(values[k], values[k + lag]) for k in range(len(values) - lag)])
    head, tail = pairs[np.isfinite(pairs).all(axis=1)].T
    found = []
    for around in ((np.nanmean(values),) * 2, (head.mean(), tail.mean())):
        one, other = head - around[0], tail - around[1]
        found.append((one @ other) / np.sqrt((one @ one) * (other @ other)))
    return found


@pytest.mark.parametrize("missing", [[], [5, 6, 30]], ids=["whole", "gaps"])
@pytest.mark.parametrize("lag", [0, 1, 7, 20])
def test_autocorrelation_is_that_of_the_definition(missing, lag):
    values = 100 + np.cumsum(np.random.default_rng(4).standard_normal(60))
    values[missing] = np.nan
    found = [around[lag] for around in autocorrelation(values, 20)]
    assert found == pytest.approx(correlation_of(values, lag))
