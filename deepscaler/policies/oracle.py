"""`oracle` and `foreseen`: replicas computed beforehand from the true future: references, not bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from deepscaler.errors import SettingsError
from deepscaler.policies.base import Observation, Policy, Proposal, Reason


class OraclePolicy(Policy):
    """Looks up the replicas of now; a row holds from its time until the next, the first row before its time as well.

    Args:
        times: `[K]` seconds since the epoch, rising.
        table: service -> `[K]` replicas, as in run.json's `oracle`.
        period_seconds: time between decisions.
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
            raise SettingsError(f"oracle: {len(self._times)} times, expected at least one, rising")
        for service, column in self._table.items():
            if column.shape != self._times.shape:
                raise SettingsError(
                    f"oracle: {len(column)} replicas of {service!r} for {len(self._times)} times"
                )

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """The table's row of now; services that it doesn't have are held."""
        return {
            service: Proposal(float(column[0]), Reason.ORACLE)
            for service, column in self.replicas_at([observation.now]).items()
        }

    def replicas_at(self, moments: ArrayLike) -> dict[str, list[int]]:
        """service -> replicas at these times (seconds since the epoch)."""
        rows = np.maximum(
            np.searchsorted(self._times, np.asarray(moments, np.float64) + 1e-6, side="right") - 1, 0
        )
        return {service: column[rows].tolist() for service, column in self._table.items()}


class ForeseenPolicy(OraclePolicy):
    """Labels of the fitted model on the true future load: what a perfect forecast of them is worth to the controller.

    Unlike the oracle it knows demands, visits and response only as telemetry told them, decides once a `scale.period`,
    and its targets pass the guard rails as any forecast's do.
    """

    guarded = True

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """The table's row of now, as a forecast."""
        found = self.replicas_at([observation.now])
        return {
            name: Proposal(float(column[0]), Reason.FORECAST, predicted=float(column[0]))
            for name, column in found.items()
        }
