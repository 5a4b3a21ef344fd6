"""Means, tests and intervals for a handful of runs, in closed form; unknown values are left out."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from deepscaler.statistics import (
    EXACT_PAIRS,
    holm,
    nan_mean,
    paired,
    prediction_half,
    rank_biserial,
    slope_interval,
    t_interval,
    welch_p_below,
    wilcoxon_p,
)

ROOT = Path(__file__).parents[2]
NAN = math.nan


def test_a_mean_leaves_out_what_is_unknown_and_is_unknown_where_all_is():
    assert nan_mean([1.0, NAN, 3.0, np.inf]) == 2.0
    assert math.isnan(nan_mean([])) and math.isnan(nan_mean([NAN]))


def test_means_along_an_axis_are_unknown_only_where_all_is():
    values = np.array([[1.0, NAN, NAN], [3.0, 5.0, NAN]], np.float32)
    np.testing.assert_array_equal(nan_mean(values, 0), [2.0, 5.0, NAN])
    np.testing.assert_array_equal(nan_mean(values, 1), [1.0, 4.0])
    np.testing.assert_array_equal(nan_mean(np.zeros((0, 2)), 0), [NAN, NAN])


def test_float32_is_summed_in_float64():
    values = np.full((3, 1), 0.1, np.float32)
    assert nan_mean(values, 0)[0] == float(np.float32(0.1))


def test_means_take_no_scipy():
    code = "import sys, deepscaler.statistics\nassert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("count", [3, 5, 8, 12])
def test_so_many_intervals_hold_the_mean_as_they_say(count):
    samples = np.random.default_rng(count).standard_normal((1000, count))
    missed = sum(not low < 0 < high for low, high in map(t_interval, samples))
    assert missed == pytest.approx(50, abs=25)


def test_equal_values_have_an_interval_without_width():
    assert t_interval([0.1] * 3) == (0.1, 0.1)  # their mean is 0.10000000000000002
    assert t_interval([3.0, 3.0, math.nan]) == (3.0, 3.0) and t_interval([3.0, math.nan]) is None


def test_an_interval_ends_where_nothing_can_be():
    low, high = t_interval([0.0, 0.0, 1.0], least=0.0)
    assert low == 0.0 and high == t_interval([0.0, 0.0, 1.0])[1] > 1


def test_equal_shares_of_minutes_are_ties_whatever_their_last_bit():
    own, other = [3, 5, 2, 7, 4, 9, 1, 6, 2, 3, 8, 4], [2, 4, 3, 5, 3, 8, 2, 5, 1, 2, 6, 3]
    minutes = paired(dict(enumerate(own)), dict(enumerate(other)))
    shares = paired(*({seed: one / 60 for seed, one in enumerate(ones)} for ones in (own, other)))
    assert (shares["p"], shares["effect"]) == (minutes["p"], minutes["effect"])
    assert shares["p"] == pytest.approx(0.0273, abs=1e-4)


@pytest.mark.parametrize("pairs", [1, 3, 8, 12, 20, 50, 60])
@pytest.mark.parametrize("digits", [0, 1, 6])
def test_wilcoxon_with_and_without_ties(pairs, digits):
    values = np.random.default_rng(pairs).normal(0.4, 1.5, pairs).round(digits)
    moved = values[values != 0]
    ties = len(np.unique(np.abs(moved))) < len(moved)
    if ties and 13 < len(moved) <= EXACT_PAIRS:
        # With ties scipy is exact up to 13 pairs only; here signs are tossed 40,000 times.
        signs = np.random.default_rng(0).choice([-1, 1], (40_000, len(moved)))
        ranks = stats.rankdata(np.abs(moved))
        sums = np.abs(signs @ ranks)
        expected = np.mean(sums >= abs(np.sign(moved) @ ranks) - 1e-9)
        assert wilcoxon_p(values) == pytest.approx(expected, abs=0.008)
    else:
        assert wilcoxon_p(values) == pytest.approx(stats.wilcoxon(moved).pvalue if len(moved) else 1.0)


def test_wilcoxon_of_no_difference_is_one_and_of_nothing_unknown():
    assert wilcoxon_p([0.0] * 20) == 1.0
    assert math.isnan(wilcoxon_p([math.nan]))
    assert wilcoxon_p([1.0, 2, 3, 4, 5]) == pytest.approx(2 / 2**5)
    assert wilcoxon_p([0.0, 0, 1.0, 2, 3, 4, 5]) == pytest.approx(2 / 2**5)


def test_rank_biserial_runs_from_minus_one_to_one():
    assert rank_biserial([-1.0, -2, 0]) == -1
    assert rank_biserial([3.0, -1, -2]) == 0
    assert rank_biserial([0.0, 0]) == 0


@pytest.mark.parametrize(
    ("values", "others", "p"),
    [
        ([1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0], 0.0721),  # t = -1.73 with 4.96 degrees of freedom
        ([1.0, 1.0], [2.0, 2.0], 0.0),
        ([2.0, 2.0], [2.0, 2.0], 1.0),
        ([1.0, NAN], [2.0, 3.0], 1.0),
    ],
)
def test_welch_asks_whether_a_mean_is_below_another(values, others, p):
    assert welch_p_below(values, others) == pytest.approx(p, abs=5e-4)


def test_holm_steps_down_and_keeps_the_order_given():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, math.nan, 0.9])[::2] == pytest.approx([1.0, 1.0])
    assert math.isnan(holm([0.5, math.nan])[1])


def test_pairs_are_made_by_seed_and_unknown_ones_are_left_out():
    result = paired({"1": 5.0, "2": 7.0, "3": 9.0, "4": math.nan}, {"1": 4.0, "2": 6.0, "4": 1.0, "5": 2.0})
    assert (result["pairs"], result["mean_difference"], result["mean_difference_ci"], result["effect"]) == (
        2,
        1.0,
        (1.0, 1.0),
        1.0,
    )


def test_a_slope_and_its_interval_are_those_of_the_line_whatever_a_few_outliers_say():
    times = np.arange(60.0)
    slope, low, high = slope_interval(times, 3.0 + 0.5 * times)
    assert (slope, low, high) == pytest.approx((0.5, 0.5, 0.5))
    values = 3.0 + 0.5 * times
    values[::20] += 100.0
    slope, low, high = slope_interval(times, values)
    assert low <= 0.5 <= high and slope == pytest.approx(0.5, abs=0.05)


def test_the_next_value_lies_as_far_away_as_is_usual_and_as_the_values_tell():
    # One value tells nothing of a spread: Student's t of 4 degrees of freedom, the spread of a difference
    assert prediction_half([7.0], 0.5, 4.0) == pytest.approx(2.7764 * 0.5 * math.sqrt(2.0), rel=1e-4)
    assert prediction_half([1.0, 3.0], 0.0, 0.0) == pytest.approx(12.706 * math.sqrt(2.0 * 1.5), rel=1e-4)
    assert math.isnan(prediction_half([NAN], 0.5, 4.0))


def test_nineteen_of_twenty_next_values_lie_inside():
    drawn = np.random.default_rng(0).normal(size=(4000, 4))
    halves = np.array([prediction_half(row[:3], 1.0, 4.0) for row in drawn[:400]])
    inside = np.abs(drawn[:400, 3] - drawn[:400, :3].mean(axis=1)) <= halves
    assert 0.92 <= inside.mean() <= 0.98
