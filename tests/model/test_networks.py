"""Every network of the registry: closed forms, properties, and the smallest sizes."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deepscaler.settings import ModelConfig
from model.adapglt import SharedGRU, StepAttention
from model.convolutional import GCN, ChebyshevAttention, SpatialAttention, symmetric_adjacency
from model.diffusion import SAMPLING_STEPS, AdapGLD, DiffusionGRU, diffusion_terms
from model.layers import Graphs
from model.network import Network, Shape
from model.networks import NETWORKS, build_network, parameter_count
from model.recurrence import Weights, unroll
from model.windows import Known, Windows
from model.yardstick import yardstick

SMALL: dict[str, dict[str, float]] = {
    "AdapGLA": {
        "graph_channels": 8,
        "time_channels": 6,
        "order": 3,
        "kernel": 3,
        "blocks": 2,
        "attention": True,
    },
    "AdapGLT": {"graph_channels": 8, "time_channels": 6, "order": 3, "blocks": 2},
    "AdapGLD": {"channels": 6, "diffusion": 2, "layers": 2},
    "STID": {"channels": 4, "layers": 2, "slots": 24, "dropout": 0.0},
    "LSTM": {"channels": 6, "layers": 2},
    "GCN": {"channels": 6, "layers": 2},
    "ASTGCN": {"channels": 6, "order": 3, "kernel": 3, "blocks": 2},
    "DCRNN": {"channels": 6, "diffusion": 2, "layers": 2},
}
TRAINED = tuple(SMALL)
JOINED_BY_GRAPHS_ALONE = ("AdapGLT", "AdapGLD", "GCN", "DCRNN")
"""The attention over time of AdapGLA and ASTGCN sees all services, whatever the graph."""


def make(name: str, services: int = 4, features: int = 3, window: int = 5, horizon: int = 2) -> Network:
    return build_network(name, Shape(services, features, window, horizon), SMALL[name])


def pair_of(size: int, seed: int = 0) -> Graphs:
    generator = torch.Generator().manual_seed(seed)
    graph = torch.rand(size, size, generator=generator) * (1 - torch.eye(size))
    return Graphs(graph, graph)


def known_at(clock: Tensor) -> Known:
    """A window's clock; networks here read nothing else of it."""
    values: dict[str, Any] = {field: torch.full((len(clock), 1, 1), torch.nan) for field in Known._fields}
    return Known(**{**values, "clock": clock})


# ---------------------------------------------------------------------------------------- all of the registry
def test_the_published_sizes_are_the_defaults_and_have_the_published_numbers_of_parameters() -> None:
    defaults, shape = ModelConfig(), Shape(10, 4, 80, 1)
    counts = {
        name: parameter_count(build_network(name, shape, getattr(defaults, name).model_dump()))
        for name in ("AdapGLA", "AdapGLT")
    }
    assert counts == {"AdapGLA": 269_761, "AdapGLT": 310_017}


@pytest.mark.parametrize("name", TRAINED)
def test_every_network_builds_from_its_default_settings(name: str) -> None:
    shape = Shape(3, 2, 12, 4)
    network = build_network(name, shape, getattr(ModelConfig(), name).model_dump())
    assert network.eval()(torch.randn(2, 12, 3, 2), pair_of(3)).shape == (2, 4, 3)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(
    ("batch", "services", "features", "window"), [(1, 1, 1, 1), (1, 3, 1, 4), (2, 1, 4, 4)]
)
def test_the_smallest_sizes_isolated_services_and_constant_features_stay_finite(
    name: str, batch: int, services: int, features: int, window: int
) -> None:
    network = make(name, services, features, window)
    none = torch.zeros(services, services)
    x = torch.zeros(batch, window, services, features)  # constant features are 0 after z-scores
    summed, number = network.loss(
        x, Graphs(none, none), known_at(torch.zeros(batch)), torch.ones(batch, 2, services)
    )
    summed.backward()
    assert number == batch * 2 * services
    assert network(x, Graphs(none, none)).shape == (batch, 2, services)
    assert torch.isfinite(summed)
    assert all(
        torch.isfinite(parameter.grad).all()
        for parameter in network.parameters()
        if parameter.grad is not None
    )


@pytest.mark.parametrize("name", TRAINED)
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    network = make(name)
    network(torch.randn(3, 5, 4, 3), pair_of(4), known_at(torch.rand(3))).square().sum().backward()
    idle = [
        key
        for key, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert idle == []


@pytest.mark.parametrize("name", TRAINED)
def test_every_network_takes_a_step_in_bf16_and_lstms_cells_stay_in_float32(name: str) -> None:
    """Processors without AVX-512 have no LSTM in bf16."""
    network, kinds = make(name), []
    for part in network.modules():
        if isinstance(part, nn.LSTM):
            part.register_forward_hook(lambda part, given, out: kinds.append(out[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        out = network(torch.randn(2, 5, 4, 3), pair_of(4), known_at(torch.rand(2)))
    out.float().square().mean().backward()
    assert torch.isfinite(out).all() and set(kinds) <= {torch.float32}
    assert bool(kinds) == (name == "LSTM")


@pytest.mark.parametrize("name", [name for name in TRAINED if NETWORKS[name].graph_use == "learned"])  # type: ignore[attr-defined]
def test_a_gradient_reaches_the_graph_that_is_learned(name: str) -> None:
    graph = pair_of(4).down.requires_grad_(True)
    make(name)(torch.randn(3, 5, 4, 3), Graphs(torch.zeros(4, 4), graph)).square().sum().backward()
    assert graph.grad is not None and graph.grad.abs().sum() > 0


@pytest.mark.parametrize("name", JOINED_BY_GRAPHS_ALONE)
def test_a_zero_graph_keeps_services_apart_and_an_edge_joins_them(name: str) -> None:
    network, x, none, edge = make(name).eval(), torch.randn(2, 5, 4, 3), torch.zeros(4, 4), torch.zeros(4, 4)
    edge[0, 1] = 1.0  # 0 calls 1
    moved = x.clone()
    moved[:, :, 0] += 1.0
    if name == "AdapGLT":  # its attention over steps sees the mean over services
        for block in network.blocks:  # type: ignore[union-attr]
            block.attention = nn.Identity()  # type: ignore[union-attr]
    with torch.no_grad():
        apart = (network(moved, Graphs(none, none)) - network(x, Graphs(none, none))).abs().amax(dim=(0, 1))
        joined = (network(moved, Graphs(none, edge)) - network(x, Graphs(none, edge))).abs().amax(dim=(0, 1))
    assert apart[0] > 0 and not apart[1:].any()
    assert joined[1] > 0 and not joined[2:].any()


@pytest.mark.parametrize("name", [name for name in TRAINED if NETWORKS[name].graph_use == "none"])  # type: ignore[attr-defined]
def test_a_graph_free_network_ignores_graphs(name: str) -> None:
    network, x = make(name), torch.randn(2, 5, 4, 3)
    assert torch.equal(network(x, pair_of(4, 1)), network(x, pair_of(4, 2)))


def permuted(name: str, network: Network, order: Tensor) -> Network:
    """The same network for services in another order: per-service parameters follow them."""
    again = copy.deepcopy(network)
    with torch.no_grad():
        for key, value in again.named_parameters():
            if key.endswith(("over_services", ".service")) or key == "service":
                value.copy_(value[order])
            elif key.endswith("features_to_services"):
                value.copy_(value[:, order])
            elif name == "ASTGCN" and key.endswith(("over_services.bias", "over_services.value")):
                value.copy_(value[order][:, order])
            elif name == "LSTM" and key == "cells.weight_ih_l0":
                value.copy_(value.view(len(value), len(order), -1)[:, order].flatten(1))
            elif name == "LSTM" and key.startswith("head"):
                value.copy_(value.unflatten(0, (-1, len(order)))[:, order].flatten(0, 1))
    return again


@pytest.mark.parametrize("name", TRAINED)
@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(4)))
def test_permuting_services_graphs_and_their_parameters_permutes_the_output(
    name: str, order: list[int]
) -> None:
    network, index = make(name).eval(), torch.tensor(order)
    pair, x = pair_of(4), torch.randn(2, 5, 4, 3)
    moved = Graphs(*(graph[index][:, index] for graph in pair))
    found = permuted(name, network, index)(x[:, :, index], moved)
    torch.testing.assert_close(found, network(x, pair)[:, :, index], rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------- recurrence
def stepped(x: Tensor, start: Tensor, weights: Weights, terms: Tensor) -> Tensor:
    """`unroll` by its formula, a step at a time."""
    channels, services, states, state = start.shape[1], terms.shape[1], [], start

    def mixed(x: Tensor, weight: Tensor) -> Tensor:
        total = x @ weight[0]
        for term, one in zip(terms, weight[1:], strict=True):
            total = total + (term @ x.reshape(services, -1)).view_as(x) @ one
        return total

    for given_now in x @ weights.inputs + weights.bias:
        reset, update = torch.sigmoid(given_now[:, : 2 * channels] + mixed(state, weights.gates)).chunk(
            2, dim=1
        )
        proposal = torch.tanh(given_now[:, 2 * channels :] + mixed(reset * state, weights.candidate))
        state = update * state + (1 - update) * proposal
        states.append(state)
    return torch.stack(states)


@pytest.mark.parametrize("terms", [0, 2])
def test_the_unrolled_gru_and_its_gradients_equal_the_formula(terms: int) -> None:
    window, services, samples, features, channels = 4, 3, 2, 6, 5
    rows = services * samples
    shapes = [
        (window, rows, features),
        (rows, channels),
        (features, 3 * channels),
        (3 * channels,),
        (terms + 1, channels, 2 * channels),
        (terms + 1, channels, channels),
        (terms, services, services),
    ]
    ours = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    theirs = [value.detach().clone().requires_grad_(True) for value in ours]
    weight = torch.randn(window, rows, channels, dtype=torch.float64)
    left, right = (
        make(x, start, Weights(*weights), graphs)
        for make, (x, start, *weights, graphs) in ((unroll, ours), (stepped, theirs))
    )
    torch.testing.assert_close(left, right)
    (left * weight).sum().backward()
    (right * weight).sum().backward()
    for mine, other in list(zip(ours, theirs, strict=True))[: 7 if terms else 6]:
        torch.testing.assert_close(mine.grad, other.grad)


def test_where_reset_and_recurrent_map_commute_the_gru_is_torchs() -> None:
    features, channels = 3, 4
    ours, theirs = SharedGRU(inputs=features, channels=channels), nn.GRUCell(features, channels)
    with torch.no_grad():
        ours.candidate.copy_(torch.diag(torch.randn(channels)))  # r (h D) = (r h) D for a diagonal D only
        theirs.weight_ih.copy_(ours.inputs.T)
        theirs.weight_hh.copy_(torch.cat((ours.gates, ours.candidate), 1).T)
        theirs.bias_ih.copy_(ours.bias)
        theirs.bias_hh.zero_()
    x, state = torch.randn(6, 2, features), torch.zeros(2, channels)
    for step, found in zip(x, ours(x), strict=True):
        state = theirs(step, state)
        torch.testing.assert_close(found, state, rtol=1e-5, atol=1e-6)


def test_attention_over_steps_equals_its_formula() -> None:
    layer, x = StepAttention(window=3), torch.randn(3, 2, 4, 5)
    for sample in range(2):
        means = x[:, sample].mean(dim=(1, 2))
        weights = torch.sigmoid(layer.narrow.weight @ torch.relu(layer.widen.weight @ means))
        torch.testing.assert_close(layer(x)[:, sample], x[:, sample] * weights[:, None, None])


# -------------------------------------------------------------------------------------------------- diffusion
def test_diffusion_terms_are_powers_of_transitions_and_leave_isolated_services_alone() -> None:
    graph = torch.tensor([[0.0, 3.0, 1.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    out, out_twice, back, back_twice = diffusion_terms(Graphs(graph, graph), 2)
    torch.testing.assert_close(out, torch.tensor([[0.0, 0.75, 0.25], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(back, torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1 / 3, 2 / 3, 0.0]]))
    torch.testing.assert_close(out_twice, out @ out)
    torch.testing.assert_close(back_twice, back @ back)
    torch.testing.assert_close(diffusion_terms(Graphs(graph / 100, graph / 100), 1)[0], graph / 100)


def test_inputs_of_the_diffusion_gru_are_diffused_by_their_formula() -> None:
    cell, terms, x = (
        DiffusionGRU(inputs=2, channels=3, terms=2),
        diffusion_terms(pair_of(4), 1),
        torch.randn(5, 4, 3, 2),
    )
    expected = torch.cat(
        [x, *(torch.einsum("ij,tjbf->tibf", term, x) for term in terms)], dim=-1
    )  # [T, N, B, K F]
    torch.testing.assert_close(cell.diffused(x, terms), expected.flatten(1, 2))


def test_truth_is_shown_always_at_first_half_the_time_at_the_decays_middle_and_never_at_last() -> None:
    network = make("AdapGLD")
    assert isinstance(network, AdapGLD)
    chances = []
    for steps in (0, SAMPLING_STEPS * math.log(SAMPLING_STEPS), 10**9):
        network.steps.fill_(int(steps))
        chances.append(network.truth_probability())
    assert chances == pytest.approx([SAMPLING_STEPS / (SAMPLING_STEPS + 1), 0.5, 0.0], abs=1e-3)


def test_the_decoder_sees_labels_in_training_only_and_where_they_are_known() -> None:
    network, x, pair = make("AdapGLD"), torch.randn(2, 5, 4, 3), pair_of(4)
    known, target = known_at(torch.zeros(2)), torch.randn(2, 2, 4)
    other = target.clone()
    other[:, 0] += 5.0
    gap = 5.0 * target[:, 0].numel()

    def later(labels: Tensor) -> Tensor:
        """Loss of the second step alone, which depends on the first label only if the decoder saw it."""
        network.steps.zero_()
        return (
            network.loss(x, pair, known, labels)[0] - (network(x, pair)[:, 0] - labels[:, 0]).abs().sum()
        ).detach()

    network.train()
    assert abs(later(target) - later(other)) > 1e-3
    unknown = target.clone()
    unknown[:, 0] = torch.nan
    network.steps.zero_()
    assert network.loss(x, pair, known, unknown)[1] == target[:, 1].numel()
    shown = (
        network.loss(x, pair, known, unknown)[0] - (network(x, pair)[:, 1] - target[:, 1]).abs().sum()
    ).abs()
    assert shown < 1e-4  # its own forecast in place of what isn't known
    network.eval()
    assert abs(later(target) - later(other)) < 1e-4 * gap


def test_scheduled_sampling_depends_on_the_seed_and_on_the_training_step_alone() -> None:
    def losses(seed: int, resume: bool) -> list[float]:
        torch.manual_seed(seed)
        network = make("AdapGLD", horizon=6).train()
        torch.manual_seed(9)
        x, target = torch.randn(2, 5, 4, 3), torch.randn(2, 6, 4)
        network.steps.fill_(15_000)  # type: ignore[operator, union-attr]
        out = []
        for _ in range(6):
            if resume:
                torch.manual_seed(len(out))
                again = make("AdapGLD", horizon=6).train()
                again.load_state_dict(network.state_dict())
                network = again
            out.append(float(network.loss(x, pair_of(4), known_at(torch.zeros(2)), target)[0].detach()))
            network.stepped()
        return out

    assert losses(1, resume=False) == losses(1, resume=True)
    assert len(set(losses(1, resume=False))) > 1


def test_while_only_the_graph_learns_sampling_goes_on_and_its_decay_stands_still() -> None:
    network = make("AdapGLD", horizon=6).train()
    assert isinstance(network, AdapGLD)
    x, target, known = torch.randn(2, 5, 4, 3), torch.randn(2, 6, 4), known_at(torch.zeros(2))
    network.steps.fill_(15_000)

    def losses() -> list[float]:
        return [float(network.loss(x, pair_of(4), known, target)[0].detach()) for _ in range(6)]

    assert len(set(losses())) == 1  # passes of one batch
    network.requires_grad_(False)
    first = losses()
    assert len(set(first)) > 1 and network.steps == 15_000
    network.requires_grad_(True).stepped()
    assert (network.steps, network.passes) == (15_001, 0)


# ---------------------------------------------------------------------------------------------- convolutional
def test_the_symmetric_adjacency_of_a_chain_is_known_on_paper() -> None:
    chain = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    half, root = 0.5, 1 / math.sqrt(6)
    looped = torch.tensor([[half, root, 0.0], [root, 1 / 3, root], [0.0, root, half]])
    torch.testing.assert_close(symmetric_adjacency(Graphs(chain, chain), self_loops=True), looped)
    bare = symmetric_adjacency(Graphs(chain, chain), self_loops=False)
    torch.testing.assert_close(
        bare, torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]) / math.sqrt(2)
    )
    assert not symmetric_adjacency(Graphs(torch.zeros(2, 2), torch.zeros(2, 2)), self_loops=False).any()


def test_a_gcn_layer_equals_its_formula() -> None:
    network = GCN(Shape(3, 2, 4, 2), channels=5, layers=1)
    pair, x = pair_of(3), torch.randn(1, 4, 3, 2)
    flat = x[0].transpose(0, 1).reshape(3, 8)
    layer = network.maps[0]
    hidden = torch.relu(symmetric_adjacency(pair, self_loops=True) @ (flat @ layer.weight.T + layer.bias))  # type: ignore[operator, union-attr]
    torch.testing.assert_close(network(x, pair)[0], (hidden @ network.head.weight.T + network.head.bias).T)


def test_spatial_attention_equals_its_formula() -> None:
    layer, x = SpatialAttention(services=3, window=4, features=2), torch.randn(2, 4, 3, 2)
    with torch.no_grad():
        layer.bias.normal_()
    for found, one in zip(layer(x), x, strict=True):
        left = torch.einsum("tnf,t->nf", one, layer.over_window) @ layer.features_to_window
        right = torch.einsum("tnf,f->tn", one, layer.over_features)
        torch.testing.assert_close(
            found, torch.softmax(layer.value @ torch.sigmoid(left @ right + layer.bias), dim=1)
        )


@pytest.mark.parametrize("features", [2, 9])  # services mixed before the linear map, and after it
def test_chebyshev_convolution_with_attention_equals_its_formula(features: int) -> None:
    layer, terms = ChebyshevAttention(features=features, channels=5, order=3), torch.randn(3, 4, 4)
    attention, x = torch.softmax(torch.randn(2, 4, 4), dim=2), torch.randn(2, 3, 4, features)
    expected = torch.relu(torch.einsum("kij,bij,btjf,kfc->btic", terms, attention, x, layer.weight))
    torch.testing.assert_close(layer(x, terms, attention), expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- STID
def test_times_of_day_that_training_saw_too_seldom_share_one_embedding() -> None:
    """Six days of hours; training sees the first half of each of the first four."""
    rows = torch.arange(6 * 24)
    clock = (rows % 24) / 24
    windows = Windows(
        torch.zeros(len(rows), 4, 3), torch.zeros(len(rows), 4), window=5, horizon=2, dilation=1, clock=clock
    )
    network, x = make("STID").eval(), torch.ones(3, 5, 4, 3)
    network.prepare(windows, rows[(rows < 4 * 24) & (rows % 24 < 12)], rows[-20:])
    assert network.covered.tolist() == [1.0] * 12 + [0.0] * 12
    morning, evening, night = network(x, pair_of(4), known_at(torch.tensor([6, 18, 22]) / 24))
    assert torch.equal(evening, night) and not torch.equal(morning, evening)
    network.prepare(windows, rows[rows < 2 * 24], rows[-20:])
    assert not network.covered.any()  # two days show no habit


def test_stid_knows_service_and_time_of_day() -> None:
    network, x = make("STID").eval(), torch.ones(2, 5, 4, 3)
    out = network(x, pair_of(4), known_at(torch.tensor([0.0, 0.999])))
    assert (out[0] - out[1]).abs().max() > 1e-4
    assert (out[0, :, 0] - out[0, :, 1]).abs().max() > 1e-4
    torch.testing.assert_close(network(x, pair_of(4)), network(x, pair_of(4), known_at(torch.zeros(2))))
    torch.testing.assert_close(out[1], network(x, pair_of(4), known_at(torch.ones(2)))[1])


# -------------------------------------------------------------------------------------------------- yardstick
@pytest.mark.parametrize("name", ["AdapGLA", "AdapGLT"])
@pytest.mark.parametrize("order", [1, 3])
def test_the_yardstick_gives_the_networks_outputs_and_the_same_gradient_of_the_graph(
    name: str, order: int
) -> None:
    shape = Shape(10, 4, 12, 3)
    network = build_network(
        name, shape, {**SMALL[name], "graph_channels": 32, "time_channels": 24, "order": order}
    )
    plain = yardstick(network, shape.window)
    assert plain is not None and parameter_count(plain) == parameter_count(network)
    x, found = torch.randn(4, 12, 10, 4), []
    for one in (network, plain):
        graph = pair_of(10).down.requires_grad_(True)
        out = one(x, Graphs(graph, graph))
        out.square().mean().backward()
        found.append((out.detach(), torch.zeros(()) if graph.grad is None else graph.grad))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-5)


def test_there_is_a_yardstick_for_the_published_networks_only() -> None:
    assert [name for name in TRAINED if yardstick(make(name), 5) is not None] == ["AdapGLA", "AdapGLT"]
