"""Paired statistics over seeds, the Pareto front, and a rival's sweep read at equal cost or equal violations.

The run (seed) is the unit. NaN is *unknown*: it is left out, and the number of units that remain is reported.

scipy is imported by the functions that need it: it takes a second and 60 MB, which the controller does without.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 9999
Point = tuple[float, float]
"""(violations, cost): less of either is better."""
PAIRED = (
    "violation_rate",
    "slow_rate",
    "window_violation_rate",
    "mean_seconds",
    "p95_seconds",
    "core_hours",
    "mean_replicas",
    "changes_per_hour",
)
"""Metrics that are paired with the baseline by seed."""
REFERENCES = re.compile(r"(.*/)?(oracle|foreseen(_\d+)?)$")
"""Policies that know the future: shown, but no rivals, so they are never on the front."""


def bootstrap_interval(values: ArrayLike, level: float = 0.95, seed: int = 0) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean; None with fewer than two known values. The same `seed` gives the same."""
    from scipy import stats

    known = _known(values)
    if len(known) < 2:
        return None
    if np.ptp(known) == 0:
        return float(known[0]), float(known[0])
    rng = np.random.default_rng(seed)
    result = stats.bootstrap(
        (known,), np.mean, confidence_level=level, n_resamples=RESAMPLES, method="percentile", rng=rng
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def t_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of the mean, for a handful of values (where a bootstrap is too narrow); None with fewer than two."""
    from scipy import stats

    known = _known(values)
    if len(known) < 2:
        return None
    half = float(stats.t.ppf(0.5 + level / 2, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))
    return float(known.mean()) - half, float(known.mean()) + half


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float:
    """Spearman's, ties by their mean rank; 0 where either is constant."""
    from scipy import stats

    a, b = stats.rankdata(one), stats.rankdata(other)
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(a, b)[0, 1])


def wilcoxon_p(differences: ArrayLike) -> float:
    """Two-sided p of the signed-rank test; zeros are dropped, and when all are zero p = 1. NaN without any pair."""
    from scipy import stats

    known = _known(differences)
    if not len(known):
        return math.nan
    moved = known[known != 0]
    return float(stats.wilcoxon(moved).pvalue) if len(moved) else 1.0


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation in [-1, 1]: (W+ − W−) / (W+ + W−) over the non-zero differences, else 0.

    Source: Kerby 2014, "The simple difference formula". NaN without any pair.
    """
    from scipy import stats

    known = _known(differences)
    if not len(known):
        return math.nan
    moved = known[known != 0]
    if not len(moved):
        return 0.0
    ranks = stats.rankdata(np.abs(moved))
    return float((ranks[moved > 0].sum() - ranks[moved < 0].sum()) / ranks.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given; NaN stays NaN and doesn't count in the family."""
    adjusted = [math.nan] * len(p_values)
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[index] = highest
    return adjusted


def paired(values: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, Any]:
    """How `values` differ from `baseline`, unit by unit (value − baseline; below 0 is less).

    Returns:
        `pairs` (units known on both sides), `mean_difference`, `mean_difference_ci` (95 %, bootstrap), `p` (Wilcoxon),
        `effect` (rank biserial).
    """
    units = [unit for unit in values if unit in baseline]
    differences = _known([values[unit] - baseline[unit] for unit in units])
    return {
        "pairs": len(differences),
        "mean_difference": float(differences.mean()) if len(differences) else math.nan,
        "mean_difference_ci": bootstrap_interval(differences),
        "p": wilcoxon_p(differences),
        "effect": rank_biserial(differences),
    }


def pareto_front(points: Mapping[str, Point]) -> list[str]:
    """Names that no other dominates (at most as many violations *and* at most the cost, one of them less), cheapest first.

    A point with an unknown coordinate is never on the front. Equal points are on it together.
    """
    known = {name: point for name, point in points.items() if not any(math.isnan(value) for value in point)}
    front = [
        name for name, point in known.items() if not any(_dominates(other, point) for other in known.values())
    ]
    return sorted(front, key=lambda name: (known[name][1], known[name][0], name))


def at_equal_cost(sweep: Sequence[Point], cost: float) -> float | None:
    """Violations the rival reaches at `cost`, linearly along its sweep; None outside the range of costs it was run at.

    The rival is read at its best: only its non-dominated points count, and beyond the dearest of them its violations
    stay what they were (it needn't spend more).
    """
    front, known = _front_points(sweep)
    if not known or not min(p[1] for p in known) <= cost <= max(p[1] for p in known):
        return None
    return float(np.interp(cost, [p[1] for p in front], [p[0] for p in front]))


def at_equal_violations(sweep: Sequence[Point], violations: float) -> float | None:
    """The rival's cost at `violations`, linearly along its sweep; None outside the range of violations it was run at."""
    front, known = _front_points(sweep)
    if not known or not min(p[0] for p in known) <= violations <= max(p[0] for p in known):
        return None
    rising = front[::-1]
    return float(np.interp(violations, [p[0] for p in rising], [p[1] for p in rising]))


def _front_points(sweep: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    """The front, cheapest first (costs rise, violations fall, both strictly), and all known points."""
    known = [point for point in sweep if not any(math.isnan(value) for value in point)]
    front = {point for point in known if not any(_dominates(other, point) for other in known)}
    return sorted(front, key=lambda point: point[1]), known


def _dominates(one: Point, other: Point) -> bool:
    return one[0] <= other[0] and one[1] <= other[1] and one != other


@overload
def nan_mean(values: ArrayLike) -> float: ...


@overload
def nan_mean(values: ArrayLike, axis: int) -> NDArray[np.float64]: ...


def nan_mean(values: ArrayLike, axis: int | None = None) -> float | NDArray[np.float64]:
    """Mean of the known values: of all of them, or along `axis`; NaN where none is known.

    Unlike `numpy.nanmean` it doesn't warn when nothing is known. Infinity counts as unknown. Sums are made in float64.
    """
    if axis is None:
        known = _known(values)
        return float(known.mean()) if len(known) else math.nan
    array = np.asarray(values)
    present = np.isfinite(array)
    count = present.sum(axis=axis)
    total = np.where(present, array, 0.0).sum(axis=axis, dtype=np.float64)
    means: NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means


def _known(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    return array[np.isfinite(array)]


@dataclass(frozen=True)
class Outcome:
    """One evaluated run.

    Attributes:
        policy: as reported; with several directories `<directory>/<policy>` where names collide.
        unit: what pairs it with another policy's run: the seed (and its subdirectory, where seeds repeat).
        measures: of `evaluate_run`.
    """

    policy: str
    unit: str
    measures: Mapping[str, Any]


def compare(outcomes: Sequence[Outcome], baseline: str) -> dict[str, Any]:
    """Policies over seeds, and paired with the baseline by seed.

    Returns:
        `policies`: name -> `seeds` and, for each measure, the mean over the seeds that know it and `<name>_ci`
        ([low, high], bootstrap 95 %; None with fewer than two), and `endpoints`.
        `paired`: name -> `baseline` and, for each of `PAIRED`, what `paired` gives and `p_holm`, Holm's
        correction over the policies paired with that baseline.
        `pareto`: names on the front of (violation_rate, core_hours), of each directory where there are several;
        without `REFERENCES`.
        `equal`: name -> rival family -> `members`, `violation_rate_at_equal_cost`, `core_hours_at_equal_violations`;
        None outside the family's range.
    """
    names = sorted({outcome.policy for outcome in outcomes})
    runs = {name: [outcome for outcome in outcomes if outcome.policy == name] for name in names}
    policies = {name: _policy_means(runs[name]) for name in names}
    rivals = {name: baseline_of(name, baseline, names) for name in names}
    pairs: dict[str, Any] = {
        name: {"baseline": rival} for name, rival in rivals.items() if rival and rival != name
    }
    for name, entry in pairs.items():
        for metric in PAIRED:
            entry[metric] = paired(_by_unit(runs[name], metric), _by_unit(runs[entry["baseline"]], metric))
    for rival in {entry["baseline"] for entry in pairs.values()}:
        family = [name for name, entry in pairs.items() if entry["baseline"] == rival]
        for metric in PAIRED:
            for name, p in zip(family, holm([pairs[name][metric]["p"] for name in family]), strict=True):
                pairs[name][metric]["p_holm"] = p
    return {"policies": policies, "paired": pairs, **_trade_offs(policies)}


def _trade_offs(policies: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    points = {
        name: (float(row["violation_rate"]), float(row["core_hours"])) for name, row in policies.items()
    }
    groups: dict[str, dict[str, Point]] = {}
    for name, point in points.items():
        group, _, short = name.rpartition("/")
        if not REFERENCES.match(short):
            groups.setdefault(group, {})[name] = point
    front = [pareto_front(group) for group in groups.values()]
    equal: dict[str, Any] = {name: {} for name in points}
    for name, (violations, cost) in points.items():
        for family, members in sweeps(name, list(points)).items():
            sweep = [points[member] for member in members]
            equal[name][family] = {
                "members": members,
                "violation_rate_at_equal_cost": at_equal_cost(sweep, cost),
                "core_hours_at_equal_violations": at_equal_violations(sweep, violations),
            }
    return {"pareto": [name for names in front for name in names], "equal": equal}


def baseline_of(policy: str, baseline: str, names: Sequence[str]) -> str | None:
    """The baseline's name for this policy: the one of its own directory, else the only one there is; None without."""
    return next(iter(_nearest(policy, [name for name in names if name.rpartition("/")[2] == baseline])), None)


def sweeps(policy: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Rival families with at least two settings (`hpa_50`, `hpa_70` -> `hpa`) that `policy` is no member of.

    With several directories those of the policy's own count, else those of the only other directory that has any.
    """
    families: dict[str, list[str]] = {}
    for name in names:
        family, _, knob = name.rpartition("_")
        if family and knob.replace(".", "", 1).isdigit():
            families.setdefault(family, []).append(name)
    rivals = [family for family, members in families.items() if len(members) > 1 and policy not in members]
    plain = dict.fromkeys(family.rpartition("/")[2] for family in rivals)
    near = {
        short: _nearest(policy, [family for family in rivals if family.rpartition("/")[2] == short])
        for short in plain
    }
    return {short: sorted(families[found[0]], key=_knob) for short, found in near.items() if found}


def _nearest(policy: str, candidates: Sequence[str]) -> list[str]:
    """The candidates of the policy's own directory, else the only one; none where it would be ambiguous."""
    own = [name for name in candidates if name.rpartition("/")[0] == policy.rpartition("/")[0]]
    return own or (list(candidates) if len(candidates) == 1 else [])


def _knob(name: str) -> float:
    return float(name.rpartition("_")[2])


def _policy_means(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    means: dict[str, Any] = {"seeds": len(outcomes)}
    for metric in dict.fromkeys(
        key for outcome in outcomes for key in outcome.measures if key != "endpoints"
    ):
        values = [outcome.measures.get(metric, math.nan) for outcome in outcomes]
        means[metric] = nan_mean(values)
        means[f"{metric}_ci"] = bootstrap_interval(values)
    tables = [outcome.measures["endpoints"] for outcome in outcomes if "endpoints" in outcome.measures]
    means["endpoints"] = {
        endpoint: {
            metric: nan_mean([table[endpoint][metric] for table in tables if endpoint in table])
            for metric in measures
        }
        for endpoint, measures in {name: row for table in tables for name, row in table.items()}.items()
    }
    return means


def _by_unit(outcomes: Sequence[Outcome], metric: str) -> dict[str, float]:
    return {outcome.unit: float(outcome.measures.get(metric, math.nan)) for outcome in outcomes}
