"""What a soak found: one file per run, and tables of crashes, unsafe writes, violations and recoveries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from deepscaler.artefacts import one_line, read_json, write_json
from deepscaler.errors import DataError
from testbed.cluster.faults import KINDS, Fault

MINUTE = 60.0
AFTER_SECONDS = 300.0
"""What happens in a fault or so soon after it is put down to it; the next one begins no earlier."""
NO_FAULT = "none"


@dataclass
class Soaked:
    """What one run was like. Seconds and minutes are counted from its start.

    Attributes:
        seed: of load, faults and requests.
        faulty: whether there were faults; else it is the calm twin.
        asked: what else was asked for: config, policy, hours.
        ticks, failed_ticks: of all controllers of the run.
        crash: the traceback of an error that isn't one of ours; "" without any.
        unsafe: writes that took replicas away while metrics were out or partial, or from a service that was
            held.
        minutes: those with requests.
        violating: those of them whose mean response broke the SLA.
        replica_hours: that were asked for.
        faults: in their order.
        recoveries: for each fault the seconds from its end until a tick was complete and held nothing; None
            if none was.
        cpu_seconds: of the processor that the run took.
    """

    seed: int
    faulty: bool
    asked: dict[str, str | float]
    ticks: int = 0
    failed_ticks: int = 0
    crash: str = ""
    unsafe: list[str] = field(default_factory=list)
    minutes: list[int] = field(default_factory=list)
    violating: list[int] = field(default_factory=list)
    replica_hours: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    recoveries: list[float | None] = field(default_factory=list)
    cpu_seconds: float = 0.0

    @cached_property
    def causes(self) -> dict[int, str]:
        """Each of `minutes` -> the kind of the fault that acted in it or ended soon before; `NO_FAULT`."""
        found = dict.fromkeys(self.minutes, NO_FAULT)
        for fault in self.faults:
            last = int((fault.end + AFTER_SECONDS) // MINUTE)
            for minute in range(int(fault.start // MINUTE), last + 1):
                if found.get(minute) == NO_FAULT:  # a minute that two touch is the earlier one's
                    found[minute] = fault.kind
        return found


def place_of(directory: Path, seed: int, faulty: bool) -> Path:
    """Where a run lies."""
    return directory / f"{seed}-{'faults' if faulty else 'calm'}.json"


def write_soaked(directory: Path, found: Soaked) -> None:
    """Write a run to its place."""
    write_json(place_of(directory, found.seed, found.faulty), asdict(found))


def read_soaked(path: Path) -> Soaked:
    """The run in a file.

    Raises:
        DataError: it holds none.
    """
    again = "remove it and run the soak again"
    try:
        return TypeAdapter(Soaked).validate_python(read_json(path, again))
    except ValidationError as error:
        raise DataError(f"{path}: not a run of a soak ({one_line(error)}); {again}") from error


def read_all(directory: Path) -> list[Soaked]:
    """All runs in a directory, by seed, the calm one first.

    Raises:
        DataError: there are none, or one can't be read.
    """
    found = [read_soaked(path) for path in directory.glob("*-*.json")]
    if not found:
        raise DataError(f"{directory}: no runs of a soak; make some with: python -m testbed.experiments.soak")
    return sorted(found, key=lambda one: (one.seed, one.faulty))


# ----------------------------------------------------------------------------------------------------- tables
def report(found: Sequence[Soaked]) -> str:
    """The tables for people. Only seeds of which both runs are there count."""
    calm = {one.seed: one for one in found if not one.faulty}
    pairs = [(one, calm[one.seed]) for one in found if one.faulty and one.seed in calm]
    lines = [*_by_seed(pairs), "", *_by_fault(pairs), "", *_minutes(pairs)]
    alone = len(found) - 2 * len(pairs)
    if alone:
        lines.append(f"{alone} runs have no twin yet and aren't counted")
    return "\n".join(lines)


Pairs = Sequence[tuple[Soaked, Soaked]]
"""Runs among faults, each with its calm twin."""


def _by_seed(pairs: Pairs) -> Iterator[str]:
    yield "seed    ticks  failed  crashes  unsafe       violating minutes         replica hours         CPU s"
    yield f"{'':34s}{'(calm)':>25s}{'(calm)':>22s}{'(calm)':>14s}"
    rows = [(str(one.seed), [(one, other)]) for one, other in pairs]
    for name, part in [*rows, ("all", list(pairs))]:
        found, calm = _sums([one for one, _ in part]), _sums([other for _, other in part])
        violating = f"{found['violating']:.0f} of {found['minutes']:.0f} ({calm['violating']:.0f})"
        hours, cpu = (f"{found[key]:.0f} ({calm[key]:.0f})" for key in ("hours", "cpu"))
        counts = (f"{found[key]:.0f}" for key in ("ticks", "failed", "crashes", "unsafe"))
        yield (
            "{:4s}{:>9s}{:>8s}{:>9s}{:>8s}".format(name, *counts) + f"{violating:>25s}{hours:>22s}{cpu:>14s}"
        )


def _sums(runs: Sequence[Soaked]) -> dict[str, float]:
    return {
        "ticks": sum(one.ticks for one in runs),
        "failed": sum(one.failed_ticks for one in runs),
        "crashes": sum(bool(one.crash) for one in runs),
        "unsafe": sum(len(one.unsafe) for one in runs),
        "violating": sum(len(one.violating) for one in runs),
        "minutes": sum(len(one.minutes) for one in runs),
        "hours": sum(one.replica_hours for one in runs),
        "cpu": sum(one.cpu_seconds for one in runs),
    }


def _by_fault(pairs: Pairs) -> Iterator[str]:
    yield "fault            times  recovery p50    p95    max (s)  minutes  violating (calm)"
    for kind in (*KINDS, NO_FAULT):
        taken = [
            float("inf") if seconds is None else seconds
            for one, _ in pairs
            for fault, seconds in zip(one.faults, one.recoveries, strict=True)
            if fault.kind == kind
        ]
        spans = [{minute for minute, cause in one.causes.items() if cause == kind} for one, _ in pairs]
        bad = sum(len(span & set(one.violating)) for span, (one, _) in zip(spans, pairs, strict=True))
        calm = sum(len(span & set(other.violating)) for span, (_, other) in zip(spans, pairs, strict=True))
        p50, p95, most = (
            f"{float(np.quantile(taken, level, method='higher')):.0f}" if taken else ""
            for level in (0.5, 0.95, 1.0)
        )
        times = str(len(taken)) if taken else ""
        minutes = sum(map(len, spans))
        yield f"{kind:16s}{times:>6s}{p50:>14s}{p95:>7s}{most:>7s}{minutes:13d}{f'{bad} ({calm})':>18s}"
    yield f"A minute belongs to a fault that acts in it or ended at most {AFTER_SECONDS:g} s before."


def _minutes(pairs: Pairs) -> Iterator[str]:
    """Which minutes were violating, and what they are put down to."""
    for one, _ in pairs:
        runs: list[list[int]] = []
        for before, minute in pairwise([-2, *one.violating]):
            same = minute == before + 1 and one.causes[minute] == one.causes[before]
            runs[-1:] = [[runs[-1][0], minute]] if same else [*runs[-1:], [minute, minute]]
        if runs:
            parts = [
                f"{one.causes[first]} {first}" + (f"-{last}" if last > first else "") for first, last in runs
            ]
            yield f"seed {one.seed}, violating minutes: {', '.join(parts)}"


def to_dict(found: Sequence[Soaked]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "calm": [asdict(one) for one in found if not one.faulty],
        "faults": [asdict(one) for one in found if one.faulty],
    }
