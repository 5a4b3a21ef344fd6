"""Measure whether watching delays a controller: its ticks alone, and while many pages and scrapes ask it.

python -m testbed.experiments.page_bench
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.synchronize import Event
from urllib.request import ProxyHandler, build_opener

import numpy as np

from deepscaler.control.controller import Controller
from deepscaler.control.http_port import MOST_STREAMS, http_port
from deepscaler.control.serving import Routes
from deepscaler.control.watch import Watch
from deepscaler.errors import DeepScalerError
from deepscaler.policies.registry import make_policy
from deepscaler.settings import load_settings
from deepscaler.text import aligned
from testbed.cluster.virtual import VirtualCluster

SCRAPERS = 8
ROUNDS = 6
"""Stretches of ticks, in turn without and with clients: what else the machine does hits both alike."""


def build_parser() -> argparse.ArgumentParser:
    """Flags of the measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="config/demo.yaml", help="settings (default: %(default)s)")
    parser.add_argument("--policy", default="deepscaler", help="default: %(default)s; it needs its bundle")
    parser.add_argument("--ticks", type=int, default=20, help="per stretch (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Tick, measure, print a table."""
    arguments = build_parser().parse_args(argv)
    try:
        settings = load_settings(arguments.config, ["testbed.duration=36000"])
        controller = Controller(VirtualCluster(settings), make_policy(arguments.policy, settings), settings)
    except DeepScalerError as error:
        print(f"page_bench: {error}", file=sys.stderr)
        return 1
    routes = Routes(Watch(controller, settings))
    period = controller.policy.period_seconds
    found: dict[bool, list[float]] = {False: [], True: []}
    with http_port("127.0.0.1", 0, routes, "scale.metrics_port") as port:
        controller.run(period * 4)  # what is loaded late is loaded
        for turn in range(ROUNDS):
            found[turn % 2 == 1] += _ticks(controller, arguments.ticks, port if turn % 2 else None)
    rows = [["clients", "ticks", "median ms", "95 % ms", "longest ms"]]
    for asked, seconds in found.items():
        told = [f"{1000 * value:.0f}" for value in (*np.quantile(seconds, [0.5, 0.95]), max(seconds))]
        rows.append(
            [f"{MOST_STREAMS} pages, {SCRAPERS} scrapers" if asked else "none", str(len(seconds)), *told]
        )
    print("\n".join(aligned(rows, numbers=True, rule=True)))
    return 0


def _ticks(controller: Controller, count: int, port: int | None) -> list[float]:
    """Seconds that so many ticks took, with clients at the port if one is given."""
    over = multiprocessing.get_context("spawn").Event()
    clients = None
    if port is not None:
        clients = multiprocessing.get_context("spawn").Process(target=_ask, args=(port, over), daemon=True)
        clients.start()
        time.sleep(3.0)  # until they have connected
    before = controller.statistics.ticks
    controller.run(controller.policy.period_seconds * count)
    over.set()
    if clients is not None:
        clients.join(30.0)
    return controller.decision_seconds[before - controller.statistics.ticks :]


def _ask(port: int, over: Event) -> None:
    """Keep as many pages open as are served, and ask for metrics and stories without a pause."""
    opener = build_opener(ProxyHandler({}))

    def watch() -> None:
        with suppress(OSError), opener.open(f"http://127.0.0.1:{port}/events", timeout=20) as answer:
            while not over.is_set() and answer.readline():
                pass

    def scrape() -> None:
        while not over.is_set():
            for path in ("metrics", "story.json"):
                with suppress(OSError), opener.open(f"http://127.0.0.1:{port}/{path}", timeout=20) as answer:
                    answer.read()

    works = [watch] * MOST_STREAMS + [scrape] * SCRAPERS
    for work in works:
        threading.Thread(target=work, daemon=True).start()
    over.wait()


if __name__ == "__main__":
    raise SystemExit(main())
