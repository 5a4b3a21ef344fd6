"""The cluster port: all that the pipeline knows of the outside world, its clock included."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.calls import CallGraph
from deepscaler.panel import MetricPanel
from deepscaler.upstream import Upstream

LATENCY_BUCKETS = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.25,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    1.5,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds, in seconds, of the durations of an endpoint; the bucket above them is open."""
ENDPOINT_COLUMNS = (
    *("time", "endpoint", "offered", "done", "failed", "slow", "duration_seconds"),
    *(f"le_{bound:g}" for bound in LATENCY_BUCKETS),
    "le_inf",
)
"""Columns of `endpoints.csv`: counts within the step that ends at `time`.

`time` is in seconds since the epoch in memory, and ISO 8601 on disk. `slow` requests are done, but slower
than the SLO of the endpoint; `duration_seconds` is the sum over `done`. `le_*` count the requests `done` in
the bucket up to that bound; they are not cumulative.
"""


@dataclass(frozen=True)
class QuotaClaim:
    """What one more replica of a service takes of a quota.

    Attributes:
        quota: its name, for people: `ResourceQuota/team limits.memory`.
        free: what the quota leaves to *all* services together, beyond the pods that exist.
        takes: what one replica takes of it; infinite if the quota lets no further pod of the service come up.
    """

    quota: str
    free: float
    takes: float

    @property
    def admits(self) -> bool:
        """Whether pods of the service can come up at all."""
        return math.isfinite(self.takes)


@dataclass(frozen=True)
class Advice:
    """A raised minimum of an autoscaler, as it is written beside it so that anybody can take it back.

    Attributes:
        minimum: what its owner had set, and gets back.
        raised: what it was set to.
        until: when it ends at the latest, seconds since the epoch.
        holder: who raised it.
    """

    minimum: int
    raised: int
    until: float
    holder: str = ""


@dataclass(frozen=True)
class Condition:
    """One condition of an autoscaler's status: `ScalingLimited`, `True`, `TooManyReplicas`, why in words."""

    type: str
    status: str
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Autoscaler:
    """A HorizontalPodAutoscaler that acts on a Deployment.

    Attributes:
        minimum: its `minReplicas` now.
        maximum: its `maxReplicas`.
        advice: what is written beside it; None: its minimum is its owner's.
        owner: the object that made it and would undo a change (`ScaledObject/web`); "" for none.
        conditions: what it says of itself.
        unsound: what beside it can't be read, so that its minimum must be left alone; "" where all is.
    """

    name: str
    minimum: int
    maximum: int
    advice: Advice | None = None
    owner: str = ""
    conditions: tuple[Condition, ...] = ()
    unsound: str = ""


@dataclass(frozen=True)
class Workload:
    """What the orchestrator says of the Deployment of one service.

    Attributes:
        replicas: `spec.replicas`.
        cpu_limit_cores: limit of one replica; None if it has none.
        boot_seconds: time from the creation of a pod until it is ready, configured or measured; None if
            unknown.
        autoscalers: names of other autoscalers (`HorizontalPodAutoscaler/web`) that act on it.
        manager: the field manager that set `replicas` last, by its name in the API; "" if that isn't known.
        pods: those that exist and aren't going; None: as many as `replicas`.
        quotas: what one more replica takes of each quota that counts it.
        unsound: what of its Deployment can't be right, so that only the replicas and annotations are known;
            "" where all is.
        hpas: the HorizontalPodAutoscalers among `autoscalers`, with what they are set to.
        stale: whether part of it may be older than what was written last, because the API couldn't be read.
    """

    service: str
    replicas: int
    cpu_limit_cores: float | None
    cpu_request_cores: float | None
    memory_limit_bytes: float | None = None
    memory_request_bytes: float | None = None
    boot_seconds: float | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    autoscalers: tuple[str, ...] = ()
    manager: str = ""
    pods: int | None = None
    quotas: tuple[QuotaClaim, ...] = ()
    unsound: str = ""
    hpas: tuple[Autoscaler, ...] = ()
    stale: bool = False


PAST_COLUMNS = ("time", "service", "current", "predicted", "floor")
"""`predicted`: what the policy wanted, NaN where it wanted nothing. `current`: replicas in the spec.

`floor`: the reactive floor, NaN where none is known.
"""


@dataclass(frozen=True)
class Pod:
    """One pod as the API and the metrics server see it.

    Attributes:
        phase: Pending, Running, Succeeded, Failed or Unknown.
        ready: the Ready condition; None if there is none.
        usage_cores: mean over `usage_window_seconds` up to `usage_time`; None if there is no sample.
        unsound: what of it can't be right, so that only its name is known; "" where all is.
    """

    service: str
    name: str
    phase: str
    deleting: bool
    start_time: float | None
    ready: bool | None
    ready_since: float | None
    usage_cores: float | None
    usage_time: float | None
    usage_window_seconds: float
    cpu_request_cores: float | None
    unsound: str = ""

    @property
    def there(self) -> bool:
        """Whether it runs or is on its way, and is neither being deleted, nor has failed or ended."""
        return not self.deleting and self.phase in ("Pending", "Running")


@dataclass(frozen=True)
class ScaleReport:
    """What a pass over the Deployments did: service -> replicas written, service -> why they weren't."""

    applied: Mapping[str, int]
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Happening:
    """What people who look at a Deployment are told.

    Attributes:
        reason: a word in CamelCase (`ScaledUp`).
        action: what was tried (`Scale`).
        note: a sentence: from what to what, and why.
        warning: whether somebody should look.
        target: the replicas, or the minimum, that it is about; None if there is no such number.
    """

    service: str
    reason: str
    action: str
    note: str
    warning: bool = False
    target: int | None = None


class Leadership(Protocol):
    """Says whether this controller may write: of several for one application only the leader may."""

    def leading(self) -> bool:
        """Whether this controller may write now."""
        ...

    def require(self, fit: Callable[[], bool]) -> None:
        """From now on lead only while `fit()` is true."""
        ...


class Undisputed:
    """Leadership where there is no other controller, or nothing to ask."""

    def leading(self) -> bool:
        """Always."""
        return True

    def require(self, fit: Callable[[], bool]) -> None:
        """Nobody else could lead instead."""


class Cluster(Protocol):
    """A running application. Times are seconds since the epoch (UTC)."""

    @property
    def services(self) -> tuple[str, ...]:
        """The services in the order of the configuration."""
        ...

    @property
    def api_failures(self) -> Mapping[int, int]:
        """HTTP status (0 means no answer) -> how often the orchestrator's API couldn't be read with it."""
        ...

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """Server that is asked (`prometheus`, `kubernetes`) -> how the requests to it went."""
        ...

    def now(self) -> float:
        """Current time."""
        ...

    def steady(self) -> float:
        """Seconds of a clock that is never set; where time is simulated, that is `now` itself."""
        ...

    def sleep_until(self, moment: float) -> None:
        """Return when `moment` of the steady clock has come."""
        ...

    def metrics(self, start: float, end: float, step: float) -> MetricPanel:
        """The five features at start, start + step, … <= end.

        Raises:
            MetricsError: the source can't be reached or knows none of the series.
        """
        ...

    def calls(self, start: float, end: float) -> CallGraph:
        """Calls in (start, end] by windows of `collect.calls_window`.

        Raises:
            MetricsError: the source can't be reached or knows none of the series.
        """
        ...

    def latencies(self, start: float, end: float, step: float) -> pd.DataFrame:
        """`ENDPOINT_COLUMNS`: one row per endpoint and step in (start, end]."""
        ...

    def entered(self, start: float, end: float, step: float) -> NDArray[np.float64]:
        """Requests per second that came to all entries together in each step of (start, end], `[K]`.

        What isn't known is NaN.

        Raises:
            MetricsError: the source can't be reached or knows none of the series.
        """
        ...

    def workloads(self) -> Sequence[Workload]:
        """One entry per service."""
        ...

    def pods(self) -> Sequence[Pod]:
        """All pods of all services, those being deleted included."""
        ...

    def pod_history(self, start: float, end: float) -> pd.DataFrame | None:
        """The pods in (start, end] as `POD_COLUMNS`; None if the recorder has to sample them."""
        ...

    def past_decisions(self, start: float, end: float) -> pd.DataFrame:
        """What controllers of the application decided in (start, end] as `PAST_COLUMNS`; empty if unknown.

        Raises:
            MetricsError: the source can't be reached.
        """
        ...

    def past_costs(self, start: float, end: float) -> tuple[float, Mapping[str, float]]:
        """When a controller of the application last told in (start, end] what its ways cost, and these.

        Minus infinity and nothing if that isn't known.

        Raises:
            MetricsError: the source can't be reached.
        """
        ...

    def leadership(self, *, wait: bool = False) -> AbstractContextManager[Leadership]:
        """Make ready to write, and be a candidate for the leadership until the end of the `with` block.

        Args:
            wait: return only when it is known who leads.

        Raises:
            ClusterError: the rights to write are missing, or another controller leads after the wait.
        """
        ...

    def scale(self, targets: Mapping[str, int]) -> ScaleReport:
        """Set the replicas of these services and of no others. One failure doesn't stop the rest."""
        ...

    def advise(self, minimums: Mapping[str, Advice | None]) -> ScaleReport:
        """Raise the minimums of the autoscalers of these services, or give them back (None).

        The report has the minimums that were written. One failure doesn't stop the rest.
        """
        ...

    def announce(self, happenings: Sequence[Happening]) -> None:
        """Tell people who look at the Deployments of these services. It never raises."""
        ...

    def annotate(self, happenings: Sequence[Happening]) -> None:
        """Say on the Deployments of these services what happened last. It never raises."""
        ...

    def reserve(self, spare: Mapping[str, int], until: float) -> None:
        """Ask for nodes with room for so many more pods of each service. It never raises.

        What was asked for services that aren't named is taken back.

        Args:
            spare: service -> pods beyond those that are there.
            until: when it is over unless it is asked again, seconds since the epoch.
        """
        ...
