"""The call graph from Jaeger's `/api/dependencies`.

The search for traces isn't used, because Jaeger is removing it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import pandas as pd
import requests
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from deepscaler.adapters.queries import Names
from deepscaler.adapters.web import TooLarge, Web
from deepscaler.artefacts import one_line
from deepscaler.calls import COLUMNS, EXTERNAL, CallGraph
from deepscaler.errors import MetricsError
from deepscaler.settings import Jaeger


@dataclass(frozen=True)
class Dependency:
    """Traced calls from `parent` to `child` within a span of time."""

    parent: str
    child: str
    calls: float


class _Link(BaseModel):
    parent: str
    child: str
    calls: Annotated[FiniteFloat, Field(ge=0, alias="callCount")]


class _Answer(BaseModel):
    """What Jaeger answers; `data` is null where there were no calls."""

    data: list[_Link] | None = None
    errors: object = None


class JaegerClient:
    """Jaeger's query service.

    Args:
        settings: address with its prefix, authentication, share of requests that are traced.
        session: carries the requests.
    """

    def __init__(self, settings: Jaeger, session: requests.Session | None = None) -> None:
        self.settings = settings
        self.url = settings.url.rstrip("/") + "/api/dependencies"
        self._web = Web(session)

    def dependencies(self, end: float, lookback: float) -> list[Dependency]:
        """Traced calls in (end - lookback, end]; both are in seconds.

        Raises:
            MetricsError: no answer, a refusal, or an answer that isn't Jaeger's.
        """
        headers = {name: value.get_secret_value() for name, value in self.settings.headers.items()}
        if self.settings.token is not None:
            headers["Authorization"] = f"Bearer {self.settings.token.get_secret_value()}"
        span = {"endTs": str(round(end * 1000)), "lookback": str(round(lookback * 1000))}
        try:
            answer = self._web.send("GET", self.url, self.settings.timeout, params=span, headers=headers)
        except TooLarge as error:
            raise MetricsError(f"{self.url}: {error}; set a smaller collect.calls_window") from error
        except (requests.RequestException, OSError, ValueError) as error:
            raise MetricsError(
                f"{self.url}: no answer ({one_line(error)}); is Jaeger there? Set cluster.jaeger.url"
            ) from error
        if answer.status != 200:
            raise MetricsError(
                f"{self.url}: HTTP {answer.status} ({answer.said()}); "
                "check cluster.jaeger (port, path prefix, token)"
            )
        try:
            found = _Answer.model_validate(answer.json())
            if found.errors:
                raise MetricsError(f"{self.url}: {one_line(found.errors)}")
            if "data" not in found.model_fields_set:
                raise ValueError("no data")
        except (ValidationError, ValueError) as error:
            raise MetricsError(
                f"{self.url}: not an answer of /api/dependencies; is this Jaeger, and its prefix right?"
            ) from error
        return [Dependency(link.parent, link.child, link.calls) for link in found.data or ()]

    def calls(
        self,
        names: Names,
        start: float,
        end: float,
        window: float,
        progress: Callable[[], None] | None = None,
    ) -> CallGraph:
        """Calls in (start, end] by whole windows, with one request per window.

        Callers that are no services of this application are `external`. Jaeger knows traced requests only, so
        counts are divided by `sampling`. The request that enters an application has a caller only where its
        gateway is traced too.

        Args:
            names: lead from traced names to services.
            start: seconds since the epoch.
            end: likewise.
            window: seconds; what is left over at the end of the span is not asked for.
            progress: called after each request.

        Raises:
            MetricsError: as `dependencies`, or the whole span has no calls of this application.
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
    """The service behind a name in traces; None for none.

    The name may be that of a workload, a Deployment or a service, alone or in Istio's form `name.namespace`.
    """
    name, _, namespace = traced.partition(".")
    if namespace and namespace.split(".")[0] != names.namespace:
        return None
    return (
        names.workloads.get(name) or names.deployments.get(name) or (name if name in names.services else None)
    )
