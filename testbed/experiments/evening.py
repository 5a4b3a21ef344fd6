"""Record an evening in virtual time, and make pictures of what people see of it.

These are the page on a phone, the dashboard, Events, and the page that tells what acting would have made of
an evening in the shadow.

python -m testbed.experiments.evening --output docs

It needs `make install-dev` (selenium), Debian's Prometheus and Chromium, and the demo's bundle.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deepscaler.adapters.kubernetes.announcer import Announcer
from deepscaler.adapters.kubernetes.api import KubeApi
from deepscaler.artefacts import utc_text
from deepscaler.cluster import Happening
from deepscaler.control.controller import Controller
from deepscaler.control.watch import Watch
from deepscaler.errors import ClusterError, DeepScalerError
from deepscaler.logs import start_logging
from deepscaler.pictures.evening import draw_panels, draw_text
from deepscaler.pictures.style import shrink
from deepscaler.policies.registry import make_policy
from deepscaler.reports.counterfactual import write_counterfactual
from deepscaler.settings import Settings, load_settings
from deepscaler.text import aligned
from testbed.cluster.exposition import Series, deployment_of
from testbed.cluster.virtual import VirtualCluster
from testbed.experiments.flags import positive
from testbed.experiments.page import recorded
from testbed.experiments.references import played
from testbed.experiments.shadow import shadow_run
from testbed.experiments.shadow_judge import foretold
from testbed.kubernetes_api import KubernetesApi, KubernetesStore
from testbed.live import chromium, prometheus_server
from testbed.live.dashboard import as_series, panels, scraping
from testbed.live.deployments import manifest

if TYPE_CHECKING:
    from testbed.live.browser import Browser

SEED = 1000
"""Of the load: one of the validation seeds."""
START = "2026-01-05T17:00:00Z"
COURSE = [(0.0, 0.4), (0.3, 0.7), (0.45, 1.0), (0.65, 0.8), (1.0, 0.2)]
"""Shares of the evening, and how high the load is then."""
DRAWN_SECONDS = 2.0
"""The page is drawn by then."""
NEWEST_EVENTS = 20


def build_parser() -> argparse.ArgumentParser:
    """Flags of the pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.experiments.evening",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default="config/demo.yaml", help="settings (default: %(default)s)")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--policy", default="deepscaler", help="default: %(default)s; it needs its bundle")
    parser.add_argument("--seconds", type=positive, default=14400.0, help="how long it scales")
    parser.add_argument("--acting", default="hpa_70", help="in charge, of the shadow (default: %(default)s)")
    parser.add_argument(
        "--only", choices=("recorded", "shadow"), help="the evening it scales, or that in the shadow"
    )
    parser.add_argument("--output", default="docs", metavar="DIR", help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run, look, write the pictures."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    output = Path(arguments.output)
    made: list[Path] = []
    try:
        settings = _settings(arguments)
        if arguments.only != "shadow":
            made += recorded_evening(settings, arguments.policy, arguments.seconds, output)
        if arguments.only != "recorded":
            path = output / "counterfactual.png"
            shadow_page(settings, (arguments.acting, arguments.policy), shlex.join(_command(argv)), path)
            made.append(path)
    except DeepScalerError as error:
        print(f"evening: {error}", file=sys.stderr)
        return 1
    print(", ".join(map(str, made)))
    return 0


def _command(argv: Sequence[str] | None) -> list[str]:
    return ["python", "-m", "testbed.experiments.evening", *(sys.argv[1:] if argv is None else argv)]


def recorded_evening(settings: Settings, name: str, seconds: float, output: Path) -> list[Path]:
    """Let the policy of this name scale, and draw what people see; returns the pictures.

    Raises:
        ClusterError: there is no browser or no Prometheus.
    """
    store = KubernetesStore(controllers=False)
    made = [output / f"{picture}.png" for picture in ("events", "dashboard", "page_phone")]
    with KubernetesApi(store) as api, tempfile.TemporaryDirectory(prefix="evening-") as place:
        cluster = ToldCluster(settings, store, api, Path(place))
        policy = make_policy(name, settings, seed=SEED)
        watch = Watch(Controller(cluster, policy, settings), settings)
        scraped = scraping(watch)
        watch.controller.run(seconds)
        draw_text(events(cluster.asking, settings.app.namespace, cluster.now()), made[0])
    dashboard(as_series(scraped), made[1])
    phone(watch, made[2])
    return made


def _settings(arguments: argparse.Namespace) -> Settings:
    course = [[arguments.seconds * share, level] for share, level in COURSE]
    chosen = {
        "scale.duration": arguments.seconds,
        "scale.events": True,
        "scale.shapes": [],
        "scale.load": {"shape": "course", "low": 20, "high": 100, "course": course},
        "testbed.start": START,
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in chosen.items()]
    return played(load_settings(arguments.config, [*overrides, *arguments.overrides]), SEED)


# ----------------------------------------------------------------------------------------------------- Events
class ToldCluster(VirtualCluster):
    """A virtual cluster whose Events are written to an emulated Kubernetes API.

    Attributes:
        asking: carries requests to that API.
    """

    def __init__(
        self, settings: Settings, store: KubernetesStore, api: KubernetesApi, directory: Path
    ) -> None:
        super().__init__(settings, seed=SEED)
        app = settings.app
        store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": app.namespace}})
        self._objects: dict[str, tuple[str, str]] = {}
        for index, service in enumerate(self.program.services):
            store.create(manifest(self.program, app, index, settings.testbed.initial_replicas))
            name = deployment_of(app, service)
            found = store.peek("apps/deployments", app.namespace, name)
            self._objects[service] = (name, str(found["metadata"]["uid"]) if found else "")
        kubeconfig = str(api.write_kubeconfig(directory / "kubeconfig", app.namespace))
        self.asking = KubeApi(settings.cluster.model_copy(update={"kubeconfig": kubeconfig}))
        self._announcer = Announcer(self.asking, app.namespace, self.now, "deepscaler-0")

    def announce(self, happenings: Sequence[Happening]) -> None:
        """Write Events on the Deployments."""
        self._announcer.announce(happenings, self._objects)


def events(asking: KubeApi, namespace: str, now: float) -> list[str]:
    """The newest Events as `kubectl events` shows them, the oldest of them first."""
    items = asking.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
    rows = [["TIME", "TYPE", "REASON", "OBJECT", "MESSAGE"]]
    for item in sorted(items, key=lambda one: str(one["eventTime"]))[-NEWEST_EVENTS:]:
        count = (item.get("series") or {}).get("count")
        what = item["regarding"]
        words = [str(item["eventTime"])[11:19], item["type"], item["reason"]]
        note = item["note"] + (f" (x{count})" if count else "")
        rows.append([*words, f"{what['kind'].lower()}/{what['name']}", note])
    ends = f"# {len(items)} Events of {namespace} in this evening; the newest at {utc_text(now)}"
    return [ends, *aligned(rows)]


# -------------------------------------------------------------------------------------- dashboard and page
def dashboard(series: Sequence[Series], path: Path) -> None:
    """Draw the dashboard's panels as a real Prometheus answers them.

    Raises:
        ClusterError: there is no Prometheus, or it refuses a query.
    """
    begin, end = min(one.times[0] for one in series), max(one.times[-1] for one in series)
    prometheus_server.install()
    with prometheus_server.running(out_of_order="10y") as server:
        prometheus_server.remote_write(server.url, series)
        draw_panels(panels(server.url, float(begin), float(end)), path)


def phone(watch: Watch, path: Path) -> None:
    """Write a picture of the page on a phone, by night.

    Raises:
        ClusterError: there is no browser, or nothing to drive it by.
    """
    with recorded(watch) as url, _browser() as browser:
        from testbed.live.browser import PHONE

        browser.open(url, PHONE, dark=True)
        height = browser.run("return document.documentElement.scrollHeight")
        browser.resize(PHONE, int(str(height)))  # what no window shows isn't drawn
        time.sleep(DRAWN_SECONDS)
        browser.screenshot(path)
    shrink(path)


def shadow_page(settings: Settings, names: tuple[str, str], command: str, path: Path) -> None:
    """Write a picture of the page that tells what acting would have made of an evening in the shadow.

    Args:
        settings: of the evening.
        names: who is in charge, and who decides in the shadow.
        command: that makes the picture.
        path: of the PNG.

    Raises:
        ClusterError: there is no browser, or nothing to drive it by.
    """
    run = shadow_run(settings, *names, SEED)
    found, _ = foretold(run, settings, names[1], replays=1)
    with tempfile.TemporaryDirectory(prefix="evening-") as place, _browser() as browser:
        page = Path(place) / "shadow.html"
        write_counterfactual(page, found, command)
        browser.open(page)
        browser.screenshot(path)
    shrink(path)


@contextmanager
def _browser() -> Iterator[Browser]:
    try:
        from testbed.live.browser import opened
    except ModuleNotFoundError as error:
        raise ClusterError(f"no {error.name}, which drives the browser: make install-dev") from error
    with opened(chromium.install()) as browser:
        yield browser


if __name__ == "__main__":
    raise SystemExit(main())
