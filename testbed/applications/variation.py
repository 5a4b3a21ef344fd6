"""Variations of an application: other demands and other numbers of calls."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from testbed.applications.application import Application, Call, Parallel, Steps


def vary(application: Application, sigma: float, seed: int) -> Application:
    """The application with every demand and every number of calls of one service by another times a factor.

    The factors are log-normal with mean 1. Each belongs to its names: adding a service leaves the others
    alone.
    """
    names = application.service_names
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
            factors[pair] = _factor(sigma, seed, names[caller], names[call.service])
        return replace(call, times=call.times * factors[pair], calls=counted(call.service, call.calls))

    return replace(
        application,
        services=tuple(
            replace(service, demand_seconds=service.demand_seconds * _factor(sigma, seed, service.name))
            for service in application.services
        ),
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
