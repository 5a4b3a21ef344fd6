"""HorizontalPodAutoscalers: what they are set to is read, and their minimum is raised and given back.

A raised minimum is written together with the annotation `deepscaler.io/advice`, which says what the minimum
was and until when the raise stands. So whoever comes next, after a crash too, can give it back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi, Object
from deepscaler.adapters.kubernetes.checked import HpaObject, check
from deepscaler.adapters.kubernetes.objects import name_of
from deepscaler.adapters.kubernetes.replicas import FIELD_MANAGER, Fence
from deepscaler.artefacts import one_line, parse_json, utc_seconds, utc_text
from deepscaler.cluster import Advice, Autoscaler, Condition

ADVICE = "deepscaler.io/advice"
"""The annotation, a JSON object: `minReplicas` as the owner set it, `raisedTo`, `until`, `by`."""
_TRIES = 5
_CONFLICT = 409


def autoscaler_of(item: Object) -> Autoscaler:
    """What a HorizontalPodAutoscaler says; it has been checked as an `HpaObject`."""
    meta, spec, unsound, advice = item["metadata"], item["spec"], "", None
    text = (meta.get("annotations") or {}).get(ADVICE)
    if text is not None:
        try:
            advice = _read(text)
        except (ValueError, KeyError, TypeError) as error:
            unsound = f"annotation {ADVICE}: {one_line(repr(text), 80)} can't be read ({one_line(error, 80)})"
    minimum = spec.get("minReplicas")
    return Autoscaler(
        name=name_of(item),
        minimum=1 if minimum is None else minimum,
        maximum=int(spec["maxReplicas"]),
        advice=advice,
        owner=_controller(meta),
        conditions=_conditions(item.get("status") or {}),
        unsound=unsound,
    )


def _controller(meta: Mapping[str, Any]) -> str:
    for owner in meta.get("ownerReferences") or ():
        if owner.get("controller"):
            return f"{owner.get('kind')}/{owner.get('name')}"
    return ""


def _conditions(status: Mapping[str, Any]) -> tuple[Condition, ...]:
    found = status.get("conditions") or ()
    return tuple(
        Condition(*(str(each.get(key) or "") for key in ("type", "status", "reason", "message")))
        for each in found
    )


def _read(text: str) -> Advice:
    """The advice that an annotation states.

    Raises:
        ValueError: a value is of another type or out of range.
        KeyError: one is missing.
    """
    given = parse_json(text)
    minimum, raised = given["minReplicas"], given["raisedTo"]
    for value in (minimum, raised):
        if type(value) is not int or not 0 <= value < 2**31:
            raise ValueError(f"{value!r} is no number of replicas")
    return Advice(minimum, raised, utc_seconds(str(given["until"])), str(given.get("by", "")))


def _written(advice: Advice) -> str:
    return json.dumps(
        {
            "minReplicas": advice.minimum,
            "raisedTo": advice.raised,
            "until": utc_text(advice.until),
            "by": advice.holder,
        }
    )


class MinimumWriter:
    """Writes the minimums of HorizontalPodAutoscalers that are still as they were when that was decided.

    Args:
        api: carries the requests.
        path: of the namespace's HorizontalPodAutoscalers.

    Attributes:
        fence: asked before each write for how long writing is still allowed; None: there is no limit.
    """

    def __init__(self, api: KubeApi, path: str) -> None:
        self._api, self._path = api, path
        self._read_before: dict[str, Object] = {}
        self.fence: Fence | None = None

    def remember(self, items: Mapping[str, Object]) -> None:
        """The autoscalers by name, as they are now: the next writes are based on them."""
        self._read_before = dict(items)

    def write(self, name: str, advice: Advice | None) -> int:
        """Raise the minimum of an autoscaler, or give it back (None); returns the minimum that it has then.

        What its owner has set meanwhile stands: then only the annotation is taken away.

        Raises:
            ApiError: somebody changed it since it was read, a refusal, or no answer.
        """
        item = self._read_before.pop(name, None) or self._get(name)
        for _ in range(_TRIES):
            try:
                return self._patch(item, advice)
            except ApiError as error:
                if error.status != _CONFLICT:
                    raise
                item = self._unless_edited(item, error)
        raise ApiError(
            f"conflict: its status changed {_TRIES} times while it was being written; "
            "the next tick tries again",
            _CONFLICT,
        )

    def _patch(self, item: Object, advice: Advice | None) -> int:
        meta, now = item["metadata"], autoscaler_of(item)
        if advice is not None:
            minimum = advice.raised
            if minimum > now.maximum:
                raise ApiError(f"not raised to {minimum}: its maxReplicas is {now.maximum}")
        elif now.advice is not None and now.advice.raised == now.minimum:
            minimum = min(now.advice.minimum, now.maximum)
        else:
            minimum = now.minimum
        left = None if self.fence is None else self.fence()
        if left is not None and left <= 0:
            raise ApiError("not written: this controller no longer leads")
        body = {
            "metadata": {
                "resourceVersion": meta.get("resourceVersion"),
                "annotations": {ADVICE: None if advice is None else _written(advice)},
            },
            "spec": {"minReplicas": minimum},
        }
        answer = self._api.send(
            "PATCH",
            f"{self._path}/{meta['name']}",
            body,
            query={"fieldManager": FIELD_MANAGER},
            time_out=left,
        )
        got = check(HpaObject, answer, "HorizontalPodAutoscaler")["spec"].get("minReplicas")
        if got != minimum:
            raise ApiError(
                f"asked for a minimum of {minimum}, but the API server set {got}; "
                "is a webhook or a policy acting on it?"
            )
        return minimum

    def _unless_edited(self, before: Object, conflict: ApiError) -> Object:
        """The autoscaler as it is now, if at most its status has changed."""
        now = self._get(before["metadata"]["name"])
        if _wish(now) != _wish(before):
            raise ApiError(
                "conflict: somebody changed it since it was read; their change stands until the next tick",
                _CONFLICT,
            ) from conflict
        return now

    def _get(self, name: str) -> Object:
        return check(HpaObject, self._api.get(f"{self._path}/{name}"), "HorizontalPodAutoscaler")


def _wish(item: Object) -> tuple[Any, ...]:
    return item["spec"], item["metadata"].get("annotations"), item["metadata"].get("uid")
