"""The policies by name: `deepscaler`, `hpa_70` and so on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepscaler.errors import BundleError, DataError, SettingsError
from deepscaler.labels.demand import DemandModel
from deepscaler.learning.bundle_file import BundleFile, read_bundle_file
from deepscaler.learning.description import Expected, check_bundle, expected_by, load_demand
from deepscaler.learning.scenarios import NetworkScenarios
from deepscaler.planning.scenarios import ANALOGS, NETWORK
from deepscaler.policies.analog import AnalogHistory
from deepscaler.policies.base import Policy
from deepscaler.policies.deepscaler import DeepScalerPolicy
from deepscaler.policies.explore import ExplorePolicy, SlaWatch
from deepscaler.policies.outlook import learned_from
from deepscaler.policies.planned import bootstrap_policy, plan_policy, trials_of
from deepscaler.policies.reactive import FrontPolicy, OneByOnePolicy, ReactiveFloor, ReactivePolicy
from deepscaler.policies.rivals import RIVALS, is_rival, make_rival
from deepscaler.policies.static import StaticPolicy
from deepscaler.runs import PolicyName
from deepscaler.settings import Settings

if TYPE_CHECKING:
    from deepscaler.learning.forecaster import Forecaster as BundleForecaster

log = logging.getLogger(__name__)
HPA = "hpa"
"""Family of the HPAs; its knob is the target, in percent of the CPU limit."""
FORESEEN = "foreseen"
"""Family of the policies that know the future load; its knob is their highest utilisation, in percent."""
TOLD = ("oracle", FORESEEN, "plan_foreseen", "plan_informed")
"""Families of the policies that are told the future. An experiment makes them beforehand."""


OFFERED = "offered"
TRAIN_OFFERED = "train it on process.label=offered"
PAPER_BUNDLE = "paper.pt"
"""The bundle of `deepscaler_paper` lies beside that of `deepscaler` (`scale.bundle`)."""


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
    return _over_bundle(context.settings, "deepscaler", context.settings.scale.floor.enabled)


def _deepscaler_nofloor(context: Context) -> Policy:
    return _over_bundle(context.settings, "deepscaler_nofloor", False)


def _deepscaler_network(context: Context) -> Policy:
    """The plan over the quantiles of the network alone, without the live history."""
    return _alone(context.settings, NETWORK)


def _deepscaler_analogs(context: Context) -> Policy:
    """The plan over what followed the most alike moments of the training alone, without the live history."""
    return _alone(context.settings, ANALOGS)


def _alone(settings: Settings, source: str) -> Policy:
    file, name = _bundle(settings), f"deepscaler_{source}"
    if file.description["label"] != OFFERED:
        raise BundleError(f"{file.path}: {name} plans over scenarios: {TRAIN_OFFERED}")
    return _planned(settings, file, name, settings.scale.floor.enabled, source)


def _deepscaler_quantile(context: Context) -> Policy:
    """A forecast of replicas, taken as it is: no scenarios and no plan."""
    scale = context.settings.scale
    own = _quantile_bundle(context.settings)
    chosen = scale.model_copy(update={"bundle": str(own)})
    settings = context.settings.model_copy(update={"scale": chosen})
    file = _bundle(settings)
    if file.description["label"] == OFFERED:
        raise BundleError(
            f"{file.path}: trained for request rates, deepscaler_quantile needs replicas "
            "(process.label=required); name such a bundle in scale.quantile_bundle"
        )
    return _forecast(settings, file, "deepscaler_quantile", scale.floor.enabled)


def _deepscaler_paper(context: Context) -> Policy:
    """The published system: AdapGLA, labels as recorded, no floor and no plan."""
    own = _paper_bundle(context.settings)
    scale = context.settings.scale.model_copy(update={"bundle": str(own), "quantile": 0.5})
    settings = context.settings.model_copy(update={"scale": scale})
    published = Expected(
        "deepscaler_paper needs",
        "docs/decisions.md has the two commands that make it",
        {"network": "AdapGLA", "label": "observed"},
    )
    check_bundle(read_bundle_file(own).description, own, published)
    return _over_bundle(settings, "deepscaler_paper", False)


def _over_bundle(settings: Settings, name: str, with_floor: bool) -> Policy:
    """A plan over scenarios if the bundle was trained on offered rates, else its forecast of replicas."""
    file = _bundle(settings)
    if file.description["label"] == OFFERED:
        return _planned(settings, file, name, with_floor)
    return _forecast(settings, file, name, with_floor)


def _bundle(settings: Settings) -> BundleFile:
    file = read_bundle_file(settings.scale.bundle)
    check_bundle(file.description, file.path, expected_by(settings, str(file.description["label"])))
    log.info("bundle %s, sha256 %s", file.path, file.sha256)
    return file


def _planned(
    settings: Settings, file: BundleFile, name: str, with_floor: bool, alone: str | None = None
) -> Policy:
    """The plan over one of the network's sources `alone`, or over all sources on trial."""
    model, plan, step = load_demand(settings, file), settings.scale.plan, settings.collect.step
    horizon = round(plan.horizon / step)
    forecaster = _load_forecaster(file, 0.5)
    asked = (forecaster, model.services, horizon, plan.scenarios)
    sources = {NETWORK: NetworkScenarios(*asked)}
    if forecaster.bundle.moments is not None:
        sources[ANALOGS] = NetworkScenarios(*asked, analogs=True)
    if alone is not None and alone not in sources:
        raise BundleError(f"{file.path}: keeps no moments of its training: {TRAIN_OFFERED}")
    source = trials_of(settings, model, sources) if alone is None else sources[alone]

    def about() -> Mapping[str, Any]:
        told = {name: one.describe() for name, one in sources.items() if alone in (None, name)}
        return {"scenarios": told, "bundle_sha256": file.sha256}

    learned = learned_from(file)
    return plan_policy(settings, model, source, name, with_floor=with_floor, about=about, learned=learned)


def _forecast(settings: Settings, file: BundleFile, name: str, with_floor: bool) -> Policy:
    _warn_of_a_short_horizon(file.description, settings)
    floor = ReactiveFloor(_fit(settings, file), settings.scale.floor) if with_floor else None
    return DeepScalerPolicy(
        _load_forecaster(file, settings.scale.quantile),
        floor,
        settings.scale.period,
        settings.collect.step,
        name,
        learned=learned_from(file),
    )


def _plan_bootstrap(context: Context) -> Policy:
    return bootstrap_policy(context.settings, load_demand(context.settings))


def _plan_analog(context: Context) -> Policy:
    settings, model = context.settings, load_demand(context.settings)
    step, plan = settings.collect.step, settings.scale.plan
    source = AnalogHistory(round(plan.horizon / step), plan.scenarios, step)
    return plan_policy(settings, model, source, "plan_analog")


def _fit(settings: Settings, file: BundleFile) -> DemandModel | None:
    try:
        return load_demand(settings, file)
    except DataError:
        return None  # the labels needed no fit: the floor then goes by the cores in use


def _warn_of_a_short_horizon(described: dict[str, Any], settings: Settings) -> None:
    """Warn if the horizon of `observed` labels is shorter than a pod's start-up and one period together."""
    boots = [value for value in (described.get("demand") or {}).get("boot_seconds", []) if value is not None]
    boots.extend(settings.process.boot_seconds.values())
    ahead, lead = described["horizon"] * described["step"], max(boots, default=0.0) + settings.scale.period
    if described["label"] == "observed" and ahead < lead:
        log.warning(
            "the bundle looks %g s ahead, but the start-up of a pod and one period take %g s: "
            "set process.horizon",
            ahead,
            lead,
        )


def _load_forecaster(file: BundleFile, quantile: float) -> BundleForecaster:
    from deepscaler.learning.forecaster import load_forecaster

    return load_forecaster(file, quantile=quantile)


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
WITHOUT_FILES = ("hpa", "hpa_r", "predictive_hpa", "target_tracking", "static", "explore", "oracle")
"""Families that know nothing of the application beforehand: they read neither a bundle nor a demand fit."""


def files_read(name: str, settings: Settings) -> list[Path]:
    """The files that the policy `name` is made from, whether they are there or not."""
    if PolicyName.parse(name).family in WITHOUT_FILES:
        return []
    bundle = bundle_path(name, settings)
    if bundle is not None and name not in OVER_BUNDLE:
        return [bundle]
    return [Path(settings.scale.bundle), Path(settings.process.output_dir) / "meta.json"]


def bundle_path(name: str, settings: Settings) -> Path | None:
    """The file of the bundle that the policy `name` forecasts from; None if it forecasts from none."""
    if name == "deepscaler_quantile":
        return _quantile_bundle(settings)
    if name == "deepscaler_paper":
        return _paper_bundle(settings)
    return Path(settings.scale.bundle) if name in OVER_BUNDLE else None


def _quantile_bundle(settings: Settings) -> Path:
    return Path(settings.scale.quantile_bundle or settings.scale.bundle)


def _paper_bundle(settings: Settings) -> Path:
    return Path(settings.scale.bundle).with_name(PAPER_BUNDLE)
