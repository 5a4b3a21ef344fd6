"""Replicas on paper: what would run if other decisions had been made."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deepscaler.planning.paper import Paper
from deepscaler.planning.plan import Running

STEP = 15.0


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_paper_holds_what_it_is_told_and_starts_as_pods_do(wanted):
    paper = Paper(np.array([30.0, 60.0]))
    paper.follow(Running(np.array([1, 1]), ((5.0,), ())), 0.0)
    for number, replicas in enumerate(wanted):
        now = STEP * (number + 1)
        before = paper.running(now)
        paper.scale(np.array([replicas, replicas]), now)
        after = paper.running(now)
        for service, boot in enumerate((30.0, 60.0)):
            assert after.ready[service] + len(after.remaining[service]) == replicas
            assert after.ready[service] <= before.ready[service]  # nothing is ready at once
            assert all(0 < seconds <= boot for seconds in after.remaining[service])
    settled = paper.running(STEP * len(wanted) + 60.0)
    assert settled.ready.tolist() == [wanted[-1]] * 2


def test_what_began_last_stops_first_and_a_ready_replica_only_when_none_is_starting():
    paper = Paper(np.array([30.0]))
    paper.follow(Running(np.array([2]), ((10.0, 20.0),)), 100.0)
    assert paper.scale(np.array([3]), 100.0).tolist() == [0]
    assert paper.running(100.0).remaining == ((10.0,),)
    paper.scale(np.array([1]), 100.0)
    assert paper.running(100.0).ready.tolist() == [1] and paper.held.tolist() == [1]
    assert paper.scale(np.array([4]), 100.0).tolist() == [3] and paper.held.tolist() == [4]
