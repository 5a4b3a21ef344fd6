"""Collect the metrics, calls and limits of all services: metrics.csv, calls.csv, workloads.json.

python metrics_fetch.py --config config/boutique.yaml --last 4d
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from deepscaler.artefacts import utc_seconds, utc_text
from deepscaler.calls import COLUMNS, CallGraph, read_calls, write_calls
from deepscaler.cluster import Cluster
from deepscaler.errors import DataError, DeepScalerError, SettingsError
from deepscaler.labels.facts import write_facts
from deepscaler.logs import start_logging
from deepscaler.panel import FEATURES, MetricPanel, read_panel, write_panel
from deepscaler.settings import Settings, load_settings

LOG = logging.getLogger("metrics_fetch")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", default="config/boutique.yaml", help="settings of the application (default %(default)s)"
    )
    parser.add_argument(
        "--start", help="first sample, ISO 8601 in UTC (default collect.start, else --last before the end)"
    )
    parser.add_argument("--end", help="last sample, ISO 8601 in UTC (default collect.end, else now)")
    parser.add_argument(
        "--last", help="how far back: seconds, or with a unit: 90m, 12h, 4d (default collect.last)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override a setting; may be repeated",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    start_logging()
    try:
        print(collect(load_settings(args.config, args.set), args.start, args.end, args.last))
    except DeepScalerError as error:
        print(f"metrics_fetch: {error}", file=sys.stderr)
        return 1
    return 0


def collect(settings: Settings, start_text: str | None, end_text: str | None, last_text: str | None) -> str:
    """Fetch what isn't there yet, write both files, and say so in one line."""
    LOG.info("settings: %s", settings.model_dump_json(include={"app", "cluster", "collect", "testbed"}))
    directory = Path(settings.collect.output_dir)
    start, end = span(settings, start_text, end_text, last_text)
    present = existing(directory / "metrics.csv", settings)
    if present is not None:
        start = resumed(present, start, settings.collect.step, directory / "metrics.csv")
        if start > end:
            return f"{directory / 'metrics.csv'}: nothing to fetch, it holds samples up to {utc_text(present.times[-1])}"
    bar: tqdm[Any] = tqdm(desc="metrics", unit="request", disable=None, file=sys.stderr)
    with bar:
        cluster = connect(settings, start, end, bar)
        panel = cluster.metrics(start, end, settings.collect.step)
    follows = present is not None and start - present.times[-1] < 1.5 * settings.collect.step
    new = len(panel)
    if present is not None:
        panel = joined(present, panel)
    windows = save_calls(
        cluster,
        directory / "calls.csv",
        panel.times[0] if follows else start,
        end,
        settings.collect.calls_window,
    )
    write_facts(cluster.workloads(), directory / "workloads.json")
    write_panel(panel, directory / "metrics.csv")
    missing = 100 * float(np.isnan(panel.values).mean())
    return (
        f"{directory / 'metrics.csv'}: {len(panel)} samples ({new} new) of {len(panel.services)} services, "
        f"{utc_text(panel.times[0])} to {utc_text(panel.times[-1])}, {missing:.1f} % missing; calls.csv: {windows} windows"
    )


def connect(settings: Settings, start: float, end: float, bar: tqdm[Any]) -> Cluster:
    """The cluster whose `metrics` cover start to end."""
    if settings.cluster.kind == "kubernetes":
        from deepscaler.adapters.kubernetes.cluster import KubernetesCluster

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return KubernetesCluster(
            settings, clock=lambda: end, progress=show, past=True
        )  # limits are those at the end of the span
    # The testbed runs its exploring policy over the span (testbed/__init__.py).
    import testbed

    cluster: Cluster = testbed.collect(settings, start, end)
    return cluster


# ------------------------------------------------------------------------------------------------------------ the span
def span(
    settings: Settings, start_text: str | None, end_text: str | None, last_text: str | None
) -> tuple[float, float]:
    """First and last sample, multiples of the step; the command line wins over `collect`.

    On a real cluster the span ends now at the latest: a sample of the future would be written as missing for good.
    """
    collect_settings = settings.collect
    step = collect_settings.step
    start = moment("--start", start_text or (None if last_text else collect_settings.start))
    end = moment("--end", end_text or collect_settings.end)
    last = collect_settings.last if last_text is None else seconds(last_text)
    if settings.cluster.kind == "testbed":
        start = utc_seconds(settings.testbed.start) if start is None else start
        end = start + last if end is None else end
    else:
        end = min(time.time(), np.inf if end is None else end)
        start = end - last if start is None else start
    first, final = np.ceil(start / step - 1e-6) * step, np.floor(end / step + 1e-6) * step
    if first > final:
        raise SettingsError(
            f"nothing between start {utc_text(start)} and end {utc_text(end)} (now at the latest): no sample of {step:g} s"
        )
    return float(first), float(final)


def moment(flag: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return utc_seconds(text)
    except ValueError as error:
        raise SettingsError(f"{flag} {text}: not an ISO 8601 time such as 2026-01-05T00:00:00Z") from error


def seconds(text: str) -> float:
    """`3600`, `90m`, `12h` or `4d` in seconds."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text.strip())
    if not found or float(found[1]) <= 0:
        raise SettingsError(f"--last {text}: expected seconds, or a number with s, m, h or d (90m, 4d)")
    return float(found[1]) * {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[found[2]]


# ---------------------------------------------------------------------------------------------- what is there already
def existing(path: Path, settings: Settings) -> MetricPanel | None:
    """The metrics collected before, None where there are none.

    Raises:
        DataError: they hold other services, features or another step.
    """
    if not path.exists():
        return None
    panel = read_panel(path)
    advice = "set another collect.output_dir or remove the file"
    services, features = tuple(settings.app.services), tuple(FEATURES)
    for kind, have, want in (("services", panel.services, services), ("features", panel.features, features)):
        if set(have) != set(want):
            raise DataError(
                f"{path}: can't append: it holds {kind} {', '.join(have)}, the settings ask for {', '.join(want)}; {advice}"
            )
    step = float(np.diff(panel.times).min()) if len(panel) > 1 else settings.collect.step
    if abs(step - settings.collect.step) > 1e-3:
        raise DataError(
            f"{path}: can't append: its step is {step:g} s, collect.step is {settings.collect.step:g} s; {advice}"
        )
    return panel.select(services, features)


def resumed(present: MetricPanel, start: float, step: float, path: Path) -> float:
    """The first sample to fetch: after the last one there, on its grid."""
    last = float(present.times[-1])
    if start < present.times[0]:
        LOG.warning("%s begins at %s: nothing earlier is added", path, utc_text(present.times[0]))
    if start > last + step:
        LOG.warning("%s ends at %s: samples up to %s stay absent", path, utc_text(last), utc_text(start))
    return last + step * max(float(np.ceil((start - last) / step - 1e-6)), 1.0)


def joined(present: MetricPanel, new: MetricPanel) -> MetricPanel:
    """Both panels, one after the other."""
    if new.services != present.services or new.features != present.features:
        raise DataError(f"can't append services {', '.join(new.services)} to {', '.join(present.services)}")
    return MetricPanel(
        np.concatenate([present.times, new.times]),
        present.services,
        present.features,
        np.concatenate([present.values, new.values]),
    )


def save_calls(cluster: Cluster, path: Path, first: float, end: float, window: float) -> int:
    """Append whole windows of calls after those in the file (a first, shorter one where there are none); how many it holds then.

    Args:
        first: where the windows begin if the file has none, or ends long before.
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


if __name__ == "__main__":
    raise SystemExit(main())
