"""Turn metrics into a data set: series, labels (and how far to trust them), splits, training statistics and prior graphs.

python data_process.py --config config/boutique.yaml
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import write_json
from deepscaler.calls import CallGraph, read_calls
from deepscaler.errors import DataError, DeepScalerError, SettingsError
from deepscaler.graphs.priors import build_prior, default_priors, prior_key, write_graph
from deepscaler.graphs.structural import NEEDED, Structure, fit_structure, time_shares
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.diagnostics import Diagnostics, diagnose
from deepscaler.labels.required import make_labels
from deepscaler.learning.dataset import (
    SPLITS,
    Dataset,
    Normalizer,
    check_windows,
    write_dataset,
)
from deepscaler.learning.wide import read_wide
from deepscaler.logs import start_logging
from deepscaler.panel import FEATURES, MetricPanel, read_panel, trailing_means
from deepscaler.pictures.labels import draw_labels
from deepscaler.settings import Settings, load_settings

log = logging.getLogger("data_process")


def build_parser() -> argparse.ArgumentParser:
    """Flags of the processing stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", default="config/boutique.yaml", help="application settings (default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting",
    )
    parser.add_argument(
        "--csv",
        metavar="FILE",
        help="any wide CSV with a time column, for labels feature:<name>: plain forecasting",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Read metrics, write dataset.npz, meta.json, graphs/*.csv, labels.json and labels.png, print one line."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    try:
        settings = load_settings(arguments.config, arguments.overrides)
        log.info("settings: %s", settings.process.model_dump_json())
        dataset, diagnostics = build(settings, arguments.csv)
        output = Path(settings.process.output_dir)
        for name, matrix in {**dataset.evidence, **dataset.priors}.items():
            write_graph(output / "graphs" / f"{name}.csv", dataset.services, matrix)
        write_dataset(dataset, output)
        if diagnostics is not None:
            write_json(output / "labels.json", diagnostics.summary())
        if diagnostics is not None and settings.process.plots:
            draw_labels(diagnostics, output / "labels.png", f"{settings.app.name}: required labels")
    except DeepScalerError as error:
        print(f"data_process: {error}", file=sys.stderr)
        return 1
    counts = ", ".join(f"{len(dataset.window_ends(split))} {split}" for split in SPLITS)
    known = np.isfinite(dataset.labels).mean()
    print(
        f"{output / 'dataset.npz'}: {len(dataset.services)} services, {len(dataset.times)} rows of {dataset.meta['base_step']:g} s, "
        f"windows {counts}; label {dataset.meta['label']} ({known:.0%} known), priors {', '.join(dataset.priors) or 'none'}"
    )
    return 0


def build(settings: Settings, csv: str | None = None) -> tuple[Dataset, Diagnostics | None]:
    """The data set of the settings, from the collected metrics or from `csv`, and how far to trust `required` labels.

    Raises:
        DataError: something is missing, broken or too short.
    """
    process = settings.process
    source = Path(csv) if csv else Path(settings.collect.output_dir) / "metrics.csv"
    panel, features = _read(settings, source, csv is not None)
    rows = _rows_a_step(panel.step, process.step, source)
    bounds = (round(len(panel) * process.split[0]), round(len(panel) * (process.split[0] + process.split[1])))
    calls = None if csv else _read_calls(Path(settings.collect.output_dir) / "calls.csv")
    labelled = make_labels(settings, panel, calls, rows, bounds)
    series = trailing_means(panel, rows)[:, :, [panel.features.index(name) for name in features]]
    correlated = "req" if "req" in panel.features else process.label.removeprefix("feature:")
    requests = panel.feature(correlated)[: bounds[0]] if correlated in panel.features else None
    end = float(panel.times[bounds[0] - 1])
    structure = fit_structure(panel.between(-np.inf, end)) if set(NEEDED) <= set(panel.features) else None
    priors = {
        prior_key(name): build_prior(
            name, panel.services, requests, calls, structure, end=end, cutoff=process.prior_cutoff
        )
        for name in (default_priors(calls, structure) if process.priors is None else process.priors)
    }
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
        "demand": None if labelled.model is None else labelled.model.to_dict(),
    }
    normalizer = Normalizer.fit(series[: bounds[0]], labelled.labels[: bounds[0]])
    evidence = _evidence(panel, calls, structure)
    dataset = Dataset(
        panel.times,
        series,
        labelled.labels,
        bounds,
        normalizer,
        meta,
        priors,
        labelled.unrounded,
        labelled.present,
        evidence,
    )
    check_windows(dataset, process.split)
    return dataset, None if labelled.model is None else diagnose(labelled, panel, bounds, _truth(settings))


def _evidence(
    panel: MetricPanel, calls: CallGraph | None, structure: Structure | None
) -> dict[str, NDArray[np.float32]]:
    """Graphs that reports are judged by: calls of the whole span, and what the training rows say."""
    found = {}
    if calls is not None:
        rates = calls.mean_rates(panel.services)
        found["calls"] = rates.astype(np.float32)
        if {"res", "req"} <= set(panel.features):
            found["call_time"] = time_shares(rates, panel).astype(np.float32)
    if structure is not None:
        found.update(structural=structure.score, structural_t=structure.t.astype(np.float32))
    return found


def _read(settings: Settings, source: Path, foreign: bool) -> tuple[MetricPanel, tuple[str, ...]]:
    """The panel on a regular grid with all features that labels need, and the features of the series."""
    label = settings.process.label
    named = (label.removeprefix("feature:"),) if label.startswith("feature:") else ()
    features: tuple[str, ...] = tuple(settings.process.features)
    if foreign:
        if not named:
            raise DataError(
                f"--csv {source}: label {label} needs collected metrics; use --set process.label=feature:<name>"
            )
        panel = read_wide(source, named[0], features)
        features = panel.features
    else:
        wanted = settings.process.priors
        structural = (
            "structural" in wanted if wanted is not None else not (source.parent / "calls.csv").is_file()
        )
        extra = (*named, *NEEDED) if structural or label == "required" else named or ("pod",)
        panel = read_panel(source, tuple(settings.app.services), tuple(dict.fromkeys((*features, *extra))))
    step = float(np.median(np.diff(panel.times))) if len(panel) > 1 else settings.collect.step
    panel = panel.regular(step)
    _warn_of_gaps(panel, source)
    return panel, features


def _warn_of_gaps(panel: MetricPanel, source: Path) -> None:
    known = np.isfinite(panel.values)
    for index, service in enumerate(panel.services):
        absent = [name for name in panel.features if not known[:, index, panel.features.index(name)].any()]
        if absent:
            log.warning(
                "%s: %s has no %s at all; the network sees the training mean of nothing, 0",
                source,
                service,
                ", ".join(absent),
            )
    missing = (
        1 - known[:, :, [name != "res" for name in panel.features]].mean()
        if len(panel.features) > 1
        else 1 - known.mean()
    )
    if missing > 0.01:
        log.warning("%s: %.1f %% of the samples are missing", source, 100 * missing)


def _rows_a_step(base: float, step: float, source: Path) -> int:
    rows = round(step / base)
    if rows < 1 or abs(rows * base - step) > 1e-6 * step:
        raise DataError(
            f"{source}: sampled every {base:g} s, of which process.step {step:g} is no multiple; use --set process.step={base:g}"
        )
    return rows


def _read_calls(path: Path) -> CallGraph | None:
    return read_calls(path) if path.is_file() else None


def _truth(settings: Settings) -> DemandModel | None:
    """What the emulated application really asks for; None on a real cluster, or where it isn't the configuration's."""
    if settings.cluster.kind != "testbed":
        return None
    from testbed.experiments.runs import true_demand

    try:
        return true_demand(settings)
    except SettingsError as error:
        log.info("the labels' truth is unknown: %s", error)
        return None


if __name__ == "__main__":
    sys.exit(main())
