"""Run directories: which policy ran."""

import pandas as pd
import pytest
from helpers.run_samples import endpoint_row, make_run

from deepscaler.errors import DataError
from deepscaler.runs import PolicyName, read_run, write_run


@pytest.mark.parametrize(
    ("text", "family", "knob"),
    [
        ("hpa_70", "hpa", 70.0),
        ("foreseen_85", "foreseen", 85.0),
        ("hpa_7.5", "hpa", 7.5),
        ("hpa_r70", "hpa_r", 70.0),
        ("queueing_trend_80", "queueing_trend", 80.0),
        ("hpa_r", "hpa_r", None),
        ("deepscaler", "deepscaler", None),
        ("deepscaler_nofloor", "deepscaler_nofloor", None),
        ("hpa_", "hpa_", None),
        ("_70", "_70", None),
    ],
)
def test_the_number_after_the_last_underscore_of_a_name_is_its_knob(text, family, knob):
    assert PolicyName.parse(text) == PolicyName(text, family, knob)
    assert str(PolicyName.parse(text)) == text


def test_a_run_states_its_policy_and_an_older_one_by_name_alone(tmp_path):
    rows = [endpoint_row(t, "GET /", 10, 0.1) for t in (15, 30, 45, 60)]
    write_run(make_run(rows, policy="hpa_70"), tmp_path / "old")
    write_run(make_run(rows, policy="plan_b", family="plan", knob=2), tmp_path / "new")
    assert read_run(tmp_path / "old").policy == PolicyName("hpa_70", "hpa", 70.0)
    assert read_run(tmp_path / "new").policy == PolicyName("plan_b", "plan", 2)


def test_a_compact_run_says_the_same_and_takes_the_place_of_a_plain_one(tmp_path):
    run = make_run([endpoint_row(t, "GET /", 10, 0.1) for t in range(15, 7200, 15)])
    write_run(run, tmp_path)
    plain, size = read_run(tmp_path), sum(path.stat().st_size for path in tmp_path.iterdir())
    write_run(run, tmp_path, compact=True)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < size / 5
    again = read_run(tmp_path)
    for name in ("endpoints", "decisions", "pods"):
        assert not (tmp_path / f"{name}.csv").exists()
        pd.testing.assert_frame_equal(getattr(again, name), getattr(plain, name))
    write_run(run, tmp_path)
    assert not list(tmp_path.glob("*.gz"))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_compressed_table_that_is_cut_short_is_named(tmp_path, share):
    write_run(make_run([endpoint_row(15, "GET /", 10, 0.1)]), tmp_path, compact=True)
    table = tmp_path / "endpoints.csv.gz"
    table.write_bytes(table.read_bytes()[: int(share * table.stat().st_size)])
    with pytest.raises(DataError, match=r"endpoints\.csv\.gz"):
        read_run(tmp_path)
