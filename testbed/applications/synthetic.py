"""Applications of any size, drawn at random: `synthetic:N` and `synthetic:N:DRAW`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import one_line
from deepscaler.errors import SettingsError
from testbed.applications.application import MIB, Application, Call, Endpoint, Parallel, Service, Steps, Task

PREFIX = "synthetic:"
"""How the names of these applications begin."""
LARGEST = 10_000
"""Services that an application may have; a call graph of so many takes seconds to draw."""
ENTRY_SHARE = 20
"""One of this many services receives requests from outside."""
LAYERS = 5
"""Layers of callees below the entries."""
VISITS = 24
"""Services that a request visits, whatever their number."""


def synthetic(text: str) -> Application:
    """An application with a random layered call graph in which every service is visited.

    It belongs to its name, not to a run's seed: runs of any seed load the same application.

    Raises:
        SettingsError: the name isn't `synthetic:N` or `synthetic:N:DRAW`, or N is beyond `LARGEST`.
    """
    number, colon, draw = text.removeprefix(PREFIX).partition(":")
    numbers = (number, draw) if colon else (number,)
    sound = all(part.isdecimal() and len(part) <= 20 for part in numbers)
    if not sound or not 2 <= int(number) <= LARGEST:
        raise SettingsError(
            f"testbed.application: {one_line(text, 60)!r}: expected synthetic:N or synthetic:N:DRAW with "
            f"2 <= N <= {LARGEST}, such as synthetic:100"
        )
    size = int(number)
    random = np.random.default_rng(np.random.SeedSequence([int(draw or 0), size]))
    layers = np.sort(random.integers(1, LAYERS + 1, size))
    entries = max(1, size // ENTRY_SHARE)
    layers[:entries] = 0
    demands = 0.002 * np.exp(random.normal(-0.125, 0.5, size))  # log-normal, 2 ms on average
    boots = random.uniform(5, 60, size)
    services = tuple(
        _service(f"service-{i:04d}", float(demand), float(boot))
        for i, (demand, boot) in enumerate(zip(demands, boots, strict=True))
    )
    behind = random.permutation(np.arange(entries, size))
    count = max(entries, 4)
    parts = np.array_split(behind, count)
    endpoints = []
    for at in range(count):
        extra = random.choice(behind, min(max(VISITS - len(parts[at]), 4), 20))
        members = np.unique(np.concatenate([parts[at], extra]))
        endpoints.append(
            Endpoint(f"GET /{at}", at % entries, _random_tree(random, at % entries, members, layers))
        )
    tasks = tuple(Task(endpoint.name, 1.0, (at,)) for at, endpoint in enumerate(endpoints))
    return Application(text, services, tuple(endpoints), tasks, 1.0, 1.0)


def _service(name: str, demand_seconds: float, boot_seconds: float) -> Service:
    return Service(
        name=name,
        request_cores=0.1,
        limit_cores=0.2,
        request_memory_bytes=64 * MIB,
        limit_memory_bytes=128 * MIB,
        demand_seconds=demand_seconds,
        boot_seconds=boot_seconds,
        max_in_flight=0,
        idle_cores=0.002,
        memory_base_bytes=32 * MIB,
        memory_per_request_bytes=0.5 * MIB,
        cores=2,
    )


def _random_tree(
    random: np.random.Generator, entry: int, members: NDArray[np.int64], layers: NDArray[np.int64]
) -> Steps:
    """A random member of a lower layer calls each member; a third of all siblings start together."""
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
