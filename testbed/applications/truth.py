"""The truth about an emulated application, which the labels and graphs estimate from telemetry."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from testbed.applications.application import Application, Steps, calls_of


def expected_visits(application: Application) -> NDArray[np.float64]:
    """Mean visits of each service per request to each endpoint, `[K, N]`, if nothing fails or times out."""
    visits = np.zeros((len(application.endpoints), len(application.services)))
    for row, endpoint in zip(visits, application.endpoints, strict=True):
        row[endpoint.service] += 1
        _add_visits(row, endpoint.calls, 1.0)
    return visits


def _add_visits(row: NDArray[np.float64], steps: Steps, factor: float) -> None:
    for call in calls_of(steps):
        mean = factor * call.times * call.probability
        row[call.service] += mean
        _add_visits(row, call.calls, mean)


def mean_demand(application: Application) -> NDArray[np.float64]:
    """Mean CPU-seconds of one visit to each service, `[N]`."""
    return np.array([service.demand_seconds for service in application.services])


def endpoint_shares(application: Application) -> NDArray[np.float64]:
    """Share of each endpoint in the requests that users make, `[K]`."""
    counts = np.zeros(len(application.endpoints))
    for task in application.tasks:
        for request in task.requests:
            counts[request] += task.weight
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares
