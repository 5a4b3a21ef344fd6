"""Emulated applications: YAML -> `Application`, and the truth about it.

An application file (`testbed/apps/*.yaml`) says what a pod of each service may use, which calls an endpoint makes and
what users do. Every request is a call tree; `testbed.engine.program` turns each endpoint's tree into one linear program.
A visit that calls others spends half of its CPU before the first call and half after the last.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from deepscaler.errors import SettingsError
from deepscaler.settings import Positive, Section, Share, load_section

APPS = Path(__file__).parent / "apps"
MIB = 1024.0**2
NotNegative = Annotated[float, Field(ge=0)]


# --------------------------------------------------------------------------------------------------- the file
class WarmupFile(Section):
    """The first seconds of a pod, in which work takes longer (a JVM that still compiles)."""

    seconds: NotNegative
    slowdown: Annotated[float, Field(ge=1)]


class CallFile(Section):
    """One call, or `parallel`: calls that start together and are all awaited.

    A call may be written as a text: `service` or `service.operation`.
    """

    service: str | None = None
    operation: str | None = Field(None, description="which of the callee's `operations`; None: its `calls`")
    times: Positive = Field(
        1.0, description="mean count: the whole part always, one more with the probability of the rest"
    )
    probability: Share = Field(1.0, description="of calling at all")
    timeout_seconds: Positive | None = None
    on_failure: Annotated[str, Field(pattern="^(fail|ignore)$")] = "fail"
    retries: Annotated[int, Field(ge=0)] = 0
    calls: list[CallFile] = Field([], description="instead of the callee's own")
    parallel: list[CallFile] = Field([], description="calls that start together")

    @model_validator(mode="before")
    @classmethod
    def _text(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        service, dot, operation = data.partition(".")
        return {"service": service, "operation": operation} if dot else {"service": service}

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.parallel and self.model_fields_set != {"parallel"}:
            raise ValueError("a parallel group has no other keys; give them to its calls")
        if not self.parallel and self.service is None:
            raise ValueError("a call needs `service` or `parallel`")
        if any(call.parallel for call in self.parallel):
            raise ValueError("a parallel group holds calls, not groups")
        if self.operation is not None and "calls" in self.model_fields_set:
            raise ValueError("give `operation` or `calls`, not both")
        return self


class ServiceFile(Section):
    """What one pod of a service is and does."""

    request_millicores: Positive
    limit_millicores: Positive
    memory_request_mib: Positive
    memory_limit_mib: Positive
    demand_ms: Positive = Field(description="mean CPU of a visit")
    boot_seconds: NotNegative
    max_in_flight: Annotated[int, Field(ge=1)] | None = Field(
        None, description="requests served at a time; others wait in order"
    )
    idle_millicores: NotNegative = 2.0
    memory_base_mib: NotNegative
    memory_per_request_mib: NotNegative = 0.5
    cores: Annotated[int, Field(ge=1)] = Field(2, description="cores a pod may use at once")
    warmup: WarmupFile | None = None
    calls: list[CallFile] = Field([], description="calls of a visit, unless the caller says otherwise")
    operations: dict[str, list[CallFile]] = Field({}, description="named alternatives to `calls`")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.request_millicores > self.limit_millicores or self.memory_request_mib > self.memory_limit_mib:
            raise ValueError("a request above its limit")
        if self.idle_millicores >= self.limit_millicores:
            raise ValueError("idle_millicores must be below limit_millicores")
        return self


class EndpointFile(Section):
    """One URL: the service that receives it and, unless its own hold, the calls that it makes."""

    service: str
    operation: str | None = None
    calls: list[CallFile] = Field([], description="instead of the service's own")


class TaskFile(Section):
    """What a user does between two pauses: endpoints, back to back."""

    weight: NotNegative
    requests: Annotated[list[str], Field(min_length=1)]


class ApplicationFile(Section):
    """`testbed/apps/*.yaml`."""

    name: str
    readiness_period_seconds: Positive = Field(1.0, description="boots end at a multiple of this")
    think_seconds: NotNegative | Annotated[list[NotNegative], Field(min_length=2, max_length=2)] = 1.0
    services: Annotated[dict[str, ServiceFile], Field(min_length=1)]
    endpoints: Annotated[dict[str, EndpointFile], Field(min_length=1)]
    tasks: Annotated[dict[str, TaskFile], Field(min_length=1)]

    @model_validator(mode="after")
    def _names(self) -> Self:
        for where, call in self._calls():
            self._known(where, call.service, call.operation)
        for name, endpoint in self.endpoints.items():
            self._known(f"endpoints.{name}", endpoint.service, endpoint.operation)
        for name, task in self.tasks.items():
            for request in task.requests:
                if request not in self.endpoints:
                    raise ValueError(
                        f"tasks.{name}.requests: unknown endpoint {request!r}; endpoints: {', '.join(self.endpoints)}"
                    )
        if not any(task.weight for task in self.tasks.values()):
            raise ValueError("tasks: at least one weight must be above 0")
        if isinstance(self.think_seconds, list) and self.think_seconds[0] > self.think_seconds[1]:
            raise ValueError("think_seconds: needs low <= high")
        return self

    def _known(self, where: str, service: str | None, operation: str | None) -> None:
        if service is None:
            return
        if service not in self.services:
            raise ValueError(f"{where}: unknown service {service!r}; services: {', '.join(self.services)}")
        if operation is not None and operation not in self.services[service].operations:
            known = ", ".join(self.services[service].operations) or "none"
            raise ValueError(f"{where}: unknown operation {operation!r} of {service}; operations: {known}")

    def _calls(self) -> Iterator[tuple[str, CallFile]]:
        for name, service in self.services.items():
            yield from _nested(f"services.{name}.calls", service.calls)
            for operation, calls in service.operations.items():
                yield from _nested(f"services.{name}.operations.{operation}", calls)
        for name, endpoint in self.endpoints.items():
            yield from _nested(f"endpoints.{name}.calls", endpoint.calls)


def _nested(where: str, calls: list[CallFile]) -> Iterator[tuple[str, CallFile]]:
    for number, call in enumerate(calls):
        here = f"{where}.{number}"
        yield here, call
        yield from _nested(f"{here}.calls", call.calls)
        yield from _nested(f"{here}.parallel", call.parallel)


# -------------------------------------------------------------------------------------------- the application
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
    """Calls that start together; the caller goes on when all have ended. A call's repeats stay one after the other."""

    calls: tuple[Call, ...]


Steps = tuple[Call | Parallel, ...]


@dataclass(frozen=True)
class Endpoint:
    """One URL: the receiving service's index and the calls of its visit."""

    name: str
    service: int
    calls: Steps


@dataclass(frozen=True)
class Task:
    """What a user does between two pauses: indices of endpoints, back to back."""

    name: str
    weight: float
    requests: tuple[int, ...]


@dataclass(frozen=True)
class Application:
    """An emulated application, whole: names resolved, every call tree written out."""

    name: str
    services: tuple[Service, ...]
    endpoints: tuple[Endpoint, ...]
    tasks: tuple[Task, ...]
    think_low: float
    think_high: float
    readiness_period: float = 1.0

    @property
    def service_names(self) -> tuple[str, ...]:
        """Names in the order of every service table."""
        return tuple(service.name for service in self.services)

    @property
    def endpoint_names(self) -> tuple[str, ...]:
        """Names in the order of every endpoint table."""
        return tuple(endpoint.name for endpoint in self.endpoints)


def calls_of(steps: Steps) -> Iterator[Call]:
    """Every call among the steps, those of parallel groups included, not those below them."""
    for step in steps:
        yield from step.calls if isinstance(step, Parallel) else (step,)


def load_application(name_or_path: str | Path, *, sigma: float = 0.0, seed: int = 0) -> Application:
    """The application of a shipped file (`boutique`), of a path to a YAML file, or `synthetic:N` (`synthetic:N:DRAW` for another one).

    With `sigma` above 0 each service's demand and the count of each (caller, callee) pair are multiplied by log-normal
    factors of mean 1 drawn by `seed`; a factor belongs to its names, so adding a service leaves the others' alone.

    Raises:
        SettingsError: no such application, or a broken file; names file, dotted key, value and what is allowed.
    """
    text = str(name_or_path)
    application = _synthetic(text) if text.startswith("synthetic:") else _read(_find(text))
    return _varied(application, sigma, seed) if sigma > 0 else application


def _find(text: str) -> Path:
    if text.endswith((".yaml", ".yml")) or "/" in text:
        return Path(text)
    path = APPS / f"{text}.yaml"
    if not path.exists():
        known = ", ".join(sorted(found.stem for found in APPS.glob("*.yaml")))
        raise SettingsError(
            f"testbed.application: unknown application {text!r}; shipped: {known}; or a path to a YAML file, or synthetic:N[:DRAW]"
        )
    return path


def _read(path: Path) -> Application:
    document = load_section(ApplicationFile, path, [])
    names = list(document.services)
    index = {name: number for number, name in enumerate(names)}
    trees = _Trees(path, document, index)
    trees.check()
    think = (
        document.think_seconds if isinstance(document.think_seconds, list) else [document.think_seconds] * 2
    )
    endpoints = {name: number for number, name in enumerate(document.endpoints)}
    return Application(
        name=document.name,
        services=tuple(_service(name, document.services[name]) for name in names),
        endpoints=tuple(
            Endpoint(name, index[end.service], trees.of_endpoint(end))
            for name, end in document.endpoints.items()
        ),
        tasks=tuple(
            Task(name, task.weight, tuple(endpoints[request] for request in task.requests))
            for name, task in document.tasks.items()
        ),
        think_low=think[0],
        think_high=think[1],
        readiness_period=document.readiness_period_seconds,
    )


def _service(name: str, data: ServiceFile) -> Service:
    return Service(
        name=name,
        request_cores=data.request_millicores / 1000,
        limit_cores=data.limit_millicores / 1000,
        request_memory_bytes=data.memory_request_mib * MIB,
        limit_memory_bytes=data.memory_limit_mib * MIB,
        demand_seconds=data.demand_ms / 1000,
        boot_seconds=data.boot_seconds,
        max_in_flight=data.max_in_flight or 0,
        idle_cores=data.idle_millicores / 1000,
        memory_base_bytes=data.memory_base_mib * MIB,
        memory_per_request_bytes=data.memory_per_request_mib * MIB,
        cores=data.cores,
        warm_seconds=data.warmup.seconds if data.warmup else 0.0,
        warm_slowdown=data.warmup.slowdown if data.warmup else 1.0,
    )


class _Trees:
    """Writes out the call trees of a file; a service's own calls are built once."""

    def __init__(self, path: Path, document: ApplicationFile, index: Mapping[str, int]) -> None:
        self._path, self._document, self._index = path, document, index
        self._done: dict[tuple[str, str | None], Steps] = {}
        self._open: list[tuple[str, str | None]] = []

    def check(self) -> None:
        """Build every service's own calls, used or not: a circle is an error even where an endpoint cuts it."""
        for name, data in self._document.services.items():
            for operation in (None, *data.operations):
                self._own(name, operation)

    def of_endpoint(self, endpoint: EndpointFile) -> Steps:
        if "calls" in endpoint.model_fields_set:
            return self._steps(endpoint.calls)
        return self._own(endpoint.service, endpoint.operation)

    def _own(self, service: str, operation: str | None) -> Steps:
        key = (service, operation)
        if key in self._open:
            circle = " -> ".join(
                name if part is None else f"{name}.{part}" for name, part in [*self._open, key]
            )
            raise SettingsError(
                f"{self._path}: services.{service}: calls itself in a circle: {circle}; cut it with `calls: []`"
            )
        if key not in self._done:
            self._open.append(key)
            data = self._document.services[service]
            self._done[key] = self._steps(data.calls if operation is None else data.operations[operation])
            self._open.pop()
        return self._done[key]

    def _steps(self, calls: list[CallFile]) -> Steps:
        return tuple(
            Parallel(tuple(map(self._call, call.parallel))) if call.parallel else self._call(call)
            for call in calls
        )

    def _call(self, call: CallFile) -> Call:
        assert call.service is not None, "checked when the file was read"
        inner = (
            self._steps(call.calls)
            if "calls" in call.model_fields_set
            else self._own(call.service, call.operation)
        )
        return Call(
            self._index[call.service],
            call.times,
            call.probability,
            call.timeout_seconds,
            call.on_failure == "ignore",
            call.retries,
            inner,
        )


# ------------------------------------------------------------------------------------------------- variations
def _factor(sigma: float, seed: int, *names: str) -> float:
    """A log-normal factor of mean 1 that belongs to these names."""
    words = [zlib.crc32("\0".join(names).encode()), len(names)]
    normal = np.random.default_rng(np.random.SeedSequence([seed, *words])).standard_normal()
    return float(np.exp(sigma * normal - sigma**2 / 2))


def _varied(application: Application, sigma: float, seed: int) -> Application:
    names = application.service_names
    factors: dict[tuple[int, int], float] = {}

    def counted(caller: int, steps: Steps) -> Steps:
        return tuple(
            Parallel(tuple(one(caller, call) for call in step.calls))
            if isinstance(step, Parallel)
            else one(caller, step)
            for step in steps
        )

    def one(caller: int, call: Call) -> Call:
        pair = (caller, call.service)
        if pair not in factors:
            factors[pair] = _factor(sigma, seed, names[caller], names[call.service])
        return replace(call, times=call.times * factors[pair], calls=counted(call.service, call.calls))

    return replace(
        application,
        services=tuple(
            replace(s, demand_seconds=s.demand_seconds * _factor(sigma, seed, s.name))
            for s in application.services
        ),
        endpoints=tuple(
            replace(endpoint, calls=counted(endpoint.service, endpoint.calls))
            for endpoint in application.endpoints
        ),
    )


def _synthetic(text: str) -> Application:
    """A random layered call graph: every service is visited, a request makes some two dozen visits whatever their number.

    It belongs to its name, not to a run's seed: runs of any seed load the same application.
    """
    number, colon, draw = text.removeprefix("synthetic:").partition(":")
    if not number.isdecimal() or int(number) < 2 or (colon and not draw.isdecimal()):
        raise SettingsError(
            f"testbed.application: {text!r}: expected synthetic:N or synthetic:N:DRAW with N >= 2, such as synthetic:100"
        )
    size = int(number)
    random = np.random.default_rng(np.random.SeedSequence([int(draw or 0), size]))
    layers = np.sort(random.integers(1, 6, size))
    entries = max(1, size // 20)
    layers[:entries] = 0
    services = tuple(
        Service(
            f"service-{i:04d}",
            0.1,
            0.2,
            64 * MIB,
            128 * MIB,
            float(demand),
            float(boot),
            0,
            0.002,
            32 * MIB,
            0.5 * MIB,
            2,
        )
        for i, (demand, boot) in enumerate(
            zip(0.002 * np.exp(random.normal(-0.125, 0.5, size)), random.uniform(5, 60, size), strict=True)
        )
    )
    behind = random.permutation(np.arange(entries, size))
    count = max(entries, 4)
    parts = np.array_split(behind, count)
    endpoints = []
    for at in range(count):
        extra = random.choice(behind, min(max(24 - len(parts[at]), 4), 20))
        members = np.unique(np.concatenate([parts[at], extra]))
        endpoints.append(
            Endpoint(f"GET /{at}", at % entries, _random_tree(random, at % entries, members, layers))
        )
    tasks = tuple(Task(endpoint.name, 1.0, (at,)) for at, endpoint in enumerate(endpoints))
    return Application(text, services, tuple(endpoints), tasks, 1.0, 1.0)


def _random_tree(
    random: np.random.Generator, entry: int, members: NDArray[np.int64], layers: NDArray[np.int64]
) -> Steps:
    """Each member is called by a random one of a lower layer; a third of the groups of siblings start together."""
    children: dict[int, list[int]] = {}
    placed = [entry]
    for member in (int(m) for m in members[np.argsort(layers[members], kind="stable")]):
        below = [p for p in placed if layers[p] < layers[member]]
        children.setdefault(int(random.choice(below)), []).append(member)
        placed.append(member)

    def steps(service: int) -> Steps:
        calls = []
        for child in children.get(service, []):
            leaf = child not in children
            calls.append(
                Call(
                    child,
                    times=float(random.choice([1.0, 1.0, 1.5, 2.0])) if leaf else 1.0,
                    calls=steps(child),
                )
            )
        together = 2 <= len(calls) <= 8 and random.random() < 1 / 3
        return (Parallel(tuple(calls)),) if together else tuple(calls)

    return steps(entry)


# ------------------------------------------------------------------------------------------------------ truth
def expected_visits(application: Application) -> NDArray[np.float64]:
    """Mean visits of each service by one request to each endpoint, `[K, N]`, where nothing fails or times out."""
    visits = np.zeros((len(application.endpoints), len(application.services)))
    for row, endpoint in zip(visits, application.endpoints, strict=True):
        row[endpoint.service] += 1
        _add_visits(row, endpoint.calls, 1.0)
    return visits


def _add_visits(row: NDArray[np.float64], steps: Steps, factor: float) -> None:
    for call in calls_of(steps):
        mean = factor * call.times * call.probability
        row[call.service] += mean
        _add_visits(row, call.calls, mean)


def mean_demand(application: Application) -> NDArray[np.float64]:
    """Mean CPU-seconds of a visit, `[N]`."""
    return np.array([service.demand_seconds for service in application.services])


def endpoint_shares(application: Application) -> NDArray[np.float64]:
    """Share of each endpoint among the requests that users make, `[K]`."""
    counts = np.zeros(len(application.endpoints))
    for task in application.tasks:
        for request in task.requests:
            counts[request] += task.weight
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares
