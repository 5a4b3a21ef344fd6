"""The objects of one application in the Kubernetes API: Deployments, pods, rivals, quota, rights, and writes to `scale`."""

from __future__ import annotations

import logging
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deepscaler.adapters.kubernetes.api import (
    ApiError,
    KubeApi,
    Object,
    quantity,
    seconds_since_epoch,
    span_seconds,
)
from deepscaler.adapters.queries import Names
from deepscaler.cluster import Pod, ScaleReport, Workload
from deepscaler.errors import ClusterError
from deepscaler.settings import Settings

_LOG = logging.getLogger(__name__)
_APPS, _CORE, _HPAS = "/apis/apps/v1", "/api/v1", "/apis/autoscaling/v2"
_TRIES = 5
Fence = Callable[[], float]
"""Seconds for which writing is still allowed; 0 or less: it isn't."""


@dataclass(frozen=True)
class Right:
    """What a service account may be allowed to do, as RBAC has it."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {kind}{'/' if self.subresource else ''}{self.subresource} in namespace {self.namespace}"


READS = (
    ("list", "apps", "deployments", ""),
    ("list", "", "pods", ""),
    ("list", "autoscaling", "horizontalpodautoscalers", ""),
)
WRITES = (("get", "apps", "deployments", ""), ("patch", "apps", "deployments", "scale"))


@dataclass(frozen=True)
class _Seen:
    """A Deployment as it was when replicas were decided upon."""

    replicas: int
    version: str
    generation: int
    annotations: Mapping[str, str]


class Orchestrator:
    """The Kubernetes API's side of `KubernetesCluster`.

    Args:
        settings: the application and where its cluster is.
        api: carries the requests; by default as `settings.cluster` says.

    Attributes:
        fence: asked before each write; a leader's lease sets it.
    """

    def __init__(self, settings: Settings, api: KubeApi | None = None) -> None:
        self._settings, self._names = settings, Names(settings.app)
        self._api = api or KubeApi(settings.cluster)
        self._namespace = settings.app.namespace
        self._seen: dict[str, _Seen] = {}
        self._believed: dict[str, int] = {}
        self._selectors: dict[str, Object] = {}
        self._boots = BootTimes()
        self._pod_cores: dict[
            str, tuple[float | None, float | None]
        ] = {}  # service -> limit, request of a whole pod
        self._told: dict[str, str] = {}
        self.fence: Fence | None = None

    # ---------------------------------------------------------------------------------------------------------- reading
    def workloads(self) -> list[Workload]:
        """One entry a service whose Deployment is there.

        Raises:
            ClusterError: the API can't be read, or has none of the Deployments.
        """
        deployments = self._deployments()
        scaled = {
            service: deployments[name] for service, name in self._names.scaled.items() if name in deployments
        }
        self._name_the_missing(deployments)
        if not scaled:
            raise ClusterError(
                f"namespace {self._namespace} has none of the Deployments {', '.join(self._names.scaled.values())}; "
                "check app.namespace and app.services"
            )
        rivals = self._rivals()
        if not self._boots:
            self._pods()
        found = {service: self._workload(service, item, rivals) for service, item in scaled.items()}
        quota, kind = self._quota(scaled)
        return [
            self._with_quota(found[service], quota, kind)
            for service in self._names.services
            if service in found
        ]

    def pods(self, usage: Mapping[str, tuple[float, float, float]] | None = None) -> list[Pod]:
        """All pods of all services, by name.

        Args:
            usage: pod -> cores, sample time, window seconds; None leaves them out.

        Raises:
            ClusterError: the API can't be read.
        """
        if not self._selectors:
            self._deployments()
        return [self._pod(service, item, usage or {}) for service, item in self._pods()]

    def boot_seconds(self) -> dict[str, float]:
        """Service -> seconds from a pod's creation to Ready, measured on the pods there are.

        Raises:
            ClusterError: the API can't be read.
        """
        self.pods()
        measured = {service: self._boots.seconds(service) for service in self._names.services}
        return {service: value for service, value in measured.items() if value is not None}

    def usage(self) -> dict[str, tuple[float, float, float]] | None:
        """Pod -> cores used by the application's container, sample time, window seconds; None without metrics.k8s.io."""
        path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{self._namespace}/pods"
        try:
            items = self._api.items(path)
        except ApiError as error:
            self._tell(
                "metrics.k8s.io", "no usage of pods from metrics.k8s.io, Prometheus stands in: %s", error
            )
            return None
        self._tell("metrics.k8s.io")
        found = {}
        for item in items:
            time = seconds_since_epoch(item.get("timestamp"))
            cores = [
                quantity((container.get("usage") or {}).get("cpu"))
                for container in item.get("containers") or ()
                if container.get("name") in self._names.containers
            ]
            known = [value for value in cores if value is not None]
            if known and time is not None:
                found[str(item["metadata"]["name"])] = (
                    sum(known),
                    time,
                    span_seconds(str(item.get("window", ""))),
                )
        return found

    def _deployments(self) -> dict[str, Object]:
        """The application's Deployments by name; selectors and versions are remembered."""
        path = f"{_APPS}/namespaces/{self._namespace}/deployments"
        ours = {
            str(item["metadata"]["name"]): item
            for item in self._api.items(path)
            if item["metadata"]["name"] in {*self._names.deployments, *self._names.scaled.values()}
        }
        self._selectors = {name: item["spec"]["selector"] for name, item in ours.items()}
        self._seen = {name: _seen(item) for name, item in ours.items()}
        self._believed = {}
        return ours

    def _workload(self, service: str, item: Object, rivals: Mapping[str, list[str]]) -> Workload:
        spec, name = item["spec"], str(item["metadata"]["name"])
        limits, requests = _resources(
            spec["template"]["spec"], self._settings.app.services[service].container or service
        )
        measured = self._boots.seconds(service)
        return Workload(
            service=service,
            replicas=_seen(item).replicas,
            cpu_limit_cores=limits.get("cpu"),
            cpu_request_cores=requests.get("cpu"),
            memory_limit_bytes=limits.get("memory"),
            memory_request_bytes=requests.get("memory"),
            boot_seconds=self._settings.process.boot_seconds.get(service) if measured is None else measured,
            annotations=_seen(item).annotations,
            autoscalers=tuple(rivals.get(name, ())),
        )

    def _rivals(self) -> dict[str, list[str]]:
        """Deployment -> other autoscalers that act on it. KEDA makes an HPA of each ScaledObject; both are named."""
        rivals: dict[str, list[str]] = {}
        path = f"{_HPAS}/namespaces/{self._namespace}/horizontalpodautoscalers"
        found = [("HorizontalPodAutoscaler", item) for item in self._api.items(path)]
        try:
            items = self._api.items(f"/apis/keda.sh/v1alpha1/namespaces/{self._namespace}/scaledobjects")
            found += [("ScaledObject", item) for item in items]
            self._tell("keda")
        except ApiError as error:
            if error.status != 404:  # 404: KEDA isn't installed
                self._tell(
                    "keda", "KEDA's ScaledObjects can't be read, only the HPAs it makes are seen: %s", error
                )
        for kind, item in found:
            target = item["spec"]["scaleTargetRef"]
            if (target.get("kind") or "Deployment") == "Deployment":
                rivals.setdefault(str(target["name"]), []).append(f"{kind}/{item['metadata']['name']}")
        return rivals

    def _name_the_missing(self, deployments: Mapping[str, Object]) -> None:
        missing = {service: name for service, name in self._names.scaled.items() if name not in deployments}
        others = self._other_kinds() if set(missing.values()) - set(self._told) else {}
        for service, name in missing.items():
            kind = others.get(name)
            where = f"{self._namespace}/{name}"
            if kind:
                self._tell(
                    name,
                    "%s",
                    f"{service}: {where} is a {kind}, which is not supported: only Deployments are scaled",
                )
            elif name not in self._told:
                self._tell(
                    name, "%s", f"{service}: there is no Deployment {where}; check app.services.{service}"
                )
        for name in deployments:
            self._tell(name)

    def _other_kinds(self) -> dict[str, str]:
        """Name -> StatefulSet or DaemonSet, as far as they may be read."""
        found: dict[str, str] = {}
        for kind in ("StatefulSet", "DaemonSet"):
            try:
                items = self._api.items(f"{_APPS}/namespaces/{self._namespace}/{kind.lower()}s")
            except ApiError as error:
                _LOG.debug("%ss unknown: %s", kind, error)
                continue
            found.update({str(item["metadata"]["name"]): kind for item in items})
        return found

    def _tell(self, subject: str, text: str = "", *values: object) -> None:
        """Log what is amiss with `subject` when it changes, and when it is over (without text)."""
        said = text % values if text else ""
        if said and said != self._told.get(subject):
            _LOG.warning("%s", said)
        if said:
            self._told[subject] = said
        elif self._told.pop(subject, None):
            _LOG.warning("%s: well again", subject)

    # ------------------------------------------------------------------------------------------------------------ pods
    def _pods(self) -> list[tuple[str, Object]]:
        """Service and pod, by the pod's name; what they tell of boot times and sizes is remembered."""
        found = []
        for item in self._api.items(f"{_CORE}/namespaces/{self._namespace}/pods"):
            labels = item["metadata"].get("labels") or {}
            owners = [
                self._names.deployments[name]
                for name, selector in self._selectors.items()
                if selects(selector, labels)
            ]
            if owners:
                found.append((owners[0], item))
        for service, item in found:
            self._boots.observe(service, item)
            if not item["metadata"].get("deletionTimestamp"):
                self._pod_cores[service] = _pod_cores(item["spec"])
        self._boots.forget({str(item["metadata"].get("uid")) for _, item in found})
        return sorted(found, key=lambda pair: str(pair[1]["metadata"]["name"]))

    def _pod(self, service: str, item: Object, usage: Mapping[str, tuple[float, float, float]]) -> Pod:
        name, status = str(item["metadata"]["name"]), item.get("status") or {}
        ready, since = _ready(status)
        cores, time, window = usage.get(name, (None, None, 0.0))
        _, requests = _resources(item["spec"], self._settings.app.services[service].container or service)
        return Pod(
            service=service,
            name=name,
            phase=str(status.get("phase", "Unknown")),
            deleting=bool(item["metadata"].get("deletionTimestamp")),
            start_time=seconds_since_epoch(status.get("startTime")),
            ready=ready,
            ready_since=since,
            usage_cores=cores,
            usage_time=time,
            usage_window_seconds=window,
            cpu_request_cores=requests.get("cpu"),
        )

    # ----------------------------------------------------------------------------------------------------------- quota
    def _quota(self, scaled: Mapping[str, Object]) -> tuple[float | None, int]:
        """CPU cores that all targets together may take by the tightest ResourceQuota, and of which kind (0: limits, 1: requests)."""
        try:
            items = self._api.items(f"{_CORE}/namespaces/{self._namespace}/resourcequotas")
        except ApiError as error:
            self._tell(
                "quota",
                "the namespace's ResourceQuotas can't be read, plans aren't checked against them: %s",
                error,
            )
            return None, 0
        self._tell("quota")
        ours = [
            sum(
                (self._cores_of_pod(service, item)[kind] or 0.0) * _existing(item)
                for service, item in scaled.items()
            )
            for kind in (0, 1)
        ]
        offers: list[tuple[float, float, int]] = []
        for item in items:
            if item["spec"].get("scopes") or item["spec"].get("scopeSelector"):
                continue  # for some pods only
            hard, used = item["spec"].get("hard") or {}, (item.get("status") or {}).get("used") or {}
            for key, kind in (("limits.cpu", 0), ("requests.cpu", 1), ("cpu", 1)):
                cores = quantity(hard.get(key))
                if cores is not None:
                    free = cores - (quantity(used.get(key)) or 0.0)
                    offers.append((free / max(ours[kind], 1e-9), free + ours[kind], kind))
        return min(offers)[1:] if offers else (None, 0)

    def _cores_of_pod(self, service: str, deployment: Object) -> tuple[float | None, float | None]:
        """CPU limit and request of a whole pod, injected sidecars too where one has been seen."""
        return self._pod_cores.get(service) or _pod_cores(deployment["spec"]["template"]["spec"])

    def _with_quota(self, workload: Workload, cores: float | None, kind: int) -> Workload:
        if cores is None:
            return workload
        own = (workload.cpu_limit_cores, workload.cpu_request_cores)[kind]
        pod = self._pod_cores.get(workload.service, (own, own))[kind]
        return replace(workload, quota_cores=cores, pod_cores=pod if pod is not None else own)

    # ---------------------------------------------------------------------------------------------------------- writing
    def scale(self, targets: Mapping[str, int]) -> ScaleReport:
        """Set `spec.replicas` of these services' Deployments through `scale`, one after the other.

        A write carries the resourceVersion that `workloads()` read. Where the object has changed since, it is read again:
        if only its status has (pods became ready), the write is repeated on the new version; if somebody edited the spec or
        the annotations, theirs stand, and the service is reported as a conflict.

        Raises:
            ClusterError: no way to the API at all.
        """
        applied: dict[str, int] = {}
        failed: dict[str, str] = {}
        for service, replicas in targets.items():
            name = self._names.scaled[service]
            try:
                self._write(name, replicas)
                applied[service] = replicas
            except ApiError as error:
                failed[service] = f"Deployment {self._namespace}/{name}: {error}"
        return ScaleReport(applied, failed)

    def believe(self, replicas: Mapping[str, int]) -> None:
        """Replicas by Deployment from elsewhere, that the next `scale` is based on instead of what `workloads()` read."""
        self._seen, self._believed = {}, dict(replicas)

    def _write(self, name: str, replicas: int) -> None:
        seen = self._seen.pop(name, None) or self._read(name)
        if self._believed.get(name, seen.replicas) != seen.replicas:
            raise ApiError(
                f"conflict: {self._believed[name]} replicas were thought to be there, {seen.replicas} are; not written",
                409,
            )
        for _ in range(_TRIES):
            body = {"metadata": {"resourceVersion": seen.version}, "spec": {"replicas": replicas}}
            try:
                path = f"{_APPS}/namespaces/{self._namespace}/deployments/{name}/scale"
                answer = self._api.send("PATCH", path, body, time_out=self._allowed())
            except ApiError as error:
                if error.status != 409:
                    raise
                now = self._read(name)
                if (now.replicas, now.generation, now.annotations) != (
                    seen.replicas,
                    seen.generation,
                    seen.annotations,
                ):
                    raise ApiError(
                        f"conflict: somebody changed it since it was read ({seen.replicas} replicas then, {now.replicas} now); "
                        "theirs stand until the next tick",
                        409,
                    ) from error
                seen = now
            else:
                got = (answer.get("spec") or {}).get("replicas")
                if got != replicas:
                    raise ApiError(
                        f"asked for {replicas} replicas, the API server made it {got}; is there a webhook or a policy on it?"
                    )
                return
        raise ApiError(
            f"conflict: its status changed {_TRIES} times while it was being written; the next tick tries again",
            409,
        )

    def _read(self, name: str) -> _Seen:
        return _seen(self._api.get(f"{_APPS}/namespaces/{self._namespace}/deployments/{name}"))

    def _allowed(self) -> float | None:
        """Time-out of a write that keeps it within the lease."""
        left = None if self.fence is None else self.fence()
        if left is not None and left <= 0:
            raise ApiError("not written: this controller leads no longer")
        return left

    # ----------------------------------------------------------------------------------------------------------- rights
    def missing_rights(self, lease: str | None = None, extra: Iterable[Right] = ()) -> list[Right]:
        """Rights that reading and scaling need and this user hasn't, by SelfSubjectAccessReviews.

        Args:
            lease: namespace of the Lease, where one is to be taken.
            extra: more of them.

        Raises:
            ClusterError: the API can't be asked.
        """
        needed = [Right(*right, namespace=self._namespace) for right in (*READS, *WRITES)]
        if lease is not None:
            needed += [
                Right(verb, "coordination.k8s.io", "leases", namespace=lease)
                for verb in ("get", "create", "update")
            ]
        return [right for right in [*needed, *extra] if not self._allows(right)]

    def _allows(self, right: Right) -> bool:
        attributes = {
            "namespace": right.namespace,
            "verb": right.verb,
            "group": right.group,
            "resource": right.resource,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, "subresource": right.subresource}},
        }
        answer = self._api.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
        return bool((answer.get("status") or {}).get("allowed"))

    def unsupported(self) -> dict[str, str]:
        """Service -> kind of what it is instead of a Deployment, among the scaled ones."""
        deployments = self._deployments()
        missing = {service: name for service, name in self._names.scaled.items() if name not in deployments}
        kinds = self._other_kinds() if missing else {}
        services = self._settings.app.services
        return {
            service: kinds[name]
            for service, name in missing.items()
            if name in kinds and services[service].scaled
        }


class BootTimes:
    """Seconds from a pod's creation to Ready, by service: the median of the newest pods.

    Each pod counts once, by the transition seen first, and only if its containers never restarted: later transitions tell of
    trouble, not of start-up. One that was ready as soon as it was created didn't start here (adopted, emulated) and tells nothing.
    """

    def __init__(self, keep: int = 50) -> None:
        self._keep = keep
        self._known: set[str] = set()
        self._seconds: dict[str, deque[float]] = {}

    def __bool__(self) -> bool:
        return bool(self._seconds)

    def observe(self, service: str, pod: Object) -> None:
        """Learn from a pod; nothing unless it is ready."""
        meta, status = pod["metadata"], pod.get("status") or {}
        uid, created = str(meta.get("uid")), seconds_since_epoch(meta.get("creationTimestamp"))
        ready, since = _ready(status)
        restarts = any(int(item.get("restartCount") or 0) for item in status.get("containerStatuses") or ())
        if (
            uid in self._known
            or not ready
            or since is None
            or created is None
            or meta.get("deletionTimestamp")
        ):
            return
        self._known.add(uid)
        if not restarts and since > created:
            self._seconds.setdefault(service, deque(maxlen=self._keep)).append(since - created)

    def forget(self, present: set[str]) -> None:
        """Pods that are gone needn't be told apart any more."""
        self._known &= present

    def seconds(self, service: str) -> float | None:
        """The median; None before a pod of it has been seen ready."""
        values = self._seconds.get(service)
        return statistics.median(values) if values else None


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Does a label selector (`matchLabels`, `matchExpressions`) select these labels? An empty one selects nothing here."""
    plain, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    if not plain and not expressions:
        return False
    tests: dict[str, Callable[[str, Sequence[str]], bool]] = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, _: key in labels,
        "DoesNotExist": lambda key, _: key not in labels,
    }
    return all(labels.get(key) == value for key, value in plain.items()) and all(
        tests[item["operator"]](item["key"], item.get("values") or ()) for item in expressions
    )


def own_container(pod_spec: Object, name: str) -> Object:
    """The container called `name`; else the only one, or the first."""
    containers: Sequence[Object] = pod_spec.get("containers") or ({},)
    return next((item for item in containers if item.get("name") == name), containers[0])


def _resources(pod_spec: Object, name: str) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Limits and requests of a service's own container."""
    resources = own_container(pod_spec, name).get("resources") or {}
    limits = {key: quantity(value) for key, value in (resources.get("limits") or {}).items()}
    requests = {key: quantity(value) for key, value in (resources.get("requests") or {}).items()}
    return limits, {**limits, **requests}  # a limit without a request is its own request


def _pod_cores(pod_spec: Object) -> tuple[float | None, float | None]:
    """CPU limit and request of all containers together; None where none has one. A request defaults to the limit."""
    sums: list[float | None] = [None, None]
    sidecars = [
        item for item in pod_spec.get("initContainers") or () if item.get("restartPolicy") == "Always"
    ]
    for container in [*(pod_spec.get("containers") or ()), *sidecars]:
        resources = container.get("resources") or {}
        limit = quantity((resources.get("limits") or {}).get("cpu"))
        request = quantity((resources.get("requests") or {}).get("cpu"))
        for kind, value in enumerate((limit, limit if request is None else request)):
            if value is not None:
                sums[kind] = (sums[kind] or 0.0) + value
    return sums[0], sums[1]


def _existing(deployment: Object) -> int:
    """Pods there are; the spec may ask for more."""
    return int((deployment.get("status") or {}).get("replicas") or 0)


def _seen(item: Object) -> _Seen:
    meta, replicas = item["metadata"], int(item["spec"].get("replicas", 1))
    return _Seen(
        replicas,
        str(meta.get("resourceVersion", "")),
        int(meta.get("generation") or 0),
        dict(meta.get("annotations") or {}),
    )


def _ready(status: Any) -> tuple[bool | None, float | None]:
    """The Ready condition and its last transition; None, None where there is none."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready":
            return condition.get("status") == "True", seconds_since_epoch(condition.get("lastTransitionTime"))
    return None, None
