"""Training of predictor θ and graph learner φ: in turn (expectation-maximisation), in one step (end to end), or θ alone."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model import parallel
from model.candidates import Candidates, Weighting
from model.fitting import (
    EpochSettings,
    Objective,
    Patience,
    Phase,
    Precision,
    TrainingError,
    mean_loss,
    run_epoch,
)
from model.graph_learners import GraphLearner, edge_floor
from model.graph_metrics import edges
from model.network import Network
from model.windows import Windows

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
    stop_early: bool = False
    processor_seconds: float | None = None
    early_stopping: Literal["best", "previous"] = "best"
    precision: Precision = "float32"
    seed: int = 1
    batch_size: int = 64


@dataclass(frozen=True)
class Progress:
    """An epoch that ended.

    Attributes:
        iteration, epoch: counted from 0, the epoch within its phase.
        phase: `predictor` (M-step), `graph` (E-step), `joint` (end to end), `plain` (θ alone) or `closed_form`.
        training, validation: losses in z-units, the validation's a mean |error|.
        learning_rate: of the phase's first optimiser, at the end of the epoch.
        seconds: that it took, its validation included.
        edges: of the affinity at its end.
        total: most epochs that the run can take.
    """

    iteration: int
    epoch: int
    phase: str
    training: float
    validation: float
    learning_rate: float
    seconds: float
    edges: int
    total: int


@dataclass
class Best:
    """The pair with the lowest validation loss so far."""

    loss: float = math.inf
    iteration: int = -1
    network: dict[str, Tensor] = field(default_factory=dict)
    affinity: Tensor | None = None


class Trainer:
    """One run. `iterate()` does one iteration; between iterations `state()` holds all that a continued run needs.

    How the graph takes part is the network's own word (`graph_use`): a network that isn't trained together with a graph,
    or any without a learner, has θ trained alone, for as many epochs and along the same cosine as the others; one without
    trainable parameters is ready once it is prepared.

    Args:
        network: θ, on fresh or given parameters.
        learner: φ.
        windows: series and labels, on the device of both.
        training, validation: rows that windows end at.
        settings: of the run.
        report: called after each epoch.
        start: the first affinity, by default the learner's; the priors as they are for a network that isn't trained with it.
        priors: affinities of the priors: candidates from the start.
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
        priors: Sequence[Tensor] = (),
    ) -> None:
        self.network, self.learner, self.windows, self.settings, self._report = (
            network,
            learner,
            windows,
            settings,
            report,
        )
        self.training, self.validation = training, validation
        self.learns = settings.learn_graph and network.graph_use == "learned"
        network.prepare(windows, training, validation)
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimiser: torch.optim.Optimizer | None = None
        if self.parameters:
            self.optimiser = torch.optim.Adam(
                self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
            )
        self.graph_optimiser = torch.optim.Adam(learner.parameters(), lr=settings.graph_learning_rate)
        if start is None:
            with torch.no_grad():
                start = learner.initial() if network.graph_use == "learned" else learner.prior()
        self.affinity = start.clone()
        self.start = start.clone()
        self.candidates = Candidates(settings.max_graph_num, priors)
        self.best = Best()
        self.iteration = 0
        self.idle_iterations = 0
        self.history: list[dict[str, Any]] = []
        self.samples, self.seconds, self.processor_seconds = 0, 0.0, 0.0

    # -------------------------------------------------------------------------------------------------------- the run
    @property
    def finished(self) -> bool:
        """All iterations done, the time used up, or `patience` of them without a better pair where the run may stop early.

        By default a cosine is run to its end: the best pair is usually found where it is low.
        """
        settings = self.settings
        may_stop = settings.stop_early or settings.schedule == "constant"
        idle = may_stop and self.idle_iterations >= settings.patience
        late = settings.processor_seconds is not None and self.processor_seconds >= settings.processor_seconds
        return idle or late or self.iteration >= (settings.num_iter if self.parameters else 1)

    @property
    def epochs(self) -> int:
        """Most epochs that the run can take."""
        settings = self.settings
        both = 2 if self.learns and settings.trainer == "em" else 1
        return settings.num_iter * settings.num_epoch * both if self.parameters else 1

    def iterate(self) -> None:
        """One iteration: M-step and E-step, or as many joint or plain epochs."""
        before = self.best.loss
        if self.optimiser is None:
            self._closed_form()
        elif not self.learns:
            self._plain(self.optimiser)
        elif self.settings.trainer == "end_to_end":
            self._joint(self.optimiser)
        else:
            self.m_step()
            self.e_step()
        self.iteration += 1
        self.idle_iterations = 0 if self.best.loss < before else self.idle_iterations + 1

    def m_step(self) -> None:
        """Fit θ with the affinity fixed, keep the best on validation."""
        self._epochs(self._predictor("predictor"))
        self._offer(self.affinity, self.score(self.affinity))

    def e_step(self) -> None:
        """Fit φ with θ fixed, keep the best on validation; the new graph joins S, and S gives the next affinity."""
        settings, current = self.settings, self.affinity
        objective = Objective(self.network, self.learner, current, learns=True)
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        self._epochs(
            Phase("graph", objective, self.learner, [(self.graph_optimiser, settings.graph_learning_rate)])
        )
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        with torch.no_grad():
            newest = objective.affinity().clone()
        self.candidates.add(newest, self.score)
        in_union = self.iteration + 1 < settings.union_share * settings.num_iter
        self.affinity = self.candidates.union(settings.union_temperature) if in_union else newest
        self._offer(self.affinity, self.score(self.affinity))

    def _joint(self, optimiser: torch.optim.Optimizer) -> None:
        settings = self.settings
        objective = Objective(self.network, self.learner, self.start, learns=True)
        both = [(optimiser, settings.learning_rate), (self.graph_optimiser, settings.graph_learning_rate)]
        self._epochs(Phase("joint", objective, nn.ModuleList([self.network, self.learner]), both))
        with torch.no_grad():
            self.affinity = objective.affinity().clone()
        self._offer(self.affinity, self.score(self.affinity))

    def _plain(self, optimiser: torch.optim.Optimizer) -> None:
        """Epochs of one long fit: weights go on from epoch to epoch, the best of the whole run is kept."""
        phase = self._predictor("plain")
        step = parallel.wrap(phase.objective)
        for epoch in range(self.settings.num_epoch):
            self._offer(self.affinity, self._epoch(phase, step, epoch))

    def _closed_form(self) -> None:
        started = time.perf_counter()
        loss = self.score(self.affinity)
        self._offer(self.affinity, loss)
        seconds = time.perf_counter() - started
        self._record("closed_form", 0, (math.nan, loss, math.nan, seconds), self.affinity)

    def score(self, affinity: Tensor) -> float:
        """Validation loss of θ with this affinity.

        Raises:
            TrainingError: no known label, or a loss that isn't finite.
        """
        settings, graphs = self.settings, self.learner.graphs(affinity)
        loss = mean_loss(
            self.network, graphs, self.windows, self.validation, settings.batch_size, settings.precision
        )
        if not math.isfinite(loss):
            raise TrainingError(
                f"the validation loss is {loss}: no label is known in any validation window, or training ran away"
            )
        return loss

    def _offer(self, affinity: Tensor, loss: float) -> None:
        if loss < self.best.loss:
            self.best = Best(loss, self.iteration, copy.deepcopy(self.network.state_dict()), affinity.clone())

    # ------------------------------------------------------------------------------------------------------ the epochs
    def _predictor(self, name: str) -> Phase:
        """θ is fitted with the present affinity."""
        assert self.optimiser is not None
        objective = Objective(self.network, self.learner, self.affinity, learns=False)
        return Phase(name, objective, self.network, [(self.optimiser, self.settings.learning_rate)])

    def _epochs(self, phase: Phase) -> None:
        """Up to `num_epoch` epochs; what they changed is set to its best on validation."""
        patience = Patience(self.settings.patience, self.settings.early_stopping)
        kept, lowest = copy.deepcopy(phase.trained.state_dict()), math.inf
        step = parallel.wrap(phase.objective)
        for epoch in range(self.settings.num_epoch):
            validation = self._epoch(phase, step, epoch)
            if validation < lowest:
                kept, lowest = copy.deepcopy(phase.trained.state_dict()), validation
            if patience.exhausted(validation):
                break
        phase.trained.load_state_dict(kept)

    def _epoch(self, phase: Phase, step: nn.Module, epoch: int) -> float:
        """One epoch and its record; validation loss."""
        settings, started, busy = self.settings, time.perf_counter(), time.process_time()
        position = self.iteration * settings.num_epoch + epoch
        batches = math.ceil(len(self.training) / settings.batch_size)
        training = run_epoch(
            phase,
            step,
            self.windows,
            self.training,
            seed=((settings.seed * SEED_STRIDE + self.iteration) * 1000 + epoch) * 2
            + (phase.name == "graph"),
            factors=[self.rate_factor(position + batch / batches) for batch in range(batches)],
            settings=EpochSettings(
                settings.batch_size, settings.sparsity_weight, settings.gradient_clip, settings.precision
            ),
        )
        self.samples += len(self.training)
        self.seconds += time.perf_counter() - started
        self.processor_seconds += time.process_time() - busy
        with torch.no_grad():
            affinity = phase.objective.affinity()
        validation, rate = self.score(affinity), float(phase.optimisers[0][0].param_groups[0]["lr"])
        seconds = time.perf_counter() - started
        self._record(phase.name, epoch, (training, validation, rate, seconds), affinity)
        return validation

    def _record(
        self, phase: str, epoch: int, numbers: tuple[float, float, float, float], affinity: Tensor
    ) -> None:
        """Numbers: training and validation loss, learning rate, seconds."""
        found = int(edges(affinity.cpu().numpy(), edge_floor(self.learner, len(affinity))).sum())
        progress = Progress(self.iteration, epoch, phase, *numbers, found, self.epochs)
        self.history.append({key: value for key, value in vars(progress).items() if key != "total"})
        self._report(progress)

    def rate_factor(self, position: float) -> float:
        """Factor of the learning rates at `position` epochs: one cosine over the whole run."""
        if self.settings.schedule == "constant":
            return 1.0
        return 0.5 * (
            1 + math.cos(math.pi * min(position / (self.settings.num_iter * self.settings.num_epoch), 1.0))
        )

    # ------------------------------------------------------------------------------------------------------- its state
    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `load` continues exactly.

        No generator's state is among them: each epoch seeds its own by run, iteration, epoch and phase.
        """
        return {
            "network": self.network.state_dict(),
            "learner": self.learner.state_dict(),
            "optimiser": self.optimiser.state_dict() if self.optimiser else None,
            "graph_optimiser": self.graph_optimiser.state_dict(),
            "affinity": self.affinity,
            "start": self.start,
            "candidates": list(self.candidates.graphs),
            "best": dict(vars(self.best)),
            "iteration": self.iteration,
            "idle_iterations": self.idle_iterations,
            "history": self.history,
            "samples": self.samples,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.network.load_state_dict(state["network"])
        self.learner.load_state_dict(state["learner"])
        if self.optimiser:
            self.optimiser.load_state_dict(state["optimiser"])
        self.graph_optimiser.load_state_dict(state["graph_optimiser"])
        self.affinity, self.start = state["affinity"].to(self.affinity), state["start"].to(self.start)
        self.candidates.graphs = [
            (graph.to(self.affinity), float(loss)) for graph, loss in state["candidates"]
        ]
        self.best = Best(**state["best"])
        self.iteration, self.idle_iterations = int(state["iteration"]), int(state["idle_iterations"])
        self.history = list(state["history"])
        self.samples, self.seconds = int(state["samples"]), float(state["seconds"])
        self.processor_seconds = float(state["processor_seconds"])

    def finish(self) -> Tensor:
        """Put the best pair in place and return its affinity."""
        if self.best.affinity is not None:
            self.network.load_state_dict(self.best.network)
            self.affinity = self.best.affinity.to(self.affinity)
        return self.affinity
