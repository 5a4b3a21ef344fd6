"""Settings and fixtures of all tests."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from helpers.browser import Browser

settings.register_profile("any machine", deadline=None, derandomize=True)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """A headless Chromium, started once; each test opens its own page in it. See helpers/browser.py."""
    from helpers.browser import browser_or_skip

    with browser_or_skip() as found:
        yield found
