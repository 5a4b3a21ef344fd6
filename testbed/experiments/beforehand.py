"""What can be found out before the first run is made: loads and files that aren't there, or don't fit."""

from __future__ import annotations

from collections.abc import Sequence

from deepscaler.errors import BundleError
from deepscaler.policies.registry import bundle_path
from testbed import shapes
from testbed.experiments.matrix import INDIFFERENT, Task
from testbed.experiments.references import played
from testbed.experiments.runs import check_policies


def check_inputs(tasks: Sequence[Task]) -> None:
    """Say before the first run what would be found out after hours.

    Each load is drawn once, and each policy is made once per settings that it can depend on. What a case
    collects itself isn't asked for.

    Raises:
        SettingsError: a load has no such shape, or can't be drawn.
        DataError: a trace, a demand fit or recorded calls are missing or broken.
        BundleError: a bundle is missing or doesn't fit.
    """
    seen: set[str] = set()
    for task in tasks:
        for check, key in ((_draw, _load_key(task)), (_make, _policy_key(task))):
            if key not in seen:
                seen.add(key)
                check(task)


def _load_key(task: Task) -> str:
    bed = task.settings.testbed
    return f"{task.load.model_dump_json()} {bed.earlier} {task.hours}"


def _policy_key(task: Task) -> str:
    scale = {*INDIFFERENT, "load", "duration"}
    return task.entrant.policy + task.settings.model_dump_json(exclude={"testbed": True, "scale": scale})


def _draw(task: Task) -> None:
    bed = played(task.settings, task.seed).testbed
    shapes.users(bed.load, bed.earlier + bed.duration, task.seed)


def _make(task: Task) -> None:
    data = task.case.data
    if data is None or (data / "meta.json").is_file():
        check_policies(task.settings, [task.entrant.policy])
        return
    bundle = bundle_path(task.entrant.policy, task.settings)
    if bundle is not None and not bundle.is_file():  # `prepare` trains none
        raise BundleError(
            f"{bundle}: no such bundle, from which {task.entrant.name} of {task.case.name} forecasts; "
            "`prepare` collects and fits, and trains nothing: name a bundle in scale.bundle of a variant"
        )
