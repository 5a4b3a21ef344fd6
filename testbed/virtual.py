"""The virtual cluster: the emulated application behind the cluster port, days in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from deepscaler.artefacts import utc_seconds
from deepscaler.calls import EXTERNAL, CallGraph
from deepscaler.cluster import ENDPOINT_COLUMNS, Pod, ScaleReport, Workload
from deepscaler.errors import ClusterError, SettingsError
from deepscaler.panel import FEATURES, MetricPanel
from deepscaler.runs import POD_COLUMNS
from deepscaler.settings import Settings
from testbed import engine as core
from testbed import shapes  # late
from testbed.application import Program, compile_program, load_application
from testbed.counters import counter_snapshot
from testbed.exposition import CounterSnapshot, pod_name
from testbed.simulator import LoadPlan, Simulator, Snapshot

MEBIBYTE = float(1 << 20)


@dataclass(frozen=True, eq=False)
class Scrape:
    """What one virtual scrape adds to the history.

    Attributes:
        features: float32 `[N, 5]` in the order of `FEATURES`, as PromQL derives them from the last two scrapes.
        endpoints: `[K, 5 + B]` offered, done, failed, slow, seconds and buckets since the scrape before.
        edges: `[E]` calls finished since the scrape before.
        pods: `[N, 3]` spec, starting, ready.
    """

    time: float
    features: NDArray[np.float32]
    endpoints: NDArray[np.float64]
    edges: NDArray[np.int64]
    pods: NDArray[np.int64]


class VirtualCluster:
    """`deepscaler.cluster.Cluster` over the engine, in virtual time.

    Args:
        settings: the application's settings; `testbed` says what runs.
        seed: of load and randomness; default `testbed.seed`.
        plan: the load; default by `testbed.load` for `testbed.duration` seconds.
        keep_counters: keep the cumulative counters of every scrape, for remote write.

    Time starts `testbed.warmup` before `testbed.start`; the clock stands at `testbed.start` after construction.
    """

    def __init__(self, settings: Settings, *, seed: int | None = None, plan: LoadPlan | None = None, keep_counters: bool = False) -> None:
        bed = settings.testbed
        self._settings = settings
        self.seed = bed.seed if seed is None else seed
        application = load_application(bed.application, sigma=bed.demand_sigma, seed=self.seed)
        self.program: Program = compile_program(application)
        self._services = tuple(settings.app.services)
        same_names("app.services", self._services, self.program.services, bed.application)
        self._row = np.array([self._services.index(name) for name in self.program.services])
        self._step = settings.collect.step
        self._origin = utc_seconds(bed.start) - bed.warmup
        self.end = utc_seconds(bed.start) + bed.duration
        self.plan = plan or make_plan(settings, self.program, self.seed)
        self._simulator = Simulator(
            self.program, self.plan, seed=self.seed, replicas=[bed.initial_replicas] * self.program.num_services,
            balancing=bed.balancing, slo_seconds=slo_seconds(settings, self.program),
        )  # fmt: skip
        self._history: list[Scrape] = []
        self._snapshots: list[Snapshot] = []
        self._usage: dict[int, tuple[float, float]] = {}
        self._older_usage: dict[int, tuple[float, float]] = {}
        self._keep = keep_counters
        self._last = self._simulator.snapshot()
        self.sleep_until(self._origin + bed.warmup)

    # ----------------------------------------------------------------------------------------------------- the port
    @property
    def services(self) -> tuple[str, ...]:
        """In the order of the configuration."""
        return self._services

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
        times: NDArray[np.float64] = start + step * np.arange(int(np.floor((end - start) / step + 1e-9)) + 1, dtype=np.float64)
        values = np.full((len(times), len(self._services), len(FEATURES)), np.nan, np.float32)
        slots = np.floor((times - self._origin) / self._step + 1e-9).astype(int) - 1
        for row, slot in enumerate(slots):
            if 0 <= slot < len(self._history):
                values[row] = self._history[slot].features
        return MetricPanel(times, self._services, tuple(FEATURES), values)

    def calls(self, start: float, end: float) -> CallGraph:
        """Calls that finished in (start, end], by windows of `collect.calls_window`."""
        window = self._settings.collect.calls_window
        rows: list[tuple[float, str, str, float]] = []
        moment = start
        while moment + window <= end + 1e-6:
            edges = np.sum([scrape.edges for scrape in self._between(moment, moment + window)], axis=0)
            for (caller, callee), count in zip(self.program.edges, np.atleast_1d(edges), strict=False):
                name = self.program.services[caller] if caller >= 0 else EXTERNAL
                if count > 0:
                    rows.append((moment + window, name, self.program.services[callee], count / window))
            moment += window
        return CallGraph(pd.DataFrame(rows, columns=["time", "caller", "callee", "calls_per_second"]))

    def latencies(self, start: float, end: float, step: float) -> pd.DataFrame:
        """Per endpoint and step in (start, end]."""
        scrapes = self._between(start, end)
        every = max(round(step / self._step), 1)
        frames = []
        for first in range(0, len(scrapes) - every + 1, every):
            group = scrapes[first : first + every]
            block = pd.DataFrame(np.sum([scrape.endpoints for scrape in group], axis=0), columns=ENDPOINT_COLUMNS[2:])
            block.insert(0, "endpoint", self.program.endpoints)
            block.insert(0, "time", group[-1].time)
            frames.append(block)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(ENDPOINT_COLUMNS))

    def workloads(self) -> Sequence[Workload]:
        """One entry a service; the boot time is the application's own."""
        program, spec = self.program, self._simulator.spec
        found = {
            name: Workload(
                service=name,
                replicas=int(spec[index]),
                cpu_limit_cores=float(program.limit_cores[index]),
                cpu_request_cores=float(program.request_cores[index]),
                memory_limit_bytes=float(program.limit_memory_bytes[index]),
                memory_request_bytes=float(program.request_memory_bytes[index]),
                boot_seconds=float(program.boot_seconds[index]),
            )
            for index, name in enumerate(program.services)
        }
        return [found[name] for name in self._services]

    def pods(self) -> Sequence[Pod]:
        """All pods; their CPU usage is that of the scrape before the last, as a metrics server's is some 15 s old."""
        pods = []
        for record in self._simulator.pod_times():
            uid, name = int(record["uid"]), self.program.services[int(record["service"])]
            ready = int(record["state"]) != core.STARTING
            cores, moment = self._older_usage.get(uid, (None, None))
            pods.append(
                Pod(
                    service=name,
                    name=pod_name(name, uid),
                    phase="Running",
                    deleting=int(record["state"]) == core.DRAINING,
                    start_time=self._origin + float(record["created"]),
                    ready=ready,
                    ready_since=self._origin + float(record["ready_at"] if ready else record["created"]),
                    usage_cores=cores,
                    usage_time=moment,
                    usage_window_seconds=self._step,
                    cpu_request_cores=float(self.program.request_cores[int(record["service"])]),
                )
            )
        return pods

    def scale(self, targets: Mapping[str, int]) -> ScaleReport:
        """Set replicas at once."""
        applied, failed = {}, {}
        for name, replicas in targets.items():
            if name not in self._services:
                failed[name] = f"unknown service; the application has {', '.join(self._services)}"
            elif not isinstance(replicas, int) or replicas < 0:
                failed[name] = f"replicas must be a whole number from 0, found {replicas!r}"
            else:
                self._simulator.scale(self.program.services.index(name), replicas)
                applied[name] = replicas
        return ScaleReport(applied, failed)

    # ------------------------------------------------------------------------------------------------ beyond the port
    def pod_history(self, start: float, end: float) -> pd.DataFrame:
        """`POD_COLUMNS` at every scrape in (start, end]."""
        scrapes = self._between(start, end)
        count = len(self._services)
        pods = np.concatenate([scrape.pods for scrape in scrapes]) if scrapes else np.zeros((0, 3), np.int64)
        frame = pd.DataFrame(pods, columns=["spec", "starting", "ready"])
        frame.insert(0, "service", list(self._services) * len(scrapes))
        frame.insert(0, "time", np.repeat([scrape.time for scrape in scrapes], count))
        return frame[list(POD_COLUMNS)]

    def counters(self) -> list[CounterSnapshot]:
        """The cumulative counters of every scrape (with `keep_counters`)."""
        return [counter_snapshot(self.program, snapshot, self._origin) for snapshot in self._snapshots]

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._simulator.in_flight

    # ------------------------------------------------------------------------------------------------------- scraping
    def _between(self, start: float, end: float) -> list[Scrape]:
        low = int(np.floor((start - self._origin) / self._step + 1e-9))
        high = int(np.floor((end - self._origin) / self._step + 1e-9))
        return self._history[max(low, 0) : max(high, 0)]

    def _scrape(self) -> None:
        before, now = self._last, self._simulator.snapshot()
        seconds = now.time - before.time
        finished = now.service_finished - before.service_finished
        endpoints = np.column_stack(
            [
                now.endpoints - before.endpoints,
                now.endpoint_seconds - before.endpoint_seconds,
                now.endpoint_buckets - before.endpoint_buckets,
            ]
        )
        features = np.full((len(self._services), len(FEATURES)), np.nan)
        features[self._row, 0] = np.bincount(now.pod_service[now.pod_state == core.READY], minlength=len(self._services))
        features[self._row, 1] = self._cpu_ratio(before, now, seconds)
        features[self._row, 2] = self._memory_ratio(now)
        mean = (now.service_seconds - before.service_seconds) / np.maximum(finished, 1)
        features[self._row, 3] = np.where(finished > 0, mean, np.nan)
        features[self._row, 4] = finished / seconds
        starting = np.bincount(now.pod_service[now.pod_state == core.STARTING], minlength=len(self._services))
        pods = np.zeros((len(self._services), 3), np.int64)
        pods[self._row, 0], pods[self._row, 1] = now.spec, starting
        pods[:, 2] = features[:, 0]
        edges = (now.edges - before.edges)[:, 1:].sum(axis=1)
        self._history.append(Scrape(self.now(), features.astype(np.float32), endpoints.astype(np.float64), edges, pods))
        self._last = now
        if self._keep:
            self._snapshots.append(now)

    def _cpu_ratio(self, before: Snapshot, now: Snapshot, seconds: float) -> NDArray[np.float64]:
        """Cores used by the pods that both scrapes saw, over their limits, `[N]`; NaN without such a pod."""
        _, old, new = np.intersect1d(before.pod_uid, now.pod_uid, return_indices=True)
        cores = (now.pod_cpu[new] - before.pod_cpu[old]) / seconds
        service = now.pod_service[new]
        self._older_usage, self._usage = (
            self._usage,
            {int(uid): (float(value), self.now()) for uid, value in zip(now.pod_uid[new], cores, strict=True)},
        )
        used = np.bincount(service, weights=cores, minlength=len(self._services))
        limit = np.bincount(service, minlength=len(self._services)) * self.program.limit_cores
        return np.where(limit > 0, used / np.where(limit > 0, limit, 1.0), np.nan)

    def _memory_ratio(self, now: Snapshot) -> NDArray[np.float64]:
        program, count = self.program, np.bincount(now.pod_service, minlength=len(self._services))
        in_flight = np.bincount(now.pod_service, weights=now.pod_in_flight, minlength=len(self._services))
        used = count * program.memory_base_bytes + in_flight * program.memory_per_request_bytes
        return np.where(count > 0, used / np.maximum(count * program.limit_memory_bytes, 1.0), np.nan)


def make_plan(settings: Settings, program: Program, seed: int) -> LoadPlan:
    """The offered load of `testbed.load`, its first value held through the warm-up."""
    bed = settings.testbed
    times, values = shapes.users(bed.load, bed.duration, seed)
    moments = np.concatenate([[0.0], np.asarray(times[1:], np.float64) + bed.warmup])
    if bed.load.kind == "open":
        return LoadPlan.open(moments, values, program.task_weights)
    return LoadPlan.closed(moments, values, program.task_weights, spread=bed.load.step)


def connect(settings: Settings, seed: int | None = None) -> VirtualCluster:
    """The virtual cluster of these settings, its clock at `testbed.start`."""
    return VirtualCluster(settings, seed=seed)


def collect(settings: Settings, start: float, end: float) -> VirtualCluster:
    """A virtual cluster observed up to `end` under the exploring policy, re-simulated from `testbed.start`.

    Raises:
        ClusterError: `start` lies before `testbed.start`.
    """
    from deepscaler.controller import Controller
    from deepscaler.policies.registry import make_policy

    origin = utc_seconds(settings.testbed.start)
    if start < origin:
        raise ClusterError(f"collect.start lies {origin - start:g} s before testbed.start; the testbed knows nothing earlier")
    longer = settings.testbed.model_copy(update={"duration": max(end - origin, settings.testbed.load.step)})
    settings = settings.model_copy(update={"testbed": longer})
    cluster = VirtualCluster(settings)
    controller = Controller(cluster, make_policy("explore", settings), settings)
    with tqdm(total=round((end - origin) / 3600, 2), desc="simulate", unit="h", disable=None, leave=False) as bar:
        moment = origin
        while moment < end:
            moment = min(moment + 3600.0, end)
            controller.run(duration=moment - cluster.now())
            bar.update(round((moment - origin) / 3600 - bar.n, 2))
    return cluster


def same_names(key: str, configured: tuple[str, ...], emulated: tuple[str, ...], name: str) -> None:
    extra, missing = sorted(set(configured) - set(emulated)), sorted(set(emulated) - set(configured))
    if extra or missing:
        raise SettingsError(
            f"{key}: differs from the emulated application {name!r}: "
            f"not emulated: {', '.join(extra) or 'none'}; not configured: {', '.join(missing) or 'none'}"
        )


def slo_seconds(settings: Settings, program: Program) -> list[float]:
    entries = {entry.name: entry.slo for entry in settings.app.entries}
    same_names("app.entries", tuple(entries), program.endpoints, settings.testbed.application)
    return [entries[name] for name in program.endpoints]
