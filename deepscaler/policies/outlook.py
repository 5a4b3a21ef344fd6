"""What a policy says of itself: what it foresees, by which sources, and what speaks for its replicas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.learning.bundle_file import BundleFile
from deepscaler.learning.inputs import Inputs

Array = NDArray[np.float64]
BAND = (0.1, 0.5, 0.9)
"""Quantiles of a band: its lower edge, its middle and its upper edge."""


@dataclass(frozen=True, eq=False)
class Source:
    """One source of scenarios.

    Attributes:
        weight: its share in the decision; those of all sources add up to 1.
        load: `[H]` requests per second of all entries that it foresees, the median of its scenarios.
    """

    weight: float
    load: Array


@dataclass(frozen=True)
class Learned:
    """The bundle that a policy goes by.

    Attributes:
        sha256: of its file.
        trained_until: time of the newest sample that it was trained on, in seconds since the epoch; None if
            it doesn't say so.
        calls: (caller, callee, calls per second, or a weight where they were inferred) of the training.
        influence: (caller, callee, weight) as the network learned them.
        inputs: how the training inputs were distributed; None if it doesn't say so.
        shares: (deficient, excess) replica-seconds of its decisions on validation, as shares of the need;
            None if it doesn't say so.
    """

    sha256: str
    trained_until: float | None = None
    calls: tuple[tuple[str, str, float], ...] = ()
    influence: tuple[tuple[str, str, float], ...] = ()
    inputs: Inputs | None = field(default=None, repr=False)
    shares: tuple[float, float] | None = None

    def usual_error(self, shortage: float) -> float:
        """What decisions wasted and, at this price, lacked on validation, relative to the need; or NaN."""
        return float("nan") if self.shares is None else self.shares[1] + shortage * self.shares[0]


@dataclass(frozen=True)
class Budget:
    """What a policy may spend, if it keeps to a budget.

    Attributes:
        asked: what is to be kept to.
        consumed: what was used up of it.
        unit: of both, in plain English: `violating minutes per month`.
        price: of a shortage now, in units of holding one replica for the same time; NaN if none is moved.
        prior_price: where it began.
        spending: core-hours of the last day over those at the prior price; NaN where that isn't watched.
        standing: how it goes, in a word; "" if it isn't said.
        note: the same in a phrase.
    """

    asked: float
    consumed: float
    unit: str
    price: float = math.nan
    prior_price: float = math.nan
    spending: float = math.nan
    standing: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Outlook:
    """What a policy foresaw when it decided last. It is for people and monitoring: nothing is decided by it.

    Attributes:
        made: when, in seconds since the epoch.
        step: seconds between the steps ahead, of which the first is one step after `made`.
        load: `[H, 3]` band of the requests per second of all entries; None if it foresees no load.
        replicas: service -> band of the replicas that it will need, `[H / every, 3]`.
        every: replicas are told for each so many-th step only.
        sources: name -> each source of scenarios that the decision went by.
        season_seconds: period of the load, if it repeats.
        costs: way of foreseeing -> what following it would have cost lately, in seconds of holding what was
            needed; the one that cost least decides.
        budget: None for a policy without one.
    """

    made: float = 0.0
    step: float = 0.0
    load: Array | None = None
    replicas: Mapping[str, Array] = field(default_factory=dict)
    every: int = 1
    sources: Mapping[str, Source] = field(default_factory=dict)
    season_seconds: float | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    budget: Budget | None = None


def band(values: NDArray[Any], weights: Array) -> Array:
    """Quantiles `BAND` of weighted values `[M, ...]`, as `[..., 3]`.

    The quantile q is the smallest value up to which the values have the weight q.
    """
    order = np.argsort(values, axis=0, kind="stable")
    ranked = np.take_along_axis(values, order, axis=0)
    reached = np.cumsum(weights[order], axis=0)
    places = [np.minimum((reached < level - 1e-9).sum(axis=0), len(values) - 1) for level in BAND]
    found: Array = np.stack([np.take_along_axis(ranked, place[None], axis=0)[0] for place in places], axis=-1)
    return found


def learned_from(file: BundleFile) -> Learned:
    """What a bundle's file says of its training."""
    graph, source = file.parts["graph"], file.parts["meta"].get("source")
    until = source.get("end") if isinstance(source, Mapping) else None
    return Learned(
        file.sha256,
        float(until) if isinstance(until, int | float) else None,
        _edges(graph.get("calls")),
        _edges(graph.get("influence")),
        Inputs.from_dict(file.parts["meta"].get("inputs")),
        _shares(file.parts["errors"].get("decisions")),
    )


def _shares(found: Any) -> tuple[float, float] | None:
    if not isinstance(found, Mapping):
        return None
    shares = found.get("deficient"), found.get("excess")
    if not all(isinstance(one, int | float) for one in shares):
        return None
    return float(found["deficient"]), float(found["excess"])


def _edges(rows: Any) -> tuple[tuple[str, str, float], ...]:
    """Pairs and their weights; calls that were inferred have a weight instead of a rate."""
    if not isinstance(rows, Sequence):
        return ()
    weights = [float(row.get("calls_per_second", row.get("weight", 0.0))) for row in rows]
    return tuple(
        (str(row["caller"]), str(row["callee"]), weight) for row, weight in zip(rows, weights, strict=True)
    )
