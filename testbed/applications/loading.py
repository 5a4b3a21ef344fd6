"""The application of a file or of a name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from deepscaler.errors import SettingsError
from deepscaler.settings import load_section
from deepscaler.settings.layers import layers_of
from testbed.applications.application import (
    MIB,
    Application,
    Call,
    Endpoint,
    Parallel,
    Proxy,
    Service,
    Steps,
    Task,
)
from testbed.applications.description import ApplicationFile, CallFile, EndpointFile, ServiceFile
from testbed.applications.synthetic import PREFIX, synthetic
from testbed.applications.variation import vary

APPS = Path(__file__).parents[1] / "apps"
"""Where the shipped applications are."""


def load_application(name_or_path: str | Path, *, sigma: float = 0.0, seed: int = 0) -> Application:
    """The application that `testbed.application` names.

    Args:
        name_or_path: a shipped application (`boutique`), a path to a YAML file, or `synthetic:N`, a random
            one of N services (`synthetic:N:DRAW` for another draw).
        sigma: above 0, demands and numbers of calls vary by factors of this log-normal spread, see `vary`.
        seed: what draws these factors.

    Raises:
        SettingsError: no such application, or a broken file.
    """
    text = str(name_or_path)
    application = synthetic(text) if text.startswith(PREFIX) else _read(_find(text))
    return vary(application, sigma, seed) if sigma > 0 else application


@cache
def application_files(name_or_path: str) -> tuple[Path, ...]:
    """The file that `testbed.application` names and those that it extends; none for a generated application.

    Which files these are is asked once per process.

    Raises:
        SettingsError: no such application, or a broken file.
    """
    if name_or_path.startswith(PREFIX):
        return ()
    return tuple(Path(layer.name) for layer in layers_of(_find(name_or_path), ApplicationFile))


def _find(text: str) -> Path:
    if text.endswith((".yaml", ".yml")) or "/" in text:
        return Path(text)
    path = APPS / f"{text}.yaml"
    if not path.exists():
        known = ", ".join(sorted(found.stem for found in APPS.glob("*.yaml")))
        raise SettingsError(
            f"testbed.application: unknown application {text!r}; shipped: {known}; "
            f"or a path to a YAML file, or {PREFIX}N[:DRAW]"
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
        demand=document.demand,
        hop_seconds=document.hop_ms / 1000,
        proxy=Proxy(
            document.proxy.request_millicores / 1000,
            document.proxy.idle_millicores / 1000,
            document.proxy.call_ms / 1000,
        ),
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
        wakeup=data.wakeup,
    )


class _Trees:
    """Writes out the call trees of a file. What a service calls of its own accord is built once."""

    def __init__(self, path: Path, document: ApplicationFile, index: Mapping[str, int]) -> None:
        self._path, self._document, self._index = path, document, index
        self._done: dict[tuple[str, str | None], Steps] = {}
        self._open: list[tuple[str, str | None]] = []

    def check(self) -> None:
        """Build the own calls of every service: a circle is an error even where an endpoint cuts it.

        Raises:
            SettingsError: a service calls itself in a circle.
        """
        for name, data in self._document.services.items():
            for operation in (None, *data.operations):
                self._own(name, operation)

    def of_endpoint(self, endpoint: EndpointFile) -> Steps:
        """The calls of a request's first visit."""
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
                f"{self._path}: services.{service}: calls itself in a circle: {circle}; "
                "cut it with `calls: []`"
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
