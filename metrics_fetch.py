"""Collect the metrics, calls and limits of all services: metrics.csv, calls.csv and workloads.json.

python metrics_fetch.py --config config/boutique.yaml --last 4d
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deepscaler.artefacts import ensure_writable, utc_text
from deepscaler.cluster import Cluster
from deepscaler.collecting.append import Collected, append, first_missing, metrics_path, read_collected
from deepscaler.collecting.span import asked_span
from deepscaler.errors import DeepScalerError
from deepscaler.logs import start_logging
from deepscaler.settings import Settings, load_settings
from deepscaler.settings.advice import follow

log = logging.getLogger("metrics_fetch")


def build_parser() -> argparse.ArgumentParser:
    """Flags of the collecting stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", default="config/boutique.yaml", help="application settings (default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting",
    )
    parser.add_argument(
        "--start",
        metavar="TIME",
        help="first sample, ISO 8601 in UTC (default: collect.start, else --last before the end; on the "
        "testbed testbed.start, but --last before an end that is given)",
    )
    parser.add_argument(
        "--end", metavar="TIME", help="last sample, ISO 8601 in UTC (default: collect.end, else now)"
    )
    parser.add_argument(
        "--last",
        metavar="DURATION",
        help="how far back: seconds, or with a unit: 90m, 12h, 4d (default: collect.last)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Fetch what isn't there yet, write the three files and print one line."""
    arguments = build_parser().parse_args(argv)
    follow(arguments.config, arguments.overrides)
    start_logging()
    try:
        settings = load_settings(arguments.config, arguments.overrides)
        log.info("settings: %s", settings.model_dump_json(include={"app", "cluster", "collect", "testbed"}))
        start, end = asked_span(settings, arguments.start, arguments.end, arguments.last, time.time())
        ensure_writable(settings.collect.output_dir)
        present = read_collected(settings)
        start = first_missing(settings, present, start)
        if present is not None and start > end:
            newest = utc_text(present.times[-1])
            print(f"{metrics_path(settings)}: nothing to fetch, it holds samples up to {newest}")
            return 0
        with tqdm(desc="metrics", unit="request", disable=None, file=sys.stderr) as bar:
            cluster = connect(settings, start, end, bar)
            fetched = cluster.metrics(start, end, settings.collect.step)
        collected = append(settings, cluster, present, fetched, (start, end))
    except DeepScalerError as error:
        print(f"metrics_fetch: {error}", file=sys.stderr)
        return 1
    print(summary(metrics_path(settings), collected))
    for name, why in collected.missing.items():
        print(
            f"metrics_fetch: {name} couldn't be brought up to date, "
            f"the next run with new samples tries again: {why}",
            file=sys.stderr,
        )
    return 1 if collected.missing else 0


def connect(settings: Settings, start: float, end: float, bar: tqdm[Any]) -> Cluster:
    """The cluster whose metrics cover start to end; `bar` shows how far its requests are."""
    if settings.cluster.kind == "kubernetes":
        from deepscaler.adapters.kubernetes.cluster import KubernetesCluster

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        # with this clock, limits are those at the end of the span
        return KubernetesCluster(settings, clock=lambda: end, progress=show, past=True)
    import testbed  # it emulates the span under its exploring policy

    cluster: Cluster = testbed.collect(settings, start, end)
    return cluster


def summary(path: Path, collected: Collected) -> str:
    """What was collected, in one line."""
    panel = collected.panel
    missing = 100 * float(np.isnan(panel.values).mean())
    return (
        f"{path}: {len(panel)} samples ({collected.new} new) of {len(panel.services)} services, "
        f"{utc_text(panel.times[0])} to {utc_text(panel.times[-1])}, {missing:.1f} % missing; "
        f"calls.csv: {collected.windows} windows"
    )


if __name__ == "__main__":
    raise SystemExit(main())
