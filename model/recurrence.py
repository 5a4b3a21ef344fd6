"""A GRU over all steps of a window as one differentiable operation, with graph terms in its recurrent maps or without.

Autograd over a GRU that is stepped in Python records a dozen operations a step and adds up each weight's gradient by as many
separate tensors. Here a step's intermediate values live in three buffers, and the way back is written by hand.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def unroll(inputs: Tensor, start: Tensor, gates: Tensor, candidate: Tensor, terms: Tensor) -> Tensor:
    """States of the GRU after each step, `[T, M, C]`.

    r, u = sigmoid(a + Σ_k P_k h G_k), c = tanh(b + Σ_k P_k (r h) D_k), h' = u h + (1 - u) c, with P_0 = I.

    Args:
        inputs: `[T, M, 3C]`: [a ‖ b], what the inputs give to both gates and to the candidate, biases included.
        start: `[M, C]`; rows are services x samples, the samples of a service side by side.
        gates: G, `[K, C, 2C]`.
        candidate: D, `[K, C, C]`.
        terms: P_1..P_{K-1}, `[K-1, N, N]`, row = receiver.

    Source: Cho et al. 2014 (GRU); with terms, Li et al. 2018 (DCRNN), equation 3.
    """
    states: Tensor = _Unrolled.apply(inputs, start, gates, candidate, terms)  # type: ignore[no-untyped-call]
    return states


def propagate(terms: Tensor, x: Tensor) -> Tensor:
    """P_1 x .. P_{K-1} x, `[K-1, M, C]`; x `[M, C]`, M = N x samples."""
    count, services, _ = terms.shape
    return (terms.flatten(0, 1) @ x.reshape(services, -1)).view(count, *x.shape)


def _add_maps(base: Tensor, x: Tensor, weight: Tensor, terms: Tensor, out: Tensor) -> Tensor:
    """`out` = base + Σ_k P_k x W_k."""
    torch.addmm(base, x, weight[0], out=out)
    if len(terms):
        for sent, one in zip(propagate(terms, x), weight[1:], strict=True):
            out.addmm_(sent, one)
    return out


class _Gradients:
    """What `_add_maps` gives back, summed over the steps."""

    def __init__(self, weight: Tensor, terms: Tensor, terms_too: bool) -> None:
        self.weight, self.terms = torch.zeros_like(weight), torch.zeros_like(terms)
        self._given, self._terms, self._terms_too = weight, terms, terms_too

    def back(self, grad: Tensor, x: Tensor) -> Tensor:
        """Gradient of x; those of weight and terms are added up."""
        self.weight[0].addmm_(x.T, grad)
        out = grad @ self._given[0].T
        if len(self._terms):
            for total, sent in zip(self.weight[1:], propagate(self._terms, x), strict=True):
                total.addmm_(sent.T, grad)
            services = self._terms.shape[1]
            sent = torch.stack([grad @ one.T for one in self._given[1:]]).view(-1, x.numel() // services)  # [(K-1) N, M/N C]
            out.view(services, -1).addmm_(self._terms.flatten(0, 1).T, sent)
            if self._terms_too:
                self.terms.flatten(0, 1).addmm_(sent, x.reshape(services, -1).T)
        return out


class _Unrolled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, start: Tensor, gates: Tensor, candidate: Tensor, terms: Tensor) -> Tensor:
        window, rows, channels = len(inputs), *start.shape
        opened = inputs.new_empty(window, rows, 2 * channels)  # [r ‖ u]
        proposed, states = inputs.new_empty(window, rows, channels), inputs.new_empty(window, rows, channels)
        state, scratch = start, torch.empty_like(start)
        for step in range(window):
            given = inputs[step]
            reset, update = _add_maps(given[:, : 2 * channels], state, gates, terms, opened[step]).sigmoid_().chunk(2, dim=1)
            torch.mul(reset, state, out=scratch)
            proposal = _add_maps(given[:, 2 * channels :], scratch, candidate, terms, proposed[step]).tanh_()
            state = torch.lerp(proposal, state, update, out=states[step])
        ctx.save_for_backward(start, gates, candidate, terms, opened, proposed, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        start, gates, candidate, terms, opened, proposed, states = ctx.saved_tensors
        channels = start.shape[1]
        to_gates, to_candidate = (_Gradients(weight, terms, ctx.needs_input_grad[4]) for weight in (gates, candidate))
        given = grad.new_empty(*grad.shape[:2], 3 * channels)
        sigmoid_back, tanh_back = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
        flowing = torch.zeros_like(start)
        for step in range(len(grad) - 1, -1, -1):
            state, proposal = states[step - 1] if step else start, proposed[step]
            reset, update = opened[step].chunk(2, dim=1)
            flowing = flowing + grad[step]
            before_gates, before_tanh = given[step, :, : 2 * channels], given[step, :, 2 * channels :]
            kept = flowing * update
            before_tanh.copy_(tanh_back(flowing - kept, proposal))
            asked = to_candidate.back(before_tanh, reset * state)
            before_gates[:, :channels] = sigmoid_back(asked * state, reset)
            before_gates[:, channels:] = sigmoid_back(flowing * (state - proposal), update)
            flowing = kept.addcmul_(asked, reset).add_(to_gates.back(before_gates, state))
        shared = to_gates.terms + to_candidate.terms if ctx.needs_input_grad[4] else None
        return given, flowing, to_gates.weight, to_candidate.weight, shared
