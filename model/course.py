"""The course of a run: what each epoch brought, what the epochs cost, and the best pair so far."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Progress:
    """An epoch that ended.

    Attributes:
        iteration, epoch: counted from 0, the epoch within its phase.
        phase: `predictor` (M-step), `graph` (E-step), `joint` (end to end), `plain` (θ alone) or
            `closed_form`.
        training, validation: losses in z-units; the validation loss is a mean |error|.
        learning_rate: of the phase's first optimiser, at the end of the epoch.
        seconds: wall time of the epoch and its validation.
        edges: edges of the affinity at the end of the epoch.
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

    def __str__(self) -> str:
        """Phase, iteration and both losses, for a progress bar."""
        return f"{self.phase} {self.iteration + 1}: {self.training:.4f} / {self.validation:.4f}"


@dataclass
class Course:
    """All epochs so far.

    Attributes:
        report: called after each epoch.
        history: one mapping per epoch, with the fields of `Progress` except `total`.
        samples: windows trained on, counted once per epoch.
        seconds, processor_seconds: wall and processor time of the epochs, without validation.
    """

    report: Callable[[Progress], None]
    history: list[dict[str, Any]] = field(default_factory=list)
    samples: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0

    def trained(self, samples: int, seconds: float, processor_seconds: float) -> None:
        """Add what an epoch cost."""
        self.samples += samples
        self.seconds += seconds
        self.processor_seconds += processor_seconds

    def record(self, progress: Progress) -> None:
        """Keep an epoch, and report it."""
        self.history.append({key: value for key, value in vars(progress).items() if key != "total"})
        self.report(progress)

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "history": self.history,
            "samples": self.samples,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.history, self.samples = list(state["history"]), int(state["samples"])
        self.seconds, self.processor_seconds = float(state["seconds"]), float(state["processor_seconds"])


@dataclass
class Best:
    """The pair of network and affinity with the lowest validation loss so far."""

    loss: float = math.inf
    iteration: int = -1
    network: dict[str, Tensor] = field(default_factory=dict)
    affinity: Tensor | None = None

    def offer(self, loss: float, iteration: int, network: nn.Module, affinity: Tensor) -> None:
        """Keep a copy of this pair if its loss is the lowest."""
        if loss < self.loss:
            self.loss, self.iteration = loss, iteration
            self.network, self.affinity = copy.deepcopy(network.state_dict()), affinity.clone()
