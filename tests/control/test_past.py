"""The page's past after a restart: from decisions.csv or from the store, whichever is newer."""

import json

import numpy as np
import pytest
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings
from helpers.moments import START

from deepscaler.control.controller import Controller
from deepscaler.control.past import APPLIED, FLOOR, PROPOSED, READY, SHOWN_SECONDS
from deepscaler.control.recorder import Recorder
from deepscaler.control.story import Stories
from deepscaler.control.watch import Watch

NAMES = ("web", "api", "db")


def watched(cluster, tmp_path=None, wish=5.0):
    """A controller that ticked once, and its page's past."""
    settings = make_settings()
    recorder = Recorder(tmp_path) if tmp_path else None
    policy = ScriptedPolicy(lambda _now, _service: wish)
    controller = Controller(cluster, policy, settings, recorder)
    watch = Watch(controller, settings)
    controller.tick()
    return watch, controller


def replicas(watch, row, service="web"):
    return [float(moment.replicas[row, NAMES.index(service)]) for moment in watch.snapshot.past]


def told(until, seconds=1800.0, wish=6.4, floor=2.0):
    """What a controller elsewhere decided, as the store tells it."""
    times = np.arange(until - seconds, until, 15.0)
    return [(time, name, 6, wish, floor) for time in times.tolist() for name in NAMES]


def test_on_another_node_the_past_comes_from_the_store():
    cluster = FakeCluster(decided=told(START - 30.0), load=lambda time: 40.0)
    watch, _ = watched(cluster)
    past = watch.snapshot.past
    assert past[0].time < START - 1700.0 and len(past) > 100
    assert np.all(np.diff([moment.time for moment in past]) > 0)
    assert replicas(watch, APPLIED)[0] == 6.0 and replicas(watch, FLOOR)[0] == 2.0
    assert replicas(watch, PROPOSED)[0] == pytest.approx(6.4) and np.isnan(replicas(watch, READY)[0])
    assert past[0].load == 40.0 and past[-1].load == pytest.approx(10.0)  # the metrics know the newest
    assert replicas(watch, READY)[-1] == 4.0


def test_after_a_restart_here_the_past_comes_from_the_file(tmp_path):
    first = FakeCluster()
    controller = watched(first, tmp_path)[1]
    controller.run(900.0)
    second = FakeCluster(clock=first.clock + 20.0, replicas=first.replicas)
    watch, _ = watched(second, tmp_path)
    assert watch.snapshot.past[0].time <= START + 15.0
    assert replicas(watch, PROPOSED)[:10] == [5.0] * 10 and replicas(watch, APPLIED)[5] == 5.0
    assert replicas(watch, READY)[0] == 5.0
    page = json.loads(Stories(watch).newest().text())
    assert len(page["past"]) == len(watch.snapshot.past) >= 60


@pytest.mark.parametrize(("end", "newer"), [(-100.0, 5.0), (2000.0, 6.4)])
def test_the_newer_of_the_two_is_shown(tmp_path, end, newer):
    first = FakeCluster()
    watched(first, tmp_path)[1].run(900.0)
    now = START + 2000.0
    spec = [(now - 15.0, name, 4, np.nan, np.nan) for name in NAMES]  # replicas asked for; nobody proposed
    second = FakeCluster(clock=now, decided=[*told(START + end), *spec])
    watch, _ = watched(second, tmp_path)
    assert newer in {round(value, 3) for value in replicas(watch, PROPOSED)[:-1]}
    assert {5.0: 6.4, 6.4: 5.0}[newer] not in {round(value, 3) for value in replicas(watch, PROPOSED)[:-1]}


def test_no_more_is_shown_than_three_hours():
    watch, _ = watched(FakeCluster(decided=told(START - 30.0, 6 * 3600.0)))
    assert START - SHOWN_SECONDS <= watch.snapshot.past[0].time <= START - SHOWN_SECONDS + 30.0


@pytest.mark.stress
def test_a_store_that_is_down_and_a_torn_file_cost_only_the_past(tmp_path, caplog):
    (tmp_path / "decisions.csv").write_text("time,service\nx")
    Recorder(tmp_path)  # a file of other columns is kept aside
    assert (tmp_path / "decisions.1.csv").read_text() == "time,service\nx"
    cluster = FakeCluster(decided=told(START - 30.0), metrics_down=(START, START + 0.5))
    settings = make_settings()
    controller = Controller(cluster, ScriptedPolicy(lambda _now, _service: 5.0), settings)
    watch = Watch(controller, settings)
    assert "the page begins without a part of its past" in caplog.text
    cluster.metrics_down = (np.inf, np.inf)
    controller.tick()
    assert len(watch.snapshot.past) >= 1
