"""Policies compared over seeds, in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscaler.evaluation.comparison import (
    ComparedPolicy,
    Outcome,
    at_equal_cost,
    at_equal_violations,
    baseline_of,
    compare_policies,
    mean_interval,
    pareto_front,
    sweeps,
)
from deepscaler.evaluation.text import verdict
from deepscaler.runs import PolicyName

points = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2),
    st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float)),
    min_size=1,
)


@given(points)
def test_the_front_holds_exactly_the_points_that_nothing_dominates(places):
    front = pareto_front(places)

    def beaten(name):
        return any(
            a <= places[name][0] and b <= places[name][1] and (a, b) != places[name]
            for a, b in places.values()
        )

    assert set(front) == {name for name in places if not beaten(name)}
    assert front
    costs = [places[name][1] for name in front]
    assert costs == sorted(costs)


def test_a_point_with_unknown_violations_is_not_on_the_front():
    assert pareto_front({"a": (math.nan, 0.0), "b": (1.0, 1.0)}) == ["b"]


def test_a_sweep_is_read_linearly_at_equal_cost_and_equal_violations():
    sweep = [(0.10, 4.0), (0.04, 5.0), (0.0, 7.0)]
    assert at_equal_cost(sweep, 4.5) == pytest.approx(0.07)
    assert at_equal_violations(sweep, 0.07) == pytest.approx(4.5)
    assert at_equal_violations(sweep, 0.0) == 7.0
    assert at_equal_cost(sweep, 3.9) is None
    assert at_equal_cost(sweep, 7.1) is None
    assert at_equal_violations(sweep, 0.2) is None


def test_a_rival_is_read_at_its_best_not_at_its_dominated_settings():
    sweep = [(0.10, 4.0), (0.0, 5.0), (0.0, 7.0), (0.12, 6.0)]
    assert at_equal_cost(sweep, 6.0) == 0
    assert at_equal_violations(sweep, 0.0) == 5.0
    assert at_equal_violations(sweep, 0.11) == 4.0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 9)), min_size=1, max_size=6), st.floats(0, 9))
def test_more_money_never_buys_a_rival_more_violations(sweep, cost):
    here, dearer = at_equal_cost(sweep, cost), at_equal_cost(sweep, max(c for _, c in sweep))
    assert here is None or dearer <= here + 1e-12


def entrant(name):
    """The policy `<directory>/<policy>`, or `<policy>`."""
    directory, _, policy = name.rpartition("/")
    return ComparedPolicy(PolicyName.parse(policy), directory)


def outcomes(policy, values, cost):
    return [
        Outcome(entrant(policy), str(seed), {"violation_rate": value, "core_hours": cost})
        for seed, value in enumerate(values)
    ]


def test_policies_are_compared_over_seeds_and_against_the_baseline():
    rates = np.linspace(0.1, 0.2, 8)
    runs = [
        *outcomes("hpa_70", rates, 5.0),
        *outcomes("hpa_50", rates / 4, 6.0),
        *outcomes("deepscaler", rates - 0.05, 4.0),
    ]
    result = compare_policies(runs, "hpa_70")
    ours = result["policies"]["deepscaler"]
    assert ours["seeds"] == 8
    assert ours["violation_rate"] == pytest.approx(0.10)
    assert ours["violation_rate_ci"][0] < 0.10 < ours["violation_rate_ci"][1]
    assert ours["core_hours_ci"] == (4.0, 4.0)
    entry = result["paired"]["deepscaler"]
    assert entry["baseline"] == "hpa_70"
    assert entry["violation_rate"]["mean_difference_ci"] == pytest.approx((-0.05, -0.05))
    assert entry["violation_rate"]["p"] == pytest.approx(2 / 2**8)
    assert entry["violation_rate"]["p_holm"] == pytest.approx(4 / 2**8)
    assert "hpa_70" not in result["paired"]
    assert result["pareto"] == ["deepscaler", "hpa_50"]
    assert result["equal"]["deepscaler"]["hpa"] == {
        "members": ["hpa_50", "hpa_70"],
        "points": {
            "deepscaler": pytest.approx((0.10, 4.0)),
            "hpa_50": pytest.approx((0.0375, 6.0)),
            "hpa_70": pytest.approx((0.15, 5.0)),
        },
        "violation_rate_at_equal_cost": None,
        "core_hours_at_equal_violations": pytest.approx(5.0 + 0.05 / 0.1125),
        "seeds": 8,
        "violation_rate_difference_ci": None,
        "core_hours_ratio_ci": pytest.approx((0.732, 0.735), abs=0.02),
    }


@pytest.fixture
def uneven():
    """Three policies of which deepscaler misses most of the heavy loads, seeds 10 to 19.

    On each seed it lies on the line between the two HPAs, and the bound costs half of it.
    """
    rng = np.random.default_rng(0)
    levels = {"hpa_50": (0.01, 3.0), "hpa_70": (0.05, 2.0), "deepscaler": (0.03, 2.5)}
    levels["plan_foreseen"] = (0.0, 1.25)
    found = []
    for name, (violations, cost) in levels.items():
        for seed in range(13 if name == "deepscaler" else 20):
            heavy = 3.0 if seed >= 10 else 1.0
            row = {"violation_rate": violations * heavy + rng.uniform(0, 0.002), "hours": 1.0}
            row["core_hours"] = row["realised_cost"] = cost * heavy + rng.normal(0, 0.03)
            found.append(Outcome(entrant(name), str(seed), row))
    return compare_policies(found, "hpa_70")


def test_a_point_lies_in_its_interval_though_a_policy_misses_heavy_loads(uneven):
    found = uneven["equal"]["deepscaler"]["hpa"]
    violations, cost = found["points"]["deepscaler"]
    low, high = found["violation_rate_difference_ci"]
    assert found["seeds"] == 13 and low < violations - found["violation_rate_at_equal_cost"] < high
    low, high = found["core_hours_ratio_ci"]
    assert low < cost / found["core_hours_at_equal_violations"] < high
    text = verdict({**uneven, "baseline": "hpa_70"}, "hpa_70")
    assert f"hpa_70) reach {100 * found['violation_rate_at_equal_cost']:.2f} %" in text


def test_regret_is_over_the_bound_on_the_same_seeds(uneven):
    assert uneven["regret"]["deepscaler"]["share"] == pytest.approx(1.0, abs=0.02)


def test_the_front_is_judged_on_the_seeds_that_all_ran_on():
    """On seeds 0 to 2 the HPA is better on both counts; seed 3, which it alone met, is heavy."""
    runs = [*outcomes("hpa_70", [0.01, 0.01, 0.01, 0.9], 2.0), *outcomes("deepscaler", [0.02] * 3, 3.0)]
    result = compare_policies(runs, "hpa_70")
    assert result["pareto"] == ["hpa_70"] and result["pareto_share"]["deepscaler"] == 0
    assert result["pareto_points"] == {
        "hpa_70": pytest.approx((0.01, 2.0)),
        "deepscaler": pytest.approx((0.02, 3.0)),
    }
    rows = {name: {**row, "hours": 1.0, "slow_rate": 0.0} for name, row in result["policies"].items()}
    text = verdict({**result, "policies": rows}, "static")
    assert "hpa_70 did no worse on both and better on one" in text


def test_nobody_is_on_a_front_without_common_seeds():
    others = [Outcome(one.entrant, "9", one.measures) for one in outcomes("hpa_70", [0.1], 2.0)]
    result = compare_policies([*others, *outcomes("hpa_50", [0.1], 3.0)], "hpa_70")
    assert result["pareto"] == [] and result["pareto_share"] == {}
    assert math.isnan(result["paired"]["hpa_50"]["core_hours"]["baseline_mean"])


def test_a_share_isnt_above_one_and_a_cost_may_be():
    row = compare_policies(outcomes("hpa_70", [0.9, 0.5, 0.7], 5.0), "hpa_70")["policies"]["hpa_70"]
    assert row["violation_rate_ci"] == (pytest.approx(0.2032, abs=1e-4), 1.0)
    assert mean_interval("core_hours", [0.9, 0.5, 0.7])[1] == pytest.approx(1.1968, abs=1e-4)


def test_the_oracle_is_a_reference_and_beats_nobody():
    result = compare_policies(
        [*outcomes("oracle", [0.0, 0.0], 1.0), *outcomes("deepscaler", [0.1, 0.1], 2.0)], "hpa_70"
    )
    assert result["pareto"] == ["deepscaler"]
    assert "oracle" in result["policies"]


def test_directories_keep_their_own_baseline_and_sweep():
    names = ["sharp/hpa_70", "sharp/hpa_80", "square/hpa_70", "square/deepscaler", "plain/deepscaler"]
    found = {name: entrant(name) for name in names}
    everybody = list(found.values())
    assert baseline_of(found["square/deepscaler"], "hpa_70", everybody) == found["square/hpa_70"]
    assert baseline_of(found["plain/deepscaler"], "hpa_70", everybody) is None  # ambiguous
    assert baseline_of(found["plain/deepscaler"], "hpa_80", everybody) == found["sharp/hpa_80"]
    hpa = {"hpa": [found["sharp/hpa_70"], found["sharp/hpa_80"]]}
    assert sweeps(entrant("sharp/deepscaler"), everybody) == hpa
    assert sweeps(found["sharp/hpa_70"], everybody) == {}


def test_members_of_a_sweep_are_in_the_order_of_their_knobs():
    everybody = [entrant(name) for name in ("hpa_100", "hpa_50", "deepscaler")]
    assert [str(one) for one in sweeps(everybody[2], everybody)["hpa"]] == ["hpa_50", "hpa_100"]
