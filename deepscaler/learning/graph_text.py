"""What a report says about the graph, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deepscaler.text import aligned

SOURCES = {
    "recorded": "recorded calls",
    "prior call": "the prior's calls",
    "structural": "calls inferred from telemetry",
}
"""How the report names the sources of `graph_report.known_calls`."""


def graph_lines(graph: Mapping[str, Any]) -> list[str]:
    """The report's block about the graph.

    It shows errors by graph, the gain over the identity, how well each graph ranks the known calls and what
    they reach, stability over further trainings, and the verdicts.

    Args:
        graph: what `graph_report.judge_graph` returned.
    """
    lines = [*aligned(_error_rows(graph)), ""]
    for split, gain in graph["gain"].items():
        lines.append(f"learned against identity, refitted, {split}: {gain_text(gain)}")
    for name, changes in graph["against_priors"].items():
        counts = ", ".join(f"{count} {what}" for what, count in changes.items())
        lines.append(f"{graph['edges']} edges; against prior {name}: {counts}")
    lines += _ranking_lines(graph)
    if graph["stability"]:
        found = graph["stability"]
        spread = f", AUROC {min(found['auroc']):.3f}-{max(found['auroc']):.3f}" if found["auroc"] else ""
        lines.append(
            f"{found['graphs']} trainings of other seeds: rank correlation {found['spearman']:.3f} "
            f"(least {found['spearman_least']:.3f}), edges in common {found['jaccard']:.3f}{spread}"
        )
    return [
        *lines,
        graph["verdict"],
        *gain_verdict(graph["gain"], "no edge"),
        *gain_verdict(graph["gain_over_random"], "the same weights on random pairs"),
    ]


def _error_rows(graph: Mapping[str, Any]) -> list[list[str]]:
    """Errors with each graph, of the predictor as trained and refitted."""
    columns = list(graph["errors"]["learned"])
    again = columns if graph["refitted"] else []
    rows = [["graph (|error|, z)", *columns, *(f"{name} refitted" for name in again)]]
    for name, values in graph["errors"].items():
        refitted = graph["refitted"].get(name)
        cells = ["-" if refitted is None else f"{refitted[column]:.4f}" for column in again]
        rows.append([name, *(f"{values[column]:.4f}" for column in columns), *cells])
    return rows


def _ranking_lines(graph: Mapping[str, Any]) -> list[str]:
    """How well each graph ranks the known calls; nothing where no calls are known."""
    if "against_calls" not in graph:
        return []
    calls, reach = graph["against_calls"], graph["against_reachability"]
    measures = {"auroc": "AUROC", "auprc": "AUPRC", "precision": "precision"}
    known, reached = (int(next(iter(scores.values()))["edges"]) for scores in (calls, reach))
    heads = [f"{what} {title}" for what in ("calls", "reach") for title in measures.values()]
    rows = [[f"graph against {SOURCES[graph['calls_source']]}", *heads]]
    for name in calls:
        rows.append([name, *(f"{scores[name][key]:.3f}" for scores in (calls, reach) for key in measures)])
    total = f"{known} calls, {reached} pairs in reach; precision at these numbers of edges"
    return ["", *aligned(rows), total, ""]


def gain_text(gain: Mapping[str, float]) -> str:
    """A gain of `graph_report.gains` as `-3.4 % [-4.1, -2.7], 5 seed(s)`."""
    interval = f" [{gain['low']:+.1f}, {gain['high']:+.1f}]" if np.isfinite(gain["low"]) else ""
    return f"{gain['mean']:+.1f} %{interval}, {gain['seeds']:.0f} seed(s)"


def gain_verdict(gain: Mapping[str, Mapping[str, float]], rival: str) -> list[str]:
    """One sentence that says whether the learned graph is better than `rival`, by the intervals over seeds.

    It is empty where there are no intervals, which need several seeds.
    """
    split = "test" if "test" in gain else "validation"
    parts = []
    for key, where in ((split, "overall"), (f"{split}_slow", "in slow windows")):
        if key in gain and np.isfinite(gain[key]["low"]):
            parts.append(f"{where} {gain_text(gain[key])}: {_told(gain[key], rival)}")
    return [f"Learned graph against {rival}, {split}: {'; '.join(parts)}."] if parts else []


def _told(gain: Mapping[str, float], rival: str) -> str:
    if gain["high"] < 0:
        return "better"
    return "worse" if gain["low"] > 0 else f"not told apart from {rival}"
