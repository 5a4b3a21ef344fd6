"""A thin client of Prometheus's query API: range queries on a regular grid, errors that say what to do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np
import requests
from numpy.typing import NDArray

from deepscaler.adapters.aligned import Aligned
from deepscaler.adapters.authentication import authentication, certificates
from deepscaler.adapters.deadline import seconds_left
from deepscaler.adapters.matrix import Series, doubts, read_matrix
from deepscaler.adapters.web import Reply, TooLarge, Web
from deepscaler.artefacts import one_line
from deepscaler.errors import MetricsError
from deepscaler.settings import Prometheus
from deepscaler.upstream import Upstream

MAX_POINTS = 11_000
"""Points per series that one range query may ask for (Prometheus says 11,000 and allows one more)."""
MAX_BACKOFF_SECONDS = 30.0
_REPEATED_SECONDS = 30.0
"""How long VictoriaMetrics holds samples back (its `-search.latencyOffset`, 30 s by default)."""
_REPEATED_BELOW_STEP = 60.0
"""At steps from this on it doesn't (its `-search.maxStepForPointsAdjustment`, by default)."""
_TOO_LONG = (
    "the names of all services make the query longer than VictoriaMetrics takes: "
    "start it with -search.maxQueryLen=1MiB"
)
_LOG = logging.getLogger(__name__)
_ADVICE = {
    401: "the credentials are missing, wrong or expired: set cluster.prometheus.token, token_file, "
    "or username and password",
    403: "these credentials may not query: grant them the right to read metrics, "
    "or set cluster.prometheus.headers (tenant)",
    404: "there is no Prometheus API at this address: check cluster.prometheus.url, its path prefix too",
    413: "the query is too large for a proxy in between: raise its limit, "
    "or set a smaller collect.chunk_points",
}


@dataclass(frozen=True, eq=False)
class RangeVector:
    """Series on one regular grid.

    Attributes:
        times: `[L]` seconds since the epoch.
        labels: S label sets.
        values: `[S, L]`; NaN where the server had no sample or said NaN.
        partial: whether the server says that some of its stores didn't answer, so that series may lack.
    """

    times: NDArray[np.float64]
    labels: tuple[Mapping[str, str], ...]
    values: NDArray[np.float64] = field(repr=False)
    partial: bool = False


def grid(start: float, end: float, step: float) -> NDArray[np.float64]:
    """`start, start + step, … <= end`."""
    return start + step * np.arange(max(int(np.floor((end - start) / step + 1e-6)) + 1, 0), dtype=np.float64)


def requests_needed(points: int, chunk_points: int) -> int:
    """How many requests a range query of this many points takes."""
    return -(-points // chunk_points)


class PrometheusClient:
    """Sends range queries by POST, in chunks, with a time-out and retries.

    Args:
        settings: address, authentication, time-out, retries.
        session: carries the requests; it keeps its own adapters and headers.
        sleep: waits between tries for the seconds that it is given.
        whole: whether an answer that the server calls partial is an error.
        upstream: counts the requests.

    Attributes:
        upstream: likewise.
    """

    def __init__(
        self,
        settings: Prometheus,
        session: requests.Session | None = None,
        sleep: Callable[[float], None] = time.sleep,
        *,
        whole: bool = False,
        upstream: Upstream | None = None,
    ) -> None:
        self.settings = settings
        self._whole = whole
        self.url = settings.url.rstrip("/") + "/api/v1/query_range"
        self._web = Web(session, upstream)
        self.upstream = self._web.upstream
        self._sleep = sleep

    def query_range(
        self,
        query: str,
        start: float,
        end: float,
        step: float,
        *,
        chunk_points: int = MAX_POINTS,
        progress: Callable[[], None] | None = None,
    ) -> RangeVector:
        """The query's series at start, start + step, … <= end, aligned by timestamp.

        A store may answer on a grid of its own: its sample counts if it is less than a step old. Whoever asks
        at multiples of the step, as `metrics_fetch.py` does, gets exactly what was asked for. VictoriaMetrics
        leaves the grid alone (`nocache`); what it repeats in place of its newest samples is read again.

        Args:
            query: PromQL.
            start: seconds since the epoch.
            end: likewise.
            step: seconds.
            chunk_points: points per series that one request asks for.
            progress: called after each request.

        Raises:
            MetricsError: no answer, a refusal, an answer that isn't Prometheus's, or a partial one where it
                has to be whole.
        """
        times, partial = grid(start, end, step), False
        rows = Aligned(times, step)
        for first in range(0, len(times), chunk_points):
            part = times[first : first + chunk_points]
            response, lacking = self._read(query, part, step, rows)
            partial = partial or lacking
            for moment in _repeated(response, part, step):
                rows.forget(moment)
                _, lacking = self._read(query, np.array([moment]), _REPEATED_BELOW_STEP, rows)
                partial = partial or lacking
            if progress:
                progress()
        return RangeVector(times, rows.labels, rows.matrix(), partial)

    def _read(self, query: str, asked: NDArray[np.float64], step: float, rows: Aligned) -> tuple[Reply, bool]:
        """One request for the times `asked`, whose samples go into `rows`; the answer, and if it is partial.

        Args:
            query: PromQL.
            asked: times, `step` apart.
            step: seconds.
            rows: take the samples.
        """
        form = {
            "query": query,
            "start": f"{asked[0]:.3f}",
            "end": f"{asked[-1]:.3f}",
            "step": f"{step:.3f}",
            "nocache": "1",
        }
        response = self._post(form)
        found, lacking = self._matrix(response, query)
        stray = rows.add(found)
        if stray is not None:
            raise MetricsError(
                f"{self.url}: answered for other times than asked for "
                f"(asked for {form['start']} to {form['end']} each {step:g} s, answered for "
                f"{stray.moments[0]:.3f} to {stray.moments[-1]:.3f}); "
                "check the clocks of the servers in between"
            )
        return response, bool(lacking)

    def query(self, query: str, moment: float) -> list[tuple[Mapping[str, str], float]]:
        """The labels and values of a query's series at one moment.

        Raises:
            MetricsError: as `query_range`.
        """
        found = self.query_range(query, moment, moment, 1.0)
        return [(labels, float(value[0])) for labels, value in zip(found.labels, found.values, strict=True)]

    # -------------------------------------------------------------------------------------------- one request
    def _post(self, form: Mapping[str, str]) -> Reply:
        """One request, tried again while the trouble may pass; every answer but 200 is an error."""
        for attempt in range(self.settings.retries + 1):
            last = attempt == self.settings.retries
            wait = min(0.5 * 2**attempt, MAX_BACKOFF_SECONDS)
            try:
                response = self._send(form)
            except (requests.ConnectionError, requests.Timeout, TimeoutError) as error:
                if last or wait >= seconds_left():
                    raise MetricsError(
                        f"{self.url}: no answer in {attempt + 1} tries ({one_line(error)}); "
                        "is Prometheus running there? Set cluster.prometheus.url"
                    ) from error
                reason = one_line(error)
            else:
                if response.status == 200:
                    return response
                wait = max(wait, _retry_after(response))
                if last or wait >= seconds_left() or not _may_pass(response.status):
                    raise self._refusal(response, form["query"], attempt + 1)
                reason = f"HTTP {response.status}"
            _LOG.warning("%s: %s; trying again in %g s", self.url, reason, wait)
            self._sleep(wait)
        raise AssertionError("unreachable: the last try returns or raises")

    def _send(self, form: Mapping[str, str]) -> Reply:
        """The answer to one try.

        Raises:
            MetricsError: the request fails in a way that another try wouldn't mend.
            requests.ConnectionError: no connection.
            requests.Timeout: no answer in time.
            TimeoutError: no whole answer in time.
        """
        try:
            return self._web.send(
                "POST",
                self.url,
                self.settings.timeout,
                data=form,
                headers={name: value.get_secret_value() for name, value in self.settings.headers.items()},
                auth=authentication(self.settings),
                verify=certificates(self.settings),
            )
        except requests.exceptions.SSLError as error:
            raise MetricsError(
                f"{self.url}: {one_line(error)}; "
                "set cluster.prometheus.ca_file to the certificate of its authority"
            ) from error
        except TooLarge as error:
            raise MetricsError(f"{self.url}: {error}; set a smaller collect.chunk_points") from error
        except (requests.ConnectionError, requests.Timeout):
            raise
        except (requests.RequestException, ValueError) as error:
            raise MetricsError(f"{self.url}: {one_line(error)}; check cluster.prometheus") from error

    def _refusal(self, response: Reply, query: str, tries: int) -> MetricsError:
        code = response.status
        if 300 <= code < 400:
            return MetricsError(
                f"{self.url}: HTTP {code} leads to {response.headers.get('Location')}; "
                "set cluster.prometheus.url to that"
            )
        try:
            said = str(response.json()["error"])
        except (ValueError, KeyError, TypeError):
            said = response.said()
        advice = _TOO_LONG if "maxQueryLen" in said else _ADVICE.get(code)
        if advice is None:
            advice = f"query: {one_line(query)}" if code in (400, 422) else f"gave up after {tries} tries"
        return MetricsError(f"{self.url}: HTTP {code} ({one_line(said)}); {advice}")

    def _matrix(self, response: Reply, query: str) -> tuple[list[Series], str]:
        """Labels, times and values of every series of an answer, and why it may lack some of them, or ""."""
        kind = response.headers.get("Content-Type", "no content type")
        try:
            answer: Any = response.json()
        except ValueError as error:
            raise MetricsError(
                f"{self.url}: the answer is not JSON ({kind}); is this Prometheus, and not a login page?"
            ) from error
        if not isinstance(answer, dict) or answer.get("status") != "success":
            error_text = answer.get("error", answer) if isinstance(answer, dict) else answer
            raise MetricsError(
                f"{self.url}: answered without success ({one_line(error_text)}); query: {one_line(query)}"
            )
        said = doubts(answer)
        if said and self._whole:
            raise MetricsError(
                f"{self.url}: the answer is partial ({said}); run it again when all its stores are back"
            )
        if said:
            _LOG.warning("%s: the answer is partial (%s)", self.url, said)
        try:
            return read_matrix(answer), said
        except ValueError as error:
            raise MetricsError(
                f"{self.url}: not the answer of a range query ({error}); is this Prometheus?"
            ) from error


def _repeated(response: Reply, times: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Those of the times for which a range query was answered with older samples once more.

    VictoriaMetrics does so for half a minute, because its newest samples may be incomplete, and doesn't say
    so. A controller would take the past for the present.
    """
    if "X-Server-Hostname" not in response.headers or step >= _REPEATED_BELOW_STEP:
        return times[:0]
    try:
        now = parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        now = time.time()
    return times[times > now - _REPEATED_SECONDS - 1.0]


def _may_pass(status: int) -> bool:
    """Whether the server may answer better a little later."""
    return status == 429 or status >= 500


def _retry_after(response: Reply) -> float:
    """Seconds that the server asks to wait, bounded; 0 where it doesn't say so in seconds."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), MAX_BACKOFF_SECONDS) if text.isdigit() else 0.0


def no_such_series(url: str, query: str) -> MetricsError:
    """The error of an answer without any series."""
    return MetricsError(
        f"{url}: Prometheus answered but knows no such series in this time; "
        "check app.namespace and app.services (deployment, container, workloads), "
        f"and that it scrapes the cluster; query: {' '.join(query.split())}"
    )
