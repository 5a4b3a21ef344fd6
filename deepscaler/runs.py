"""The run directory: what a run on the testbed or a real cluster leaves behind, for `calculate.py`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from deepscaler.artefacts import one_line, read_csv, read_json, replacing, utc_seconds, utc_text, write_json
from deepscaler.cluster import ENDPOINT_COLUMNS
from deepscaler.errors import DataError
from deepscaler.foreign_csv import is_missing
from deepscaler.panel import MetricPanel, iso_seconds, joined, panel_columns, read_panel, write_panel
from deepscaler.run_parts import aside, numbers_aside, parts_of

DECISION_COLUMNS = (
    "time",
    "service",
    "current",
    "ready",
    "predicted",
    "floor",
    "target",
    "applied",
    "reason",
    "mode",
    "why",
)
ADDED_LATER = ("why",)
"""Columns of texts that runs of earlier versions don't have; they read as empty."""
TEXTS = ("endpoint", "service", "reason", "mode", "why")
"""Columns of a run's tables that hold texts; beside `time`, the others hold numbers."""
AGAIN = "make runs with: python predict_scale.py"
FLOATS = "%.9g"
_GREATEST = 1e15
_Finite = Annotated[float, Field(ge=-_GREATEST, le=_GREATEST)]
_Positive = Annotated[float, Field(gt=0, le=_GREATEST)]
_Numbers = dict[str, Annotated[float, Field(ge=0, le=_GREATEST)] | None]
POD_COLUMNS = ("time", "service", "spec", "starting", "ready")


@dataclass(frozen=True)
class PolicyName:
    """The name of a policy, with what it means.

    Attributes:
        text: the name as the user writes it: `hpa_70`, `deepscaler`.
        family: the kind of policy, which settings of one knob share: `hpa`, `deepscaler`.
        knob: the number that tells members of a family apart: 70; None for a policy without one.
    """

    text: str
    family: str
    knob: float | None = None

    @classmethod
    def parse(cls, text: str) -> PolicyName:
        """The name taken apart: a number after the last `_` is the knob; `_r` goes with the family."""
        family, _, knob = text.rpartition("_")
        if knob.startswith("r"):
            family, knob = f"{family}_r", knob[1:]
        if family and knob.replace(".", "", 1).isdecimal():
            return cls(text, family, float(knob))
        return cls(text, text)

    def to_dict(self) -> dict[str, Any]:
        """The entries of run.json that name the policy."""
        return {"policy": self.text, "family": self.family, "knob": self.knob}

    def __str__(self) -> str:
        return self.text


@dataclass
class Run:
    """One policy on one load.

    Attributes:
        info: policy (with family and knob), settings, limits (service -> cores), sla and slo (endpoint -> s),
            seed, versions, bundle hash; on the testbed also `oracle` (service -> list of replicas, one value
            per minute) and, if its pods are slow at first, `warm_up` (service -> seconds, slowdown).
        endpoints: `ENDPOINT_COLUMNS`; times are seconds since the epoch.
        decisions: `DECISION_COLUMNS`.
        pods: `POD_COLUMNS`, sampled regularly.
        panel: the metrics; None where the run kept none.
        needed: `time` and a column per service: replicas that the true load needed at each moment, on the
            testbed.
    """

    info: dict[str, Any]
    endpoints: pd.DataFrame
    decisions: pd.DataFrame
    pods: pd.DataFrame
    panel: MetricPanel | None = field(default=None, repr=False)
    needed: pd.DataFrame | None = field(default=None, repr=False)

    @property
    def policy(self) -> PolicyName:
        """Which policy ran. Older run directories state its name alone, which is then taken apart."""
        if "family" not in self.info:
            return PolicyName.parse(self.info["policy"])
        return PolicyName(self.info["policy"], self.info["family"], self.info.get("knob"))


def write_run(
    run: Run,
    directory: str | Path,
    tables: Sequence[str] = ("endpoints", "decisions", "pods"),
    *,
    compact: bool = False,
) -> None:
    """Write the files beside the old ones, then let them take their places at once, `run.json` last.

    Of the tables only those that are named are written; others stay as they are. A `compact` run has them
    compressed (`endpoints.csv.gz`), a sixth of the size; experiments keep thousands of runs.

    A process killed while it writes leaves the previous run whole; killed in the instant of the exchange it
    leaves no `run.json`, and so no run.
    """
    directory = Path(directory)
    outdated = [] if run.panel is not None else [directory / "metrics.csv"]
    for name in (*tables, "metrics"):
        outdated += [
            aside(directory / f"{name}.csv", number) for number in numbers_aside(directory / f"{name}.csv")
        ]
    with ExitStack() as exchange:
        info = exchange.enter_context(
            replacing(directory / "run.json")
        )  # entered first: takes its place last
        for name in (*tables, *(("needed",) if run.needed is not None else ())):
            frame: pd.DataFrame = getattr(run, name)
            written, other = _places(directory, name)[:: -1 if compact else 1]
            _write(frame, exchange.enter_context(replacing(written)))
            outdated.append(other)
        if run.panel is not None:
            write_panel(run.panel, exchange.enter_context(replacing(directory / "metrics.csv")))
        write_json(info, run.info)
        (directory / "run.json").unlink(missing_ok=True)
        for path in outdated:
            path.unlink(missing_ok=True)


def _places(directory: Path, name: str) -> tuple[Path, Path]:
    """Where a table lies as text, and where compressed."""
    return directory / f"{name}.csv", directory / f"{name}.csv.gz"


def _place(directory: Path, name: str) -> Path:
    """Where a table lies."""
    text, compressed = _places(directory, name)
    return compressed if compressed.is_file() and not text.is_file() else text


def _write(frame: pd.DataFrame, path: Path) -> None:
    packed = {"method": "gzip", "compresslevel": 6, "mtime": 1} if path.suffix == ".gz" else None
    _told(frame).to_csv(path, index=False, float_format=FLOATS, compression=packed)


def table_lines(frame: pd.DataFrame) -> str:
    """The rows of a table of a run directory as they stand on disk, without the header."""
    return str(_told(frame).to_csv(index=False, header=False, float_format=FLOATS, lineterminator="\n"))


def _told(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(time=[utc_text(moment) for moment in frame["time"]])


def read_run(directory: str | Path) -> Run:
    """Read a run directory, with the parts of its files that were moved aside as they grew.

    Raises:
        DataError: a file or a column is missing or broken.
    """
    directory = Path(directory)
    if not (directory / "run.json").is_file():
        raise DataError(f"{directory}: no run.json; make runs with: python predict_scale.py")
    info = read_info(directory / "run.json")
    metrics, needed = directory / "metrics.csv", _place(directory, "needed")
    return Run(
        info=info,
        endpoints=_read(_place(directory, "endpoints"), ENDPOINT_COLUMNS),
        decisions=_read(_place(directory, "decisions"), DECISION_COLUMNS),
        pods=_read(_place(directory, "pods"), POD_COLUMNS),
        panel=_read_panel(metrics) if metrics.is_file() else None,
        needed=_read(needed, ("time",), ()) if needed.is_file() else None,
    )


def find_runs(directory: str | Path) -> list[Path]:
    """Run directories at or below `directory`, sorted by name.

    Raises:
        DataError: there are none.
    """
    found = sorted(path.parent for path in Path(directory).glob("**/run.json"))
    if not found:
        raise DataError(f"{directory}: no run directories in it; make runs with: python predict_scale.py")
    return found


def read_info(path: Path) -> dict[str, Any]:
    """What run.json says.

    Raises:
        DataError: it can't be read.
    """
    info = read_json(path, AGAIN)
    try:
        _Info.model_validate(info)
        for key in ("start", "oracle_times"):
            for moment in np.atleast_1d(np.array(info.get(key) or [], dtype=object)):
                utc_seconds(moment) if isinstance(moment, str) else None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {one_line(where)}: {first['msg']}; {AGAIN}") from error
    except ValueError as error:
        raise DataError(f"{path}: start, oracle_times: {one_line(error)}; {AGAIN}") from error
    return info


class _WarmUp(BaseModel):
    """For how long a ready pod is slow, and how many times the CPU its requests take meanwhile."""

    model_config = ConfigDict(strict=True)
    seconds: Annotated[float, Field(ge=0, le=1e6)]
    slowdown: Annotated[float, Field(ge=1, le=1e6)]


class _Info(BaseModel):
    """What is read of run.json; null is what isn't known."""

    model_config = ConfigDict(strict=True)
    policy: Annotated[str, Field(min_length=1)] | None = None
    family: str | None = None
    knob: FiniteFloat | None = None
    limits: _Numbers | None = None
    requests: _Numbers | None = None
    sla: dict[str, _Positive] | None = None
    slo: dict[str, _Positive] | None = None
    start: str | _Finite | None = None
    history_seconds: Annotated[float, Field(ge=0, le=1e9)] | None = None
    oracle: dict[str, list[_Finite | None]] | None = None
    oracle_times: list[str | _Finite] | None = None
    warm_up: dict[str, _WarmUp] | None = None
    decision_seconds: list[_Finite] | _Finite | None = None


def _read(path: Path, columns: tuple[str, ...], texts: tuple[str, ...] = TEXTS) -> pd.DataFrame:
    """A table with its parts: texts, numbers (NaN for empty cells), and times in seconds.

    Raises:
        DataError: there is no such file, a column is missing, or a cell holds something else.
    """
    needed = [name for name in columns if name not in ADDED_LATER]
    parts = [_read_part(part, columns, needed, texts) for part in parts_of(path, needed)]
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]


def _read_part(
    path: Path, columns: Sequence[str], needed: Sequence[str], texts: Sequence[str]
) -> pd.DataFrame:
    """See `_read`."""
    told = (*texts, "time")
    frame = read_csv(path, columns=needed, command="python predict_scale.py", torn=True, text=told)
    for name in set(columns) - set(frame.columns):
        frame[name] = ""
    times = iso_seconds(frame["time"])
    if np.isnan(times).any():
        raise DataError(f"{path}: line {int(np.isnan(times).argmax()) + 2}: broken time")
    for name in frame.columns:
        if name not in told:
            frame[name] = _numbers(frame[name], path)
    frame["time"] = times
    return frame


def _read_panel(path: Path) -> MetricPanel:
    """metrics.csv with its parts, which have the same columns.

    Raises:
        DataError: a file is broken, or its times don't follow those of the part before it.
    """
    newest = read_panel(path, torn=True)
    columns = panel_columns(newest.services, newest.features)
    older = parts_of(path, columns)[:-1]
    if not older:
        return newest
    parts = [read_panel(part, newest.services, newest.features, torn=True) for part in older] + [newest]
    for part, (before, after) in zip(older, pairwise(parts), strict=True):
        if after.times[0] <= before.times[-1]:
            raise DataError(f"{part}: ends after the next part of {path} begins; take one of them away")
    return joined(parts)


def _numbers(cells: pd.Series, path: Path) -> pd.Series:
    """Cells that are numbers already, or texts where some aren't."""
    if cells.dtype.kind in "iuf":
        texts, numbers = None, cells
    else:
        texts = cells.astype(str)
        numbers = pd.to_numeric(texts, errors="coerce")
    wrong = ~(numbers.abs() <= _GREATEST)
    if texts is not None and wrong.any():
        wrong &= numbers.notna() | ~is_missing(texts)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        found = one_line(cells.iloc[row], 60)
        raise DataError(
            f"{path}: line {row + 2}: column {cells.name!r} holds something that isn't a number: {found!r}"
        )
    return numbers
