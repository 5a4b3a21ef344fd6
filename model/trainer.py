"""Training of predictor θ and graph learner φ.

They learn in turn (expectation-maximisation) or at once (end to end), or θ learns alone.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model import parallel
from model.candidates import Candidates
from model.course import Best, Course, Progress
from model.fitting import Objective, Patience, Phase, TrainingError, mean_loss, run_epoch
from model.graph_learners import GraphLearner, edge_floor
from model.graph_metrics import edges_above
from model.network import Network
from model.settings import TrainSettings
from model.windows import Windows

SEED_STRIDE = 1_000_003
"""Between the seeds of the epochs of two runs whose own seeds are neighbours."""
SEEDS = 1 << 62
"""Seeds of epochs are below this, whatever that of the run: a generator takes none of 64 bits."""


class Trainer:
    """One run.

    `iterate()` does one iteration; between iterations `state()` holds all that a continued run needs.

    The network says by its `graph_use` how the graph takes part. Where it isn't trained together with a
    graph, or no learner is set, θ is trained alone, for as many epochs and along the same cosine as
    elsewhere. A network without trainable parameters is ready once it is prepared.

    Args:
        network: θ, on fresh or given parameters.
        learner: φ.
        windows: series and labels, on the device of both.
        training, validation: rows that windows end at.
        settings: of the run.
        report: called after each epoch.
        start: the first affinity; by default the learner's first one, or the priors as they are where the
            network isn't trained together with the graph.
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
        self.network, self.learner, self.windows, self.settings = network, learner, windows, settings
        self.training, self.validation = training, validation
        self.learns = settings.graph.learner != "none" and network.graph_use == "learned"
        network.prepare(windows, training, validation)
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimiser: torch.optim.Optimizer | None = None
        if self.parameters:
            adam = settings.optimiser
            self.optimiser = torch.optim.Adam(
                self.parameters, lr=adam.learning_rate, weight_decay=adam.weight_decay
            )
        self.graph_optimiser = torch.optim.Adam(learner.parameters(), lr=settings.graph.learning_rate)
        if start is None:
            with torch.no_grad():
                start = learner.initial() if self.learns else learner.prior()
        self.affinity, self.start = start.clone(), start.clone()
        self.candidates = Candidates(settings.graph.max_graph_num, priors)
        self.best, self.course = Best(), Course(report)
        self.iteration, self.idle_iterations = 0, 0

    # ------------------------------------------------------------------------------------------------ the run
    @property
    def finished(self) -> bool:
        """Whether the run is over.

        It is when all iterations are done, the time is used up, or it may stop early and had no better pair
        for `patience` iterations.

        By default a run with a cosine goes on to its end: the best pair is usually found where the rate is
        low.
        """
        settings = self.settings
        may_stop = settings.stop_early or settings.optimiser.schedule == "constant"
        idle = may_stop and self.idle_iterations >= settings.patience
        limit = settings.processor_seconds
        late = limit is not None and self.course.processor_seconds >= limit
        return idle or late or self.iteration >= (settings.num_iter if self.parameters else 1)

    @property
    def epochs(self) -> int:
        """Most epochs that the run can take."""
        settings = self.settings
        both = 2 if self.learns and settings.graph.trainer == "em" else 1
        return settings.num_iter * settings.num_epoch * both if self.parameters else 1

    def iterate(self) -> None:
        """One iteration: M-step and E-step, or as many joint or plain epochs."""
        before = self.best.loss
        if self.optimiser is None:
            self._closed_form()
        elif not self.learns:
            self._plain()
        elif self.settings.graph.trainer == "end_to_end":
            self._joint(self.optimiser)
        else:
            self.m_step()
            self.e_step()
        self.iteration += 1
        self.idle_iterations = 0 if self.best.loss < before else self.idle_iterations + 1

    def m_step(self) -> None:
        """Fit θ with the affinity fixed, and keep its best epoch on validation."""
        self._epochs(self._predictor("predictor"))
        self._offer(self.score(self.affinity))

    def e_step(self) -> None:
        """Fit φ with θ fixed, and keep its best epoch.

        The new graph joins S, from which the next affinity is made.
        """
        graph, current = self.settings.graph, self.affinity
        objective = Objective(self.network, self.learner, current, learns=True)
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        self._epochs(Phase("graph", objective, self.learner, [(self.graph_optimiser, graph.learning_rate)]))
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        with torch.no_grad():
            newest = objective.affinity().clone()
        self.candidates.add(newest, self.score)
        in_union = self.iteration + 1 < graph.union_share * self.settings.num_iter
        self.affinity = self.candidates.union(graph.union_temperature) if in_union else newest
        self._offer(self.score(self.affinity))

    def _joint(self, optimiser: torch.optim.Optimizer) -> None:
        """Fit θ and φ at once."""
        settings = self.settings
        objective = Objective(self.network, self.learner, self.start, learns=True)
        both = [
            (optimiser, settings.optimiser.learning_rate),
            (self.graph_optimiser, settings.graph.learning_rate),
        ]
        self._epochs(Phase("joint", objective, nn.ModuleList([self.network, self.learner]), both))
        with torch.no_grad():
            self.affinity = objective.affinity().clone()
        self._offer(self.score(self.affinity))

    def _plain(self) -> None:
        """Run epochs of one long fit.

        Weights go on from epoch to epoch; the best epoch of the whole run is kept.
        """
        phase = self._predictor("plain")
        step = parallel.wrap(phase.objective)
        for epoch in range(self.settings.num_epoch):
            self._offer(self._epoch(phase, step, epoch))

    def _closed_form(self) -> None:
        """Score a network that `prepare` has made ready."""
        started = time.perf_counter()
        loss = self.score(self.affinity)
        self._offer(loss)
        self._record(
            "closed_form", 0, (math.nan, loss, math.nan, time.perf_counter() - started), self.affinity
        )

    def score(self, affinity: Tensor) -> float:
        """Validation loss of θ with this affinity.

        Raises:
            TrainingError: no label is known, or the loss isn't finite.
        """
        settings, graphs = self.settings, self.learner.graphs(affinity)
        loss = mean_loss(
            self.network, graphs, self.windows, self.validation, settings.batch_size, settings.precision
        )
        if not math.isfinite(loss):
            raise TrainingError(
                f"the validation loss is {loss}: no label is known in any validation window, "
                "or training ran away"
            )
        return loss

    def _offer(self, loss: float) -> None:
        self.best.offer(loss, self.iteration, self.network, self.affinity)

    # --------------------------------------------------------------------------------------------- the epochs
    def _predictor(self, name: str) -> Phase:
        """The phase that fits θ with the present affinity."""
        assert self.optimiser is not None
        objective = Objective(self.network, self.learner, self.affinity, learns=False)
        return Phase(name, objective, self.network, [(self.optimiser, self.settings.optimiser.learning_rate)])

    def _epochs(self, phase: Phase) -> None:
        """Up to `num_epoch` epochs; then what they changed is set to its best on validation."""
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
        """Run and record one epoch; returns its validation loss."""
        settings, started, busy = self.settings, time.perf_counter(), time.process_time()
        position = self.iteration * settings.num_epoch + epoch
        batches = math.ceil(len(self.training) / settings.batch_size)
        epoch_seed = (settings.seed * SEED_STRIDE + self.iteration) * 1000 + epoch
        training = run_epoch(
            phase,
            step,
            self.windows,
            self.training,
            seed=(epoch_seed * 2 + (phase.name == "graph")) % SEEDS,
            factors=[self.rate_factor(position + batch / batches) for batch in range(batches)],
            settings=settings,
        )
        self.course.trained(len(self.training), time.perf_counter() - started, time.process_time() - busy)
        with torch.no_grad():
            affinity = phase.objective.affinity()
        validation, rate = self.score(affinity), float(phase.optimisers[0][0].param_groups[0]["lr"])
        seconds = time.perf_counter() - started
        self._record(phase.name, epoch, (training, validation, rate, seconds), affinity)
        return validation

    def _record(
        self, phase: str, epoch: int, numbers: tuple[float, float, float, float], affinity: Tensor
    ) -> None:
        """Record an epoch by training loss, validation loss, learning rate and seconds."""
        found = int(edges_above(affinity.cpu().numpy(), edge_floor(self.learner, len(affinity))).sum())
        self.course.record(Progress(self.iteration, epoch, phase, *numbers, found, self.epochs))

    def rate_factor(self, position: float) -> float:
        """Factor of the learning rates after `position` epochs: one cosine spans the whole run."""
        settings = self.settings
        if settings.optimiser.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(position / (settings.num_iter * settings.num_epoch), 1.0)))

    # ---------------------------------------------------------------------------------------------- its state
    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `load` continues exactly.

        It holds no generator's state: each epoch seeds its own generators by run, iteration, epoch and phase.
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
            **self.course.state(),
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
        self.course.load(state)

    def finish(self) -> Tensor:
        """Put the best pair in place and return its affinity."""
        if self.best.affinity is not None:
            self.network.load_state_dict(self.best.network)
            self.affinity = self.best.affinity.to(self.affinity)
        return self.affinity
