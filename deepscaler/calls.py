"""Recorded calls between services, and their CSV file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.artefacts import read_csv, replacing, utc_text
from deepscaler.errors import DataError
from deepscaler.panel import iso_seconds

EXTERNAL = "external"
"""The caller of requests from outside the application, which users send to its entries."""
COLUMNS = ("time", "caller", "callee", "calls_per_second")


@dataclass(frozen=True, eq=False)
class CallGraph:
    """Calls per second from every caller to every callee: one row per pair and window.

    Attributes:
        frame: columns `time` (seconds since the epoch, the end of the window), `caller`, `callee`,
            `calls_per_second`. The caller `external` is the world outside the application.
    """

    frame: pd.DataFrame

    def mean_rates(
        self, services: tuple[str, ...], start: float = -np.inf, end: float = np.inf
    ) -> NDArray[np.float64]:
        """Mean calls per second `[N, N]` (row = caller, column = callee) over the windows in (start, end].

        A pair that is absent from a window had no calls in it. Callers and callees outside `services` are
        left out.
        """
        rates = self._pairs(start, end).reindex(index=services, columns=services, fill_value=0.0)
        return np.asarray(rates, np.float64)

    def external_rates(
        self, services: tuple[str, ...], start: float = -np.inf, end: float = np.inf
    ) -> NDArray[np.float64]:
        """Mean requests per second `[N]` that enter the application at each service."""
        rates = self._pairs(start, end).reindex(index=(EXTERNAL,), columns=services, fill_value=0.0)
        row: NDArray[np.float64] = np.asarray(rates, np.float64)[0]
        return row

    def _pairs(self, start: float, end: float) -> pd.DataFrame:
        part = self.frame[(self.frame["time"] > start) & (self.frame["time"] <= end)]
        windows = max(part["time"].nunique(), 1)
        sums = part.pivot_table(
            index="caller", columns="callee", values="calls_per_second", aggfunc="sum", fill_value=0.0
        )
        return sums / windows


def write_calls(calls: CallGraph, path: str | Path) -> None:
    """Write `calls.csv` with the columns time, caller, callee and calls_per_second."""
    frame = calls.frame.loc[:, list(COLUMNS)].copy()
    frame["time"] = [utc_text(moment) for moment in frame["time"]]
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.9g")


def read_calls(path: str | Path) -> CallGraph:
    """Read `calls.csv`.

    Raises:
        DataError: there is no such file, a column is missing or a line is broken.
    """
    frame = read_csv(path, columns=COLUMNS, command="python metrics_fetch.py")
    rates = pd.to_numeric(frame["calls_per_second"], errors="coerce").astype(np.float64)
    times = iso_seconds(frame["time"])
    broken = rates.isna() | np.isnan(times)
    if broken.any():
        raise DataError(f"{path}: line {int(np.flatnonzero(broken)[0]) + 2} is broken")
    return CallGraph(
        pd.DataFrame(
            {"time": times, "caller": frame["caller"], "callee": frame["callee"], "calls_per_second": rates}
        )
    )
