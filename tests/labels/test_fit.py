"""The fit of demand and response to telemetry, and what it says where data lacks."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import telemetry as app
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscaler.errors import DataError
from deepscaler.labels.fit import fit_demand
from deepscaler.labels.minutes import Minutes, starting_pods
from deepscaler.labels.regression import fit_cores, two_nonnegative
from deepscaler.panel import MetricPanel
from deepscaler.settings import Process

ENTRY = {"entries": ["web"], "sla_seconds": 0.2}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_demand_is_within_one_percent_from_sixty_noisy_minutes(seed):
    panel = app.telemetry(60, seed=seed, highest=0.9)
    model = fit_demand(panel, app.calls_of(panel), app.FACTS, Process(), **ENTRY)
    np.testing.assert_allclose(model.demand_seconds, app.DEMAND, rtol=0.01)
    np.testing.assert_allclose(model.idle_cores, app.IDLE, atol=0.001)
    np.testing.assert_allclose(model.visits, app.VISITS[None], rtol=0.01)
    assert model.quality["usable_minutes"] == 60
    assert min(model.quality["cpu_r2"].values()) > 0.98


def test_pods_start_for_as_long_as_it_takes_until_they_are_ready():
    pod = np.array([[2, 5], [2, 5], [3, np.nan], [3, 5], [1, 5], [4, 6], [4, 6]], np.float32)
    found = starting_pods(pod, np.array([30.0, np.nan]), 15.0)
    np.testing.assert_array_equal(found[:, 0], [0, 1, 0, 0, 3, 0, 0])
    np.testing.assert_array_equal(found[:, 1], 0)  # how long it takes isn't known
    assert starting_pods(pod, np.array([10.0, 45.0]), 15.0)[:, 1].tolist() == [0, 0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("boots", [300.0, 450.0])
def test_pods_that_start_slowly_dont_bend_the_fit(monkeypatch, boots):
    """Their containers count in the share of the limit long before they are ready."""
    slow = np.full(3, boots)
    monkeypatch.setattr(app, "BOOTS", slow)
    panel = app.telemetry(240, highest=0.9)
    facts = replace(app.FACTS, boot_seconds=slow)
    model = fit_demand(panel, None, facts, Process(), **ENTRY)
    np.testing.assert_allclose(model.demand_seconds, app.DEMAND, rtol=0.01)
    unaware = fit_demand(panel, None, replace(facts, boot_seconds=np.zeros(3)), Process(), **ENTRY)
    assert (unaware.demand_seconds < 0.96 * app.DEMAND).any()


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


def minutes_of(pods, per_pod, seed=1):
    """Minutes of a service that takes 10 ms per request and 2 millicores idle, with noise."""
    random = np.random.default_rng(seed)
    pod = np.asarray(pods, float)
    req = pod * per_pod
    done = random.poisson(60 * req) / 60
    cores = (0.002 * pod + 0.01 * done * random.normal(1, 0.003, len(pod)))[:, None]
    columns = {"cores": cores, "pod": pod[:, None], "req": done[:, None], "busy": cores / pod[:, None] / 0.2}
    steady = np.ones_like(cores, bool)
    return Minutes(60.0 * np.arange(len(pod)), **columns, steady=steady, response=np.full(len(pod), 0.05))


ALL = np.ones(80, bool)


def test_where_replicas_follow_the_load_another_fit_tells_idle_cores_from_work():
    followed = np.repeat([6, 7, 8, 7], 20)
    errors = []
    for before in (None, np.array([0.0018])):
        found = [fit_cores(minutes_of(followed, 14.0, seed), ALL, before) for seed in range(8)]
        errors.append(max(abs(demand[0] / 0.01 - 1) for _, demand, _, _ in found))
    assert errors[0] > 0.02
    assert errors[1] < 0.003


@pytest.mark.parametrize("before", [0.004, 0.001])
def test_where_replicas_vary_another_fit_changes_nothing_even_where_it_is_wrong(before):
    explored = minutes_of(np.repeat([3, 9, 5, 8], 20), np.tile([4.0, 16.0, 8.0, 12.0], 20))
    alone, told = (fit_cores(explored, ALL, other)[1][0] for other in (None, np.array([before])))
    assert told == pytest.approx(alone, rel=1e-3)


@pytest.mark.parametrize("before", [np.nan, 0.0])
def test_a_service_that_another_fit_doesnt_know_is_fitted_by_itself(before):
    minutes = minutes_of(np.repeat([6, 7], 40), 14.0)
    alone, told = (fit_cores(minutes, ALL, other) for other in (None, np.array([before])))
    np.testing.assert_allclose(np.concatenate(told[:2]), np.concatenate(alone[:2]), rtol=1e-12)
