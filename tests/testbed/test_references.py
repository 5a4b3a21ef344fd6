"""References that are told the future: which jumps nothing announces, and what is told before they begin."""

import numpy as np
import pytest

from deepscaler.panel import MetricPanel
from deepscaler.planning.scenarios import Moment
from deepscaler.policies.plan import ForeseenRates
from testbed.experiments.references import find_jumps

NOISE = np.random.default_rng(1)
STEP = 15.0


def test_a_sharp_step_is_a_jump_and_begins_with_its_first_row():
    assert find_jumps(np.repeat([20.0, 100.0], 20)) == [20]
    assert find_jumps(np.repeat([100.0, 20.0, 100.0], 20)) == [20, 40]


def test_a_rise_within_half_a_minute_is_one_jump():
    assert find_jumps(np.concatenate([np.full(20, 20.0), [60.0], np.full(20, 100.0)])) == [20]


@pytest.mark.parametrize(
    "load",
    [
        np.full(200, 50.0),
        np.linspace(20, 100, 200),
        60 + 40 * np.sin(2 * np.pi * STEP * np.arange(400) / 700),  # the shape `fluctuation`
        50 * NOISE.normal(1.0, 0.04, 200),
        np.zeros(50),
        np.ones(3),
    ],
    ids=["steady", "slow rise", "fluctuation", "noise", "nothing", "short"],
)
def test_what_a_minute_before_tells_is_no_jump(load):
    assert find_jumps(load) == []


def told(rows, now, surprises):
    rates = np.arange(float(rows))[:, None] + 1
    moment = Moment(STEP * now, rates, MetricPanel(np.zeros(0), ("a",), ("req",), np.zeros((0, 1, 1))))
    return ForeseenRates(STEP * np.arange(rows), rates, 4, surprises).scenarios(moment).rates[0, :, 0]


def test_until_a_surprise_begins_the_rates_are_told_to_stay_and_then_the_truth():
    assert told(20, 2, ()).tolist() == [4, 5, 6, 7]
    assert told(20, 2, (5, 9)).tolist() == [4, 5, 5, 5]  # row 5 holds a 6, and isn't told
    assert told(20, 4, (5, 9)).tolist() == [5, 5, 5, 5]
    assert told(20, 5, (5, 9)).tolist() == [7, 8, 9, 9]
    assert told(20, 17, (5, 9)).tolist() == [19, 20, 20, 20]
