"""AdapGLS: where its forecasts start, what its twin is for, and the weights of experts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.adapgls import AdapGLS, base
from model.experts import _discounted, weigh
from model.layers import Graphs
from model.network import Shape
from model.networks import parameter_count
from model.windows import RECENT, Known, Windows

NAN = torch.nan
SIZES = {"channels": 8, "blocks": 1, "dropout": 0.0, "twin": True, "present": True}


def no_edges(services: int) -> Graphs:
    return Graphs(torch.zeros(services, services), torch.zeros(services, services))


def windows(length: int = 200, services: int = 2, **changes: int) -> Windows:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randn(length, services, generator=generator).cumsum(0) / 5
    series = torch.stack([labels, torch.randn(length, services, generator=generator)], dim=-1)
    return Windows(series, labels, **{"window": 4, "horizon": 3, "dilation": 1, **changes})


def known(past: Tensor, season_past: Tensor, season_ahead: Tensor) -> Known:
    recent = past[:, -1:].expand(-1, RECENT, -1)
    return Known(past, season_past, season_ahead, recent, torch.zeros(len(past)))


def test_at_published_sizes_it_is_below_its_bound_of_parameters() -> None:
    network = AdapGLS(Shape(10, 4, 80, 12), channels=64, blocks=2, dropout=0.1, twin=True, present=True)
    assert parameter_count(network) <= 300_000


def test_before_training_it_forecasts_what_is_needed_now() -> None:
    data = windows()
    network = AdapGLS(Shape(2, 2, 4, 3), **SIZES)
    ends = torch.arange(100, 150)
    made = network.forecast(data, no_edges(2), ends, 16)
    torch.testing.assert_close(made, data.labels[ends][:, None].expand(-1, 3, -1))


def test_without_what_is_known_of_the_next_label_it_starts_from_the_newest_complete_one() -> None:
    data = windows(lag=2)
    present = Windows(
        data.series, data.labels, window=4, horizon=3, dilation=1, lag=2, present=data.labels + 7
    )
    ends = torch.arange(100, 150)
    for shown, expected in ((True, data.labels[ends] + 7), (False, data.labels[ends - 2])):
        network = AdapGLS(Shape(2, 2, 4, 3), **{**SIZES, "present": shown})
        made = network.forecast(present, no_edges(2), ends, 16)
        torch.testing.assert_close(made, expected[:, None].expand(-1, 3, -1))


def test_without_what_is_known_of_the_next_label_it_is_told_no_season_either() -> None:
    data = windows()
    ends = torch.arange(100, 150)
    torch.manual_seed(1)
    network = AdapGLS(Shape(2, 2, 4, 3), **{**SIZES, "present": False})
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    forecasts = []
    for season in (NAN, 0.0, 5.0):
        seen = data.known(ends)
        seen = seen._replace(
            season_past=torch.full_like(seen.past, season),
            season_ahead=torch.full_like(seen.season_ahead, season),
        )
        forecasts.append(network(data.inputs(ends), no_edges(2), seen))
    assert torch.isfinite(forecasts[0]).all()
    for made in forecasts[1:]:
        torch.testing.assert_close(made, forecasts[0])


def test_a_season_that_fits_moves_the_base_and_one_that_does_not_is_ignored() -> None:
    past = torch.tensor([[1.0, 2.0, 3.0, 2.0]])[..., None]
    ahead = torch.tensor([[7.0, 9.0]])[..., None]
    start, trust = base(known(past, past + 5, ahead))  # the same course, five higher
    assert trust.item() == 1 and start.flatten().tolist() == [2, 4]
    start, trust = base(known(past, -3 * past, ahead))
    assert trust.item() == 0 and start.flatten().tolist() == [2, 2]
    start, trust = base(known(past, torch.full_like(past, NAN), torch.full_like(ahead, NAN)))
    assert trust.item() == 0 and start.flatten().tolist() == [2, 2]


def test_the_upper_quantile_is_never_below_the_median() -> None:
    torch.manual_seed(3)
    network = AdapGLS(Shape(2, 2, 4, 3), **SIZES)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ends = torch.arange(50, 90)
    median, upper = (network.forecast(windows(), no_edges(2), ends, 16, level) for level in (0.5, 0.9))
    assert (upper >= median).all() and (upper > median).any()


def test_the_twin_sees_no_level() -> None:
    torch.manual_seed(2)
    network = AdapGLS(Shape(2, 2, 4, 3), **SIZES)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    data = windows()
    higher = Windows(data.series + 3, data.labels + 3, window=4, horizon=3, dilation=1)
    ends = torch.tensor([60])
    changes = []
    for one, lift in ((data, 0), (higher, 3)):
        seen = (one.inputs(ends), no_edges(2), one.known(ends))
        changes.append([expert(*seen)[0] - lift for expert in network.experts])
    torch.testing.assert_close(changes[0][1], changes[1][1], atol=1e-5, rtol=1e-5)
    assert (changes[0][0] - changes[1][0]).abs().max() > 1e-2


def test_the_expert_that_was_right_gets_the_weight_once_its_labels_are_complete() -> None:
    rows = torch.arange(0, 40)
    actual = torch.zeros(40, 1, 1)
    made = torch.stack([torch.full((40, 1, 1), 0.1), torch.full((40, 1, 1), 1.0)])
    weights = weigh(made, actual, rows, torch.tensor([5]), half_life=10)
    torch.testing.assert_close(weights.sum(0), torch.ones(40, 1, 1))
    assert weights[:, :5].flatten().tolist() == pytest.approx([0.5] * 10)
    assert (weights[0, 5:] > 0.999).all()


def test_weights_follow_a_change_of_who_is_right() -> None:
    rows = torch.arange(0, 200)
    actual = torch.zeros(200, 1, 1)
    early = (rows < 100).float()[:, None, None]
    made = torch.stack([0.1 + 0.9 * (1 - early), 0.1 + 0.9 * early])
    weights = weigh(made, actual, rows, torch.tensor([1]), half_life=10)
    assert weights[0, 90] > 0.99 and weights[1, 150] > 0.99


def test_sums_are_discounted_as_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 40, 2, 5, generator=generator, dtype=torch.float64)
    decay = torch.rand(40, generator=generator, dtype=torch.float64)
    before, running = values.clone(), torch.zeros(3, 2, 5, dtype=torch.float64)
    for row in range(40):
        running = decay[row] * running + before[:, row]
        assert torch.equal(_discounted(values, decay)[:, row], running)
    assert torch.equal(values, before)


def test_labels_to_come_change_no_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    made, actual = torch.randn(2, 30, 2, 3, generator=generator), torch.randn(30, 2, 3, generator=generator)
    rows, delay = torch.arange(30), torch.tensor([1, 4])
    spoiled = actual.clone()
    spoiled[20:] = 99.0  # made at row 20 or later: the first is complete at row 21
    torch.testing.assert_close(
        weigh(made, actual, rows, delay, 5)[:, :21], weigh(made, spoiled, rows, delay, 5)[:, :21]
    )


def test_the_same_window_is_forecast_alike_among_many_and_alone() -> None:
    torch.manual_seed(4)
    network = AdapGLS(Shape(2, 2, 4, 3), **SIZES)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    data = windows(900)
    many = network.forecast(data, no_edges(2), torch.arange(500, 700), 64)
    alone = network.forecast(data, no_edges(2), torch.tensor([699]), 64)
    torch.testing.assert_close(
        alone[0], many[-1], atol=2e-2, rtol=2e-2
    )  # errors older than its memory count next to nothing


def test_one_service_one_feature_one_window_stay_finite() -> None:
    network = AdapGLS(Shape(1, 1, 1, 1), **SIZES)
    made = network(torch.zeros(1, 1, 1, 1), no_edges(1))
    assert made.shape == (1, 1, 1) and torch.isfinite(made).all()


def test_permuting_services_permutes_the_output() -> None:
    torch.manual_seed(5)
    network = AdapGLS(Shape(3, 2, 4, 3), **SIZES)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    data, order, ends = windows(services=3), torch.tensor([2, 0, 1]), torch.tensor([80])
    graph = torch.rand(3, 3, generator=torch.Generator().manual_seed(1))
    plain = network(data.inputs(ends), Graphs(graph, graph), data.known(ends))
    moved = Windows(data.series[:, order], data.labels[:, order], window=4, horizon=3, dilation=1)
    for expert in network.experts:
        expert.service.data = expert.service.data[order]
    again = graph[order][:, order]
    torch.testing.assert_close(
        network(moved.inputs(ends), Graphs(again, again), moved.known(ends)),
        plain[:, :, order],
        atol=1e-5,
        rtol=1e-5,
    )
