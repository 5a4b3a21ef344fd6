"""Variations of an application: other demands and other numbers of calls."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from testbed.applications.application import Application, Call, Parallel, Steps
from testbed.applications.truth import expected_visits

EXACT = 1e-6
"""Visits that are as close as this, relatively, are those that were asked for."""


def vary(application: Application, sigma: float, seed: int) -> Application:
    """The application with every demand and every number of calls of one service by another times a factor.

    The factors are log-normal with mean 1. Each belongs to its names: adding a service leaves the others
    alone.
    """
    names = application.service_names
    drawn = _with_counts(
        application, lambda caller, callee: _factor(sigma, seed, names[caller], names[callee])
    )
    return replace(
        drawn,
        services=tuple(
            replace(service, demand_seconds=service.demand_seconds * _factor(sigma, seed, service.name))
            for service in application.services
        ),
    )


def with_visits(
    application: Application, shares: NDArray[np.float64], visits: NDArray[np.float64]
) -> Application:
    """The application with as many calls of each service as were seen; each caller of it makes them so often.

    Args:
        application: as described.
        shares: `[E]` share of each endpoint in the requests.
        visits: `[N]` visits of each service per request; NaN or 0 leaves its calls as they are.
    """
    found = application
    for _ in application.services:  # no chain of calls is longer
        described = shares @ expected_visits(found)
        known = np.isfinite(visits) & (visits > 0) & (described > 0)
        factors = np.where(known, visits / np.where(known, described, 1.0), 1.0)
        if np.abs(factors - 1).max() < EXACT:
            break
        found = _with_counts(found, partial(_of_callee, factors))
    return found


def _of_callee(factors: NDArray[np.float64], _: int, callee: int) -> float:
    return float(factors[callee])


def _with_counts(application: Application, factor: Callable[[int, int], float]) -> Application:
    """The application with every number of calls times the factor of its caller and callee."""
    factors: dict[tuple[int, int], float] = {}

    def counted(caller: int, steps: Steps) -> Steps:
        return tuple(
            Parallel(tuple(one(caller, call) for call in step.calls))
            if isinstance(step, Parallel)
            else one(caller, step)
            for step in steps
        )

    def one(caller: int, call: Call) -> Call:
        pair = (caller, call.service)
        if pair not in factors:
            factors[pair] = factor(*pair)
        return replace(call, times=call.times * factors[pair], calls=counted(call.service, call.calls))

    return replace(
        application,
        endpoints=tuple(
            replace(endpoint, calls=counted(endpoint.service, endpoint.calls))
            for endpoint in application.endpoints
        ),
    )


def with_boot(application: Application, seconds: float) -> Application:
    """The application whose pods all take so many seconds to become ready."""
    return replace(
        application,
        services=tuple(replace(service, boot_seconds=seconds) for service in application.services),
    )


def _factor(sigma: float, seed: int, *names: str) -> float:
    """A log-normal factor of mean 1 that belongs to these names."""
    words = [zlib.crc32("\0".join(names).encode()), len(names)]
    normal = np.random.default_rng(np.random.SeedSequence([seed, *words])).standard_normal()
    return float(np.exp(sigma * normal - sigma**2 / 2))
