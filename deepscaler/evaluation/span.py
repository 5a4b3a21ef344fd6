"""What a run directory states, and which part of the run is judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from deepscaler.artefacts import utc_seconds
from deepscaler.cluster import ENDPOINT_COLUMNS
from deepscaler.errors import DataError
from deepscaler.panel import check_grid
from deepscaler.runs import POD_COLUMNS, Run

MINUTE = 60.0
COUNTS = tuple(column for column in ENDPOINT_COLUMNS if column not in ("time", "endpoint"))
"""Columns of endpoints.csv that can be added up."""
AGAIN = "make the run again with: python predict_scale.py"


@dataclass(frozen=True)
class Span:
    """The judged part of a run: what lies in (start, end].

    Attributes:
        begin: when the run began; the warm-up lies between it and `start`. All times are seconds since the
            epoch.
        start: the end of the warm-up.
        end: the last sample.
        step: seconds between the samples of endpoints.csv.
    """

    begin: float
    start: float
    end: float
    step: float

    @property
    def hours(self) -> float:
        """Length in hours."""
        return (self.end - self.start) / 3600

    def count(self, seconds: float) -> int:
        """Number of whole windows of `seconds`; a rest at the end is left out."""
        return int((self.end - self.start) / seconds + 1e-6)

    def index(self, times: ArrayLike, seconds: float) -> NDArray[np.int64]:
        """Number of the window that each time (the end of a sample) falls into; the first is 0."""
        return np.ceil((np.asarray(times, np.float64) - self.start) / seconds - 1e-6).astype(np.int64) - 1

    def cut(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows that lie in the judged part."""
        return frame[(frame["time"] > self.start + 1e-6) & (frame["time"] <= self.end + 1e-6)]


def check_run(run: Run) -> None:
    """Refuse a run that can't be measured.

    Raises:
        DataError: run.json lacks a key, or a file lacks a column, numbers or rows.
    """
    for key, kind in (("policy", str), ("limits", dict), ("sla", dict)):
        if not isinstance(run.info.get(key), kind) or not run.info[key]:
            expected = "a name" if kind is str else "a mapping"
            raise DataError(f"run.json: {key!r} is {run.info.get(key)!r}, expected {expected}; {AGAIN}")
    numeric = {"endpoints": COUNTS, "pods": POD_COLUMNS[2:], "decisions": ("target",)}
    for name, columns in numeric.items():
        frame: pd.DataFrame = getattr(run, name)
        missing = [column for column in columns if column not in frame]
        if missing:
            raise DataError(f"{name}.csv: column {missing[0]!r} is missing")
        broken = [
            column for column in columns if len(frame) and not pd.api.types.is_numeric_dtype(frame[column])
        ]
        if broken:
            raise DataError(f"{name}.csv: column {broken[0]!r} holds something that isn't a number")
    for name in ("endpoints", "pods"):
        if getattr(run, name).empty:
            raise DataError(f"{name}.csv: no rows; {AGAIN}")


def run_span(run: Run, warmup: float) -> Span:
    """The judged part of a run: from the end of the warm-up to the last sample.

    The warm-up begins at `start` of run.json, or else at the first step of endpoints.csv. The seconds of
    history that a run was given before its judged part (`testbed.history`) are cut as well.

    Raises:
        DataError: less than a minute is left.
    """
    times = np.unique(run.endpoints["time"].to_numpy(np.float64))
    if not len(times):
        raise DataError("the run has no step of endpoints.csv: run longer")
    step = float(np.min(np.diff(times))) if len(times) > 1 else MINUTE
    begin = moment_seconds(run.info["start"]) if run.info.get("start") is not None else float(times[0]) - step
    warmup = max(warmup, float(run.info.get("history_seconds") or 0.0))
    check_grid(np.unique([begin, *times, *run.pods["time"]]), min(step, MINUTE), "the run")
    span = Span(begin, begin + warmup, float(max(times[-1], run.pods["time"].max())), step)
    if span.end - span.start < MINUTE - 1e-6:
        lasted = f"the run lasted {span.end - begin:g} s and evaluate.warmup cuts {warmup:g} s of it"
        raise DataError(f"{lasted}: at least 60 s must be left; run longer or cut less")
    return span


def moment_seconds(moment: str | float) -> float:
    """Seconds since the epoch of a time in run.json, which is a number or ISO 8601."""
    return utc_seconds(moment) if isinstance(moment, str) else float(moment)


def entry_sla(run: Run) -> float:
    """Bound on the mean response at the entry in a minute, in seconds: the strictest of all endpoints."""
    return float(min(run.info["sla"].values()))


def limits(run: Run) -> dict[str, float]:
    """CPU limit in cores of one replica, of every service in pods.csv; its CPU request if it has no limit.

    Raises:
        DataError: a service has neither.
    """
    requests_ = run.info.get("requests") or {}
    found = {}
    for service in run.pods["service"].unique():
        value = run.info["limits"].get(service) or requests_.get(service)
        if not value:
            raise DataError(
                f"run.json: service {service!r} has no CPU limit in 'limits' and no request in 'requests', "
                "so its cost is unknown; set resources.limits.cpu of its Deployment and run again"
            )
        found[str(service)] = float(value)
    return found


def minute_sums(endpoints: pd.DataFrame, span: Span, seconds: float) -> pd.DataFrame:
    """Sums over all endpoints, one row per window of `seconds`.

    A window without samples is 0: nothing was offered, nothing was done.
    """
    index = span.index(endpoints["time"], seconds)
    return (
        endpoints.loc[:, list(COUNTS)]
        .groupby(index)
        .sum()
        .reindex(range(span.count(seconds)), fill_value=0.0)
    )


def replicas(pods: pd.DataFrame, column: str) -> pd.DataFrame:
    """One column of pods.csv as times x services; a service without a sample keeps its last value."""
    known = pods[pods[column].notna()]
    rows, times = pd.factorize(known["time"], sort=True)
    columns, services = pd.factorize(known["service"], sort=True)
    table = np.full((len(times), len(services)), np.nan)
    table[rows, columns] = known[column]  # of several samples of one moment the last one stays
    names = pd.Index(services, name="service")
    return pd.DataFrame(table, pd.Index(times, name="time"), names).ffill().fillna(0.0)
