"""The virtual cluster: the emulated application behind the cluster port, days in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.artefacts import utc_seconds
from deepscaler.calls import EXTERNAL, CallGraph
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
from deepscaler.panel import FEATURES, MetricPanel
from deepscaler.runs import POD_COLUMNS
from deepscaler.settings import Settings, Testbed
from deepscaler.upstream import Upstream
from sendFlow.shapes import Floats
from testbed import shapes
from testbed.cluster.counters import counter_snapshot
from testbed.cluster.emulation import make_plan, make_program, make_simulator
from testbed.cluster.exposition import CounterSnapshot, deployment_of, pod_name
from testbed.cluster.scrapes import PodUsage, ScrapeHistory
from testbed.engine import kernel as core
from testbed.engine.program import Program
from testbed.engine.simulator import LoadPlan, Snapshot

DONE, SECONDS = (ENDPOINT_COLUMNS.index(name) - 2 for name in ("done", "duration_seconds"))
"""Columns of `ScrapeHistory.endpoints`."""


class VirtualCluster:
    """`deepscaler.cluster.Cluster` over the engine, in virtual time.

    Args:
        settings: the application's settings; `testbed` says what runs.
        seed: seed of the load and of every random stream; None: `testbed.seed`.
        plan: the load; None: that of `testbed.load` for `testbed.duration` seconds.
        program: the application; None: that of `testbed.application`.
        replicas: those that run at the beginning, by service; `testbed.initial_replicas` of others.
        keep_counters: keep the cumulative counters of every scrape, for remote write.

    Time starts `testbed.warmup` before `testbed.start`; the clock stands at `testbed.start` after
    construction.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        seed: int | None = None,
        plan: LoadPlan | None = None,
        program: Program | None = None,
        replicas: Mapping[str, int] | None = None,
        keep_counters: bool = False,
    ) -> None:
        bed = settings.testbed
        self._settings = settings
        self.seed = bed.seed if seed is None else seed
        self.program: Program = program or make_program(settings)
        self._services = tuple(settings.app.services)
        self._order = np.array([self.program.services.index(name) for name in self._services])
        self._step, self._delay = settings.collect.step, bed.metrics_delay
        self._origin = utc_seconds(bed.start) - bed.warmup
        self.end = utc_seconds(bed.start) + bed.duration
        self.plan = plan or make_plan(settings, self.program, self.seed)
        self._simulator = make_simulator(settings, self.program, self.plan, self.seed, replicas)
        self._history = ScrapeHistory(self.program)
        self._snapshots: list[Snapshot] = []
        self._usage = PodUsage(self._step)
        self._served = _metrics_server(bed, self._step)  # what HPAs read
        self._served_at = 0.0
        self._proxy_seconds: NDArray[np.float64] = np.zeros(self.program.num_services)
        self._pod_names: dict[int, str] = {}
        self._keep = keep_counters
        self._last = self._simulator.snapshot()
        for seen in (self._usage, self._served):
            seen.update(self._last.pod_uid, self._last.pod_cpu, self._origin, self._step)
        self.sleep_until(self._origin + bed.warmup)

    # ----------------------------------------------------------------------------------------------- the port
    @property
    def services(self) -> tuple[str, ...]:
        """The services in the order of the configuration."""
        return self._services

    @property
    def api_failures(self) -> Mapping[int, int]:
        """Always empty, because no API stands between."""
        return {}

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """Empty: nothing is asked over a network."""
        return {}

    def now(self) -> float:
        """Virtual time."""
        return self._origin + self._simulator.now

    def steady(self) -> float:
        """Virtual time, which nobody sets."""
        return self.now()

    def sleep_until(self, moment: float) -> None:
        """Simulate up to `moment`, scraping at every multiple of `collect.step`."""
        while True:
            following = self._origin + (np.floor(self._simulator.now / self._step + 1e-9) + 1) * self._step
            if following > moment + 1e-9:
                break
            self._simulator.advance(following - self._origin)
            self._scrape()
        if moment > self.now():
            self._simulator.advance(moment - self._origin)

    def metrics(self, start: float, end: float, step: float) -> MetricPanel:
        """The five features at start, start + step, … <= end; NaN before the first scrape.

        Each is as the scrape `testbed.metrics_delay` before the one at that time found it.
        What users waited is told where services call entries; elsewhere the entries' responses tell it.
        """
        times: NDArray[np.float64] = start + step * np.arange(
            int(np.floor((end - start) / step + 1e-9)) + 1, dtype=np.float64
        )
        values = np.full((len(times), len(self._services), len(FEATURES)), np.nan, np.float32)
        slots = np.floor((times - self._origin) / self._step + 1e-9).astype(int) - 1 - self._delay
        known = (slots >= 0) & (slots < len(self._history.features))
        values[known] = self._history.features.rows[slots[known]]
        waited = None
        if self._mixed:
            waited = np.full(len(times), np.nan, np.float32)
            done, seconds = self._history.endpoints.rows[slots[known]].sum(axis=1)[:, [DONE, SECONDS]].T
            waited[known] = np.where(done > 0, seconds / np.maximum(done, 1.0), np.nan)
        return MetricPanel(times, self._services, tuple(FEATURES), values, waited=waited)

    @cached_property
    def _mixed(self) -> bool:
        """Whether some service calls one at which requests enter."""
        caller, callee = self.program.edges.T
        return bool(np.isin(self.program.endpoint_service, callee[caller >= 0]).any())

    def calls(self, start: float, end: float) -> CallGraph:
        """Calls that finished in (start, end], by whole windows of `collect.calls_window`.

        A span shorter than a window is one window.
        """
        window = min(self._settings.collect.calls_window, end - start)
        rows: list[tuple[float, str, str, float]] = []
        moment = start
        while window > 0 and moment + window <= end + 1e-6:
            edges = self._history.edges.rows[self._between(moment, moment + window)].sum(axis=0)
            for (caller, callee), count in zip(self.program.edges, edges.tolist(), strict=True):
                name = self.program.services[caller] if caller >= 0 else EXTERNAL
                if count > 0:
                    rows.append((moment + window, name, self.program.services[callee], count / window))
            moment += window
        return CallGraph(pd.DataFrame(rows, columns=["time", "caller", "callee", "calls_per_second"]))

    def latencies(self, start: float, end: float, step: float) -> pd.DataFrame:
        """Counts and durations per endpoint and step in (start, end]."""
        endpoints = self._history.endpoints.rows[self._between(start, end)]
        times = self._history.times.rows[self._between(start, end)]
        every, names = max(round(step / self._step), 1), self.program.endpoints
        groups = len(times) // every
        sums = (
            endpoints[: groups * every].reshape(groups, every, *endpoints.shape[1:]).sum(axis=1)
        )  # [groups, K, 5 + B]
        frame = pd.DataFrame(
            sums.reshape(groups * len(names), endpoints.shape[2]), columns=ENDPOINT_COLUMNS[2:]
        )
        frame.insert(0, "endpoint", list(names) * groups)
        frame.insert(0, "time", np.repeat(times[every - 1 : groups * every : every], len(names)))
        return frame

    def entered(self, start: float, end: float, step: float) -> NDArray[np.float64]:
        """Requests per second that came to all entries in each step of (start, end].

        For `testbed.earlier` seconds before the cluster began they are drawn around what the load then asked
        for, in the proportion of requests to users (or arrivals) of the warm-up; before that they are NaN.
        """
        count = int(np.floor((end - start) / step + 1e-9))
        edges: NDArray[np.float64] = start + step * np.arange(count + 1, dtype=np.float64)
        offered = self._history.endpoints.rows[:, :, 0].sum(axis=1)
        at = np.searchsorted(self._history.times.rows, edges + 1e-6, side="right")
        sums = np.concatenate([[0.0], np.cumsum(offered)])
        rates = (sums[at[1:]] - sums[at[:-1]]) / step
        known = (edges[:-1] >= self._origin - 1e-6) & (edges[1:] <= self.now() + 1e-6)
        earlier = edges[1:] <= self._origin + 1e-6
        found: NDArray[np.float64] = np.where(
            known, rates, np.where(earlier, self._earlier(edges[1:]), np.nan)
        )
        return found

    def _earlier(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Request rates before the cluster began, one for each of `times`; each time gets the same always."""
        bed, begun = self._settings.testbed, self._origin - self._settings.testbed.earlier
        if not bed.earlier:
            return np.full(len(times), np.nan)
        times_seen, warm_up = self._history.times.rows - self._origin, bed.warmup
        warm = (times_seen > warm_up / 2 + 1e-6) & (
            times_seen <= warm_up + 1e-6
        )  # all users have begun by then
        seconds = max(float(np.count_nonzero(warm)) * self._step, self._step)
        rate = float(self._history.endpoints.rows[warm][:, :, 0].sum()) / seconds
        asked = self.plan.users[0] if bed.load.kind == "closed" else self.plan.rates[0]
        moments, values = self._earlier_users
        places = np.clip(np.searchsorted(moments, times - begun, side="right") - 1, 0, len(values) - 1)
        means = values[places] * rate / max(float(asked), 1e-9)
        noise = [np.random.default_rng((self.seed, int(time))).standard_normal() for time in times.tolist()]
        drawn: NDArray[np.float64] = np.maximum(means + np.sqrt(means / 60.0) * np.array(noise), 0.0)
        return np.where(times > begun, drawn, np.nan)

    @cached_property
    def _earlier_users(self) -> tuple[Floats, Floats]:
        """The load before the cluster began; a trace is read once, not for each hour of it."""
        bed = self._settings.testbed
        return shapes.earlier_users(bed.load, bed.earlier, bed.duration, self.seed)

    def workloads(self) -> Sequence[Workload]:
        """One entry per service; its boot time is what the application file says."""
        spec = self._simulator.spec.tolist()
        return [self._workload(self.program.services.index(name), spec) for name in self._services]

    def _workload(self, index: int, spec: list[int]) -> Workload:
        program = self.program
        return Workload(
            service=program.services[index],
            replicas=spec[index],
            cpu_limit_cores=float(program.limit_cores[index]),
            cpu_request_cores=float(program.request_cores[index]),
            memory_limit_bytes=float(program.limit_memory_bytes[index]),
            memory_request_bytes=float(program.request_memory_bytes[index]),
            boot_seconds=float(program.boot_seconds[index]),
        )

    def pods(self) -> Sequence[Pod]:
        """All pods, with the CPU usage of their containers, a proxy's too, that a metrics server gives.

        It samples every `testbed.usage_seconds`, and what it gives is `testbed.usage_delay` samples old.
        """
        proxy, served = self.program.proxy, self._served
        records = self._simulator.pod_times().tolist()
        uids = [record[0] for record in records]
        usage, moment = served.seen(uids)
        self._pod_names = {
            uid: self._pod_names.get(uid) or self._pod_name(service, uid) for uid, service, *_ in records
        }
        pods = []
        for (uid, service, state, created, ready_at), cores in zip(records, usage, strict=True):
            ready = state != core.STARTING
            pods.append(
                Pod(
                    service=self.program.services[service],
                    name=self._pod_names[uid],
                    phase="Running",
                    deleting=state == core.DRAINING,
                    start_time=self._origin + created,
                    ready=ready,
                    ready_since=self._origin + (ready_at if ready else created),
                    usage_cores=cores,
                    usage_time=None if cores is None else moment,
                    usage_window_seconds=served.every,
                    cpu_request_cores=float(self.program.request_cores[service]) + proxy.request_cores,
                )
            )
        return pods

    def _pod_name(self, service: int, uid: int) -> str:
        return pod_name(deployment_of(self._settings.app, self.program.services[service]), uid)

    def scale(self, targets: Mapping[str, int]) -> ScaleReport:
        """Set replicas at once."""
        applied, failed = {}, {}
        for name, replicas in targets.items():
            if name not in self._services:
                failed[name] = f"unknown service; the application has {', '.join(self._services)}"
            elif not self._settings.app.services[name].scaled:
                failed[name] = f"not scaled (app.services.{name}.scaled: false)"
            elif type(replicas) is not int or replicas < 1:
                failed[name] = f"replicas must be a whole number from 1, found {replicas!r}"
            else:
                self._simulator.scale(self.program.services.index(name), replicas)
                applied[name] = replicas
        return ScaleReport(applied, failed)

    def advise(self, minimums: Mapping[str, Advice | None]) -> ScaleReport:
        """Nothing: there are no autoscalers beside the policy that runs."""
        return ScaleReport({}, dict.fromkeys(minimums, "no HorizontalPodAutoscaler acts on it"))

    def announce(self, happenings: Sequence[Happening]) -> None:
        """Nothing: nobody looks."""

    def annotate(self, happenings: Sequence[Happening]) -> None:
        """Nothing: nobody looks."""

    def reserve(self, spare: Mapping[str, int], until: float) -> None:
        """Nothing: there are no nodes."""

    def past_decisions(self, start: float, end: float) -> pd.DataFrame:
        """None: a run begins with nothing decided."""
        return pd.DataFrame(columns=list(PAST_COLUMNS))

    def past_costs(self, start: float, end: float) -> tuple[float, Mapping[str, float]]:
        """None: a run begins with nothing known."""
        return -math.inf, {}

    # ---------------------------------------------------------------------------------------- beyond the port
    def pod_history(self, start: float, end: float) -> pd.DataFrame:
        """`POD_COLUMNS` at every scrape in (start, end]."""
        times, pods = (
            table.rows[self._between(start, end)] for table in (self._history.times, self._history.pods)
        )
        frame = pd.DataFrame(pods.reshape(-1, 3), columns=["spec", "starting", "ready"])
        frame.insert(0, "service", list(self._services) * len(times))
        frame.insert(0, "time", np.repeat(times, len(self._services)))
        return frame[list(POD_COLUMNS)]

    def leadership(self, *, wait: bool = False) -> AbstractContextManager[Undisputed]:
        """Always led: a virtual cluster has one controller."""
        return nullcontext(Undisputed())

    def counters(self) -> list[CounterSnapshot]:
        """The cumulative counters of every scrape (with `keep_counters`)."""
        return [
            counter_snapshot(self.program, self._settings.app, snapshot, self._origin)
            for snapshot in self._snapshots
        ]

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._simulator.in_flight

    # ----------------------------------------------------------------------------------------------- scraping
    def _between(self, start: float, end: float) -> slice:
        """Rows of the history in (start, end]."""
        low = int(np.floor((start - self._origin) / self._step + 1e-9))
        high = int(np.floor((end - self._origin) / self._step + 1e-9))
        return slice(max(low, 0), max(high, 0))

    def _scrape(self) -> None:
        before, now = self._last, self._simulator.snapshot()
        count, seconds = len(self._services), now.time - before.time
        finished = now.service_finished - before.service_finished
        ready, starting = (
            np.bincount(now.pod_service[now.pod_state == state], minlength=count)
            for state in (core.READY, core.STARTING)
        )
        mean = (now.service_seconds - before.service_seconds) / np.maximum(finished, 1)
        features = np.empty((count, len(FEATURES)))
        features[:, 0] = ready
        features[:, 1] = self._cpu_ratio(now, seconds)
        features[:, 2] = self._memory_ratio(now)
        features[:, 3] = np.where(finished > 0, mean, np.nan)
        features[:, 4] = finished / seconds
        endpoints = [
            now.endpoints - before.endpoints,
            (now.endpoint_seconds - before.endpoint_seconds)[:, None],
            now.endpoint_buckets - before.endpoint_buckets,
        ]
        self._proxy_seconds = self._proxy_seconds + self._of_proxies(now, seconds)
        self._sample(now)
        history = self._history
        history.times.append(self.now())
        history.features.append(features[self._order])
        history.endpoints.append(np.concatenate(endpoints, axis=1))
        history.edges.append((now.edges - before.edges)[:, 1:].sum(axis=1))
        history.pods.append(np.stack([now.spec, starting, ready], axis=1)[self._order])
        self._last = now
        if self._keep:
            self._snapshots.append(now)

    def _of_proxies(self, now: Snapshot, seconds: float) -> NDArray[np.float64]:
        """CPU-seconds that the proxy of one pod of each service has used since the scrape before, `[N]`."""
        proxy, callers = self.program.proxy, self.program.edges[:, 0]
        incoming = (now.service_finished - self._last.service_finished).astype(np.float64)
        done = (now.edges - self._last.edges)[:, 1:].sum(axis=1)
        inside = callers >= 0
        outgoing = np.bincount(callers[inside], weights=done[inside], minlength=len(incoming))
        ready = np.bincount(now.pod_service[now.pod_state == core.READY], minlength=len(incoming))
        per_pod = (incoming + outgoing) / np.maximum(ready, 1)
        return np.asarray(proxy.idle_cores * seconds + proxy.call_seconds * per_pod)

    def _sample(self, now: Snapshot) -> None:
        """Let the metrics server read the pods, at the first scrape after it is time."""
        served = self._served
        if (now.time + 1e-9) % served.every < self._step - 1e-6:
            by_age = np.argsort(now.pod_uid)
            work = (now.pod_cpu + self._proxy_seconds[now.pod_service])[by_age]
            served.update(now.pod_uid[by_age], work, self.now(), now.time - self._served_at)
            self._served_at = now.time

    def _cpu_ratio(self, now: Snapshot, seconds: float) -> NDArray[np.float64]:
        """Cores used by the pods that both scrapes saw, over their limits, `[N]`; NaN without such a pod."""
        by_age = np.argsort(now.pod_uid)
        cores, service = (
            self._usage.update(now.pod_uid[by_age], now.pod_cpu[by_age], self.now(), seconds),
            now.pod_service[by_age],
        )
        known = np.isfinite(cores)
        used = np.bincount(service[known], weights=cores[known], minlength=len(self._services))
        limit = np.bincount(service[known], minlength=len(self._services)) * self.program.limit_cores
        return np.where(limit > 0, used / np.where(limit > 0, limit, 1.0), np.nan)

    def _memory_ratio(self, now: Snapshot) -> NDArray[np.float64]:
        program, count = self.program, np.bincount(now.pod_service, minlength=len(self._services))
        in_flight = np.bincount(now.pod_service, weights=now.pod_in_flight, minlength=len(self._services))
        used = count * program.memory_base_bytes + in_flight * program.memory_per_request_bytes
        return np.where(count > 0, used / np.maximum(count * program.limit_memory_bytes, 1.0), np.nan)


def _metrics_server(bed: Testbed, step: float) -> PodUsage:
    """It samples at scrapes, so no more often than these come."""
    fast = bed.usage_seconds is None
    delay = int(fast) if bed.usage_delay is None else bed.usage_delay
    return PodUsage(max(bed.usage_seconds or step, step), delay)
