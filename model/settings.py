"""What training is told. No field has a default here: the defaults stand once, in `deepscaler/settings`.

Each field is explained beside its namesake there; `deepscaler.learning.hyperparameters.fill` copies it by
name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "bf16"]
Weighting = Literal["spread", "raw"]


@dataclass(frozen=True)
class OptimiserSettings:
    """Adam and its schedule: the section `optimiser`."""

    learning_rate: float
    weight_decay: float
    schedule: Literal["cosine", "constant"]
    gradient_clip: float | None


@dataclass(frozen=True)
class GraphSettings:
    """How network and graph learner are trained together: the section `graph`."""

    learner: Literal["gates", "antisymmetric", "none"]
    trainer: Literal["em", "end_to_end"]
    max_graph_num: int
    learning_rate: float
    sparsity_weight: float
    union_temperature: Weighting
    union_share: float


@dataclass(frozen=True)
class LearnerSettings:
    """What graph learners are built from: the rest of the section `graph`."""

    embedding_size: int
    new_edge_term: Literal["smooth", "sign"]
    new_edge_budget: float
    threshold: float


@dataclass(frozen=True)
class TrainSettings:
    """One run of the trainer."""

    optimiser: OptimiserSettings
    graph: GraphSettings
    num_epoch: int
    num_iter: int
    patience: int
    stop_early: bool
    processor_seconds: float | None
    early_stopping: Literal["best", "previous"]
    precision: Precision
    seed: int
    batch_size: int


@dataclass(frozen=True)
class CheckSettings:
    """Refits of the check whether the learned graph is real.

    Attributes:
        refit_epochs: epochs for which a fresh predictor is fitted with each of the main rivals, which is
            fairer than exchanging the graph of a predictor that was trained on the learned one; 0: no refits.
        refit_seeds: fresh predictors per rival; all rivals start from the same seeds.
        refit_graphs: rivals that are refitted beside the learned graph; empty: the main ones.
    """

    refit_epochs: int
    refit_seeds: int
    refit_graphs: Sequence[str]
