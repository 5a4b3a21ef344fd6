"""The virtual cluster: the emulated application behind the cluster port, days in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from deepscaler.artefacts import utc_seconds
from deepscaler.calls import EXTERNAL, CallGraph
from deepscaler.cluster import ENDPOINT_COLUMNS, Pod, ScaleReport, Undisputed, Workload
from deepscaler.errors import ClusterError, SettingsError
from deepscaler.panel import FEATURES, MetricPanel
from deepscaler.runs import POD_COLUMNS
from deepscaler.settings import Settings
from testbed import shapes
from testbed.application import load_application
from testbed.cluster.counters import counter_snapshot
from testbed.cluster.exposition import CounterSnapshot, deployment_of, pod_name
from testbed.engine import kernel as core
from testbed.engine.program import Program, compile_program
from testbed.engine.simulator import LoadPlan, Simulator, Snapshot


class Table:
    """Rows of one shape in one array that grows at its end."""

    def __init__(self, shape: tuple[int, ...], kind: type[np.generic]) -> None:
        self._array: NDArray[Any] = np.empty((256, *shape), kind)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: Any) -> None:
        """One row more."""
        if self._count == len(self._array):
            self._array = np.concatenate([self._array, np.empty_like(self._array)])
        self._array[self._count] = row
        self._count += 1

    @property
    def rows(self) -> NDArray[Any]:
        """All rows, `[L, ...]`; a view."""
        return self._array[: self._count]


class ScrapeHistory:
    """What the scrapes saw, a row each.

    Attributes:
        times: `[L]` seconds since the epoch.
        features: float32 `[L, N, 5]` in the order of `FEATURES`, as PromQL derives them from the last two scrapes.
        endpoints: `[L, K, 5 + B]` offered, done, failed, slow, seconds and buckets since the scrape before.
        edges: `[L, E]` calls finished since the scrape before.
        pods: `[L, N, 3]` spec, starting, ready.
    """

    def __init__(self, program: Program) -> None:
        self.times = Table((), np.float64)
        self.features = Table((program.num_services, len(FEATURES)), np.float32)
        self.endpoints = Table((len(program.endpoints), len(ENDPOINT_COLUMNS) - 2), np.float64)
        self.edges = Table((len(program.edges),), np.int64)
        self.pods = Table((program.num_services, 3), np.int64)


class PodUsage:
    """CPU of each pod at the last scrapes, found by its uid (uids count from 0)."""

    def __init__(self) -> None:
        self._work: NDArray[np.float64] = np.full(256, np.nan)
        self._cores: NDArray[np.float64] = np.full((2, 256), np.nan)
        self._times = (float("nan"), float("nan"))

    def update(
        self, uid: NDArray[np.int64], work: NDArray[np.float64], now: float, seconds: float
    ) -> NDArray[np.float64]:
        """Cores `[P]` used since the scrape before by the pods `uid`, who have used `work` CPU-seconds; NaN for new ones."""
        while len(uid) and uid.max() >= len(self._work):
            self._work = np.concatenate([self._work, np.full_like(self._work, np.nan)])
            self._cores = np.concatenate([self._cores, np.full_like(self._cores, np.nan)], axis=1)
        cores: NDArray[np.float64] = (work - self._work[uid]) / seconds
        self._work[uid] = work
        self._cores[0, uid] = self._cores[1, uid]
        self._cores[1, uid] = cores
        self._times = (self._times[1], now)
        return cores

    def older(self, uid: Sequence[int]) -> tuple[list[float | None], float]:
        """Cores `[P]` of the pods at the scrape before the last, None where it didn't know them; and when it was."""
        size, cores = len(self._work), self._cores[0]
        found = [float(cores[one]) if one < size else math.nan for one in uid]
        return [None if math.isnan(value) else value for value in found], self._times[0]


class VirtualCluster:
    """`deepscaler.cluster.Cluster` over the engine, in virtual time.

    Args:
        settings: the application's settings; `testbed` says what runs.
        seed: of load and randomness; default `testbed.seed`.
        plan: the load; default by `testbed.load` for `testbed.duration` seconds.
        keep_counters: keep the cumulative counters of every scrape, for remote write.

    Time starts `testbed.warmup` before `testbed.start`; the clock stands at `testbed.start` after construction.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        seed: int | None = None,
        plan: LoadPlan | None = None,
        keep_counters: bool = False,
    ) -> None:
        bed = settings.testbed
        self._settings = settings
        self.seed = bed.seed if seed is None else seed
        self.program: Program = make_program(settings)
        self._services = tuple(settings.app.services)
        self._order = np.array([self.program.services.index(name) for name in self._services])
        self._step = settings.collect.step
        self._origin = utc_seconds(bed.start) - bed.warmup
        self.end = utc_seconds(bed.start) + bed.duration
        self.plan = plan or make_plan(settings, self.program, self.seed)
        self._simulator = make_simulator(settings, self.program, self.plan, self.seed)
        self._history = ScrapeHistory(self.program)
        self._snapshots: list[Snapshot] = []
        self._usage = PodUsage()
        self._pod_names: dict[int, str] = {}
        self._keep = keep_counters
        self._last = self._simulator.snapshot()
        self._usage.update(self._last.pod_uid, self._last.pod_cpu, self._origin, self._step)
        self.sleep_until(self._origin + bed.warmup)

    # ----------------------------------------------------------------------------------------------------- the port
    @property
    def services(self) -> tuple[str, ...]:
        """In the order of the configuration."""
        return self._services

    @property
    def api_failures(self) -> Mapping[int, int]:
        """None: there is no API between."""
        return {}

    def now(self) -> float:
        """Virtual time."""
        return self._origin + self._simulator.now

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
        """The five features at start, start + step, … <= end, NaN where nothing was scraped (before the start)."""
        times: NDArray[np.float64] = start + step * np.arange(
            int(np.floor((end - start) / step + 1e-9)) + 1, dtype=np.float64
        )
        values = np.full((len(times), len(self._services), len(FEATURES)), np.nan, np.float32)
        slots = np.floor((times - self._origin) / self._step + 1e-9).astype(int) - 1
        known = (slots >= 0) & (slots < len(self._history.features))
        values[known] = self._history.features.rows[slots[known]]
        return MetricPanel(times, self._services, tuple(FEATURES), values)

    def calls(self, start: float, end: float) -> CallGraph:
        """Calls that finished in (start, end], by whole windows of `collect.calls_window`; a shorter span is one window."""
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
        """Per endpoint and step in (start, end]."""
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

    def workloads(self) -> Sequence[Workload]:
        """One entry a service; the boot time is the application's own."""
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
        """All pods; their CPU usage is that of the scrape before the last, as a metrics server's is some 15 s old."""
        records = self._simulator.pod_times().tolist()
        usage, moment = self._usage.older([record[0] for record in records])
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
                    usage_window_seconds=self._step,
                    cpu_request_cores=float(self.program.request_cores[service]),
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

    # ------------------------------------------------------------------------------------------------ beyond the port
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

    # ------------------------------------------------------------------------------------------------------- scraping
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
        history = self._history
        history.times.append(self.now())
        history.features.append(features[self._order])
        history.endpoints.append(np.concatenate(endpoints, axis=1))
        history.edges.append((now.edges - before.edges)[:, 1:].sum(axis=1))
        history.pods.append(np.stack([now.spec, starting, ready], axis=1)[self._order])
        self._last = now
        if self._keep:
            self._snapshots.append(now)

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


def make_program(settings: Settings) -> Program:
    """The emulated application, compiled.

    Raises:
        SettingsError: it has other services than `app.services`.
    """
    bed = settings.testbed
    program = compile_program(load_application(bed.application, sigma=bed.demand_sigma, seed=bed.demand_seed))
    _same_names("app.services", tuple(settings.app.services), program.services, bed.application)
    return program


def make_simulator(settings: Settings, program: Program, plan: LoadPlan, seed: int) -> Simulator:
    """The engine with `testbed.initial_replicas` of every service.

    Raises:
        SettingsError: the application has other endpoints than `app.entries`.
    """
    bed = settings.testbed
    return Simulator(
        program, plan, seed=seed, replicas=[bed.initial_replicas] * program.num_services,
        balancing=bed.balancing, slo_seconds=_slo_seconds(settings, program),
    )  # fmt: skip


def make_plan(settings: Settings, program: Program, seed: int) -> LoadPlan:
    """The offered load of `testbed.load`, its first value held through the warm-up.

    Raises:
        SettingsError: a mix names a task that the application hasn't, or leaves none.
    """
    bed = settings.testbed
    times, values = shapes.users(bed.load, bed.duration, seed)
    moments = np.concatenate([[0.0], np.asarray(times[1:], np.float64) + bed.warmup])
    if bed.load.kind == "open":
        plan = LoadPlan.open(moments, values, program.task_weights)
    else:
        plan = LoadPlan.closed(moments, values, program.task_weights, spread=bed.load.step)
    weights = dict(zip(program.tasks, program.task_weights.tolist(), strict=True))
    for change in bed.load.mix:
        unknown = sorted(set(change.weights) - set(weights))
        if unknown:
            raise SettingsError(
                f"testbed.load.mix: unknown task {unknown[0]!r}; tasks of {bed.application!r}: {', '.join(weights)}"
            )
        weights |= change.weights
        if not any(weights.values()):
            raise SettingsError(
                f"testbed.load.mix: after {change.after_seconds:g} s no task has a weight above 0"
            )
        plan = plan.remixed(bed.warmup + change.after_seconds, list(weights.values()))
    return plan


def connect(settings: Settings, seed: int | None = None) -> VirtualCluster:
    """The virtual cluster of these settings, its clock at `testbed.start`."""
    return VirtualCluster(settings, seed=seed)


def collect(settings: Settings, start: float, end: float) -> VirtualCluster:
    """A virtual cluster observed up to `end` under the exploring policy, re-simulated from `testbed.start`.

    Raises:
        ClusterError: `start` lies before `testbed.start`.
    """
    from deepscaler.control.controller import Controller
    from deepscaler.policies.registry import make_policy

    origin = utc_seconds(settings.testbed.start)
    if start < origin:
        raise ClusterError(
            f"collect.start lies {origin - start:g} s before testbed.start; the testbed knows nothing earlier"
        )
    longer = settings.testbed.model_copy(update={"duration": max(end - origin, settings.testbed.load.step)})
    settings = settings.model_copy(update={"testbed": longer})
    cluster = VirtualCluster(settings)
    controller = Controller(cluster, make_policy("explore", settings), settings)
    with tqdm(
        total=round((end - origin) / 3600, 2), desc="simulate", unit="h", disable=None, leave=False
    ) as bar:
        moment = origin
        while moment < end:
            moment = min(moment + 3600.0, end)
            controller.run(duration=moment - cluster.now())
            bar.update(round((moment - origin) / 3600 - bar.n, 2))
    return cluster


def _same_names(key: str, configured: tuple[str, ...], emulated: tuple[str, ...], name: str) -> None:
    extra, missing = sorted(set(configured) - set(emulated)), sorted(set(emulated) - set(configured))
    if extra or missing:
        raise SettingsError(
            f"{key}: differs from the emulated application {name!r}: "
            f"not emulated: {', '.join(extra) or 'none'}; not configured: {', '.join(missing) or 'none'}"
        )


def _slo_seconds(settings: Settings, program: Program) -> list[float]:
    entries = {entry.name: entry.slo for entry in settings.app.entries}
    _same_names("app.entries", tuple(entries), program.endpoints, settings.testbed.application)
    return [entries[name] for name in program.endpoints]
