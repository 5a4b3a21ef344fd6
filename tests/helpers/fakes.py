"""A cluster that does what a test says: scripted metrics, a clock that jumps, every write counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from deepscaler.calls import CallGraph
from deepscaler.cluster import (
    ENDPOINT_COLUMNS,
    PAST_COLUMNS,
    Advice,
    Happening,
    Pod,
    ScaleReport,
    Undisputed,
    Workload,
)
from deepscaler.errors import ClusterError, MetricsError
from deepscaler.panel import FEATURES, MetricPanel
from deepscaler.policies.base import Observation, Policy, Proposal, Reason
from deepscaler.settings import Settings
from deepscaler.upstream import Upstream
from helpers.moments import START

USUAL = {"cpu": 0.5, "mem": 0.3, "res": 0.05, "req": 10.0}
Value = float | Callable[[float], float]


@dataclass
class FakeCluster:
    """A cluster of `services`, all calm until told otherwise.

    Attributes:
        values: (service, feature) -> number or function of the time; NaN is a missing sample.
        metrics_down, api_down: from when until when Prometheus or the API can't be reached.
        failed_share: share of failed requests at the entry, of the time.
        refuse: service -> why a write is refused.
        writes: what was asked of `scale`, in order.
        decided: what earlier controllers decided, as `PAST_COLUMNS`, with or without a floor.
        costs: when they last told what their ways cost, and these.
        jumped: by how many seconds the wall clock was set so far.
        managers: service -> the field manager that set its replicas last.
        unready: service -> pods that haven't become ready.
        usage: service -> cores that each pod uses by the metrics server.
        hooks: called with the time whenever the clock moves.
    """

    names: tuple[str, ...] = ("web", "api", "db")
    clock: float = START
    replicas: dict[str, int] = field(default_factory=dict)
    values: dict[tuple[str, str], Value] = field(default_factory=dict)
    metrics_down: tuple[float, float] = (np.inf, np.inf)
    api_down: tuple[float, float] = (np.inf, np.inf)
    failed_share: Value = 0.0
    refuse: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, dict[str, str]] = field(default_factory=dict)
    autoscalers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    managers: dict[str, str] = field(default_factory=dict)
    unready: dict[str, int] = field(default_factory=dict)
    usage: dict[str, float] = field(default_factory=dict)
    limit_cores: float | None = 1.0
    jumped: float = 0.0
    writes: list[dict[str, int]] = field(default_factory=list)
    decided: list[tuple[float, str, int, float]] = field(default_factory=list)
    costs: tuple[float, dict[str, float]] = (-np.inf, {})
    api_failures: dict[int, int] = field(default_factory=dict)
    told: list[Happening] = field(default_factory=list)
    annotated: list[Happening] = field(default_factory=list)
    reserved: list[tuple[dict[str, int], float]] = field(default_factory=list)
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    load: Callable[[float], float] = lambda time: float("nan")
    hooks: list[Callable[[float], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.replicas = {name: self.replicas.get(name, 4) for name in self.names}

    @property
    def services(self) -> tuple[str, ...]:
        return self.names

    def now(self) -> float:
        return self.clock

    def steady(self) -> float:
        return self.clock - self.jumped

    def jump(self, seconds: float) -> None:
        """Set the wall clock anew; the steady clock goes on."""
        self.clock += seconds
        self.jumped += seconds

    def sleep_until(self, moment: float) -> None:
        self.clock = max(self.clock, moment + self.jumped)
        for hook in self.hooks:
            hook(self.clock)

    def metrics(self, start: float, end: float, step: float) -> MetricPanel:
        if self.metrics_down[0] <= self.clock < self.metrics_down[1]:
            raise MetricsError("http://prometheus: connection refused")
        times = start + step * np.arange(int(np.floor((end - start) / step + 1e-6)) + 1)
        values = np.array(
            [
                [[self._value(name, feature, time) for feature in FEATURES] for name in self.names]
                for time in times
            ]
        )
        return MetricPanel(times, self.names, tuple(FEATURES), values.astype(np.float32))

    def _value(self, service: str, feature: str, time: float) -> float:
        if self.metrics_down[0] <= time < self.metrics_down[1]:
            return float("nan")
        default = (
            float(self.replicas[service] - self.unready.get(service, 0))
            if feature == "pod"
            else USUAL[feature]
        )
        value = self.values.get((service, feature), default)
        return value(time) if callable(value) else value

    def calls(self, start: float, end: float) -> CallGraph:
        return CallGraph(pd.DataFrame(columns=["time", "caller", "callee", "calls_per_second"]))

    def latencies(self, start: float, end: float, step: float) -> pd.DataFrame:
        times = start + step * np.arange(1, int((end - start) / step + 1e-6) + 1)
        rows = pd.DataFrame(0.0, index=range(len(times)), columns=list(ENDPOINT_COLUMNS))
        share = [
            self.failed_share(time) if callable(self.failed_share) else self.failed_share for time in times
        ]
        counts = {"offered": 100.0, "done": 100.0 * (1 - np.array(share)), "failed": 100.0 * np.array(share)}
        return rows.assign(time=times, endpoint="GET /", **counts)

    def entered(self, start: float, end: float, step: float) -> np.ndarray:
        if self.metrics_down[0] <= self.clock < self.metrics_down[1]:
            raise MetricsError("http://prometheus: connection refused")
        times = start + step * np.arange(1, int((end - start) / step + 1e-6) + 1)
        return np.array([self.load(time) for time in times], np.float64)

    def workloads(self) -> Sequence[Workload]:
        if self.api_down[0] <= self.clock < self.api_down[1]:
            raise ClusterError("https://api: 401 Unauthorized; needs get deployments")
        return [
            Workload(
                name,
                self.replicas[name],
                self.limit_cores,
                0.5,
                annotations=self.annotations.get(name, {}),
                autoscalers=self.autoscalers.get(name, ()),
                manager=self.managers.get(name, ""),
            )
            for name in self.names
        ]

    def pods(self) -> Sequence[Pod]:
        return [self._pod(name, index) for name in self.names for index in range(self.replicas[name])]

    def _pod(self, name: str, index: int) -> Pod:
        ready = index >= self.unready.get(name, 0)
        return Pod(
            service=name,
            name=f"{name}-{index}",
            phase="Running",
            deleting=False,
            start_time=START - 600.0,
            ready=ready,
            ready_since=START - 600.0,
            usage_cores=self.usage.get(name),
            usage_time=self.clock - 15.0,
            usage_window_seconds=15.0,
            cpu_request_cores=0.5,
        )

    def pod_history(self, start: float, end: float) -> pd.DataFrame | None:
        return None

    def past_decisions(self, start: float, end: float) -> pd.DataFrame:
        if self.metrics_down[0] <= self.clock < self.metrics_down[1]:
            raise MetricsError("http://prometheus: connection refused")
        rows = [(*row, np.nan)[:5] for row in self.decided if start < row[0] <= end]
        return pd.DataFrame(rows, columns=list(PAST_COLUMNS))

    def past_costs(self, start: float, end: float) -> tuple[float, Mapping[str, float]]:
        if self.metrics_down[0] <= self.clock < self.metrics_down[1]:
            raise MetricsError("http://prometheus: connection refused")
        time, costs = self.costs
        return (time, costs) if start < time <= end else (-np.inf, {})

    def leadership(self, *, wait: bool = False) -> AbstractContextManager[Undisputed]:
        return nullcontext(Undisputed())

    def scale(self, targets: Mapping[str, int]) -> ScaleReport:
        self.writes.append(dict(targets))
        assert all(type(value) is int and value >= 1 for value in targets.values())
        applied = {name: value for name, value in targets.items() if name not in self.refuse}
        self.replicas.update(applied)
        return ScaleReport(applied, {name: self.refuse[name] for name in targets if name in self.refuse})

    def advise(self, minimums: Mapping[str, Advice | None]) -> ScaleReport:
        return ScaleReport({}, dict.fromkeys(minimums, "no HorizontalPodAutoscaler acts on it"))

    def announce(self, happenings: Sequence[Happening]) -> None:
        self.told.extend(happenings)

    def annotate(self, happenings: Sequence[Happening]) -> None:
        self.annotated.extend(happenings)

    def reserve(self, spare: Mapping[str, int], until: float) -> None:
        self.reserved.append((dict(spare), until))


@dataclass
class ScriptedPolicy(Policy):
    """Wants what a function of time says, for every workload; `seen` keeps the observations."""

    wish: Callable[[float, str], float | None]
    name: str = "scripted"
    period_seconds: float = 15.0
    history_seconds: float = 60.0
    guarded: bool = True
    seen: list[Observation] = field(default_factory=list)

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        self.seen.append(observation)
        wishes = {item.service: self.wish(observation.now, item.service) for item in observation.workloads}
        return {name: Proposal(wish, Reason.FORECAST, predicted=wish) for name, wish in wishes.items()}


def make_settings(names: Sequence[str] = ("web", "api", "db"), **scale: object) -> Settings:
    """Settings of an application `shop` with these services; keywords go to `scale`."""
    app = {
        "name": "shop",
        "services": dict.fromkeys(names),
        "entries": [{"name": "GET /", "service": names[0]}],
    }
    return Settings.model_validate({"app": app, "scale": scale})
