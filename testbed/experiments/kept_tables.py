"""Tables of docs/results.md whose runs take long: what is kept of them, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepscaler.errors import DataError
from deepscaler.evaluation.text import OWN, interval, number

ROW = ("violation_rate", "violation_rate_ci", "slow_rate", "core_hours", "core_hours_ci")
"""What Train-Ticket's table shows of a policy in summary.json."""
PAIRED = ("violation_rate", "slow_rate", "core_hours")
DIGITS = 3


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


def policies_said(kept: Mapping[str, Any]) -> str:
    """DeepScaler against the baseline, seed by seed, and against the HPA that violates about as much."""
    rows, paired, rival = kept["policies"], kept["paired"], kept["baseline"]
    own = rows[OWN]
    points = {name: 100 * paired[name]["mean_difference"] for name in ("violation_rate", "slow_rate")}
    cheaper = 100 * (1 - own["core_hours"] / rows[rival]["core_hours"])
    hpas = [name for name in rows if name.startswith("hpa_")]
    near = min(hpas, key=lambda name: abs(rows[name]["violation_rate"] - own["violation_rate"]))
    dearer = 100 * (rows[near]["core_hours"] / own["core_hours"] - 1)
    p = {name: f"p is {paired[name]['p_holm']:.2g}" for name in PAIRED}
    return (
        f"Paired with `{rival}` by seed, DeepScaler has {points['violation_rate']:+.1f} points of violating "
        f"minutes ({p['violation_rate']} after Holm's correction) at {cheaper:.0f} % less cost "
        f"({p['core_hours']}), and {points['slow_rate']:+.1f} points of slow requests ({p['slow_rate']}). "
        f"The HPA that violates about as much, `{near}`, costs {dearer:.0f} % more."
    )


# --------------------------------------------------------------------------------------------------- networks
def networks_table(kept: Mapping[str, Any]) -> str:
    """Markdown: test MAE of each network on each data set, mean ± half of the 95 % t-interval."""
    lines = [f"| test MAE | {' | '.join(kept['columns'])} |", f"|{'---|' * (len(kept['columns']) + 1)}"]
    for row in kept["rows"]:
        cells = [_mae(row["values"].get(title)) for title in kept["columns"]]
        if row.get("bold"):
            cells = [f"**{cell}**" for cell in cells]
        lines.append(f"| {row['shown']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mae(value: Any) -> str:
    if value is None:
        return "-"
    if "text" in value:
        return str(value["text"])
    mean, half, digits = value["mean"], value.get("half"), value.get("digits", DIGITS)
    return f"{mean:.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def with_comparison(kept: Mapping[str, Any], title: str, comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The kept table with one column made anew from a comparison.json of `main.py --model_name all`.

    Rows are found by the labels of the comparison; labels that the table lacks are left out.

    Raises:
        DataError: the table has no such column, or the comparison none of its rows.
    """
    if title not in kept["columns"]:
        raise DataError(f"--networks: no column {title!r}; there are: {', '.join(kept['columns'])}")
    found = {
        label: _measured(row["test"]["mae"]) for label, row in comparison["rows"].items() if "test" in row
    }
    rows = [
        {**row, "values": {**row["values"], title: found.get(row["label"])}} if row["label"] in found else row
        for row in kept["rows"]
    ]
    if rows == kept["rows"]:
        raise DataError(
            f"--networks {title}: the comparison has none of the table's rows; "
            "expected comparison.json of python main.py --model_name all"
        )
    return {**kept, "rows": rows}


def _measured(mae: Mapping[str, Any]) -> dict[str, float]:
    bounds = mae["interval"]
    return {"mean": mae["mean"]} | ({} if bounds is None else {"half": (bounds[1] - bounds[0]) / 2})


def told_table(kept: Mapping[str, Any]) -> str:
    """Markdown: what rows that were told the same reach on each data set, block by block."""
    lines: list[str] = []
    for block in kept["blocks"]:
        if lines:
            lines.append(f"| **{block['title']}** |{' |' * len(kept['columns'])}")
        else:
            lines.append(f"| {block['title']} | {' | '.join(kept['columns'])} |")
            lines.append(f"|{'---|' * (len(kept['columns']) + 1)}")
        for row in block["rows"]:
            cells = [_told_cell(row["values"].get(title)) for title in kept["columns"]]
            lines.append(f"| {row['shown']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _told_cell(found: Mapping[str, Any] | None) -> str:
    """MAE with its interval, CRPS, and what is lacking."""
    if found is None:
        return "-"
    bounds = found.get("interval")
    between = "" if bounds is None else f" [{bounds[0]:.4f}, {bounds[1]:.4f}]"
    return f"{found['mae']:.4f}{between}; {found['crps']:.4f}; {found['deficient']:.0f}"


def with_told(kept: Mapping[str, Any], title: str, comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The kept table with the column of one data set made anew; rows that the comparison lacks are empty.

    Raises:
        DataError: the comparison has none of the table's rows.
    """
    made = comparison["rows"]
    blocks = [
        {
            **block,
            "rows": [
                {**row, "values": {**row["values"], title: _retold(made.get(row["label"]))}}
                for row in block["rows"]
            ],
        }
        for block in kept["blocks"]
    ]
    if not any(row["values"][title] for block in blocks for row in block["rows"]):
        raise DataError(
            f"--told {title}: the comparison has none of the table's rows; "
            "expected comparison.json of python main.py --model_name all"
        )
    return {"columns": list(dict.fromkeys([*kept["columns"], title])), "blocks": blocks}


def _retold(made: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if made is None:
        return None
    test = made["test"]
    found = {measure: test[measure]["mean"] for measure in ("mae", "crps", "deficient")}
    bounds = test["mae"]["interval"]
    return found | ({} if bounds is None or bounds[0] == bounds[1] else {"interval": bounds})
