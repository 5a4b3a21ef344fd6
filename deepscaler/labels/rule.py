"""The rule: the cheapest replicas that keep utilisation and response within bounds at given rates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepscaler.labels.demand import DemandModel, Waits, entered_response, external_rates, told
from deepscaler.panel import MetricPanel
from deepscaler.statistics import nan_mean

Array = NDArray[np.float64]

MAX_ADDED = 200
"""The latency rule adds at most this many replicas to one row, over all services."""
LEAST_ROOM = 0.05
"""A replica has at least this share of its limit for requests, however many idle cores the fit found."""
LEAST_UNROUNDED = 0.01
"""The unrounded requirement is never below this many replicas, so that its logarithm and its ratios exist."""


def required_replicas(
    model: DemandModel, rates: Array, rho_max: float | None = None, *, visits: Array | None = None
) -> Array:
    """The cheapest replicas `[L, N]` that meet the SLA; NaN where a rate or a service's demand is NaN.

    Args:
        model: the fit.
        rates: `[L, N]` offered requests per second of each service.
        rho_max: highest utilisation of the limit; the model's bounds by default.
        visits: `[L, N]` or `[N]` visits per external request, where they differ from the model's.
    """
    return requirements(model, rates, rho_max, visits=visits)[0]


def requirements(
    model: DemandModel, rates: Array, rho_max: float | None = None, *, visits: Array | None = None
) -> tuple[Array, Array]:
    """What `required_replicas` gives, and the same before it is rounded up (unrounded), `[L, N]` each.

    Rounding the unrounded requirement up gives the replicas. It is at least `LEAST_UNROUNDED`. Where the
    latency rule added replicas, the unrounded requirement is their whole number.

    Args:
        model: the fit.
        rates: `[L, N]` offered requests per second of each service.
        rho_max: highest utilisation of the limit; the model's bounds by default.
        visits: `[L, N]` or `[N]` visits per external request, where they differ from the model's.
    """
    rates = np.asarray(rates, np.float64)
    unrounded = np.maximum(_least(model, rates, model.limit_cores, rho_max), LEAST_UNROUNDED)
    by_rho = np.maximum(np.ceil(unrounded - 1e-9), 1.0)
    replicas = by_rho.copy()
    if model.response is not None:
        _relieve(model, rates, visits, replicas)
    return replicas, np.where(replicas > by_rho, replicas, unrounded)


def _relieve(model: DemandModel, rates: Array, visits: Array | None, replicas: Array) -> None:
    """Add to `replicas`, in place, where it shortens the response most per core, until R <= margin · SLA.

    Replicas can't bring the response below its unloaded value: with an SLA below that, nothing is added.
    """
    assert model.response is not None
    budget = model.sla_margin * model.sla_seconds - model.response.r0
    if budget <= 0:
        return
    waits = Waits(model, rates, visits)
    now = np.nan_to_num(waits.at(replicas))
    gain = np.nan_to_num((now - waits.at(replicas + 1)) / model.limit_cores)
    rows = np.flatnonzero(now.sum(axis=1) > budget)
    for _ in range(MAX_ADDED):
        if not len(rows):
            return
        best = gain[rows].argmax(axis=1)
        where = (rows, best)
        replicas[where] += 1
        now[where] = waits.at(replicas[where], where)
        gain[where] = (now[where] - waits.at(replicas[where] + 1, where)) / model.limit_cores[best]
        rows = rows[now[rows].sum(axis=1) > budget]


def replicas_within(model: DemandModel, rates: Array, limit_cores: Array) -> NDArray[np.int64]:
    """Replicas `[..., N]`, at least 1, that keep each service within its bounds at these rates; 1 if unknown.

    Args:
        model: the fit.
        rates: requests per second `[..., N]`.
        limit_cores: `[N]` CPU limit of a replica.
    """
    replicas = np.ceil(np.nan_to_num(_least(model, rates, limit_cores)) - 1e-9)
    return np.maximum(replicas, 1).astype(np.int64)


def _least(model: DemandModel, rates: Array, limits: Array, rho_max: float | None = None) -> Array:
    """Fewest replicas `[..., N]`, not whole, within ρ_max; without one given, within the model's bounds."""
    rho, work = model.rho_max if rho_max is None else rho_max, model.demand_seconds * rates
    least = LEAST_ROOM * limits
    replicas: Array = work / np.maximum(rho * limits - model.idle_cores, least)
    if rho_max is not None or model.spare_cores is None:
        return replicas
    # K cores that are used by work / K = K / (K + spare)
    cores = (work + np.sqrt(work * (work + 4 * model.spare_cores))) / 2
    return np.maximum(replicas, cores / np.maximum(limits - model.idle_cores, least))


def present_requirement(
    model: DemandModel, panel: MetricPanel, seconds: float, rho_max: float | None = None
) -> Array:
    """Replicas `[N]` that the rule asks for at the newest rates, in the model's order; NaN without data.

    A service's rate is the larger of its own and of what the entries' rate makes of it by visits: while a
    bottleneck upstream holds requests back, the entries' rate runs ahead. Rates are corrected for hidden
    demand.

    Args:
        model: the fit.
        panel: raw samples up to now with the features req and res; services are matched by name.
        seconds: rates are means over the samples of this long before the newest one.
        rho_max: highest utilisation of the limit; the model's bounds by default.
    """
    newest = panel.rows(_newest(panel, seconds))
    known = {name: index for index, name in enumerate(panel.services)}
    columns = [known.get(name, -1) for name in model.services]
    present = np.array(columns) >= 0
    own = np.where(present, nan_mean(newest.feature("req")[:, columns], axis=0), np.nan)
    entries = model.entry_columns
    served, means = (
        np.where(present, newest.feature(name)[:, columns], np.nan)[:, entries].astype(np.float64)
        for name in ("req", "res")
    )
    response = told(newest.waited, entered_response(model.among_entries, served, means))
    factor = float(model.correction(_weighted_mean(response, np.nansum(served, axis=1))))
    routed = external_rates(model.visits, entries, own) @ model.visits
    rates = np.where(np.isnan(own), np.nan, np.fmax(own, routed)) * factor
    needed: Array = required_replicas(model, rates[None], rho_max)[0]
    return needed


def requirement_from_usage(
    panel: MetricPanel, seconds: float, rho_max: float, containers: Array | None = None
) -> Array:
    """Replicas `[N]` that would bring the cores used of late to ρ_max of their limits; NaN without data.

    That is cores / (ρ_max · limit). With cores = cpu · limit · containers the limit cancels, so no fit is
    needed.

    Args:
        panel: raw samples up to now with the features cpu and pod; the result has its order of services.
        seconds: usage is the mean over the samples of this long before the newest one.
        rho_max: utilisation of the limit to reach.
        containers: `[N]` pods whose containers run now, ready or not: `cpu` is the share of all their limits.
            None: the ready ones.
    """
    recent = _newest(panel, seconds)
    pods = panel.feature("pod")[recent].astype(np.float64)
    if containers is not None:
        pods = np.maximum(pods, containers)
    used = nan_mean(panel.feature("cpu")[recent] * pods, axis=0)
    return np.maximum(np.ceil(used / rho_max - 1e-6), 1.0)


def _newest(panel: MetricPanel, seconds: float) -> NDArray[np.bool_]:
    """Which samples lie within `seconds` before the newest one, itself included."""
    return panel.times > panel.times[-1] - seconds if len(panel) else np.zeros(0, bool)


def _weighted_mean(values: Array, weights: Array) -> Array:
    """Mean of the known values with a weight above 0; NaN without any."""
    known = np.isfinite(values) & (weights > 0)
    total = weights[known].sum()
    return np.asarray((values[known] * weights[known]).sum() / total if total > 0 else np.nan)
