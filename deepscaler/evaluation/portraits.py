"""What a report tells of each run besides its measures: its load, response times and reasons."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import utc_seconds
from deepscaler.evaluation.comparison import Outcome
from deepscaler.evaluation.measures import BUCKETS
from deepscaler.evaluation.span import Span, run_span
from deepscaler.runs import Run, read_run

LENGTHY = ("oracle", "oracle_times", "decision_seconds")
"""Entries of run.json that nobody reads as text."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """One run.

    Attributes:
        outcome: whose it is, and its measures.
        load: what it was loaded with: its folder's name, else the shape; `the load` where neither is known.
        buckets: `[len(LATENCY_BUCKETS) + 1]` requests done by response time.
        reasons: how many decisions each reason gave.
        sources: seconds of the judged part for which each source of scenarios decided; empty if not recorded.
        info: run.json without `LENGTHY`.
    """

    outcome: Outcome
    load: str
    buckets: NDArray[np.float64]
    reasons: Counter[str]
    sources: Mapping[str, float]
    info: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The policy as the comparison names it."""
        return str(self.outcome.entrant)

    @property
    def cost(self) -> float:
        """The realised cost in core-hours, at the prices of the outcome; NaN if unknown."""
        return float(self.outcome.measures.get("realised_cost", math.nan))


def loads_of(portraits: Sequence[Portrait]) -> list[str]:
    """Names of the loads, in the order of the runs."""
    return list(dict.fromkeys(one.load for one in portraits))


def portray(outcomes: Sequence[Outcome]) -> list[Portrait]:
    """Read the runs of these outcomes again; those that aren't on disk are left out."""
    return [_portray(outcome, read_run(outcome.place)) for outcome in outcomes if outcome.place]


def _portray(outcome: Outcome, run: Run) -> Portrait:
    span = run_span(run, outcome.warmup)
    folder = outcome.unit.rpartition("/")[0]
    decided = span.cut(run.decisions)
    return Portrait(
        outcome=outcome,
        load=folder or str(run.info.get("shape") or "the load"),
        buckets=span.cut(run.endpoints)[list(BUCKETS)].sum().to_numpy(np.float64),
        reasons=Counter(decided["reason"].astype(str)),
        sources=_sources(run, span),
        info={key: value for key, value in run.info.items() if key not in LENGTHY},
    )


def _sources(run: Run, span: Span) -> dict[str, float]:
    """Seconds of the judged part for which each source of scenarios decided."""
    changes = run.info.get("scenario_sources") or []
    moments = [max(utc_seconds(moment), span.start) for moment, _ in changes] + [span.end]
    found: dict[str, float] = {}
    for (_, source), begin, end in zip(changes, moments, moments[1:], strict=False):
        if end > begin:
            found[source] = found.get(source, 0.0) + end - begin
    return found
