"""The controller: its loop, and what it does when the world misbehaves (the cases of docs/failures.md)."""

import logging
import math
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.fakes import START, FakeCluster, ScriptedPolicy, make_settings
from helpers.paths import ROOT
from hypothesis import given
from hypothesis import strategies as st

from deepscaler.control.controller import Controller
from deepscaler.control.guard_rails import PAUSE_ANNOTATION
from deepscaler.control.quality import DropWatch, assess, error_share, fill_forward
from deepscaler.control.recorder import DecisionRow, Recorder
from deepscaler.errors import ClusterError, MetricsError
from deepscaler.panel import MetricPanel
from deepscaler.policies.base import Proposal, Reason
from deepscaler.policies.hpa.policy import HpaPolicy
from deepscaler.runs import DECISION_COLUMNS, POD_COLUMNS

NAN = float("nan")


def always(value: float | None):
    return ScriptedPolicy(lambda _now, _service: value)


def controller_of(
    cluster: FakeCluster, policy: ScriptedPolicy, recorder: Recorder | None = None, **scale: object
) -> Controller:
    return Controller(cluster, policy, make_settings(cluster.names, **scale), recorder)


def last(controller: Controller, service: str = "web") -> pd.Series:
    rows = controller.decisions()
    return rows[rows["service"] == service].iloc[-1]


def reasons(controller: Controller, service: str = "web") -> list[str]:
    rows = controller.decisions()
    return list(rows.loc[rows["service"] == service, "reason"])


# --------------------------------------------------------------------------------------------------- the loop
def test_a_tick_writes_only_what_differs_in_one_pass_and_records_a_row_a_service():
    cluster = FakeCluster()
    policy = ScriptedPolicy(lambda _now, service: {"web": 6.4, "api": 4.0, "db": 5.0}[service])
    controller = controller_of(cluster, policy)
    rows = controller.tick()
    assert cluster.writes == [{"web": 7, "db": 5}]
    assert rows[0] == DecisionRow(START, "web", 4, 4, 6.4, None, 7, 7, "forecast", "act")
    assert rows[1] == DecisionRow(START, "api", 4, 4, 4.0, None, 4, None, "unchanged", "act")
    assert tuple(controller.decisions().columns) == DECISION_COLUMNS
    assert len(controller.decision_seconds) == 1
    assert 0 < controller.decision_seconds[0] < 5


def test_a_policy_is_told_the_time_and_that_of_a_clock_that_is_never_set():
    cluster, policy = FakeCluster(), always(4.0)
    controller = controller_of(cluster, policy)
    for jump in (0.0, -3600.0, 7200.0):
        cluster.jump(jump)
        controller.tick()
    told = [(seen.now, seen.steady) for seen in policy.seen]
    assert told == [(START, START), (START - 3600, START), (START + 3600, START)]


def test_a_policy_that_asks_for_weeks_of_the_load_is_told_them_and_others_cost_nothing():
    cluster, seen = FakeCluster(), []
    cluster.load = lambda moment: moment % 7
    policy = ScriptedPolicy(always(4.0))
    policy.decide = lambda observation: seen.append(observation.load) or {}
    controller_of(cluster, policy).tick()
    policy.load_seconds = 3600.0
    controller_of(cluster, policy).tick()
    assert seen[0] is None and len(seen[1].load) == 60
    assert np.isfinite(seen[1].load).all() and seen[1].end == START // 60 * 60


def test_ticks_come_each_period_and_the_run_lasts_its_duration():
    cluster, policy = FakeCluster(), always(4.0)
    controller = controller_of(cluster, policy)
    controller.run(60.0)
    assert [observation.now - START for observation in policy.seen] == [0, 15, 30, 45]
    assert cluster.now() == START + 60
    controller.run(30.0)
    assert [observation.now - START for observation in policy.seen][4:] == [60, 75]


def test_ticks_that_took_too_long_are_not_made_up_for():
    cluster = FakeCluster()

    def slow(now: float, _service: str) -> float:
        cluster.clock = now + (40 if now == START else 0)
        return 4.0

    policy = ScriptedPolicy(slow)
    controller_of(cluster, policy).run(90.0)
    assert [observation.now - START for observation in policy.seen] == [0, 45, 60, 75]


def test_pods_are_recorded_each_base_step_whatever_the_policys_period():
    cluster, policy = FakeCluster(unready={"web": 1}), always(4.0)
    policy.period_seconds = 40.0
    controller = controller_of(cluster, policy)
    controller.run(60.0)
    rows = controller.recorder.pods()
    assert tuple(rows.columns) == POD_COLUMNS
    assert list(rows.loc[rows["service"] == "web", "time"] - START) == [0, 15, 30, 40, 45]
    assert rows.iloc[0].tolist() == [START, "web", 4, 1, 3]
    assert len(controller.decisions()) == 6


def test_a_cluster_that_keeps_the_history_of_its_pods_is_not_sampled():
    cluster = FakeCluster()
    cluster.pod_history = lambda start, end: pd.DataFrame(columns=POD_COLUMNS)  # type: ignore[method-assign]
    controller = controller_of(cluster, always(4.0))
    controller.run(60.0)
    assert controller.recorder.pods().empty


def test_the_policy_gets_the_history_it_asks_for_up_to_now():
    policy = always(4.0)
    policy.history_seconds = 4800.0
    controller_of(FakeCluster(), policy).tick()
    times = policy.seen[0].panel.times
    assert times[-1] == START
    assert len(times) == 320
    assert np.diff(times) == pytest.approx(15.0)


def test_a_policy_without_history_asks_for_no_metrics_and_is_not_held():
    cluster, policy = FakeCluster(metrics_down=(0, np.inf)), always(6.0)
    policy.history_seconds, policy.guarded = 0.0, False
    controller = controller_of(cluster, policy)
    controller.tick()
    assert last(controller)["target"] == 6
    assert controller.statistics.metrics_failures == 0


def test_services_that_are_not_scaled_are_observed_only():
    settings = make_settings(["web", "api", "db"])
    app = settings.app.model_copy(
        update={
            "services": {
                **settings.app.services,
                "db": settings.app.services["db"].model_copy(update={"scaled": False}),
            }
        }
    )
    cluster = FakeCluster()
    controller = Controller(cluster, always(6.0), settings.model_copy(update={"app": app}))
    controller.tick()
    assert cluster.writes == [{"web": 6, "api": 6}]
    assert list(controller.decisions()["service"]) == ["web", "api"]
    assert list(controller.recorder.pods()["service"]) == ["web", "api", "db"]


def test_once_raises_what_fails():
    with pytest.raises(ClusterError, match="401"):
        controller_of(FakeCluster(api_down=(0, np.inf)), always(6.0)).run(once=True)


# -------------------------------------------------------------------------------------------- metrics missing
def test_prometheus_down_holds_everything_says_so_and_goes_on(caplog):
    cluster, policy = FakeCluster(metrics_down=(START, START + 60)), always(1.0)
    controller = controller_of(cluster, policy, guard_rails={"scale_down_window": 0.0})
    controller.run(60.0)
    assert cluster.writes == []
    assert policy.seen == []
    assert set(reasons(controller)) == {"held_missing"}
    assert controller.statistics.metrics_failures == 4
    assert controller.statistics.held == 12
    assert controller.failed_ticks == 0
    assert (
        sum("stays at 4 (held_missing)" in message for message in caplog.messages) == 3
    )  # once a service, not once a tick


def test_only_the_service_without_metrics_is_held():
    cluster = FakeCluster(values={("api", "req"): NAN})
    controller = controller_of(cluster, always(6.0))
    controller.tick()
    assert cluster.writes == [{"web": 6, "db": 6}]
    assert last(controller, "api")[["target", "reason"]].tolist() == [4, "held_missing"]


@pytest.mark.parametrize("feature", ["pod", "cpu", "res", "req"])
def test_a_needed_feature_gone_stale_holds_after_the_limit_and_not_before(feature):
    since = START + 30
    cluster = FakeCluster(values={("api", feature): lambda time: NAN if time > since else 1.0})
    controller = controller_of(
        cluster, ScriptedPolicy(lambda now, _service: 6.0 if now > START + 160 else 4.0), stale_after=120.0
    )
    controller.run(185.0)
    rows = controller.decisions().query("service == 'api'")
    held = rows[rows["reason"] == "held_stale"]["time"] - START
    assert list(held) == [165, 180]
    assert cluster.replicas == {"web": 6, "api": 4, "db": 6}


def test_memory_is_not_needed_unless_the_model_reads_it():
    cluster = FakeCluster(values={("api", "mem"): NAN})
    controller_of(cluster, always(6.0)).tick()
    assert cluster.replicas["api"] == 6


def test_a_service_without_traffic_has_fresh_data():
    cluster = FakeCluster(values={("api", "req"): 0.0, ("api", "res"): NAN})
    controller = controller_of(cluster, always(2.0), guard_rails={"scale_down_window": 0.0})
    controller.tick()
    assert last(controller, "api")[["target", "reason"]].tolist() == [2, "forecast"]


def test_replicas_recover_within_the_window_when_metrics_come_back():
    window = 120.0
    cluster = FakeCluster(metrics_down=(START + 60, START + 600))
    controller = controller_of(
        cluster, always(2.0), guard_rails={"scale_down_window": window}, fill_samples=0
    )
    controller.run(900.0)
    rows = controller.decisions().query("service == 'web'")
    lowered = float(rows.loc[rows["target"] == 2, "time"].iloc[0]) - START
    assert 600 < lowered <= 600 + window + 15


def test_a_held_service_whose_pods_burn_is_raised_by_their_usage():
    cluster = FakeCluster(metrics_down=(START, np.inf), usage={"web": 1.5, "api": 0.1})
    controller = controller_of(cluster, always(1.0), floor={"rho_max": 0.75})
    controller.tick()
    assert cluster.writes == [{"web": 8}]  # 4 pods x 1.5 cores / (0.75 x 1 core)
    assert last(controller)[["floor", "target", "reason"]].tolist() == [8, 8, "floor"]
    assert last(controller, "api")["reason"] == "held_missing"


def test_a_held_service_is_not_raised_by_usage_without_the_floor():
    cluster = FakeCluster(metrics_down=(START, np.inf), usage={"web": 1.5})
    controller_of(cluster, always(1.0), floor={"enabled": False}).tick()
    assert cluster.writes == []


def test_a_policy_that_cannot_decide_holds():
    class Blind(ScriptedPolicy):
        def decide(self, observation):
            raise MetricsError("window too short")

    cluster = FakeCluster()
    controller = controller_of(cluster, Blind(lambda _now, _service: None))
    controller.run(30.0)
    assert set(reasons(controller)) == {"held_missing"}
    assert controller.statistics.metrics_failures == 2


def test_a_forecast_that_is_not_finite_holds():
    cluster = FakeCluster()
    controller = controller_of(
        cluster, ScriptedPolicy(lambda _now, service: NAN if service == "web" else 6.0)
    )
    row = controller.tick()[0]
    assert (row.target, row.predicted, row.reason) == (4, None, "held_missing")
    assert cluster.writes == [{"api": 6, "db": 6}]


def test_a_service_that_the_policy_says_nothing_of_is_held():
    class Partial(ScriptedPolicy):
        def decide(self, observation):
            return {"web": Proposal(6.0, Reason.FORECAST)}

    controller = controller_of(FakeCluster(), Partial(lambda _now, _service: None))
    controller.tick()
    assert last(controller, "db")[["target", "reason"]].tolist() == [4, "unknown_service"]


# -------------------------------------------------------------------------------- drops that can't be trusted
def outage(cluster: FakeCluster, begin: float, end: float) -> None:
    """`db` fails from `begin` to `end`: its callers lose most of their traffic."""
    for name in cluster.names:
        cluster.values[name, "req"] = lambda time: 1.0 if begin < time <= end else 10.0


def follow_traffic(now: float, _service: str, cluster: FakeCluster) -> float:
    value = cluster.values["web", "req"]
    return max(float(value(now)) * 0.4, 1.0) if callable(value) else 4.0


@pytest.mark.parametrize(("share", "lowered"), [(0.5, False), (0.0, True)])
def test_a_drop_that_comes_with_errors_is_no_reason_to_scale_down(share, lowered):
    cluster = FakeCluster()
    outage(cluster, START + 60, START + 1500)
    cluster.failed_share = lambda time: share if START + 60 < time <= START + 1500 else 0.0
    policy = ScriptedPolicy(lambda now, service: follow_traffic(now, service, cluster))
    controller = controller_of(cluster, policy, guard_rails={"scale_down_window": 60.0})
    controller.run(1500.0)  # far longer than what counts as "before": the memory of the drop lasts
    assert (cluster.replicas["web"] == 1) == lowered
    assert ("held_trouble" in reasons(controller)) != lowered


def test_scale_downs_go_on_when_the_errors_are_over():
    cluster = FakeCluster()
    outage(cluster, START + 60, START + 10_000)
    cluster.failed_share = lambda time: 0.5 if START + 60 < time <= START + 600 else 0.0
    policy = ScriptedPolicy(lambda now, service: follow_traffic(now, service, cluster))
    controller = controller_of(cluster, policy, guard_rails={"scale_down_window": 60.0})
    controller.run(590.0)
    assert cluster.replicas["web"] == 4
    controller.run(190.0)
    assert cluster.replicas["web"] == 1


def test_a_drop_that_comes_with_lost_metrics_of_another_service_is_no_reason_to_scale_down():
    cluster = FakeCluster()
    outage(cluster, START + 60, START + 10_000)
    cluster.values["db", "req"] = lambda time: NAN if time > START + 60 else 10.0
    policy = ScriptedPolicy(lambda now, service: 1.0 if service == "web" and now > START + 60 else 4.0)
    controller = controller_of(cluster, policy, guard_rails={"scale_down_window": 120.0})
    controller.run(360.0)
    assert cluster.replicas["web"] == 4
    assert "held_trouble" in reasons(controller)


def test_a_service_whose_newest_samples_are_missing_is_not_scaled_down_but_up():
    cluster = FakeCluster(
        values={(name, "cpu"): lambda time: NAN if time > START - 75 else 0.5 for name in ("web", "api")}
    )
    controller = controller_of(
        cluster,
        ScriptedPolicy(lambda _now, service: 6.0 if service == "web" else 2.0),
        guard_rails={"scale_down_window": 0.0},
    )
    controller.tick()
    assert cluster.writes == [{"web": 6, "db": 2}]
    assert last(controller, "api")["reason"] == "held_trouble"


def test_an_ordinary_drop_is_followed():
    cluster = FakeCluster()
    outage(cluster, START + 60, START + 10_000)
    policy = ScriptedPolicy(lambda now, service: follow_traffic(now, service, cluster))
    controller = controller_of(cluster, policy, guard_rails={"scale_down_window": 60.0})
    controller.run(300.0)
    assert cluster.replicas["web"] == 1


# ------------------------------------------------------------------------------------- the cluster misbehaves
def test_an_api_that_cannot_be_read_fails_ticks_and_the_loop_goes_on(caplog):
    cluster = FakeCluster(api_down=(START + 15, START + 45))
    controller = controller_of(cluster, always(6.0))
    controller.run(60.0)
    assert controller.failed_ticks == 2
    assert controller.statistics.ticks == 2
    assert "needs get deployments" in caplog.text


def test_a_bug_ends_an_experiment_and_not_a_live_run(caplog):
    def broken(_now: float, _service: str) -> float:
        raise ZeroDivisionError("bug")

    with pytest.raises(ZeroDivisionError):
        controller_of(FakeCluster(), ScriptedPolicy(broken)).run(30.0)
    controller = Controller(FakeCluster(), ScriptedPolicy(broken), make_settings(), survive_bugs=True)
    controller.run(30.0)
    assert controller.failed_ticks == 2
    assert "ZeroDivisionError" in caplog.text


def test_a_refused_write_is_recorded_and_tried_again_while_the_others_go_on(caplog):
    cluster = FakeCluster(refuse={"api": "HTTP 403 Forbidden: needs patch deployments/scale"})
    controller = controller_of(cluster, always(6.0))
    controller.tick()
    assert cluster.replicas == {"web": 6, "api": 4, "db": 6}
    row = last(controller, "api")
    assert row["reason"] == "write_failed"
    assert (row["target"], math.isnan(row["applied"])) == (6, True)
    assert last(controller, "web")["applied"] == 6
    assert controller.statistics.failed_writes == 1
    assert "403" in caplog.text
    cluster.refuse.clear()
    cluster.sleep_until(START + 15)
    controller.tick()
    assert cluster.writes[1:] == [{"api": 6}]


def test_a_pass_that_fails_as_a_whole_is_recorded_too():
    class Gone(FakeCluster):
        def scale(self, targets):
            raise ClusterError("no way to the API")

    controller = controller_of(Gone(), always(6.0))
    controller.tick()
    assert reasons(controller) == ["write_failed"]
    assert controller.statistics.failed_writes == 3


def test_replicas_edited_between_read_and_write_stand_until_the_next_tick_and_are_logged(caplog):
    cluster = FakeCluster(refuse={"web": "HTTP 409 Conflict: the object has been modified"})
    controller = controller_of(cluster, always(6.0))
    controller.tick()
    cluster.replicas["web"] = 9
    assert last(controller)["reason"] == "conflict"
    cluster.refuse.clear()
    cluster.sleep_until(START + 15)
    controller.tick()
    assert last(controller)[["current", "target"]].tolist() == [9, 6]
    cluster.replicas["api"] = 2
    cluster.sleep_until(START + 30)
    controller.tick()
    assert "api: somebody set 2 replicas; this controller left it at 6" in caplog.text
    assert controller.statistics.foreign_edits == 1


def test_pods_that_are_not_ready_are_no_reason_to_add_more():
    cluster = FakeCluster(replicas={"web": 4}, unready={"web": 3})
    controller = controller_of(cluster, always(6.0))
    controller.run(60.0)
    assert cluster.writes == [{"web": 6, "api": 6, "db": 6}]
    assert list(controller.decisions().query("service == 'web'")["ready"]) == [1, 3, 3, 3]


# -------------------------------------------------------------------------- owners, rivals, dry run and quota
def test_a_rival_autoscaler_is_refused_by_name_when_acting_whenever_it_appears(caplog):
    cluster = FakeCluster(autoscalers={"web": ("HorizontalPodAutoscaler/web",)})
    controller = controller_of(cluster, always(6.0))
    controller.tick()
    assert cluster.writes == [{"api": 6, "db": 6}]
    assert last(controller)["reason"] == "rival_autoscaler"
    assert (
        "web: other autoscalers act on it: HorizontalPodAutoscaler/web; refused until it is gone"
        in caplog.text
    )
    cluster.autoscalers = {"api": ("ScaledObject/api",)}
    cluster.sleep_until(START + 15)
    controller.tick()
    assert last(controller)["target"] == 6
    assert last(controller, "api")["reason"] == "rival_autoscaler"
    assert "web: no other autoscaler acts on it any more" in caplog.text


def test_a_dry_run_writes_nothing_and_compares_with_the_incumbent():
    cluster = FakeCluster(replicas={"web": 50}, autoscalers={"web": ("HorizontalPodAutoscaler/web",)})
    controller = controller_of(
        cluster, always(6.0), dry_run=True, guard_rails={"scale_down_window": 0.0, "max_step_down": 99}
    )
    controller.run(60.0)
    assert cluster.writes == []
    assert last(controller)[["current", "target", "mode"]].tolist() == [50, 6, "dry_run"]
    assert controller.decisions()["applied"].isna().all()
    info = controller.describe(7, START)
    assert info["incumbents"] == {"web": ["HorizontalPodAutoscaler/web"]}
    assert info["mode"] == "dry_run"


def test_a_dry_run_that_finds_replicas_out_of_bounds_writes_nothing_either():
    cluster = FakeCluster(replicas={"web": 50, "api": 1}, metrics_down=(0, np.inf))
    controller_of(
        cluster, always(6.0), dry_run=True, guard_rails={"min_replicas": 2, "max_replicas": 30}
    ).run(60.0)
    assert cluster.writes == []


def test_zero_is_respected_and_its_missing_metrics_are_nobodys_trouble():
    cluster = FakeCluster(values={("db", feature): NAN for feature in ("pod", "cpu", "res", "req")})
    cluster.replicas["db"] = 0
    controller = controller_of(cluster, always(6.0))
    controller.run(30.0)
    assert cluster.writes == [{"web": 6, "api": 6}]
    assert last(controller, "db")[["current", "target", "reason"]].tolist() == [0, 0, "scaled_to_zero"]
    assert controller.statistics.held == 0


def test_an_owner_pauses_by_annotation_and_takes_it_back():
    cluster = FakeCluster(annotations={"web": {PAUSE_ANNOTATION: "true"}})
    controller = controller_of(cluster, always(6.0))
    controller.tick()
    assert last(controller)[["target", "reason"]].tolist() == [4, "paused"]
    cluster.annotations.clear()
    cluster.sleep_until(START + 15)
    controller.tick()
    assert cluster.replicas["web"] == 6


def test_a_plan_beyond_the_quota_is_cut_before_anything_is_written():
    cluster = FakeCluster()
    controller = controller_of(cluster, always(8.0), guard_rails={"quota_cores": 14.0})
    controller.tick()
    assert cluster.writes == [{"api": 5, "db": 5}]
    assert {last(controller, name)["reason"] for name in cluster.names} == {"quota"}


# --------------------------------------------------------------------------------------- restart and shutdown
def test_a_restarted_controller_goes_on_with_its_history_and_its_files(tmp_path):
    cluster = FakeCluster(replicas={"web": 8})
    wish = ScriptedPolicy(lambda now, _service: 8.0 if now < START + 60 else 2.0)
    rails = {"scale_down_window": 120.0}
    controller_of(cluster, wish, Recorder(tmp_path), guard_rails=rails).run(90.0)
    with (tmp_path / "decisions.csv").open("a") as handle:
        handle.write("2026-01-05T00:01")  # killed in the middle of a line
    again = controller_of(cluster, wish, Recorder(tmp_path), guard_rails=rails)
    again.run(120.0)
    rows = again.decisions().query("service == 'web'")
    assert list(rows["time"] - START) == [15 * index for index in range(14)]
    assert (
        float(rows.loc[rows["target"] == 2, "time"].iloc[0]) - START == 45 + 120
    )  # as if nothing had happened
    assert len(again.recorder.pods()) == 14 * 3


def test_without_history_the_first_scale_down_waits_a_whole_window():
    cluster = FakeCluster()
    controller = controller_of(cluster, always(2.0), guard_rails={"scale_down_window": 120.0})
    controller.run(300.0)
    rows = controller.decisions().query("service == 'web'")
    assert float(rows.loc[rows["target"] == 2, "time"].iloc[0]) - START == 120


def test_old_decisions_do_not_make_the_first_scale_down_after_a_pause_immediate(tmp_path):
    cluster = FakeCluster()
    controller_of(cluster, always(2.0), Recorder(tmp_path)).run(15.0)
    cluster.clock = START + 3600
    again = controller_of(cluster, always(2.0), Recorder(tmp_path))
    again.tick()
    assert last(again)[["target", "reason"]].tolist() == [4, "stabilized"]


def test_rows_on_disk_read_back_as_they_were(tmp_path):
    memory, disk = Recorder(), Recorder(tmp_path)
    rows = [
        DecisionRow(START + 0.125, "web", 4, 3, 1.25, None, 5, None, "forecast", "act"),
        DecisionRow(START, "db", 4, 3, None, 2.0, 5, 5, "floor", "act"),
    ]
    for recorder in (memory, disk):
        recorder.add_decisions(rows)
    pd.testing.assert_frame_equal(
        memory.decisions().astype(object), disk.decisions().astype(object), check_dtype=False
    )


def test_a_stop_ends_after_the_tick_under_way():
    stop = threading.Event()
    cluster = FakeCluster()

    def stopping(now: float, _service: str) -> float:
        if now >= START + 30:
            stop.set()
        return 6.0

    policy = ScriptedPolicy(stopping)
    controller = controller_of(cluster, policy)
    controller.run(stop=stop)
    assert [observation.now - START for observation in policy.seen] == [0, 15, 30]
    assert len(controller.decisions()) == 9


def test_a_stop_while_waiting_ends_within_a_second():
    stop = threading.Event()
    cluster = FakeCluster(hooks=[lambda now: stop.set() if now >= START + 20 else None])
    policy = always(4.0)
    policy.period_seconds = 60.0
    controller_of(cluster, policy).run(stop=stop)
    assert START + 20 <= cluster.now() <= START + 21


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_after_the_tick_with_exit_0(number):
    script = f"""
import os, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings
from deepscaler.control.controller import Controller
from deepscaler.control.live import stopping_on_signals

def wish(now, service):
    if service == "web":
        os.kill(os.getpid(), {int(number)})
    return 6.0

cluster = FakeCluster()
controller = Controller(cluster, ScriptedPolicy(wish), make_settings())
with stopping_on_signals() as stop:
    controller.run(stop=stop)
print(cluster.writes, len(controller.decisions()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[{'web': 6, 'api': 6, 'db': 6}] 3"


def test_a_run_describes_itself():
    controller = controller_of(FakeCluster(), always(6.0))
    controller.run(60.0)
    info = controller.describe(3, START)
    assert (info["policy"], info["family"], info["knob"]) == ("scripted", "scripted", None)
    assert info["start"] == "2026-01-05T00:00:00Z"
    assert info["limits"] == {"web": 1.0, "api": 1.0, "db": 1.0}
    assert info["sla"] == {"GET /": 0.2}
    assert info["counters"]["ticks"] == 4
    assert len(info["decision_seconds"]) == 4
    assert info["settings"]["app"]["name"] == "shop"


def test_run_json_keeps_what_the_policy_tells_of_itself():
    settings = make_settings()
    controller = Controller(
        FakeCluster(usage=dict.fromkeys(("web", "api", "db"), 0.5)), HpaPolicy(70, settings), settings
    )
    controller.tick()
    info = controller.describe(3, START)
    assert (info["policy"], info["family"], info["knob"]) == ("hpa_70", "hpa", 70.0)
    assert info["targets"] == dict.fromkeys(("web", "api", "db"), (70, 140))


# --------------------------------------------------------------------------------------------------- the gate
def panel_of(*columns: list[float], features: tuple[str, ...] = ("req", "res")) -> MetricPanel:
    values = np.array(columns, np.float32).T[:, None, :]
    return MetricPanel(START + 15.0 * np.arange(len(values)), ("web",), features, values)


@pytest.mark.parametrize(
    ("samples", "filled"),
    [
        (0, [NAN, 1, NAN, NAN, NAN, 5, NAN]),
        (1, [NAN, 1, 1, NAN, NAN, 5, 5]),
        (2, [NAN, 1, 1, 1, NAN, 5, 5]),
        (9, [NAN, 1, 1, 1, 1, 5, 5]),
    ],
)
def test_gaps_are_filled_forward_and_no_further_than_allowed(samples, filled):
    panel = panel_of([NAN, 1, NAN, NAN, NAN, 5, NAN], features=("cpu",))
    assert fill_forward(panel, samples).values[:, 0, 0].tolist() == pytest.approx(filled, nan_ok=True)


def test_the_response_of_a_service_without_traffic_is_no_gap():
    panel = panel_of([5, 0, NAN, 5], [0.1, NAN, NAN, NAN])
    filled = fill_forward(panel, 9).values[:, 0, 1]
    assert filled.tolist() == pytest.approx([0.1, NAN, NAN, 0.1], nan_ok=True)


@given(
    st.lists(st.one_of(st.just(NAN), st.floats(0, 10, width=32)), min_size=1, max_size=30), st.integers(0, 5)
)
def test_filling_changes_no_known_sample_and_only_repeats_known_ones(column, samples):
    filled = fill_forward(panel_of(column, features=("cpu",)), samples).values[:, 0, 0]
    known = np.isfinite(column)
    assert np.array_equal(filled[known], np.array(column, np.float32)[known])
    for row in np.flatnonzero(np.isfinite(filled) & ~known):
        assert filled[row] in filled[max(row - samples, 0) : row][known[max(row - samples, 0) : row]]


def test_the_age_is_that_of_the_feature_that_is_behind_most():
    panel = panel_of([1, 1, NAN, NAN], [0.1, NAN, NAN, NAN])
    assert assess(panel, ("req", "res"), START + 45, 0, 120.0).ages.tolist() == [45.0]
    assert assess(panel, ("req",), START + 50, 0, 120.0).ages.tolist() == [35.0]
    assert assess(panel, ("req", "res"), START + 500, 0, 120.0).held == {"web": Reason.HELD_STALE}
    assert assess(panel_of([NAN], [NAN]), ("req",), START, 0, 120.0).held == {"web": Reason.HELD_MISSING}


@pytest.mark.parametrize("fill", [0, 4])
@pytest.mark.parametrize(("behind", "agree"), [(0.4, True), (14.0, True), (15.0, True), (16.0, False)])
def test_clocks_that_differ_by_less_than_a_step_make_no_sample_doubtful(fill, behind, agree):
    panel = panel_of([1.0] * 20 + [NAN] * fill, [0.1] * (20 + fill))  # as many are missing as are filled
    found = assess(panel, ("req", "res"), float(panel.times[-1]), fill, 500.0, behind)
    assert found.doubtful == (frozenset() if agree else {"web"})


def test_the_error_share_is_unknown_where_nothing_ended():
    assert math.isnan(error_share(pd.DataFrame({"failed": [0.0], "done": [0.0]})))
    assert error_share(pd.DataFrame({"failed": [1.0, 1.0], "done": [3.0, 3.0]})) == 0.25


def test_a_watched_service_is_let_go_when_its_traffic_is_back():
    watch = DropWatch()
    low = panel_of([10.0] * 20 + [1.0] * 4, [0.1] * 24)
    assert watch.update(low, True) == {"web"}
    assert watch.update(panel_of([1.0] * 24, [0.1] * 24), True) == {"web"}  # long after, still below
    assert watch.update(panel_of([1.0] * 20 + [9.0] * 4, [0.1] * 24), True) == frozenset()
    assert watch.update(low, False) == frozenset()


@pytest.mark.stress
def test_each_write_each_tick_that_changes_something_and_each_mode_is_logged_once(caplog):
    wishes = {"web": 6.0, "api": 5.0, "db": 4.0}
    leads = [False, False, True, True, True, False]
    cluster = FakeCluster(refuse={"api": "403 Forbidden"})
    controller = Controller(
        cluster,
        ScriptedPolicy(lambda _now, service: wishes[service]),
        make_settings(),
        survive_bugs=True,
        leading=lambda: leads[0],
    )
    for _ in range(6):
        controller.tick()
        leads.pop(0)
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("notices")]
    failed = "api: not set to 5: 403 Forbidden"
    assert lines == [
        "mode: standby",
        "mode: act (before: standby)",
        "web: 4 -> 6 replicas (forecast)",
        failed,
        "tick: 1 of 3 services changed, 1 failed; 12 -> 14 replicas in all",
        *[failed, "tick: 0 of 3 services changed, 1 failed; 14 -> 14 replicas in all"] * 2,
        "mode: standby (before: act)",
    ]


@pytest.mark.field
@pytest.mark.parametrize(("wish", "target"), [(1.0, 4), (4.0, 4), (6.0, 6)])
def test_partial_metrics_may_raise_replicas_and_never_lower_them(wish, target):
    cluster = FakeCluster()
    whole = cluster.metrics
    cluster.metrics = lambda *span: replace(whole(*span), partial=True)  # type: ignore[method-assign]
    controller = controller_of(cluster, always(wish), guard_rails={"scale_down_window": 0.0})
    for _ in range(5):
        controller.tick()
    assert set(cluster.replicas.values()) == {target}
    cluster.metrics = whole  # type: ignore[method-assign]
    controller.tick()
    assert set(cluster.replicas.values()) == {int(wish)}


@pytest.fixture(autouse=True)
def _log_everything(caplog):
    caplog.set_level(logging.INFO)
