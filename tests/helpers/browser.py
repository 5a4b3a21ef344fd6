"""A headless Chromium for tests of pages: what it loads, says on its console, and how wide a page becomes."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from helpers.needs import had
from testbed.live import chromium

PHONE, DESKTOP = 375, 1280
"""Widths in CSS pixels."""
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

    def __init__(self, driver: webdriver.Chrome) -> None:
        """A browser that was just started."""
        self.driver = driver

    def open(self, page: str | Path, width: int = DESKTOP, dark: bool = False) -> None:
        """Load a page, a URL or a file, in a window of `width` CSS pixels; forgets what was logged before."""
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.resize(width)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(page.resolve().as_uri() if isinstance(page, Path) else page)

    def resize(self, width: int, height: int = 900) -> None:
        """Give the page a window of this size; a phone's width comes with a phone's viewport."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def run(self, script: str) -> object:
        """What a line of JavaScript returns."""
        return self.driver.execute_script(script)

    def complaints(self) -> list[str]:
        """Errors and warnings on the console since the page was opened or this was last asked."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]

    def requests(self) -> list[str]:
        """URLs that were asked for since the page was opened or this was last asked; without `data:`."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        urls = [one["request"]["url"] for one in sent]
        return [url for url in urls if not url.startswith("data:")]

    def outside(self) -> list[str]:
        """Those of `requests` that leave this machine."""
        return [url for url in self.requests() if (urlsplit(url).hostname or "") not in OWN_HOSTS]

    def overhang(self) -> int:
        """By how many CSS pixels the page is wider than its window; 0: no horizontal scrolling."""
        found = self.run("const root = document.documentElement; return root.scrollWidth - root.clientWidth;")
        assert isinstance(found, int)
        return found

    def screenshot(self, path: Path) -> None:
        """Write the whole page, not only what the window shows, as PNG."""
        whole = {"captureBeyondViewport": True, "format": "png"}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", whole)
        path.write_bytes(base64.b64decode(taken["data"]))


@contextmanager
def browser_or_skip() -> Iterator[Browser]:
    """In CI a missing Chromium is a failure, elsewhere a skip that says why."""
    programs = had(chromium.install)
    options = Options()
    options.binary_location = str(programs.browser)
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = Service(str(programs.driver), env=programs.environment)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
