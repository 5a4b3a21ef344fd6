"""From run directories to summary.json: every run is measured, and the policies are compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepscaler.artefacts import one_line, read_json, write_json
from deepscaler.errors import DataError
from deepscaler.evaluation.comparison import ComparedPolicy, Outcome, compare_policies
from deepscaler.evaluation.measured import Measured, measured
from deepscaler.runs import AGAIN, PolicyName, find_runs
from deepscaler.settings import PlanPrices

BED = (
    "application",
    "demand_sigma",
    "demand_seed",
    "boot_seconds",
    "balancing",
    "initial_replicas",
    "history",
)
"""What an emulated cluster is, beside its load. What policies are told of it, and how late, may differ."""
OVER_THE_RUN = ("slight_increase", "slight_decrease", "sharp_increase", "sharp_decrease", "diurnal", "bursts")
"""Shapes of a load that are stretched or drawn over the whole run: its length makes them another load."""


@dataclass(frozen=True)
class _Found:
    """One run as it was found, before it is known which names repeat."""

    directory: str
    unit: str
    place: Path
    known: Measured

    @property
    def policy(self) -> PolicyName:
        return self.known.policy


def gather(directories: Sequence[str], warmup: float, prices: PlanPrices | None = None) -> list[Outcome]:
    """Measure every run below `directories`, after `warmup` seconds are cut from its start.

    The directory becomes part of a policy's name if one of the policies lies in several directories: as much
    of its path as tells it from the others. A unit is a seed, with the subdirectory before it where runs lie
    deeper.

    Args:
        directories: where runs lie, at any depth; one that is given twice counts once.
        warmup: seconds that aren't judged.
        prices: those of the realised cost; by default the defaults of `scale.prices`.

    Raises:
        DataError: there are no runs, one of them is broken (the message names it), or two are of one policy
            and seed.
    """
    prices, named = prices or PlanPrices(), _named(directories)
    found = [_find(directory, place, warmup, prices) for directory in named for place in find_runs(directory)]
    shared = Counter(text for _, text in {(run.directory, run.policy.text) for run in found})
    prefixed = any(count > 1 for count in shared.values())
    places: dict[tuple[ComparedPolicy, str], Path] = {}
    outcomes = []
    for run in found:
        entrant = ComparedPolicy(run.policy, named[run.directory] if prefixed else "")
        earlier = places.setdefault((entrant, run.unit), run.place)
        if earlier != run.place:
            twice = f"same policy and seed ({entrant}, {run.unit}) as {earlier}"
            raise DataError(f"{run.place}: {twice}; give their directories one by one to --runs")
        known = run.known
        outcomes.append(Outcome(entrant, run.unit, known.measures, run.place, warmup, prices, known.details))
    _same_loads(found)
    return outcomes


def _named(directories: Sequence[str]) -> dict[str, str]:
    """Each directory once, with its name: as few of its path's last parts as no other directory has."""
    once: dict[Path, str] = {}
    for directory in directories:
        once.setdefault(Path(directory).resolve(), directory)
    parts, found = {directory: path.parts for path, directory in once.items()}, dict[str, str]()
    for directory, own in parts.items():
        others = [other for name, other in parts.items() if name != directory]
        length = next(n for n in range(1, len(own) + 1) if own[-n:] not in [other[-n:] for other in others])
        found[directory] = Path(*own[-length:]).as_posix()
    return found


def _same_loads(found: Sequence[_Found]) -> None:
    """Refuse to compare policies that met other loads, or emulated clusters: the seed alone doesn't tell.

    Raises:
        DataError: names two runs, and what differs.
    """
    first: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}
    for run in found:
        load = _emulated(run.place)
        place, other = first.setdefault((run.directory, run.unit), (run.place, load))
        differs = [key for key in sorted(load.keys() & other.keys()) if load[key] != other[key]]
        if differs:
            key = differs[0]
            raise DataError(
                f"{run.place}: its load isn't that of {place}, or its emulated cluster isn't "
                f"(testbed.{key} is {one_line(load[key], 60)}, there {one_line(other[key], 60)}); "
                "give runs of other loads or clusters a directory of their own"
            )


def _emulated(place: Path) -> dict[str, Any]:
    """What load and cluster of a run on the testbed depend on, beside the seed; empty for other runs."""
    settings = read_json(place / "run.json", AGAIN).get("settings")
    bed = settings.get("testbed") if isinstance(settings, dict) else None
    cluster = settings.get("cluster") if isinstance(settings, dict) else None
    if not isinstance(bed, dict) or not isinstance(cluster, dict) or cluster.get("kind") != "testbed":
        return {}
    load = bed.get("load")
    parts = {f"load.{key}": value for key, value in load.items()} if isinstance(load, dict) else {}
    keys = (*BED, "duration") if parts.get("load.shape") in OVER_THE_RUN else BED
    return {**{key: bed[key] for key in keys if key in bed}, **parts}


def _find(directory: str, place: Path, warmup: float, prices: PlanPrices) -> _Found:
    known = measured(place, warmup, prices)
    inner = place.relative_to(directory).parent.as_posix()
    return _Found(directory, known.seed if inner == "." else f"{inner}/{known.seed}", place, known)


def summarize(outcomes: Sequence[Outcome], baseline: str) -> dict[str, Any]:
    """summary.json: what `compare_policies` returns, the measures of all `runs`, and `baseline`."""
    runs = [
        {"policy": str(outcome.entrant), "unit": outcome.unit, **outcome.measures} for outcome in outcomes
    ]
    return {**compare_policies(outcomes, baseline), "runs": runs, "baseline": baseline}


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write summary.json, but keep its `stages`, where `make demo` notes how long each stage took."""
    try:
        stages = json.loads(path.read_text(encoding="utf-8")).get("stages")
    except (OSError, ValueError, AttributeError):
        stages = None
    write_json(path, {**summary, **({"stages": stages} if stages is not None else {})})
