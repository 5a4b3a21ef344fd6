"""What a training says at its end: tables of errors, the block about the graph, and a summary line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from deepscaler.learning.bundle import Bundle, side_path
from deepscaler.learning.comparison_report import LEGEND
from deepscaler.learning.graph_text import graph_lines
from deepscaler.learning.judging import JUDGED, MEASURES, PARTS
from deepscaler.learning.train import Trained
from deepscaler.text import aligned

CONFIG_MAP_BYTES = 1024**2
CONFIG_MAP_REST_BYTES = 4096
"""Kept free for what a ConfigMap holds beside the file: names, labels, managed fields."""


def training_report(bundle: Bundle) -> str:
    """Errors by forecast, by horizon step and by service on each split, and the graph beside its rivals."""
    errors = bundle.errors
    steps = [f"step {index + 1}" for index in range(bundle.shape.horizon)]
    lines: list[str] = []
    for split in (split for split in JUDGED if split in errors):
        made = errors[split]
        windows = made[bundle.network]["windows"]
        lines += ["", f"{split} ({errors['unit']}, {windows} windows; {LEGEND})"]
        rows = [[name, *(f"{values[key]:.4f}" for key in MEASURES)] for name, values in made.items()]
        lines += aligned([["", *MEASURES.values()], *rows])
        lines += _by_part(made, "step", steps) + _by_part(made, "service", bundle.services)
    if errors["season_steps"] is None:
        lines += ["", "no season in the training data: SeasonalNaive is Persistence"]
    return "\n".join([*lines[1:], "", *graph_lines(bundle.graph), errors["verdict"], ""])


def _by_part(made: Mapping[str, Mapping[str, Any]], part: str, names: Sequence[str]) -> list[str]:
    """MAE (also in z-units), RMSE and MAPE of each forecast, one line per step or service."""
    heads = [f"{forecast} {MEASURES[key]}" for forecast in made for key in PARTS]
    rows = [
        [name, *(f"{values[f'{key}_by_{part}'][index]:.4f}" for values in made.values() for key in PARTS)]
        for index, name in enumerate(names)
    ]
    return ["", *aligned([[f"by {part}", *heads], *rows])]


def summary_line(trained: Trained, path: Path) -> str:
    """One line: the files, the errors, and what training took."""
    bundle, errors = trained.bundle, trained.bundle.errors
    split = "test" if "test" in errors else "validation"
    maes = ", ".join(f"{name} {values['mae']:.4f}" for name, values in errors[split].items())
    beside = f"{side_path(path, '.json').name}, {side_path(path, '.affinity.csv').name}"
    return (
        f"{path} ({beside}): {split} MAE {maes} {errors['unit']}; {trained.iterations} iterations, "
        f"{trained.samples_per_second:.0f} samples/s, seed {bundle.settings['seed']}"
    )


def shipping_line(path: Path) -> str:
    """One line: the size of a bundle's file, its hash, and which ways of bringing it into a cluster fit.

    Source: the Kubernetes documentation of ConfigMaps: one holds at most 1 MiB. A file travels as base64.
    """
    content = path.read_bytes()
    encoded = 4 * -(-len(content) // 3)
    fits = encoded <= CONFIG_MAP_BYTES - CONFIG_MAP_REST_BYTES
    ways = ["bundle-configmap"] if fits else []
    ways += ["bundle-image", "bundle-url", "bundle-claim"]
    return (
        f"bundle: {_mebibytes(len(content))}, {_mebibytes(encoded)} in base64, which "
        f"{'fits' if fits else 'does not fit'} into a ConfigMap of 1 MiB; into a cluster by "
        f"deploy/components/{{{','.join(ways)}}} (docs/cluster.md); sha256 {sha256(content).hexdigest()}"
    )


def _mebibytes(count: int) -> str:
    return f"{count / 1024**2:.2f} MiB"


def run_facts(trained: Trained) -> dict[str, Any]:
    """Facts of this run for the bundle's JSON."""
    return {
        "samples_per_second": trained.samples_per_second,
        "seconds": trained.seconds,
        "versions": library_versions(),
    }


def library_versions() -> dict[str, str]:
    """Versions of the libraries that affect results."""
    return {name: metadata.version(name) for name in ("torch", "numpy", "pandas")}
