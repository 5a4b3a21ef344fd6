"""Judges the graph: what a bundle says about calls (given or inferred) and influence (learned)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscaler.learning.dataset import Dataset
from deepscaler.learning.hyperparameters import fill
from deepscaler.settings import Train
from deepscaler.statistics import rank_correlation, t_interval
from model.graph_check import Judge, check_graph, read_graph, slow_scores, slowest
from model.graph_learners import edge_floor
from model.graph_metrics import edges_above, pairs, ranking
from model.network import Network
from model.rivals import rivals
from model.settings import CheckSettings
from model.trainer import Trainer

Matrix = NDArray[np.float64]
LISTED = 5
"""Edges per service that the bundle's JSON lists at most, the strongest first."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A graph to judge, and what it was learned with.

    Attributes:
        dataset, train: data and settings of the run.
        trainer: with the exported predictor in place.
        affinity: the exported affinity.
        ends: rows that windows of each split end at.
        fresh: makes a network on fresh weights from a seed.
        another: makes a whole further trainer from a seed.
    """

    dataset: Dataset
    train: Train
    trainer: Trainer
    affinity: Tensor
    ends: Mapping[str, NDArray[np.int64]]
    fresh: Callable[[int], Network]
    another: Callable[[int], Trainer]


def judge_graph(subject: Subject) -> dict[str, Any]:
    """All that a bundle keeps about its graph; plain values.

    `calls`, `structural` and `influence` list edges. `against_calls` and `against_reachability` say how well
    each graph ranks the known calls. `errors`, `refitted`, `refitted_by_seed` and the gains compare
    predictors that see other graphs. `stability` compares further trainings.
    """
    dataset, train, learner = subject.dataset, subject.train, subject.trainer.learner
    influence = subject.affinity.detach().cpu().double().numpy()
    floor = edge_floor(learner, len(influence))
    priors = {name: prior.astype(np.float64) for name, prior in dataset.priors.items()}
    source, truth = known_calls(dataset)
    structural = dataset.evidence.get("structural")
    graphs = {"influence": influence, **{f"prior {name}": prior for name, prior in priors.items()}}
    if source != "structural" and structural is not None:
        graphs["structural"] = structural.astype(np.float64)
    checked = _check(subject)
    strong = np.where(edges_above(influence, floor), influence, 0.0)
    return {
        **checked,
        "gain": gains(checked["refitted_by_seed"]),
        "gain_over_random": gains(checked["refitted_by_seed"], "random_1"),
        **read_graph(influence, priors, floor, graphs, truth),
        "calls_source": source,
        "calls": list_edges(dataset, truth, "calls_per_second" if source == "recorded" else "weight"),
        "structural": list_edges(dataset, structural, "share", t=dataset.evidence.get("structural_t")),
        "influence": list_edges(dataset, strong, "weight"),
        "stability": stability([influence, *_further(subject)], truth, floor),
        "learner": train.graph.learner,
        "trainer": train.graph.trainer,
        "priors": list(priors),
        "best_iteration": subject.trainer.best.iteration + 1,  # counted from 1, as in history.csv
    }


def known_calls(dataset: Dataset) -> tuple[str, Matrix | None]:
    """The graph of calls that others are compared with, and where it comes from.

    That is the recorded calls, or else the prior `call`, or else what telemetry tells; None with `unknown`.
    """
    for source, graph in (
        ("recorded", dataset.evidence.get("calls")),
        ("prior call", dataset.priors.get("call")),
        ("structural", dataset.evidence.get("structural")),
    ):
        if graph is not None:
            known = graph.astype(np.float64)
            return source, np.where(edges_above(known), known, 0.0) if source == "structural" else known
    return "unknown", None


def entry_columns(dataset: Dataset) -> list[int]:
    """Columns of the entry services.

    They are those of the demand fit, or else services that call and aren't called, or else all.
    """
    demand = dataset.meta.get("demand")
    if demand:
        return [dataset.services.index(name) for name in demand["entries"] if name in dataset.services]
    source, truth = known_calls(dataset)
    if truth is not None and source != "structural":
        calls = truth > 0
        found: list[int] = np.flatnonzero(calls.any(axis=1) & ~calls.any(axis=0)).tolist()
        if found:
            return found
    return list(range(len(dataset.services)))


def _check(subject: Subject) -> dict[str, Any]:
    dataset, trainer, affinity = subject.dataset, subject.trainer, subject.affinity
    entries, device = entry_columns(dataset), affinity.device
    response = None
    if "res" in dataset.meta["features"]:
        response = dataset.series[:, entries, list(dataset.meta["features"]).index("res")]
    labels = trainer.windows.labels.cpu().numpy()
    splits = {
        name: torch.from_numpy(subject.ends[name]).to(device)
        for name in ("validation", "test")
        if len(subject.ends[name])
    }
    slow = {
        name: slowest(slow_scores(response, labels, subject.ends[name], dataset.dilation), rows)
        for name, rows in splits.items()
    }
    priors = {name: torch.from_numpy(prior).to(device) for name, prior in dataset.priors.items()}
    train = subject.train
    settings = fill(CheckSettings, train)
    if trainer.network.graph_use == "none":
        settings = replace(settings, refit_epochs=0)
    return check_graph(
        trainer.network,
        Judge(trainer.learner, trainer.windows, trainer.training, splits, slow),
        rivals(
            trainer.learner, affinity, priors, entries=entries, count=train.random_graphs, seed=train.seed
        ),
        settings=settings,
        training=trainer.settings,
        fresh=subject.fresh,
    )


def gains(
    by_seed: Mapping[str, Mapping[str, Sequence[float]]], rival: str = "identity"
) -> dict[str, dict[str, float]]:
    """How much the error changes, in %, when predictors see the learned graph instead of `rival`.

    Below 0 is better.

    Args:
        by_seed: errors of refitted predictors by graph and split, one per seed; changes are paired by seed.
        rival: name of the other graph.

    Returns:
        By split: `mean`, its 95 % t interval `low` to `high` (NaN with one seed), and `seeds`.
    """
    out = {}
    if "learned" in by_seed and rival in by_seed:
        for split, learned in by_seed["learned"].items():
            change = 100 * (np.asarray(learned) / np.asarray(by_seed[rival][split]) - 1)
            if np.isfinite(change).all():
                low, high = t_interval(change) or (float("nan"), float("nan"))
                out[split] = {
                    "mean": float(change.mean()),
                    "low": low,
                    "high": high,
                    "seeds": float(len(change)),
                }
    return out


def list_edges(
    dataset: Dataset,
    graph: NDArray[np.floating] | None,
    weight: str,
    *,
    t: NDArray[np.floating] | None = None,
) -> list[dict[str, Any]]:
    """Edges with the services' names, the strongest first, at most five per service.

    Args:
        dataset: names the services.
        graph: `[N, N]`, row = caller; None: no edges.
        weight: key of an entry's value.
        t: t values of the entries; where given, weak entries aren't listed.
    """
    if graph is None:
        return []
    found = edges_above(np.asarray(graph, np.float64)) if t is not None else np.asarray(graph) > 0
    np.fill_diagonal(found, False)
    order = sorted(np.argwhere(found).tolist(), key=lambda pair: -float(graph[pair[0], pair[1]]))
    names = dataset.services
    return [
        {
            "caller": names[i],
            "callee": names[j],
            weight: float(graph[i, j]),
            **({} if t is None else {"t": float(t[i, j])}),
        }
        for i, j in order[: LISTED * len(names)]
    ]


# -------------------------------------------------------------------------------------------------- stability
def _further(subject: Subject) -> list[Matrix]:
    """Affinities of `train.graph_seeds` further trainings."""
    found = []
    for seed in range(subject.train.seed + 1, subject.train.seed + 1 + subject.train.graph_seeds):
        trainer = subject.another(seed)
        while not trainer.finished:
            trainer.iterate()
        found.append(trainer.finish().detach().cpu().double().numpy())
    return found


def stability(graphs: Sequence[Matrix], truth: Matrix | None, floor: float) -> dict[str, Any] | None:
    """Do trainings with other seeds find the same graph? None where there is only one.

    Args:
        graphs: affinities `[N, N]`, one per training.
        truth: known calls.
        floor: least affinity that is read as an edge.

    Returns:
        `graphs`: their number; `spearman`, `spearman_least`: mean and least rank correlation of two graphs;
        `jaccard`: mean overlap of their edges; `auroc`: each graph's against the calls.
    """
    if len(graphs) < 2:
        return None
    ranks = [rank_correlation(pairs(one), pairs(other)) for one, other in combinations(graphs, 2)]
    sets = [edges_above(graph, floor) for graph in graphs]
    overlaps = [
        float((a & b).sum() / (a | b).sum()) if (a | b).any() else 1.0 for a, b in combinations(sets, 2)
    ]
    scores = [] if truth is None else [ranking(graph, truth)["auroc"] for graph in graphs]
    return {
        "graphs": len(graphs),
        "spearman": float(np.mean(ranks)),
        "spearman_least": float(np.min(ranks)),
        "jaccard": float(np.mean(overlaps)),
        "auroc": scores,
    }
