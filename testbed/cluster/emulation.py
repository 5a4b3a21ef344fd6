"""From settings to a running engine: the compiled application, its load plan and the simulator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deepscaler.errors import SettingsError
from deepscaler.settings import Settings
from testbed import shapes
from testbed.applications.loading import load_application
from testbed.applications.variation import with_boot
from testbed.engine.program import Program, compile_program
from testbed.engine.simulator import LoadPlan, Simulator


def make_program(settings: Settings) -> Program:
    """The emulated application, compiled.

    Raises:
        SettingsError: it has other services than `app.services`.
    """
    bed = settings.testbed
    application = load_application(bed.application, sigma=bed.demand_sigma, seed=bed.demand_seed)
    if bed.boot_seconds is not None:
        application = with_boot(application, bed.boot_seconds)
    program = compile_program(application)
    _same_names("app.services", tuple(settings.app.services), program.services, bed.application)
    return program


def make_simulator(
    settings: Settings,
    program: Program,
    plan: LoadPlan,
    seed: int,
    replicas: Mapping[str, int] | None = None,
) -> Simulator:
    """The engine with `testbed.initial_replicas` of every service that `replicas` doesn't name.

    Raises:
        SettingsError: the application has other endpoints than `app.entries`.
    """
    bed = settings.testbed
    counts = [(replicas or {}).get(name, bed.initial_replicas) for name in program.services]
    return Simulator(
        program, plan, seed=seed, replicas=counts,
        balancing=bed.balancing, demand=program.demand, slo_seconds=_slo_seconds(settings, program),
    )  # fmt: skip


def make_plan(settings: Settings, program: Program, seed: int) -> LoadPlan:
    """The offered load of `testbed.load`, its first value held through the warm-up.

    Raises:
        SettingsError: a mix names a task that the application hasn't, or leaves none.
    """
    bed = settings.testbed
    times, values = shapes.later_users(bed.load, bed.earlier, bed.duration, seed)
    moments = np.concatenate([[0.0], np.asarray(times[1:], np.float64) + bed.warmup])
    if bed.load.kind == "open":
        plan = LoadPlan.open(moments, values, program.task_weights)
    else:
        plan = LoadPlan.closed(moments, values, program.task_weights, spread=bed.load.step)
    weights = dict(zip(program.tasks, program.task_weights.tolist(), strict=True))
    for change in bed.load.mix:
        unknown = sorted(set(change.weights) - set(weights))
        if unknown:
            raise SettingsError(
                f"testbed.load.mix: unknown task {unknown[0]!r}; "
                f"tasks of {bed.application!r}: {', '.join(weights)}"
            )
        weights |= change.weights
        if not any(weights.values()):
            raise SettingsError(
                f"testbed.load.mix: after {change.after_seconds:g} s no task has a weight above 0"
            )
        plan = plan.remixed(bed.warmup + change.after_seconds, list(weights.values()))
    return plan


def _same_names(key: str, configured: tuple[str, ...], emulated: tuple[str, ...], name: str) -> None:
    extra, missing = sorted(set(configured) - set(emulated)), sorted(set(emulated) - set(configured))
    if extra or missing:
        raise SettingsError(
            f"{key}: differs from the emulated application {name!r}: "
            f"not emulated: {', '.join(extra) or 'none'}; not configured: {', '.join(missing) or 'none'}"
        )


def _slo_seconds(settings: Settings, program: Program) -> list[float]:
    entries = {entry.name: entry.slo for entry in settings.app.entries}
    _same_names("app.entries", tuple(entries), program.endpoints, settings.testbed.application)
    return [entries[name] for name in program.endpoints]
