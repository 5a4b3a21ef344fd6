"""What is known of the shape of objects: field names, types, and the keys of lists that merge by key.

A type is written `*Name[keys]!`:

* `*`: the field is absent unless it is set (a pointer or a list).
* `[a,b]`: a list whose items are told apart by these fields. `[=]`: a set of scalars. `[]`: a list that is
  replaced as a whole.
* `!`: a structure that server-side apply replaces as a whole.

`any` isn't checked, and `obj` only for being a structure. Kinds that aren't listed are free-form.

Source: the public API reference of Kubernetes v1.36 for names and types, the recorded answers.
Differs: a subset. A field that a listed structure doesn't name counts as unknown, so every structure is
listed with all of its fields or as `any`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from testbed.kubernetes_api.status import Object

_TYPE = re.compile(r"(\*?)(\w+)(?:\[([\w,=]*)\])?(!?)$")
_SCALARS = {"string", "int32", "int64", "bool", "intstr", "quantity", "time", "microtime"}


def _fields(text: str) -> dict[str, str]:
    return dict(pair.split(":", 1) for pair in text.split())


_PROBE_ACTION = "exec:*obj httpGet:*HTTPGetAction tcpSocket:*obj"
TYPES: Mapping[str, Mapping[str, str]] = {
    name: _fields(text)
    for name, text in {
        "ObjectMeta": "name:string generateName:string namespace:string selfLink:string uid:string "
        "resourceVersion:string generation:int64 creationTimestamp:time deletionTimestamp:time "
        "deletionGracePeriodSeconds:int64 labels:*map annotations:*map ownerReferences:*OwnerReference[uid] "
        "finalizers:*string[=] managedFields:*any[]",
        "OwnerReference": "apiVersion:string kind:string name:string uid:string controller:bool "
        "blockOwnerDeletion:bool",
        "LabelSelector": "matchLabels:*map matchExpressions:*LabelSelectorRequirement[]",
        "LabelSelectorRequirement": "key:string operator:string values:*string[]",
        "ObjectReference": "kind:string namespace:string name:string uid:string apiVersion:string "
        "resourceVersion:string fieldPath:string",
        # ------------------------------------------------------------------------------------------ workloads
        "Deployment": "metadata:ObjectMeta spec:DeploymentSpec status:obj",
        "DeploymentSpec": "replicas:int32 selector:*LabelSelector! template:PodTemplateSpec "
        "strategy:DeploymentStrategy minReadySeconds:int32 revisionHistoryLimit:int32 paused:bool "
        "progressDeadlineSeconds:int32",
        "DeploymentStrategy": "type:string rollingUpdate:*RollingUpdateDeployment",
        "RollingUpdateDeployment": "maxUnavailable:intstr maxSurge:intstr",
        "ReplicaSet": "metadata:ObjectMeta spec:ReplicaSetSpec status:obj",
        "ReplicaSetSpec": "replicas:int32 selector:*LabelSelector! template:PodTemplateSpec "
        "minReadySeconds:int32",
        "StatefulSet": "metadata:ObjectMeta spec:StatefulSetSpec status:obj",
        "StatefulSetSpec": "replicas:int32 selector:*LabelSelector! template:PodTemplateSpec "
        "serviceName:string updateStrategy:any podManagementPolicy:string volumeClaimTemplates:*any[] "
        "minReadySeconds:int32 revisionHistoryLimit:int32 ordinals:*any "
        "persistentVolumeClaimRetentionPolicy:*any",
        "PodTemplateSpec": "metadata:ObjectMeta spec:PodSpec",
        "Pod": "metadata:ObjectMeta spec:PodSpec status:obj",
        "PodSpec": "containers:Container[name] initContainers:*Container[name] ephemeralContainers:*any[] "
        "volumes:*Volume[name] restartPolicy:string terminationGracePeriodSeconds:int64 "
        "activeDeadlineSeconds:int64 dnsPolicy:string dnsConfig:*obj nodeSelector:*map! "
        "serviceAccountName:string serviceAccount:string automountServiceAccountToken:bool nodeName:string "
        "hostNetwork:bool hostPID:bool hostIPC:bool hostUsers:bool shareProcessNamespace:bool "
        "securityContext:*obj imagePullSecrets:*LocalReference[name] hostname:string subdomain:string "
        "setHostnameAsFQDN:bool affinity:*obj schedulerName:string tolerations:*any[] hostAliases:*any[] "
        "priorityClassName:string priority:int32 preemptionPolicy:string readinessGates:*any[] "
        "runtimeClassName:string enableServiceLinks:bool overhead:*obj topologySpreadConstraints:*any[] "
        "os:*any schedulingGates:*any[] resourceClaims:*any[] resources:*any hostnameOverride:string "
        "workloadRef:*any",
        "LocalReference": "name:string",
        "Container": "name:string image:string command:*any[] args:*any[] workingDir:string "
        "ports:*ContainerPort[containerPort,protocol] env:*EnvVar[name] envFrom:*any[] "
        "resources:ResourceRequirements resizePolicy:*any[] restartPolicy:string restartPolicyRules:*any[] "
        "volumeMounts:*VolumeMount[mountPath] volumeDevices:*any[] livenessProbe:*Probe "
        "readinessProbe:*Probe startupProbe:*Probe lifecycle:*obj terminationMessagePath:string "
        "terminationMessagePolicy:string imagePullPolicy:string securityContext:*obj stdin:bool "
        "stdinOnce:bool tty:bool",
        "ContainerPort": "name:string hostPort:int32 containerPort:int32 protocol:string hostIP:string",
        "EnvVar": "name:string value:string valueFrom:*obj",
        "VolumeMount": "name:string mountPath:string readOnly:bool recursiveReadOnly:string subPath:string "
        "subPathExpr:string mountPropagation:string",
        "ResourceRequirements": "limits:*map requests:*map claims:*any[]",
        "Probe": f"{_PROBE_ACTION} grpc:*GRPCAction initialDelaySeconds:int32 timeoutSeconds:int32 "
        "periodSeconds:int32 successThreshold:int32 failureThreshold:int32 "
        "terminationGracePeriodSeconds:int64",
        "HTTPGetAction": "path:string port:intstr host:string scheme:string httpHeaders:*any[]",
        "GRPCAction": "port:int32 service:string",
        "Volume": "name:string configMap:*obj secret:*obj emptyDir:*obj persistentVolumeClaim:*obj "
        "hostPath:*obj projected:*obj downwardAPI:*obj nfs:*obj csi:*obj ephemeral:*obj image:*obj "
        "iscsi:*obj fc:*obj",
        "Scale": "metadata:ObjectMeta spec:ScaleSpec status:obj",
        "ScaleSpec": "replicas:int32",
        # ------------------------------------------------------------------------------------ the other kinds
        "Service": "metadata:ObjectMeta spec:ServiceSpec status:obj",
        "ServiceSpec": "ports:*ServicePort[port,protocol] selector:*map! clusterIP:string clusterIPs:*any[] "
        "type:string externalIPs:*any[] sessionAffinity:string loadBalancerIP:string "
        "loadBalancerSourceRanges:*any[] externalName:string externalTrafficPolicy:string "
        "healthCheckNodePort:int32 publishNotReadyAddresses:bool sessionAffinityConfig:*obj "
        "ipFamilies:*any[] ipFamilyPolicy:string allocateLoadBalancerNodePorts:bool "
        "loadBalancerClass:string internalTrafficPolicy:string trafficDistribution:string",
        "ServicePort": "name:string protocol:string appProtocol:string port:int32 targetPort:intstr "
        "nodePort:int32",
        "Namespace": "metadata:ObjectMeta spec:obj status:obj",
        "Lease": "metadata:ObjectMeta spec:LeaseSpec",
        "LeaseSpec": "holderIdentity:string leaseDurationSeconds:int32 acquireTime:microtime "
        "renewTime:microtime leaseTransitions:int32 strategy:string preferredHolder:string",
        "HorizontalPodAutoscaler": "metadata:ObjectMeta spec:HorizontalPodAutoscalerSpec status:obj",
        "HorizontalPodAutoscalerSpec": "scaleTargetRef:CrossVersionObjectReference minReplicas:int32 "
        "maxReplicas:int32 metrics:*MetricSpec[] behavior:*ScalingBehavior "
        "targetCPUUtilizationPercentage:int32",
        "ScalingBehavior": "scaleUp:*ScalingRules scaleDown:*ScalingRules",
        "ScalingRules": "stabilizationWindowSeconds:int32 selectPolicy:string policies:*ScalingPolicy[] "
        "tolerance:quantity",
        "ScalingPolicy": "type:string value:int32 periodSeconds:int32",
        "CrossVersionObjectReference": "kind:string name:string apiVersion:string",
        "Event": "metadata:ObjectMeta involvedObject:ObjectReference! reason:string message:string "
        "source:EventSource firstTimestamp:time lastTimestamp:time count:int32 type:string "
        "eventTime:microtime series:*obj action:string related:*obj reportingComponent:string "
        "reportingInstance:string",
        "CapacityBuffer": "metadata:ObjectMeta spec:CapacityBufferSpec status:obj",
        "CapacityBufferSpec": "provisioningStrategy:string podTemplateRef:*LocalReference "
        "scalableRef:*ScalableRef replicas:int32 percentage:int32 limits:*map",
        "ScalableRef": "apiGroup:string kind:string name:string",
        "MetricSpec": "type:string resource:*ResourceMetricSource "
        "containerResource:*ContainerResourceMetricSource pods:*PodsMetricSource "
        "object:*ObjectMetricSource external:*ExternalMetricSource",
        "ResourceMetricSource": "name:string target:MetricTarget",
        "ContainerResourceMetricSource": "name:string target:MetricTarget container:string",
        "PodsMetricSource": "metric:MetricIdentifier target:MetricTarget",
        "ObjectMetricSource": "describedObject:CrossVersionObjectReference target:MetricTarget "
        "metric:MetricIdentifier",
        "ExternalMetricSource": "metric:MetricIdentifier target:MetricTarget",
        "MetricIdentifier": "name:string selector:*LabelSelector",
        "MetricTarget": "type:string value:quantity averageValue:quantity averageUtilization:int32",
        "EventSource": "component:string host:string",
        "Role": "metadata:ObjectMeta rules:*PolicyRule[]",
        "RoleBinding": "metadata:ObjectMeta subjects:*Subject[] roleRef:RoleRef!",
        "ClusterRole": "metadata:ObjectMeta rules:*PolicyRule[] aggregationRule:*obj",
        "ClusterRoleBinding": "metadata:ObjectMeta subjects:*Subject[] roleRef:RoleRef!",
        "PolicyRule": "verbs:*string[] apiGroups:*string[] resources:*string[] resourceNames:*string[] "
        "nonResourceURLs:*string[]",
        "Subject": "kind:string apiGroup:string name:string namespace:string",
        "RoleRef": "apiGroup:string kind:string name:string",
        "SelfSubjectAccessReview": "metadata:ObjectMeta spec:SelfSubjectAccessReviewSpec status:obj",
        "SelfSubjectAccessReviewSpec": "resourceAttributes:*ResourceAttributes nonResourceAttributes:*obj",
        "ResourceAttributes": "namespace:string verb:string group:string version:string resource:string "
        "subresource:string name:string fieldSelector:*obj labelSelector:*obj",
    }.items()
}


@dataclass(frozen=True)
class FieldType:
    """A parsed type. `keys` is None if it is no list, and empty if the list is replaced as a whole."""

    name: str
    optional: bool = False
    keys: tuple[str, ...] | None = None
    atomic: bool = False

    @property
    def is_set(self) -> bool:
        """Whether it is a list of scalars without order."""
        return self.keys == ("=",)

    @property
    def item(self) -> FieldType:
        """The type of a list's items."""
        return FieldType(self.name, optional=True)

    def field(self, key: str) -> FieldType | None:
        """The type of a field; None if the structure has no such field."""
        if self.name == "map":
            return STRING
        if self.name not in TYPES:
            return ANY
        text = TYPES[self.name].get(key)
        if text is None and key in ("apiVersion", "kind") and "metadata" in TYPES[self.name]:
            return STRING
        return None if text is None else parse(text)


STRING = FieldType("string")
ANY = FieldType("any", optional=True)


@cache
def parse(text: str) -> FieldType:
    """The type that a text in the form above stands for."""
    found = _TYPE.match(text)
    if found is None:
        raise ValueError(f"not a type: {text!r}")
    optional, name, keys, atomic = found.groups()
    return FieldType(
        name, bool(optional), None if keys is None else tuple(filter(None, keys.split(","))), bool(atomic)
    )


def type_of(kind: str) -> FieldType:
    """The type of a kind's objects."""
    return FieldType(kind if kind in TYPES else "any")


def item_key(item: Any, keys: tuple[str, ...]) -> tuple[Any, ...]:
    """What tells an item of a list apart. The protocol of a port is TCP unless it says otherwise."""
    if keys == ("=",):
        return (item,)
    values = item if isinstance(item, dict) else {}
    return tuple(values.get(key, "TCP" if key == "protocol" else None) for key in keys)


def list_element(item: Any, keys: tuple[str, ...]) -> str:
    """The element of a path that stands for an item of a list."""
    if keys == ("=",):
        return "v:" + json.dumps(item)
    pairs = dict(zip(keys, item_key(item, keys), strict=True))
    return "k:" + json.dumps(pairs, sort_keys=True, separators=(",", ":"))


# --------------------------------------------------------------------------------------------------- decoding
class Mismatch(ValueError):
    """A value of another type than its field's, in the words of the API server's decoder."""


def decode(value: Object, kind: str, unknown: list[str] | None = None) -> Object:
    """The object as the API keeps it: nulls and unknown fields dropped, times in one form.

    Args:
        value: the object as it was sent.
        kind: of the object.
        unknown: a list that takes the paths of the fields that were dropped.

    Raises:
        Mismatch: a value is of another type than its field.
    """
    found: Object = _decode(value, type_of(kind), kind, "", "", [] if unknown is None else unknown)
    return found


def _decode(value: Any, kind: FieldType, struct: str, path: str, indexed: str, unknown: list[str]) -> Any:
    """A value of any type; `path` leads to it in words of types, `indexed` also through lists."""
    if kind.keys is not None:
        return _decode_list(value, kind, struct, path, indexed, unknown)
    if kind.name == "any" or (kind.name == "obj" and isinstance(value, dict)):
        return value
    if kind.name in _SCALARS:
        return _scalar(value, kind.name, struct, path)
    if kind.name == "map":
        return _decode_map(value, struct, path, indexed, unknown)
    return _decode_struct(value, kind, struct, path, indexed, unknown)


def _decode_struct(
    value: Any, kind: FieldType, struct: str, path: str, indexed: str, unknown: list[str]
) -> Object:
    if not isinstance(value, dict):
        raise Mismatch(_unfit(value, struct, path, kind.name))
    found = {}
    for key, each in value.items():
        field = kind.field(key)
        if field is None:
            unknown.append(_join(indexed, key))
        elif each is not None:
            place, place_indexed = _join(path, key), _join(indexed, key)
            found[key] = _decode(each, field, kind.name, place, place_indexed, unknown)
    return found


def _decode_list(
    value: Any, kind: FieldType, struct: str, path: str, indexed: str, unknown: list[str]
) -> list[Any]:
    if not isinstance(value, list):
        raise Mismatch(_unfit(value, struct, path, f"[]{kind.name}"))
    if kind.name == "any":
        return value
    places = ((f"{indexed}[{at}]", each) for at, each in enumerate(value))
    return [_decode(each, kind.item, struct, path, place, unknown) for place, each in places]


def _decode_map(value: Any, struct: str, path: str, indexed: str, unknown: list[str]) -> Object:
    """A map of texts. The API server also takes numbers where a map holds quantities."""
    if not isinstance(value, dict):
        raise Mismatch(_unfit(value, struct, path, "map[string]string"))
    found: Object = {}
    for key, each in value.items():
        if each is not None:
            quantity = type(each) in (int, float) and ".resources." in path
            text = str(each) if quantity else each
            found[key] = _decode(text, STRING, struct, path, _join(indexed, key), unknown)
    return found


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _scalar(value: Any, name: str, struct: str, path: str) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    fits = {
        "bool": isinstance(value, bool),
        "int32": whole and -(2**31) <= value < 2**31 if whole else False,
        "int64": whole,
        "intstr": whole or isinstance(value, str),
        "quantity": whole or isinstance(value, str | float),
    }.get(name, isinstance(value, str))
    if not fits:
        raise Mismatch(_unfit(value, struct, path, "string" if name in ("time", "microtime") else name))
    if name in ("time", "microtime"):
        return _time(value, micro=name == "microtime")
    return value


def _unfit(value: Any, struct: str, path: str, wanted: str) -> str:
    kinds = {bool: "bool", str: "string", dict: "object", list: "array", int: "number", float: "number"}
    found = kinds.get(type(value), "value")
    if found == "number" and wanted in ("int32", "int64"):
        found = f"number {value}"
    return f"json: cannot unmarshal {found} into Go struct field {struct}.{path} of type {wanted}"


def _time(value: str, micro: bool) -> str:
    layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError(value)
    except ValueError:
        raise Mismatch(f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"') from None
    return time_text(moment.timestamp(), micro)


def time_text(seconds: float, micro: bool = False) -> str:
    """A moment as the API writes it: whole seconds, or microseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ"
    )


def children(value: Any, kind: FieldType) -> Iterator[tuple[str, FieldType, Any]] | None:
    """Element of a path, type and value of all that lies below a value; None if it is owned as a whole."""
    if kind.atomic:
        return None
    if isinstance(value, list) and kind.keys:
        return _items(value, kind)
    if isinstance(value, dict) and value and kind.keys is None:
        return ((f"f:{key}", kind.field(key) or ANY, each) for key, each in value.items())
    return None


def _items(value: list[Any], kind: FieldType) -> Iterator[tuple[str, FieldType, Any]]:
    assert kind.keys is not None
    for each in value:
        yield list_element(each, kind.keys), kind.item, each
