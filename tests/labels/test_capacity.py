"""What each service keeps free for bursts: the rule by hand, its bounds, and all that goes by it."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from helpers import telemetry as app

from deepscaler.labels.capacity import burst_seconds, highest_utilisation, spare_cores
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.fit import fit_demand
from deepscaler.labels.minutes import Minutes
from deepscaler.labels.rule import (
    present_requirement,
    replicas_within,
    required_replicas,
    requirements,
)
from deepscaler.settings import RHO_MAX, Process

QUICK, SLOW = 0, 1


def two_services(**changes: object) -> DemandModel:
    """An entry that takes 1 ms, and a service that takes 40 ms: the same work where one in 40 asks for it."""
    known: dict[str, object] = {
        "services": ("quick", "slow"),
        "idle_cores": np.zeros(2),
        "demand_seconds": np.array([0.001, 0.04]),
        "limit_cores": np.full(2, 0.2),
        "boot_seconds": np.full(2, 15.0),
        "entries": ("quick",),
        "visits": np.array([[1.0, 1 / 40]]),
        "response": None,
        "unloaded_seconds": 0.1,
    }
    model = app.truth(**known)
    single = spare_cores(model, 2 * model.demand_seconds, 0.5)  # each request is a burst of its own
    return replace(model, **{"spare_cores": single, **changes})


def minutes_of(requests: np.ndarray) -> Minutes:
    """Minutes with these requests `[M, N]`, of which nothing else is asked."""
    rest = np.ones_like(requests)
    return Minutes(np.arange(len(requests)), rest, rest, requests / 60, rest, rest > 0, rest[:, 0])


def test_the_bound_by_hand():
    # ln(100 x 1.025 visits) x 2 x 40 ms / (2 x 0.4 s) = 0.4630 cores: 0.2 may use 0.2 / 0.6630 of themselves
    model = two_services()
    np.testing.assert_allclose(model.spare_cores, [0.0116, 0.4630], atol=1e-4)
    assert highest_utilisation(model, 1)[SLOW] == pytest.approx(0.3017, abs=1e-4)
    assert highest_utilisation(model, 10)[SLOW] == pytest.approx(2 / 2.4630, abs=1e-4)
    assert highest_utilisation(model, 1)[QUICK] == RHO_MAX


@pytest.mark.parametrize("replicas", [1, 4])
def test_at_the_bound_single_requests_wait_as_in_an_mm1_queue(replicas):
    rho = highest_utilisation(two_services(), replicas)[SLOW]
    service_seconds = 0.04 / (replicas * 0.2)  # of all replicas as one server
    assert rho / (1 - rho) * service_seconds == pytest.approx((0.5 - 0.1) / np.log(102.5))


def test_few_and_slow_requests_leave_less_to_use_than_many_and_quick_ones():
    for replicas in (1, 2, 5):
        highest = highest_utilisation(two_services(), replicas)
        assert highest[SLOW] < highest[QUICK]


def test_more_or_larger_replicas_and_a_looser_slo_are_used_more_and_none_beyond_the_bound():
    used = np.array([highest_utilisation(two_services(), replicas)[SLOW] for replicas in (1, 2, 4, 1000)])
    assert (np.diff(used) > 0).all() and used[-1] == RHO_MAX
    larger = two_services(limit_cores=np.full(2, 0.4))
    assert highest_utilisation(larger, 1)[SLOW] == pytest.approx(used[1])
    bursts = 2 * two_services().demand_seconds
    assert (spare_cores(two_services(), bursts, 1.0) < spare_cores(two_services(), bursts, 0.5)).all()
    assert highest_utilisation(two_services(rho_max=0.8), 1000)[SLOW] == 0.8


def test_a_request_that_visits_more_services_may_wait_less_at_each():
    bursts = 2 * two_services().demand_seconds
    more = two_services(visits=np.array([[1.0, 9.0]]))
    np.testing.assert_allclose(
        spare_cores(more, bursts, 0.5) / spare_cores(two_services(), bursts, 0.5),
        np.log(1000) / np.log(102.5),
    )


def test_where_requests_are_slow_without_any_load_nothing_is_kept_free():
    np.testing.assert_array_equal(spare_cores(two_services(), np.ones(2), 0.1), 0)


@pytest.mark.parametrize("batch", [1, 8, 50])
def test_bursts_are_found_from_requests_that_come_many_at_a_time(batch):
    rng = np.random.default_rng(batch)
    rate = 3000 * (1.2 + np.sin(np.arange(1500) / 40))  # a load that moves isn't a burst
    pages = rng.poisson(rate)
    asked = batch * rng.binomial(pages, 0.02)
    minutes = minutes_of(np.stack([pages, asked], axis=1).astype(np.float64))
    found = burst_seconds(two_services(), minutes, np.ones(1500, bool), pages / 60.0, 60.0)
    # compound Poisson: variance over mean of the requests is 1 and `batch`; one more for the work of each
    np.testing.assert_allclose(found, [0.001 * 2, 0.04 * (batch + 1)], rtol=0.1)


def test_samples_that_overlap_tell_the_same_bursts():
    rng = np.random.default_rng(5)
    quarters = rng.poisson(750, 8000), 10 * rng.poisson(2, 8000)  # requests of 15 s each
    last_minute = [np.convolve(values, np.ones(4), "valid") for values in quarters]  # at each sample
    means = [values[: len(values) // 4 * 4].reshape(-1, 4).mean(axis=1) for values in last_minute]
    minutes = minutes_of(np.stack(means, axis=1))
    found = burst_seconds(two_services(), minutes, np.ones(len(means[0]), bool), means[0] / 60, 15.0)
    assert found[SLOW] == pytest.approx(0.04 * 11, rel=0.15)


def test_bursts_that_cant_be_told_ask_for_no_room():
    requests = np.full((40, 2), 600.0)
    requests[:, SLOW] = np.nan
    everywhere, entered = np.ones(40, bool), np.full(40, 10.0)
    assert burst_seconds(two_services(), minutes_of(requests), everywhere, entered, 60.0)[SLOW] == 0
    few = burst_seconds(two_services(), minutes_of(requests), np.arange(40) < 15, entered, 60.0)
    np.testing.assert_array_equal(few, 0)
    unknown = two_services(demand_seconds=np.array([0.001, np.nan]))
    found = burst_seconds(unknown, minutes_of(np.full((40, 2), 600.0)), everywhere, entered, 60.0)
    assert found[QUICK] > 0 and found[SLOW] == 0
    model = replace(unknown, spare_cores=spare_cores(unknown, found, 0.5))
    assert highest_utilisation(model, 1)[SLOW] == RHO_MAX
    assert np.isnan(required_replicas(model, np.array([[10.0, 10.0]]))[0, SLOW])
    np.testing.assert_array_equal(replicas_within(model, np.array([10.0, 10.0]), model.limit_cores), 1)


@pytest.mark.parametrize("idle", [0.0, 0.03])
def test_the_rule_with_bounds_by_service_agrees_with_a_loop(idle):
    model = two_services(idle_cores=np.full(2, idle))
    rates = np.random.default_rng(3).uniform(0, 1500, (60, 2)) * [1, 1 / 40]
    rates[0] = 0
    expected = np.ones_like(rates)
    for row, service in np.ndindex(*rates.shape):
        work = model.demand_seconds[service] * rates[row, service]
        while (replicas := expected[row, service]) * idle + work > replicas * 0.2 * (
            highest_utilisation(model, replicas)[service] + 1e-9
        ):
            expected[row, service] += 1
    assert expected.max() > 5
    np.testing.assert_array_equal(required_replicas(model, rates), expected)
    np.testing.assert_array_equal(replicas_within(model, rates, model.limit_cores), expected)
    whole, unrounded = requirements(model, rates)
    np.testing.assert_array_equal(np.maximum(np.ceil(unrounded - 1e-9), 1), whole)


def test_a_number_given_to_the_rule_stands_alone():
    bursty, plain = two_services(), two_services(spare_cores=None)
    rates = np.array([[150.0, 3.0], [900.0, 22.0]])
    np.testing.assert_array_equal(required_replicas(bursty, rates, 0.9), required_replicas(plain, rates))
    assert (required_replicas(bursty, rates) > required_replicas(plain, rates)).any()
    panel = app.constant(np.full(40, 60.0))
    fitted = app.truth(response=None, spare_cores=np.full(3, 0.5))
    assert (present_requirement(fitted, panel, 30.0) > present_requirement(fitted, panel, 30.0, 0.9)).any()


def test_bounds_by_service_survive_json_and_a_fit_without_them_is_written_as_before():
    model, rates = two_services(), np.array([[300.0, 10.0]])
    again = DemandModel.from_dict(json.loads(json.dumps(model.to_dict(), allow_nan=False)))
    assert again.to_dict() == model.to_dict()
    np.testing.assert_array_equal(required_replicas(again, rates), required_replicas(model, rates))
    plain = two_services(spare_cores=None).to_dict()
    assert "spare_cores" not in plain and plain["rho_max"] == 0.9
    assert DemandModel.from_dict(plain).spare_cores is None


def test_the_fit_states_the_bounds_where_it_is_asked_to(caplog):
    caplog.set_level(logging.INFO)
    panel = app.telemetry(120)
    fitted = {
        (rho_max, slo): fit_demand(
            panel,
            None,
            app.FACTS,
            Process(rho_max=rho_max),
            entries=["web"],
            sla_seconds=0.2,
            slo_seconds=slo,
        )
        for rho_max, slo in ((0.8, 0.5), ("auto", 0.5), ("auto", None))
    }
    number, auto, by_sla = fitted.values()
    assert number.rho_max == 0.8 and number.spare_cores is None
    assert auto.rho_max == RHO_MAX and (auto.spare_cores > 0).all()
    ratio = (0.5 - auto.unloaded) / (0.2 - auto.unloaded)
    np.testing.assert_allclose(by_sla.spare_cores, auto.spare_cores * ratio)
    said = [record.message for record in caplog.records if "of its limit with one replica" in record.message]
    assert [line.split(":")[0] for line in said] == 2 * list(app.SERVICES)
