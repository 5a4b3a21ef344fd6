"""What the API server refuses of Events; those of events.k8s.io/v1 have stricter rules than the old ones.

Source: the public validation rules of Kubernetes (legacyValidateEvent, ValidateEventCreate,
ValidateEventUpdate). Objects are in the version that is kept, core/v1; messages name the fields as that
version has them, which is what a real server does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from testbed.kubernetes_api.status import Cause, Object

LONGEST_WORD, LONGEST_NOTE = 128, 1024
_QUALIFIED = r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_IMMUTABLE = ("involvedObject", "reason", "message", "type", "action", "related", "eventTime")
_UNSET = ("firstTimestamp", "lastTimestamp", "count")


def event_faults(obj: Object, old: Object | None, new_api: bool) -> list[Cause]:
    """What is wrong with an Event.

    Args:
        obj: the Event that is to be kept.
        old: the one in whose place it comes; None: it is new.
        new_api: whether it was sent to events.k8s.io/v1.
    """
    found = list(_of_place(obj))
    if obj.get("eventTime"):
        found += _of_words(obj, "reportingController" if new_api else "reportingComponent")
    if new_api:
        found += _of_series(obj)
        found += _of_creation(obj) if old is None else _of_update(obj, old)
    return found


def _wrong(field: str, value: object, why: str) -> Cause:
    return Cause("FieldValueInvalid", f'Invalid value: "{value}": {why}', field)


def _missing(field: str) -> Cause:
    return Cause("FieldValueRequired", "Required value", field)


def _of_place(obj: Object) -> Iterator[Cause]:
    """An Event lies in the namespace of what it is about."""
    namespace, place = (obj.get("involvedObject") or {}).get("namespace", ""), obj["metadata"]["namespace"]
    usual = ("default", "kube-system") if obj.get("eventTime") else ("default",)
    if namespace != place and (namespace or place not in usual):
        yield _wrong("involvedObject.namespace", namespace, "does not match event.namespace")


def _of_words(obj: Object, controller_field: str) -> Iterator[Cause]:
    controller = obj.get("reportingComponent") or ""
    if not controller:
        yield _missing(controller_field)
    elif not re.fullmatch(_QUALIFIED, controller) or len(controller.rpartition("/")[2]) > 63:
        yield _wrong(controller_field, controller, "must be a qualified name")
    for name in ("reportingInstance", "action", "reason"):
        text = obj.get(name) or ""
        if not text:
            yield _missing(name)
        if len(text.encode()) > LONGEST_WORD:
            yield _wrong(name, "", f"can have at most {LONGEST_WORD} characters")
    if len((obj.get("message") or "").encode()) > LONGEST_NOTE:
        yield _wrong("message", "", f"can have at most {LONGEST_NOTE} characters")


def _of_series(obj: Object) -> Iterator[Cause]:
    series = obj.get("series")
    if isinstance(series, dict):
        if series.get("count", 0) < 2:
            yield _wrong("series.count", "", "should be at least 2")
        if not series.get("lastObservedTime"):
            yield _missing("series.lastObservedTime")


def _of_creation(obj: Object) -> Iterator[Cause]:
    if not obj.get("eventTime"):
        yield _missing("eventTime")
    if obj.get("type") not in ("Normal", "Warning"):
        yield _wrong("type", "", f"has invalid value: {obj.get('type') or ''}")
    for name in _UNSET:
        if obj.get(name):
            yield _wrong(name, "", "needs to be unset")
    if any((obj.get("source") or {}).values()):
        yield _wrong("source", "", "needs to be unset")


def _of_update(obj: Object, old: Object) -> Iterator[Cause]:
    """Only the series and the metadata of an Event may change."""
    for name in _IMMUTABLE:
        if obj.get(name) != old.get(name):
            yield _wrong(name, "", "field is immutable")
