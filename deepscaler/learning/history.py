"""The course of a training: `<name>.history.csv`, one row per epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from deepscaler.artefacts import write_text

COLUMNS = ("iteration", "epoch", "phase", "training", "validation", "learning_rate", "seconds", "edges")


def write_history(history: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Replace `path` by a CSV of all epochs so far (see `model.course.Progress`).

    Iterations and epochs count from 1 in the file.
    """
    frame = pd.DataFrame([dict(entry) for entry in history], columns=list(COLUMNS))
    frame["iteration"], frame["epoch"] = frame["iteration"] + 1, frame["epoch"] + 1
    write_text(path, frame.to_csv(index=False, float_format="%.6g"))


def read_history(path: str | Path) -> pd.DataFrame:
    """What `write_history` wrote."""
    return pd.read_csv(path)
