"""What a policy remembers beyond a restart: one small file in the run directory.

On another node there is no such file, or an old one. What the ways of foreseeing cost then comes from the
store, in which the controller before told it as its own metrics.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deepscaler.adapters.deadline import sharing
from deepscaler.artefacts import read_json, utc_text, write_json
from deepscaler.cluster import Cluster
from deepscaler.control.tick import Tick
from deepscaler.errors import DataError, MetricsError
from deepscaler.logs import OnChange
from deepscaler.policies.base import Policy

log = logging.getLogger(__name__)
FILE = "policy.json"
WRITTEN, TRIALS = "written", "trials"
LOOK_BACK_SECONDS = 6 * 3600.0
"""What ways cost longer ago says little of today: in this time it fades to an eighth."""
READ_SECONDS = 10.0
"""Reading the store takes no longer."""
EVERY_SECONDS = 60.0
"""The file is written at most this often."""


class Memory:
    """Keeps a policy's `state` in a file: it watches the ticks of a controller.

    What can't be read or written is logged, and deciding goes on without it.

    Args:
        directory: of the run; the file is policy.json.
        policy: gives the one that decides. What an earlier controller left is handed to it at once.
        cluster: knows the store; None: the file is all there is.
    """

    def __init__(self, directory: Path, policy: Callable[[], Policy], cluster: Cluster | None = None) -> None:
        self._path, self._policy = directory / FILE, policy
        self._on_change = OnChange(log, logging.ERROR)
        self._written: float | None = None
        state = self._filed()
        if cluster is not None and TRIALS in policy().state():
            state |= _told(cluster, state)
        if state:
            policy().restore(state)

    def _filed(self) -> dict[str, Any]:
        if not self._path.is_file():
            return {}
        try:
            return dict(read_json(self._path, "remove it: the policy then begins anew"))
        except DataError as error:
            log.warning("%s", error)
            return {}

    def __call__(self, tick: Tick) -> None:
        """Write the state, if it is time."""
        if self._written is not None and 0 <= tick.now - self._written < EVERY_SECONDS:
            return
        self._written = tick.now
        state = dict(self._policy().state())
        if not state:
            return
        try:
            write_json(self._path, {**state, WRITTEN: tick.now})
        except OSError as error:
            self._on_change.trouble("memory", f"{self._path} can't be written: {error}")
        else:
            self._on_change.well("memory", f"{self._path} is written again")


def _told(cluster: Cluster, filed: Mapping[str, Any]) -> dict[str, Any]:
    """What the store knows newer than the file; nothing if that is the newer one."""
    now, written = cluster.now(), filed.get(WRITTEN)
    known = float(written) if isinstance(written, int | float) and written <= now else -math.inf
    try:
        with sharing(READ_SECONDS):
            time, costs = cluster.past_costs(max(now - LOOK_BACK_SECONDS, known), now)
    except MetricsError as error:
        log.warning("what ways of foreseeing cost is known from %s alone: %s", FILE, error)
        return {}
    if not costs:
        return {}
    log.info("what %s cost is taken over from %s", ", ".join(costs), utc_text(time))
    return {TRIALS: dict(costs)}
