"""How far labels can be trusted: the figures."""

import json

import numpy as np
import pytest
from helpers import telemetry as app

from deepscaler.labels.diagnostics import Diagnostics
from deepscaler.labels.regression import FEWEST_HOT
from deepscaler.panel import MetricPanel


@pytest.fixture(scope="module")
def found() -> Diagnostics:
    return app.diagnosed(app.telemetry(300), 240)


def test_a_true_fit_leaves_the_noise_and_a_wrong_one_shows(found):
    middle = np.nanmedian(found.residuals, axis=0)
    assert (np.abs(middle) < 0.005).all()
    assert (np.nanstd(found.residuals, axis=0) < 0.05).all()
    wrong = app.diagnosed(app.telemetry(300, highest=0.95), 240, demand_seconds=app.DEMAND * [1.0, 1.0, 1.2])
    assert np.nanmedian(wrong.residuals[:, 2]) < -0.1
    np.testing.assert_allclose(wrong.demand_error, [1 / 1.1 - 1, 1 / 1.1 - 1, 1.2 / 1.1 - 1])


def test_the_predicted_response_is_the_one_that_was_measured(found):
    ratio = found.predicted_response / found.measured_response
    assert np.median(ratio) == pytest.approx(1, abs=0.05)
    assert found.summary()["response"]["predicted_over_measured_quantiles"][1] == pytest.approx(1, abs=0.05)
    assert app.diagnosed(app.telemetry(120), 120, response=None).summary()["response"] is None


def test_minutes_are_of_the_training_split_and_labels_of_the_whole_series(found):
    assert len(found.top_rho) == len(found.measured_response) == 240
    assert len(found.times) == len(found.required_cores) == 1200
    summary = found.summary()
    assert sum(summary["saturation"]["minutes"]) == 240
    hot = (found.top_rho > 0.85) & (found.top_rho < 0.95)
    assert summary["saturation"]["hot_minutes"] == hot.sum() > FEWEST_HOT


def test_labels_tell_whether_utilisation_or_latency_decided_them():
    panel = app.telemetry(120, highest=0.8)
    easy, hard = (app.diagnosed(panel, 120, sla_margin=margin) for margin in (5.0, 0.4))
    assert easy.summary()["labels"]["raised_by_latency_share"] == 0
    assert hard.summary()["labels"]["raised_by_latency_share"] > 0.2
    known = np.isfinite(easy.required_cores) & np.isfinite(hard.required_cores)
    assert (hard.required_cores[known] >= easy.required_cores[known]).all()
    assert (hard.required_cores[known] > easy.required_cores[known]).any()


def test_hidden_demand_is_what_waiting_users_dont_ask():
    panel = app.constant(np.full(480, 30.0), response=np.where(np.arange(480) < 40, 1.06, 0.03))
    closed, open_loop = (
        app.diagnosed(panel, 120, think_seconds=think).summary()["hidden"] for think in (1.0, None)
    )
    assert closed["largest_correction"] == pytest.approx(2.06 / 1.03, rel=1e-6)
    assert closed["minutes_above_sla_share"] == pytest.approx(10 / 120)
    assert open_loop["largest_correction"] == 1 and "left out" in open_loop["above_sla"]


def test_figures_of_a_service_that_nobody_saw_are_none_and_the_rest_is_plain():
    panel = app.telemetry(120)
    values = panel.values.copy()
    values[:, 1] = np.nan
    values[40:80, 0] = np.nan
    found = app.diagnosed(MetricPanel(panel.times, panel.services, panel.features, values), 90)
    summary = found.summary()
    assert summary["services"]["cart"]["residual_quantiles"] is None
    json.dumps(summary["labels"], allow_nan=False)
