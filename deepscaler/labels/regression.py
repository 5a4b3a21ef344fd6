"""The two regressions behind the demand model: cores by service, and the entry response."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepscaler.labels.demand import FORMS, DemandModel, Response
from deepscaler.labels.minutes import (
    FEWEST_MINUTES,
    Minutes,
    fitted_minutes,
    top_utilisation,
    usable_minutes,
    utilisation,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

HOT = 0.85, 0.95
"""The range of the busiest service's utilisation that counts as near saturation."""
FEWEST_HOT = 5
"""With fewer minutes within `HOT`, the response under load can't be told from the unloaded response."""
HIGHEST_FITTED = 0.92
"""The response is fitted on minutes whose busiest service stays below this utilisation."""
BEFORE_SPREAD = 0.25
"""Relative uncertainty of the idle cores of another fit; after a day of exploring they are within 10 %."""
HUBER = 1.345
"""Residuals beyond this many standard deviations are weighted down.

Source: Huber 1981; the estimate stays 95 % efficient where the noise is normal.
"""


def two_nonnegative(u: Array, v: Array, y: Array, weights: Array) -> tuple[Array, Array]:
    """The weighted least squares solution of y = α u + β v with α, β >= 0: α and β, `[N]` each.

    Each of the N columns is a problem of its own. The optimum is the unconstrained one where both are
    non-negative, else the better of α = 0 and β = 0. Where u and v are proportional, v alone explains y.

    Args:
        u: `[M, N]`.
        v: `[M, N]`.
        y: `[M, N]`.
        weights: `[M, N]`.
    """
    uu, uv, vv = ((weights * a * b).sum(axis=0) for a, b in ((u, u), (u, v), (v, v)))
    uy, vy, yy = ((weights * a * b).sum(axis=0) for a, b in ((u, y), (v, y), (y, y)))
    determinant = uu * vv - uv * uv
    free = determinant > 1e-6 * np.maximum(uu * vv, 1e-300)
    safe = np.where(free, determinant, 1.0)
    alpha, beta = (vv * uy - uv * vy) / safe, (uu * vy - uv * uy) / safe
    only_u = np.maximum(np.divide(uy, uu, out=np.zeros_like(uu), where=uu > 0), 0.0)
    only_v = np.maximum(np.divide(vy, vv, out=np.zeros_like(vv), where=vv > 0), 0.0)
    better_v = (yy - only_v * vy <= yy - only_u * uy + 1e-9 * yy) & (vv > 0)
    inside = free & (alpha >= 0) & (beta >= 0)
    return (
        np.where(inside, alpha, np.where(better_v, 0.0, only_u)),
        np.where(inside, beta, np.where(better_v, only_v, 0.0)),
    )


def fit_cores(
    minutes: Minutes, usable: Mask, before: Array | None = None
) -> tuple[Array, Array, Array, NDArray[np.int64]]:
    """Fit cores = a · pod + s · req for each service below saturation.

    Outliers are weighted down (Huber) by their residual in units of sqrt(cores), because the work of a minute
    is a sum over its requests.

    Where replicas follow the load, as those of an HPA do, pod and req rise and fall together, and a part of
    the idle cores can be taken for work or the reverse. So another fit's idle cores count as one more
    observation of them, `BEFORE_SPREAD` uncertain: they decide where the minutes don't.

    Args:
        minutes: block means.
        usable: `[M]` which of them have known traffic and a usable response.
        before: `[N]` idle cores of a replica by another fit, NaN where it has none; None without.

    Returns:
        a, s, R² and the number of minutes used, `[N]` each. a, s and R² are NaN for a service with fewer
        than a third of `FEWEST_MINUTES`, R² also where its cores are constant.
    """
    use = fitted_minutes(minutes, usable)
    pod, req, cores = (np.where(use, values, 0.0) for values in (minutes.pod, minutes.req, minutes.cores))
    count = use.sum(axis=0)
    spread = np.maximum(np.where(use, cores, 0.0).sum(axis=0) / np.maximum(count, 1), 1e-9)
    expected = np.broadcast_to(spread, cores.shape)
    robust = use.astype(np.float64)
    idle = demand = np.zeros(cores.shape[1])
    noise = np.zeros(cores.shape[1])
    for _ in range(20):
        variance = np.maximum(expected, 0.05 * spread)
        rows = (pod, req, cores, robust / variance)
        idle, demand = two_nonnegative(*(rows if before is None else _with_before(rows, before, noise)))
        expected = idle * pod + demand * req
        residual = (cores - expected) / np.sqrt(np.maximum(expected, 0.05 * spread))
        noise = (robust * residual**2).sum(axis=0) / np.maximum(robust.sum(axis=0) - 2, 1.0)
        known = np.where(use | ~use.any(axis=0), np.abs(residual), np.nan)
        width = np.maximum(HUBER * 1.4826 * np.nanmedian(known, axis=0), 1e-9 * np.sqrt(spread))
        robust = use * np.minimum(1.0, width / np.maximum(np.abs(residual), 1e-300))
    mean = cores.sum(axis=0) / np.maximum(count, 1)
    total = (use * (cores - mean) ** 2).sum(axis=0)
    explained = 1 - (use * (cores - expected) ** 2).sum(axis=0) / np.where(total > 0, total, 1.0)
    enough = count >= FEWEST_MINUTES // 3
    return (
        np.where(enough, idle, np.nan),
        np.where(enough, demand, np.nan),
        np.where(enough & (total > 0), explained, np.nan),
        count,
    )


def _with_before(rows: tuple[Array, ...], before: Array, noise: Array) -> tuple[Array, ...]:
    """The observations, and another fit's idle cores as one more, weighted by uncertainty and noise.

    Args:
        rows: pod, req, cores and weights, `[M, N]` each.
        before: `[N]`, see `fit_cores`.
        noise: `[N]` variance of the weighted residuals.
    """
    known = before > 0
    told = np.where(known, before, 0.0)
    weight = np.where(known, noise / np.where(known, BEFORE_SPREAD * before, 1.0) ** 2, 0.0)
    more = (np.ones_like(told), np.zeros_like(told), told, weight)
    return tuple(np.vstack([row, one]) for row, one in zip(rows, more, strict=True))


def fit_response(
    model: DemandModel, minutes: Minutes, external: Array
) -> tuple[Response | None, dict[str, float]]:
    """Fit the entry response with each form of waiting, and keep the form with the least held-out error.

    Args:
        model: with demand and visits; its `response` isn't read.
        minutes: block means.
        external: `[M]` external requests per second.

    Returns:
        The response, and by form the mean |log(predicted / measured)| on held-out minutes. None and nothing
        where fewer than `FEWEST_HOT` minutes are near saturation.
    """
    top = top_utilisation(model, minutes)
    measured = usable_minutes(minutes, model.sla_seconds) & (minutes.response > 0) & (external > 0)
    if (measured & (top > HOT[0]) & (top < HOT[1])).sum() < FEWEST_HOT:
        return None, {}
    use = measured & (top < HIGHEST_FITTED) & (top >= 0)
    if use.sum() < FEWEST_MINUTES // 3:
        return None, {}
    pods = np.where(minutes.pod > 0, minutes.pod, np.nan)[use]
    rho = utilisation(model, minutes)[use]
    per_request = minutes.req[use] / external[use][:, None]
    weight = np.nan_to_num(per_request * model.demand_seconds / model.limit_cores)
    response = minutes.response[use]
    fold = (np.flatnonzero(use) // 10) % 2  # halves take turns of ten minutes: few neighbours are in both
    fits, errors = {}, {}
    for form, waiting in FORMS.items():
        waits = (weight * waiting(np.nan_to_num(rho), np.nan_to_num(pods, nan=1.0))).sum(axis=1)
        errors[form] = _held_out_error(waits, response, fold)
        fits[form] = _two_parameters(waits, response)
    best = min(errors, key=lambda form: errors[form])
    return Response(*fits[best], form=best), errors


def _held_out_error(waits: Array, response: Array, fold: NDArray[np.int64]) -> float:
    """Mean |log(predicted / measured)| of each half of the minutes, predicted by a fit of the other half."""
    held_out = []
    for part in (0, 1):
        r0, kappa = _two_parameters(waits[fold != part], response[fold != part])
        predicted = np.maximum(r0 + kappa * waits[fold == part], 1e-9)
        held_out.append(np.abs(np.log(predicted / response[fold == part])))
    return float(np.concatenate(held_out).mean())


def _two_parameters(waits: Array, response: Array) -> tuple[float, float]:
    """r0 and κ of response = r0 + κ · waits, fitted to relative errors."""
    columns = np.ones_like(waits)[:, None], waits[:, None], response[:, None], (1 / response**2)[:, None]
    r0, kappa = two_nonnegative(*columns)
    return float(r0[0]), float(kappa[0])
