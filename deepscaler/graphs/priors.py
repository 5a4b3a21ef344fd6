"""Graphs between services: their CSV, matching by name, and the priors that training starts from.

Row = caller, column = callee, everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.artefacts import replacing
from deepscaler.calls import CallGraph
from deepscaler.errors import DataError
from deepscaler.graphs.structural import NEEDED, Structure

CORNER = "caller"
"""Head of the first column: each row is a caller."""
BUILT_IN = ("call", "od", "structural", "cc", "identity")


def write_graph(path: str | Path, names: Sequence[str], matrix: NDArray[np.floating]) -> None:
    """Write `matrix` `[N, N]` as CSV with the services' names in the header and in the first column.

    Raises:
        DataError: the matrix isn't square or doesn't have as many rows as names.
    """
    if matrix.shape != (len(names), len(names)):
        raise DataError(
            f"graph for {path}: shape {matrix.shape}, expected {(len(names), len(names))} for {len(names)} services"
        )
    frame = pd.DataFrame(np.asarray(matrix, np.float64), columns=list(names))
    frame.insert(0, CORNER, list(names), allow_duplicates=True)
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.9g")


def read_graph(path: str | Path) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Names and matrix `[N, N]` of a CSV as `write_graph` makes it, in the header's order; rows are matched by name.

    Raises:
        DataError: no file, not square, names that differ or repeat, or an entry that isn't a finite number.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such graph; make it with: python data_process.py")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, header=None)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable CSV ({str(error).strip()})") from error
    names = tuple(frame.iloc[0, 1:].str.strip())
    rows = list(frame.iloc[1:, 0].str.strip())
    for kind, found in (("header", list(names)), ("first column", rows)):
        repeated = sorted({name for name in found if found.count(name) > 1})
        if repeated:
            raise DataError(f"{path}: the {kind} names {repeated[0]!r} more than once")
    if set(names) != set(rows):
        odd = sorted(set(names) ^ set(rows))
        raise DataError(
            f"{path}: header and first column differ in {', '.join(odd[:3])}; expected the same services in both"
        )
    numbers = frame.iloc[1:, 1:].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    broken = np.argwhere(~np.isfinite(numbers))
    if len(broken):
        row, column = broken[0]
        raise DataError(
            f"{path}: line {row + 2}, column {names[column]!r}: {frame.iloc[row + 1, column + 1]!r} is not a number"
        )
    order = [rows.index(name) for name in names]
    return names, numbers[order].astype(np.float32)


def match_graph(
    names: Sequence[str], matrix: NDArray[np.floating], services: Sequence[str], source: str = "graph"
) -> NDArray[np.float32]:
    """`matrix` over `services`, in their order; names beyond them are left out.

    Raises:
        DataError: a service isn't among the names.
    """
    missing = [service for service in services if service not in names]
    if missing:
        raise DataError(f"{source}: service {', '.join(missing)} is missing; it holds {', '.join(names)}")
    rows = [list(names).index(service) for service in services]
    return np.asarray(matrix, np.float32)[np.ix_(rows, rows)]


def call_prior(rates: NDArray[np.float64]) -> NDArray[np.float32]:
    """The call graph `[N, N]`: 1 where calls were seen."""
    return np.where(_off_diagonal(rates) > 0, 1.0, 0.0).astype(np.float32)


def od_prior(rates: NDArray[np.float64], cutoff: float = 0.0) -> NDArray[np.float32]:
    """Origin-destination: calls per second over the largest, entries below `cutoff` cut. `[N, N]`."""
    return _cut(_off_diagonal(rates), cutoff)


def cc_prior(requests: NDArray[np.floating], cutoff: float) -> NDArray[np.float32]:
    """Absolute Pearson correlation of request rates `[L, N]` (training rows), entries below `cutoff` cut. `[N, N]`.

    Pairs are correlated over the rows where both are known; a constant or missing series correlates with nothing. It
    isn't a dependency graph: services that share a load correlate whether or not they call each other.
    """
    table = pd.DataFrame(np.asarray(requests, np.float64))
    varying = (table.std() > 1e-9 * table.abs().mean().clip(lower=1e-9)).to_numpy()
    correlation = (
        table.loc[:, varying]
        .corr(min_periods=3)
        .reindex(index=table.columns, columns=table.columns)
        .to_numpy(np.float64)
    )
    strength = _off_diagonal(np.minimum(np.abs(np.nan_to_num(correlation)), 1.0))
    return np.where(strength >= cutoff, strength, 0.0).astype(np.float32)


def default_priors(calls: CallGraph | None, structure: Structure | None) -> list[str]:
    """The one prior that is nearest to who calls whom, of those that the data allows."""
    return ["call"] if calls is not None else ["structural"] if structure is not None else ["cc"]


def build_prior(
    name: str,
    services: Sequence[str],
    requests: NDArray[np.floating] | None,
    calls: CallGraph | None,
    structure: Structure | None = None,
    *,
    end: float,
    cutoff: float,
) -> NDArray[np.float32]:
    """The prior `name` over `services`: `call`, `od`, `structural`, `cc`, `identity` or the path of a CSV.

    Args:
        name: which.
        services: N names.
        requests: request rates `[L, N]` of the training rows; None where the data has none.
        calls: recorded calls; None where there are none.
        structure: what the training rows say; None where features are missing.
        end: calls after this time (the end of the training split) don't count.
        cutoff: weaker entries of od and cc are cut.

    Raises:
        DataError: what the prior needs isn't there, naming the command that makes it.
    """
    if name == "identity":
        return np.zeros((len(services), len(services)), np.float32)
    if name == "cc":
        if requests is None:
            raise DataError(
                "prior cc needs the feature req; add it to process.features or choose another of process.priors"
            )
        return cc_prior(requests, cutoff)
    if name in ("call", "od"):
        if calls is None:
            raise DataError(
                f"prior {name} needs calls.csv; make it with: python metrics_fetch.py (or set process.priors=[structural])"
            )
        rates = calls.mean_rates(tuple(services), end=end)
        return call_prior(rates) if name == "call" else od_prior(rates, cutoff)
    if name == "structural":
        if structure is None:
            raise DataError(
                f"prior structural needs the features {', '.join(NEEDED)} of collected metrics; choose another of process.priors"
            )
        return structure.score
    if not name.endswith(".csv"):
        raise DataError(
            f"prior {name!r} is unknown; process.priors takes {', '.join(BUILT_IN)} or the path of a CSV"
        )
    names, matrix = read_graph(name)
    return match_graph(names, matrix, services, source=name)


def prior_key(name: str) -> str:
    """What a prior is called in the data set: its name, of a CSV the file's without `.csv`."""
    return Path(name).stem if name.endswith(".csv") else name


def _off_diagonal(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.array(matrix, np.float64)
    np.fill_diagonal(out, 0.0)
    return out


def _cut(matrix: NDArray[np.float64], cutoff: float) -> NDArray[np.float32]:
    largest = matrix.max(initial=0.0)
    scaled = matrix / largest if largest > 0 else matrix
    return np.where(scaled >= cutoff, scaled, 0.0).astype(np.float32)
