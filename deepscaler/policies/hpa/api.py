"""HorizontalPodAutoscaler documents (autoscaling/v2): defaults, validation, and the `HpaSpec` they mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from deepscaler.errors import SettingsError
from deepscaler.policies.hpa.spec import Behavior, Flags, HpaSpec, Metric, RatePolicy, ScalingRules
from deepscaler.quantities import canonical_quantity, parse_quantity

Document = Mapping[str, Any]

_DEFAULT_METRIC = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}
_ALL_IN_15_SECONDS = {"type": "Percent", "value": 100, "periodSeconds": 15}
_DEFAULT_UP = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, _ALL_IN_15_SECONDS],
}
_DEFAULT_DOWN = {"selectPolicy": "Max", "policies": [_ALL_IN_15_SECONDS]}
_KEYS = {
    "spec": ("minReplicas", "maxReplicas", "metrics", "behavior"),
    "behavior": ("scaleUp", "scaleDown"),
    "rules": ("stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance"),
    "policy": ("type", "value", "periodSeconds"),
    "metric": ("type", "resource", "containerResource", "pods", "object", "external"),
    "source": ("name", "container", "target"),
    "target": ("type", "averageUtilization", "averageValue", "value"),
    "custom": ("metric", "describedObject", "target"),
}
_SOURCES = {"Resource": "resource", "ContainerResource": "containerResource"}
_CUSTOM = {"Pods": "pods", "Object": "object", "External": "external"}
"""Metrics that only an adapter serves. None does here, so nothing but their name is read."""


def with_defaults(document: Document) -> dict[str, Any]:
    """A spec as the API server stores it: unset fields are filled, and quantities are canonical.

    A list of policies that is given replaces the whole default list.

    Args:
        document: `spec` of an autoscaling/v2 HorizontalPodAutoscaler, without scaleTargetRef.

    Raises:
        SettingsError: an unknown key, a wrong type or not a quantity.

    Source: SetDefaults_HorizontalPodAutoscaler, SetDefaults_HorizontalPodAutoscalerBehavior.
    """
    spec = _fields(document, "spec", "spec")
    spec.setdefault("minReplicas", 1)
    spec.setdefault("maxReplicas", 0)
    _integers(spec, "spec", "minReplicas", "maxReplicas")
    metrics = spec.get("metrics") or [_DEFAULT_METRIC]
    spec["metrics"] = [
        _metric(entry, f"spec.metrics[{index}]") for index, entry in enumerate(_list(metrics, "spec.metrics"))
    ]
    if "behavior" in spec:
        behavior = _fields(spec["behavior"], "behavior", "spec.behavior")
        spec["behavior"] = {
            name: _rules(behavior.get(name, {}), defaults, f"spec.behavior.{name}")
            for name, defaults in (("scaleUp", _DEFAULT_UP), ("scaleDown", _DEFAULT_DOWN))
        }
    return spec


def _fields(value: Any, kind: str, where: str) -> dict[str, Any]:
    """A copy of a mapping without nulls, its keys checked."""
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where}: expected a mapping with {', '.join(_KEYS[kind])}, found {value!r}")
    for key in value:
        if key not in _KEYS[kind]:
            raise SettingsError(f"{where}.{key}: unknown key; allowed here: {', '.join(_KEYS[kind])}")
    return {key: entry for key, entry in value.items() if entry is not None}


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise SettingsError(f"{where}: expected a list, found {value!r}")
    return value


def _integers(fields: dict[str, Any], where: str, *names: str) -> None:
    for name in names:
        value = fields.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int):
            raise SettingsError(f"{where}.{name}: expected a whole number, found {value!r}")


def _quantity(fields: dict[str, Any], where: str, name: str) -> None:
    if name in fields:
        try:
            fields[name] = canonical_quantity(fields[name])
        except ValueError as error:
            raise SettingsError(f"{where}.{name}: {error}") from error


def _metric(value: Any, where: str) -> dict[str, Any]:
    metric = _fields(value, "metric", where)
    kind = metric.get("type")
    if kind in _CUSTOM:
        custom = _fields(metric.get(_CUSTOM[kind]), "custom", f"{where}.{_CUSTOM[kind]}")
        return {"type": kind, _CUSTOM[kind]: custom}
    if kind not in _SOURCES:
        raise SettingsError(
            f"{where}.type: this autoscaler knows {', '.join((*_SOURCES, *_CUSTOM))}; found {kind!r}"
        )
    key = _SOURCES[kind]
    source = _fields(metric.get(key), "source", f"{where}.{key}")
    target = _fields(source.get("target"), "target", f"{where}.{key}.target")
    _integers(target, f"{where}.{key}.target", "averageUtilization")
    _quantity(target, f"{where}.{key}.target", "averageValue")
    return {**metric, key: {**source, "target": target}}


def _rules(value: Any, defaults: Document, where: str) -> dict[str, Any]:
    rules = {**defaults, **_fields(value, "rules", where)}
    _integers(rules, where, "stabilizationWindowSeconds")
    _quantity(rules, where, "tolerance")
    policies = [
        _fields(entry, "policy", f"{where}.policies[{i}]")
        for i, entry in enumerate(_list(rules["policies"], f"{where}.policies"))
    ]
    for index, policy in enumerate(policies):
        _integers(policy, f"{where}.policies[{index}]", "value", "periodSeconds")
    return {**rules, "policies": policies}


def problems(spec: Document) -> list[str]:
    """What the API server has against a spec that `with_defaults` returned, in its words; empty if nothing.

    Pods, Object and External metrics aren't judged.

    Source: pkg/apis/autoscaling/validation, validateHorizontalPodAutoscalerSpec.
    """
    found = []
    low, high = spec["minReplicas"], spec["maxReplicas"]
    if low < 1:
        found.append(f"spec.minReplicas: Invalid value: {low}: must be greater than or equal to 1")
    if high < 1:
        found.append("spec.maxReplicas: Required value: must be set and greater than 0")
    if high < low:
        found.append(
            f"spec.maxReplicas: Invalid value: {high}: must be greater than or equal to `minReplicas`"
        )
    for index, metric in enumerate(spec["metrics"]):
        key = _SOURCES.get(metric["type"])
        if key is not None:
            found += _source_problems(
                metric[key], f"spec.metrics[{index}].{key}", needs_container=key == "containerResource"
            )
    if low == 0 and not {"Object", "External"} & {metric["type"] for metric in spec["metrics"]}:
        found.append(
            "spec.metrics: Forbidden: must specify at least one Object or External metric "
            "to support scaling to zero replicas"
        )
    for name, rules in spec.get("behavior", {}).items():
        found += _rules_problems(rules, f"spec.behavior.{name}")
    return found


def _source_problems(source: Document, where: str, needs_container: bool) -> list[str]:
    found = []
    if not source.get("name"):
        found.append(f"{where}.name: Required value: must specify a resource name")
    if needs_container and not source.get("container"):
        found.append(f"{where}.container: Required value: must specify a container")
    return found + _target_problems(source["target"], f"{where}.target")


def _target_problems(target: Document, where: str) -> list[str]:
    found = []
    kind, utilization, average = (
        target.get("type", ""),
        target.get("averageUtilization"),
        target.get("averageValue"),
    )
    if not kind:
        found.append(f"{where}.type: Required value: must specify a metric target type")
    if kind not in ("Utilization", "Value", "AverageValue"):
        found.append(
            f'{where}.type: Invalid value: "{kind}": must be either Utilization, Value, or AverageValue'
        )
    if average is not None and parse_quantity(average) <= 0:
        found.append(f'{where}.averageValue: Invalid value: "{average}": must be positive')
    if utilization is not None and utilization < 1:
        found.append(f"{where}.averageUtilization: Invalid value: {utilization}: must be greater than 0")
    if utilization is None and average is None:
        needed = "must set either a target raw value or a target utilization"
        found.append(f"{where}.averageUtilization: Required value: {needed}")
    if utilization is not None and average is not None:
        both = "may not set both a target raw value and a target utilization"
        found.append(f"{where}.averageValue: Forbidden: {both}")
    return found


def _rules_problems(rules: Document, where: str) -> list[str]:
    found = []
    window, select = rules.get("stabilizationWindowSeconds", 0), rules["selectPolicy"]
    invalid = f"{where}.stabilizationWindowSeconds: Invalid value: {window}"
    if window < 0:
        found.append(f"{invalid}: must be greater than or equal to zero")
    if window > 3600:
        found.append(f"{invalid}: must be less than or equal to 3600")
    if select not in ("Disabled", "Max", "Min"):
        found.append(
            f'{where}.selectPolicy: Unsupported value: "{select}": supported values: "Disabled", "Max", "Min"'
        )
    if not rules["policies"]:
        found.append(f"{where}.policies: Required value: must specify at least one Policy")
    for index, policy in enumerate(rules["policies"]):
        found += _policy_problems(policy, f"{where}.policies[{index}]")
    if "tolerance" in rules and parse_quantity(rules["tolerance"]) < 0:
        found.append(
            f'{where}.tolerance: Invalid value: "{rules["tolerance"]}": must be greater than or equal to 0'
        )
    return found


def _policy_problems(policy: Document, where: str) -> list[str]:
    found = []
    kind, value, period = policy.get("type", ""), policy.get("value", 0), policy.get("periodSeconds", 0)
    if kind not in ("Percent", "Pods"):
        found.append(f'{where}.type: Unsupported value: "{kind}": supported values: "Percent", "Pods"')
    if value <= 0:
        found.append(f"{where}.value: Invalid value: {value}: must be greater than zero")
    if period <= 0:
        found.append(f"{where}.periodSeconds: Invalid value: {period}: must be greater than zero")
    if period > 1800:
        found.append(f"{where}.periodSeconds: Invalid value: {period}: must be less than or equal to 1800")
    return found


def parse_spec(document: Document, flags: Flags | None = None) -> HpaSpec:
    """A spec from its document, with defaults, under these flags (by default Kubernetes').

    Raises:
        SettingsError: the API server would refuse it.
    """
    spec = with_defaults(document)
    found = problems(spec)
    if found:
        raise SettingsError("; ".join(found))
    behavior = spec.get("behavior")
    return HpaSpec(
        min_replicas=spec["minReplicas"],
        max_replicas=spec["maxReplicas"],
        metrics=tuple(_parse_metric(metric) for metric in spec["metrics"]),
        behavior=behavior
        and Behavior(_parse_rules(behavior["scaleUp"]), _parse_rules(behavior["scaleDown"])),
        flags=flags or Flags(),
    )


def _parse_metric(metric: Document) -> Metric:
    kind = metric["type"]
    if kind in _CUSTOM:
        return Metric((metric[_CUSTOM[kind]].get("metric") or {}).get("name", ""), custom=kind)
    source = metric[_SOURCES[kind]]
    average = source["target"].get("averageValue")
    milli = None if average is None else math.ceil(parse_quantity(average) * 1000)
    return Metric(source["name"], source["target"].get("averageUtilization"), milli, source.get("container"))


def _parse_rules(rules: Document) -> ScalingRules:
    tolerance = rules.get("tolerance")
    return ScalingRules(
        window_seconds=rules.get("stabilizationWindowSeconds"),
        select=rules["selectPolicy"],
        policies=tuple(
            RatePolicy(policy["type"], policy["value"], policy["periodSeconds"])
            for policy in rules["policies"]
        ),
        tolerance=None if tolerance is None else float(parse_quantity(tolerance)),
    )
