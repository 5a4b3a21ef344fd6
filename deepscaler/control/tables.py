"""Tables on disk that grow row by row: only whole lines are written, and only sound lines are read.

A disk that is full, a directory that can't be written and lines that are torn cost rows, never a decision:
what is lost is counted, and said once.
"""

from __future__ import annotations

import csv
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepscaler.artefacts import replacing, utc_seconds
from deepscaler.errors import DataError
from deepscaler.logs import OnChange

log = logging.getLogger(__name__)
LARGEST_BYTES = 16 * 2**20
"""A file that has grown to this size is moved aside (`decisions.1.csv`), and a new one begins."""
KEPT = 4
"""So many files that were moved aside are kept; older ones are deleted."""
_BLOCK_BYTES = 2**18
Row = tuple[Any, ...]
Parser = Callable[[str], Any]


def optional_number(text: str) -> float:
    """The number; NaN for an empty cell."""
    return float(text) if text else float("nan")


class Table:
    """One file of rows, and the older ones that were moved aside.

    Args:
        path: of the file. Its directory is made, and lines at its end that aren't sound are taken out of it;
            those before them are left out when they are read.
        columns: name -> what reads a cell, by a ValueError where it isn't sound.
        largest: size in bytes above which the file is moved aside.
        kept: how many files that were moved aside are kept.

    Attributes:
        lost: rows that couldn't be written.
        skipped: lines that weren't sound.

    Raises:
        DataError: the file has other columns.
    """

    def __init__(
        self, path: Path, columns: Mapping[str, Parser], largest: int = LARGEST_BYTES, kept: int = KEPT
    ) -> None:
        self.path, self.lost, self.skipped = path, 0, 0
        self._parsers, self._largest, self._kept = tuple(columns.values()), largest, kept
        self._header = (",".join(columns) + "\n").encode()
        self._on_change = OnChange(log, logging.ERROR)
        self._guarded(self._open, 0)

    def append(self, lines: str, rows: int) -> None:
        """Add these lines, `rows` in number, or none of them; what can't be written is lost and counted."""
        self._guarded(lambda: self._append(lines.encode()), rows)

    def since(self, moment: float) -> list[Row]:
        """The sound rows from `moment` on, read from the end backwards, up to the first that is older."""
        rows: list[Row] = []
        for path in (self.path, *(self._aside(number) for number in range(1, self._kept + 1))):
            rows = self._tail(path, moment) + rows
            if any(row[0] < moment for row in rows):
                break
        return [row for row in rows if row[0] >= moment]

    def all(self) -> list[Row]:
        """The sound rows of the file, without those of files that were moved aside."""
        return self._tail(self.path, float("-inf"))

    def first_time(self) -> float | None:
        """The time of the first sound row of the file; None if there is none."""
        try:
            with self.path.open("rb") as file:
                rows = (self._parsed(line) for line in file.read(_BLOCK_BYTES).split(b"\n")[1:])
                return next((float(row[0]) for row in rows if row is not None), None)
        except OSError:
            return None

    # ---------------------------------------------------------------------------------------------- the files
    def _guarded(self, action: Callable[[], object], rows: int) -> None:
        try:
            action()
        except OSError as error:
            self.lost += rows
            self._on_change.trouble("write", f"{self.path}: rows are lost, deciding goes on: {error}")
        else:
            self._on_change.well("write", f"{self.path}: rows are recorded again; {self.lost} were lost")

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.is_file():
            self._append(b"")
            return
        if self.path.stat().st_size >= self._largest:
            self._move_aside()
            self._append(b"")
            return
        with self.path.open("rb") as file:
            first = file.readline(_BLOCK_BYTES)
            named = first.endswith(b"\n")
            if named and first != self._header:
                raise DataError(
                    f"{self.path}: columns {first.decode(errors='replace').strip()[:200]!r}, "
                    f"expected {self._header.decode().strip()!r}; "
                    "move the file away or choose another scale.run_dir"
                )
            if file.seek(0, os.SEEK_END) - len(first) > _BLOCK_BYTES:
                file.seek(-_BLOCK_BYTES, os.SEEK_END)
                file.readline()
            else:
                file.seek(len(first))
            begin, lines = file.tell(), file.read().splitlines(keepends=True)
        sound = [line for line in lines if line.endswith(b"\n") and self._parsed(line) is not None]
        if len(sound) < len(lines) or not named:
            self._skip(len(lines) - len(sound))
            self._mend(begin if named else 0, sound)

    def _mend(self, begin: int, lines: Sequence[bytes]) -> None:
        """Replace what follows the first `begin` bytes by these lines; a file without a header gets one."""
        with replacing(self.path) as temporary, temporary.open("wb") as new:
            if begin:
                shutil.copyfile(self.path, temporary)
                new.seek(begin)
                new.truncate()
            new.write((b"" if begin else self._header) + b"".join(lines))

    def _append(self, data: bytes) -> None:
        if self.path.is_file() and self.path.stat().st_size >= self._largest:
            self._move_aside()
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            data = (b"" if size else self._header) + b"\n" * torn + data
            try:
                while data:
                    data = data[os.write(handle, data) :]
            except OSError:
                os.ftruncate(handle, size)  # a full disk took a part of the lines
                raise
        finally:
            os.close(handle)

    def _aside(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.{number}{self.path.suffix}")

    def _move_aside(self) -> None:
        for number in range(self._kept, 0, -1):
            newer = self._aside(number - 1) if number > 1 else self.path
            if newer.is_file():
                os.replace(newer, self._aside(number))

    # -------------------------------------------------------------------------------------------------- lines
    def _tail(self, path: Path, moment: float) -> list[Row]:
        """Sound rows of one file: all from `moment` on, and usually some before it."""
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                length = _BLOCK_BYTES
                while True:
                    file.seek(max(size - length, 0))
                    lines = file.read().split(b"\n")[1:]  # the first is the header, or cut
                    found = [self._parsed(line) for line in lines if line]
                    rows = [row for row in found if row is not None]
                    if length >= size or any(row[0] < moment for row in rows):
                        self._skip(len(found) - len(rows))
                        return rows
                    length = size if moment == float("-inf") else 4 * length
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._on_change.trouble("read", f"{path}: not readable, its rows are left out: {error}")
            return []

    def _skip(self, lines: int) -> None:
        if lines:
            self.skipped += lines
            log.warning("%s: %d torn or broken lines left out", self.path, lines)

    def _parsed(self, line: bytes) -> Row | None:
        """The cells of one line; None if it isn't sound."""
        try:
            cells = next(csv.reader([line.decode().rstrip("\n")], strict=True))
            if len(cells) != len(self._parsers):
                return None
            return tuple(parse(cell) for parse, cell in zip(self._parsers, cells, strict=True))
        except (ValueError, OverflowError, StopIteration, csv.Error):
            return None


def moment(text: str) -> float:
    """Seconds since the epoch of a time such as 2026-01-05T00:00:15Z.

    Raises:
        ValueError: it isn't one.
    """
    if not text.endswith("Z"):
        raise ValueError(f"not a time in UTC: {text!r}")
    return utc_seconds(text)


def whole(text: str) -> int:
    """A count.

    Raises:
        ValueError: it isn't one.
    """
    if not text.isdecimal():
        raise ValueError(f"not a count: {text!r}")
    return int(text)


def word(text: str) -> str:
    """A text that isn't empty.

    Raises:
        ValueError: it is, or it holds a NUL, as files have after a power cut.
    """
    if not text or "\0" in text:
        raise ValueError("not a word")
    return text
