"""A real VictoriaMetrics on a loopback port, without root, as `prometheus_server` does it.

python -m testbed.live.victoria_metrics --install
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from deepscaler.artefacts import one_line
from deepscaler.errors import ClusterError
from testbed.live.debian import UNPACKED, Package, free_port, install_command
from testbed.live.started import Server, started

PACKAGE = Package("victoria-metrics", ("victoria-metrics",), "VictoriaMetrics")


def install() -> Path:
    """The program; where there is none, Debian's package is unpacked under `.cache/debian`.

    Raises:
        ClusterError: no apt-get here, or it can't reach the package.
    """
    return PACKAGE.install(UNPACKED)


@contextmanager
def running() -> Iterator[Server]:
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
        url = f"http://127.0.0.1:{port}"

        def ready(session: requests.Session) -> bool:
            return session.get(f"{url}/health", timeout=1.0).status_code == 200

        with started("VictoriaMetrics", command, url, directory, ready) as server:
            yield server


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
