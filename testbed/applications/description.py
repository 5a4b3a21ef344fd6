"""What an application file (`testbed/apps/*.yaml`) may say, checked field by field.

It says what a pod of each service may use, which calls an endpoint makes and what users do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from deepscaler.settings import Positive, Section, Share

NotNegative = Annotated[float, Field(ge=0)]


class WarmupFile(Section):
    """The first seconds of a pod, in which work takes longer (a JVM that still compiles)."""

    seconds: NotNegative
    slowdown: Annotated[float, Field(ge=1)]


class ProxyFile(Section):
    """The proxy beside each pod of a service mesh, which an HPA counts in and no limit of a service binds."""

    request_millicores: NotNegative = 0.0
    idle_millicores: NotNegative = 0.0
    call_ms: NotNegative = Field(0.0, description="CPU time per call that comes in or goes out")


class CallFile(Section):
    """One call, or `parallel`: calls that start together and are all awaited.

    A call without other keys may be written as one word: `service` or `service.operation`.
    """

    service: str | None = None
    operation: str | None = Field(None, description="which of the callee's `operations`; None: its `calls`")
    times: Positive = Field(
        1.0, description="mean number of calls: 2.3 are two calls, and a third with probability 0.3"
    )
    probability: Share = Field(1.0, description="probability that the call is made at all")
    timeout_seconds: Positive | None = None
    on_failure: Annotated[str, Field(pattern="^(fail|ignore)$")] = "fail"
    retries: Annotated[int, Field(ge=0)] = 0
    calls: list[CallFile] = Field([], description="what the callee calls, instead of its own `calls`")
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
    demand_ms: Positive = Field(description="mean CPU time of one visit")
    boot_seconds: NotNegative
    max_in_flight: Annotated[int, Field(ge=1)] | None = Field(
        None, description="requests served at a time; others wait in order"
    )
    idle_millicores: NotNegative = 2.0
    memory_base_mib: NotNegative
    memory_per_request_mib: NotNegative = 0.5
    cores: Annotated[int, Field(ge=1)] = Field(2, description="cores a pod may use at once")
    warmup: WarmupFile | None = None
    wakeup: Annotated[float, Field(ge=1)] = Field(
        1.0,
        description="factor on the CPU time of work that finds its pod idle (cold caches, threads asleep)",
    )
    calls: list[CallFile] = Field([], description="what a visit calls, unless the caller says otherwise")
    operations: dict[str, list[CallFile]] = Field({}, description="named alternatives to `calls`")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.request_millicores > self.limit_millicores or self.memory_request_mib > self.memory_limit_mib:
            raise ValueError("a request above its limit")
        if self.idle_millicores >= self.limit_millicores:
            raise ValueError("idle_millicores must be below limit_millicores")
        return self


class EndpointFile(Section):
    """One URL: the service that receives it, and what that calls if not its own `calls`."""

    service: str
    operation: str | None = None
    calls: list[CallFile] = Field([], description="what the service calls, instead of its own `calls`")


class TaskFile(Section):
    """What a user does between two pauses: requests to endpoints, without a break."""

    weight: NotNegative
    requests: Annotated[list[str], Field(min_length=1)]


class ApplicationFile(Section):
    """One whole file, `testbed/apps/*.yaml`."""

    name: str
    readiness_period_seconds: Positive = Field(1.0, description="a boot takes a multiple of this")
    think_seconds: NotNegative | Annotated[list[NotNegative], Field(min_length=2, max_length=2)] = 1.0
    hop_ms: NotNegative = Field(
        0.0, description="mean time that a call is on its way, there and back, through network and proxies"
    )
    proxy: ProxyFile = ProxyFile()
    demand: Literal["exponential", "deterministic"] = Field(
        "exponential", description="how the CPU time of a visit is distributed around its mean"
    )
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
                        f"tasks.{name}.requests: unknown endpoint {request!r}; "
                        f"endpoints: {', '.join(self.endpoints)}"
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
