"""Tables of docs/results.md whose runs take long: what is kept of them, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepscaler.errors import DataError
from deepscaler.evaluation.text import OWN, interval, number
from deepscaler.learning.entrants import BLOCKS, ENTRANTS, Entrant

ROW = ("violation_rate", "violation_rate_ci", "slow_rate", "core_hours", "core_hours_ci")
"""What Train-Ticket's table shows of a policy in summary.json."""
PAIRED = ("violation_rate", "slow_rate", "core_hours")


@contextmanager
def expecting(path: str | Path, what: str, remedy: str) -> Iterator[None]:
    """Inside, values of a JSON file are read; that they aren't as expected is an error of the file.

    Args:
        path: the file.
        what: what it should hold.
        remedy: what to do.

    Raises:
        DataError: a value is missing or of another kind.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        missing = isinstance(error, KeyError) and error.args
        why = f"{error.args[0]!r} is missing" if missing else "a value in it is of another kind"
        raise DataError(f"{path}: no {what} ({why}); {remedy}") from error


def shown_policies(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a summary.json that `policies_table` and `policies_said` show."""
    return {
        "baseline": summary["baseline"],
        "policies": {name: {key: row[key] for key in ROW} for name, row in summary["policies"].items()},
        "paired": {
            measure: {key: summary["paired"][OWN][measure][key] for key in ("mean_difference", "p_holm")}
            for measure in PAIRED
        },
    }


def policies_table(kept: Mapping[str, Any]) -> str:
    """Markdown: one row per policy, fewest violations first; DeepScaler in bold."""
    rows = sorted(kept["policies"].items(), key=lambda item: item[1]["violation_rate"])
    lines = [
        "| policy | violating minutes, % | slow or failed requests, % | core-hours |",
        "|---|---|---|---|",
    ]
    for name, row in rows:
        cells = [
            name,
            _with_interval(row["violation_rate"], row["violation_rate_ci"], 100, name == OWN),
            number(row["slow_rate"], 1, 100),
            _with_interval(row["core_hours"], row["core_hours_ci"], 1, name == OWN),
        ]
        cells[0] = f"**{name}**" if name == OWN else name
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_interval(value: float, bounds: Any, factor: float, bold: bool) -> str:
    text = number(value, 1, factor)
    text = f"**{text}**" if bold else text
    return text if bounds is None else f"{text} {interval(bounds, 1, factor)}"


def cost_said(row: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """How much more or less one costs than the other: `5 % more`, `5 % less` or `the same`."""
    share = round(100 * (row["core_hours"] / other["core_hours"] - 1))
    return f"{abs(share)} % {'more' if share > 0 else 'less'}" if share else "the same"


def policies_said(kept: Mapping[str, Any]) -> str:
    """DeepScaler against the baseline, seed by seed, and against the HPA that violates about as much."""
    rows, paired, rival = kept["policies"], kept["paired"], kept["baseline"]
    own = rows[OWN]
    points = {name: 100 * paired[name]["mean_difference"] for name in ("violation_rate", "slow_rate")}
    hpas = [name for name in rows if name.startswith("hpa_")]
    near = min(hpas, key=lambda name: abs(rows[name]["violation_rate"] - own["violation_rate"]))
    p = {name: f"p is {paired[name]['p_holm']:.2g}" for name in PAIRED}
    return (
        f"Paired with `{rival}` by seed, DeepScaler has {points['violation_rate']:+.1f} points of violating "
        f"minutes ({p['violation_rate']} after Holm's correction) at {cost_said(own, rows[rival])} cost "
        f"({p['core_hours']}), and {points['slow_rate']:+.1f} points of slow requests ({p['slow_rate']}). "
        f"The HPA that violates about as much, `{near}`, costs {cost_said(rows[near], own)}."
    )


# --------------------------------------------------------------------------------------------------- networks
def networks_table(kept: Mapping[str, Any]) -> str:
    """Markdown: what each network reaches on each data set, in blocks of rows that were told the same."""
    columns = kept["columns"]
    lines = list[str]()
    for told, title in BLOCKS.items():
        lines.append(f"| **{title}** | {' | '.join('' if lines else column for column in columns)} |")
        if len(lines) == 1:
            lines.append(f"|{'---|' * (len(columns) + 1)}")
        for entrant in ENTRANTS:
            cells = [_cell(rows.get(entrant.label)) for rows in columns.values()]
            if entrant.told is told and any(cells):
                lines.append(f"| {_shown(entrant)} | {' | '.join(cell or '-' for cell in cells)} |")
    return "\n".join(lines)


def _shown(entrant: Entrant) -> str:
    """A row's name; the block says what it was told."""
    name = entrant.label.replace(", told", "")
    return f"**{name}**" if entrant == Entrant("AdapGLS", told=True) else name


def _cell(found: Mapping[str, Any] | None) -> str:
    """MAE with its interval, CRPS, and what is lacking; empty: the data set lacks the row."""
    if found is None:
        return ""
    digits = 4 if found["mae"] < 1 else 2
    bounds = found.get("interval")
    between = "" if bounds is None else f" [{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]"
    lacking = f"; {found['deficient']:.0f}" if "deficient" in found else ""
    return f"{found['mae']:.{digits}f}{between}; {found['crps']:.{digits}f}{lacking}"


def with_comparison(kept: Mapping[str, Any], title: str, comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The kept table with the column of one data set made anew from a comparison.json.

    Raises:
        DataError: the comparison has none of the table's rows.
    """
    made, replicas = comparison["rows"], comparison["unit"] == "replicas"
    column = {
        entrant.label: _measured(made[entrant.label]["test"], replicas)
        for entrant in ENTRANTS
        if entrant.label in made
    }
    if not column:
        raise DataError(
            f"--networks {title}: the comparison has none of the table's rows; "
            "expected comparison.json of python main.py --model_name all"
        )
    return {"columns": {**kept["columns"], title: column}}


def _measured(test: Mapping[str, Any], replicas: bool) -> dict[str, Any]:
    """What the table shows of a row; what is lacking is told in cores, of replicas alone."""
    found = {measure: test[measure]["mean"] for measure in ("mae", "crps", "deficient")[: 2 + replicas]}
    bounds = test["mae"]["interval"]
    seeds_matter = bounds is not None and bounds[1] - bounds[0] > 1e-9
    return found | ({"interval": bounds} if seeds_matter else {})
