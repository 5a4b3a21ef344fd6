"""`process.rho_max: auto`: how much of its capacity each service keeps free, so that slow requests stay rare.

Requests come in bursts: one page asks a service fifty times, another one not at all. So the work that arrives
is a compound Poisson sum. Its variance over its mean is the work of a typical burst, in CPU-seconds: large
where requests are few and slow, or come many at a time. Where w cores of work arrive at replicas that have K
cores together, the mean wait is burst / 2 / K x w / (K - w), and a wait is longer than ln(1 / p) means in a
share p of the cases. So p of the waits exceed the d seconds that the SLO leaves if w / K is K / (K + spare),
with spare = ln(1 / p) x burst / (2 d) cores: one replica keeps more of itself free than ten do. A request
waits at each of its visits, so p is `SLOW_SHARE` over the number of visits (union bound).

Source: Kingman 1961 and 1962, the mean wait and its exponential distribution in heavy traffic, here with the
    variance of arrivals that was measured. Replicas share a queue, as balancing by least requests comes near.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepscaler.labels.demand import DemandModel
from deepscaler.labels.minutes import BLOCK_SECONDS, FEWEST_MINUTES, Minutes

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SLOW_SHARE = 0.01
"""Share of the requests that may be slow because they had to wait at one of the services."""
APART = 2
"""Minutes between which a change is looked at: samples of neighbouring ones overlap."""
MEDIAN_OF_SQUARE = 0.4549
"""Median of the square of a standard normal variable."""


def spare_cores(model: DemandModel, bursts: Array, slo_seconds: float) -> Array:
    """Cores `[N]` that a service keeps free near saturation; 0 where free cores wouldn't help.

    Args:
        model: with visits and the response without load.
        bursts: `[N]` CPU-seconds (`burst_seconds`).
        slo_seconds: bound on a single request.
    """
    allowed = slo_seconds - model.unloaded
    if allowed <= 0:
        return np.zeros_like(bursts)
    visits = max(float(np.nansum(model.external_share @ model.visits)), 1.0)
    spare: Array = np.log(visits / SLOW_SHARE) * bursts / (2 * allowed)
    return spare


def burst_seconds(model: DemandModel, minutes: Minutes, usable: Mask, external: Array, step: float) -> Array:
    """CPU-seconds `[N]` of a typical burst: variance over mean of the work that arrives; 0 where unknown.

    The requests of a minute deviate from those that so many external requests usually lead to. To this
    variance comes that of the external requests, which are taken for a Poisson process, and that of the work
    per request, which is taken for exponentially distributed. Changes from each minute to the next but one
    count, so that a mix that drifts isn't taken for bursts, and their median, so that a few minutes in which
    something else happened aren't either.

    Args:
        model: with demand.
        minutes: means over M minutes.
        usable: `[M]` minutes that count.
        external: `[M]` external requests per second.
        step: seconds between samples. Each tells the rate of the minute before it, so a mean over the samples
            of a minute spans more than that.
    """
    rows = max(round(BLOCK_SECONDS / step), 1)
    span = BLOCK_SECONDS * 3 * rows**2 / (2 * rows**2 + 1)
    known = (usable & (external > 0))[:, None] & np.isfinite(minutes.req)
    requests = np.where(known, minutes.req, 0.0) * span  # [M, N]
    entered = np.where(known, external[:, None], 0.0) * span
    visits = requests.sum(axis=0) / np.maximum(entered.sum(axis=0), 1e-12)  # [N] per external request
    usual = visits * entered
    new, old = slice(APART, None), slice(None, -APART)
    change = (requests - usual)[new] - (requests - usual)[old]  # [M - 2, N]
    both = known[new] & known[old] & (usual[new] > 0)
    square = change**2 / np.where(both, usual[new] + usual[old], 1.0)
    bursts = np.zeros(len(model.services))
    for column in np.flatnonzero(both.sum(axis=0) >= FEWEST_MINUTES // 3):
        at_once = float(np.median(square[both[:, column], column])) / MEDIAN_OF_SQUARE + visits[column]
        bursts[column] = (at_once + 1.0) * model.demand_seconds[column]
    return np.nan_to_num(bursts)


def highest_utilisation(model: DemandModel, replicas: float) -> Array:
    """Share `[N]` of the limit that so many replicas may use at most; NaN without a limit."""
    spare = 0.0 if model.spare_cores is None else model.spare_cores
    idle = np.nan_to_num(model.idle_cores) / model.limit_cores
    cores = replicas * (1 - idle) * model.limit_cores
    highest: Array = np.minimum(model.rho_max, idle + (1 - idle) * cores / (cores + spare))
    return highest
