"""CSV files of metrics as other programs write them: Grafana, spreadsheets, shell scripts."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import one_line, read_csv
from deepscaler.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

TIMES = ("time", "timestamp")
"""What a column of times is called, in any case."""
MISSING = frozenset({"", "nan", "null", "none", "n/a", "na", "-"})
"""How a missing value is written, in any case."""
_COMMA = r"^\s*([-+]?\d*),(\d+(?:[eE][-+]?\d+)?)\s*$"
_NUMBER = r"\s*\d{1,20}(?:\.\d*)?\s*"
_EARLIEST, _LATEST = 1e8, 1e11  # seconds: 1973 and 5138
_LONGEST_HEADER = 2**22


def read_metrics_csv(path: Path, command: str | None = None, *, torn: bool = False) -> pd.DataFrame:
    """A CSV as a table of texts, with its times in a column `time`.

    Columns may be separated by `,`, `;` or tabs; beside `;` and tabs, numbers may have a decimal comma.

    Args:
        path: the file.
        command: the command that makes it.
        torn: its last line may have no end: that line is left out.

    Raises:
        DataError: there is no such file, it isn't a CSV, it has no column of times or several, two columns of
            one name, or values under no name.
    """
    header, separator = list[str](), ","
    if path.is_file():
        header, separator = _header(path)
        if header:
            _check(path, header)
    frame = read_csv(path, command=command, separator=separator, torn=torn)
    frame = _named(path, frame, header)
    names = [str(name) for name in frame.columns]
    _check(path, names)
    frame.columns = [("time" if name.strip().lower() in TIMES else name.strip()) for name in names]
    if separator != ",":
        for name in frame.columns:
            if name != "time":
                frame[name] = frame[name].str.replace(_COMMA, r"\1.\2", regex=True)
    return frame


def _named(path: Path, frame: pd.DataFrame, header: Sequence[str]) -> pd.DataFrame:
    """The columns that have a name: lines that end with a separator have one more, with nothing in it.

    The first column may be an index, which has none.
    """
    if len(header) != frame.shape[1]:
        return frame
    nameless = [index for index, name in enumerate(header) if index and not name.strip()]
    for index in nameless:
        values = frame.iloc[:, index]
        if not (values.isna() | is_missing(values)).all():
            raise DataError(
                f"{path}: column {index + 1} of {len(header)} has values and no name; name it in the first "
                "line, or delete it"
            )
    return frame.iloc[:, [index for index in range(len(header)) if index not in nameless]].copy()


def _header(path: Path) -> tuple[list[str], str]:
    """The names of the columns and what separates them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = next(
                (text for text in iter(lambda: file.readline(_LONGEST_HEADER), "") if text.strip()), ""
            )
        separator = max(",;\t", key=line.count)
        return next(csv.reader([line], delimiter=separator), []), separator
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV ({one_line(error)})") from error


def _check(path: Path, header: list[str]) -> None:
    names = [name.strip() for name in header]
    times = [name for name in names if name.lower() in TIMES]
    if len(times) > 1:
        raise DataError(
            f"{path}: {len(times)} columns of times ({', '.join(times)}); delete all but one of them "
            "(of exports that were put side by side, merge the rows by their time)"
        )
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise DataError(
            f"{path}: {names.count(twice[0])} columns are called {one_line(twice[0])!r}; rename them"
        )
    if not times:
        found = one_line(", ".join(names[:6]))
        raise DataError(f"{path}: column 'time' is missing; found {found}")


def epoch_seconds(texts: pd.Series) -> NDArray[np.float64] | None:
    """Seconds since the epoch, if all texts are such seconds or milliseconds; else None."""
    if not len(texts) or not texts.astype(str).str.fullmatch(_NUMBER).all():
        return None
    numbers = np.array([float(text) for text in texts], np.float64)
    for divisor in (1.0, 1e3):
        seconds = numbers / divisor
        if ((seconds > _EARLIEST) & (seconds < _LATEST)).all():
            return seconds
    return None


def is_missing(texts: pd.Series) -> pd.Series:
    """Which of the texts stand for a missing value."""
    return texts.str.strip().str.lower().isin(MISSING)
