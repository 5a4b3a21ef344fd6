"""Any wide CSV as a panel, for plain forecasting of what isn't a recording of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepscaler.errors import DataError
from deepscaler.foreign_csv import read_metrics_csv
from deepscaler.panel import FEATURES, WAITED, MetricPanel, in_time_order, panel_of, read_numbers


def read_wide(path: str | Path, feature: str, features: tuple[str, ...] = ()) -> MetricPanel:
    """A CSV with a column `time` (or `timestamp`) and one column per service, or per service and feature.

    Columns are `<service>_<feature>`, or bare service names that all hold `feature`. An unnamed index is
    ignored.

    Args:
        path: the file.
        feature: the labelled feature.
        features: further features that are taken where the file has them.

    Raises:
        DataError: there is no such file, no time or no labelled feature, a line is broken, or rows aren't
            in the order of time.
    """
    path = Path(path)
    frame = read_metrics_csv(path)
    names = [str(name) for name in frame.columns if name != "time" and not str(name).startswith("Unnamed: ")]
    if not names:
        raise DataError(f"{path}: needs a column 'time' and one per service; found the times only")
    services, kept, columns = _layout(path, names, feature, features)
    absent = [column for column in columns if column not in names]
    if absent:
        raise DataError(
            f"{path}: column {absent[0]!r} is missing ({len(absent)} of {len(columns)} expected columns are)"
        )
    frame, times = in_time_order(frame, path)
    values = np.stack([read_numbers(frame[column], path, column) for column in columns], axis=1)
    return panel_of(times, services, kept, values, path)


def _layout(
    path: Path, names: Sequence[str], feature: str, features: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    """Services, features, and the columns that hold them, service by service."""
    known = sorted({*features, *FEATURES, feature}, key=len, reverse=True)
    ours = [name for name in names if name != WAITED]
    if len(ours) < len(names) and all(name.endswith(tuple(f"_{one}" for one in known)) for name in ours):
        names = ours
    split = {name: _split(name, known) for name in names}
    suffixes = tuple(dict.fromkeys(suffix for _, suffix in split.values()))
    prefixes = {prefix for prefix, _ in split.values()}
    complete = feature in suffixes and len(prefixes) * len(suffixes) == len(names)
    if "" in prefixes or not (complete or set(suffixes) <= set(known)):
        return tuple(names), (feature,), list(names)
    if feature not in suffixes:
        raise DataError(
            f"{path}: feature {feature!r} of process.label isn't in it; it holds {', '.join(suffixes)}"
        )
    services = tuple(dict.fromkeys(prefix for prefix, _ in split.values()))
    kept = tuple(name for name in dict.fromkeys((*features, feature)) if name in suffixes)
    return services, kept, [f"{service}_{name}" for service in services for name in kept]


def _split(name: str, known: Sequence[str]) -> tuple[str, str]:
    """Service and feature of a column: the longest known feature at its end, or what follows the last `_`."""
    for feature in known:
        if name.endswith(f"_{feature}"):
            return name.removesuffix(f"_{feature}"), feature
    service, _, feature = name.rpartition("_")
    return service, feature
