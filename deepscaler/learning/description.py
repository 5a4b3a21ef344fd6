"""Whether what a bundle says about itself fits its user, and the demand fit in it; without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deepscaler.errors import BundleError, DataError
from deepscaler.labels.demand import DemandModel
from deepscaler.learning.bundle_file import BundleFile, read_bundle_file
from deepscaler.settings import Settings

REPLICA_LABELS = ("required", "observed")
SCALING_LABELS = (*REPLICA_LABELS, "offered")
"""Labels of bundles that replicas can be chosen by."""
"""Labels whose forecasts are replicas."""
WORDS = {"app": "application", "step": "step in seconds"}
"""How messages name what a description calls `app` and `step`; other keys name themselves."""


@dataclass(frozen=True)
class Expected:
    """What whoever uses a bundle expects of it; what is left out isn't checked.

    Attributes:
        who: whose expectation it is, as it stands in messages: `the configuration says`.
        remedy: what to do where the bundle differs, as it stands in messages.
        values: values by their key in the description; the order counts in lists, not in sets.
        features_at_hand: the bundle may need no other features than these.
        services: services of which the bundle has to know at least one, and the share `min_known`.
        min_known: the setting `scale.min_known_services`.
        replicas: the bundle has to forecast replicas.
    """

    who: str
    remedy: str
    values: Mapping[str, Any] = field(default_factory=dict)
    features_at_hand: Sequence[str] | None = None
    services: Sequence[str] = ()
    min_known: float = 0.0
    replicas: bool = False


def expected_by(settings: Settings, label: str = "required") -> Expected:
    """What the controller's configuration expects of the bundle that it names.

    Args:
        settings: of the application.
        label: of the bundle. Offered rates are foreseen at the step of the metrics.
    """
    app, process = settings.app, settings.process
    step = settings.collect.step if label == "offered" else process.step
    return Expected(
        who="the configuration says",
        remedy="choose the right --config or --model_path, or train with: python main.py",
        values={"app": app.name, "features": frozenset(process.features), "step": step},
        services=[name for name, service in app.services.items() if service.scaled],
        min_known=settings.scale.min_known_services,
        replicas=True,
    )


def check_bundle(described: Mapping[str, Any], bundle: str | Path, expected: Expected) -> None:
    """Refuse a bundle that doesn't fit.

    Args:
        described: what the bundle says about itself.
        bundle: its file, as it stands in messages.
        expected: what is asked of it.

    Raises:
        BundleError: it doesn't fit; the message names both sides.
    """
    for key, wanted in expected.values.items():
        in_any_order = isinstance(wanted, frozenset)
        trained, asked = (
            sorted(side or ()) if in_any_order else side for side in (described.get(key), wanted)
        )
        if trained != asked:
            raise BundleError(
                f"{bundle}: trained for {WORDS.get(key, key)} {trained}, {expected.who} {asked}; "
                f"{expected.remedy}"
            )
    if expected.replicas and described.get("label") not in SCALING_LABELS:
        raise BundleError(
            f"{bundle}: forecasts {described.get('label')!r}, not one of {', '.join(SCALING_LABELS)}; "
            "set process.label"
        )
    _check_features(described, bundle, expected)
    _check_services(described, bundle, expected)


def _check_features(described: Mapping[str, Any], bundle: str | Path, expected: Expected) -> None:
    at_hand = expected.features_at_hand
    missing = [name for name in described["features"] if name not in at_hand] if at_hand is not None else []
    if missing:
        raise BundleError(
            f"{bundle}: trained on features {', '.join(described['features'])}, {expected.who} "
            f"{', '.join(at_hand or ())}, without {', '.join(missing)}; {expected.remedy}"
        )


def _check_services(described: Mapping[str, Any], bundle: str | Path, expected: Expected) -> None:
    services = expected.services
    unknown = [name for name in services if name not in described["services"]]
    known = len(services) - len(unknown)
    if services and known < max(expected.min_known * len(services), 1):
        raise BundleError(
            f"{bundle}: knows {known} of {len(services)} services; needed are one and the share "
            f"scale.min_known_services, {expected.min_known:.0%}; unknown to it: {', '.join(unknown)}; "
            f"it knows: {', '.join(described['services'])}"
        )


def load_demand(settings: Settings, file: BundleFile | None = None) -> DemandModel:
    """The demand fit of the bundle, or else of the data set, with `scale.think_time` if that is set.

    Args:
        settings: those of the application.
        file: the bundle, if it was read already; by default `scale.bundle` is read, where there is one.

    Raises:
        DataError: neither holds one.
        BundleError: the bundle can't be read.
    """
    think = settings.scale.think_time
    model = _read_demand(settings, file)
    return model if think == "fitted" else replace(model, think_seconds=think)


def _read_demand(settings: Settings, file: BundleFile | None) -> DemandModel:
    bundle = Path(settings.scale.bundle)
    if file is None and bundle.exists():
        file = read_bundle_file(bundle)
    if file is not None and file.description.get("demand"):
        return DemandModel.from_dict(file.description["demand"])
    meta = Path(settings.process.output_dir) / "meta.json"
    try:
        demand = json.loads(meta.read_text(encoding="utf-8")).get("demand")
    except FileNotFoundError as error:
        found = "holds none" if file is not None else "isn't there"
        raise DataError(
            f"no demand fit: {bundle} {found}, and {meta} isn't there; "
            "make one with: python data_process.py, and then: python main.py"
        ) from error
    except ValueError as error:
        raise DataError(
            f"{meta}: not readable ({error}); make it again with: python data_process.py"
        ) from error
    if not demand:
        raise DataError(
            f"{meta}: holds no demand fit; "
            "make it again with: python data_process.py --set process.label=required"
        )
    return DemandModel.from_dict(demand)
