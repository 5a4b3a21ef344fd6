"""HorizontalPodAutoscalers as the API server has them: what it fills in, and what it refuses.

Source: the 14 recorded answers of v1.36, and the public validation rules of autoscaling/v2 for the rest.
Differs: of metrics only the targets of resources are checked.
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
_SOURCES = {"Resource": "resource", "ContainerResource": "containerResource"}


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
    return [*_of_bounds(obj["spec"]), *_of_target(obj["spec"]), *_of_metrics(obj["spec"]), *_of_behavior(obj)]


def _wrong(field: str, value: object, why: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else value
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {why}", field)


def _of_bounds(spec: Object) -> Iterator[Cause]:
    low, high = spec["minReplicas"], spec.get("maxReplicas", 0)
    if low < 1:
        yield _wrong("spec.minReplicas", low, "must be greater than or equal to 1")
    if high < 1:
        yield Cause(
            "FieldValueRequired", "Required value: must be set and greater than 0", "spec.maxReplicas"
        )
    if high < low:
        yield _wrong("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`")


def _of_target(spec: Object) -> Iterator[Cause]:
    for name in ("kind", "name"):
        if not (spec.get("scaleTargetRef") or {}).get(name):
            yield Cause("FieldValueRequired", "Required value", f"spec.scaleTargetRef.{name}")


def _of_metrics(spec: Object) -> Iterator[Cause]:
    for at, metric in enumerate(spec["metrics"]):
        key = _SOURCES.get(metric.get("type", ""))
        if key is None:
            continue
        percent = ((metric.get(key) or {}).get("target") or {}).get("averageUtilization")
        if percent is not None and percent < 1:
            where = f"spec.metrics[{at}].{key}.target.averageUtilization"
            yield _wrong(where, percent, "must be greater than 0")
    if spec["minReplicas"] == 0 and all(metric.get("type") in _SOURCES for metric in spec["metrics"]):
        said = "must specify at least one Object or External metric to support scaling to zero replicas"
        yield Cause("FieldValueForbidden", f"Forbidden: {said}", "spec.metrics")


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
        said = "Required value: must specify at least one Policy"
        yield Cause("FieldValueRequired", said, f"{where}.policies")
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
