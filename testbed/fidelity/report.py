"""The tables of docs/fidelity.md."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepscaler.artefacts import replacing
from testbed.fidelity.fitting import Parameters
from testbed.fidelity.records import Cell, Record, call_counts, compared

MEASURES = {
    "cores": ("cores", "{:.2f}"),
    "throughput": ("requests/s", "{:.1f}"),
    "p50": ("p50 ms", "{:.0f}"),
    "p90": ("p90 ms", "{:.0f}"),
    "p99": ("p99 ms", "{:.0f}"),
    "violating": ("violating %", "{:.1f}"),
    "cpu_per_request": ("CPU ms per request", "{:.1f}"),
}
"""Measure -> heading and format of its column."""
REACH = {"cores": 0.05, "throughput": 0.02, "p50": 0.2, "p90": 0.2, "violating": 0.5}
"""Relative difference that is aimed at; of `violating`, a factor of 1.5 either way."""


@dataclass(frozen=True, eq=False)
class Judged:
    """One recorded run and what the emulated cluster made of it, fitted on the others.

    Attributes:
        cell: the recorded run.
        replayed: emulated with the recorded replicas.
        own: emulated with our policy of the same name; None where there is none.
        shipped: emulated with the recorded replicas and `boutique.yaml`.
        parameters: what was fitted on the other runs.
    """

    cell: Cell
    replayed: Record
    own: Record | None
    shipped: Record
    parameters: Parameters


def within(name: str, real: float, seen: float) -> bool:
    """Whether a measure is within its reach; always where none is stated."""
    if name not in REACH:
        return True
    low = 1 / (1 + REACH[name]) if name == "violating" else 1 - REACH[name]
    return low * real - 1e-9 <= seen <= (1 + REACH[name]) * real + 1e-9


def comparison(judged: Sequence[Judged]) -> str:
    """Markdown: per run the real one and the emulated ones; a value in brackets is beyond its reach."""
    rows = []
    for one in judged:
        real = compared(one.cell.record)
        rows.append([one.cell.policy, "real", *(_cell(name, real[name], None) for name in MEASURES)])
        for label, record in (
            ("replayed replicas", one.replayed),
            ("own policy", one.own),
            ("replayed, `boutique.yaml`", one.shipped),
        ):
            if record is not None:
                seen = compared(record)
                rows.append(["", label, *(_cell(name, seen[name], real[name]) for name in MEASURES)])
    return _markdown(["run", "cluster", *(heading for heading, _ in MEASURES.values())], rows)


def _cell(name: str, value: float, real: float | None) -> str:
    text = MEASURES[name][1].format(100 * value if name == "violating" else value)
    return text if real is None or within(name, real, value) else f"({text})"


def calls(judged: Sequence[Judged], told: Mapping[str, float]) -> str:
    """Markdown: calls of each service per request to the entry, recorded and as described."""
    tables = [call_counts(one.cell.record) for one in judged]
    rows = [
        [
            name,
            f"{np.mean([table[name] for table in tables]):.3f}",
            f"{min(table[name] for table in tables):.3f}-{max(table[name] for table in tables):.3f}",
            f"{told[name]:.3f}",
        ]
        for name in tables[0]
    ]
    return _markdown(["service", "recorded", "range over the runs", "described"], rows)


def parameters(found: Parameters, folds: Sequence[Parameters]) -> str:
    """Markdown: what all runs together give, and the range over the fits that leave one out."""
    rows = []
    for column, name in enumerate(found.services):
        demand = [fold.demand_ms[column] for fold in folds]
        idle = [fold.idle_millicores[column] for fold in folds]
        rows.append(
            [
                name,
                f"{found.demand_ms[column]:.2f}",
                f"{min(demand):.2f}-{max(demand):.2f}",
                f"{found.idle_millicores[column]:.1f}",
                f"{min(idle):.1f}-{max(idle):.1f}",
            ]
        )
    shared = [
        [title, f"{getattr(found, kind):.2f}", f"{min(values):.2f}-{max(values):.2f}"]
        for title, kind in (
            ("time of a call on its way, ms", "hop_ms"),
            ("factor of a wake-up", "wakeup"),
            ("factor of a pod's first minute", "slowdown"),
            ("CPU of a proxy per call, ms", "proxy_call_ms"),
        )
        for values in [[getattr(fold, kind) for fold in folds]]
    ]
    services = _markdown(["service", "CPU ms per visit", "range", "idle millicores", "range"], rows)
    return services + "\n\n" + _markdown(["shared by all services", "value", "range"], shared)


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_application(path: Path, fields: Mapping[str, object]) -> None:
    """Put fitted fields between `# fitted` and `# end` of an application file, one line per service."""
    lines = []
    for name, value in fields.items():
        if name == "services" and isinstance(value, dict):
            lines += ["services:", *(f"  {one}: {_flow(table)}" for one, table in value.items())]
        else:
            lines.append(f"{name}: {_flow(value)}")
    before, _, rest = path.read_text(encoding="utf-8").partition("# fitted\n")
    text = before + "# fitted\n" + "\n".join(lines) + "\n# end\n" + rest.partition("# end\n")[2]
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _flow(value: object) -> str:
    """YAML in flow style, keys without quotes."""
    return re.sub(r'"(\w+)":', r"\1:", json.dumps(value))
