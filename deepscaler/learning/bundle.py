"""A trained bundle: all that a forecast needs, in one file of tensors and plain values.

`<name>.pt` is all of it (see `deepscaler.learning.bundle_file`). `<name>.json` says the same without tensors,
and `<name>.affinity.csv` is the learned graph with the services' names: both are for people, and nothing is
decided by them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepscaler.artefacts import plain, replacing, write_json
from deepscaler.errors import BundleError
from deepscaler.graphs.priors import write_graph
from deepscaler.learning.bundle_file import (
    VERSION,
    BundleFile,
    read_bundle_file,
    seal,
    unusable,
)
from deepscaler.learning.dataset import Normalizer
from deepscaler.learning.tensor_files import check_finite, check_plain, unpack
from model.analogs import Moments
from model.layers import Graphs
from model.network import Network, Shape
from model.networks import build_network


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
        templates: float32 `[K, H, N]`, how forecasts of all services and steps missed together on validation
            (see `model.joint`); None unless the label is `offered`.
        moments: what followed moments of the training (see `model.analogs`); None unless the label is
            `offered` and the network has states.
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
    templates: Tensor | None = field(default=None, repr=False)
    moments: Moments | None = field(default=None, repr=False)

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


STATES = ("weights", "learner")
GRAPHS = ("affinity", "reverse", "down")
PARTS = ("network", "sizes", "meta", "settings", "errors", "graph")
GIVEN = ("statistics",)
"""Tensors that the data gives; all others come from what was learned."""
STATISTICS = tuple(item.name for item in fields(Normalizer))


def _tidy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {str(name): tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def describe(bundle: Bundle) -> dict[str, Any]:
    """The bundle without its tensors."""
    described = {
        key: value
        for key, value in bundle.description.items()
        if key not in ("statistics", "bounds", "version", "settings", "inputs")
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

    Raises:
        BundleError: a number of the bundle isn't finite, or it is too large.
    """
    path = Path(path)
    tensors = {name: _tidy(getattr(bundle, name)) for name in STATES}
    tensors["graphs"] = _tidy({name: getattr(bundle, name) for name in GRAPHS})
    if bundle.templates is not None:
        tensors["joint"] = _tidy({"templates": bundle.templates})
    if bundle.moments is not None:
        tensors["moments"] = _tidy(bundle.moments._asdict())
    statistics = {name: np.array(getattr(bundle.normalizer, name), np.float32) for name in STATISTICS}
    tensors["statistics"] = {name: torch.from_numpy(values) for name, values in statistics.items()}
    for group, held in tensors.items():
        advice = "look at the data" if group in GIVEN else "train with a smaller learning rate"
        try:
            check_finite({group: held})
        except ValueError as error:
            raise BundleError(f"{path}: not written: {error}; {advice}") from error
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    content = seal(buffer.getvalue(), {name: plain(getattr(bundle, name)) for name in PARTS}, path)
    write_graph(side_path(path, ".affinity.csv"), bundle.services, tensors["graphs"]["affinity"].numpy())
    write_json(side_path(path, ".json"), {**describe(bundle), "run": run or {}})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load_bundle(source: str | Path | BundleFile) -> Bundle:
    """A bundle, on the CPU.

    Args:
        source: its path, or its file if that was read already.

    Raises:
        BundleError: missing, broken, of another version, or it holds what a bundle doesn't.
    """
    file = source if isinstance(source, BundleFile) else read_bundle_file(source)
    stored = unpack(file.path, io.BytesIO(file.content))
    try:
        check_plain(stored, len(file.content))
        check_finite(stored)
        statistics = {name: stored["statistics"][name].numpy() for name in STATISTICS}
        states, graphs = {name: stored[name] for name in STATES}, stored["graphs"]
        bundle = Bundle(
            **{name: file.parts[name] for name in PARTS},
            **states,
            **graphs,
            normalizer=Normalizer(**statistics),
            **stored.get("joint", {}),
            moments=Moments(**stored["moments"]) if "moments" in stored else None,
        )
        _check_shapes(bundle)
        bundle.build()
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise unusable(file.path, error) from error
    return bundle


def _check_shapes(bundle: Bundle) -> None:
    """Refuse weights, graphs and statistics of other shapes than the services, features and sizes make.

    The network is built without memory first, because sizes from a file could ask for any amount of it.

    Raises:
        ValueError: they are of another shape.
    """
    count, features = len(bundle.services), len(bundle.features)
    expected = {"mean": (count, features), "scale": (count, features)}
    found = {name: getattr(bundle.normalizer, name).shape for name in STATISTICS}
    found |= {name: tuple(getattr(bundle, name).shape) for name in GRAPHS}
    for name, shape in found.items():
        wanted = expected.get(name, (count, count) if name in GRAPHS else (count,))
        if shape != wanted:
            raise ValueError(f"{name} has the shape {shape}, expected {wanted}")
    joint = (bundle.shape.horizon, count)
    if bundle.templates is not None and (bundle.templates.dim() != 3 or bundle.templates.shape[1:] != joint):
        raise ValueError(f"templates have the shape {tuple(bundle.templates.shape)}, expected (any, {joint})")
    if bundle.moments is not None:
        states, followed = bundle.moments
        if states.dim() != 2 or followed.shape != (len(states), *joint) or not len(states):
            raise ValueError(f"moments have the shape {tuple(followed.shape)}, expected (any, {joint})")
    with torch.device("meta"):
        network = build_network(bundle.network, bundle.shape, bundle.sizes)
    for name, tensor in network.state_dict().items():
        if name not in bundle.weights or bundle.weights[name].shape != tensor.shape:
            raise ValueError(f"weights: {name} isn't there in the shape {tuple(tensor.shape)}")
