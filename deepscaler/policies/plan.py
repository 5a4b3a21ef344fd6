"""`plan_bootstrap` and its kin: replicas by cost over scenarios of what may come, for all services."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import utc_text
from deepscaler.cluster import Pod, Workload
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.history import offered_history, since_first_request
from deepscaler.labels.rule import replicas_within
from deepscaler.panel import MetricPanel
from deepscaler.planning.altered import AS_THEY_ARE, Altered
from deepscaler.planning.plan import Plan, Prices, Running, plan_replicas
from deepscaler.planning.scenarios import Desk, Moment, Scenarios, ScenarioSource
from deepscaler.planning.trials import Trials
from deepscaler.policies.base import Observation, Policy, Proposal, Reason
from deepscaler.policies.budget import BudgetWatch
from deepscaler.policies.outlook import Budget, Learned, Outlook, Source, band
from deepscaler.policies.reactive import ReactiveFloor, limits_now

log = logging.getLogger(__name__)
Array = NDArray[np.float64]
Counts = NDArray[np.int64]
NO_SOURCE = "none"
"""Stands for moments without scenarios, when the floor decides."""
NEWEST_SOURCES = 500
"""So many changes of the source are remembered."""
LEAST_WEIGHT = 1e-12
BUDGET_UNIT = "share of violating minutes, over a day"
MOST_TOLD = 8000
"""An outlook tells so many needs, of services and steps together, at most: telling more takes too long."""


@dataclass(frozen=True, eq=False)
class _Made:
    """How the last plan was made.

    Attributes:
        now: when.
        found: the scenarios.
        needs: `[M, H, N]` replicas in them.
    """

    now: float
    found: Scenarios
    needs: NDArray[np.int64]

    def outlook(self, model: DemandModel, step: float) -> Outlook:
        """The same for people to see."""
        found, load = self.found, self.found.rates[:, :, model.entry_columns].sum(axis=2)  # [M, H]
        sources = {}
        for name, part in found.by_source().items():
            weights = found.weights[part]
            share = float(weights.sum())
            sources[name] = Source(share, band(load[part], weights / max(share, LEAST_WEIGHT))[:, 1])
        every = math.ceil(self.needs[0].size / MOST_TOLD)
        needed = band(
            self.needs[:, every - 1 :: every].astype(np.float64), found.weights
        )  # [H / every, N, 3]
        return Outlook(
            made=self.now,
            step=step,
            load=band(load, found.weights),
            replicas={name: needed[:, column] for column, name in enumerate(model.services)},
            every=every,
            sources=sources,
            season_seconds=found.season_seconds,
        )


class PlanPolicy(Policy):
    """Decides at each sample: scenarios of all services' rates, the plan by cost, the floor under it.

    The plan itself weighs how long replicas are worth holding, so its targets wait for no stabilization
    window. Without a plan (too little history, a service that the demand fit doesn't know) the floor
    decides, and the window applies.

    Args:
        model: the demand fit.
        source: what says what may come.
        floor: the reactive floor; None for a plan without one.
        prices: of a shortage and a start.
        history_seconds: how much of the past scenarios are drawn from.
        step: seconds between samples, and between decisions.
        name: name of the policy in run directories.
        about: what run.json keeps of the source.
        learned: the bundle that the source goes by.
        trials: the source, if it is one that judges others: what each cost is told and remembered.
        budget: moves the price of a shortage; None for fixed prices.
        load_seconds: how far back the load at the entries is looked at.
        altered: what is taken from the scenarios, for comparison.
        most: `[N]` replicas that may run at most, in the order of the model. A need beyond them counts as one
            more, so that the rail that cuts it can say so.
    """

    guarded = True

    def __init__(
        self,
        model: DemandModel,
        source: ScenarioSource,
        floor: ReactiveFloor | None,
        prices: Prices,
        history_seconds: float,
        step: float,
        name: str,
        about: Callable[[], Mapping[str, Any]] = dict,
        learned: Learned | None = None,
        trials: Trials | None = None,
        budget: BudgetWatch | None = None,
        load_seconds: float = 0.0,
        altered: Altered = AS_THEY_ARE,
        most: Sequence[int] | None = None,
    ) -> None:
        self.name = name
        self.period_seconds = step
        self.history_seconds = max(history_seconds, floor.history_seconds if floor else 0.0)
        self.load_seconds = load_seconds
        self._model, self._source, self._floor, self._prices = model, source, floor, prices
        self._about, self._learned, self._trials, self._budget = about, learned, trials, budget
        self._altered = altered
        self._most = np.array(most, np.int64) + 1 if most is not None else None
        self._made: _Made | None = None
        self._boot_seconds = np.nan_to_num(model.boot_seconds)
        self._column = {name: index for index, name in enumerate(model.services)}
        self._known = np.isfinite(model.demand_seconds)
        self._seen = self._known
        self._sources: deque[tuple[float, str]] = deque(maxlen=NEWEST_SOURCES)

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """The larger of plan and floor, for every live service."""
        floors = self._floor.replicas(observation) if self._floor else {}
        plan = self._plan(observation, floors)
        return {item.service: self._proposal(item, plan, floors) for item in observation.workloads}

    def describe(self) -> Mapping[str, Any]:
        """What run.json keeps: the source of scenarios, since when which one was used, trials and budget."""
        trials = {} if self._trials is None else {"trials": self._trials.describe()}
        budget = {} if self._budget is None else {"budget": self._budget.account().to_dict()}
        changes = [[utc_text(moment), source] for moment, source in self._sources]
        return {**self._about(), **trials, **budget, "scenario_sources": changes}

    def outlook(self) -> Outlook:
        """The scenarios that the plan was made from, and what speaks for it."""
        found = Outlook() if self._made is None else self._made.outlook(self._model, self.period_seconds)
        if self._trials is not None:
            found = replace(found, costs=self._trials.state())
        if self._budget is None:
            return found
        account = self._budget.account()
        budget = Budget(
            account.asked,
            account.consumed,
            BUDGET_UNIT,
            price=account.price,
            prior_price=account.prior_price,
            spending=account.spending,
            standing=account.standing.value,
            note=account.note,
        )
        return replace(found, budget=budget)

    def learned(self) -> Learned | None:
        """The bundle that the source goes by."""
        return self._learned

    def state(self) -> Mapping[str, Any]:
        """What the trials and the budget remember."""
        trials = {} if self._trials is None else {"trials": self._trials.state()}
        return trials if self._budget is None else {**trials, "budget": self._budget.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the trials and the budget of an earlier controller."""
        trials, budget = state.get("trials"), state.get("budget")
        if self._trials is not None and isinstance(trials, Mapping):
            self._trials.restore(trials)
        if self._budget is not None and isinstance(budget, Mapping):
            self._budget.restore(budget)

    def _plan(self, observation: Observation, floors: Mapping[str, float]) -> Plan | None:
        self._made = None
        panel = since_first_request(self._model, observation.panel)
        prices = self._prices if self._budget is None else self._budget.prices(observation.now, panel)
        running = running_now(self._model.services, self._boot_seconds, observation)
        limits = limits_now(self._model, observation.workloads)
        if self._budget is not None:
            self._budget.spends(observation, running, limits)
        usable = len(panel) and {"req", "res"} <= set(panel.features)
        rates = offered_history(self._model, panel) if usable else None
        if rates is None:
            self._note(observation.now, NO_SOURCE)
            return None
        self._seen = self._known & (rates.any(axis=0) | _called(panel, self._model.services))
        least = np.ceil(np.nan_to_num([floors.get(name, 0.0) for name in self._model.services])).astype(
            np.int64
        )
        desk = self._desk(self._needed(rates[-1], limits), running, limits, prices, least)
        found = self._source.scenarios(Moment(observation.now, rates, panel, desk, observation.load))
        usable = found is not None and bool(np.isfinite(found.rates).all())
        self._note(observation.now, found.source if found is not None and usable else NO_SOURCE)
        if found is None or not usable:
            return None
        found = self._altered(found)
        needs = self._needed(found.rates, limits)
        plan = self._cheapest(found, needs, running, prices)
        shadow = None if self._budget is None else self._budget.shadow(observation.steady)
        if self._budget is not None and shadow is not None:
            prior = self._cheapest(found, needs, shadow, self._budget.prior)
            self._budget.shadowed(prior, np.maximum(least, 1), observation.steady)
        self._made = _Made(observation.now, found, needs)
        return plan

    def _note(self, now: float, source: str) -> None:
        """Remember the moments at which the source changes."""
        if not self._sources or self._sources[-1][1] != source:
            self._sources.append((now, source))

    def _desk(self, needed: Counts, running: Running, limits: Array, prices: Prices, least: Counts) -> Desk:
        """What a source may ask of the plan, to judge itself."""

        def decide(found: Scenarios, running: Running) -> Counts:
            found = self._altered(found)
            needs = self._needed(found.rates, limits)
            held: Counts = np.maximum(self._cheapest(found, needs, running, prices).replicas, least)
            return held

        return Desk(needed, running, limits, self._boot_seconds, prices, decide)

    def _needed(self, rates: Array, limits: Array) -> Counts:
        """Replicas `[..., N]` that rates need, as far as they may run: a wild sample needs thousands."""
        needed = replicas_within(self._model, rates, limits)
        return needed if self._most is None else np.minimum(needed, self._most)

    def _cheapest(self, found: Scenarios, needs: Counts, running: Running, prices: Prices) -> Plan:
        step, lead = self.period_seconds, self._boot_seconds + self.period_seconds
        return plan_replicas(needs, found.weights, step, lead, running, prices, found.surprise)

    def _proposal(self, workload: Workload, plan: Plan | None, floors: Mapping[str, float]) -> Proposal:
        floor, column = floors.get(workload.service), self._column.get(workload.service)
        if column is None and floor is None:
            return Proposal(None, Reason.UNKNOWN_SERVICE)
        if plan is None or column is None or not self._seen[column]:
            return Proposal(floor, Reason.HELD_MISSING if floor is None else Reason.FLOOR, floor=floor)
        planned = float(plan.replicas[column])
        if floor is not None and floor > planned:
            return Proposal(floor, Reason.FLOOR, planned, floor, planned=True)
        why = plan.why(column)
        if planned != workload.replicas:
            log.info("%s: %s", workload.service, why)
        return Proposal(planned, Reason.PLAN, planned, floor, planned=True, why=why)


class ForeseenRates:
    """One scenario, the truth: what a plan could reach at best.

    Args:
        times: `[K]` seconds since the epoch, rising.
        rates: `[K, N]` true rates, uncongested.
        horizon: rows that the scenario looks ahead.
        surprises: rows, rising, with which something begins that isn't told before; until then the rates are
            told to stay as they are.
    """

    def __init__(self, times: Array, rates: Array, horizon: int, surprises: Sequence[int] = ()) -> None:
        self._times, self._rates, self._horizon = times, rates, horizon
        self._surprises = np.array([*surprises, len(rates)], np.int64)

    def scenarios(self, moment: Moment) -> Scenarios | None:
        """See `ScenarioSource`."""
        first = int(np.searchsorted(self._times, moment.now + 1e-6, side="right"))
        told = int(
            self._surprises[min(int(np.searchsorted(self._surprises, first)), len(self._surprises) - 1)]
        )
        rows = np.minimum(first + np.arange(self._horizon), max(told, 1) - 1)
        return Scenarios(self._rates[rows][None], np.ones(1), "truth")


def _called(panel: MetricPanel, services: Sequence[str]) -> NDArray[np.bool_]:
    """`[N]` is a request rate of the service known at any time, 0 included?"""
    known = np.isfinite(panel.feature("req"))
    column = {name: index for index, name in enumerate(panel.services)}
    return np.array([name in column and bool(known[:, column[name]].any()) for name in services])


def running_now(services: Sequence[str], boot_seconds: Array, observation: Observation) -> Running:
    """Ready replicas of each service, and the seconds until those that are starting will be ready.

    Pods beyond the spec are on their way out and don't count, nor do those that have failed or ended;
    replicas that have no pod yet start now.
    """
    spec = {item.service: item.replicas for item in observation.workloads}
    ready = dict.fromkeys(services, 0)
    begun: dict[str, list[float]] = {service: [] for service in services}
    for pod in observation.pods:
        if pod.service in ready and pod.there:
            if pod.ready:
                ready[pod.service] += 1
            else:
                begun[pod.service].append(_started(pod, observation.now))
    counts, remaining = [], []
    for service, boot in zip(services, boot_seconds.tolist(), strict=True):
        replicas = spec.get(service, 0)
        counts.append(min(ready[service], replicas))
        starts = sorted(begun[service])[: replicas - counts[-1]]
        starts += [observation.now] * (replicas - counts[-1] - len(starts))
        remaining.append(tuple(max(boot - (observation.now - start), 1.0) for start in starts))
    return Running(np.array(counts, np.int64), tuple(remaining))


def _started(pod: Pod, now: float) -> float:
    return now if pod.start_time is None or not math.isfinite(pod.start_time) else pod.start_time
