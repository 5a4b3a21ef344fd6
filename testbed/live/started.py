"""A server that answers over HTTP on a loopback port: started, awaited, and stopped by its pid."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from deepscaler.artefacts import one_line
from deepscaler.errors import ClusterError
from testbed.live.debian import stop

READY_SECONDS = 30.0


@dataclass(frozen=True)
class Server:
    """A running server: its address, process and directory."""

    url: str
    pid: int
    directory: Path


@contextmanager
def started(
    title: str,
    command: Sequence[str],
    url: str,
    directory: Path,
    ready: Callable[[requests.Session], bool],
    seconds: float = READY_SECONDS,
) -> Iterator[Server]:
    """Start a program, yield it when it is ready, and stop it by its pid.

    Args:
        title: what people call it.
        command: the program and its arguments.
        url: where it will answer.
        directory: takes its `log`.
        ready: asks it whether it is ready; an answer that can't be had or read counts as no.
        seconds: to become ready in.

    Raises:
        ClusterError: it doesn't become ready.
    """
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        if not _becomes_ready(process, ready, seconds):
            said = one_line((directory / "log").read_text(encoding="utf-8", errors="replace")[-400:])
            raise ClusterError(f"{title} at {url} didn't become ready; its log ends: {said}")
        yield Server(url, process.pid, directory)
    finally:
        stop(process)


def _becomes_ready(
    process: subprocess.Popen[bytes], ready: Callable[[requests.Session], bool], seconds: float
) -> bool:
    deadline = time.monotonic() + seconds
    with requests.Session() as session:
        session.trust_env = False  # a proxy has no business on loopback
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if ready(session):
                    return True
            except (requests.RequestException, ValueError, KeyError):
                pass
            time.sleep(0.05)
    return False


def text_at(url: str, seconds: float = 10.0) -> str | None:
    """What a server on loopback answers, whatever its status; None if it doesn't."""
    with requests.Session() as session:
        session.trust_env = False  # a proxy has no business on loopback
        try:
            return session.get(url, timeout=seconds).text
        except requests.RequestException:
            return None
