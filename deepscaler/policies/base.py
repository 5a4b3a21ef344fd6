"""What a policy sees and what it proposes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from deepscaler.cluster import Pod, Workload
from deepscaler.panel import MetricPanel


class Reason(StrEnum):
    """Why a service got its target; the first that applies of the last that changed it."""

    FORECAST = "forecast"  # the model's forecast decided
    FLOOR = "floor"  # the reactive floor raised the forecast
    HPA = "hpa"  # the HPA's own rules
    STATIC = "static"
    EXPLORE = "explore"
    SLA_AT_RISK = "sla_at_risk"  # exploring paused: nothing is taken away, busy services get more
    ORACLE = "oracle"
    UNCHANGED = "unchanged"
    HELD_STALE = "held_stale"  # metrics stale or missing: replicas stay
    HELD_MISSING = "held_missing"  # there are no metrics at all
    HELD_TROUBLE = "held_trouble"  # traffic fell together with errors or missing data: no scale-down
    UNKNOWN_SERVICE = "unknown_service"  # not in the bundle, and no floor for it
    SCALED_TO_ZERO = "scaled_to_zero"  # by its owner: respected
    FORCED = "forced"
    PAUSED = "paused"
    WITHIN_TOLERANCE = "within_tolerance"
    STABILIZED = "stabilized"  # scale-down waits for the window
    STEP_LIMIT = "step_limit"
    MIN_REPLICAS = "min_replicas"
    MAX_REPLICAS = "max_replicas"
    QUOTA = "quota"
    RIVAL_AUTOSCALER = "rival_autoscaler"  # an HPA or KEDA object acts on it
    CONFLICT = (
        "conflict"  # someone changed the replicas between read and write: theirs stand until the next tick
    )
    WRITE_FAILED = "write_failed"  # the cluster refused; tried again at the next tick


@dataclass(frozen=True)
class Proposal:
    """What a policy wants for one service.

    Attributes:
        target: replicas, fractional where the policy forecasts; None holds what is. Where `predicted` or `floor` is
            given it is the larger of them, so that the history can be rebuilt from decisions.csv.
        predicted: the forecast, where there is one.
        floor: replicas of the reactive floor, where there is one.
    """

    target: float | None
    reason: Reason
    predicted: float | None = None
    floor: float | None = None


@dataclass(frozen=True)
class Observation:
    """The present as the controller hands it to a policy.

    Attributes:
        now: seconds since the epoch.
        panel: samples at `collect.step` up to now, at least `history_seconds` of the policy where there are as many;
            single gaps are filled forward (see `deepscaler.control.quality`), what is missing for longer is NaN.
    """

    now: float
    panel: MetricPanel
    workloads: Sequence[Workload]
    pods: Sequence[Pod]


class Policy(Protocol):
    """Turns an observation into proposals. Policies inherit from it, for what it does by default.

    Attributes:
        name: as it stands in run directories (`deepscaler`, `hpa_70`).
        period_seconds: time between decisions.
        history_seconds: how much of the past it needs; 0 where it needs no metrics (the panel is empty then, and no
            service is held for stale metrics).
        guarded: False where the policy brings its own tolerance, stabilization and limits (the HPA): then only forced
            values, pauses, min/max and the quota apply.
    """

    name: str
    period_seconds: float
    history_seconds: float
    guarded: bool

    @abstractmethod
    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """What the policy wants, service -> proposal.

        Raises:
            MetricsError: the observation can't be used at all.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """What run.json keeps of this policy besides its name; nothing by default."""
        return {}
