"""Offered load: bounds, steps and periods of the shapes, by seed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.paths import ROOT, WORLDCUP98, WORLDCUP98_MISSING
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscaler.errors import DataError, SettingsError
from deepscaler.evaluation.summary import OVER_THE_RUN
from deepscaler.settings import Load, load_settings
from sendFlow.trace import read_req
from testbed import shapes
from testbed.experiments.references import played

HOUR = 3600.0
SEEDS = st.integers(0, 2**32 - 1)


def values(shape: str, duration: float = HOUR, seed: int = 1, **changes: Any) -> np.ndarray:
    return shapes.users(Load(shape=shape, **{"noise": 0.0, **changes}), duration, seed)[1]


@pytest.mark.parametrize("shape", shapes.SHAPES)
@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_any_seed_stays_within_the_bounds(shape: str, seed: int) -> None:
    load = values(shape, seed=seed)
    assert load.dtype == np.int64
    assert load.min() >= 25 and load.max() <= 95


@pytest.mark.parametrize("shape", [*shapes.SHAPES, "req"])
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_a_seed_is_one_load_and_noise_never_empties_it(shape: str, seed: int) -> None:
    load = Load(shape=shape, low=2.0, high=5.0, noise=3.0)
    times, users = shapes.users(load, HOUR, seed)
    assert (times == np.arange(720) * 5.0).all()
    assert users.min() >= 1
    assert (shapes.users(load, HOUR, seed)[1] == users).all()


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_other_seeds_are_other_loads(shape: str) -> None:
    assert (values(shape, seed=1, noise=2.0) != values(shape, seed=2, noise=2.0)).any()


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_a_longer_run_is_another_load_for_the_shapes_of_which_comparisons_say_so(shape: str) -> None:
    short, longer = (values(shape, duration, seed=1) for duration in (HOUR, 2 * HOUR))
    assert (short != longer[: len(short)]).any() == (shape in OVER_THE_RUN)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_a_sharp_step_comes_between_3_and_5_tenths_within_half_a_minute(seed: int) -> None:
    for shape, before, after in (("sharp_increase", 25, 95), ("sharp_decrease", 95, 25)):
        load = values(shape, seed=seed)
        moved = np.flatnonzero(load != before)[0]
        arrived = np.flatnonzero(load == after)[0]
        assert 0.3 * 720 <= moved <= 0.5 * 720 + 1
        assert arrived - moved <= 6
        assert (load[:moved] == before).all() and (load[arrived:] == after).all()


def test_slight_changes_are_straight_lines() -> None:
    rise, fall = values("slight_increase", kind="open"), values("slight_decrease", kind="open")
    assert (rise[0], fall[0]) == (25, 95)
    assert rise[-1] == pytest.approx(45, abs=0.05) and fall[-1] == pytest.approx(57, abs=0.06)
    assert np.diff(rise).std() < 1e-9 and np.diff(fall).std() < 1e-9


@pytest.mark.parametrize("shape", ["slight_increase", "slight_decrease", "sharp_increase", "sharp_decrease"])
def test_what_comes_once_begins_after_the_history_and_is_then_the_same(shape: str) -> None:
    alone = values(shape)
    after = values(shape, duration=3 * HOUR, hold=2 * HOUR)
    assert (after[:1440] == alone[0]).all() and (after[1440:] == alone).all()
    load, duration = played_load(shape, history=2 * HOUR)
    assert (shapes.users(load, duration, 1)[1] == after).all()


def test_what_repeats_began_before_the_history() -> None:
    load, duration = played_load("square", history=HOUR)
    assert load.hold == 0 and duration == 2 * HOUR


def played_load(shape: str, history: float) -> tuple[Load, float]:
    asked = [f"testbed.history={history}", f"testbed.load.shape={shape}", "testbed.load.noise=0"]
    bed = played(load_settings(ROOT / "config/boutique.yaml", asked), 1).testbed
    return bed.load, bed.duration


def test_fluctuation_is_a_sine_with_the_configured_period() -> None:
    load = values("fluctuation", kind="open", low=22.0, high=98.0, period=600.0)
    assert (load.min(), load.max()) == (pytest.approx(22, abs=0.1), pytest.approx(98, abs=0.1))
    assert load[120:] == pytest.approx(load[:-120])
    spectrum = abs(np.fft.rfft(load - 60))
    assert spectrum.argmax() == 6 and spectrum[6] == pytest.approx(38 * 360)


def test_a_square_spends_half_of_each_period_high() -> None:
    load = values("square", period=600.0)
    assert set(load) == {25, 95}
    assert (load[120:] == load[:-120]).all()
    assert (load[:120] == 95).sum() == 60


def test_the_seed_draws_the_period_and_nothing_else_changes() -> None:
    drawn = {"period": 300.0, "longest_period": 1800.0}
    periods = []
    for seed in range(200):
        high = values("square", 4 * HOUR, seed, step=1.0, **drawn) == 95
        begins = np.flatnonzero(high[1:] & ~high[:-1])
        periods.append(float(np.diff(begins)[0]))
        assert np.ptp(np.diff(begins)) <= 1
    assert 299 <= min(periods) < 350 and 1600 < max(periods) <= 1801
    assert np.median(periods) == pytest.approx(np.sqrt(300 * 1800), rel=0.15)  # as often below as above
    assert (values("square", **{**drawn, "longest_period": 300.0}) == values("square", period=300.0)).all()
    with pytest.raises(SettingsError, match=r"testbed\.load\.longest_period"):
        values("square", period=900.0, longest_period=300.0)


def test_steady_is_the_middle_and_noise_is_normal() -> None:
    assert set(values("steady", low=20.0, high=40.0)) == {30}
    noise = values("steady", duration=40 * HOUR, kind="open", noise=2.0) - 60
    assert noise.std() == pytest.approx(2, rel=0.02)
    assert abs(noise.mean()) < 0.05
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.02


def test_diurnal_days_have_a_quiet_night_and_flash_crowds() -> None:
    days = values("diurnal", duration=7 * 86400.0).reshape(7, -1)
    night = np.r_[0:720, -720:0]
    assert (np.median(days[:, night]) - 25) < 0.25 * (days.max() - 25)
    assert len({tuple(day) for day in days}) == 7
    minutes = days.ravel().reshape(-1, 12).mean(1)
    assert (minutes[10:] - minutes[:-10]).max() > 10  # a crowd comes within ten minutes


@pytest.mark.parametrize("shape", ["mixed", "square", "fluctuation", "steady", "diurnal"])
def test_a_longer_run_begins_like_the_shorter_one(shape: str) -> None:
    short, long = (values(shape, duration=days * 86400.0, noise=2.0) for days in (1, 2))
    assert (long[: len(short)] == short).all()


def test_mixed_holds_levels_ramps_steps_and_waves_but_not_the_test_trace() -> None:
    load = values("mixed", duration=4 * 86400.0)
    hours = load.reshape(-1, 720)
    assert len(np.unique(load)) > 50
    assert hours.mean(1).std() > 8  # levels differ
    assert abs(np.diff(load)).max() >= 25  # steps
    assert (abs(np.diff(load)) == 0).mean() > 0.3  # calm stretches
    trace = read_req(shapes.README_TRACE).astype(float)
    windows = np.lib.stride_tricks.sliding_window_view(load.astype(float), len(trace))[::12]
    assert abs(windows - trace).mean(1).min() > 5


def test_open_loads_are_rates_that_may_be_small() -> None:
    load = values("steady", kind="open", low=0.2, high=0.4)
    assert load.dtype == np.float64
    assert set(load.round(9)) == {0.3}


def test_scale_multiplies_a_shape() -> None:
    assert (values("square", scale=2.0) == 2 * values("square")).all()


# ----------------------------------------------------------------------------------------------------- traces
def test_req_is_the_readme_trace_in_a_loop_with_idle_ends() -> None:
    load = values("req", duration=2 * 913 * 5.0, noise=2.0)
    assert (load[:913] == load[913:]).all()
    assert (load[:5] == 1).all() and (load[908:913] == 1).all()
    assert (load[5:908] == read_req(shapes.README_TRACE)).all()


def test_a_trace_is_read_from_its_path(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("time,requests\n0,10\n60,120\n", encoding="utf-8")
    load = values(str(tmp_path / "x.csv"), duration=40.0, kind="open", step=10.0, scale=3.0)
    assert load.tolist() == [0.5, 6, 0.5, 6]
    (tmp_path / "x.txt").write_text("7\n8\n", encoding="utf-8")
    assert values(str(tmp_path / "x.txt"), duration=4.0, step=1.0).tolist() == [7, 8, 7, 8]


def test_a_csv_of_users_isnt_played_as_one_user(tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("time,users\n" + "".join(f"{60 * row},{20 + row}\n" for row in range(30)))
    with pytest.raises(SettingsError) as caught:
        values(str(path))
    said = str(caught.value)
    assert "at its highest it has 0.817 users" in said and "divided by the 60 s between its rows" in said
    advice = dict(part.split("=") for part in re.findall(r"testbed\.load\.(\w+=\d+)", said))
    played = values(str(path), **{key: float(value) for key, value in advice.items()})
    assert played[0] == 20 and played.max() == 49 and (np.diff(played)[:29] == 1).all()
    assert values(str(path), kind="open").max() < 1  # requests per second may be few


def test_a_csv_may_begin_at_a_time() -> None:
    if not WORLDCUP98.exists():
        pytest.skip(WORLDCUP98_MISSING)
    load = values(f"{WORLDCUP98}#1998-06-30T20:00:00Z", kind="open", step=60.0, scale=0.02)
    assert len(load) == 60
    assert 30 < load.mean() < 80  # the evening of a match: some 2,000 requests a second
    with pytest.raises(SettingsError, match="ISO 8601"):
        values(f"{WORLDCUP98}#noon")
    with pytest.raises(DataError, match="outside"):
        values(f"{WORLDCUP98}#2026-01-01")


def test_an_unknown_shape_is_refused_with_the_list() -> None:
    with pytest.raises(SettingsError) as caught:
        values("sawtooth")
    for word in ("testbed.load.shape", "'sawtooth'", "sharp_increase", "mixed", "req", ".csv"):
        assert word in str(caught.value)


def test_low_above_high_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"testbed\.load\.low"):
        values("square", low=9.0, high=5.0)
