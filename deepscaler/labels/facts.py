"""What the orchestrator says of the services: CPU limits and start-up times, kept in `workloads.json`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import read_json, write_json
from deepscaler.cluster import Workload
from deepscaler.errors import DataError

Array = NDArray[np.float64]
log = logging.getLogger(__name__)

DEFAULT_BOOT_SECONDS = 30.0
"""The start-up time of a service of which none is known."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What the orchestrator says of the services.

    Attributes:
        limit_cores: `[N]` CPU limit of a replica.
        boot_seconds: `[N]` time until a new replica is ready.
    """

    limit_cores: Array
    boot_seconds: Array


def read_facts(path: str | Path, services: Sequence[str], boot_overrides: Mapping[str, float]) -> Facts:
    """Limits and start-up times of `services` from `workloads.json`.

    The CPU request stands in for a limit that isn't set.

    Args:
        path: of `workloads.json`.
        services: N names.
        boot_overrides: start-up times in seconds that win over those of the file, by service.

    Raises:
        DataError: the file is missing or broken, lacks a service, or gives it neither a limit nor a request.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path}: no such file (CPU limits and start-up times); make it with: python metrics_fetch.py"
        )
    try:
        stored = read_json(path, "make it again with: python metrics_fetch.py")
        entries = {service: _entry(path, stored, service) for service in services}
        limits = [_limit(path, service, entry) for service, entry in entries.items()]
        boots = [_boot(service, entry, boot_overrides) for service, entry in entries.items()]
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: broken ({error}); make it again with: python metrics_fetch.py") from error
    return Facts(np.array(limits), np.array(boots))


def _entry(path: Path, stored: Mapping[str, Any], service: str) -> Mapping[str, Any]:
    if service not in stored:
        raise DataError(f"{path}: service {service!r} is missing; it holds {', '.join(stored)}")
    entry: Mapping[str, Any] = stored[service]
    return entry


def _limit(path: Path, service: str, entry: Mapping[str, Any]) -> float:
    limit = entry.get("cpu_limit_cores") or entry.get("cpu_request_cores")
    if not limit:
        raise DataError(
            f"{path}: service {service!r} has neither a CPU limit nor a CPU request, so its utilisation "
            "can't be told; set one of them in its deployment, then: python metrics_fetch.py"
        )
    if not 0 < float(limit) < 1e9:
        raise ValueError(f"{service}: a limit of {limit} cores")
    return float(limit)


def _boot(service: str, entry: Mapping[str, Any], overrides: Mapping[str, float]) -> float:
    boot = overrides.get(service, entry.get("boot_seconds"))
    if boot is None:
        log.warning(
            "%s: start-up time unknown, %g s are assumed; set process.boot_seconds.%s",
            service,
            DEFAULT_BOOT_SECONDS,
            service,
        )
        return DEFAULT_BOOT_SECONDS
    return float(boot)


def write_facts(workloads: Sequence[Workload], path: str | Path) -> None:
    """Write `workloads.json`: what `read_facts` reads, and the memory limits."""
    names = ("cpu_limit_cores", "cpu_request_cores", "memory_limit_bytes", "boot_seconds")
    write_json(
        path, {workload.service: {name: getattr(workload, name) for name in names} for workload in workloads}
    )
