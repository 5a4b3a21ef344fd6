"""Layers and networks: counts and closed forms."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from helpers.model_samples import learner_settings, permuted_copy
from helpers.paths import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from model.adapgla import AdapGLA
from model.graph_learners import build_learner
from model.layers import (
    DirectedGraphConvolution,
    Graphs,
    TemporalAttention,
    TemporalConvolution,
    chebyshev_terms,
    polynomials,
)
from model.network import Shape
from model.networks import build_network, parameter_count

PUBLISHED = {
    "graph_channels": 128,
    "time_channels": 128,
    "order": 3,
    "kernel": 5,
    "blocks": 2,
    "attention": True,
}
SMALL = {"graph_channels": 8, "time_channels": 6, "order": 3, "kernel": 3, "blocks": 2, "attention": True}


def graphs(size: int) -> Graphs:
    return Graphs(torch.rand(size, size) * 0.3, torch.rand(size, size) * 0.3)


def test_the_published_sizes_have_the_published_numbers_of_parameters() -> None:
    assert parameter_count(build_network("AdapGLA", Shape(10, 4, 80, 1), PUBLISHED)) == 269_761
    learner = build_learner("antisymmetric", 10, {}, learner_settings(embedding_size=64))
    assert parameter_count(learner) == 1_293


def test_chebyshev_terms_follow_their_recurrence() -> None:
    a = np.random.default_rng(1).normal(size=(4, 4))
    terms = chebyshev_terms(torch.tensor(a), 4).numpy()
    np.testing.assert_allclose(terms[0], a)
    np.testing.assert_allclose(terms[1], 2 * a @ a - np.eye(4))
    np.testing.assert_allclose(terms[2], 4 * a @ a @ a - 3 * a)


@pytest.mark.parametrize("features", [2, 12])  # propagated before the linear map, and after it
def test_graph_convolution_equals_its_formula(features: int) -> None:
    layer = DirectedGraphConvolution(features=features, channels=8, order=3)
    pair = graphs(5)
    x = torch.randn(2, 3, 5, features)
    found = layer(x, polynomials(pair, 3)).detach().numpy()
    own, up, down = (part.detach().numpy() for part in (layer.own, layer.up, layer.down))
    expected = x.numpy() @ own
    for direction, operator, columns in (
        (up, pair.up.numpy(), slice(0, 4)),
        (down, pair.down.numpy().T, slice(4, 8)),
    ):
        for term, weight in zip((operator, 2 * operator @ operator - np.eye(5)), direction, strict=True):
            expected[..., columns] += np.einsum("ij,btjf->btif", term, x.numpy()) @ weight
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-4, atol=1e-5)


def test_a_callee_receives_from_its_caller_through_the_down_graph_only() -> None:
    layer = DirectedGraphConvolution(features=2, channels=4, order=2)
    edge = torch.zeros(2, 2)
    edge[0, 1] = 1.0  # 0 calls 1
    x = torch.randn(1, 1, 2, 2)
    moved = x.clone()
    moved[0, 0, 0] += 1.0
    none = torch.zeros(2, 2)
    with torch.no_grad():
        down = (
            layer(moved, polynomials(Graphs(none, edge), 2)) - layer(x, polynomials(Graphs(none, edge), 2))
        )[0, 0, 1]
        up = (
            layer(moved, polynomials(Graphs(edge, none), 2)) - layer(x, polynomials(Graphs(edge, none), 2))
        )[0, 0, 1]
    assert down[2:].abs().sum() > 0 and down[:2].abs().sum() == 0
    assert up.abs().sum() == 0


def test_temporal_attention_equals_its_formula() -> None:
    layer = TemporalAttention(services=3, window=4, features=2)
    with torch.no_grad():
        layer.bias.normal_()
    x = torch.randn(2, 4, 3, 2)
    w1, w2, w3, b, v = (
        p.detach().numpy()
        for p in (
            layer.over_services,
            layer.features_to_services,
            layer.over_features,
            layer.bias,
            layer.value,
        )
    )
    for index, one in enumerate(x.numpy()):
        left = np.einsum("tnf,n->tf", one, w1) @ w2
        right = np.einsum("tnf,f->nt", one, w3)
        scores = v @ (1 / (1 + np.exp(-(left @ right + b))))
        weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(layer.weights(x)[index].detach().numpy(), weights, rtol=1e-4)
        np.testing.assert_allclose(
            layer(x)[index].detach().numpy(), np.einsum("ts,snf->tnf", weights, one), rtol=1e-4, atol=1e-5
        )


def test_temporal_convolution_equals_its_formula_and_keeps_services_apart() -> None:
    layer = TemporalConvolution(inputs=2, channels=3, kernel=3)
    x = torch.randn(1, 5, 2, 2)
    weight, bias = layer.convolution.weight.detach().numpy()[..., 0], layer.convolution.bias.detach().numpy()
    padded = np.pad(x.numpy(), ((0, 0), (1, 1), (0, 0), (0, 0)))
    expected = sum(padded[:, k : k + 5] @ weight[:, :, k].T for k in range(3)) + bias
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(4)))
def test_permuting_services_graphs_and_their_parameters_permutes_the_output(order: list[int]) -> None:
    network = AdapGLA(Shape(4, 3, 5, 2), **SMALL)
    index = torch.tensor(order)
    pair, x = graphs(4), torch.randn(2, 5, 4, 3)
    moved = Graphs(*(graph[index][:, index] for graph in pair))
    torch.testing.assert_close(
        permuted_copy(network, index)(x[:, :, index], moved),
        network(x, pair)[:, :, index],
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize(("batch", "services", "features"), [(1, 1, 1), (1, 3, 1), (2, 1, 4)])
def test_the_smallest_sizes_stay_finite_forwards_and_backwards(
    batch: int, services: int, features: int
) -> None:
    network = AdapGLA(Shape(services, features, 4, 1), **SMALL)
    x = torch.zeros(batch, 4, services, features)  # constant features are 0 after z-scores
    out = network(x, Graphs(torch.zeros(services, services), torch.zeros(services, services)))
    out.sum().backward()
    assert out.shape == (batch, 1, services)
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["gates", "antisymmetric"])
def test_learners_stay_finite_for_isolated_services_and_for_one_service(name: str) -> None:
    for size in (1, 4):
        prior = torch.zeros(size, size)
        if size > 1:
            prior[0, 1] = 1.0  # 2 and 3 are isolated
        learner = build_learner(name, size, {"call": prior}, learner_settings(threshold=0.5))
        affinity = learner(learner.initial())
        (affinity.sum() + learner.penalty(affinity, learner.initial())).backward()
        assert torch.isfinite(affinity).all()
        assert all(torch.isfinite(p.grad).all() for p in learner.parameters() if p.grad is not None)


def test_odd_channels_and_even_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="graph_channels: 7 is odd"):
        AdapGLA(Shape(2, 1, 4, 1), **{**SMALL, "graph_channels": 7})
    with pytest.raises(ValueError, match="kernel: 4 is even"):
        AdapGLA(Shape(2, 1, 4, 1), **{**SMALL, "kernel": 4})
    with pytest.raises(ValueError, match="allowed: AdapGLA"):
        build_network("Other", Shape(2, 1, 4, 1), SMALL)


def test_networks_know_nothing_of_the_rest_of_the_project() -> None:
    for path in (ROOT / "model").glob("*.py"):
        assert not re.search(r"^\s*(from|import) (deepscaler|testbed)", path.read_text(), re.MULTILINE), path
