"""Measures and details of a run directory; kept beside the run, they are read again without its tables."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deepscaler.artefacts import read_json, write_json
from deepscaler.errors import DataError
from deepscaler.evaluation.measures import evaluate_run
from deepscaler.evaluation.realised import realised_cost
from deepscaler.evaluation.run_details import RunDetails, run_details
from deepscaler.evaluation.span import run_span
from deepscaler.runs import PolicyName, Run, read_run
from deepscaler.settings import PlanPrices

log = logging.getLogger(__name__)
KEPT = "measures.json"
"""File beside run.json that keeps measures and details, and what they were made of."""
SOURCES = ("measures.py", "realised.py", "span.py", "run_details.py", "measured.py", "../runs.py")
"""Code that the measures depend on; measures that other code made are made again."""
MOST_BEHIND = 150.0
"""Seconds by which response times may be known later than pods are."""


@dataclass(frozen=True)
class Measured:
    """What is known of a run.

    Attributes:
        policy: which policy ran.
        seed: its seed; `?` where the run states none.
        measures: what `evaluate_run` and `realised_cost` returned.
        details: what a report tells of it besides.
    """

    policy: PolicyName
    seed: str
    measures: Mapping[str, Any]
    details: RunDetails


def measured(place: Path, warmup: float, prices: PlanPrices, *, keep: bool = False) -> Measured:
    """Measures and details of the run in `place`, after `warmup` seconds are cut from its start.

    Args:
        place: the run directory.
        warmup: seconds that aren't judged.
        prices: those of the realised cost.
        keep: write them beside the run. What is kept there counts while files, warm-up, prices and
            code are the same.

    Raises:
        DataError: the run is broken; the message names it.
    """
    made_of = _made_of(place, warmup, prices)
    kept = _kept(place, made_of)
    if kept is not None:
        return kept
    run = read_run(place)
    try:
        span = run_span(run, warmup)
        _say_what_is_cut_off(place, run)
        measures = {
            **evaluate_run(run, warmup),
            **realised_cost(run, span, prices.shortage, prices.start),
        }
        details = run_details(run, span)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    found = Measured(run.policy, str(run.info.get("seed", "?")), measures, details)
    if keep:
        document = {"made_of": made_of, **found.policy.to_dict(), "seed": found.seed}
        write_json(place / KEPT, {**document, "measures": measures, "details": details.to_dict()})
    return found


def _say_what_is_cut_off(place: Path, run: Run) -> None:
    """Minutes without a row of endpoints.csv are unknown, and shares are of the others."""
    ends = {name: float(getattr(run, name)["time"].max()) for name in ("endpoints", "pods")}
    missing = ends["pods"] - ends["endpoints"]
    if missing > MOST_BEHIND:
        log.warning(
            "%s: endpoints.csv ends %.0f s before pods.csv: is it cut off? What came after it is unknown",
            place,
            missing,
        )


def _made_of(place: Path, warmup: float, prices: PlanPrices) -> dict[str, Any]:
    """All that measures depend on, as JSON has it."""
    files = sorted(path for path in place.glob("*.*") if path.name != KEPT and not path.name.startswith("."))
    return {
        "warmup": warmup,
        "prices": prices.model_dump(mode="json"),
        "files": {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in files},
        "code": _code(),
    }


def _kept(place: Path, made_of: Mapping[str, Any]) -> Measured | None:
    """What was kept beside the run, if it was made of the same."""
    with suppress(DataError, KeyError, TypeError, ValueError):
        found = read_json(place / KEPT, "")
        if found["made_of"] == made_of:
            policy = PolicyName(found["policy"], found["family"], found["knob"])
            details = RunDetails.from_dict(found["details"])
            return Measured(policy, found["seed"], _with_unknown(found["measures"]), details)
    return None


def _with_unknown(value: Any) -> Any:
    """NaN where JSON says null."""
    if isinstance(value, dict):
        return {key: _with_unknown(item) for key, item in value.items()}
    return math.nan if value is None else value


@cache
def _code() -> str:
    here = Path(__file__).parent
    return hashlib.sha256(b"".join((here / name).read_bytes() for name in SOURCES)).hexdigest()[:16]
