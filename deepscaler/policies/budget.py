"""What a plan with a budget of violating minutes watches: minutes of the entries, and what it spends."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.errors import DataError
from deepscaler.labels.demand import DemandModel, entered_response, told
from deepscaler.panel import MetricPanel
from deepscaler.planning.budget import Account, Budget, Minute
from deepscaler.planning.paper import Paper
from deepscaler.planning.plan import Plan, Prices, Running
from deepscaler.policies.base import Observation

log = logging.getLogger(__name__)
Array = NDArray[np.float64]
Counts = NDArray[np.int64]
MINUTE_SECONDS = 60.0
TOLD_RATIO = 1.5
"""The log tells of the price whenever it has moved by this factor."""


@dataclass
class _Ticks:
    """What the ticks of a minute saw: whether pods were starting, and the mean cores of the targets."""

    starting: bool = False
    cores: float = 0.0
    prior_cores: float = 0.0
    count: int = 0

    def minute(self, number: int, violating: bool | None) -> Minute:
        """The same as the minute of a budget."""
        share = 1.0 / max(self.count, 1)
        return Minute(number, violating, self.starting, self.cores * share, self.prior_cores * share)


class BudgetWatch:
    """Tells a budget what happened, and a plan the prices that follow.

    Args:
        budget: finds the price of a shortage.
        prices: those of the first day.
        model: the demand fit.
        sla: bound on the mean entry response of a minute, in seconds.
        step: seconds between samples; minutes are that long if it exceeds 60.
        bounds: fewest and most replicas of each service, where the budget has a ceiling on what it spends, so
            that this is watched; else None.
    """

    def __init__(
        self,
        budget: Budget,
        prices: Prices,
        model: DemandModel,
        sla: float,
        step: float,
        bounds: Sequence[tuple[int, int]] | None,
    ) -> None:
        self._budget, self._prior, self._sla = budget, prices, sla
        self._entries, self._among = model.entries, model.among_entries
        self._seconds = max(MINUTE_SECONDS, step)
        self._shadow = None if bounds is None else Paper(np.nan_to_num(model.boot_seconds))
        self._bounds: Counts = np.array(bounds or [], np.int64).reshape(-1, 2)
        self._asleep = np.zeros(len(model.services), np.bool_)
        self._ticks: dict[int, _Ticks] = {}
        self._told = ("", math.nan)

    def prices(self, now: float, panel: MetricPanel) -> Prices:
        """The prices after all minutes that are over by `now`."""
        last = math.floor(now / self._seconds + 1e-6) - 1
        newest = self._budget.newest
        if newest is not None and newest > last:
            self._budget.rewind(last)
            newest = self._budget.newest
        if newest is not None:
            judged = violating_minutes(
                panel, self._entries, self._among, self._sla, self._seconds, newest, last
            )
        else:
            judged = {last: None}  # it begins with the minute to come
        self._budget.observe(
            self._ticks.pop(number, _Ticks()).minute(number, bad) for number, bad in judged.items()
        )
        self._ticks = {number: ticks for number, ticks in self._ticks.items() if number > last}
        self._tell()
        return replace(self._prior, shortage=self._budget.price)

    def spends(self, observation: Observation, running: Running, limits: Array) -> None:
        """Note what is held at this tick, before it decides."""
        number = math.ceil(observation.now / self._seconds + 1e-6) - 1
        ticks = self._ticks.setdefault(number, _Ticks())
        ticks.starting |= any(running.remaining)
        if self._shadow is None:
            return
        if self._budget.price == self._prior.shortage:
            self._shadow.follow(running, observation.steady)
        self._asleep = _total(running) == 0
        ticks.cores += float(limits @ _total(running))
        ticks.prior_cores += float(limits @ _total(self._shadow.running(observation.steady)))
        ticks.count += 1

    def shadow(self, now: float) -> Running | None:
        """What a plan at the prior price would be running at a steady `now`.

        None if that isn't watched or is what runs.
        """
        if self._shadow is None or self._budget.price == self._prior.shortage:
            return None
        return self._shadow.running(now)

    def shadowed(self, plan: Plan, floor: Counts, now: float) -> None:
        """Take the plan at the prior price at a steady `now`, with the floor under it and within the rails.

        A service whose owner set it to 0 stays there at any price.
        """
        if self._shadow is not None:
            replicas = np.clip(np.maximum(plan.replicas, floor), self._bounds[:, 0], self._bounds[:, 1])
            self._shadow.scale(np.where(self._asleep, 0, replicas), now)

    @property
    def prior(self) -> Prices:
        """The prices of the first day."""
        return self._prior

    def account(self) -> Account:
        """Where the budget stands."""
        return self._budget.account()

    def state(self) -> dict[str, Any]:
        """What the budget remembers."""
        return self._budget.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there; what can't be read is logged and left out."""
        try:
            self._budget.restore(state)
        except DataError as error:
            log.warning("%s", error)

    def _tell(self) -> None:
        account = self._budget.account()
        note, price = self._told
        if account.note == note and 1 / TOLD_RATIO < account.price / price < TOLD_RATIO:
            return
        self._told = (account.note, account.price)
        log.info(
            "budget: %d of %d known minutes of the last day violate (%d unknown), %.2g %% are asked: %s; "
            "a shortage costs %.3g, at first %.3g",
            account.violating,
            account.known,
            account.unknown,
            100 * account.asked,
            account.note,
            account.price,
            account.prior_price,
        )


def violating_minutes(
    panel: MetricPanel,
    entries: tuple[str, ...],
    among: Array,
    sla: float,
    seconds: float,
    after: int,
    last: int,
) -> dict[int, bool | None]:
    """Number of each minute after `after` up to `last` -> whether its mean entry response exceeds the SLA.

    The mean is weighted by requests from outside, as in the evaluation. A minute without requests or without
    samples isn't known (None). Minutes before the panel are left out.

    Args:
        panel: samples with the features req and res.
        entries: the E services at which requests enter.
        among: `[E, E]` requests that each entry serves per external request at each entry.
        sla: in seconds.
        seconds: length of a minute.
        after: the newest minute that is known already.
        last: the newest minute that is over.
    """
    there = [row for row, name in enumerate(entries) if name in panel.services]
    columns = [panel.services.index(entries[row]) for row in there]
    usable = bool(columns) and {"req", "res"} <= set(panel.features)
    numbers = np.ceil(panel.times / seconds - 1e-6).astype(np.int64) - 1
    first = max(after + 1, int(numbers[0])) if len(numbers) else last
    found: dict[int, bool | None] = dict.fromkeys(range(first, last + 1))
    rows = np.flatnonzero((numbers >= first) & (numbers <= last)) if usable else np.zeros(0, np.int64)
    if not len(rows):
        return found
    served, means = (panel.feature(name)[rows][:, columns].astype(np.float64) for name in ("req", "res"))
    response = entered_response(among[np.ix_(there, there)], served, means)
    response = told(None if panel.waited is None else panel.waited[rows], response)
    done = np.where(np.isfinite(response), np.nansum(served, axis=1), 0.0)
    place = numbers[rows] - first
    total = np.bincount(place, done)
    summed = np.bincount(place, done * np.nan_to_num(response))
    for offset in np.flatnonzero(total > 0).tolist():
        found[first + offset] = bool(summed[offset] / total[offset] > sla)
    return found


def _total(running: Running) -> Counts:
    return running.ready + np.array([len(each) for each in running.remaining], np.int64)
