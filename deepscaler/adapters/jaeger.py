"""The call graph from Jaeger's `/api/dependencies`. Trace search isn't used: it is being removed there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import requests

from deepscaler.adapters.queries import Names
from deepscaler.artefacts import one_line
from deepscaler.calls import COLUMNS, EXTERNAL, CallGraph
from deepscaler.errors import MetricsError
from deepscaler.settings import Jaeger


@dataclass(frozen=True)
class Dependency:
    """Traced calls of one service by another within a span of time."""

    parent: str
    child: str
    calls: float


class JaegerClient:
    """Jaeger's query service.

    Args:
        settings: address with its prefix, authentication, share of traced requests.
        session: carries the requests.
    """

    def __init__(self, settings: Jaeger, session: requests.Session | None = None) -> None:
        self.settings = settings
        self.url = settings.url.rstrip("/") + "/api/dependencies"
        self._session = session or requests.Session()

    def dependencies(self, end: float, lookback: float) -> list[Dependency]:
        """Calls in (end - lookback, end], as traced.

        Raises:
            MetricsError: no answer, a refusal, or an answer that isn't Jaeger's.
        """
        headers = {name: value.get_secret_value() for name, value in self.settings.headers.items()}
        if self.settings.token is not None:
            headers["Authorization"] = f"Bearer {self.settings.token.get_secret_value()}"
        span = {"endTs": str(round(end * 1000)), "lookback": str(round(lookback * 1000))}
        try:
            answer = self._session.get(self.url, params=span, headers=headers, timeout=self.settings.timeout)
        except requests.RequestException as error:
            raise MetricsError(
                f"{self.url}: no answer ({one_line(error)}); is Jaeger there? Set cluster.jaeger.url"
            ) from error
        if answer.status_code != 200:
            raise MetricsError(
                f"{self.url}: HTTP {answer.status_code} ({one_line(answer.text)}); check cluster.jaeger (port, path prefix, token)"
            )
        try:
            found: Any = answer.json()
            if found.get("errors"):
                raise MetricsError(f"{self.url}: {one_line(found['errors'])}")
            links = [
                Dependency(str(item["parent"]), str(item["child"]), float(item["callCount"]))
                for item in found["data"] or ()
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MetricsError(
                f"{self.url}: not an answer of /api/dependencies; is this Jaeger, and its prefix right?"
            ) from error
        return links

    def calls(
        self,
        names: Names,
        start: float,
        end: float,
        window: float,
        progress: Callable[[], None] | None = None,
    ) -> CallGraph:
        """Calls in (start, end] by whole windows, one request each; callers that are no services here are `external`.

        Jaeger knows traced requests only: counts are divided by `sampling`. The request that enters an application has a
        caller only where its gateway is traced too.

        Raises:
            MetricsError: as `dependencies`, or there are none of this application's in the whole span.
        """
        rows = []
        known: set[str] = set()
        count = math.floor((end - start) / window + 1e-9)
        for index in range(count):
            time = start + (index + 1) * window
            for link in self.dependencies(time, window):
                known |= {link.parent, link.child}
                callee = service_of(names, link.child)
                if callee is not None:
                    rate = link.calls / window / self.settings.sampling
                    rows.append((time, service_of(names, link.parent) or EXTERNAL, callee, rate))
            if progress:
                progress()
        if not rows:
            raise MetricsError(
                f"{self.url}: no calls of this application in this time; Jaeger knows "
                f"{', '.join(sorted(known)) or 'no services at all'}; check app.namespace and app.services"
            )
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        frame = frame[frame["caller"] != frame["callee"]]  # spans within one service
        sums = frame.groupby(["time", "caller", "callee"])["calls_per_second"].sum()
        return CallGraph(sums.reset_index())


def service_of(names: Names, traced: str) -> str | None:
    """The service of a name in traces: the workload's, Deployment's or service's own, or Istio's `name.namespace`."""
    name, _, namespace = traced.partition(".")
    if namespace and namespace.split(".")[0] != names.namespace:
        return None
    return (
        names.workloads.get(name) or names.deployments.get(name) or (name if name in names.services else None)
    )
