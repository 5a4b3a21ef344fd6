"""The report of a comparison as text: the tables, and the paragraph that says who wins where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from deepscaler.evaluation.comparison import REFERENCES

UNKNOWN = "-"
"""Stands in a table for a number that isn't known."""


def table(summary: Mapping[str, Any]) -> str:
    """Aligned rows, fewest violations first, then cheapest; `*` marks policies that no other beats on both."""
    latency = ["min>SLA", "%", "95 % CI", "slow %", "p95 ms", "mean ms"]
    rows = [["policy", "seeds", *latency, "core-h", "95 % CI", "changes/h", "replicas", "unknown %"]]
    for name in by_violations(summary):
        row = summary["policies"][name]
        rows.append(
            [
                f"{name}{' *' if name in summary['pareto'] else ''}",
                str(row["seeds"]),
                number(row["violation_minutes"], 1),
                number(row["violation_rate"], 2, 100),
                interval(row["violation_rate_ci"], 2, 100),
                number(row["slow_rate"], 2, 100),
                number(row["p95_seconds"], 0, 1000),
                number(row["mean_seconds"], 0, 1000),
                number(row["core_hours"], 2),
                interval(row["core_hours_ci"], 2),
                number(row["changes_per_hour"], 1),
                number(row["mean_replicas"], 1),
                number(row["unknown_rate"], 2, 100),
            ]
        )
    return _aligned(rows)


def elasticity_table(summary: Mapping[str, Any]) -> str:
    """Elasticity against the oracle's replicas, for the runs that have one; empty without."""
    columns = {
        "under %": ("theta_under", 100),
        "over %": ("theta_over", 100),
        "time under %": ("tau_under", 100),
        "time over %": ("tau_over", 100),
        "instability %": ("instability", 100),
        "replica MAE": ("replica_mae", 1),
    }
    rows = [["against the oracle", *columns]]
    for name in by_violations(summary):
        row = summary["policies"][name]
        if not _missing(row.get("theta_under")):
            rows.append([name, *(number(row[metric], 2, factor) for metric, factor in columns.values())])
    return _aligned(rows) if len(rows) > 1 else ""


def by_violations(summary: Mapping[str, Any]) -> list[str]:
    """Policies, fewest violations first, then cheapest; unknown last."""

    def key(name: str) -> tuple[float, float, str]:
        violations, cost = (summary["policies"][name][metric] for metric in ("violation_rate", "core_hours"))
        return math.inf if _missing(violations) else violations, math.inf if _missing(cost) else cost, name

    return sorted(summary["policies"], key=key)


def verdict(summary: Mapping[str, Any], baseline: str) -> str:
    """One plain paragraph from the numbers: what no other policy beats, and DeepScaler against the baseline and the sweeps."""
    focus = [name for name in by_violations(summary) if is_own(name)]
    sentences = [*_caveats(summary), _front_sentence(summary)]
    for name in focus:
        sentences += [_own_sentence(summary, name), _paired_sentence(summary, name, baseline)]
        sentences += [
            _equal_sentence(summary, name, family, equal) for family, equal in summary["equal"][name].items()
        ]
        if not any(family == "hpa" for family in summary["equal"][name]):
            sentences.append(
                "Equal cost and equal violations need two or more settings of the HPA (hpa_50, hpa_60, ...)."
            )
    if not focus:
        sentences.append("There is no run of deepscaler among these.")
    return " ".join(sentence for sentence in sentences if sentence)


def _caveats(summary: Mapping[str, Any]) -> list[str]:
    rows = summary["policies"]
    found = []
    if len({row["seeds"] for row in rows.values()}) > 1:
        found.append(
            "Beware: the policies were run on different numbers of seeds; only the paired differences compare like with like."
        )
    hours = [row["hours"] for row in rows.values()]
    if max(hours) > 1.01 * min(hours):
        found.append(
            f"Beware: the runs differ in length ({min(hours):.2f} to {max(hours):.2f} h), so core-hours don't compare."
        )
    fewest = min(row["seeds"] for row in rows.values())
    if fewest < 6:
        seeds = f"{fewest} seed{'s' if fewest > 1 else ''} a policy"
        found.append(
            f"Beware: {seeds}; below 6 no paired test can reach p < 0.05, and differences may be chance."
        )
    return found


def _front_sentence(summary: Mapping[str, Any]) -> str:
    front = summary["pareto"]
    if not front:
        return "No policy has known violations and costs."
    verb = "is" if len(front) == 1 else "are"
    known = [name for name in summary["policies"] if REFERENCES.match(name)]
    apart = f" ({_listed(known)}, told the future, aside)" if known else ""
    return f"By means over seeds, {_listed(front)} {verb} not beaten on both violations and cost by any other policy here{apart}."


def _own_sentence(summary: Mapping[str, Any], name: str) -> str:
    row = summary["policies"][name]
    text = f"{name}: {number(row['violation_rate'], 2, 100)} % of the minutes over the SLA at {number(row['core_hours'], 2)} core-hours"
    rivals = [rival for rival in summary["pareto"] if rival.rpartition("/")[0] == name.rpartition("/")[0]]
    if name in rivals:
        return f"{text}."
    found = {rival: summary["policies"][rival] for rival in rivals}
    better = [
        rival
        for rival, its in found.items()
        if all(its[metric] <= row[metric] for metric in ("violation_rate", "core_hours"))
    ]
    return f"{text}; {_listed(better)} did no worse on both, and better on one." if better else f"{text}."


def _paired_sentence(summary: Mapping[str, Any], name: str, baseline: str) -> str:
    entry = summary["paired"].get(name)
    if entry is None:
        return (
            ""
            if name.rpartition("/")[2] == baseline
            else f"There is no run of the baseline {baseline} to pair it with."
        )
    parts = [
        _difference(entry["violation_rate"], "points of violating minutes", 100),
        _difference(entry["slow_rate"], "points of slow or failed requests", 100),
        _difference(entry["core_hours"], "core-hours", 1),
    ]
    return f"Against {entry['baseline']}, paired by seed ({entry['core_hours']['pairs']} pairs): {'; '.join(parts)}."


def _difference(entry: Mapping[str, Any], unit: str, factor: float) -> str:
    if not entry["pairs"]:
        return f"{unit}: unknown"
    text = f"{entry['mean_difference'] * factor:+.2f} {unit}"
    bounds = entry["mean_difference_ci"]
    if bounds is None:
        return f"{text} (one pair, no interval)"
    apart = bounds[0] > 0 or bounds[1] < 0
    judged = (
        "" if apart and entry["p_holm"] < 0.05 else ", not significant" if apart else ", no clear difference"
    )
    return f"{text} (95 % {interval(bounds, 2, factor)}, p {entry['p_holm']:.3g} after Holm{judged})"


def _equal_sentence(summary: Mapping[str, Any], name: str, family: str, equal: Mapping[str, Any]) -> str:
    row, members = summary["policies"][name], equal["members"]
    sweep = f"the {family} sweep ({members[0].rpartition('/')[2]} to {members[-1].rpartition('/')[2]})"
    violations, cost = equal["violation_rate_at_equal_cost"], equal["core_hours_at_equal_violations"]
    at_cost = f"At equal cost {sweep} has {number(violations, 2, 100)} % ({_word(row['violation_rate'], violations)} for {name})"
    if violations is None:
        at_cost = f"At equal cost {sweep} can't be read: {number(row['core_hours'], 2)} core-hours is outside its range"
    at_violations = "at equal violations it can't be read: these lie outside its range"
    if cost is not None:
        share = (row["core_hours"] / cost - 1) * 100
        at_violations = f"at equal violations it takes {cost:.2f} core-hours ({_word(row['core_hours'], cost)} for {name}: {share:+.1f} %)"
    return f"{at_cost}; {at_violations}."


def _word(own: float, rival: float | None) -> str:
    if rival is None or abs(own - rival) <= 1e-9:
        return "a draw"
    return "a win" if own < rival else "a loss"


def number(value: float | None, digits: int, factor: float = 1.0) -> str:
    """`value` * factor, or `-` where it is unknown."""
    return UNKNOWN if value is None or _missing(value) else f"{value * factor:.{digits}f}"


def interval(bounds: Sequence[float] | None, digits: int, factor: float = 1.0) -> str:
    """`[low, high]`, or `-`."""
    return (
        UNKNOWN if bounds is None else f"[{bounds[0] * factor:.{digits}f}, {bounds[1] * factor:.{digits}f}]"
    )


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [
        [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        for row in rows
    ]
    lines = ["  ".join(row) for row in padded]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def is_own(name: str) -> bool:
    return name.rpartition("/")[2] == "deepscaler"
