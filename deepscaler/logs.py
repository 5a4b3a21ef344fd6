"""One way of logging for all scripts: logs go to stderr, results to stdout."""

from __future__ import annotations

import json
import logging
import os
import sys

from deepscaler.artefacts import utc_text
from deepscaler.commands import complete
from deepscaler.scrubbing import scrubbed

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
VARIABLE = "DEEPSCALER_LOG"
"""Environment variable for the lowest level that is shown: DEBUG, INFO (default), WARNING or ERROR."""


FORMATS = ("text", "json")


def start_logging(form: str = "text") -> None:
    """Log to stderr as `2026-01-05T00:00:15.250Z LEVEL name: message`, or as one JSON object per line.

    What libraries say of tries that they repeat themselves is left out: what comes of it is told by ours.
    """
    level = os.environ.get(VARIABLE, "INFO").upper()
    known = level in logging.getLevelNamesMapping()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else Scrubbing(TEXT))
    logging.basicConfig(handlers=[handler], level=level if known else "INFO")
    if level != "DEBUG":
        logging.getLogger("urllib3").setLevel(logging.ERROR)


class Scrubbing(logging.Formatter):
    """A formatter that takes secrets out of whole records, their tracebacks included. Times are UTC.

    Commands in them name the settings that were given.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The text of the record."""
        return scrubbed(complete(super().format(record)))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """When it was logged."""
        return utc_text(record.created)


class JsonLines(Scrubbing):
    """One JSON object per record: `time`, `level`, `logger`, `message`, and `traceback` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The object on one line."""
        said = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": scrubbed(complete(record.getMessage())),
        }
        if record.exc_info:
            said["traceback"] = scrubbed(self.formatException(record.exc_info))
        return json.dumps(said, ensure_ascii=False)


class OnChange:
    """Logs a trouble when it begins, when its text changes and when it is over, but not each time it is seen.

    `subject in on_change` says whether there is a trouble with it at present.
    """

    def __init__(self, logger: logging.Logger, level: int = logging.WARNING) -> None:
        """Log troubles to `logger` at `level`; that one is over is always a warning."""
        self._logger = logger
        self._level = level
        self._told: dict[str, str] = {}

    def __contains__(self, subject: str) -> bool:
        return subject in self._told

    def trouble(self, subject: str, text: str) -> None:
        """`text` says what is wrong with `subject`."""
        if text != self._told.get(subject):
            self._logger.log(self._level, "%s", text)
        self._told[subject] = text

    def well(self, subject: str, text: str | None = None) -> None:
        """Nothing is wrong with `subject` (any more); `text` says so, by default `subject: well again`."""
        if self._told.pop(subject, None) is not None:
            self._logger.warning("%s", text or f"{subject}: well again")
