"""The history of offered rates: hidden demand, overloads and gaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deepscaler.labels.demand import DemandModel
from deepscaler.labels.history import (
    HEADROOM,
    MOST_HIDDEN,
    OPEN_LOOP_HIDDEN,
    known_rates,
    offered_history,
    since_first_request,
)
from deepscaler.panel import MetricPanel

MODEL = DemandModel(
    services=("web", "db"),
    idle_cores=np.zeros(2),
    demand_seconds=np.array([0.01, 0.02]),
    limit_cores=np.array([0.2, 0.2]),
    boot_seconds=np.array([10.0, 10.0]),
    entries=("web",),
    visits=np.array([[1.0, 2.0]]),
    external_share=np.array([1.0]),
    sla_seconds=0.2,
    think_seconds=1.0,
    rho_max=0.9,
    sla_margin=0.75,
    response=None,
    quality={},
    unloaded_seconds=0.0,
)


def panel(web, db=None, response=0.0):
    web = np.asarray(web, np.float32)
    db = 2 * web if db is None else np.asarray(db, np.float32)
    response = np.broadcast_to(np.asarray(response, np.float32), web.shape)
    values = np.stack([np.stack([web, response], axis=1), np.stack([db, response], axis=1)], axis=1)
    return MetricPanel(np.arange(len(web)) * 15.0, ("web", "db"), ("req", "res"), values)


def test_rates_are_those_of_the_entries_times_the_visits():
    found = offered_history(MODEL, panel([10, 12], db=[21, 23]))
    assert found == pytest.approx(np.array([[10, 20], [12, 24]]))


def test_a_service_that_the_entries_dont_explain_goes_by_its_own_rate():
    found = offered_history(MODEL, panel([10, 10], db=[50, 60]))
    assert found[:, 1] == pytest.approx([50, 60])


def test_services_are_matched_by_name():
    other = panel([10, 12])
    turned = other.select(("db", "web"), other.features)
    assert offered_history(MODEL, turned) == pytest.approx(offered_history(MODEL, other))


def test_slow_responses_hide_demand_of_a_closed_loop():
    found = offered_history(MODEL, panel([10, 10], response=[0.0, 0.1]))
    assert found[:, 0] == pytest.approx([10, 11])


def test_a_past_overload_is_bridged():
    found = offered_history(MODEL, panel([10, 90, 5, 40], response=[0.0, 9.0, 9.0, 0.0]))
    assert found[:, 0] == pytest.approx([10, 20, 30, 40])


def test_an_overload_that_lasts_is_at_least_what_was_known_and_at_most_so_many_times_what_is_served():
    found = offered_history(MODEL, panel([30, 10, 40], response=[0.0, 9.0, 9.0]))
    assert found[:, 0] == pytest.approx([30, 10 * MOST_HIDDEN * HEADROOM, 40 * MOST_HIDDEN * HEADROOM])
    found = offered_history(MODEL, panel([300, 10], response=[0.0, 9.0]))
    assert found[:, 0] == pytest.approx([300, 300])


def test_an_open_load_tells_nothing_about_demand_by_its_responses():
    model = replace(MODEL, think_seconds=None)
    assert offered_history(model, panel([10, 10], response=0.19))[:, 0] == pytest.approx([10, 10])
    found = offered_history(model, panel([10, 20], response=[0.1, 5.0]))
    assert found[:, 0] == pytest.approx([10, 20 * OPEN_LOOP_HIDDEN * HEADROOM])


def test_gaps_are_bridged_and_a_service_never_seen_leaves_nothing():
    found = offered_history(MODEL, panel([10, np.nan, 30], db=[20, np.nan, 60]))
    assert found[:, 0] == pytest.approx([10, 20, 30])
    assert offered_history(MODEL, panel([np.nan, np.nan])) is None


def test_an_overload_from_the_first_sample_on_is_unknown():
    assert offered_history(MODEL, panel([10, 10], response=5.0)) is None


def test_what_a_network_learns_is_unknown_in_overloads_and_gaps():
    found = known_rates(MODEL, panel([10, 90, np.nan, 40], response=[0.0, 9.0, 0.0, 0.0]))
    assert np.isnan(found[[1, 2]]).all() and found[[0, 3], 0] == pytest.approx([10, 40])


TWO = replace(
    MODEL,
    services=("shop", "admin", "db"),
    idle_cores=np.zeros(3),
    demand_seconds=np.full(3, 0.01),
    limit_cores=np.full(3, 0.2),
    boot_seconds=np.full(3, 10.0),
    entries=("shop", "admin"),
    visits=np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]),
    external_share=np.array([0.8, 0.2]),
)


def rates_of(shop, admin, services=("shop", "admin", "db")):
    """A panel in which each request of an entry is one of the database."""
    shop, admin = np.asarray(shop, float), np.asarray(admin, float)
    req = np.stack([shop, admin, shop + np.nan_to_num(admin)], axis=1)
    values = np.stack([req, np.where(np.isfinite(req), 0.0, np.nan)], axis=2).astype(np.float32)
    return MetricPanel(np.arange(len(req)) * 15.0, services, ("req", "res"), values)


def test_an_entry_whose_series_end_stops_no_other_service():
    """Its pods were scaled to 0, so that Istio tells nothing of it from then on."""
    found = offered_history(TWO, rates_of([100, 100, 20, 20], [5, 5, np.nan, np.nan]))
    assert found[:, 0] == pytest.approx([100, 100, 20, 20])
    assert found[:, 2] == pytest.approx([105, 105, 20, 20])


def test_an_entry_that_was_never_called_takes_the_history_from_nobody():
    found = offered_history(TWO, rates_of([100, 20], [np.nan, np.nan]))
    assert found == pytest.approx(np.array([[100, 0, 100], [20, 0, 20]]))
    assert offered_history(TWO, rates_of([np.nan] * 2, [np.nan] * 2)) is None


@pytest.mark.parametrize("names", [("shop", "back", "db"), ("front", "admin", "db")])
def test_an_entry_of_another_name_is_not_taken_for_the_last_service(names):
    panel = rates_of([100, 20], [5, 5], names)
    panel.values[:, 2, 1] = 9.0  # the database is slow: no overload of an entry
    found = offered_history(TWO, panel)
    assert found[:, 2] == pytest.approx([105, 25])


def test_the_history_begins_with_the_first_request_rate_of_an_entry():
    panel = rates_of([np.nan, np.nan, 100, 20], [np.nan, np.nan, np.nan, 5])
    assert since_first_request(TWO, panel).times.tolist() == [30.0, 45.0]
    assert len(since_first_request(TWO, rates_of([np.nan] * 2, [np.nan] * 2))) == 0
    pods = MetricPanel(panel.times, panel.services, ("pod",), panel.values[:, :, 1:])
    assert since_first_request(TWO, pods).times.tolist() == [30.0, 45.0]
