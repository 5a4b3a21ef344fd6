"""The controller watches its own model: what decisions lacked or wasted, and whether inputs have drifted."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from helpers.fakes import START, FakeCluster, ScriptedPolicy, make_settings
from helpers.model_samples import make_dataset

from deepscaler.control.controller import Controller
from deepscaler.control.drift import DriftMeter
from deepscaler.control.health import HealthWatch
from deepscaler.control.quality import Quality
from deepscaler.control.recorder import DecisionRow
from deepscaler.control.self_metrics import exposition
from deepscaler.control.tick import Tick
from deepscaler.control.watch import Watch
from deepscaler.learning.inputs import Inputs, stability, training_inputs
from deepscaler.panel import MetricPanel
from deepscaler.policies.outlook import Learned

NAMES, FEATURES = ("web", "api", "db"), ("req", "cpu")
HOUR = 3600.0
RNG = np.random.default_rng(0)
ROWS = RNG.gamma(4.0, 5.0, (4000, 3, 2)).astype(np.float32)


def inputs_of(rows):
    whole = make_dataset(services=3)
    meta = {**whole.meta, "services": list(NAMES), "features": list(FEATURES)}
    return training_inputs(replace(whole, series=rows, bounds=(3000, len(rows)), meta=meta))


INPUTS = inputs_of(ROWS)


# ---------------------------------------------------------------------------------------------------- inputs
def test_deciles_hold_a_tenth_each_and_validation_of_the_same_kind_is_near():
    assert INPUTS.shares == pytest.approx(np.full((3, 2, 10), 0.1), abs=1e-3)
    assert INPUTS.usual < 0.03


def test_the_index_on_paper():
    """Half of the values in the one bin and half in the other, of which training had 0.9 and 0.1."""
    shares, counts = np.array([[[0.9, 0.1]]]), np.array([[[50, 50]]])
    expected = (0.5 - 0.9) * np.log(0.5 / 0.9) + (0.5 - 0.1) * np.log(0.5 / 0.1)
    assert stability(shares, counts) == pytest.approx(expected)
    assert stability(shares, np.array([[[90, 10]]])) == pytest.approx(0.0)
    assert np.isnan(stability(shares, np.zeros((1, 1, 2), int))).all()


def test_a_constant_fills_one_bin_and_a_feature_that_was_never_seen_none():
    rows = ROWS.copy()
    rows[:, 0, 1], rows[:, 1, 1] = 2.0, np.nan
    found = inputs_of(rows)
    assert found.shares[0, 1].max() == 1.0 and not found.shares[1, 1].any()
    again = found.counted(np.full((5, 3, 2), 2.0 * (1 + 1e-8)))
    assert stability(found.shares, again)[0, 1] == pytest.approx(0.0)


def test_inputs_travel_as_plain_values_and_what_is_none_is_left_out():
    again = Inputs.from_dict(INPUTS.to_dict())
    assert again is not None and again.services == NAMES
    assert again.edges == pytest.approx(INPUTS.edges, rel=1e-5)
    broken = {**INPUTS.to_dict(), "edges": [[1.0]]}
    assert [Inputs.from_dict(one) for one in (None, {}, [], broken)] == [None] * 4


def panel(values, now=START):
    """Samples `[L, 3, 2]`, 15 s apart."""
    times = now - 15.0 * np.arange(len(values) - 1, -1, -1.0)
    return MetricPanel(times, NAMES, FEATURES, np.asarray(values, np.float32))


def day(meter, factor=1.0, hours=24, start=START):
    """A row of the training's kind every two minutes."""
    rows = ROWS[RNG.integers(0, 3000, int(hours * 30))] * factor
    for index, row in enumerate(rows):
        now = start + 120.0 * index
        meter.add(now, panel(np.repeat(row[None], 4, axis=0), now))
    return start + hours * HOUR


def test_a_day_like_the_training_is_no_drift_and_one_of_twice_the_load_is():
    meter = DriftMeter(INPUTS)
    day(meter, hours=18)
    assert meter.drift() is None  # a part of a day is no day
    after = day(meter, hours=24, start=START + 18 * HOUR)
    assert meter.drift().score < 0.1
    day(meter, factor=[[2.0, 1.0]], start=after)
    drift = meter.drift()
    assert drift.score > 0.5 and drift.feature == "req" and set(drift.services) == set(NAMES)


def test_one_service_that_drifts_is_named_first():
    meter = DriftMeter(INPUTS)
    day(meter, factor=np.array([[1.0, 1.0], [1.0, 1.0], [3.0, 1.0]]))
    assert meter.drift().score < 0.1  # the others didn't
    values = np.array([[1.2, 1.0], [1.2, 1.0], [3.0, 1.0]])
    meter = DriftMeter(INPUTS)
    day(meter, factor=values)
    assert meter.drift().services[0] == "db"


# ---------------------------------------------------------------------------------------------------- health
LEARNED = Learned("a" * 64, shares=(0.001, 0.2))


class Learning(ScriptedPolicy):
    about: Learned | None = LEARNED

    def learned(self):
        return self.about


def watch_of(about=LEARNED, **health):
    policy = Learning(lambda _now, _service: 4.0)
    policy.about = about
    settings = make_settings(health=health)
    return policy, HealthWatch(settings, lambda: policy)


def tick(now, floor, ready):
    rows = tuple(
        DecisionRow(now, name, ready, ready, 4.0, floor, 4, None, "forecast", "act") for name in NAMES
    )
    seen = panel(ROWS[:4], now)
    return Tick(now, 0.0, 0.1, "act", rows, {}, Quality(seen, np.zeros(3), {}, frozenset()))


def hours(watch, count, floor=4.0, ready=4, start=START):
    for index in range(int(count * 60)):
        watch(tick(start + 60.0 * index, floor, ready))
    return start + count * HOUR


def test_what_lacks_and_what_idles_is_a_share_of_the_need():
    _, watch = watch_of()
    after = hours(watch, 1, floor=4.0, ready=6)
    hours(watch, 1, floor=4.0, ready=3, start=after)
    found = watch.health
    assert found.deficient_share == pytest.approx(0.125, rel=0.02)
    assert found.excess_share == pytest.approx(0.25, rel=0.02)
    assert found.error == pytest.approx(found.excess_share + 100 * found.deficient_share)
    assert found.usual_error == pytest.approx(0.3) and found.warnings == ()  # two hours tell nothing


def test_what_exceeds_its_level_for_long_is_warned_of_once_and_when_it_is_over(caplog):
    _, watch = watch_of()
    with caplog.at_level(logging.WARNING, "deepscaler.control.health"):
        after = hours(watch, 8, floor=4.0, ready=3)
        assert [record.message for record in caplog.records] == list(watch.health.warnings)
        assert "more than 2 times what the bundle's did on validation: train again" in caplog.text
        caplog.clear()
        hours(watch, 26, start=after)  # a day later the bad hours are forgotten
    assert watch.health.warnings == () and "back at its level" in caplog.text


def test_a_new_bundle_starts_anew_and_one_that_says_nothing_is_only_measured():
    policy, watch = watch_of()
    after = hours(watch, 8, floor=4.0, ready=3)
    assert watch.health.warnings
    policy.about = Learned("b" * 64)
    hours(watch, 8, floor=4.0, ready=3, start=after)
    assert watch.health.hours == 8 and watch.health.deficient_share > 0.2 and watch.health.warnings == ()


def test_drift_is_warned_of_with_the_feature_and_what_to_do():
    _, watch = watch_of(Learned("a" * 64, inputs=INPUTS))
    watch(tick(START, 4.0, 4))
    day(watch._meter, factor=[[2.0, 1.0]], start=START)
    watch(tick(START + 24 * HOUR - 1, 4.0, 4))
    [warning] = watch.health.warnings
    assert warning.startswith("req isn't distributed as in training") and "main.py --init_from" in warning


def test_the_controller_tells_it_on_its_page_and_in_run_json():
    policy = Learning(lambda _now, _service: 4.0)
    settings = make_settings()
    controller = Controller(FakeCluster(), policy, settings)
    assert controller.health is None
    controller.watch_health()
    watch = Watch(controller, settings)
    controller.run(60.0)
    page = exposition(watch).decode()
    assert (
        "deepscaler_decision_error_usual_ratio 0.30" in page and "deepscaler_retraining_advised 0.0" in page
    )
    assert "deepscaler_input_drift" not in page
    assert controller.describe(0, START)["health"]["usual_error"] == pytest.approx(0.3)
