"""The policy `deepscaler`: the forecast of the bundle for all services at once, over the reactive floor."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepscaler.cluster import Workload
from deepscaler.errors import DeepScalerError
from deepscaler.panel import MetricPanel
from deepscaler.policies.base import Observation, Policy, Proposal, Reason
from deepscaler.policies.outlook import Learned
from deepscaler.policies.reactive import ReactiveFloor

log = logging.getLogger(__name__)
EARLY_SECONDS = 1.0
"""Ticks come early by less than this."""
LIFE_PERIODS = 2
"""A forecast that couldn't be renewed is used until it is this many periods old."""


class Forecaster(Protocol):
    """What the policy needs of `deepscaler.learning.forecaster`."""

    @property
    def services(self) -> tuple[str, ...]:
        """N names, in the order of the forecasts."""
        ...

    @property
    def history_seconds(self) -> float:
        """How much of the past a forecast needs."""
        ...

    @property
    def label(self) -> str:
        """What is forecast: `required`, `observed` or `feature:<name>`."""
        ...

    def forecast(self, panel: MetricPanel) -> NDArray[np.floating]:
        """Replicas `[H, N]` of the next H steps after the panel's newest sample."""
        ...


class DeepScalerPolicy(Policy):
    """Forecasts every `period`, and computes the reactive floor every `floor_period`; the floor only raises.

    With `required` labels the lead is part of the label, and step 1 of the forecast is taken; otherwise the
    highest step of the horizon. If there is no finite forecast, replicas are held and only the floor may
    raise them. For services that the bundle doesn't know the floor alone decides.

    A forecaster that fails, in whatever way, costs nothing but its forecast: the last one stands in for it
    until it is two periods old, and the floor is computed all the same.

    Args:
        forecaster: runs the bundle.
        floor: the reactive floor; None for the ablation without it.
        period: seconds between forecasts.
        floor_period: seconds between decisions if there is a floor.
        name: the name that run directories state.
        learned: the bundle that the forecaster was made from.

    Attributes:
        forecasts: how many forecasts were made.
        failures: how many couldn't be made.
    """

    guarded = True

    def __init__(
        self,
        forecaster: Forecaster,
        floor: ReactiveFloor | None,
        period: float,
        floor_period: float,
        name: str = "deepscaler",
        *,
        learned: Learned | None = None,
    ) -> None:
        self.name = name
        self.period_seconds = min(period, floor_period) if floor else period
        self.history_seconds = max(forecaster.history_seconds, floor.history_seconds if floor else 0.0)
        self._forecaster, self._learned = forecaster, learned
        self._floor = floor
        self._period = period
        self._asked = self._made = -math.inf
        self._forecast: dict[str, float] = {}
        self.forecasts = self.failures = 0

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """For every live service, the larger of the last forecast and the present floor."""
        now = observation.steady
        if not self._within(self._asked, now, self._period):
            self._asked = now
            self._renew(observation)
        forecast = self._forecast if self._within(self._made, now, LIFE_PERIODS * self._period) else {}
        floors = self._floor.replicas(observation) if self._floor else {}
        return {
            workload.service: self._proposal(
                workload, forecast.get(workload.service), floors.get(workload.service)
            )
            for workload in observation.workloads
        }

    def describe(self) -> Mapping[str, Any]:
        """The bundle, how many forecasts were made, and how many couldn't be."""
        forecasts = {"made": self.forecasts, "failed": self.failures}
        digest = None if self._learned is None else self._learned.sha256
        return {"forecasts": forecasts, "bundle_sha256": digest}

    def learned(self) -> Learned | None:
        """The bundle."""
        return self._learned

    @staticmethod
    def _within(moment: float, now: float, seconds: float) -> bool:
        """Whether `moment` is less than `seconds` ago, by ticks that may come somewhat early."""
        return now - moment < seconds - EARLY_SECONDS

    def _renew(self, observation: Observation) -> None:
        """Make a new forecast; if that fails, the last one stays for the rest of its life."""
        try:
            steps = np.asarray(self._forecaster.forecast(observation.panel), np.float64)
            taken = steps[0] if self._forecaster.label == "required" else steps.max(axis=0)
            forecast = dict(zip(self._forecaster.services, taken.tolist(), strict=True))
        except Exception as error:
            self.failures += 1
            known = isinstance(error, DeepScalerError)
            log.log(logging.WARNING if known else logging.ERROR, "no forecast: %s", error, exc_info=not known)
            return
        self._forecast, self._made = forecast, observation.steady
        self.forecasts += 1

    def _proposal(self, workload: Workload, predicted: float | None, floor: float | None) -> Proposal:
        service, current = workload.service, workload.replicas
        if predicted is not None and math.isfinite(predicted):
            if floor is not None and floor > predicted:
                return Proposal(floor, Reason.FLOOR, predicted, floor)
            return Proposal(predicted, Reason.FORECAST, predicted, floor)
        if service not in self._forecaster.services:
            return Proposal(floor, Reason.FLOOR if floor is not None else Reason.UNKNOWN_SERVICE, floor=floor)
        if floor is not None and floor > current:
            return Proposal(floor, Reason.FLOOR, floor=floor)
        return Proposal(None, Reason.HELD_MISSING, floor=floor)
