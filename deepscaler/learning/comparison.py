"""`--model_name all`: every network on one data set with one budget, several seeds each; tables with intervals."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepscaler.errors import DeepScalerError
from deepscaler.learning.dataset import Dataset
from deepscaler.learning.judging import JUDGED, in_units, is_replicas, targets
from deepscaler.learning.train import TrainingTask, fit
from deepscaler.settings import Comparison, ModelConfig, Train
from deepscaler.statistics import t_interval
from model.forecast_errors import forecast_errors
from model.networks import NETWORKS, parameter_count

MEASURES = {
    "mae": "MAE",
    "rmse": "RMSE",
    "mape": "MAPE",
    "under_provision": "under",
    "over_provision": "over",
}
WITHOUT = "identity"


@dataclass(frozen=True)
class Entrant:
    """A row of the table: a network, and what is changed about it.

    Attributes:
        network: a key of `NETWORKS`.
        change: `""`; `identity`: no edge, none learned; or a switch of its sizes that is turned off.
    """

    network: str
    change: str = ""

    @property
    def name(self) -> str:
        """As the table shows it."""
        return (
            self.network
            if not self.change
            else f"{self.network}, no {'edges' if self.change == WITHOUT else self.change}"
        )


ENTRANTS = (
    *(Entrant(name) for name in NETWORKS),
    Entrant("AdapGLA", WITHOUT),
    Entrant("AdapGLA", "attention"),
    Entrant("AdapGLS", WITHOUT),
    Entrant("AdapGLS", "twin"),
    Entrant("AdapGLS", "present"),
)
"""Every network, and the parts whose worth is asked: the graph, the attention, the twin, what is known of the next label."""


def compare(
    dataset: Dataset,
    config: ModelConfig,
    train: Train,
    *,
    full: bool,
    report: Callable[[str, int, int], None],
    entrants: Sequence[Entrant] = ENTRANTS,
) -> dict[str, Any]:
    """Train and judge; plain values.

    Args:
        dataset: what `data_process.py` made.
        config: data set and sizes.
        train: settings; `comparison` is the budget.
        full: sizes, window and epochs as configured instead of the budget's.
        report: called with a name, runs done and runs in all.
        entrants: rows.

    Raises:
        DataError, SettingsError: as training does.
    """
    budget = train.comparison
    jobs = [(entrant, seed) for entrant in entrants for seed in budget.seeds]
    runs: dict[tuple[Entrant, int], dict[str, Any]] = {}
    for job, run in _done(dataset, config, train, jobs, full):
        runs[job] = run
        report(job[0].name, len(runs), len(jobs))
    rows = {entrant.name: summarise([runs[entrant, seed] for seed in budget.seeds]) for entrant in entrants}
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
        "rows": rows,
        "verdict": verdict(rows),
    }


def shortened(dataset: Dataset, budget: Comparison) -> Dataset:
    """The data set with at most the budget's window."""
    return replace(dataset, meta={**dataset.meta, "window": min(budget.window, dataset.meta["window"])})


def task_of(
    entrant: Entrant, seed: int, dataset: Dataset, config: ModelConfig, train: Train, full: bool
) -> TrainingTask:
    """What to train for one row and seed."""
    budget, priors = train.comparison, dataset.priors
    sizes = getattr(config, entrant.network)
    changes: dict[str, Any] = {}
    train = train.model_copy(update={"unrounded": budget.unrounded})
    if not full:
        changes = {key: budget.channels for key in type(sizes).model_fields if key.endswith("channels")}
        train = train.model_copy(
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
        dataset = shortened(dataset, budget)
    if entrant.change == WITHOUT:
        train = train.model_copy(update={"graph": train.graph.model_copy(update={"learner": "none"})})
        priors = {}
    elif entrant.change:
        changes[entrant.change] = False
    config = config.model_copy(update={entrant.network: sizes.model_copy(update=changes)})
    return TrainingTask(
        replace(dataset, priors=priors),
        entrant.network,
        config,
        train.model_copy(update={"seed": seed}),
        Path(),
    )


def run_one(task: TrainingTask) -> dict[str, Any]:
    """Train once; errors by split, parameters, epochs, seconds of a processor and samples in each."""
    fitted = fit(task)
    trainer, dataset = fitted.trainer, task.dataset
    graphs = trainer.learner.graphs(trainer.affinity)
    out: dict[str, Any] = {
        "parameters": parameter_count(trainer.network)
        or sum(tensor.numel() for tensor in trainer.network.state_dict().values()),
        "samples_per_second": trainer.samples / trainer.processor_seconds if trainer.samples else None,
        "seconds": trainer.processor_seconds,
        "epochs": len(trainer.history),
    }
    for split in JUDGED:
        rows: NDArray[np.int64] = fitted.ends[split]
        if len(rows):
            chosen = torch.from_numpy(rows).to(trainer.affinity.device)
            scores = trainer.network.forecast(trainer.windows, graphs, chosen, task.config.dataset.batch_size)
            made = in_units(scores, dataset, task.train.unrounded)
            out[split] = forecast_errors(made, targets(dataset, rows), is_replicas(dataset.meta))
    return out


def _done(
    dataset: Dataset, config: ModelConfig, train: Train, jobs: Sequence[tuple[Entrant, int]], full: bool
) -> Iterator[tuple[tuple[Entrant, int], dict[str, Any]]]:
    """Jobs and their outcomes as they come, `comparison.workers` at a time, one thread each; on a GPU one after another."""
    tasks = {job: task_of(*job, dataset, config, train, full) for job in jobs}
    alone = train.comparison.workers == 1 or config.dataset.device.startswith("cuda")
    if alone or (config.dataset.device == "auto" and torch.cuda.is_available()):
        yield from ((job, run_one(task)) for job, task in tasks.items())
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        train.comparison.workers, mp_context=context, initializer=_start_worker, initargs=(dataset,)
    ) as pool:
        try:
            light = {
                job: replace(task, dataset=replace(task.dataset, **_NOTHING)) for job, task in tasks.items()
            }
            waiting = {pool.submit(_run_light, task): job for job, task in light.items()}
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
"""A worker is given the arrays once, not with every job."""
_SHARED: list[Dataset] = []


def _start_worker(dataset: Dataset) -> None:
    torch.set_num_threads(1)
    _SHARED[:] = [dataset]


def _run_light(task: TrainingTask) -> dict[str, Any]:
    whole = {name: getattr(_SHARED[0], name) for name in _NOTHING}
    return run_one(replace(task, dataset=replace(task.dataset, **whole)))


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds; of the measures with 95 % intervals, by split, step and service."""
    out: dict[str, Any] = {"parameters": runs[0]["parameters"]}
    for key in ("samples_per_second", "seconds", "epochs"):
        values = [run[key] for run in runs if run[key] is not None]
        out[key] = float(np.mean(values)) if values else None
    for split in JUDGED:
        if split not in runs[0]:
            continue
        found = [run[split] for run in runs]
        out[split] = {"windows": found[0]["windows"], "known": found[0]["known"]}
        for measure in MEASURES:
            values = [one[measure] for one in found]
            out[split][measure] = {
                "mean": float(np.mean(values)),
                "interval": t_interval(values),
                "by_seed": values,
            }
            for part in ("step", "service"):
                out[split][f"{measure}_by_{part}"] = np.mean(
                    [one[f"{measure}_by_{part}"] for one in found], axis=0
                ).tolist()
    return out


def verdict(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Plain sentences: who is best by MAE and RMSE, and what graph, attention and twin are worth."""
    split = "test" if all("test" in row for row in rows.values()) else "validation"

    def of(name: str, measure: str = "mae") -> float:
        return float(rows[name][split][measure]["mean"])

    lines = []
    for measure in ("mae", "rmse"):
        order = sorted((name for name in rows if ", no " not in name), key=lambda name: of(name, measure))
        ranked = ", ".join(f"{name} {of(name, measure):.4f}" for name in order[:4])
        lines.append(f"By {MEASURES[measure]} on {split}: {ranked}, ...")
    for name in rows:
        whole, _, part = name.partition(", no ")
        if part and whole in rows:
            pairs = zip(*(rows[key][split]["mae"]["by_seed"] for key in (whole, name)), strict=True)
            by_seed = [100 * (one / other - 1) for one, other in pairs]
            change = 100 * (of(whole) / of(name) - 1)
            lines.append(
                f"{whole} with {part}: {change:+.1f} % MAE against without ({min(by_seed):+.1f} to {max(by_seed):+.1f} by seed)."
            )
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------------- tables
def comparison_report(result: Mapping[str, Any], columns: Callable[[list[list[str]]], list[str]]) -> str:
    """Everything for the terminal; `columns` lays rows out."""
    rows: Mapping[str, Mapping[str, Any]] = result["rows"]
    lines = []
    for split in JUDGED:
        if not all(split in row for row in rows.values()):
            continue
        windows = next(iter(rows.values()))[split]["windows"]
        lines += [
            "",
            f"{result['app']}, {split}: {result['label']} ({result['unit']}), {windows} windows, seeds {result['seeds']}",
        ]
        lines += columns(_overall(rows, split))
        if split == "test" or "test" not in next(iter(rows.values())):
            for part, heads in (
                ("step", [f"step {step + 1}" for step in range(result["horizon"])]),
                ("service", result["services"]),
            ):
                for measure in ("mae", "rmse", "mape"):
                    lines += [
                        "",
                        *columns(
                            _by(rows, split, f"{measure}_by_{part}", f"{MEASURES[measure]} by {part}", heads)
                        ),
                    ]
    return "\n".join([*lines[1:], "", result["verdict"]])


def _overall(rows: Mapping[str, Mapping[str, Any]], split: str) -> list[list[str]]:
    table = [["", "MAE", "95 %", "RMSE", "MAPE", "under", "over", "parameters", "samples/s", "epochs", "s"]]
    for name, row in rows.items():
        errors, interval = row[split], row[split]["mae"]["interval"]
        speed = "-" if row["samples_per_second"] is None else f"{row['samples_per_second']:.0f}"
        shown = "-" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"
        cells = [f"{errors[key]['mean']:.4f}" for key in MEASURES]
        table.append(
            [
                name,
                cells[0],
                shown,
                *cells[1:],
                str(row["parameters"]),
                speed,
                f"{row['epochs']:.0f}",
                f"{row['seconds']:.1f}",
            ]
        )
    return table


def _by(
    rows: Mapping[str, Mapping[str, Any]], split: str, key: str, title: str, heads: Sequence[str]
) -> list[list[str]]:
    table = [[title, *rows]]
    for index, head in enumerate(heads):
        table.append([head, *(f"{row[split][key][index]:.4f}" for row in rows.values())])
    return table
