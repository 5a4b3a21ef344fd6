"""Policies compared: means over seeds, paired differences, the Pareto front, rivals at equal cost.

The unit is one run (one seed). NaN means *unknown*: it is left out, and the number of units that
remain is reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deepscaler.evaluation.resampled import (
    Sample,
    cost_at_equal_violations,
    draws_of,
    front_share,
    interval_of,
    violations_at_equal_cost,
)
from deepscaler.evaluation.run_details import RunDetails
from deepscaler.runs import PolicyName
from deepscaler.settings import PlanPrices
from deepscaler.statistics import holm, nan_mean, paired, t_interval

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
    "starts_per_hour",
    "realised_cost",
)
"""Measures that are paired with the baseline by seed."""
REFERENCES = ("oracle", "foreseen", "plan_foreseen", "plan_informed")
"""Families of policies that know the future: they are shown, but are no rivals and never on the front."""
BOUND = "plan_foreseen"
"""The policy that regret is measured against: the plan that is told the future."""


def pareto_front(points: Mapping[str, Point]) -> list[str]:
    """Names that no other name dominates, cheapest first.

    One point dominates another if it is at most as large in violations and in cost, and smaller in one of
    them. A point with an unknown coordinate is never on the front. Equal points are on it together.
    """
    known = {name: point for name, point in points.items() if not any(math.isnan(value) for value in point)}
    front = [
        name for name, point in known.items() if not any(_dominates(other, point) for other in known.values())
    ]
    return sorted(front, key=lambda name: (known[name][1], known[name][0], name))


def at_equal_cost(sweep: Sequence[Point], cost: float) -> float | None:
    """Violations of a rival at `cost`, linear between its settings; None outside the costs it was run at.

    The rival is read at its best: only its non-dominated points count, and beyond the dearest of them its
    violations stay the same (it needn't spend more).
    """
    front, known = _front_points(sweep)
    if not known or not min(p[1] for p in known) <= cost <= max(p[1] for p in known):
        return None
    return float(np.interp(cost, [p[1] for p in front], [p[0] for p in front]))


def at_equal_violations(sweep: Sequence[Point], violations: float) -> float | None:
    """Cost of a rival at `violations`, linear between its settings; None outside those it was run at."""
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
class ComparedPolicy:
    """One policy in a comparison.

    Attributes:
        policy: which one.
        directory: where its runs lie, if a policy lies in several of the compared directories; else "".
    """

    policy: PolicyName
    directory: str = ""

    def __str__(self) -> str:
        return f"{self.directory}/{self.policy}" if self.directory else str(self.policy)

    def to_dict(self) -> dict[str, Any]:
        """The entries of summary.json that say who it is."""
        policy = self.policy
        return {
            "policy": policy.text,
            "family": policy.family,
            "knob": policy.knob,
            "directory": self.directory,
        }


@dataclass(frozen=True)
class Outcome:
    """One evaluated run.

    Attributes:
        entrant: whose run it is.
        unit: what pairs it with another policy's run: the seed, with its subdirectory where seeds repeat.
        measures: what `evaluate_run` and `realised_cost` returned.
        place: the run directory; None for a run that isn't on disk.
        warmup: seconds at the start of the run that the measures leave out.
        prices: those of the realised cost among the measures, whatever the run's own were.
        details: what a report tells of the run besides; None for a run that isn't on disk.
    """

    entrant: ComparedPolicy
    unit: str
    measures: Mapping[str, Any]
    place: Path | None = None
    warmup: float = 0.0
    prices: PlanPrices = field(default_factory=PlanPrices)
    details: RunDetails | None = None


def compare_policies(outcomes: Sequence[Outcome], baseline: str) -> dict[str, Any]:
    """Compare policies over seeds, and each with the baseline on the same seeds.

    Returns:
        `policies`: name -> who it is (`policy`, `family`, `knob`, `directory`), `seeds`, `endpoints` and, for
            each measure, the mean over the seeds that know it and `<name>_ci` ([low, high], Student's 95 %;
            None with fewer than two).
        `paired`: name -> `baseline` and, for each of `PAIRED`, what `statistics.paired` gives and `p_holm`,
            Holm's correction over the policies paired with that baseline.
        `pareto`: names on the front of (violation_rate, core_hours), for each directory if there are several;
            without `REFERENCES`. It is judged on the seeds that all of a directory ran on.
        `pareto_points`: name -> (violation_rate, core_hours) on these seeds.
        `pareto_share`: name -> share of the draws of these seeds in which it is on the front.
        `equal`: name -> rival family -> `members` and, over the `seeds` that all of them ran on, `points`
            (name -> (violation_rate, core_hours)), `violation_rate_at_equal_cost` and
            `core_hours_at_equal_violations`, None outside the family's range,
            `violation_rate_difference_ci` (own - rival, at equal cost) and
            `core_hours_ratio_ci` (own / rival, at equal violations). An end that isn't finite is open.
        `regret`: name -> what `statistics.paired` gives of the realised cost and that of `BOUND`, and
            `share`, the mean difference over the mean of `BOUND` on the same seeds.
    """
    entrants = sorted({outcome.entrant for outcome in outcomes}, key=str)
    runs = {one: [outcome for outcome in outcomes if outcome.entrant == one] for one in entrants}
    policies = {str(one): {**one.to_dict(), **_policy_means(runs[one])} for one in entrants}
    return {
        "policies": policies,
        "paired": _paired_with_baseline(runs, baseline),
        **_fronts(runs),
        "equal": _at_equal(runs),
        "regret": _regret(runs),
    }


def _paired_with_baseline(runs: Mapping[ComparedPolicy, Sequence[Outcome]], baseline: str) -> dict[str, Any]:
    rivals = {one: baseline_of(one, baseline, list(runs)) for one in runs}
    pairs = {one: rival for one, rival in rivals.items() if rival is not None and rival != one}
    found: dict[str, dict[str, Any]] = {
        str(one): {
            "baseline": str(rival),
            **{
                metric: paired(_by_unit(runs[one], metric), _by_unit(runs[rival], metric))
                for metric in PAIRED
            },
        }
        for one, rival in pairs.items()
    }
    for rival in {entry["baseline"] for entry in found.values()}:
        family = [entry for entry in found.values() if entry["baseline"] == rival]
        for metric in PAIRED:
            for entry, p in zip(family, holm([entry[metric]["p"] for entry in family]), strict=True):
                entry[metric]["p_holm"] = p
    return found


def _fronts(runs: Mapping[ComparedPolicy, Sequence[Outcome]]) -> dict[str, Any]:
    """`pareto`, `pareto_points` and `pareto_share`: the front of each directory, one after the other."""
    groups: dict[str, list[ComparedPolicy]] = {}
    for one in runs:
        if one.policy.family not in REFERENCES:
            groups.setdefault(one.directory, []).append(one)
    front, points, shares = list[str](), dict[str, Point](), dict[str, float]()
    for group in groups.values():
        sample = _sample(group, runs)
        here = dict(zip(map(str, group), sample.points, strict=True))
        front += pareto_front(here)
        points |= here
        if sample.seeds:
            shares |= zip(here, map(float, front_share(sample, draws_of(sample.seeds))), strict=True)
    return {"pareto": front, "pareto_points": points, "pareto_share": shares}


def _sample(entrants: Sequence[ComparedPolicy], runs: Mapping[ComparedPolicy, Sequence[Outcome]]) -> Sample:
    """Violations and costs `[P, S]` of these policies on the seeds that all of them ran on."""
    tables = [
        {metric: _by_unit(runs[one], metric) for metric in ("violation_rate", "core_hours")}
        for one in entrants
    ]
    units = [unit for unit in tables[0]["core_hours"] if all(unit in table["core_hours"] for table in tables)]
    violations, costs = (
        np.array([[table[metric][unit] for unit in units] for table in tables], np.float64)
        for metric in ("violation_rate", "core_hours")
    )
    return Sample(violations, costs)


def _at_equal(runs: Mapping[ComparedPolicy, Sequence[Outcome]]) -> dict[str, Any]:
    """For each policy: what each rival family reaches at its cost, and what it costs at its violations."""
    equal: dict[str, Any] = {str(one): {} for one in runs}
    for one in runs:
        for family, members in sweeps(one, list(runs)).items():
            sample = _sample([one, *members], runs)
            (violations, cost), *sweep = sample.points
            names = [str(member) for member in members]
            equal[str(one)][family] = {
                "members": names,
                "points": dict(zip([str(one), *names], sample.points, strict=True)),
                "violation_rate_at_equal_cost": at_equal_cost(sweep, cost),
                "core_hours_at_equal_violations": at_equal_violations(sweep, violations),
                **_equal_intervals(sample),
            }
    return equal


def _equal_intervals(sample: Sample) -> dict[str, Any]:
    """The intervals of the first policy of the sample against the others, which are one sweep."""
    draws = draws_of(max(sample.seeds, 1))
    own = Sample(sample.violations[0], sample.costs[0])
    sweep = Sample(sample.violations[1:], sample.costs[1:])
    return {
        "seeds": sample.seeds,
        "violation_rate_difference_ci": sample.seeds
        and interval_of(violations_at_equal_cost(own, sweep, draws), sample.seeds),
        "core_hours_ratio_ci": sample.seeds
        and interval_of(cost_at_equal_violations(own, sweep, draws), sample.seeds),
    }


def _regret(runs: Mapping[ComparedPolicy, Sequence[Outcome]]) -> dict[str, Any]:
    """For each policy that shares a directory with `BOUND`: its realised cost beyond that of `BOUND`."""
    found: dict[str, Any] = {}
    bounds = {one: baseline_of(one, BOUND, list(runs)) for one in runs}
    for one, bound in bounds.items():
        if bound is None or bound == one:
            continue
        entry = paired(*(_by_unit(runs[each], "realised_cost") for each in (one, bound)))
        share = entry["mean_difference"] / entry["baseline_mean"]
        found[str(one)] = {"bound": str(bound), **entry, "share": share}
    return found


def baseline_of(
    one: ComparedPolicy, baseline: str, entrants: Sequence[ComparedPolicy]
) -> ComparedPolicy | None:
    """The baseline to pair `one` with: that of its own directory, else the only one there is, else None."""
    candidates = [other for other in entrants if other.policy.text == baseline]
    own = [other for other in candidates if other.directory == one.directory]
    return next(iter(own or (candidates if len(candidates) == 1 else [])), None)


def sweeps(one: ComparedPolicy, entrants: Sequence[ComparedPolicy]) -> dict[str, list[ComparedPolicy]]:
    """Families that ran at two or more knobs (`hpa` with 50 and 70), without the family of `one` itself.

    Members are in the order of their knobs. Of several directories the policy's own counts, else the only
    other one that has the family.
    """
    families: dict[str, dict[str, list[ComparedPolicy]]] = {}
    for other in entrants:
        if other.policy.knob is not None:
            families.setdefault(other.policy.family, {}).setdefault(other.directory, []).append(other)
    found: dict[str, list[ComparedPolicy]] = {}
    for family, directories in families.items():
        rivals = {
            name: members for name, members in directories.items() if len(members) > 1 and one not in members
        }
        near = rivals.get(one.directory) or (next(iter(rivals.values())) if len(rivals) == 1 else None)
        if near:
            found[family] = sorted(near, key=lambda member: member.policy.knob or 0.0)
    return found


def _policy_means(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Number of seeds, and of each measure the mean over the seeds that know it, with its interval."""
    means: dict[str, Any] = {"seeds": len(outcomes)}
    names = dict.fromkeys(key for outcome in outcomes for key in outcome.measures if key != "endpoints")
    for metric in names:
        values = [outcome.measures.get(metric, math.nan) for outcome in outcomes]
        means[metric] = nan_mean(values)
        means[f"{metric}_ci"] = mean_interval(metric, values)
    tables = [outcome.measures["endpoints"] for outcome in outcomes if "endpoints" in outcome.measures]
    means["endpoints"] = {
        endpoint: {
            metric: nan_mean([table[endpoint][metric] for table in tables if endpoint in table])
            for metric in measures
        }
        for endpoint, measures in {name: row for table in tables for name, row in table.items()}.items()
    }
    return means


def mean_interval(metric: str, values: Sequence[float]) -> tuple[float, float] | None:
    """Student's interval of the mean of a measure: none is below 0, and a share (`*_rate`) isn't above 1."""
    return t_interval(values, least=0.0, most=1.0 if metric.endswith("_rate") else math.inf)


def _by_unit(outcomes: Sequence[Outcome], metric: str) -> dict[str, float]:
    return {outcome.unit: float(outcome.measures.get(metric, math.nan)) for outcome in outcomes}
