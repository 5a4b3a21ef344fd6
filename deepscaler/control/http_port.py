"""An HTTP port for readers: it answers GET alone, few clients at a time, and none of them for long.

The controller's thread decides while these threads answer, so all that they may take is bounded.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deepscaler.errors import ClusterError

log = logging.getLogger(__name__)
PLAIN = "text/plain; charset=utf-8"
MOST_CONNECTIONS = 48
"""A connection beyond these is closed at once."""
MOST_STREAMS = 16
"""So many of them may be streams; another one is refused with 503."""
LONGEST_SECONDS = 15.0
"""A request that isn't answered by then, however slowly its client speaks, is cut off."""
WRITE_SECONDS = 10.0
"""A stream whose client takes nothing for so long is cut off."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Sent with every answer: nothing from outside is loaded, and nobody outside is told."""


@dataclass(frozen=True)
class Answer:
    """What a path is answered with.

    Attributes:
        status: of HTTP.
        kind: the content type.
        body: all of it; or else
        stream: makes parts that are sent as they come, until the client goes or the port closes. The event
            that it is given says that the port closes.
        kept: seconds for which a browser may keep it.
    """

    status: int
    kind: str
    body: bytes = b""
    stream: Callable[[threading.Event], Iterator[bytes]] | None = None
    kept: int = 0


class _Server(ThreadingHTTPServer):
    """Counts connections, and cuts off those that take too long."""

    request_queue_size = 32

    def __init__(self, address: str, port: int, answer: Callable[[str], Answer]) -> None:
        found = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name that has both, as localhost, is served where it always was.
        self.address_family, *_, place = min(found, key=lambda one: one[0] != socket.AF_INET)
        self.answer, self.closing = answer, threading.Event()
        self.streams = threading.Semaphore(MOST_STREAMS)
        self._open: dict[socket.socket, float] = {}  # connection -> when it is cut off
        super().__init__(place, _Handler)  # type: ignore[arg-type]  # IPv6 has a flow and a scope, too

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            with suppress(OSError):  # a machine may have IPv6 alone
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # `::` is IPv4, too
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._open) >= MOST_CONNECTIONS:
            self.shutdown_request(request)
            return
        self._open[request] = time.monotonic() + LONGEST_SECONDS
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.pop(request, None)
        super().shutdown_request(request)

    def streaming(self, request: socket.socket) -> None:
        """Let this connection stay."""
        self._open[request] = float("inf")

    def service_actions(self) -> None:
        now = time.monotonic()
        for request, end in list(self._open.items()):
            if now >= end:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a client went away", exc_info=True)

    def cut_all(self) -> None:
        """Close what is open."""
        self.closing.set()
        for request in list(self._open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = WRITE_SECONDS
    server_version, sys_version = "deepscaler", ""

    def do_GET(self) -> None:
        answer = self.server.answer(self.path.partition("?")[0])
        if answer.stream is None:
            self._begin(answer)
            self.wfile.write(answer.body)
        elif self.server.streams.acquire(blocking=False):
            try:
                self._stream(answer, answer.stream)
            finally:
                self.server.streams.release()
        else:
            self._begin(Answer(503, PLAIN, b"too many watch already; close a page\n"))
            self.wfile.write(b"too many watch already; close a page\n")

    def _begin(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        if answer.stream is None:
            self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", f"max-age={answer.kept}" if answer.kept else "no-store")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def _stream(self, answer: Answer, parts: Callable[[threading.Event], Iterator[bytes]]) -> None:
        self.server.streaming(self.request)
        self._begin(answer)
        for part in parts(self.server.closing):
            self.wfile.write(part)

    def log_message(self, format: str, *arguments: Any) -> None:
        log.debug(format, *arguments)


@contextmanager
def http_port(
    address: str, port: int, answer: Callable[[str], Answer], setting: str, address_setting: str = ""
) -> Iterator[int]:
    """Answer requests until the `with` block ends.

    Args:
        address: to listen on, of IPv4 or IPv6; `::` is all of both.
        port: likewise; 0 for a free one.
        answer: from a path to its answer; called in several threads.
        setting: that names the port, for the message.
        address_setting: that names the address; "" if none does.

    Yields:
        The port.

    Raises:
        ClusterError: the port can't be opened.
    """
    try:
        server = _Server(address, port, answer)
    except (OSError, UnicodeError) as error:
        of_port = getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES)
        where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        remedy = setting if of_port or not address_setting else address_setting
        raise ClusterError(f"nothing can be served on {where} ({error}); set {remedy}") from error
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="pages", daemon=True
    )
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.cut_all()
        server.server_close()
