"""The metric panel: one container for metrics from the cluster to the data set, and its CSV file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.artefacts import one_line, replacing, utc_text
from deepscaler.errors import DataError
from deepscaler.foreign_csv import epoch_seconds, is_missing, read_metrics_csv
from deepscaler.plausible import without_nonsense

_LOG = logging.getLogger(__name__)

FEATURES = {"pod": "count", "cpu": "ratio", "mem": "ratio", "res": "s", "req": "1/s"}
"""The features, by the README's names, and their units."""
WAITED = "waited"
"""The column of `MetricPanel.waited`; it holds no `_`, so it isn't one of a service."""
MOST_SPARSE = 2**26
"""So many numbers a grid may have, however few of them are known."""
MOST_EMPTY = 20
"""A larger grid may have so many rows for each one that is known."""


@dataclass(frozen=True, eq=False)
class MetricPanel:
    """Metrics of all services at regular times.

    Attributes:
        times: `[L]` seconds since the epoch (UTC); each is the *end* of its sample.
        services: names of the N services.
        features: names of the F features.
        values: float32 `[L, N, F]`; a missing sample is NaN, never zero.
        partial: whether their source said that it couldn't ask all of its stores: sums may be too low.
        waited: float32 `[L]` mean response in seconds of the requests that came from outside, at all entries;
            NaN without any. None where that isn't told: what the entries served tells it unless they call
            one another.
    """

    times: NDArray[np.float64]
    services: tuple[str, ...]
    features: tuple[str, ...]
    values: NDArray[np.float32] = field(repr=False)
    partial: bool = False
    waited: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        expected = (len(self.times), len(self.services), len(self.features))
        if self.values.shape != expected:
            raise DataError(
                f"metric panel: values have shape {self.values.shape}, expected {expected} (L, N, F)"
            )
        if self.waited is not None and self.waited.shape != self.times.shape:
            raise DataError(
                f"metric panel: waited has shape {self.waited.shape}, expected {self.times.shape} (L)"
            )

    def __len__(self) -> int:
        return len(self.times)

    def feature(self, name: str) -> NDArray[np.float32]:
        """Values `[L, N]` of one feature.

        Raises:
            DataError: the panel has no such feature.
        """
        if name not in self.features:
            raise DataError(f"feature {name!r} is not in the metrics; they hold {', '.join(self.features)}")
        return self.values[:, :, self.features.index(name)]

    def select(self, services: tuple[str, ...], features: tuple[str, ...]) -> MetricPanel:
        """The same panel with these services and features in this order.

        Raises:
            DataError: the panel lacks one of them.
        """
        for kind, wanted, have in (
            ("service", services, self.services),
            ("feature", features, self.features),
        ):
            there = frozenset(have)
            missing = [name for name in wanted if name not in there]
            if missing:
                raise DataError(
                    f"{kind} {', '.join(missing)} not in the metrics; they hold {', '.join(have)}"
                )
        place = {name: row for row, name in enumerate(self.services)}
        rows = [place[name] for name in services]
        columns = [self.features.index(name) for name in features]
        return replace(self, services=services, features=features, values=self.values[:, rows][:, :, columns])

    def rows(self, keep: slice | NDArray[np.bool_]) -> MetricPanel:
        """The same panel with these samples only."""
        waited = None if self.waited is None else self.waited[keep]
        return replace(self, times=self.times[keep], values=self.values[keep], waited=waited)

    def since_first_sample(self) -> MetricPanel:
        """The panel without the rows before its first sample: nothing is known of the time before."""
        rows = np.flatnonzero(np.isfinite(self.values).any(axis=(1, 2)))
        first = int(rows[0]) if len(rows) else len(self)
        return self.rows(slice(first, None))

    def between(self, start: float, end: float) -> MetricPanel:
        """The samples with start < time <= end."""
        return self.rows((self.times > start) & (self.times <= end))

    @property
    def step(self) -> float:
        """Seconds between samples.

        Raises:
            DataError: there are fewer than two samples, or the times are irregular.
        """
        if len(self.times) < 2:
            raise DataError(
                f"metric panel: {len(self.times)} sample(s), at least 2 are needed to know the step"
            )
        steps = np.diff(self.times)
        if not np.abs(steps - steps[0]).max() <= 1e-3:  # not so for NaN either
            raise DataError(
                f"metric panel: times are not regular (steps from {steps.min():g} to {steps.max():g} s)"
            )
        return float(steps[0])

    def regular(self, step: float) -> MetricPanel:
        """The panel on a grid of `step` seconds from its first sample; absent times become rows of NaN.

        Raises:
            DataError: the grid would be large and nearly empty.
        """
        check_grid(self.times, step, "metrics", self.values[0].size if len(self) else 1)
        slots = np.rint((self.times - self.times[0]) / step).astype(int)
        times = self.times[0] + step * np.arange(slots[-1] + 1)
        values = np.full((len(times), *self.values.shape[1:]), np.nan, np.float32)
        values[slots] = self.values
        waited = None
        if self.waited is not None:
            waited = np.full(len(times), np.nan, np.float32)
            waited[slots] = self.waited
        return replace(self, times=times, values=values, waited=waited)


def joined(parts: Sequence[MetricPanel]) -> MetricPanel:
    """The samples of panels of the same services and features, one after the other."""
    waited = None
    if any(part.waited is not None for part in parts):
        waited = np.concatenate(
            [np.full(len(part), np.nan, np.float32) if part.waited is None else part.waited for part in parts]
        )
    return replace(
        parts[0],
        times=np.concatenate([part.times for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        partial=any(part.partial for part in parts),
        waited=waited,
    )


def check_grid(times: NDArray[np.float64], step: float, what: str, width: int = 1) -> None:
    """Refuse times whose regular grid would be large and nearly empty, as one with a wrong year in it is.

    Args:
        times: `[L]` seconds since the epoch, rising.
        step: seconds of the grid.
        what: has these times.
        width: numbers per row of the grid.

    Raises:
        DataError: names the longest gap.
    """
    slots = (times[-1] - times[0]) / step + 1 if len(times) else 0.0
    if slots * width > MOST_SPARSE and slots > MOST_EMPTY * len(times):
        at = int(np.argmax(np.diff(times)))
        raise DataError(
            f"{what}: {len(times)} samples from {utc_text(times[0])} to {utc_text(times[-1])}, and none from "
            f"{utc_text(times[at])} to {utc_text(times[at + 1])}: is a year wrong? If not, cut the file there"
        )


def write_panel(panel: MetricPanel, path: str | Path) -> None:
    """Write `metrics.csv`: `time` and a column `<service>_<feature>` per pair; missing samples are empty.

    Where it is known, `waited` is the last column. `read_panel` returns an equal panel.
    """
    with replacing(path) as temporary:
        temporary.write_text(panel_lines(panel, header=True), encoding="utf-8")


def panel_columns(services: Sequence[str], features: Sequence[str]) -> list[str]:
    """The names of the columns of `metrics.csv` beside `time`."""
    return [f"{service}_{feature}" for service in services for feature in features]


def panel_lines(panel: MetricPanel, *, header: bool = False) -> str:
    """The rows of `metrics.csv`."""
    columns = panel_columns(panel.services, panel.features)
    frame = pd.DataFrame(panel.values.reshape(len(panel), -1), columns=columns)
    frame.insert(0, "time", [utc_text(moment) for moment in panel.times])
    if panel.waited is not None:
        frame[WAITED] = panel.waited
    return str(
        frame.to_csv(index=False, na_rep="", float_format=_shortest, header=header, lineterminator="\n")
    )


def _shortest(value: Any) -> str:
    """The shortest text that reads back as the same float32."""
    return np.format_float_positional(np.float32(value), unique=True, trim="-")


def read_panel(
    path: str | Path,
    services: tuple[str, ...] | None = None,
    features: tuple[str, ...] | None = None,
    *,
    torn: bool = False,
) -> MetricPanel:
    """Read a wide CSV with `time` and `<service>_<feature>` columns, and perhaps one of what users waited.

    Values that can't be are missing, and logged by name.

    Args:
        path: the file.
        services: which services, in this order; by default all, in the file's order.
        features: which features, in this order; by default all, in the file's order.
        torn: its last line may have no end: that line is left out.

    Raises:
        DataError: there is no such file or column, a line is broken, or rows aren't in the order of time.
    """
    path = Path(path)
    frame = read_metrics_csv(path, "python metrics_fetch.py", torn=torn)
    names = [str(column) for column in frame.columns if column not in ("time", WAITED)]
    pairs = [name.rpartition("_")[::2] for name in names]
    services = services or tuple(dict.fromkeys(service for service, _ in pairs))
    features = features or tuple(dict.fromkeys(feature for _, feature in pairs))
    columns = panel_columns(services, features)
    absent = [column for column in columns if column not in names]
    if absent:
        raise DataError(
            f"{path}: column {absent[0]!r} is missing ({len(absent)} of {len(columns)} expected columns are)"
        )
    frame, times = in_time_order(frame, path)
    values = np.empty((len(frame), len(columns)), np.float64)
    for index, column in enumerate(columns):
        values[:, index] = read_numbers(frame[column], path, column)
    panel = panel_of(times, services, features, values, path)
    if WAITED not in frame.columns:
        return panel
    waited, found = without_nonsense(
        read_numbers(frame[WAITED], path, WAITED).reshape(-1, 1, 1), ("all entries",), ("res",)
    )
    for text in found.values():
        _LOG.warning("%s: %s", path, text)
    return replace(panel, waited=waited[:, 0, 0].astype(np.float32))


def panel_of(
    times: NDArray[np.float64],
    services: tuple[str, ...],
    features: tuple[str, ...],
    values: NDArray[np.float64],
    path: Path,
) -> MetricPanel:
    """The panel of a file's columns `[L, N * F]`; impossible values are missing, which is logged by name."""
    kept, found = without_nonsense(
        values.reshape(len(times), len(services), len(features)), services, features
    )
    for text in found.values():
        _LOG.warning("%s: %s", path, text)
    return MetricPanel(times, services, features, kept.astype(np.float32))


def in_time_order(frame: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """The rows of a file with a column `time`, oldest first, and their seconds since the epoch.

    A file whose rows all stand newest first is turned round, which is logged. The index keeps the places in
    the file.

    Raises:
        DataError: there are no rows, a text is neither ISO 8601 nor seconds or milliseconds since the epoch,
            two rows are of one time, or the order is neither.
    """
    texts = frame["time"]
    if not len(texts):
        raise DataError(f"{path}: no rows; make it again with: python metrics_fetch.py")
    epoch = epoch_seconds(texts)
    times = iso_seconds(texts) if epoch is None else epoch
    broken = np.flatnonzero(np.isnan(times))
    if len(broken):
        row = int(broken[0])
        raise DataError(
            f"{path}: line {row + 2}: time {one_line(texts.iloc[row], 60)!r} is not ISO 8601 "
            "(2026-01-05T00:00:00Z), nor are all times seconds or milliseconds since the epoch"
        )
    steps = np.diff(times)
    if len(steps) and (steps < 0).all():
        _LOG.info("%s: its rows stand newest first; they are read from the last to the first", path)
        return frame.iloc[::-1], times[::-1].copy()
    if (steps <= 0).any():
        raise DataError(f"{path}: {_disorder(texts, times)}")
    return frame, times


def _disorder(texts: pd.Series, times: NDArray[np.float64]) -> str:
    """What is wrong with the order of the rows, and how it is mended."""
    order = np.argsort(times, kind="stable")
    twice = np.flatnonzero(np.diff(times[order]) == 0)
    if len(twice):
        first, second = order[twice[0]], order[twice[0] + 1]
        return (
            f"line {second + 2}: time {one_line(texts.iloc[second], 60)} stands in line {first + 2} already "
            f"(repeated times: {len(twice)}); keep one row for each time, with a column for each service "
            "and feature"
        )
    steps = np.diff(times)
    usual = steps > 0 if 2 * np.count_nonzero(steps > 0) >= len(steps) else steps < 0
    row = int(np.flatnonzero(~usual)[0]) + 1
    return (
        f"line {row + 2}: time {one_line(texts.iloc[row], 60)} doesn't follow "
        f"{one_line(texts.iloc[row - 1], 60)} (rows out of order: {np.count_nonzero(~usual)} of "
        f"{len(times)}); sort the rows by time"
    )


def iso_seconds(texts: pd.Series) -> NDArray[np.float64]:
    """Seconds since the epoch of ISO 8601 texts; a text without an offset is in UTC.

    Anything else is NaN, `now` and `today` included, which pandas would read as the present.
    """
    dated = texts.where(texts.astype(str).str.match(r"\s*\d{4}-\d\d-\d\d"))
    parsed = pd.to_datetime(dated, utc=True, errors="coerce", format="ISO8601")
    moments = parsed.dt.tz_localize(None).dt.as_unit("us").to_numpy()  # nanoseconds end in 2262
    seconds: NDArray[np.float64] = np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 1e6)
    return seconds


def read_numbers(texts: pd.Series, path: Path, column: str) -> NDArray[np.float64]:
    """The numbers of a file's column; empty cells, `nan` and `null` are NaN.

    Raises:
        DataError: a cell is neither a number nor empty.
    """
    numbers = pd.to_numeric(texts, errors="coerce")
    broken = numbers.isna() & ~is_missing(texts)
    if broken.any():
        row = int(np.flatnonzero(broken)[0])
        found = one_line(texts.iloc[row], 60)
        raise DataError(f"{path}: line {texts.index[row] + 2}, column {column!r}: {found!r} is not a number")
    return numbers.to_numpy(np.float64)


def trailing_mean(
    values: NDArray[np.float32], weights: NDArray[np.float64], rows: int
) -> NDArray[np.float64]:
    """Weighted mean `[L]` of the known values among the last `rows`; NaN without one that weighs."""
    return _rolling(values.astype(np.float64), np.nan_to_num(weights), rows)


def trailing_means(panel: MetricPanel, rows: int) -> NDArray[np.float32]:
    """Means `[L, N, F]` of the known values among the last `rows` samples of a regular panel.

    The first rows have fewer samples to take the mean of. Response times (`res`) are weighted by request
    rates (`req`) if the panel has both, because their mean is one over requests.
    """
    values = panel.values.astype(np.float64)
    means = _rolling(values, np.ones_like(values), rows)
    if "res" in panel.features and "req" in panel.features:
        response, rate = (panel.features.index(name) for name in ("res", "req"))
        weight = np.nan_to_num(values[:, :, [rate]])
        means[:, :, [response]] = _rolling(values[:, :, [response]], weight, rows)
    return means.astype(np.float32)


def _rolling(values: NDArray[np.float64], weights: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    known = np.isfinite(values) & (weights > 0)
    weights = np.where(known, weights, 0.0)
    totals = np.cumsum(np.where(known, values, 0.0) * weights, axis=0)
    sums = np.cumsum(weights, axis=0)
    totals[rows:] = totals[rows:] - totals[:-rows].copy()
    sums[rows:] = sums[rows:] - sums[:-rows].copy()
    enough = sums > 1e-12
    return np.where(enough, totals / np.where(enough, sums, 1.0), np.nan)
