"""From a data set and settings to a bundle: what `main.py` runs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscaler.artefacts import plain, replacing
from deepscaler.errors import BundleError, DataError, SettingsError
from deepscaler.learning.bundle import Bundle, load_bundle, load_tensors, side_path
from deepscaler.learning.dataset import Dataset
from deepscaler.learning.description import Expected, check_bundle
from deepscaler.learning.graph_report import Subject, judge_graph
from deepscaler.learning.history import write_history
from deepscaler.learning.judging import judge_forecasts, shape_of
from deepscaler.learning.windowing import make_windows, split_ends
from deepscaler.settings import ModelConfig, Train
from model import parallel
from model.fitting import TrainingError
from model.graph_learners import PRIOR_EDGE, GraphLearner, LearnerSettings, build_learner
from model.network import Network, Shape
from model.networks import build_network
from model.trainer import Progress, Trainer, TrainSettings
from model.windows import Windows

log = logging.getLogger(__name__)
CONTINUED = ("services", "features", "window", "horizon", "step")
"""What a data set has to share with the bundle whose training goes on with it."""


def _silent(progress: Progress) -> None:
    """Nobody watches. A name of its own, so that a task can go to another process."""


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """One training: data, settings, and where it continues.

    Attributes:
        dataset: what `data_process.py` made.
        name: of the network.
        config: data set and network settings.
        train: optimiser, schedule, graph and loss settings.
        path: of the bundle; the checkpoint lies beside it.
        report: called after each epoch.
    """

    dataset: Dataset
    name: str
    config: ModelConfig
    train: Train
    path: Path
    report: Callable[[Progress], None] = field(default=_silent)

    @property
    def shape(self) -> Shape:
        """Sizes of the data."""
        return shape_of(self.dataset.meta)

    @property
    def sizes(self) -> dict[str, int]:
        """Hyper-parameters of the network."""
        return dict(getattr(self.config, self.name).model_dump())

    @property
    def checkpoint(self) -> Path:
        """State after the last finished iteration, until training ends."""
        return side_path(self.path, ".checkpoint.pt")

    @property
    def history(self) -> Path:
        """A row an epoch."""
        return side_path(self.path, ".history.csv")

    def fresh(self, seed: int) -> Network:
        """A network on fresh weights.

        Raises:
            SettingsError: sizes that can't be.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                return build_network(self.name, self.shape, self.sizes)
            except ValueError as error:
                raise SettingsError(f"model.{self.name}: {error}") from error

    def fingerprint(self) -> str:
        """Changes when the data or a setting that matters to the numbers does."""
        settings = [
            self.name,
            self.train.model_dump_json(),
            self.config.dataset.model_dump_json(exclude={"data_dir", "threads"}),
        ]
        digest = hashlib.sha256(repr([*settings, sorted(self.sizes.items())]).encode())
        optional = [values for values in (self.dataset.unrounded, self.dataset.present) if values is not None]
        for values in (self.dataset.series, self.dataset.labels, *optional, *self.dataset.priors.values()):
            digest.update(np.ascontiguousarray(values).view(np.uint8).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Trained:
    """A bundle, and facts of this very run that don't belong in it."""

    bundle: Bundle
    samples_per_second: float
    seconds: float
    iterations: int


def pick_device(name: str) -> torch.device:
    """`auto`: the GPU where there is one; under torchrun each rank takes its own, for `cuda` too.

    Raises:
        SettingsError: no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    _, local, ranks = parallel.launched()
    if name == "cuda" and ranks > 1:
        name = f"cuda:{local}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"model.dataset.device: {name!r} can't be used; allowed: auto, cpu, cuda, cuda:<n>"
        ) from error
    return device


def train(task: TrainingTask, *, resume: bool = False, init_from: str | None = None) -> Trained:
    """Train, judge and assemble the bundle; under torchrun, together with the other ranks, each returning the same.

    After each iteration the first rank writes checkpoint and history; `main.py` removes the checkpoint.

    Raises:
        DataError: too few windows, or a loss that isn't a number.
        BundleError: nothing to resume, or a bundle to start from that doesn't fit.
        SettingsError: an unknown network or device, or no compiler.
    """
    fingerprint = task.fingerprint()

    def keep(trainer: Trainer) -> None:
        if parallel.rank():
            return
        with replacing(task.checkpoint) as temporary, temporary.open("wb") as handle:
            torch.save({"fingerprint": fingerprint, "state": trainer.state()}, handle)
        write_history(trainer.history, task.history)

    with parallel.joined(pick_device(task.config.dataset.device)):
        fitted = fit(task, resume=resume, init_from=init_from, after=keep)
        bundle = _assemble(task, fitted.trainer, fitted.trainer.affinity, fitted.ends)
    trainer = fitted.trainer
    return Trained(bundle, trainer.samples / max(trainer.seconds, 1e-9), trainer.seconds, trainer.iteration)


@dataclass(frozen=True)
class Fitted:
    """A trainer with its best pair in place, and the rows that windows end at, by split."""

    trainer: Trainer
    ends: dict[str, NDArray[np.int64]]


def fit(
    task: TrainingTask,
    *,
    resume: bool = False,
    init_from: str | None = None,
    after: Callable[[Trainer], None] = lambda trainer: None,
) -> Fitted:
    """Train only.

    Args:
        task: what to train.
        resume: continue from the task's checkpoint.
        init_from: bundle to start from.
        after: called after each iteration.

    Raises:
        DataError, BundleError, SettingsError: see `train`.
    """
    device = pick_device(task.config.dataset.device)
    if task.config.dataset.threads:
        torch.set_num_threads(task.config.dataset.threads)
    ends = split_ends(task.dataset, task.config.dataset.stride, task.config.dataset.evaluation_stride)
    windows = make_windows(
        task.dataset,
        device,
        unrounded=task.train.unrounded,
        longest_season=task.config.dataset.longest_season,
    )
    try:
        trainer = _trainer(task, windows, ends, device, init_from)
        if resume:
            _continue(trainer, task)
        while not trainer.finished:
            trainer.iterate()
            after(trainer)
    except TrainingError as error:
        raise DataError(f"{task.name}: {error}") from error
    trainer.finish()
    return Fitted(trainer, ends)


def _trainer(
    task: TrainingTask,
    windows: Windows,
    ends: dict[str, NDArray[np.int64]],
    device: torch.device,
    init_from: str | None,
) -> Trainer:
    train, graph = task.train, task.train.graph
    network = task.fresh(train.seed).to(device)
    learner_settings = LearnerSettings(
        embedding_size=graph.embedding_size,
        new_edge_term=graph.new_edge_term,
        new_edge_budget=graph.new_edge_budget,
        threshold=graph.threshold,
    )
    priors = {name: torch.from_numpy(prior) for name, prior in task.dataset.priors.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.seed + 1)
        learner = build_learner(graph.learner, task.shape.services, priors, learner_settings).to(device)
    start = None if init_from is None else _start_from(network, learner, task, init_from).to(device)
    if train.compile:
        _compile(network, device)
    return Trainer(
        network,
        learner,
        windows,
        training=torch.from_numpy(ends["train"]).to(device),
        validation=torch.from_numpy(ends["validation"]).to(device),
        settings=train_settings(train, task.config.dataset.batch_size),
        report=task.report,
        start=start,
        priors=[learner.given(prior.to(device), PRIOR_EDGE) for prior in priors.values()],
    )


def _compile(network: Network, device: torch.device) -> None:
    """`torch.compile` in place: the names of its weights stay as they are. Tried on something small first."""
    try:
        torch.compile(torch.sin)(torch.zeros(2, device=device))
    except Exception as error:  # of many kinds, torch's own and the compiler's
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SettingsError(
            f"train.compile: torch.compile doesn't work here ({reason}); install g++, or set train.compile=false"
        ) from error
    network.compile()


def train_settings(train: Train, batch_size: int) -> TrainSettings:
    """The numbers that `model` wants."""
    optimiser, graph = train.optimiser, train.graph
    return TrainSettings(
        learn_graph=graph.learner != "none",
        trainer=graph.trainer,
        max_graph_num=graph.max_graph_num,
        graph_learning_rate=graph.learning_rate,
        sparsity_weight=graph.sparsity_weight,
        union_temperature=graph.union_temperature,
        union_share=graph.union_share,
        learning_rate=optimiser.learning_rate,
        weight_decay=optimiser.weight_decay,
        schedule=optimiser.schedule,
        gradient_clip=optimiser.gradient_clip,
        num_epoch=train.num_epoch,
        num_iter=train.num_iter,
        patience=train.patience,
        stop_early=train.stop_early,
        processor_seconds=train.processor_seconds,
        early_stopping=train.early_stopping,
        precision=train.precision,
        seed=train.seed,
        batch_size=batch_size,
    )


def _start_from(network: Network, learner: GraphLearner, task: TrainingTask, path: str) -> Tensor:
    """Put a bundle's weights in place and return its affinity; what is fitted in closed form is fitted anew later."""
    bundle, meta = load_bundle(path), task.dataset.meta
    expected = Expected(
        who="this training has",
        remedy="start without --init_from",
        values={"network": task.name, "sizes": task.sizes, **{key: meta[key] for key in CONTINUED}},
    )
    check_bundle(bundle.description, f"--init_from {path}", expected)
    network.load_state_dict(bundle.weights)
    if set(bundle.learner) == set(learner.state_dict()):
        learner.load_state_dict(bundle.learner)
    return bundle.affinity


def _continue(trainer: Trainer, task: TrainingTask) -> None:
    absent = (
        f"{task.checkpoint}: nothing to resume (a finished run leaves no checkpoint); run without --resume"
    )
    stored = load_tensors(task.checkpoint, absent)
    if stored.get("fingerprint") != task.fingerprint():
        raise BundleError(
            f"{task.checkpoint}: made with other data or settings than these; give the same, or run without --resume"
        )
    trainer.load(stored["state"])
    log.info("resumed after iteration %d of %d", trainer.iteration, task.train.num_iter)


def _assemble(
    task: TrainingTask, trainer: Trainer, affinity: Tensor, ends: dict[str, NDArray[np.int64]]
) -> Bundle:
    dataset, learner = task.dataset, trainer.learner
    shown = learner.graphs(affinity)
    device = affinity.device
    subject = Subject(
        dataset,
        task.train,
        trainer,
        affinity,
        ends,
        fresh=lambda seed: task.fresh(seed).to(device),
        another=lambda seed: another(task, trainer.windows, ends, device, seed),
    )
    return Bundle(
        network=task.name,
        sizes=task.sizes,
        weights=trainer.network.state_dict(),
        learner=learner.state_dict(),
        affinity=affinity,
        reverse=shown.up,
        normalizer=dataset.normalizer,
        meta=plain(
            {
                **{key: value for key, value in dataset.meta.items() if key not in ("statistics", "bounds")},
                "season_seconds": None
                if trainer.windows.season is None
                else trainer.windows.season * dataset.meta["base_step"],
                "unrounded": task.train.unrounded and dataset.unrounded is not None,
            }
        ),
        settings={
            "train": task.train.model_dump(mode="json"),
            "dataset": task.config.dataset.model_dump(mode="json", exclude={"threads"}),
            "seed": task.train.seed,
        },
        errors=judge_forecasts(
            dataset,
            trainer.network,
            shown,
            trainer.windows,
            make_windows(dataset, affinity.device, longest_season=task.config.dataset.longest_season),
            ends,
            task.config.dataset.batch_size,
            task.train.unrounded,
        ),
        graph=judge_graph(subject),
    )


def another(
    task: TrainingTask, windows: Windows, ends: dict[str, NDArray[np.int64]], device: torch.device, seed: int
) -> Trainer:
    """A trainer like the task's of another seed, half as long and silent."""
    settings = task.train.model_copy(update={"seed": seed, "num_iter": max(task.train.num_iter // 2, 1)})
    return _trainer(replace(task, train=settings, report=lambda progress: None), windows, ends, device, None)
