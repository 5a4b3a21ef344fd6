"""When the controller acts: by a clock that never jumps, whatever happens to the wall clock."""

from __future__ import annotations

import logging
import math
import threading

from deepscaler.cluster import Cluster

log = logging.getLogger(__name__)
JUMP_SECONDS = 5.0
"""A wall clock that went this much faster or slower than the steady one was set, not slewed."""
_NAP_SECONDS = 1.0
_EPSILON = 1e-6


class Turns:
    """Moments at a regular distance. Those that were missed aren't made up for.

    Args:
        first: the first of them; infinity for none.
        period: seconds between them; it may be set anew.
    """

    def __init__(self, first: float, period: float) -> None:
        self.due, self.period = first, period

    def come(self, now: float) -> bool:
        """Whether the next one has come."""
        return now >= self.due - _EPSILON

    def move_on(self, now: float) -> None:
        """To the first of them after `now`."""
        if not math.isinf(self.due):
            missed = math.floor((now - self.due) / self.period + _EPSILON)
            self.due += self.period * max(missed + 1, 0)


def sleep(cluster: Cluster, moment: float, stop: threading.Event | None) -> None:
    """Sleep until `moment` of the steady clock; with a `stop` in short naps, so that it is noticed soon."""
    while stop is not None and not stop.is_set() and (now := cluster.steady()) < moment - _NAP_SECONDS:
        cluster.sleep_until(now + _NAP_SECONDS)
    if stop is None or not stop.is_set():
        cluster.sleep_until(moment)


class ClockWatch:
    """Notices that the wall clock was set, and says so."""

    def __init__(self, cluster: Cluster) -> None:
        self._ahead = cluster.now() - cluster.steady()

    def jumped(self, now: float, steady: float) -> float:
        """By how many seconds the wall clock was set since the last look; 0 if it wasn't."""
        jump, self._ahead = now - steady - self._ahead, now - steady
        if abs(jump) <= JUMP_SECONDS:
            return 0.0
        way = "forward" if jump > 0 else "back"
        log.warning("the clock was set %s by %.0f s; ticks go on at their pace", way, abs(jump))
        return jump
