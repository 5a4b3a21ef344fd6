"""HorizontalPodAutoscalers as the API server has them: what it fills in, and what it refuses.

Source: the 14 recorded answers of v1.36, and the public validation rules of autoscaling/v2 for the rest.
Differs: names of metrics and of described objects are checked for being there only.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from testbed.kubernetes_api import quantities
from testbed.kubernetes_api.status import Cause, Object

_CPU = {"type": "Utilization", "averageUtilization": 80}
_ALL = {"type": "Percent", "value": 100, "periodSeconds": 15}
_DIRECTIONS: dict[str, Object] = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, _ALL],
    },
    "scaleDown": {"selectPolicy": "Max", "policies": [_ALL]},
}
_LONGEST_WINDOW, _LONGEST_PERIOD = 3600, 1800
_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_LOOKED_AT = ("object", "external", "pods", "resource", "containerResource")
"""The order in which the API server looks for sources; it checks the first that is there."""
_PERCENT_OR_VALUE = (
    ("averageUtilization", "averageValue"),
    "must set either a target raw value or a target utilization",
)
_AMOUNTS = {
    "resource": _PERCENT_OR_VALUE,
    "containerResource": _PERCENT_OR_VALUE,
    "pods": (("averageValue",), "must specify a positive target averageValue"),
    "object": (("averageValue", "value"), "must set either a target value or averageValue"),
    "external": (
        ("averageValue", "value"),
        "must set either a target value for metric or a per-pod target",
    ),
}
"""Source -> the fields of its target of which one has to be set, and what is said of the first if none is."""
_NOT_BOTH = {
    "resource": ("averageValue", "may not set both a target raw value and a target utilization"),
    "containerResource": ("averageValue", "may not set both a target raw value and a target utilization"),
    "external": ("value", "may not set both a target value for metric and a per-pod target"),
}


def fill_in_autoscaler(obj: Object) -> None:
    """Set the defaults of an autoscaler in place; without `behavior` it gets none."""
    spec = obj["spec"]
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": dict(_CPU)}}]
    behavior = spec.get("behavior")
    if isinstance(behavior, dict):
        for name, usual in _DIRECTIONS.items():
            given = {key: value for key, value in (behavior.get(name) or {}).items() if value is not None}
            behavior[name] = {**copy.deepcopy(usual), **given}
            if "tolerance" in given:
                behavior[name]["tolerance"] = quantities.text(_amount(given["tolerance"]), binary=False)
    obj["status"] = obj.get("status") or {"desiredReplicas": 0, "currentMetrics": None}


def _amount(quantity: Any) -> Decimal:
    try:
        return quantities.value(quantity)
    except ValueError:
        return Decimal(-1)  # which is refused


def autoscaler_faults(obj: Object) -> list[Cause]:
    """What is wrong with an autoscaler."""
    spec = obj["spec"]
    return [
        *_of_bounds(spec),
        *_of_reference(spec.get("scaleTargetRef"), "spec.scaleTargetRef"),
        *_of_metrics(spec),
        *_of_behavior(obj),
    ]


def _wrong(field: str, value: object, why: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else value
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {why}", field)


def _of_bounds(spec: Object) -> Iterator[Cause]:
    low, high = spec["minReplicas"], spec.get("maxReplicas", 0)
    if low < 1:
        yield _wrong("spec.minReplicas", low, "must be greater than or equal to 1")
    if high < 1:
        yield _required("spec.maxReplicas", "must be set and greater than 0")
    if high < low:
        yield _wrong("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`")


def _required(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", f"Required value: {why}" if why else "Required value", field)


def _forbidden(field: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {why}", field)


def _of_reference(reference: Object | None, where: str) -> Iterator[Cause]:
    for name in ("kind", "name"):
        if not (reference or {}).get(name):
            yield _required(f"{where}.{name}")


def _of_metrics(spec: Object) -> Iterator[Cause]:
    for at, metric in enumerate(spec["metrics"]):
        yield from _of_metric(metric, f"spec.metrics[{at}]")
    if spec["minReplicas"] == 0 and not any(
        metric.get("type") in ("Object", "External") for metric in spec["metrics"]
    ):
        said = "must specify at least one Object or External metric to support scaling to zero replicas"
        yield _forbidden("spec.metrics", said)


def _of_metric(metric: Object, where: str) -> Iterator[Cause]:
    """Its type, and the source that goes with it."""
    kind, present = metric.get("type", ""), [key for key in _LOOKED_AT if metric.get(key) is not None]
    if not kind:
        yield _required(f"{where}.type", "must specify a metric source type")
    if kind not in _SOURCES:
        known = ", ".join(f'"{name}"' for name in _SOURCES)
        said = f'Unsupported value: "{kind}": supported values: {known}'
        yield Cause("FieldValueNotSupported", said, f"{where}.type")
    for key in present[:1]:
        yield from _of_source(key, metric[key], f"{where}.{key}")
    own = _SOURCES.get(kind)
    if own and own not in present:
        yield _required(f"{where}.{own}", "must populate information for the given metric source")
    if len(present) > 1:
        for key in present:
            if key != own:
                yield _forbidden(f"{where}.{key}", "must populate the given metric source only")


def _of_source(key: str, source: Object, where: str) -> Iterator[Cause]:
    if key == "object":
        yield from _of_reference(source.get("describedObject"), f"{where}.describedObject")
    if key in ("resource", "containerResource"):
        if not source.get("name"):
            yield _required(f"{where}.name", "must specify a resource name")
    elif not (source.get("metric") or {}).get("name"):
        yield _required(f"{where}.metric.name", "must specify a metric name")
    if key == "containerResource" and not source.get("container"):
        yield _required(f"{where}.container", "must specify a container")
    target = source.get("target") or {}
    yield from _of_target(target, f"{where}.target")
    fields, said = _AMOUNTS[key]
    given = [name for name in fields if target.get(name) is not None]
    if not given:
        yield _required(f"{where}.target.{fields[0]}", said)
    if len(given) > 1 and key in _NOT_BOTH:
        name, said = _NOT_BOTH[key]
        yield _forbidden(f"{where}.target.{name}", said)


def _of_target(target: Object, where: str) -> Iterator[Cause]:
    kind, percent = target.get("type", ""), target.get("averageUtilization")
    if not kind:
        yield _required(f"{where}.type", "must specify a metric target type")
    if kind not in ("Utilization", "Value", "AverageValue"):
        yield _wrong(f"{where}.type", kind, "must be either Utilization, Value, or AverageValue")
    for name in ("value", "averageValue"):
        if target.get(name) is not None and _amount(target[name]) <= 0:
            yield _wrong(f"{where}.{name}", str(target[name]), "must be positive")
    if percent is not None and percent < 1:
        yield _wrong(f"{where}.averageUtilization", percent, "must be greater than 0")


def _of_behavior(obj: Object) -> Iterator[Cause]:
    behavior = obj["spec"].get("behavior")
    if not isinstance(behavior, dict):
        return
    for name in _DIRECTIONS:
        yield from _of_rules(behavior[name], f"spec.behavior.{name}")


def _of_rules(rules: Object, where: str) -> Iterator[Cause]:
    window, select = rules.get("stabilizationWindowSeconds", 0), rules["selectPolicy"]
    if window < 0:
        yield _wrong(f"{where}.stabilizationWindowSeconds", window, "must be greater than or equal to zero")
    if window > _LONGEST_WINDOW:
        said = f"must be less than or equal to {_LONGEST_WINDOW}"
        yield _wrong(f"{where}.stabilizationWindowSeconds", window, said)
    if select not in ("Disabled", "Max", "Min"):
        said = f'Unsupported value: "{select}": supported values: "Disabled", "Max", "Min"'
        yield Cause("FieldValueNotSupported", said, f"{where}.selectPolicy")
    if not rules["policies"]:
        yield _required(f"{where}.policies", "must specify at least one Policy")
    for at, policy in enumerate(rules["policies"]):
        yield from _of_policy(policy, f"{where}.policies[{at}]")
    if "tolerance" in rules and quantities.value(rules["tolerance"]) < 0:
        yield _wrong(f"{where}.tolerance", rules["tolerance"], "must be greater than or equal to 0")


def _of_policy(policy: Object, where: str) -> Iterator[Cause]:
    kind, value, period = policy.get("type", ""), policy.get("value", 0), policy.get("periodSeconds", 0)
    if kind not in ("Percent", "Pods"):
        said = f'Unsupported value: "{kind}": supported values: "Percent", "Pods"'
        yield Cause("FieldValueNotSupported", said, f"{where}.type")
    if value <= 0:
        yield _wrong(f"{where}.value", value, "must be greater than zero")
    if period <= 0:
        yield _wrong(f"{where}.periodSeconds", period, "must be greater than zero")
    if period > _LONGEST_PERIOD:
        said = f"must be less than or equal to {_LONGEST_PERIOD}"
        yield _wrong(f"{where}.periodSeconds", period, said)
