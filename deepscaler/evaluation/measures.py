"""What a run is worth: violations, latency, cost and elasticity of one run.

Shares are in [0, 1], times in seconds. NaN is *unknown* (nothing was measured), never "no violation".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from deepscaler.artefacts import utc_seconds
from deepscaler.cluster import ENDPOINT_COLUMNS, LATENCY_BUCKETS
from deepscaler.errors import DataError
from deepscaler.runs import DECISION_COLUMNS, POD_COLUMNS, Run

MINUTE, WINDOW = 60.0, 15.0
QUANTILES = {"p50_seconds": 0.5, "p95_seconds": 0.95, "p99_seconds": 0.99}
BUCKETS = tuple(column for column in ENDPOINT_COLUMNS if column.startswith("le_"))
COUNTS = tuple(column for column in ENDPOINT_COLUMNS if column not in ("time", "endpoint"))


@dataclass(frozen=True)
class Span:
    """The judged part of a run: (start, end], seconds since the epoch; `begin` of the run, `step` of its endpoints."""

    begin: float
    start: float
    end: float
    step: float

    @property
    def hours(self) -> float:
        """Length."""
        return (self.end - self.start) / 3600

    def count(self, seconds: float) -> int:
        """Whole windows of `seconds` from the start; what is left at the end isn't judged by windows."""
        return int((self.end - self.start) / seconds + 1e-6)

    def index(self, times: ArrayLike, seconds: float) -> NDArray[np.int64]:
        """The window each time (the end of a sample) falls in."""
        return np.ceil((np.asarray(times, np.float64) - self.start) / seconds - 1e-6).astype(np.int64) - 1

    def cut(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows inside."""
        return frame[(frame["time"] > self.start + 1e-6) & (frame["time"] <= self.end + 1e-6)]


def evaluate_run(run: Run, warmup: float) -> dict[str, Any]:
    """All measures of one run after `warmup` seconds are cut from its start: numbers, and `endpoints` by name.

    Raises:
        DataError: run.json or a file lacks something, or nothing is left after the warm-up.
    """
    _check(run)
    span = run_span(run, warmup)
    pods, cores = span.cut(run.pods), limits(run)
    return {
        "hours": span.hours,
        **published(span.cut(run.endpoints), span, entry_sla(run)),
        **requests(span.cut(run.endpoints)),
        **episodes(span.cut(run.endpoints), span),
        **cost(pods, span, cores),
        **elasticity(run, span),
        "planned_core_hours": planned_core_hours(run.decisions, span, cores),
        **decision_latency(run.info),
    }


# --------------------------------------------------------------------------------------------------- what a run states
def _check(run: Run) -> None:
    for key, kind in (("policy", str), ("limits", dict), ("sla", dict)):
        if not isinstance(run.info.get(key), kind) or not run.info[key]:
            expected = "a name" if kind is str else "a mapping"
            raise DataError(
                f"run.json: {key!r} is {run.info.get(key)!r}, expected {expected}; make the run again with: python predict_scale.py"
            )
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
            raise DataError(f"{name}.csv: column {broken[0]!r} holds something that is not a number")
    for name in ("endpoints", "pods"):
        if getattr(run, name).empty:
            raise DataError(f"{name}.csv: no rows; make the run again with: python predict_scale.py")


def run_span(run: Run, warmup: float) -> Span:
    """The judged part: from `info["start"]` (else the first step of endpoints.csv) + warm-up to the last sample.

    Raises:
        DataError: less than a minute is left.
    """
    times = np.unique(run.endpoints["time"].to_numpy(np.float64))
    step = float(np.min(np.diff(times))) if len(times) > 1 else MINUTE
    begin = moment_seconds(run.info["start"]) if run.info.get("start") is not None else float(times[0]) - step
    span = Span(begin, begin + warmup, float(max(times[-1], run.pods["time"].max())), step)
    if span.end - span.start < MINUTE - 1e-6:
        lasted = f"the run lasted {span.end - begin:g} s and evaluate.warmup cuts {warmup:g} s of it"
        raise DataError(f"{lasted}: at least 60 s must be left; run longer or cut less")
    return span


def moment_seconds(moment: str | float) -> float:
    """Seconds since the epoch of a time in run.json: a number, or ISO 8601."""
    return utc_seconds(moment) if isinstance(moment, str) else float(moment)


def entry_sla(run: Run) -> float:
    """Bound on the entry mean response of a minute, s: the strictest of the endpoints' (they are usually equal)."""
    return float(min(run.info["sla"].values()))


def limits(run: Run) -> dict[str, float]:
    """CPU limit in cores of one replica of every service in pods.csv; its request where it has no limit.

    Raises:
        DataError: a service has neither.
    """
    requests_ = run.info.get("requests") or {}
    found = {}
    for service in run.pods["service"].unique():
        value = run.info["limits"].get(service) or requests_.get(service)
        if not value:
            raise DataError(
                f"run.json: service {service!r} has no CPU limit in 'limits' (nor a request in 'requests'): cost unknown"
            )
        found[str(service)] = float(value)
    return found


# ------------------------------------------------------------------------------------------------------- as published
def minute_sums(endpoints: pd.DataFrame, span: Span, seconds: float) -> pd.DataFrame:
    """Sums of all endpoints by window of `seconds`, a row a window; windows without rows are 0 (nothing offered, nothing done)."""
    index = span.index(endpoints["time"], seconds)
    return (
        endpoints.loc[:, list(COUNTS)]
        .groupby(index)
        .sum()
        .reindex(range(span.count(seconds)), fill_value=0.0)
    )


def published(endpoints: pd.DataFrame, span: Span, sla: float) -> dict[str, float]:
    """The published measures, over minutes: entry mean response (all durations / all done, over all endpoints) against the SLA.

    `violation_rate` and `below_half_rate` are shares of the *known* minutes; a minute without a done request is unknown
    (`unknown_rate`, a share of all minutes). `response_mae` is the published MAE: to three quarters of the SLA (0.15 s at 0.2 s).

    Source: the published calculate.py. Differs: it drops samples at or below 1 ms; here a minute is dropped only when nothing was done.
    """
    minutes = minute_sums(endpoints, span, max(MINUTE, span.step))
    done = minutes["done"].to_numpy(np.float64)
    known = done > 0
    mean = minutes["duration_seconds"].to_numpy(np.float64)[known] / done[known]
    return {
        "minutes": len(minutes),
        "violation_minutes": int((mean > sla).sum()),
        "violation_rate": _mean(mean > sla),
        "below_half_rate": _mean(mean < sla / 2),
        "unknown_rate": float(1 - known.mean()),
        "response_mae": _mean(np.abs(mean - 0.75 * sla)),
    }


# ------------------------------------------------------------------------------------------------------------ requests
def requests(endpoints: pd.DataFrame) -> dict[str, Any]:
    """Request-weighted measures over the whole run, for all requests and (`endpoints`) for each endpoint.

    `slow_rate` = (slower than the SLO + failed) / offered; where more finished than was offered (requests from before the cut)
    the finished count is the denominator. `unfinished_rate`: offered, neither done nor failed. Percentiles and means are of done requests.
    """
    named = endpoints.groupby("endpoint")[list(COUNTS)].sum(min_count=1)
    each = {str(name): _request_measures(row) for name, row in named.iterrows()}
    return {**_request_measures(named.sum(min_count=1)), "endpoints": each}


def _request_measures(sums: pd.Series) -> dict[str, float]:
    done, failed = sums["done"], sums["failed"]
    total = max(sums["offered"], done + failed)
    return {
        "slow_rate": _share(sums["slow"] + failed, total),
        "failed_rate": _share(failed, total),
        "unfinished_rate": _share(max(sums["offered"] - done - failed, 0.0), total),
        "mean_seconds": _share(sums["duration_seconds"], done),
        **{
            name: quantile(sums[list(BUCKETS)].to_numpy(np.float64), share)
            for name, share in QUANTILES.items()
        },
    }


def quantile(counts: NDArray[np.float64], share: float) -> float:
    """Quantile in seconds of a histogram over `LATENCY_BUCKETS`, linear within a bucket; NaN when it is empty.

    Source: Prometheus' histogram_quantile: the lowest bucket starts at 0, in the open one the answer is its lower bound.
    """
    total = counts.sum()
    if not total > 0:
        return math.nan
    rank, before, low = share * total, 0.0, 0.0
    for bound, count in zip(LATENCY_BUCKETS, counts, strict=False):
        if count > 0 and before + count >= rank:
            return float(low + (bound - low) * (rank - before) / count)
        before, low = before + count, bound
    return low


def episodes(endpoints: pd.DataFrame, span: Span) -> dict[str, float]:
    """Windows of 15 s (or the step, if longer) in which some endpoint's p95 > its SLO, and how long such episodes last.

    p95 > SLO exactly when more than 5 % of an endpoint's finished requests are slow or failed. A window in which nothing
    finished is unknown: it isn't counted in `window_violation_rate` and neither starts nor ends an episode.
    `recovery_seconds` is the mean length of a run of violating windows (one still open at the end counts as long as it is);
    NaN when there was none.
    """
    seconds = max(WINDOW, span.step)
    keys = [pd.Series(span.index(endpoints["time"], seconds), endpoints.index, name="window"), "endpoint"]
    sums = endpoints.groupby(keys)[["done", "failed", "slow"]].sum(min_count=1)
    finished, bad = sums["done"] + sums["failed"], sums["slow"] + sums["failed"]
    violating = (20 * bad > finished).astype(float).where((finished > 0) & bad.notna())
    state = violating.groupby(level="window").max().reindex(range(span.count(seconds)))
    known = state.dropna()
    held = state.ffill().fillna(0.0).to_numpy() > 0
    starts = int((held & ~np.concatenate(([False], held[:-1]))).sum())
    return {
        "window_violation_rate": _mean(known.to_numpy()),
        "unknown_window_rate": float(state.isna().mean()),
        "episodes": starts,
        "recovery_seconds": float(held.sum()) * seconds / starts if starts else math.nan,
    }


# ---------------------------------------------------------------------------------------------------------------- cost
def replicas(pods: pd.DataFrame, column: str) -> pd.DataFrame:
    """One column of pods.csv as times x services; a service not sampled at a time keeps its last value."""
    return (
        pods.pivot_table(index="time", columns="service", values=column, aggfunc="last").ffill().fillna(0.0)
    )


def cost(pods: pd.DataFrame, span: Span, cores: Mapping[str, float]) -> dict[str, float]:
    """Cost and movement from pods.csv; a sample stands for the time since the one before it.

    `core_hours`: limits x (starting + ready) pods: one that is still starting is paid for. `published_cost` = Σ limit · mean
    ready replicas, in cores. `changes_per_hour`: changes of any Deployment's spec between samples, whoever made them.
    """
    if pods.empty:
        raise DataError(
            "pods.csv: no rows after the warm-up; make the run again with: python predict_scale.py"
        )
    ready, spec = replicas(pods, "ready"), replicas(pods, "spec")
    alive = ready + replicas(pods, "starting")
    limit = np.array([cores[str(service)] for service in ready.columns])
    spans = np.diff(ready.index.to_numpy(np.float64), prepend=span.start)
    mean_ready = np.average(ready.to_numpy(), axis=0, weights=spans)
    changed = int((np.diff(spec.to_numpy(), axis=0) != 0).sum())
    return {
        "core_hours": float(np.average(alive.to_numpy() @ limit, weights=spans)) * span.hours,
        "mean_cores": float(np.average(alive.to_numpy() @ limit, weights=spans)),
        "published_cost": float(mean_ready @ limit),
        "mean_replicas": float(mean_ready.sum()),
        "changes_per_hour": changed / span.hours,
    }


def planned_core_hours(decisions: pd.DataFrame, span: Span, cores: Mapping[str, float]) -> float:
    """Core-hours the decided targets would have taken (each holds until the next): in a dry run, what the policy would cost."""
    known = decisions[decisions["service"].isin(list(cores)) & decisions["target"].notna()]
    if not set(DECISION_COLUMNS) <= set(decisions.columns) or known.empty:
        return math.nan
    targets = replicas(known, "target")
    times = targets.index.to_numpy(np.float64)
    spans = np.clip(np.append(times[1:], span.end), span.start, span.end) - np.clip(
        times, span.start, span.end
    )
    limit = np.array([cores[str(service)] for service in targets.columns])
    covered = spans.sum()
    return float((targets.to_numpy() @ limit) @ spans / covered) * span.hours if covered > 0 else math.nan


# ---------------------------------------------------------------------------------------------------------- elasticity
def elasticity(run: Run, span: Span) -> dict[str, float]:
    """Supply (ready replicas) against demand (the oracle's), mean over services; empty without an oracle in run.json.

    `theta_under`, `theta_over`: accuracy, the mean of max(d − s, 0) / d and of max(s − d, 0) / d. `tau_under`, `tau_over`:
    shares of time with s < d and s > d. `instability`: share of time in which s and d don't move the same way.
    `replica_mae`: mean |s − d|.

    Source: Herbst et al., "Ready for Rain?" (SPEC RG Cloud, 2016), as shares rather than percent.
    """
    if not run.info.get("oracle"):
        return {}
    if len(run.info.get("oracle_times", ())) == 0:
        raise DataError(
            "run.json: 'oracle' without 'oracle_times'; make the run again with: python predict_scale.py"
        )
    times = np.array([moment_seconds(moment) for moment in run.info["oracle_times"]])
    inside = (times > span.start - 1e-6) & (times <= span.end + 1e-6)
    ready = replicas(run.pods, "ready")
    services = [str(service) for service in ready.columns if str(service) in run.info["oracle"]]
    short = [service for service in services if len(run.info["oracle"][service]) != len(times)]
    if short:
        raise DataError(
            f"run.json: oracle of {short[0]!r} has {len(run.info['oracle'][short[0]])} values for {len(times)} oracle_times"
        )
    if not services or not inside.any():
        return {}
    rows = np.clip(
        np.searchsorted(ready.index.to_numpy(np.float64), times[inside] + 1e-6, side="right") - 1, 0, None
    )
    supply = ready[services].to_numpy()[rows]
    demand = np.array([run.info["oracle"][service] for service in services], np.float64).T[inside]
    return elasticity_measures(supply, demand)


def elasticity_measures(supply: NDArray[np.float64], demand: NDArray[np.float64]) -> dict[str, float]:
    """The measures of `elasticity` for supply and demand `[times, services]` at regular times."""
    moved = np.sign(np.diff(supply, axis=0)) != np.sign(np.diff(demand, axis=0))
    needed = np.maximum(demand, 1.0)
    return {
        "theta_under": _mean(np.maximum(demand - supply, 0) / needed),
        "theta_over": _mean(np.maximum(supply - demand, 0) / needed),
        "tau_under": _mean(supply < demand),
        "tau_over": _mean(supply > demand),
        "instability": _mean(moved),
        "replica_mae": _mean(np.abs(supply - demand)),
    }


def decision_latency(info: Mapping[str, Any]) -> dict[str, float]:
    """Time a decision took, where `info["decision_seconds"]` (a number or one a tick) records it."""
    taken = np.atleast_1d(np.asarray(info.get("decision_seconds", []), np.float64))
    if not len(taken):
        return {}
    return {"decision_seconds": float(taken.mean()), "decision_p95_seconds": float(np.quantile(taken, 0.95))}


def _mean(values: ArrayLike) -> float:
    array = np.asarray(values, np.float64)
    return float(array.mean()) if array.size else math.nan


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else math.nan
