"""Which limit the usage of a service is a share of, and where that limit is known from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from deepscaler.adapters.queries import LIMITED, USED_CONTAINERS, USED_REQUESTS
from deepscaler.cluster import Workload
from deepscaler.errors import MetricsError
from deepscaler.logs import OnChange
from deepscaler.statistics import nan_mean

_LOG = logging.getLogger(__name__)
Array = NDArray[np.float64]
Stated = Callable[[], Mapping[str, Workload]]
"""What the Kubernetes API says of the services' limits and requests; empty where it can't be asked."""
HIGHEST_SHARE = 1.05
"""A mean share of a limit above this is nonsense: nothing uses more than its limit for minutes."""
_FEWEST_SAMPLES = 4
_FIELDS = {
    "cpu": ("cpu_limit_cores", "cpu_request_cores"),
    "memory": ("memory_limit_bytes", "memory_request_bytes"),
}


class Limits:
    """What usage is divided by: one source per service, the same that `workloads.json` has its limits from.

    The sources, best first: the limit in Prometheus (cAdvisor, else kube-state-metrics), the limit in the
    Kubernetes API, the request in Prometheus, the request in the API. A service that has shown a limit is
    never compared with its request afterwards.

    Args:
        services: N names, in the order of the arrays.
        stated: tells what the Kubernetes API says.
    """

    def __init__(self, services: tuple[str, ...], stated: Stated) -> None:
        self._services, self._stated = services, stated
        self._limited: set[tuple[str, str]] = set()  # feature and service that have shown a limit
        self._on_change = OnChange(_LOG)

    def shares(self, feature: str, used: Array, limits: Array, fetch: Callable[[str], Array]) -> Array:
        """Usage over limits `[N, L]`; NaN where neither a limit nor its stand-in is known.

        Args:
            feature: `cpu` or `mem`.
            used: `[N, L]` cores or bytes.
            limits: `[N, L]` the limits of the same containers, as Prometheus knows them.
            fetch: reads one more template from Prometheus, `[N, L]`.

        Raises:
            MetricsError: the CPU of a service has neither a limit nor a request.
        """
        divisor = limits.copy()
        of_limit: NDArray[np.bool_] = np.asarray(np.isfinite(limits).any(axis=1))
        bare = [int(row) for row in np.flatnonzero(np.isfinite(used).any(axis=1) & ~of_limit)]
        if bare:
            of_limit[self._from_api(feature, bare, divisor, fetch)] = True
            self._from_requests(feature, [row for row in bare if not of_limit[row]], divisor, fetch)
        self._limited |= {(feature, self._services[row]) for row in np.flatnonzero(of_limit)}
        with np.errstate(divide="ignore", invalid="ignore"):
            shares: Array = used / divisor
        self._drop_nonsense(feature, shares, of_limit)
        return shares

    def _from_api(
        self, feature: str, bare: list[int], divisor: Array, fetch: Callable[[str], Array]
    ) -> list[int]:
        """Fill in the limits that the Kubernetes API states; the rows that have one."""
        resource = LIMITED[feature]
        stated = self._values(resource, 0)
        rows = [row for row in bare if self._services[row] in stated]
        counts = fetch(USED_CONTAINERS[resource]) if rows else divisor
        for row in rows:
            divisor[row] = stated[self._services[row]] * counts[row]
            self._say(feature, row, "Prometheus knows no limit, so the limit is the Kubernetes API's")
        return rows

    def _from_requests(
        self, feature: str, bare: list[int], divisor: Array, fetch: Callable[[str], Array]
    ) -> None:
        """Fill in requests where there has never been a limit; refuse CPU without either."""
        for row in [row for row in bare if (feature, self._services[row]) in self._limited]:
            self._say(feature, row, f"the limit is no longer known, so {feature} is missing")
        fresh = [row for row in bare if (feature, self._services[row]) not in self._limited]
        if not fresh:
            return
        resource = LIMITED[feature]
        requests, stated = fetch(USED_REQUESTS[resource]), self._values(resource, 1)
        for row in fresh:
            divisor[row] = requests[row]
            if not np.isfinite(requests[row]).any() and self._services[row] in stated:
                divisor[row] = stated[self._services[row]] * fetch(USED_CONTAINERS[resource])[row]
            if np.isfinite(divisor[row]).any():
                self._say(feature, row, "no limit is known, so it is a share of the request")
        refused = [self._services[row] for row in fresh if not np.isfinite(divisor[row]).any()]
        if refused and feature == "cpu":
            raise MetricsError(
                f"cpu of {', '.join(refused)}: neither a CPU limit nor a CPU request to compare with "
                "(container_spec_cpu_quota, kube_pod_container_resource_limits and _requests, "
                "the Kubernetes API); set resources.limits.cpu in the Deployment"
            )

    def _values(self, resource: str, kind: int) -> dict[str, float]:
        """Service -> limit (kind 0) or request (kind 1) of one replica, as the Kubernetes API states it."""
        values = {name: getattr(item, _FIELDS[resource][kind]) for name, item in self._stated().items()}
        return {name: value for name, value in values.items() if value}

    def _drop_nonsense(self, feature: str, shares: Array, of_limit: NDArray[np.bool_]) -> None:
        """Make shares of a limit missing, in place, where their mean is above what is possible."""
        means = nan_mean(np.where(np.isfinite(shares), shares, np.nan), axis=1)
        known = np.isfinite(shares).sum(axis=1) >= _FEWEST_SAMPLES
        for row, service in enumerate(self._services):
            subject = f"{feature} of {service} above its limit"
            if of_limit[row] and known[row] and means[row] > HIGHEST_SHARE:
                shares[row] = np.nan
                self._on_change.trouble(
                    subject,
                    f"{feature} of {service}: more than its limit on average, which can't be, so it is "
                    "missing; are series counted twice (two clusters or scrapes)? "
                    "Set cluster.prometheus.matchers",
                )
            elif known[row]:
                self._on_change.well(subject)

    def _say(self, feature: str, row: int, text: str) -> None:
        service = self._services[row]
        self._on_change.trouble(f"{feature} of {service}", f"{feature} of {service}: {text}")
