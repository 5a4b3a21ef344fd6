"""Draw the page of a controller: it scales the demo's application in virtual time, and a browser looks at it.

python -m testbed.experiments.page --output docs/page.png
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepscaler.artefacts import replacing
from deepscaler.control.controller import Controller
from deepscaler.control.http_port import PLAIN, Answer, http_port
from deepscaler.control.story import Stories
from deepscaler.control.watch import Watch
from deepscaler.control.watching import Page
from deepscaler.errors import ClusterError, DeepScalerError
from deepscaler.logs import start_logging
from deepscaler.pictures.style import shrink
from deepscaler.policies.registry import make_policy
from deepscaler.settings import load_settings
from testbed.cluster.virtual import VirtualCluster
from testbed.experiments.flags import positive
from testbed.experiments.references import played
from testbed.live import chromium

SEED = 2005
"""Of the load of the picture: one of the demo's test seeds."""
DRAWN_SECONDS = 8.0
"""The page is drawn by then. A browser takes its picture when all is loaded, so the icon comes so late."""
BROWSER_SECONDS = 120.0


def build_parser() -> argparse.ArgumentParser:
    """Flags of the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="config/demo.yaml", help="settings (default: %(default)s)")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--policy", default="deepscaler", help="default: %(default)s; it needs its bundle")
    parser.add_argument("--seconds", type=positive, default=3000.0, help="how long it scales")
    parser.add_argument(
        "--size", default="1280x1330", help="of the picture, in pixels (default: %(default)s)"
    )
    parser.add_argument("--output", default="docs/page.png", help="default: %(default)s")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run, look, write the picture."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    try:
        overrides = [*arguments.overrides, f"scale.duration={arguments.seconds}"]
        settings = played(load_settings(arguments.config, overrides), SEED)
        cluster = VirtualCluster(settings, seed=SEED)
        controller = Controller(cluster, make_policy(arguments.policy, settings, seed=SEED), settings)
        watch = Watch(controller, settings)
        controller.run(arguments.seconds)
        with replacing(arguments.output) as temporary:
            picture(watch, arguments.size, temporary)
            shrink(temporary)
    except DeepScalerError as error:
        print(f"page: {error}", file=sys.stderr)
        return 1
    print(arguments.output)
    return 0


@contextmanager
def recorded(watch: Watch) -> Iterator[str]:
    """Serve the page as it stands; yields its URL."""
    page = Page(
        Stories(watch).newest, lambda: {"healthy": True, "mode": watch.controller.mode(), "past": True}
    )

    def answer(path: str) -> Answer:
        if path == "/icon.svg":
            time.sleep(DRAWN_SECONDS)
        return page.answer(path) or Answer(404, PLAIN, b"not found\n")

    with http_port("127.0.0.1", 0, answer, "--output") as port:
        yield f"http://127.0.0.1:{port}/"


def picture(watch: Watch, size: str, path: Path) -> None:
    """Write a PNG of the page.

    Raises:
        ClusterError: there is no browser, or it makes no picture.
    """
    programs = chromium.install()
    with recorded(watch) as url, tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        options = (
            *(
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
            ),
            *(f"--user-data-dir={profile}", f"--window-size={size.replace('x', ',')}"),
            f"--screenshot={path.resolve()}",
        )
        done = subprocess.run(
            [programs.browser, *options, url],
            env=programs.environment,
            capture_output=True,
            timeout=BROWSER_SECONDS,
            check=False,
        )
    if done.returncode or not path.is_file():
        raise ClusterError(
            f"{programs.browser}: made no picture: {done.stderr[-300:].decode(errors='replace')}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
