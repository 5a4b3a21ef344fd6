"""`--model_name all`: every network is trained on one data set with one budget, several seeds each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepscaler.errors import DeepScalerError
from deepscaler.learning.comparison_report import comparison_verdict, summarise
from deepscaler.learning.dataset import Dataset
from deepscaler.learning.entrants import EDGES, ENTRANTS, SIMPLE, Entrant
from deepscaler.learning.hyperparameters import network_sizes
from deepscaler.learning.judging import assess_splits, forecasts_of, is_replicas
from deepscaler.learning.saved_forecasts import save_forecasts
from deepscaler.learning.task import TrainingTask
from deepscaler.learning.train import fit
from deepscaler.settings import Comparison, ModelConfig, Train
from model.networks import parameter_count

Job = tuple[Entrant, int]
"""What is trained once: an entrant and a seed."""


def compare_networks(
    dataset: Dataset,
    config: ModelConfig,
    train: Train,
    *,
    full: bool,
    report: Callable[[str, int], None],
    entrants: Sequence[Entrant] = ENTRANTS,
    forecasts: Path | None = None,
) -> dict[str, Any]:
    """Train and judge every entrant; plain values.

    Args:
        dataset: what `data_process.py` made.
        config: settings of the data set and of each network.
        train: settings of the training; its section `comparison` is the budget.
        full: take sizes, window and epochs from the settings instead of the budget.
        report: called after each training with the entrant's label and the number of trainings in all.
        entrants: the rows.
        forecasts: directory that the forecasts of every training are written to, `<row>-<seed>.npz`.

    Raises:
        DataError, SettingsError: as training does.
    """
    budget = train.comparison
    jobs = [(entrant, seed) for entrant in entrants for seed in budget.seeds]
    runs: dict[Job, dict[str, Any]] = {}
    for job, run in _finished(dataset, config, train, jobs, full, forecasts):
        runs[job] = run
        report(job[0].label, len(jobs))
    rows = {entrant: summarise([runs[entrant, seed] for seed in budget.seeds]) for entrant in entrants}
    meta = dataset.meta if full else shortened(dataset, budget).meta
    return {
        "app": meta["app"],
        "label": meta["label"],
        "unit": "replicas" if is_replicas(meta) else str(meta["label"]).removeprefix("feature:"),
        "services": list(dataset.services),
        "horizon": meta["horizon"],
        "window": meta["window"],
        "unrounded": budget.unrounded and dataset.unrounded is not None,
        "budget": "the settings' own" if full else budget.model_dump(mode="json"),
        "seeds": list(budget.seeds),
        "rows": {entrant.label: {"told": entrant.told, **row} for entrant, row in rows.items()},
        "verdict": comparison_verdict(rows),
    }


def length_of_comparison(entrants: Sequence[Entrant], train: Train, full: bool) -> str:
    """How long a comparison can take, in a line."""
    budget = train.comparison
    trained = len([entrant for entrant in entrants if entrant.network not in SIMPLE]) * len(budget.seeds)
    epochs = f"the settings' own {train.num_iter} x {train.num_epoch} epochs"
    if not full:
        minutes = trained * budget.processor_seconds / 60 / budget.workers
        epochs = (
            f"at most {budget.epochs} epochs and about {budget.processor_seconds:g} s of a processor each, "
            f"at most {minutes:.0f} min in all with {budget.workers} worker(s)"
        )
    return f"{len(entrants)} rows, {trained} trainings of networks: {epochs}"


def shortened(dataset: Dataset, budget: Comparison) -> Dataset:
    """The data set with at most the budget's window."""
    return replace(dataset, meta={**dataset.meta, "window": min(budget.window, dataset.meta["window"])})


def task_of(
    entrant: Entrant, seed: int, dataset: Dataset, config: ModelConfig, train: Train, full: bool
) -> TrainingTask:
    """What to train for one row and seed."""
    budget = train.comparison
    sizes = network_sizes(config, entrant.network, None if full else budget.channels)
    train = train.model_copy(update={"unrounded": budget.unrounded, "seed": seed})
    if not full:
        train, dataset = _within(train, budget), shortened(dataset, budget)
    if entrant.without == EDGES:
        train = train.model_copy(update={"graph": train.graph.model_copy(update={"learner": "none"})})
        dataset = replace(dataset, priors={})
    elif entrant.without:
        sizes[entrant.without] = False
    section = getattr(config, entrant.network).model_copy(update=sizes)
    config = config.model_copy(update={entrant.network: section})
    return TrainingTask(dataset, entrant.network, config, train, Path(), told=entrant.wrapped)


def _within(train: Train, budget: Comparison) -> Train:
    """The training's settings, held to the budget."""
    return train.model_copy(
        update={
            "num_iter": budget.epochs,
            "num_epoch": 1,
            "stop_early": True,
            "patience": budget.patience,
            "processor_seconds": budget.processor_seconds,
            "graph": train.graph.model_copy(update={"trainer": "end_to_end"}),
            "optimiser": train.optimiser.model_copy(update={"learning_rate": budget.learning_rate}),
        }
    )


def run_one(task: TrainingTask) -> dict[str, Any]:
    """Train once, and return errors by split and what the training took.

    Seconds are of one processor; samples per second are per such second.
    """
    fitted = fit(task)
    trainer, dataset, course = fitted.trainer, task.dataset, fitted.trainer.course
    graphs = trainer.learner.graphs(trainer.affinity)
    out: dict[str, Any] = {
        "parameters": parameter_count(trainer.network)
        or sum(tensor.numel() for tensor in trainer.network.state_dict().values()),
        "samples_per_second": course.samples / course.processor_seconds if course.samples else None,
        "seconds": course.processor_seconds,
        "epochs": len(course.history),
    }
    made = forecasts_of(
        trainer.network,
        trainer.windows,
        graphs,
        dataset,
        fitted.ends,
        task.config.dataset.batch_size,
        task.train.unrounded or trainer.network.unrounded,
    )
    if task.forecasts:
        save_forecasts(task, fitted)
    return {**out, **assess_splits(dataset, made, fitted.ends)}


# ---------------------------------------------------------------------------------------------------- workers
def _finished(
    dataset: Dataset,
    config: ModelConfig,
    train: Train,
    jobs: Sequence[Job],
    full: bool,
    forecasts: Path | None,
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Jobs and their outcomes as they come.

    On a CPU `comparison.workers` processes work side by side, one thread each; on a GPU there is one after
    another.
    """
    tasks = {job: task_of(*job, dataset, config, train, full) for job in jobs}
    if forecasts:
        tasks = {
            job: replace(
                task,
                forecasts=forecasts / f"{job[0].label.replace(', ', '-').replace(' ', '_')}-{job[1]}.npz",
            )
            for job, task in tasks.items()
        }
    alone = train.comparison.workers == 1 or config.dataset.device.startswith("cuda")
    if alone or (config.dataset.device == "auto" and torch.cuda.is_available()):
        yield from ((job, run_one(task)) for job, task in tasks.items())
    else:
        yield from _side_by_side(dataset, tasks, train.comparison.workers)


def _side_by_side(
    dataset: Dataset, tasks: Mapping[Job, TrainingTask], workers: int
) -> Iterator[tuple[Job, dict[str, Any]]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(dataset,)
    ) as pool:
        try:
            waiting = {
                pool.submit(_run_light, replace(task, dataset=replace(task.dataset, **_NOTHING))): job
                for job, task in tasks.items()
            }
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except (DeepScalerError, KeyboardInterrupt):
            pool.shutdown(cancel_futures=True)
            raise


_NOTHING: dict[str, Any] = {
    "series": np.zeros(0, np.float32),
    "labels": np.zeros(0, np.float32),
    "unrounded": None,
    "present": None,
}
"""Stands in for the arrays of a task on its way to a worker, who is given them once, when it starts."""
_SHARED: list[Dataset] = []


def _start_worker(dataset: Dataset) -> None:
    torch.set_num_threads(1)
    _SHARED[:] = [dataset]


def _run_light(task: TrainingTask) -> dict[str, Any]:
    """Give the task its arrays back, and run it."""
    arrays = {name: getattr(_SHARED[0], name) for name in _NOTHING}
    return run_one(replace(task, dataset=replace(task.dataset, **arrays)))
