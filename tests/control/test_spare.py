"""Room on nodes: what the upper scenarios need beyond what is there, and when it is asked for."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings
from helpers.moments import START

from deepscaler.cluster import Autoscaler
from deepscaler.control.controller import Controller
from deepscaler.control.spare import EVERY_SECONDS, LIFE_SECONDS, WINDOW_SECONDS, foreseen
from deepscaler.policies.outlook import Outlook

RAILS = {"scale_down_window": 0.0, "max_step_up": 99, "max_step_down": 99, "max_replicas": 9}
TICK = 15.0


@dataclass
class Prophet(ScriptedPolicy):
    """Wants what the script says, and foresees bands of replicas for web: `upper` by time since the start."""

    upper: dict[float, float] = field(default_factory=dict)
    history_seconds: float = 0.0

    def outlook(self):
        made = self.seen[-1].now
        high = np.array([self.upper.get(made - START + TICK * (row + 1), 2.0) for row in range(40)])
        band = np.stack([high - 1, high, high], axis=1)
        return Outlook(made=made, step=TICK, replicas={"web": band})


def peak(start, until, height=7.0):
    """What a peak needs, by time since the start."""
    return {float(second): height for second in np.arange(start, until, TICK)}


def run(upper, seconds, wish=lambda _now, _service: 2.0, cluster=None, leading=lambda: True, **scale):
    """The cluster that was asked, and the controller, after so many seconds."""
    cluster = cluster or FakeCluster(("web", "db"), replicas={"web": 2, "db": 2})
    scale = {"guard_rails": RAILS, "capacity_buffer": {"enabled": True}, **scale}
    settings = make_settings(("web", "db"), **scale)
    controller = Controller(cluster, Prophet(wish, upper=upper), settings, leading=leading)
    controller.run(seconds)
    return cluster, controller


def asked(cluster):
    """Time since the start -> pods of web that room was asked for."""
    return {until - LIFE_SECONDS - START: spare.get("web") for spare, until in cluster.reserved}


def test_foreseen_is_the_highest_upper_edge_within_the_horizon():
    band = np.array([[1, 2, 3.0], [1, 2, 5.2], [1, 2, 9.0]])
    outlook = Outlook(made=100.0, step=60.0, replicas={"web": band, "db": band * np.nan})
    assert foreseen(outlook, 100.0, 120.0) == {"web": 6} and foreseen(outlook, 100.0, 600.0) == {"web": 9}
    assert foreseen(outlook, 100.0, 1.0) == {"web": 3}
    assert foreseen(outlook, 160.0, 600.0) == {}  # nothing was foreseen at this tick
    assert foreseen(Outlook(), 0.0, 600.0) == {}


def test_room_is_asked_for_before_the_peak_and_no_more_once_its_pods_are_there():
    def wish(now, service):
        return 7.0 if service == "web" and 840.0 <= now - START < 1200.0 else 2.0

    cluster, _ = run(peak(900.0, 1200.0), 1800.0, wish)
    found = asked(cluster)
    assert len(found) == 1800.0 / EVERY_SECONDS  # once a minute, whatever changes
    assert [time for time, pods in found.items() if pods] == list(np.arange(300.0, 840.0, EVERY_SECONDS))
    assert set(found.values()) == {0, 5}  # seven may be needed, two are there


def test_the_horizon_is_as_far_as_it_is_set():
    cluster, _ = run(peak(900.0, 1200.0), 900.0, capacity_buffer={"enabled": True, "horizon": 120.0})
    assert next(time for time, pods in asked(cluster).items() if pods) == 780.0


def test_a_forecast_that_wavers_changes_nothing():
    wavering = {TICK * row: 5.0 + (row % 3 == 0) for row in range(400)}
    cluster, _ = run(wavering, 3600.0, capacity_buffer={"enabled": True, "horizon": TICK})
    assert set(asked(cluster).values()) == {3, 4} and list(asked(cluster).values())[2:] == [4] * 58
    falling = peak(0.0, 900.0)
    cluster, _ = run(falling, 1800.0, capacity_buffer={"enabled": True, "horizon": TICK})
    last = max(time for time, pods in asked(cluster).items() if pods)
    assert 900.0 < last <= 900.0 + WINDOW_SECONDS


@pytest.mark.parametrize(
    ("scale", "pods"),
    [
        ({}, 9 - 2),  # `max_replicas`
        ({"guard_rails": {**RAILS, "per_service": {"web": (1, 4)}}}, 4 - 2),
        ({"capacity_buffer": {"enabled": True, "most": 3}}, 3),
    ],
)
def test_it_ends_at_the_bounds(scale, pods):
    assert asked(run(peak(0.0, 900.0, 50.0), TICK, **scale)[0]) == {0.0: pods}


def test_beside_an_hpa_it_ends_at_the_hpas_maximum():
    class Advised(FakeCluster):
        def workloads(self):
            from dataclasses import replace

            hpa = Autoscaler("web", 1, 6)
            names = ("HorizontalPodAutoscaler/web",)
            return [replace(item, hpas=(hpa,), autoscalers=names) for item in super().workloads()]

    cluster = Advised(("web", "db"), replicas={"web": 2, "db": 2})
    run(peak(0.0, 900.0, 50.0), TICK, cluster=cluster, mode="advise")
    assert asked(cluster) == {0.0: 4}


def test_in_doubt_no_room_is_asked_for():
    def wish(now, _service):
        return 2.0 if now < START + 60.0 else float("nan")

    assert asked(run(peak(0.0, 3600.0), 120.0, wish)[0]) == {0.0: 5, 60.0: 0}
    paused = {**RAILS, "paused": ["web"]}
    assert asked(run(peak(0.0, 3600.0), 15.0, guard_rails=paused)[0]) == {0.0: 0}


@pytest.mark.parametrize("kind", ["shadow", "off", "standby"])
def test_nothing_is_asked_in_the_shadow_on_standby_or_without_the_wish(kind):
    scale = {"off": {"capacity_buffer": {"enabled": False}}, "shadow": {"mode": "shadow"}}.get(kind, {})
    cluster, controller = run(peak(0.0, 900.0), 120.0, leading=lambda: kind != "standby", **scale)
    controller.end()
    assert cluster.reserved == []


def test_a_service_in_the_shadow_is_not_named_and_an_end_takes_all_back():
    cluster, controller = run(peak(0.0, 900.0), 15.0, modes={"web": "shadow"})
    assert cluster.reserved == [({"db": 0}, START + LIFE_SECONDS)]
    controller.end()
    assert cluster.reserved[1][0] == {}
