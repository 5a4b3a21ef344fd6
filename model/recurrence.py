"""A GRU over all steps of a window as one differentiable operation.

Its recurrent maps may have graph terms.

Autograd over a GRU that is stepped in Python records a dozen operations per step and adds up each weight's
gradient by as many separate tensors. Here a step's intermediate values live in three buffers, and the way
back is written by hand.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Weights(NamedTuple):
    """Weights of a GRU's linear maps.

    Attributes:
        inputs: W, `[F, 3C]`: reset gate, update gate, candidate.
        bias: `[3C]`.
        gates: G, `[K, C, 2C]`.
        candidate: D, `[K, C, C]`.
    """

    inputs: Tensor
    bias: Tensor
    gates: Tensor
    candidate: Tensor


def unroll(x: Tensor, start: Tensor, weights: Weights, terms: Tensor) -> Tensor:
    """States of the GRU after each step, `[T, M, C]`.

    With P_0 = I and [a ‖ b] = x W + bias: r, u = sigmoid(a + Σ_k P_k h G_k), c = tanh(b + Σ_k P_k (r h) D_k),
    h' = u h + (1 - u) c.

    Args:
        x: inputs, `[T, M, F]`.
        start: `[M, C]`; rows are services x samples, the samples of a service side by side.
        weights: of the maps.
        terms: P_1..P_{K-1}, `[K-1, N, N]`, row = receiver.

    Source: Cho et al. 2014 (GRU); with terms, Li et al. 2018 (DCRNN), equation 3.
    """
    if torch.is_autocast_enabled(x.device.type):
        low = torch.get_autocast_dtype(x.device.type)
        x, start, terms, weights = (
            x.to(low),
            start.to(low),
            terms.to(low),
            Weights(*(value.to(low) for value in weights)),
        )
    states: Tensor = _Unrolled.apply(x, start, *weights, terms)  # type: ignore[no-untyped-call]
    return states


def propagate(terms: Tensor, x: Tensor) -> Tensor:
    """P_1 x .. P_{K-1} x, `[K-1, M, C]`; x `[M, C]`, M = N x samples."""
    count, services, _ = terms.shape
    return (terms.flatten(0, 1) @ x.reshape(services, -1)).view(count, *x.shape)


def _add_maps(out: Tensor, x: Tensor, weight: Tensor, terms: Tensor) -> Tensor:
    """`out` += Σ_k P_k x W_k."""
    out.addmm_(x, weight[0])
    if len(terms):
        for sent, one in zip(propagate(terms, x), weight[1:], strict=True):
            out.addmm_(sent, one)
    return out


class _Gradients:
    """What `_add_maps` gives back, summed over the steps."""

    def __init__(self, weight: Tensor, terms: Tensor, terms_too: bool) -> None:
        self.weight, self.terms = torch.zeros_like(weight), torch.zeros_like(terms)
        self._turned = weight.transpose(1, 2).contiguous()
        self._given, self._terms_too = terms, terms_too

    def back(self, grad: Tensor, x: Tensor) -> Tensor:
        """Gradient of x; those of weight and terms are added up."""
        self.weight[0].addmm_(x.T, grad)
        out = grad @ self._turned[0]
        if len(self._given):
            for total, sent in zip(self.weight[1:], propagate(self._given, x), strict=True):
                total.addmm_(sent.T, grad)
            services = self._given.shape[1]
            sent = torch.stack([grad @ one for one in self._turned[1:]]).view(
                -1, x.numel() // services
            )  # [(K-1) N, M/N C]
            out.view(services, -1).addmm_(self._given.flatten(0, 1).T, sent)
            if self._terms_too:
                self.terms.flatten(0, 1).addmm_(sent, x.reshape(services, -1).T)
        return out


class _Unrolled(torch.autograd.Function):
    """The forward and backward pass of `unroll`.

    Inputs, too, are mapped step by step: what a step makes stays in the processor's cache until it is used.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        start: Tensor,
        inputs: Tensor,
        bias: Tensor,
        gates: Tensor,
        candidate: Tensor,
        terms: Tensor,
    ) -> Tensor:
        window, rows, channels = len(x), *start.shape
        opened = x.new_empty(window, rows, 2 * channels)  # [r ‖ u]
        proposed, states = x.new_empty(window, rows, channels), x.new_empty(window, rows, channels)
        state, scratch, mapped = start, torch.empty_like(start), x.new_empty(rows, 3 * channels)
        for step in range(window):
            torch.addmm(bias, x[step], inputs, out=mapped)
            both = torch.sigmoid(_add_maps(mapped[:, : 2 * channels], state, gates, terms), out=opened[step])
            torch.mul(both[:, :channels], state, out=scratch)
            proposal = torch.tanh(
                _add_maps(mapped[:, 2 * channels :], scratch, candidate, terms), out=proposed[step]
            )
            state = torch.lerp(proposal, state, both[:, channels:], out=states[step])
        ctx.save_for_backward(x, start, inputs, gates, candidate, terms, opened, proposed, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, start, inputs, gates, candidate, terms, opened, proposed, states = ctx.saved_tensors
        channels, rows = start.shape[1], len(start)
        to_gates, to_candidate = (
            _Gradients(weight, terms, ctx.needs_input_grad[6]) for weight in (gates, candidate)
        )
        to_inputs, turned = torch.zeros_like(inputs), inputs.T.contiguous()
        given, to_bias = (
            torch.empty_like(x) if ctx.needs_input_grad[0] else None,
            inputs.new_zeros(3 * channels),
        )
        sigmoid_back, tanh_back = (
            torch.ops.aten.sigmoid_backward.grad_input,
            torch.ops.aten.tanh_backward.grad_input,
        )
        flowing, mapped = torch.zeros_like(start), x.new_empty(rows, 3 * channels)
        of_reset, of_update, of_candidate = mapped.split(channels, dim=1)
        for step in range(len(x) - 1, -1, -1):
            state, proposal = states[step - 1] if step else start, proposed[step]
            reset, update = opened[step].chunk(2, dim=1)
            flowing += grad[step]
            kept = flowing * update
            tanh_back(flowing - kept, proposal, grad_input=of_candidate)
            asked = to_candidate.back(of_candidate, reset * state)
            sigmoid_back(asked * state, reset, grad_input=of_reset)
            sigmoid_back((state - proposal).mul_(flowing), update, grad_input=of_update)
            flowing = kept.addcmul_(asked, reset).add_(to_gates.back(mapped[:, : 2 * channels], state))
            to_inputs.addmm_(x[step].T, mapped)
            to_bias += mapped.sum(dim=0)
            if given is not None:
                torch.mm(mapped, turned, out=given[step])
        shared = to_gates.terms + to_candidate.terms if ctx.needs_input_grad[6] else None
        return given, flowing, to_inputs, to_bias, to_gates.weight, to_candidate.weight, shared
