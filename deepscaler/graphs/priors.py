"""Graphs between services: their CSV, matching by name, and the priors that training starts from.

Row = caller, column = callee, everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.artefacts import read_csv, remove, replacing
from deepscaler.calls import CallGraph
from deepscaler.errors import DataError, SettingsError
from deepscaler.graphs.similarity import scaled, without_diagonal
from deepscaler.graphs.structural import NEEDED, Structure
from deepscaler.settings.stages import BUILT_IN_PRIORS

log = logging.getLogger(__name__)
EVIDENCE = ("calls", "call_time", "structural", "structural_t")
"""Graphs that learned ones are compared with, as far as the data tells them."""
CORNER = "caller"
"""The heading of the first column: each row is a caller."""


def write_graph(path: str | Path, names: Sequence[str], matrix: NDArray[np.floating]) -> None:
    """Write `matrix` `[N, N]` as CSV with the services' names in the header and in the first column.

    Raises:
        DataError: the matrix isn't square or doesn't have as many rows as names.
    """
    expected = (len(names), len(names))
    if matrix.shape != expected:
        raise DataError(
            f"graph for {path}: shape {matrix.shape}, expected {expected} for {len(names)} services"
        )
    frame = pd.DataFrame(np.asarray(matrix, np.float64), columns=list(names))
    frame.insert(0, CORNER, list(names), allow_duplicates=True)
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.9g")


def write_graphs(directory: Path, names: Sequence[str], graphs: Mapping[str, NDArray[np.floating]]) -> None:
    """Write `<name>.csv` for each graph, and remove those of an earlier run that there are no more.

    Files of other names than a data set's own graphs have stay.

    Raises:
        DataError: a graph isn't square or doesn't have as many rows as names.
        WriteError: a file can't be written or removed.
    """
    for name, matrix in graphs.items():
        write_graph(directory / f"{name}.csv", names, matrix)
    for name in {*BUILT_IN_PRIORS, *EVIDENCE} - graphs.keys():
        remove(directory / f"{name}.csv")


def read_graph(path: str | Path, services: Sequence[str] = ()) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Names and matrix `[N, N]` of a CSV as `write_graph` makes it.

    Columns and rows are in the order of the header; rows are matched to it by name.

    Args:
        path: the file.
        services: N names; a file of nothing but N x N numbers is taken to be in their order, with a warning.

    Raises:
        DataError: there is no such file, header and first column name other services or one twice, an entry
            isn't a finite number, or there are no names and not as many rows as services.
    """
    path = Path(path)
    frame = read_csv(path, what="graph", command="python data_process.py", header=False)
    unnamed = frame.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if len(services) and np.isfinite(unnamed).all():
        return tuple(services), _in_order(path, unnamed, services)
    names = tuple(frame.iloc[0, 1:].str.strip())
    rows = list(frame.iloc[1:, 0].str.strip())
    _check_names(path, names, rows)
    numbers = frame.iloc[1:, 1:].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    broken = np.argwhere(~np.isfinite(numbers))
    if len(broken):
        row, column = broken[0]
        found = frame.iloc[row + 1, column + 1]
        raise DataError(f"{path}: line {row + 2}, column {names[column]!r}: {found!r} is not a number")
    order = [rows.index(name) for name in names]
    return names, numbers[order].astype(np.float32)


def _in_order(path: Path, matrix: NDArray[np.float64], services: Sequence[str]) -> NDArray[np.float32]:
    """A matrix without names, whose rows and columns are the services."""
    if matrix.shape != (len(services), len(services)):
        raise DataError(
            f"{path}: {matrix.shape[0]} x {matrix.shape[1]} numbers without names, expected "
            f"{len(services)} x {len(services)}, in the order of the services, or their names in header and "
            "first column"
        )
    log.warning("%s: no names; rows and columns are taken in this order: %s", path, ", ".join(services))
    return matrix.astype(np.float32)


def _check_names(path: Path, names: Sequence[str], rows: Sequence[str]) -> None:
    """Refuse a graph whose header and first column don't name the same services, each once."""
    for kind, found in (("header", list(names)), ("first column", rows)):
        repeated = sorted({name for name in found if found.count(name) > 1})
        if repeated:
            raise DataError(f"{path}: the {kind} names {repeated[0]!r} more than once")
    if set(names) != set(rows):
        odd = ", ".join(sorted(set(names) ^ set(rows))[:3])
        raise DataError(
            f"{path}: header and first column differ in {odd}; expected the same services in both"
        )


def match_graph(
    names: Sequence[str], matrix: NDArray[np.floating], services: Sequence[str], source: str = "graph"
) -> NDArray[np.float32]:
    """The part of a graph that connects `services`, in their order.

    Args:
        names: of the services in the graph.
        matrix: the graph, `[len(names), len(names)]`.
        services: N names.
        source: where the graph comes from, for the message.

    Returns:
        float32 `[N, N]`.

    Raises:
        DataError: a service isn't among the names.
    """
    missing = [service for service in services if service not in names]
    if missing:
        raise DataError(f"{source}: service {', '.join(missing)} is missing; it holds {', '.join(names)}")
    rows = [list(names).index(service) for service in services]
    return np.asarray(matrix, np.float32)[np.ix_(rows, rows)]


def call_prior(rates: NDArray[np.float64]) -> NDArray[np.float32]:
    """The call graph `[N, N]`: 1 where calls were recorded, else 0."""
    return np.where(without_diagonal(rates) > 0, 1.0, 0.0).astype(np.float32)


def od_prior(rates: NDArray[np.float64], cutoff: float = 0.0) -> NDArray[np.float32]:
    """Origin-destination: calls per second over the largest of them, `[N, N]`; 0 below `cutoff`."""
    return _cut(scaled(rates), cutoff)


def cc_prior(requests: NDArray[np.floating], cutoff: float) -> NDArray[np.float32]:
    """Absolute Pearson correlation of the services' request rates, `[N, N]`; 0 below `cutoff`.

    It isn't a dependency graph: services that share a load correlate whether or not they call each other.

    Args:
        requests: request rates `[L, N]` of the training rows. A pair is correlated over the rows where both
            are known; a constant or missing series correlates with nothing.
        cutoff: weaker correlations become 0.
    """
    table = pd.DataFrame(np.asarray(requests, np.float64))
    varying = (table.std() > 1e-9 * table.abs().mean().clip(lower=1e-9)).to_numpy()
    correlation = (
        table.loc[:, varying]
        .corr(min_periods=3)
        .reindex(index=table.columns, columns=table.columns)
        .to_numpy(np.float64)
    )
    strength = without_diagonal(np.minimum(np.abs(np.nan_to_num(correlation)), 1.0))
    return _cut(strength, cutoff)


def _cut(weights: NDArray[np.float64], cutoff: float) -> NDArray[np.float32]:
    """The weights, 0 where they are below `cutoff`."""
    return np.where(weights >= cutoff, weights, 0.0).astype(np.float32)


def default_priors(calls: CallGraph | None, structure: Structure | None) -> list[str]:
    """The prior that is nearest to who calls whom, among those that the data allows; one name in a list."""
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
    """The prior `name` over `services`, float32 `[N, N]`.

    Args:
        name: one of `BUILT_IN_PRIORS`, or the path of a CSV.
        services: N names.
        requests: request rates `[L, N]` of the training rows; None where the data has none.
        calls: recorded calls; None where there are none.
        structure: what `fit_structure` found in the training rows; None where features are missing.
        end: calls after this time (the end of the training split) don't count.
        cutoff: weaker entries of `od` and `cc` become 0.

    Raises:
        DataError: what the prior needs isn't there; it names the command or the setting that helps.
    """
    if name == "identity":
        return np.zeros((len(services), len(services)), np.float32)
    if name == "cc":
        return _prior_of_requests(requests, cutoff)
    if name in ("call", "od"):
        return _prior_of_calls(name, services, calls, end, cutoff)
    if name == "structural":
        return _prior_of_structure(structure)
    if not name.endswith(".csv"):
        raise DataError(
            f"prior {name!r} is unknown; process.priors takes {', '.join(BUILT_IN_PRIORS)} "
            "or the path of a CSV"
        )
    names, matrix = read_graph(name, services)
    return match_graph(names, matrix, services, source=name)


def _prior_of_requests(requests: NDArray[np.floating] | None, cutoff: float) -> NDArray[np.float32]:
    if requests is None:
        raise DataError(
            "prior cc needs the feature req; add it to process.features or choose another of process.priors"
        )
    return cc_prior(requests, cutoff)


def _prior_of_calls(
    name: str, services: Sequence[str], calls: CallGraph | None, end: float, cutoff: float
) -> NDArray[np.float32]:
    if calls is None:
        raise DataError(
            f"prior {name} needs calls.csv; make it with: python metrics_fetch.py "
            "(or set process.priors=[structural])"
        )
    rates = calls.mean_rates(tuple(services), end=end)
    return call_prior(rates) if name == "call" else od_prior(rates, cutoff)


def _prior_of_structure(structure: Structure | None) -> NDArray[np.float32]:
    if structure is None:
        raise DataError(
            f"prior structural needs the features {', '.join(NEEDED)} of collected metrics; "
            "choose another of process.priors"
        )
    return structure.score


def prior_keys(names: Sequence[str]) -> dict[str, str]:
    """The names of priors by what they are called in the data set: a CSV as its file, without `.csv`.

    Raises:
        SettingsError: two are called the same, or a CSV is called what a graph of the data set's own is.
    """
    found: dict[str, str] = {}
    for name in names:
        key = Path(name).stem if name.endswith(".csv") else name
        if key in found:
            raise SettingsError(
                f"process.priors: {found[key]} and {name} are both called {key!r}; rename or drop one of them"
            )
        if key != name and key in EVIDENCE:
            raise SettingsError(
                f"process.priors: {name} is called {key!r} like a graph of the data set; "
                f"no CSV may be called {', '.join(EVIDENCE)}: rename it"
            )
        found[key] = name
    return found
