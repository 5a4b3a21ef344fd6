"""AdapGLQ: quantiles that rise, start from now, never fall below 0, and go with the level of the load."""

import pytest
import torch

from model.adapglq import KNOTS, AdapGLQ, _between
from model.joint import LEVELS
from model.layers import Graphs
from model.network import Shape
from model.windows import Windows

HORIZON, WINDOW, SERVICES = 20, 10, 3


@pytest.fixture
def network() -> AdapGLQ:
    torch.manual_seed(3)
    made = AdapGLQ(Shape(SERVICES, 1, WINDOW, HORIZON), channels=8, blocks=1, dropout=0.0)
    torch.nn.init.normal_(made.head.weight, std=0.5)
    made.zero.fill_(-2.0)  # a rate of 0 is two deviations below the mean
    return made.eval()


GRAPHS = Graphs(torch.eye(SERVICES), torch.eye(SERVICES).roll(1, 0))


def test_quantiles_rise_and_no_rate_is_negative(network: AdapGLQ) -> None:
    past = 4 * torch.rand(5, WINDOW, SERVICES) - 2
    grid = network.grid(GRAPHS, past)
    assert grid.shape == (len(LEVELS), 5, HORIZON, SERVICES)
    assert bool((grid.diff(dim=0) >= -1e-6).all()) and bool((grid >= -2 - 1e-5).all())


def test_without_a_load_there_is_none_to_come(network: AdapGLQ) -> None:
    grid = network.grid(GRAPHS, torch.full((1, WINDOW, SERVICES), -2.0)).detach()
    assert float((grid + 2).max()) < 0.1


@torch.no_grad()
def test_moments_beyond_the_peak_are_alike_those_at_it(network: AdapGLQ) -> None:
    labels = torch.rand(WINDOW, SERVICES) + 1
    windows = Windows(labels[..., None], labels, WINDOW, HORIZON, 1, zero=torch.zeros(SERVICES))
    network.prepare(windows, torch.arange(WINDOW), torch.arange(0))
    torch.testing.assert_close(network.peak, labels.sum(dim=1).max())
    states = [
        network.states(
            Windows(labels[..., None], times * labels, WINDOW, HORIZON, 1),
            GRAPHS,
            torch.tensor([WINDOW - 1]),
            8,
        )
        for times in (1.0, 2.0, 9.0, 0.5)
    ]
    torch.testing.assert_close(states[1], states[0])
    torch.testing.assert_close(states[2], states[0])
    assert float((states[3] - states[0]).abs().max()) > 1e-3


def test_between_knots_values_are_interpolated_from_now_on() -> None:
    weights = _between([1, 4, 6])
    assert weights.shape == (6, 4)
    torch.testing.assert_close(
        weights @ torch.tensor([0.0, 3.0, 12.0, 8.0]), torch.tensor([3.0, 6, 9, 12, 10, 8])
    )
    assert tuple(sorted(KNOTS)) == KNOTS


def test_unknown_labels_cost_nothing_and_the_loss_is_pinball(network: AdapGLQ) -> None:
    past, x = torch.rand(2, WINDOW, SERVICES), torch.zeros(2, WINDOW, SERVICES, 1)
    windows = Windows(x[0], past[0], WINDOW, HORIZON, 1)
    known = windows.known(torch.tensor([WINDOW - 1]))
    target = network.grid(GRAPHS, known.past)[LEVELS.index(0.5)].clone()
    summed, count = network.loss(x[:1], GRAPHS, known, target)
    steps = [knot for knot in KNOTS if knot < HORIZON] + [HORIZON]
    assert count == len(steps) * SERVICES and float(summed.detach()) >= 0
    summed, count = network.loss(x[:1], GRAPHS, known, torch.full_like(target, torch.nan))
    assert count == 0 and float(summed.detach()) == 0


def test_trained_on_a_step_that_always_comes_it_foresees_it() -> None:
    """A square wave: after ten rows at one level the other follows, which persistence can't know."""
    torch.manual_seed(1)
    wave = torch.where(torch.arange(600) % 20 < 10, 1.0, 3.0)[:, None].expand(600, 1).contiguous()
    windows = Windows(torch.zeros(600, 1, 1), wave, 20, 10, 1, zero=torch.zeros(1))
    network = AdapGLQ(Shape(1, 1, 20, 10), channels=16, blocks=1, dropout=0.0)
    ends = torch.arange(20, 580)
    network.prepare(windows, ends, ends)
    graphs = Graphs(torch.zeros(1, 1), torch.zeros(1, 1))
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        summed, count = network.loss(windows.inputs(ends), graphs, windows.known(ends), windows.targets(ends))
        (summed / count).backward()
        optimiser.step()
    error = (network.forecast(windows, graphs, ends, 64) - windows.targets(ends)).abs().mean()
    naive = (windows.labels[ends][:, None] - windows.targets(ends)).abs().mean()
    assert error < 0.2 * naive
