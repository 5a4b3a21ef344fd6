"""Intervals at equal cost and at equal violations: closed forms, and how often they err."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deepscaler.evaluation.comparison import ComparedPolicy, Outcome, compare_policies
from deepscaler.evaluation.resampled import (
    Sample,
    cost_at_equal_violations,
    drawn_means,
    draws_of,
    front_share,
    interval_of,
    reached,
    violations_at_equal_cost,
)
from deepscaler.runs import PolicyName

RATES = np.array([0.12, 0.08, 0.05, 0.03, 0.02])
COSTS = np.array([4.0, 4.5, 5.2, 6.0, 7.0])


def test_a_sweep_is_read_linearly_and_is_open_beyond_its_ends():
    held = np.broadcast_to(COSTS, (5, 5))
    got = np.broadcast_to(RATES, (5, 5))
    at = np.array([3.9, 4.0, 4.25, 5.6, 7.1])
    assert reached(held, got, at, 0.0) == pytest.approx([math.inf, 0.12, 0.10, 0.04, 0.0])


def test_settings_that_another_beats_do_not_count():
    held, got = np.array([[4.0, 5.0, 6.0, 7.0]]), np.array([[0.10, 0.0, 0.12, 0.0]])
    assert reached(held, got, np.array([6.0]), 0.0) == 0.0
    assert reached(got, held, np.array([0.11]), -math.inf) == 4.0


def test_means_of_draws_leave_out_unknown_seeds():
    draws = np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0]])
    means = drawn_means([1.0, math.nan, 3.0], draws)
    assert means[0] == 2.0 and math.isnan(means[1])


def test_an_interval_is_open_where_no_setting_reaches():
    assert interval_of([-math.inf] * 10 + [1.0] * 90, 20) == (-math.inf, 1.0)
    assert interval_of([-math.inf] * 100, 20) is None
    assert interval_of([0.0, math.nan], 20) is None
    assert interval_of([0.0, 1.0], 4) is None and interval_of([0.0, 1.0], 5) == (0.0, 1.0)


def simulated(seeds, rate, cost, random, experiments=1000):
    """Experiments in which a policy of that rate and cost meets a sweep of five settings on common loads."""
    hard = random.normal(size=(experiments, seeds))

    def measured(mean, own, common):
        return mean * (1 + common * hard + own * random.normal(size=(experiments, seeds)))

    def both(rates, costs):
        return Sample(measured(rates, 0.15, 0.3), measured(costs, 0.02, 0.05))

    rivals = [both(*point) for point in zip(RATES, COSTS, strict=True)]
    sweep = Sample(*(np.stack([getattr(one, name) for one in rivals], 1) for name in ("violations", "costs")))
    return both(rate, cost), sweep


def share_found(drawn, seeds, nothing):
    """Share of experiments whose interval leaves out what no difference would be."""
    found = [interval_of(one, seeds) for one in drawn]
    return np.mean([bounds is not None and not bounds[0] <= nothing <= bounds[1] for bounds in found])


@pytest.mark.parametrize("seeds", [8, 20])
def test_a_planted_null_is_not_found_and_a_planted_difference_is(seeds):
    random = np.random.default_rng(seeds)
    draws = draws_of(seeds, 500)
    own, sweep = simulated(seeds, 0.04, 5.6, random)  # in the middle between two settings
    assert 0.02 < share_found(violations_at_equal_cost(own, sweep, draws), seeds, 0.0) < 0.085
    assert 0.02 < share_found(cost_at_equal_violations(own, sweep, draws), seeds, 1.0) < 0.085
    better, sweep = simulated(seeds, 0.025, 5.6, random, 200)
    assert share_found(violations_at_equal_cost(better, sweep, draws), seeds, 0.0) > 0.95
    assert share_found(cost_at_equal_violations(better, sweep, draws), seeds, 1.0) > 0.95


def test_who_is_on_the_front_is_as_sure_as_the_seeds_are():
    random = np.random.default_rng(0)
    violations = np.stack([np.full(12, 0.1), np.full(12, 0.2), random.normal(0.1, 0.02, 12)])
    costs = np.array([[4.0], [5.0], [4.0]]) * np.ones(12)
    shares = front_share(Sample(violations, costs), draws_of(12))
    assert shares[1] == 0.0 and 0.1 < shares[0] < 0.9 and shares[0] + shares[2] == pytest.approx(1.0)


def test_a_comparison_states_the_intervals_and_the_regret():
    random = np.random.default_rng(1)
    loads = random.normal(1.0, 0.1, 10)
    places = {
        "hpa_50": (0.02, 7.0),
        "hpa_70": (0.1, 5.0),
        "deepscaler": (0.05, 5.0),
        "plan_foreseen": (0.0, 4.5),
    }
    outcomes = [
        Outcome(
            ComparedPolicy(PolicyName.parse(name)),
            str(seed),
            {
                "violation_rate": rate * load,
                "core_hours": cost * load,
                "realised_cost": cost * load + 9 * rate,
            },
        )
        for name, (rate, cost) in places.items()
        for seed, load in enumerate(loads)
    ]
    found = compare_policies(outcomes, "hpa_70")
    equal = found["equal"]["deepscaler"]["hpa"]
    assert equal["seeds"] == 10
    assert equal["core_hours_ratio_ci"] == pytest.approx((5 / 6.25, 5 / 6.25))  # all rise and fall together
    assert equal["violation_rate_difference_ci"][1] < 0
    assert found["pareto_share"]["deepscaler"] == 1.0 and "plan_foreseen" not in found["pareto_share"]
    regret = found["regret"]["deepscaler"]
    assert regret["bound"] == "plan_foreseen" and regret["pairs"] == 10
    assert regret["share"] == pytest.approx((0.5 * loads.mean() + 0.45) / (4.5 * loads.mean()))
    assert found["regret"]["hpa_50"]["mean_difference"] > regret["mean_difference"]
