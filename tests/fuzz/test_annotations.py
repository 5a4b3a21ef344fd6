"""Whatever stands in our annotation, an autoscaler is read, and its minimum is known or left alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscaler.adapters.kubernetes.autoscalers import ADVICE, autoscaler_of
from deepscaler.cluster import Workload
from deepscaler.control.advice import advisable

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ADVICES = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("minReplicas", "raisedTo", "until", "by"), VALUES)
)


def read(text):
    meta = {"name": "web", "annotations": {ADVICE: text}}
    return autoscaler_of({"metadata": meta, "spec": {"minReplicas": 4, "maxReplicas": 9}})


@pytest.mark.stress
@given(st.text(max_size=60) | VALUES.map(json.dumps) | ADVICES.map(json.dumps))
def test_any_advice_is_read_or_leaves_the_minimum_alone(text):
    found = read(text)
    assert (found.advice is None) == bool(found.unsound) and "\n" not in found.unsound
    workload = Workload("web", 4, 1.0, 1.0, autoscalers=("HorizontalPodAutoscaler/web",), hpas=(found,))
    assert (advisable(workload) is None) == bool(found.unsound)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"minReplicas": 1e400, "raisedTo": 2, "until": "2026-01-01T00:00:00Z"}',
        '{"minReplicas": 2, "raisedTo": 3, "until": 1767571200}',
        '{"minReplicas": 2, "raisedTo": 3, "until": "0000-99-99"}',
        '{"minReplicas": true, "raisedTo": 3, "until": "2026-01-01T00:00:00Z"}',
        '{"minReplicas": -1, "raisedTo": 3, "until": "2026-01-01T00:00:00Z"}',
        '{"minReplicas": 2, "raisedTo": 4294967296, "until": "2026-01-01T00:00:00Z"}',
    ],
)
def test_an_advice_that_means_nothing_is_named(text):
    assert read(text).advice is None and "can't be read" in read(text).unsound


def test_an_advice_says_what_the_minimum_was():
    found = read('{"minReplicas": 2, "raisedTo": 4, "until": "2026-01-05T00:00:00Z", "by": "ds-0"}').advice
    assert (found.minimum, found.raised, found.until, found.holder) == (2, 4, 1_767_571_200.0, "ds-0")
