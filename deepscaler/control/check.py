"""Everything that the controller will need, looked at before it starts: `predict_scale.py --check`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from deepscaler.artefacts import one_line, replacing
from deepscaler.cluster import Workload
from deepscaler.control.keeping import MOST_BYTES
from deepscaler.errors import DeepScalerError
from deepscaler.findings import Finding
from deepscaler.learning.bundle_file import read_bundle_file
from deepscaler.policies.registry import OVER_BUNDLE, make_policy
from deepscaler.settings import Settings


def findings(settings: Settings) -> Iterator[Finding]:
    """What was found, in the order in which a start would need it.

    Args:
        settings: those of the application; their modes say which rights are needed.
    """
    app = settings.app
    yield Finding("ok", "settings", f"{app.name}, {len(app.services)} services in namespace {app.namespace}")
    live: Sequence[Workload] | None = None
    if settings.cluster.kind == "kubernetes":
        from deepscaler.adapters.kubernetes.check import ClusterCheck

        check = ClusterCheck(settings)
        yield from check.prometheus()
        yield from check.kubernetes()
        live = check.workloads
    else:
        yield Finding("ok", "cluster", "emulated, so it needs neither Prometheus nor Kubernetes")
    for name in settings.scale.policies or [settings.scale.policy]:
        yield from _policy(name, settings, live)
    yield _disk(Path(settings.scale.run_dir))


def _policy(name: str, settings: Settings, live: Sequence[Workload] | None) -> Iterator[Finding]:
    try:
        if name in OVER_BUNDLE:
            file = read_bundle_file(settings.scale.bundle)
            size = f"{len(file.content) / 1024**2:.2f} MiB"
            yield Finding("ok", "bundle", f"{file.path}, {size}, sha256 {file.sha256}")
            if live:
                yield _fit(file.description["services"], [item.service for item in live])
        make_policy(name, settings)
    except DeepScalerError as error:
        yield Finding("MISSING", f"policy {name}", str(error))
        return
    yield Finding("ok", f"policy {name}", "has all that it needs")


def _fit(known: Sequence[str], live: Sequence[str]) -> Finding:
    """How the services of the bundle and the live ones fit."""
    new = [name for name in live if name not in known]
    gone = [name for name in known if name not in live]
    text = f"the bundle knows {len(live) - len(new)} of {len(live)} live services"
    if not new and not gone:
        return Finding("ok", "fit", text)
    parts = [f"left to the floor: {', '.join(new)}"] if new else []
    parts += [f"not live: {', '.join(gone)}"] if gone else []
    return Finding("note", "fit", f"{text}; {'; '.join(parts)}; to learn them, train again: python main.py")


def _disk(directory: Path) -> Finding:
    try:
        with replacing(directory / ".check") as temporary:
            temporary.write_text("written by --check\n", encoding="utf-8")
        (directory / ".check").unlink()
        free = shutil.disk_usage(directory).free
    except OSError as error:
        remedy = "set scale.run_dir to a directory that this user may write to"
        return Finding("MISSING", "disk", f"{directory}: {one_line(error)}; {remedy}")
    text = f"{directory} can be written, {free / 1024**3:.1f} GiB are free"
    if free < MOST_BYTES:
        return Finding("note", "disk", f"{text}; free {MOST_BYTES // 1024**2} MiB, or rows are lost")
    return Finding("ok", "disk", text)
