"""What a run really cost at given prices: cores held, replicas missing and pods started."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.evaluation.span import Span, limits, replicas
from deepscaler.runs import Run


def realised_cost(run: Run, span: Span, shortage: float, start: float) -> dict[str, float]:
    """The realised cost of the judged part of a run, in core-hours; empty where the run kept no `needed`.

    `held_core_hours`: limit x (ready + starting) pods. `short_core_hours`: limit x replicas missing of those
    that the true, uncongested load needed at that moment; a ready pod that is still slow counts for what it
    serves (`serving`). `starts`: pods started by scaling.
    `realised_cost`: held + `shortage` x short + `start` seconds of holding per start. `excess_core_hours`:
    limit x ready replicas beyond the need.

    Args:
        run: with `needed`.
        span: the judged part.
        shortage: price of a missing replica per second, in units of holding one.
        start: price of a start in seconds of holding.
    """
    if run.needed is None:
        return {}
    pods, needed = span.cut(run.pods), span.cut(run.needed).set_index("time")
    ready, spec = replicas(pods, "ready"), replicas(pods, "spec")
    starting = replicas(pods, "starting")
    services = [str(name) for name in ready.columns if str(name) in needed.columns]
    cores = limits(run)
    limit = np.array([cores[name] for name in services])
    spans = np.diff(ready.index.to_numpy(np.float64), prepend=span.start)[:, None] / 3600
    rows = np.clip(
        np.searchsorted(needed.index.to_numpy(np.float64), ready.index.to_numpy(np.float64) - 1e-6),
        0,
        len(needed) - 1,
    )
    wanted, has = needed[services].to_numpy(np.float64)[rows], ready[services].to_numpy(np.float64)
    held = float(((has + starting[services].to_numpy()) * spans).sum(axis=0) @ limit)
    serves = span.cut(serving(run).reset_index()).set_index("time")[services].to_numpy(np.float64)
    short = float((np.maximum(wanted - serves, 0) * spans).sum(axis=0) @ limit)
    excess = float((np.maximum(has - wanted, 0) * spans).sum(axis=0) @ limit)
    started = np.maximum(np.diff(spec[services].to_numpy(np.float64), axis=0), 0).sum(axis=0)
    return {
        "held_core_hours": held,
        "short_core_hours": short,
        "excess_core_hours": excess,
        "realised_cost": held + shortage * short + start / 3600 * float(started @ limit),
    }


def serving(run: Run) -> pd.DataFrame:
    """Ready replicas by what they serve, as times x services: a pod that is slow at first is a part of one.

    For how long, and by what factor, run.json says under `warm_up`, where the testbed knows it. Surplus pods
    go the youngest first, so as many are warm as were ready all the time since then.
    """
    ready = replicas(run.pods, "ready")
    served = ready.copy()
    times = ready.index.to_numpy(np.float64)
    for service, told in (run.info.get("warm_up") or {}).items():
        if service in served.columns:
            have = ready[service].to_numpy(np.float64)
            warm = _fewest_lately(times, have, told["seconds"])
            served[service] = warm + (have - warm) / told["slowdown"]
    return served


def _fewest_lately(
    times: NDArray[np.float64], values: NDArray[np.float64], seconds: float
) -> NDArray[np.float64]:
    """The lowest value `[L]` of the last `seconds`, their beginning included."""
    rolling = pd.Series(values, pd.to_datetime(times, unit="s")).rolling(
        pd.Timedelta(seconds=seconds), closed="both"
    )
    return rolling.min().to_numpy(np.float64)
