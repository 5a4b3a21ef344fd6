"""What controllers of an application decided lately and what their forecasts cost, from their own metrics.

A controller that starts on another node has no decisions.csv, but it has to know what was recommended a
minute ago. Where no controller was scraped, the replicas that the Deployments asked for stand in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.adapters.names import Names, alternatives, quoted
from deepscaler.adapters.prometheus import PrometheusClient, RangeVector
from deepscaler.adapters.queries import WORKLOAD_QUERIES
from deepscaler.cluster import PAST_COLUMNS
from deepscaler.settings import Settings

Array = NDArray[np.float64]
_MODES = {True: "dry_run", False: "act|advise|standby"}
"""A dry run goes on from dry runs, and who acts from those who acted or were ready to."""
_OURS = 'on (job, instance) deepscaler_info{{matchers}app="%s",app_namespace=~"%s|",mode=~"%s"}'
"""Controllers of this application, and those of versions that didn't tell the namespace."""
_OWN = f"max by (service, exported_service) (deepscaler_%s_replicas{{{{matchers}}}}\nand {_OURS})"
"""The label `service` is called `exported_service` where Prometheus gives targets a label of that name."""
_COSTS = f"max by (way) (deepscaler_way_cost_seconds{{{{matchers}}}}\nand {_OURS})"
COSTS_STEP = 60.0
"""Seconds between the moments at which costs are looked for."""
_WISH, _STOOD, _FLOOR = "proposed", "applied", "floor"


def past_decisions(
    settings: Settings, prometheus: PrometheusClient, names: Names, start: float, end: float
) -> pd.DataFrame:
    """`PAST_COLUMNS` at each `collect.step` in (start, end]; empty if Prometheus knows nothing of it.

    Raises:
        MetricsError: Prometheus can't be reached.
    """
    step = settings.collect.step
    found: dict[str, RangeVector] = {}
    for name in (_WISH, _STOOD, _FLOOR):
        query = _own(settings, names, name)
        found[name] = prometheus.query_range(query, start + step, end, step)
    wishes, stood, floors = (_by_service(found[name], names) for name in (_WISH, _STOOD, _FLOOR))
    spec = names.render(WORKLOAD_QUERIES["replicas"], window=settings.collect.window)
    asked = prometheus.query_range(spec, start + step, end, step)
    of = {labels.get("deployment", ""): row for labels, row in zip(asked.labels, asked.values, strict=True)}
    rows = []
    for service in names.services:
        unknown = np.full(len(asked.times), np.nan)
        wish, current = wishes.get(service, unknown), stood.get(service, unknown)
        floor = floors.get(service, unknown)
        current = np.where(np.isfinite(current), current, of.get(names.scaled[service], unknown))
        columns = (asked.times.tolist(), current.tolist(), wish.tolist(), floor.tolist())
        rows += [
            (time, service, round(standing), one, least)
            for time, standing, one, least in zip(*columns, strict=True)
            if np.isfinite(standing) and standing >= 0
        ]
    return pd.DataFrame(rows, columns=list(PAST_COLUMNS))


def past_costs(
    settings: Settings, prometheus: PrometheusClient, names: Names, start: float, end: float
) -> tuple[float, Mapping[str, float]]:
    """When a controller last told in (start, end] what each way of foreseeing cost, and these.

    One that may write goes before one that stands by, whose trials are its own.

    Raises:
        MetricsError: Prometheus can't be reached.
    """
    for mode in ("dry_run",) if settings.scale.dry_run else ("act|advise", "standby"):
        text = _COSTS % _ours(settings, mode)
        query = names.render(text, window=settings.collect.window)
        found = prometheus.query_range(query, start + COSTS_STEP, end, COSTS_STEP)
        ways = [labels.get("way", "") for labels in found.labels]
        known = np.flatnonzero(np.isfinite(found.values).any(axis=0)).tolist() if ways else []
        if known:
            newest = known[-1]
            costs = zip(ways, found.values[:, newest].tolist(), strict=True)
            return float(found.times[newest]), {way: cost for way, cost in costs if np.isfinite(cost)}
    return -math.inf, {}


def _own(settings: Settings, names: Names, name: str) -> str:
    text = _OWN % (name, *_ours(settings, _MODES[settings.scale.dry_run]))
    return names.render(text, window=settings.collect.window)


def _ours(settings: Settings, modes: str) -> tuple[str, str, str]:
    """What `_OURS` asks for."""
    return quoted(settings.app.name), alternatives([settings.app.namespace]), modes


def _by_service(found: RangeVector, names: Names) -> Mapping[str, Array]:
    """Service -> its values, the highest where several controllers told some."""
    out: dict[str, Array] = {}
    for labels, values in zip(found.labels, found.values, strict=True):
        service = labels.get("exported_service") or labels.get("service", "")
        if service in names.services:
            before = out.get(service)
            out[service] = values if before is None else np.fmax(before, values)
    return out
