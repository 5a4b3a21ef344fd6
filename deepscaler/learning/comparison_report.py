"""What a comparison of networks found: means over seeds with intervals, sentences, and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deepscaler.learning.entrants import BLOCKS, SIMPLE, Entrant
from deepscaler.learning.judging import JUDGED, MEASURES, PARTS
from deepscaler.statistics import t_interval
from deepscaler.text import aligned

Row = Mapping[str, Any]
LEGEND = (
    "deficient and excess in core-seconds per hour (else in the label's unit); lead: of rises, in seconds; "
    "missed and false: shares of the peaks"
)


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
    for measure in PARTS:
        for part in ("step", "service"):
            by_part = f"{measure}_by_{part}"
            out[by_part] = np.mean([one[by_part] for one in found], axis=0).tolist()
    for measure in ("mae", "mae_z"):
        pairs = f"{measure}_by_service_and_step"
        out[pairs] = np.mean([one[pairs] for one in found], axis=0).tolist()
    return out


def comparison_verdict(rows: Mapping[Entrant, Row]) -> str:
    """Plain sentences, one per line.

    They say which rows are best by MAE and RMSE, who beats the strongest simple forecast, and what each part
    is worth.

    Args:
        rows: what `summarise` returned, by entrant.
    """
    split = "test" if all("test" in row for row in rows.values()) else "validation"
    lines = []
    for measure in ("mae", "rmse"):
        found = {one: float(rows[one][split][measure]["mean"]) for one in rows if not one.without}
        order = sorted(found, key=lambda one: found[one])
        ranked = ", ".join(f"{one.label} {found[one]:.4f}" for one in order[:4])
        lines.append(f"By {MEASURES[measure]} on {split}: {ranked}, ...")
    return "\n".join([*lines, *_against_the_simple(rows, split), *_worth_of_parts(rows, split)])


def _against_the_simple(rows: Mapping[Entrant, Row], split: str) -> Iterator[str]:
    """Which networks beat the strongest simple forecast of all, paired by seed."""
    simple = [entrant for entrant in rows if entrant.network in SIMPLE]
    if not simple:
        return
    rival = min(simple, key=lambda entrant: float(rows[entrant][split]["mae"]["mean"]))
    mean = float(rows[rival][split]["mae"]["mean"])
    yield f"The strongest simple forecast is {rival.label}: MAE {mean:.4f}."
    told: dict[str, list[str]] = {"beats it": [], "loses to it": [], "isn't told apart from it": []}
    for entrant in rows:
        if entrant.network in SIMPLE or entrant.without:
            continue
        changes = _changes(rows, entrant, rival, split)
        interval = t_interval(changes)
        verb = "isn't told apart from it"
        if interval is not None and interval[1] < 0:
            verb = "beats it"
        elif interval is not None and interval[0] > 0:
            verb = "loses to it"
        told[verb].append(f"{entrant.label} {np.mean(changes):+.1f} %")
    for verb, names in told.items():
        if names:
            yield f"{verb[0].upper()}{verb[1:]} (95 % interval over seeds): {', '.join(names)}."


def _worth_of_parts(rows: Mapping[Entrant, Row], split: str) -> Iterator[str]:
    """What each part is worth: a network with it against one fitted without it."""
    for bare in rows:
        if bare.without and bare.whole in rows:
            changes = _changes(rows, bare.whole, bare, split)
            change = 100 * (
                float(rows[bare.whole][split]["mae"]["mean"]) / float(rows[bare][split]["mae"]["mean"]) - 1
            )
            yield (
                f"{bare.network} with {bare.without}: {change:+.1f} % MAE against without "
                f"({min(changes):+.1f} to {max(changes):+.1f} by seed)."
            )


def _changes(rows: Mapping[Entrant, Row], entrant: Entrant, other: Entrant, split: str) -> list[float]:
    """By how many percent the MAE of one row lies above that of another, by seed."""
    pairs = zip(*(rows[one][split]["mae"]["by_seed"] for one in (entrant, other)), strict=True)
    return [100 * (one / max(rival, 1e-12) - 1) for one, rival in pairs]


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
            f"seeds {result['seeds']}; {LEGEND}",
        ]
        for told, title in BLOCKS.items():
            block = {label: row for label, row in rows.items() if bool(row["told"]) == told}
            if block:
                lines += ["", f"{title}:", *aligned(_overall(block, split))]
        if split == "test" or "test" not in next(iter(rows.values())):
            lines += _details(result, split)
    return "\n".join([*lines[1:], "", result["verdict"]])


def _details(result: Mapping[str, Any], split: str) -> list[str]:
    """MAE (in the label's unit and in z-units), RMSE and MAPE by step and by service, one table each."""
    steps = [f"step {step + 1}" for step in range(result["horizon"])]
    lines = []
    for part, heads in (("step", steps), ("service", result["services"])):
        for measure in PARTS:
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
