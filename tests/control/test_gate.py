"""The quality gate asks for samples on one grid from tick to tick, and never for old ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from helpers.fakes import START, FakeCluster, make_settings

from deepscaler.control.gate import EARLY_SHARE, LATE_SHARE, Gate
from deepscaler.control.recorder import Statistics

STEP = 15.0
JITTER = np.random.default_rng(1).uniform(0.0, 0.3, 200)


def newest_samples(moments: Sequence[float]) -> list[float]:
    """The newest time that is asked for at each of these moments."""
    cluster, asked = FakeCluster(), []
    gate, metrics = Gate(cluster, make_settings(), Statistics()), cluster.metrics

    def noted(start: float, end: float, step: float) -> object:
        asked.append(end)
        return metrics(start, end, step)

    cluster.metrics = noted  # type: ignore[method-assign, assignment]
    for cluster.clock in moments:
        gate.judge(cluster.clock, ["web"], 300.0)
    return asked


@pytest.mark.parametrize(
    "moments",
    {
        "on time": START + STEP * np.arange(50),
        "late by turns": START + STEP * np.arange(200) + JITTER,
        "a clock that is slewed forward": START + (STEP + 0.007) * np.arange(200),
        "a clock that is slewed back": START + (STEP - 0.007) * np.arange(200),
        "ticks that were missed": START + STEP * np.array([0, 1, 5, 6, 20, 21]),
        "a clock that was set back": START + np.array([0, 15, 30, -3570.0, -3555.0, -3540.0]),
    }.items(),
    ids=lambda case: case[0],
)
def test_the_grid_stays_and_its_newest_sample_is_never_old(moments: tuple[str, Sequence[float]]) -> None:
    asked = np.array(newest_samples(moments[1]))
    late = np.array(moments[1]) - asked
    assert (late <= LATE_SHARE * STEP).all() and (late >= -EARLY_SHARE * STEP).all()
    phases = np.diff(asked) / STEP
    moved = np.abs(phases - np.rint(phases)) > 1e-3
    assert moved.sum() <= 2  # a slewed clock needs a new grid now and then


def test_ticks_on_time_ask_for_exactly_now() -> None:
    moments = (START + STEP * np.arange(50)).tolist()
    assert newest_samples(moments) == moments


def test_a_period_that_is_no_multiple_of_the_step_always_asks_up_to_now() -> None:
    moments = START + 40.0 * np.arange(20)
    assert np.abs(np.array(newest_samples(moments.tolist())) - moments).max() <= LATE_SHARE * STEP
