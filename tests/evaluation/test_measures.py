"""What a run is worth, in closed form."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from helpers.run_samples import START, endpoint_row, make_run
from hypothesis import given
from hypothesis import strategies as st

from deepscaler.cluster import LATENCY_BUCKETS
from deepscaler.errors import DataError
from deepscaler.evaluation.comparison import (
    Outcome,
    at_equal_cost,
    at_equal_violations,
    baseline_of,
    compare,
    pareto_front,
    sweeps,
)
from deepscaler.evaluation.measures import elasticity_measures, evaluate_run, quantile
from deepscaler.runs import DECISION_COLUMNS
from deepscaler.statistics import bootstrap_interval, holm, paired, rank_biserial, wilcoxon_p


def steady(seconds=0.1, length=120, done=10, **more):
    """10 requests of `GET /` every 15 s."""
    return [endpoint_row(t, "GET /", done, seconds, **more) for t in range(15, length + 1, 15)]


def test_a_minute_whose_entry_mean_exceeds_the_sla_violates():
    rows = [
        *(endpoint_row(t, "GET /", 10, 0.05) for t in (15, 30, 45, 60)),
        *(endpoint_row(t, "GET /", 10, 0.3) for t in (75, 90, 105, 120)),
    ]
    result = evaluate_run(make_run(rows), 0)
    assert (result["minutes"], result["violation_minutes"], result["violation_rate"]) == (2, 1, 0.5)
    assert result["below_half_rate"] == 0.5
    assert result["unknown_rate"] == 0
    assert result["response_mae"] == pytest.approx((0.10 + 0.15) / 2)  # to 0.15 s, three quarters of the SLA
    assert result["mean_seconds"] == pytest.approx(0.175)
    assert result["hours"] == pytest.approx(120 / 3600)


def test_the_entry_mean_weighs_endpoints_by_their_requests():
    rows = [
        row
        for t in (30, 60)
        for row in (endpoint_row(t, "GET /", 90, 0.1), endpoint_row(t, "POST /cart", 10, 1.0, slow=10))
    ]
    result = evaluate_run(make_run(rows), 0)
    assert result["mean_seconds"] == pytest.approx(0.19)
    assert result["violation_rate"] == 0  # the mean hides the cart
    assert result["slow_rate"] == pytest.approx(0.1)
    assert result["endpoints"]["POST /cart"]["slow_rate"] == 1
    assert result["window_violation_rate"] == 1  # and the windows don't


def test_a_minute_without_a_done_request_is_unknown_and_no_held_sla():
    rows = [*steady(0.3, 60), *(endpoint_row(t, "GET /", 0, 0.1, offered=5) for t in (75, 90, 105, 120))]
    result = evaluate_run(make_run(rows), 0)
    assert (result["unknown_rate"], result["violation_rate"]) == (0.5, 1.0)
    silent = evaluate_run(make_run([endpoint_row(t, "GET /", 0, 0.1) for t in range(15, 121, 15)]), 0)
    assert silent["unknown_rate"] == 1
    assert math.isnan(silent["violation_rate"])
    assert math.isnan(silent["p95_seconds"])


def test_minutes_missing_from_the_file_are_unknown_too():
    rows = [row for row in steady(0.1, 240) if not START + 60 < row[0] <= START + 180]
    assert evaluate_run(make_run(rows), 0)["unknown_rate"] == 0.5


def test_the_warmup_is_cut_from_every_measure():
    rows = [*steady(3.0, 60, slow=10), *(endpoint_row(t, "GET /", 10, 0.1) for t in range(75, 181, 15))]
    result = evaluate_run(make_run(rows), 60)
    assert (result["minutes"], result["violation_rate"], result["slow_rate"]) == (2, 0, 0)
    assert result["core_hours"] == pytest.approx(1.5 * 120 / 3600)
    with pytest.raises(DataError, match=r"lasted 180 s and evaluate\.warmup cuts 300 s"):
        evaluate_run(make_run(rows), 300)


def test_slow_and_failed_requests_are_weighed_by_what_was_offered():
    result = evaluate_run(make_run(steady(0.1, 120, done=6, failed=2, slow=1, offered=10)), 0)
    assert result["slow_rate"] == pytest.approx(0.3)
    assert result["failed_rate"] == pytest.approx(0.2)
    assert result["unfinished_rate"] == pytest.approx(0.2)


def test_an_unknown_slow_count_is_not_zero():
    run = make_run(steady())
    run.endpoints["slow"] = np.nan
    result = evaluate_run(run, 0)
    assert math.isnan(result["slow_rate"])
    assert result["unknown_window_rate"] == 1


def test_percentiles_are_linear_within_a_bucket():
    counts = np.zeros(len(LATENCY_BUCKETS) + 1)
    counts[LATENCY_BUCKETS.index(0.1)] = 50  # 75 to 100 ms
    counts[LATENCY_BUCKETS.index(0.2)] = 50  # 150 to 200 ms
    assert quantile(counts, 0.25) == pytest.approx(0.0875)
    assert quantile(counts, 0.5) == pytest.approx(0.1)
    assert quantile(counts, 0.95) == pytest.approx(0.195)
    counts[-1] = 1000
    assert quantile(counts, 0.99) == LATENCY_BUCKETS[-1]


def test_a_window_violates_when_more_than_5_percent_are_slow_or_failed():
    exactly = evaluate_run(make_run(steady(0.1, 120, done=20, slow=1)), 0)
    assert exactly["window_violation_rate"] == 0
    assert math.isnan(exactly["recovery_seconds"])
    assert (
        evaluate_run(make_run(steady(0.1, 120, done=19, failed=1, slow=1)), 0)["window_violation_rate"] == 1
    )


def test_recovery_is_the_mean_length_of_violating_episodes():
    slow = {15: 0, 30: 9, 45: 9, 60: 0, 75: 0, 90: 9, 105: 9, 120: 9, 135: 9, 150: 0, 165: 0, 180: 0}
    result = evaluate_run(make_run([endpoint_row(t, "GET /", 10, 0.1, slow=n) for t, n in slow.items()]), 0)
    assert result["episodes"] == 2
    assert result["recovery_seconds"] == 45
    assert result["window_violation_rate"] == 0.5


def test_a_silent_window_inside_an_episode_does_not_end_it():
    slow = [
        endpoint_row(t, "GET /", 0 if t == 45 else 10, 0.1, slow=0 if t == 45 else 10)
        for t in (15, 30, 45, 60)
    ]
    result = evaluate_run(make_run(slow), 0)
    assert (result["episodes"], result["recovery_seconds"], result["window_violation_rate"]) == (1, 60, 1)
    assert result["unknown_window_rate"] == 0.25


def test_pods_that_are_still_starting_are_paid_for_and_do_not_serve():
    pods = [
        (START + t, "web", spec, starting, ready)
        for t, spec, starting, ready in ((60, 1, 0, 1), (120, 3, 2, 1), (180, 3, 0, 3), (240, 3, 0, 3))
    ]
    result = evaluate_run(make_run(steady(length=240), pods), 0)
    assert result["core_hours"] == pytest.approx(0.5 * (1 + 3 + 3 + 3) * 60 / 3600)
    assert result["mean_replicas"] == pytest.approx(2.0)
    assert result["published_cost"] == pytest.approx(1.0)
    assert result["changes_per_hour"] == pytest.approx(1 / (240 / 3600))


def test_a_service_without_limit_costs_its_request_or_is_refused():
    run = make_run(steady(), limits={"web": None, "db": 1.0}, requests={"web": 0.25})
    assert evaluate_run(run, 0)["core_hours"] == pytest.approx(1.25 * 120 / 3600)
    with pytest.raises(DataError, match="'web' has no CPU limit"):
        evaluate_run(make_run(steady(), limits={"db": 1.0}), 0)


def test_planned_cost_holds_each_target_until_the_next():
    run = make_run(steady())
    rows = [
        (START + t, "web", 1, 1, np.nan, np.nan, target, 1, "forecast", "dry-run")
        for t, target in ((0, 2), (60, 4))
    ]
    run.decisions = pd.DataFrame(rows, columns=DECISION_COLUMNS)
    assert evaluate_run(run, 0)["planned_core_hours"] == pytest.approx(0.5 * 3 * 120 / 3600)


def test_elasticity_by_hand():
    supply = np.array([[1.0], [2], [4], [4]])
    demand = np.array([[2.0], [2], [2], [4]])
    assert elasticity_measures(supply, demand) == pytest.approx(
        {
            "theta_under": 0.5 / 4,
            "theta_over": 1.0 / 4,
            "tau_under": 0.25,
            "tau_over": 0.25,
            "instability": 1.0,
            "replica_mae": 0.75,
        }
    )


def test_elasticity_reads_the_oracle_of_the_run_and_none_without():
    oracle = {"web": [9, 2, 1], "db": [9, 1, 1]}
    result = evaluate_run(
        make_run(steady(length=180), oracle=oracle, oracle_times=[START, START + 60, START + 120]), 60
    )
    assert result["tau_under"] == 0.25  # the oracle's first minute is in the warm-up
    assert result["replica_mae"] == 0.25
    assert "tau_under" not in evaluate_run(make_run(steady()), 0)
    with pytest.raises(DataError, match="oracle_times"):
        evaluate_run(make_run(steady(), oracle=oracle), 0)


def test_decision_latency_is_read_where_it_is_recorded():
    assert evaluate_run(make_run(steady(), decision_seconds=[0.1, 0.3]), 0)[
        "decision_seconds"
    ] == pytest.approx(0.2)


@pytest.mark.parametrize(("key", "value"), [("policy", None), ("limits", {}), ("sla", [])])
def test_run_json_without_what_is_needed_is_refused_by_key(key, value):
    with pytest.raises(DataError, match=key):
        evaluate_run(
            make_run(steady(), **{key: value}) if key != "policy" else make_run(steady(), policy=value), 0
        )


# ---------------------------------------------------------------------------------------------------------- statistics
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


def outcomes(policy, values, cost):
    return [
        Outcome(policy, str(seed), {"violation_rate": value, "core_hours": cost})
        for seed, value in enumerate(values)
    ]


def test_policies_are_compared_over_seeds_and_against_the_baseline():
    rates = np.linspace(0.1, 0.2, 8)
    runs = [
        *outcomes("hpa_70", rates, 5.0),
        *outcomes("hpa_50", rates / 4, 6.0),
        *outcomes("deepscaler", rates - 0.05, 4.0),
    ]
    result = compare(runs, "hpa_70")
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
        "violation_rate_at_equal_cost": None,
        "core_hours_at_equal_violations": pytest.approx(5.0 + 0.05 / 0.1125),
    }


def test_the_oracle_is_a_reference_and_beats_nobody():
    result = compare(
        [*outcomes("oracle", [0.0, 0.0], 1.0), *outcomes("deepscaler", [0.1, 0.1], 2.0)], "hpa_70"
    )
    assert result["pareto"] == ["deepscaler"]
    assert "oracle" in result["policies"]


def test_directories_keep_their_own_baseline_and_sweep():
    names = ["sharp/hpa_70", "sharp/hpa_80", "square/hpa_70", "square/deepscaler", "plain/deepscaler"]
    assert baseline_of("square/deepscaler", "hpa_70", names) == "square/hpa_70"
    assert baseline_of("plain/deepscaler", "hpa_70", names) is None  # ambiguous
    assert baseline_of("plain/deepscaler", "hpa_80", names) == "sharp/hpa_80"
    assert sweeps("sharp/deepscaler", names) == {"hpa": ["sharp/hpa_70", "sharp/hpa_80"]}
    assert sweeps("sharp/hpa_70", names) == {}
