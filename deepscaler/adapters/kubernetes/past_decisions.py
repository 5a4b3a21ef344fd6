"""What controllers of an application decided lately, from their own metrics in Prometheus.

A controller that starts on another node has no decisions.csv, but it has to know what was recommended a
minute ago. Where no controller was scraped, the replicas that the Deployments asked for stand in.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.adapters.prometheus import PrometheusClient, RangeVector
from deepscaler.adapters.queries import WORKLOAD_QUERIES, Names, quoted
from deepscaler.cluster import PAST_COLUMNS
from deepscaler.settings import Settings

Array = NDArray[np.float64]
_MODES = {True: "dry_run", False: "act|advise|standby"}
"""A dry run goes on from dry runs, and who acts from those who acted or were ready to."""
_OWN = (
    "max by (service, exported_service) (deepscaler_%s_replicas{{matchers}}\n"
    'and on (job, instance) deepscaler_info{{matchers}app="%s",mode=~"%s"})'
)
"""The label `service` is called `exported_service` where Prometheus gives targets a label of that name."""
_WISH, _STOOD = "proposed", "applied"


def past_decisions(
    settings: Settings, prometheus: PrometheusClient, names: Names, start: float, end: float
) -> pd.DataFrame:
    """`PAST_COLUMNS` at each `collect.step` in (start, end]; empty if Prometheus knows nothing of it.

    Raises:
        MetricsError: Prometheus can't be reached.
    """
    step = settings.collect.step
    found: dict[str, RangeVector] = {}
    for name in (_WISH, _STOOD):
        query = _own(settings, names, name)
        found[name] = prometheus.query_range(query, start + step, end, step)
    wishes, stood = (_by_service(found[name], names) for name in (_WISH, _STOOD))
    spec = names.render(WORKLOAD_QUERIES["replicas"], window=settings.collect.window)
    asked = prometheus.query_range(spec, start + step, end, step)
    replicas = {
        service: values
        for labels, values in zip(asked.labels, asked.values, strict=True)
        if (service := names.service("deployment", labels.get("deployment", ""))) is not None
    }
    rows = []
    for service in names.services:
        unknown = np.full(len(asked.times), np.nan)
        wish, current = wishes.get(service, unknown), stood.get(service, unknown)
        current = np.where(np.isfinite(current), current, replicas.get(service, unknown))
        for time, one, standing in zip(asked.times.tolist(), wish.tolist(), current.tolist(), strict=True):
            if np.isfinite(standing) and standing >= 0:
                rows.append((time, service, round(standing), one if np.isfinite(one) else np.nan))
    return pd.DataFrame(rows, columns=list(PAST_COLUMNS))


def _own(settings: Settings, names: Names, name: str) -> str:
    text = _OWN % (name, quoted(settings.app.name), _MODES[settings.scale.dry_run])
    return names.render(text, window=settings.collect.window)


def _by_service(found: RangeVector, names: Names) -> Mapping[str, Array]:
    """Service -> its values, the highest where several controllers told some."""
    out: dict[str, Array] = {}
    for labels, values in zip(found.labels, found.values, strict=True):
        service = labels.get("exported_service") or labels.get("service", "")
        if service in names.services:
            before = out.get(service)
            out[service] = values if before is None else np.fmax(before, values)
    return out
