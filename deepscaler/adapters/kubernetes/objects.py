"""What the JSON of Kubernetes objects says: amounts, times, selectors, containers, readiness, start-up."""

from __future__ import annotations

import logging
import re
import statistics
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import datetime
from typing import Literal

from deepscaler.adapters.kubernetes.api import ApiError, Object
from deepscaler.quantities import parse_quantity

_LOG = logging.getLogger(__name__)
Kind = Literal["limits", "requests"]
"""The two amounts that a container states of each resource."""
Amounts = Mapping[Kind, float | None]
"""Limit and request of one resource; None where none is stated."""
Usage = tuple[float, float, float]
"""What a pod uses: cores, the time of the sample, and over how many seconds before it the mean was taken."""
_LONGEST_SPAN = 2.0**63 * 1e-9
"""Seconds: Go counts nanoseconds in an int64."""


# ----------------------------------------------------------------------------------------------------- values
def quantity(text: str | float | None) -> float | None:
    """A Kubernetes quantity (`250m`, `1.5`, `64Mi`, `2e3`) as a number; None for None.

    Raises:
        ApiError: the text is no quantity.
    """
    try:
        return None if text is None else float(parse_quantity(str(text).strip()))
    except ValueError as error:
        raise ApiError(str(error)) from error


def seconds_since_epoch(text: str | None) -> float | None:
    """A Kubernetes time (RFC 3339) as seconds since the epoch; None for None and for what is no time."""
    try:
        return None if text is None else datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):  # the last two: a time that the platform can't count to
        return None


def span_seconds(text: str) -> float:
    """Seconds of a Go duration such as `15s`, `1m30.5s` or `20.1ms`; 0 for what is none.

    Raises:
        ValueError: longer than Go can state.
    """
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
    found = re.findall(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|us|µs|ns|s)", text)
    seconds = sum(float(number) * units[unit] for number, unit in found)
    if seconds > _LONGEST_SPAN:
        raise ValueError(f"{text[:40]!r} is too long a span")
    return seconds


# ---------------------------------------------------------------------------------------------------- objects
def name_of(item: Object) -> str:
    """`metadata.name`."""
    return str(item["metadata"]["name"])


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (`matchLabels`, `matchExpressions`) selects these labels.

    An empty selector selects nothing here, whereas in Kubernetes it selects every pod of the namespace.
    """
    plain, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    if not plain and not expressions:
        return False
    tests: dict[str, Callable[[str, Sequence[str]], bool]] = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, _: key in labels,
        "DoesNotExist": lambda key, _: key not in labels,
    }
    return all(labels.get(key) == value for key, value in plain.items()) and all(
        tests[item["operator"]](item["key"], item.get("values") or ()) for item in expressions
    )


def own_container(pod_spec: Object, name: str) -> Object:
    """The container called `name`; if there is none, the first, which is often the only one."""
    containers: Sequence[Object] = pod_spec.get("containers") or ({},)
    return next((item for item in containers if item.get("name") == name), containers[0])


def amounts(container: Object, resource: str) -> Amounts:
    """Limit and request of one resource (`cpu`, `memory`) of a container.

    A limit without a request is the request too, as the API server has it.
    """
    stated = container.get("resources") or {}
    limits, requests = stated.get("limits") or {}, stated.get("requests") or {}
    limit, request = quantity(limits.get(resource)), quantity(requests.get(resource))
    return {"limits": limit, "requests": limit if request is None else request}


def actual_amounts(pod: Object, name: str, resource: str) -> Amounts:
    """Limit and request of one resource that the pod's container has now, after a resize in place as well."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    container = own_container(pod["spec"], name)
    for status in statuses:
        if status.get("name") == container.get("name") and status.get("resources"):
            return amounts(status, resource)
    return amounts(container, resource)


def manager_of_replicas(item: Object) -> str:
    """The field manager that set `spec.replicas` last, as `managedFields` has it; "" if none did.

    Nothing depends on it but a name in messages, so entries that can't be read are passed over.
    """
    entries = item["metadata"].get("managedFields")
    owners = [("", "")]
    for entry in entries if isinstance(entries, list) else ():
        fields = entry.get("fieldsV1") if isinstance(entry, dict) else None
        spec = fields.get("f:spec") if isinstance(fields, dict) else None
        if isinstance(spec, dict) and "f:replicas" in spec:
            owners.append((str(entry.get("time")), str(entry.get("manager"))))
    return max(owners)[1]


def ready_condition(status: Object) -> tuple[bool | None, float | None]:
    """The Ready condition of a pod's status and when it changed last; None, None where there is none."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready":
            return condition.get("status") == "True", seconds_since_epoch(condition.get("lastTransitionTime"))
    return None, None


def usage_of(item: Object, containers: Container[str]) -> Usage | None:
    """What these containers of a pod use together, from its PodMetrics; None where that isn't known."""
    time = seconds_since_epoch(item.get("timestamp"))
    cores = [
        quantity((container.get("usage") or {}).get("cpu"))
        for container in item.get("containers") or ()
        if container.get("name") in containers
    ]
    known = [value for value in cores if value is not None]
    if not known or time is None:
        return None
    return sum(known), time, span_seconds(str(item.get("window", "")))


class BootTimes:
    """How many seconds pods take from their creation to Ready: the median of the newest pods of each service.

    Each pod counts once, by the first transition that was seen, and only if its containers never restarted:
    later transitions tell of trouble, not of start-up. A pod that was ready as soon as it was created didn't
    start here (it was adopted or is emulated), so it doesn't count. Nor does one that took longer than the
    limit: what is seen of a pod that is met ready is its last transition, which may be days after its start.

    Args:
        limit: seconds above which a start-up is implausible. It is warned of once per service, by name.
        keep: how many pods per service are remembered.
    """

    def __init__(self, limit: float, keep: int = 50) -> None:
        self._limit, self._keep = limit, keep
        self._known: set[str] = set()
        self._seconds: dict[str, deque[float]] = {}
        self._warned: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._seconds)

    def observe(self, service: str, pod: Object) -> None:
        """Learn from a pod; nothing unless it is ready."""
        meta, status = pod["metadata"], pod.get("status") or {}
        uid = str(meta.get("uid"))
        if uid in self._known or meta.get("deletionTimestamp"):
            return
        created = seconds_since_epoch(meta.get("creationTimestamp"))
        ready, since = ready_condition(status)
        if not ready or since is None or created is None:
            return
        self._known.add(uid)
        if not any(int(item.get("restartCount") or 0) for item in status.get("containerStatuses") or ()):
            self.add(service, name_of(pod), since - created)

    def add(self, service: str, pod: str, seconds: float) -> None:
        """Count the start-up of one pod, unless it is implausible."""
        if 0 < seconds <= self._limit:
            self._seconds.setdefault(service, deque(maxlen=self._keep)).append(seconds)
        elif seconds > self._limit and service not in self._warned:
            self._warned.add(service)
            _LOG.warning(
                "%s: pod %s became ready %g s after its creation, which is no start-up: it isn't counted, "
                "nor are others above process.boot_limit (%g s); process.boot_seconds.%s stands in "
                "where no other pod tells",
                service,
                pod,
                seconds,
                self._limit,
                service,
            )

    def forget(self, present: set[str]) -> None:
        """Keep only the uids of pods that are still there; the others needn't be recognised again."""
        self._known &= present

    def seconds(self, service: str) -> float | None:
        """The median of a service; None until one of its pods has been seen ready."""
        values = self._seconds.get(service)
        return statistics.median(values) if values else None
