"""What a policy sees, what it proposes, and what every policy can do."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepscaler.cluster import Pod, Workload
from deepscaler.load_history import LoadHistory
from deepscaler.panel import MetricPanel
from deepscaler.policies.outlook import Learned, Outlook


class Reason(StrEnum):
    """Why a service got its target. If several reasons apply, it is the one that changed the target last."""

    FORECAST = "forecast"  # the forecast of the model decided
    PLAN = "plan"  # the plan by cost decided
    FLOOR = "floor"  # the reactive floor raised the forecast
    HPA = "hpa"  # the rules of the HPA decided
    RULE = "rule"  # the published rule of a rival decided
    STATIC = "static"  # set by hand
    EXPLORE = "explore"  # varied on purpose, to collect training data
    SLA_AT_RISK = "sla_at_risk"  # exploring pauses: no service loses replicas, busy ones get more
    ORACLE = "oracle"  # looked up in what the future load needs
    UNCHANGED = "unchanged"  # the policy wants the current replicas
    HELD_STALE = "held_stale"  # the metrics are too old: replicas stay
    HELD_MISSING = "held_missing"  # there are no metrics: replicas stay
    HELD_UNSOUND = "held_unsound"  # what the API says of its Deployment or pods can't be right: replicas stay
    HELD_TROUBLE = "held_trouble"  # traffic fell while requests failed or data were lost: no scale-down
    UNKNOWN_SERVICE = "unknown_service"  # the bundle doesn't know it, and there is no floor for it
    SCALED_TO_ZERO = "scaled_to_zero"  # its owner set 0 replicas, which is respected
    FORCED = "forced"  # the settings force this number
    PAUSED = "paused"  # the settings or an annotation pause it
    WITHIN_TOLERANCE = "within_tolerance"  # the change is too small
    STABILIZED = "stabilized"  # a scale-down waits until the window is over
    STEP_LIMIT = "step_limit"  # the change is cut to the largest step
    MIN_REPLICAS = "min_replicas"
    MAX_REPLICAS = "max_replicas"
    CALENDAR = "calendar"  # the calendar asks for so many replicas at this time
    CONSTRAINT = "constraint"  # what several services share has no room for all they want
    QUOTA = "quota"  # all services together would take more cores than the quota
    RIVAL_AUTOSCALER = "rival_autoscaler"  # an HPA, KEDA or somebody who undoes writes acts on it, too
    CONFLICT = (
        "conflict"  # somebody changed the replicas between read and write; theirs stand until the next tick
    )
    WRITE_FAILED = "write_failed"  # the cluster refused the write, which is tried again at the next tick


@dataclass(frozen=True)
class Proposal:
    """What a policy wants for one service.

    Attributes:
        target: replicas, fractional if the policy forecasts; None keeps the current ones. If `predicted` or
            `floor` is given, the target is the larger of them, so that the history can be rebuilt from
            decisions.csv.
        predicted: the forecast, if there is one.
        floor: replicas of the reactive floor, if there is one.
        planned: the policy itself weighed how long to hold replicas, so its targets wait for no stabilization
            window.
        why: what speaks for the target, in a phrase; "" where the reason and the numbers say it all.
    """

    target: float | None
    reason: Reason
    predicted: float | None = None
    floor: float | None = None
    planned: bool = False
    why: str = ""


@dataclass(frozen=True)
class Observation:
    """The present as the controller hands it to a policy.

    Attributes:
        now: seconds since the epoch, for the ages of samples and pods.
        panel: the metrics up to now, `collect.step` apart, for the policy's `history_seconds` at least if
            there are as many. Short gaps are filled forward (see `deepscaler.control.quality`); what is
            missing for longer is NaN.
        workloads: the services that are scaled.
        pods: the pods of all services.
        load: the load of the last weeks, for a policy with `load_seconds`.
        steady_now: seconds of a clock that is never set; None where no other than that of `now` is known.
    """

    now: float
    panel: MetricPanel
    workloads: Sequence[Workload]
    pods: Sequence[Pod]
    load: LoadHistory | None = None
    steady_now: float | None = None

    @property
    def steady(self) -> float:
        """Seconds of a clock that is never set, for all that lasts: windows, pauses, periods."""
        return self.now if self.steady_now is None else self.steady_now


def containers_of(observation: Observation) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pods whose containers run, and those of them that start, of each service of the panel, `[N]` each."""
    run = [pod for pod in observation.pods if pod.phase == "Running"]
    running = Counter(pod.service for pod in run)
    starting = Counter(pod.service for pod in run if pod.ready is False and not pod.deleting)
    names = observation.panel.services
    return (
        np.array([running[name] for name in names], np.float64),
        np.array([starting[name] for name in names], np.float64),
    )


def serving_factor(containers: NDArray[np.float64], starting: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much the replicas that serve are busier than `cpu` says, `[N]`; 1 where none serves.

    `cpu` is the share of the limits of all containers, those of starting pods included, which use next to
    nothing.

    Args:
        containers: `[N]` pods whose containers run.
        starting: `[N]` those of them that start.
    """
    serving = containers - starting
    return np.where(serving > 0, containers / np.maximum(serving, 1.0), 1.0)


class Policy(Protocol):
    """Turns an observation into proposals. Policies inherit from it, for what it does by default.

    Attributes:
        name: the name that run directories state (`deepscaler`, `hpa_70`).
        period_seconds: time between decisions.
        history_seconds: how much of the past the policy needs. If it is 0, the policy needs no metrics: the
            panel is empty, and no service is held for stale metrics.
        load_seconds: how far back it wants to know the load at the entries, minute by minute; 0: not at all.
        guarded: False if the policy has a tolerance, stabilization and limits of its own, as the HPA has.
            Then only forced values, pauses, min/max and the quota apply.
    """

    name: str
    period_seconds: float
    history_seconds: float
    load_seconds: float = 0.0
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

    def outlook(self) -> Outlook:
        """What it foresaw when it decided last, for people to see; nothing by default."""
        return Outlook()

    def state(self) -> Mapping[str, Any]:
        """What it has to remember beyond a restart, as plain values for JSON; nothing by default."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state` of an earlier controller; by default there is nothing to go on from."""
        return

    def learned(self) -> Learned | None:
        """The bundle that it goes by; none by default."""
        return None
