"""What a run is worth, in closed form."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from helpers.run_samples import START, endpoint_row, make_run

from deepscaler.cluster import LATENCY_BUCKETS
from deepscaler.errors import DataError
from deepscaler.evaluation.measures import elasticity_measures, evaluate_run, quantile
from deepscaler.evaluation.span import replicas
from deepscaler.runs import DECISION_COLUMNS


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
    assert result["starts_per_hour"] == pytest.approx(2 / (240 / 3600))


def test_replicas_are_the_last_sample_of_each_moment_and_go_on_through_gaps():
    rows = [
        (30.0, "web", 2.0), (15.0, "db", 1.0), (15.0, "web", 5.0), (15.0, "web", 3.0),
        (45.0, "web", np.nan), (45.0, "db", 4.0), (60.0, "db", np.nan),
    ]  # fmt: skip
    table = replicas(pd.DataFrame(rows, columns=["time", "service", "ready"]), "ready")
    assert table.index.tolist() == [15.0, 30.0, 45.0] and table.columns.tolist() == ["db", "web"]
    assert table.to_numpy().tolist() == [[1.0, 3.0], [1.0, 2.0], [4.0, 2.0]]
    late = replicas(pd.DataFrame(rows[::-1], columns=["time", "service", "ready"]), "ready")
    assert late.to_numpy().tolist() == [[1.0, 5.0], [1.0, 2.0], [4.0, 2.0]]


def test_a_service_without_limit_costs_its_request_or_is_refused():
    run = make_run(steady(), limits={"web": None, "db": 1.0}, requests={"web": 0.25})
    assert evaluate_run(run, 0)["core_hours"] == pytest.approx(1.25 * 120 / 3600)
    with pytest.raises(DataError, match="'web' has no CPU limit"):
        evaluate_run(make_run(steady(), limits={"db": 1.0}), 0)


def test_planned_cost_holds_each_target_until_the_next():
    run = make_run(steady())
    rows = [
        (START + t, "web", 1, 1, np.nan, np.nan, target, 1, "forecast", "dry-run", "")
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
