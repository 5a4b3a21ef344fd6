"""Ticks, windows and restarts while somebody sets the wall clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from helpers.fakes import START, FakeCluster, ScriptedPolicy, make_settings

from deepscaler.control.controller import Controller
from deepscaler.control.recorder import Recorder
from deepscaler.control.self_metrics import exposition
from deepscaler.control.watch import Watch
from deepscaler.upstream import Upstream

pytestmark = pytest.mark.stress
HOUR, DAY = 3600.0, 86_400.0
JUMPS: dict[str, Mapping[float, float]] = {
    "never set": {},
    "back an hour": {60.0: -HOUR},
    "forward a day": {60.0: DAY},
    "back and forth": {30.0: -HOUR, 90.0: HOUR, 150.0: -DAY},
    "small drift": {15.0 * k: 0.2 for k in range(1, 20)},
}
"""What happens to the wall clock -> seconds of the steady clock -> by how much it is set."""


def jumping(cluster: FakeCluster, jumps: Mapping[float, float]) -> None:
    """Set the wall clock of the cluster when its steady clock comes by these moments."""
    left = dict(jumps)

    def hook(_now: float) -> None:
        for moment in [moment for moment in left if cluster.steady() >= START + moment]:
            cluster.jump(left.pop(moment))

    cluster.hooks.append(hook)


def wants(replicas: float) -> ScriptedPolicy:
    return ScriptedPolicy(lambda _now, _service: replicas)


@pytest.mark.parametrize("jumps", JUMPS)
def test_ticks_go_on_at_their_pace_whatever_happens_to_the_clock(
    jumps: str, caplog: pytest.LogCaptureFixture
) -> None:
    cluster, steady = FakeCluster(), []
    jumping(cluster, JUMPS[jumps])
    policy = ScriptedPolicy(lambda _now, _service: steady.append(cluster.steady() - START) or 4.0)
    settings = make_settings(("web",))
    controller = Controller(cluster, policy, settings)
    watch = Watch(controller, settings)
    controller.run(300.0)
    assert steady == pytest.approx([15.0 * tick for tick in range(20)])
    assert cluster.steady() == pytest.approx(START + 300.0) and controller.healthy()
    big = [seconds for seconds in JUMPS[jumps].values() if abs(seconds) > 5]
    assert controller.statistics.clock_jumps == len(big)
    assert f"deepscaler_clock_jumps_total {len(big)}.0\n" in exposition(watch).decode()
    for seconds in big:
        way = "forward" if seconds > 0 else "back"
        assert f"the clock was set {way} by {abs(seconds):.0f} s; ticks go on at their pace" in caplog.text


def test_after_a_suspension_the_next_tick_comes_at_once_and_none_is_made_up_for() -> None:
    cluster, ticks = FakeCluster(), []

    def suspended(now: float, _service: str) -> float:
        ticks.append(now - START)
        cluster.clock += 1000.0 if now == START + 30 else 0.0  # both clocks count on meanwhile
        return 4.0

    controller = Controller(cluster, ScriptedPolicy(suspended), make_settings(("web",)))
    controller.run(1080.0)
    assert ticks == [0, 15, 30, 1035, 1050, 1065] and controller.statistics.clock_jumps == 0


@pytest.mark.parametrize("jumps", JUMPS)
def test_the_stabilization_window_lasts_as_long_as_it_says(jumps: str) -> None:
    cluster = FakeCluster(replicas={"web": 6})
    jumping(cluster, JUMPS[jumps])
    lowered: list[float] = []
    scale = cluster.scale

    def noted(targets: Mapping[str, int]) -> object:
        lowered.append(cluster.steady() - START)
        return scale(targets)

    cluster.scale = noted  # type: ignore[method-assign, assignment]
    settings = make_settings(("web",), guard_rails={"scale_down_window": 120.0})
    Controller(cluster, wants(2.0), settings).run(300.0)
    assert lowered == pytest.approx([120.0]) and cluster.replicas["web"] == 2


@pytest.mark.parametrize("back", [0.0, HOUR, DAY])
def test_decisions_from_the_future_are_left_out_and_that_is_said(
    back: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(("web",), guard_rails={"scale_down_window": 120.0})
    cluster = FakeCluster()
    Controller(cluster, wants(8.0), settings, Recorder(tmp_path)).run(60.0)
    cluster.jump(-back)
    again = Controller(cluster, wants(3.0), settings, Recorder(tmp_path))
    again.tick()
    cluster.sleep_until(cluster.steady() + 121.0)
    row = again.tick()[0]
    told = "4 earlier decisions are of the future, up to 2026-01-05T00:00:45Z: left out" in caplog.text
    assert told == (back > 0)
    assert row.reason == "forecast" and cluster.replicas["web"] == 3
    assert row.time == pytest.approx(START + 60.0 - back + 121.0)


@pytest.mark.parametrize(
    ("behind", "reason", "replicas"),
    [(0.0, "forecast", 2), (50.0, "forecast", 2), (90.0, "held_trouble", 4), (HOUR, "held_stale", 4)],
)
def test_old_samples_arent_taken_for_new_ones_by_a_clock_that_is_behind(
    behind: float, reason: str, replicas: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = Upstream()
    cluster = FakeCluster(replicas={"web": 4}, upstreams={"prometheus": store})
    settings = make_settings(("web",), guard_rails={"scale_down_window": 0.0})
    controller = Controller(cluster, wants(4.0), settings)
    watch = Watch(controller, settings)
    controller.tick()
    cluster.jump(-behind)
    store.clock_ahead = behind
    controller.policy = wants(2.0)
    for _ in range(3):
        cluster.sleep_until(cluster.steady() + 15.0)
        row = controller.tick()[0]
    assert row.reason == (reason if replicas == 4 else "unchanged") and cluster.replicas["web"] == replicas
    told = [line.message for line in caplog.records if "this machine's clock is" in line.message]
    assert len(told) == (behind > 15.0)
    assert all(f"{behind:.0f} s behind that of Prometheus" in text for text in told)
    assert f'upstream_clock_ahead_seconds{{source="prometheus"}} {behind}' in exposition(watch).decode()
    cluster.jump(behind)
    store.clock_ahead = 0.0
    cluster.sleep_until(cluster.steady() + 15.0)
    controller.tick()
    assert cluster.replicas["web"] == 2


@pytest.mark.parametrize(
    ("date", "ahead"),
    [
        ("Mon, 05 Jan 2026 00:00:00 GMT", True),
        ("Mon, 05 Jan 2026 01:00:00 +0100", True),
        *((text, False) for text in (None, "", "now", "Mon, 45 Jan 2026 00:00:00 GMT", "1 Jan 99999 0:0:0")),
    ],
)
def test_the_clock_of_a_server_is_read_from_its_answers(date: str | None, ahead: bool) -> None:
    store, now = Upstream(), time.time()
    store.answered(200, date)
    known = store.clock_ahead is not None
    assert known == ahead and (not known or abs(store.clock_ahead - (START - now)) < 5.0)
