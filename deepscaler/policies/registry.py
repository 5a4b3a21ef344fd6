"""The policies by name: `deepscaler`, `hpa_70` and so on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deepscaler.errors import SettingsError
from deepscaler.learning.description import load_demand
from deepscaler.planning.scenarios import ANALOGS, NETWORK
from deepscaler.policies.analog import AnalogHistory
from deepscaler.policies.base import Policy
from deepscaler.policies.calls import calls_file
from deepscaler.policies.explore import ExplorePolicy, SlaWatch
from deepscaler.policies.over_bundle import (
    over_bundle,
    over_one_source,
    over_quantile,
    paper_bundle,
    published,
    quantile_bundle,
)
from deepscaler.policies.planned import bootstrap_policy, plan_policy
from deepscaler.policies.reactive import FrontPolicy, OneByOnePolicy, ReactiveFloor, ReactivePolicy
from deepscaler.policies.rivals import RIVALS, is_rival, make_rival
from deepscaler.policies.static import StaticPolicy
from deepscaler.runs import PolicyName
from deepscaler.settings import Settings

HPA = "hpa"
"""Family of the HPAs; its knob is the target, in percent of the CPU limit."""
FORESEEN = "foreseen"
"""Family of the policies that know the future load; its knob is their highest utilisation, in percent."""
TOLD = ("oracle", FORESEEN, "plan_foreseen", "plan_informed")
"""Families of the policies that are told the future. An experiment makes them beforehand."""


@dataclass(frozen=True)
class Context:
    """What a policy is made from.

    Attributes:
        settings: those of the application.
        seed: seed of what the policy draws at random.
    """

    settings: Settings
    seed: int


def check_name(name: str) -> None:
    """Whether there is a policy of that name, without making it.

    Raises:
        SettingsError: there is none.
    """
    asked = PolicyName.parse(name)
    if asked.family not in TOLD and name not in POLICIES and not is_rival(asked):
        known = ", ".join((*POLICIES, *TOLD, *(family for family in RIVALS if not family.startswith(HPA))))
        raise SettingsError(
            f"policy {name!r} is unknown; allowed: {known}, hpa_<percent of the CPU limit> (hpa_70), "
            "hpa_r<percent of the CPU request> (hpa_r70)"
        )


def make_policy(
    name: str, settings: Settings, seed: int | None = None, ahead: Mapping[str, Policy] | None = None
) -> Policy:
    """The policy `name`: a key of `POLICIES`, one of `RIVALS`, or one of those made `ahead`.

    Only `deepscaler` and `deepscaler_nofloor` import torch.

    Args:
        name: which policy.
        settings: those of the application.
        seed: seed of what the policy draws at random; `testbed.seed` by default.
        ahead: policies that were made beforehand from the true future (on the testbed), by name.

    Raises:
        SettingsError: the name is unknown, or the policy needs the future and it isn't known.
        BundleError, DataError: what the policy needs is missing or doesn't fit; the message names the command
            that makes it.
    """
    if ahead and name in ahead:
        return ahead[name]
    asked = PolicyName.parse(name)
    if asked.family in TOLD:
        raise SettingsError(
            f"policy {name!r} needs the true future: it runs on the testbed only (cluster.kind: testbed)"
        )
    check_name(name)
    rival = make_rival(asked, settings)
    if rival is not None:
        return rival
    return POLICIES[name](Context(settings, settings.testbed.seed if seed is None else seed))


def _deepscaler(context: Context) -> Policy:
    return over_bundle(context.settings, "deepscaler", context.settings.scale.floor.enabled)


def _deepscaler_nofloor(context: Context) -> Policy:
    return over_bundle(context.settings, "deepscaler_nofloor", False)


def _deepscaler_network(context: Context) -> Policy:
    """The plan over the quantiles of the network alone, without the live history."""
    return over_one_source(context.settings, NETWORK)


def _deepscaler_analogs(context: Context) -> Policy:
    """The plan over what followed the most alike moments of the training alone, without the live history."""
    return over_one_source(context.settings, ANALOGS)


def _deepscaler_quantile(context: Context) -> Policy:
    return over_quantile(context.settings)


def _deepscaler_paper(context: Context) -> Policy:
    return published(context.settings)


def _plan_bootstrap(context: Context) -> Policy:
    return bootstrap_policy(context.settings, load_demand(context.settings))


def _plan_analog(context: Context) -> Policy:
    settings, model = context.settings, load_demand(context.settings)
    step, plan = settings.collect.step, settings.scale.plan
    source = AnalogHistory(round(plan.horizon / step), plan.scenarios, step)
    return plan_policy(settings, model, source, "plan_analog")


def _reactive(context: Context) -> Policy:
    settings = context.settings
    return ReactivePolicy(ReactiveFloor(load_demand(settings), settings.scale.floor), settings.collect.step)


def _front(context: Context) -> Policy:
    settings = context.settings
    floor = ReactiveFloor(load_demand(settings), settings.scale.floor)
    return FrontPolicy(floor, [entry.service for entry in settings.app.entries], settings.collect.step)


def _one_by_one(context: Context) -> Policy:
    settings = context.settings
    return OneByOnePolicy(ReactiveFloor(load_demand(settings), settings.scale.floor), settings.collect.step)


def _static(context: Context) -> Policy:
    return StaticPolicy(context.settings.scale.static_replicas, context.settings.scale.period)


def _explore(context: Context) -> Policy:
    settings, explore = context.settings, context.settings.scale.explore
    real = settings.cluster.kind != "testbed"
    if real and not (explore.allow or settings.watching):
        raise SettingsError(
            "policy 'explore' varies replicas on purpose: allow it on a real cluster with "
            "--set scale.explore.allow=true; guard rails apply, and it pauses while the response "
            "of an entry nears its SLA"
        )
    watch = (
        SlaWatch([(entry.service, entry.sla) for entry in settings.app.entries], explore) if real else None
    )
    return ExplorePolicy(context.seed, explore.target, explore.seconds, settings.collect.step, watch)


POLICIES: dict[str, Callable[[Context], Policy]] = {
    "deepscaler": _deepscaler,
    "deepscaler_nofloor": _deepscaler_nofloor,
    "deepscaler_network": _deepscaler_network,
    "deepscaler_analogs": _deepscaler_analogs,
    "deepscaler_quantile": _deepscaler_quantile,
    "deepscaler_paper": _deepscaler_paper,
    "reactive_holistic": _reactive,
    "reactive_front": _front,
    "reactive_one_by_one": _one_by_one,
    "plan_bootstrap": _plan_bootstrap,
    "plan_analog": _plan_analog,
    "static": _static,
    "explore": _explore,
}
"""Name -> function that makes the policy. `make_policy` knows more names: `RIVALS` and `TOLD`."""
OVER_BUNDLE = ("deepscaler", "deepscaler_nofloor", "deepscaler_network", "deepscaler_analogs")
"""Those that forecast from the bundle."""
OVER_CALLS = ("showar", "pbscaler")
"""Families that know who calls whom."""
WITHOUT_FILES = ("hpa", "hpa_r", "predictive_hpa", "target_tracking", "static", "explore", "oracle")
"""Families that know nothing of the application beforehand: they read neither a bundle nor a demand fit."""


def files_read(name: str, settings: Settings) -> list[Path]:
    """The files that the policy `name` is made from, whether they are there or not."""
    family = PolicyName.parse(name).family
    if family in WITHOUT_FILES:
        return []
    bundle = bundle_path(name, settings)
    if bundle is not None and name not in OVER_BUNDLE:
        return [bundle]
    calls = [calls_file(settings)] if family in OVER_CALLS else []
    return [Path(settings.scale.bundle), Path(settings.process.output_dir) / "meta.json", *calls]


def bundle_path(name: str, settings: Settings) -> Path | None:
    """The file of the bundle that the policy `name` forecasts from; None if it forecasts from none."""
    if name == "deepscaler_quantile":
        return quantile_bundle(settings)
    if name == "deepscaler_paper":
        return paper_bundle(settings)
    return Path(settings.scale.bundle) if name in OVER_BUNDLE else None
