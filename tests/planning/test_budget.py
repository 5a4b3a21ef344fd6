"""A budget of violating minutes: what moves the price, within what bounds, and what it tells."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscaler.errors import DataError
from deepscaler.planning.budget import EASE, GAIN, REACH, Budget, Minute

PRIOR = 100.0
DAY = 1440


def told(budget, *violating, first=0, **other):
    budget.observe(Minute(first + number, bad, **other) for number, bad in enumerate(violating))
    return budget


def settled(asked=0.1, day=10, spending=None, bad=1):
    """A budget whose first day is over: of its ten minutes as many violated as were asked."""
    return told(Budget(asked, PRIOR, spending, day), *[True] * bad, *[False] * (day - bad))


def test_the_first_day_runs_at_the_prior_price_whatever_happens():
    budget = told(Budget(0.01, PRIOR, None, 10), *[True] * 10)
    assert budget.price == PRIOR
    assert budget.account().note == "the first day runs at the prior price"


def test_by_hand_a_calm_minute_lowers_the_logarithm_by_gain_times_the_aim():
    # The minute that violated leaves the window, so none of a day's budget of one minute is consumed, and
    # the aim is twice the share, less the little that the integral has gathered.
    budget = told(settled(), False, first=10)
    assert math.log(budget.price / PRIOR) == pytest.approx(-GAIN * 0.1 * 2.0)
    # The second calm minute, of the same excess of -1: the aim is capped at twice the share.
    told(budget, False, first=11)
    assert math.log(budget.price / PRIOR) == pytest.approx(-2 * GAIN * 0.1 * 2.0)


def test_by_hand_a_violating_minute_beyond_the_budget_raises_it_by_the_whole_gain():
    # Two of ten minutes violate where one may: excess 1, so it aims at no violation at all.
    budget = told(settled(bad=2), True, first=10)
    assert budget.account().consumed == pytest.approx(0.2)
    assert budget.price == pytest.approx(PRIOR * math.exp(GAIN))


def test_what_is_unknown_moves_nothing_and_is_shown():
    budget = settled()
    told(budget, None, None, first=10)
    account = budget.account()
    assert (budget.price, account.known, account.unknown) == (PRIOR, 8, 2)


def test_minutes_that_nobody_told_of_are_unknown_too():
    budget = told(settled(), False, first=14)
    assert (budget.account().known, budget.account().unknown) == (6, 4)


SEQUENCES = st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=120)


@settings(max_examples=60, deadline=None)
@given(SEQUENCES, st.sampled_from([0.005, 0.05, 0.4]), st.sampled_from([None, 1.0, 1.5]))
def test_the_price_stays_within_its_bounds_and_the_window_is_counted_exactly(sequence, asked, spending):
    budget = Budget(asked, PRIOR, spending, 10)
    for number, bad in enumerate(sequence):
        told(budget, bad, first=number, cores=2.0, prior_cores=1.0)
        assert PRIOR / REACH - 1e-9 <= budget.price <= PRIOR * REACH + 1e-6
        if spending is not None:  # twice the prior's core-hours are beyond any of these ceilings
            assert budget.price <= PRIOR + 1e-9
    recent = [bad for bad in sequence[-10:] if bad is not None]
    account = budget.account()
    assert (account.violating, account.known) == (sum(recent), len(recent))
    assert account.unknown == len(sequence[-10:]) - len(recent)


@settings(max_examples=40, deadline=None)
@given(SEQUENCES, st.integers(0, 120))
def test_a_restart_at_any_minute_changes_nothing(sequence, cut):
    whole = told(Budget(0.05, PRIOR, 1.5, 10), *sequence, starting=True, cores=3.0, prior_cores=2.0)
    head = told(Budget(0.05, PRIOR, 1.5, 10), *sequence[:cut], starting=True, cores=3.0, prior_cores=2.0)
    again = Budget(0.05, PRIOR, 1.5, 10).restore(json.loads(json.dumps(head.state())))
    told(again, *sequence[cut:], first=cut, starting=True, cores=3.0, prior_cores=2.0)
    assert again.price == pytest.approx(whole.price)
    assert again.state()["minutes"] == whole.state()["minutes"]
    assert again.account().to_dict() == pytest.approx(whole.account().to_dict())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_one_more_violation_never_makes_the_next_price_lower(pairs):
    fewer, more = settled(day=100, bad=10), settled(day=100, bad=10)
    for number, (one, other) in enumerate(pairs):
        told(fewer, one and other, first=100 + number)
        told(more, one or other, first=100 + number)
        assert more.price >= fewer.price - 1e-9


def test_a_calm_load_ends_at_the_lowest_price_and_the_first_violations_raise_it_at_once():
    budget = told(Budget(0.01, PRIOR, None, DAY), *[False] * (9 * DAY))
    assert budget.price == pytest.approx(PRIOR / REACH)
    assert budget.account().note == "the lowest price already keeps it"
    told(budget, True, True, first=9 * DAY)  # nothing has wound up meanwhile
    assert budget.price == pytest.approx(PRIOR / REACH * math.exp(2 * GAIN), rel=0.05)


def test_violations_at_any_price_end_at_the_highest_and_calm_lowers_it_again():
    budget = told(Budget(0.01, PRIOR, None, 100), *[True] * 1000, starting=True)
    assert budget.price == pytest.approx(PRIOR * REACH)
    note = budget.account().note
    assert note == (
        "can't be met: pods start more slowly than load comes (so in 100 of 100 violating minutes)"
    )
    told(budget, *[False] * 1500, first=1000)
    assert budget.price < PRIOR * REACH


def test_it_says_so_where_more_replicas_dont_help():
    budget = told(Budget(0.01, PRIOR, None, 100), *[True] * 1000)
    assert budget.account().note == (
        "can't be met: more replicas don't help (no pod was starting in 100 of 100 violating minutes)"
    )


def test_the_ceiling_on_spending_brings_the_price_back_to_the_prior_smoothly():
    most, day = 1.5, 100
    prices = []
    for spending in (1.0, most - EASE * 0.5, most - EASE * 0.25, most, 2.0):
        budget = Budget(0.01, PRIOR, most, day)
        told(budget, *[True] * 300, cores=spending, prior_cores=1.0)
        prices.append(budget.price)
    assert prices[0] == pytest.approx(PRIOR * REACH)
    assert prices[0] >= prices[1] > prices[2] > prices[3] == pytest.approx(PRIOR)
    assert prices[4] == pytest.approx(PRIOR)
    assert budget.account().note == (
        "can't be met: more would spend over 1.5 times the core-hours of the prior price"
    )


def test_a_clock_set_back_forgets_what_lies_ahead():
    budget = settled()
    budget.rewind(4)
    assert (budget.newest, budget.account().known) == (4, 5)
    budget.rewind(-1)
    assert told(budget, True).account().known == 1


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"first": 0, "offset": 0.0, "integral": 0.0, "minutes": [[1, True]]},
        {"first": 0, "offset": float("nan"), "integral": 0.0, "minutes": []},
        {
            "first": 0,
            "offset": 0.0,
            "integral": 0.0,
            "minutes": [[2, True, False, 0, 0], [1, True, False, 0, 0]],
        },
        {"first": 0, "offset": 0.0, "integral": 0.0, "minutes": [[2, True, False, float("inf"), 0]]},
        {"first": None, "offset": 0.0, "integral": 0.0, "minutes": [[2, True, False, 0, 0]]},
    ],
)
def test_a_broken_state_is_refused(state):
    with pytest.raises(DataError, match="begins anew"):
        Budget(0.01, PRIOR, None).restore(state)


def drifting(price_of, days, seed):
    """Violating minutes of a load that needs 10 times less and 10 times more headroom, in four days."""
    random, bad = np.random.default_rng(seed), []
    for number in range(days * DAY):
        hard = 30 * 10 ** math.sin(2 * np.pi * number / (4 * DAY))
        bad.append(bool(random.random() < min(1.0, 0.02 * (hard / price_of(number, bad)) ** 1.5)))
    return bad


@pytest.mark.parametrize(("asked", "within"), [(0.01, 0.003), (0.02, 0.006)])
def test_on_a_drifting_load_it_comes_out_near_what_is_asked_and_no_fixed_price_does_day_by_day(asked, within):
    budget = Budget(asked, PRIOR, None, DAY)

    def kept(number, bad):
        if bad:
            told(budget, bad[-1], first=number - 1)
        return budget.price

    bad = np.array(drifting(kept, 5, seed=1000))[DAY:]
    assert abs(bad.mean() - asked) <= within  # 96 judged hours after the first day
    # The best fixed price for the first of these days, which a map from budget to price would know:
    calibrated = 30 * 10 * (0.02 / asked) ** (1 / 1.5)
    fixed = np.array(drifting(lambda number, bad: calibrated, 5, seed=1000))[DAY:]
    assert abs(fixed.mean() - asked) > within
    days = fixed.reshape(-1, DAY).mean(axis=1)
    assert days.min() < 0.2 * asked
