"""AR: the closed form finds what made the data."""

from __future__ import annotations

import torch

from model.layers import Graphs
from model.linear import AR
from model.network import Shape
from model.windows import Windows

NO_EDGES = Graphs(torch.zeros(2, 2), torch.zeros(2, 2))


def autoregression(length: int = 3000) -> Windows:
    """y[t] = .6 y[t-1] - .3 y[t-2] + noise, of service 1 with the signs turned."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(length, 2)
    noise = 0.1 * torch.randn(length, 2, generator=generator)
    for row in range(2, length):
        sign = torch.tensor([1.0, -1.0])
        labels[row] = 0.6 * sign * labels[row - 1] - 0.3 * labels[row - 2] + noise[row]
    return Windows(torch.zeros(length, 2, 1), labels, window=3, horizon=1, dilation=1)


def test_ridge_finds_the_coefficients_of_each_service() -> None:
    network = AR(Shape(2, 1, 3, 1))
    network.prepare(autoregression(), torch.arange(10, 2000), torch.arange(2000, 2900))
    lags = network.weight[:, 1:-1:2, 0]  # of the labels, oldest first
    torch.testing.assert_close(lags, torch.tensor([[0.0, -0.3, 0.6], [0.0, -0.3, -0.6]]), atol=0.06, rtol=0)


def test_unknown_labels_are_left_out() -> None:
    data = autoregression()
    labels = data.labels.clone()
    labels[500:600, 0] = torch.nan
    network = AR(Shape(2, 1, 3, 1))
    network.prepare(
        Windows(data.series, labels, window=3, horizon=1, dilation=1),
        torch.arange(10, 2000),
        torch.arange(2000, 2900),
    )
    assert torch.isfinite(network.weight).all() and abs(network.weight[0, 5, 0] - 0.6) < 0.06


def test_before_it_is_prepared_it_forecasts_the_training_mean() -> None:
    assert AR(Shape(2, 1, 3, 1))(torch.ones(4, 3, 2, 1), NO_EDGES).abs().max() == 0
