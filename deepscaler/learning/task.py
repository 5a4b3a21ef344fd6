"""What one training is: data, settings, files, and the device that it runs on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepscaler.artefacts import plain
from deepscaler.bundle_names import CHECKPOINT
from deepscaler.errors import SettingsError
from deepscaler.learning.bundle import side_path
from deepscaler.learning.dataset import Dataset
from deepscaler.learning.hyperparameters import network_sizes
from deepscaler.learning.judging import shape_of
from deepscaler.settings import ModelConfig, Train
from model import parallel
from model.course import Progress
from model.network import Network, Shape
from model.networks import build_network, parameter_count
from model.told import Told, told_shape


def _silent(progress: Progress) -> None:
    """Nobody watches. A function with a name, so that a task can be sent to another process."""


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """One training.

    Attributes:
        dataset: what `data_process.py` made.
        name: of the network.
        config: settings of the data set and of each network.
        train: settings of optimiser, schedule, graph and loss.
        path: of the bundle; the checkpoint lies beside it.
        report: called after each epoch.
        forecasts: file that the forecasts of validation and test are written to; None: they aren't.
        told: the network is told what is known now of the next label, and the season, see `model.told`.
    """

    dataset: Dataset
    name: str
    config: ModelConfig
    train: Train
    path: Path
    report: Callable[[Progress], None] = field(default=_silent)
    told: bool = False
    forecasts: Path | None = None

    @property
    def shape(self) -> Shape:
        """Sizes that the data states."""
        return shape_of(self.dataset.meta)

    @property
    def sizes(self) -> dict[str, Any]:
        """Hyper-parameters of the network."""
        return network_sizes(self.config, self.name)

    @property
    def checkpoint(self) -> Path:
        """File with the state after the last finished iteration; it exists until training ends."""
        return side_path(self.path, f".{CHECKPOINT}.pt")

    @property
    def history(self) -> Path:
        """CSV with one row per epoch."""
        return side_path(self.path, ".history.csv")

    def length(self) -> str:
        """How many epochs the training really runs, in a line."""
        train = self.train
        network = self.fresh(train.seed)
        if not parameter_count(network):
            return f"{self.name}: fitted in closed form, no epochs"
        learns = network.graph_use == "learned" and train.graph.learner != "none"
        turns = 2 if learns and train.graph.trainer == "em" else 1
        which = {2: "the network and as many of the graph", 1: "both at once" if learns else "the network"}[
            turns
        ]
        may_stop = train.stop_early or train.optimiser.schedule == "constant"
        steps = (
            ""
            if turns == 1 and not learns
            else f"; a step ends after {train.patience} epochs without a new best"
        )
        ends = f", the run after {train.patience} such iterations" if may_stop else ""
        bound = f", at most {train.processor_seconds:g} s of a processor" if train.processor_seconds else ""
        return (
            f"{self.name}: at most {train.num_iter * train.num_epoch * turns} epochs: {train.num_iter} "
            f"iterations of up to {train.num_epoch} of {which}{steps}{ends}{bound}"
        )

    def fresh(self, seed: int) -> Network:
        """A network on fresh weights.

        Raises:
            SettingsError: the sizes don't make a network.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                if self.told:
                    return Told(build_network(self.name, told_shape(self.shape), self.sizes))
                return build_network(self.name, self.shape, self.sizes)
            except ValueError as error:
                raise SettingsError(f"model.{self.name}: {error}") from error

    def fingerprint(self) -> str:
        """A hash that changes when the data or a setting that affects the numbers does.

        Of what the data set says about itself, only where it comes from and how it was made doesn't count.
        """
        meta = {key: value for key, value in self.dataset.meta.items() if key not in ("source", "settings")}
        settings = [
            self.name,
            json.dumps(plain({**meta, "bounds": self.dataset.bounds}), sort_keys=True),
            self.train.model_dump_json(exclude={"gate"}),
            self.config.dataset.model_dump_json(exclude={"data_dir", "threads"}),
        ]
        digest = hashlib.sha256(repr([*settings, sorted(self.sizes.items())]).encode())
        optional = [values for values in (self.dataset.unrounded, self.dataset.present) if values is not None]
        given = (self.dataset.times, self.dataset.series, self.dataset.labels)
        for values in (*given, *optional, *self.dataset.priors.values()):
            digest.update(np.ascontiguousarray(values).view(np.uint8).data)
        return digest.hexdigest()


def pick_device(name: str) -> torch.device:
    """The device of the setting `model.dataset.device`.

    `auto` is the GPU where there is one. Under torchrun each rank takes a GPU of its own, for `cuda` too.

    Raises:
        SettingsError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    _, local, ranks = parallel.launched()
    if name == "cuda" and ranks > 1:
        name = f"cuda:{local}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"model.dataset.device: {name!r} can't be used; allowed: auto, cpu, cuda, cuda:<n>"
        ) from error
    return device
