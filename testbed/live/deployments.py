"""The Deployments in the emulated Kubernetes API: their replicas go to the engine, its pods come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepscaler.cluster import Pod
from deepscaler.settings import App
from testbed.cluster.exposition import deployment_of, pod_name
from testbed.cluster.scrapes import PodUsage
from testbed.engine import kernel as core
from testbed.engine.program import Program
from testbed.kubernetes_api import KubernetesStore, PodState
from testbed.live.wall_clock import WallClock

SYNC_SECONDS = 0.2
USAGE_SECONDS = 15.0
"""Time between two looks of the metrics server, of which autoscalers see the last."""


class Deployments:
    """Keeps the API's objects and the engine's pods the same.

    Attributes:
        store: what the API serves.
    """

    def __init__(self, program: Program, app: App, clock: WallClock) -> None:
        self._program, self._app, self._clock = program, app, clock
        self._names = [deployment_of(app, service) for service in program.services]
        self._draining: dict[int, float] = {}
        self._usage, self._sampled = PodUsage(USAGE_SECONDS), 0.0
        self.store = KubernetesStore(on_scale=self._scale)
        if self.store.peek("/namespaces", "", app.namespace) is None:  # there is `default`
            self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": app.namespace}})
        replicas = clock.snapshot().spec
        for service in range(program.num_services):
            self.store.create(manifest(program, app, service, int(replicas[service])))
        self.sync()

    def _scale(self, namespace: str, name: str, replicas: int) -> None:
        """What the API was told; Deployments that aren't the application's run nowhere."""
        if namespace == self._app.namespace and name in self._names:
            service = self._names.index(name)
            if self._clock.snapshot().spec[service] != replicas:
                self._clock.scale(service, replicas)

    def sync(self) -> None:
        """Bring the API's pods to what runs."""
        epoch, pods = self._clock.epoch, self._clock.pod_times()
        now = epoch + self._clock.now
        draining = {int(pod["uid"]) for pod in pods if pod["state"] == core.DRAINING}
        self._draining = {uid: self._draining.get(uid, now) for uid in draining}
        found: dict[str, list[PodState]] = {name: [] for name in self._names}
        for pod in pods:
            uid, name = int(pod["uid"]), self._names[int(pod["service"])]
            found[name].append(
                PodState(
                    name=pod_name(name, uid),
                    created=epoch + float(pod["created"]),
                    ready_since=epoch + float(pod["ready_at"]) if pod["state"] != core.STARTING else None,
                    deleting_since=self._draining.get(uid),
                )
            )
        for name, states in found.items():
            self.store.sync_pods(self._app.namespace, name, states)

    # ------------------------------------------------------------------------------------- the metrics server
    def sample(self) -> None:
        """Let the metrics server look at what all pods have used."""
        seen = self._clock.snapshot()
        by_age = np.argsort(seen.pod_uid)
        since, self._sampled = seen.time - self._sampled, seen.time
        self._usage.update(
            seen.pod_uid[by_age], seen.pod_cpu[by_age], self._clock.epoch + seen.time, max(since, 1e-3)
        )

    def measured(self, namespace: str, name: str) -> Sequence[Pod]:
        """The pods of a Deployment, with the CPU that the metrics server saw last; others run nowhere."""
        if namespace != self._app.namespace or name not in self._names:
            return []
        index, epoch = self._names.index(name), self._clock.epoch
        rows = [row for row in self._clock.pod_times() if int(row["service"]) == index]
        cores, moment = self._usage.seen([int(row["uid"]) for row in rows])
        program = self._program
        return [
            Pod(
                service=program.services[index],
                name=pod_name(name, int(row["uid"])),
                phase="Running",
                deleting=row["state"] == core.DRAINING,
                start_time=epoch + float(row["created"]),
                ready=row["state"] != core.STARTING,
                ready_since=epoch + float(row["ready_at" if row["state"] != core.STARTING else "created"]),
                usage_cores=used,
                usage_time=None if used is None else moment,
                usage_window_seconds=USAGE_SECONDS,
                cpu_request_cores=float(program.request_cores[index]),
            )
            for row, used in zip(rows, cores, strict=True)
        ]


def manifest(program: Program, app: App, service: int, replicas: int) -> dict[str, Any]:
    """The Deployment of a service, with the requests and limits that the engine gives its pods."""
    name = program.services[service]
    deployment, container = deployment_of(app, name), app.services[name].container or name
    labels = {"app": deployment}

    def amounts(cores: float, memory: float) -> dict[str, str]:
        return {"cpu": f"{round(1000 * cores)}m", "memory": f"{round(memory / 2**20)}Mi"}

    resources = {
        "requests": amounts(
            float(program.request_cores[service]), float(program.request_memory_bytes[service])
        ),
        "limits": amounts(float(program.limit_cores[service]), float(program.limit_memory_bytes[service])),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": deployment, "namespace": app.namespace, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [
                        {"name": container, "image": f"testbed/{container}:1", "resources": resources}
                    ]
                },
            },
        },
    }
