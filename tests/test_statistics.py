"""Tests and intervals for a handful of runs, in closed form."""

from __future__ import annotations

import math

import pytest

from deepscaler.statistics import bootstrap_interval, holm, known_mean, paired, rank_biserial, wilcoxon_p


def test_the_mean_of_what_is_known_is_unknown_where_nothing_is():
    assert known_mean([1.0, math.nan, 3.0]) == 2.0
    assert math.isnan(known_mean([math.nan]))


def test_bootstrap_is_the_same_each_time_and_holds_the_mean():
    values = [1.0, 2, 3, 4, 10]
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    assert 1 < low < 4 < high < 10
    assert bootstrap_interval([3.0, 3.0, math.nan]) == (3.0, 3.0)
    assert bootstrap_interval([3.0, math.nan]) is None


def test_wilcoxon_of_no_difference_is_one_and_of_nothing_unknown():
    assert wilcoxon_p([0.0] * 20) == 1.0
    assert math.isnan(wilcoxon_p([math.nan]))
    assert wilcoxon_p([1.0, 2, 3, 4, 5]) == pytest.approx(2 / 2**5)
    assert wilcoxon_p([0.0, 0, 1.0, 2, 3, 4, 5]) == pytest.approx(2 / 2**5)


def test_rank_biserial_runs_from_minus_one_to_one():
    assert rank_biserial([-1.0, -2, 0]) == -1
    assert rank_biserial([3.0, -1, -2]) == 0
    assert rank_biserial([0.0, 0]) == 0


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
