"""Training of predictor θ and graph learner φ: in turn (expectation-maximisation) or in one step (end to end)."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model.candidates import Candidates, Weighting
from model.graph_learners import GraphLearner
from model.layers import Graphs
from model.network import Network
from model.windows import Windows, absolute_error, batches

SEED_STRIDE = 1_000_003


@dataclass(frozen=True)
class TrainSettings:
    """Numbers of a run; each is explained beside its namesake in `train_config.yaml`."""

    learn_graph: bool = True
    trainer: Literal["em", "end_to_end"] = "em"
    max_graph_num: int = 3
    graph_learning_rate: float = 1e-2
    sparsity_weight: float = 0.005
    union_temperature: Weighting = "spread"
    union_share: float = 0.8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    gradient_clip: float | None = 5.0
    num_epoch: int = 5
    num_iter: int = 20
    patience: int = 5
    early_stopping: Literal["best", "previous"] = "best"
    seed: int = 1
    batch_size: int = 64


@dataclass(frozen=True)
class Progress:
    """An epoch that ended. Losses are mean |error| in z-units."""

    phase: str
    iteration: int
    epoch: int
    training: float
    validation: float


class Patience:
    """Counts epochs without progress.

    `best` compares with the best so far; `previous` with the epoch before, as published: on a plateau with noise every
    other epoch counts as progress and it never stops.
    """

    def __init__(self, epochs: int, compare: Literal["best", "previous"]) -> None:
        self.epochs, self.compare = epochs, compare
        self.reference, self.waited = math.inf, 0

    def exhausted(self, loss: float) -> bool:
        """Record the loss of an epoch; True when it is time to stop."""
        self.waited = 0 if loss < self.reference else self.waited + 1
        self.reference = min(loss, self.reference) if self.compare == "best" else loss
        return self.waited >= self.epochs


@dataclass
class Best:
    """The pair with the lowest validation loss so far."""

    loss: float = math.inf
    iteration: int = -1
    network: dict[str, Tensor] = field(default_factory=dict)
    affinity: Tensor | None = None


@torch.no_grad()
def mean_loss(network: Network, graphs: Graphs, windows: Windows, ends: Tensor, batch_size: int) -> float:
    """Mean |error| over all known labels of `ends`: a mean over samples, whatever the batch size. NaN without any."""
    was_training = network.training
    network.eval()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for part in batches(ends, batch_size):
        summed, known = absolute_error(network(windows.inputs(part), graphs, windows.known(part)), windows.targets(part))
        total, count = total + summed.double().cpu(), count + known
    network.train(was_training)
    return float(total) / count if count else math.nan


class Trainer:
    """One run. `iterate()` does one iteration; between iterations `state()` holds all that a continued run needs.

    Args:
        network: θ, on fresh or given parameters.
        learner: φ.
        windows: series and labels, on the device of both.
        training, validation: rows that windows end at.
        settings: of the run.
        report: called after each epoch.
        start: the first affinity, by default the learner's.
    """

    def __init__(
        self,
        network: Network,
        learner: GraphLearner,
        windows: Windows,
        *,
        training: Tensor,
        validation: Tensor,
        settings: TrainSettings,
        report: Callable[[Progress], None] = lambda progress: None,
        start: Tensor | None = None,
    ) -> None:
        self.network, self.learner, self.windows, self.settings, self._report = network, learner, windows, settings, report
        self.training, self.validation = training, validation
        network.prepare(windows, training, validation)
        self.optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.graph_optimiser = torch.optim.Adam(learner.parameters(), lr=settings.graph_learning_rate)
        if start is None:
            with torch.no_grad():
                start = learner.initial()
        self.affinity = start.clone()
        self.start = start.clone()
        self.candidates = Candidates(settings.max_graph_num)
        self.best = Best()
        self.iteration = 0
        self.idle_iterations = 0
        self.history: list[dict[str, float]] = []
        self.samples, self.seconds = 0, 0.0

    # -------------------------------------------------------------------------------------------------------- the run
    @property
    def finished(self) -> bool:
        """All iterations done, or, at a constant learning rate, `patience` of them without a better pair.

        A cosine is run to its end: the best pair is usually found where it is low.
        """
        settings = self.settings
        idle = settings.schedule == "constant" and self.idle_iterations >= settings.patience
        return self.iteration >= settings.num_iter or idle

    def iterate(self) -> None:
        """One iteration: M-step and E-step, or as many joint epochs."""
        before = self.best.loss
        if self.settings.trainer == "end_to_end":
            self._joint()
        else:
            self.m_step()
            if self.settings.learn_graph:
                self.e_step()
        self.iteration += 1
        self.idle_iterations = 0 if self.best.loss < before else self.idle_iterations + 1

    def m_step(self) -> None:
        """Fit θ with the affinity fixed, keep the best on validation."""
        graphs = self.learner.graphs(self.affinity)
        self._epochs("predictor", self.network, self.optimiser, lambda: (graphs, None))
        self._offer(self.affinity, self.score(self.affinity))

    def e_step(self) -> None:
        """Fit φ with θ fixed, keep the best on validation; the new graph joins S, and S gives the next affinity."""
        current = self.affinity
        parameters = list(self.network.parameters())
        for parameter in parameters:
            parameter.requires_grad_(False)

        def graphs() -> tuple[Graphs, Tensor | None]:
            affinity = self.learner(current)
            return self.learner.graphs(affinity), self.learner.penalty(affinity, current)

        self._epochs("graph", self.learner, self.graph_optimiser, graphs)
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.no_grad():
            newest = self.learner(current).clone()
        self.candidates.add(newest, self.score)
        in_union = self.iteration + 1 < self.settings.union_share * self.settings.num_iter
        self.affinity = self.candidates.union(self.settings.union_temperature) if in_union else newest
        self._offer(self.affinity, self.score(self.affinity))

    def _joint(self) -> None:
        def graphs() -> tuple[Graphs, Tensor | None]:
            affinity = self.learner(self.start)
            return self.learner.graphs(affinity), self.learner.penalty(affinity, self.start)

        learned = self.settings.learn_graph
        both = nn.ModuleList([self.network, self.learner] if learned else [self.network])
        fixed = self.learner.graphs(self.affinity)
        self._epochs("joint", both, self.optimiser, graphs if learned else lambda: (fixed, None), self.graph_optimiser if learned else None)
        with torch.no_grad():
            self.affinity = self.learner(self.start).clone() if learned else self.affinity
        self._offer(self.affinity, self.score(self.affinity))

    def score(self, affinity: Tensor) -> float:
        """Validation loss of θ with this affinity."""
        return mean_loss(self.network, self.learner.graphs(affinity), self.windows, self.validation, self.settings.batch_size)

    def _offer(self, affinity: Tensor, loss: float) -> None:
        if loss < self.best.loss:
            self.best = Best(loss, self.iteration, copy.deepcopy(self.network.state_dict()), affinity.clone())

    # ------------------------------------------------------------------------------------------------------ the epochs
    def _epochs(
        self,
        phase: str,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        graphs: Callable[[], tuple[Graphs, Tensor | None]],
        second: torch.optim.Optimizer | None = None,
    ) -> None:
        settings = self.settings
        patience = Patience(settings.patience, settings.early_stopping)
        kept, lowest = copy.deepcopy(module.state_dict()), math.inf
        for epoch in range(settings.num_epoch):
            seed = ((settings.seed * SEED_STRIDE + self.iteration) * 1000 + epoch) * 2 + (phase == "graph")
            training = self._epoch(module, (optimiser, second), graphs, seed, self.iteration * settings.num_epoch + epoch)
            with torch.no_grad():
                validation = mean_loss(self.network, graphs()[0], self.windows, self.validation, settings.batch_size)
            if validation < lowest:
                kept, lowest = copy.deepcopy(module.state_dict()), validation
            progress = Progress(phase, self.iteration, epoch, training, validation)
            self.history.append({"iteration": self.iteration, "epoch": epoch, "graph": float(phase == "graph"), "loss": validation})
            self._report(progress)
            if patience.exhausted(validation):
                break
        module.load_state_dict(kept)

    def _epoch(
        self,
        module: nn.Module,
        optimisers: tuple[torch.optim.Optimizer, torch.optim.Optimizer | None],
        graphs: Callable[[], tuple[Graphs, Tensor | None]],
        seed: int,
        position: int,
    ) -> float:
        """Mean training loss of an epoch; `position` counts epochs of the run, for the schedule."""
        settings, started = self.settings, time.perf_counter()
        self.network.train()
        total, count = 0.0, 0
        parts = list(batches(self.training, settings.batch_size, seed))
        for index, part in enumerate(parts):
            factor = self.rate_factor(position + index / len(parts))
            for optimiser, rate in zip(optimisers, self._rates(optimisers[0]), strict=True):
                if optimiser is not None:
                    optimiser.param_groups[0]["lr"] = rate * factor
                    optimiser.zero_grad(set_to_none=True)
            pair, penalty = graphs()
            windows = self.windows
            summed, known = self.network.loss(windows.inputs(part), pair, windows.known(part), windows.targets(part))
            loss = summed / max(known, 1)
            objective = loss if penalty is None else loss + settings.sparsity_weight * penalty
            objective.backward()  # type: ignore[no-untyped-call]
            if settings.gradient_clip is not None:
                nn.utils.clip_grad_norm_(module.parameters(), settings.gradient_clip)
            for optimiser in optimisers:
                if optimiser is not None:
                    optimiser.step()
            total, count = total + float(summed.detach()), count + known
        self.samples += len(self.training)
        self.seconds += time.perf_counter() - started
        return total / max(count, 1)

    def _rates(self, first: torch.optim.Optimizer) -> tuple[float, float]:
        leading = self.settings.graph_learning_rate if first is self.graph_optimiser else self.settings.learning_rate
        return leading, self.settings.graph_learning_rate

    def rate_factor(self, position: float) -> float:
        """Factor of the learning rates at `position` epochs: one cosine over the whole run."""
        if self.settings.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(position / (self.settings.num_iter * self.settings.num_epoch), 1.0)))

    # ------------------------------------------------------------------------------------------------------- its state
    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `load` continues exactly."""
        return {
            "network": self.network.state_dict(),
            "learner": self.learner.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "graph_optimiser": self.graph_optimiser.state_dict(),
            "affinity": self.affinity,
            "candidates": [(graph, loss) for graph, loss in self.candidates.graphs],
            "best": {
                "loss": self.best.loss,
                "iteration": self.best.iteration,
                "network": self.best.network,
                "affinity": self.best.affinity,
            },
            "iteration": self.iteration,
            "idle_iterations": self.idle_iterations,
            "history": self.history,
            "samples": self.samples,
            "seconds": self.seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.network.load_state_dict(state["network"])
        self.learner.load_state_dict(state["learner"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.graph_optimiser.load_state_dict(state["graph_optimiser"])
        self.affinity = state["affinity"].to(self.affinity)
        self.candidates.graphs = [(graph.to(self.affinity), float(loss)) for graph, loss in state["candidates"]]
        self.best = Best(**state["best"])
        self.iteration, self.idle_iterations = int(state["iteration"]), int(state["idle_iterations"])
        self.history = list(state["history"])
        self.samples, self.seconds = int(state["samples"]), float(state["seconds"])

    def finish(self) -> Tensor:
        """Put the best pair in place and return its affinity."""
        if self.best.affinity is not None:
            self.network.load_state_dict(self.best.network)
            self.affinity = self.best.affinity.to(self.affinity)
        return self.affinity
