"""What was recorded on a real cluster, in ScalerEval's layout, and what both clusters are compared by.

The archive holds one directory per cell, that is per run of one autoscaler: `record.csv` (one row per second:
pods, requests, CPU and latency quantiles per service, from Prometheus), Locust's `_stats.csv` and
`_stats_history.csv`, and `limit.json`.

Source: ScalerEval, https://github.com/WHU-AISE/ScalerEval.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.artefacts import one_line, parse_json
from deepscaler.errors import DataError
from deepscaler.panel import iso_seconds

Floats = NDArray[np.float64]
QUANTILES = (0.5, 0.9, 0.95, 0.99)
"""Latency quantiles of the entry that are compared."""
SLO_SECONDS = 0.5
"""A second violates where the 95th percentile at the entry is above this."""
GATEWAY = "istio-ingressgateway"
SCRAPE_SECONDS = 15.0
"""Prometheus's scrape interval in the recordings: pods and quantiles change at multiples of it only."""
FILES = ("record.csv", "_stats.csv", "_stats_history.csv", "limit.json")
STATS, HISTORY = ("Type", "Name", "Request Count"), ("Timestamp", "User Count")
"""Columns of Locust's two files that are read."""
MEND = "download ScalerEval's result.zip again, or leave this run out of the archive"
GREATEST = 1e12
"""No recorded number is beyond."""
UNREADABLE = (OSError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""Errors of an archive that is broken, encrypted or packed in a way that Python doesn't know."""


@dataclass(frozen=True, eq=False)
class Record:
    """One run, real or emulated, of T moments and N services.

    Attributes:
        seconds: `[T]` since the load began.
        services: the N names.
        limits: `[N]` CPU limits of one pod, in cores.
        pods: `[T, N]` pods that exist, starting ones included.
        cores: `[T, N]` CPU that all pods of a service use, proxies not included.
        requests: `[T, N]` requests served per second.
        quantiles: `[T, Q]` latency at the entry in seconds, by `QUANTILES`; NaN where nothing was measured.
    """

    seconds: Floats
    services: tuple[str, ...]
    limits: Floats
    pods: Floats
    cores: Floats
    requests: Floats
    quantiles: Floats

    @property
    def slow(self) -> NDArray[np.bool_]:
        """Which moments violate, `[T]`."""
        return np.asarray(self.quantiles[:, QUANTILES.index(0.95)] > SLO_SECONDS)


@dataclass(frozen=True, eq=False)
class Cell:
    """A recorded run and what the emulated cluster has to be told of it.

    Attributes:
        name: the directory in the archive.
        policy: its last part, as the recording names the autoscaler.
        record: what was measured.
        user_seconds, users: `[K]` users of Locust over time.
        asked: endpoint -> requests that Locust counted, the products of a shop under one name.
        phase: seconds after a multiple of `SCRAPE_SECONDS` since the load began at which pods change.
    """

    name: str
    policy: str
    record: Record
    user_seconds: Floats
    users: NDArray[np.int64]
    asked: dict[str, float]
    phase: float


def read_cells(path: str | Path, services: tuple[str, ...], entry: str) -> list[Cell]:
    """The cells of an archive that ran these services, in the order of their names.

    Raises:
        DataError: no archive, no such cell in it, or a cell is incomplete.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            places = sorted(str(PurePosixPath(name).parent) for name in names if name.endswith("/record.csv"))
            cells = [_read(archive, place, services, entry) for place in places]
    except UNREADABLE as error:
        raise DataError(
            f"{path}: no readable zip archive ({one_line(error)}); download ScalerEval's result.zip again"
        ) from error
    found = [cell for cell in cells if cell is not None]
    if not found:
        raise DataError(
            f"{path}: no record.csv with all of {', '.join(services)}; "
            "expected ScalerEval's result.zip (application/distribution/trace/policy/record.csv)"
        )
    return found


def _read(archive: zipfile.ZipFile, place: str, services: tuple[str, ...], entry: str) -> Cell | None:
    missing = [name for name in FILES if f"{place}/{name}" not in archive.namelist()]
    if missing:
        raise DataError(
            f"{archive.filename}: {place}: {', '.join(missing)} missing; "
            f"a cell needs {', '.join(FILES)}; {MEND}"
        )
    measured = Table.read(archive, f"{place}/record.csv")
    if any(f"{name}&count" not in measured.frame for name in services):
        return None  # another application
    stats = Table.read(archive, f"{place}/_stats.csv", STATS)
    history = Table.read(archive, f"{place}/_stats_history.csv", HISTORY)
    moments, users = (history.numbers(name, finite=True) for name in ("Timestamp", "User Count"))
    if (users < 0).any():
        raise DataError(f"{history.place}: column 'User Count': a number is below 0; {MEND}")
    record = _record(measured, moments[0], services, _limits(archive, f"{place}/limit.json", services))
    return Cell(
        name=place,
        policy=PurePosixPath(place).name,
        record=record,
        user_seconds=moments - moments[0],
        users=users.astype(np.int64),
        asked=_asked(stats),
        phase=_phase(record),
    )


@dataclass(frozen=True, eq=False)
class Table:
    """A CSV file of an archive.

    Attributes:
        place: archive and file, for messages.
        frame: what it holds, a row at least.
    """

    place: str
    frame: pd.DataFrame

    @classmethod
    def read(cls, archive: zipfile.ZipFile, name: str, columns: Sequence[str] = ()) -> Table:
        """The file `name`, which must have these columns.

        Raises:
            DataError: it is no CSV in UTF-8, has no row, or lacks a column.
        """
        place, content = f"{archive.filename}: {name}", archive.read(name)
        try:
            with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
                frame = pd.read_csv(io.BytesIO(content), index_col=False, dtype=str)
        except (ValueError, pd.errors.ParserWarning) as error:
            raise DataError(f"{place}: not a readable CSV ({one_line(error)}); {MEND}") from error
        if not len(frame):
            raise DataError(f"{place}: no row below its header; {MEND}")
        found = cls(place, frame)
        for column in columns:
            found.column(column)
        return found

    def column(self, name: str) -> pd.Series:
        """The column `name`.

        Raises:
            DataError: there is none.
        """
        if name not in self.frame:
            raise DataError(f"{self.place}: no column {name!r}; {MEND}")
        return self.frame[name]

    def numbers(self, name: str, *, finite: bool = False) -> Floats:
        """The column `name` as numbers; empty cells are NaN, and with `finite` none may be.

        Raises:
            DataError: there is no such column, or something else stands in it.
        """
        values = self.column(name)
        try:
            found = pd.to_numeric(values).to_numpy(np.float64)
        except (ValueError, TypeError) as error:
            raise DataError(f"{self.place}: column {name!r}: {one_line(error)}; {MEND}") from error
        if (np.abs(found) > GREATEST).any() or (finite and np.isnan(found).any()):
            raise DataError(
                f"{self.place}: column {name!r}: a number is missing or beyond all bounds; {MEND}"
            )
        return found

    def seconds(self, name: str) -> Floats:
        """The column `name` of times, in seconds since the epoch; each is later than the one before.

        Raises:
            DataError: there is no such column, or no such times in it.
        """
        values = self.column(name)
        found = iso_seconds(values)
        if len(found) < 2 or not (np.diff(found) > 0).all():
            raise DataError(
                f"{self.place}: column {name!r}: expected two times or more, each later than the one before; "
                f"{MEND}"
            )
        return found


def _limits(archive: zipfile.ZipFile, name: str, services: tuple[str, ...]) -> Floats:
    """CPU limits of the services in cores, `[N]`."""
    place = f"{archive.filename}: {name}"
    try:
        found = parse_json(archive.read(name))
    except ValueError as error:
        raise DataError(f"{place}: not valid JSON ({one_line(error)}); {MEND}") from error
    limits = []
    for service in services:
        try:
            limit = float(found[service][0].removesuffix("m")) / 1000
        except (LookupError, TypeError, ValueError, AttributeError):
            limit = np.nan
        if not 0 < limit < np.inf:
            raise DataError(f'{place}: expected "{service}": ["<millicores>m", ...] in an object; {MEND}')
        limits.append(limit)
    return np.array(limits)


def _record(table: Table, began: float, services: tuple[str, ...], limits: Floats) -> Record:
    def columns(kind: str, *, finite: bool = False) -> Floats:
        return np.column_stack([table.numbers(f"{name}&{kind}", finite=finite) for name in services])

    times = table.seconds("timestamp")
    late = (times[0] - began) % 1800.0  # record.csv has local times: whole and half hours are its zone
    pods = columns("count", finite=True)
    series = _series(columns("cpu_usage_mean"), columns("cpu_usage_max"), pods)
    return Record(
        seconds=late + times - times[0],
        services=services,
        limits=limits,
        pods=pods,
        cores=columns("cpu_usage_mean") * series / 1000,
        requests=columns("qps"),
        quantiles=np.column_stack([table.numbers(f"{GATEWAY}&{q:g}") / 1000 for q in QUANTILES]),
    )


def _series(mean: Floats, most: Floats, pods: Floats) -> Floats:
    """Over how many pods the recording averages CPU, `[N]`.

    Its mean counts every pod that a service ever had in the run, zero where a pod wasn't there. So the mean,
    times these, is the sum. Where one pod ran alone they are the ratio of the largest to the mean.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(mean > 0, most / mean, 0.0)
    return np.asarray(np.maximum(np.rint(ratio.max(axis=0)), pods.max(axis=0)))


def _asked(stats: Table) -> dict[str, float]:
    """Requests by method and path, with what follows the second slash of a GET cut off."""
    found: dict[str, float] = {}
    counts = stats.numbers("Request Count", finite=True)
    for method, path, count in zip(stats.column("Type"), stats.column("Name"), counts, strict=True):
        if isinstance(method, str) and path != "Aggregated":
            name = f"{method} {path}" if method != "GET" else re.sub(r"^(/[^/]+)/.*", r"\1", f"{path}")
            name = name if method != "GET" else f"GET {name}"
            found[name] = found.get(name, 0.0) + float(count)
    return found


def _phase(record: Record) -> float:
    """When pods change, in seconds after a multiple of `SCRAPE_SECONDS`; mostly at least."""
    changed = np.flatnonzero((np.diff(record.pods, axis=0) != 0).any(axis=1)) + 1
    if not len(changed):
        return 0.0
    moments = np.floor(record.seconds[changed] % SCRAPE_SECONDS).astype(int)
    return float(np.bincount(moments).argmax())


def compared(record: Record) -> dict[str, float]:
    """What a run is compared by.

    `cores` (limits times pods, the mean), `throughput` (requests served by the entry per second), `p50` to
    `p99` (the median over the run of the quantile at the entry, in ms), `violating` (share of seconds),
    `cpu_per_request` (CPU-milliseconds of all services).
    """
    served = float(np.nanmean(record.requests[:, 0]))
    middle = np.nanmedian(record.quantiles, axis=0) * 1000
    return {
        "cores": float((record.pods * record.limits).sum(axis=1).mean()),
        "throughput": served,
        **{f"p{q * 100:g}": float(value) for q, value in zip(QUANTILES, middle, strict=True)},
        "violating": float(record.slow.mean()),
        "cpu_per_request": 1000 * float(np.nanmean(record.cores.sum(axis=1))) / served,
    }


def call_counts(record: Record) -> dict[str, float]:
    """Requests to each service per request to the first one."""
    totals: Any = np.nanmean(record.requests, axis=0)
    return dict(zip(record.services, (totals / totals[0]).tolist(), strict=True))
