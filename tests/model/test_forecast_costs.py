"""What forecasts cost, each measure by a case that is known on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.forecast_costs import LEVELS, crps, forecast_costs, residual_quantiles

NAN = math.nan


def costs(made, truth, replicas=True, cores=1.0, gap=60.0):
    """Of one service at one step."""
    shape = (-1, 1, 1)
    return forecast_costs(
        np.reshape(np.array(made, float), shape),
        np.reshape(np.array(truth, float), shape),
        replicas,
        np.array([cores]),
        gap,
    )


@pytest.mark.parametrize(
    ("made", "truth", "cores", "deficient", "excess"),
    [
        ([2, 2], [3, 2], 0.2, 0.5 * 0.2 * 3600, 0.0),
        ([3, 2], [2, 2], 0.2, 0.0, 0.5 * 0.2 * 3600),
        ([2, 4], [3, 3], 1.0, 1800.0, 1800.0),
        ([2, 2], [3, NAN], 1.0, 3600.0, 0.0),
        ([2.3, 2.4], [2, 2], 1.0, 0.0, 1800.0),  # 2.4 is scaled to 3
        ([2.3, 2.45, 0.0, NAN], [2.3, 2.45, 0.0, 2.4], 1.0, 0.0, 0.0),  # and so is what was needed
        ([2.3, 2.3], [2.4, NAN], 1.0, 3600.0, 0.0),
    ],
)
def test_cores_that_lack_and_that_lie_idle(made, truth, cores, deficient, excess):
    found = costs(made, truth, cores=cores)
    assert (found["deficient"], found["excess"]) == pytest.approx((deficient, excess))


STEP = [2, 2, 2, 2, 2, 2, 2, 5, 5, 5, 5, 5, 5, 5]


@pytest.mark.parametrize(
    ("made", "lead"),
    [
        (STEP, 0.0),
        ([*STEP[2:], 5, 5], 120.0),
        ([2, *STEP[:-1]], -60.0),
        ([2] * 14, -300.0),
        ([9] * 14, 300.0),
        ([2, 2, 5, 2, 2, 5, 5, 5, 5, 5, 5, 5, 5, 5], 120.0),  # the spike before doesn't count
        ([2, 2, 2, 2, 2, 2, 2, 4, 4, 5, 5, 5, 5, 5], -120.0),
    ],
)
def test_the_lead_of_a_rise(made, lead):
    assert costs(made, STEP)["lead_seconds"] == pytest.approx(lead)


def test_without_a_rise_there_is_no_lead_and_signed_series_rise_by_their_deviation():
    assert math.isnan(costs([2, 2], [3, 3])["lead_seconds"])
    truth = [-5.0, -5.0, -5.0, -1.0, -1.0, -1.0]
    assert costs([-5.0, -5.0, -2.0, -2.0, -2.0, -2.0], truth, replicas=False)["lead_seconds"] == 60.0


@pytest.mark.parametrize(
    ("made", "missed", "false"),
    [
        ([1] * 8 + [4, 4], 0.0, 0.0),
        ([1] * 10, 1.0, NAN),
        ([4] * 10, 0.0, 0.8),
        ([1] * 7 + [4, 4, 1], 0.5, 0.5),
    ],
)
def test_missed_and_false_peaks(made, missed, false):
    found = costs(made, [1] * 8 + [4, 4])
    assert found["missed_peaks"] == missed
    assert found["false_peaks"] == pytest.approx(false, nan_ok=True)


def test_a_constant_has_no_peaks():
    assert math.isnan(costs([3, 3, 4], [3, 3, 3])["missed_peaks"])


def test_crps_of_a_sure_forecast_is_its_absolute_error():
    made, truth = np.array([[[2.0]], [[5.0]]]), np.array([[[3.0]], [[NAN]]])
    assert crps(made, truth, np.zeros((len(LEVELS), 1, 1))) == pytest.approx(1.0)
    assert math.isnan(crps(made, np.full((2, 1, 1), NAN), np.zeros((len(LEVELS), 1, 1))))


@given(st.floats(0.5, 3.0))
def test_residuals_that_fit_score_better_than_a_sure_forecast_and_than_too_wide_ones(spread):
    rng = np.random.default_rng(1)
    truth, made = spread * rng.normal(size=(4000, 1, 1)), np.zeros((4000, 1, 1))
    found = residual_quantiles(made, truth)
    fit = crps(made, truth, found)
    assert fit == pytest.approx(0.564 * spread, rel=0.1)  # sigma / sqrt(pi), of a normal
    assert fit < crps(made, truth, 0 * found) and fit < crps(made, truth, 3 * found)
    assert residual_quantiles(made, made + NAN).tolist() == np.zeros((len(LEVELS), 1, 1)).tolist()
