"""The demand model: what a closed loop hides, and the way to disk and back."""

import json

import numpy as np
import pytest
from helpers import telemetry as app
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscaler.errors import DataError
from deepscaler.labels.demand import DemandModel, entered_response


@settings(deadline=None)
@given(users=st.floats(10, 500), think=st.floats(0.2, 10), tasks=st.floats(0.5, 3), slow=st.floats(0.03, 20))
def test_the_correction_undoes_what_a_closed_loop_hides(users, think, tasks, slow):
    model = app.one_service(think_seconds=think, requests_per_think=tasks, unloaded_seconds=0.03)
    seen, offered = (users * tasks / (think + tasks * response) for response in (slow, 0.03))
    assert seen * float(model.correction(np.array(slow))) == pytest.approx(offered)


def test_no_correction_for_open_loops_fast_responses_or_no_traffic():
    assert app.one_service().correction(np.array([5.0])) == 1
    np.testing.assert_array_equal(
        app.one_service(think_seconds=1.0).correction(np.array([0.01, np.nan])), [1, 1]
    )


def test_what_users_wait_is_weighted_by_their_own_requests():
    among = np.array([[1.0, 3.0], [0.0, 1.0]])  # each page asks the second entry three times
    served, response = np.array([[10.0, 40.0]]), np.array([[0.5, 0.1]])  # so 10 of its 40 come from users
    assert entered_response(among, served, response) == pytest.approx([0.3])
    assert entered_response(np.eye(2), served, response) == pytest.approx([0.18])
    unknown = np.array([[np.nan, 40.0], [0.0, 40.0], [0.0, 0.0]])  # what is left is what was served
    found = entered_response(among, unknown, np.repeat(response, 3, axis=0))
    np.testing.assert_allclose(found, [0.1, 0.1, np.nan])


def test_the_model_survives_json():
    model = app.truth(
        demand_seconds=np.array([0.007, np.nan, 0.005]), think_seconds=1.0, quality={"cpu_r2": {"web": 0.99}}
    )
    again = DemandModel.from_dict(json.loads(json.dumps(model.to_dict(), allow_nan=False)))
    assert again.to_dict() == model.to_dict()
    np.testing.assert_array_equal(again.demand_seconds, model.demand_seconds)
    assert again.response == model.response
    assert DemandModel.from_dict(app.truth(response=None).to_dict()).response is None


def test_a_broken_model_is_one_line():
    whole = app.truth().to_dict()
    for broken in ({**whole, "other": 1}, {name: value for name, value in whole.items() if name != "visits"}):
        with pytest.raises(DataError, match="demand fit: broken"):
            DemandModel.from_dict(broken)
