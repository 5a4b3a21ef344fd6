"""Which points of an experiment's sweeps are taken to the test: chosen on validation seeds alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from deepscaler.artefacts import read_json, write_json
from deepscaler.errors import DataError
from deepscaler.evaluation.comparison import REFERENCES, pareto_front
from testbed.experiments.matrix import Case, Task

CHOSEN = "chosen.json"
POINTS = TypeAdapter(dict[str, list[str]])


def choose(
    cases: Sequence[Case], summaries: Mapping[str, Mapping[str, Any]], most_violations: float
) -> dict[str, list[str]]:
    """Case -> names of the points that are taken to the test.

    Of each sweep these are the cheapest point with at most `most_violations` violating minutes (or the one
    with the fewest), the one of the lowest realised cost, and those between which the cost and the violations
    of each other policy lie, so that the sweep can be read at equal cost and at equal violations.
    """
    return {case.name: sorted(set(_points(case, summaries[case.name], most_violations))) for case in cases}


def choice_key(tasks: Sequence[Task], most_violations: float) -> str:
    """The same while the choice is the same question: it names all that the choice depends on.

    Args:
        tasks: all runs on validation seeds.
        most_violations: as for `choose`.
    """
    runs = [
        json.dumps(
            [task.case.name, str(task.entrant.name), task.entrant.sweep, *_judged(task), task.made_of()]
        )
        for task in tasks
    ]
    return hashlib.sha256(json.dumps([most_violations, sorted(runs)]).encode()).hexdigest()


def _judged(task: Task) -> tuple[float, dict[str, float]]:
    settings = task.case.settings
    return settings.evaluate.warmup, settings.scale.prices.model_dump(mode="json")


def write_chosen(path: Path, chosen: Mapping[str, Sequence[str]], seeds: Sequence[int], key: str) -> None:
    """Keep what was chosen, on which seeds, and the `choice_key` of the question."""
    write_json(path, {"seeds": list(seeds), "made_of": key, "points": dict(chosen)})


def read_chosen(path: Path, key: str) -> dict[str, list[str]]:
    """What `write_chosen` kept.

    Raises:
        DataError: it isn't there, can't be read, or was chosen under another `key`.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; run the experiment without --test first")
    again = "run the experiment again without --test"
    found = read_json(path, again)
    try:
        points = POINTS.validate_python(found.get("points"))
    except ValidationError as error:
        raise DataError(f"{path}: no points by case; {again}") from error
    if found.get("made_of") != key:
        raise DataError(
            f"{path}: what was chosen answers other seeds, loads, policies, settings or files than are asked "
            f"for now; {again}, all other flags the same"
        )
    return points


def _points(case: Case, summary: Mapping[str, Any], most_violations: float) -> Iterator[str]:
    rows = summary["policies"]
    sweeps: dict[str, list[str]] = {}
    for one in case.entrants:
        if one.sweep:
            sweeps.setdefault(one.sweep, []).append(str(one.name))
    others = [str(one.name) for one in case.entrants if not one.sweep and one.name.family not in REFERENCES]
    for members in sweeps.values():
        holding = [name for name in members if rows[name]["violation_rate"] <= most_violations]
        yield (
            min(holding, key=lambda name: rows[name]["core_hours"])
            if holding
            else min(members, key=lambda name: rows[name]["violation_rate"])
        )
        yield min(members, key=lambda name: rows[name].get("realised_cost", rows[name]["core_hours"]))
        front = pareto_front(
            {name: (rows[name]["violation_rate"], rows[name]["core_hours"]) for name in members}
        )
        for other in others:
            for measure in ("core_hours", "violation_rate"):
                yield from _around(front, rows, measure, rows[other][measure])


def _around(front: Sequence[str], rows: Mapping[str, Any], measure: str, value: float) -> Iterator[str]:
    """The points of the front next below and next above a value; one of them may not be there."""
    below = [name for name in front if rows[name][measure] <= value]
    above = [name for name in front if rows[name][measure] >= value]
    if below:
        yield max(below, key=lambda name: rows[name][measure])
    if above:
        yield min(above, key=lambda name: rows[name][measure])
