"""What an application did, as Prometheus (or Jaeger) tells it: features, calls and response times."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import requests
from numpy.typing import NDArray

from deepscaler.adapters.growing import GrowingAnswers, Rows
from deepscaler.adapters.jaeger import JaegerClient
from deepscaler.adapters.kubernetes.limits import Limits, Stated
from deepscaler.adapters.names import Names, duration, seconds
from deepscaler.adapters.prometheus import (
    PrometheusClient,
    RangeVector,
    grid,
    no_such_series,
    requests_needed,
)
from deepscaler.adapters.queries import (
    CALLS_QUERY,
    ENTERED_RESPONSE,
    ENTRY_QUERIES,
    FEATURE_QUERIES,
    LIMITED,
    REQUESTS_QUERY,
)
from deepscaler.calls import COLUMNS as CALL_COLUMNS
from deepscaler.calls import EXTERNAL, CallGraph
from deepscaler.cluster import ENDPOINT_COLUMNS, LATENCY_BUCKETS
from deepscaler.logs import OnChange
from deepscaler.panel import FEATURES, MetricPanel
from deepscaler.plausible import without_nonsense
from deepscaler.settings import EntryPart, EntryQuery, Feature, Query, Settings

_LOG = logging.getLogger(__name__)
Array = NDArray[np.float64]


class Telemetry:
    """The measurements of `KubernetesCluster`.

    Args:
        settings: the application and how it is measured.
        prometheus: carries the queries.
        session: carries the requests to Jaeger.
        progress: told (requests done, requests in all) while `metrics` runs.
        stated: tells what the Kubernetes API says of limits and requests that Prometheus doesn't know.
        live: whether `metrics` is asked again and again for a span that moves on with the time.

    Attributes:
        names: lead from series to services.
    """

    def __init__(
        self,
        settings: Settings,
        prometheus: PrometheusClient,
        session: requests.Session | None = None,
        progress: Callable[[int, int], None] | None = None,
        stated: Stated = dict,
        *,
        live: bool = False,
    ) -> None:
        self._settings, self._prometheus, self._session = settings, prometheus, session
        self.names = Names(settings.app, settings.cluster.prometheus.matchers)
        self._progress = progress
        self._limits = Limits(self.names.services, stated)
        self._nonsense, self._impossible = OnChange(_LOG), set[str]()
        self._unknown = OnChange(_LOG)
        self._seen = np.zeros((len(self.names.services), len(FEATURES)), np.bool_)
        self._answers = GrowingAnswers() if live else None

    # ----------------------------------------------------------------------------------------------- features
    def metrics(self, start: float, end: float, step: float) -> MetricPanel:
        """The five features at start, start + step, … <= end.

        What users waited is told where Prometheus knows their requests, unless `collect.queries` has a `res`
        of its own. The number of requests doesn't depend on the number of services. The panel is partial if
        any of the answers is.

        Raises:
            MetricsError: Prometheus can't be reached, knows no series of a feature, or a service has neither
                a CPU limit nor a CPU request. The last is an error only at first sight: a service that loses
                its limit later becomes NaN, which is logged.
        """
        collect = self._settings.collect
        queries = {feature: collect.queries.get(feature, query) for feature, query in FEATURE_QUERIES.items()}
        times, partial = grid(start, end, step), list[bool]()
        entered = "res" not in collect.queries
        asked = [*queries.values(), *([ENTERED_RESPONSE] if entered else [])]
        parts = sum(1 + (query.divide_by is not None) for query in asked)
        advance = self._counter(parts * requests_needed(len(times), collect.chunk_points))

        def fetch(
            template: str,
            label: str = "deployment",
            needed: bool = True,
            entries: tuple[str, ...] | None = None,
        ) -> Array:
            text = self.names.render(template, label, window=collect.window, entries=entries)
            found = self._rows(text, label, (start, end, step), advance)
            partial.append(found.partial)
            if needed and not found.known:
                raise no_such_series(self._prometheus.url, text)
            return found.values

        columns = [self._feature(feature, query, fetch) for feature, query in queries.items()]  # [L, N] each
        values = self._plausible(np.stack(columns, axis=2)).astype(np.float32)  # [L, N, F]
        waited = self._waited(fetch) if entered else None
        panel = MetricPanel(times, self.names.services, tuple(FEATURES), values, any(partial), waited)
        self._name_the_unknown(panel)
        return panel

    def _rows(
        self, text: str, label: str, span: tuple[float, float, float], progress: Callable[[], None]
    ) -> Rows:
        """What a query says of each service over (start, end, step); live, only what isn't known is read."""

        def read(start: float, end: float, step: float, told: Callable[[], None] | None) -> Rows:
            points = self._settings.collect.chunk_points
            found = self._prometheus.query_range(text, start, end, step, chunk_points=points, progress=told)
            return Rows(found.times, self._by_service(found, label), bool(found.labels), found.partial)

        if self._answers is None:
            return read(*span, progress)
        # Which service a pod belongs to may turn out to be another; earlier rows are then read anew.
        others = tuple(self.names.strangers) if label == "pod" else ()
        return self._answers.rows((text, label, others), read, *span, progress)

    def _feature(self, feature: Feature, query: Query, fetch: Callable[..., Array]) -> Array:
        """One feature `[L, N]`; NaN where it is unknown or not finite."""
        values = fetch(query.query, query.label)
        if query is FEATURE_QUERIES[feature] and feature in LIMITED and query.divide_by is not None:
            limits = fetch(query.divide_by, query.label, needed=False)
            values = self._limits.shares(feature, values, limits, lambda one: fetch(one, needed=False))
        elif query.divide_by is not None:
            divisor = fetch(query.divide_by, query.label)
            with np.errstate(divide="ignore", invalid="ignore"):
                values = values / divisor
        return np.where(np.isfinite(values), values, np.nan).T

    def _waited(self, fetch: Callable[..., Array]) -> NDArray[np.float32]:
        """What users waited on average, over all entries, `[L]` seconds; NaN where it is unknown."""
        label, entries = ENTERED_RESPONSE.label, tuple(self._entries())
        took, count = (
            np.nansum(fetch(part, label, needed=False, entries=entries), axis=0)
            for part in (ENTERED_RESPONSE.query, str(ENTERED_RESPONSE.divide_by))
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            means = np.where(count > 0, took / count, np.nan)
        kept, _ = without_nonsense(means[:, None, None], ("all entries",), ("res",))
        return kept[:, 0, 0].astype(np.float32)

    def _plausible(self, values: Array) -> Array:
        """The values `[L, N, F]` without impossible ones, which are logged by name when they begin."""
        kept, found = without_nonsense(values, self.names.services, tuple(FEATURES))
        for subject, text in found.items():
            if subject not in self._nonsense:
                self._nonsense.trouble(subject, text)
        for subject in self._impossible - found.keys():
            self._nonsense.well(subject)
        self._impossible = set(found)
        return kept

    def _counter(self, total: int) -> Callable[[], None]:
        """Tells `progress` about one more request each time it is called."""
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if self._progress:
                self._progress(done, total)

        return advance

    def _name_the_unknown(self, panel: MetricPanel) -> None:
        """Say which features never had samples: names are wrong, or such a service has none (a TCP store)."""
        self._seen |= np.isfinite(panel.values).any(axis=0)  # [N, F]
        for service, seen in zip(panel.services, self._seen, strict=True):
            if seen.all():
                self._unknown.well(service, f"{service}: samples of all metrics are there")
                continue
            features = ", ".join(name for name, there in zip(panel.features, seen, strict=True) if not there)
            text = f"{service}: no samples of {features}; check app.services.{service}"
            self._unknown.trouble(service, f"{text} (deployment, container, workloads)")

    # -------------------------------------------------------------------------------------------------- calls
    def calls(self, start: float, end: float) -> CallGraph:
        """Calls in (start, end] by whole windows of `collect.calls_window`; a shorter span is one window.

        Callers that are no services of this application (gateways, `unknown`, other namespaces) are
        `external`.

        Raises:
            MetricsError: Prometheus can't be reached or knows no calls at all.
        """
        collect, cluster = self._settings.collect, self._settings.cluster
        window = min(collect.calls_window, end - start)
        if cluster.call_graph == "jaeger":
            jaeger = JaegerClient(cluster.jaeger, self._session)
            return jaeger.calls(self.names, start, end, window, traffic=self._requests_served)
        query = collect.calls_query or CALLS_QUERY
        text = self.names.render(query.query, query.label, window=duration(window))
        found = self._prometheus.query_range(
            text, start + window, end, window, chunk_points=collect.chunk_points
        )
        self._require(found, text)
        frames = []
        for labels, rates in zip(found.labels, found.values, strict=True):
            callee = self.names.service(query.label, labels.get(query.label, ""))
            if callee is not None:
                caller = self._caller(query.caller, labels) or EXTERNAL
                columns = (found.times, caller, callee, rates)
                frame = pd.DataFrame(dict(zip(CALL_COLUMNS, columns, strict=True)))
                frames.append(frame[np.isfinite(rates)])
        calls: pd.DataFrame = pd.concat(frames) if frames else pd.DataFrame(columns=list(CALL_COLUMNS))
        sums = calls.groupby(["time", "caller", "callee"])["calls_per_second"].sum()
        return CallGraph(sums.reset_index())

    def _requests_served(self, times: Array, window: float) -> pd.DataFrame:
        """Requests per second by service over the windows that end at `times`, one row each; NaN: unknown.

        Raises:
            MetricsError: Prometheus can't be reached.
        """
        query = self._settings.collect.queries.get("req", REQUESTS_QUERY)
        text = self.names.render(query.query, query.label, window=duration(window))
        step = float(np.diff(times).min()) if len(times) > 1 else window
        found = self._prometheus.query_range(text, float(times[0]), float(times[-1]), step)
        rates = pd.DataFrame(self._by_service(found, query.label).T, found.times, list(self.names.services))
        asked: pd.DataFrame = rates.iloc[np.rint((times - times[0]) / step).astype(int)]
        return asked.set_axis(times, axis=0)

    def _caller(self, label: str, labels: Mapping[str, str]) -> str | None:
        """The calling service; None where another namespace or none of the services called."""
        if labels.get(f"{label}_namespace", self.names.namespace) != self.names.namespace:
            return None
        return self.names.service(label, labels.get(label, ""))

    # ----------------------------------------------------------------------------------------- response times
    def latencies(self, start: float, end: float, step: float) -> pd.DataFrame:
        """Per entry and step in (start, end]: `ENDPOINT_COLUMNS`, as the sidecars of the entries report them.

        Istio doesn't know endpoints. A service with one entry gives rows under that entry's name. A service
        with several gives rows under the *service's* name, whose `slow` counts against the tightest of their
        SLOs. Only calls from outside the application count. Failed are 5xx, gRPC errors of the server and
        broken connections. Istio's bucket bounds (…, 50, 100, 250, 500, 1000, 2500, … ms) are exact; between
        them counts are spread evenly, as `histogram_quantile` does.

        Raises:
            MetricsError: Prometheus can't be reached or knows no requests at the entries.
        """
        if end - start < step:  # no step has ended yet
            return pd.DataFrame(columns=list(ENDPOINT_COLUMNS))
        entries = self._entries()
        results = self._entered(tuple(entries), start, end, step)
        offered, done, milliseconds = (
            self._by_service(results[name], self._entry_query(name).label) * step
            for name in ("offered", "done", "milliseconds")
        )  # [N, L] each
        frames = []
        for service, (endpoint, slo) in entries.items():
            row = self.names.row[service]
            answered = np.fmin(np.nan_to_num(done[row]), offered[row])
            times = results["offered"].times
            bounds = np.array([*LATENCY_BUCKETS, slo, np.inf])
            below = cumulative(self._buckets(results["buckets"], service), bounds, len(times)) * step
            counts = np.diff(np.delete(below, -2, axis=0), axis=0, prepend=0.0)  # [buckets, L]
            columns = [
                times,
                np.full(len(times), endpoint, dtype=object),
                offered[row],
                answered,
                offered[row] - answered,
                below[-1] - below[-2],
                np.nan_to_num(milliseconds[row]) / 1000,
                *counts,
            ]
            frame = pd.DataFrame(dict(zip(ENDPOINT_COLUMNS, columns, strict=True)))
            frames.append(frame[np.isfinite(offered[row])])
        table: pd.DataFrame = pd.concat(frames)
        return table.sort_values(["time", "endpoint"], ignore_index=True)

    def entered(self, start: float, end: float, step: float) -> Array:
        """Requests per second that came to all entries together in each step of (start, end], `[K]`.

        NaN where an entry that was ever called has no sample.

        Raises:
            MetricsError: Prometheus can't be reached or knows no requests at the entries.
        """
        entries = tuple(self._entries())
        found = self._entry_series("offered", entries, start, end, step)
        rates = self._by_service(found, self._entry_query("offered").label)[
            [self.names.row[entry] for entry in entries]
        ]
        called = rates[np.isfinite(rates).any(axis=1)]
        total: Array = called.sum(axis=0) if len(called) else np.full(len(found.times), np.nan)
        return np.where(np.isfinite(total) & (total >= 0.0), total, np.nan)

    def _entries(self) -> dict[str, tuple[str, float]]:
        """Entry service -> name of its row, tightest SLO in seconds."""
        entries: dict[str, tuple[str, float]] = {}
        for entry in self._settings.app.entries:
            several = entry.service in entries
            slo = min(entry.slo, entries[entry.service][1]) if several else entry.slo
            entries[entry.service] = (entry.service if several else entry.name, slo)
        return entries

    def _entered(
        self, entries: tuple[str, ...], start: float, end: float, step: float
    ) -> dict[str, RangeVector]:
        """The series of each of `ENTRY_QUERIES`."""
        return {name: self._entry_series(name, entries, start, end, step) for name in ENTRY_QUERIES}

    def _entry_series(
        self, name: EntryPart, entries: tuple[str, ...], start: float, end: float, step: float
    ) -> RangeVector:
        collect = self._settings.collect
        query = self._entry_query(name)
        window = duration(max(step, seconds(collect.window)))
        text = self.names.render(query.query, query.label, window=window, entries=entries)
        points = collect.chunk_points
        found = self._prometheus.query_range(text, start + step, end, step, chunk_points=points)
        if name == "offered":
            self._require(found, text)
        return found

    def _entry_query(self, name: EntryPart) -> EntryQuery:
        return self._settings.collect.entry_queries.get(name, ENTRY_QUERIES[name])

    def _buckets(self, found: RangeVector, service: str) -> dict[float, Array]:
        """Upper bound in seconds -> cumulative rate `[L]` of one service."""
        buckets: dict[float, Array] = {}
        label = self._entry_query("buckets").label
        for labels, values in zip(found.labels, found.values, strict=True):
            if self.names.service(label, labels.get(label, "")) == service:
                bound = float(labels.get("le", "nan")) / 1000
                buckets[bound] = buckets.get(bound, 0.0) + np.nan_to_num(values)
        return buckets

    # ------------------------------------------------------------------------------------------------ helpers
    def _by_service(self, found: RangeVector, label: str) -> Array:
        """Values `[N, L]`: the series of each service added up; NaN where none of them has a sample."""
        owners = [self.names.service(label, labels.get(label, "")) for labels in found.labels]
        known = np.array([owner is not None for owner in owners], np.bool_)
        rows = np.array([self.names.row[owner] for owner in owners if owner is not None], np.int64)
        values, shape = found.values[known], (len(self.names.services), len(found.times))
        sums, sampled = np.zeros(shape), np.zeros(shape, np.bool_)
        np.add.at(sums, rows, np.nan_to_num(values, posinf=np.inf, neginf=-np.inf))
        np.logical_or.at(sampled, rows, ~np.isnan(values))
        return np.where(sampled, sums, np.nan)

    def _require(self, found: RangeVector, query: str) -> None:
        if not found.labels:
            raise no_such_series(self._prometheus.url, query)


def cumulative(buckets: Mapping[float, Array], at: Array, length: int) -> Array:
    """Counts `[len(at), L]` up to each bound of `at`; NaN where there is no histogram.

    Args:
        buckets: the histogram's upper bounds -> cumulative counts `[L]`; between bounds counts are spread
            evenly.
        at: ascending bounds to count up to; infinity takes all.
        length: L, for a histogram without buckets.
    """
    finite = sorted(bound for bound in buckets if np.isfinite(bound))
    if not finite:
        return np.full((len(at), length), np.nan)
    known = np.maximum.accumulate(np.stack([np.zeros(length), *(buckets[bound] for bound in finite)]), axis=0)
    bounds = np.array([0.0, *finite])
    right = np.clip(np.searchsorted(bounds, at), 1, len(bounds) - 1)
    below_right = np.where(np.isinf(at), bounds[-1], at) - bounds[right - 1]
    share = np.clip(below_right / (bounds[right] - bounds[right - 1]), 0.0, 1.0)[:, None]
    below: Array = known[right - 1] + share * (known[right] - known[right - 1])
    below[np.isinf(at)] = np.maximum(buckets.get(np.inf, known[-1]), known[-1])
    return below
