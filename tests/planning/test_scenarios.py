"""Scenarios from live history: what they must show on loads whose future is known."""

from __future__ import annotations

import numpy as np
import pytest

from deepscaler.planning.live import LivePast, LiveSeason, anchors, bootstrap, seasonal, trailing_means
from deepscaler.planning.scenarios import Moment
from deepscaler.planning.seasons import Season

STEP, HORIZON, COUNT = 15.0, 40, 48
ENTRIES = [0]


def rates(load):
    """An entry and a service that is called twice per request."""
    load = np.asarray(load, np.float64)
    return np.stack([load, 2 * load], axis=1)


def noisy(level, rows, size, seed=0):
    return level + size * np.random.default_rng(seed).standard_normal(rows)


def history(load):
    moment = Moment(0.0, rates(load), None)
    season = LiveSeason(HORIZON, STEP, ENTRIES).scenarios(moment)
    found = season or LivePast(HORIZON, COUNT, STEP, ENTRIES).scenarios(moment)
    assert found is not None
    return found


def square(rows, period=40, low=20.0, high=100.0):
    return np.where((np.arange(rows) // (period // 2)) % 2, high, low)


def test_a_load_that_repeats_is_foreseen_to_the_row():
    whole = square(400 + HORIZON)
    found = history(whole[:400])
    assert found.source == "season"
    assert found.rates[:, :, 0] == pytest.approx(np.tile(whole[400:], (len(found.rates), 1)), abs=1e-6)


def test_weights_add_up_to_one_and_rates_are_no_less_than_nothing():
    for load in (square(400), noisy(3.0, 300, 3.0).clip(0), np.r_[np.full(200, 20.0), np.full(9, 90.0)]):
        found = history(load)
        assert found.weights.sum() == pytest.approx(1.0)
        assert found.rates.shape[1:] == (HORIZON, 2) and found.rates.min() >= 0


def test_services_move_together_as_they_did():
    found = history(noisy(50.0, 400, 5.0))
    assert found.source == "bootstrap"
    assert found.rates[:, :, 1] == pytest.approx(2 * found.rates[:, :, 0])


def test_noise_stays_noise_around_its_level():
    found = history(noisy(50.0, 600, 5.0))
    assert found.rates[:, :, 0].mean() == pytest.approx(50.0, abs=2.0)
    assert found.rates[:, :, 0].std() == pytest.approx(5.0, rel=0.3)


def test_a_ripple_no_larger_than_usual_doesnt_move_the_level_and_a_step_does_at_once():
    load = noisy(50.0, 400, 5.0)
    load[-1] = 58.0
    assert anchors(rates(load), load, STEP)[-1, 0] == pytest.approx(50.0, abs=2.5)
    load[-1] = 150.0
    assert anchors(rates(load), load, STEP)[-1, 0] > 130.0


def test_a_load_that_moves_is_followed_by_its_newest_sample():
    load = 50 + 30 * np.sin(np.arange(400) / 20)
    assert anchors(rates(load), load, STEP)[:, 0] == pytest.approx(load, abs=3.0)


def test_a_trend_goes_on():
    load = np.linspace(20, 60, 300)
    found = history(load)
    rise = HORIZON * (load[1] - load[0])
    assert found.rates[:, -1, 0].mean() > load[-1] + 0.2 * rise


def test_what_was_never_seen_counts_in_part_only():
    load = np.r_[np.full(150, 20.0), np.full(150, 100.0)]  # a jump, and no reason to expect it again
    found = bootstrap(rates(load), load, HORIZON, COUNT, STEP)
    assert found[:, :, 0].max() <= 100.0 + 0.25 * 80.0 + 1e-9


def test_a_season_is_moved_to_the_present_level_and_back_within_minutes():
    before = square(400)
    now = before.copy()
    now[-4:] += 30.0
    moved = seasonal(rates(now), Season(40.0, 1.0), HORIZON, STEP) - seasonal(
        rates(before), Season(40.0, 1.0), HORIZON, STEP
    )
    first = moved[1:, :, 0]  # the newest period has the shift in it
    assert first[:, 0] == pytest.approx(30 * np.exp(-STEP / 60), rel=1e-6)
    assert abs(first[:, -5]).max() < 0.1


def test_a_season_longer_than_half_of_the_history_has_one_course():
    assert len(seasonal(rates(square(100)), Season(60.0, 1.0), HORIZON, STEP)) == 1


@pytest.mark.parametrize(("rows", "known"), [(HORIZON + 11, False), (HORIZON + 12, True)])
def test_too_short_a_history_has_no_scenarios(rows, known):
    moment = Moment(0.0, np.ones((rows, 2)), None)
    assert (LivePast(HORIZON, COUNT, STEP, ENTRIES).scenarios(moment) is not None) == known
    assert LiveSeason(HORIZON, STEP, ENTRIES).scenarios(moment) is None


def test_the_same_history_gives_the_same_scenarios():
    load = noisy(50.0, 400, 5.0)
    assert np.array_equal(history(load).rates, history(load).rates)


def test_trailing_means_use_what_there_is():
    values = np.arange(5.0)[:, None]
    assert trailing_means(values, 3)[:, 0].tolist() == [0.0, 0.5, 1.0, 2.0, 3.0]


def test_a_load_that_has_stopped_has_scenarios_too():
    load = np.r_[noisy(50.0, 300, 5.0), np.zeros(60)]
    found = bootstrap(rates(load), load, HORIZON, COUNT, STEP)
    assert np.isfinite(found).all() and np.median(found[:, 0, 0]) < 10.0
    assert np.isfinite(bootstrap(np.zeros((200, 2)), np.zeros(200), HORIZON, COUNT, STEP)).all()
