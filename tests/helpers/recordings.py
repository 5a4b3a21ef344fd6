"""Our own recordings of a real Kubernetes v1.36, unpacked; tests/recordings/README.md says what they hold."""

from __future__ import annotations

import csv
import json
import lzma
from functools import cache
from typing import Any

from helpers.paths import TESTS

RECORDINGS = TESTS / "recordings"


@cache
def _unpacked(name: str) -> str:
    return lzma.decompress((RECORDINGS / f"{name}.json.xz").read_bytes()).decode()


def hpa_decisions() -> dict[str, Any]:
    """Decisions of the real HorizontalPodAutoscaler controller; each call gives a copy of its own."""
    found: dict[str, Any] = json.loads(_unpacked("hpa_decisions_v1.36"))
    return found


def kubernetes_answers() -> list[dict[str, Any]]:
    """Requests and answers of a real API server, in order; each call gives a copy of its own."""
    found: list[dict[str, Any]] = json.loads(_unpacked("kubernetes_api_v1.36"))
    return found


def table(name: str) -> list[dict[str, str]]:
    """The rows of a small table of facts, such as `boutique_edges`."""
    with (RECORDINGS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
