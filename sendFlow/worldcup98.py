"""Turn logs of the 1998 World Cup site into a load trace.

python sendFlow/worldcup98.py wc_day66_*.gz --out worldcup98.req

Reads the official binary logs of the Internet Traffic Archive, plain or gzip, and CSVs of counts (.csv or
.csv.gz with a column `time` and one other), in any order and number. The requests of every `--seconds`
become one value, scaled until the largest is `--max-users`; a `.req` value is replayed for 5 s, so
`--seconds 5` keeps the pace and 60 (the default) plays an hour in five minutes. With an output ending in .csv
the unscaled counts are written instead (time,requests).

A log is a row of 20-byte records, big-endian: timestamp, clientID, objectID, size (4 bytes each), method,
status, type, server (1 byte each); timestamps are seconds since the epoch, GMT. Source: the archive's README
of the 1998 World Cup logs.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, instead of this directory

from deepscaler.artefacts import replacing, utc_seconds, utc_text
from deepscaler.errors import DataError, DeepScalerError
from sendFlow.flags import whole
from sendFlow.trace import COUNTS, MOST_USERS, USERS, Series, read_counts, write_req

RECORD = np.dtype(
    [("timestamp", ">u4"), ("client", ">u4"), ("object", ">u4"), ("size", ">u4")]
    + [(n, "u1") for n in ("method", "status", "type", "server")]
)
CHUNK_RECORDS = 50_000
"""Records read at once: one megabyte."""
FIRST, LAST = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1998, 1999))
"""Any other year shows that a file isn't one of these logs."""
MAX_BINS = 50_000_000
MAX_SECONDS = 366 * 86400
GZIP_MAGIC = b"\x1f\x8b"


class Counts:
    """Requests per bin of time. Memory grows with the time that they span, not with their number."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.first = 0
        self.values = np.zeros(0)

    def add(self, bins: NDArray[np.int64], counts: NDArray[np.float64]) -> None:
        """Add `counts` to `bins` (seconds since the epoch // `seconds`), both `[K]`.

        Raises:
            DataError: the files lie too far apart.
        """
        if not len(bins):
            return
        low, high = int(bins.min()), int(bins.max()) + 1
        if len(self.values):
            low, high = min(low, self.first), max(high, self.first + len(self.values))
        self.check_span(low, high)
        if high - low > len(self.values):
            grown = np.zeros(high - low)
            grown[self.first - low : self.first - low + len(self.values)] = self.values
            self.first, self.values = low, grown
        self.values += np.bincount(bins - self.first, counts, minlength=len(self.values))

    def check_span(self, low: int, high: int) -> None:
        """See that the bins from `low` to before `high` fit into memory.

        Raises:
            DataError: they don't.
        """
        if high - low > MAX_BINS:
            raise DataError(
                f"the files span {high - low:,} values of {self.seconds} s, more than {MAX_BINS:,}: "
                "are they of one time? If so, raise --seconds"
            )

    def between(self, start: float | None, end: float | None) -> Counts:
        """The counts from `start` to before `end` (seconds since the epoch; None: no bound)."""
        times = (self.first + np.arange(len(self.values))) * self.seconds
        keep = (times >= (-np.inf if start is None else start)) & (times < (np.inf if end is None else end))
        kept = Counts(self.seconds)
        kept.values = self.values[keep]
        kept.first = int(times[keep][0]) // self.seconds if keep.any() else 0
        return kept


def read_log(path: str | Path) -> Iterator[NDArray[np.int64]]:
    """Timestamps of an official log, chunk by chunk.

    Raises:
        DataError: missing, cut off, or no such log; names the file and the record.
    """
    seen = 0
    try:
        with Path(path).open("rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
            while block := stream.read(CHUNK_RECORDS * RECORD.itemsize):
                if len(block) % RECORD.itemsize:
                    raise DataError(
                        f"{path}: cut off: {len(block) % RECORD.itemsize} bytes follow the last record "
                        f"of {RECORD.itemsize}"
                    )
                times = np.frombuffer(block, RECORD)["timestamp"].astype(np.int64)
                wrong = np.flatnonzero((times < FIRST) | (times >= LAST))
                if len(wrong):
                    raise DataError(
                        f"{path}: record {seen + int(wrong[0]) + 1} is dated "
                        f"{utc_text(int(times[wrong[0]]))}: no World Cup 1998 log"
                    )
                seen += len(times)
                yield times
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: can't be read after {seen} records ({error})") from error


def count(paths: list[Path], seconds: int) -> Counts:
    """Requests in every `seconds` of all files together.

    Raises:
        DataError: a file is missing or broken, or there are no requests at all.
    """
    counts = Counts(seconds)
    for path in paths:
        if path.name.endswith(COUNTS):
            _spread(read_counts(path), counts)
        else:
            for times in read_log(path):
                bins, found = np.unique(times // seconds, return_counts=True)
                counts.add(bins, found.astype(np.float64))
    if not counts.values.any():
        raise DataError(f"{', '.join(map(str, paths))}: no requests")
    return counts


def _spread(series: Series, counts: Counts) -> None:
    """Add a series of counts; each is spread over its own time."""
    edges = series.start + series.step * np.arange(len(series.values) + 1)
    total = np.concatenate([[0.0], np.cumsum(series.values * series.step)])
    low, high = int(edges[0] // counts.seconds), int(-(-edges[-1] // counts.seconds))
    counts.check_span(low, high)
    bins = np.arange(low, high)
    ends = np.interp(np.append(bins, bins[-1] + 1) * float(counts.seconds), edges, total)
    counts.add(bins, np.diff(ends))


def to_users(values: NDArray[np.float64], largest: int) -> NDArray[np.int64]:
    """The values scaled so that the largest is `largest` users, `[L]`.

    Raises:
        DataError: the largest value is next to nothing.
    """
    scale = largest / float(values.max())
    if not np.isfinite(scale):
        raise DataError(f"the largest value is {values.max():g} requests, too few to be scaled")
    users: NDArray[np.int64] = np.rint(values * scale).astype(np.int64)
    return users


def build_parser() -> argparse.ArgumentParser:
    """Flags of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files", nargs="+", type=Path, help="official logs (plain or gzip) and .csv files of counts"
    )
    parser.add_argument(
        "--output", "--out", type=_output, required=True, help=".req: users; .csv: unscaled counts"
    )
    parser.add_argument(
        "--seconds",
        type=whole(1, MAX_SECONDS),
        default=60,
        help="seconds of the files that make one value (default: %(default)s)",
    )
    parser.add_argument(
        "--max-users", type=whole(1, MOST_USERS), default=100, help="the largest value (default: %(default)s)"
    )
    parser.add_argument(
        "--start", type=_moment, help="leave out what comes before (ISO 8601, UTC unless it says otherwise)"
    )
    parser.add_argument("--end", type=_moment, help="leave out this moment and what comes after (ISO 8601)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Write the trace and say what it is like."""
    given = build_parser().parse_args(argv)
    try:
        counts = count(given.files, given.seconds).between(given.start, given.end)
        if not counts.values.any():
            raise DataError("no requests between --start and --end")
        if given.output.suffix == ".csv":
            _write_csv(given.output, counts)
        else:
            write_req(given.output, to_users(counts.values, given.max_users))
    except DeepScalerError as error:
        print(f"worldcup98.py: {error}", file=sys.stderr)
        return 1
    print(
        f"{given.output}: {len(counts.values)} values of {given.seconds} s "
        f"from {utc_text(counts.first * given.seconds)}, "
        f"{counts.values.sum():,.0f} requests, at most {counts.values.max():,.0f} in {given.seconds} s"
    )
    return 0


def _write_csv(path: Path, counts: Counts) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["time", "requests"])
        rows.writerows(
            (utc_text((counts.first + i) * counts.seconds), round(value))
            for i, value in enumerate(counts.values.tolist())
        )


def _output(text: str) -> Path:
    if Path(text).suffix not in (*USERS, ".csv"):
        raise argparse.ArgumentTypeError(
            f"expected a name that ends in .req (users) or .csv (unscaled counts), found {text}"
        )
    return Path(text)


def _moment(text: str) -> float:
    try:
        return utc_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected ISO 8601, found {text}") from error


if __name__ == "__main__":
    raise SystemExit(main())
