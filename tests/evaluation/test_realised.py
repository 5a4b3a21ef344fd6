"""The realised cost of a run, by hand."""

from __future__ import annotations

import pandas as pd
import pytest
from helpers.run_samples import START, endpoint_row, make_run

from deepscaler.errors import DataError
from deepscaler.evaluation.realised import realised_cost, serving
from deepscaler.evaluation.span import run_span
from deepscaler.runs import read_run, write_run


def sample():
    """Two minutes of web (0.5 cores) and db (1 core): web has 1, then 3 replicas and needs 2 all the time."""
    ends = [60, 120]
    endpoints = [endpoint_row(end, "GET /", 10, 0.1) for end in ends]
    pods = [
        (START + 60, "web", 1, 0, 1),
        (START + 60, "db", 1, 0, 1),
        (START + 120, "web", 4, 1, 3),
        (START + 120, "db", 1, 0, 1),
    ]
    run = make_run(endpoints, pods, start=START)
    run.needed = pd.DataFrame({"time": [START + end for end in ends], "web": [2, 2], "db": [1, 1]})
    return run


def test_held_short_excess_and_starts_are_priced():
    run = sample()
    found = realised_cost(run, run_span(run, 0), shortage=100.0, start=180.0)
    minute = 1 / 60
    assert found["held_core_hours"] == pytest.approx(minute * (0.5 + 1 + 4 * 0.5 + 1))
    assert found["short_core_hours"] == pytest.approx(minute * 0.5)
    assert found["excess_core_hours"] == pytest.approx(minute * 0.5)
    wanted = found["held_core_hours"] + 100 * minute * 0.5 + 180 / 3600 * 3 * 0.5
    assert found["realised_cost"] == pytest.approx(wanted)


def test_a_run_without_its_need_has_no_realised_cost():
    run = sample()
    run.needed = None
    assert realised_cost(run, run_span(run, 0), 100.0, 180.0) == {}


def test_the_need_is_kept_in_the_run_directory(tmp_path):
    run = sample()
    write_run(run, tmp_path / "run")
    again = read_run(tmp_path / "run")
    pd.testing.assert_frame_equal(again.needed, run.needed, check_dtype=False)


def test_history_before_the_judged_part_is_cut():
    run = sample()
    run.info["history_seconds"] = 60.0
    assert run_span(run, 0).start == START + 60


def slow_at_first(ready, told=None):
    """A run with a sample every 15 s in which web has these ready replicas and needs 3 all the time."""
    ends = range(15, 15 * len(ready) + 1, 15)
    pods = [(START + end, "web", count, 0, count) for end, count in zip(ends, ready, strict=True)]
    run = make_run([endpoint_row(end, "GET /", 10, 0.1) for end in ends], pods, start=START)
    run.needed = pd.DataFrame({"time": [START + end for end in ends], "web": [3] * len(ready)})
    run.info |= {} if told is None else {"warm_up": {"web": told}}
    return run


@pytest.mark.parametrize(
    ("ready", "serves"),
    [
        ([2, 2, 2, 2], [2, 2, 2, 2]),
        ([2, 4, 4, 4, 4], [2, 2.5, 2.5, 4, 4]),  # two are slow for 30 s, a quarter each
        ([2, 3, 4, 4, 4], [2, 2.25, 2.5, 3.25, 4]),
        ([2, 4, 2, 4, 4], [2, 2.5, 2, 2.5, 2.5]),  # the youngest go, and the next ones are young again
        ([0, 1, 1, 1], [0, 0.25, 0.25, 1]),
        ([3, 1, 1, 1], [3, 1, 1, 1]),
    ],
)
def test_a_pod_that_is_slow_at_first_counts_for_what_it_serves(ready, serves):
    run = slow_at_first(ready, {"seconds": 30.0, "slowdown": 4.0})
    assert serving(run)["web"].tolist() == serves
    found, plain = (realised_cost(one, run_span(one, 0), 100.0, 180.0) for one in (run, slow_at_first(ready)))
    missing = sum(max(3 - value, 0) for value in serves) * 15 / 3600 * 0.5
    assert found["short_core_hours"] == pytest.approx(missing)
    same = ("held_core_hours", "excess_core_hours")
    assert [found[name] for name in same] == [plain[name] for name in same]


@pytest.mark.parametrize("told", [{"seconds": 0.0, "slowdown": 4.0}, {"seconds": 60.0, "slowdown": 1.0}])
def test_without_a_warm_up_the_figures_are_the_same_to_the_bit(told):
    ready = [1, 4, 2, 5, 3, 3, 7]
    runs = (slow_at_first(ready), slow_at_first(ready, told))
    one, other = (realised_cost(run, run_span(run, 15), 100.0, 180.0) for run in runs)
    assert one == other


def test_a_pod_that_came_before_the_judged_part_is_as_warm_as_it_was():
    run = slow_at_first([1, 3, 3, 3, 3, 3], {"seconds": 45.0, "slowdown": 3.0})
    found = realised_cost(run, run_span(run, 30), 100.0, 0.0)
    assert found["short_core_hours"] == pytest.approx((3 - 5 / 3) * 2 * 15 / 3600 * 0.5)


def test_a_warm_up_that_cant_be_is_refused(tmp_path):
    write_run(slow_at_first([1, 2], {"seconds": 60.0, "slowdown": 0.5}), tmp_path / "run")
    with pytest.raises(DataError, match=r"run\.json: warm_up\.web\.slowdown"):
        read_run(tmp_path / "run")
