"""One application in the Kubernetes API: its Deployments and pods are read, its replicas are written."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from statistics import median

from deepscaler.adapters.kubernetes.annotator import Annotator
from deepscaler.adapters.kubernetes.announcer import Announcer
from deepscaler.adapters.kubernetes.api import ApiError, KubeApi, Object
from deepscaler.adapters.kubernetes.autoscalers import MinimumWriter, autoscaler_of
from deepscaler.adapters.kubernetes.buffers import Buffers
from deepscaler.adapters.kubernetes.checked import (
    AnyObject,
    Checker,
    LimitRange,
    PodObject,
    PodUsage,
    Quota,
    Replicated,
    WorkloadObject,
    called,
    check,
    stated_name,
)
from deepscaler.adapters.kubernetes.facts import (
    live_cpu_limit,
    manager_of,
    pod_of,
    state_of,
    stated_amounts,
)
from deepscaler.adapters.kubernetes.limit_ranges import refusal
from deepscaler.adapters.kubernetes.objects import BootTimes, Usage, name_of, usage_of
from deepscaler.adapters.kubernetes.owners import PodOwners
from deepscaler.adapters.kubernetes.pod_needs import next_pod
from deepscaler.adapters.kubernetes.quota import NextPod, failure, pods_of, quota_claims
from deepscaler.adapters.kubernetes.replicas import ReplicaWriter
from deepscaler.adapters.kubernetes.rights import Right, missing_rights, needed_rights
from deepscaler.adapters.kubernetes.rivals import Rivals, rival_autoscalers
from deepscaler.adapters.names import Names
from deepscaler.cluster import Advice, Pod, QuotaClaim, ScaleReport, Workload
from deepscaler.errors import ClusterError
from deepscaler.logs import OnChange
from deepscaler.settings import Settings
from deepscaler.upstream import Upstream

_LOG = logging.getLogger(__name__)
_MOST_STRANGERS = 100


class Orchestrator:
    """The half of `KubernetesCluster` that speaks with the Kubernetes API.

    Args:
        settings: the application and where its cluster is.
        api: carries the requests; by default as `settings.cluster` says.
        clock: seconds since the epoch.

    Attributes:
        strangers: the newest pods that look like those of a service by their names, but belong to others;
            None until pods have been listed.
        writer: writes replicas; the leader's lease sets its fence.
        minimums: writes minimums of autoscalers, likewise.
        annotator: says on Deployments what was decided last, likewise.
        buffers: asks for room on nodes, likewise.
        regarding: service -> name and uid of its Deployment.
    """

    def __init__(
        self, settings: Settings, api: KubeApi | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings, self._names = settings, Names(settings.app)
        self._api = api or KubeApi(settings.cluster)
        self._namespace, self._clock = settings.app.namespace, clock
        self._owners = PodOwners(self._api, self._path("/apis/apps/v1", "replicasets"))
        self._boots = BootTimes(settings.process.boot_limit)
        self._seen: dict[str, Object] = {}  # service -> its newest pod
        self._live_cores: dict[str, float] = {}  # service -> CPU limit that its pods have now
        self._pods_seen = False  # once they were, each tick's look at them tells the next one's workloads
        self._on_change = OnChange(_LOG)
        self._checker = Checker(self._on_change)
        self._unsound: dict[str, str] = {}  # Deployment -> why it isn't sound
        self._unsound_pods: list[Pod] = []
        self.strangers: list[str] | None = None
        self.writer = ReplicaWriter(self._api, self._path("/apis/apps/v1", "deployments"))
        self.minimums = MinimumWriter(
            self._api, self._path("/apis/autoscaling/v2", "horizontalpodautoscalers")
        )
        identity = settings.cluster.lease.identity or socket.gethostname()
        self.annotator = Annotator(
            self._api, self._path("/apis/apps/v1", "deployments"), clock, settings.cluster.lease.identity
        )
        self.buffers = Buffers(self._api, self._namespace, clock, identity)
        self.regarding: dict[str, tuple[str, str]] = {}
        self._hpas: dict[str, list[str]] = {}  # service -> names of its HorizontalPodAutoscalers
        self._rivals: Rivals | None = None  # as they were read last

    @property
    def upstream(self) -> Upstream:
        """Counts the requests."""
        return self._api.upstream

    def _path(self, group: str, resource: str) -> str:
        return f"{group}/namespaces/{self._namespace}/{resource}"

    # ---------------------------------------------------------------------------------------------- workloads
    def workloads(self) -> list[Workload]:
        """One entry per service whose Deployment exists.

        Raises:
            ClusterError: the API can't be read, or has none of the Deployments.
        """
        deployments = self._deployments()
        scaled = {
            service: deployments[name] for service, name in self._names.scaled.items() if name in deployments
        }
        self._name_the_missing(deployments)
        if not scaled and self._unsound:
            raise ClusterError("; ".join(self._unsound.values()))
        if not scaled:
            raise ClusterError(
                f"namespace {self._namespace} has none of the Deployments "
                f"{', '.join(self._names.scaled.values())}; check app.namespace and app.services"
            )
        rivals, stale = self._autoscalers()
        self.regarding = {
            service: (name_of(item), str(item["metadata"].get("uid") or ""))
            for service, item in scaled.items()
        }
        if not self._pods_seen:
            self._pods()
        found = {service: self._workload(service, item, rivals) for service, item in scaled.items()}
        claims = self._quota_claims({name: item for name, item in scaled.items() if not found[name].unsound})
        return [
            replace(found[service], quotas=claims.get(service, ()), stale=stale)
            for service in self._names.services
            if service in found
        ]

    def _autoscalers(self) -> tuple[Rivals, bool]:
        """Autoscalers of others, and whether they are those of earlier, since they can't be read now.

        Which minimums are written, and the versions that they are based on, are remembered.
        """
        try:
            rivals = rival_autoscalers(self._api, self._namespace, self._on_change, self._checker)
        except ApiError as error:
            if self._rivals is None:
                raise
            text = f"HorizontalPodAutoscalers can't be read, so those that were known before count: {error}"
            self._on_change.trouble("HorizontalPodAutoscalers", text)
            return self._rivals, True
        self._on_change.well("HorizontalPodAutoscalers")
        self._rivals = rivals
        self._hpas = {
            service: [name_of(item) for item in rivals.hpas.get(name, ())]
            for service, name in self._names.scaled.items()
        }
        self.minimums.remember({name_of(item): item for items in rivals.hpas.values() for item in items})
        return rivals, False

    def unsupported(self) -> dict[str, str]:
        """Scaled service -> what it is instead of a Deployment (StatefulSet, DaemonSet).

        Raises:
            ClusterError: the API can't be read.
        """
        missing = self._missing(self._deployments())
        kinds = self._other_kinds() if missing else {}
        services = self._settings.app.services
        return {
            service: kinds[name]
            for service, name in missing.items()
            if name in kinds and services[service].scaled
        }

    def _deployments(self) -> dict[str, Object]:
        """The application's Deployments by name. Their versions are remembered."""
        names = {*self._names.deployments, *self._names.scaled.values()}
        listed = self._api.items(self._path("/apis/apps/v1", "deployments"))
        ours = {name: item for item in listed if (name := stated_name(item)) in names}
        self._unsound, readable = {}, dict[str, Object]()
        for name, item in ours.items():
            try:
                readable[name] = check(Replicated, item, "Deployment")
                check(WorkloadObject, item, "Deployment")
            except ApiError as error:
                self._unsound[name] = str(error)
        held = {
            f"Deployment {name}": f"{why}; its replicas stay as they are"
            for name, why in self._unsound.items()
        }
        self._checker.tell("Deployment", held)
        self.writer.remember({name: state_of(item) for name, item in readable.items()})
        self.annotator.observe(
            {name: item["metadata"].get("annotations") or {} for name, item in readable.items()}
        )
        return readable

    def _workload(self, service: str, item: Object, rivals: Rivals) -> Workload:
        if name_of(item) in self._unsound:
            state = state_of(item)
            why = self._unsound[name_of(item)]
            return Workload(service, state.replicas, None, None, annotations=state.annotations, unsound=why)
        cores, memory = stated_amounts(self._container(service), item)
        state, measured = state_of(item), self._boots.seconds(service)
        return Workload(
            service=service,
            replicas=state.replicas,
            cpu_limit_cores=self._live_cores.get(service, cores["limits"]),
            cpu_request_cores=cores["requests"],
            memory_limit_bytes=memory["limits"],
            memory_request_bytes=memory["requests"],
            boot_seconds=self._settings.process.boot_seconds.get(service) if measured is None else measured,
            annotations=state.annotations,
            autoscalers=tuple(rivals.names.get(name_of(item), ())),
            hpas=tuple(map(autoscaler_of, rivals.hpas.get(name_of(item), ()))),
            manager=manager_of(item),
            pods=pods_of(item),
        )

    def _container(self, service: str) -> str:
        return self._settings.app.services[service].container or service

    def _missing(self, deployments: Mapping[str, Object]) -> dict[str, str]:
        """Service -> name of its Deployment, where that doesn't exist."""
        known = deployments.keys() | self._unsound
        return {service: name for service, name in self._names.scaled.items() if name not in known}

    def _name_the_missing(self, deployments: Mapping[str, Object]) -> None:
        missing = self._missing(deployments)
        new = any(name not in self._on_change for name in missing.values())
        others = self._other_kinds() if new else {}
        for service, name in missing.items():
            kind, where = others.get(name), f"{self._namespace}/{name}"
            if kind:
                self._on_change.trouble(
                    name,
                    f"{service}: {where} is a {kind}, which is not supported: only Deployments are scaled",
                )
            elif name not in self._on_change:
                self._on_change.trouble(
                    name, f"{service}: there is no Deployment {where}; check app.services.{service}"
                )
        for name in deployments:
            self._on_change.well(name)

    def _other_kinds(self) -> dict[str, str]:
        """Name -> StatefulSet or DaemonSet, as far as this user may read them."""
        found: dict[str, str] = {}
        for kind in ("StatefulSet", "DaemonSet"):
            try:
                items = self._api.items(self._path("/apis/apps/v1", f"{kind.lower()}s"))
            except ApiError as error:
                _LOG.debug("%ss can't be read: %s", kind, error)
                continue
            found.update({stated_name(item): kind for item in items})
        return found

    def _quota_claims(self, scaled: Mapping[str, Object]) -> dict[str, tuple[QuotaClaim, ...]]:
        """Service -> what one more pod of it takes of the namespace's quotas, or what lets it have none."""
        quotas = self._checker.sound(
            Quota,
            "ResourceQuota",
            self._optional("resourcequotas", "so plans aren't checked against them"),
            "plans aren't checked against it",
        )
        ranges = self._checker.sound(
            LimitRange,
            "LimitRange",
            self._optional("limitranges", "so what they fill in and forbid doesn't count in plans"),
            "what it fills in and forbids doesn't count in plans",
        )
        pods = dict[str, NextPod]()
        for service, item in scaled.items():
            seen = (self._seen.get(service) or {}).get("spec")
            template = item["spec"]["template"]["spec"]
            # What the next pod will be matters only where something counts it or bounds it.
            spec = next_pod(template, seen, ranges) if quotas or ranges else template
            pods[service] = NextPod(spec, pods_of(item), refusal(spec, ranges) or failure(item))
        return quota_claims(quotas, pods)

    def _optional(self, resource: str, consequence: str) -> list[Object]:
        """All of a resource of the namespace; nothing where it can't be read."""
        try:
            found = self._api.items(self._path("/api/v1", resource))
        except ApiError as error:
            text = f"the namespace's {resource} can't be read, {consequence}: {error}"
            self._on_change.trouble(resource, text)
            return []
        self._on_change.well(resource)
        return found

    # --------------------------------------------------------------------------------------------------- pods
    def pods(self, usage: Mapping[str, Usage] | None = None) -> list[Pod]:
        """All pods of all services, by name.

        Args:
            usage: by pod; None: unknown for all.

        Raises:
            ClusterError: the API can't be read.
        """
        return [self._pod(service, item, usage or {}) for service, item in self._pods()] + self._unsound_pods

    def boot_seconds(self) -> dict[str, float]:
        """Service -> seconds from a pod's creation to Ready, measured on the pods that exist.

        Raises:
            ClusterError: the API can't be read.
        """
        self.pods()
        measured = {service: self._boots.seconds(service) for service in self._names.services}
        return {service: value for service, value in measured.items() if value is not None}

    def usage(self) -> dict[str, Usage] | None:
        """What the application's container of each pod uses; None where metrics.k8s.io can't be read."""
        try:
            items = self._api.items(self._path("/apis/metrics.k8s.io/v1beta1", "pods"))
        except ApiError as error:
            text = f"metrics.k8s.io can't be read, so usage of pods comes from Prometheus: {error}"
            self._on_change.trouble("metrics.k8s.io", text)
            return None
        self._on_change.well("metrics.k8s.io")
        items = self._checker.sound(PodUsage, "PodMetrics", items, "what the pod uses is unknown")
        found = {name_of(item): usage_of(item, self._names.containers) for item in items}
        return {name: usage for name, usage in found.items() if usage is not None}

    def _pods(self) -> list[tuple[str, Object]]:
        """Service and pod, by the pod's name. Start-up times and sizes of the pods are remembered."""
        found = self._sound_pods(self._api.items(self._path("/api/v1", "pods")))
        live: dict[str, list[float]] = {}
        for service, item in found:
            self._boots.observe(service, item)
            if not item["metadata"].get("deletionTimestamp"):
                if _created(item) >= _created(self._seen.get(service)):
                    self._seen[service] = item
                limit = live_cpu_limit(self._container(service), item)
                live.setdefault(service, []).extend([] if limit is None else [limit])
        self._live_cores = {service: median(limits) for service, limits in live.items() if limits}
        self._pods_seen = True
        self._boots.forget({str(item["metadata"].get("uid")) for _, item in found})
        return sorted(found, key=lambda pair: name_of(pair[1]))

    def _sound_pods(self, items: Iterable[Object]) -> list[tuple[str, Object]]:
        """Service and pod, of those pods that are sound; of the others it is remembered why they aren't."""
        unsound, doubts, named = list[Pod](), dict[str, str](), list[Object]()

        def doubt(service: str | None, item: Object, error: ApiError) -> None:
            consequence = f"{service} is held" if service else "it is left out"
            doubts[f"Pod {called(item)}"] = f"{error}; {consequence}"
            if service:
                unsound.append(_unsound_pod(service, stated_name(item), str(error)))

        for item in items:
            try:
                named.append(check(AnyObject, item, "Pod"))
            except ApiError as error:
                doubt(self._names.service("pod", stated_name(item)), item, error)
        deployments, found = self._names.deployments, list[tuple[str, Object]]()
        for name, item in self._owners.deployments(named):
            try:
                if name in deployments:
                    found.append((deployments[name], check(PodObject, item, "Pod")))
            except ApiError as error:
                doubt(deployments[name], item, error)
        self._checker.tell("Pod", doubts)
        self._unsound_pods = unsound
        self._remember_strangers({name_of(item) for item in named} - {name_of(item) for _, item in found})
        return found

    def _remember_strangers(self, others: Iterable[str]) -> None:
        """Their metrics outlive them, so those that are gone are remembered for a while."""
        alike = {name for name in others if self._names.service("pod", name) is not None}
        before = [name for name in self.strangers or () if name not in alike]
        self.strangers = [*before, *sorted(alike)][-_MOST_STRANGERS:]

    def _pod(self, service: str, item: Object, usage: Mapping[str, Usage]) -> Pod:
        found = pod_of(service, self._container(service), item)
        if found.name not in usage:
            return found
        cores, time, window = usage[found.name]
        return replace(found, usage_cores=cores, usage_time=time, usage_window_seconds=window)

    # ------------------------------------------------------------------------------------------------ writing
    def scale(self, targets: Mapping[str, int]) -> ScaleReport:
        """Set `spec.replicas` of these services' Deployments, one after the other, as `ReplicaWriter` does.

        A write that fails doesn't stop the others; the report says why it failed.
        """
        applied: dict[str, int] = {}
        failed: dict[str, str] = {}
        for service, replicas in targets.items():
            name = self._names.scaled[service]
            try:
                self.writer.write(name, replicas)
                applied[service] = replicas
            except ApiError as error:
                failed[service] = f"Deployment {self._namespace}/{name}: {error}"
        return ScaleReport(applied, failed)

    def advise(self, minimums: Mapping[str, Advice | None]) -> ScaleReport:
        """Raise or give back the minimums of these services' autoscalers, as `MinimumWriter` does.

        A write that fails doesn't stop the others; the report says why it failed.
        """
        applied: dict[str, int] = {}
        failed: dict[str, str] = {}
        for service, advice in minimums.items():
            names = self._hpas.get(service, [])
            if len(names) != 1:
                failed[service] = f"one HorizontalPodAutoscaler is needed, found {', '.join(names) or 'none'}"
                continue
            try:
                applied[service] = self.minimums.write(names[0], advice)
            except ApiError as error:
                failed[service] = f"HorizontalPodAutoscaler {self._namespace}/{names[0]}: {error}"
        return ScaleReport(applied, failed)

    def announcer(self) -> Announcer:
        """What writes Events on the Deployments."""
        identity = self._settings.cluster.lease.identity
        return Announcer(self._api, self._namespace, self._clock, identity)

    def missing_rights(self, lease_namespace: str | None = None) -> list[Right]:
        """Rights that reading and scaling need and this user doesn't have.

        Args:
            lease_namespace: where a Lease is to be taken; None: it isn't.

        Raises:
            ClusterError: the API can't be asked.
        """
        return missing_rights(
            self._api,
            needed_rights(
                self._namespace, lease_namespace, self._settings.modes, self._settings.scale.events
            ),
        )


def _created(item: Object | None) -> str:
    """When an object was created, as text that sorts by time."""
    return str(((item or {}).get("metadata") or {}).get("creationTimestamp") or "")


def _unsound_pod(service: str, name: str, why: str) -> Pod:
    """A pod of which only the name is known."""
    return Pod(service, name, "Unknown", False, None, None, None, None, None, 0.0, None, unsound=why)
