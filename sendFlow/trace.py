"""Load traces: `.req` (one number of users per line and 5 s) and CSV files of counts, without Locust."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import MOST_TEXT_BYTES, one_line, read_text, utc_seconds, utc_text, write_text
from deepscaler.errors import DataError

PACKED = ".gz"
COUNTS = (".csv", ".csv.gz")
"""Endings of files of counts."""
USERS = (".req", ".txt")
"""Endings of files of users."""
MOST_USERS = 1_000_000_000
"""No load has more users, or arrivals per second."""
TIMES = ("time", "ts")
"""What a column of times may be called."""
README_TRACE = Path(__file__).with_name("random-100max.req")
REQ_STEP = 5.0
"""Seconds per line of a `.req` file."""
IDLE_STEPS = 5
"""Idle lines before and after the trace in one round of `sendLoop.sh`."""
MAX_GAP_STEPS = 10
_MOST_DIGITS = 12
_LEAST_GAP = 1e-6  # seconds; from one row to the next
_FIRST_SECOND, _LAST_SECOND, _GREATEST = -6.2e10, 1e11, 1e15
BYTE_ORDER_MARK = "\ufeff"
"""What some editors and spreadsheets write before the first line."""


@dataclass(frozen=True)
class Series:
    """A trace of users, or of arrivals per second.

    Attributes:
        values: `[L]`.
        step: seconds per value.
        start: seconds since the epoch (UTC) of the first value; 0 where the file has no times.
    """

    values: NDArray[np.float64]
    step: float
    start: float = 0.0

    def adjusted(self, *, scale: float = 1.0, step: float | None = None) -> Series:
        """The trace multiplied by `scale`, each value lasting `step` seconds (None: as recorded)."""
        return replace(self, values=self.values * scale, step=self.step if step is None else step)

    def since(self, moment: float) -> Series:
        """The trace from `moment` (seconds since the epoch) on.

        Raises:
            DataError: the trace has no value then.
        """
        first = int(np.ceil((moment - self.start) / self.step - 1e-9))
        if not 0 <= first < len(self.values):
            raise DataError(
                f"the trace holds {utc_text(self.start)} to "
                f"{utc_text(self.start + len(self.values) * self.step)}; {utc_text(moment)} is outside"
            )
        return replace(self, values=self.values[first:], start=self.start + first * self.step)

    def with_idle_ends(self, steps: int = IDLE_STEPS) -> Series:
        """One round of the trace: idle steps before and after it."""
        return replace(self, values=np.pad(self.values, steps), start=self.start - steps * self.step)

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """The value `[K]` that holds at each of `times` (seconds since the first value), in a loop."""
        return self.values[np.floor(times / self.step + 1e-9).astype(np.int64) % len(self.values)]


def users_at(one_round: Series, elapsed: float, rounds: int = 1) -> int | None:
    """Users that a trace asks for after some time; None once it has been played `rounds` times.

    Args:
        one_round: the trace, idle ends included.
        elapsed: seconds since the start.
        rounds: how often it is played; 0: without end.
    """
    if rounds and elapsed >= rounds * len(one_round.values) * one_round.step:
        return None
    return max(round(float(one_round.at(np.array([elapsed]))[0])), 0)


def read_trace(path: str | Path, column: str | None = None) -> Series:
    """Any trace: `.csv` and `.csv.gz` by `read_counts`, else by `read_req`.

    Raises:
        DataError: missing or broken; names file and line.
    """
    if Path(path).suffix in (".csv", PACKED):
        return read_counts(path, column)
    return Series(read_req(path).astype(np.float64), REQ_STEP)


def read_req(path: str | Path) -> NDArray[np.int64]:
    """The integers of a `.req` file, `[L]`.

    Raises:
        DataError: missing, empty, or a line that isn't an integer >= 0; names file and line.
    """
    values = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip().isdecimal() or len(line.strip()) > _MOST_DIGITS:
            raise DataError(
                f"{path}:{number}: expected one integer >= 0 per line, found {one_line(line, 60)!r}"
            )
        values.append(int(line.strip()))
    if not values:
        raise DataError(f"{path}: no values; expected one integer per line")
    return np.array(values, np.int64)


def write_req(path: str | Path, values: NDArray[np.int64] | list[int]) -> None:
    """Write a `.req` file."""
    write_text(path, "".join(f"{int(value)}\n" for value in values))


def read_counts(path: str | Path, column: str | None = None) -> Series:
    """The counts of a CSV as a rate per second; gaps of a few steps are bridged.

    Args:
        path: a CSV, compressed if its name ends in .gz, with a column `time` or `ts` (ISO 8601 or seconds
            since the epoch).
        column: column of the counts; None: the only one beside the times.

    Raises:
        DataError: missing file, column or value, times in no order, a long gap; names file and line.
    """
    rows = _rows(path)
    _, header = next(rows, (1, []))
    at = _place_of_times(path, header)
    of = _place_of(path, header, column)
    lines: list[int] = []
    times: list[float] = []
    counts: list[float] = []
    for line, row in rows:
        moment, count = _time_and_count(f"{path}:{line}", row, at, of)
        lines.append(line)
        times.append(moment)
        counts.append(count)
    if len(times) < 2:
        raise DataError(f"{path}: expected at least two rows of counts, found {len(times)}")
    if all(after < before for before, after in pairwise(times)):  # the newest row stands first
        for column_of_file in (lines, times, counts):
            column_of_file.reverse()
    moments = np.array(times)
    gaps = np.diff(moments)
    if (gaps < _LEAST_GAP).any():
        late = int(np.argmax(gaps < _LEAST_GAP)) + 1
        raise DataError(
            f"{path}:{lines[late]}: its time isn't later than that of line {lines[late - 1]}; sort the rows "
            "by time, with one row for each"
        )
    step = float(np.median(gaps))
    worst = int(np.argmax(gaps))
    if gaps[worst] > MAX_GAP_STEPS * step:
        raise DataError(
            f"{path}:{lines[worst + 1]}: {gaps[worst]:g} s without a row; rows are {step:g} s apart, "
            f"at most {MAX_GAP_STEPS} may be missing"
        )
    grid = np.arange(round((moments[-1] - moments[0]) / step) + 1) * step + moments[0]
    return Series(np.interp(grid, moments, np.array(counts)) / step, step, float(moments[0]))


def _rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV, and the line at which each ends."""
    rows = csv.reader(_lines(path))
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}:{rows.line_num}: can't be read as CSV ({one_line(error)})") from error


def _place_of_times(path: str | Path, header: list[str]) -> int:
    """Place of the column of times."""
    found = [header.index(name) for name in TIMES if name in header]
    if not found:
        raise DataError(f"{path}:1: expected a column `time`, found {', '.join(header) or 'nothing'}")
    return found[0]


def _place_of(path: str | Path, header: list[str], column: str | None) -> int:
    """Place of the column of counts."""
    others = [name for name in header if name not in TIMES]
    if column is None and len(others) != 1:
        raise DataError(
            f"{path}:1: expected one column of counts beside the times, found {', '.join(others) or 'none'}; "
            "write the times and the one to play into a file of their own"
        )
    if column is not None and column not in others:
        raise DataError(f"{path}:1: no column {column!r}; columns: {', '.join(others)}")
    return header.index(column or others[0])


def _time_and_count(where: str, row: list[str], at: int, of: int) -> tuple[float, float]:
    try:
        moment, count = _seconds(row[at]), float(row[of])
    except (ValueError, IndexError) as error:
        found = one_line(",".join(row), 60)
        raise DataError(f"{where}: expected a time and a number, found {found!r}") from error
    if not _FIRST_SECOND < moment < _LAST_SECOND:
        raise DataError(f"{where}: expected a time, found {one_line(row[at], 60)!r}")
    if not 0 <= count <= _GREATEST:
        raise DataError(f"{where}: expected a count >= 0, found {one_line(row[of], 60)!r}")
    return moment, count


def _lines(path: str | Path) -> list[str]:
    if not Path(path).exists():
        if str(path).endswith(COUNTS):
            raise DataError(f"{path}: no such file")
        raise DataError(
            f"{path}: no such trace; the README's is sendFlow/random-100max.req, "
            "made by: python sendFlow/make_trace.py"
        )
    text = _unpacked(path) if Path(path).suffix == PACKED else read_text(path)
    return text.removeprefix(BYTE_ORDER_MARK).splitlines()


def _unpacked(path: str | Path) -> str:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            text = file.read(MOST_TEXT_BYTES + 1)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read as compressed text ({one_line(error)})") from error
    if len(text) > MOST_TEXT_BYTES:
        raise DataError(f"{path}: more than {MOST_TEXT_BYTES / 2**20:g} MiB of text, which is no trace")
    return text


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return utc_seconds(text.strip())
