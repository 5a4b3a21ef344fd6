"""The report of a comparison as text: the tables, and the paragraph that says who wins where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from deepscaler.evaluation.comparison import REFERENCES
from deepscaler.text import aligned

OWN = "deepscaler"
"""The policy that the paragraph is about."""
UNKNOWN = "-"
"""Stands in a table for a number that isn't known."""
TERMS = """\
Violating minute: the mean response at the entry exceeds the SLA; [low, high] is the 95 % interval over seeds.
Slow: over the endpoint's SLO. Core-hours: CPU limits of all pods, per run. *: no other is better on both."""
"""What the columns mean, for the reader of the table."""


# ----------------------------------------------------------------------------------------------------- tables
def main_table(summary: Mapping[str, Any]) -> str:
    """The columns that matter, under the terms that they use; fewest violations first, then cheapest."""
    starts = _starts(summary)
    rows = [["policy", "violating minutes %", "slow or failed %", "core-hours", "changes/h", *starts]]
    for name in by_violations(summary):
        row = summary["policies"][name]
        rate, bounds = number(row["violation_rate"], 2, 100), interval(row["violation_rate_ci"], 2, 100)
        rows.append(
            [
                _marked(summary, name),
                f"{rate} {bounds}" if bounds != UNKNOWN else rate,
                number(row["slow_rate"], 2, 100),
                number(row["core_hours"], 2),
                number(row["changes_per_hour"], 1),
                *(number(row[measure], 1) for measure in starts.values()),
            ]
        )
    return f"{TERMS}\n\n{_lines(rows)}"


def _starts(summary: Mapping[str, Any]) -> dict[str, str]:
    """The column of pod starts and its measure, where the summary has it; older ones don't."""
    rows = summary["policies"].values()
    return {"starts/h": "starts_per_hour"} if all("starts_per_hour" in row for row in rows) else {}


def full_table(summary: Mapping[str, Any]) -> str:
    """Every measure of the comparison, in the order of `main_table`."""
    latency = ["min>SLA", "%", "95 % CI", "slow %", "p95 ms", "mean ms"]
    starts = _starts(summary)
    rows = [["policy", "seeds", *latency, "core-h", "95 % CI", "changes/h", *starts, "replicas", "unknown %"]]
    for name in by_violations(summary):
        row = summary["policies"][name]
        rows.append(
            [
                _marked(summary, name),
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
                *(number(row[measure], 1) for measure in starts.values()),
                number(row["mean_replicas"], 1),
                number(row["unknown_rate"], 2, 100),
            ]
        )
    return f"{TERMS}\n\n{_lines(rows)}"


def elasticity_table(summary: Mapping[str, Any]) -> str:
    """How far replicas were from the oracle's, for the policies whose runs have one; empty if none has."""
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
        if _known(row.get("theta_under")):
            rows.append([name, *(number(row[metric], 2, factor) for metric, factor in columns.values())])
    return _lines(rows) if len(rows) > 1 else ""


def by_violations(summary: Mapping[str, Any]) -> list[str]:
    """Names of the policies, fewest violations first, then cheapest; unknown last."""

    def key(name: str) -> tuple[float, float, str]:
        violations, cost = (summary["policies"][name][metric] for metric in ("violation_rate", "core_hours"))
        return violations if _known(violations) else math.inf, cost if _known(cost) else math.inf, name

    return sorted(summary["policies"], key=key)


def number(value: float | None, digits: int, factor: float = 1.0) -> str:
    """`value` * factor, or `-` if it is unknown."""
    return f"{value * factor:.{digits}f}" if value is not None and _known(value) else UNKNOWN


def interval(bounds: Sequence[float] | None, digits: int, factor: float = 1.0) -> str:
    """`[low, high]`, or `-` if there is no interval."""
    if bounds is None:
        return UNKNOWN
    return f"[{bounds[0] * factor:.{digits}f}, {bounds[1] * factor:.{digits}f}]"


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(aligned(rows, numbers=True, rule=True))


def _marked(summary: Mapping[str, Any], name: str) -> str:
    return f"{name} *" if name in summary["pareto"] else name


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


# -------------------------------------------------------------------------------------------------- paragraph
HPAS = ("hpa", "hpa_r")
"""The HPA with targets of the CPU limit and of the CPU request."""


def verdict(summary: Mapping[str, Any], baseline: str) -> str:
    """One paragraph: which policies no other beats, and how deepscaler does against its rivals."""
    return " ".join(verdict_sentences(summary, baseline))


def verdict_sentences(summary: Mapping[str, Any], baseline: str) -> list[str]:
    """The sentences of `verdict`."""
    sentences = [*_caveats(summary), _front_sentence(summary)]
    own = [name for name in by_violations(summary) if summary["policies"][name]["policy"] == OWN]
    for name in own:
        equal = summary["equal"][name]
        sentences += [_own_sentence(summary, name), _paired_sentence(summary, name, baseline)]
        sentences += [_equal_sentence(summary, name, family, equal[family]) for family in equal]
        if not any(family in equal for family in HPAS):
            sentences.append(
                "To compare at equal cost or at equal violations, run the HPA with two or more targets "
                "(hpa_50, hpa_60, ...)."
            )
    if not own:
        sentences.append("There is no run of deepscaler among these.")
    return [sentence for sentence in sentences if sentence]


def _caveats(summary: Mapping[str, Any]) -> list[str]:
    seeds = [row["seeds"] for row in summary["policies"].values()]
    hours = [row["hours"] for row in summary["policies"].values()]
    fewest, found = min(seeds), []
    if max(seeds) > fewest:
        found.append(
            "Beware: the policies ran on different numbers of seeds; "
            "means over all of them don't compare like with like. Whom no other beats, paired differences "
            "and what is read at equal cost or violations are of the seeds that all compared ran on."
        )
    if max(hours) > 1.01 * min(hours):
        found.append(
            f"Beware: the runs differ in length ({min(hours):.2f} to {max(hours):.2f} h), "
            "so their core-hours can't be compared."
        )
    if fewest < 6:
        found.append(
            f"Beware: with {fewest} seed{'s' if fewest > 1 else ''} per policy differences may be chance; "
            "below 6 no paired test can reach p < 0.05."
        )
    return found


def _front_sentence(summary: Mapping[str, Any]) -> str:
    front, rows = summary["pareto"], summary["policies"]
    if not front:
        return "There are no seeds that all policies ran on with known violations and costs."
    told = [name for name in rows if rows[name]["family"] in REFERENCES]
    apart = f" ({_listed(told)} aside, which know{'s' if len(told) == 1 else ''} the future)" if told else ""
    return f"On both violations and cost, no other policy here beats {_listed(front)}{apart}."


def _own_sentence(summary: Mapping[str, Any], name: str) -> str:
    rows, row, points = summary["policies"], summary["policies"][name], summary["pareto_points"]
    text = (
        f"{name}: {number(row['violation_rate'], 2, 100)} % of the minutes violate the SLA, "
        f"at {number(row['core_hours'], 2)} core-hours"
    )
    rivals = [rival for rival in summary["pareto"] if rows[rival]["directory"] == row["directory"]]
    if name in rivals:
        return f"{text}."
    better = [
        rival
        for rival in rivals
        if all(its <= own for its, own in zip(points[rival], points[name], strict=True))
    ]
    return f"{text}; {_listed(better)} did no worse on both and better on one." if better else f"{text}."


def _paired_sentence(summary: Mapping[str, Any], name: str, baseline: str) -> str:
    entry = summary["paired"].get(name)
    if entry is None:
        is_baseline = summary["policies"][name]["policy"] == baseline
        return "" if is_baseline else f"There is no run of the baseline {baseline} to pair it with."
    parts = [
        _difference(entry["violation_rate"], "percentage points of violating minutes", 100),
        _difference(entry["slow_rate"], "percentage points of slow or failed requests", 100),
        _difference(entry["core_hours"], "core-hours", 1),
    ]
    pairs = entry["core_hours"]["pairs"]
    return f"Against {entry['baseline']} on the same seeds ({pairs} pairs): {'; '.join(parts)}."


def _difference(entry: Mapping[str, Any], unit: str, factor: float) -> str:
    if not entry["pairs"]:
        return f"{unit}: unknown"
    text = f"{entry['mean_difference'] * factor:+.2f} {unit}"
    bounds = entry["mean_difference_ci"]
    if bounds is None:
        return f"{text} (one pair, no interval)"
    judged = ", no clear difference"
    if bounds[0] > 0 or bounds[1] < 0:
        judged = "" if entry["p_holm"] < 0.05 else ", not significant"
    p = f"p {entry['p_holm']:.3g} after Holm's correction"
    return f"{text} (95 % {interval(bounds, 2, factor)}, {p}{judged})"


def _equal_sentence(summary: Mapping[str, Any], name: str, family: str, equal: Mapping[str, Any]) -> str:
    own_violations, own_cost = equal["points"][name]
    first, last = (summary["policies"][equal["members"][end]]["policy"] for end in (0, -1))
    rival = f"the {family} settings ({first} to {last})"
    violations, cost = equal["violation_rate_at_equal_cost"], equal["core_hours_at_equal_violations"]
    if violations is None:
        used = number(own_cost, 2)
        at_cost = f"{rival} can't be compared: {used} core-hours lie outside their range"
    else:
        won = _won(own_violations, violations)
        at_cost = f"{rival} reach {number(violations, 2, 100)} % ({won} for {name})"
    if cost is None:
        at_violations = "they can't be compared: the violations lie outside their range"
    else:
        share = (own_cost / cost - 1) * 100
        won = _won(own_cost, cost)
        at_violations = f"they take {cost:.2f} core-hours ({won} for {name}: {share:+.1f} %)"
    return f"At equal cost {at_cost}; at equal violations {at_violations}."


def _won(own: float, rival: float) -> str:
    if abs(own - rival) <= 1e-9:
        return "a draw"
    return "a win" if own < rival else "a loss"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
