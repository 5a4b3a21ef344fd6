"""What the controller answers on its port: metrics, probes and the page to watch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deepscaler.control.controller import Controller
from deepscaler.control.http_port import PLAIN, Answer, http_port
from deepscaler.control.self_metrics import CONTENT_TYPE, exposition
from deepscaler.control.story import Stories
from deepscaler.control.watch import Watch
from deepscaler.control.watching import Page
from deepscaler.settings import Settings

LEAST_METRICS_SECONDS = 1.0
"""The text of /metrics is made anew at most so often, however many ask."""


class Routes:
    """From paths to answers, for one controller."""

    def __init__(self, watch: Watch, clock: Callable[[], float] = time.monotonic) -> None:
        self._watch, self._clock = watch, clock
        self._lock = threading.Lock()
        self._made, self._text = float("-inf"), b""
        self._page = Page(Stories(watch).newest, self._pulse)

    def __call__(self, path: str) -> Answer:
        """The answer to a path."""
        controller = self._watch.controller
        if path == "/metrics":
            return Answer(200, CONTENT_TYPE, self._metrics())
        if path == "/healthz":
            return _state(controller.healthy(), "no tick was completed lately")
        if path == "/readyz":
            return _state(controller.ready(), "no tick yet, or the last ones failed")
        return self._page.answer(path) or Answer(404, PLAIN, b"not found: /, /metrics, /healthz, /readyz\n")

    def _pulse(self) -> dict[str, bool | str]:
        controller = self._watch.controller
        return {"healthy": controller.healthy(), "ready": controller.ready(), "mode": controller.mode()}

    def _metrics(self) -> bytes:
        with self._lock:
            if self._clock() - self._made >= LEAST_METRICS_SECONDS:
                self._text, self._made = exposition(self._watch), self._clock()
            return self._text


def _state(well: bool, otherwise: str) -> Answer:
    return Answer(200, PLAIN, b"ok\n") if well else Answer(503, PLAIN, f"{otherwise}\n".encode())


@contextmanager
def serving(controller: Controller, settings: Settings) -> Iterator[int | None]:
    """Serve the page, `/metrics` and the probes on `scale.metrics_port` until the `with` block ends.

    Yields:
        The port; None if no port is set, and nothing is served.

    Raises:
        ClusterError: the port can't be opened.
    """
    port = settings.scale.metrics_port
    if port is None:
        yield None
        return
    routes = Routes(Watch(controller, settings))
    address, names = settings.scale.metrics_address, ("scale.metrics_port", "scale.metrics_address")
    with http_port(address, port, routes, *names) as opened:
        yield opened
