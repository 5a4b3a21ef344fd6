"""Just enough protobuf to read what `kubectl create namespace`, `autoscale` and `auth can-i` send.

kubectl sends objects whose types it was built with in this form, and it accepts answers in JSON. A body
begins with `k8s` and a zero byte. A message `Unknown` follows, which names the kind and holds the object.

Source: the field numbers of the public API definitions.
Differs: only these kinds are read. Anything else is refused with 415.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from testbed.kubernetes_api.status import Object

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_META = {1: "name", 2: "generateName", 3: "namespace", 11: "labels{}", 12: "annotations{}"}
_TARGET = {1: "kind", 2: "name", 3: "apiVersion"}
_ASKED = {1: "namespace", 2: "verb", 3: "group", 4: "version", 5: "resource", 6: "subresource", 7: "name"}
_AUTOSCALER = {
    1: ("scaleTargetRef", _TARGET),
    2: "minReplicas#",
    3: "maxReplicas#",
    4: "targetCPUUtilizationPercentage#",
}
_KINDS: Mapping[tuple[str, str], Mapping[int, Any]] = {
    ("v1", "Namespace"): {1: ("metadata", _META)},
    ("autoscaling/v1", "HorizontalPodAutoscaler"): {1: ("metadata", _META), 2: ("spec", _AUTOSCALER)},
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): {
        2: ("spec", {1: ("resourceAttributes", _ASKED)})
    },
}


def decode(body: bytes) -> Object | None:
    """The object that a body holds; None if it is of a kind that isn't read.

    Raises:
        ValueError: the body is broken.
    """
    if not body.startswith(_MAGIC):
        raise ValueError("no Kubernetes protobuf")
    outer = dict(_fields(body[len(_MAGIC) :]))
    named = dict(_fields(_bytes(outer.get(1, b""))))
    api_version, kind = (_bytes(named.get(number, b"")).decode() for number in (1, 2))
    known = _KINDS.get((api_version, kind))
    if known is None:
        return None
    return {"apiVersion": api_version, "kind": kind, **_message(_bytes(outer.get(2, b"")), known)}


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a text is expected")
    return value


def _message(data: bytes, known: Mapping[int, Any]) -> Object:
    found: Object = {}
    for number, value in _fields(data):
        what = known.get(number)
        if isinstance(what, tuple):
            found[what[0]] = _message(_bytes(value), what[1])
        elif isinstance(what, str) and what.endswith("{}"):
            entry = dict(_fields(_bytes(value)))
            found.setdefault(what[:-2], {})[_bytes(entry.get(1, b"")).decode()] = _bytes(
                entry.get(2, b"")
            ).decode()
        elif isinstance(what, str) and what.endswith("#"):
            found[what[:-1]] = value
        elif isinstance(what, str) and value:
            found[what] = _bytes(value).decode()
    return found


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and the value of each field of a message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > len(data):
            raise ValueError("a field is cut off")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number is cut off")
