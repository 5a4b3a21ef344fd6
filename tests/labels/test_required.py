"""Labels: which stretch of the future they cover, and what they say of hidden demand."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import telemetry as app
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscaler.labels.offered import offered_rates
from deepscaler.labels.required import (
    Reach,
    feature_labels,
    hide_overhang,
    peaks,
    required_labels,
)
from deepscaler.labels.rule import required_replicas
from deepscaler.labels.visits import Visits, follow_visits
from deepscaler.panel import MetricPanel
from deepscaler.settings import Process

STEADY = Visits(np.array([app.START]), app.VISITS[None, None])
RULE = app.truth(response=None)


def step_load(length: int = 100, at: int = 50) -> np.ndarray:
    """20 requests/s, from row `at` on 120."""
    return np.where(np.arange(length) < at, 20.0, 120.0)


def first_rise(labels: np.ndarray, service: int) -> int:
    return int(np.flatnonzero(labels[:, service] > np.nanmin(labels[:, service]))[0])


@pytest.mark.parametrize(("step", "look_ahead"), [(60.0, 60.0), (15.0, 0.0), (60.0, 15.0)])
def test_labels_rise_exactly_boot_and_look_ahead_before_a_step_of_the_load(step, look_ahead):
    process = Process(step=step, rate_window=15.0, look_ahead=look_ahead)
    labels = required_labels(RULE, STEADY, app.constant(step_load()), process)
    for service, boot in enumerate(app.BOOTS):
        now = first_rise(labels, service) - round(step / app.STEP)  # the tick whose forecast says so
        assert (50 - now) * app.STEP == boot + look_ahead


def test_labels_fall_when_the_last_high_sample_is_look_back_old():
    labels = required_labels(
        RULE, STEADY, app.constant(step_load()[::-1]), Process(rate_window=15.0, look_back=60.0)
    )
    last = (
        int(np.flatnonzero(labels[:, 0] == np.nanmax(labels[:, 0]))[-1]) - 4
    )  # last tick that still sees it
    assert (last - 49) * app.STEP == 60 - app.STEP  # row 49 holds the last high sample


def test_without_lead_a_label_knows_nothing_ahead_of_its_tick():
    labels = required_labels(RULE, STEADY, app.constant(step_load()), Process(rate_window=15.0, lead=False))
    for service in range(3):
        assert first_rise(labels, service) - 4 == 50
    assert np.isfinite(labels[4:]).all()


def test_rows_whose_look_ahead_leaves_the_series_are_unknown_by_service():
    labels = required_labels(RULE, STEADY, app.constant(step_load()), Process())
    for service, boot in enumerate(app.BOOTS):
        beyond = round((boot + 60) / app.STEP) - 4
        assert np.isnan(labels[:4, service]).all()  # no tick before the series
        assert np.isfinite(labels[4 : 100 - beyond, service]).all()
        assert np.isnan(labels[100 - beyond :, service]).all()


def test_labels_are_the_rule_on_the_peak_rate():
    labels = required_labels(RULE, STEADY, app.constant(step_load()), Process())
    np.testing.assert_array_equal(labels[10], required_replicas(RULE, 20 * app.VISITS[None])[0])
    np.testing.assert_array_equal(labels[60], required_replicas(RULE, 120 * app.VISITS[None])[0])


@settings(deadline=None)
@given(
    rates=st.lists(st.floats(0, 100), min_size=1, max_size=30),
    step=st.integers(1, 4),
    behind=st.integers(1, 5),
    ahead=st.integers(0, 6),
)
def test_peaks_agree_with_the_definition(rates, step, behind, ahead):
    series = np.array(rates)[:, None]
    found = peaks(series, Reach(step, behind, np.array([ahead])))[:, 0]
    for row in range(len(rates)):
        now = row - step
        known = now >= 0 and now + ahead < len(rates)
        expected = max(rates[max(now - behind + 1, 0) : now + ahead + 1]) if known else np.nan
        np.testing.assert_array_equal(found[row], expected)


def test_an_open_loop_above_the_sla_is_no_truth_and_a_closed_one_is_corrected():
    slow = np.where((np.arange(100) >= 40) & (np.arange(100) < 44), 1.06, 0.03)
    panel = app.constant(np.full(100, 50.0), response=slow)
    process = Process(rate_window=15.0)
    rates, _ = offered_rates(RULE, STEADY, panel, process)
    assert np.isnan(rates[40:44]).all() and np.isfinite(rates[:40]).all() and np.isfinite(rates[44:]).all()
    labels = required_labels(RULE, STEADY, panel, process)
    assert np.isnan(labels[42]).all() and np.isfinite(labels[20]).all()
    closed = replace(RULE, think_seconds=1.0)
    rates, _ = offered_rates(closed, STEADY, panel, process)
    np.testing.assert_allclose(rates[40:44], np.tile(100 * app.VISITS, (4, 1)), rtol=1e-6)
    np.testing.assert_allclose(rates[:40], np.tile(50 * app.VISITS, (40, 1)), rtol=1e-6)


def test_a_service_that_the_entries_dont_explain_keeps_its_own_rate():
    panel = app.constant(np.full(50, 50.0))
    values = panel.values.copy()
    values[:, 2, 3] = 400.0  # a batch client of its own
    rates, _ = offered_rates(
        RULE, STEADY, MetricPanel(panel.times, panel.services, panel.features, values), Process()
    )
    np.testing.assert_allclose(rates[10], [50, 100, 400])


def test_one_missing_sample_is_bridged_and_a_gap_is_unknown():
    panel = app.constant(np.full(60, 50.0))
    values = panel.values.copy()
    values[20] = np.nan
    values[40:44] = np.nan
    rates, _ = offered_rates(
        RULE, STEADY, MetricPanel(panel.times, panel.services, panel.features, values), Process()
    )
    assert np.isfinite(rates[:41]).all()
    assert np.isnan(rates[41:44]).all()


def test_labels_keep_utilisation_below_its_bound_on_noisy_telemetry():
    panel = app.telemetry(120, highest=0.8)
    model = app.truth()
    visits = follow_visits(panel, app.calls_of(panel), ["web"], 1800.0)
    labels = required_labels(model, visits, panel, Process(rate_window=15.0))
    rates, _ = offered_rates(model, visits, panel, Process(rate_window=15.0))
    known = np.isfinite(labels)
    assert known.mean() > 0.9
    rho = (
        app.IDLE + app.DEMAND * rates / labels
    ) / app.LIMITS  # the label's own minute is among those it covers
    ahead = Reach.of(Process(), app.BOOTS, app.STEP).ahead >= 4
    assert (rho[:, ahead][known[:, ahead]] <= 0.9 + 1e-6).all()


def test_overhang_beyond_a_split_is_hidden():
    labels = np.ones((100, 2), np.float32)
    hide_overhang(labels, (60, 80), Reach(4, 4, np.array([3, 7])))
    assert np.isfinite(labels[:, 0]).all()
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(labels[:, 1])), [57, 58, 59, 77, 78, 79])


def test_feature_labels_are_trailing_means_and_res_is_weighted_by_requests():
    values = np.ones((8, 1, 2), np.float32)
    values[:, 0, 0] = [1, 1, 1, 1, 4, 4, 4, 4]
    values[:, 0, 1] = [3, 3, 3, 3, 1, 1, 1, 1]
    panel = MetricPanel(app.START + 15.0 * np.arange(8), ("a",), ("res", "req"), values)
    np.testing.assert_allclose(feature_labels(panel, "req", 4)[:, 0], [3, 3, 3, 3, 2.5, 2, 1.5, 1])
    np.testing.assert_allclose(feature_labels(panel, "res", 4)[5, 0], (3 + 3 + 4 + 4) / 8)
