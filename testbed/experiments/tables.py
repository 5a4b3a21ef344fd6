"""The tables of an experiment as text, with the intervals of what they state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deepscaler.errors import SettingsError
from deepscaler.evaluation.text import UNKNOWN, interval, number
from deepscaler.settings import Holds
from deepscaler.text import aligned

REFERENCE = "oracle"
"""Costs are given as ratios of this policy's, too."""
COLUMNS = {
    "min>SLA %": ("violation_rate", 100, 2),
    "slow %": ("slow_rate", 100, 2),
    "p95>SLO %": ("window_violation_rate", 100, 2),
    "worst p95 ms": ("worst_p95_seconds", 1000, 0),
    "core-h": ("core_hours", 1, 2),
    "x oracle": ("times_oracle", 1, 3),
    "realised": ("realised_cost", 1, 2),
    "changes/h": ("changes_per_hour", 1, 1),
    "starts/h": ("starts_per_hour", 1, 1),
}
"""Heading -> measure, factor and digits."""
MEASURES = (
    *("hours", "minutes", "violation_minutes", "violation_rate", "below_half_rate", "unknown_rate"),
    *("response_mae", "slow_rate", "failed_rate", "unfinished_rate", "mean_seconds", "p50_seconds"),
    *("p95_seconds", "p99_seconds", "window_violation_rate", "unknown_window_rate", "episodes"),
    *("recovery_seconds", "core_hours", "mean_cores", "published_cost", "mean_replicas"),
    *("changes_per_hour", "starts_per_hour", "theta_under", "theta_over", "tau_under", "tau_over"),
    *("instability", "replica_mae", "planned_core_hours", "decision_seconds", "decision_p95_seconds"),
    *("held_core_hours", "short_core_hours", "excess_core_hours", "realised_cost"),
)
"""The numbers that are known of each run on the testbed; a promise is about one of them."""
WITH_INTERVAL = ("violation_rate", "core_hours", "realised_cost")
TERMS = """\
min>SLA: minutes whose mean response exceeds the SLA. p95>SLO: windows of 15 s in which the p95 of an endpoint
exceeds its SLO; worst p95: that of the slowest endpoint. realised: core-hours held, and shortages and starts
at their prices. regret: realised cost beyond that of plan_foreseen. [low, high]: 95 % over seeds; inf: open.
*: on the front of violations and core-hours in at least half of the draws of seeds."""
NONE_AS_CHEAP = "none as cheap"
NONE_AS_FEW = "none has as few"


def case_table(name: str, summary: Mapping[str, Any]) -> str:
    """One line per policy, the lowest realised cost first, then each at equal cost and equal violations."""
    rows = summary["policies"]
    oracle = rows.get(REFERENCE, {}).get("core_hours", math.nan)
    regret = summary["regret"]
    lines = [[name, "seeds", *COLUMNS, *(("regret %",) if regret else ())]]
    for policy in sorted(rows, key=lambda one: _key(rows[one])):
        row = {
            **rows[policy],
            "times_oracle": rows[policy]["core_hours"] / oracle,
            "worst_p95_seconds": max(one["p95_seconds"] for one in rows[policy]["endpoints"].values()),
        }
        cells = [_cell(row, *column) for column in COLUMNS.values()]
        if regret:
            cells.append(_regret(regret.get(policy)))
        lines.append([_marked(policy, summary), str(row["seeds"]), *cells])
    return "\n\n".join(
        part for part in ("\n".join(aligned(lines, numbers=True)), equal_table(summary)) if part
    )


def equal_table(summary: Mapping[str, Any]) -> str:
    """Each policy against each rival's settings: violations at equal cost, cost at equal violations."""
    rows = summary["policies"]
    lines = [["against", "settings", "points of min>SLA at equal cost", "core-h at equal violations, %"]]
    for policy in sorted(summary["equal"], key=lambda one: _key(rows[one])):
        for family, found in summary["equal"][policy].items():
            if rows[policy]["knob"] is None:
                cells = _equal(policy, found)
                lines.append([f"{policy} - {family}", str(len(found["members"])), *cells])
    return "\n".join(aligned(lines, numbers=True)) if len(lines) > 1 else ""


def check_promise(holds: Holds) -> None:
    """Say before the first run that a promise is about nothing that a run tells.

    Raises:
        SettingsError: names the measures that there are.
    """
    _check_measure(holds, MEASURES)


def _check_measure(holds: Holds, known: Iterable[str]) -> None:
    names = sorted(known)
    if holds.measure not in names:
        raise SettingsError(f"holds.measure: no measure {holds.measure!r}; there are: {', '.join(names)}")


def holds_table(cases: Mapping[str, Mapping[str, Any]], holds: Holds) -> str:
    """Case x family: mean cores of the cheapest setting that keeps the promise in all runs, else N/A."""
    families = list(
        dict.fromkeys(row["family"] for case in cases.values() for row in case["policies"].values())
    )
    lines = [[f"{holds.measure} <= {holds.at_most:g} in every run: mean cores", *families]]
    lines += [
        [name, *(_cheapest(case, family, holds) for family in families)] for name, case in cases.items()
    ]
    return "\n".join(aligned(lines, numbers=True))


def cheapest(case: Mapping[str, Any], family: str, holds: Holds) -> tuple[str, float] | None:
    """The setting of a family that keeps the promise in all runs with the fewest mean cores, and these.

    Raises:
        SettingsError: the runs have no such measure.
    """
    return next(iter(keeping(case, family, holds)), None)


def keeping(case: Mapping[str, Any], family: str, holds: Holds) -> list[tuple[str, float]]:
    """The settings of a family that keep the promise in all runs, and their mean cores, cheapest first.

    Raises:
        SettingsError: the runs have no such measure.
    """
    _check_measure(holds, set.intersection(*(_numbers(run) for run in case["runs"])))
    kept = {
        name: all(_keeps(run, holds) for run in case["runs"] if run["policy"] == name)
        for name, row in case["policies"].items()
        if row["family"] == family
    }
    costs = {name: case["policies"][name]["mean_cores"] for name, keeps in kept.items() if keeps}
    return sorted(costs.items(), key=lambda one: one[1])


def _numbers(run: Mapping[str, Any]) -> set[str]:
    """Measures of a run; those that aren't known count, too."""
    return {name for name, value in run.items() if not isinstance(value, str | Mapping)}


def _keeps(run: Mapping[str, Any], holds: Holds) -> bool:
    value = run[holds.measure]  # null in a file, NaN here where it isn't known
    return value is not None and bool(value <= holds.at_most)


def _cheapest(case: Mapping[str, Any], family: str, holds: Holds) -> str:
    best = cheapest(case, family, holds)
    if best is None:
        return "N/A"
    several = sum(row["family"] == family for row in case["policies"].values()) > 1
    return f"{best[1]:.2f} ({best[0]})" if several else f"{best[1]:.2f}"


def _equal(policy: str, found: Mapping[str, Any]) -> tuple[str, str]:
    """Both cells; words where no setting of the rival can be had at that cost, or at those violations."""
    violations, cost = found["points"][policy]
    fewest, cheapest = (min(found["points"][name][axis] for name in found["members"]) for axis in (0, 1))
    at_cost, at_violations = found["violation_rate_at_equal_cost"], found["core_hours_at_equal_violations"]
    points = None if at_cost is None else violations - at_cost
    ratio = None if at_violations is None else cost / at_violations - 1
    ratios = found["core_hours_ratio_ci"]
    return (
        NONE_AS_CHEAP
        if cost < cheapest
        else _with(number(points, 2, 100), found["violation_rate_difference_ci"], 2),
        NONE_AS_FEW
        if violations < fewest
        else _with(number(ratio, 1, 100), None if ratios is None else [bound - 1 for bound in ratios], 1),
    )


def _with(value: str, bounds: Sequence[float] | None, digits: int, factor: float = 100) -> str:
    return f"{value} {interval(bounds, digits, factor)}" if bounds is not None else value


def _cell(row: Mapping[str, Any], measure: str, factor: float, digits: int) -> str:
    value = number(row.get(measure), digits, factor)
    return _with(value, row.get(f"{measure}_ci"), digits, factor) if measure in WITH_INTERVAL else value


def _regret(entry: Mapping[str, Any] | None) -> str:
    if entry is None or not entry["pairs"]:
        return UNKNOWN
    scale = entry["share"] / entry["mean_difference"] if entry["mean_difference"] else 0.0
    return _with(number(entry["share"], 1, 100), entry["mean_difference_ci"], 1, 100 * scale)


def _marked(policy: str, summary: Mapping[str, Any]) -> str:
    return f"{policy} *" if summary["pareto_share"].get(policy, 0.0) >= 0.5 else policy


def _key(row: Mapping[str, Any]) -> float:
    cost = row.get("realised_cost", math.nan)
    return float(row["core_hours"] if math.isnan(cost) else cost)
