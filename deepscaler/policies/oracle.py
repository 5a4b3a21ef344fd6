"""The policies `oracle` and `foreseen`: replicas that were computed beforehand from the true future.

They are references, not bounds: another policy may do better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from deepscaler.errors import SettingsError
from deepscaler.policies.base import Observation, Policy, Proposal, Reason


class OraclePolicy(Policy):
    """Looks up the replicas of the present in a table.

    A row holds from its time until the time of the next; the first row also holds before its time.

    Args:
        times: `[K]` seconds since the epoch, rising.
        table: service -> `[K]` replicas, as in `oracle` of run.json.
        period_seconds: time between decisions.
        name: the name that run directories state.
    """

    history_seconds = 0.0
    guarded = False  # the table already says when to scale down

    def __init__(
        self,
        times: ArrayLike,
        table: Mapping[str, Sequence[int]],
        period_seconds: float = 15.0,
        name: str = "oracle",
    ) -> None:
        self.name = name
        self.period_seconds = period_seconds
        self._times = np.asarray(times, np.float64)
        self._table = {service: np.asarray(column, np.int64) for service, column in table.items()}
        if not len(self._times) or (np.diff(self._times) <= 0).any():
            raise SettingsError(f"oracle: {len(self._times)} times, expected at least one, in rising order")
        for service, column in self._table.items():
            if column.shape != self._times.shape:
                raise SettingsError(
                    f"oracle: {len(column)} replicas of {service!r} for {len(self._times)} times"
                )

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """The present row of the table; services that aren't in it are held."""
        return {
            service: Proposal(float(column[0]), Reason.ORACLE)
            for service, column in self.replicas_at([observation.now]).items()
        }

    def replicas_at(self, moments: ArrayLike) -> dict[str, list[int]]:
        """For each service the replicas at these times (seconds since the epoch)."""
        rows = np.maximum(
            np.searchsorted(self._times, np.asarray(moments, np.float64) + 1e-6, side="right") - 1, 0
        )
        return {service: column[rows].tolist() for service, column in self._table.items()}


class ForeseenPolicy(OraclePolicy):
    """Follows the labels that the fitted model gives the true future load, as a perfect forecast would.

    Unlike the oracle it knows demands, visits and responses only as telemetry showed them. It decides once
    per `scale.period`, and its targets pass the guard rails as those of any forecast do.
    """

    guarded = True

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """The present row of the table, as a forecast."""
        found = self.replicas_at([observation.now])
        return {
            name: Proposal(float(column[0]), Reason.FORECAST, predicted=float(column[0]))
            for name, column in found.items()
        }
