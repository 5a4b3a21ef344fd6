"""Epochs: what is minimised, by which optimisers, at which rate; on one rank or many, in float32 or bf16."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from model import parallel
from model.graph_learners import GraphLearner
from model.layers import Graphs
from model.network import Network
from model.settings import Precision, TrainSettings
from model.windows import Windows, absolute_error, batches

CELLS = 200_000
"""Windows x steps x services of one pass forward and back: what is kept for the way back grows with it."""
RANK_STRIDE = 1 << 48
"""Between the seeds of dropout on different ranks: beyond all seeds of epochs."""


class TrainingError(ArithmeticError):
    """A loss that isn't a number: nothing known to learn from, or training ran away."""


class Patience:
    """Counts epochs without progress.

    `best` compares with the best epoch so far. `previous` compares with the epoch before, as published: on a
    plateau with noise every other epoch counts as progress, and it never stops.
    """

    def __init__(self, epochs: int, compare: Literal["best", "previous"]) -> None:
        self.epochs, self.compare = epochs, compare
        self.reference, self.waited = math.inf, 0

    def exhausted(self, loss: float) -> bool:
        """Record the loss of an epoch; True when it is time to stop."""
        self.waited = 0 if loss < self.reference else self.waited + 1
        self.reference = min(loss, self.reference) if self.compare == "best" else loss
        return self.waited >= self.epochs


class Objective(nn.Module):
    """The loss of a batch as a forward pass, which is where DistributedDataParallel hooks in.

    Args:
        network: θ.
        learner: φ; it is a part of this module, and so is trained, only where `learns`.
        current: the affinity `[N, N]`, which stays fixed, or from which the learner starts.
        learns: the learner makes the affinity.
    """

    def __init__(self, network: Network, learner: GraphLearner, current: Tensor, *, learns: bool) -> None:
        super().__init__()
        self.network = network
        self.learner = learner if learns else None
        self._shown = learner.graphs
        self._current = current

    def affinity(self) -> Tensor:
        """The affinity at this moment, `[N, N]`."""
        made: Tensor = self._current if self.learner is None else self.learner(self._current)
        return made

    def forward(self, windows: Windows, ends: Tensor) -> tuple[Tensor, int, Tensor | None]:
        """Summed loss over the known labels, their number, and the graph's penalty.

        The windows end at rows `ends [B]`.
        """
        affinity = self.affinity()
        graphs = self._shown(affinity)
        summed, known = self.network.loss(
            windows.inputs(ends), graphs, windows.known(ends), windows.targets(ends)
        )
        return summed, known, None if self.learner is None else self.learner.penalty(affinity, self._current)


@dataclass(frozen=True, eq=False)
class Phase:
    """A step of training.

    Attributes:
        name: `predictor`, `graph`, `joint` or `plain`.
        objective: what is minimised.
        trained: what the step changes.
        optimisers: each with the learning rate that the schedule scales.
    """

    name: str
    objective: Objective
    trained: nn.Module
    optimisers: Sequence[tuple[torch.optim.Optimizer, float]]


def run_epoch(
    phase: Phase,
    step: nn.Module,
    windows: Windows,
    ends: Tensor,
    *,
    seed: int,
    factors: Sequence[float],
    settings: TrainSettings,
) -> float:
    """One pass over `ends`, shuffled by `seed`; mean training loss over the known labels of all ranks.

    A batch is split over the ranks; each divides its summed loss by the known labels of the whole batch, so
    that the average of the ranks' gradients is the gradient that one process has. A batch of large windows
    takes several passes, whose gradients add up to the same.

    Args:
        phase: what is minimised.
        step: the phase's objective as `parallel.wrap` returned it.
        windows: series and labels.
        ends: rows that windows end at, `[M]`, the same on all ranks.
        seed: of the order and of dropout.
        factors: factors of the learning rates, one per batch.
        settings: of the run.

    Raises:
        TrainingError: no label is known, or the loss isn't finite.
    """
    loss, count = 0.0, 0
    phase.objective.network.train()
    with seeded(seed + RANK_STRIDE * parallel.rank(), ends.device):
        for part, factor in zip(batches(ends, settings.batch_size, seed), factors, strict=True):
            for optimiser, rate in phase.optimisers:
                optimiser.param_groups[0]["lr"] = rate * factor
                optimiser.zero_grad(set_to_none=True)
            known = int(torch.isfinite(windows.targets(part)).sum())
            loss, count = loss + _backward(step, windows, part, known, settings), count + known
            if settings.optimiser.gradient_clip is not None:
                nn.utils.clip_grad_norm_(phase.trained.parameters(), settings.optimiser.gradient_clip)
            for optimiser, _ in phase.optimisers:
                optimiser.step()
            if phase.name != "graph":
                phase.objective.network.stepped()
    if not count:
        raise TrainingError("no label is known in any training window")
    mean = parallel.total(loss, device=ends.device)[0] / count
    if not math.isfinite(mean):
        raise TrainingError(
            f"the training loss of the {phase.name} became {mean}: "
            "lower the learning rate, or look at the data"
        )
    return mean


def _backward(step: nn.Module, windows: Windows, part: Tensor, known: int, settings: TrainSettings) -> float:
    """Add up the gradients of a batch with `known` labels; returns this rank's summed loss.

    It takes as many passes as memory asks for.
    """
    mine = parallel.share(part)
    weight = float(
        len(mine) > 0
    )  # a rank without a window of its own still takes part, with none of the weight
    mine = mine if len(mine) else part[:1]
    passes = math.ceil(len(mine) * windows.window * windows.series.shape[1] / CELLS)
    loss = 0.0
    chunks = mine.tensor_split(min(passes, len(mine)))
    for index, chunk in enumerate(chunks):
        last = index == len(chunks) - 1
        with parallel.gradients(step, exchange=last):
            with autocast(mine.device, settings.precision):
                summed, _, penalty = step(windows, chunk)
            summed = summed.float() * weight
            objective = summed * parallel.ranks() / max(known, 1)
            if penalty is not None and last:
                objective = objective + settings.graph.sparsity_weight * penalty
            objective.backward()
        loss += float(summed.detach())
    return loss


@torch.no_grad()
def mean_loss(
    network: Network,
    graphs: Graphs,
    windows: Windows,
    ends: Tensor,
    batch_size: int,
    precision: Precision = "float32",
) -> float:
    """Mean |error| over all known labels of `ends`; NaN without any.

    It is a mean over labels, whatever the batch size.

    Under torchrun all ranks call it with the same `ends`; each takes its share, all get the mean over all.
    """
    was_training = network.training
    network.eval()
    summed, count = torch.zeros((), dtype=torch.float64), 0
    for part in batches(parallel.share(ends), batch_size):
        with autocast(ends.device, precision):
            error, known = absolute_error(
                network(windows.inputs(part), graphs, windows.known(part)), windows.targets(part)
            )
        summed, count = summed + error.double().cpu(), count + known
    network.train(was_training)
    loss, known_labels = parallel.total(summed, count, device=ends.device)
    return loss / known_labels if known_labels else math.nan


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Matrix products in `precision`; parameters, optimiser and what is exported stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's global generators start from `seed`; outside they never notice.

    Dropout and scheduled sampling draw from them.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
