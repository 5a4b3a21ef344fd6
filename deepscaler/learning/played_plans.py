"""The plan by cost played on a stretch of a data set, over all sources of scenarios that a bundle gives it.

It plans as `deepscaler` does: a season, the live past, the network's quantiles and what followed like moments
of the training are on trial, and what would have cost least lately decides. What is known at a moment is the
data set up to it. Of the weeks before nothing is known, so earlier days aren't among the sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from deepscaler.errors import BundleError
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.rule import replicas_within
from deepscaler.learning.bundle import Bundle
from deepscaler.learning.dataset import Dataset
from deepscaler.learning.windowing import make_windows
from deepscaler.panel import MetricPanel
from deepscaler.planning.plan import Prices, Running, plan_replicas
from deepscaler.planning.scenarios import ANALOGS, NETWORK, NETWORK_SURPRISE, Desk, Moment, Scenarios
from deepscaler.planning.sources import Asked, on_trial
from deepscaler.planning.trials import Trials
from model.analogs import Moments, alike, from_here
from model.joint import courses
from model.layers import Graphs

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Rows = NDArray[np.int64]
SCENARIOS, HORIZON_SECONDS, HISTORY_SECONDS = 48, 600.0, 10800.0
"""Scenarios of a source, how far they look ahead, and the live past: as `scale.plan` has them by default."""
BATCH = 64
NO_METRICS = MetricPanel(np.zeros(0), (), (), np.zeros((0, 0, 0), np.float32))


@dataclass(frozen=True, eq=False)
class Played:
    """What D plans, one after the other, led to.

    Attributes:
        ready, held, started: `[D, N]` replicas after each: ready, ready or starting, and newly started.
        needed: `[D, N]` replicas that the next step needed; NaN where that isn't known.
        limit: `[N]` CPU limits in cores.
        led: source of scenarios -> how many plans went by it.
    """

    ready: Array
    held: Array
    started: Array
    needed: Array
    limit: Array
    led: dict[str, int]


def play_plans(bundle: Bundle, view: Dataset, ends: Rows, prices: Prices) -> Played:
    """Plan at each of the rows `ends` (rising, a step apart) on the pods that the plans before have left.

    Args:
        bundle: trained on the label `offered`.
        view: the data set in the bundle's order, window and statistics.
        ends: `[D]` rows.
        prices: of a shortage and a start.

    Raises:
        BundleError: it has no scenarios, or neither it nor the data has a demand fit.
    """
    if bundle.templates is None:
        raise BundleError("has no scenarios")
    truth = _demand(view.meta["demand"], bundle.services, "the data")
    model = _demand(bundle.meta["demand"] or view.meta["demand"], bundle.services, "the bundle")
    step = float(view.meta["step"])
    horizon = round(HORIZON_SECONDS / step)
    asked = Asked(horizon, SCENARIOS, step, model.entry_columns, model.usual_shares)
    trials = on_trial(asked, _learned(bundle, view, ends, asked.horizon))
    rates = view.labels[ends + view.dilation].astype(np.float64)
    needed = replicas_within(truth, rates, truth.limit_cores).astype(np.float64)
    needed = np.where(np.isfinite(rates), needed, np.nan)  # [D, N]
    pods = _Pods(np.nan_to_num(needed[0], nan=1.0).astype(np.int64), np.nan_to_num(model.boot_seconds))
    desk = _Desk(model, step, prices)
    ready, held, started = np.zeros((3, *needed.shape))
    for index, (now, past) in enumerate(zip(view.times[ends], _pasts(view, ends, step), strict=True)):
        targets = desk.decide(trials, float(now), past, pods.running())
        started[index] = pods.scale(targets)
        ready[index], held[index] = pods.ready, pods.ready + pods.starting
        pods.pass_by(step)
    limit = np.nan_to_num(truth.limit_cores, nan=1.0)
    return Played(ready, held, started, needed, limit, dict(trials.led))


def _pasts(view: Dataset, ends: Rows, step: float) -> list[Array]:
    """The offered rates `[L, N]` up to each row, a step apart, from the first one that is known on.

    Gaps hold the last value. Where nothing is known yet there is a row of zeros.
    """
    filled = pd.DataFrame(view.labels.astype(np.float64)).ffill().to_numpy()
    count, every = round(HISTORY_SECONDS / step), view.dilation
    pasts = [filled[end % every : end + 1 : every][-count:] for end in ends]
    known = [past[np.isfinite(past).all(axis=1)] for past in pasts]
    return [past if len(past) else np.zeros((1, filled.shape[1])) for past in known]


@dataclass(frozen=True, eq=False)
class _Desk:
    """Decides over the scenarios of the sources on trial."""

    model: DemandModel
    step: float
    prices: Prices

    def decide(self, trials: Trials, now: float, past: Array, running: Running) -> Counts:
        """Replicas `[N]`; without any scenarios those that the present rates need."""
        limits, boot = self.model.limit_cores, np.nan_to_num(self.model.boot_seconds)
        needed = replicas_within(self.model, past[-1], limits)
        desk = Desk(needed, running, limits, boot, self.prices, self._planned)
        found = trials.scenarios(Moment(now, past, NO_METRICS, desk))
        return needed if found is None else self._planned(found, running)

    def _planned(self, found: Scenarios, running: Running) -> Counts:
        lead = np.nan_to_num(self.model.boot_seconds) + self.step
        needs = replicas_within(self.model, found.rates, self.model.limit_cores)
        return plan_replicas(
            needs, found.weights, self.step, lead, running, self.prices, found.surprise
        ).replicas


class _Pods:
    """Pods that take their time to start."""

    def __init__(self, ready: Counts, boot: Array) -> None:
        self.ready, self._boot = ready, boot
        self._left: list[list[float]] = [[] for _ in boot]  # seconds until each is ready, ascending

    @property
    def starting(self) -> Counts:
        """How many of each service."""
        return np.array([len(one) for one in self._left])

    def running(self) -> Running:
        """What a plan is told."""
        return Running(self.ready.copy(), tuple(tuple(max(left, 1.0) for left in one) for one in self._left))

    def scale(self, targets: Counts) -> Counts:
        """Bring all services to their targets, what isn't ready goes first; returns how many were started."""
        started = np.zeros(len(targets), np.int64)
        for service, target in enumerate(targets.tolist()):
            starting = self._left[service]
            more = target - int(self.ready[service]) - len(starting)
            started[service] = max(more, 0)
            starting.extend([float(self._boot[service])] * more)
            while more < 0 and starting:
                starting.pop()
                more += 1
            self.ready[service] += min(more, 0)
        return started

    def pass_by(self, seconds: float) -> None:
        """Time passes."""
        for service, starting in enumerate(self._left):
            left = [rest - seconds for rest in starting]
            self.ready[service] += sum(rest <= 0 for rest in left)
            self._left[service] = [rest for rest in left if rest > 0]


class _Shown:
    """A bundle's scenarios at the moments of a data set.

    Args:
        name: of the source.
        times: `[D]` the moments.
        made: courses `[K, H', N]` at the i-th moment; the last of a shorter forecast holds on.
        horizon: H rows.
    """

    def __init__(self, name: str, times: Array, made: Callable[[int], Array], horizon: int) -> None:
        self._name, self._made, self._horizon = name, made, horizon
        self._index = {float(time): index for index, time in enumerate(times)}

    def scenarios(self, moment: Moment) -> Scenarios | None:
        """See `ScenarioSource`."""
        found = self._made(self._index[moment.now])
        found = found[:, np.minimum(np.arange(self._horizon), found.shape[1] - 1)]
        weights = np.full(len(found), 1.0 / len(found))
        return Scenarios(found, weights, self._name, NETWORK_SURPRISE)


def _learned(bundle: Bundle, view: Dataset, ends: Rows, horizon: int) -> dict[str, _Shown]:
    """The sources of the bundle, with what they say at each of the rows."""
    network, windows = bundle.build(), make_windows(view, torch.device("cpu"))
    graphs, rows = Graphs(*(graph.cpu() for graph in bundle.graphs)), torch.from_numpy(ends)
    grid = network.forecast_grid(windows, graphs, rows, BATCH)  # [Q, D, H, N]
    templates = bundle.templates
    assert templates is not None
    places = torch.linspace(0, len(templates) - 1, min(SCENARIOS, len(templates)))
    template = templates[places.round().long()]  # [K, H, N]

    def values(scores: torch.Tensor) -> Array:
        return view.normalizer.label_values(scores.double().numpy())

    def quantiles(index: int) -> Array:
        return values(courses(grid[:, index], template))

    found = {NETWORK: _Shown(NETWORK, view.times[ends], quantiles, horizon)}
    if bundle.moments is not None:
        moments: Moments = bundle.moments
        states = network.states(windows, graphs, rows, BATCH)  # [D, C]

        def analogs(index: int) -> Array:
            followed = alike(moments, states[index], SCENARIOS)
            return values(from_here(followed, windows, rows[index : index + 1]))

        found[ANALOGS] = _Shown(ANALOGS, view.times[ends], analogs, horizon)
    return found


def _demand(found: dict[str, object] | None, services: tuple[str, ...], whose: str) -> DemandModel:
    if not found:
        raise BundleError(f"{whose} has no demand fit")
    model = DemandModel.from_dict(found)
    order = [model.services.index(name) for name in services]
    return replace(
        model,
        services=services,
        **{
            name: getattr(model, name)[order]
            for name in ("idle_cores", "demand_seconds", "limit_cores", "boot_seconds")
        },
        visits=model.visits[:, order],
        spare_cores=None if model.spare_cores is None else model.spare_cores[order],
    )
