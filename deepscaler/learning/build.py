"""Building a data set from collected metrics: series, labels, splits, statistics and prior graphs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepscaler.calls import CallGraph, read_calls
from deepscaler.errors import DataError
from deepscaler.graphs.priors import build_prior, default_priors, prior_keys
from deepscaler.graphs.structural import NEEDED, Structure, fit_structure, time_shares
from deepscaler.labels.required import Labelled, make_labels
from deepscaler.learning.dataset import Dataset, Normalizer, check_windows
from deepscaler.learning.wide import read_wide
from deepscaler.panel import FEATURES, MetricPanel, read_panel, trailing_means
from deepscaler.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Built:
    """A data set and what it was made from.

    Attributes:
        dataset: ready to be written.
        panel: the samples behind it, on a regular grid.
        labelled: its labels and what they rest on.
    """

    dataset: Dataset
    panel: MetricPanel
    labelled: Labelled


def build_dataset(settings: Settings, csv: str | None = None) -> Built:
    """Make the data set that the settings describe, from the collected metrics or from `csv`.

    Args:
        settings: of the application.
        csv: any wide CSV with a time column, for labels of a feature; None means the collected metrics.

    Raises:
        DataError: something is missing, broken or too short.
        SettingsError: two priors are called the same.
    """
    process = settings.process
    prior_keys(process.priors or ())  # refused before hours are read
    collected = Path(settings.collect.output_dir)
    source = Path(csv) if csv else collected / "metrics.csv"
    panel, features = _read_csv(settings, source) if csv else _read_collected(settings, source)
    panel = _regular(panel, settings.collect.step, source)
    rows = _rows_per_step(panel.step, process.step, source)
    if process.label == "offered":
        _check_scenarios(settings, panel.step, source)
    bounds = (round(len(panel) * process.split[0]), round(len(panel) * (process.split[0] + process.split[1])))
    calls = None if csv else _read_calls(collected / "calls.csv")
    labelled = make_labels(settings, panel, calls, rows, bounds)
    series = trailing_means(panel, rows)[:, :, [panel.features.index(name) for name in features]]
    training = panel.between(-np.inf, float(panel.times[bounds[0] - 1]))
    structure = fit_structure(training) if set(NEEDED) <= set(panel.features) else None
    meta = {
        "app": source.stem if csv else settings.app.name,
        "services": panel.services,
        "features": features,
        "units": [FEATURES.get(name, "") for name in features],
        "step": process.step,
        "base_step": panel.step,
        "window": process.window,
        "horizon": process.horizon,
        "label": process.label,
        "source": {"file": str(source), "start": float(panel.times[0]), "end": float(panel.times[-1])},
        "settings": process.model_dump(mode="json"),
        "lead": labelled.lead,
        "signed": bool((labelled.labels[: bounds[0]] < 0).any()),
        "season": process.season,
        "demand": None if labelled.model is None else labelled.model.to_dict(),
    }
    dataset = Dataset(
        times=panel.times,
        series=series,
        labels=labelled.labels,
        bounds=bounds,
        normalizer=Normalizer.fit(series[: bounds[0]], labelled.labels[: bounds[0]]),
        meta=meta,
        priors=_priors(settings, training, calls, structure),
        unrounded=labelled.unrounded,
        present=labelled.present,
        evidence=_evidence(panel, calls, structure),
    )
    check_windows(dataset, process.split)
    return Built(dataset, panel, labelled)


def _check_scenarios(settings: Settings, step: float, source: Path) -> None:
    """Refuse rates that a plan can't look ahead by: at another step than the samples', or for too short."""
    process, ahead = settings.process, settings.scale.plan.horizon
    if abs(process.step - step) > 1e-3 * step:
        raise DataError(
            f"{source}: sampled every {step:g} s, and process.label=offered forecasts each sample, but "
            f"process.step is {process.step:g}; use --set process.step={step:g}"
        )
    if process.horizon < round(ahead / step):
        raise DataError(
            f"process.horizon {process.horizon}: a network with process.label=offered forecasts "
            f"{process.horizon * step:g} s, but the plan looks {ahead:g} s ahead (scale.plan.horizon); "
            f"use --set process.horizon={round(ahead / step)}"
        )


def _priors(
    settings: Settings, training: MetricPanel, calls: CallGraph | None, structure: Structure | None
) -> dict[str, NDArray[np.float32]]:
    """The graphs that training starts from, by name, made from the training rows alone."""
    process = settings.process
    correlated = "req" if "req" in training.features else process.label.removeprefix("feature:")
    requests = training.feature(correlated) if correlated in training.features else None
    names = default_priors(calls, structure) if process.priors is None else process.priors
    end = float(training.times[-1])
    return {
        key: build_prior(
            name, training.services, requests, calls, structure, end=end, cutoff=process.prior_cutoff
        )
        for key, name in prior_keys(names).items()
    }


def _evidence(
    panel: MetricPanel, calls: CallGraph | None, structure: Structure | None
) -> dict[str, NDArray[np.float32]]:
    """The graphs that reports compare learned ones with: calls of all rows, the training rows' structure."""
    found = {}
    if calls is not None:
        rates = calls.mean_rates(panel.services)
        found["calls"] = rates.astype(np.float32)
        if {"res", "req"} <= set(panel.features):
            found["call_time"] = time_shares(rates, panel).astype(np.float32)
    if structure is not None:
        found.update(structural=structure.score, structural_t=structure.t.astype(np.float32))
    return found


def _labelled_features(label: str) -> tuple[str, ...]:
    """The feature that the labels are the mean of, where `label` names one."""
    return (label.removeprefix("feature:"),) if label.startswith("feature:") else ()


def _read_csv(settings: Settings, source: Path) -> tuple[MetricPanel, tuple[str, ...]]:
    """The samples of a CSV that wasn't collected here, and the features of the series."""
    label, features = settings.process.label, tuple(settings.process.features)
    named = _labelled_features(label)
    if not named:
        raise DataError(
            f"--csv {source}: label {label} needs collected metrics; use --set process.label=feature:<name>"
        )
    panel = read_wide(source, named[0], features)
    return panel, panel.features


def _read_collected(settings: Settings, source: Path) -> tuple[MetricPanel, tuple[str, ...]]:
    """The collected samples with all features that the labels need, and the features of the series."""
    process, features = settings.process, tuple(settings.process.features)
    named = _labelled_features(process.label)
    if process.priors is None:
        structural = not (source.parent / "calls.csv").is_file()
    else:
        structural = "structural" in process.priors
    extra = (*named, *NEEDED) if structural or process.label == "required" else named or ("pod",)
    wanted = tuple(dict.fromkeys((*features, *extra)))
    return read_panel(source, tuple(settings.app.services), wanted), features


def _regular(panel: MetricPanel, step: float, source: Path) -> MetricPanel:
    """The panel on a regular grid of its own step, or of `step` where it has one sample only.

    Logs a warning for features that a service lacks, and for many missing samples.
    """
    panel = panel.regular(float(np.median(np.diff(panel.times))) if len(panel) > 1 else step)
    known = np.isfinite(panel.values)
    for index, service in enumerate(panel.services):
        absent = [name for name in panel.features if not known[:, index, panel.features.index(name)].any()]
        if absent:
            log.warning(
                "%s: %s has no %s at all; the network sees 0 instead, as if they were at their mean",
                source,
                service,
                ", ".join(absent),
            )
    asked = [
        name != "res" for name in panel.features
    ]  # without requests there is no response: nothing is missing
    missing = 1 - known[:, :, asked].mean() if len(panel.features) > 1 else 1 - known.mean()
    if missing > 0.01:
        log.warning("%s: %.1f %% of the samples are missing", source, 100 * missing)
    return panel


def _rows_per_step(base: float, step: float, source: Path) -> int:
    rows = round(step / base)
    if rows < 1 or abs(rows * base - step) > 1e-6 * step:
        raise DataError(
            f"{source}: sampled every {base:g} s, of which process.step {step:g} is no multiple; "
            f"use --set process.step={base:g}"
        )
    return rows


def _read_calls(path: Path) -> CallGraph | None:
    return read_calls(path) if path.is_file() else None
