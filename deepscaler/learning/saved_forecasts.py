"""The forecasts of a training as a file, for whoever judges them in another way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import replacing
from deepscaler.learning.judging import forecasts_of, targets
from deepscaler.learning.task import TrainingTask

if TYPE_CHECKING:
    from deepscaler.learning.train import Fitted


def save_forecasts(task: TrainingTask, fitted: Fitted) -> None:
    """Write `task.forecasts`: an npz with `services`, `levels` and, per split, what was forecast and came.

    `<split>_times` `[M, H]` (seconds since the epoch, the end of each step), `<split>_truth` `[M, H, N]` (NaN
    where unknown), `<split>_forecast` `[M, H, N]` (the median or mean) and `<split>_quantiles`
    `[Q, M, H, N]`, in the label's unit; Q are the `levels` that the network forecasts.
    """
    assert task.forecasts is not None
    dataset, trainer = task.dataset, fitted.trainer
    network, batch = trainer.network, task.config.dataset.batch_size
    shown = trainer.learner.graphs(trainer.affinity)
    rounds = task.train.unrounded or network.unrounded
    by_level = {
        level: forecasts_of(network, trainer.windows, shown, dataset, fitted.ends, batch, rounds, level)
        for level in network.quantiles
    }
    arrays: dict[str, NDArray[Any]] = {
        "services": np.array(dataset.services),
        "levels": np.array(network.quantiles),
    }
    steps = dataset.dilation * np.arange(1, dataset.meta["horizon"] + 1)
    for split, made in by_level[0.5].items():
        rows = fitted.ends[split]
        arrays |= {
            f"{split}_times": dataset.times[rows[:, None] + steps],
            f"{split}_truth": targets(dataset, rows),
            f"{split}_forecast": made,
            f"{split}_quantiles": np.stack([found[split] for found in by_level.values()]),
        }
    with replacing(task.forecasts) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
