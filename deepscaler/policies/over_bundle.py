"""The policies over a bundle: a plan by what its network foresees, or the replicas that it forecasts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepscaler.errors import BundleError, DataError
from deepscaler.labels.demand import DemandModel
from deepscaler.learning.bundle_file import BundleFile, read_bundle_file
from deepscaler.learning.description import Expected, check_bundle, expected_by, load_demand
from deepscaler.learning.scenarios import NetworkScenarios
from deepscaler.planning.scenarios import ANALOGS, NETWORK
from deepscaler.policies.base import Policy
from deepscaler.policies.deepscaler import DeepScalerPolicy
from deepscaler.policies.outlook import learned_from
from deepscaler.policies.planned import plan_policy, trials_of
from deepscaler.policies.reactive import ReactiveFloor
from deepscaler.settings import Settings

if TYPE_CHECKING:
    from deepscaler.learning.forecaster import Forecaster as BundleForecaster

log = logging.getLogger(__name__)
OFFERED = "offered"
TRAIN_OFFERED = "train it on process.label=offered"
PAPER_BUNDLE = "paper.pt"
"""The bundle of `deepscaler_paper` lies beside that of `deepscaler` (`scale.bundle`)."""


def over_bundle(settings: Settings, name: str, with_floor: bool) -> Policy:
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


def over_one_source(settings: Settings, source: str) -> Policy:
    """A plan over the network's quantiles alone, or over its analogs alone."""
    file, name = _bundle(settings), f"deepscaler_{source}"
    if file.description["label"] != OFFERED:
        raise BundleError(f"{file.path}: {name} plans over scenarios: {TRAIN_OFFERED}")
    return _planned(settings, file, name, settings.scale.floor.enabled, source)


def over_quantile(settings: Settings) -> Policy:
    """A forecast of replicas, taken as it is: no scenarios and no plan."""
    scale = settings.scale.model_copy(update={"bundle": str(quantile_bundle(settings))})
    settings = settings.model_copy(update={"scale": scale})
    file = _bundle(settings)
    if file.description["label"] == OFFERED:
        raise BundleError(
            f"{file.path}: trained for request rates, deepscaler_quantile needs replicas "
            "(process.label=required); name such a bundle in scale.quantile_bundle"
        )
    return _forecast(settings, file, "deepscaler_quantile", scale.floor.enabled)


def published(settings: Settings) -> Policy:
    """The published system: AdapGLA, labels as recorded, no floor and no plan."""
    own = paper_bundle(settings)
    scale = settings.scale.model_copy(update={"bundle": str(own), "quantile": 0.5})
    settings = settings.model_copy(update={"scale": scale})
    needed = Expected(
        "deepscaler_paper needs",
        "docs/decisions.md has the two commands that make it",
        {"network": "AdapGLA", "label": "observed"},
    )
    check_bundle(read_bundle_file(own).description, own, needed)
    return over_bundle(settings, "deepscaler_paper", False)


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


def quantile_bundle(settings: Settings) -> Path:
    """The file of the bundle that `deepscaler_quantile` forecasts from."""
    return Path(settings.scale.quantile_bundle or settings.scale.bundle)


def paper_bundle(settings: Settings) -> Path:
    """The file of the bundle that `deepscaler_paper` forecasts from."""
    return Path(settings.scale.bundle).with_name(PAPER_BUNDLE)
