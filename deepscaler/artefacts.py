"""Files that are written whole or not at all, CSV files with one kind of error, times and errors as text."""

from __future__ import annotations

import errno
import json
import logging
import os
import tempfile
import warnings
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic_core import from_json

from deepscaler.errors import DataError, WriteError

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)
MOST_TEXT_BYTES = 64 * 2**20
"""No text but a CSV may be larger; what it becomes in memory is several times as much."""
MOST_CSV_BYTES = 8 * 2**30
"""No CSV may be larger: a thousand services for a month have less."""
LARGEST_BUNDLE_BYTES = 512 * 1024**2
"""A larger bundle is neither written nor read."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors of a write that don't name the file."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`: it replaces `path` if the block ends well, else it is deleted.

    A process that is killed inside the block leaves the previous file as it was.

    Raises:
        WriteError: no right, no room, or something else is in the place of the file or its directory.
    """
    path = Path(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
    temporary = Path(name)
    try:
        try:
            yield temporary
        except OSError as error:  # in the block other files may fail, too, and servers
            if error.filename != name and error.errno not in NO_ROOM:
                raise
            raise _unwritable(path, error) from error
        with _writing(path):
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> WriteError:
    return WriteError(f"{path}: can't be written ({error.strerror or one_line(error)})")


def ensure_writable(directory: str | Path) -> None:
    """See whether files can be written there, before work whose results shall go there; nothing is made.

    Raises:
        WriteError: they can't.
    """
    place = Path(directory).absolute()
    there = next(one for one in (place, *place.parents) if one.exists() or one.is_symlink())
    if not there.is_dir():
        raise WriteError(f"{directory}: can't be written ({there} is no directory)")
    if not os.access(there, os.W_OK | os.X_OK):
        raise WriteError(f"{directory}: can't be written (no right to write in {there})")


def write_text(path: str | Path, text: str) -> None:
    """Replace the file at `path` by one with this text."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def remove(path: str | Path) -> None:
    """Remove the file at `path`, where there is one.

    Raises:
        WriteError: no right to.
    """
    with _writing(Path(path)):
        Path(path).unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """`value` made ready for JSON: numpy's scalars and arrays become numbers and lists, NaN becomes None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def parse_json(text: str | bytes) -> Any:
    """The value that a JSON text states.

    Raises:
        ValueError: it isn't JSON in UTF-8, states a number that isn't finite, or is nested deeper than 200.
    """
    return from_json(text, allow_inf_nan=False)


def read_text(path: str | Path, most_bytes: int = MOST_TEXT_BYTES) -> str:
    """The text of a file.

    Raises:
        DataError: it can't be read, isn't UTF-8, or has more bytes than that.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise DataError(f"{path}: more than {most_bytes / 2**20:g} MiB, which is no such file")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read as text ({one_line(error)})") from error


def read_json(path: str | Path, command: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: the file.
        command: makes the file anew.

    Raises:
        DataError: it can't be read, or holds no JSON object.
    """
    text = read_text(path)
    try:
        found = parse_json(text)
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({one_line(error)}); {command}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected an object, found {type(found).__name__}; {command}")
    return found


def write_json(path: str | Path, value: Any) -> None:
    """Replace the file at `path` by `value` as readable JSON (NaN becomes null)."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def read_csv(
    path: str | Path,
    what: str = "file",
    columns: Sequence[str] = (),
    command: str | None = None,
    *,
    text: bool | Collection[str] = True,
    header: bool = True,
    separator: str = ",",
    torn: bool = False,
) -> pd.DataFrame:
    """A CSV file as a table.

    Args:
        path: the file.
        what: what it is called when it isn't there (`file`, `graph`).
        columns: names that the header must have; it may have more.
        command: the command that makes the file.
        text: every cell is text as it stands in the file; False: pandas tells numbers from text, and empty
            cells are NaN; names: these columns are text, and another is text unless each of its cells is a
            number.
        header: the first line names the columns; False: it is data, too.
        separator: what stands between cells.
        torn: its last line may have no end: that line is left out, and logged.

    Raises:
        DataError: there is no such file, it is too large or no CSV, or a column is missing.
    """
    import pandas as pd  # the settings import this module, and without pandas they load faster

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such {what}{f'; make it with: {command}' if command else ''}")
    options: dict[str, Any] = {"keep_default_na": text is False, "low_memory": False}
    if text is not False:
        options["dtype"] = str if text is True else dict.fromkeys(text, str)
    options |= {
        "header": 0 if header else None,
        "sep": separator,
        "encoding": "utf-8-sig",
        "index_col": False,
    }
    try:
        if (size := path.stat().st_size) > MOST_CSV_BYTES:
            raise ValueError(f"{size / 2**30:.1f} GiB, at most {MOST_CSV_BYTES >> 30} are read")
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", pd.errors.ParserWarning
            )  # a line has more cells than the first one
            frame: pd.DataFrame = pd.read_csv(_whole_lines(path) if torn else path, **options)
    except (pd.errors.ParserWarning, ValueError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a readable CSV ({one_line(error)})") from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(f"{path}: column {missing[0]!r} is missing; expected {', '.join(columns)}")
    return frame


def _whole_lines(path: Path) -> Path | BytesIO:
    """What is read of a table: the file, or the whole lines of one whose last line is torn.

    A process that is killed leaves such a line, and one that still writes may just do so. It is left out, and
    logged.
    """
    if path.suffix == ".gz":
        return path
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return path
        file.seek(-1, 2)
        if file.read(1) == b"\n":
            return path
        file.seek(0)
        lines = file.read()
    _LOG.warning("%s: its last line has no end and is left out", path)
    return BytesIO(lines[: lines.rfind(b"\n") + 1])


def one_line(value: object, longest: int = 400) -> str:
    """`value` as text on one line, for a message; a text of more than `longest` characters ends with `…`."""
    text = " ".join(str(value).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def utc_text(seconds: float) -> str:
    """A time as ISO 8601 in UTC, with milliseconds only if there are any: `2026-01-05T00:00:15Z`."""
    moment = datetime.fromtimestamp(round(seconds, 3), UTC)
    spec = "milliseconds" if moment.microsecond else "seconds"
    return moment.isoformat(timespec=spec).replace("+00:00", "Z")


def utc_seconds(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 text; a text without an offset is in UTC.

    Raises:
        ValueError: not ISO 8601.
    """
    moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
