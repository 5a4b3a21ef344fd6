"""Settings and fixtures of all tests."""

import logging
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

import deepscaler  # noqa: F401 - before any test loads torch, whose threads would spin

if TYPE_CHECKING:
    from helpers.browser import Browser

settings.register_profile("any machine", deadline=None, derandomize=True)
settings.load_profile("any machine")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # so shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # programs that tests stop by Ctrl-C inherit it


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that a test runs sets levels of logging for its process, in which other tests run, too."""
    loggers = [logging.getLogger(), logging.getLogger("deepscaler")]
    levels, disabled = [logger.level for logger in loggers], logging.root.manager.disable
    yield
    logging.disable(disabled)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def _advice_as_before() -> Iterator[None]:
    """A command that a test or a fixture runs has messages name its own settings from then on."""
    from deepscaler import commands

    commands.remember()
    yield
    commands.remember()


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """A headless Chromium, started once; each test opens its own page in it. See helpers/browser.py."""
    from helpers.browser import browser_or_skip

    with browser_or_skip() as found:
        yield found
