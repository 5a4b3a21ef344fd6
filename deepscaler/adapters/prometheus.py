"""A thin client of Prometheus's query API: range queries on a regular grid, errors that say what to do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import requests
from numpy.typing import NDArray
from requests.auth import AuthBase, HTTPBasicAuth

from deepscaler.artefacts import one_line
from deepscaler.errors import MetricsError
from deepscaler.settings import Prometheus

MAX_POINTS = 11_000
"""Points a series that Prometheus answers at most in one range query (it says 11,000 and allows one more)."""
MAX_BACKOFF_SECONDS = 30.0
_Series = tuple[dict[str, str], NDArray[np.float64], NDArray[np.float64]]
_LOG = logging.getLogger(__name__)
_ADVICE = {
    401: "the credentials are missing, wrong or expired: set cluster.prometheus.token, token_file or username and password",
    403: "these credentials may not query: grant them the right to read metrics, or set cluster.prometheus.headers (tenant)",
    404: "there is no Prometheus API at this address: check cluster.prometheus.url, its path prefix too",
    413: "the query is too large for a proxy in between: raise its limit or set a smaller collect.chunk_points",
}


@dataclass(frozen=True, eq=False)
class RangeVector:
    """Series on one regular grid.

    Attributes:
        times: `[L]` seconds since the epoch.
        labels: S label sets.
        values: `[S, L]`; NaN where the server had no sample or said NaN.
    """

    times: NDArray[np.float64]
    labels: tuple[Mapping[str, str], ...]
    values: NDArray[np.float64] = field(repr=False)


class _Bearer(AuthBase):
    """Sets the header itself, so that a .netrc can't replace it."""

    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class _Nobody(AuthBase):
    """No authentication at all, not even a .netrc's."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def grid(start: float, end: float, step: float) -> NDArray[np.float64]:
    """`start, start + step, … <= end`."""
    return start + step * np.arange(max(int(np.floor((end - start) / step + 1e-6)) + 1, 0), dtype=np.float64)


def requests_needed(points: int, chunk_points: int) -> int:
    """Requests that one range query of this many points takes."""
    return -(-points // chunk_points)


class PrometheusClient:
    """Range queries by POST, in chunks, with time-out and retries.

    Args:
        settings: address, authentication, time-out, retries.
        session: carries the requests; its own adapters and headers stay.
        sleep: waits between tries.
    """

    def __init__(
        self,
        settings: Prometheus,
        session: requests.Session | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.url = settings.url.rstrip("/") + "/api/v1/query_range"
        self._session = session or requests.Session()
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

        Args:
            chunk_points: points a series and request.
            progress: called after each request.

        Raises:
            MetricsError: no answer, a refusal, or an answer that isn't Prometheus's.
        """
        times = grid(start, end, step)
        rows: dict[tuple[tuple[str, str], ...], NDArray[np.float64]] = {}
        for first in range(0, len(times), chunk_points):
            part = times[first : first + chunk_points]
            form = {
                "query": query,
                "start": f"{part[0]:.3f}",
                "end": f"{part[-1]:.3f}",
                "step": f"{step:.3f}",
            }
            for labels, moments, values in self._matrix(self._post(form), query):
                row = rows.setdefault(tuple(sorted(labels.items())), np.full(len(times), np.nan))
                slots = np.rint((moments - times[0]) / step).astype(np.int64)
                if np.any((slots < 0) | (slots >= len(times))) or np.any(
                    np.abs(moments - times[slots]) > 0.002 + 1e-3 * step
                ):
                    raise MetricsError(
                        f"{self.url}: answered at other times than asked for (asked from {form['start']} each {step:g} s); "
                        "a cache in between aligns them: make --start a multiple of collect.step"
                    )
                row[slots] = values
            if progress:
                progress()
        matrix = np.stack(list(rows.values())) if rows else np.empty((0, len(times)))
        return RangeVector(times, tuple(dict(key) for key in rows), matrix)

    def query(self, query: str, moment: float) -> list[tuple[Mapping[str, str], float]]:
        """The query's labels and values at one moment.

        Raises:
            MetricsError: as `query_range`.
        """
        found = self.query_range(query, moment, moment, 1.0)
        return [(labels, float(value[0])) for labels, value in zip(found.labels, found.values, strict=True)]

    # ---------------------------------------------------------------------------------------------------- one request
    def _post(self, form: Mapping[str, str]) -> requests.Response:
        """One request with retries; every answer but 200 is an error."""
        for attempt in range(self.settings.retries + 1):
            last = attempt == self.settings.retries
            wait = min(0.5 * 2**attempt, MAX_BACKOFF_SECONDS)
            try:
                response = self._session.post(
                    self.url,
                    data=form,
                    headers={name: value.get_secret_value() for name, value in self.settings.headers.items()},
                    auth=self._auth(),
                    verify=self._verify(),
                    timeout=self.settings.timeout,
                    allow_redirects=False,
                )
            except requests.exceptions.SSLError as error:
                raise MetricsError(
                    f"{self.url}: {one_line(error)}; set cluster.prometheus.ca_file to its authority"
                ) from error
            except (requests.ConnectionError, requests.Timeout) as error:
                if last:
                    raise MetricsError(
                        f"{self.url}: no answer in {attempt + 1} tries ({one_line(error)}); is Prometheus running there? "
                        "Set cluster.prometheus.url"
                    ) from error
                reason = one_line(error)
            except requests.RequestException as error:
                raise MetricsError(f"{self.url}: {one_line(error)}; check cluster.prometheus") from error
            else:
                if response.status_code == 200:
                    return response
                if last or not (response.status_code == 429 or response.status_code >= 500):
                    raise self._refusal(response, form["query"], attempt + 1)
                reason = f"HTTP {response.status_code}"
                wait = max(wait, _retry_after(response))
            _LOG.warning("%s: %s; trying again in %g s", self.url, reason, wait)
            self._sleep(wait)
        raise AssertionError("unreachable: the last try returns or raises")

    def _refusal(self, response: requests.Response, query: str, tries: int) -> MetricsError:
        code = response.status_code
        if 300 <= code < 400:
            return MetricsError(
                f"{self.url}: HTTP {code} leads to {response.headers.get('Location')}; set cluster.prometheus.url to that"
            )
        try:
            said = str(response.json()["error"])
        except (ValueError, KeyError, TypeError):
            said = response.text[:200] or response.reason or ""
        advice = _ADVICE.get(code)
        if advice is None:
            advice = f"query: {one_line(query)}" if code in (400, 422) else f"gave up after {tries} tries"
        return MetricsError(f"{self.url}: HTTP {code} ({one_line(said)}); {advice}")

    def _matrix(self, response: requests.Response, query: str) -> list[_Series]:
        """Labels, times and values of every series; the shape of the answer is checked."""
        kind = response.headers.get("Content-Type", "no content type")
        try:
            answer: Any = response.json()
        except ValueError as error:
            raise MetricsError(
                f"{self.url}: the answer is not JSON ({kind}); is this Prometheus, and not a login page?"
            ) from error
        if not isinstance(answer, dict) or answer.get("status") != "success":
            said = answer.get("error", answer) if isinstance(answer, dict) else answer
            raise MetricsError(
                f"{self.url}: answered without success ({one_line(said)}); query: {one_line(query)}"
            )
        for warning in answer.get("warnings") or ():
            _LOG.warning("%s: %s", self.url, one_line(warning))
        try:
            if answer["data"]["resultType"] != "matrix":
                raise ValueError(f"resultType {answer['data']['resultType']!r}")
            return [
                _series(series["metric"], series.get("values", ())) for series in answer["data"]["result"]
            ]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise MetricsError(
                f"{self.url}: not the answer of a range query ({one_line(error)}); is this Prometheus?"
            ) from error

    def _auth(self) -> AuthBase:
        if self.settings.username is not None and self.settings.password is not None:
            return HTTPBasicAuth(self.settings.username, self.settings.password.get_secret_value())
        if self.settings.token is not None:
            return _Bearer(self.settings.token.get_secret_value())
        if self.settings.token_file is not None:
            try:
                return _Bearer(Path(self.settings.token_file).read_text(encoding="utf-8").strip())
            except (OSError, UnicodeDecodeError) as error:
                raise MetricsError(
                    f"cluster.prometheus.token_file {self.settings.token_file}: {one_line(error)}"
                ) from error
        return _Nobody()

    def _verify(self) -> bool | str:
        if self.settings.ca_file is not None and not Path(self.settings.ca_file).exists():
            raise MetricsError(f"cluster.prometheus.ca_file {self.settings.ca_file}: no such file")
        return self.settings.ca_file or True


def _series(labels: Mapping[str, str], points: Sequence[tuple[float, str]]) -> _Series:
    moments = np.array([moment for moment, _ in points], np.float64)
    return (
        {str(name): str(value) for name, value in labels.items()},
        moments,
        np.array([float(text) for _, text in points], np.float64),
    )


def _retry_after(response: requests.Response) -> float:
    """Seconds the server asks to wait, bounded; 0 where it doesn't say so in seconds."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), MAX_BACKOFF_SECONDS) if text.isdigit() else 0.0


def no_such_series(url: str, query: str) -> MetricsError:
    """The error of an answer without any series."""
    return MetricsError(
        f"{url}: Prometheus answered but knows no such series in this time; check app.namespace and app.services "
        f"(deployment, container, workloads), and that it scrapes the cluster; query: {' '.join(query.split())}"
    )
