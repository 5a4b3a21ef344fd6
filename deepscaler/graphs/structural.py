"""Who calls whom, from telemetry alone: a caller's response is its own time plus its callees' responses times calls of each.

`r_i = own_i + Σ_j V_ij r_j` is fitted for every caller i, with V >= 0 (calls of j a request of i) and own_i a non-negative
mix of curves of its utilisation ρ. What makes it work is that replicas vary independently (the exploring collection policy):
then responses of callees move on their own. Calls that run in parallel count for less, those that a sample holds few of are missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from deepscaler.errors import DataError
from deepscaler.panel import MetricPanel

Array = NDArray[np.float64]
NEEDED = ("pod", "cpu", "res", "req")
FEWEST_ROWS = 60
"""Samples of both services below which a pair isn't tried."""
MOST_CALLEES = 100
"""Candidates a caller; of more, those whose responses correlate with its own best."""
SLACK = 2.0
"""A callee's response may be so many times its caller's (the caller needn't wait for it in each request)."""
HUBER = 1.345
PASSES = 6
BLOCK = 20
"""Samples whose errors may be correlated, for t."""
DOUBT = 2.0
"""A share with this t counts half."""


@dataclass(frozen=True, eq=False)
class Structure:
    """What the fit found, `[N, N]`, row = caller.

    Attributes:
        share: share of the caller's mean response that is spent in the callee, 0 where none was found.
        t: of the coefficient behind it, by blocks of samples; 0 without one.
    """

    share: Array
    t: Array

    @property
    def score(self) -> NDArray[np.float32]:
        """The share, shrunk by its uncertainty: share · t² / (t² + 4)."""
        return (self.share * self.t**2 / (self.t**2 + DOUBT**2)).astype(np.float32)


def fit_structure(panel: MetricPanel) -> Structure:
    """The call structure behind a panel's `res`, `req`, `pod` and `cpu`; give it training rows only.

    Raises:
        DataError: one of the features isn't there.

    Source: this project's own recipe. A callee slower than its caller is tried too: its calls may be rare.
    """
    absent = [name for name in NEEDED if name not in panel.features]
    if absent:
        raise DataError(
            f"prior structural needs the features {', '.join(NEEDED)}; {', '.join(absent)} isn't among the metrics"
        )
    pods, cpu, response, rate = (panel.feature(name).astype(np.float64) for name in NEEDED)
    count = len(panel.services)
    share, t = np.zeros((count, count)), np.zeros((count, count))
    for caller in range(count):
        callees = candidates(caller, response, rate)
        rows = np.isfinite(response[:, caller]) & (rate[:, caller] > 0) & np.isfinite(cpu[:, caller])
        if not len(callees) or rows.sum() < FEWEST_ROWS:
            continue
        own = own_time(cpu[rows, caller], pods[rows, caller])
        seen = np.nan_to_num(response[rows][:, callees], nan=0.0)  # a callee without requests took no time
        most = np.percentile(np.nan_to_num(rate[rows][:, callees]) / rate[rows, caller][:, None], 90, axis=0)
        time = response[rows, caller]
        weights = np.sqrt(rate[rows, caller]) / (time + 0.3 * np.median(time))
        calls, certainty = bounded_fit(seen, own, time, weights, most)
        share[caller, callees] = calls * seen.mean(axis=0) / time.mean()
        t[caller, callees] = certainty
    return Structure(share, t)


def time_shares(rates: Array, panel: MetricPanel) -> Array:
    """What `Structure.share` estimates, from recorded calls per second `[N, N]`: their time in each callee over the caller's."""
    seen = {name: np.nan_to_num(panel.feature(name).astype(np.float64)) for name in ("req", "res")}
    requests, seconds = (
        seen["req"].mean(axis=0),
        (seen["req"] * seen["res"]).mean(axis=0),
    )  # of all requests in a second
    each = np.where(requests > 0, seconds / np.where(requests > 0, requests, 1.0), 0.0)
    shares: Array = np.where(
        seconds[:, None] > 0, rates * each[None, :] / np.where(seconds > 0, seconds, 1.0)[:, None], 0.0
    )
    return shares


def candidates(caller: int, response: Array, rate: Array) -> NDArray[np.int64]:
    """Services that `caller` could call: fast enough, or asked seldom enough, in most samples. Shapes `[L, N]`."""
    found, strength = [], []
    for callee in range(response.shape[1]):
        both = np.isfinite(response[:, callee]) & np.isfinite(response[:, caller]) & (rate[:, caller] > 0)
        if callee == caller or both.sum() < FEWEST_ROWS:
            continue
        theirs, ours = response[both, callee], response[both, caller]
        most = np.percentile(np.nan_to_num(rate[both, callee]) / rate[both, caller], 90)
        if (theirs < SLACK * ours).mean() > 0.5 or (most * theirs < ours).mean() > 0.5:
            found.append(callee)
            varies = theirs.std() > 0 and ours.std() > 0
            strength.append(abs(float(np.corrcoef(theirs, ours)[0, 1])) if varies else 0.0)
    best = np.argsort(-np.array(strength), kind="stable")[:MOST_CALLEES]
    return np.sort(np.array(found, np.int64)[best])


def own_time(utilisation: Array, pods: Array) -> Array:
    """Curves `[L, 9]` that the caller's own time is a non-negative mix of: of ρ now, of ρ before, of replicas."""
    rho = np.clip(utilisation, 0.0, 0.97)
    before = np.concatenate([rho[:1], rho[:-1]])
    curves = [np.ones_like(rho), rho, rho**2, rho**4, rho**6, rho**12, rho / (1 - rho), before**6]
    return np.stack([*curves, 1 / np.maximum(np.nan_to_num(pods, nan=1.0), 1.0)], axis=1)


def bounded_fit(seen: Array, own: Array, time: Array, weights: Array, most: Array) -> tuple[Array, Array]:
    """Calls `[M]` in [0, most] of `time = own mix + seen · calls`, weighted least squares with Huber re-weighting, and their t `[M]`.

    Args:
        seen: responses of the candidates `[L, M]`.
        own: `[L, K]`; its coefficients are non-negative.
        time: `[L]`.
        weights: `[L]`, one over the standard deviation.
        most: `[M]`.
    """
    count = seen.shape[1]
    design = np.concatenate([seen, own], axis=1)
    scale = np.maximum(np.abs(design).mean(axis=0), 1e-12)
    design = design / scale
    bound = np.concatenate([np.maximum(most, 1e-9) * scale[:count], np.full(own.shape[1], np.inf)])
    robust = np.ones(len(time))
    for _ in range(PASSES):
        root = weights * np.sqrt(robust)
        basis, triangle = np.linalg.qr(design * root[:, None])
        found = lsq_linear(triangle, basis.T @ (time * root), bounds=(0, bound), method="bvls").x
        error = (time - design @ found) * weights
        spread = 1.4826 * np.median(np.abs(error)) + 1e-12
        robust = np.minimum(1.0, HUBER * spread / np.maximum(np.abs(error), 1e-12))
    t = _block_t(design * (weights * np.sqrt(robust))[:, None], error * np.sqrt(robust), found)
    return found[:count] / scale[:count], t[:count]


def _block_t(design: Array, error: Array, found: Array) -> Array:
    """Coefficients over their standard errors among those above 0; errors may be correlated within a block of samples.

    Source: the cluster-robust covariance (Liang and Zeger 1986), blocks of neighbouring samples as clusters.
    """
    t = np.zeros(len(found))
    free = np.flatnonzero(found > 1e-9 * found.max(initial=0.0))
    whole = len(error) // BLOCK * BLOCK
    if not len(free) or not whole:
        return t
    part = design[:, free]
    inverse = np.linalg.pinv(part.T @ part)
    scores = (part[:whole] * error[:whole, None]).reshape(-1, BLOCK, len(free)).sum(axis=1)
    variance = np.diag(inverse @ (scores.T @ scores) @ inverse)
    t[free] = found[free] / np.sqrt(np.maximum(variance, 1e-30))
    return t
