"""The API over HTTP on a loopback port, for clients that know nothing but an address."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from testbed.kubernetes_api.requests import KubernetesStore

HOST = "127.0.0.1"
LARGEST_BODY = 3 * 1024 * 1024
IDLE_SECONDS = 120.0
_LOG = logging.getLogger(__name__)


class KubernetesApi:
    """Serves a store from `start` to `stop`, or as a context manager: on the loopback interface, without TLS.

    Args:
        store: what is served.
        port: where; 0 takes a free port.
    """

    def __init__(self, store: KubernetesStore, port: int = 0) -> None:
        self.store = store
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_address[1] if self._server else self._port

    @property
    def url(self) -> str:
        """The address of the API."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> KubernetesApi:
        """Listen.

        Raises:
            OSError: the port is taken already.
        """
        self.store.closed = False
        self._server = _Server((HOST, self._port), self.store)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="kubernetes-api", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """End all watches, close every connection, and return when nothing runs any more."""
        if self._server is None or self._thread is None:
            return
        self.store.close()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()
        self._server = self._thread = None

    def __enter__(self) -> KubernetesApi:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def write_kubeconfig(
        self, path: str | Path, namespace: str = "default", token: str | None = None
    ) -> Path:
        """Write a kubeconfig whose only context is this server, and which only its owner can read.

        kubectl sends no token over plain HTTP; the Python client does.
        """
        context = {"cluster": "testbed", "user": "testbed", "namespace": namespace}
        document: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "testbed", "cluster": {"server": self.url}}],
            "users": [{"name": "testbed", "user": {"token": token} if token else {}}],
            "contexts": [{"name": "testbed", "context": context}],
            "current-context": "testbed",
        }
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}."
        )  # nobody else may read it
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                yaml.safe_dump(document, file, sort_keys=False)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        return path


class _Server(ThreadingHTTPServer):
    """One thread per connection; knows which connections are open."""

    daemon_threads = False  # server_close() waits for them
    block_on_close = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], store: KubernetesStore) -> None:
        self.store = store
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(address, _Handler)

    def opened(self, connection: socket.socket) -> None:
        with self._guard:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._guard:
            self._open.discard(connection)

    def hang_up(self) -> None:
        """Wake every thread that waits for its client."""
        with self._guard:
            for connection in self._open:
                with contextlib.suppress(OSError):  # it may be gone already
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _LOG.debug("connection of %s ended early", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "testbed"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.opened(self.connection)

    def finish(self) -> None:
        self.server.closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        _LOG.debug(format, *args)

    def _answer(self) -> None:
        body = self._body()
        if body is None:
            return
        path, _, query = self.path.partition("?")
        response = self.server.store.handle(self.command, path, query, dict(self.headers.items()), body)
        if isinstance(response.body, bytes):
            self._whole(response.status, response.headers, response.body)
        else:
            self._stream(response.status, response.headers, response.body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def _body(self) -> bytes | None:
        """What was sent; None if the connection had to be given up."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._chunks()
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            return self._give_up(413 if length.isdecimal() else 400)
        return self.rfile.read(int(length))

    def _chunks(self) -> bytes | None:
        parts, total = [], 0
        while True:
            size = self.rfile.readline(64).split(b";")[0].strip()
            try:
                length = int(size, 16)
            except ValueError:
                return self._give_up(400)
            total += length
            if length < 0 or total > LARGEST_BODY:
                return self._give_up(413)
            parts.append(self.rfile.read(length))
            self.rfile.readline(64)
            if not length:
                return b"".join(parts)

    def _give_up(self, status: int) -> bytes | None:
        self.close_connection = True
        self._whole(status, {"Content-Type": "text/plain", "Connection": "close"}, b"bad request\n")
        return None

    def _whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _stream(self, status: int, headers: Mapping[str, str], parts: Iterator[bytes]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for part in parts:
            if part:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
            elif self._gone():
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _gone(self) -> bool:
        """Whether the client has hung up: whatever can be read from a client that watches is its farewell."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
