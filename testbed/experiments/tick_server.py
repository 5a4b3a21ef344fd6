"""A cluster of any size for `tick_bench.py`: the emulated Kubernetes API and a scripted Prometheus."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from testbed.kubernetes_api import KubernetesApi, KubernetesStore, PodState

NAMESPACE = "bench"
REPLICAS = 3
LIMIT_CORES = 0.5
_HASH = "5d9c5b8f6d"
_USED = ("container_cpu_usage", "container_memory_working_set")


def names_of(services: int) -> list[str]:
    """The services, which are called as their Deployments and containers."""
    return [f"service-{number:04d}" for number in range(services)]


@contextmanager
def serving(services: int, directory: Path) -> Iterator[tuple[str, str]]:
    """Serve from a process of its own, so that its work isn't measured.

    Yields:
        The URL of Prometheus, and the path of a kubeconfig.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(services, str(directory), theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _serve(services: int, directory: str, connection: Connection) -> None:
    prometheus = ThreadingHTTPServer(("127.0.0.1", 0), _handler(names_of(services)))
    with KubernetesApi(_store(names_of(services))) as kubernetes:
        config = kubernetes.write_kubeconfig(Path(directory) / "kubeconfig", NAMESPACE)
        connection.send((f"http://127.0.0.1:{prometheus.server_port}", str(config)))
        prometheus.serve_forever()


# -------------------------------------------------------------------------------------------- Kubernetes' API
def _store(names: list[str]) -> KubernetesStore:
    store, created = KubernetesStore(), time.time() - 3600.0
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for name in names:
        store.create(_deployment(name))
        pods = [PodState(f"{name}-{_HASH}-{index:05d}", created, created + 20.0) for index in range(REPLICAS)]
        store.sync_pods(NAMESPACE, name, pods)
    return store


def _deployment(name: str) -> dict[str, Any]:
    labels = {"app": name}
    resources = {
        "requests": {"cpu": "250m", "memory": "64Mi"},
        "limits": {"cpu": f"{LIMIT_CORES:g}", "memory": "128Mi"},
    }
    container = {"name": name, "image": f"example/{name}:1", "resources": resources}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


# ------------------------------------------------------------------------------------------------- Prometheus
def _handler(names: list[str]) -> type[BaseHTTPRequestHandler]:
    pods = [f"{name}-{_HASH}-{index:05d}" for name in names for index in range(REPLICAS)]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            body = _answer({key: values[0] for key, values in form.items()}, names, pods)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Quiet."""

    return Handler


def _answer(form: Mapping[str, str], names: list[str], pods: list[str]) -> bytes:
    query = form["query"]
    start, end, step = (float(form[key]) for key in ("start", "end", "step"))
    moments = [start + step * index for index in range(int((end - start) / step + 1e-6) + 1)]
    if query.startswith(("sum by (pod)", "max by (pod)")):
        label, members = "pod", pods
    else:
        label = "destination_workload" if "by (destination_workload)" in query else "deployment"
        members = names
    feature = _feature(query)
    values = [f'"values":[{_points(feature, row % 97, tuple(moments))}]' for row in range(len(members))]
    series = ",".join(
        f'{{"metric":{{"{label}":"{name}"}},{points}}}' for name, points in zip(members, values, strict=True)
    )
    return f'{{"status":"success","data":{{"resultType":"matrix","result":[{series}]}}}}'.encode()


def _feature(query: str) -> str:
    """What is asked for; limits are told by their own metrics, since usage is named beside them."""
    for feature, marks in {
        "time": ("timestamp(",),
        "cpu_limit": ("container_spec_cpu_quota",),
        "mem_limit": ("container_spec_memory_limit",),
        "cpu": (_USED[0],),
        "pod": ("kube_deployment_status_replicas_ready",),
        "mem": (_USED[1],),
        "res_sum": ("duration_milliseconds_sum",),
    }.items():
        if any(mark in query for mark in marks):
            return feature
    return "req"


_LEVELS = {
    "pod": float(REPLICAS),
    "cpu_limit": LIMIT_CORES * REPLICAS,
    "mem_limit": 128.0 * 2**20 * REPLICAS,
    "mem": 50.0 * 2**20 * REPLICAS,
}


@cache
def _points(feature: str, phase: int, moments: tuple[float, ...]) -> str:
    return ",".join(f'[{moment:.3f},"{_value(feature, phase, moment):.9g}"]' for moment in moments)


def _value(feature: str, phase: int, moment: float) -> float:
    if feature == "time":
        return moment
    if feature in _LEVELS:
        return _LEVELS[feature]
    rate = 40.0 + 20.0 * math.sin(moment / 600.0 + phase)  # requests per second
    return {"req": rate, "cpu": 0.01 * rate, "res_sum": 0.02 * rate}[feature]


def document(services: int, prometheus: str, kubeconfig: str) -> dict[str, Any]:
    """Settings of the application behind these addresses, as YAML would state them."""
    names = names_of(services)
    return {
        "app": {
            "name": "bench",
            "namespace": NAMESPACE,
            "services": dict.fromkeys(names),
            "entries": [{"name": "GET /", "service": names[0]}],
        },
        "cluster": {
            "kind": "kubernetes",
            "kubeconfig": kubeconfig,
            "prometheus": {"url": prometheus},
            "lease": {"enabled": False},
        },
    }
