"""The Python side of the engine: its memory, the life of its pods, snapshots of its counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.cluster import LATENCY_BUCKETS
from testbed.engine import kernel as core

if TYPE_CHECKING:
    from testbed.engine.program import Program


@dataclass(frozen=True)
class LoadPlan:
    """Offered load over time, in engine seconds; each of the K rows holds until the next.

    Attributes:
        times: `[K]` rising, the first at or before 0.
        users: `[K]` users of the closed loop.
        rates: `[K]` arrivals per second of the open loop; each is a user who does one task and leaves.
        mixes: `[M, S]` weights of the scenarios.
        mix: `[K]` the row of `mixes` that holds.
        spread: seconds over which new users start.
    """

    times: NDArray[np.float64]
    users: NDArray[np.int64]
    rates: NDArray[np.float64]
    mixes: NDArray[np.float64]
    mix: NDArray[np.int64]
    spread: float = 5.0

    @classmethod
    def closed(cls, times: Any, users: Any, weights: Any, spread: float = 5.0) -> LoadPlan:
        """A closed loop of users with one mix."""
        count = len(np.atleast_1d(times))
        return cls(
            times=np.atleast_1d(np.asarray(times, np.float64)),
            users=np.atleast_1d(np.asarray(users, np.int64)),
            rates=np.zeros(count),
            mixes=np.atleast_2d(np.asarray(weights, np.float64)),
            mix=np.zeros(count, np.int64),
            spread=spread,
        )

    @classmethod
    def open(cls, times: Any, rates: Any, weights: Any) -> LoadPlan:
        """Poisson arrivals with a piecewise constant rate and one mix."""
        count = len(np.atleast_1d(times))
        return cls(
            times=np.atleast_1d(np.asarray(times, np.float64)),
            users=np.zeros(count, np.int64),
            rates=np.atleast_1d(np.asarray(rates, np.float64)),
            mixes=np.atleast_2d(np.asarray(weights, np.float64)),
            mix=np.zeros(count, np.int64),
        )

    def remixed(self, moment: float, weights: Any) -> LoadPlan:
        """The same load with another mix from `moment` on."""
        at = int(np.searchsorted(self.times, moment))
        if (
            at == len(self.times) or self.times[at] != moment
        ):  # a row of its own, in which users and rate go on
            before = max(at - 1, 0)
            longer = replace(
                self,
                times=np.insert(self.times, at, moment),
                users=np.insert(self.users, at, self.users[before]),
                rates=np.insert(self.rates, at, self.rates[before]),
                mix=np.insert(self.mix, at, self.mix[before]),
            )
            return longer.remixed(moment, weights)
        mixes = np.concatenate([self.mixes, np.atleast_2d(np.asarray(weights, np.float64))])
        return replace(
            self, mixes=mixes, mix=np.where(np.arange(len(self.times)) >= at, len(self.mixes), self.mix)
        )


@dataclass(frozen=True)
class Snapshot:
    """Cumulative counters at one moment, as a scrape would read them.

    Attributes:
        time: engine seconds.
        pod_uid, pod_service, pod_state: `[P]` of the pods alive.
        pod_created: `[P]` engine seconds.
        pod_cpu: `[P]` CPU-seconds since creation.
        pod_in_flight: `[P]` requests being served or queued now.
        service_failed, service_finished: `[N]` visits.
        service_seconds: `[N]` sum of the durations of the finished visits.
        service_buckets: `[N, B]` finished visits by duration (`LATENCY_BUCKETS` and the open bucket).
        edges: `[E, 3]` calls started, done, failed.
        endpoints: `[K, 4]` requests offered, done, failed, slow.
        endpoint_seconds: `[K]` sum of the durations of the requests done.
        endpoint_buckets: `[K, B]` requests done by duration.
        spec: `[N]` replicas asked for.
    """

    time: float
    pod_uid: NDArray[np.int64]
    pod_service: NDArray[np.int32]
    pod_state: NDArray[np.int32]
    pod_created: NDArray[np.float64]
    pod_cpu: NDArray[np.float64]
    pod_in_flight: NDArray[np.int32]
    service_finished: NDArray[np.int64]
    service_failed: NDArray[np.int64]
    service_seconds: NDArray[np.float64]
    service_buckets: NDArray[np.int64]
    edges: NDArray[np.int64]
    endpoints: NDArray[np.int64]
    endpoint_seconds: NDArray[np.float64]
    endpoint_buckets: NDArray[np.int64]
    spec: NDArray[np.int64]


class Simulator:
    """One application under one load.

    Args:
        program: the compiled application.
        plan: the load.
        seed: seed of every random stream.
        replicas: `[N]` pods that are ready at time 0.
        balancing: one of `core.BALANCING`.
        demand: one of `core.DEMAND`.
        slo_seconds: `[K]` requests that take longer are counted as slow; None: none is.
    """

    def __init__(
        self,
        program: Program,
        plan: LoadPlan,
        *,
        seed: int,
        replicas: Sequence[int] | NDArray[np.int64],
        balancing: str = "least_request",
        demand: str = "exponential",
        slo_seconds: Sequence[float] | None = None,
    ) -> None:
        self.program = program
        self._boots = np.zeros(program.num_services, np.int64)
        self._next_uid = 0
        self._margin = 8 + 4 * max(program.max_tasks, 1)
        self._state = self._allocate(program, plan, slo_seconds)
        clock = self._clock
        clock["seed"] = np.uint64(seed)
        clock["balancing"] = core.BALANCING.index(balancing)
        clock["demand"] = core.DEMAND.index(demand)
        clock["think_low"], clock["think_high"] = program.think_low, program.think_high
        clock["spread"] = plan.spread
        clock["arrival_next"] = np.inf
        clock["arrival_need"] = -np.log(core.draw(seed, core.STREAM_ARRIVAL, core.FIRST_ARRIVAL, 0))
        self._spec = np.zeros(program.num_services, np.int64)
        if (program.ops == core.HOP).any():
            self._make_wire()
        for service, count in enumerate(replicas):
            for _ in range(int(count)):
                self._create(service, ready=True)
            self._spec[service] = int(count)

    # --------------------------------------------------------------------------------------------------- time
    @property
    def now(self) -> float:
        """Engine seconds."""
        return float(self._clock["now"])

    @property
    def in_flight(self) -> int:
        """Requests started and neither done nor failed."""
        return int(self._clock["in_flight"])

    @property
    def spec(self) -> NDArray[np.int64]:
        """Replicas asked for, `[N]`."""
        return self._spec.copy()

    def advance(self, until: float, arrivals: NDArray[Any] | None = None) -> NDArray[Any]:
        """Move time to `until`; returns the injected requests that finished by then (`core.COMPLETION`).

        Args:
            until: engine seconds.
            arrivals: requests to inject (`core.ARRIVAL`), in the order of their times.

        Raises:
            RuntimeError: a table overflowed, which is a bug of the engine.
        """
        injected = np.empty(0, core.ARRIVAL) if arrivals is None else arrivals
        if len(injected) or self.in_flight > 0:
            needed = len(injected) + self._injected_in_flight()
            if needed > len(self._state.completions):
                self._state = self._state._replace(completions=np.zeros(2 * needed, core.COMPLETION))
        self._clock["injected_at"] = 0
        self._clock["completions"] = 0
        while True:
            status = core.advance(self._state, float(until), injected, self._margin)
            if status == core.OK:
                break
            if status == core.BROKEN:
                raise RuntimeError("the engine's tables overflowed within one event")
            self._grow()
        done: NDArray[Any] = self._state.completions[: int(self._clock["completions"])].copy()
        return done

    def _injected_in_flight(self) -> int:
        tasks = self._state.tasks
        return int(((tasks["alive"] == 1) & (tasks["injected"] >= 0)).sum())

    # --------------------------------------------------------------------------------------------------- pods
    def scale(self, service: int, replicas: int) -> None:
        """Set the replicas of a service: new pods begin to boot; surplus ones go, the youngest first."""
        pods = self._state.pods
        mine = np.flatnonzero(
            (pods["service"] == service) & ((pods["state"] == core.STARTING) | (pods["state"] == core.READY))
        )
        surplus = len(mine) - replicas
        if surplus > 0:
            order = sorted(
                mine,
                key=lambda index: (
                    pods[index]["state"] == core.READY,
                    -pods[index]["ready_at"],
                    -pods[index]["uid"],
                ),
            )
            for index in order[:surplus]:
                core.pod_remove(self._state, int(index), self.now)
        for _ in range(max(-surplus, 0)):
            self._create(service, ready=False)
        self._spec[service] = replicas

    def _create(self, service: int, *, ready: bool) -> None:
        free = np.flatnonzero(self._state.pods["state"] == core.FREE)
        if not len(free):
            self._grow_pods()
            free = np.flatnonzero(self._state.pods["state"] == core.FREE)
        self._fit_ready_list(service)
        index = int(free[0])
        now, clock = self.now, self._clock
        program = self.program
        number = int(self._boots[service])
        self._boots[service] = number + 1
        jitter = core.draw(int(clock["seed"]), core.STREAM_BOOT, service, number)
        phase = core.draw(int(clock["seed"]), core.STREAM_BOOT, service, number + core.BOOT_PHASE)
        boot = program.boot_seconds[service] * (0.9 + 0.2 * jitter)
        boot = np.ceil(boot / program.readiness_period) * program.readiness_period
        pod = self._state.pods[index]
        pod["service"], pod["state"] = service, core.STARTING
        pod["jobs"], pod["heap_at"], pod["root"] = 0, -1, -1
        pod["in_flight"], pod["active"], pod["wait_head"], pod["wait_tail"] = 0, 0, -1, -1
        pod["cap"] = program.max_in_flight[service] if program.max_in_flight[service] > 0 else core.NO_BOUND
        pod["attained"], pod["cpu"] = 0.0, 0.0
        pod["idle"] = program.idle_cores[service]
        pod["quota"] = (program.limit_cores[service] - program.idle_cores[service]) * core.PERIOD
        pod["budget"] = pod["quota"]
        pod["cores"] = program.cores[service]
        pod["time"], pod["created"] = now, now
        pod["period_end"] = now + phase * core.PERIOD
        pod["ready_at"] = now if ready else now + boot
        pod["warm_until"] = -1.0 if ready else pod["ready_at"] + program.warm_seconds[service]
        pod["slowdown"] = program.warm_slowdown[service]
        pod["wakeup"] = program.wakeup[service]
        pod["uid"] = self._next_uid
        self._next_uid += 1
        if ready:
            core.pod_ready(self._state, index)
        else:
            self._fit_timers()
            core.timer_add(self._state, pod["ready_at"], core.TIMER_POD, index, pod["uid"])

    def _make_wire(self) -> None:
        """The network: a slot in which every call gets a core of its own, without a quota."""
        wire = self._state.pods[core.WIRE_POD]
        wire["state"], wire["service"], wire["uid"] = core.WIRE, -1, -1
        wire["heap_at"], wire["root"] = -1, -1
        wire["cores"] = wire["quota"] = wire["budget"] = np.inf
        wire["wakeup"] = 1.0
        wire["period_end"], wire["warm_until"] = core.PERIOD, -1.0

    def _alive(self) -> NDArray[np.bool_]:
        """Which slots of the table hold a pod, `[slots]`."""
        state = self._state.pods["state"]
        return np.asarray((state != core.FREE) & (state != core.WIRE))

    # ---------------------------------------------------------------------------------------------- measuring
    def snapshot(self) -> Snapshot:
        """The counters now; the state doesn't change."""
        state = self._state
        work = np.zeros(len(state.pods))
        core.pods_work(state, self.now, work)
        alive = np.flatnonzero(self._alive())
        pods = state.pods[alive]
        return Snapshot(
            time=self.now,
            pod_uid=pods["uid"].copy(),
            pod_service=pods["service"].copy(),
            pod_state=pods["state"].copy(),
            pod_created=pods["created"].copy(),
            pod_cpu=work[alive],
            pod_in_flight=pods["in_flight"].copy(),
            service_finished=state.services["finished"].copy(),
            service_failed=state.services["failed"].copy(),
            service_seconds=state.services["seconds"].copy(),
            service_buckets=state.service_buckets.copy(),
            edges=np.stack([state.edges[name] for name in ("started", "done", "failed")], axis=1),
            endpoints=np.stack(
                [state.endpoints[name] for name in ("offered", "done", "failed", "slow")], axis=1
            ),
            endpoint_seconds=state.endpoints["seconds"].copy(),
            endpoint_buckets=state.endpoint_buckets.copy(),
            spec=self._spec.copy(),
        )

    def pod_times(self) -> NDArray[Any]:
        """`uid`, `service`, `state`, `created`, `ready_at` of the pods alive."""
        pods = self._state.pods
        alive: NDArray[Any] = pods[self._alive()][["uid", "service", "state", "created", "ready_at"]].copy()
        return alive

    def cpu_total(self) -> NDArray[np.float64]:
        """CPU-seconds of each service since the start, `[N]`, pods that are gone included."""
        work = np.zeros(len(self._state.pods))
        core.pods_work(self._state, self.now, work)
        alive = self._alive()
        living = np.bincount(
            self._state.pods["service"][alive], weights=work[alive], minlength=self.program.num_services
        )
        return np.asarray(self._state.services["cpu_gone"] + living)

    @property
    def visits(self) -> int:
        """Visits finished since the start."""
        return int(self._state.services["finished"].sum())

    @property
    def memory_bytes(self) -> int:
        """Size of all tables."""
        return sum(array.nbytes for array in self._state if isinstance(array, np.ndarray))

    # ------------------------------------------------------------------------------------------------- memory
    @property
    def _clock(self) -> Any:
        return self._state.clock[0]

    def _allocate(self, program: Program, plan: LoadPlan, slo_seconds: Sequence[float] | None) -> core.State:
        services, endpoints = program.num_services, len(program.endpoints)
        people = int(plan.users.max(initial=0)) + 1
        pods, tasks = 4 * services + 64, max(1024, 4 * people * max(program.max_tasks, 1), 4 * self._margin)
        ops = np.zeros(len(program.ops), core.OP)
        for name in ("arg0", "arg1", "exit_pc", "timeout", "ignore", "retries", "value"):
            ops[name] = getattr(program, name)
        ops["op"] = program.ops
        records = np.zeros(endpoints, core.ENDPOINT)
        records["start"] = program.endpoint_start
        records["slo"] = np.inf if slo_seconds is None else slo_seconds
        changes = np.zeros(len(plan.times), core.CHANGE)
        changes["time"], changes["mix"] = plan.times, plan.mix
        changes["users"], changes["rate"] = plan.users, plan.rates
        tables = [_alias(weights) for weights in plan.mixes]
        bounds = np.array(LATENCY_BUCKETS)
        clock = np.zeros(1, core.CLOCK)
        clock["free_tasks"] = tasks
        rings = np.zeros((max(len(program.timeouts), 1), tasks), core.TIMEOUT)
        return core.State(
            clock=clock,
            ops=ops,
            branches=np.asarray(program.branches, np.int32),
            timeouts=np.asarray(program.timeouts, np.float64),
            endpoints=records,
            services=np.zeros(services, core.SERVICE),
            edges=np.zeros(len(program.edges), core.EDGE),
            pods=np.zeros(pods, core.POD),
            tasks=_chain(np.zeros(tasks, core.TASK), 0, -1),
            frames=np.zeros((tasks, program.max_depth + 1), core.FRAME),
            ready=np.zeros((services, 64), np.int32),
            heap=np.zeros(pods, np.int32),
            heap_keys=np.zeros(pods),
            timers=np.zeros(2 * people + 2 * pods + 64, core.TIMER),
            think=np.zeros(people + 1, core.THINK),
            rings=rings,
            ring_ends=np.zeros((len(rings), 2), np.int64),
            users=np.zeros(people, core.USER),
            changes=changes,
            mix_probability=np.array([probability for probability, _ in tables]),
            mix_alias=np.array([alias for _, alias in tables], np.int32),
            scenario_at=np.asarray(program.task_ptr, np.int32),
            scenario_requests=np.asarray(program.task_requests, np.int32),
            stack=np.zeros(4 * self._margin + 4096, np.int32),
            completions=np.zeros(64, core.COMPLETION),
            bounds=bounds,
            bucket_start=np.searchsorted(bounds, np.arange(10001) / 1000.0).astype(np.int32),
            service_buckets=np.zeros((services, len(bounds) + 1), np.int64),
            endpoint_buckets=np.zeros((endpoints, len(bounds) + 1), np.int64),
        )

    def _grow(self) -> None:
        """Double the tables of tasks, frames and pending time-outs."""
        state = self._state
        old = len(state.tasks)
        tasks = _longer(state.tasks, 2 * old)
        _chain(tasks, old, int(self._clock["free_task"]))
        self._clock["free_task"] = old
        self._clock["free_tasks"] += old
        rings = np.zeros((len(state.rings), 2 * state.rings.shape[1]), core.TIMEOUT)
        ends = state.ring_ends.copy()
        for which, ring in enumerate(state.rings):
            first, last = ends[which]
            rings[which, : last - first] = ring[np.arange(first, last) % len(ring)]
            ends[which] = 0, last - first
        self._state = state._replace(
            tasks=tasks,
            frames=_longer(state.frames, 2 * old),
            rings=rings,
            ring_ends=ends,
            stack=_longer(state.stack, 2 * len(state.stack)),
            completions=_longer(state.completions, 2 * len(state.completions)),
        )

    def _fit_ready_list(self, service: int) -> None:
        """Room for one more pod in the service's list."""
        width = self._state.ready.shape[1]
        if (self._state.pods["service"][self._alive()] == service).sum() >= width:
            self._state = self._state._replace(ready=np.pad(self._state.ready, ((0, 0), (0, width))))

    def _fit_timers(self) -> None:
        """Room for one more pod's timer beside one per user; a pod that is removed leaves its own behind."""
        if int(self._clock["timers"]) + len(self._state.users) >= len(self._state.timers):
            self._grow_timers()

    def _grow_timers(self) -> None:
        timers = self._state.timers
        self._state = self._state._replace(timers=_longer(timers, 2 * len(timers)))

    def _grow_pods(self) -> None:
        state = self._state
        size = 2 * len(state.pods)
        self._state = state._replace(
            pods=_longer(state.pods, size),
            heap=_longer(state.heap, size),
            heap_keys=_longer(state.heap_keys, size),
        )


def _longer(array: NDArray[Any], size: int) -> NDArray[Any]:
    longer = np.zeros((size, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


def _chain(tasks: NDArray[Any], first: int, after: int) -> NDArray[Any]:
    """Link the free tasks from `first` on; the last points to `after`."""
    tasks["free_next"][first:] = np.arange(first + 1, len(tasks) + 1)
    tasks["free_next"][-1] = after
    return tasks


def _alias(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Alias table of a discrete distribution. Source: Vose 1991."""
    share = weights / weights.sum() * len(weights)
    probability, alias = np.ones(len(share)), np.arange(len(share), dtype=np.int32)
    small = [index for index, value in enumerate(share) if value < 1]
    large = [index for index, value in enumerate(share) if value >= 1]
    while small and large:
        low, high = small.pop(), large.pop()
        probability[low], alias[low] = share[low], high
        share[high] -= 1 - share[low]
        (small if share[high] < 1 else large).append(high)
    return probability, alias
