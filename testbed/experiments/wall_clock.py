"""Whether memory and handles stay flat in real time: testbed, Locust, Prometheus, a controller, an open page.

python -m testbed.experiments.wall_clock --minutes 60

It needs `make install-dev` (selenium), Debian's Prometheus and Chromium, and the bundle of `make demo` or
`--policy plan_bootstrap`.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from tqdm import tqdm

from deepscaler.artefacts import read_json, write_text
from deepscaler.errors import ClusterError, DeepScalerError
from deepscaler.logs import start_logging
from deepscaler.pictures.holdings import draw_holdings
from deepscaler.statistics import slope_interval
from deepscaler.text import aligned
from testbed.experiments.flags import positive
from testbed.live import chromium, prometheus_server
from testbed.live.debian import free_port
from testbed.live.holdings import MIB, Find, below, holdings, one
from testbed.live.started import started, text_at

if TYPE_CHECKING:
    from testbed.live.browser import Browser

Look = Callable[[], Mapping[str, float]]
SETTLED = 1 / 3
"""This share of the time is left to caches and to what is loaded late; growth is measured after it."""
START_SECONDS = 120.0
PORTS = ("gateway", "metrics", "jaeger", "kubernetes", "prometheus", "page")
COUNTED = (
    "ticks_total",
    "failed_ticks_total",
    "writes_total",
    "metrics_failures_total",
    "upstream_errors_total",
)
"""Counters of the controller that the last line tells."""


def build_parser() -> argparse.ArgumentParser:
    """Flags of the measurement."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.experiments.wall_clock",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=positive, default=60.0, help="of real time (default: %(default)s)")
    parser.add_argument(
        "--every", type=positive, default=60.0, help="seconds between samples (default: %(default)s)"
    )
    parser.add_argument("--policy", default="deepscaler", help="default: %(default)s; it needs its bundle")
    parser.add_argument("--users", type=positive, default=1.0, help="Locust's trace is multiplied by this")
    parser.add_argument("--output", default="runs/wall_clock", help="default: %(default)s")
    parser.add_argument("--picture", metavar="PNG", help="also draw what was held")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run, sample, write samples.csv, and print how each process has grown."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    directory = Path(arguments.output)
    try:
        with running(directory, arguments.policy, arguments.users) as everything:
            found = sampled(everything.looks, 60 * arguments.minutes, arguments.every, directory)
            told = everything.told()
        if arguments.picture:
            draw_holdings(found, arguments.picture)
    except DeepScalerError as error:
        print(f"wall_clock: {error}", file=sys.stderr)
        return 1
    print("\n".join(aligned(table(found), numbers=True, rule=True)))
    print(f"\n{told}")
    return 0


# ------------------------------------------------------------------------------------------------ what runs
@dataclass(frozen=True)
class Everything:
    """All that runs.

    Attributes:
        looks: who -> what it holds now.
        controller: URL of the controller's port.
        browser: with a page of the testbed and one of the controller.
    """

    looks: Mapping[str, Look]
    controller: str
    browser: Browser

    def told(self) -> str:
        """What the controller and the pages say of the time, in a line."""
        text = text_at(f"{self.controller}/metrics") or ""
        counts = dict.fromkeys(COUNTED, 0.0)
        for name, value in re.findall(r"^deepscaler_(\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
            if name in counts:
                counts[name] += float(value)
        controller = ", ".join(f"{name} {value:g}" for name, value in counts.items())
        complaints = self.browser.complaints()
        return f"controller: {controller}\npages: errors and warnings {len(complaints)} {complaints[:3]}"


@contextmanager
def running(directory: Path, policy: str, users: float) -> Iterator[Everything]:
    """Start everything, one after the other as the README does, and stop it in turn.

    Raises:
        ClusterError: a part can't be had or doesn't come up.
    """
    try:
        from testbed.live.browser import opened
    except ModuleNotFoundError as error:
        raise ClusterError(f"no {error.name}, which drives the browser: make install-dev") from error
    programs = chromium.install()
    prometheus_server.install()
    port = free_port()
    serve: dict[str, object] = {f"testbed.serve.{name}_port": 0 for name in PORTS}
    serve |= {"testbed.serve.directory": directory / "serve", "testbed.serve.controller_port": port}
    state, controller = directory / "serve" / "serve.json", f"http://127.0.0.1:{port}"
    state.unlink(missing_ok=True)  # of a testbed that was killed
    with ExitStack() as stack:

        def start(name: str, command: Sequence[str], url: str, ready: Callable[[], bool]) -> int:
            place = directory / name
            place.mkdir(parents=True, exist_ok=True)
            return stack.enter_context(
                started(name, command, url, place, lambda _: ready(), START_SECONDS)
            ).pid

        testbed = start(
            "testbed",
            _python(["-m", "testbed", "serve"], "config/boutique.yaml", serve),
            str(state),
            state.is_file,
        )
        found = read_json(state, "python -m testbed serve")
        load = ["sh", "sendFlow/sendLoop.sh", "--host", found["gateway"], "--scale", str(users)]
        locust = start(
            "locust", [*load, "--output", str(directory / "locust")], found["gateway"], lambda: True
        )
        live: dict[str, object] = {
            "cluster.prometheus.url": found["prometheus"],
            "cluster.jaeger.url": found["jaeger"],
            "cluster.kubeconfig": found["kubeconfig"],
            "scale.run_dir": directory / "controller",
            "scale.policy": policy,
            "scale.metrics_port": port,
        }
        acting = start(
            "controller",
            _python(["predict_scale.py"], "config/live.yaml", live),
            controller,
            lambda: text_at(f"{controller}/healthz", 2.0) is not None,
        )
        browser = stack.enter_context(opened(programs, listens=False))
        looks = {
            "controller": _looks(one(acting)),
            "testbed": _looks(one(testbed)),
            "Prometheus": _looks(one(found["prometheus_pid"])),
            "Locust": _looks(below(locust)),
            "browser": _looks(below(browser.driver.service.process.pid)),
        }
        for who, url in {"page of the testbed": found["page"], "page of the controller": controller}.items():
            looks[who] = _page(browser, url)
        yield Everything(looks, controller, browser)


def _python(words: Sequence[str], config: str, settings: Mapping[str, object]) -> list[str]:
    """A command of this Python with settings."""
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, *words, "--config", config, *flags]


def _looks(find: Find) -> Look:
    return lambda: holdings(find())


def _page(browser: Browser, url: str) -> Look:
    """Open a page in a tab of its own; says what it holds."""
    browser.driver.switch_to.new_window("tab")
    browser.open(url)
    tab = browser.driver.current_window_handle

    def look() -> Mapping[str, float]:
        browser.driver.switch_to.window(tab)  # so that it is drawn, too, in turn with the others
        found = browser.held()
        return {"heap MiB": found["heap"] / MIB, "nodes": found["nodes"], "listeners": found["listeners"]}

    return look


# --------------------------------------------------------------------------------------------- what they hold
def sampled(looks: Mapping[str, Look], seconds: float, every: float, directory: Path) -> pd.DataFrame:
    """What was held over time; samples.csv in `directory` is complete after each sample.

    Returns:
        A row per sample, who and what: `minutes` since the first sample, `who`, `what`, `value`.
    """
    began, rows = time.monotonic(), list[tuple[float, str, str, float]]()
    for number in tqdm(range(int(seconds // every) + 1), disable=None, unit="sample"):
        time.sleep(max(began + number * every - time.monotonic(), 0.0))
        minutes = round((time.monotonic() - began) / 60, 2)
        rows += [(minutes, who, what, value) for who, look in looks.items() for what, value in look().items()]
        found = pd.DataFrame(rows, columns=["minutes", "who", "what", "value"])
        write_text(directory / "samples.csv", found.to_csv(index=False, float_format="%.6g"))
    return found


def table(found: pd.DataFrame) -> list[list[str]]:
    """Who held what at first, once settled, at the end, and how it grew between the last two."""
    begin = SETTLED * float(found["minutes"].max())
    rows = [
        ["who", "what", "at first", f"minute {begin:.0f}", "last", "growth per hour [95 %]", "in percent"]
    ]
    for (who, what), one_kind in found.groupby(["who", "what"], sort=False):
        settled = one_kind[one_kind["minutes"] >= begin - 1e-6]
        values = settled["value"].to_numpy()
        slope, low, high = (60 * value for value in slope_interval(settled["minutes"], values))
        first, middle, last = (f"{value:.5g}" for value in (one_kind["value"].iloc[0], values[0], values[-1]))
        share = 100 * slope / values[0]
        rows.append(
            [
                str(who),
                str(what),
                first,
                middle,
                last,
                f"{slope:+.2f} [{low:+.2f}, {high:+.2f}]",
                f"{share:+.1f}",
            ]
        )
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
