"""Tables on disk that grow row by row: only whole lines are written, and only sound lines are read.

A disk that is full, a directory that can't be written and lines that are torn cost rows, never a decision:
what is lost is counted, and said once.
"""

from __future__ import annotations

import csv
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepscaler.artefacts import one_line, replacing, utc_seconds
from deepscaler.logs import OnChange
from deepscaler.run_parts import aside, numbers_aside

log = logging.getLogger(__name__)
LARGEST_BYTES = 16 * 2**20
"""A file that would grow beyond this size is moved aside (`decisions.1.csv`), and a new one begins."""
KEPT = 4
"""So many files that were moved aside are kept; older ones are deleted."""
_BLOCK_BYTES = 2**18
_HEADER_BYTES = 2**22
"""A first line is read up to here: names of a thousand services may be longer than a block."""
Row = tuple[Any, ...]
Parser = Callable[[str], Any]
Places = tuple[list[int | None], int]


def optional_number(text: str) -> float:
    """The number; NaN for an empty cell."""
    return float(text) if text else float("nan")


class Table:
    """One file of rows, and the older ones that were moved aside.

    Args:
        path: of the file. Its directory is made, and lines at its end that aren't sound are taken out of it;
            those before them are left out when they are read.
        columns: name -> what reads a cell, by a ValueError where it isn't sound.
        added: those that files of earlier versions don't have; they read as the parser reads "".
        largest: size in bytes beyond which the file isn't to grow; it is moved aside before.
        kept: how many files that were moved aside are kept.
        eager: make a file without rows at once; else the first row makes it.

    Attributes:
        most_bytes: that all its files take, once those of a version with larger ones are gone.
        lost: rows that couldn't be written.
        skipped: lines that weren't sound.
    """

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, Parser],
        largest: int = LARGEST_BYTES,
        kept: int = KEPT,
        *,
        added: Collection[str] = (),
        eager: bool = True,
    ) -> None:
        self.path, self.lost, self.skipped = path, 0, 0
        self._columns, self._added, self._largest, self._kept = dict(columns), frozenset(added), largest, kept
        self.most_bytes = largest * (1 + kept)
        self._header = (",".join(columns) + "\n").encode()
        self._on_change = OnChange(log, logging.ERROR)
        if eager or path.is_file():
            self._guarded(self._open, 0)

    def append(self, lines: str, rows: int) -> None:
        """Add these lines, `rows` in number, or none of them; what can't be written is lost and counted."""
        self._guarded(lambda: self._append(lines.encode()), rows)

    def since(self, moment: float) -> list[Row]:
        """The sound rows from `moment` on, read from the end backwards, up to the first that is older."""
        rows: list[Row] = []
        for path in (self.path, *(aside(self.path, number) for number in range(1, self._kept + 1))):
            rows = self._tail(path, moment) + rows
            if any(row[0] < moment for row in rows):
                break
        return [row for row in rows if row[0] >= moment]

    def all(self) -> list[Row]:
        """The sound rows of the file, without those of files that were moved aside."""
        return self._tail(self.path, float("-inf"))

    def first_time(self) -> float | None:
        """The time of the first sound row, be it in a file that was moved aside; None if there is none."""
        times = (self._first_time(path) for path in self._parts())
        return next((time for time in times if time is not None), None)

    def last_time(self) -> float | None:
        """The time of the last sound row, likewise."""
        found = (self._tail(path, float("inf")) for path in reversed(self._parts()))
        return next((float(rows[-1][0]) for rows in found if rows), None)

    # ---------------------------------------------------------------------------------------------- the files
    def _parts(self) -> list[Path]:
        """Those that are there, from the oldest to the newest, which is the file itself."""
        return [*(aside(self.path, number) for number in numbers_aside(self.path)), self.path]

    def _first_time(self, path: Path) -> float | None:
        try:
            with path.open("rb") as file:
                places = self._places(file.readline(_HEADER_BYTES))
                rows = (
                    self._parsed(line, places)
                    for line in file.read(max(_BLOCK_BYTES, file.tell())).split(b"\n")
                )
                return next((float(row[0]) for row in rows if row is not None), None)
        except OSError:
            return None

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
            first = file.readline(_HEADER_BYTES)
            named = first.endswith(b"\n")
            if named and first != self._header:
                self._begin_anew(first)
                return
            if file.seek(0, os.SEEK_END) - len(first) > _BLOCK_BYTES:
                file.seek(-_BLOCK_BYTES, os.SEEK_END)
                file.readline()
            else:
                file.seek(len(first))
            begin, lines = file.tell(), file.read().splitlines(keepends=True)
        places = self._places(self._header)
        sound = [line for line in lines if line.endswith(b"\n") and self._parsed(line, places) is not None]
        if len(sound) < len(lines) or not named:
            self._skip(len(lines) - len(sound))
            self._mend(begin if named else 0, sound)

    def _begin_anew(self, header: bytes) -> None:
        """Move a file with other columns aside; of the rows in it those that can be read count on."""
        self._move_aside()
        log.warning(
            "%s has the columns of another version (%s), so a new file begins; the old one is kept as %s",
            self.path,
            one_line(header.decode(errors="replace"), 200),
            aside(self.path, 1),
        )
        self._append(b"")

    def _mend(self, begin: int, lines: Sequence[bytes]) -> None:
        """Replace what follows the first `begin` bytes by these lines; a file without a header gets one."""
        with replacing(self.path) as temporary, temporary.open("wb") as new:
            if begin:
                shutil.copyfile(self.path, temporary)
                new.seek(begin)
                new.truncate()
            new.write((b"" if begin else self._header) + b"".join(lines))

    def _append(self, data: bytes) -> None:
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size > len(self._header) and size + len(data) > self._largest:
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

    def _move_aside(self) -> None:
        for number in range(self._kept, 0, -1):
            newer = aside(self.path, number - 1) if number > 1 else self.path
            if newer.is_file():
                os.replace(newer, aside(self.path, number))

    # -------------------------------------------------------------------------------------------------- lines
    def _tail(self, path: Path, moment: float) -> list[Row]:
        """Sound rows of one file: all from `moment` on, and usually some before it."""
        try:
            with path.open("rb") as file:
                places = self._places(file.readline(_HEADER_BYTES))
                if places is None:
                    return []
                size = file.seek(0, os.SEEK_END)
                length = _BLOCK_BYTES
                while True:
                    file.seek(max(size - length, 0))
                    lines = file.read().split(b"\n")[1:]  # the first is the header, or cut
                    found = [self._parsed(line, places) for line in lines if line]
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

    def _places(self, header: bytes) -> Places | None:
        """Where a file has each column (None: it was added later), and how many the file has.

        None for a file that lacks one of the other columns: it has no row of this table.
        """
        names = header.decode(errors="replace").strip().split(",")
        if set(self._columns) - self._added - set(names):
            return None
        return [names.index(name) if name in names else None for name in self._columns], len(names)

    def _parsed(self, line: bytes, places: Places | None) -> Row | None:
        """The cells of one line of a file with the columns at these places; None if it isn't sound."""
        if places is None:
            return None
        where, count = places
        try:
            cells = next(csv.reader([line.decode().rstrip("\n")], strict=True))
            if len(cells) != count:
                return None
            texts = ("" if place is None else cells[place] for place in where)
            return tuple(parse(text) for parse, text in zip(self._columns.values(), texts, strict=True))
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


def phrase(text: str) -> str:
    """A text that may be empty.

    Raises:
        ValueError: it holds a NUL.
    """
    return word(text) if text else text


def word(text: str) -> str:
    """A text that isn't empty.

    Raises:
        ValueError: it is, or it holds a NUL, as files have after a power cut.
    """
    if not text or "\0" in text:
        raise ValueError("not a word")
    return text
