"""The set S of candidate graphs of expectation-maximisation, and their loss-weighted union."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.settings import Weighting


class Candidates:
    """At most `capacity` graphs `[N, N]` with their validation losses; the worst leave when it is full.

    Args:
        capacity: |S|.
        seeds: graphs that it starts with, the priors'. All of them compete when the first graph joins, which
            is when there is a predictor to score them with; until then their losses are infinite.
    """

    def __init__(self, capacity: int, seeds: Sequence[Tensor] = ()) -> None:
        self.capacity = capacity
        self.graphs: list[tuple[Tensor, float]] = [(graph, math.inf) for graph in seeds]

    def add(self, graph: Tensor, score: Callable[[Tensor], float]) -> None:
        """Take in `graph`, score all with the present predictor, drop the worst beyond the capacity."""
        members = [member for member, _ in self.graphs] + [graph]
        scored = [(member, score(member)) for member in members]
        while len(scored) > self.capacity:
            scored.pop(max(range(len(scored)), key=lambda index: scored[index][1]))
        self.graphs = scored

    def union(self, weighting: Weighting) -> Tensor:
        """Weighted mean of the graphs, `[N, N]`."""
        weights = union_weights([loss for _, loss in self.graphs], weighting)
        return torch.stack(
            [weight * graph for (graph, _), weight in zip(self.graphs, weights, strict=True)]
        ).sum(0)


def union_weights(losses: list[float], weighting: Weighting) -> list[float]:
    """Softmax of -loss / temperature.

    With `spread` the temperature is a third of the losses' spread, so that they tell the graphs apart; with
    `raw` it is 1.
    """
    values = torch.tensor(losses, dtype=torch.float64)
    temperature = 1.0 if weighting == "raw" else float(values.max() - values.min()) / 3
    scaled = -values / temperature if temperature > 0 else torch.zeros_like(values)
    weights: list[float] = torch.softmax(scaled, 0).tolist()
    return weights
