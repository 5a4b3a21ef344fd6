"""An emulated application, whole: its services, the call tree of each endpoint, and what users do.

Every request is a call tree; `testbed.engine.program` turns the tree of each endpoint into one linear
program. A visit that calls others spends half of its CPU time before the first call and half after the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MIB = 1024.0**2
"""Bytes."""


@dataclass(frozen=True)
class Service:
    """One service: what a pod of it is and does. `max_in_flight` 0 means no bound."""

    name: str
    request_cores: float
    limit_cores: float
    request_memory_bytes: float
    limit_memory_bytes: float
    demand_seconds: float
    boot_seconds: float
    max_in_flight: int
    idle_cores: float
    memory_base_bytes: float
    memory_per_request_bytes: float
    cores: int
    warm_seconds: float = 0.0
    warm_slowdown: float = 1.0
    wakeup: float = 1.0


@dataclass(frozen=True)
class Proxy:
    """The proxy beside each pod (a service mesh's): autoscalers see its CPU, no limit of a service binds it.

    Attributes:
        request_cores: its CPU request.
        idle_cores: what it uses without any call.
        call_seconds: CPU-seconds per call that comes in or goes out.
    """

    request_cores: float = 0.0
    idle_cores: float = 0.0
    call_seconds: float = 0.0


@dataclass(frozen=True)
class Call:
    """One call within a visit; `service` is an index into `Application.services`."""

    service: int
    times: float = 1.0
    probability: float = 1.0
    timeout_seconds: float | None = None
    ignore: bool = False
    retries: int = 0
    calls: tuple[Call | Parallel, ...] = ()


@dataclass(frozen=True)
class Parallel:
    """Calls that start together and are all awaited. Repeats of one call follow each other."""

    calls: tuple[Call, ...]


Steps = tuple[Call | Parallel, ...]


@dataclass(frozen=True)
class Endpoint:
    """One URL: the index of the receiving service and the calls of the first visit."""

    name: str
    service: int
    calls: Steps


@dataclass(frozen=True)
class Task:
    """What a user does between two pauses: requests to these endpoints (indices), without a break."""

    name: str
    weight: float
    requests: tuple[int, ...]


@dataclass(frozen=True)
class Application:
    """An emulated application: names resolved to indices, every call tree written out.

    `hop_seconds` is what each call takes on its way there and back: network and proxies.
    """

    name: str
    services: tuple[Service, ...]
    endpoints: tuple[Endpoint, ...]
    tasks: tuple[Task, ...]
    think_low: float
    think_high: float
    readiness_period: float = 1.0
    hop_seconds: float = 0.0
    proxy: Proxy = Proxy()
    demand: str = "exponential"

    @property
    def service_names(self) -> tuple[str, ...]:
        """Names in the order of every service table."""
        return tuple(service.name for service in self.services)

    @property
    def endpoint_names(self) -> tuple[str, ...]:
        """Names in the order of every endpoint table."""
        return tuple(endpoint.name for endpoint in self.endpoints)


def calls_of(steps: Steps) -> Iterator[Call]:
    """Every call among the steps, also those in parallel groups, but not what these call in turn."""
    for step in steps:
        yield from step.calls if isinstance(step, Parallel) else (step,)
