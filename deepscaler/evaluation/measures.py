"""The measures of one run: violations, latency, cost and elasticity.

Shares are in [0, 1], times in seconds. NaN means *unknown* (nothing was measured), never "no violation".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from deepscaler.cluster import ENDPOINT_COLUMNS, LATENCY_BUCKETS
from deepscaler.errors import DataError
from deepscaler.evaluation.span import (
    AGAIN,
    COUNTS,
    MINUTE,
    Span,
    check_run,
    entry_sla,
    limits,
    minute_sums,
    moment_seconds,
    replicas,
    run_span,
)
from deepscaler.runs import DECISION_COLUMNS, Run

WINDOW = 15.0
QUANTILES = {"p50_seconds": 0.5, "p95_seconds": 0.95, "p99_seconds": 0.99}
BUCKETS = tuple(column for column in ENDPOINT_COLUMNS if column.startswith("le_"))


def evaluate_run(run: Run, warmup: float) -> dict[str, Any]:
    """All measures of one run, after `warmup` seconds are cut from its start.

    Returns:
        name -> number, and `endpoints`: endpoint -> the measures of `requests` for it alone.

    Raises:
        DataError: run.json or a file lacks something, or nothing is left after the warm-up.
    """
    check_run(run)
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


# ----------------------------------------------------------------------------------------------- as published
def published(endpoints: pd.DataFrame, span: Span, sla: float) -> dict[str, float]:
    """The published measures: the mean response at the entry of each minute, against the SLA.

    The mean of a minute is the sum of all durations over the number of requests done, over all endpoints.
    `violation_rate` and `below_half_rate` are shares of the *known* minutes. A minute in which no request was
    done is unknown; `unknown_rate` is their share of all minutes. `response_mae` is the published MAE: the
    mean distance to three quarters of the SLA (0.15 s at 0.2 s).

    Source: the published calculate.py.
    Differs: it drops samples at or below 1 ms; here a minute is dropped only if nothing was done in it.
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


# --------------------------------------------------------------------------------------------------- requests
def requests(endpoints: pd.DataFrame) -> dict[str, Any]:
    """Measures over the requests of the whole run, and in `endpoints` over those of each endpoint.

    `slow_rate` is the share of requests that were slower than the SLO or failed, of all that were offered. If
    more requests finished than were offered (some came from before the cut), it is the share of those that
    finished. `unfinished_rate` is the share of requests that were neither done nor failed. Percentiles and
    means are over the requests that were done.
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
    """Quantile in seconds of a histogram over `LATENCY_BUCKETS`, linear within a bucket; NaN if it is empty.

    Source: histogram_quantile of Prometheus. The lowest bucket starts at 0; in the open one its lower bound
        is returned.
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
    """How many windows violate the SLO of an endpoint, and how long such episodes last.

    A window of 15 s (or one step, if that is longer) violates if the p95 of an endpoint exceeds its SLO, that
    is if more than 5 % of the endpoint's finished requests are slow or failed. A window in which nothing
    finished is unknown: it doesn't count in `window_violation_rate`, and neither starts nor ends an episode.
    `recovery_seconds` is the mean length of the episodes (one that is still open at the end counts with its
    length so far); NaN if there was none.
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


# ------------------------------------------------------------------------------------------------------- cost
def cost(pods: pd.DataFrame, span: Span, cores: Mapping[str, float]) -> dict[str, float]:
    """What the replicas cost and how often they changed, from pods.csv.

    A sample stands for the time since the one before it.

    `core_hours`: CPU limits of all pods that are ready or starting, because a starting pod is paid for, too.
    `published_cost`: sum of limit * mean ready replicas, in cores. `changes_per_hour`: changes of the
    replicas of any Deployment between two samples, whoever made them. `starts_per_hour`: pods that these
    changes added.

    Raises:
        DataError: pods.csv has no rows after the warm-up.
    """
    if pods.empty:
        raise DataError(f"pods.csv: no rows after the warm-up; {AGAIN}")
    ready, spec = replicas(pods, "ready"), replicas(pods, "spec")
    alive = ready + replicas(pods, "starting")
    limit = np.array([cores[str(service)] for service in ready.columns])
    spans = np.diff(ready.index.to_numpy(np.float64), prepend=span.start)
    mean_ready = np.average(ready.to_numpy(), axis=0, weights=spans)
    changes = np.diff(spec.to_numpy(np.float64), axis=0)
    return {
        "core_hours": float(np.average(alive.to_numpy() @ limit, weights=spans)) * span.hours,
        "mean_cores": float(np.average(alive.to_numpy() @ limit, weights=spans)),
        "published_cost": float(mean_ready @ limit),
        "mean_replicas": float(mean_ready.sum()),
        "changes_per_hour": int((changes != 0).sum()) / span.hours,
        "starts_per_hour": float(np.maximum(changes, 0).sum()) / span.hours,
    }


def planned_core_hours(decisions: pd.DataFrame, span: Span, cores: Mapping[str, float]) -> float:
    """Core-hours of the decided targets, each held until the next: what a dry run would have cost."""
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


# ------------------------------------------------------------------------------------------------- elasticity
def elasticity(run: Run, span: Span) -> dict[str, float]:
    """How well the supply s (ready replicas) follows the demand d (the oracle's replicas), over all services.

    `theta_under`, `theta_over`: accuracy, the means of max(d - s, 0) / d and of max(s - d, 0) / d.
    `tau_under`, `tau_over`: shares of time with s < d and with s > d. `instability`: share of time in which s
    and d don't move in the same direction. `replica_mae`: mean |s - d|. The result is empty if run.json has
    no oracle.

    Raises:
        DataError: the oracle of run.json has no times, or not one value per time.

    Source: Herbst et al., "Ready for Rain?" (SPEC RG Cloud, 2016).
    Differs: shares instead of percent.
    """
    if not run.info.get("oracle"):
        return {}
    if len(run.info.get("oracle_times", ())) == 0:
        raise DataError(f"run.json: 'oracle' without 'oracle_times'; {AGAIN}")
    times = np.array([moment_seconds(moment) for moment in run.info["oracle_times"]])
    inside = (times > span.start - 1e-6) & (times <= span.end + 1e-6)
    ready = replicas(run.pods, "ready")
    services = [str(service) for service in ready.columns if str(service) in run.info["oracle"]]
    short = [service for service in services if len(run.info["oracle"][service]) != len(times)]
    if short:
        raise DataError(
            f"run.json: oracle of {short[0]!r} has {len(run.info['oracle'][short[0]])} values "
            f"for {len(times)} oracle_times; {AGAIN}"
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
    """Mean and p95 of the time that a decision took; empty if run.json has no `decision_seconds`."""
    taken = np.atleast_1d(np.asarray(info.get("decision_seconds", []), np.float64))
    if not len(taken):
        return {}
    return {"decision_seconds": float(taken.mean()), "decision_p95_seconds": float(np.quantile(taken, 0.95))}


def _mean(values: ArrayLike) -> float:
    array = np.asarray(values, np.float64)
    return float(array.mean()) if array.size else math.nan


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else math.nan
