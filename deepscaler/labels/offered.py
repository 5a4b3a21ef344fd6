"""Offered load: what users ask of each service, also where slow responses keep them from asking."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepscaler.labels.demand import DemandModel, entering, entry_response, told
from deepscaler.labels.visits import Visits
from deepscaler.panel import MetricPanel, trailing_mean, trailing_means
from deepscaler.settings import Process

Array = NDArray[np.float64]
TRUSTED_VISITS = 0.8
"""Where visits explain less than this share of a service's requests, its own rate is taken."""


def offered_rates(
    model: DemandModel, visits: Visits, panel: MetricPanel, process: Process, *, causal: bool = False
) -> tuple[Array, Array]:
    """Offered request rates at each row of a regular panel.

    A rate is the entries' mean rate over `process.rate_window` times visits, corrected for demand that slow
    responses hide. A service that visits explain badly keeps its own rate. A rate is NaN where the entries'
    samples are missing, or where their response is above the SLA and the think time isn't known (or the
    loop is open).

    Args:
        model: the demand fit.
        visits: by window.
        panel: regular samples with the features req and res.
        process: settings of the labels.
        causal: use at each row only what is known by then: the visits around the time one visit window
            earlier, instead of those around the row.

    Returns:
        Requests per second `[L, N]`, and visits per external request `[L, N]`.
    """
    if causal:
        visits = Visits(visits.times + process.visit_window, visits.values)
    part = panel.select(model.services, ("req", "res"))
    window = max(round(process.rate_window / panel.step), 1)
    means = trailing_means(part, window).astype(np.float64)
    served, entries = means[:, :, 0], model.entry_columns
    rates, external = visits.routed(part.times, served, entries)
    response = entry_response(entering(external, served[:, entries]), means[:, entries, 1])
    if part.waited is not None:
        _, came = visits.routed(part.times, part.feature("req").astype(np.float64), entries)
        response = told(trailing_mean(part.waited, came.sum(axis=1), window), response)
    around = max(round(process.visit_window / panel.step), 1)
    rates = np.where(_explained(served, rates, around, not causal) < TRUSTED_VISITS, served, rates)
    rates *= model.correction(response)[:, None]
    if model.think_seconds is None:
        rates[response > model.sla_seconds] = np.nan
    per_request = np.einsum("e,wen->wn", model.external_share, visits.values)[visits.index_at(part.times)]
    return rates, per_request


def _explained(served: Array, routed: Array, rows: int, centred: bool) -> Array:
    """Share `[L, N]` of the requests near each row that the entries' rates account for; NaN without requests.

    Args:
        served: `[L, N]` requests per second.
        routed: `[L, N]` what the entries' rates make of them by visits.
        rows: how many rows count, around each row if `centred`, else up to it.
        centred: see `rows`.
    """
    known = np.isfinite(served) & np.isfinite(routed)
    ahead = (rows - 1) // 2 if centred else 0
    seen, accounted = (_sums(np.where(known, values, 0.0), rows, ahead) for values in (served, routed))
    share: Array = np.where(seen > 1e-9, accounted / np.maximum(seen, 1e-9), np.nan)
    return share


def _sums(values: Array, rows: int, ahead: int) -> Array:
    """Sums `[L, N]` over `rows` rows, of which `ahead` are after the row itself; those there are count."""
    ends = np.minimum(np.arange(len(values)) + ahead + 1, len(values))
    totals = np.vstack([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    sums: Array = totals[ends] - totals[np.maximum(np.arange(len(values)) + ahead + 1 - rows, 0)]
    return sums
