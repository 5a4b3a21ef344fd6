"""A trained bundle: all that a forecast needs, in one file of tensors and plain values.

`<name>.pt` is read with `weights_only=True`; `<name>.json` is the same without tensors, for people and for
programs without torch; `<name>.affinity.csv` is the learned graph with the services' names.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscaler.artefacts import one_line, plain, replacing, write_json
from deepscaler.errors import BundleError
from deepscaler.graphs.priors import write_graph
from deepscaler.learning.dataset import Normalizer
from model.layers import Graphs
from model.network import Network, Shape
from model.networks import build_network

VERSION = 1
MAKE = "make it with: python main.py"


@dataclass(frozen=True)
class Match:
    """Live services matched with those of a bundle.

    Attributes:
        columns: for each of the bundle's N services its column among the live ones; -1 where it isn't live.
        missing: services of the bundle that aren't live.
        new: live services that the bundle doesn't know: they are left to the reactive floor.
    """

    columns: tuple[int, ...]
    missing: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Bundle:
    """What `main.py` exports.

    Attributes:
        network: name of the network.
        sizes: its hyper-parameters.
        weights: its state.
        learner: state of the graph learner, for retraining.
        affinity: float32 `[N, N]`, row = caller.
        reverse: float32 `[N, N]`: the graph by which callers receive from callees (the affinity itself where
            that feeds both).
        down: float32 `[N, N]`: the graph by which callees receive from callers: the affinity, divided by its
            spectral radius where that exceeds 1.
        normalizer: training statistics.
        meta: as in the data set: app, services, features, units, step, base_step, window, horizon, label,
            lead, demand, source, settings of the processing.
        settings: of the training: `train`, `model`, `seed`.
        errors: errors on validation and test, beside the naive forecasts.
        graph: the 'is the graph real?' block.
    """

    network: str
    sizes: dict[str, int]
    weights: dict[str, Tensor] = field(repr=False)
    learner: dict[str, Tensor] = field(repr=False)
    affinity: Tensor = field(repr=False)
    reverse: Tensor = field(repr=False)
    down: Tensor = field(repr=False)
    normalizer: Normalizer = field(repr=False)
    meta: dict[str, Any]
    settings: dict[str, Any]
    errors: dict[str, Any]
    graph: dict[str, Any]

    @property
    def services(self) -> tuple[str, ...]:
        """N names, in the order of weights, affinity and forecasts."""
        return tuple(self.meta["services"])

    @property
    def features(self) -> tuple[str, ...]:
        """F names."""
        return tuple(self.meta["features"])

    @property
    def shape(self) -> Shape:
        """Sizes of the data."""
        return Shape(
            len(self.services), len(self.features), int(self.meta["window"]), int(self.meta["horizon"])
        )

    @property
    def unrounded(self) -> bool:
        """Are its forecasts the requirement before it is rounded up to whole replicas?"""
        return bool(self.meta.get("unrounded"))

    @property
    def graphs(self) -> Graphs:
        """What the network sees."""
        return Graphs(self.reverse, self.down)

    @property
    def description(self) -> dict[str, Any]:
        """What expectations are compared with: network, sizes, and what the data set says about itself."""
        return {"network": self.network, "sizes": self.sizes, **self.meta}

    def build(self) -> Network:
        """The network with its weights, ready to forecast."""
        network = build_network(self.network, self.shape, self.sizes)
        network.load_state_dict(self.weights)
        return network.eval()

    def match(self, live: Sequence[str]) -> Match:
        """Match live services by name, in any order."""
        columns = {name: index for index, name in enumerate(live)}
        return Match(
            columns=tuple(columns.get(name, -1) for name in self.services),
            missing=tuple(name for name in self.services if name not in columns),
            new=tuple(name for name in live if name not in self.services),
        )


STATE = tuple(item.name for item in fields(Bundle) if item.name != "normalizer")
STATISTICS = tuple(item.name for item in fields(Normalizer))


def _tidy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {str(name): tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def describe(bundle: Bundle) -> dict[str, Any]:
    """The bundle without its tensors."""
    described = {
        key: value
        for key, value in bundle.description.items()
        if key not in ("statistics", "bounds", "version", "settings")
    }
    return plain(  # type: ignore[no-any-return]
        {
            "version": VERSION,
            **described,
            "lookback_steps": bundle.meta["window"],
            "process": bundle.meta.get("settings"),
            "statistics": {name: getattr(bundle.normalizer, name) for name in STATISTICS},
            "parameters": sum(tensor.numel() for tensor in bundle.weights.values()),
            "errors": bundle.errors,
            "graph": bundle.graph,
            "training": bundle.settings,
        }
    )


def side_path(path: str | Path, suffix: str) -> Path:
    """`<name><suffix>` beside `<name>.pt`."""
    path = Path(path)
    return path.with_name(path.stem + suffix)


def save_bundle(bundle: Bundle, path: str | Path, run: Mapping[str, Any] | None = None) -> None:
    """Write `<name>.affinity.csv`, `<name>.json` and, last, `<name>.pt`; each whole or not at all.

    Args:
        bundle: what to write.
        path: of the `.pt`.
        run: facts of this run (times, versions) for the JSON only, so that the same seed gives the same
            `.pt`.
    """
    values = {name: getattr(bundle, name) for name in STATE}
    for name in ("weights", "learner"):
        values[name] = _tidy(values[name])
    values.update(_tidy({name: values[name] for name in ("affinity", "reverse", "down")}))
    for name in ("sizes", "meta", "settings", "errors", "graph"):
        values[name] = plain(values[name])
    for name in STATISTICS:
        values[name] = torch.from_numpy(np.array(getattr(bundle.normalizer, name), np.float32))
    write_graph(side_path(path, ".affinity.csv"), bundle.services, values["affinity"].numpy())
    write_json(side_path(path, ".json"), {**describe(bundle), "run": run or {}})
    with replacing(path) as temporary, temporary.open("wb") as handle:
        torch.save({"version": VERSION, **values}, handle)


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle, on the CPU.

    Raises:
        BundleError: missing, broken or of another version.
    """
    stored = load_tensors(path, f"{path}: no such bundle; {MAKE} --model_save_path {path}")
    if stored.get("version") != VERSION:
        raise BundleError(
            f"{path}: bundle of version {stored.get('version')}, expected {VERSION}; "
            "train again with: python main.py"
        )
    try:
        normalizer = Normalizer(**{name: _array(stored[name]) for name in STATISTICS})
        stored.setdefault("down", stored["affinity"])  # what networks saw before graphs were normalised
        bundle = Bundle(**{name: stored[name] for name in STATE}, normalizer=normalizer)
        bundle.build()
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise BundleError(f"{path}: not a usable bundle ({one_line(error, 160)}); {MAKE}") from error
    return bundle


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.numpy(), np.float32)


def load_tensors(path: str | Path, absent: str) -> dict[str, Any]:
    """A mapping that `torch.save` wrote, tensors and plain values only.

    Raises:
        BundleError: `absent` where there is no file; broken, or something else than a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise BundleError(absent)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        BadZipFile,
        ValueError,
        KeyError,
        OSError,
        AttributeError,
    ) as error:
        raise BundleError(f"{path}: broken or not a bundle ({one_line(error, 160)}); {MAKE}") from error
    if not isinstance(stored, dict):
        raise BundleError(f"{path}: expected a mapping, found {type(stored).__name__}; {MAKE}")
    return stored
