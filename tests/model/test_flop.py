"""What a training step computes, and how many threads it gets for that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from helpers.model_samples import call_graph, cascade

from deepscaler.learning.bench import trained_networks
from deepscaler.learning.hyperparameters import network_sizes
from deepscaler.settings import ModelConfig
from model.flop import busy_threads, counted_flop, training_step_flop
from model.layers import Graphs
from model.network import Shape
from model.networks import build_network


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("flop", "threads"),
    [(0, 1), (0.7e9, 1), (1.9e9, 1), (2.8e9, 2), (3.4e9, 3), (4e9, 4), (1e13, 4)],
)
def test_a_thread_needs_a_gflop_of_each_step(four_threads, flop, threads):
    assert busy_threads(int(flop)) == threads


def test_a_product_is_two_operations_per_pair():
    left, right = torch.rand(3, 5), torch.rand(5, 7)
    assert counted_flop(lambda: left @ right) == 2 * 3 * 5 * 7
    assert counted_flop(lambda: torch.rand(3, 7).addmm_(left, right)) == 2 * 3 * 5 * 7


@pytest.mark.parametrize("name", trained_networks())
def test_counting_is_near_the_truth_and_leaves_no_trace(name):
    """The way back costs about twice the way forward; counting neither trains nor draws a number."""
    windows, graph = cascade(length=60), call_graph()
    network = build_network(name, Shape(5, 2, 6, 1), network_sizes(ModelConfig(), name)).train()
    graphs, ends = Graphs(graph, graph.T.contiguous()), torch.arange(10, 50)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    random = torch.get_rng_state()
    flop = training_step_flop(network, graphs, windows, ends, batch=20)
    assert torch.equal(torch.get_rng_state(), random) and network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())

    def step() -> None:
        part = ends[:20]
        windows_of_it = windows.inputs(part), graphs, windows.known(part), windows.targets(part)
        network.loss(*windows_of_it)[0].backward()

    assert flop == pytest.approx(counted_flop(step), rel=0.35)
    assert flop == 20 * training_step_flop(network, graphs, windows, ends, batch=1)
