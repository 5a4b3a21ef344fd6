"""What the API server fills in, and what it refuses.

Source: the recorded answers of v1.36, and the public API reference for the rest.
Differs: only what the manifests of the testbed touch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from testbed.kubernetes_api.autoscalers import autoscaler_faults, fill_in_autoscaler
from testbed.kubernetes_api.event_rules import event_faults
from testbed.kubernetes_api.quotas import complete_limit_range
from testbed.kubernetes_api.resources import Resource
from testbed.kubernetes_api.status import Cause, Object
from testbed.kubernetes_api.validation import object_faults

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_ALPHANUMERIC = "must start and end with an alphanumeric character (e.g. "
SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    f"and {_ALPHANUMERIC}"
    f"'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    f"and {_ALPHANUMERIC}"
    f"'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_RBAC = "rbac.authorization.k8s.io"  # takes any name that fits into a path
_NOT_NEGATIVE = "must be greater than or equal to 0"


# --------------------------------------------------------------------------------------------------- defaults
def _default(target: Object, **values: Any) -> None:
    for key, value in values.items():
        target.setdefault(key, value)


def _probe(probe: Object) -> None:
    _default(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    if "httpGet" in probe:
        _default(probe["httpGet"], path="/", scheme="HTTP")
    if "grpc" in probe:
        _default(probe["grpc"], service="")


def _container(container: Object) -> None:
    image = container.get("image", "")
    tagged = ":" in image.rsplit("/", 1)[-1] and not image.endswith(":latest")
    _default(
        container,
        resources={},
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        imagePullPolicy="IfNotPresent" if tagged or "@" in image else "Always",
    )
    for port in container.get("ports") or ():
        _default(port, protocol="TCP")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _probe(container[name])
    for variable in container.get("env") or ():
        source = (variable.get("valueFrom") or {}).get("fieldRef")
        if source:
            _default(source, apiVersion="v1")


def pod_spec(spec: Object) -> None:
    """Fill in the spec of a pod or of a template."""
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        _container(container)
    _default(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        securityContext={},
        schedulerName="default-scheduler",
    )
    if "serviceAccountName" in spec:
        _default(spec, serviceAccount=spec["serviceAccountName"])
    for volume in spec.get("volumes") or ():
        for name in ("configMap", "secret"):
            if name in volume:
                _default(volume[name], defaultMode=420)


def _workload(spec: Object) -> None:
    _default(spec, replicas=1)
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    pod_spec(template.setdefault("spec", {}))


def _deployment(obj: Object) -> None:
    spec = obj["spec"]
    _workload(spec)
    strategy = spec.setdefault("strategy", {})
    _default(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _default(strategy.setdefault("rollingUpdate", {}), maxUnavailable="25%", maxSurge="25%")
    _default(spec, revisionHistoryLimit=10, progressDeadlineSeconds=600)


def _stateful_set(obj: Object) -> None:
    _workload(obj["spec"])
    _default(obj["spec"], podManagementPolicy="OrderedReady", revisionHistoryLimit=10)


def _service(obj: Object) -> None:
    spec = obj["spec"]
    _default(spec, type="ClusterIP", sessionAffinity="None")
    for port in spec.get("ports") or ():
        _default(port, protocol="TCP")
        _default(port, targetPort=port.get("port"))
    if spec["type"] != "ExternalName":
        _default(spec, ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack", internalTrafficPolicy="Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        _default(spec, externalTrafficPolicy="Cluster")
    if spec["type"] == "LoadBalancer":
        _default(spec, allocateLoadBalancerNodePorts=True)
    obj["status"] = obj.get("status") or {"loadBalancer": {}}


def _event(obj: Object) -> None:
    _default(
        obj,
        source={},
        reportingComponent="",
        reportingInstance="",
        firstTimestamp=None,
        lastTimestamp=None,
        eventTime=None,
    )


def _namespace(obj: Object) -> None:
    labels = obj["metadata"].setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
    obj["spec"] = {"finalizers": ["kubernetes"]}
    obj["status"] = obj.get("status") or {"phase": "Active"}


def _pod(obj: Object) -> None:
    pod_spec(obj["spec"])
    obj["status"] = obj.get("status") or {"phase": "Pending"}


def _claim(obj: Object) -> None:
    obj["status"] = obj.get("status") or {"phase": "Pending"}


_DEFAULTS: Mapping[str, Callable[[Object], None]] = {
    "Deployment": _deployment,
    "ReplicaSet": lambda obj: _workload(obj["spec"]),
    "StatefulSet": _stateful_set,
    "Service": _service,
    "HorizontalPodAutoscaler": fill_in_autoscaler,
    "Event": _event,
    "Namespace": _namespace,
    "Pod": _pod,
    "PersistentVolumeClaim": _claim,
    "LimitRange": complete_limit_range,
    "CapacityBuffer": lambda obj: _default(
        obj["spec"], provisioningStrategy="buffer.x-k8s.io/active-capacity"
    ),
}
_WITH_SPEC = {
    *("Deployment", "ReplicaSet", "StatefulSet", "Service", "Pod", "Lease"),
    *("HorizontalPodAutoscaler", "CapacityBuffer"),
}


def fill_in(obj: Object, resource: Resource) -> None:
    """Set the defaults of an object in place."""
    if resource.kind in _WITH_SPEC:
        obj.setdefault("spec", {})
    default = _DEFAULTS.get(resource.kind)
    if default:
        default(obj)
    if resource.status:
        obj.setdefault("status", {})


# ------------------------------------------------------------------------------------------------- validation
def _wrong(field: str, value: Any, why: str) -> Cause:
    return Cause(
        "FieldValueInvalid",
        f"Invalid value: {json.dumps(value, separators=(',', ':'), ensure_ascii=False)}: {why}",
        field,
    )


def _missing(field: str) -> Cause:
    return Cause("FieldValueRequired", "Required value", field)


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for rule in selector.get("matchExpressions") or ():
        key, values = rule.get("key", ""), rule.get("values") or ()
        has, value = key in labels, labels.get(key)
        fits = {
            "In": has and value in values,
            "NotIn": not has or value not in values,
            "Exists": has,
            "DoesNotExist": not has,
        }
        if not fits.get(rule.get("operator", ""), False):
            return False
    return True


def _check_pod_spec(spec: Object, path: str) -> list[Cause]:
    found = []
    if not spec.get("containers"):
        found.append(_missing(f"{path}.containers"))
    seen = set()
    for at, container in enumerate(spec.get("containers") or ()):
        name, place = container.get("name", ""), f"{path}.containers[{at}]"
        if not name:
            found.append(_missing(f"{place}.name"))
        elif not re.fullmatch(_LABEL, name) or len(name) > 63:
            found.append(_wrong(f"{place}.name", name, _LABEL_RULE))
        elif name in seen:
            found.append(Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{place}.name"))
        seen.add(name)
        if not container.get("image"):
            found.append(_missing(f"{place}.image"))
    return found


def _check_workload(obj: Object, old: Object | None) -> list[Cause]:
    spec, found = obj["spec"], []
    labels = spec["template"].get("metadata", {}).get("labels") or {}
    if spec["replicas"] < 0:
        found.append(_wrong("spec.replicas", spec["replicas"], _NOT_NEGATIVE))
    if not spec.get("selector"):
        found.append(_missing("spec.selector"))
    if not _selects(spec.get("selector") or {}, labels):
        found.append(
            _wrong("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
        )
    found += _check_pod_spec(spec["template"]["spec"], "spec.template.spec")
    if old is not None and old["spec"].get("selector") != spec.get("selector"):
        found.append(_wrong("spec.selector", spec.get("selector"), "field is immutable"))
    return found


def _check_service(obj: Object, old: Object | None) -> list[Cause]:
    spec, found = obj["spec"], []
    if not spec.get("ports") and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        found.append(_missing("spec.ports"))
    for at, port in enumerate(spec.get("ports") or ()):
        if not 1 <= port.get("port", 0) <= 65535:
            found.append(
                _wrong(
                    f"spec.ports[{at}].port", port.get("port", 0), "must be between 1 and 65535, inclusive"
                )
            )
        if len(spec["ports"]) > 1 and not port.get("name"):
            found.append(_missing(f"spec.ports[{at}].name"))
    if old is not None and old["spec"].get("clusterIP") and spec.get("clusterIP") != old["spec"]["clusterIP"]:
        found.append(_wrong("spec.clusterIP", spec.get("clusterIP"), "field is immutable"))
    return found


def _check_lease(obj: Object, old: Object | None) -> list[Cause]:
    del old
    spec, found = obj["spec"], []
    if spec.get("leaseDurationSeconds", 1) <= 0:
        found.append(
            _wrong("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], "must be greater than 0")
        )
    if spec.get("leaseTransitions", 0) < 0:
        found.append(_wrong("spec.leaseTransitions", spec["leaseTransitions"], _NOT_NEGATIVE))
    return found


def _check_binding(obj: Object, old: Object | None) -> list[Cause]:
    role, found = obj.get("roleRef") or {}, []
    for name in ("kind", "name"):
        if not role.get(name):
            found.append(_missing(f"roleRef.{name}"))
    if old is not None and old.get("roleRef") != role:
        found.append(_wrong("roleRef", role, "cannot change roleRef"))
    return found


def _check_buffer(obj: Object, old: Object | None) -> list[Cause]:
    """As the definition's schema and its two rules in CEL say."""
    del old
    spec, found = obj["spec"], []
    for name in ("replicas", "percentage"):
        if spec.get(name, 0) < 0:
            said = f"spec.{name} in body should be greater than or equal to 0"
            found.append(_wrong(f"spec.{name}", spec[name], said))
    for name, keys in (("podTemplateRef", ("name",)), ("scalableRef", ("kind", "name"))):
        found += [_missing(f"spec.{name}.{key}") for key in keys if not spec.get(name, {key: 1}).get(key)]
    if "podTemplateRef" in spec and "scalableRef" in spec:
        found.append(_wrong("spec", "object", "podTemplateRef and scalableRef exclude each other"))
    if "podTemplateRef" in spec and not {"replicas", "limits"} & set(spec):
        found.append(_wrong("spec", "object", "podTemplateRef needs replicas or limits"))
    return found


_CHECKS: Mapping[str, Callable[[Object, Object | None], list[Cause]]] = {
    "Deployment": _check_workload,
    "ReplicaSet": _check_workload,
    "StatefulSet": _check_workload,
    "Pod": lambda obj, _: _check_pod_spec(obj["spec"], "spec"),
    "Service": _check_service,
    "Lease": _check_lease,
    "HorizontalPodAutoscaler": lambda obj, _: autoscaler_faults(obj),
    "CapacityBuffer": _check_buffer,
    "RoleBinding": _check_binding,
    "ClusterRoleBinding": _check_binding,
}


def faults(obj: Object, old: Object | None, resource: Resource) -> list[Cause]:
    """What is wrong with an object that is about to be kept in the place of `old`."""
    metadata, found = obj["metadata"], []
    rule, text = (
        (_LABEL, _LABEL_RULE) if resource.kind in ("Namespace", "Service") else (_SUBDOMAIN, SUBDOMAIN_RULE)
    )
    given = metadata.get("generateName")
    if resource.group == "events.k8s.io" and given and not re.fullmatch(_SUBDOMAIN, given):
        found.append(_wrong("metadata.generateName", given, SUBDOMAIN_RULE))
    elif old is None and not given and resource.group != _RBAC and not re.fullmatch(rule, metadata["name"]):
        found.append(_wrong("metadata.name", metadata["name"], text))
    check = _CHECKS.get(resource.kind)
    if resource.kind == "Event":
        found += event_faults(obj, old, resource.group == "events.k8s.io")
    return [*found, *object_faults(obj), *(check(obj, old) if check else [])]


def scale_faults(replicas: int) -> list[Cause]:
    """What is wrong with a wanted number of replicas."""
    return [_wrong("spec.replicas", replicas, _NOT_NEGATIVE)] if replicas < 0 else []
