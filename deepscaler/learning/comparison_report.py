"""What a comparison of networks found: means over seeds with intervals, sentences, and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepscaler.learning.entrants import Entrant
from deepscaler.learning.judging import JUDGED, MEASURES
from deepscaler.statistics import t_interval
from deepscaler.text import aligned

Row = Mapping[str, Any]


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, by split, step and service; the measures of a split also have 95 % intervals.

    Args:
        runs: what `comparison.run_one` returned, one per seed.
    """
    out: dict[str, Any] = {"parameters": runs[0]["parameters"]}
    for key in ("samples_per_second", "seconds", "epochs"):
        values = [run[key] for run in runs if run[key] is not None]
        out[key] = float(np.mean(values)) if values else None
    for split in JUDGED:
        if split in runs[0]:
            out[split] = _summarise_split([run[split] for run in runs])
    return out


def _summarise_split(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {"windows": found[0]["windows"], "known": found[0]["known"]}
    for measure in MEASURES:
        values = [one[measure] for one in found]
        out[measure] = {"mean": float(np.mean(values)), "interval": t_interval(values), "by_seed": values}
        for part in ("step", "service"):
            by_part = f"{measure}_by_{part}"
            out[by_part] = np.mean([one[by_part] for one in found], axis=0).tolist()
    return out


def comparison_verdict(rows: Mapping[Entrant, Row]) -> str:
    """Plain sentences, one per line: which networks are best by MAE and RMSE, and what each part is worth.

    Args:
        rows: what `summarise` returned, by entrant.
    """
    split = "test" if all("test" in row for row in rows.values()) else "validation"

    def mean(entrant: Entrant, measure: str = "mae") -> float:
        return float(rows[entrant][split][measure]["mean"])

    lines = []
    for measure in ("mae", "rmse"):
        whole = [entrant for entrant in rows if not entrant.without]
        order = sorted(whole, key=lambda entrant: mean(entrant, measure))
        ranked = ", ".join(f"{entrant.label} {mean(entrant, measure):.4f}" for entrant in order[:4])
        lines.append(f"By {MEASURES[measure]} on {split}: {ranked}, ...")
    for bare in rows:
        if bare.without and bare.whole in rows:
            pairs = zip(*(rows[one][split]["mae"]["by_seed"] for one in (bare.whole, bare)), strict=True)
            by_seed = [100 * (one / other - 1) for one, other in pairs]
            change = 100 * (mean(bare.whole) / mean(bare) - 1)
            lines.append(
                f"{bare.network} with {bare.without}: {change:+.1f} % MAE against without "
                f"({min(by_seed):+.1f} to {max(by_seed):+.1f} by seed)."
            )
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------- tables
def comparison_text(result: Mapping[str, Any]) -> str:
    """All tables and sentences of what `compare_networks` returned, for the terminal."""
    rows: Mapping[str, Row] = result["rows"]
    lines = []
    for split in JUDGED:
        if not all(split in row for row in rows.values()):
            continue
        windows = next(iter(rows.values()))[split]["windows"]
        lines += [
            "",
            f"{result['app']}, {split}: {result['label']} ({result['unit']}), {windows} windows, "
            f"seeds {result['seeds']}",
            *aligned(_overall(rows, split)),
        ]
        if split == "test" or "test" not in next(iter(rows.values())):
            lines += _details(result, split)
    return "\n".join([*lines[1:], "", result["verdict"]])


def _details(result: Mapping[str, Any], split: str) -> list[str]:
    """MAE, RMSE and MAPE by step and by service, one table each."""
    steps = [f"step {step + 1}" for step in range(result["horizon"])]
    lines = []
    for part, heads in (("step", steps), ("service", result["services"])):
        for measure in ("mae", "rmse", "mape"):
            title = f"{MEASURES[measure]} by {part}"
            cells = _by_part(result["rows"], split, f"{measure}_by_{part}", title, heads)
            lines += ["", *aligned(cells)]
    return lines


def _overall(rows: Mapping[str, Row], split: str) -> list[list[str]]:
    """One line of cells per entrant."""
    measures = list(MEASURES.values())
    cells = [["", measures[0], "95 %", *measures[1:], "parameters", "samples/s", "epochs", "s"]]
    for label, row in rows.items():
        errors, interval, speed = row[split], row[split]["mae"]["interval"], row["samples_per_second"]
        means = [f"{errors[key]['mean']:.4f}" for key in MEASURES]
        shown = "-" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"
        rate = "-" if speed is None else f"{speed:.0f}"
        rest = [str(row["parameters"]), rate, f"{row['epochs']:.0f}", f"{row['seconds']:.1f}"]
        cells.append([label, means[0], shown, *means[1:], *rest])
    return cells


def _by_part(
    rows: Mapping[str, Row], split: str, key: str, title: str, heads: Sequence[str]
) -> list[list[str]]:
    """One line of cells per step or service, one column per entrant."""
    return [
        [title, *rows],
        *(
            [head, *(f"{row[split][key][index]:.4f}" for row in rows.values())]
            for index, head in enumerate(heads)
        ),
    ]
