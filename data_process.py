"""Turn metrics into a data set: series, labels (and how far to trust them), splits, statistics, prior graphs.

python data_process.py --config config/boutique.yaml
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import numpy as np

from deepscaler.artefacts import ensure_writable, remove, write_json
from deepscaler.errors import DeepScalerError, SettingsError
from deepscaler.graphs.priors import write_graphs
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.diagnostics import diagnose
from deepscaler.learning.build import Built, build_dataset
from deepscaler.learning.dataset import SPLITS, Dataset, write_dataset
from deepscaler.logs import start_logging
from deepscaler.pictures.labels import draw_labels
from deepscaler.settings import Settings, load_settings
from deepscaler.settings.advice import follow

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
        help="any wide CSV with a time column, for plain forecasting (needs process.label=feature:<name>)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Read metrics, write the data set, its graphs and how far to trust its labels, print one line."""
    arguments = build_parser().parse_args(argv)
    follow(arguments.config, arguments.overrides)
    start_logging()
    try:
        settings = load_settings(arguments.config, arguments.overrides)
        log.info("settings: %s", settings.process.model_dump_json())
        output = Path(settings.process.output_dir)
        ensure_writable(output)
        built = build_dataset(settings, arguments.csv)
        graphs = {**built.dataset.evidence, **built.dataset.priors}
        write_graphs(output / "graphs", built.dataset.services, graphs)
        write_dataset(built.dataset, output)
        write_diagnostics(settings, built, output)
    except DeepScalerError as error:
        print(f"data_process: {error}", file=sys.stderr)
        return 1
    print(summary(output / "dataset.npz", built.dataset))
    return 0


def write_diagnostics(settings: Settings, built: Built, output: Path) -> None:
    """Write how far to trust `required` labels: labels.json, and labels.png where `process.plots` is set.

    What an earlier run wrote of other labels goes.
    """
    for name in ("labels.json", "labels.png"):
        remove(output / name)
    if built.labelled.unrounded is None:
        return
    diagnostics = diagnose(built.labelled, built.panel, built.dataset.bounds, known_truth(settings))
    write_json(output / "labels.json", diagnostics.summary())
    if settings.process.plots:
        draw_labels(diagnostics, output / "labels.png", f"{settings.app.name}: required labels")


def known_truth(settings: Settings) -> DemandModel | None:
    """What the emulated application really needs; None on a real cluster or where another one is emulated."""
    if settings.cluster.kind != "testbed":
        return None
    from testbed.experiments.references import true_demand

    try:
        return true_demand(settings)
    except SettingsError as error:
        log.info("the labels' truth is unknown: %s", error)
        return None


def summary(path: Path, dataset: Dataset) -> str:
    """What was made, in one line."""
    counts = ", ".join(f"{len(dataset.window_ends(split))} {split}" for split in SPLITS)
    known = np.isfinite(dataset.labels).mean()
    size = f"{len(dataset.services)} services, {len(dataset.times)} rows of {dataset.meta['base_step']:g} s"
    return (
        f"{path}: {size}, windows {counts}; label {dataset.meta['label']} ({known:.0%} known), "
        f"priors {', '.join(dataset.priors) or 'none'}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
