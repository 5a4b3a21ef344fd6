"""A real Prometheus on a loopback port, without root: found or unpacked from Debian's package, then started.

python -m testbed.live.prometheus_server --install
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
import requests
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from deepscaler.artefacts import one_line
from deepscaler.errors import ClusterError, MetricsError
from testbed.cluster.exposition import Series
from testbed.live.debian import UNPACKED, Package, free_port, install_command
from testbed.live.started import Server, started

PACKAGE = Package("prometheus", ("prometheus", "promtool"), "Prometheus")
SAMPLES_PER_REQUEST = 100_000
_MISSING = (
    "no prometheus program: run `python -m testbed.live.prometheus_server --install` "
    "(needs Debian's apt-get), or put one on PATH"
)


def find() -> Path | None:
    """The `prometheus` program: on PATH, else unpacked under `.cache/debian`; None where there is none."""
    return PACKAGE.find(UNPACKED)


def install() -> Path:
    """The `prometheus` program; where there is none, Debian's package is unpacked under `.cache/debian`.

    Raises:
        ClusterError: no apt-get here, or it can't reach the package.
    """
    return PACKAGE.install(UNPACKED)


def promtool() -> Path:
    """The `promtool` program, which comes with Prometheus.

    Raises:
        ClusterError: as `install`, or Prometheus is there without it.
    """
    tool = install().with_name("promtool")
    if not tool.is_file():
        raise ClusterError(f"{tool}: not there; put a promtool beside prometheus")
    return tool


# ------------------------------------------------------------------------------------------------- the server
@contextmanager
def running(
    port: int | None = None,
    scrape_configs: Sequence[dict[str, Any]] = (),
    out_of_order: str = "1h",
    data: Path | None = None,
) -> Iterator[Server]:
    """Start Prometheus on 127.0.0.1, yield it when it is ready, and stop it by its pid.

    Args:
        port: None takes a free one.
        scrape_configs: as in prometheus.yml.
        out_of_order: how late samples may come.
        data: where its data stays; None: a temporary directory that is removed.

    Raises:
        ClusterError: there is no program, or it doesn't become ready.
    """
    program = find()
    if program is None:
        raise ClusterError(_MISSING)
    with tempfile.TemporaryDirectory(prefix="prometheus-") as name:
        directory = Path(name)
        document = {
            "global": {"scrape_interval": "15s", "scrape_timeout": "10s"},
            "scrape_configs": list(scrape_configs),
            "storage": {"tsdb": {"out_of_order_time_window": out_of_order}},
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
        port = port or free_port()
        command = [
            str(program),
            f"--config.file={directory / 'prometheus.yml'}",
            f"--web.listen-address=127.0.0.1:{port}",
            f"--storage.tsdb.path={data or directory / 'data'}",
            "--storage.tsdb.retention.time=10y",
            "--web.enable-remote-write-receiver",
            "--log.level=warn",
        ]
        url, place = f"http://127.0.0.1:{port}", str(data or directory / "data")

        def ready(session: requests.Session) -> bool:
            """Whether *this* server answers: another one on the same port has its data elsewhere."""
            if session.get(f"{url}/-/ready", timeout=1.0).status_code != 200:
                return False
            flags = session.get(f"{url}/api/v1/status/flags", timeout=1.0).json()["data"]
            return bool(flags["storage.tsdb.path"] == place)

        with started("Prometheus", command, url, directory, ready) as server:
            yield server


# ----------------------------------------------------------------------------------------------- remote write
def _write_request() -> Any:
    """The message class `WriteRequest` of remote write 0.1.0, built from descriptors (no generated code)."""
    kinds = descriptor_pb2.FieldDescriptorProto
    shapes: dict[str, list[tuple[str, int, int, int, str]]] = {
        "Label": [
            ("name", 1, kinds.LABEL_OPTIONAL, kinds.TYPE_STRING, ""),
            ("value", 2, kinds.LABEL_OPTIONAL, kinds.TYPE_STRING, ""),
        ],
        "Sample": [
            ("value", 1, kinds.LABEL_OPTIONAL, kinds.TYPE_DOUBLE, ""),
            ("timestamp", 2, kinds.LABEL_OPTIONAL, kinds.TYPE_INT64, ""),
        ],
        "TimeSeries": [
            ("labels", 1, kinds.LABEL_REPEATED, kinds.TYPE_MESSAGE, "Label"),
            ("samples", 2, kinds.LABEL_REPEATED, kinds.TYPE_MESSAGE, "Sample"),
        ],
        "WriteRequest": [("timeseries", 1, kinds.LABEL_REPEATED, kinds.TYPE_MESSAGE, "TimeSeries")],
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="deepscaler_remote_write.proto", package="prometheus", syntax="proto3"
    )
    for name, fields in shapes.items():
        message = file.message_type.add(name=name)
        for field_name, number, label, kind, of in fields:
            field = message.field.add(name=field_name, number=number, label=label, type=kind)
            if of:
                field.type_name = f".prometheus.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("prometheus.WriteRequest"))


WRITE_REQUEST = _write_request()


def remote_write(
    url: str,
    series: Sequence[Series],
    *,
    samples_per_request: int = SAMPLES_PER_REQUEST,
    timeout: float = 60.0,
) -> int:
    """Push series into a Prometheus; returns the number of samples.

    It takes them window by window in the order of time, all series of a window together.

    Raises:
        MetricsError: it can't be reached or refuses the samples.
    """
    if not series:
        return 0
    total = sum(len(one.times) for one in series)
    first = min(float(one.times[0]) for one in series)
    last = max(float(one.times[-1]) for one in series)
    edges = np.linspace(first, last, -(-total // samples_per_request) + 1)
    edges[-1] = np.inf
    bounds = [np.searchsorted(one.times, edges) for one in series]
    with requests.Session() as session:
        session.trust_env = False
        for window in range(len(edges) - 1):
            body = _encode(series, [(int(cut[window]), int(cut[window + 1])) for cut in bounds])
            if body:
                _push(session, url.rstrip("/") + "/api/v1/write", body, timeout)
    return total


def _encode(series: Sequence[Series], cuts: Sequence[tuple[int, int]]) -> bytes:
    request = WRITE_REQUEST()
    for one, (low, high) in zip(series, cuts, strict=True):
        if low == high:
            continue
        target = request.timeseries.add()
        for name, value in one.labels:
            target.labels.add(name=name, value=value)
        for moment, number in zip(
            np.rint(one.times[low:high] * 1000).astype(int).tolist(),
            one.values[low:high].tolist(),
            strict=True,
        ):
            target.samples.add(value=number, timestamp=moment)
    return bytes(request.SerializeToString())


def _push(session: requests.Session, url: str, body: bytes, timeout: float) -> None:
    headers = {
        "Content-Encoding": "snappy",
        "Content-Type": "application/x-protobuf",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }
    try:
        response = session.post(
            url, data=bytes(cramjam.snappy.compress_raw(body)), headers=headers, timeout=timeout
        )
    except requests.RequestException as error:
        raise MetricsError(f"{url}: {one_line(error)}; is Prometheus running there?") from error
    if response.status_code != 204:
        said = one_line(response.text, longest=300)
        raise MetricsError(
            f"{url}: HTTP {response.status_code} ({said}); start it with --web.enable-remote-write-receiver"
        )


def main(argv: list[str] | None = None) -> int:
    """Unpack Prometheus where it isn't there yet, and print the program's path."""
    return install_command(argv, main.__doc__, install)


if __name__ == "__main__":
    raise SystemExit(main())
