"""Visits: requests per external request, from calls or from rates."""

import numpy as np
import pandas as pd
from helpers import telemetry as app

from deepscaler.calls import EXTERNAL, CallGraph
from deepscaler.labels.demand import external_rates
from deepscaler.labels.visits import follow_visits, visits_from_routing


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


def test_calls_beyond_the_panel_are_not_read():
    panel = app.telemetry(60)
    beyond = pd.DataFrame(
        [(app.START + 99999, "web", "db", 1000.0)], columns=["time", "caller", "callee", "calls_per_second"]
    )
    frame = pd.concat([app.calls_of(panel).frame, beyond])
    np.testing.assert_allclose(
        follow_visits(panel, CallGraph(frame), ["web"], 1800.0).values[-1], app.VISITS[None], rtol=0.01
    )
