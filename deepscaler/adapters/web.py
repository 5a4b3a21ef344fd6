"""HTTP requests whose whole time and whose answers' size are bounded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import requests

from deepscaler import __version__
from deepscaler.adapters.deadline import Deadline
from deepscaler.artefacts import one_line, parse_json
from deepscaler.upstream import Upstream

MOST_BYTES = 64 * 2**20
"""No answer may have more bytes, compressed or not: what it becomes in memory is several times as much."""
USER_AGENT = f"deepscaler/{__version__}"
"""As what requests name themselves to Prometheus, Jaeger and the Kubernetes API."""
CHUNK_BYTES = 2**16
_MOST_SAID = 2000


class TooLarge(OSError):
    """An answer has more than `MOST_BYTES`."""

    def __init__(self) -> None:
        super().__init__(f"the answer has more than {MOST_BYTES // 2**20} MiB")


@dataclass(frozen=True)
class Reply:
    """The answer to a request; its body is whole and decompressed."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    def said(self) -> str:
        """The beginning of the body on one line, or else the reason."""
        return one_line(self.body[:_MOST_SAID].decode(errors="replace"), 200) or self.reason

    def json(self) -> Any:
        """What the body states.

        Raises:
            ValueError: it isn't JSON.
        """
        return parse_json(self.body)


class Web:
    """Sends requests through one session.

    Args:
        session: carries them; it keeps its own adapters and headers.
        upstream: counts them.
    """

    def __init__(self, session: requests.Session | None = None, upstream: Upstream | None = None) -> None:
        self.upstream = upstream or Upstream()
        self._session = session or requests.Session()
        if session is None:
            self._session.headers["User-Agent"] = USER_AGENT
        self._deadline = Deadline()

    def send(self, method: str, url: str, seconds: float, **options: Any) -> Reply:
        """The answer to one request; redirects aren't followed, as they could lead the credentials elsewhere.

        Args:
            method: GET or POST.
            url: of the resource.
            seconds: that everything together may take.
            options: what `requests` takes.

        Raises:
            TimeoutError: no whole answer in that time.
            TooLarge: the answer is too large.
            requests.RequestException: any other trouble.
        """
        with self.upstream.timed():
            reply = self._deadline.within(seconds, partial(self._once, method, url, seconds, options))
        self.upstream.answered(reply.status, reply.headers.get("Date"))
        return reply

    def _once(self, method: str, url: str, seconds: float, options: Mapping[str, Any]) -> Reply:
        with self._session.request(
            method, url, timeout=seconds, stream=True, allow_redirects=False, **options
        ) as answer:
            body = bounded(answer.iter_content(CHUNK_BYTES), answer.headers.get("Content-Length"))
            return Reply(answer.status_code, answer.reason or "", answer.headers, body)


def bounded(parts: Iterable[bytes], length: str | None = None) -> bytes:
    """All parts of a body together.

    Args:
        parts: decompressed.
        length: what the header Content-Length says of the body as it is sent.

    Raises:
        TooLarge: there are more than `MOST_BYTES`.
    """
    if length is not None and length.isdecimal() and int(length[:20]) > MOST_BYTES:
        raise TooLarge
    found, size = list[bytes](), 0
    for part in parts:
        size += len(part)
        if size > MOST_BYTES:
            raise TooLarge
        found.append(part)
    return b"".join(found)
