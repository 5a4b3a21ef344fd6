"""How long it takes a controller that starts to know the load of the last weeks, and what memory that needs.

python -m testbed.experiments.weeks_bench

A real Prometheus gets a value a minute of every service. Then the load is read as a controller reads it,
piece by piece, one piece per minute; the newest minutes, which come meanwhile, have no values.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.calls import EXTERNAL
from deepscaler.control.long_history import STEP, LongHistory
from deepscaler.errors import DeepScalerError
from deepscaler.settings import App, load_settings
from testbed.cluster.exposition import (
    CounterSnapshot,
    PodCounters,
    ServiceCounters,
    deployment_of,
    exposition_series,
    pod_name,
)
from testbed.experiments.flags import positive
from testbed.live import prometheus_server
from testbed.live.prometheus_server import remote_write

DAY = 86400.0
RATE, CORES, MEMORY = 10.0, 0.2, 1e8
TOGETHER = 2000
"""Scrapes that are written at a time."""


def build_parser() -> argparse.ArgumentParser:
    """Flags of the measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="config/boutique.yaml", help="application (default: %(default)s)")
    parser.add_argument("--days", type=positive, default=28.0, help="that the server knows (default: 28)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the days, read them once, and print what that took."""
    arguments = build_parser().parse_args(argv)
    try:
        prometheus_server.install()
        with prometheus_server.running() as server:
            settings = load_settings(
                arguments.config,
                ["cluster.kind=kubernetes", f"cluster.prometheus.url={server.url}", "collect.window=3m"],
            )
            now = time.time() // STEP * STEP
            for scrapes in _scrapes(settings.app, now, round(arguments.days * DAY / STEP)):
                remote_write(server.url, exposition_series(scrapes, settings.app))
            print(_read(KubernetesCluster(settings), now, arguments.days * DAY))
    except DeepScalerError as error:
        print(f"weeks_bench: {error}", file=sys.stderr)
        return 1
    return 0


def _scrapes(app: App, now: float, count: int) -> Iterator[list[CounterSnapshot]]:
    """A load with days, `count` minutes up to now, in parts."""
    times = now - STEP * np.arange(count, -1, -1)
    counted = np.cumsum(STEP * RATE * (1 + 0.5 * np.sin(2 * np.pi * times / DAY)))
    for begin in range(0, len(times), TOGETHER):
        part = slice(begin, begin + TOGETHER)
        yield [
            CounterSnapshot(moment, {name: _counters(app, name, number) for name in app.services})
            for moment, number in zip(times[part].tolist(), counted[part].tolist(), strict=True)
        ]


def _counters(app: App, service: str, counted: float) -> ServiceCounters:
    first = next(iter(app.services))
    pod = PodCounters(pod_name(deployment_of(app, service), 0), counted / 100, MEMORY / 2)
    return ServiceCounters(
        pods=(pod,),
        spec_replicas=1,
        cpu_limit_cores=CORES,
        cpu_request_cores=CORES,
        memory_limit_bytes=MEMORY,
        requests={(EXTERNAL if service == first else first, 200): counted},
        durations={},
    )


def _read(cluster: KubernetesCluster, now: float, seconds: float) -> str:
    history, before, took = LongHistory(cluster, seconds), _resident(), list[float]()
    known = -1
    while True:  # as a controller does once a minute
        began = time.perf_counter()
        load = history.upto(now + STEP * len(took)).load
        took.append(time.perf_counter() - began)
        found = int(np.isfinite(load).sum())
        if found <= known:
            break
        known = found
    pieces = took[:-1]
    return (
        f"{known} of {len(load)} minutes known after {len(pieces)} readings: {sum(pieces):.2f} s together, "
        f"the longest {max(pieces):.2f} s; resident memory {_resident() - before:+.0f} MiB"
    )


def _resident() -> float:
    """MiB of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    sys.exit(main())
