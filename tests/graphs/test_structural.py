"""The call structure from telemetry alone."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import telemetry as app
from helpers.paths import ROOT

import testbed
from deepscaler.artefacts import utc_seconds
from deepscaler.errors import DataError
from deepscaler.graphs.structural import FEWEST_ROWS, bounded_fit, fit_structure, time_shares
from deepscaler.panel import MetricPanel
from deepscaler.settings import load_settings
from model.graph_metrics import ranking

FEATURES = ("pod", "cpu", "res", "req")


def chain(length: int = 800, noise: float = 0.01, seed: int = 1) -> MetricPanel:
    """Own times wander; per request web calls cart twice and db once, cart calls db half a time."""
    rng = np.random.default_rng(seed)
    rho = rng.uniform(0.2, 0.9, (length, 3))
    own = np.array([0.004, 0.003, 0.002]) / (1 - rho)
    db = own[:, 2]
    cart = own[:, 1] + 0.5 * db
    web = own[:, 0] + 2 * cart + db
    response = np.stack([web, cart, db], axis=1) * np.exp(rng.normal(0, noise, (length, 3)))
    rate = rng.uniform(20, 60, (length, 1)) * np.array([1, 2, 2])
    values = np.stack([np.full((length, 3), 2.0), rho, response, rate], axis=2).astype(np.float32)
    return MetricPanel(15.0 * np.arange(1, length + 1), ("web", "cart", "db"), FEATURES, values)


def test_shares_are_those_of_the_callers_time() -> None:
    panel = chain()
    response = panel.feature("res").astype(np.float64).mean(axis=0)
    expected = np.array([[0, 2, 1], [0, 0, 0.5], [0, 0, 0]]) * response[None, :] / response[:, None]
    found = fit_structure(panel)
    np.testing.assert_allclose(found.share, expected, atol=0.02)
    assert (found.t[expected > 0] > 10).all()
    assert ranking(found.score, expected)["auprc"] == 1


def test_shares_of_recorded_calls_are_calls_times_their_time() -> None:
    panel = chain(noise=0.0)
    response, rate = (panel.feature(name).astype(np.float64) for name in ("res", "req"))
    calls = np.array([[0, 2, 1], [0, 0, 0.5], [0, 0, 0]]) * rate.mean(axis=0)[:, None]
    weighted = (response * rate).mean(axis=0) / rate.mean(axis=0)
    expected = np.array([[0, 2, 1], [0, 0, 0.5], [0, 0, 0]]) * weighted[None, :] / weighted[:, None]
    np.testing.assert_allclose(time_shares(calls, panel), expected, rtol=1e-5)
    silent = MetricPanel(panel.times, panel.services, FEATURES, np.zeros_like(panel.values))
    assert not time_shares(0 * calls, silent).any()


def test_services_that_wander_alone_have_no_edge_worth_a_share() -> None:
    panel = chain()
    values = panel.values.copy()
    rng = np.random.default_rng(2)
    values[:, :, 2] = 0.005 / (1 - values[:, :, 1]) * np.exp(rng.normal(0, 0.05, values.shape[:2]))
    assert fit_structure(MetricPanel(panel.times, panel.services, FEATURES, values)).score.max() < 0.05


def test_calls_never_exceed_what_the_callee_was_asked() -> None:
    rng = np.random.default_rng(1)
    seen = rng.uniform(1, 2, (300, 2))
    time = seen @ np.array([3.0, 0.5]) + 1
    calls, t = bounded_fit(seen, np.ones((300, 1)), time, np.ones(300), np.array([1.0, 1.0]))
    assert calls[0] == pytest.approx(1.0) and 0 <= calls[1] <= 1
    calls, t = bounded_fit(
        seen, np.ones((300, 1)), time + rng.normal(0, 0.01, 300), np.ones(300), np.array([9.0, 9.0])
    )
    np.testing.assert_allclose(calls, [3, 0.5], atol=0.02)
    assert (t > 20).all()


def test_outliers_are_weighted_down() -> None:
    rng = np.random.default_rng(1)
    seen = rng.uniform(1, 2, (400, 1))
    time = 2 * seen[:, 0] + 1 + rng.normal(0, 0.01, 400)
    time[::20] += 5 * rng.random(20)
    calls, _ = bounded_fit(seen, np.ones((400, 1)), time, np.ones(400), np.array([9.0]))
    assert calls[0] == pytest.approx(2, abs=0.02)


def test_a_doubtful_share_counts_less_than_a_sure_one() -> None:
    few, many = fit_structure(chain(100, noise=0.2)), fit_structure(chain(3000, noise=0.2))
    shrunk = [
        found.score[0, 2] / found.share[0, 2] if found.share[0, 2] > 0 else 0.0 for found in (few, many)
    ]
    assert shrunk[0] < shrunk[1] < 1


def test_calls_to_a_quick_service_are_as_likely_as_calls_to_a_slow_one() -> None:
    panel = chain(3000)
    values = panel.values.copy()
    values[:, 0, 2] += 0.05 * values[:, 0, 1]  # what the database takes is little beside web's own time
    found = fit_structure(MetricPanel(panel.times, panel.services, FEATURES, values))
    np.testing.assert_allclose(found.calls[0], [0, 2, 1], atol=0.1)
    assert found.score[0, 2] < 0.2 and found.likelihood[0, 2] > 0.9
    assert found.likelihood[2].max() == 0 and found.likelihood.max() <= 1


def test_dead_constant_and_new_services_leave_zeros_and_no_nan() -> None:
    panel = chain(300)
    values = panel.values.copy()
    values[:, 1, 2] = np.nan
    values[:, 2] = [1, 0.5, 0.002, 3.0]
    found = fit_structure(MetricPanel(panel.times, panel.services, FEATURES, values))
    assert np.isfinite(found.score).all() and np.isfinite(found.t).all()
    assert not found.share[:, 1].any() and not found.share[1].any()
    short = chain(FEWEST_ROWS - 1)
    assert not fit_structure(short).share.any()


def test_a_missing_feature_is_named() -> None:
    panel = chain(100)
    with pytest.raises(DataError, match="needs the features pod, cpu, res, req; cpu isn't among"):
        fit_structure(panel.select(panel.services, ("pod", "res", "req")))


def test_an_hour_of_the_emulated_boutique_show_most_of_its_calls() -> None:
    settings = load_settings(ROOT / "config/demo.yaml", [])
    start = utc_seconds(settings.testbed.start)
    cluster = testbed.collect(settings, start, start + 3600)
    panel = cluster.metrics(start + 15, start + 3600, 15.0)
    truth = cluster.calls(start, start + 3600).mean_rates(panel.services)
    scores = ranking(fit_structure(panel).score, truth)
    assert scores["edges"] == 14 and scores["auprc"] > 0.7 and scores["auroc"] > 0.9


def test_the_small_shop_of_the_other_tests_is_found_from_web_down() -> None:
    found = fit_structure(app.telemetry(240))
    assert found.share[0, 1:].sum() > 0.1 and not found.share[2].any()
