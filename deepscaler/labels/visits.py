"""Visits: requests each service serves per external request at each entry, followed over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import nnls

from deepscaler.calls import EXTERNAL, CallGraph
from deepscaler.labels.demand import external_rates
from deepscaler.panel import MetricPanel

Array = NDArray[np.float64]
MOST_VISITS = 1e4
"""More visits an external request than this are a routing that doesn't end (a cycle seen through noise)."""


@dataclass(frozen=True, eq=False)
class Visits:
    """Visits by window.

    Attributes:
        times: `[W]` middle of each window, rising.
        values: `[W, E, N]`.
    """

    times: Array
    values: Array

    def index_at(self, times: Array) -> NDArray[np.intp]:
        """Which window's middle is nearest to each time."""
        return np.searchsorted((self.times[1:] + self.times[:-1]) / 2, times)

    def routed(self, times: Array, rates: Array, entries: list[int]) -> tuple[Array, Array]:
        """Rates `[L, N]` that the entries' rates make by visits, and external rates `[L, E]`, from served rates `[L, N]`."""
        index = self.index_at(times)
        external = np.full((len(times), len(entries)), np.nan)
        routed = np.full(rates.shape, np.nan)
        for window in np.unique(index):
            rows = index == window
            external[rows] = external_rates(self.values[window], entries, rates[rows])
            routed[rows] = external[rows] @ self.values[window]
        return routed, external


def visits_from_routing(calls: Array, external: Array, entries: list[int]) -> Array:
    """Visits `[E, N]` from calls per second `[N, N]` (row = caller) and external requests per second `[N]`.

    A service passes on P_ij = calls(i, j) / served(i); visits from entry e are row e of (I - P)^-1. Callers in a cycle
    are fine as long as requests leave it; a service that served nothing passes nothing on.
    """
    size = len(external)
    served = external + calls.sum(axis=0)
    routing = np.divide(calls, served[:, None], out=np.zeros_like(calls), where=served[:, None] > 0)
    try:
        visits: Array = np.linalg.solve((np.eye(size) - routing).T, np.eye(size)[:, entries]).T
        ends = bool(np.isfinite(visits).all() and visits.min() > -1e-6 and visits.max() < MOST_VISITS)
    except np.linalg.LinAlgError:
        ends = False
    if not ends:  # each service at most once on a path
        visits = reach = np.eye(size)[entries]
        for _ in range(size - 1):
            reach = reach @ routing
            visits = visits + reach
    return np.clip(visits, 0.0, MOST_VISITS)


def visits_from_calls(calls: CallGraph, panel: MetricPanel, entries: list[int], window: float) -> Visits:
    """Visits around each recorded window of calls, from the calls within `window` seconds (half before, half after)."""
    services = panel.services
    index = {name: position for position, name in enumerate(services)}
    frame = calls.frame[
        calls.frame["callee"].isin(index)
        & (calls.frame["caller"].isin(index) | (calls.frame["caller"] == EXTERNAL))
    ]
    table = frame.pivot_table(
        index="time", columns=["caller", "callee"], values="calls_per_second", aggfunc="sum", fill_value=0.0
    )
    ends, pairs = table.index.to_numpy(np.float64), [(str(pair[0]), str(pair[1])) for pair in table.columns]
    sums = np.vstack([np.zeros(len(pairs)), np.cumsum(table.to_numpy(np.float64), axis=0)])
    length = float(np.median(np.diff(ends))) if len(ends) > 1 else window
    half = max((window - length) / 2, 0.0) + 1e-6
    low, high = np.searchsorted(ends, ends - half), np.searchsorted(ends, ends + half, side="right")
    means = (sums[high] - sums[low]) / (high - low)[:, None]
    known_outside = any(caller == EXTERNAL for caller, _ in pairs)
    values = np.empty((len(ends), len(entries), len(services)))
    for row, mean in enumerate(means):
        matrix, external = np.zeros((len(services), len(services))), np.zeros(len(services))
        for (caller, callee), rate in zip(pairs, mean, strict=True):
            if caller == EXTERNAL:
                external[index[callee]] += rate
            else:
                matrix[index[caller], index[callee]] += rate
        if (
            not known_outside
        ):  # a tracer sees no users: what an entry serves beyond its recorded calls came from outside
            served = _mean_between(panel, ends[low[row]] - length, ends[high[row] - 1])
            external[entries] = np.maximum(served - matrix.sum(axis=0), 0.0)[entries]
        values[row] = visits_from_routing(matrix, external, entries)
    return Visits(ends - length / 2, values)


def visits_from_rates(panel: MetricPanel, entries: list[int], window: float) -> Visits:
    """Visits by regression of each service's request rate on the entries', where no calls are recorded.

    What an entry serves counts as external: without calls, entries that call one another can't be told apart.
    """
    rates = panel.feature("req").astype(np.float64)
    known = np.isfinite(rates)
    rows = max(round(window / panel.step), 2)
    stride = max(rows // 6, 1)
    middles = np.arange(min(rows // 2, len(rates) - 1), max(len(rates) - rows // 2, rows // 2 + 1), stride)
    values = np.zeros((len(middles), len(entries), len(panel.services)))
    for row, middle in enumerate(middles):
        part = slice(max(middle - rows // 2, 0), middle + rows // 2 + 1)
        given = known[part][:, entries].all(axis=1)
        for service in range(len(panel.services)):
            if service in entries:
                values[row, entries.index(service), service] = 1.0
                continue
            use = given & known[part, service]
            if use.any():
                values[row, :, service] = nnls(rates[part][use][:, entries], rates[part][use, service])[0]
    return Visits(panel.times[middles], values)


def follow_visits(
    panel: MetricPanel, calls: CallGraph | None, entries: Sequence[str], window: float
) -> Visits:
    """Visits over a sliding window of `window` seconds, from calls where recorded, else from request rates."""
    columns = [panel.services.index(name) for name in entries]
    if calls is not None:
        inside = calls.frame[
            (calls.frame["time"] > panel.times[0]) & (calls.frame["time"] <= panel.times[-1] + panel.step)
        ]
        if len(inside) and inside["callee"].isin(panel.services).any():
            return visits_from_calls(CallGraph(inside), panel, columns, window)
    return visits_from_rates(panel, columns, window)


def _mean_between(panel: MetricPanel, start: float, end: float) -> Array:
    rates = pd.DataFrame(panel.between(start, end).feature("req").astype(np.float64))
    return rates.mean().fillna(0.0).to_numpy(np.float64)
