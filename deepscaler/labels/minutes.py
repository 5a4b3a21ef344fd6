"""Telemetry as means over minutes, and which of them tell what a service needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepscaler.labels.demand import DemandModel, entering, entry_response, told
from deepscaler.labels.visits import Visits
from deepscaler.panel import MetricPanel
from deepscaler.statistics import nan_mean

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

BLOCK_SECONDS = 60.0
"""A request and its work may fall in neighbouring samples, so fits see means over this many seconds."""
FEWEST_MINUTES = 60
"""The fit needs at least this many usable minutes."""
SATURATED = 0.9
"""Above this share of its limit a service may have been throttled, so its cores don't tell its demand."""


@dataclass(frozen=True, eq=False)
class Minutes:
    """Means over M blocks of a minute.

    Attributes:
        times: `[M]` end of each block, seconds since the epoch.
        cores: `[M, N]` cores used by all pods; NaN where no sample has pod, cpu and req.
        pod: `[M, N]` ready replicas; NaN likewise.
        req: `[M, N]` requests per second; NaN likewise.
        busy: `[M, N]` cpu as a share of the limit; NaN likewise.
        steady: `[M, N]` whether the number of pods was constant in this block and the one before, and no pod
            was starting.
        response: `[M]` what requests from outside wait, in seconds; NaN without traffic.
    """

    times: Array
    cores: Array
    pod: Array
    req: Array
    busy: Array
    steady: Mask
    response: Array


def minute_means(
    panel: MetricPanel, limits: Array, entries: Sequence[int], visits: Visits, ready_seconds: Array
) -> Minutes:
    """Means over the minutes of a regular panel (over samples, where these are longer than a minute).

    Samples at the end that don't fill a minute are left out.

    Args:
        panel: with the features pod, cpu, req and res.
        limits: `[N]` CPU limits in cores.
        entries: columns of the E services at which requests enter.
        visits: tell what of their requests comes from outside.
        ready_seconds: `[N]` time until a new replica is ready. Until then its container is one of those
            whose share of the limit `cpu` is, but `pod` doesn't count it.
    """
    rows = max(round(BLOCK_SECONDS / panel.step), 1)
    blocks = len(panel) // rows
    pod, cpu, req, res = (
        panel.feature(name)[: blocks * rows].astype(np.float64) for name in ("pod", "cpu", "req", "res")
    )
    known = np.isfinite(pod) & np.isfinite(cpu) & np.isfinite(req)

    def grouped(values: Array) -> Array:
        return np.where(known, values, np.nan).reshape(blocks, rows, -1)  # [M, rows, N]

    pods = grouped(pod)
    starting = starting_pods(panel.feature("pod"), ready_seconds, panel.step)[: blocks * rows]
    constant = (pods == pods[:, :1]).all(axis=1) & (grouped(starting) == 0).all(axis=1)
    before = np.vstack([constant[:1], constant[:-1] & (pods[:-1, -1] == pods[1:, 0])])
    served, slow = req[:, list(entries)], res[:, list(entries)]
    _, external = visits.routed(panel.times[: blocks * rows], req, list(entries))
    weight = entering(external, served)
    weight = np.where(np.isfinite(weight) & np.isfinite(slow), weight, 0.0)
    waited = None if panel.waited is None else panel.waited[: blocks * rows]
    response = told(waited, entry_response(weight, np.nan_to_num(slow)))
    return Minutes(
        times=panel.times[rows - 1 : blocks * rows : rows],
        cores=nan_mean(grouped(cpu * (pod + starting)), axis=1) * limits,
        pod=nan_mean(pods, axis=1),
        req=nan_mean(grouped(req), axis=1),
        busy=nan_mean(grouped(cpu), axis=1),
        steady=constant & before,
        response=entry_response(
            weight.sum(axis=1).reshape(blocks, rows), np.nan_to_num(response).reshape(blocks, rows)
        ),
    )


def starting_pods(pod: NDArray[np.float32], ready_seconds: Array, step: float) -> Array:
    """Pods `[L, N]` whose containers were seen while they were starting, by how many became ready later.

    A pod is ready by the sample that shows it, half a step before on average, and the CPU of its container is
    known from the second sample on.

    Args:
        pod: `[L, N]` ready replicas; NaN where unknown.
        ready_seconds: `[N]` time until a new replica is ready.
        step: seconds between samples.
    """
    came = np.nan_to_num(np.maximum(np.diff(pod.astype(np.float64), axis=0, prepend=pod[:1]), 0.0))
    total = np.vstack([np.zeros((1, pod.shape[1])), np.cumsum(came, axis=0)])  # [L + 1, N]
    ahead = np.maximum(np.floor(np.nan_to_num(ready_seconds) / step - 0.5), 0.0).astype(np.int64)
    rows = np.arange(1, len(total))[:, None]
    ends = np.minimum(rows + ahead, len(total) - 1)
    found: Array = np.take_along_axis(total, ends, axis=0) - total[1:]
    return found


def usable_minutes(minutes: Minutes, sla_seconds: float) -> Mask:
    """Which minutes `[M]` have known entry traffic and a response below twice the SLA."""
    usable: Mask = np.isfinite(minutes.response) & (minutes.response < 2 * sla_seconds)
    return usable


def fitted_minutes(minutes: Minutes, usable: Mask) -> Mask:
    """Which minutes tell the demand of each service, `[M, N]`.

    These are the usable ones below saturation, and only those at constant pods where there are enough of
    these.
    """
    known = usable[:, None] & np.isfinite(minutes.cores) & (minutes.busy < SATURATED)
    steady = known & minutes.steady
    return np.where(steady.sum(axis=0) >= FEWEST_MINUTES, steady, known)


def utilisation(model: DemandModel, minutes: Minutes) -> Array:
    """Utilisation of the limit by the fit, `[M, N]`; NaN without pods or where something is unknown."""
    pods = np.where(minutes.pod > 0, minutes.pod, np.nan)
    rho: Array = (model.idle_cores + model.demand_seconds * minutes.req / pods) / model.limit_cores
    return rho


def top_utilisation(model: DemandModel, minutes: Minutes) -> Array:
    """Utilisation of the busiest service by the fit, `[M]`; -inf where none is known."""
    rho = utilisation(model, minutes)
    top: Array = np.where(np.isfinite(rho), rho, -np.inf).max(axis=1)
    return top


def explained_by_visits(rates: Array, routed: Array) -> Array:
    """Share `[N]` of each service's requests that the entries' rates account for; NaN without requests.

    Args:
        rates: `[M, N]` requests per second.
        routed: `[M, N]` what the entries' rates make of them by visits.
    """
    known = np.isfinite(rates) & np.isfinite(routed)
    total = np.where(known, rates, 0.0).sum(axis=0)
    accounted = np.where(known, routed, 0.0).sum(axis=0)
    return np.where(total > 0, accounted / np.where(total > 0, total, 1.0), np.nan)
