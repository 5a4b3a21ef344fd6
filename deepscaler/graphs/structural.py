"""Who calls whom, from telemetry alone.

A caller's response is its own time plus, for each callee, the callee's response times the calls of it per
request: `r_i = own_i + Σ_j V_ij r_j`. This is fitted for every caller i, with V >= 0 and own_i a
non-negative mix of curves of its utilisation ρ. It works because replicas vary independently of each other
(under the exploring collection policy), so that callees' responses move on their own. Calls that run in
parallel count for less than they are; calls of which a sample holds few are missed.
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
"""A pair of services with fewer samples of both isn't tried."""
MOST_CALLEES = 100
"""At most this many callees per caller are tried: those whose responses correlate best with the caller's."""
SLACK = 2.0
"""A callee may take this many times as long as its caller, which needn't wait for it in each request."""
HUBER = 1.345
"""Errors beyond this many standard deviations are weighted down.

Source: Huber 1981; the estimate stays 95 % efficient where the noise is normal.
"""
PASSES = 6
"""Rounds of re-weighting."""
BLOCK = 20
"""t allows for errors that are correlated within blocks of this many samples."""
DOUBT = 2.0
"""A share with this t counts half."""
CALL_DOUBT = 10.0
"""A call with this t is half as likely as one that is certain.

What the form of the fit can't say makes t values of several for pairs that don't call. Chosen on
`testbed.seed` 1 of Online Boutique, `synthetic:30:1` and Train-Ticket.
"""


@dataclass(frozen=True, eq=False)
class Structure:
    """The call structure that the fit found, row = caller.

    Attributes:
        share: `[N, N]` share of the caller's mean response that is spent in the callee; 0 where no call was
            found.
        t: `[N, N]` t value of the coefficient behind it; 0 where no call was found.
        calls: `[N, N]` that coefficient: calls per request to the caller.
    """

    share: Array
    t: Array
    calls: Array

    @property
    def score(self) -> NDArray[np.float32]:
        """The share, shrunk by its uncertainty: share · t² / (t² + 4), float32 `[N, N]`."""
        return (self.share * self.t**2 / (self.t**2 + DOUBT**2)).astype(np.float32)

    @property
    def likelihood(self) -> NDArray[np.float32]:
        """How likely the caller calls at all, in [0, 1], float32 `[N, N]`: calls, at most 1, shrunk likewise.

        `score` ranks by time spent, so calls to quick services come last; this ranks calls alike.
        """
        certain = self.t**2 / (self.t**2 + CALL_DOUBT**2)
        return (np.minimum(self.calls, 1.0) * certain).astype(np.float32)


def fit_structure(panel: MetricPanel) -> Structure:
    """The call structure behind a panel's `pod`, `cpu`, `res` and `req`; give it training rows only.

    A callee slower than its caller is tried too: the caller may call it in few of its requests.

    Source: this project's own recipe.

    Raises:
        DataError: one of the features isn't there.
    """
    absent = [name for name in NEEDED if name not in panel.features]
    if absent:
        raise DataError(
            f"prior structural needs the features {', '.join(NEEDED)}; "
            f"{', '.join(absent)} isn't among the metrics"
        )
    pods, cpu, response, rate = (panel.feature(name).astype(np.float64) for name in NEEDED)
    count = len(panel.services)
    share, t, found = (np.zeros((count, count)) for _ in range(3))
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
        found[caller, callees] = calls
    return Structure(share, t, found)


def time_shares(rates: Array, panel: MetricPanel) -> Array:
    """What `Structure.share` estimates, from recorded calls: the calls' time over the time of the caller.

    Args:
        rates: calls per second `[N, N]`, row = caller.
        panel: with the features req and res.

    Returns:
        `[N, N]`, row = caller; 0 for callers without requests.
    """
    seen = {name: np.nan_to_num(panel.feature(name).astype(np.float64)) for name in ("req", "res")}
    requests = seen["req"].mean(axis=0)
    seconds = (seen["req"] * seen["res"]).mean(
        axis=0
    )  # response time of all requests that arrive in a second
    each = np.where(requests > 0, seconds / np.where(requests > 0, requests, 1.0), 0.0)
    own = np.where(seconds > 0, seconds, 1.0)[:, None]
    shares: Array = np.where(seconds[:, None] > 0, rates * each[None, :] / own, 0.0)
    return shares


def candidates(caller: int, response: Array, rate: Array) -> NDArray[np.int64]:
    """Columns of the services that `caller` could call: in most samples fast enough, or asked seldom enough.

    Args:
        caller: column of the caller.
        response: mean responses in seconds, `[L, N]`.
        rate: requests per second, `[L, N]`.
    """
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
    """Curves `[L, 9]` of which the caller's own time is a non-negative mix.

    Args:
        utilisation: `[L]`; NaN isn't allowed. Curves are of its present and of its previous value.
        pods: `[L]` ready replicas; NaN counts as one.
    """
    rho = np.clip(utilisation, 0.0, 0.97)
    before = np.concatenate([rho[:1], rho[:-1]])
    curves = [np.ones_like(rho), rho, rho**2, rho**4, rho**6, rho**12, rho / (1 - rho), before**6]
    return np.stack([*curves, 1 / np.maximum(np.nan_to_num(pods, nan=1.0), 1.0)], axis=1)


def bounded_fit(seen: Array, own: Array, time: Array, weights: Array, most: Array) -> tuple[Array, Array]:
    """Fit `time = own mix + seen · calls` with calls in [0, most], by least squares with Huber re-weighting.

    Args:
        seen: responses of the M candidates, `[L, M]`.
        own: curves of the caller's own time, `[L, K]`; their coefficients are non-negative.
        time: responses of the caller, `[L]`.
        weights: one over the standard deviation of each sample, `[L]`.
        most: highest calls of each candidate per request, `[M]`.

    Returns:
        Calls per request `[M]`, and their t values `[M]`.
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
    """The coefficients over their standard errors; 0 for coefficients at 0.

    Errors may be correlated within blocks of neighbouring samples.

    Source: the cluster-robust covariance (Liang and Zeger 1986) with these blocks as clusters.
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
