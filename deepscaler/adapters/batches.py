"""Call counts that a tracing store wrote in batches: one record stands for a day, and for no window of it.

Jaeger's dependencies are computed by a job that writes one record per day (spark-dependencies). Whichever
window its time falls into seems to hold all calls of the day, and the others none.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.calls import COLUMNS

DAY_SECONDS = 86_400.0
_EXCESS = 1.5
"""A window whose calls are so many times the requests that were served holds more than the window's."""
_FEW = 0.5
Requests = Callable[[NDArray[np.float64], float], pd.DataFrame]
"""Requests per second by service, one row per window, whose ends and whose length in seconds it is given."""


def in_batches(rates: pd.DataFrame, requests: pd.DataFrame) -> bool:
    """Whether windows hold calls that can't be theirs.

    Args:
        rates: `COLUMNS`.
        requests: requests per second by service, one row per window; NaN where unknown.
    """
    served = requests.reindex(columns=rates["callee"].unique())
    into = rates.groupby(["time", "callee"])["calls_per_second"].sum().unstack()
    into = into.reindex(index=served.index, columns=served.columns).fillna(0.0)
    known = served.notna()
    of_window = into.where(known).sum(axis=1), served.where(known).sum(axis=1)
    busy = of_window[1] > 0
    if not busy.any():  # no requests are known: a record is told by windows without any call
        silent = (into.sum(axis=1) == 0).mean()
        return bool(len(into) >= 4 and silent > 1 - _FEW)
    excess = of_window[0][busy] > _EXCESS * of_window[1][busy]
    return bool(excess.any())


def spread(
    counts: pd.DataFrame, seconds: float, requests: pd.DataFrame, of_record: pd.DataFrame
) -> pd.DataFrame:
    """`COLUMNS`: the calls of records as rates in each window.

    In each window a callee is called as often per request as in the records. So the rates follow the
    requests, and their sum into a service is never more than what it served.

    Args:
        counts: calls in the records, with the columns caller, callee and calls.
        seconds: that the records stand for.
        requests: requests per second by service, one row per window; NaN where unknown.
        of_record: the same for windows of the records' own time.
    """
    mean = counts.assign(rate=counts["calls"] / seconds)
    rows = []
    for caller, callee, rate in mean[["caller", "callee", "rate"]].itertuples(index=False):
        into = float(mean.loc[mean["callee"] == callee, "rate"].sum())
        now = requests[callee] if callee in requests else pd.Series(np.nan, requests.index)
        then = float(of_record[callee].mean()) if callee in of_record else np.nan
        usual = then if np.isfinite(then) and then > 0 else into
        values = (rate * now / usual).where(now.notna(), rate)
        # What was counted twice or sampled unevenly may still be more than the requests.
        values *= np.minimum(1.0, usual / into) if into > 0 else 1.0
        rows.append(
            pd.DataFrame({"time": requests.index, "caller": caller, "callee": callee, COLUMNS[3]: values})
        )
    return pd.concat(rows, ignore_index=True).loc[:, list(COLUMNS)]
