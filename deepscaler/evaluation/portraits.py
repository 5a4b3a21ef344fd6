"""Runs as a report tells them: their measures and details, the load, and what they ran with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepscaler.evaluation.comparison import Outcome
from deepscaler.evaluation.run_details import RunDetails
from deepscaler.runs import read_info

INFO = "run.json"
LENGTHY = ("oracle", "oracle_times", "decision_seconds")
"""Entries of run.json that nobody reads as text."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """One run.

    Attributes:
        outcome: whose it is, and its measures.
        load: what it was loaded with: its folder's name, else the shape; `the load` where neither is known.
        details: its response times, reasons and sources of scenarios.
        info: run.json without `LENGTHY`.
    """

    outcome: Outcome
    load: str
    details: RunDetails
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
    """Portraits of these outcomes, without those that aren't on disk; of their runs only `run.json` is read.

    Raises:
        DataError: it can't be read any more.
    """
    return [
        _portray(outcome, outcome.place, outcome.details)
        for outcome in outcomes
        if outcome.place and outcome.details
    ]


def _portray(outcome: Outcome, place: Path, details: RunDetails) -> Portrait:
    info = read_info(place / INFO)
    return Portrait(
        outcome=outcome,
        load=outcome.unit.rpartition("/")[0] or str(info.get("shape") or "the load"),
        details=details,
        info={key: value for key, value in info.items() if key not in LENGTHY},
    )
