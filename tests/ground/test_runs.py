"""Run directories: which policy ran."""

import pytest
from helpers.run_samples import endpoint_row, make_run

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
