"""The plan by cost: worked by hand, against brute force, and its properties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscaler.planning.plan import Prices, Running, plan_replicas

STEP = 15.0
PRICES = Prices(shortage=100.0, start=180.0)


def planned(needs, *, ready=1, starting=(), lead=30.0, prices=PRICES, weights=None, surprise=0.0):
    """The plan of one service; `needs` is `[M][H]`."""
    array = np.array(needs, np.int64)[:, :, None]
    weight = np.full(len(array), 1 / len(array)) if weights is None else np.array(weights)
    running = Running(np.array([ready]), (tuple(starting),))
    return plan_replicas(array, weight, STEP, np.array([lead]), running, prices, surprise)


def replicas(needs, **given_):
    return int(planned(needs, **given_).replicas[0])


def test_what_every_scenario_always_needs_runs():
    assert replicas([[3] * 8, [3] * 8], ready=1) == 3


def test_what_no_scenario_needs_goes_at_once():
    assert replicas([[1] * 8], ready=6) == 1


def test_a_replica_is_started_a_lead_before_its_need_and_no_sooner():
    rising = [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]  # needed 60 s from now
    assert replicas([rising], lead=60.0) == 2
    assert replicas([rising], lead=45.0) == 1


def test_a_replica_is_kept_over_a_pause_that_is_cheaper_than_a_start():
    # Holding over 12 steps costs 180 s: as much as a start, whose replica is held 30 s more while it starts.
    pause = [1] * 12 + [2] * 8
    assert replicas([pause], ready=2) == 2
    assert replicas([[1] * 16 + [2] * 8], ready=2) == 1


def test_a_start_that_comes_too_late_for_its_need_is_not_made():
    assert replicas([[2, 2, 1, 1, 1, 1]], ready=1, lead=60.0) == 1


def test_a_replica_that_is_about_to_be_ready_is_kept_where_a_new_one_would_come_too_late():
    needs = [[1, 2, 2, 2, 1, 1, 1, 1]]
    assert replicas(needs, ready=1, starting=[15.0], lead=90.0) == 2
    assert replicas(needs, ready=1, starting=[], lead=90.0) == 1


def test_a_rare_need_is_weighed_by_its_price():
    needs = [[1] * 8] * 19 + [[1, 1, 1] + [2] * 5]  # one scenario in twenty, for 75 s
    assert replicas(needs) == 1
    assert replicas(needs, surprise=1.0, prices=Prices(10_000.0, 180.0)) == 2


def test_a_need_that_nobody_can_foresee_is_prepared_for():
    random = np.random.default_rng(0)
    needs = 1 + (random.random((48, 40)) < 0.03)  # every scenario has it, each at other moments, for 15 s
    assert replicas(needs, ready=1) == 1
    assert replicas(needs, ready=1, surprise=1.0) == 2


def test_a_need_that_all_agree_on_is_no_surprise():
    needs = [[1] * 20 + [2] * 5 + [1] * 15] * 10
    assert replicas(needs, ready=2) == replicas(needs, ready=2, surprise=1.0) == 1


@pytest.mark.parametrize("count", [4, 8, 12, 24, 48, 96])
def test_a_quarter_agrees_however_its_weights_are_added_up(count):
    """Each quarter of the scenarios has the need at another time: just enough for it to be no surprise."""
    quarters = [[1] * (20 + 5 * part) + [2] * 5 + [1] * (15 - 5 * part) for part in range(4)]
    needs, weights = quarters * (count // 4), np.full(count, 1 / count)
    found = [
        replicas(needs, ready=2, surprise=1.0, weights=weights * (1 + slip)) for slip in (0, 1e-13, -1e-13)
    ]
    assert len(set(found)) == 1 and found[0] == 1


def test_weights_count_as_so_many_equal_scenarios():
    calm, busy = [1] * 8, [1, 1, 1] + [3] * 5
    many = planned([calm] * 7 + [busy] * 3)
    few = planned([calm, busy], weights=[0.7, 0.3])
    assert many.replicas.tolist() == few.replicas.tolist()
    assert many.share == pytest.approx(few.share)


def test_the_phrase_says_when_and_in_how_many_scenarios():
    plan = planned([[1, 1, 2, 2, 2, 2]] * 4)
    assert plan.why(0) == "2 needed in 30 s in 4 of 4 scenarios"
    assert planned([[1] * 6], ready=1).why(0) == "1 needed now in 1 of 1 scenarios"


def cheapest(need, on_now, lead_steps, prices):
    """The least cost of one level whose state now is given, by trying every course."""
    best = np.inf
    horizon = len(need)
    for wanted in itertools.product((False, True), repeat=horizon - 1):
        best = min(best, cost_of((on_now, *wanted), need, lead_steps, prices))
    return best


def cost_of(wanted, need, lead_steps, prices):
    """Cost of wanting the level in these steps; a start later on takes `lead_steps`."""
    ready_in, cost, on = 0, 0.0, True
    for step, want in enumerate(wanted):
        if not want:
            on, ready_in = False, 0
        elif not on:
            on, ready_in = True, lead_steps
            cost += prices.start
        if on and ready_in and any(not later for later in wanted[step : step + ready_in]):
            return np.inf  # the plan never gives up a replica that is starting
        cost += STEP * on + prices.shortage * STEP * (need[step] and (not on or ready_in > 0))
        ready_in = max(ready_in - 1, 0)
    return cost + prices.start * (need[-1] and not on)


@pytest.mark.parametrize("number", range(40))
def test_with_one_known_scenario_it_is_the_cheapest_of_all_courses(number):
    random = np.random.default_rng(number)
    need = random.random(9) < random.uniform(0.1, 0.9)
    prices = Prices(float(random.choice([2.0, 10.0, 100.0])), float(random.choice([0.0, 40.0, 180.0])))
    lead = int(random.integers(1, 4))
    kept, dropped = (cheapest(need, on, lead, prices) for on in (True, False))
    if not need.any() or need.all():
        return  # the level is outside the range of what scenarios need, where nothing is to be weighed
    found = replicas([1 + need], ready=2, lead=lead * STEP, prices=prices)
    assert kept == pytest.approx(dropped) or found == (2 if kept < dropped else 1)


needs_of_a_service = st.integers(1, 6).flatmap(
    lambda count: st.lists(
        st.lists(st.integers(1, 5), min_size=10, max_size=10), min_size=count, max_size=count
    )
)


@given(needs_of_a_service, st.integers(1, 6), st.sampled_from([15.0, 30.0, 90.0]))
def test_the_plan_stays_between_the_least_and_the_most_that_scenarios_need(needs, ready, lead):
    found = replicas(needs, ready=ready, lead=lead)
    assert np.min(needs) <= found <= np.max(needs)


@given(needs_of_a_service, st.integers(1, 6))
def test_a_dearer_shortage_never_takes_replicas_away_where_the_scenario_is_known(needs, ready):
    one = [needs[0]]
    found = [replicas(one, ready=ready, prices=Prices(price, 180.0)) for price in (5.0, 50.0, 500.0)]
    assert found == sorted(found)


@given(needs_of_a_service, st.integers(1, 6))
def test_what_runs_is_never_dropped_while_every_scenario_needs_it_now(needs, ready):
    least_now = min(row[0] for row in needs)
    assert replicas(needs, ready=ready) >= min(ready, least_now)


@given(needs_of_a_service)
def test_services_are_planned_apart(needs):
    alone = planned(needs)
    array = np.array(needs, np.int64)[:, :, None]
    both = plan_replicas(
        np.concatenate([array, np.ones_like(array) * 7], axis=2),
        np.full(len(array), 1 / len(array)),
        STEP,
        np.array([30.0, 30.0]),
        Running(np.array([1, 7]), ((), ())),
        PRICES,
    )
    assert both.replicas.tolist() == [alone.replicas[0], 7]


def test_a_thousand_services_are_planned_together():
    random = np.random.default_rng(0)
    needs = random.integers(1, 4, (48, 40, 1000))
    running = Running(random.integers(1, 4, 1000), tuple(() for _ in range(1000)))
    plan = plan_replicas(needs, np.full(48, 1 / 48), STEP, random.uniform(5, 60, 1000), running, PRICES)
    assert plan.replicas.shape == (1000,) and plan.replicas.min() >= 1


@pytest.mark.parametrize("lead", [555.0, 585.0, 600.0, 601.0, 700.0, 3000.0])
def test_a_replica_that_starts_more_slowly_than_scenarios_look_ahead_is_started(lead):
    needs = [[6] * 40] * 47 + [[2] * 40]
    assert planned(needs, ready=2, lead=lead).replicas.tolist() == [6]


def test_a_need_that_few_scenarios_of_little_weight_have_is_at_least_one():
    weights = np.array([1e-3, *[(1 - 1e-3) / 47] * 47])
    found = planned([[4] * 40, *[[2] * 40] * 47], ready=4, weights=weights, prices=Prices(10_000.0, 180.0))
    assert found.why(0) == "4 needed now in 1 of 48 scenarios"
