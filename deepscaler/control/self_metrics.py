"""The controller's own metrics, as Prometheus scrapes them: counters, the newest decision a service, mode and leadership."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deepscaler.control.controller import Controller
from deepscaler.control.recorder import ACTING
from deepscaler.errors import ClusterError
from deepscaler.settings import Settings

_LOG = logging.getLogger(__name__)
_COUNTERS = {
    "ticks": "Ticks that went through.",
    "failed_ticks": "Ticks that ended in an error.",
    "metrics_failures": "Times that metrics couldn't be had.",
    "held": "Services held for want of trustworthy data.",
    "writes": "Replicas written.",
    "failed_writes": "Writes that were refused or in conflict.",
    "foreign_edits": "Replicas found edited by somebody else.",
}
_VALUES = {
    "current": "spec.replicas when they were read.",
    "ready": "Ready replicas.",
    "predicted": "The policy's wish.",
    "floor": "The reactive floor.",
    "target": "Replicas decided upon.",
}


def exposition(controller: Controller, policy: str, app: str) -> str:
    """The page in Prometheus's text format."""
    statistics, rows, mode = controller.statistics, controller.last_rows, controller.mode()
    lines: list[str] = []

    def family(name: str, kind: str, text: str, samples: list[tuple[Mapping[str, str], float]]) -> None:
        if samples:
            lines.extend((f"# HELP deepscaler_{name} {text}", f"# TYPE deepscaler_{name} {kind}"))
            lines.extend(f"deepscaler_{name}{_labels(labels)} {value:.15g}" for labels, value in samples)

    family("info", "gauge", "What runs.", [({"app": app, "policy": policy, "mode": mode}, 1.0)])
    family("leader", "gauge", "1: this controller writes.", [({}, float(mode == ACTING))])
    for name, text in _COUNTERS.items():
        family(f"{name}_total", "counter", text, [({}, float(getattr(statistics, name)))])
    seconds = list(statistics.decision_seconds)
    family("decision_seconds_sum", "counter", "Time that ticks took.", [({}, sum(seconds))])
    family("decision_seconds_count", "counter", "Ticks that were timed.", [({}, float(len(seconds)))])
    failures = controller.cluster.api_failures
    samples: list[tuple[Mapping[str, str], float]] = [
        ({"status": str(code)}, float(count)) for code, count in sorted(failures.items())
    ]
    family(
        "api_failures_total",
        "counter",
        "Times that the Kubernetes API couldn't be read, by HTTP status (0: no answer).",
        samples,
    )
    if rows:
        family("last_tick_timestamp_seconds", "gauge", "When the newest tick decided.", [({}, rows[0].time)])
    for name, text in _VALUES.items():
        known = [({"service": row.service}, getattr(row, name)) for row in rows]
        family(
            f"{name}_replicas",
            "gauge",
            text,
            [(labels, float(value)) for labels, value in known if value is not None],
        )
    reasons: list[tuple[Mapping[str, str], float]] = [
        ({"service": row.service, "reason": row.reason}, 1.0) for row in rows
    ]
    family("decision", "gauge", "Why a service got its target.", reasons)
    return "\n".join(lines) + "\n"


@contextmanager
def serving_metrics(controller: Controller, settings: Settings) -> Iterator[int | None]:
    """Serve `/metrics` and `/healthz` on `scale.metrics_port` until the end; yields the port, None where none is set.

    Raises:
        ClusterError: the port can't be had.
    """
    if settings.scale.metrics_port is None:
        yield None
        return

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                text = exposition(controller, controller.policy.name, settings.app.name)
            else:
                text = "ok\n" if path == "/healthz" else ""
            body = (text or "not found: /metrics, /healthz\n").encode()
            self.send_response(200 if text else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            _LOG.debug(format, *arguments)

    address = (settings.scale.metrics_address, settings.scale.metrics_port)
    try:
        server = ThreadingHTTPServer(address, Handler)
    except OSError as error:
        raise ClusterError(
            f"metrics page on {address[0]}:{address[1]}: {error}; set scale.metrics_port"
        ) from error
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True
    )
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _labels(labels: Mapping[str, str]) -> str:
    quoted = [
        f'{name}="{value}"' for name, value in ((name, _escaped(value)) for name, value in labels.items())
    ]
    return f"{{{','.join(quoted)}}}" if quoted else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
