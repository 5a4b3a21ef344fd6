"""One way of logging for all scripts: to stderr, results stay on stdout."""

from __future__ import annotations

import logging
import os
import sys

VARIABLE = "DEEPSCALER_LOG"
"""Environment variable with the lowest level shown: DEBUG, INFO (default), WARNING or ERROR."""


def start_logging() -> None:
    """Log to stderr, `LEVEL name: message`."""
    level = os.environ.get(VARIABLE, "INFO").upper()
    known = level in logging.getLevelNamesMapping()
    logging.basicConfig(
        stream=sys.stderr, level=level if known else "INFO", format="%(levelname)s %(name)s: %(message)s"
    )
