"""Fitting the demand model: cores a request, visits, entry response, from telemetry alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import write_json
from deepscaler.calls import CallGraph
from deepscaler.cluster import Workload
from deepscaler.errors import DataError
from deepscaler.labels.demand import FORMS, DemandModel, Response, entry_response
from deepscaler.labels.visits import follow_visits
from deepscaler.panel import MetricPanel
from deepscaler.settings import Process

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
log = logging.getLogger(__name__)

BLOCK_SECONDS = 60.0
"""Work and its request may fall in neighbouring samples: fits see means over this stretch."""
FEWEST_MINUTES = 60
HOT = 0.85, 0.95
FEWEST_HOT = 5
"""Minutes at max ρ within HOT without which the response can't be told from its unloaded value."""
SATURATED = 0.9
COLLECT = "python predict_scale.py --policy explore (real cluster: --set scale.explore.allow=true), then python metrics_fetch.py"
DEFAULT_BOOT_SECONDS = 30.0


@dataclass(frozen=True, eq=False)
class Facts:
    """What the orchestrator says of the services: limits and start-up, `[N]` each."""

    limit_cores: Array
    boot_seconds: Array


def read_facts(path: str | Path, services: Sequence[str], boot_overrides: Mapping[str, float]) -> Facts:
    """Limits and boots from `workloads.json`; a service without a limit is taken against its request.

    Raises:
        DataError: no file, a broken one, or a service that is missing or has neither limit nor request.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path}: no such file (CPU limits and start-up times); make it with: python metrics_fetch.py"
        )
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        limits, boots = [], []
        for service in services:
            if service not in stored:
                raise DataError(f"{path}: service {service!r} is missing; it holds {', '.join(stored)}")
            entry = stored[service]
            limit = entry.get("cpu_limit_cores") or entry.get("cpu_request_cores")
            if not limit:
                raise DataError(
                    f"{path}: service {service!r} has neither a CPU limit nor a request: utilisation can't be told; set one"
                )
            boot = boot_overrides.get(service, entry.get("boot_seconds"))
            if boot is None:
                log.warning(
                    "%s: start-up time unknown, %g s assumed; set process.boot_seconds.%s",
                    service,
                    DEFAULT_BOOT_SECONDS,
                    service,
                )
            limits.append(float(limit))
            boots.append(DEFAULT_BOOT_SECONDS if boot is None else float(boot))
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: broken ({error}); make it again with: python metrics_fetch.py") from error
    return Facts(np.array(limits), np.array(boots))


def write_facts(workloads: Sequence[Workload], path: str | Path) -> None:
    """Write `workloads.json`: what `read_facts` reads, and the memory limits."""
    names = ("cpu_limit_cores", "cpu_request_cores", "memory_limit_bytes", "boot_seconds")
    write_json(
        path, {workload.service: {name: getattr(workload, name) for name in names} for workload in workloads}
    )


@dataclass(frozen=True, eq=False)
class Minutes:
    """Means over blocks of a minute.

    Attributes:
        times: `[M]` end of each.
        cores, pod, req: `[M, N]`; NaN where a sample of any of the three is missing throughout.
        busy: `[M, N]` cpu as a share of the limit.
        steady: `[M, N]` were pods constant in this block and the one before?
        response: `[M]` entry response, s; NaN without traffic.
    """

    times: Array
    cores: Array
    pod: Array
    req: Array
    busy: Array
    steady: Mask
    response: Array


def minute_means(panel: MetricPanel, limits: Array, entries: Sequence[int]) -> Minutes:
    """Blocks of a minute (or of a sample, where those are longer) of a regular panel; a rest at the end is left out."""
    rows = max(round(BLOCK_SECONDS / panel.step), 1)
    blocks = len(panel) // rows
    pod, cpu, req, res = (
        panel.feature(name)[: blocks * rows].astype(np.float64) for name in ("pod", "cpu", "req", "res")
    )
    known = np.isfinite(pod) & np.isfinite(cpu) & np.isfinite(req)

    def mean(values: Array) -> Array:
        count = known.reshape(blocks, rows, -1).sum(axis=1)
        total = np.where(known, values, 0.0).reshape(blocks, rows, -1).sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    grouped = np.where(known, pod, np.nan).reshape(blocks, rows, -1)
    constant = (grouped == grouped[:, :1]).all(axis=1)
    before = np.vstack([constant[:1], constant[:-1] & (grouped[:-1, -1] == grouped[1:, 0])])
    served, slow = req[:, list(entries)], res[:, list(entries)]
    weight = np.where(np.isfinite(served) & np.isfinite(slow), served, 0.0).reshape(blocks, -1)
    response = entry_response(weight, np.nan_to_num(slow).reshape(blocks, -1))
    times = panel.times[rows - 1 : blocks * rows : rows]
    return Minutes(
        times, mean(cpu * pod) * limits, mean(pod), mean(req), mean(cpu), constant & before, response
    )


def two_nonnegative(u: Array, v: Array, y: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted least squares y = α u + β v with α, β >= 0, a column a problem. `[M, N]` in, two `[N]` out.

    With two unknowns the optimum is the free one where that is non-negative, else the better edge. Columns that
    can't be told apart (u and v proportional) are explained by v alone.
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
    return np.where(inside, alpha, np.where(better_v, 0.0, only_u)), np.where(
        inside, beta, np.where(better_v, only_v, 0.0)
    )


def usable_minutes(minutes: Minutes, sla_seconds: float) -> Mask:
    """`[M]`: entry traffic known, its response below twice the SLA."""
    usable: Mask = np.isfinite(minutes.response) & (minutes.response < 2 * sla_seconds)
    return usable


def fitted_minutes(minutes: Minutes, usable: Mask) -> Mask:
    """`[M, N]`: minutes that tell a service's demand: below saturation, at constant pods where there are enough of these."""
    known = usable[:, None] & np.isfinite(minutes.cores) & (minutes.busy < SATURATED)
    steady = known & minutes.steady
    return np.where(steady.sum(axis=0) >= FEWEST_MINUTES, steady, known)


def top_utilisation(model: DemandModel, minutes: Minutes) -> Array:
    """`[M]` utilisation of the busiest service by the fit; -inf where none is known."""
    pods = np.where(minutes.pod > 0, minutes.pod, np.nan)
    rho = (model.idle_cores + model.demand_seconds * minutes.req / pods) / model.limit_cores
    top: Array = np.where(np.isfinite(rho), rho, -np.inf).max(axis=1)
    return top


def fit_cores(minutes: Minutes, usable: Mask) -> tuple[Array, Array, Array, NDArray[np.int64]]:
    """cores = a · pod + s · req by service below saturation: a, s, R² and minutes used, `[N]` each.

    Huber re-weighting on residuals in units of sqrt(cores) (the work of a minute is a sum over requests). NaN where
    fewer than a third of the needed minutes are there.
    """
    use = fitted_minutes(minutes, usable)
    pod, req, cores = (np.where(use, values, 0.0) for values in (minutes.pod, minutes.req, minutes.cores))
    spread = np.maximum(np.where(use, cores, 0.0).sum(axis=0) / np.maximum(use.sum(axis=0), 1), 1e-9)
    expected = np.broadcast_to(spread, cores.shape)
    robust = use.astype(np.float64)
    idle = demand = np.zeros(cores.shape[1])
    for _ in range(20):
        variance = np.maximum(expected, 0.05 * spread)
        idle, demand = two_nonnegative(pod, req, cores, robust / variance)
        expected = idle * pod + demand * req
        residual = (cores - expected) / np.sqrt(np.maximum(expected, 0.05 * spread))
        width = (
            1.345 * 1.4826 * np.nanmedian(np.where(use | ~use.any(axis=0), np.abs(residual), np.nan), axis=0)
        )
        width = np.maximum(width, 1e-9 * np.sqrt(spread))
        robust = use * np.minimum(1.0, width / np.maximum(np.abs(residual), 1e-300))
    count = use.sum(axis=0)
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


def fit_response(
    model: DemandModel, minutes: Minutes, external: Array
) -> tuple[Response | None, dict[str, float]]:
    """The entry response and, by form, the held-out log error; None without minutes at max ρ .85-.95.

    Args:
        model: with demand and visits; its `response` isn't read.
        minutes: block means.
        external: `[M]` external requests per second.
    """
    pods = np.where(minutes.pod > 0, minutes.pod, np.nan)
    rho = (model.idle_cores + model.demand_seconds * minutes.req / pods) / model.limit_cores
    top = top_utilisation(model, minutes)
    fast = (
        np.isfinite(minutes.response)
        & (minutes.response > 0)
        & (minutes.response < 2 * model.sla_seconds)
        & (external > 0)
    )
    if (fast & (top > HOT[0]) & (top < HOT[1])).sum() < FEWEST_HOT:
        return None, {}
    use = fast & (top < 0.92) & (top >= 0)
    if use.sum() < FEWEST_MINUTES // 3:
        return None, {}
    per_request = minutes.req[use] / external[use][:, None]
    weight = np.nan_to_num(per_request * model.demand_seconds / model.limit_cores)
    response = minutes.response[use]
    fold = (np.flatnonzero(use) // 10) % 2
    fits, errors = {}, {}
    for form, waiting in FORMS.items():
        waits = (weight * waiting(np.nan_to_num(rho[use]), np.nan_to_num(pods[use], nan=1.0))).sum(axis=1)
        held_out = []
        for part in (0, 1):
            r0, kappa = _two_parameters(waits[fold != part], response[fold != part])
            held_out.append(
                np.abs(np.log(np.maximum(r0 + kappa * waits[fold == part], 1e-9) / response[fold == part]))
            )
        errors[form] = float(np.concatenate(held_out).mean())
        fits[form] = _two_parameters(waits, response)
    best = min(errors, key=lambda form: errors[form])
    return Response(*fits[best], form=best), errors


def _two_parameters(waits: Array, response: Array) -> tuple[float, float]:
    columns = np.ones_like(waits)[:, None], waits[:, None], response[:, None], (1 / response**2)[:, None]
    r0, kappa = two_nonnegative(*columns)
    return float(r0[0]), float(kappa[0])


def fit_demand(
    panel: MetricPanel,
    calls: CallGraph | None,
    facts: Facts,
    process: Process,
    *,
    entries: Sequence[str],
    sla_seconds: float,
) -> DemandModel:
    """The demand model of a stretch of telemetry (regular, at the collection step); its visits are those of the last window.

    Args:
        panel: the features pod, cpu, req, res.
        calls: recorded calls; None: visits come from request rates.
        facts: limits and start-up of the panel's services.
        process: settings of the rule.
        entries: services that requests enter at.
        sla_seconds: bound on the entry mean response.

    Raises:
        DataError: under 60 usable minutes, saying what is missing and how to collect it.
    """
    entries = tuple(dict.fromkeys(entries))
    columns = [panel.services.index(name) for name in entries]
    minutes = minute_means(panel, facts.limit_cores, columns)
    known, usable = np.isfinite(minutes.response), usable_minutes(minutes, sla_seconds)
    if usable.sum() < FEWEST_MINUTES:
        raise DataError(f"demand fit: {_lacking(panel, entries, usable, sla_seconds)}")
    idle, demand, explained, count = fit_cores(minutes, usable)
    visits = follow_visits(panel, calls, entries, process.visit_window)
    routed, external = visits.routed(minutes.times, minutes.req, columns)
    total = external.sum(axis=1)
    share = np.nansum(external, axis=0) / max(float(np.nansum(external)), 1e-12)
    model = DemandModel(
        services=panel.services,
        idle_cores=idle,
        demand_seconds=demand,
        limit_cores=facts.limit_cores,
        boot_seconds=facts.boot_seconds,
        entries=entries,
        visits=visits.values[-1],
        external_share=share,
        sla_seconds=sla_seconds,
        think_seconds=process.think_time,
        rho_max=process.rho_max,
        sla_margin=process.sla_margin,
        response=None,
        quality={},
        requests_per_think=process.requests_per_think,
        unloaded_seconds=float(np.percentile(minutes.response[usable], 5)),
    )
    response, errors = fit_response(model, minutes, total)
    quality = {
        "usable_minutes": int(usable.sum()),
        "minutes": dict(zip(panel.services, count.tolist(), strict=True)),
        "cpu_r2": dict(zip(panel.services, explained.tolist(), strict=True)),
        "explained_by_visits": dict(
            zip(panel.services, explained_by_visits(minutes.req, routed).tolist(), strict=True)
        ),
        "hidden_share": float((minutes.response[known] > sla_seconds / 2).mean()),
        "log_error": errors,
    }
    model = replace(model, response=response, quality=quality)
    _report(model)
    return model


def _lacking(panel: MetricPanel, entries: Sequence[str], usable: Mask, sla_seconds: float) -> str:
    """What telemetry lacks where too few minutes are usable, and the command that collects it."""
    for name in ("req", "res"):
        values = panel.feature(name)[:, [panel.services.index(entry) for entry in entries]]
        if name == "req" and not np.nan_to_num(values).any() and np.isfinite(values).any():
            return (
                f"no requests at the entries ({', '.join(entries)}) in the training split; load the application (sh sendFlow/sendLoop.sh) "
                "and collect again: python metrics_fetch.py"
            )
        if not np.isfinite(values).any():
            return (
                f"{name} of the entries ({', '.join(entries)}) is missing throughout the training split, and labels start from it; "
                f"check collect.queries.{name} and the mesh's telemetry, then: python metrics_fetch.py"
            )
    return (
        f"{usable.sum()} usable minutes (entry traffic known, response below {2 * sla_seconds:g} s) of {len(usable)} in the training "
        f"split, at least {FEWEST_MINUTES} are needed; collect longer under a load that varies, with spare capacity: {COLLECT}"
    )


def explained_by_visits(rates: Array, routed: Array) -> Array:
    """Share `[N]` of a service's requests that the entries' rates account for; NaN where it has none."""
    known = np.isfinite(rates) & np.isfinite(routed)
    total = np.where(known, rates, 0.0).sum(axis=0)
    return np.where(
        total > 0, np.where(known, routed, 0.0).sum(axis=0) / np.where(total > 0, total, 1.0), np.nan
    )


def _report(model: DemandModel) -> None:
    quality, visited = model.quality, model.external_share @ model.visits
    for index, service in enumerate(model.services):
        if np.isnan(model.demand_seconds[index]):
            log.warning(
                "%s: CPU demand unknown (%d usable minutes): it gets no labels; check its cpu, pod and req, then: python metrics_fetch.py",
                service,
                quality["minutes"][service],
            )
            continue
        if np.isnan(quality["explained_by_visits"][service]):
            log.warning(
                "%s: never loaded in the training split: its demand can't be told, it is labelled 1 replica; "
                "send requests that reach it (sh sendFlow/sendLoop.sh), then: python metrics_fetch.py",
                service,
            )
            continue
        log.info(
            "%s: %.3g ms CPU a request, %.3g millicores idle, R2 %.3f over %d min, %.3g visits",
            service,
            1e3 * model.demand_seconds[index],
            1e3 * model.idle_cores[index],
            quality["cpu_r2"][service],
            quality["minutes"][service],
            visited[index],
        )
    if model.response is None:
        log.warning(
            "no response fit: fewer than %d minutes with the busiest service at .85-.95 of its limit; replicas follow rho_max %.2f alone; "
            "collect such minutes: %s",
            FEWEST_HOT,
            model.rho_max,
            COLLECT,
        )
        return
    r0, form = model.response.r0, model.response.form
    error = quality["log_error"][form]
    log.info(
        "entry response %.3g s unloaded, kappa %.3g, form %s, held-out log error %.3f",
        r0,
        model.response.kappa,
        form,
        error,
    )
    if r0 >= model.sla_margin * model.sla_seconds:
        log.warning(
            "the unloaded response %.3g s is above sla_margin x SLA: replicas can't help, rho_max alone decides",
            r0,
        )
