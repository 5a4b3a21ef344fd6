"""The graph, judged: what a run's report and bundle say about calls (given or inferred) and influence (learned)."""

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
from model.graph_check import Judge, check_graph, read_graph, rivals, slow_scores, slowest
from model.graph_learners import edge_floor
from model.graph_metrics import edges_above, pairs
from model.network import Network
from model.settings import CheckSettings
from model.trainer import Trainer

Matrix = NDArray[np.float64]
SOURCES = {
    "recorded": "recorded calls",
    "prior call": "the prior's calls",
    "structural": "calls inferred from telemetry",
}
LISTED = 5
"""Edges a service that the bundle's JSON lists, the strongest first."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is judged.

    Attributes:
        dataset, train: data and settings of the run.
        trainer: with the exported predictor in place.
        affinity: the exported affinity.
        ends: rows that windows of each split end at.
        fresh: a network on fresh weights, by seed.
        another: a whole further trainer, by seed.
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

    `calls` and `influence` list edges; `against_calls` and `against_reachability` hold a ranking a graph; `errors`,
    `refitted`, `refitted_by_seed` and `gain` compare predictors that see other graphs; `stability` compares further trainings.
    """
    dataset, train, learner = subject.dataset, subject.train, subject.trainer.learner
    influence = subject.affinity.detach().cpu().double().numpy()
    floor = edge_floor(learner, len(influence))
    priors = {name: prior.astype(np.float64) for name, prior in dataset.priors.items()}
    source, truth = known_calls(dataset)
    graphs = {"influence": influence, **{f"prior {name}": prior for name, prior in priors.items()}}
    if source != "structural" and "structural" in dataset.evidence:
        graphs["structural"] = dataset.evidence["structural"].astype(np.float64)
    checked = _check(subject)
    return {
        **checked,
        "gain": gains(checked["refitted_by_seed"]),
        "gain_over_random": gains(checked["refitted_by_seed"], "random_1"),
        **read_graph(influence, priors, floor, graphs, truth),
        "calls_source": source,
        "calls": list_edges(dataset, truth, "calls_per_second" if source == "recorded" else "weight"),
        "structural": list_edges(
            dataset, dataset.evidence.get("structural"), "share", t=dataset.evidence.get("structural_t")
        ),
        "influence": list_edges(dataset, np.where(edges_above(influence, floor), influence, 0.0), "weight"),
        "stability": stability([influence, *_further(subject)], truth, floor),
        "learner": train.graph.learner,
        "trainer": train.graph.trainer,
        "priors": list(priors),
        "best_iteration": subject.trainer.best.iteration,
    }


def known_calls(dataset: Dataset) -> tuple[str, Matrix | None]:
    """Where the reference for `calls` comes from, and the graph: recorded, else a prior `call`, else what telemetry says."""
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
    """Columns of the entry services: of the demand fit, else those that call and aren't called, else all."""
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
    """By split: change of the error with the learned graph against `rival`, in % of it, paired by seed; below 0 is better.

    `mean`, its 95 % t interval `low`..`high` (NaN with one seed) and `seeds`.
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
    """Edges by name, the strongest first, at most five a service."""
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


# ----------------------------------------------------------------------------------------------------------- stability
def _further(subject: Subject) -> list[Matrix]:
    """Affinities of `graph_seeds` further trainings."""
    found = []
    for seed in range(subject.train.seed + 1, subject.train.seed + 1 + subject.train.graph_seeds):
        trainer = subject.another(seed)
        while not trainer.finished:
            trainer.iterate()
        found.append(trainer.finish().detach().cpu().double().numpy())
    return found


def stability(graphs: Sequence[Matrix], truth: Matrix | None, floor: float) -> dict[str, Any] | None:
    """Do trainings of other seeds find the same graph? None for one alone.

    `spearman`: mean rank correlation of the weights over pairs of graphs; `jaccard`: mean overlap of their edges;
    `auroc`: of each against the calls.
    """
    if len(graphs) < 2:
        return None
    ranks = [rank_correlation(pairs(one), pairs(other)) for one, other in combinations(graphs, 2)]
    sets = [edges_above(graph, floor) for graph in graphs]
    overlaps = [
        float((a & b).sum() / (a | b).sum()) if (a | b).any() else 1.0 for a, b in combinations(sets, 2)
    ]
    scores = (
        []
        if truth is None
        else [
            read_graph(graph, {}, floor, {"it": graph}, truth)["against_calls"]["it"]["auroc"]
            for graph in graphs
        ]
    )
    return {
        "graphs": len(graphs),
        "spearman": float(np.mean(ranks)),
        "spearman_least": float(np.min(ranks)),
        "jaccard": float(np.mean(overlaps)),
        "auroc": scores,
    }


# ---------------------------------------------------------------------------------------------------------------- text
def graph_lines(graph: Mapping[str, Any]) -> list[str]:
    """The report's block: errors by graph, gain over the identity, both graphs against calls and reachability, stability."""
    columns = list(graph["errors"]["learned"])
    again = [name for name in columns if graph["refitted"]]
    rows = [["graph (|error|, z)", *columns, *(f"{name} refitted" for name in again)]]
    for name, values in graph["errors"].items():
        cells = [
            f"{graph['refitted'][name][column]:.4f}" if name in graph["refitted"] else "-" for column in again
        ]
        rows.append([name, *(f"{values[column]:.4f}" for column in columns), *cells])
    lines = [*table(rows), ""]
    for split, gain in graph["gain"].items():
        lines.append(f"learned against identity, refitted, {split}: {gain_text(gain)}")
    for name, changes in graph["against_priors"].items():
        lines.append(
            f"{graph['edges']} edges; against prior {name}: "
            + ", ".join(f"{count} {what}" for what, count in changes.items())
        )
    lines += _ranking_lines(graph)
    if graph["stability"]:
        found = graph["stability"]
        spread = f", AUROC {min(found['auroc']):.3f}-{max(found['auroc']):.3f}" if found["auroc"] else ""
        lines.append(
            f"{found['graphs']} trainings of other seeds: rank correlation {found['spearman']:.3f} "
            f"(least {found['spearman_least']:.3f}), edges in common {found['jaccard']:.3f}{spread}"
        )
    verdicts = [
        *_gain_verdict(graph["gain"], "no edge"),
        *_gain_verdict(graph["gain_over_random"], "the same weights on random pairs"),
    ]
    return [*lines, graph["verdict"], *verdicts]


def _ranking_lines(graph: Mapping[str, Any]) -> list[str]:
    if "against_calls" not in graph:
        return []
    calls, reach = graph["against_calls"], graph["against_reachability"]
    measures = {"auroc": "AUROC", "auprc": "AUPRC", "precision": "precision"}
    edges_known = int(next(iter(calls.values()))["edges"]), int(next(iter(reach.values()))["edges"])
    heads = [f"{what} {title}" for what in ("calls", "reach") for title in measures.values()]
    rows = [[f"graph against {SOURCES[graph['calls_source']]}", *heads]]
    for name in calls:
        rows.append([name, *(f"{scores[name][key]:.3f}" for scores in (calls, reach) for key in measures)])
    return [
        "",
        *table(rows),
        f"{edges_known[0]} calls, {edges_known[1]} pairs in reach; precision at these numbers of edges",
        "",
    ]


def gain_text(gain: Mapping[str, float]) -> str:
    """`-3.4 % [-4.1, -2.7], 5 seeds`."""
    interval = f" [{gain['low']:+.1f}, {gain['high']:+.1f}]" if np.isfinite(gain["low"]) else ""
    return f"{gain['mean']:+.1f} %{interval}, {gain['seeds']:.0f} seed(s)"


def _gain_verdict(gain: Mapping[str, Mapping[str, float]], rival: str) -> list[str]:
    """Whether the interval over seeds allows to say that the graph is worth something; nothing without several seeds."""
    split = "test" if "test" in gain else "validation"
    parts = []
    for key, where in ((split, "overall"), (f"{split}_slow", "in slow windows")):
        if key in gain and np.isfinite(gain[key]["low"]):
            told = (
                "better"
                if gain[key]["high"] < 0
                else "worse"
                if gain[key]["low"] > 0
                else f"not told apart from {rival}"
            )
            parts.append(f"{where} {gain_text(gain[key])}: {told}")
    return [f"Learned graph against {rival}, {split}: {'; '.join(parts)}."] if parts else []


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
