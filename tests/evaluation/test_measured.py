"""Measures that are kept beside a run: read again while nothing has changed, made again otherwise."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pandas as pd
import pytest
from helpers.moments import START
from helpers.run_samples import endpoint_row, make_run

from deepscaler.artefacts import utc_text
from deepscaler.errors import DataError
from deepscaler.evaluation import measured as module
from deepscaler.evaluation.measured import KEPT, measured
from deepscaler.runs import DECISION_COLUMNS, write_run
from deepscaler.settings import PlanPrices


@pytest.fixture
def place(tmp_path):
    """A run in which nothing was done in the last minute."""
    write_run(make_run([endpoint_row(t, "GET /", 10 * (t < 180), 0.1) for t in range(15, 241, 15)]), tmp_path)
    return tmp_path


def test_kept_measures_are_the_same_and_need_no_tables(place, monkeypatch):
    first = measured(place, 0.0, PlanPrices(), keep=True)
    monkeypatch.setattr(module, "read_run", None)
    again = measured(place, 0.0, PlanPrices())
    assert (again.policy, again.seed) == (first.policy, first.seed)
    assert repr(again.measures) == repr({**first.measures})  # NaN isn't equal to itself
    assert math.isnan(again.measures["recovery_seconds"])
    assert again.details.to_dict() == first.details.to_dict() and again.details.buckets.sum() == 110


def test_details_are_of_the_judged_part_and_kept_as_they_are(tmp_path):
    rows = [endpoint_row(t, "GET /", 10, 0.1) for t in range(15, 301, 15)]
    sources = [[utc_text(START), "none"], [utc_text(START + 150), "bootstrap"]]
    run = make_run(rows, start=utc_text(START), scenario_sources=sources)
    decisions = pd.DataFrame("", index=range(3), columns=DECISION_COLUMNS)
    decisions["time"], decisions["reason"] = [START + 30, START + 150, START + 240], ["floor", "plan", "plan"]
    write_run(replace(run, decisions=decisions), tmp_path)
    for _ in range(2):
        details = measured(tmp_path, 120.0, PlanPrices(), keep=True).details
        assert details.buckets.sum() == 120 and details.reasons == {"plan": 2}
        assert details.sources == {"none": 30.0, "bootstrap": 150.0}


@pytest.mark.parametrize("change", ["warmup", "prices", "file", "code", "broken"])
def test_they_are_made_again_when_what_they_depend_on_changes(place, monkeypatch, change):
    measured(place, 0.0, PlanPrices(), keep=True)
    kept = json.loads((place / KEPT).read_text())
    kept["measures"]["violation_rate"] = 0.5
    (place / KEPT).write_text(json.dumps(kept))
    assert measured(place, 0.0, PlanPrices()).measures["violation_rate"] == 0.5
    warmup, prices = (60.0 if change == "warmup" else 0.0), PlanPrices()
    if change == "prices":
        prices = PlanPrices(shortage=50.0)
    elif change == "file":
        table = place / "endpoints.csv"
        table.write_text(table.read_text() + "\n")
    elif change == "code":
        monkeypatch.setattr(module, "_code", lambda: "other")
    elif change == "broken":
        (place / KEPT).write_text("{")
    assert measured(place, warmup, prices).measures["violation_rate"] == 0.0


def test_a_broken_run_is_named(place):
    (place / "pods.csv").write_text("time,service,spec,starting,ready\n")
    with pytest.raises(DataError, match=str(place)):
        measured(place, 0.0, PlanPrices(), keep=True)
    assert not (place / KEPT).exists()
