"""Errors, persistence and seasons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.forecast_errors import forecast_errors, round_replicas
from model.layers import Graphs
from model.naive import KnownNow, Persistence, SeasonalNaive
from model.network import Network, Shape
from model.seasons import find_season, strongest_season
from model.windows import Windows

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


def test_a_perfect_forecast_of_fractions_of_replicas_provides_neither_too_little_nor_too_much() -> None:
    """Labels `observed` are means of replicas over a step."""
    truth = np.array([0.0, 0.4, 2.0, 2.3, 2.4, 2.45, 2.5, 3.0]).reshape(-1, 1, 1)
    errors = forecast_errors(truth, truth, replicas=True)
    assert (errors["mae"], errors["under_provision"], errors["over_provision"]) == (0.0, 0.0, 0.0)
    less = forecast_errors(truth - 1.0, truth, replicas=True)
    assert less["under_provision"] == pytest.approx(6 / 8)  # at least one replica is always there


def test_targets_of_zero_have_no_relative_error() -> None:
    errors = forecast_errors(np.array([[[1.0, 3.0]]]), np.array([[[0.0, 2.0]]]), replicas=False)
    assert errors["mape"] == pytest.approx(0.5)


def test_replicas_are_rounded_up_above_the_threshold() -> None:
    assert round_replicas(np.array([2.34, 2.36, 0.2, 3.0])).tolist() == [2, 3, 1, 3]


def forecasts(kind: type[Network], labels: np.ndarray, ends: list[int], **changes: int) -> np.ndarray:
    """`[M, H, N]` of a network that needs no training."""
    sizes = {"window": 2, "horizon": 1, "dilation": 1, **changes}
    tensor = torch.as_tensor(labels, dtype=torch.float32)
    windows = Windows(torch.zeros(*tensor.shape, 1), tensor, **sizes)
    network = kind(Shape(tensor.shape[1], 1, sizes["window"], sizes["horizon"]))
    nothing = torch.zeros(tensor.shape[1], tensor.shape[1])
    return network.forecast(windows, Graphs(nothing, nothing), torch.tensor(ends), 64).numpy()


def test_persistence_repeats_the_label_that_is_known_now() -> None:
    labels = np.array([[NAN], [1.0], [2.0], [NAN], [4.0], [5.0]])
    made = forecasts(Persistence, labels, [0, 2, 4, 5], horizon=2, lag=1)
    assert made[:, :, 0].tolist() == [[0, 0], [1, 1], [2, 2], [4, 4]]  # 0: the training mean


def test_a_season_is_found_in_training_labels_and_never_looks_at_what_is_not_known() -> None:
    cycle = np.round(5 + 3 * np.sin(2 * np.pi * np.arange(48) / 48))
    labels = np.tile(cycle, 13)[:600, None]
    season = find_season(labels[:400], 150, 4)
    assert season is not None and season.rows == 48 and season.strength > 0.9
    ends = np.arange(450, 590)
    made = forecasts(SeasonalNaive, labels, ends.tolist(), horizon=2, dilation=4, lag=3, season=48)
    np.testing.assert_allclose(made[:, 1, 0], labels[ends + 8, 0], rtol=1e-6)
    spoiled = labels.copy()
    spoiled[448:] = 99.0
    late = forecasts(SeasonalNaive, spoiled, [450], horizon=8, dilation=8, lag=3, season=48)
    assert (late < 99).all()  # 64 rows ahead: two seasons back


def test_a_season_is_looked_for_in_every_series_and_the_first_comes_first() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(600, 2))
    wave = np.sin(2 * np.pi * np.arange(600) / 40)[:, None]
    weak = np.sin(2 * np.pi * np.arange(600) / 60)[:, None] + 0.5 * rng.normal(size=(600, 1))
    assert strongest_season([noise, weak, wave], 150, 4) == 40
    assert abs(strongest_season([weak, wave], 150, 4) - 60) <= 2
    assert strongest_season([noise, noise], 150, 4) is None


def test_what_is_known_now_is_repeated_and_else_the_newest_label() -> None:
    tensor = torch.arange(12.0)[:, None]
    windows = Windows(
        torch.zeros(12, 1, 1), tensor, window=2, horizon=2, dilation=1, lag=3, present=10 * tensor
    )
    nothing = Graphs(torch.zeros(1, 1), torch.zeros(1, 1))
    network = KnownNow(Shape(1, 1, 2, 2))
    assert network.forecast(windows, nothing, torch.tensor([8]), 4).tolist() == [[[80.0], [80.0]]]
    bare = replace(windows, present=None)
    assert network.forecast(bare, nothing, torch.tensor([8]), 4).tolist() == [[[5.0], [5.0]]]


def test_the_mean_of_a_season_is_over_as_many_cycles_as_there_are() -> None:
    labels = np.repeat([1.0, 2.0, 4.0, 9.0, 16.0], 10)[:, None]
    made = forecasts(SeasonalNaive, labels, [9, 19, 29, 39, 49 - 10], season=10)
    assert made[:, 0, 0].tolist() == pytest.approx([1, 1.5, 7 / 3, 5, 5])
    early = forecasts(SeasonalNaive, labels, [3], season=10)
    assert early[0, 0, 0] == 1  # no cycle yet: persistence


def test_noise_has_no_season_and_then_it_is_persistence() -> None:
    labels = np.random.default_rng(1).normal(size=(800, 3))
    assert find_season(labels, 300, 4) is None
    assert find_season(np.full((800, 1), 2.0), 300, 4) is None
    np.testing.assert_allclose(forecasts(SeasonalNaive, labels, [500])[0, 0], labels[500], rtol=1e-6)
