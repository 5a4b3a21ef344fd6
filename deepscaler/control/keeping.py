"""What a run measured, on disk while it goes on: the rows of endpoints.csv and metrics.csv.

After a signal there is time to read the last minutes only, and the store may have forgotten the first days
by then. So the files grow while the controller ticks, and the end adds what is still missing.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

from deepscaler.adapters.deadline import sharing
from deepscaler.artefacts import utc_text
from deepscaler.cluster import ENDPOINT_COLUMNS, Cluster
from deepscaler.control import tables
from deepscaler.control.tables import Table, moment, optional_number, word
from deepscaler.control.tick import Tick
from deepscaler.errors import ClusterError, MetricsError
from deepscaler.logs import OnChange
from deepscaler.panel import FEATURES, panel_columns, panel_lines
from deepscaler.runs import table_lines

log = logging.getLogger(__name__)
FILES = ENDPOINTS, METRICS = "endpoints.csv", "metrics.csv"
EVERY_SECONDS = 300.0
"""The files grow this often."""
SETTLED_SECONDS = 60.0
"""Samples that are younger can still change: not every server has been scraped."""
GAP_SECONDS = 86400.0
"""What is missing is read from so far back; what is older is given up."""
SPANS_SECONDS = (3600.0, 4 * 3600.0, GAP_SECONDS, EVERY_SECONDS)
"""So much is read at once, so that a tick isn't late; where that fails, the next of these is tried.

An hour without a request gives no answer, and a long answer can take too long.
"""
READ_SECONDS = 5.0
"""Reading the store takes no longer while the controller ticks."""
LARGEST_BYTES = 64 * 2**20
"""A file that would grow beyond this size is moved aside: that of ten services' metrics after a month."""
MOST_BYTES = (1 + tables.KEPT) * 2 * (LARGEST_BYTES + tables.LARGEST_BYTES)
"""All files of a run directory take so much at most: these two, and the recorder's."""


class Keeper:
    """Adds to the files of a run directory what was measured: it watches the ticks of a controller.

    What can't be read now is read later.

    Args:
        directory: of the run.
        cluster: is asked.
        step: seconds between samples.
        start: when the run begins; rows that an earlier controller left are gone on from.
        history: seconds before `start` from which on metrics are kept.
    """

    def __init__(
        self, directory: Path, cluster: Cluster, step: float, start: float, history: float = 0.0
    ) -> None:
        self._cluster, self._step, self._read = cluster, step, -math.inf
        self._on_change = OnChange(log, logging.WARNING)
        counts = dict.fromkeys(ENDPOINT_COLUMNS[2:], optional_number)
        endpoints = {"time": moment, "endpoint": word, **counts}
        columns = panel_columns(cluster.services, tuple(FEATURES))
        metrics = {"time": moment, **dict.fromkeys(columns, optional_number)}
        self._tables = {
            ENDPOINTS: Table(directory / ENDPOINTS, endpoints, largest=LARGEST_BYTES),
            METRICS: Table(directory / METRICS, metrics, largest=LARGEST_BYTES, eager=False),
        }
        self._until = {ENDPOINTS: start, METRICS: start - history}
        self._gaps = {ENDPOINTS: GAP_SECONDS, METRICS: GAP_SECONDS + history}
        self._failures = dict.fromkeys(self._until, 0)
        self._given_up: dict[str, float] = {}  # file -> since when its rows are given up
        for name, table in self._tables.items():
            known = table.last_time()
            if known is not None:
                self._until[name], self._gaps[name] = known, GAP_SECONDS

    def __call__(self, tick: Tick) -> None:
        """Add what has been measured, if it is time."""
        if tick.now - self._read < EVERY_SECONDS:
            return
        self._read = tick.now
        with sharing(READ_SECONDS):
            for name in self._tables:
                try:
                    self._add(name, tick.now - SETTLED_SECONDS)
                except (MetricsError, ClusterError) as error:
                    self._on_change.trouble(name, f"{name}: not read now, so later: {error}")
                else:
                    self._on_change.well(name, f"{name}: read again")

    def finish(self, name: str) -> None:
        """Add all that is missing of a file until now.

        Raises:
            MetricsError, ClusterError: it can't be read.
        """
        end, tried = self._cluster.now(), 0
        more = True
        while more:
            try:
                more, tried = self._add(name, end), 0
            except (MetricsError, ClusterError):
                tried += 1
                if tried == len(SPANS_SECONDS):
                    raise

    def _add(self, name: str, end: float) -> bool:
        """Add the next rows until `end`; whether there are more."""
        begin, failures = self._begin(name, end), self._failures[name]
        span = min(SPANS_SECONDS[failures % len(SPANS_SECONDS)], end - begin)
        until = begin + math.floor(span / self._step + 1e-6) * self._step
        if until <= begin:
            return False
        self._failures[name] += 1
        lines, rows = (self._endpoints if name == ENDPOINTS else self._metrics)(begin, until)
        self._failures[name] = 0
        if rows:
            self._tables[name].append(lines, rows)
        self._until[name] = until
        self._went_on(name, begin)
        more = until + self._step <= end + 1e-6
        if more:
            self._read = -math.inf  # the next tick goes on
        return more

    def _begin(self, name: str, end: float) -> float:
        """Where the next rows begin: after the last ones, unless the store has failed for too long since."""
        before = self._until[name]
        steps = math.ceil((end - self._gaps[name] - before) / self._step - 1e-6)
        if steps > 0:
            self._until[name] = before + steps * self._step
            since = utc_text(self._given_up.setdefault(name, before))
            hours = self._gaps[name] / 3600
            text = f"{name}: nothing could be read since {since}; what is older than {hours:g} h is given up"
            self._on_change.trouble(f"{name} given up", text)
        return self._until[name]

    def _went_on(self, name: str, begin: float) -> None:
        since = self._given_up.pop(name, None)
        if since is not None:
            text = f"{name}: nothing is kept of {utc_text(since)} to {utc_text(begin)}; it goes on from there"
            self._on_change.well(f"{name} given up", text)

    def _endpoints(self, begin: float, end: float) -> tuple[str, int]:
        frame = self._cluster.latencies(begin, end, self._step)
        return table_lines(frame), len(frame)

    def _metrics(self, begin: float, end: float) -> tuple[str, int]:
        panel = self._cluster.metrics(begin + self._step, end, self._step)
        if not self._tables[METRICS].path.is_file():
            panel = panel.since_first_sample()
        return panel_lines(replace(panel, waited=None)), len(panel)  # all kept files have these columns
