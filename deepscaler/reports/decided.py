"""What the decisions of a policy in the shadow would have made, by the record and the fitted response."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.errors import DataError
from deepscaler.evaluation.span import Span, entry_sla, limits, minute_sums, replicas
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.history import offered_history
from deepscaler.labels.record import BORROWED
from deepscaler.runs import Run
from deepscaler.statistics import nan_mean

Array = NDArray[np.float64]
OWN_REASONS = ("unchanged", "plan", "forecast", "floor", "hpa", "rule", "static", "oracle", "explore")
"""Reasons of the policy itself; all others held or changed what it wanted."""
DRAWS = 400
"""Draws of the response's error."""
MOMENT_SECONDS = 300.0
VIOLATION_WEIGHT = 5.0
"""A violating minute weighs as much as so many core-minutes, where moments are ranked."""
MOST_MOMENTS = 10


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Course:
    """What was and what would have been, at each sample of pods.csv in the judged part.

    Attributes:
        services: N names.
        times: `[L]` seconds since the epoch.
        spans: `[L]` seconds that each sample stands for.
        limit: `[N]` cores of a replica.
        paid: `[L, N]` replicas ready or starting.
        ready: `[L, N]` replicas ready.
        target: `[L, N]` replicas that the shadow wanted.
    """

    services: tuple[str, ...]
    times: Array
    spans: Array
    limit: Array
    paid: Array
    ready: Array
    target: Array

    @property
    def difference(self) -> Array:
        """`[L, N]` core-hours that the shadow would have held more, sample by sample."""
        return (self.target - self.paid) * self.limit * self.spans[:, None] / 3600


def course(run: Run, span: Span) -> Course:
    """Align the decisions of the shadow with the replicas that there were.

    Raises:
        DataError: there are no decisions before the end of the judged part.
    """
    known = run.decisions[run.decisions["target"].notna()]
    if known.empty:
        raise DataError("decisions.csv: no decisions, so nothing can be said of what would have been")
    targets = replicas(known, "target")
    pods = span.cut(run.pods)
    ready = replicas(pods, "ready")
    names = [str(name) for name in ready.columns if name in targets.columns]
    times = ready.index.to_numpy(np.float64)
    rows = np.clip(np.searchsorted(targets.index.to_numpy(), times - 1e-6, side="left") - 1, 0, None)
    cores = limits(run)
    return Course(
        services=tuple(names),
        times=times,
        spans=np.diff(times, prepend=span.start),
        limit=np.array([cores[name] for name in names]),
        paid=(ready + replicas(pods, "starting"))[names].to_numpy(np.float64),
        ready=ready[names].to_numpy(np.float64),
        target=targets[names].to_numpy(np.float64)[rows],
    )


def ready_after(target: Array, times: Array, boot_seconds: Array) -> Array:
    """Replicas `[L, N]` that would have been ready: a rise counts after the start-up, a fall at once."""
    found = target.copy()
    for column, boot in enumerate(np.nan_to_num(boot_seconds, nan=0.0)):
        first = np.searchsorted(times, times - boot)
        found[:, column] = [target[low : row + 1, column].min() for row, low in enumerate(first)]
    return found


@dataclass(frozen=True, eq=False)
class ByResponse:
    """Violating minutes by the fitted response.

    Attributes:
        minutes: `[K]` time of each whole minute.
        measured: `[K]` mean response in seconds; NaN without requests.
        was: violating minutes that the fit sees in what was.
        would: those that it sees in what would have been.
        expected: `[K]` predicted response in what would have been, in seconds.
    """

    minutes: Array
    measured: Array
    was: Estimate
    would: Estimate
    expected: Array


def by_response(run: Run, span: Span, there: Course, model: DemandModel) -> ByResponse:
    """Violating minutes that were and would have been, by the fitted response and the offered load.

    The fit's error is drawn from the minutes in which the fit sees no overload: measured over predicted.

    Raises:
        DataError: the record has no metrics, or the fit no response of its own: that of another fit misjudges
            up to 85 % of the minutes.
    """
    if run.panel is None or model.response is None or model.quality.get(BORROWED):
        raise DataError("metrics.csv: too little load to fit the response, or no metrics were recorded")
    rates = offered_history(model, run.panel)
    if rates is None:
        raise DataError("metrics.csv: no request rates of the entries")
    rows = np.clip(np.searchsorted(run.panel.times, there.times - 1e-6), 0, len(rates) - 1)
    order = [there.services.index(name) for name in model.services]
    boot = ready_after(there.target[:, order], there.times, model.boot_seconds)
    sums = minute_sums(span.cut(run.endpoints), span, 60.0)
    done = sums["done"].to_numpy(np.float64)
    lasted = sums["duration_seconds"].to_numpy(np.float64)
    measured: Array = np.where(done > 0, lasted / np.maximum(done, 1), np.nan)
    index = span.index(there.times, 60.0)
    load = _by_minute(rates[rows], index, len(measured))
    was, would = (
        model.response_at(load, np.maximum(_by_minute(pods, index, len(measured)), 1.0))
        for pods in (there.ready[:, order], boot)
    )
    sla = entry_sla(run)
    calm = np.isfinite(measured) & np.isfinite(was) & (was < sla)
    ratios = measured[calm] / was[calm] if calm.any() else np.ones(1)
    known = np.isfinite(measured)
    begins: Array = span.start + 60.0 * np.arange(1.0, len(measured) + 1)
    return ByResponse(
        begins, measured, _violating(was[known], ratios, sla), _violating(would[known], ratios, sla), would
    )


def _by_minute(values: Array, index: NDArray[np.int64], count: int) -> Array:
    """Means of the rows of each minute, `[K, N]`: a pod that lacks for a moment isn't an overload."""
    return np.asarray(pd.DataFrame(values).groupby(index).mean().reindex(range(count)), np.float64)


def _violating(predicted: Array, ratios: Array, sla: float) -> Estimate:
    """Minutes above the SLA, with an error drawn for each minute."""
    rng = np.random.default_rng(0)
    drawn = rng.choice(ratios, (DRAWS, len(predicted)))
    counts = (predicted * drawn > sla).sum(axis=1).astype(np.float64)
    low, high = np.quantile(counts, [0.025, 0.975])
    return Estimate(nan_mean(counts), float(low), float(high))


# ---------------------------------------------------------------------------------------------- disagreements
def by_hour(there: Course, span: Span) -> pd.DataFrame:
    """Core-hours that the shadow would have held more, services x hours of the judged part."""
    hours = np.floor((there.times - span.start - 1e-6) / 3600).astype(int)
    return pd.DataFrame(there.difference, columns=list(there.services)).groupby(hours).sum().T


def moments(run: Run, span: Span, there: Course) -> list[dict[str, Any]]:
    """The moments that matter most, in the order of time: those of the largest differences and of violations.

    Returns:
        `time`, `violating` minutes that were, mean `response` in seconds, cores that there were (`was`) and
        would have been (`would`), and `changes`: `service: replicas -> wanted (reason)`, the largest first.
    """
    sums = minute_sums(span.cut(run.endpoints), span, 60.0)
    done = sums["done"].to_numpy(np.float64)
    mean = np.where(done > 0, sums["duration_seconds"].to_numpy() / np.maximum(done, 1), np.nan)
    windows = span.index(there.times, MOMENT_SECONDS)
    found: list[dict[str, Any]] = []
    for window in np.unique(windows):
        rows = windows == window
        minutes = mean[int(window * MOMENT_SECONDS // 60) : int((window + 1) * MOMENT_SECONDS // 60)]
        violating = int((minutes > entry_sla(run)).sum())
        gap = np.abs(there.difference[rows]).sum() * 60
        found.append(
            {
                "weight": float(gap + VIOLATION_WEIGHT * violating),
                "time": float(there.times[rows][0] - there.spans[rows][0]),
                "violating": violating,
                "response": nan_mean(minutes) if len(minutes) else math.nan,
                "was": float((there.paid[rows] @ there.limit).mean()),
                "would": float((there.target[rows] @ there.limit).mean()),
                "changes": _changes(run, there, rows),
            }
        )
    chosen = sorted(found, key=lambda one: -one["weight"])[:MOST_MOMENTS]
    return sorted(chosen, key=lambda one: float(one["time"]))


def _changes(run: Run, there: Course, rows: NDArray[np.bool_]) -> list[str]:
    """The three services that differ most in cores, with the reason that the shadow gave most often."""
    gap = (there.difference[rows]).sum(axis=0)
    begin, end = there.times[rows][0] - there.spans[rows][0], there.times[rows][-1]
    told = run.decisions[(run.decisions["time"] >= begin - 1e-6) & (run.decisions["time"] < end)]
    texts = []
    for column in np.argsort(-np.abs(gap))[:3]:
        if abs(gap[column]) > 1e-9:
            name = there.services[column]
            was, would = (values[rows, column].mean() for values in (there.paid, there.target))
            reasons = told.loc[told["service"] == name, "reason"]
            spoken = reasons[reasons != "unchanged"]
            why = f" ({(spoken if len(spoken) else reasons).mode().iloc[0]})" if len(reasons) else ""
            texts.append(f"{name}: {was:.1f} -> {would:.1f}{why}")
    return texts


def held(run: Run, span: Span) -> list[tuple[str, str, int]]:
    """Service, reason and number of decisions that something else than the policy determined; most first."""
    decided = span.cut(run.decisions)
    other = decided[~decided["reason"].isin(OWN_REASONS)]
    counted = other.groupby(["service", "reason"]).size().sort_values(ascending=False)
    names = counted.index.to_frame(index=False).astype(str)
    return list(zip(names["service"], names["reason"], counted.astype(int).tolist(), strict=True))
