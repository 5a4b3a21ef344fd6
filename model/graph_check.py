"""Is the learned graph real? The predictor's error with it beside its error with rival graphs, and its edges beside known ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.fitting import mean_loss
from model.graph_learners import GraphLearner, edge_floor
from model.graph_metrics import edge_changes, edges_above, pairs, ranking, reachable
from model.network import Network
from model.settings import CheckSettings, TrainSettings
from model.trainer import Trainer
from model.windows import Windows

SLOW_SHARE = 0.9
"""Windows from this quantile on are slow."""


def slow_scores(
    response: NDArray[np.floating] | None, labels: NDArray[np.floating], ends: NDArray[np.int64], rows: int
) -> NDArray[np.float64]:
    """How slow a window is, `[M]`: the entries' worst response `[L, E]` at its end.

    Without a response: the largest rise of a label (z-scored `[L, N]`) over the step after the window.
    """
    if response is not None:
        return np.asarray(
            np.nan_to_num(np.asarray(response, np.float64), nan=0.0)[ends].max(axis=1), np.float64
        )
    return np.asarray(np.nan_to_num(labels[ends + rows] - labels[ends], nan=0.0).max(axis=1), np.float64)


def slowest(scores: NDArray[np.float64], ends: Tensor) -> Tensor:
    """The tenth of `ends` with the highest scores (more where equal scores straddle the cut, none where all are equal)."""
    cut = np.quantile(scores, SLOW_SHARE) if len(scores) else 0.0
    chosen = scores >= cut if scores.size and scores.max() > scores.min() else np.zeros(len(scores), bool)
    return ends[torch.from_numpy(chosen).to(ends.device)]


def rivals(
    learner: GraphLearner,
    affinity: Tensor,
    priors: Mapping[str, Tensor],
    *,
    entries: Sequence[int],
    count: int,
    seed: int,
) -> dict[str, Tensor]:
    """Affinities by name: learned, each prior, identity, full, entry_to_all, permuted, transposed, random_1..count.

    Gates: graphs made elsewhere carry the mean weight of the learned edges, the full graph its mean weight over all
    pairs. Antisymmetric: they get self loops and the norm.
    """
    size = len(affinity)
    rng = np.random.default_rng(seed)
    off = ~np.eye(size, dtype=bool)
    matrix = affinity.detach().cpu().double().numpy()
    found = edges_above(matrix, edge_floor(learner, size))
    weight = float(matrix[found].mean()) if found.any() else 0.4
    average = float(pairs(matrix).mean()) if size > 1 else 0.0

    def ready(graph: NDArray[np.float64], largest: float) -> Tensor:
        return learner.given(torch.as_tensor(graph, dtype=affinity.dtype, device=affinity.device), largest)

    def exact(graph: NDArray[np.float64]) -> Tensor:
        return torch.as_tensor(graph, dtype=affinity.dtype, device=affinity.device)

    from_entries = np.zeros((size, size))
    from_entries[list(entries)] = 1.0
    np.fill_diagonal(from_entries, 0.0)
    shifted = _relabelling(matrix, rng)
    out = {"learned": affinity}
    out.update(
        {f"prior {name}": ready(prior.cpu().double().numpy(), weight) for name, prior in priors.items()}
    )
    out["identity"] = ready(np.zeros((size, size)), 0.0)
    out["full"] = ready(off.astype(np.float64), average)
    out["entry_to_all"] = ready(from_entries, weight)
    out["transposed"] = affinity.T.contiguous()
    out["permuted"] = exact(matrix[np.ix_(shifted, shifted)])
    for index in range(count):
        shuffled = matrix.copy()
        shuffled[off] = rng.permutation(matrix[off])
        out[f"random_{index + 1}"] = exact(shuffled)
    return out


def _relabelling(matrix: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A permutation of the services that changes the graph, where one is found in a few tries."""
    for _ in range(20):
        shifted = rng.permutation(len(matrix))
        if not np.allclose(matrix[np.ix_(shifted, shifted)], matrix):
            break
    return shifted


@dataclass(frozen=True, eq=False)
class Judge:
    """Windows on which graphs are compared.

    Attributes:
        learner: says how a graph is shown to a network.
        windows: the series.
        training: ends that refits train on.
        splits, slow: ends of `validation` and `test` windows, and of the slow ones among them.
    """

    learner: GraphLearner
    windows: Windows
    training: Tensor
    splits: Mapping[str, Tensor]
    slow: Mapping[str, Tensor]

    def errors(self, network: Network, graph: Tensor, batch_size: int) -> dict[str, float]:
        """Mean |error| in z-units by split, and by split on slow windows (`<split>_slow`)."""
        shown = self.learner.graphs(graph)
        out = {
            name: mean_loss(network, shown, self.windows, ends, batch_size)
            for name, ends in self.splits.items()
        }
        slow = {
            f"{name}_slow": mean_loss(network, shown, self.windows, ends, batch_size)
            for name, ends in self.slow.items()
        }
        return {**out, **slow}

    def refitted(self, network: Network, graph: Tensor, training: TrainSettings) -> dict[str, float]:
        """Errors of `network`, on fresh weights, after fitting it with `graph` fixed."""
        validation = self.splits["validation"]
        trainer = Trainer(
            network,
            self.learner,
            self.windows,
            training=self.training,
            validation=validation,
            settings=training,
            start=graph,
        )
        trainer.iterate()
        trainer.finish()
        return self.errors(network, graph, training.batch_size)


def check_graph(
    network: Network,
    judge: Judge,
    graphs: Mapping[str, Tensor],
    *,
    settings: CheckSettings,
    training: TrainSettings,
    fresh: Callable[[int], Network],
) -> dict[str, Any]:
    """Errors by graph, with the predictor as it is and refitted, and a sentence; plain values.

    Args:
        network: the exported predictor.
        judge: windows and learner.
        graphs: of `rivals`.
        settings: of this check.
        training: of the run, for the refits.
        fresh: a network on fresh weights, by seed.
    """
    errors = {name: judge.errors(network, graph, training.batch_size) for name, graph in graphs.items()}
    by_seed: dict[str, dict[str, list[float]]] = {}
    main = [name for name in graphs if not name.startswith("random_") or name == "random_1"]
    if settings.refit_graphs:
        main = [name for name in graphs if name in ("learned", *settings.refit_graphs)]
    for name in main if settings.refit_epochs else []:
        runs = []
        for seed in range(training.seed, training.seed + settings.refit_seeds):
            again = replace(
                training,
                num_iter=1,
                num_epoch=settings.refit_epochs,
                graph=replace(training.graph, learner="none", trainer="em"),
                seed=seed,
            )
            runs.append(judge.refitted(fresh(seed), graphs[name], again))
        by_seed[name] = {key: [run[key] for run in runs] for key in runs[0]}
    refitted = {
        name: {key: float(np.mean(values)) for key, values in found.items()}
        for name, found in by_seed.items()
    }
    return {
        "errors": errors,
        "refitted": refitted,
        "refitted_by_seed": by_seed,
        "slow_windows": {name: len(ends) for name, ends in judge.slow.items()},
        "verdict": verdict(errors, refitted),
    }


def read_graph(
    affinity: NDArray[np.floating],
    priors: Mapping[str, NDArray[np.floating]],
    floor: float,
    graphs: Mapping[str, NDArray[np.floating]],
    calls: NDArray[np.floating] | None,
) -> dict[str, Any]:
    """Edges of the affinity: their number, what changed against each prior; and how well each of `graphs` ranks known calls."""
    out: dict[str, Any] = {
        "edges": int(edges_above(affinity, floor).sum()),
        "against_priors": {name: edge_changes(affinity, prior, floor) for name, prior in priors.items()},
    }
    if calls is not None:
        reach = reachable(calls).astype(np.float64)
        out["against_calls"] = {name: ranking(graph, calls) for name, graph in graphs.items()}
        out["against_reachability"] = {name: ranking(graph, reach) for name, graph in graphs.items()}
    return out


def verdict(errors: Mapping[str, Mapping[str, float]], refitted: Mapping[str, Mapping[str, float]]) -> str:
    """A plain sentence: does the learned graph beat the identity, and the random graphs, on test (validation without one)?"""
    basis = refitted or errors
    how = "predictor fitted anew with each graph" if refitted else "predictor as trained, graph exchanged"
    split = "test" if math.isfinite(basis["learned"].get("test", math.nan)) else "validation"
    learned, identity = basis["learned"][split], basis["identity"][split]
    random = [values[split] for name, values in basis.items() if name.startswith("random_")]
    change = (learned / identity - 1) * 100 if identity > 0 else 0.0
    if not learned < identity:
        head = f"The learned graph does not beat the identity: error {learned:.4f} with it, {identity:.4f} without any edge"
    else:
        head = f"The learned graph beats the identity: error {learned:.4f} with it, {identity:.4f} without any edge"
    tail = (
        f"; {np.mean(random):.4f} with the same weights on random pairs ({len(random)} graph(s))"
        if random
        else ""
    )
    if random and learned < identity and not learned < min(random):
        tail += ", one of which is no worse: which edges it has doesn't matter"
    return f"{head} ({change:+.1f} %){tail}. On {split}, in z-units, {how}."
