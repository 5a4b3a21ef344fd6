"""What a controller leaves behind: the rows of decisions.csv and pods.csv, and its counters."""

from __future__ import annotations

import csv
import io
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from deepscaler.artefacts import utc_text
from deepscaler.cluster import Pod, ScaleReport, Workload
from deepscaler.control.decision import Decision
from deepscaler.control.tables import Parser, Table, moment, optional_number, phrase, whole, word
from deepscaler.policies.base import Proposal, Reason
from deepscaler.runs import ADDED_LATER, DECISION_COLUMNS, POD_COLUMNS

ACTING, ADVISING, DRY_RUN, STANDBY = "act", "advise", "dry_run", "standby"
"""Values of the column `mode`."""
WRITING = (ACTING, ADVISING)
"""Those in which something may be written to the cluster."""
NEWEST_TICKS = 50_000
"""So many ticks are remembered one by one: those of a week."""
SHOWN = ("service", "current", "ready", "predicted", "floor", "target", "applied", "reason", "mode")
"""Columns that `decision_table` prints."""
_CELLS: dict[str, Parser] = {
    "time": moment,
    **dict.fromkeys(("service", "reason", "mode"), word),
    **dict.fromkeys(("predicted", "floor", "applied"), optional_number),
    "why": phrase,
}
"""What reads the cells of a column; the other columns are counts."""


class DecisionRow(NamedTuple):
    """One line of decisions.csv (`DECISION_COLUMNS`).

    `predicted` is what the policy wants if it makes no forecast. `applied` are the replicas that this tick
    wrote, or the minimum of the autoscaler (advise); None if nothing was to be written, nothing may be
    written (dry run, standby) or the write failed. `why` is what the policy says of its wish.
    """

    time: float
    service: str
    current: int
    ready: int
    predicted: float | None
    floor: float | None
    target: int
    applied: int | None
    reason: str
    mode: str
    why: str = ""

    @property
    def left(self) -> int:
        """`spec.replicas` when the tick was over, as far as this controller has changed it."""
        return self.current if self.applied is None or self.mode == ADVISING else self.applied


class PodRow(NamedTuple):
    """One line of pods.csv (`POD_COLUMNS`)."""

    time: float
    service: str
    spec: int
    starting: int
    ready: int


class Recorder:
    """Keeps the rows of decisions.csv and pods.csv: in memory, or appended to a run directory tick by tick.

    Rows that can't be written are lost and counted; nothing is raised, since deciding goes on without them.

    Args:
        directory: append to the files in it, after the rows of earlier controllers; None keeps the rows in
            memory.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self._rows: dict[str, list[Any]] = {"decisions": [], "pods": []}
        self._tables: dict[str, Table] = {}
        self._said: dict[str, str] = {}  # service -> `why` of its newest decision
        if directory is not None:
            for name, columns in (("decisions", DECISION_COLUMNS), ("pods", POD_COLUMNS)):
                cells = {column: _CELLS.get(column, whole) for column in columns}
                self._tables[name] = Table(Path(directory) / f"{name}.csv", cells, added=ADDED_LATER)

    @property
    def lost(self) -> int:
        """Number of rows that couldn't be written."""
        return sum(table.lost for table in self._tables.values())

    @property
    def skipped(self) -> int:
        """Number of lines that were torn or broken and are left out."""
        return sum(table.skipped for table in self._tables.values())

    def add_decisions(self, rows: Sequence[DecisionRow]) -> None:
        """Add the rows of one tick; a `why` that is the service's last one is left out, as it takes space."""
        said = self._said
        self._said = {row.service: row.why for row in rows}
        self._add(
            "decisions", [row._replace(why="") if said.get(row.service) == row.why else row for row in rows]
        )

    def add_pods(self, rows: Sequence[PodRow]) -> None:
        """Add the rows of one moment."""
        self._add("pods", rows)

    def decisions(self) -> pd.DataFrame:
        """All decisions so far, times in seconds.

        On disk also those of earlier controllers, up to the last time that the file was moved aside.
        """
        return self._frame("decisions", DECISION_COLUMNS)

    def pods(self) -> pd.DataFrame:
        """All samples of pods so far, likewise."""
        return self._frame("pods", POD_COLUMNS)

    def recent(self, since: float) -> pd.DataFrame:
        """The decisions from `since` on; of files on disk no more is read than that takes."""
        table = self._tables.get("decisions")
        if table is not None:
            return _typed(table.since(since), DECISION_COLUMNS)
        rows = self.decisions()
        return rows[rows["time"] >= since]

    def first_time(self) -> float | None:
        """The time of the first decision, those in files that were moved aside included; None without any."""
        table = self._tables.get("decisions")
        if table is not None:
            return table.first_time()
        rows = self._rows["decisions"]
        return float(rows[0].time) if rows else None

    def _add(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if not self._tables:
            self._rows[name].extend(rows)
            return
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerows(
            [utc_text(row[0]), *("" if cell is None else cell for cell in row[1:])] for row in rows
        )
        self._tables[name].append(text.getvalue(), len(rows))

    def _frame(self, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
        table = self._tables.get(name)
        return _typed(self._rows[name] if table is None else table.all(), columns)


def _typed(rows: Sequence[tuple[Any, ...]], columns: tuple[str, ...]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))
    optional = [column for column in ("predicted", "floor", "applied") if column in columns]
    return frame.astype({"time": float, **dict.fromkeys(optional, float)})  # None becomes NaN


@dataclass
class Statistics:
    """What a controller counts; `decision_seconds` are the times that its newest ticks took."""

    ticks: int = 0
    failed_ticks: int = 0
    metrics_failures: int = 0
    held: int = 0
    writes: int = 0
    failed_writes: int = 0
    foreign_edits: int = 0
    lost_rows: int = 0
    skipped_rows: int = 0
    clock_jumps: int = 0
    decision_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=NEWEST_TICKS))
    all_decision_seconds: float = 0.0

    def took(self, seconds: float) -> None:
        """Count the time that a tick took."""
        self.decision_seconds.append(seconds)
        self.all_decision_seconds += seconds

    def to_dict(self) -> dict[str, Any]:
        """The entries of run.json: `decision_seconds`, and the counters under `counters`."""
        apart = ("decision_seconds", "all_decision_seconds")
        counters = {name: value for name, value in vars(self).items() if name not in apart}
        return {"decision_seconds": list(self.decision_seconds), "counters": counters}


def decision_rows(
    now: float,
    decisions: Sequence[Decision],
    proposals: Mapping[str, Proposal],
    ready: Mapping[str, int],
    mode_of: Callable[[str], str],
) -> list[DecisionRow]:
    """One row per service, before anything is written to the cluster; `mode_of` tells its mode."""
    rows = []
    for item in decisions:
        proposal = proposals.get(item.service, Proposal(None, Reason.UNKNOWN_SERVICE))
        bare = proposal.predicted is None and proposal.floor is None
        row = DecisionRow(
            time=now,
            service=item.service,
            current=item.current,
            ready=ready.get(item.service, 0),
            predicted=_finite(proposal.target if bare else proposal.predicted),
            floor=_finite(proposal.floor),
            target=item.target,
            applied=None,
            reason=item.reason.value,
            mode=mode_of(item.service),
            why=proposal.why,
        )
        rows.append(row)
    return rows


def with_outcome(row: DecisionRow, report: ScaleReport) -> DecisionRow:
    """The row with what its write did."""
    why = report.failed.get(row.service)
    if why is None:
        return row._replace(applied=report.applied.get(row.service))
    return row._replace(reason=(Reason.CONFLICT if "conflict" in why.lower() else Reason.WRITE_FAILED).value)


def decision_table(rows: Sequence[DecisionRow]) -> str:
    """The rows of one tick for people to read."""
    recorder = Recorder()
    recorder.add_decisions(rows)
    shown = recorder.decisions().loc[:, list(SHOWN)]
    return shown.to_string(index=False, na_rep="-", float_format=lambda value: f"{value:.3g}")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def count_pods(pods: Sequence[Pod]) -> tuple[dict[str, int], dict[str, int]]:
    """Ready and starting pods by service; pods that are being deleted are neither."""
    ready: dict[str, int] = {}
    starting: dict[str, int] = {}
    for pod in pods:
        if pod.there:
            kind = ready if pod.ready else starting
            kind[pod.service] = kind.get(pod.service, 0) + 1
    return ready, starting


def pod_rows(now: float, workloads: Sequence[Workload], pods: Sequence[Pod]) -> list[PodRow]:
    """One row per service."""
    ready, starting = count_pods(pods)
    return [
        PodRow(now, item.service, item.replicas, starting.get(item.service, 0), ready.get(item.service, 0))
        for item in workloads
    ]
