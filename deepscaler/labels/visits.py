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
"""More visits per external request than this mean that the routing doesn't end (noise made a cycle)."""


@dataclass(frozen=True, eq=False)
class Visits:
    """Visits in each of W windows.

    Attributes:
        times: `[W]` middle of each window, rising, seconds since the epoch.
        values: `[W, E, N]` requests that a service serves per external request at an entry.
    """

    times: Array
    values: Array

    def index_at(self, times: Array) -> NDArray[np.intp]:
        """The windows `[L]` whose middle is nearest to the times `[L]`."""
        return np.searchsorted((self.times[1:] + self.times[:-1]) / 2, times)

    def routed(self, times: Array, rates: Array, entries: list[int]) -> tuple[Array, Array]:
        """What the entries' rates make of all services' rates by visits.

        Args:
            times: `[L]`.
            rates: `[L, N]` served requests per second.
            entries: columns of the E entries.

        Returns:
            Routed rates `[L, N]`, and external rates `[L, E]`.
        """
        index = self.index_at(times)
        external = np.full((len(times), len(entries)), np.nan)
        routed = np.full(rates.shape, np.nan)
        for window in np.unique(index):
            rows = index == window
            external[rows] = external_rates(self.values[window], entries, rates[rows])
            routed[rows] = external[rows] @ self.values[window]
        return routed, external


def visits_from_routing(calls: Array, external: Array, entries: list[int]) -> Array:
    """Visits `[E, N]` from recorded calls.

    A service passes on P_ij = calls(i, j) / served(i) per request that it serves, and visits from entry e
    are row e of (I - P)^-1. Services may call one another in a cycle as long as requests leave it; where
    they don't, each service is counted along paths of at most N calls. A service that served nothing passes
    nothing on.

    Args:
        calls: `[N, N]` calls per second, row = caller.
        external: `[N]` external requests per second.
        entries: columns of the E entries.
    """
    size = len(external)
    served = external + calls.sum(axis=0)
    routing = np.divide(calls, served[:, None], out=np.zeros_like(calls), where=served[:, None] > 0)
    try:
        visits: Array = np.linalg.solve((np.eye(size) - routing).T, np.eye(size)[:, entries]).T
        ends = bool(np.isfinite(visits).all() and visits.min() > -1e-6 and visits.max() < MOST_VISITS)
    except np.linalg.LinAlgError:
        ends = False
    if not ends:
        visits = reach = np.eye(size)[entries]
        for _ in range(size - 1):
            reach = reach @ routing
            visits = visits + reach
    return np.clip(visits, 0.0, MOST_VISITS)


def visits_from_calls(calls: CallGraph, panel: MetricPanel, entries: list[int], window: float) -> Visits:
    """Visits around each recorded window of calls, from the calls of a longer window around it.

    Args:
        calls: recorded calls.
        panel: the services, and request rates for where callers outside the application aren't recorded.
        entries: columns of the E entries.
        window: seconds of calls that each estimate rests on, half of them before and half after.
    """
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
        if not known_outside:  # a tracer sees no users: what an entry serves beyond its calls is external
            served = _mean_between(panel, ends[low[row]] - length, ends[high[row] - 1])
            external[entries] = np.maximum(served - matrix.sum(axis=0), 0.0)[entries]
        values[row] = visits_from_routing(matrix, external, entries)
    return Visits(ends - length / 2, values)


def visits_from_rates(panel: MetricPanel, entries: list[int], window: float) -> Visits:
    """Visits by regression of each service's request rate on the entries' rates, where no calls are recorded.

    All that an entry serves counts as external: without calls, what other entries sent it can't be told.

    Args:
        panel: with the feature req.
        entries: columns of the E entries.
        window: seconds of rates that each estimate rests on.
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
    """Visits over a sliding window: from calls where some are recorded in the panel's span, else from rates.

    Args:
        panel: with the feature req.
        calls: recorded calls; None without.
        entries: the E services at which requests enter.
        window: seconds that each estimate rests on.
    """
    columns = [panel.services.index(name) for name in entries]
    if calls is not None:
        inside = calls.frame[
            (calls.frame["time"] > panel.times[0]) & (calls.frame["time"] <= panel.times[-1] + panel.step)
        ]
        if len(inside) and inside["callee"].isin(panel.services).any():
            return visits_from_calls(CallGraph(inside), panel, columns, window)
    return visits_from_rates(panel, columns, window)


def _mean_between(panel: MetricPanel, start: float, end: float) -> Array:
    """Mean request rates `[N]` over samples with start < time <= end; 0 where none is known."""
    rates = pd.DataFrame(panel.between(start, end).feature("req").astype(np.float64))
    return rates.mean().fillna(0.0).to_numpy(np.float64)
