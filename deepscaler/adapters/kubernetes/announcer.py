"""Events on Deployments (events.k8s.io/v1): what `kubectl describe` and `kubectl events` show.

What happens again with the same words within `AGAIN_SECONDS` becomes a series of the first Event, and each
service has a budget of new Events, so that no fault can flood the API server.

Source: the limits of names and texts are those of the API server, a budget per object is what client-go has.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi
from deepscaler.artefacts import one_line
from deepscaler.cluster import Happening
from deepscaler.logs import OnChange
from deepscaler.scrubbing import scrubbed

_LOG = logging.getLogger(__name__)
CONTROLLER = "deepscaler.io/controller"
AGAIN_SECONDS = 600.0
"""What happens again within so long is counted in the first Event."""
SERIES_SECONDS = 60.0
"""The count of an Event is written no more often than this."""
BURST, REFILL_SECONDS = 10.0, 60.0
"""A service may have so many new Events at once, and another one after each so many seconds."""
_NOTE_BYTES, _WORD_BYTES, _NAME = 1024, 128, 230


@dataclass
class _Told:
    """An Event that was created."""

    name: str
    first: float
    written: float
    count: int = 1
    unwritten: int = 0


class Announcer:
    """Writes Events, and never fails: what goes wrong is logged once.

    Args:
        api: carries the requests.
        namespace: of the Deployments.
        clock: seconds since the epoch.
        instance: the name of this controller; by default that of its host.
    """

    def __init__(
        self, api: KubeApi, namespace: str, clock: Callable[[], float], instance: str | None = None
    ) -> None:
        self._api, self._namespace, self._clock = api, namespace, clock
        self._path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        self._instance = _cut(instance or socket.gethostname(), _WORD_BYTES)
        self._told: dict[Happening, _Told] = {}
        self._budgets: dict[str, tuple[float, float]] = {}  # service -> Events left, and when that was so
        self._dropped: dict[str, int] = {}
        self._created = 0
        self._on_change = OnChange(_LOG)

    def announce(self, happenings: Iterable[Happening], deployments: Mapping[str, tuple[str, str]]) -> None:
        """Write one Event per happening, or count it in an earlier one.

        Args:
            happenings: what happened in a tick.
            deployments: service -> name and uid of its Deployment; others are left out.
        """
        now = self._clock()
        self._told = {
            each: told for each, told in self._told.items() if 0 <= now - told.first < AGAIN_SECONDS
        }
        try:
            for each in happenings:
                if each.service in deployments:
                    self._tell(each, *deployments[each.service], now)
            self._on_change.well("Events")
        except ApiError as error:
            self._on_change.trouble("Events", f"Events can't be written: {error}")

    def _tell(self, happening: Happening, name: str, uid: str, now: float) -> None:
        told = self._told.get(happening)
        if told is None:
            if self._afford(happening.service, now):
                self._create(happening, name, uid, now)
            else:
                self._dropped[happening.service] = self._dropped.get(happening.service, 0) + 1
            return
        told.count, told.unwritten = told.count + 1, told.unwritten + 1
        if now - told.written >= SERIES_SECONDS:
            series = {"count": told.count, "lastObservedTime": _micro_time(now)}
            self._api.send("PATCH", f"{self._path}/{told.name}", {"series": series})
            told.written, told.unwritten = now, 0

    def _afford(self, service: str, now: float) -> bool:
        """Whether the service's budget has room for another Event, which is then taken from it."""
        left, since = self._budgets.get(service, (BURST, now))
        left = min(left + max(now - since, 0.0) / REFILL_SECONDS, BURST)
        self._budgets[service] = (left - (left >= 1.0), now)
        return left >= 1.0

    def _create(self, happening: Happening, name: str, uid: str, now: float) -> None:
        dropped = self._dropped.pop(happening.service, 0)
        more = f" ({dropped} others since the last Event aren't shown)" if dropped else ""
        event = f"{name[:_NAME].rstrip('-.')}.{round(now * 1e6):x}{self._created % 256:02x}"
        self._created += 1
        regarding = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": name,
            "namespace": self._namespace,
            "uid": uid,
        }
        body: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": event, "namespace": self._namespace},
            "regarding": regarding,
            "type": "Warning" if happening.warning else "Normal",
            "reason": _cut(happening.reason, _WORD_BYTES),
            "action": _cut(happening.action, _WORD_BYTES),
            "note": _cut(scrubbed(one_line(happening.note, _NOTE_BYTES)), _NOTE_BYTES - len(more)) + more,
            "eventTime": _micro_time(now),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
        }
        self._api.send("POST", self._path, body)
        self._told[happening] = _Told(event, now, now)


def _cut(text: str, most: int) -> str:
    """The text in at most so many bytes of UTF-8, which is what the API server counts."""
    return text.encode()[:most].decode(errors="ignore")


def _micro_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
