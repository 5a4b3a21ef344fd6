"""Deployments and pods as Prometheus knows them, from kube-state-metrics and cAdvisor.

It stands in where the Kubernetes API can't be read, and it is the only source that knows the past.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

from deepscaler.adapters.kubernetes.limits import Stated
from deepscaler.adapters.kubernetes.objects import BootTimes, Usage
from deepscaler.adapters.names import Names, seconds
from deepscaler.adapters.prometheus import PrometheusClient, no_such_series
from deepscaler.adapters.queries import POD_OWNERS, POD_QUERIES, POD_STRANGERS, WORKLOAD_QUERIES
from deepscaler.cluster import Pod, Workload
from deepscaler.settings import Settings

_LOG = logging.getLogger(__name__)
_Sample = tuple[Mapping[str, str], float]
_MOST_REPLICAS = 2**31
_LABELS = {
    "replicas": ("deployment",),
    "requests": ("deployment", "resource"),
    "limits": ("deployment", "resource"),
    "autoscalers": ("horizontalpodautoscaler", "scaletargetref_name"),
    "boot": ("pod",),
    "phase": ("pod", "phase"),
    "owner": ("pod", "deployment"),
}
"""Labels that the series of a query have to have; those of the other queries have `pod`."""


class MeasuredObjects:
    """Deployments and pods by queries at one moment.

    Args:
        settings: the application.
        prometheus: carries the queries.
        now: the moment that is asked for, in seconds since the epoch.
        stated: tells what the Kubernetes API says of limits and requests that Prometheus doesn't know.
    """

    def __init__(
        self,
        settings: Settings,
        prometheus: PrometheusClient,
        now: Callable[[], float],
        stated: Stated = dict,
    ) -> None:
        self._settings, self._prometheus, self._now = settings, prometheus, now
        self._names, self._stated = Names(settings.app, settings.cluster.prometheus.matchers), stated

    # ---------------------------------------------------------------------------------------------- workloads
    def workloads(self, boot_seconds: Callable[[], Mapping[str, float]] = dict) -> list[Workload]:
        """One entry per service whose Deployment Prometheus knows.

        Without kube-state-metrics the running containers are counted as replicas. Limits come from where the
        shares in the metrics have them: cAdvisor, else kube-state-metrics, else the Kubernetes API.

        Args:
            boot_seconds: asked for start-up times by service where Prometheus knows none of some service.

        Raises:
            MetricsError: Prometheus can't be reached or knows none of the Deployments.
        """
        found = {name: self._query(name, template) for name, template in WORKLOAD_QUERIES.items()}
        if not found["replicas"]:
            raise no_such_series(
                self._prometheus.url, self._names.render(WORKLOAD_QUERIES["replicas"], window="1m")
            )
        replicas = {
            labels["deployment"]: value for labels, value in found["replicas"] if 0 <= value < _MOST_REPLICAS
        }
        boots = self._boot_seconds(found["boot"])
        if set(self._names.services) - set(boots):
            boots = {**boot_seconds(), **boots}
        workloads = []
        for service in self._names.services:
            deployment = self._names.scaled[service]
            if deployment in replicas:
                workloads.append(
                    self._workload(service, round(replicas[deployment]), found, boots.get(service))
                )
            else:
                where = f"{self._names.namespace}/{deployment}"
                _LOG.warning("%s: Prometheus knows no Deployment %s", service, where)
        return workloads

    def _workload(
        self, service: str, replicas: int, found: Mapping[str, Sequence[_Sample]], boot_seconds: float | None
    ) -> Workload:
        deployment = self._names.scaled[service]
        limits, requests = (
            dict[str, float | None](
                (labels["resource"], value)
                for labels, value in found[kind]
                if labels["deployment"] == deployment
            )
            for kind in ("limits", "requests")
        )
        configured = self._settings.process.boot_seconds.get(service)
        if not {"cpu", "memory"} <= set(limits) and (api := self._stated().get(service)):
            limits = {"cpu": api.cpu_limit_cores, "memory": api.memory_limit_bytes, **limits}
            requests = {"cpu": api.cpu_request_cores, "memory": api.memory_request_bytes, **requests}
        return Workload(
            service=service,
            replicas=replicas,
            cpu_limit_cores=limits.get("cpu"),
            cpu_request_cores=requests.get("cpu"),
            memory_limit_bytes=limits.get("memory"),
            memory_request_bytes=requests.get("memory"),
            boot_seconds=configured if boot_seconds is None else boot_seconds,
            autoscalers=tuple(
                f"HorizontalPodAutoscaler/{labels['horizontalpodautoscaler']}"
                for labels, _ in found["autoscalers"]
                if labels["scaletargetref_name"] == deployment
            ),
        )

    def _boot_seconds(self, by_pod: Sequence[_Sample]) -> dict[str, float]:
        """Service -> median of its pods' start-up times."""
        boots = BootTimes(self._settings.process.boot_limit)
        owner = self._owners()
        for labels, value in by_pod:
            service = owner(labels["pod"])
            if service is not None:
                boots.add(service, labels["pod"], value)
        found = {service: boots.seconds(service) for service in self._names.services}
        return {service: value for service, value in found.items() if value is not None}

    def _owners(self) -> Callable[[str], str | None]:
        """Tells the service of a pod: by its owner, or by its name where no owner is known; None: none."""
        owners = {labels["pod"]: labels["deployment"] for labels, _ in self._query("owner", POD_OWNERS)}
        strangers = {labels["pod"] for labels, _ in self._query("stranger", POD_STRANGERS)}

        def service(pod: str) -> str | None:
            if pod in owners or pod in strangers:
                return self._names.deployments.get(owners.get(pod, ""))
            return self._names.service("pod", pod)

        return service

    # --------------------------------------------------------------------------------------------------- pods
    def pods(self) -> list[Pod]:
        """All pods of all services, by name.

        Raises:
            MetricsError: Prometheus can't be reached or knows none of the pods.
        """
        found = {
            name: {labels["pod"]: value for labels, value in self._query(name, template)}
            for name, template in POD_QUERIES.items()
            if name != "phase"
        }
        phases = {labels["pod"]: labels["phase"] for labels, _ in self._query("phase", POD_QUERIES["phase"])}
        if not phases:
            raise no_such_series(self._prometheus.url, self._names.render(POD_QUERIES["phase"], window="1m"))
        owner = self._owners()
        owners = {name: owner(name) for name in phases}
        return [
            self._pod(service, name, phases[name], found)
            for name, service in sorted(owners.items())
            if service is not None
        ]

    def _pod(self, service: str, name: str, phase: str, found: Mapping[str, Mapping[str, float]]) -> Pod:
        ready = found["ready"].get(name)
        return Pod(
            service=service,
            name=name,
            phase=phase,
            deleting=name in found["deleting"],
            start_time=found["start"].get(name),
            ready=None if ready is None else ready == 1,
            ready_since=found["ready_since"].get(name) if ready == 1 else None,
            usage_cores=found["usage"].get(name),
            usage_time=found["usage_time"].get(name) if name in found["usage"] else None,
            usage_window_seconds=seconds(self._settings.collect.window),
            cpu_request_cores=found["request"].get(name),
        )

    def usage(self, client: PrometheusClient) -> dict[str, Usage]:
        """Pod -> cores, time of the sample, and over how many seconds the mean was taken, from cAdvisor.

        Args:
            client: carries the queries; one that gives up early suits a caller that can do without.

        Raises:
            MetricsError: Prometheus can't be reached.
        """
        cores, times = (
            {labels["pod"]: value for labels, value in self._query(name, POD_QUERIES[name], client)}
            for name in ("usage", "usage_time")
        )
        window = seconds(self._settings.collect.window)
        return {pod: (value, times[pod], window) for pod, value in cores.items() if pod in times}

    def _query(self, name: str, template: str, client: PrometheusClient | None = None) -> list[_Sample]:
        """The series that have the labels of their query and a finite value."""
        text = self._names.render(template, window=self._settings.collect.window)
        needed = _LABELS.get(name, ("pod",))
        return [
            (labels, value)
            for labels, value in (client or self._prometheus).query(text, self._now())
            if all(label in labels for label in needed) and math.isfinite(value)
        ]
