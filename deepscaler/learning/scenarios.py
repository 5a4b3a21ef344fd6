"""A network as a source of scenarios for the plan by cost."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepscaler.errors import DeepScalerError
from deepscaler.panel import MetricPanel
from deepscaler.planning.scenarios import ANALOGS, NETWORK, NETWORK_SURPRISE, Moment, Scenarios

log = logging.getLogger(__name__)
Array = NDArray[np.float64]


class JointForecaster(Protocol):
    """What the source needs of `deepscaler.learning.forecaster`."""

    @property
    def services(self) -> tuple[str, ...]:
        """N names, in the order of the scenarios."""
        ...

    def scenarios(self, panel: MetricPanel, count: int) -> Array:
        """Rates `[K, H, N]` that may come; NaN where a service's can't be foreseen."""
        ...

    def analogs(self, panel: MetricPanel, count: int) -> Array:
        """The same, by what followed the moments of the training that were most like now."""
        ...


class NetworkScenarios:
    """Scenarios of a bundle that was trained on the label `offered`.

    A forecaster that fails, in whatever way, gives no scenarios; the plan then goes by its other source, or
    the floor decides. A service that the network can't foresee keeps its present rate.

    Args:
        forecaster: runs the bundle.
        services: names of the services, in the order of the rates that the plan has.
        horizon: H rows that the plan looks ahead; the last of a shorter forecast holds on.
        count: M scenarios at most.
        analogs: what followed moments of the training, instead of the forecast's quantiles.
    """

    def __init__(
        self,
        forecaster: JointForecaster,
        services: Sequence[str],
        horizon: int,
        count: int,
        *,
        analogs: bool = False,
    ) -> None:
        known = {name: index for index, name in enumerate(forecaster.services)}
        self._ask = forecaster.analogs if analogs else forecaster.scenarios
        self._name = ANALOGS if analogs else NETWORK
        self._horizon, self._count = horizon, count
        self._columns = np.array([known.get(name, -1) for name in services])
        self.made = self.failed = 0

    def scenarios(self, moment: Moment) -> Scenarios | None:
        """See `ScenarioSource`."""
        try:
            found = self._ask(moment.panel, self._count)
        except Exception as error:
            self.failed += 1
            known = isinstance(error, DeepScalerError)
            log.log(
                logging.WARNING if known else logging.ERROR,
                "no scenarios of the %s: %s",
                self._name,
                error,
                exc_info=not known,
            )
            return None
        ordered = np.where(self._columns >= 0, found[:, :, self._columns], np.nan)  # [K, H', N]
        steps = np.minimum(np.arange(self._horizon), ordered.shape[1] - 1)
        courses = np.where(np.isfinite(ordered), ordered, moment.rates[-1])[:, steps]  # [K, H, N]
        self.made += 1
        weights = np.full(len(courses), 1.0 / len(courses))
        return Scenarios(courses, weights, self._name, NETWORK_SURPRISE)

    def describe(self) -> Mapping[str, Any]:
        """How many times scenarios were made, and how many times that failed."""
        return {"made": self.made, "failed": self.failed}
