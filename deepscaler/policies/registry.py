"""Policies by name."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deepscaler.errors import BundleError, DataError, SettingsError
from deepscaler.labels.demand import DemandModel
from deepscaler.learning.description import check_bundle, describe_bundle, expected_by, load_demand
from deepscaler.policies.base import Policy
from deepscaler.policies.deepscaler import DeepScalerPolicy, Forecaster
from deepscaler.policies.explore import ExplorePolicy, SlaWatch
from deepscaler.policies.reactive import ReactiveFloor, ReactivePolicy
from deepscaler.policies.static import StaticPolicy
from deepscaler.settings import Settings

log = logging.getLogger(__name__)
HPA = re.compile(r"hpa_(\d+)$")
TOLD = re.compile(r"oracle$|foreseen(?:_(\d+))?$")
"""Policies that are told the future; `foreseen_85` is `foreseen` at rho_max .85."""


@dataclass(frozen=True)
class Context:
    """What policies are made from.

    Attributes:
        settings: of the application.
        seed: of what a policy draws at random.
    """

    settings: Settings
    seed: int


def make_policy(
    name: str, settings: Settings, seed: int | None = None, ahead: Mapping[str, Policy] | None = None
) -> Policy:
    """The policy `name`: a key of `POLICIES`, `hpa_<percent of the limit>`, or one told the future. Only `deepscaler*` imports torch.

    Args:
        name: which.
        settings: of the application.
        seed: of what a policy draws at random; `testbed.seed` by default.
        ahead: policies by name that were made beforehand from the true future (testbed): `oracle`, `foreseen`.

    Raises:
        SettingsError: unknown name, or one that needs the future outside the testbed.
        BundleError, DataError: what the policy needs is missing or doesn't fit, naming the command that makes it.
    """
    if ahead and name in ahead:
        return ahead[name]
    if TOLD.match(name):
        raise SettingsError(
            f"policy {name!r} needs the true future: it runs on the testbed only (cluster.kind: testbed)"
        )
    hpa = HPA.match(name)
    if hpa and int(hpa[1]) > 0:
        from deepscaler.policies.hpa.policy import hpa_policy

        return hpa_policy(name, settings)
    if name not in POLICIES:
        known = f"{', '.join(POLICIES)}, oracle, foreseen, hpa_<percent of the CPU limit> (hpa_70)"
        raise SettingsError(f"policy {name!r} is unknown; allowed: {known}")
    return POLICIES[name](Context(settings, settings.testbed.seed if seed is None else seed))


def _deepscaler(context: Context) -> Policy:
    scale = context.settings.scale
    return _over_bundle(context.settings, "deepscaler", scale.floor.enabled)


def _deepscaler_nofloor(context: Context) -> Policy:
    return _over_bundle(context.settings, "deepscaler_nofloor", False)


def _over_bundle(settings: Settings, name: str, with_floor: bool) -> Policy:
    described = describe_bundle(settings.scale.bundle)
    if described is None:
        raise BundleError(
            f"{settings.scale.bundle}: no such bundle; make it with: python main.py --model_save_path {settings.scale.bundle}"
        )
    check_bundle(described, settings.scale.bundle, expected_by(settings))
    _warn_of_a_short_horizon(described, settings)
    floor = ReactiveFloor(_fit(settings), settings.scale.floor) if with_floor else None
    return DeepScalerPolicy(
        _load_forecaster(settings), floor, settings.scale.period, settings.collect.step, name
    )


def _fit(settings: Settings) -> DemandModel | None:
    try:
        return load_demand(settings)
    except DataError:
        return None  # labels that needed none: the floor goes by the cores in use


def _warn_of_a_short_horizon(described: dict[str, Any], settings: Settings) -> None:
    """With `observed` labels the horizon has to cover the lead: pod start-up and one period."""
    boots = [value for value in (described.get("demand") or {}).get("boot_seconds", []) if value is not None]
    boots.extend(settings.process.boot_seconds.values())
    ahead, lead = described["horizon"] * described["step"], max(boots, default=0.0) + settings.scale.period
    if described["label"] == "observed" and ahead < lead:
        log.warning(
            "the bundle looks %g s ahead; start-up and one period take %g s: set process.horizon", ahead, lead
        )


def _load_forecaster(settings: Settings) -> Forecaster:
    from deepscaler.learning.forecaster import load_forecaster

    return load_forecaster(settings.scale.bundle, quantile=settings.scale.quantile)


def _reactive(context: Context) -> Policy:
    settings = context.settings
    return ReactivePolicy(ReactiveFloor(load_demand(settings), settings.scale.floor), settings.collect.step)


def _static(context: Context) -> Policy:
    return StaticPolicy(context.settings.scale.static_replicas, context.settings.scale.period)


def _explore(context: Context) -> Policy:
    settings, explore = context.settings, context.settings.scale.explore
    real = settings.cluster.kind != "testbed"
    if real and not (explore.allow or settings.scale.dry_run):
        raise SettingsError(
            "policy 'explore' varies replicas on purpose: on a real cluster only with --set scale.explore.allow=true; "
            "guard rails apply, and it pauses while an entry's response nears its SLA"
        )
    watch = (
        SlaWatch([(entry.service, entry.sla) for entry in settings.app.entries], explore) if real else None
    )
    return ExplorePolicy(context.seed, explore.target, explore.seconds, settings.collect.step, watch)


POLICIES: dict[str, Callable[[Context], Policy]] = {
    "deepscaler": _deepscaler,
    "deepscaler_nofloor": _deepscaler_nofloor,
    "reactive_holistic": _reactive,
    "static": _static,
    "explore": _explore,
}
"""Makers by name; `hpa_<percent>` beside them."""
