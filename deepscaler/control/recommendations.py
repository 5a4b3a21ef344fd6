"""What was recommended lately: the memory of the scale-down stabilization."""

from __future__ import annotations

import math

import pandas as pd

from deepscaler.control.decision import HELD, LEFT_ALONE
from deepscaler.policies.base import Reason

_REMEMBERED = ["time", "service", "current", "predicted", "floor", "target", "reason"]
_SLACK = 1e-9


class RecommendationHistory:
    """Recommendations of the last `window` seconds by service: the memory of the scale-down stabilization.

    When a service is seen first, record its current replicas, so that its first scale-down waits for a
    window, too. A service at 0 is forgotten: its owner switched it off, which says nothing of what it needs,
    and once it is switched on again it is seen first.
    """

    def __init__(self, window: float) -> None:
        self.window = window
        self._records: dict[str, list[tuple[float, int]]] = {}

    def restore(self, rows: pd.DataFrame, now: float, round_up_threshold: float) -> None:
        """Remember what an earlier controller did, from its rows of decisions.csv.

        Their times, and `now`, are of the clock that the history goes by.
        """
        settled = {reason.value for reason in (*LEFT_ALONE, *HELD, Reason.FORCED)}
        recent = rows[rows["time"] > now - self.window].sort_values("time", kind="stable")
        entries = recent[_REMEMBERED].itertuples(index=False, name=None)
        for time, service, current, predicted, floor, target, reason in entries:
            if reason in settled:
                remembered = int(target)
            else:
                wishes = [float(value) for value in (predicted, floor) if pd.notna(value)]
                wish = round_replicas(max(wishes, default=None), round_up_threshold)
                remembered = int(current) if wish is None else wish
            self.record(str(service), float(time), remembered)

    def knows(self, service: str) -> bool:
        """Whether anything was recorded for `service` since it was last at 0."""
        return service in self._records

    def record(self, service: str, time: float, replicas: int) -> None:
        """Remember a recommendation and forget those out of the window; at 0 replicas, all of them."""
        if replicas == 0:
            self._records.pop(service, None)
            return
        kept = [entry for entry in self._records.get(service, ()) if time - entry[0] < self.window]
        self._records[service] = [*kept, (time, replicas)]

    def highest(self, service: str, now: float) -> int | None:
        """Highest recommendation that is younger than the window; None if there is none."""
        return max(
            (replicas for time, replicas in self._records.get(service, ()) if now - time < self.window),
            default=None,
        )


def round_replicas(target: float | None, threshold: float) -> int | None:
    """The target as a whole number of at least 1; None if it is no finite number.

    It is rounded up if its fraction exceeds `threshold`, else down.

    Source: the published controller (0.35).
    """
    if target is None or not math.isfinite(target):
        return None
    whole = math.floor(target + _SLACK)
    return max(whole + int(target - whole > threshold + _SLACK), 1)
