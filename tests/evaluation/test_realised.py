"""The realised cost of a run, by hand."""

from __future__ import annotations

import pandas as pd
import pytest
from helpers.run_samples import START, endpoint_row, make_run

from deepscaler.evaluation.realised import realised_cost
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
