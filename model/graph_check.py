"""Is the learned graph real? Errors of the predictor with it and its rivals; its edges beside known ones."""

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
from model.graph_learners import GraphLearner
from model.graph_metrics import edge_changes, edges_above, ranking, reachable
from model.network import Network
from model.settings import CheckSettings, TrainSettings
from model.trainer import Trainer
from model.windows import Windows

SLOW_SHARE = 0.9
"""Windows whose score is at this quantile or above are slow."""
Errors = dict[str, float]
"""Mean |error| in z-units by split; `<split>_slow`: over its slow windows."""


def slow_scores(
    response: NDArray[np.floating] | None, labels: NDArray[np.floating], ends: NDArray[np.int64], rows: int
) -> NDArray[np.float64]:
    """How slow the windows are that end at rows `ends [M]`, `[M]`.

    Args:
        response: response times of the entries, `[L, E]`: a window's score is the worst at its end.
        labels: z-scored, `[L, N]`: without response times the score is the largest rise over the step after
            the window.
        ends: rows.
        rows: rows per step.
    """
    if response is not None:
        return np.asarray(
            np.nan_to_num(np.asarray(response, np.float64), nan=0.0)[ends].max(axis=1), np.float64
        )
    return np.asarray(np.nan_to_num(labels[ends + rows] - labels[ends], nan=0.0).max(axis=1), np.float64)


def slowest(scores: NDArray[np.float64], ends: Tensor) -> Tensor:
    """The tenth of `ends` with the highest scores.

    They are more where equal scores straddle the cut, and none where all scores are equal.
    """
    cut = np.quantile(scores, SLOW_SHARE) if len(scores) else 0.0
    chosen = scores >= cut if scores.size and scores.max() > scores.min() else np.zeros(len(scores), bool)
    return ends[torch.from_numpy(chosen).to(ends.device)]


@dataclass(frozen=True, eq=False)
class Judge:
    """Windows on which graphs are compared.

    Attributes:
        learner: says how a graph is shown to a network.
        windows: the series.
        training: rows that the windows of refits end at.
        splits, slow: rows that `validation` and `test` windows end at, and the slow ones among them.
    """

    learner: GraphLearner
    windows: Windows
    training: Tensor
    splits: Mapping[str, Tensor]
    slow: Mapping[str, Tensor]

    def errors(self, network: Network, graph: Tensor, batch_size: int) -> Errors:
        """Errors of `network` when it sees `graph`."""
        shown = self.learner.graphs(graph)
        ends = {**self.splits, **{f"{name}_slow": rows for name, rows in self.slow.items()}}
        return {
            name: mean_loss(network, shown, self.windows, rows, batch_size) for name, rows in ends.items()
        }

    def refitted(self, network: Network, graph: Tensor, training: TrainSettings) -> Errors:
        """Errors of `network`, which is on fresh weights, after it is fitted with `graph` fixed."""
        trainer = Trainer(
            network,
            self.learner,
            self.windows,
            training=self.training,
            validation=self.splits["validation"],
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
    """Errors by graph, of the predictor as it is and refitted, and a sentence about them; plain values.

    Args:
        network: the exported predictor.
        judge: windows and learner.
        graphs: what `rivals` returned.
        settings: of the refits.
        training: settings of the run, which the refits follow.
        fresh: makes a network on fresh weights from a seed.
    """
    errors = {name: judge.errors(network, graph, training.batch_size) for name, graph in graphs.items()}
    by_seed = _refit(judge, graphs, settings, training, fresh) if settings.refit_epochs else {}
    refitted = {
        name: {key: float(np.mean(values)) for key, values in found.items()}
        for name, found in by_seed.items()
    }
    verdict = graph_verdict(errors, by_seed)
    if network.graph_use == "none":
        verdict = f"{type(network).__name__} sees no graph, so none is judged."
    return {
        "errors": errors,
        "refitted": refitted,
        "refitted_by_seed": by_seed,
        "slow_windows": {name: len(ends) for name, ends in judge.slow.items()},
        "verdict": verdict,
    }


def _refit(
    judge: Judge,
    graphs: Mapping[str, Tensor],
    settings: CheckSettings,
    training: TrainSettings,
    fresh: Callable[[int], Network],
) -> dict[str, dict[str, list[float]]]:
    """Errors of predictors fitted anew with each of the chosen graphs, by graph and split, one per seed."""
    chosen = [name for name in graphs if not name.startswith("random_") or name == "random_1"]
    if settings.refit_graphs:
        chosen = [name for name in graphs if name in ("learned", *settings.refit_graphs)]
    by_seed = {}
    for name in chosen:
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
    return by_seed


def read_graph(
    affinity: NDArray[np.floating],
    priors: Mapping[str, NDArray[np.floating]],
    floor: float,
    graphs: Mapping[str, NDArray[np.floating]],
    calls: NDArray[np.floating] | None,
) -> dict[str, Any]:
    """The number of the affinity's edges, how they differ from priors, and how graphs rank known calls.

    Args:
        affinity: `[N, N]`.
        priors: `[N, N]` by name.
        floor: least affinity that is read as an edge.
        graphs: those that are ranked against calls and reachability, `[N, N]` by name.
        calls: known calls `[N, N]`; None: graphs aren't ranked.
    """
    out: dict[str, Any] = {
        "edges": int(edges_above(affinity, floor).sum()),
        "against_priors": {name: edge_changes(affinity, prior, floor) for name, prior in priors.items()},
    }
    if calls is not None:
        reach = reachable(calls).astype(np.float64)
        out["against_calls"] = {name: ranking(graph, calls) for name, graph in graphs.items()}
        out["against_reachability"] = {name: ranking(graph, reach) for name, graph in graphs.items()}
    return out


def graph_verdict(
    errors: Mapping[str, Mapping[str, float]], by_seed: Mapping[str, Mapping[str, Sequence[float]]]
) -> str:
    """A plain sentence: is the learned graph better than no edge, and than the same weights on random pairs?

    Only predictors that were fitted anew with each graph are compared: one that was trained on the learned
    graph and is shown another errs more whatever the graph is worth. It is about the test split, or about
    validation where there is no test split.

    Args:
        errors: by graph and split, of the predictor as trained.
        by_seed: by graph and split, of predictors fitted anew, one per seed; empty: there are none.
    """
    basis = by_seed or errors
    split = "test" if np.isfinite(basis["learned"].get("test", math.nan)).all() else "validation"
    if not by_seed:
        return (
            f"The learned graph isn't judged: error {errors['learned'][split]:.4f} with it and "
            f"{errors['identity'][split]:.4f} without any edge, on {split}, in z-units, are of one predictor "
            "whose graph was exchanged; fit it anew with each graph: train.refit_epochs above 0"
        )
    learned, identity = np.array(by_seed["learned"][split]), np.array(by_seed["identity"][split])
    random = np.concatenate(
        [values[split] for name, values in by_seed.items() if name.startswith("random_")] or [[]]
    )
    change = (learned.mean() / identity.mean() - 1) * 100 if identity.mean() > 0 else 0.0
    tail = ""
    if len(random):
        tail = f"; {random.mean():.4f} with the same weights on random pairs"
        if learned.mean() < identity.mean() and not learned.mean() < random.mean():
            tail += ", which is no worse: which edges it has doesn't matter"
    return (
        f"The learned graph {_compared(learned - identity)}: error {learned.mean():.4f} with it, "
        f"{identity.mean():.4f} without any edge ({change:+.1f} %){tail}. On {split}, in z-units, predictor "
        f"fitted anew with each graph, {len(learned)} seed(s)."
    )


def _compared(differences: NDArray[np.float64]) -> str:
    """What paired differences of errors say; whether that is beyond chance, intervals over seeds tell."""
    if (differences < 0).all():
        return "errs less than no edge" + (" with every seed" if len(differences) > 1 else "")
    return "is no better than no edge" if (differences >= 0).all() else "isn't told apart from no edge"
