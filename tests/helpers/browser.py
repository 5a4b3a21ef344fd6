"""A headless Chromium for tests of pages."""

from collections.abc import Iterator
from contextlib import contextmanager

from helpers.needs import had
from testbed.live import chromium
from testbed.live.browser import DESKTOP, PHONE, Browser, opened

__all__ = ["DESKTOP", "PHONE", "Browser", "browser_or_skip"]


@contextmanager
def browser_or_skip() -> Iterator[Browser]:
    """In CI a missing Chromium is a failure, elsewhere a skip that says why."""
    with opened(had(chromium.install)) as browser:
        yield browser
