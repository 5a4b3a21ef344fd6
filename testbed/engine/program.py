"""An application compiled to the linear programs that the engine runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import floor

import numpy as np
from numpy.typing import NDArray

from deepscaler.errors import SettingsError
from testbed.applications.application import Application, Call, Parallel, Proxy, Steps, calls_of
from testbed.engine.kernel import BRANCH, CPU, END, ENTER, EXIT, FORK, HOP, JOIN

EXTERNAL = -1
"""Caller of the calls that come from outside."""
MAX_OPS = 1_000_000


@dataclass(frozen=True)
class Program:
    """What the engine runs, and the tables that its Python side reads.

    There are P operations, N services, K endpoints, S tasks of users and E edges (caller, callee).


    Attributes:
        ops: `[P]` one of the kernel's ENTER, CPU, EXIT, BRANCH, FORK, JOIN, END, HOP.
        arg0: `[P]` of ENTER: the callee; of BRANCH: where to jump; of FORK: the number of branches.
        arg1: `[P]` of ENTER: the row of `edges`; of FORK: the first place in `branches`.
        exit_pc: `[P]` of ENTER: the operation after its EXIT; of FORK: where the parent goes on.
        timeout: `[P]` of ENTER: place in `timeouts`, -1 without one.
        ignore: `[P]` of ENTER: 1 where a failure doesn't fail the caller.
        retries: `[P]` of ENTER: how often a failed call is tried again.
        value: `[P]` of CPU and HOP: mean seconds; of BRANCH: probability of going on.
        branches: starts of the branches of every FORK.
        timeouts: distinct time-outs in seconds, rising.
        edges: `[E, 2]` caller and callee; caller -1 is the world outside.
        endpoint_start: `[K]` first operation.
        endpoint_service: `[K]` the service that receives the request.
        max_depth: deepest nesting of visits within one task of a request.
        max_tasks: tasks that a request may have at once (1 without parallel calls).
        task_ptr, task_requests: the endpoints of task s are `task_requests[task_ptr[s]:task_ptr[s + 1]]`.
        task_weights: `[S]` how often users choose each task.
        max_in_flight: `[N]` requests that a pod serves at a time; 0 means no bound.
    """

    name: str
    services: tuple[str, ...]
    endpoints: tuple[str, ...]
    tasks: tuple[str, ...]
    ops: NDArray[np.int32]
    arg0: NDArray[np.int32]
    arg1: NDArray[np.int32]
    exit_pc: NDArray[np.int32]
    timeout: NDArray[np.int32]
    ignore: NDArray[np.int32]
    retries: NDArray[np.int32]
    value: NDArray[np.float64]
    branches: NDArray[np.int32]
    timeouts: NDArray[np.float64]
    edges: NDArray[np.int32]
    endpoint_start: NDArray[np.int32]
    endpoint_service: NDArray[np.int32]
    max_depth: int
    max_tasks: int
    task_ptr: NDArray[np.int32]
    task_requests: NDArray[np.int32]
    task_weights: NDArray[np.float64]
    think_low: float
    think_high: float
    readiness_period: float
    request_cores: NDArray[np.float64]
    limit_cores: NDArray[np.float64]
    request_memory_bytes: NDArray[np.float64]
    limit_memory_bytes: NDArray[np.float64]
    demand_seconds: NDArray[np.float64]
    boot_seconds: NDArray[np.float64]
    max_in_flight: NDArray[np.int32]
    idle_cores: NDArray[np.float64]
    memory_base_bytes: NDArray[np.float64]
    memory_per_request_bytes: NDArray[np.float64]
    cores: NDArray[np.int32]
    warm_seconds: NDArray[np.float64]
    warm_slowdown: NDArray[np.float64]
    wakeup: NDArray[np.float64]
    proxy: Proxy
    demand: str

    @property
    def num_services(self) -> int:
        """Number of services."""
        return len(self.services)


@dataclass
class _Op:
    op: int
    arg0: int = 0
    arg1: int = 0
    exit_pc: int = -1
    timeout: int = -1
    ignore: int = 0
    retries: int = 0
    value: float = 0.0


@dataclass
class _Writer:
    """Writes the operations of one application, one after the other."""

    demands: list[float]
    timeouts: list[float]
    hop: float
    code: list[_Op] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    edges: dict[tuple[int, int], int] = field(default_factory=dict)
    depth: int = 0

    def emit(self, op: _Op) -> _Op:
        if len(self.code) >= MAX_OPS:
            raise SettingsError(
                f"the call trees take more than {MAX_OPS:,} operations; use fewer or lower `times`"
            )
        self.code.append(op)
        return op

    def visit(self, caller: int, call: Call, depth: int) -> None:
        """One visit: HOP where calls take time on their way, ENTER, CPU, the calls, CPU, EXIT."""
        self.depth = max(self.depth, depth)
        edge = self.edges.setdefault((caller, call.service), len(self.edges))
        if self.hop > 0:
            self.emit(_Op(HOP, value=self.hop))
        timeout = -1 if call.timeout_seconds is None else self.timeouts.index(call.timeout_seconds)
        enter = self.emit(
            _Op(ENTER, call.service, edge, timeout=timeout, ignore=int(call.ignore), retries=call.retries)
        )
        demand = self.demands[call.service]
        self.emit(_Op(CPU, value=demand / 2 if call.calls else demand))
        if call.calls:
            self.steps(call.service, call.calls, depth)
            self.emit(_Op(CPU, value=demand / 2))
        self.emit(_Op(EXIT))
        enter.exit_pc = len(self.code)

    def steps(self, caller: int, steps: Steps, depth: int) -> None:
        for step in steps:
            if isinstance(step, Parallel):
                self.parallel(caller, step)
            else:
                self.repeated(caller, step, depth)

    def repeated(self, caller: int, call: Call, depth: int) -> None:
        """The call as often as `times` says, all of it under its probability."""
        whole = floor(call.times + 1e-9)
        rest = max(call.times - whole, 0.0)
        rest = rest if rest > 1e-9 else 0.0
        outer = None
        if call.probability < 1 and whole:
            outer = self.emit(_Op(BRANCH, value=call.probability))
        for _ in range(whole):
            self.visit(caller, call, depth + 1)
        if rest:
            more = self.emit(_Op(BRANCH, value=rest if whole else rest * call.probability))
            self.visit(caller, call, depth + 1)
            more.arg0 = len(self.code)
        if outer is not None:
            outer.arg0 = len(self.code)

    def parallel(self, caller: int, group: Parallel) -> None:
        offset = len(self.branches)
        fork = self.emit(_Op(FORK, len(group.calls), offset))
        self.branches.extend([-1] * len(group.calls))
        for number, call in enumerate(group.calls):
            self.branches[offset + number] = len(self.code)
            self.repeated(caller, call, 0)  # a branch is a task of its own, with its own stack of visits
            self.emit(_Op(JOIN))
        fork.exit_pc = len(self.code)


def _timeouts_of(steps: Steps) -> Iterator[float]:
    for call in calls_of(steps):
        if call.timeout_seconds is not None:
            yield call.timeout_seconds
        yield from _timeouts_of(call.calls)


def tasks_at_once(steps: Steps) -> int:
    """Engine tasks that a request may need at once within these calls, the one that makes them included."""
    most = 1
    for step in steps:
        if isinstance(step, Parallel):
            most = max(most, 1 + sum(tasks_at_once(call.calls) for call in step.calls))
        else:
            most = max(most, tasks_at_once(step.calls))
    return most


def compile_program(application: Application) -> Program:
    """The application as the engine runs it.

    Raises:
        SettingsError: the call trees are too large.
    """
    services = application.services
    timeouts = sorted({value for endpoint in application.endpoints for value in _timeouts_of(endpoint.calls)})
    writer = _Writer([service.demand_seconds for service in services], timeouts, application.hop_seconds)
    starts = []
    for endpoint in application.endpoints:
        starts.append(len(writer.code))
        writer.visit(EXTERNAL, Call(endpoint.service, calls=endpoint.calls), 1)
        writer.emit(_Op(END))
    sizes = [len(task.requests) for task in application.tasks]

    def ints(name: str) -> NDArray[np.int32]:
        return np.array([getattr(op, name) for op in writer.code], np.int32)

    def table(name: str) -> NDArray[np.float64]:
        return np.array([getattr(service, name) for service in services], np.float64)

    return Program(
        name=application.name,
        services=application.service_names,
        endpoints=application.endpoint_names,
        tasks=tuple(task.name for task in application.tasks),
        ops=ints("op"),
        arg0=ints("arg0"),
        arg1=ints("arg1"),
        exit_pc=ints("exit_pc"),
        timeout=ints("timeout"),
        ignore=ints("ignore"),
        retries=ints("retries"),
        value=np.array([op.value for op in writer.code], np.float64),
        branches=np.array(writer.branches, np.int32),
        timeouts=np.array(timeouts, np.float64),
        edges=np.array(list(writer.edges), np.int32).reshape(-1, 2),
        endpoint_start=np.array(starts, np.int32),
        endpoint_service=np.array([endpoint.service for endpoint in application.endpoints], np.int32),
        max_depth=writer.depth,
        max_tasks=max(tasks_at_once(endpoint.calls) for endpoint in application.endpoints),
        task_ptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
        task_requests=np.array(
            [request for task in application.tasks for request in task.requests], np.int32
        ),
        task_weights=np.array([task.weight for task in application.tasks], np.float64),
        think_low=application.think_low,
        think_high=application.think_high,
        readiness_period=application.readiness_period,
        request_cores=table("request_cores"),
        limit_cores=table("limit_cores"),
        request_memory_bytes=table("request_memory_bytes"),
        limit_memory_bytes=table("limit_memory_bytes"),
        demand_seconds=table("demand_seconds"),
        boot_seconds=table("boot_seconds"),
        max_in_flight=table("max_in_flight").astype(np.int32),
        idle_cores=table("idle_cores"),
        memory_base_bytes=table("memory_base_bytes"),
        memory_per_request_bytes=table("memory_per_request_bytes"),
        cores=table("cores").astype(np.int32),
        warm_seconds=table("warm_seconds"),
        warm_slowdown=table("warm_slowdown"),
        wakeup=table("wakeup"),
        proxy=application.proxy,
        demand=application.demand,
    )
