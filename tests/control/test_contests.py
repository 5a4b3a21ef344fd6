"""Who undoes what is written is given way to: by name, for a while, and with few writes."""

import logging
from itertools import cycle

import pytest
from helpers.fakes import START, FakeCluster, ScriptedPolicy, make_settings

from deepscaler.control.controller import Controller

pytestmark = pytest.mark.field
HOUR = 3600.0


class Patcher:
    """Sets web's replicas every `period` seconds, from `start` until `end`."""

    def __init__(self, cluster, name, *replicas, period=1.0, start=0.0, end=float("inf")):
        self.cluster, self.name, self.replicas = cluster, name, cycle(replicas)
        self.period, self.due, self.end = period, START + start, START + end
        cluster.hooks.append(self)

    def __call__(self, now):
        while self.due <= now and self.due < self.end:
            value = next(self.replicas)
            if self.cluster.replicas["web"] != value:  # a patch that changes nothing leaves its manager alone
                self.cluster.replicas["web"] = value
                self.cluster.managers["web"] = self.name
            self.due += self.period


def controller_of(cluster, wish=8.0):
    policy = ScriptedPolicy(lambda _now, service: wish if service == "web" else 4.0, history_seconds=0.0)
    rails = {"scale_down_window": 0.0, "max_step_up": 99, "max_step_down": 99, "tolerance": 0.0}
    return Controller(cluster, policy, make_settings(guard_rails=rails))


def run(cluster, controller, seconds):
    end = cluster.clock + seconds
    while cluster.clock < end:
        controller.tick()
        cluster.sleep_until(cluster.clock + 15.0)


def reasons(controller):
    return controller.decisions().query("service == 'web'")["reason"].tolist()


def test_one_edit_is_the_owners_and_no_rival(caplog):
    cluster = FakeCluster()
    controller = controller_of(cluster)
    run(cluster, controller, 60.0)
    cluster.replicas["web"], cluster.managers["web"] = 3, "kubectl-scale"
    with caplog.at_level(logging.WARNING):
        run(cluster, controller, 2 * HOUR)
    assert cluster.writes == [{"web": 8}, {"web": 8}] and cluster.replicas["web"] == 8
    assert "web: kubectl-scale set 3 replicas; this controller left it at 8" in caplog.text
    assert "rival_autoscaler" not in reasons(controller)


@pytest.mark.parametrize(
    ("period", "most"),
    [
        pytest.param(1.0, 30, id="each second"),
        pytest.param(60.0, 30, id="each minute"),
        pytest.param(180.0, 30, id="self-healing GitOps"),
        pytest.param(600.0, 40, id="slow GitOps"),
    ],
)
def test_who_undoes_every_write_is_refused_by_name_and_met_by_few_writes(period, most, caplog):
    cluster = FakeCluster()
    Patcher(cluster, "keeper", 3, period=period)
    controller = controller_of(cluster)
    with caplog.at_level(logging.WARNING):
        run(cluster, controller, 24 * HOUR)
    assert 3 <= len(cluster.writes) <= most  # instead of 5760
    assert reasons(controller).count("rival_autoscaler") > 4000
    said = "web: other autoscalers act on it: field manager keeper; refused until it is gone"
    assert caplog.text.count(said) == 1
    assert "no other autoscaler acts on it any more" not in caplog.text
    assert controller.statistics.foreign_edits <= most


def test_after_three_writes_it_gives_way():
    cluster = FakeCluster()
    Patcher(cluster, "keeper", 3)
    controller = controller_of(cluster)
    run(cluster, controller, 300.0)
    assert cluster.writes == [{"web": 8}] * 3
    assert reasons(controller)[:4] == ["forecast"] * 3 + ["rival_autoscaler"]
    assert set(reasons(controller)[3:]) == {"rival_autoscaler"}


def test_the_others_go_on():
    cluster = FakeCluster()
    Patcher(cluster, "keeper", 3)
    policy = ScriptedPolicy(lambda now, _: 4.0 + (now - START) // 60 % 3, history_seconds=0.0)
    controller = Controller(
        cluster, policy, make_settings(guard_rails={"scale_down_window": 0.0, "tolerance": 0.0})
    )
    run(cluster, controller, 600.0)
    assert sum("api" in write for write in cluster.writes) >= 8
    assert sum("web" in write for write in cluster.writes) <= 4


def test_two_patchers_are_both_named(caplog):
    cluster = FakeCluster()
    Patcher(cluster, "keeper", 3, period=20.0)
    Patcher(cluster, "gardener", 5, period=35.0)
    controller = controller_of(cluster)
    with caplog.at_level(logging.WARNING):
        run(cluster, controller, 24 * HOUR)
    assert len(cluster.writes) <= 30
    said = caplog.text
    assert "field manager keeper, field manager gardener" in said or "gardener, field manager keeper" in said


def test_when_it_stops_the_next_try_stands_and_that_is_said(caplog):
    cluster = FakeCluster()
    Patcher(cluster, "keeper", 3, end=400.0)
    controller = controller_of(cluster)
    with caplog.at_level(logging.WARNING):
        run(cluster, controller, 390.0)
        assert cluster.replicas["web"] == 3
        run(cluster, controller, 700.0)
        assert cluster.replicas["web"] == 8 and reasons(controller)[-1] == "unchanged"
        assert "no other autoscaler" not in caplog.text  # it may only be slow
        run(cluster, controller, HOUR)
    assert "web: no other autoscaler acts on it any more" in caplog.text
    writes = len(cluster.writes)
    Patcher(cluster, "keeper", 3, start=cluster.clock - START)
    run(cluster, controller, 60.0)
    assert len(cluster.writes) == writes + 2  # it starts anew: the write that stood is the first to be undone


def test_a_write_that_conflicts_again_and_again_is_a_round_too(caplog):
    cluster = FakeCluster(refuse={"web": "conflict: somebody changed it since it was read"})
    Patcher(cluster, "keeper", 3, 5, period=15.0)
    controller = controller_of(cluster)
    with caplog.at_level(logging.WARNING):
        run(cluster, controller, 300.0)
    assert len(cluster.writes) <= 4 and "field manager keeper" in caplog.text


def test_a_pause_that_conflicts_is_no_round():
    cluster = FakeCluster(refuse={"web": "conflict: its annotations changed"})
    controller = controller_of(cluster)
    run(cluster, controller, HOUR)
    assert "rival_autoscaler" not in reasons(controller)


def test_whoever_wants_the_same_is_no_rival():
    cluster = FakeCluster()
    Patcher(cluster, "keeper", 8)
    controller = controller_of(cluster)
    run(cluster, controller, HOUR)
    assert cluster.writes == [{"web": 8}] and "rival_autoscaler" not in reasons(controller)


def test_a_clock_that_is_set_back_doesnt_prolong_the_pause():
    cluster = FakeCluster()
    Patcher(cluster, "keeper", 3, end=100.0)
    controller = controller_of(cluster)
    run(cluster, controller, 120.0)
    cluster.clock -= HOUR
    run(cluster, controller, 60.0)
    assert cluster.replicas["web"] == 8


def test_a_standby_counts_nothing():
    cluster = FakeCluster()
    leading = [True]
    policy = ScriptedPolicy(lambda *_: 8.0, history_seconds=0.0)
    controller = Controller(cluster, policy, make_settings(), leading=lambda: leading[0])
    controller.tick()
    leading[0] = False
    for replicas in range(10, 20):  # the leader's writes
        controller.tick()
        cluster.sleep_until(cluster.clock + 15.0)
        cluster.replicas["web"] = replicas
    assert "rival_autoscaler" not in reasons(controller)
