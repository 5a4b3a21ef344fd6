"""A real VictoriaMetrics on a loopback port, without root, as `prometheus_server` does it.

python -m testbed.live.victoria_metrics --install
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from deepscaler.artefacts import one_line
from deepscaler.errors import ClusterError
from testbed.live.debian import UNPACKED, Package, free_port, install_command, stop
from testbed.live.prometheus_server import READY_SECONDS, PrometheusServer

PACKAGE = Package("victoria-metrics", ("victoria-metrics",), "VictoriaMetrics")


def install() -> Path:
    """The program; where there is none, Debian's package is unpacked under `.cache/debian`.

    Raises:
        ClusterError: no apt-get here, or it can't reach the package.
    """
    return PACKAGE.install(UNPACKED)


@contextmanager
def running() -> Iterator[PrometheusServer]:
    """Start VictoriaMetrics on a free port of 127.0.0.1, yield it when it is ready, and stop it by its pid.

    Raises:
        ClusterError: there is no program, or it doesn't become ready.
    """
    program = install()
    with tempfile.TemporaryDirectory(prefix="victoria-metrics-") as name:
        directory, port = Path(name), free_port()
        command = [
            str(program),
            f"-httpListenAddr=127.0.0.1:{port}",
            f"-storageDataPath={directory / 'data'}",
            "-retentionPeriod=100y",
            "-loggerLevel=WARN",
        ]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            server = PrometheusServer(f"http://127.0.0.1:{port}", process.pid, directory)
            _await_ready(server, process)
            yield server
        finally:
            stop(process)


def _await_ready(server: PrometheusServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with requests.Session() as session:
        session.trust_env = False  # a proxy has no business on loopback
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if session.get(f"{server.url}/health", timeout=1.0).status_code == 200:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.05)
    log = one_line((server.directory / "log").read_text(encoding="utf-8", errors="replace")[-400:])
    raise ClusterError(f"VictoriaMetrics at {server.url} didn't become ready; its log ends: {log}")


def flush(url: str) -> None:
    """Return when all that was written can be queried.

    Raises:
        ClusterError: it can't be reached.
    """
    try:
        requests.get(f"{url}/internal/force_flush", timeout=30.0).raise_for_status()
    except requests.RequestException as error:
        raise ClusterError(f"{url}: {one_line(error)}; is VictoriaMetrics running there?") from error


def main(argv: list[str] | None = None) -> int:
    """Unpack VictoriaMetrics where it isn't there yet, and print the program's path."""
    return install_command(argv, main.__doc__, install)


if __name__ == "__main__":
    raise SystemExit(main())
