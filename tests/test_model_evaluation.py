"""Errors, persistence and seasons."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation import Persistence, SeasonalNaive, find_season, forecast_errors, round_replicas

NAN = np.nan


def test_errors_on_paper_with_unknown_targets_left_out() -> None:
    predicted = np.array([[[1.0, 4.0]], [[3.0, 0.5]]])
    target = np.array([[[2.0, NAN]], [[3.0, 2.0]]])
    errors = forecast_errors(predicted, target, replicas=True)
    assert errors["mae"] == pytest.approx((1 + 0 + 1.5) / 3)
    assert errors["rmse"] == pytest.approx(np.sqrt((1 + 2.25) / 3))
    assert errors["mape"] == pytest.approx((0.5 + 0 + 0.75) / 3)
    assert errors["mae_by_service"] == pytest.approx([0.5, 1.5])
    assert errors["mae_by_step"] == pytest.approx([2.5 / 3])
    assert (errors["under_provision"], errors["over_provision"]) == (pytest.approx(2 / 3), 0.0)
    assert (errors["windows"], errors["known"]) == (2, 3)


def test_targets_of_zero_have_no_relative_error() -> None:
    errors = forecast_errors(np.array([[[1.0, 3.0]]]), np.array([[[0.0, 2.0]]]), replicas=False)
    assert errors["mape"] == pytest.approx(0.5)


def test_replicas_are_rounded_up_above_the_threshold() -> None:
    assert round_replicas(np.array([2.34, 2.36, 0.2, 3.0])).tolist() == [2, 3, 1, 3]


def test_persistence_repeats_the_label_that_is_known_now() -> None:
    labels = np.array([[NAN], [1.0], [2.0], [NAN], [4.0], [5.0]])
    forecast = Persistence(labels, lag=1, otherwise=np.array([9.0]))
    made = forecast.forecast(np.array([0, 2, 4, 5]), horizon=2, dilation=1)
    assert made[:, :, 0].tolist() == [[9, 9], [1, 1], [2, 2], [4, 4]]


def test_a_season_is_found_in_training_labels_and_never_looks_at_what_is_not_known() -> None:
    cycle = np.round(5 + 3 * np.sin(2 * np.pi * np.arange(48) / 48))
    labels = np.tile(cycle, 13)[:600, None]
    forecast = SeasonalNaive(labels, 3, np.array([5.0]), training_rows=400, longest=150, shortest=4)
    assert forecast.season == 48
    ends = np.arange(450, 590)
    np.testing.assert_array_equal(forecast.forecast(ends, 2, 4)[:, 1, 0], labels[ends + 8, 0])
    spoiled = labels.copy()
    spoiled[448:] = 99.0
    late = SeasonalNaive(spoiled, 3, np.array([5.0]), training_rows=400, longest=150, shortest=4)
    assert (late.forecast(np.array([450]), 8, 8) < 99).all()  # 64 rows ahead: two seasons back


def test_noise_has_no_season_and_then_it_is_persistence() -> None:
    labels = np.random.default_rng(1).normal(size=(800, 3))
    assert find_season(labels, 300, 4) is None
    assert find_season(np.full((800, 1), 2.0), 300, 4) is None
    naive = SeasonalNaive(labels, 0, np.zeros(3), training_rows=400, longest=150, shortest=4)
    np.testing.assert_array_equal(naive.forecast(np.array([500]), 1, 1)[0, 0], labels[500])
