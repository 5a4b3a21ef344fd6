"""The page to watch a live testbed: what the application does, and what a controller of it decides."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import requests

from deepscaler.artefacts import parse_json
from deepscaler.control.http_port import PLAIN, Answer
from deepscaler.control.past import APPLIED, READY, SHOWN_SECONDS, Moment
from deepscaler.control.story import Story, application, row_of
from deepscaler.control.watch import entry_services, scaled_services
from deepscaler.control.watching import Page
from deepscaler.logs import OnChange
from deepscaler.settings import App
from testbed.engine import kernel as core
from testbed.engine.program import Program
from testbed.engine.simulator import Snapshot
from testbed.live.wall_clock import WallClock

LOG = logging.getLogger(__name__)
SAMPLE_SECONDS = 5.0
ASK_SECONDS = 2.0
"""A controller that doesn't answer within this time is taken for absent."""
MOST_BYTES = 32 * 2**20
NOTE = "No controller scales this application yet: python predict_scale.py --config config/live.yaml"


class BedPage:
    """Answers for the page; `sample` is to be called every `SAMPLE_SECONDS`.

    Args:
        program: the application that runs.
        app: how it is called.
        clock: moves it.
        controller: URL of a controller's port, whose story is passed on while it answers.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        program: Program,
        app: App,
        clock: WallClock,
        controller: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._program, self._clock, self._now = program, clock, now
        self._controller = controller.rstrip("/")
        self._services, self._entries = scaled_services(app), entry_services(app)
        about = application(app, self._services, self._entries)
        self._about = {**about, "period": SAMPLE_SECONDS, "note": NOTE}
        self._past: deque[list[Any]] = deque()
        self._before: Snapshot | None = None
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy has no business on loopback
        self._on_change = OnChange(LOG, logging.DEBUG)
        self._story, self._told = Story(self._about, [], None), b""
        self._page = Page(lambda: self._story, lambda: {"healthy": True})

    def answer(self, path: str) -> Answer:
        """The answer to a path."""
        return self._page.answer(path) or Answer(404, PLAIN, b"not found: /\n")

    def sample(self) -> None:
        """Look at the application and at the controller."""
        self._remember(self._clock.snapshot())
        text = self._ask()
        if text is None:
            self._told = b""
            self._story = Story(self._about, list(self._past), None)
        elif text != self._told:
            self._told, story = text, _story(text)
            self._story = story or self._story

    def _ask(self) -> bytes | None:
        """What the controller tells; None where there is none."""
        try:
            with self._session.get(
                f"{self._controller}/story.json", timeout=ASK_SECONDS, allow_redirects=False, stream=True
            ) as answer:
                text = answer.raw.read(MOST_BYTES, decode_content=True)
                return bytes(text) if answer.status_code == 200 else None
        except (requests.RequestException, OSError) as error:
            self._on_change.trouble("controller", f"no controller at {self._controller}: {error}")
            return None

    def _remember(self, snapshot: Snapshot) -> None:
        before, self._before = self._before, snapshot
        if before is None or snapshot.time <= before.time:
            return
        names = list(self._program.services)
        ready = np.bincount(
            snapshot.pod_service[snapshot.pod_state == core.READY], minlength=len(names)
        ).astype(np.float32)
        replicas = np.full((4, len(self._services)), np.nan, np.float32)
        columns = [names.index(name) for name in self._services]
        replicas[READY], replicas[APPLIED] = ready[columns], snapshot.spec[columns]
        offered = (snapshot.endpoints[:, 0] - before.endpoints[:, 0]).sum()
        moment = Moment(
            time=self._now(),
            load=float(offered) / (snapshot.time - before.time),
            responses=self._responses(before, snapshot, names),
            replicas=replicas,
        )
        self._past.append(row_of(moment))
        while self._past[0][0] < moment.time - SHOWN_SECONDS:
            self._past.popleft()

    def _responses(self, before: Snapshot, now: Snapshot, names: list[str]) -> Any:
        """Mean response of each entry's service since the sample before, in seconds."""
        found = []
        for name in self._entries:
            column = names.index(name)
            done = int(now.service_finished[column] - before.service_finished[column])
            seconds = float(now.service_seconds[column] - before.service_seconds[column])
            found.append(seconds / done if done else math.nan)
        return np.array(found, np.float32)


def _story(text: bytes) -> Story | None:
    """A controller's story; None where it is none, or tells of no tick yet."""
    try:
        told = parse_json(text)
        if not told["past"] or not isinstance(told["about"], dict):
            return None
        return Story(told["about"], list(told["past"]), told["now"])
    except (ValueError, KeyError, TypeError):
        return None
