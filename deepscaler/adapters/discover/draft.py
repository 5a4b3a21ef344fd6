"""The text of a drafted settings file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from deepscaler.adapters.discover.services import FoundService
from deepscaler.settings import ClusterSection

_PROMETHEUS = "http://127.0.0.1:30090"


def draft(
    name: str,
    namespace: str,
    services: Sequence[FoundService],
    entries: Sequence[str],
    how: str,
    cluster: ClusterSection,
    prometheus: str | None,
) -> str:
    """The YAML text, with one line per service.

    Args:
        name: of the application.
        namespace: that it runs in.
        services: found there.
        entries: names of those that users reach.
        how: how the entries are known.
        cluster: kubeconfig and context that were given.
        prometheus: the address that was given; None: the usual one is written and marked.
    """
    path = name.replace("-", "_")
    lines = [
        "# yaml-language-server: $schema=app.schema.json",
        f"# Drafted from namespace {namespace}; look at the lines marked CHECK.",
        "app:",
        f"  name: {_scalar(name)}",
        f"  namespace: {_scalar(namespace)}",
        "  services:",
        *map(_service_line, services),
        f"  entries:  # by {how}" if not how.startswith("CHECK") else f"  entries:  # {how}",
        *_entry_lines(entries),
        "",
        "cluster:",
        "  kind: kubernetes",
    ]
    if cluster.kubeconfig:
        lines.append(f"  kubeconfig: {_scalar(cluster.kubeconfig)}")
    if cluster.context:
        lines.append(f"  context: {_scalar(cluster.context)}")
    address = f"  prometheus: {{url: {_scalar(prometheus or _PROMETHEUS)}}}"
    lines.append(address if prometheus else f"{address}  # CHECK")
    lines += ["", "collect:", f"  output_dir: data/{path}", "", "process:"]
    lines += [
        "  label: offered  # request rates, for the plan by cost (docs/cluster.md)",
        "  step: 15",
        "  horizon: 40",
    ]
    lines += [f"  output_dir: data/{path}_scenarios", ""]
    lines += [
        "scale:",
        f"  bundle: model_states/{path}/AdapGLQ.pt",
        f"  run_dir: runs/{path}",
        "  mode: shadow  # first it only records what it would do; then advise, then act (docs/modes.md)",
    ]
    lines += ["", "evaluate:", f"  runs: runs/{path}", f"  output_dir: runs/{path}", ""]
    return "\n".join(lines)


def _service_line(item: FoundService) -> str:
    notes = "; ".join(text for text in (item.reason, *item.notes) if text)
    return f"    {_scalar(item.name)}: {_differences(item)}".ljust(72) + f"  # {notes}"


def _differences(item: FoundService) -> str:
    """The flow mapping of what isn't called like the service; `{}` where everything is."""
    parts: dict[str, Any] = {}
    if item.workloads[0] != item.name or len(item.workloads) > 1:
        parts["deployment"] = item.workloads[0]
    if item.container != item.name:
        parts["container"] = item.container
    if len(item.workloads) > 1:
        parts["workloads"] = item.workloads
    if item.reason:
        parts["scaled"] = False
    text: str = yaml.safe_dump(parts, default_flow_style=True, sort_keys=False, width=10_000)
    return text.strip()


def _entry_lines(entries: Sequence[str]) -> list[str]:
    lines = []
    for entry in entries:
        endpoint = "GET /" if len(entries) == 1 else entry
        text = f"{{name: {_scalar(endpoint)}, service: {_scalar(entry)}, sla: 0.2, slo: 0.5}}"
        lines.append(f"    - {text}  # CHECK name (as the load generator calls it) and objectives")
    return lines


def _scalar(text: str) -> str:
    return (
        yaml.safe_dump(text, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
    )
