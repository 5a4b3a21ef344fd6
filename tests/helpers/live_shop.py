"""Online Boutique as a controller meets it now: objects in the emulated API, metrics in a real Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepscaler.calls import EXTERNAL
from deepscaler.settings import App
from helpers.needs import had
from testbed.cluster.exposition import (
    ISTIO_BOUNDS_SECONDS,
    CounterSnapshot,
    Durations,
    PodCounters,
    ServiceCounters,
    deployment_of,
    exposition_series,
    pod_name,
)
from testbed.kubernetes_api import KubernetesApi, KubernetesStore, PodState
from testbed.kubernetes_api.access import Identity
from testbed.live import prometheus_server
from testbed.live.started import Server

TOKEN = "deepscalers-own"
ACCOUNT = "system:serviceaccount:deepscaler:deepscaler"
REPLICAS, SCRAPE, SAMPLES = 2, 15.0, 60
LIMIT, IDLE, RATE, SECONDS = 0.2, 0.02, 10.0, 0.02
CORE_SECONDS = 0.016
"""That a request takes of one pod."""


@dataclass
class LiveShop:
    """What runs.

    Attributes:
        app: the application.
        store: the objects; a request needs `TOKEN`, and may what Roles give to `ACCOUNT`.
        api: URL of the Kubernetes API.
        prometheus: URL of Prometheus.
        server: of the API.
    """

    app: App
    store: KubernetesStore
    api: str
    prometheus: str
    server: KubernetesApi

    def flags(self, directory: Path) -> list[str]:
        """What leads `config/boutique.yaml` here; `directory` gets a kubeconfig and the run."""
        values = {
            "cluster.kind": "kubernetes",
            "cluster.prometheus.url": self.prometheus,
            "cluster.kubeconfig": self.kubeconfig(directory),
            "scale.run_dir": directory / "runs",
        }
        return [flag for key, value in values.items() for flag in ("--set", f"{key}={value}")]

    def kubeconfig(self, directory: Path) -> str:
        """The path of a kubeconfig with the token, which is written into the directory."""
        return str(self.server.write_kubeconfig(directory / "kubeconfig", self.app.namespace, TOKEN))

    def replicas(self) -> dict[str, int]:
        """Replicas by Deployment."""
        return {
            name: int(self.store.peek("apps/deployments", self.app.namespace, name)["spec"]["replicas"])
            for name in (deployment_of(self.app, service) for service in self.app.services)
        }

    def leases(self) -> list[str]:
        """Who holds the Leases of the application's namespace."""
        found = self.store.peek("coordination.k8s.io/leases", self.app.namespace, "deepscaler-boutique")
        return [] if found is None else [str(found["spec"].get("holderIdentity"))]


def prometheus_or_skip() -> AbstractContextManager[Server]:
    """In CI a missing Prometheus is a failure, elsewhere a skip that says why."""
    had(prometheus_server.install)
    return prometheus_server.running()


@contextmanager
def live_shop(app: App, samples: int = SAMPLES) -> Iterator[LiveShop]:
    """Start both servers: scrapes up to now of a load that comes and goes, and two pods per service."""
    store = KubernetesStore(tokens={TOKEN: Identity(ACCOUNT)}, controllers=False)
    for namespace in (app.namespace, "deepscaler"):
        store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    times = time.time() // SCRAPE * SCRAPE + SCRAPE * np.arange(-samples, 1)
    for service in app.services:
        name = deployment_of(app, service)
        store.create(_deployment(app, service, name))
        pods = [PodState(pod_name(name, index), times[0], times[0] + 20) for index in range(REPLICAS)]
        store.sync_pods(app.namespace, name, pods)
    counts = np.cumsum(SCRAPE * RATE * (1 + 0.5 * np.sin(np.arange(samples + 1) / 20)))
    with prometheus_or_skip() as prometheus, KubernetesApi(store) as api:
        snapshots = [
            _snapshot(app, moment, count, times[0]) for moment, count in zip(times, counts, strict=True)
        ]
        prometheus_server.remote_write(prometheus.url, exposition_series(snapshots, app))
        yield LiveShop(app, store, api.url, prometheus.url, api)


def _deployment(app: App, service: str, name: str) -> dict[str, object]:
    labels, cores = {"app": name}, {"cpu": "200m", "memory": "128Mi"}
    container = {
        "name": app.services[service].container or service,
        "image": f"shop/{service}:1",
        "resources": {"requests": cores, "limits": cores},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": app.namespace, "labels": labels},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def _snapshot(app: App, moment: float, counted: float, start: float) -> CounterSnapshot:
    cpu = IDLE * (moment - start) + CORE_SECONDS * counted / REPLICAS
    below = tuple(counted * (bound >= SECONDS) for bound in ISTIO_BOUNDS_SECONDS)
    first = next(iter(app.services))
    services = {}
    for service in app.services:
        caller = EXTERNAL if service == first else first
        names = [pod_name(deployment_of(app, service), index) for index in range(REPLICAS)]
        services[service] = ServiceCounters(
            pods=tuple(PodCounters(name, cpu, 30e6, start_time=start) for name in names),
            spec_replicas=REPLICAS,
            cpu_limit_cores=LIMIT,
            cpu_request_cores=LIMIT,
            memory_limit_bytes=128 * 2.0**20,
            memory_request_bytes=128 * 2.0**20,
            requests={(caller, 200): counted},
            durations={(caller, 200): Durations(SECONDS * counted, counted, below)},
        )
    return CounterSnapshot(moment, services)
