"""Appending to what was collected before: `metrics.csv`, `calls.csv` and `workloads.json`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from deepscaler.artefacts import utc_text
from deepscaler.calls import COLUMNS, CallGraph, read_calls, write_calls
from deepscaler.cluster import Cluster
from deepscaler.errors import ClusterError, DataError, MetricsError
from deepscaler.labels.facts import write_facts
from deepscaler.panel import FEATURES, MetricPanel, joined, read_panel, write_panel
from deepscaler.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Collected:
    """What the directory holds after samples were appended.

    Attributes:
        panel: all samples.
        new: how many of them were appended.
        windows: how many windows of calls there are.
        missing: file that couldn't be written -> why.
    """

    panel: MetricPanel
    new: int
    windows: int
    missing: Mapping[str, str] = field(default_factory=dict)


def metrics_path(settings: Settings) -> Path:
    """Where the metrics are collected."""
    return Path(settings.collect.output_dir) / "metrics.csv"


def read_collected(settings: Settings) -> MetricPanel | None:
    """The metrics that were collected before; None where there are none.

    Raises:
        DataError: they hold other services, other features or another step than the settings ask for.
    """
    path = metrics_path(settings)
    if not path.exists():
        return None
    panel = read_panel(path)
    advice = "set another collect.output_dir or remove the file"
    services, features = tuple(settings.app.services), tuple(FEATURES)
    for kind, have, want in (("services", panel.services, services), ("features", panel.features, features)):
        if set(have) != set(want):
            raise DataError(
                f"{path}: can't append: it holds {kind} {', '.join(have)}, "
                f"the settings ask for {', '.join(want)}; {advice}"
            )
    step = float(np.diff(panel.times).min()) if len(panel) > 1 else settings.collect.step
    if abs(step - settings.collect.step) > 1e-3:
        raise DataError(
            f"{path}: can't append: its step is {step:g} s, "
            f"collect.step is {settings.collect.step:g} s; {advice}"
        )
    return panel.select(services, features)


def first_missing(settings: Settings, present: MetricPanel | None, start: float) -> float:
    """Time of the first sample to fetch: `start`, or the next one after the samples that are there."""
    if present is None:
        return start
    path, step, last = metrics_path(settings), settings.collect.step, float(present.times[-1])
    if start < present.times[0]:
        log.warning("%s begins at %s: nothing earlier is added", path, utc_text(present.times[0]))
    if start > last + step:
        log.warning("%s ends at %s: samples up to %s stay absent", path, utc_text(last), utc_text(start))
    return last + step * max(float(np.ceil((start - last) / step - 1e-6)), 1.0)


def append(
    settings: Settings,
    cluster: Cluster,
    present: MetricPanel | None,
    fetched: MetricPanel,
    span: tuple[float, float],
) -> Collected:
    """Write all three files: samples appended, calls of the same span fetched and appended, workloads anew.

    Each file takes its place whole, `metrics.csv` last: after an interruption the next run goes on from
    there. Calls or workloads that can't be read don't cost the samples: the result names them, and the next
    run with new samples fetches them as well.

    Args:
        settings: of the application.
        cluster: knows the calls and the workloads.
        present: the samples collected before; None without.
        fetched: the samples of the span.
        span: times of the first and of the last fetched sample.

    Raises:
        DataError: `fetched` has other services or features than `present`.
    """
    directory, (start, end) = Path(settings.collect.output_dir), span
    follows = present is not None and start - present.times[-1] < 1.5 * settings.collect.step
    panel = fetched if present is None else _joined(present, fetched)
    missing: dict[str, str] = {}

    def calls() -> int:
        first = panel.times[0] if follows else start
        window = settings.collect.calls_window
        return _append_calls(cluster, directory / "calls.csv", first=first, end=end, window=window)

    def part(name: str, write: Callable[[], int | None]) -> int:
        try:
            return write() or 0
        except (MetricsError, ClusterError) as error:
            missing[name] = str(error)
            return 0

    windows = part("calls.csv", calls)
    part("workloads.json", lambda: write_facts(cluster.workloads(), directory / "workloads.json"))
    write_panel(panel, metrics_path(settings))
    return Collected(panel, len(fetched), windows, missing)


def _joined(present: MetricPanel, new: MetricPanel) -> MetricPanel:
    """The samples of both panels, one after the other."""
    if new.services != present.services or new.features != present.features:
        raise DataError(f"can't append services {', '.join(new.services)} to {', '.join(present.services)}")
    return joined([present, new])


def _append_calls(cluster: Cluster, path: Path, *, first: float, end: float, window: float) -> int:
    """Append whole windows of calls to those in the file; the number of windows it holds then.

    Args:
        cluster: knows the calls.
        path: of `calls.csv`.
        first: where the windows begin if the file has none, or ends before.
        end: where they end.
        window: seconds per window; only a first one may be shorter.
    """
    known = read_calls(path) if path.exists() else CallGraph(pd.DataFrame(columns=list(COLUMNS)))
    have = len(known.frame) > 0
    begin = max(float(known.frame["time"].max()), first) if have else first
    if end - begin < window * (1 - 1e-6) and (have or end <= begin):
        return int(known.frame["time"].nunique())
    new = cluster.calls(begin, end).frame
    graph = CallGraph(pd.concat([known.frame, new], ignore_index=True) if have else new)
    write_calls(graph, path)
    return int(graph.frame["time"].nunique())
