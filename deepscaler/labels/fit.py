"""Fitting the demand model from telemetry alone, and telling the user what was found or what is missing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.calls import CallGraph
from deepscaler.errors import DataError
from deepscaler.labels.capacity import burst_seconds, highest_utilisation, spare_cores
from deepscaler.labels.demand import WARM_UP, DemandModel
from deepscaler.labels.facts import Facts
from deepscaler.labels.minutes import (
    FEWEST_MINUTES,
    Minutes,
    explained_by_visits,
    minute_means,
    usable_minutes,
)
from deepscaler.labels.regression import FEWEST_HOT, HOT, fit_cores, fit_response
from deepscaler.labels.visits import follow_visits
from deepscaler.labels.warm_up import warm_up_seconds
from deepscaler.panel import MetricPanel
from deepscaler.settings import Process

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
log = logging.getLogger(__name__)

COLLECT = (
    "python predict_scale.py --policy explore (real cluster: --set scale.explore.allow=true), "
    "then python metrics_fetch.py"
)


def fit_demand(
    panel: MetricPanel,
    calls: CallGraph | None,
    facts: Facts,
    process: Process,
    *,
    entries: Sequence[str],
    sla_seconds: float,
    idle_before: Array | None = None,
    slo_seconds: float | None = None,
) -> DemandModel:
    """Fit the demand model to telemetry; its visits are those of the last window.

    What was found, and what couldn't be told, is logged by service.

    Args:
        panel: regular samples with the features pod, cpu, req and res.
        calls: recorded calls; None means that visits come from request rates.
        facts: limits and start-up times of the panel's services.
        process: settings of the rule.
        entries: services at which requests enter the application.
        sla_seconds: bound on the mean response at the entries.
        idle_before: `[N]` idle cores of a replica by another fit, see `fit_cores`; None without.
        slo_seconds: bound on a single request, for `process.rho_max: auto`; None: the SLA.

    Raises:
        DataError: there are fewer than `FEWEST_MINUTES` usable minutes; it says what is missing and how to
            collect it.
    """
    entries = tuple(dict.fromkeys(entries))
    columns = [panel.services.index(name) for name in entries]
    visits = follow_visits(panel, calls, entries, process.visit_window)
    minutes = minute_means(panel, facts.limit_cores, columns, visits, facts.boot_seconds)
    usable = usable_minutes(minutes, sla_seconds)
    if usable.sum() < FEWEST_MINUTES:
        raise DataError(f"demand fit: {_lacking(panel, entries, usable, sla_seconds)}")
    idle, demand, explained, count = fit_cores(minutes, usable, idle_before)
    slow = warm_up_seconds(panel, facts.limit_cores, facts.boot_seconds)
    routed, external = visits.routed(minutes.times, minutes.req, columns)
    model = DemandModel(
        services=panel.services,
        idle_cores=idle,
        demand_seconds=demand,
        limit_cores=facts.limit_cores,
        boot_seconds=facts.boot_seconds + slow,
        entries=entries,
        visits=visits.values[-1],
        external_share=np.nansum(external, axis=0) / max(float(np.nansum(external)), 1e-12),
        sla_seconds=sla_seconds,
        think_seconds=process.think_time,
        rho_max=process.fixed_rho_max,
        sla_margin=process.sla_margin,
        response=None,
        quality={},
        requests_per_think=process.requests_per_think,
        unloaded_seconds=float(np.percentile(minutes.response[usable], 5)),
    )
    response, errors = fit_response(model, minutes, external.sum(axis=1))
    by_service = {
        "minutes": count,
        "cpu_r2": explained,
        WARM_UP: slow,
        "explained_by_visits": explained_by_visits(minutes.req, routed),
    }
    quality = _quality(minutes, usable, model, by_service, errors)
    model = replace(model, response=response, quality=quality)
    if process.rho_max == "auto":
        slo = sla_seconds if slo_seconds is None else slo_seconds
        bursts = burst_seconds(model, minutes, usable, external.sum(axis=1), panel.step)
        model = replace(model, spare_cores=spare_cores(model, bursts, slo))
        _report_capacity(model)
    for index in range(len(model.services)):
        _report_service(model, index)
    _report_response(model)
    return model


def _quality(
    minutes: Minutes,
    usable: Mask,
    model: DemandModel,
    by_service: dict[str, NDArray[Any]],
    errors: dict[str, float],
) -> dict[str, Any]:
    """Diagnostics of the fit as plain numbers."""
    known = np.isfinite(minutes.response)
    named = {
        name: dict(zip(model.services, values.tolist(), strict=True)) for name, values in by_service.items()
    }
    return {
        "usable_minutes": int(usable.sum()),
        **named,
        "hidden_share": float((minutes.response[known] > model.sla_seconds / 2).mean()),
        "log_error": errors,
    }


def _lacking(panel: MetricPanel, entries: Sequence[str], usable: Mask, sla_seconds: float) -> str:
    """What is missing where too few minutes are usable, and the command that collects it."""
    columns, named = [panel.services.index(entry) for entry in entries], ", ".join(entries)
    requests = panel.feature("req")[:, columns]
    if np.isfinite(requests).any() and not np.nan_to_num(requests).any():
        return (
            f"no requests at the entries ({named}) in the training split; load the application "
            "(sh sendFlow/sendLoop.sh) and collect again: python metrics_fetch.py"
        )
    for name in ("req", "res"):
        if not np.isfinite(panel.feature(name)[:, columns]).any():
            return (
                f"{name} of the entries ({named}) is missing throughout the training split, and labels "
                f"start from it; check collect.queries.{name} and the mesh's telemetry, "
                "then: python metrics_fetch.py"
            )
    return (
        f"{usable.sum()} usable minutes (entry traffic known, response below {2 * sla_seconds:g} s) of "
        f"{len(usable)} in the training split, at least {FEWEST_MINUTES} are needed; "
        f"collect longer under a load that varies, with spare capacity: {COLLECT}"
    )


def _report_service(model: DemandModel, index: int) -> None:
    """Log the fit of one service, or why it has none."""
    service, quality = model.services[index], model.quality
    minutes = quality["minutes"][service]
    if np.isnan(model.demand_seconds[index]):
        log.warning(
            "%s: CPU demand unknown (%d usable minutes), so it gets no labels; "
            "check its cpu, pod and req, then: python metrics_fetch.py",
            service,
            minutes,
        )
    elif np.isnan(quality["explained_by_visits"][service]):
        log.warning(
            "%s: never loaded in the training split, so its demand can't be told and its label is 1 replica; "
            "send requests that reach it (sh sendFlow/sendLoop.sh), then: python metrics_fetch.py",
            service,
        )
    else:
        log.info(
            "%s: %.3g ms CPU per request, %.3g millicores idle, R2 %.3f over %d min, %.3g visits",
            service,
            1e3 * model.demand_seconds[index],
            1e3 * model.idle_cores[index],
            quality["cpu_r2"][service],
            minutes,
            (model.external_share @ model.visits)[index],
        )
    slow = quality[WARM_UP][service]
    if slow:
        log.info(
            "%s: a new replica needs more CPU per request for %g s after it is ready, so %g s in all pass "
            "until it counts",
            service,
            slow,
            model.boot_seconds[index],
        )


def _report_capacity(model: DemandModel) -> None:
    """Log how much of its limit each service may use, alone and with three replicas."""
    alone, three = 100 * highest_utilisation(model, 1), 100 * highest_utilisation(model, 3)
    for column, service in enumerate(model.services):
        if np.isfinite(model.demand_seconds[column]) and np.isfinite(alone[column]):
            log.info(
                "%s: may use %.0f %% of its limit with one replica, %.0f %% with three",
                service,
                alone[column],
                three[column],
            )


def _report_response(model: DemandModel) -> None:
    """Log the fit of the entry response, or what it lacks."""
    if model.response is None:
        log.warning(
            "no response fit: fewer than %d minutes have the busiest service at %g-%g of its limit, "
            "so replicas follow rho_max %.2f alone; collect such minutes: %s",
            FEWEST_HOT,
            *HOT,
            model.rho_max,
            COLLECT,
        )
        return
    r0, form = model.response.r0, model.response.form
    log.info(
        "entry response: %.3g s unloaded, kappa %.3g, form %s, held-out log error %.3f",
        r0,
        model.response.kappa,
        form,
        model.quality["log_error"][form],
    )
    if r0 >= model.sla_margin * model.sla_seconds:
        log.warning(
            "the unloaded response %.3g s is above sla_margin x SLA: more replicas can't help, "
            "so rho_max alone decides",
            r0,
        )
