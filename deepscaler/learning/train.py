"""From a training task to a bundle: what `main.py` runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscaler.artefacts import plain, replacing
from deepscaler.errors import BundleError, DataError, SettingsError
from deepscaler.learning.bundle import Bundle, load_bundle
from deepscaler.learning.decisions import decide_over
from deepscaler.learning.description import Expected, check_bundle
from deepscaler.learning.graph_report import Subject, judge_graph
from deepscaler.learning.history import write_history
from deepscaler.learning.hyperparameters import fill
from deepscaler.learning.inputs import training_inputs
from deepscaler.learning.judging import judge_forecasts
from deepscaler.learning.saved_forecasts import save_forecasts
from deepscaler.learning.task import TrainingTask, pick_device
from deepscaler.learning.tensor_files import load_tensors
from deepscaler.learning.windowing import make_windows, split_ends
from deepscaler.planning.plan import Prices
from model import parallel
from model.analogs import Moments, remember
from model.fitting import TrainingError
from model.flop import busy_threads, training_step_flop
from model.graph_learners import PRIOR_EDGE, GraphLearner, build_learner
from model.joint import templates
from model.layers import Graphs
from model.network import Network
from model.networks import NETWORKS
from model.settings import LearnerSettings, TrainSettings
from model.trainer import Trainer
from model.windows import Windows

log = logging.getLogger(__name__)
TEMPLATES = 96
"""Scenarios that a bundle can give at most."""
DECISIONS = 240
"""Newest decisions on validation by which a bundle knows what is usual for it."""
CONTINUED = ("services", "features", "window", "horizon", "step")
"""What a data set has to share with the bundle that a training starts from."""


@dataclass(frozen=True)
class Trained:
    """A bundle, and facts of this very run that don't belong in it."""

    bundle: Bundle
    samples_per_second: float
    seconds: float
    iterations: int


@dataclass(frozen=True)
class Fitted:
    """A trainer with its best pair in place, and the rows that windows end at, by split."""

    trainer: Trainer
    ends: dict[str, NDArray[np.int64]]


def train(task: TrainingTask, *, resume: bool = False, init_from: str | None = None) -> Trained:
    """Train, judge, and put the bundle together. Under torchrun all ranks call it, and each returns the same.

    After each iteration the first rank writes checkpoint and history; `main.py` removes the checkpoint.

    Args:
        task: what to train.
        resume: continue from the task's checkpoint.
        init_from: bundle to start from.

    Raises:
        DataError: there are too few windows, or a loss isn't a number.
        BundleError: there is nothing to resume, or the bundle to start from doesn't fit.
        SettingsError: network, device or compiler can't be had.
    """
    fingerprint = task.fingerprint()

    def keep(trainer: Trainer) -> None:
        if parallel.rank():
            return
        with replacing(task.checkpoint) as temporary, temporary.open("wb") as handle:
            torch.save({"fingerprint": fingerprint, "state": trainer.state()}, handle)
        write_history(trainer.course.history, task.history)

    threads = torch.get_num_threads()
    try:
        with parallel.joined(pick_device(task.config.dataset.device)):
            fitted = fit(task, resume=resume, init_from=init_from, after=keep)
            bundle = _make_bundle(task, fitted)
            if task.forecasts and not parallel.rank():
                save_forecasts(task, fitted)
    finally:
        torch.set_num_threads(threads)
    trainer, course = fitted.trainer, fitted.trainer.course
    return Trained(bundle, course.samples / max(course.seconds, 1e-9), course.seconds, trainer.iteration)


def fit(
    task: TrainingTask,
    *,
    resume: bool = False,
    init_from: str | None = None,
    after: Callable[[Trainer], None] = lambda trainer: None,
) -> Fitted:
    """Train, and no more.

    Args:
        task: what to train.
        resume: continue from the task's checkpoint.
        init_from: bundle to start from.
        after: called after each iteration.

    Raises:
        DataError, BundleError, SettingsError: see `train`.
    """
    config = task.config.dataset
    device = pick_device(config.device)
    ends = split_ends(task.dataset, config.stride, config.evaluation_stride)
    windows = make_windows(
        task.dataset, device, unrounded=task.train.unrounded, longest_season=config.longest_season
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
    priors = {name: torch.from_numpy(prior) for name, prior in task.dataset.priors.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.seed + 1)
        learner = build_learner(graph.learner, task.shape.services, priors, fill(LearnerSettings, graph)).to(
            device
        )
    start = None if init_from is None else _start_from(network, learner, task, init_from)
    trainer = Trainer(
        network,
        learner,
        windows,
        training=torch.from_numpy(ends["train"]).to(device),
        validation=torch.from_numpy(ends["validation"]).to(device),
        settings=fill(TrainSettings, train, task.config.dataset),
        report=task.report,
        start=None if start is None else start.to(device),
        priors=[learner.given(prior.to(device), PRIOR_EDGE) for prior in priors.values()],
    )
    torch.set_num_threads(task.config.dataset.threads or _threads_that_pay(trainer))
    if train.compile:
        _compile(network, device)
    return trainer


def _threads_that_pay(trainer: Trainer) -> int:
    """One for small networks. What is fitted in closed form gets all that there are."""
    if not trainer.parameters:
        return torch.get_num_threads()
    graphs, batch = trainer.learner.graphs(trainer.affinity), trainer.settings.batch_size
    flop = training_step_flop(trainer.network, graphs, trainer.windows, trainer.training, batch)
    return busy_threads(flop)


def _compile(network: Network, device: torch.device) -> None:
    """Compile in place, so that the names of the weights stay as they are.

    Something small is compiled first, to see whether that works at all.
    """
    try:
        torch.compile(torch.sin)(torch.zeros(2, device=device))
    except Exception as error:  # of many kinds: torch's own and the compiler's
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SettingsError(
            f"train.compile: torch.compile doesn't work here ({reason}); "
            "install g++, or set train.compile=false"
        ) from error
    network.compile()


def _start_from(network: Network, learner: GraphLearner, task: TrainingTask, path: str) -> Tensor | None:
    """Put what a bundle learned in place, and return the affinity it learned; None where none is learned.

    Priors are those of this training's data, whatever the bundle started from. What is fitted in closed form
    is fitted anew later.
    """
    bundle, meta = load_bundle(path), task.dataset.meta
    expected = Expected(
        who="this training has",
        remedy="start without --init_from",
        values={"network": task.name, "sizes": task.sizes, **{key: meta[key] for key in CONTINUED}},
    )
    check_bundle(bundle.description, f"--init_from {path}", expected)
    network.load_state_dict(bundle.weights)
    if set(bundle.learner) == set(learner.state_dict()):
        learned = {name: bundle.learner[name] for name, _ in learner.named_parameters()}
        learner.load_state_dict({**learner.state_dict(), **learned})
    learns = network.graph_use == "learned" and task.train.graph.learner != "none"
    return bundle.affinity if learns else None


def _continue(trainer: Trainer, task: TrainingTask) -> None:
    stored = load_tensors(
        task.checkpoint,
        f"{task.checkpoint}: nothing to resume (a finished run leaves no checkpoint); run without --resume",
    )
    if stored.get("fingerprint") != task.fingerprint():
        raise BundleError(
            f"{task.checkpoint}: made with other data or settings than these; "
            "give the same ones, or run without --resume"
        )
    trainer.load(stored["state"])
    log.info("resumed after iteration %d of %d", trainer.iteration, task.train.num_iter)


# ------------------------------------------------------------------------------------------------- the bundle
def _make_bundle(task: TrainingTask, fitted: Fitted) -> Bundle:
    """All that was learned, what it was learned from, and how good it is."""
    dataset, trainer = task.dataset, fitted.trainer
    affinity = trainer.affinity
    shown = trainer.learner.graphs(affinity)
    offered = dataset.meta["label"] == "offered"
    bundle = Bundle(
        network=task.name,
        sizes=task.sizes,
        weights=trainer.network.state_dict(),
        learner=trainer.learner.state_dict(),
        affinity=affinity,
        reverse=shown.up,
        down=shown.down,
        normalizer=dataset.normalizer,
        meta=_meta(task, trainer.windows),
        settings={
            "train": task.train.model_dump(mode="json", exclude={"gate"}),
            "dataset": task.config.dataset.model_dump(mode="json", exclude={"threads"}),
            "seed": task.train.seed,
        },
        errors=judge_forecasts(
            dataset,
            trainer.network,
            shown,
            trainer.windows,
            make_windows(dataset, affinity.device, longest_season=task.config.dataset.longest_season),
            fitted.ends,
            task.config.dataset.batch_size,
            task.train.unrounded or trainer.network.unrounded,
        ),
        graph=judge_graph(_subject(task, fitted)),
        templates=_templates(task, fitted, shown) if offered else None,
        moments=_moments(task, fitted, shown) if offered else None,
    )
    return replace(bundle, errors={**bundle.errors, "decisions": _decisions(task, bundle)})


def _decisions(task: TrainingTask, bundle: Bundle) -> dict[str, float] | None:
    """What decisions over the bundle's forecasts lack and waste on validation; None if none can be made."""
    prices = task.train.gate.prices
    try:
        with torch.random.fork_rng(devices=[]):
            made = decide_over(
                bundle, task.dataset, "validation", Prices(prices.shortage, prices.start), DECISIONS
            )
    except (BundleError, DataError):
        return None  # labels that no replicas are chosen by, or no demand fit
    return made.shares()


def _templates(task: TrainingTask, fitted: Fitted, shown: Graphs) -> Tensor | None:
    """How the forecasts of all services and steps missed together on validation, `[K, H, N]`."""
    windows, device = fitted.trainer.windows, fitted.trainer.affinity.device
    ends = torch.from_numpy(fitted.ends["validation"]).to(device)
    if not len(ends):
        return None
    made = fitted.trainer.network.forecast_grid(windows, shown, ends, task.config.dataset.batch_size)
    found = templates(made, windows.targets(ends), TEMPLATES)
    return found.cpu() if len(found) else None


def _moments(task: TrainingTask, fitted: Fitted, shown: Graphs) -> Moments | None:
    """What followed moments of the training."""
    trainer, batch = fitted.trainer, task.config.dataset.batch_size
    ends = torch.from_numpy(fitted.ends["train"]).to(trainer.affinity.device)
    return remember(trainer.network, trainer.windows, shown, ends, batch)


def _meta(task: TrainingTask, windows: Windows) -> dict[str, object]:
    """What the data set says about itself, and what training found or chose."""
    meta = {key: value for key, value in task.dataset.meta.items() if key not in ("statistics", "bounds")}
    meta["season_seconds"] = None if windows.season is None else windows.season * meta["base_step"]
    kind = NETWORKS[task.name]
    meta["inputs"] = training_inputs(task.dataset).to_dict()
    meta["unrounded"] = (task.train.unrounded or kind.unrounded) and task.dataset.unrounded is not None
    return plain(meta)  # type: ignore[no-any-return]


def _subject(task: TrainingTask, fitted: Fitted) -> Subject:
    """What the graph is judged by."""
    trainer, device = fitted.trainer, fitted.trainer.affinity.device

    def another(seed: int) -> Trainer:
        """A trainer like this one on another seed, half as long and silent."""
        settings = task.train.model_copy(update={"seed": seed, "num_iter": max(task.train.num_iter // 2, 1)})
        silent = replace(task, train=settings, report=lambda progress: None)
        return _trainer(silent, trainer.windows, fitted.ends, device, None)

    return Subject(
        task.dataset,
        task.train,
        trainer,
        trainer.affinity,
        fitted.ends,
        fresh=lambda seed: task.fresh(seed).to(device),
        another=another,
    )
