"""The resources that are served, and what discovery says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from testbed.kubernetes_api.status import Object

VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "testbed",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "linux/amd64",
}
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_ACCESS = ("get", "patch", "update")
Convert = Callable[[Object], Object]


@dataclass(frozen=True)
class Resource:
    """One resource of one API version.

    Attributes:
        in_all: whether `kubectl get all` lists it.
        status: whether it has the subresource `status`.
        scale: whether it has the subresource `scale`.
        generation: whether its objects count the changes of their spec.
        fields: what a field selector may name beside name and namespace.
        stored: converts to the version that is kept; None if this is that version.
        served: converts back from the version that is kept; None if this is that version.
        custom: whether a CustomResourceDefinition brings it: strategic merge patches are then refused.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    in_all: bool = False
    status: bool = False
    scale: bool = False
    generation: bool = False
    fields: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    stored: Convert | None = None
    served: Convert | None = None
    custom: bool = False

    @property
    def api_version(self) -> str:
        """`apps/v1`; in the core group `v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def storage(self) -> str:
        """Where objects are kept: one place for all versions of an autoscaler and all groups of an event."""
        return "events" if self.plural == "events" else f"{self.group}/{self.plural}"


# ------------------------------------------------------------------------------------------------ conversions
_EVENT_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "count": "deprecatedCount",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "reportingComponent": "reportingController",
}


def _new_event(obj: Object) -> Object:
    return {
        **{_EVENT_NAMES.get(key, key): value for key, value in obj.items()},
        "apiVersion": "events.k8s.io/v1",
    }


def _core_event(obj: Object) -> Object:
    names = {new: old for old, new in _EVENT_NAMES.items()}
    return {**{names.get(key, key): value for key, value in obj.items()}, "apiVersion": "v1"}


def _hpa_v1(obj: Object) -> Object:
    spec, status = dict(obj["spec"]), dict(obj.get("status") or {})
    for metric in spec.pop("metrics", None) or ():
        resource = metric.get("resource") or {}
        if resource.get("name") == "cpu" and "averageUtilization" in (resource.get("target") or {}):
            spec["targetCPUUtilizationPercentage"] = resource["target"]["averageUtilization"]
    spec.pop("behavior", None)
    for metric in status.pop("currentMetrics", None) or ():
        resource = metric.get("resource") or {}
        if resource.get("name") == "cpu" and "averageUtilization" in (resource.get("current") or {}):
            status["currentCPUUtilizationPercentage"] = resource["current"]["averageUtilization"]
    status.pop("conditions", None)
    return {**obj, "apiVersion": "autoscaling/v1", "spec": spec, "status": status}


def _hpa_v2(obj: Object) -> Object:
    if not all(isinstance(obj.get(key) or {}, dict) for key in ("spec", "status")):
        return obj  # for the decoder to refuse
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    if percent is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    status.pop("currentCPUUtilizationPercentage", None)
    return {**obj, "apiVersion": "autoscaling/v2", "spec": spec, "status": status}


_EVENT_FIELDS = (
    *(
        f"involvedObject.{name}"
        for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    ),
    *("reason", "reportingComponent", "source", "type"),
)
_POD_FIELDS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.phase",
    "status.podIP",
)
_RBAC = "rbac.authorization.k8s.io"
RESOURCES: tuple[Resource, ...] = (
    Resource("", "v1", "configmaps", "ConfigMap", short_names=("cm",)),
    Resource("", "v1", "events", "Event", short_names=("ev",), fields=_EVENT_FIELDS),
    Resource("", "v1", "limitranges", "LimitRange", short_names=("limits",)),
    Resource(
        *("", "v1", "namespaces", "Namespace"),
        namespaced=False,
        short_names=("ns",),
        status=True,
        fields=("status.phase",),
        verbs=tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
    ),
    Resource(
        "",
        "v1",
        "nodes",
        "Node",
        namespaced=False,
        short_names=("no",),
        status=True,
        fields=("spec.unschedulable",),
    ),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short_names=("pvc",), status=True),
    Resource(
        "",
        "v1",
        "pods",
        "Pod",
        short_names=("po",),
        in_all=True,
        status=True,
        generation=True,
        fields=_POD_FIELDS,
    ),
    Resource("", "v1", "resourcequotas", "ResourceQuota", short_names=("quota",), status=True),
    Resource("", "v1", "secrets", "Secret", fields=("type",)),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", short_names=("sa",)),
    Resource(
        "",
        "v1",
        "services",
        "Service",
        short_names=("svc",),
        in_all=True,
        status=True,
        fields=("spec.clusterIP", "spec.type"),
    ),
    Resource("apps", "v1", "controllerrevisions", "ControllerRevision"),
    Resource(
        "apps",
        "v1",
        "daemonsets",
        "DaemonSet",
        short_names=("ds",),
        in_all=True,
        status=True,
        generation=True,
    ),
    Resource(
        "apps",
        "v1",
        "deployments",
        "Deployment",
        short_names=("deploy",),
        in_all=True,
        status=True,
        scale=True,
        generation=True,
    ),
    Resource(
        "apps",
        "v1",
        "replicasets",
        "ReplicaSet",
        short_names=("rs",),
        in_all=True,
        status=True,
        scale=True,
        generation=True,
    ),
    Resource(
        "apps",
        "v1",
        "statefulsets",
        "StatefulSet",
        short_names=("sts",),
        in_all=True,
        status=True,
        scale=True,
        generation=True,
    ),
    Resource(
        "events.k8s.io",
        "v1",
        "events",
        "Event",
        short_names=("ev",),
        fields=_EVENT_FIELDS,
        stored=_core_event,
        served=_new_event,
    ),
    Resource(
        *("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
        namespaced=False,
        verbs=("create",),
    ),
    Resource(
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        short_names=("hpa",),
        in_all=True,
        status=True,
    ),
    Resource(
        *("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
        short_names=("hpa",),
        in_all=True,
        status=True,
        stored=_hpa_v2,
        served=_hpa_v1,
    ),
    Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Resource(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
    Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
    Resource(_RBAC, "v1", "roles", "Role"),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
)
CAPACITY_BUFFERS = Resource(
    "autoscaling.x-k8s.io",
    "v1beta1",
    "capacitybuffers",
    "CapacityBuffer",
    short_names=("cb",),
    status=True,
    generation=True,
    custom=True,
)
"""Spare nodes, as the cluster-autoscaler and Karpenter define them."""


def _singular(resource: Resource) -> str:
    return resource.kind.lower()


def _listed(resource: Resource) -> list[Object]:
    first: Object = {
        "name": resource.plural,
        "singularName": _singular(resource),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    first |= {"shortNames": list(resource.short_names)} if resource.short_names else {}
    first |= {"categories": ["all"]} if resource.in_all else {}
    found = [first]
    common = {"singularName": "", "namespaced": resource.namespaced}
    if resource.scale:
        scale = {"group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": list(_ACCESS)}
        found.append({"name": f"{resource.plural}/scale", **common, **scale})
    if resource.status:
        found.append(
            {"name": f"{resource.plural}/status", **common, "kind": resource.kind, "verbs": list(_ACCESS)}
        )
    return found


class Catalogue:
    """What one server serves: the resources of Kubernetes, and custom ones.

    Args:
        custom: resources that a cluster has only if somebody installed their definition.
    """

    def __init__(self, custom: Sequence[Resource] = ()) -> None:
        self.resources = (*RESOURCES, *custom)

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource of a path; None if it isn't served."""
        wanted = (group, version, plural)
        return next(
            (each for each in self.resources if (each.group, each.version, each.plural) == wanted), None
        )

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource of an object; None if it isn't served."""
        return next(
            (each for each in self.resources if (each.api_version, each.kind) == (api_version, kind)), None
        )

    def group_versions(self) -> list[tuple[str, str]]:
        """All (group, version) that are served."""
        return list(dict.fromkeys((each.group, each.version) for each in self.resources))

    # ---------------------------------------------------------------------------------------------- discovery
    def discovery(self, path: str, host: str) -> Object | None:
        """What a path of discovery says; None if it isn't one. `host` is how the client calls this server."""
        address = {"clientCIDR": "0.0.0.0/0", "serverAddress": host}
        match path.strip("/").split("/"):
            case ["version"]:
                return VERSION
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [address]}
            case ["apis"]:
                return self._api_groups()
            case ["api", version]:
                return self._resource_list("", version)
            case ["apis", group]:
                return self._api_group(group)
            case ["apis", group, version]:
                return self._resource_list(group, version)
            case ["openapi", "v3", *rest]:
                return self._openapi_of(rest)
        return None

    def _resource_list(self, group: str, version: str) -> Object | None:
        """What `/apis/<group>/<version>` says; None if it isn't served."""
        found = [each for each in self.resources if (each.group, each.version) == (group, version)]
        if not found:
            return None
        head: Object = {
            "kind": "APIResourceList",
            **({"apiVersion": "v1"} if group else {}),
            "groupVersion": found[0].api_version,
        }
        return {**head, "resources": [entry for each in found for entry in _listed(each)]}

    def _api_group(self, group: str) -> Object | None:
        """What `/apis/<group>` says; None if it isn't served."""
        versions = [version for name, version in self.group_versions() if name == group]
        if not versions or not group:
            return None
        listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
        return {
            "kind": "APIGroup",
            "apiVersion": "v1",
            "name": group,
            "versions": listed,
            "preferredVersion": listed[0],
        }

    def _api_groups(self) -> Object:
        """What `/apis` says."""
        names: Sequence[str] = list(dict.fromkeys(each.group for each in self.resources if each.group))
        told = [self._api_group(name) or {} for name in names]
        groups = [
            {key: value for key, value in each.items() if key not in ("kind", "apiVersion")} for each in told
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def _openapi_of(self, rest: list[str]) -> Object | None:
        match rest:
            case []:
                return self._openapi_index()
            case ["api", version]:
                return self._openapi("", version)
            case ["apis", group, version]:
                return self._openapi(group, version)
        return None

    def _openapi_index(self) -> Object:
        """What `/openapi/v3` says."""
        paths = [
            f"apis/{group}/{version}" if group else f"api/{version}"
            for group, version in self.group_versions()
        ]
        return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in paths}}

    def _openapi(self, group: str, version: str) -> Object:
        """Only which kinds take `fieldValidation`, which kubectl asks before it applies."""
        paths: Object = {}
        parameters = [
            {"name": name, "in": "query", "schema": {"type": "string"}}
            for name in ("dryRun", "fieldManager", "fieldValidation")
        ]
        prefix = f"/apis/{group}/{version}" if group else f"/api/{version}"
        for each in self.resources:
            if (each.group, each.version) != (group, version):
                continue
            kind = {"group": each.group, "version": each.version, "kind": each.kind}
            where = "namespaces/{namespace}/" if each.namespaced else ""
            operation = {
                "parameters": parameters,
                "x-kubernetes-group-version-kind": kind,
                "responses": {"200": {"description": "OK"}},
            }
            path = f"{prefix}/{where}{each.plural}/{{name}}"
            paths[path] = {"patch": {**operation, "x-kubernetes-action": "patch"}}
        return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": paths}
