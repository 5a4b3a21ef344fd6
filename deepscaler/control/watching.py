"""The page to watch: its files, and the stream of server-sent events that keeps it up to date."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from deepscaler.control.http_port import Answer
from deepscaler.control.story import Newest, Story

FILES: Mapping[str, tuple[str, str]] = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/uplot.js": ("uplot.js", "text/javascript; charset=utf-8"),
    "/uplot.css": ("uplot.css", "text/css; charset=utf-8"),
    "/uplot.LICENSE": ("uplot.LICENSE", "text/plain; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Path -> file in `deepscaler/control/page/`, and its type."""
EVENTS = "/events"
LOOK_SECONDS = 0.5
"""A stream looks for a new story so often."""
PULSE_SECONDS = 5.0
"""It says so often that the controller lives, with the time of its clock."""
Pulse = Callable[[], Mapping[str, Any]]
"""Tells how the controller is at this moment."""


class Page:
    """Answers what belongs to the page.

    Args:
        newest: tells the newest story.
        pulse: tells how the controller is.
    """

    def __init__(self, newest: Newest, pulse: Pulse) -> None:
        self._newest, self._pulse = newest, pulse

    def answer(self, path: str) -> Answer | None:
        """The answer to a path; None for one that isn't the page's."""
        if path == EVENTS:
            return Answer(200, "text/event-stream; charset=utf-8", stream=self.events)
        if path == "/story.json":
            return Answer(200, "application/json; charset=utf-8", self._newest().text().encode())
        found = FILES.get(path)
        return None if found is None else Answer(200, found[1], file(found[0]), kept=60)

    def events(self, closing: threading.Event) -> Iterator[bytes]:
        """The whole story, then what each tick adds to it, and a pulse between them."""
        told: Story | None = None
        app: Any = None
        since, due = None, -float("inf")
        while not closing.is_set():
            story = self._newest()
            if story is not told:
                fresh = since is None or story.about != app or story.newest < since
                yield _event("story", story.text()) if fresh else _event("step", story.text(since))
                told, app, since = story, story.about, story.newest
            if time.monotonic() >= due:
                yield _event("pulse", json.dumps({"time": time.time(), **self._pulse()}))
                due = time.monotonic() + PULSE_SECONDS
            closing.wait(LOOK_SECONDS)


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


@cache
def file(name: str) -> bytes:
    """A file of the page."""
    return (resources.files("deepscaler.control") / "page" / name).read_bytes()
