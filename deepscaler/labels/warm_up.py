"""How long a new replica is slow after it is ready: caches fill, code is compiled, connections are opened.

Where that takes CPU, a request that a young replica serves takes more of it. So the cores that a service uses
are regressed on its replicas, its requests, and the requests that young replicas serve; how long young lasts
is the time with which least is left unexplained. Readiness probes rarely wait for it, and a plan that counts
such replicas as full leaves the first minute of every step to the users.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepscaler.labels.minutes import starting_pods
from deepscaler.panel import MetricPanel

Array = NDArray[np.float64]

SECONDS = (30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 240.0, 300.0)
"""Times that are tried."""
FEWEST_STARTS = 10
"""Fewer starts say nothing."""
LEAST_SLOWDOWN = 2.0
"""A request that takes less than this many times the CPU at a young replica is none to wait for."""
LEAST_EXPLAINED = 0.5
"""Share of what replicas and requests leave unexplained that young replicas have to explain."""
SMOOTH_SECONDS = 60.0
"""A request and its work may fall in neighbouring samples, so all is averaged over this long."""
SATURATED = 0.9
"""Above this share of the limit the cores don't tell what requests need."""


def warm_up_seconds(panel: MetricPanel, limit_cores: Array, ready_seconds: Array) -> Array:
    """Seconds `[N]` for which a new replica is slow after it is ready; 0 where none were found.

    Args:
        panel: regular samples with the features pod, cpu and req.
        limit_cores: `[N]` CPU limits of a replica.
        ready_seconds: `[N]` time until a new replica is ready.
    """
    running = panel.feature("pod") + starting_pods(panel.feature("pod"), ready_seconds, panel.step)
    pod, cpu, req = (panel.feature(name).astype(np.float64) for name in ("pod", "cpu", "req"))
    return np.array(
        [
            _of_service(
                pod[:, column],
                cpu[:, column] * running[:, column] * limit,
                cpu[:, column],
                req[:, column],
                panel.step,
            )
            for column, limit in enumerate(limit_cores.tolist())
        ]
    )


def _of_service(pod: Array, cores: Array, busy: Array, req: Array, step: float) -> float:
    """See `warm_up_seconds`; `cores [L]` are those of all replicas."""
    came = np.maximum(np.nan_to_num(np.diff(pod, prepend=pod[:1])), 0.0)
    if np.count_nonzero(came) < FEWEST_STARTS:
        return 0.0
    rows = max(round(SMOOTH_SECONDS / step), 1)
    used, requests, usual = (_means(values, rows) for values in (cores, req, busy))
    usable = np.isfinite(used) & np.isfinite(requests) & (usual < SATURATED)
    if usable.sum() < 4 * FEWEST_STARTS:
        return 0.0
    plain = np.stack([_means(pod, rows), requests], axis=1)[usable]  # [L, 2]
    without = _unexplained(plain, used[usable])[0]
    best, seconds = (1.0 - LEAST_EXPLAINED) * without, 0.0
    for tried in SECONDS:
        if tried < step:
            continue
        young = _recent(came, max(round(tried / step), 1)) / np.maximum(pod, 1.0)
        served = _means(req * np.minimum(young, 1.0), rows)[usable]
        left, factors = _unexplained(np.column_stack([plain, served]), used[usable])
        if left < best and factors[2] >= (LEAST_SLOWDOWN - 1.0) * max(factors[1], 0.0) and factors[2] > 0:
            best, seconds = left, tried
    return seconds


def _unexplained(inputs: Array, values: Array) -> tuple[float, Array]:
    """The sum of squares that a linear fit leaves, and its factors."""
    factors = np.linalg.lstsq(inputs, values, rcond=None)[0].astype(np.float64)
    return float(np.square(values - inputs @ factors).sum()), factors


def _recent(values: Array, rows: int) -> Array:
    """Sum over each row and the `rows - 1` before it, as far as there are any."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    newest = np.arange(1, len(total))
    sums: Array = total[newest] - total[np.maximum(newest - rows, 0)]
    return sums


def _means(values: Array, rows: int) -> Array:
    """Mean over each row and the `rows - 1` before it; NaN where one of them is unknown or missing."""
    known = np.isfinite(values)
    full = _recent(known.astype(np.float64), rows) > rows - 0.5
    return np.where(full, _recent(np.where(known, values, 0.0), rows) / rows, np.nan)
