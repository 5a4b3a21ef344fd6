"""A new bundle takes over between two ticks, or the old one goes on and says why."""

import logging
import os
import threading

import pytest
from helpers.bundles import write_bundle
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings

from deepscaler.control.controller import Controller
from deepscaler.control.renewal import Renewal, renewal_of
from deepscaler.errors import BundleError
from deepscaler.policies.registry import make_policy


def at_once(work):
    work()
    return lambda: False


@pytest.fixture
def path(tmp_path):
    return write_bundle(tmp_path / "AdapGLA.pt", means=(2, 2, 2))


def controlled(path, start=at_once, make=None, **scale):
    """A controller over the bundle, without a floor, so that targets are the bundle's means."""
    settings = make_settings(
        bundle=str(path), floor={"enabled": False}, guard_rails={"scale_down_window": 0}, period=15, **scale
    )
    cluster = FakeCluster()
    policy = make_policy("deepscaler", settings)
    watching = renewal_of(policy, settings, cluster.now())
    renewal = Renewal(policy, path, make or watching._make, cluster.now(), start)
    return cluster, Controller(cluster, policy, settings, renewal=renewal), renewal


def sha_of(policy):
    return policy.describe()["bundle_sha256"]


def test_a_changed_file_takes_over_without_a_missed_tick(path):
    cluster, controller, _ = controlled(path)
    first = sha_of(controller.policy)
    cluster.hooks.append(lambda now: now == cluster_start + 30 and write_bundle(path, means=(7, 7, 7)))
    cluster_start = cluster.now()
    controller.run(150)
    rows = controller.decisions()
    web = rows[rows["service"] == "web"]
    assert list(web["time"] - cluster_start) == [15 * index for index in range(10)]
    assert list(web["target"])[:4] == [2] * 4 and list(web["target"])[5:] == [7] * 5
    model = controller.model
    assert (model.taken, model.refused, model.refusal) == (1, 0, "")
    assert model.sha256 == sha_of(controller.policy) != first
    assert controller.describe(0, cluster_start)["model"]["sha256"] == model.sha256


def test_reading_never_delays_a_tick(path):
    """The file hangs for as long as ten ticks; the one after that has the new bundle."""
    hanging, over, going = threading.Event(), threading.Event(), []

    def start(work):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(0.05 if hanging.is_set() else 30)
        going.append(thread)
        return thread.is_alive

    def slow():
        over.wait(30)
        return ScriptedPolicy(lambda _now, _service: 7.0)

    hanging.set()
    cluster, controller, _ = controlled(path, start, slow)
    controller.run(30)
    write_bundle(path, means=(7, 7, 7))
    controller.run(150)
    assert controller.statistics.ticks == 12 and set(cluster.replicas.values()) == {2}
    hanging.clear()
    over.set()
    for thread in going:
        thread.join(30)
    controller.run(30)
    assert set(cluster.replicas.values()) == {7} and controller.statistics.failed_ticks == 0


BROKEN = {
    "half a file": lambda path: path.write_bytes(path.read_bytes()[:2000]),
    "no bundle": lambda path: path.write_bytes(b"something else"),
    "other services": lambda path: write_bundle(path, services=("a", "b", "c")),
    "another step": lambda path: write_bundle(path, step=30.0),
    "another application": lambda path: write_bundle(path, app="other"),
    "features that aren't collected": lambda path: write_bundle(path, features=("pod", "cpu", "res", "mem")),
    "no file": lambda path: path.unlink(),
}


@pytest.mark.field
@pytest.mark.parametrize("what", BROKEN)
def test_a_bundle_that_cant_decide_leaves_the_old_one_running_and_is_told_once(what, path, caplog):
    cluster, controller, _ = controlled(path)
    good = path.read_bytes()
    controller.run(30)
    first = controller.model
    BROKEN[what](path)
    with caplog.at_level(logging.ERROR, "deepscaler.control.renewal"):
        controller.run(60)
    [record] = caplog.records
    assert str(path) in record.message and f"{first.sha256[:12]} goes on deciding" in record.message
    assert controller.model.sha256 == first.sha256 and controller.model.refusal in record.message
    assert controller.model.refused == (what != "no file") and controller.model.taken == 0
    assert set(cluster.replicas.values()) == {2} and controller.statistics.failed_ticks == 0
    path.write_bytes(good)
    controller.run(45)
    assert controller.model.refusal == "" and controller.model.taken == 0


def test_a_bundle_whose_forecasts_fail_is_refused(path, caplog):
    """It loads and fits, and what it makes of the newest metrics is an error."""

    class Failing(ScriptedPolicy):
        def describe(self):
            return {"scenarios": {"network": {"failed": len(self.seen)}}, "bundle_sha256": "new"}

    _, controller, _ = controlled(path, make=lambda: Failing(lambda _now, _service: 9.0))
    controller.run(30)
    write_bundle(path, means=(7, 7, 7))
    controller.run(60)
    assert "its forecast of the newest metrics failed" in controller.model.refusal


def test_an_error_of_any_kind_in_it_ends_nothing(path):
    def broken():
        raise ZeroDivisionError("by zero")

    _, controller, _ = controlled(path, make=broken)
    write_bundle(path, means=(7, 7, 7))
    controller.run(60)
    assert "not usable (ZeroDivisionError: by zero)" in controller.model.refusal


def test_a_file_that_is_still_being_written_isnt_read(path):
    made = []
    cluster, controller, _ = controlled(path, make=lambda: made.append(1))
    controller.run(30)
    whole = write_bundle(path.with_name("other.pt"), means=(7, 7, 7)).read_bytes()
    sizes = iter(range(1000, 6000, 1000))

    def grow(now):
        size = next(sizes, None)
        if size is not None:
            path.write_bytes(whole[:size])
            os.utime(path, ns=(size, size))

    cluster.hooks.append(grow)
    controller.run(75)
    assert controller.model.refusal == "" and made == []


def test_a_file_that_was_only_touched_changes_nothing(path):
    made = []
    _, controller, _ = controlled(path, make=lambda: made.append(1))
    controller.run(30)
    os.utime(path, ns=(1, 1))
    controller.run(60)
    assert made == [] and controller.model.taken == 0


def test_the_signal_has_a_refused_file_tried_again(path):
    attempts = []

    def make():
        attempts.append(1)
        raise BundleError("no")

    _, controller, renewal = controlled(path, make=make)
    write_bundle(path, means=(7, 7, 7))
    controller.run(90)
    assert len(attempts) == 1
    renewal.ask()
    controller.run(15)
    assert len(attempts) == 2 and controller.model.refused == 2


def test_how_old_the_data_of_the_bundle_is_goes_with_it(tmp_path):
    path = write_bundle(tmp_path / "AdapGLA.pt", source={"file": "m.csv", "start": 1.0, "end": 1000.0})
    _, controller, _ = controlled(path)
    assert controller.model.trained_until == 1000.0
    write_bundle(path, source={"file": "m.csv", "start": 1.0, "end": 2000.0})
    controller.run(60)
    assert controller.model.trained_until == 2000.0


@pytest.mark.parametrize("name", ["reactive_holistic", "plan_bootstrap", "hpa_70"])
def test_policies_without_a_bundle_watch_nothing(name, path):
    policy = ScriptedPolicy(lambda _now, _service: 4.0, name=name)
    renewal = renewal_of(policy, make_settings(bundle=str(path)), 0.0)
    assert renewal.newest(0.0, None) is None and renewal.model.path == "" and not renewal._looking()


def test_another_period_is_kept_from_the_take_over_on(path):
    cluster, controller, _ = controlled(path)
    start = cluster.now()
    slower = ScriptedPolicy(lambda _now, _service: 9.0, period_seconds=60.0)
    renewal = Renewal(controller.policy, path, lambda: slower, start, at_once)
    controller = Controller(cluster, controller.policy, controller._settings, renewal=renewal)
    write_bundle(path, means=(7, 7, 7))
    controller.run(200)
    rows = controller.decisions()
    assert list(rows.loc[rows["service"] == "web", "time"] - start) == [0, 15, 30, 90, 150]
