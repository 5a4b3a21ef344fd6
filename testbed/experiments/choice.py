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
from deepscaler.settings import Holds
from testbed.experiments.matrix import Case, Task
from testbed.experiments.tables import keeping

CHOSEN = "chosen.json"
POINTS = TypeAdapter(dict[str, list[str]])


def choose(
    cases: Sequence[Case],
    summaries: Mapping[str, Mapping[str, Any]],
    most_violations: float,
    holds: Holds | None = None,
) -> dict[str, list[str]]:
    """Case -> names of the points that are taken to the test.

    Of each sweep these are the cheapest point with at most `most_violations` violating minutes (or the one
    with the fewest), the one of the lowest realised cost, and those between which the cost and the violations
    of each other policy lie, so that the sweep can be read at equal cost and at equal violations. Where a
    promise `holds`, also the cheapest point that keeps it, and the next one, should that not keep it on other
    seeds.
    """
    found = {}
    for case in cases:
        summary = summaries[case.name]
        points = set(_around_others(case, summary))
        for sweep, members in _sweeps(case).items():
            points |= _best(members, summary, most_violations)
            if holds is not None:
                points |= {name for name, _ in keeping(summary, sweep, holds)[:2]}
        found[case.name] = sorted(points)
    return found


def best_at_the_ends(
    cases: Sequence[Case],
    summaries: Mapping[str, Mapping[str, Any]],
    most_violations: float,
    holds: Holds | None = None,
) -> list[str]:
    """`case: point` for each best point that is the first or last of its sweep: one beyond may be better.

    The arguments are those of `choose`.
    """
    found = []
    for case in cases:
        summary = summaries[case.name]
        for sweep, members in _sweeps(case).items():
            best = _best(members, summary, most_violations)
            if holds is not None:
                best |= {name for name, _ in keeping(summary, sweep, holds)[:1]}
            found += [f"{case.name}: {name}" for name in sorted(best & {members[0], members[-1]})]
    return found


def choice_key(tasks: Sequence[Task], most_violations: float, holds: Holds | None = None) -> str:
    """The same while the choice is the same question: it names all that the choice depends on.

    Args:
        tasks: all runs on validation seeds.
        most_violations: as for `choose`.
        holds: as for `choose`.
    """
    asked = [most_violations] if holds is None else [most_violations, holds.model_dump(mode="json")]
    runs = [
        json.dumps(
            [task.case.name, str(task.entrant.name), task.entrant.sweep, *_judged(task), task.made_of()]
        )
        for task in tasks
    ]
    return hashlib.sha256(json.dumps([*asked, sorted(runs)]).encode()).hexdigest()


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


def _sweeps(case: Case) -> dict[str, list[str]]:
    """Sweep -> names of its points, in the order of its values."""
    found: dict[str, list[str]] = {}
    for one in case.entrants:
        if one.sweep:
            found.setdefault(one.sweep, []).append(str(one.name))
    return found


def _best(members: Sequence[str], summary: Mapping[str, Any], most_violations: float) -> set[str]:
    """The cheapest point within the violations, else that with the fewest, and that of the lowest cost."""
    rows = summary["policies"]
    holding = [name for name in members if rows[name]["violation_rate"] <= most_violations]
    return {
        min(holding, key=lambda name: rows[name]["core_hours"])
        if holding
        else min(members, key=lambda name: rows[name]["violation_rate"]),
        min(members, key=lambda name: rows[name].get("realised_cost", rows[name]["core_hours"])),
    }


def _around_others(case: Case, summary: Mapping[str, Any]) -> Iterator[str]:
    """Points of each sweep between which cost and violations of each other policy lie."""
    rows = summary["policies"]
    others = [str(one.name) for one in case.entrants if not one.sweep and one.name.family not in REFERENCES]
    for members in _sweeps(case).values():
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
