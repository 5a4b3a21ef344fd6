"""How long new replicas are slow is found in what requests cost, and nowhere else."""

import numpy as np
import pytest

from deepscaler.labels.warm_up import warm_up_seconds
from deepscaler.panel import MetricPanel

STEP = 15.0
ROWS = 2400
LIMIT = 0.5


def panel(seconds: float = 0.0, slowdown: float = 1.0, every: int = 80, seed: int = 1) -> MetricPanel:
    """Ten hours of one service whose replicas come and go, of which new ones are slow for some seconds."""
    draw = np.random.default_rng(seed)
    turn = np.arange(ROWS) // every
    pod = 2.0 + draw.integers(0, 4, turn.max() + 1)[turn]
    req = 60 + 25 * np.sin(np.arange(ROWS) / 37) + draw.normal(0, 2, ROWS)
    came = np.maximum(np.diff(pod, prepend=pod[:1]), 0)
    young = sum(np.roll(came, back) for back in range(round(seconds / STEP))) if seconds else 0 * came
    work = 0.01 * req * (1 + (slowdown - 1) * np.minimum(young / pod, 1))
    cores = 0.02 * pod + work + draw.normal(0, 0.005, ROWS)
    values = np.stack([pod, cores / pod / LIMIT, req], axis=1)[:, None].astype(np.float32)
    return MetricPanel(STEP * np.arange(ROWS), ("a",), ("pod", "cpu", "req"), values)


@pytest.mark.parametrize("seconds", [30.0, 60.0, 120.0, 300.0])
@pytest.mark.parametrize("slowdown", [2.5, 4.0])
def test_a_slow_first_minute_is_found(seconds, slowdown):
    assert warm_up_seconds(panel(seconds, slowdown), np.array([LIMIT]), np.zeros(1)).tolist() == [seconds]


@pytest.mark.parametrize(
    "made",
    [panel(), panel(60, 1.3), panel(60, 0.3), panel(60, 4.0, every=ROWS), panel(60, 4.0, every=400)],
    ids=["none", "a little", "faster", "no start", "few starts"],
)
def test_nothing_is_found_where_nothing_can_be_told(made):
    assert warm_up_seconds(made, np.array([LIMIT]), np.zeros(1)).tolist() == [0.0]


def test_gaps_and_pauses_change_nothing():
    """Samples that are missing, hours without requests, and a service that was never seen."""
    made = panel(60, 4.0)
    values = made.values.copy()
    values[300:420] = np.nan
    values[700:900, :, 2] = 0.0
    values[700:900, :, 1] = 0.02 / LIMIT
    values[::97, :, 1] = np.nan
    assert warm_up_seconds(
        MetricPanel(made.times, made.services, made.features, values), np.array([LIMIT]), np.zeros(1)
    ).tolist() == [60.0]
    nothing = np.full_like(values, np.nan)
    assert warm_up_seconds(
        MetricPanel(made.times, made.services, made.features, nothing), np.array([LIMIT]), np.zeros(1)
    ).tolist() == [0.0]
