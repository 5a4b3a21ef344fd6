"""The demand fit and the `required` rule."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import telemetry as app
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscaler.calls import EXTERNAL, CallGraph
from deepscaler.errors import DataError
from deepscaler.labels.demand import (
    FORMS,
    DemandModel,
    Response,
    external_rates,
    present_requirement,
    required_replicas,
    requirement_from_usage,
    requirements,
)
from deepscaler.labels.fit import fit_demand, read_facts, two_nonnegative
from deepscaler.labels.visits import follow_visits, visits_from_routing
from deepscaler.panel import MetricPanel
from deepscaler.settings import Process

ENTRY = {"entries": ["web"], "sla_seconds": 0.2}


def one_service(**changes) -> DemandModel:
    """Limit 0.2 cores, 10 ms a request, 20 millicores idle, no response rule."""
    known = {
        "services": ("web",),
        "idle_cores": np.array([0.02]),
        "demand_seconds": np.array([0.01]),
        "limit_cores": np.array([0.2]),
        "boot_seconds": np.array([15.0]),
        "visits": np.ones((1, 1)),
        "response": None,
    }
    return app.truth(**{**known, **changes})


# ------------------------------------------------------------------------------------------------------------ the rule
def test_utilisation_rule_by_hand():
    # a replica may use 0.9 * 0.2 - 0.02 = 0.16 cores on requests: 16 requests/s each
    rates = np.array([[0.0], [1], [15.9], [16], [16.1], [32], [33], [np.nan]])
    np.testing.assert_array_equal(
        required_replicas(one_service(), rates)[:, 0], [1, 1, 1, 1, 2, 2, 3, np.nan]
    )
    np.testing.assert_array_equal(
        required_replicas(one_service(), rates[3:5], rho_max=0.5)[:, 0], [2, 3]
    )  # 8 each


def test_the_exact_requirement_by_hand():
    rates = np.array([[0.0], [4], [16], [16.1], [40], [np.nan]])  # a replica takes 16 requests/s
    np.testing.assert_allclose(
        requirements(one_service(), rates)[1][:, 0], [0.01, 0.25, 1, 1.00625, 2.5, np.nan]
    )
    np.testing.assert_allclose(requirements(one_service(), rates[1:2], rho_max=0.5)[1], [[0.5]])
    slow = one_service(response=Response(0.02, 1.0, "random"), sla_seconds=0.13, sla_margin=1.0)
    np.testing.assert_allclose(
        requirements(slow, np.array([[4.0], [12.0]]))[1][:, 0], [0.25, 2]
    )  # the latency rule added one


@settings(deadline=None)
@given(
    rates=st.lists(st.floats(0, 500), min_size=3, max_size=3),
    rho_max=st.floats(0.3, 0.95),
    form=st.sampled_from(list(FORMS)),
)
def test_the_exact_requirement_rounds_up_to_the_replicas(rates, rho_max, form):
    model = app.truth(rho_max=rho_max, response=replace(app.RESPONSE, form=form))
    exact = requirements(model, np.array([rates]))[1]
    np.testing.assert_array_equal(
        np.maximum(np.ceil(exact - 1e-9), 1), required_replicas(model, np.array([rates]))
    )


def test_response_rule_by_hand():
    # R = 0.02 + 1 * (0.01 / 0.2) * rho / (1 - rho) with rho = 0.1 + 0.05 x / n; at 12 requests/s:
    # n = 1: rho .7, R .1367; n = 2: rho .4, R .0533; n = 3: rho .3, R .0414
    model = one_service(response=Response(0.02, 1.0, "random"))
    for target, expected in ((0.14, 1), (0.13, 2), (0.054, 2), (0.053, 3)):
        picked = required_replicas(replace(model, sla_seconds=target, sla_margin=1.0), np.array([[12.0]]))
        assert picked[0, 0] == expected
    np.testing.assert_allclose(model.response_at(np.array([[12.0]]), np.array([[2.0]])), 0.02 + 0.05 * 2 / 3)


def test_an_sla_below_the_unloaded_response_buys_nothing():
    model = one_service(response=Response(0.3, 1.0, "random"))
    assert required_replicas(model, np.array([[12.0]]))[0, 0] == 1


def test_the_cheaper_service_is_relieved_first():
    twins = app.truth(
        services=("a", "b"), idle_cores=np.zeros(2), demand_seconds=np.array([0.01, 0.01]), limit_cores=np.array([0.2, 0.2]),
        boot_seconds=np.zeros(2), entries=("a",), visits=np.array([[1.0, 1.0]]), response=Response(0.0, 1.0, "random"),
        sla_seconds=0.3, sla_margin=1.0,
    )  # fmt: skip
    assert required_replicas(twins, np.array([[16.0, 10.0]])).tolist() == [[1, 1]]  # R = .05 (4 + 1) = .25
    twins = replace(twins, sla_seconds=0.2)
    assert required_replicas(twins, np.array([[16.0, 10.0]])).tolist() == [[2, 1]]


@settings(deadline=None)
@given(
    rates=st.lists(st.floats(0, 500), min_size=2, max_size=30),
    idle=st.floats(0, 0.1),
    demand=st.floats(1e-4, 0.05),
    rho_max=st.floats(0.3, 0.95),
    form=st.sampled_from([None, *FORMS]),
)
def test_more_load_never_needs_fewer_replicas_and_utilisation_stays_below_its_bound(
    rates, idle, demand, rho_max, form
):
    model = one_service(
        idle_cores=np.array([idle]),
        demand_seconds=np.array([demand]),
        rho_max=rho_max,
        response=form and Response(0.02, 1.0, form),
    )
    rates = np.sort(np.array(rates))[:, None]
    replicas = required_replicas(model, rates)
    assert (np.diff(replicas[:, 0]) >= 0).all()
    assert (replicas >= 1).all()
    if rho_max * 0.2 - idle >= 0.05 * 0.2:  # else no number of replicas gets there
        assert ((idle * replicas + demand * rates) / (0.2 * replicas) <= rho_max + 1e-6).all()


@settings(deadline=None)
@given(load=st.floats(1, 400), share=st.floats(0.05, 1))
def test_what_is_required_meets_the_predicted_sla_and_each_added_replica_was_needed(load, share):
    model = app.truth(sla_seconds=0.1)
    rates = load * app.VISITS[None] * np.array([1, share, 1])
    replicas = required_replicas(model, rates)
    floor = required_replicas(replace(model, response=None), rates)
    assert (replicas >= floor).all()
    assert model.response_at(rates, replicas)[0] <= 0.075 + 1e-9
    if (replicas > floor).any():
        assert any(
            model.response_at(rates, replicas - step)[0] > 0.075 for step in np.eye(3)[(replicas > floor)[0]]
        )


def test_an_unknown_service_stays_unknown_and_spoils_no_other():
    model = app.truth(demand_seconds=np.array([0.007, np.nan, 0.005]), sla_seconds=0.1)
    replicas = required_replicas(model, np.array([[60.0, 120, 80], [60.0, 120, np.nan]]))
    assert (
        np.isnan(replicas[:, 1]).all() and np.isfinite(replicas[:, 0]).all() and np.isfinite(replicas[0, 2])
    )
    assert np.isnan(replicas[1, 2])


def test_a_day_of_41_services_meets_the_margin_in_every_row():
    n = 41
    model = app.truth(
        services=tuple(map(str, range(n))), idle_cores=np.full(n, 0.003), demand_seconds=np.full(n, 0.005), limit_cores=np.full(n, 0.2),
        boot_seconds=np.full(n, 15.0), entries=("0",), visits=np.ones((1, n)), sla_seconds=0.3,
    )  # fmt: skip
    rates = np.repeat(np.random.default_rng(1).uniform(10, 300, (5760, 1)), n, axis=1)
    replicas = required_replicas(model, rates)
    assert (model.response_at(rates, replicas) <= 0.225 + 1e-9).all()


# ------------------------------------------------------------------------------------------------------------- the fit
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_demand_is_within_one_percent_from_sixty_noisy_minutes(seed):
    panel = app.telemetry(60, seed=seed, highest=0.9)
    model = fit_demand(panel, app.calls_of(panel), app.FACTS, Process(), **ENTRY)
    np.testing.assert_allclose(model.demand_seconds, app.DEMAND, rtol=0.01)
    np.testing.assert_allclose(model.idle_cores, app.IDLE, atol=0.001)
    np.testing.assert_allclose(model.visits, app.VISITS[None], rtol=0.01)
    assert model.quality["usable_minutes"] == 60
    assert min(model.quality["cpu_r2"].values()) > 0.98


def test_outliers_and_saturated_minutes_dont_bend_the_fit():
    panel = app.telemetry(240)
    values = panel.values.copy()
    values[200:240, :, 1] *= 3  # a batch job on the node
    values[400:440, :, 1] = 1.0
    values[400:440, :, 3] *= 0.3
    bent = MetricPanel(panel.times, panel.services, panel.features, values)
    model = fit_demand(bent, None, app.FACTS, Process(), **ENTRY)
    np.testing.assert_allclose(model.demand_seconds, app.DEMAND, rtol=0.02)


def test_the_response_form_is_found_by_held_out_error():
    panel = app.telemetry(600, noise=0.05)
    model = fit_demand(panel, app.calls_of(panel), app.FACTS, Process(), **ENTRY)
    assert model.response is not None
    assert model.response.form == "least_request"
    assert model.response.r0 == pytest.approx(app.RESPONSE.r0, rel=0.1)
    assert model.response.kappa == pytest.approx(app.RESPONSE.kappa, rel=0.2)
    assert min(model.quality["log_error"], key=model.quality["log_error"].get) == "least_request"


def test_without_hot_minutes_the_utilisation_rule_remains_with_a_warning(caplog):
    panel = app.telemetry(120, lowest=0.2, highest=0.5)
    model = fit_demand(panel, None, app.FACTS, Process(), **ENTRY)
    assert model.response is None
    lines = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert (
        len(lines) == 1
        and "no response fit" in lines[0]
        and "python predict_scale.py --policy explore" in lines[0]
    )


def test_too_few_minutes_say_what_to_collect():
    with pytest.raises(
        DataError,
        match=r"59 usable minutes .* of 59 .*at least 60 .*python predict_scale\.py --policy explore",
    ):
        fit_demand(app.telemetry(59, highest=0.9), None, app.FACTS, Process(), **ENTRY)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        (3, np.nan, r"req of the entries \(web\) is missing throughout .*collect\.queries\.req"),
        (2, np.nan, r"res of the entries \(web\) is missing throughout .*collect\.queries\.res"),
        (3, 0.0, r"no requests at the entries \(web\) .*sendLoop\.sh"),
    ],
)
def test_entries_without_rates_or_requests_say_so_whether_calls_are_recorded_or_not(column, value, says):
    panel = app.telemetry(120)
    values = panel.values.copy()
    values[:, 0, column] = value
    broken = MetricPanel(panel.times, panel.services, panel.features, values)
    for calls in (None, app.calls_of(panel)):
        with pytest.raises(DataError, match=says) as error:
            fit_demand(broken, calls, app.FACTS, Process(), **ENTRY)
        assert "\n" not in str(error.value) and str(error.value).endswith("python metrics_fetch.py")


def test_a_service_that_was_never_loaded_is_told_in_one_line(caplog):
    panel = app.telemetry(120)
    values = panel.values.copy()
    values[:, 2, 3] = 0
    values[:, 2, 1] = app.IDLE[2] / app.LIMITS[2]
    fit_demand(
        MetricPanel(panel.times, panel.services, panel.features, values), None, app.FACTS, Process(), **ENTRY
    )
    lines = [record.message for record in caplog.records if record.message.startswith("db: ")]
    assert len(lines) == 1 and "never loaded" in lines[0] and "python metrics_fetch.py" in lines[0]


def test_minutes_without_entry_traffic_or_beyond_twice_the_sla_are_not_usable():
    panel = app.telemetry(70, highest=0.9)
    values = panel.values.copy()
    values[:80, 0, 3] = 0
    values[:80, 0, 2] = np.nan
    with pytest.raises(DataError, match="50 usable minutes"):
        fit_demand(
            MetricPanel(panel.times, panel.services, panel.features, values),
            None,
            app.FACTS,
            Process(),
            **ENTRY,
        )
    values = panel.values.copy()
    values[:80, 0, 2] = 0.5
    with pytest.raises(DataError, match="50 usable minutes"):
        fit_demand(
            MetricPanel(panel.times, panel.services, panel.features, values),
            None,
            app.FACTS,
            Process(),
            **ENTRY,
        )


def test_a_service_without_data_is_unknown_with_a_warning_and_an_idle_one_costs_its_idle_cores(caplog):
    panel = app.telemetry(120)
    values = panel.values.copy()
    values[:, 1] = np.nan
    values[:, 2, 3] = 0
    values[:, 2, 1] = app.IDLE[2] / app.LIMITS[2]
    model = fit_demand(
        MetricPanel(panel.times, panel.services, panel.features, values), None, app.FACTS, Process(), **ENTRY
    )
    assert np.isnan(model.demand_seconds[1]) and "cart: CPU demand unknown" in caplog.text
    np.testing.assert_allclose(model.demand_seconds[0], app.DEMAND[0], rtol=0.02)
    np.testing.assert_allclose(model.idle_cores[2], app.IDLE[2], rtol=0.01)
    assert model.demand_seconds[2] == 0


@settings(deadline=None)
@given(st.floats(0, 5), st.floats(0, 5))
def test_two_nonnegative_recovers_exact_coefficients(alpha, beta):
    u, v = np.random.default_rng(1).random((2, 40, 1))
    found = two_nonnegative(u, v, alpha * u + beta * v, np.ones_like(u))
    np.testing.assert_allclose(np.concatenate(found), [alpha, beta], atol=1e-6)


def test_two_nonnegative_keeps_to_the_better_edge():
    u, v = np.random.default_rng(1).random((2, 40, 1))
    alpha, beta = two_nonnegative(u, v, 2 * v - 0.5 * u, np.ones_like(u))
    assert alpha[0] == 0 and beta[0] > 0


# -------------------------------------------------------------------------------------------------------------- visits
def test_visits_follow_from_the_routing_matrix():
    entry = 40.0
    calls = entry * app.VISITS[:, None] * app.CALLS_PER_REQUEST
    np.testing.assert_allclose(visits_from_routing(calls, np.array([entry, 0, 0]), [0]), [[1, 2, 1.3]])


def test_entries_that_call_one_another_keep_their_own_visits():
    # page calls details once; users ask details directly too
    calls = np.array([[0.0, 10], [0, 0]])
    visits = visits_from_routing(calls, np.array([10.0, 5]), [0, 1])
    np.testing.assert_allclose(visits, [[1, 1], [0, 1]])
    np.testing.assert_allclose(
        external_rates(visits, [0, 1], np.array([[10.0, 15], [20, 20]])), [[10, 5], [20, 0]], atol=1e-9
    )


def test_a_cycle_that_ends_is_summed_and_one_that_never_ends_stays_finite():
    # a passes half of what it serves on to b, b half back: served by a 1 / (1 - 1/4)
    calls = np.array([[0.0, 2], [1, 0]])
    np.testing.assert_allclose(visits_from_routing(calls, np.array([3.0, 0]), [0]), [[4 / 3, 2 / 3]])
    endless = visits_from_routing(np.array([[0.0, 2], [2, 0]]), np.array([0.0, 0]), [0])
    assert np.isfinite(endless).all()


def test_an_idle_application_has_no_visits_beyond_the_entry():
    np.testing.assert_array_equal(visits_from_routing(np.zeros((3, 3)), np.zeros(3), [0]), [[1, 0, 0]])


def test_regression_finds_visits_where_no_calls_are_recorded():
    panel = app.telemetry(120)
    np.testing.assert_allclose(
        follow_visits(panel, None, ["web"], 1800.0).values[-1], app.VISITS[None], rtol=0.02
    )


def test_a_tracer_that_sees_no_users_gives_the_same_visits():
    panel = app.telemetry(120)
    frame = app.calls_of(panel).frame
    inside = CallGraph(frame[frame["caller"] != EXTERNAL])
    np.testing.assert_allclose(
        follow_visits(panel, inside, ["web"], 1800.0).values[-1], app.VISITS[None], rtol=0.01
    )


def test_a_change_of_the_mix_is_followed_within_half_the_window():
    panel = app.telemetry(240)
    frame = app.calls_of(panel).frame.copy()
    change = app.START + 7200
    late = (frame["time"] > change) & (frame["caller"] != EXTERNAL)
    frame.loc[late, "calls_per_second"] *= np.where(frame.loc[late, "caller"] == "web", 3, 1)
    visits = follow_visits(panel, CallGraph(frame), ["web"], 1800.0)
    before, after = visits.values[visits.index_at(np.array([change - 1000, change + 1000]))]
    np.testing.assert_allclose(before, [[1, 2, 1.3]], rtol=0.01)
    np.testing.assert_allclose(after[0, 1], 6, rtol=0.01)


# ------------------------------------------------------------------------------------------------------- hidden demand
@settings(deadline=None)
@given(users=st.floats(10, 500), think=st.floats(0.2, 10), tasks=st.floats(0.5, 3), slow=st.floats(0.03, 20))
def test_the_correction_undoes_what_a_closed_loop_hides(users, think, tasks, slow):
    model = one_service(think_seconds=think, requests_per_think=tasks, unloaded_seconds=0.03)
    seen, offered = (users * tasks / (think + tasks * response) for response in (slow, 0.03))
    assert seen * float(model.correction(np.array(slow))) == pytest.approx(offered)


def test_no_correction_for_open_loops_fast_responses_or_no_traffic():
    assert one_service().correction(np.array([5.0])) == 1
    np.testing.assert_array_equal(one_service(think_seconds=1.0).correction(np.array([0.01, np.nan])), [1, 1])


# -------------------------------------------------------------------------------------------------------- the present
def test_present_requirement_takes_the_newest_rate_and_the_entries_visits():
    rates = np.r_[np.full(20, 10.0), np.full(2, 100.0)]
    panel = app.constant(rates)
    values = panel.values.copy()
    values[-2:, 2, 3] = 5.0  # held back by a bottleneck upstream; visits say 130
    panel = MetricPanel(panel.times, panel.services, panel.features, values)
    model = app.truth(response=None)
    expected = required_replicas(model, 100.0 * app.VISITS[None], 0.8)[0]
    np.testing.assert_array_equal(present_requirement(model, panel, 30.0, 0.8), expected)


def test_present_requirement_corrects_hidden_demand():
    model = app.truth(response=None, think_seconds=1.0)
    slow = present_requirement(model, app.constant(np.full(8, 50.0), response=1.06), 30.0, 0.9)
    np.testing.assert_array_equal(slow, required_replicas(model, 100.0 * app.VISITS[None])[0])


def test_present_requirement_is_unknown_where_data_is_missing_and_matches_by_name():
    panel = app.constant(np.full(8, 50.0))
    values = panel.values.copy()
    values[-2:, 1] = np.nan
    panel = MetricPanel(panel.times, panel.services, panel.features, values)
    found = present_requirement(app.truth(), panel, 30.0, 0.9)
    assert np.isnan(found[1]) and np.isfinite(found[[0, 2]]).all()
    turned = panel.select(("db", "web"), ("req", "res"))
    again = present_requirement(app.truth(), turned, 30.0, 0.9)
    np.testing.assert_array_equal(again, found)
    entry_gone = present_requirement(app.truth(), panel.select(("db",), ("req", "res")), 30.0, 0.9)
    assert np.isnan(entry_gone[:2]).all() and entry_gone[2] == found[2]


def test_requirement_from_usage_is_cores_over_what_a_replica_may_use():
    panel = app.constant(np.full(4, 50.0))
    values = panel.values.copy()
    values[-2:, :, 0] = 4
    values[-2:, :, 1] = [0.9, 0.5, np.nan]
    panel = MetricPanel(panel.times, panel.services, panel.features, values)
    np.testing.assert_array_equal(requirement_from_usage(panel, 30.0, 0.8), [5, 3, np.nan])


# ----------------------------------------------------------------------------------------------------------- on disk
def test_the_model_survives_json():
    model = app.truth(
        demand_seconds=np.array([0.007, np.nan, 0.005]), think_seconds=1.0, quality={"cpu_r2": {"web": 0.99}}
    )
    again = DemandModel.from_dict(json.loads(json.dumps(model.to_dict(), allow_nan=False)))
    assert again.to_dict() == model.to_dict()
    np.testing.assert_array_equal(again.demand_seconds, model.demand_seconds)
    assert again.response == model.response
    assert DemandModel.from_dict(app.truth(response=None).to_dict()).response is None


def test_a_broken_model_is_one_line():
    whole = app.truth().to_dict()
    for broken in ({**whole, "other": 1}, {name: value for name, value in whole.items() if name != "visits"}):
        with pytest.raises(DataError, match="demand fit: broken"):
            DemandModel.from_dict(broken)


def test_facts_fall_back_to_requests_overrides_and_a_stated_guess(tmp_path, caplog):
    path = tmp_path / "workloads.json"
    path.write_text(
        json.dumps({
            "a": {"cpu_limit_cores": 0.2, "boot_seconds": 5},
            "b": {"cpu_limit_cores": None, "cpu_request_cores": 0.1},
            "c": {"boot_seconds": 3},
        })
    )  # fmt: skip
    facts = read_facts(path, ("a", "b"), {"a": 7.0})
    assert facts.limit_cores.tolist() == [0.2, 0.1]
    assert facts.boot_seconds.tolist() == [7, 30]
    assert "b: start-up time unknown" in caplog.text
    with pytest.raises(DataError, match="'c' has neither"):
        read_facts(path, ("c",), {})
    with pytest.raises(DataError, match="'d' is missing"):
        read_facts(path, ("d",), {})
    path.write_text("[1")
    with pytest.raises(DataError, match="broken"):
        read_facts(path, ("a",), {})
    with pytest.raises(DataError, match=r"metrics_fetch\.py"):
        read_facts(tmp_path / "none.json", ("a",), {})


def test_calls_beyond_the_panel_are_not_read():
    panel = app.telemetry(60)
    beyond = pd.DataFrame(
        [(app.START + 99999, "web", "db", 1000.0)], columns=["time", "caller", "callee", "calls_per_second"]
    )
    frame = pd.concat([app.calls_of(panel).frame, beyond])
    np.testing.assert_allclose(
        follow_visits(panel, CallGraph(frame), ["web"], 1800.0).values[-1], app.VISITS[None], rtol=0.01
    )
