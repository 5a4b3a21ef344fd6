"""Applications of two services, whose numbers are easy to check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepscaler.settings import Settings

MEMORY = "memory_request_mib: 64, memory_limit_mib: 128, memory_base_mib: 32, memory_per_request_mib: 1"
TWO = f"""
name: two
think_seconds: 1
services:
  front: {{request_millicores: 100, limit_millicores: 500, demand_ms: 10, boot_seconds: 20,
           idle_millicores: 50, {MEMORY}}}
  back: {{request_millicores: 200, limit_millicores: 1000, demand_ms: 5, boot_seconds: 20,
          idle_millicores: 0, {MEMORY}}}
endpoints:
  page: {{service: front, calls: [{{service: back, times: 2}}]}}
  ping: {{service: front}}
tasks:
  mixed: {{weight: 1, requests: [page, ping]}}
"""
MESH = TWO.replace("  ping: {service: front}", "  ping: {service: front}\n  item: {service: back}").replace(
    "page, ping]", "page, ping, item, item]"
)
"""Users ask the back, too, where nothing else is done; the front asks it twice per page."""


def two_settings(tmp_path: Path, services: dict[str, Any] | None = None, **testbed: Any) -> Settings:
    """An application of two services, 20 tasks (40 requests) a second."""
    (tmp_path / "two.yaml").write_text(TWO)
    entries = [{"name": name, "service": "front"} for name in ("page", "ping")]
    load = {"shape": "steady", "kind": "open", "low": 20.0, "high": 20.0, "noise": 0.0}
    return Settings.model_validate(
        {
            "app": {"name": "two", "services": services or {"front": None, "back": None}, "entries": entries},
            "testbed": {"application": str(tmp_path / "two.yaml"), "load": load, "warmup": 60.0, **testbed},
        }
    )


def mesh_settings(tmp_path: Path, **testbed: Any) -> Settings:
    """The same, where users ask the back as well."""
    settings = two_settings(tmp_path, **testbed)
    (tmp_path / "two.yaml").write_text(MESH)
    where = (("page", "front"), ("ping", "front"), ("item", "back"))
    entries = [{"name": name, "service": service} for name, service in where]
    app = {**settings.app.model_dump(), "entries": entries}
    return Settings.model_validate({**settings.model_dump(), "app": app})
