"""Whether a new bundle takes the old one's place: only if its decisions cost less, by more than noise.

Both decide over the newest stretch of the test split, which the new one wasn't trained on (the old one may
have seen a part of it, which speaks for the old one). Costs are compared decision by decision, and the
differences by their means over blocks of time, because those of neighbouring decisions hang together.

Source: blocks that don't overlap, Carlstein 1986; Student's interval of their means: there may be only eight.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import utc_text
from deepscaler.errors import BundleError, DataError
from deepscaler.learning.bundle import Bundle, load_bundle
from deepscaler.learning.bundle_file import read_bundle_file
from deepscaler.learning.dataset import Dataset
from deepscaler.learning.decisions import Decided, decide_over
from deepscaler.planning.plan import Prices
from deepscaler.settings import GateSettings
from deepscaler.statistics import t_interval

SPLIT = "test"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate is taken, and why.

    Attributes:
        taken: it is.
        why: in one line.
        facts: what `<name>.gate.json` keeps.
    """

    taken: bool
    why: str
    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The content of `<name>.gate.json`."""
        return {"taken": self.taken, "why": self.why, **self.facts}


def judge_candidate(candidate: Path, running: Path, dataset: Dataset, gate: GateSettings) -> Verdict:
    """Whether the bundle at `candidate` takes the place of the one at `running`.

    Where there is none, or none that can be read, it does. A running bundle that can't decide over this data
    isn't comparable, and stays.

    Raises:
        BundleError: the candidate can't decide over the data.
        DataError: the data has no test split.
    """
    new, new_file = load_bundle(candidate), read_bundle_file(candidate)
    facts: dict[str, Any] = {"candidate": new_file.sha256, "settings": gate.model_dump(mode="json")}
    try:
        old_file = read_bundle_file(running)
        old = load_bundle(old_file)
    except BundleError as error:
        return Verdict(True, f"there is no running bundle to compare with ({error})", facts)
    facts["running"] = old_file.sha256
    if old_file.sha256 == new_file.sha256:
        return Verdict(False, "it is the running bundle, bit by bit", facts)
    if not len(dataset.window_ends(SPLIT)):
        raise DataError("--gate: the data has no test split to judge on; set process.split to .6,.2,.2, say")
    prices = Prices(gate.prices.shortage, gate.prices.start)
    most = gate.decisions
    try:
        ours = decide_over(new, dataset, SPLIT, prices, most)
    except BundleError as error:
        raise BundleError(f"{candidate}: {error}") from error
    try:
        theirs = decide_over(old, dataset, SPLIT, prices, most)
    except BundleError as error:
        text = f"the running bundle can't be compared: {error}; without --gate it is replaced all the same"
        return Verdict(False, text, facts)
    return _compared(ours, theirs, new, dataset, gate, facts)


def _compared(
    ours: Decided,
    theirs: Decided,
    new: Bundle,
    dataset: Dataset,
    gate: GateSettings,
    facts: dict[str, Any],
) -> Verdict:
    """Whether the candidate's decisions cost less, by more than noise."""
    step = float(new.meta["step"])
    prices = Prices(gate.prices.shortage, gate.prices.start)
    rows = np.intersect1d(ours.rows, theirs.rows)  # windows of different lengths begin at different rows
    ours, theirs = ours.at(rows), theirs.at(rows)
    own, other = ours.costs(prices), theirs.costs(prices)
    blocks = _block_means(own - other, max(round(gate.block_seconds / step), 1))
    count, times = len(rows), dataset.times[rows]
    facts = {
        **facts,
        "decisions": count,
        "blocks": len(blocks),
        "core_hours": {"candidate": _core_hours(ours, own), "running": _core_hours(theirs, other)},
        **({"from": utc_text(times[0]), "until": utc_text(times[-1])} if count else {}),
    }
    if len(blocks) < gate.blocks:
        text = (
            f"{count} decisions make {len(blocks)} blocks of {gate.block_seconds:g} s, too few to tell a "
            f"gain from noise (train.gate.blocks: {gate.blocks}); collect longer (collect.last)"
        )
        return Verdict(False, text, facts)
    mean = max(float(other.mean()), 1e-9)
    low, high = (100 * edge / mean for edge in t_interval(blocks, gate.level) or (0.0, 0.0))
    change = 100 * float(blocks.mean()) / mean
    facts |= {"change_percent": change, "interval_percent": [low, high]}
    said = (
        f"its decisions cost {change:+.1f} % (interval {low:+.1f} to {high:+.1f} %) against the running "
        f"bundle's, over {count} decisions up to {facts['until']}"
    )
    taken = high < 0
    return Verdict(taken, said if taken else f"{said}: no gain by more than noise", facts)


def _block_means(differences: Array, rows: int) -> Array:
    """Means `[B]` of consecutive blocks of `rows` differences, the oldest incomplete one left out."""
    whole = len(differences) // rows
    if not whole:
        return np.zeros(0)
    means: Array = differences[len(differences) - whole * rows :].reshape(whole, rows).mean(axis=1)
    return means


def _core_hours(decided: Decided, costs: Array) -> dict[str, float]:
    parts = {"cost": costs, "held": decided.held, "short": decided.short, "excess": decided.excess}
    hours = {name: float(values.sum()) / 3600 for name, values in parts.items()}
    return {**hours, "started_cores": float(decided.started.sum())}
