"""What the API server refuses of labels, keys, sizes, amounts and options.

Source: the public validation rules of Kubernetes, and differences that were seen beside a real v1.36 server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from testbed.kubernetes_api import quantities
from testbed.kubernetes_api.status import Cause, Object, Refused, bad_request, invalid

LARGEST_DATA = 1024 * 1024
LARGEST_OBJECT = 1536 * 1024
LONGEST_MANAGER = 128
POLICIES = ("Foreground", "Background", "Orphan")
_LABEL = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_LABEL_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
    f"for validation is '{_LABEL}')"
)
_NAME_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_KEY = r"[-._a-zA-Z0-9]+"
_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
    f"'KEY_NAME',  or 'key-name', regex used for validation is '{_KEY}')"
)
_LONG_LABEL = "must be no more than 63 bytes"
_WORKLOADS = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet")


def _wrong(field: str, value: Any, why: str) -> Cause:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Cause("FieldValueInvalid", f"Invalid value: {text}: {why}", field)


# ---------------------------------------------------------------------------------------------------- objects
def object_faults(obj: Object) -> list[Cause]:
    """What is wrong with the labels, keys, sizes and amounts of an object."""
    found = list(_labels(obj["metadata"].get("labels") or {}, "metadata.labels"))
    kind, spec = obj["kind"], obj.get("spec") or {}
    if kind in _WORKLOADS:
        template = spec.get("template") or {}
        labels = (template.get("metadata") or {}).get("labels") or {}
        found += _labels(labels, "spec.template.labels")
        found += _pod(template.get("spec") or {}, "spec.template.spec")
    elif kind == "Pod":
        found += _pod(spec, "spec")
    elif kind in ("ConfigMap", "Secret"):
        found += _data(obj)
    return found


def _labels(labels: Mapping[str, str], field: str) -> Iterator[Cause]:
    for key, value in labels.items():
        name = key.rpartition("/")[2]
        if not name or not re.fullmatch(_LABEL, name):
            yield _wrong(field, key, _NAME_RULE)
        if len(value.encode()) > 63:
            yield _wrong(field, value, _LONG_LABEL)
        if not re.fullmatch(_LABEL, value):
            yield _wrong(field, value, _LABEL_RULE)


def _data(obj: Object) -> Iterator[Cause]:
    size = 0
    for field in ("data", "binaryData", "stringData"):
        for key, value in (obj.get(field) or {}).items():
            size += len(str(value).encode())
            if not re.fullmatch(_KEY, key) or len(key) > 253:
                yield _wrong(f"{field}[{key}]", key, _KEY_RULE)
    if size > LARGEST_DATA:
        where = "data" if obj["kind"] == "Secret" else "[]"
        yield Cause("FieldValueTooLong", f"Too long: may not be more than {LARGEST_DATA} bytes", where)


def _pod(spec: Object, field: str) -> Iterator[Cause]:
    for kind in ("initContainers", "containers"):
        for at, container in enumerate(spec.get(kind) or ()):
            yield from _amounts(container.get("resources") or {}, f"{field}.{kind}[{at}].resources")


def _amounts(stated: Object, field: str) -> Iterator[Cause]:
    limits, requests = stated.get("limits") or {}, stated.get("requests") or {}
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for name, text in amounts.items():
            if quantities.value(text) < 0:
                yield _wrong(f"{field}.{kind}[{name}]", text, "must be greater than or equal to 0")
    for name, text in requests.items():
        if name in limits and quantities.value(text) > quantities.value(limits[name]):
            yield _wrong(
                f"{field}.requests", text, f"must be less than or equal to {name} limit of {limits[name]}"
            )


def require_quantities(value: Any, kind: str, version: str) -> None:
    """Return if all amounts of resources in an object are quantities.

    Raises:
        Refused: 400 if one isn't: the API server can't decode it.
    """
    for amounts in _resources(value):
        for text in amounts.values():
            try:
                quantities.value(text)
            except ValueError as error:
                said = f'{kind} in version "{version}" cannot be handled as a {kind}: {error}'
                raise bad_request(said) from None


def _resources(value: Any) -> Iterator[Object]:
    """Every map of amounts in an object."""
    if isinstance(value, list):
        for each in value:
            yield from _resources(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key == "resources" and isinstance(each, dict):
                yield from (each[name] for name in ("limits", "requests") if isinstance(each.get(name), dict))
            elif key == "hard" and isinstance(each, dict):
                yield each
            else:
                yield from _resources(each)


def require_size(obj: Object) -> None:
    """Return if an object fits into the store behind the API server.

    Raises:
        Refused: 500 if it doesn't.
    """
    if len(json.dumps(obj)) > LARGEST_OBJECT:
        raise Refused(500, None, "etcdserver: request is too large")


# ---------------------------------------------------------------------------------------------------- options
def require_options(kind: str, options: Mapping[str, Any]) -> None:
    """Return if the options of a write are ones that the API server knows.

    Args:
        kind: of the options, as in `CreateOptions`.
        options: `dryRun` (one word or a list of them), `fieldManager`, `propagationPolicy`.

    Raises:
        Refused: 422 if they aren't.
    """
    found = []
    given = options.get("dryRun") or ()
    for word in [given] if isinstance(given, str) else given:
        if word != "All":
            found.append(_unsupported("dryRun", word, ("All",)))
    if len(str(options.get("fieldManager") or "").encode()) > LONGEST_MANAGER:
        said = f"Too long: may not be more than {LONGEST_MANAGER} bytes"
        found.append(Cause("FieldValueTooLong", said, "fieldManager"))
    policy = options.get("propagationPolicy")
    if policy and policy not in POLICIES:
        found.append(_unsupported("propagationPolicy", policy, (*POLICIES, "nil")))
    if found:
        raise invalid(kind, "meta.k8s.io", "", found)


def _unsupported(field: str, value: Any, known: tuple[str, ...]) -> Cause:
    names = ", ".join(json.dumps(name) for name in known)
    said = f"Unsupported value: {json.dumps(value)}: supported values: {names}"
    return Cause("FieldValueNotSupported", said, field)
