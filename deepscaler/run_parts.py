"""Parts of the files of a run directory, moved aside as they grew; `decisions.1.csv` is the newest one."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from deepscaler.artefacts import one_line

log = logging.getLogger(__name__)


def aside(path: Path, number: int) -> Path:
    """Where the `number`-th newest part of a file lies that was moved aside."""
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def numbers_aside(path: Path) -> list[int]:
    """The numbers of the parts that are there, from the oldest to the newest."""
    name = re.compile(rf"{re.escape(path.stem)}\.([1-9][0-9]?){re.escape(path.suffix)}")
    found = (name.fullmatch(other.name) for other in path.parent.glob(f"{path.stem}.*{path.suffix}"))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def parts_of(path: Path, columns: Collection[str]) -> list[Path]:
    """The parts of a file in the order of their rows; the file itself is the last one.

    Parts of a version that had other columns are left out, and so is what is missing in the middle; both are
    said in one line each.

    Args:
        path: the file.
        columns: those that a part must have.
    """
    numbers = numbers_aside(path)
    lacking = sorted(set(range(1, max(numbers, default=0))) - set(numbers))
    if lacking:
        log.warning(
            "%s: its rows have a gap: %s missing, though older parts are there",
            path,
            _listed(aside(path, number).name for number in lacking),
        )
    older = [aside(path, number) for number in numbers]
    strange = [part for part in older if set(columns) - set(_header(part))]
    if strange:
        log.warning(
            "%s: left out as of another version, with other columns: %s",
            path,
            ", ".join(part.name for part in strange),
        )
    return [*(part for part in older if part not in strange), path]


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader([file.readline(2**22)]), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        log.warning("%s: not readable (%s)", path, one_line(error))
        return []


def _listed(names: Iterable[str]) -> str:
    texts = list(names)
    return f"{', '.join(texts)} {'is' if len(texts) == 1 else 'are'}"
