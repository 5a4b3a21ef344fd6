"""The rule that turns rates into replicas."""

from dataclasses import replace

import numpy as np
from helpers import telemetry as app
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscaler.labels.demand import FORMS, Response
from deepscaler.labels.rule import (
    present_requirement,
    required_replicas,
    requirement_from_usage,
    requirements,
)
from deepscaler.panel import MetricPanel


def test_utilisation_rule_by_hand():
    # a replica may use 0.9 * 0.2 - 0.02 = 0.16 cores on requests: 16 requests/s each
    rates = np.array([[0.0], [1], [15.9], [16], [16.1], [32], [33], [np.nan]])
    np.testing.assert_array_equal(
        required_replicas(app.one_service(), rates)[:, 0], [1, 1, 1, 1, 2, 2, 3, np.nan]
    )
    np.testing.assert_array_equal(
        required_replicas(app.one_service(), rates[3:5], rho_max=0.5)[:, 0], [2, 3]
    )  # 8 each


def test_the_unrounded_requirement_by_hand():
    rates = np.array([[0.0], [4], [16], [16.1], [40], [np.nan]])  # a replica takes 16 requests/s
    np.testing.assert_allclose(
        requirements(app.one_service(), rates)[1][:, 0], [0.01, 0.25, 1, 1.00625, 2.5, np.nan]
    )
    np.testing.assert_allclose(requirements(app.one_service(), rates[1:2], rho_max=0.5)[1], [[0.5]])
    slow = app.one_service(response=Response(0.02, 1.0, "random"), sla_seconds=0.13, sla_margin=1.0)
    np.testing.assert_allclose(
        requirements(slow, np.array([[4.0], [12.0]]))[1][:, 0], [0.25, 2]
    )  # the latency rule added one


@settings(deadline=None)
@given(
    rates=st.lists(st.floats(0, 500), min_size=3, max_size=3),
    rho_max=st.floats(0.3, 0.95),
    form=st.sampled_from(list(FORMS)),
)
def test_the_unrounded_requirement_rounds_up_to_the_replicas(rates, rho_max, form):
    model = app.truth(rho_max=rho_max, response=replace(app.RESPONSE, form=form))
    unrounded = requirements(model, np.array([rates]))[1]
    np.testing.assert_array_equal(
        np.maximum(np.ceil(unrounded - 1e-9), 1), required_replicas(model, np.array([rates]))
    )


def test_response_rule_by_hand():
    # R = 0.02 + 1 * (0.01 / 0.2) * rho / (1 - rho) with rho = 0.1 + 0.05 x / n; at 12 requests/s:
    # n = 1: rho .7, R .1367; n = 2: rho .4, R .0533; n = 3: rho .3, R .0414
    model = app.one_service(response=Response(0.02, 1.0, "random"))
    for target, expected in ((0.14, 1), (0.13, 2), (0.054, 2), (0.053, 3)):
        picked = required_replicas(replace(model, sla_seconds=target, sla_margin=1.0), np.array([[12.0]]))
        assert picked[0, 0] == expected
    np.testing.assert_allclose(model.response_at(np.array([[12.0]]), np.array([[2.0]])), 0.02 + 0.05 * 2 / 3)


def test_an_sla_below_the_unloaded_response_buys_nothing():
    model = app.one_service(response=Response(0.3, 1.0, "random"))
    assert required_replicas(model, np.array([[12.0]]))[0, 0] == 1


def test_the_cheaper_service_is_relieved_first():
    twins = app.truth(
        services=("a", "b"),
        idle_cores=np.zeros(2),
        demand_seconds=np.array([0.01, 0.01]),
        limit_cores=np.array([0.2, 0.2]),
        boot_seconds=np.zeros(2),
        entries=("a",),
        visits=np.array([[1.0, 1.0]]),
        response=Response(0.0, 1.0, "random"),
        sla_seconds=0.3,
        sla_margin=1.0,
    )
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
    model = app.one_service(
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
        services=tuple(map(str, range(n))),
        idle_cores=np.full(n, 0.003),
        demand_seconds=np.full(n, 0.005),
        limit_cores=np.full(n, 0.2),
        boot_seconds=np.full(n, 15.0),
        entries=("0",),
        visits=np.ones((1, n)),
        sla_seconds=0.3,
    )
    rates = np.repeat(np.random.default_rng(1).uniform(10, 300, (5760, 1)), n, axis=1)
    replicas = required_replicas(model, rates)
    assert (model.response_at(rates, replicas) <= 0.225 + 1e-9).all()


# ------------------------------------------------------------------------------------------------ the present
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


def test_an_entry_of_another_name_lends_no_response_of_another_service():
    model, panel = app.truth(response=None, think_seconds=1.0), app.constant(np.full(8, 50.0), response=0.0)
    renamed = MetricPanel(panel.times, ("front", *panel.services[1:]), panel.features, panel.values.copy())
    expected = present_requirement(model, renamed, 30.0, 0.9)
    renamed.values[:, -1, renamed.features.index("res")] = 3.0  # the last service waits for others
    np.testing.assert_array_equal(present_requirement(model, renamed, 30.0, 0.9), expected)


def test_requirement_from_usage_is_cores_over_what_a_replica_may_use():
    panel = app.constant(np.full(4, 50.0))
    values = panel.values.copy()
    values[-2:, :, 0] = 4
    values[-2:, :, 1] = [0.9, 0.5, np.nan]
    panel = MetricPanel(panel.times, panel.services, panel.features, values)
    np.testing.assert_array_equal(requirement_from_usage(panel, 30.0, 0.8), [5, 3, np.nan])
