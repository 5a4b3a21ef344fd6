"""The plan by cost: how many replicas of each service are worth their price over all scenarios.

Costs add up over replica levels, so each level (the second replica, the third, ...) of each service is a
small on/off problem of its own. Holding a level costs its CPU limit. Being without it while it is needed
costs the shortage price. Starting it costs the price of a start and takes the pod's start-up time. Backward
dynamic programming gives the cheapest course of each level in each scenario; a level runs if running it is
cheaper on average over the scenarios.

A course that knows its scenario starts a replica just in time for a need that nobody could foresee, which
makes waiting look too cheap. So a part of the weight goes to courses that start a replica later only if it is
needed at that moment or its need can be foreseen. The rest keeps the knowledge: on bursts that return, being
always prepared costs more than it saves.

Source: hindsight optimisation over scenarios; switching costs as in Lin, Wierman, Andrew, Thereska:
"Dynamic right-sizing for power-proportional data centers" (INFOCOM 2011).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]

AGREED = 0.25
"""A later start is foreseen if this share of the scenarios needs the replica when it would be ready."""
SAME = 1e-9
"""Sums of weights that differ by less are the same: in which order they were added up doesn't decide."""
EXPECTED = 0.5
"""It is foreseen as well if this share of the moments like that one was followed by the need."""
TREND_STEPS = 4
"""Moments are alike if the same replicas are needed and the need moved the same way over these steps."""


@dataclass(frozen=True)
class Prices:
    """What the plan weighs, in units of holding one replica for one second.

    Attributes:
        shortage: price of one missing replica per second.
        start: price of starting one replica.
    """

    shortage: float
    start: float


@dataclass(frozen=True, eq=False)
class Running:
    """What runs now.

    Attributes:
        ready: `[N]` ready replicas of each service.
        remaining: N tuples of seconds, ascending: when each replica that is starting will be ready.
    """

    ready: Counts
    remaining: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """The chosen replicas and what speaks for them.

    Attributes:
        replicas: `[N]` replicas to have now.
        share: `[N]` weight of the scenarios that need that many at some time within the horizon.
        wait_seconds: `[N]` mean time until they need them, over those scenarios; NaN if none does.
        scenarios: number of scenarios.
    """

    replicas: Counts
    share: Array
    wait_seconds: Array
    scenarios: int

    def why(self, service: int) -> str:
        """What speaks for the replicas of a service, in a phrase."""
        replicas, share = int(self.replicas[service]), float(self.share[service])
        if not share:
            return f"{replicas} kept: a new start would cost more"
        when = f"in {self.wait_seconds[service]:.0f} s" if self.wait_seconds[service] > 0 else "now"
        needing = max(round(share * self.scenarios), 1)  # a rare one weighs less than 1 / scenarios
        return f"{replicas} needed {when} in {needing} of {self.scenarios} scenarios"


@dataclass(frozen=True, eq=False)
class _Problem:
    """The on/off problems of all P levels, those of the first service first.

    Attributes:
        services: `[P]` the service of each level.
        needed: `[H, P, M]` does the scenario need the level in this step?
        likely: `[H, P]` weight of the scenarios that need it.
        expected: `[H, P, M]` is the need of a lead later to be expected from what is needed by then?
        step: seconds per step.
        leads: `[P]` steps from a decision until a new replica is ready.
        prices: of a shortage and a start.
    """

    services: Counts
    needed: Mask
    likely: Array
    expected: Mask
    step: float
    leads: Counts
    prices: Prices


def plan_replicas(
    needs: Counts,
    weights: Array,
    step: float,
    lead_seconds: Array,
    running: Running,
    prices: Prices,
    surprise: float = 0.0,
) -> Plan:
    """The replicas of each service that cost least on average over the scenarios.

    Args:
        needs: `[M, H, N]` replicas, at least 1, that scenario m needs in each of the next H steps.
        weights: `[M]` weights of the scenarios, adding up to 1.
        step: seconds per step.
        lead_seconds: `[N]` seconds from the decision until a new replica is ready.
        running: what runs now. Replicas that are starting count from the moment at which they will be ready.
        prices: of a shortage and a start.
        surprise: weight of the courses that start nothing later on which isn't foreseen by then.

    Where a replica takes longer to start than the scenarios look ahead, their last needs are taken to last,
    so that a start can pay.
    """
    longest = math.ceil(float(lead_seconds.max(initial=0.0)) / step - 1e-9)
    told = needs
    if longest >= needs.shape[1]:
        needs = np.concatenate([needs, np.repeat(needs[:, -1:], longest, axis=1)], axis=1)
    base, highest = needs.min(axis=(0, 1)), needs.max(axis=(0, 1))  # [N], [N]
    count = highest - base
    services = np.repeat(np.arange(len(base)), count)  # [P]
    place = np.arange(len(services)) - np.repeat(np.cumsum(count) - count, count)  # of a level in its service
    levels = base[services] + 1 + place
    by_service = np.ascontiguousarray(needs.transpose(1, 2, 0))  # [H, N, M]
    needed = by_service[:, services] >= levels[:, None]  # [H, P, M]
    likely = needed @ weights
    leads = np.clip(np.ceil(lead_seconds / step - 1e-9).astype(np.int64), 1, len(needed))
    depth = by_service - base[:, None]
    expected = _expected(depth, leads, services) if surprise else np.zeros(needed.shape, np.bool_)
    problem = _Problem(services, needed, likely, expected, step, leads[services], prices)
    delays, starts = _delays(services, levels, lead_seconds, running, prices)
    gain = _gain_of_waiting(problem, delays, starts, agreed=0.0)
    if surprise:
        unforeseeing = _gain_of_waiting(problem, delays, starts, agreed=AGREED)
        gain = surprise * unforeseeing + (1 - surprise) * gain
    unwanted = gain @ weights > SAME  # [P]
    first = np.where(unwanted, place, count[services])
    replicas = highest.copy()
    np.minimum.at(replicas, services, base[services] + first)
    return _explained(told, weights, step, replicas)


def _delays(
    services: Counts, levels: Counts, lead_seconds: Array, running: Running, prices: Prices
) -> tuple[Array, Array]:
    """`[P]` each: seconds until a level is ready if it is wanted now, and the price of starting it."""
    delays, starts = lead_seconds[services].astype(np.float64), np.full(len(levels), prices.start)
    is_ready = levels <= running.ready[services]
    delays[is_ready], starts[is_ready] = 0.0, 0.0
    coming = np.array([len(remaining) for remaining in running.remaining], np.int64)
    later = levels - running.ready[services] - 1  # place among those that are starting
    for index in np.flatnonzero(~is_ready & (later < coming[services])).tolist():
        delays[index] = running.remaining[services[index]][later[index]]
        starts[index] = 0.0
    return delays, starts


def _gain_of_waiting(problem: _Problem, delays: Array, starts: Array, agreed: float) -> Array:
    """`[P, M]` how much cheaper it is to be without each level in this step than to run it."""
    on, off = _costs(problem, agreed)
    rows = np.clip(np.ceil(delays / problem.step - 1e-9).astype(np.int64), 0, len(problem.needed))  # [P]
    gain: Array = (starts + rows * problem.step)[:, None] + on[rows, np.arange(len(rows))] - off
    return gain


def _costs(problem: _Problem, agreed: float) -> tuple[Array, Array]:
    """Cheapest cost with a level running from each step on, `[H + 1, P, M]`, and without it from the next.

    What it costs to be without it from now until that step is added to both, so that they can be compared
    whenever a replica is ready. At the end of the horizon, being without a level that is needed then costs a
    start.

    Args:
        problem: the levels.
        agreed: a start is foreseen if this share of the scenarios needs the level when it would be ready;
            with 0 every start is.
    """
    needed, start, step = problem.needed, problem.prices.start, problem.step
    horizon, count = needed.shape[:2]
    levels, now = np.arange(count), np.arange(horizon)[:, None]
    ready = np.minimum(now + problem.leads, horizon)  # [H, P]
    held = (start + (ready - now) * step)[..., None]  # [H, P, 1]
    loss = problem.prices.shortage * step
    on = np.empty((horizon + 1, *needed.shape[1:]))
    on[horizon] = loss * needed.sum(axis=0)
    off = on[horizon] + start * needed[-1]
    due = _due(problem, ready, agreed)
    for row in range(horizon - 1, -1, -1):
        np.minimum(on[row + 1], off, out=on[row])
        on[row] += step - loss * needed[row]
        if row:
            np.minimum(off, on[ready[row], levels] + held[row], out=off, where=due[row])
    return on, off


def _due(problem: _Problem, ready: Counts, agreed: float) -> Mask:
    """`[H, P, M]` can a level be started in that step, because its need is foreseen or there already?"""
    needed, horizon = problem.needed, len(problem.needed)
    levels = np.arange(needed.shape[1])
    foreseen = problem.likely[np.minimum(ready, horizon - 1), levels] >= agreed - SAME  # [H, P]
    before = np.concatenate([needed[:1], needed[:-1]])
    due: Mask = needed | before | problem.expected | foreseen[..., None]
    return due


def _expected(depth: Counts, leads: Counts, services: Counts) -> Mask:
    """`[H, P, M]` does the state of a scenario in that step let one expect the level a lead later?

    The state is how many levels are needed, and whether the need rises, rests or falls. What follows a state
    is counted over all scenarios and steps.

    Args:
        depth: `[H, N, M]` levels needed.
        leads: `[N]` steps until a new replica is ready.
        services: `[P]` the service of each level, rising.
    """
    horizon, count, scenarios = depth.shape
    before = depth[np.maximum(np.arange(horizon) - TREND_STEPS, 0)]
    state = depth * 3 + np.sign(depth - before) + 1  # [H, N, M]
    found = np.empty((horizon, len(services), scenarios), np.bool_)
    ends = np.searchsorted(services, np.arange(count + 1))  # of each service's levels
    for service in range(count):
        levels = int(ends[service + 1] - ends[service])
        if levels:
            now = state[:, service]
            ahead = np.minimum(np.arange(horizon) + leads[service], horizon - 1)
            pairs = now * (levels + 1) + depth[ahead, service]
            counted = np.bincount(pairs.ravel(), minlength=3 * (levels + 1) ** 2)
            beyond = counted.reshape(-1, levels + 1)[:, ::-1].cumsum(axis=1)[:, ::-1]
            likely = beyond[:, 1:] >= EXPECTED * np.maximum(beyond[:, :1], 1)
            found[:, ends[service] : ends[service + 1]] = likely.T[:, now].transpose(1, 0, 2)
    return found


def _explained(needs: Counts, weights: Array, step: float, replicas: Counts) -> Plan:
    enough = needs >= replicas  # [M, H, N]
    some = enough.any(axis=1)  # [M, N]
    share = weights @ some
    first = np.where(some, enough.argmax(axis=1) * step, 0.0)  # [M, N]
    wait = np.where(share > 0, weights @ first / np.where(share > 0, share, 1.0), np.nan)
    return Plan(replicas, share, wait, len(weights))
