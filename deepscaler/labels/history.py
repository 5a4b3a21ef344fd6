"""Offered request rates of all services, sample by sample: what scenarios are drawn from and learn from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepscaler.labels.demand import DemandModel, entered_response, external_rates, told
from deepscaler.panel import MetricPanel

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

EXPLAINED = 0.8
"""A service of whose requests the entries explain a smaller share goes by its own rate."""
MOST_HIDDEN = 3.0
"""During an overload, demand is taken for at most so many times what is served."""
OPEN_LOOP_HIDDEN = 1.2
"""The same for an open load, where slow responses tell nothing about demand."""
HEADROOM = 1.25
"""While an overload lasts, what can be told of demand is only a lower bound: this much more is planned
for.
"""


def offered_history(model: DemandModel, panel: MetricPanel) -> Array | None:
    """Offered requests per second `[L, N]` in the order of the model, no gaps; None if no entry is known.

    A rate is the entries' rate times the visits, corrected for the demand that slow responses hide. A service
    that the entries explain badly goes by its own rate, and so do all while an entry's rate isn't known. A
    service of which nothing was ever known has rate 0. While the response exceeds the SLA, the correction is
    no measurement: overloads of the past are bridged by interpolation. In an overload that lasts until now,
    demand is at least what it was before, at most `MOST_HIDDEN` times what is served, and gets `HEADROOM`.

    Args:
        model: the demand fit.
        panel: samples up to now with the features req and res; services are matched by name.
    """
    rates, over = _rates_and_overloads(model, panel)
    calm = np.where(over[:, None], np.nan, rates)
    if not np.isfinite(calm[:, model.entry_columns]).any():
        return None
    filled = _bridged(calm)
    if over[-1]:
        lasts = slice(len(over) - int(np.argmin(over[::-1])) if not over.all() else 0, None)
        filled[lasts] = np.fmax(filled[lasts], HEADROOM * rates[lasts])
    return filled


def since_first_request(model: DemandModel, panel: MetricPanel) -> MetricPanel:
    """The panel without the rows before the first request rate of an entry: nothing is known of that time."""
    columns = [panel.services.index(name) for name in model.entries if name in panel.services]
    if "req" not in panel.features or not columns:
        return panel.since_first_sample()
    rows = np.flatnonzero(np.isfinite(panel.feature("req")[:, columns]).any(axis=1))
    return panel.rows(slice(int(rows[0]) if len(rows) else len(panel), None))


def known_rates(model: DemandModel, panel: MetricPanel) -> Array:
    """Offered requests per second `[L, N]` in the order of the model; NaN where unknown and in overloads.

    They are what a network with the label `offered` learns to foresee. See `offered_history`.
    """
    rates, over = _rates_and_overloads(model, panel)
    return np.where(over[:, None], np.nan, rates)


def _rates_and_overloads(model: DemandModel, panel: MetricPanel) -> tuple[Array, Mask]:
    """Rates `[L, N]` corrected for hidden demand, NaN where unknown, and whether it is an overload, `[L]`."""
    known = {name: index for index, name in enumerate(panel.services)}
    columns = np.array([known.get(name, -1) for name in model.services])
    served = np.where(columns >= 0, panel.feature("req")[:, columns].astype(np.float64), np.nan)
    entries = model.entry_columns
    there = columns[entries] >= 0
    means = np.where(there, panel.feature("res")[:, columns[entries]].astype(np.float64), np.nan)
    response = told(panel.waited, entered_response(model.among_entries, served[:, entries], means))
    routed = external_rates(model.visits, entries, served) @ model.visits
    own = (_explained(served, routed) < EXPLAINED) | ~np.isfinite(routed)
    rates = np.where(own, served, routed)
    over = response > model.sla_seconds  # NaN, no traffic, is no overload
    return rates * _hidden(model, response, over)[:, None], over


def _hidden(model: DemandModel, response: Array, over: Mask) -> Array:
    """Offered over served rate, `[L]`."""
    factor = model.correction(response)
    most = OPEN_LOOP_HIDDEN if model.think_seconds is None else MOST_HIDDEN
    return np.where(over, most if model.think_seconds is None else np.minimum(factor, most), factor)


def _explained(served: Array, routed: Array) -> Array:
    """Share `[N]` of each service's requests that the entries' rates account for; 1 without requests."""
    both = np.isfinite(served) & np.isfinite(routed)
    seen = np.where(both, served, 0.0).sum(axis=0)
    through = np.where(both, routed, 0.0).sum(axis=0)
    return np.where(seen > 1e-9, through / np.maximum(seen, 1e-9), 1.0)


def _bridged(rates: Array) -> Array:
    """Gaps filled by interpolation, at both ends by the nearest value, where there is none at all by 0."""
    rows, out = np.arange(len(rates)), rates.copy()
    for column in range(rates.shape[1]):
        good = np.isfinite(rates[:, column])
        out[:, column] = np.interp(rows, rows[good], rates[good, column]) if good.any() else 0.0
    return out
