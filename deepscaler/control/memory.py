"""What a policy remembers beyond a restart: one small file in the run directory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from deepscaler.artefacts import read_json, write_json
from deepscaler.control.tick import Tick
from deepscaler.errors import DataError
from deepscaler.logs import OnChange
from deepscaler.policies.base import Policy

log = logging.getLogger(__name__)
FILE = "policy.json"
EVERY_SECONDS = 60.0
"""The file is written at most this often."""


class Memory:
    """Keeps a policy's `state` in a file: it watches the ticks of a controller.

    A file that can't be read or written is logged, and deciding goes on without it.

    Args:
        directory: of the run; the file is policy.json.
        policy: gives the one that decides. What an earlier controller left is handed to it at once.
    """

    def __init__(self, directory: Path, policy: Callable[[], Policy]) -> None:
        self._path, self._policy = directory / FILE, policy
        self._on_change = OnChange(log, logging.ERROR)
        self._written: float | None = None
        if not self._path.is_file():
            return
        try:
            policy().restore(read_json(self._path, "remove it: the policy then begins anew"))
        except DataError as error:
            log.warning("%s", error)

    def __call__(self, tick: Tick) -> None:
        """Write the state, if it is time."""
        if self._written is not None and 0 <= tick.now - self._written < EVERY_SECONDS:
            return
        self._written = tick.now
        state = dict(self._policy().state())
        if not state:
            return
        try:
            write_json(self._path, state)
        except OSError as error:
            self._on_change.trouble("memory", f"{self._path} can't be written: {error}")
        else:
            self._on_change.well("memory", f"{self._path} is written again")
