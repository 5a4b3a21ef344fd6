"""The controller watches its own model: what its decisions lacked or wasted, and whether inputs have drifted.

Both are measured over the last day, and compared with what the bundle had on validation. What exceeds that
for long is warned of once, with what to do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from deepscaler.control.drift import HOUR_SECONDS, HOURS, Drift, DriftMeter
from deepscaler.control.tick import Tick
from deepscaler.logs import OnChange
from deepscaler.policies.base import Policy
from deepscaler.policies.outlook import Learned
from deepscaler.settings import Settings

log = logging.getLogger(__name__)
LONGEST_GAP_SECONDS = 300.0
"""A gap between two ticks counts as at most so much time."""
LEAST_ERROR_HOURS = 6
"""Hours of decisions that an error needs before it is warned of."""
RETRAIN = (
    "train again on newer data: python metrics_fetch.py, python data_process.py, "
    "python main.py --init_from BUNDLE --gate; deploy/components/retraining does it every night"
)


@dataclass(frozen=True)
class Health:
    """How the model does. It never changes; a new one takes its place at each tick.

    Attributes:
        hours: of the last day that decisions were measured in.
        deficient_share: replica-seconds that lacked, as a share of those that the present load needed.
        excess_share: ready replica-seconds beyond the need, as a share of it.
        error: `excess_share` and, at the shortage price, `deficient_share`.
        usual_error: the same of the bundle's decisions on validation; NaN if it doesn't say.
        drift: how far the inputs of the last day are from those of training; None before a day is over, or
            if the bundle doesn't say what they were.
        usual_drift: how far those of validation were; NaN if it doesn't say.
        warnings: what exceeds its level for long, and what to do.
    """

    hours: int = 0
    deficient_share: float = math.nan
    excess_share: float = math.nan
    error: float = math.nan
    usual_error: float = math.nan
    drift: Drift | None = None
    usual_drift: float = math.nan
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The entry `health` of run.json."""
        return asdict(self)


@dataclass
class _Hour:
    """Replica-seconds of one hour, all services together."""

    needed: float = 0.0
    deficient: float = 0.0
    excess: float = 0.0


class HealthWatch:
    """Watches the ticks of a controller.

    Args:
        settings: those of the application.
        policy: the one that decides at present.

    Attributes:
        health: after the newest tick.
    """

    def __init__(self, settings: Settings, policy: Callable[[], Policy]) -> None:
        self.health = Health()
        self._shortage, self._limits = settings.scale.prices.shortage, settings.scale.health
        self._policy = policy
        self._bundle = ""
        self._meter: DriftMeter | None = None
        self._hours: dict[int, _Hour] = {}
        self._before: float | None = None
        self._on_change = OnChange(log)

    def __call__(self, tick: Tick) -> None:
        """Measure this tick, and warn of what exceeds its level."""
        learned = self._policy().learned()
        self._note_bundle(learned)
        self._add(tick)
        if self._meter is not None:
            self._meter.add(tick.now, tick.quality.panel)
        self.health = self._judged(learned)

    def _note_bundle(self, learned: Learned | None) -> None:
        """Begin anew with each bundle: what another one lacked or learned from says nothing of it."""
        sha256 = "" if learned is None else learned.sha256
        if sha256 != self._bundle:
            inputs = None if learned is None else learned.inputs
            self._bundle, self._hours = sha256, {}
            self._meter = None if inputs is None else DriftMeter(inputs)

    def _add(self, tick: Tick) -> None:
        """Count replicas against what the present load needs, as the floor tells it."""
        seconds = 0.0 if self._before is None else tick.now - self._before
        self._before = tick.now
        seconds = min(max(seconds, 0.0), LONGEST_GAP_SECONDS)
        newest = int(tick.now // HOUR_SECONDS)
        one = self._hours.setdefault(newest, _Hour())
        for row in tick.rows:
            if row.floor is not None and row.current > 0:
                one.needed += row.floor * seconds
                one.deficient += max(row.floor - row.ready, 0.0) * seconds
                one.excess += max(row.ready - row.floor, 0.0) * seconds
        self._hours = {hour: item for hour, item in self._hours.items() if newest - HOURS < hour <= newest}

    def _judged(self, learned: Learned | None) -> Health:
        needed = sum(one.needed for one in self._hours.values())
        shares = (math.nan, math.nan)
        if needed > 0:
            deficient = sum(one.deficient for one in self._hours.values())
            shares = deficient / needed, sum(one.excess for one in self._hours.values()) / needed
        drift = None if self._meter is None else self._meter.drift()
        found = Health(
            hours=sum(one.needed > 0 for one in self._hours.values()),
            deficient_share=shares[0],
            excess_share=shares[1],
            error=shares[1] + self._shortage * shares[0],
            usual_error=math.nan if learned is None else learned.usual_error(self._shortage),
            drift=drift,
            usual_drift=math.nan if self._meter is None else self._meter.inputs.usual,
        )
        warnings = (*self._of_the_error(found), *self._of_drift(found))
        return replace(found, warnings=warnings)

    def _of_the_error(self, found: Health) -> list[str]:
        bound = self._limits.error_ratio * found.usual_error
        if found.hours < LEAST_ERROR_HOURS or not found.error > bound:
            self._on_change.well("error", "what decisions lack or waste is back at its level")
            return []
        text = (
            f"decisions lack or waste more than {self._limits.error_ratio:g} times what the bundle's did on "
            f"validation: {RETRAIN}"
        )
        self._on_change.trouble("error", text)
        return [text]

    def _of_drift(self, found: Health) -> list[str]:
        drift = found.drift
        bound = max(self._limits.drift, 2 * found.usual_drift)
        if drift is None or not drift.score > bound:
            self._on_change.well("drift", "the inputs are again like those of training")
            return []
        text = (
            f"{drift.feature} isn't distributed as in training (population stability index above "
            f"{bound:.2f}), most so of {', '.join(drift.services)}: {RETRAIN}"
        )
        self._on_change.trouble("drift", text)
        return [text]
