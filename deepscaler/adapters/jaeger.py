"""The call graph from Jaeger's `/api/dependencies`.

The search for traces isn't used, because Jaeger is removing it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
import requests
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from deepscaler.adapters.batches import DAY_SECONDS, Requests, in_batches, spread
from deepscaler.adapters.names import Names
from deepscaler.adapters.web import TooLarge, Web
from deepscaler.artefacts import one_line
from deepscaler.calls import COLUMNS, EXTERNAL, CallGraph
from deepscaler.errors import MetricsError
from deepscaler.settings import Jaeger

_LOG = logging.getLogger(__name__)


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
        traffic: Requests | None = None,
    ) -> CallGraph:
        """Calls in (start, end] by whole windows, with one request per window.

        Callers that are no services of this application are `external`. Jaeger knows traced requests only, so
        counts are divided by `sampling`. The request that enters an application has a caller only where its
        gateway is traced too. Where the store has one record per day, its calls are spread over the windows
        as the requests were.

        Args:
            names: lead from traced names to services.
            start: seconds since the epoch.
            end: likewise.
            window: seconds; what is left over at the end of the span is not asked for.
            progress: called after each request.
            traffic: tells the requests that the services served, which bound the calls; None: unknown.

        Raises:
            MetricsError: as `dependencies`, or the whole span has no calls of this application.
        """
        count = math.floor((end - start) / window + 1e-9)
        times = start + window * np.arange(1, count + 1, dtype=np.float64)
        known: set[str] = set()
        parts = []
        for time in times:
            counts = self._counts(names, float(time), window, known)
            counts["calls_per_second"] = counts["calls"] / window
            parts.append(counts.assign(time=float(time)))
            if progress:
                progress()
        rates = pd.concat(parts) if parts else pd.DataFrame(columns=list(COLUMNS))
        served = self._served(traffic, times, window)
        if len(rates) == 0 or in_batches(rates, served):
            rates = self._from_days(names, times, window, served, traffic)
        if len(rates) == 0:
            raise MetricsError(
                f"{self.url}: no calls of this application in this time; Jaeger knows "
                f"{', '.join(sorted(known)) or 'no services at all'}; check app.namespace and app.services"
            )
        return CallGraph(rates.loc[:, list(COLUMNS)].reset_index(drop=True))

    def _counts(self, names: Names, end: float, lookback: float, known: set[str]) -> pd.DataFrame:
        """Calls between services in (end - lookback, end], with the columns caller, callee and calls.

        Args:
            names: lead from traced names to services.
            end: seconds since the epoch.
            lookback: seconds.
            known: takes up the traced names.
        """
        rows = []
        for link in self.dependencies(end, lookback):
            known |= {link.parent, link.child}
            caller, callee = service_of(names, link.parent) or EXTERNAL, service_of(names, link.child)
            if callee is not None and caller != callee:  # else spans within one service
                rows.append((caller, callee, link.calls / self.settings.sampling))
        frame = pd.DataFrame(rows, columns=["caller", "callee", "calls"])
        sums: pd.DataFrame = frame.groupby(["caller", "callee"], as_index=False)[["calls"]].sum()
        return sums

    def _served(self, traffic: Requests | None, times: NDArray[np.float64], window: float) -> pd.DataFrame:
        """Requests per second by service, one row per window; empty where nobody can tell."""
        if traffic is None or not len(times):
            return pd.DataFrame(index=times)
        try:
            return traffic(times, window)
        except MetricsError as error:
            _LOG.warning("the requests served aren't known, so they don't bound Jaeger's calls: %s", error)
            return pd.DataFrame(index=times)

    def _from_days(
        self,
        names: Names,
        times: NDArray[np.float64],
        window: float,
        served: pd.DataFrame,
        traffic: Requests | None,
    ) -> pd.DataFrame:
        """The calls in the windows, from the records of their days and the day before.

        The record of a day may come only when it is over.
        """
        first = math.floor((times[0] - window) / DAY_SECONDS) - 1 if len(times) else 0
        last = math.ceil(times[-1] / DAY_SECONDS) if len(times) else 0
        days, parts = list[int](), list[pd.DataFrame]()
        for day in range(first, last):
            # A record is dated at the beginning of its day, which an open beginning would leave out.
            counts = self._counts(names, (day + 1) * DAY_SECONDS - 0.001, DAY_SECONDS, set())
            if len(counts):
                days.append(day)
                parts.append(counts)
        if not parts:
            return pd.DataFrame(columns=list(COLUMNS))
        _LOG.warning("%s: a record stands for a day, so its calls are spread over the windows", self.url)
        counts = pd.concat(parts).groupby(["caller", "callee"], as_index=False)[["calls"]].sum()
        ends = np.array([(day + 1) * DAY_SECONDS for day in days])
        then = self._served(traffic, ends, DAY_SECONDS)
        return spread(counts, DAY_SECONDS * len(days), served, then)


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
