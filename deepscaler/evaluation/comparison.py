"""Policies compared over seeds: means, paired differences, the Pareto front, and rival sweeps at equal cost or violations.

The unit is one run (one seed). NaN means *unknown*: it is left out, and the number of units that remain is reported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepscaler.statistics import bootstrap_interval, holm, nan_mean, paired

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
