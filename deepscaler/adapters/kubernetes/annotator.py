"""The annotation `deepscaler.io/last-decision` on Deployments: what was decided last, why, by whom and when.

Nothing but this annotation is sent, so the pod template stays as it is and nothing is rolled out. It is
written once a minute per Deployment at most. Where somebody keeps taking it away it is given up.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterable, Mapping

from deepscaler.adapters.kubernetes.announcer import CONTROLLER
from deepscaler.adapters.kubernetes.api import ApiError, KubeApi
from deepscaler.adapters.kubernetes.replicas import FIELD_MANAGER, LAST_DECISION, Fence
from deepscaler.artefacts import one_line, utc_text
from deepscaler.cluster import Happening
from deepscaler.logs import OnChange
from deepscaler.scrubbing import scrubbed

_LOG = logging.getLogger(__name__)
EVERY_SECONDS = 60.0
"""A Deployment's annotation is written no more often than this."""
ROUNDS = 3
"""So often somebody may take it away or change it; then it isn't written any more."""
PAUSE_SECONDS = 600.0
"""So long nothing is tried again where the right is missing."""
_FORBIDDEN = 403
_LONGEST_WHY = 200


class Annotator:
    """Writes the annotation, and never fails: what goes wrong is logged once.

    Args:
        api: carries the requests.
        path: of the namespace's Deployments.
        clock: seconds since the epoch.
        instance: the name of this controller; by default that of its host.

    Attributes:
        fence: asked before each write for how long writing is still allowed; None: there is no limit.
    """

    def __init__(
        self, api: KubeApi, path: str, clock: Callable[[], float], instance: str | None = None
    ) -> None:
        self._api, self._path, self._clock = api, path, clock
        self._instance = instance or socket.gethostname()
        self._due: dict[str, Happening] = {}  # service -> what is to be written
        self._wrote: dict[str, tuple[float, str]] = {}  # Deployment -> when, and what should stand there
        self._undone: dict[str, int] = {}  # Deployment -> how often that was gone
        self._again = -float("inf")
        self._on_change = OnChange(_LOG)
        self.fence: Fence | None = None

    def observe(self, deployments: Mapping[str, Mapping[str, str]]) -> None:
        """Notice where the annotation isn't what was written.

        Args:
            deployments: name -> its annotations, as they were read.
        """
        for name, found in deployments.items():
            time, text = self._wrote.get(name, (0.0, ""))
            if not text or found.get(LAST_DECISION) == text:
                continue
            self._wrote[name] = (time, "")
            self._undone[name] = self._undone.get(name, 0) + 1
            if self._undone[name] == ROUNDS:
                _LOG.warning(
                    "%s: somebody took away or changed the annotation %s %d times (a GitOps tool?); it isn't "
                    "written there any more until this controller starts anew; let that tool ignore it",
                    name,
                    LAST_DECISION,
                    ROUNDS,
                )

    def annotate(self, happenings: Iterable[Happening], deployments: Mapping[str, tuple[str, str]]) -> None:
        """Write the newest happening of each service, as soon as its minute is over.

        Args:
            happenings: what happened in a tick; none, where only earlier ones may have become due.
            deployments: service -> name and uid of its Deployment; others are left out.
        """
        now = self._clock()
        self._due |= {each.service: each for each in happenings}
        if 0 < self._again - now <= PAUSE_SECONDS:
            return
        for service in list(self._due):
            name = deployments.get(service, ("", ""))[0]
            if not name or self._undone.get(name, 0) >= ROUNDS:
                self._due.pop(service)
            elif not 0 <= now - self._wrote.get(name, (-float("inf"), ""))[0] < EVERY_SECONDS:
                self._write(name, self._due.pop(service), now)

    def _write(self, name: str, happening: Happening, now: float) -> None:
        text = json.dumps(
            {
                "reason": happening.reason,
                **({} if happening.target is None else {"target": happening.target}),
                "why": scrubbed(one_line(happening.note, _LONGEST_WHY)),
                "source": CONTROLLER,
                "by": self._instance,
                "at": utc_text(now),
            },
            ensure_ascii=False,
        )
        left = None if self.fence is None else self.fence()
        if left is not None and left <= 0:
            return
        body = {"metadata": {"annotations": {LAST_DECISION: text}}}
        query = {"fieldManager": FIELD_MANAGER}
        try:
            self._api.send("PATCH", f"{self._path}/{name}", body, query=query, time_out=left)
        except ApiError as error:
            remedy = ""
            if error.status == _FORBIDDEN:
                self._again, remedy = now + PAUSE_SECONDS, "; add deploy/components/annotations"
            self._on_change.trouble("annotations", f"Deployments can't be annotated: {error}{remedy}")
        else:
            self._wrote[name] = (now, text)
            self._on_change.well("annotations", "Deployments can be annotated again")
