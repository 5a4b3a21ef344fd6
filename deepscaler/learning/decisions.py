"""What the decisions over a bundle's forecasts would have cost on a stretch of a data set, on replicas alone.

Each decision chooses replicas for all services; the next row says what was needed. A step costs what is held
(ready and starting), a price for what was missing, and a price for each start, in core-seconds.

* Bundles of scenarios (`offered`): the plan by cost over the bundle's scenarios and the live history, as
  `deepscaler` makes it (see `played_plans`), with pods that take their start-up time. What was needed follows
  from the offered rates and the data set's own demand fit.
* Bundles of replicas (`required`, `observed`): the forecast as the controller takes it. What was needed is
  the label, which looks ahead by the start-up, so replicas are there at once. Where it is no whole number
  (`observed`), it is rounded as the forecast is.

The floor takes no part: it is the same whatever the bundle.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from deepscaler.errors import BundleError
from deepscaler.learning.bundle import Bundle
from deepscaler.learning.dataset import Dataset
from deepscaler.learning.description import REPLICA_LABELS
from deepscaler.learning.judging import in_units, replica_cores
from deepscaler.learning.played_plans import play_plans
from deepscaler.learning.windowing import make_windows
from deepscaler.planning.plan import Prices
from model.forecast_errors import round_replicas
from model.layers import Graphs

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
BATCH = 64
SAME = ("app", "label", "step", "base_step")
"""What a bundle has to share with the data that it is judged on."""


@dataclass(frozen=True, eq=False)
class Decided:
    """What D decisions led to, all services together.

    Attributes:
        rows: `[D]` rows of the data set at which was decided.
        held: `[D]` core-seconds held in the step after each decision.
        short: `[D]` core-seconds that were missing of what was needed.
        excess: `[D]` core-seconds that were ready beyond it.
        started: `[D]` cores that were started.
        needed: `[D]` core-seconds that were needed.
    """

    rows: Rows
    held: Array
    short: Array
    excess: Array
    started: Array
    needed: Array

    def at(self, rows: Rows) -> Decided:
        """The decisions at these rows, which are among its own."""
        chosen = np.searchsorted(self.rows, rows)
        return Decided(*(getattr(self, item.name)[chosen] for item in fields(self)))

    def costs(self, prices: Prices) -> Array:
        """`[D]` core-seconds, with missing ones and starts at their prices."""
        return self.held + prices.shortage * self.short + prices.start * self.started

    def shares(self) -> dict[str, float]:
        """What was missing or too much as shares of the need, and cores started per core-hour of it."""
        needed = max(float(self.needed.sum()), 1e-9)
        return {
            "deficient": float(self.short.sum()) / needed,
            "excess": float(self.excess.sum()) / needed,
            "started": 3600 * float(self.started.sum()) / needed,
        }


def decide_over(bundle: Bundle, dataset: Dataset, split: str, prices: Prices, most: int) -> Decided:
    """The newest `most` decisions, a step apart, that the bundle would have led to in a split.

    Raises:
        BundleError: the bundle was trained for other services, features or steps than the data set has.
    """
    _check(bundle, dataset)
    view = _as_trained(bundle, dataset)
    ends = view.window_ends(split)[:: -view.dilation][:most][::-1]
    decide = _plans if bundle.meta["label"] == "offered" else _forecasts
    return decide(bundle, view, np.ascontiguousarray(ends), prices)


def _check(bundle: Bundle, dataset: Dataset) -> None:
    meta, data = bundle.meta, dataset.meta
    wrong = [(key, meta.get(key), data.get(key)) for key in SAME if meta.get(key) != data.get(key)]
    if set(bundle.services) != set(dataset.services):
        wrong.append(("services", list(bundle.services), list(dataset.services)))
    lacking = sorted(set(bundle.features) - set(data["features"]))
    wrong += [("features", list(bundle.features), list(data["features"]))] if lacking else []
    if wrong:
        key, mine, theirs = wrong[0]
        raise BundleError(f"trained for {key} {mine}, the data has {theirs}")
    if meta["label"] not in (*REPLICA_LABELS, "offered"):
        raise BundleError(f"forecasts {meta['label']!r}, by which no replicas are chosen")


def _as_trained(bundle: Bundle, dataset: Dataset) -> Dataset:
    """The data set in the bundle's order, window and statistics."""
    services = [dataset.services.index(name) for name in bundle.services]
    features = [dataset.meta["features"].index(name) for name in bundle.features]

    def ordered(values: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        return None if values is None else values[:, services]

    meta = {
        **dataset.meta,
        **{key: bundle.meta.get(key) for key in ("services", "features", "window", "horizon", "signed")},
        "season": bundle.meta.get("season_seconds"),
    }
    return replace(
        dataset,
        series=dataset.series[:, services][:, :, features],
        labels=dataset.labels[:, services],
        normalizer=bundle.normalizer,
        meta=meta,
        priors={},
        unrounded=ordered(dataset.unrounded),
        present=ordered(dataset.present),
    )


def _graphs(bundle: Bundle) -> Graphs:
    return Graphs(*(graph.cpu() for graph in bundle.graphs))


# ---------------------------------------------------------------------------------------- bundles of replicas
def _forecasts(bundle: Bundle, view: Dataset, ends: Rows, prices: Prices) -> Decided:
    windows = make_windows(view, torch.device("cpu"), unrounded=bundle.unrounded)
    scores = bundle.build().forecast(windows, _graphs(bundle), torch.from_numpy(ends), BATCH)
    made = in_units(scores, view, bundle.unrounded)  # [D, H, N]
    taken = made[:, 0] if bundle.meta["label"] == "required" else made.max(axis=1)
    chosen = round_replicas(taken)  # [D, N]
    needed = round_replicas(view.labels[ends + view.dilation].astype(np.float64))  # [D, N]
    started = np.maximum(np.diff(chosen, axis=0, prepend=chosen[:1]), 0.0)
    step = float(view.meta["step"])
    return _decided(ends, (chosen, chosen, started), needed, replica_cores(view), step)


# --------------------------------------------------------------------------------------- bundles of scenarios
def _plans(bundle: Bundle, view: Dataset, ends: Rows, prices: Prices) -> Decided:
    made = play_plans(bundle, view, ends, prices)
    step = float(view.meta["step"])
    return _decided(ends, (made.ready, made.held, made.started), made.needed, made.limit, step)


def _decided(
    rows: Rows, replicas: tuple[Array, Array, Array], needed: Array, limit: Array, step: float
) -> Decided:
    """Ready, held and started replicas in core-seconds; without a known need they count for nothing."""
    ready, held, started = replicas
    known = np.isfinite(needed)
    short = np.where(known, np.maximum(needed - ready, 0.0), 0.0) @ limit
    excess = np.where(known, np.maximum(ready - needed, 0.0), 0.0) @ limit
    return Decided(
        rows=rows,
        held=np.where(known, held, 0.0) @ limit * step,
        short=short * step,
        excess=excess * step,
        started=np.where(known, started, 0.0) @ limit,
        needed=np.where(known, needed, 0.0) @ limit * step,
    )
