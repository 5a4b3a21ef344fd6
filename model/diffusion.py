"""Networks whose recurrent cells diffuse over the graph: AdapGLD on the learned graph, DCRNN on the prior."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from model.layers import Graphs
from model.network import Network, Shape
from model.recurrence import Weights, propagate, unroll
from model.windows import Known, absolute_error

SAMPLING_STEPS = 2000
"""τ of the inverse-sigmoid decay, training steps."""


def diffusion_terms(graphs: Graphs, diffusion: int) -> Tensor:
    """Powers 1..`diffusion` of both directions' transitions, `[2 * diffusion, N, N]`, row = receiver.

    Source: DCRNN, Li et al. 2018, equation 2.
    Differs: a row is divided by its sum only where that exceeds 1: zero rows stay zero, and an affinity that
    is weak everywhere isn't spread as if it were certain.
    """
    powers = []
    for graph in (graphs.up, graphs.down.T):
        transition = graph / graph.sum(dim=1, keepdim=True).clamp(min=1)
        power = transition
        for _ in range(diffusion):
            powers.append(power)
            power = transition @ power
    return torch.stack(powers) if powers else graphs.up.new_zeros(0, *graphs.up.shape)


class DiffusionGRU(nn.Module):
    """A GRU shared by services whose linear maps are diffusion convolutions of [x, h], one bias each.

    Source: DCRNN, Li et al. 2018, section 2.3.
    Differs: x is diffused for all steps at once, before the recurrence.
    """

    def __init__(self, *, inputs: int, channels: int, terms: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / ((terms + 1) * (inputs + channels) + channels))
        self.inputs = nn.Parameter(torch.empty(terms + 1, inputs, 3 * channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(
            torch.cat((torch.ones(2 * channels), torch.zeros(channels)))
        )  # gates open at first
        self.gates = nn.Parameter(torch.empty(terms + 1, channels, 2 * channels).uniform_(-bound, bound))
        self.candidate = nn.Parameter(torch.empty(terms + 1, channels, channels).uniform_(-bound, bound))

    def diffused(self, x: Tensor, terms: Tensor) -> Tensor:
        """[x ‖ P_1 x ‖ ..] `[T, N * B, K F]` from x `[T, N, B, F]`."""
        window, services, samples, features = x.shape
        flat = x.transpose(0, 1).reshape(
            services * window * samples, features
        )  # propagated with the steps as more samples
        sent = torch.cat((flat[None], propagate(terms, flat))).view(-1, services, window, samples, features)
        return sent.permute(2, 1, 3, 0, 4).reshape(window, services * samples, -1)

    def forward(self, x: Tensor, terms: Tensor, start: Tensor | None = None) -> Tensor:
        """States `[T, N, B, C]` from x `[T, N, B, F]`, start `[N, B, C]`."""
        seen = self.diffused(x, terms)  # [T, N * B, K F]
        first = (
            seen.new_zeros(seen.shape[1], self.candidate.shape[-1]) if start is None else start.flatten(0, 1)
        )
        weights = Weights(self.inputs.flatten(0, 1), self.bias, self.gates, self.candidate)
        return unroll(seen, first, weights, terms).view(*x.shape[:3], -1)


class AdapGLD(Network):
    """Encoder and decoder of diffusion GRUs, with an output layer for each horizon step.

    The decoder is fed labels, true ones or its own forecasts.

    In training the decoder sees the true label of the step before with probability τ / (τ + exp(i / τ)) at
    training step i, else its own forecast. Elsewhere it always sees its own. The draws depend on the seed and
    on i alone, so that a resumed training goes on with the same ones. Where only the graph learns, i stands
    still, and each pass has draws of its own.
    Source: DeepScaler (Meng et al., ASE 2023), the DCRNN-based model; DCRNN, Li et al. 2018, sections 2.3 and
    2.4.
    Differs: an output layer of its own for each horizon step.
    """

    def __init__(self, shape: Shape, *, channels: int, diffusion: int, layers: int) -> None:
        super().__init__()
        self.diffusion = diffusion
        self.encoder, self.decoder = (
            nn.ModuleList(
                DiffusionGRU(inputs=first if layer == 0 else channels, channels=channels, terms=2 * diffusion)
                for layer in range(layers)
            )
            for first in (shape.features, 1)
        )
        self.outputs = nn.ModuleList(nn.Linear(channels, 1) for _ in range(shape.horizon))
        self.seed: Tensor
        self.steps: Tensor
        self.register_buffer("seed", torch.randint(2**31, ()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.passes = 0
        """Since the last training step, of those in which only the graph learns."""

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`."""
        return self._decode(x, graphs, None)

    def loss(self, x: Tensor, graphs: Graphs, known: Known, target: Tensor) -> tuple[Tensor, int]:
        """See `Network.loss`; in training the decoder is shown labels of `target`."""
        if not self.training:
            return absolute_error(self(x, graphs, known), target)
        with torch.no_grad():
            shown = torch.where(self._coins(target.shape[1])[:, None].to(target.device), target, torch.nan)
        return absolute_error(self._decode(x, graphs, shown), target)

    def stepped(self) -> None:
        """See `Network.stepped`."""
        self.steps += 1
        self.passes = 0

    def truth_probability(self) -> float:
        """Chance that the decoder is shown a true label at this training step."""
        grown = math.exp(min(int(self.steps) / SAMPLING_STEPS, 700.0))  # exp overflows beyond
        return SAMPLING_STEPS / (SAMPLING_STEPS + grown)

    def _coins(self, horizon: int) -> Tensor:
        """One per decoding step, shared by the batch, `[H]`; true: show the label."""
        self.passes += not self.outputs[0].weight.requires_grad
        generator = torch.Generator().manual_seed(int(self.seed) + int(self.steps) + self.passes)
        return torch.rand(horizon, generator=generator) < self.truth_probability()

    def _decode(self, x: Tensor, graphs: Graphs, shown: Tensor | None) -> Tensor:
        """Forecasts `[B, H, N]`.

        `shown [B, H, N]` are labels that the decoder sees after it has forecast them; where they are NaN it
        sees its own forecast.
        """
        terms = diffusion_terms(graphs, self.diffusion)
        sequence = x.permute(1, 2, 0, 3)  # [T, N, B, F]
        states = []
        for cell in self.encoder:
            sequence = cell(sequence, terms)  # [T, N, B, C]
            states.append(sequence[-1])
        fed = x.new_zeros(1, x.shape[2], x.shape[0], 1)  # [1, N, B, 1]
        made: list[Tensor] = []
        for step, output in enumerate(self.outputs):
            carried = fed
            for layer, cell in enumerate(self.decoder):
                carried = cell(carried, terms, states[layer])  # [1, N, B, C]
                states[layer] = carried[0]
            fed = output(carried)  # [1, N, B, 1]
            made.append(fed[0, :, :, 0].T)  # [B, N]
            if shown is not None:
                label = shown[:, step].T[None, :, :, None]
                fed = torch.where(torch.isnan(label), fed, torch.nan_to_num(label))
        return torch.stack(made, dim=1)


class DCRNN(AdapGLD):
    """The same network on the given graph, which isn't learned.

    Source: DCRNN, Li et al. 2018.
    """

    graph_use: ClassVar = "static"
