"""A headless Chromium that is driven: what a page loads, says on its console, holds, and looks like.

It needs selenium, which `make install-dev` brings.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

from deepscaler.errors import DeepScalerError
from deepscaler.pictures.style import shrink
from testbed.live import chromium
from testbed.live.chromium import Chromium

PHONE, DESKTOP = 375, 1280
"""Widths in CSS pixels."""
LOADING_SECONDS = 60.0
"""A page may take so long."""
OWN_HOSTS = {"", "127.0.0.1", "localhost"}
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # CI runs as root, where the sandbox can't start
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


class Browser:
    """One browser with one page.

    `driver` is selenium's, for what isn't here.
    """

    def __init__(self, driver: webdriver.Chrome, logs: Sequence[str]) -> None:
        """A browser that was just started, and the kinds of logs that it keeps."""
        self.driver, self._logs = driver, logs

    def open(self, page: str | Path, width: int = DESKTOP, dark: bool = False) -> None:
        """Load a page, a URL or a file, in a window of `width` CSS pixels; forgets what was logged before."""
        self.driver.get("about:blank")
        for kind in self._logs:
            self._log(kind)
        self.resize(width)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._tell("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(page.resolve().as_uri() if isinstance(page, Path) else page)
        # On a busy machine the driver takes the load of about:blank for that of the page, now and then.
        WebDriverWait(self.driver, LOADING_SECONDS).until(
            lambda driver: driver.execute_script("return document.readyState") == "complete"
        )

    def resize(self, width: int, height: int = 900) -> None:
        """Give the page a window of this size; a phone's width comes with a phone's viewport."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._tell("Emulation.setDeviceMetricsOverride", size)

    def run(self, script: str) -> object:
        """What a line of JavaScript returns."""
        found: object = self.driver.execute_script(script)
        return found

    def complaints(self) -> list[str]:
        """Errors and warnings on the console since the page was opened or this was last asked."""
        return [
            str(entry["message"]) for entry in self._log("browser") if entry["level"] in ("SEVERE", "WARNING")
        ]

    def requests(self) -> list[str]:
        """URLs that were asked for since the page was opened or this was last asked; without `data:`."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        sent = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        urls = [str(one["request"]["url"]) for one in sent]
        return [url for url in urls if not url.startswith("data:")]

    def outside(self) -> list[str]:
        """Those of `requests` that leave this machine."""
        return [url for url in self.requests() if (urlsplit(url).hostname or "") not in OWN_HOSTS]

    def overhang(self) -> int:
        """By how many CSS pixels the page is wider than its window; 0: no horizontal scrolling."""
        found = self.run("const root = document.documentElement; return root.scrollWidth - root.clientWidth;")
        if not isinstance(found, int):
            raise TypeError(f"expected a number of pixels, found {found!r}")
        return found

    def held(self) -> dict[str, float]:
        """What the page holds after a garbage collection: `heap` in bytes, DOM `nodes`, `listeners`."""
        self._tell("HeapProfiler.collectGarbage", {})
        self._tell("Performance.enable", {})
        told = {
            one["name"]: float(one["value"]) for one in self._tell("Performance.getMetrics", {})["metrics"]
        }
        names = {"heap": "JSHeapUsedSize", "nodes": "Nodes", "listeners": "JSEventListeners"}
        return {name: told[key] for name, key in names.items()}

    def screenshot(self, path: Path) -> None:
        """Write the whole page, not only what the window shows, as PNG."""
        whole = {"captureBeyondViewport": True, "format": "png"}
        path.write_bytes(base64.b64decode(self._tell("Page.captureScreenshot", whole)["data"]))

    def _tell(self, command: str, values: dict[str, Any]) -> Any:
        """A command of the Chrome DevTools Protocol."""
        return self.driver.execute_cdp_cmd(command, values)

    def _log(self, kind: str) -> list[dict[str, Any]]:
        """Entries of a log since it was last asked for."""
        entries: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return entries


@contextmanager
def opened(programs: Chromium, listens: bool = True) -> Iterator[Browser]:
    """A browser, closed at the end.

    Args:
        programs: the browser and its driver.
        listens: what pages ask for is kept until `requests` tells it; without, only their consoles are.
    """
    options = Options()
    options.binary_location = str(programs.browser)
    for argument in ARGUMENTS:
        options.add_argument(argument)
    logs = ("browser", "performance") if listens else ("browser",)
    options.set_capability("goog:loggingPrefs", dict.fromkeys(logs, "ALL"))
    driver = webdriver.Chrome(
        options=options, service=Service(str(programs.driver), env=programs.environment)
    )
    try:
        yield Browser(driver, logs)
    finally:
        driver.quit()


def main(argv: Sequence[str] | None = None) -> int:
    """Write a picture of a page."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.live.browser",
        description="Write a picture (PNG) of a page: python -m testbed.live.browser report.html report.png",
    )
    parser.add_argument("page", help="URL or file")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--width", type=int, default=DESKTOP, help="CSS pixels (default: %(default)s)")
    parser.add_argument("--dark", action="store_true", help="as by night")
    arguments = parser.parse_args(argv)
    try:
        with opened(chromium.install()) as browser:
            there = Path(arguments.page)
            browser.open(there if there.is_file() else arguments.page, arguments.width, arguments.dark)
            browser.screenshot(arguments.picture)
        shrink(arguments.picture)
    except DeepScalerError as error:
        print(f"browser: {error}", file=sys.stderr)
        return 1
    print(arguments.picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
