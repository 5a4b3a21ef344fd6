"""The controller's own metrics for Prometheus: counters, the newest decisions, mode and leadership."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deepscaler.control.controller import Controller
from deepscaler.control.recorder import WRITING
from deepscaler.errors import ClusterError
from deepscaler.settings import Settings

_LOG = logging.getLogger(__name__)
_PAGES = "/metrics, /healthz, /readyz"
_COUNTERS = {
    "ticks": "Ticks that ended without an error.",
    "failed_ticks": "Ticks that ended in an error.",
    "metrics_failures": "Times that the metrics couldn't be read.",
    "held": "Services held because their data couldn't be trusted, summed over ticks.",
    "writes": "Replicas written.",
    "failed_writes": "Writes that were refused or conflicted with another write.",
    "foreign_edits": "Times that somebody else was found to have edited replicas.",
    "lost_rows": "Rows of decisions.csv and pods.csv that couldn't be written.",
    "clock_jumps": "Times that the wall clock was found to have been set.",
    "skipped_rows": "Torn or broken lines of these files that were left out.",
}
_VALUES = {
    "current": "spec.replicas when the tick read them.",
    "ready": "Ready replicas.",
    "predicted": "Replicas that the policy wants.",
    "floor": "The reactive floor.",
    "target": "Replicas that were decided.",
}


def exposition(controller: Controller, policy: str, app: str) -> str:
    """The page in the text format of Prometheus."""
    statistics, rows, mode = controller.statistics, controller.last_rows, controller.mode()
    lines: list[str] = []
    bundle = controller.policy.describe().get("bundle_sha256")
    about = {"app": app, "policy": policy, "mode": mode}

    def family(name: str, kind: str, text: str, samples: list[tuple[Mapping[str, str], float]]) -> None:
        if samples:
            lines.extend((f"# HELP deepscaler_{name} {text}", f"# TYPE deepscaler_{name} {kind}"))
            lines.extend(f"deepscaler_{name}{_labels(labels)} {value:.15g}" for labels, value in samples)

    family(
        "info",
        "gauge",
        "Application, policy, bundle and mode of this controller.",
        [({**about, "bundle_sha256": str(bundle)} if bundle else about, 1.0)],
    )
    family(
        "healthy", "gauge", "1 if a tick was completed lately, else 0.", [({}, float(controller.healthy()))]
    )
    family("leader", "gauge", "1 if this controller may write, else 0.", [({}, float(mode in WRITING))])
    for name, text in _COUNTERS.items():
        family(f"{name}_total", "counter", text, [({}, float(getattr(statistics, name)))])
    family(
        "decision_seconds_sum",
        "counter",
        "Time that all ticks took together.",
        [({}, statistics.all_decision_seconds)],
    )
    family(
        "decision_seconds_count",
        "counter",
        "Number of ticks whose time was taken.",
        [({}, float(statistics.ticks))],
    )
    failures = controller.cluster.api_failures
    samples: list[tuple[Mapping[str, str], float]] = [
        ({"status": str(code)}, float(count)) for code, count in sorted(failures.items())
    ]
    family(
        "api_failures_total",
        "counter",
        "Times that the Kubernetes API couldn't be read, by HTTP status (0 means no answer).",
        samples,
    )
    if rows:
        family("last_tick_timestamp_seconds", "gauge", "Time of the newest tick.", [({}, rows[0].time)])
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
    family("decision", "gauge", "1 for the reason why a service got its target.", reasons)
    return "\n".join(lines) + "\n"


def _page(controller: Controller, settings: Settings, path: str) -> tuple[int, str]:
    """HTTP status and text."""
    if path == "/metrics":
        return 200, exposition(controller, controller.policy.name, settings.app.name)
    if path == "/healthz":
        return (200, "ok\n") if controller.healthy() else (503, "no tick was completed lately\n")
    if path == "/readyz":
        return (200, "ok\n") if controller.ready() else (503, "no tick yet, or the last ones failed\n")
    return 404, f"not found: {_PAGES}\n"


@contextmanager
def serving_metrics(controller: Controller, settings: Settings) -> Iterator[int | None]:
    """Serve `/metrics`, `/healthz` and `/readyz` on `scale.metrics_port` until the `with` block ends.

    Yields:
        The port; None if no port is set, and nothing is served.

    Raises:
        ClusterError: the port can't be opened.
    """
    if settings.scale.metrics_port is None:
        yield None
        return

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            status, text = _page(controller, settings, self.path.partition("?")[0])
            body = text.encode()
            self.send_response(status)
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
            f"the metrics page can't be served on {address[0]}:{address[1]} ({error}); set scale.metrics_port"
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
