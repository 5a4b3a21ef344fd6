"""What went wrong in other autoscalers, and the tests that show that it doesn't go wrong here."""

from __future__ import annotations

import ast
import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.artefacts import utc_seconds, utc_text
from deepscaler.calls import CallGraph, read_calls, write_calls
from deepscaler.control.controller import Controller
from deepscaler.control.recorder import Recorder
from deepscaler.panel import MetricPanel, iso_seconds, read_panel, write_panel
from deepscaler.runs import Run, read_run, write_run
from deepscaler.settings import Settings

TESTS = Path(__file__).parent
FAILURES = TESTS.parent.parent / "shared" / "FAILURES.md"

SHOWN: dict[str, tuple[str, ...]] = {
    "Prometheus down, slow, 414, empty result, NaN": (
        "test_failures::test_metrics_that_fail_over_http_are_never_read_as_idle",
        "test_failures::test_only_the_service_whose_series_are_missing_is_held",
        "control/test_controller::test_prometheus_down_holds_everything_says_so_and_goes_on",
        "control/test_controller::test_a_needed_feature_gone_stale_holds_after_the_limit_and_not_before",
        "adapters/test_prometheus::test_a_query_is_a_post_form",
        "adapters/test_prometheus::test_a_server_that_never_answers_runs_into_the_time_out",
        "adapters/test_prometheus_real::test_nan_and_infinity_come_through_http",
        "adapters/test_prometheus_real::test_a_service_missing_for_a_while_stays_missing_and_the_others_dont",
    ),
    "stuck high after metrics came back": (
        "control/test_controller::test_replicas_recover_within_the_window_when_metrics_come_back",
    ),
    "preview mode that still wrote": (
        "control/test_controller::test_a_dry_run_that_finds_replicas_out_of_bounds_writes_nothing_either",
        "scripts/test_predict_scale::test_a_dry_run_sends_no_write",
        "adapters/test_kubernetes_cluster::test_a_dry_run_sends_no_write_request_at_all",
        "adapters/test_kubernetes_cluster::test_a_dry_run_is_counted_at_the_emulated_api",
    ),
    "a rolling update or unready pods": (
        "control/test_controller::test_pods_that_are_not_ready_are_no_reason_to_add_more",
        "policies/test_policies::test_a_saturated_service_is_relieved_by_its_ready_replicas",
        "testbed/test_virtual::test_cpu_of_a_pod_counts_from_its_second_scrape_and_pods_that_start_arent_ready",
        "adapters/test_prometheus_real::test_cpu_speaks_of_the_same_pods_on_both_sides_while_replicas_change",
    ),
    "a dependency's outage makes its callers look idle": (
        "control/test_controller::test_a_drop_that_comes_with_errors_is_no_reason_to_scale_down",
        "control/test_controller::test_a_drop_that_comes_with_lost_metrics_of_another_service_is_no_reason_to_scale_down",
        "control/test_controller::test_scale_downs_go_on_when_the_errors_are_over",
        "control/test_guard_rails::test_trouble_stops_scale_downs_and_nothing_else",
    ),
    "an HPA on the same Deployment fights": (
        "control/test_controller::test_a_rival_autoscaler_is_refused_by_name_when_acting_whenever_it_appears",
        "control/test_controller::test_a_dry_run_writes_nothing_and_compares_with_the_incumbent",
        "adapters/test_kubernetes_cluster::test_rival_autoscalers_are_named",
        "adapters/test_kubernetes_cluster::test_a_rival_is_refused_by_name_when_acting",
    ),
    "someone edits replicas between read and patch": (
        "control/test_controller::test_replicas_edited_between_read_and_write_stand_until_the_next_tick_and_are_logged",
        "adapters/test_kubernetes_cluster::test_somebody_elses_edit_is_a_conflict_and_stands",
        "adapters/test_kubernetes_cluster::test_an_edit_between_two_tries_is_still_seen",
    ),
    "names that contain one another": (
        "adapters/test_prometheus_real::test_names_that_contain_one_another_or_regex_characters_arent_mixed",
        "adapters/test_prometheus::test_names_are_escaped_once_for_the_regex_and_once_for_the_string",
        "adapters/test_prometheus::test_a_pod_belongs_to_the_deployment_it_is_named_after",
        "testbed/test_parity::test_every_sample_of_a_feature_is_the_same",
    ),
    "model file missing": (
        "policies/test_policies::test_a_missing_bundle_names_the_command_that_makes_it",
        "learning/test_bundle::test_a_missing_bundle_names_the_command",
        "scripts/test_pipeline::test_what_isnt_there_names_the_command_that_makes_it",
    ),
    "bundle with other features, another step": (
        "policies/test_policies::test_a_bundle_that_does_not_fit_is_refused_naming_both_sides",
        "learning/test_bundle::test_what_does_not_fit_is_refused_naming_both_sides",
        "learning/test_bundle::test_services_are_matched_by_name",
        "scripts/test_pipeline::test_a_bundle_of_another_application_is_refused_naming_both",
    ),
    "service added, removed, renamed": (
        "policies/test_policies::test_a_service_new_to_the_bundle_goes_by_the_floor_and_one_without_data_is_held",
        "policies/test_policies::test_services_gone_from_the_cluster_are_left_out",
        "learning/test_bundle::test_order_and_company_of_the_live_services_do_not_matter",
        "control/test_controller::test_zero_is_respected_and_its_missing_metrics_are_nobodys_trouble",
    ),
    "controller restarts or another takes over": (
        "control/test_controller::test_a_restarted_controller_goes_on_with_its_history_and_its_files",
        "control/test_guard_rails::test_a_restarted_controller_remembers_what_it_recommended",
        "adapters/test_lease::test_of_two_controllers_one_writes_and_the_other_takes_over_warm",
    ),
    "expired token, 401/403": (
        "adapters/test_prometheus::test_every_refusal_is_one_line_with_address_and_advice_and_isnt_retried",
        "control/test_controller::test_an_api_that_cannot_be_read_fails_ticks_and_the_loop_goes_on",
        "adapters/test_kubernetes_cluster::test_refusals_are_loud_and_prometheus_stands_in",
        "adapters/test_kubernetes_cluster::test_a_missing_right_is_named",
    ),
    "two controllers act (no leader)": (
        "adapters/test_lease::test_a_leader_that_cant_renew_stops_before_the_other_starts",
        "adapters/test_lease::test_never_two_at_once_whatever_fails",
        "adapters/test_kubernetes_cluster::test_two_controllers_on_the_emulated_api_never_lead_together",
    ),
    'missing latency counted as "SLA held"': (
        "evaluation/test_measures::test_a_minute_without_a_done_request_is_unknown_and_no_held_sla",
        "evaluation/test_measures::test_minutes_missing_from_the_file_are_unknown_too",
        "scripts/test_calculate::test_a_run_in_which_nothing_was_done_is_unknown_everywhere",
    ),
    "a NaN forecast became 1 replica": (
        "control/test_controller::test_a_forecast_that_is_not_finite_holds",
        "policies/test_policies::test_a_forecast_that_is_not_finite_holds_and_the_floor_may_still_raise",
        "testbed/test_virtual::test_samples_are_stamped_with_their_end_and_missing_before_the_start",
        "learning/test_bundle::test_constant_replicas_and_load_give_a_finite_forecast_that_knows_the_level_unlike_statistics_of_the_window",
        "scripts/test_data_process::test_training_statistics_demand_and_priors_dont_see_test_rows",
    ),
    "`replicas: null` in a scale patch sets 0": (
        "control/test_guard_rails::test_targets_are_python_ints_of_at_least_one_and_within_bounds",
        "testbed/test_virtual::test_what_is_no_number_of_replicas_is_refused_and_the_rest_is_set",
        "adapters/test_kubernetes_cluster::test_replicas_that_arent_integers_of_at_least_one_send_nothing",
    ),
    "quota too small for the plan": (
        "control/test_controller::test_a_plan_beyond_the_quota_is_cut_before_anything_is_written",
        "control/test_guard_rails::test_the_quota_is_kept_unless_what_runs_is_already_beyond_it",
        "control/test_controller::test_a_refused_write_is_recorded_and_tried_again_while_the_others_go_on",
        "adapters/test_kubernetes_cluster::test_the_namespaces_quota_bounds_the_plan_sidecars_counted",
    ),
    "clock skew, DST, local-time strings": (
        "test_failures::test_files_say_utc_whatever_the_machines_time_zone",
        "test_failures::test_the_hour_that_comes_twice_is_two_hours",
        "test_failures::test_a_time_is_a_date_and_never_the_present",
        "adapters/test_prometheus::test_an_answer_on_another_grid_is_refused_and_not_read_as_missing",
    ),
    "a run compared under two load mixes": (
        "testbed/test_virtual::test_two_policies_on_one_seed_meet_the_same_users",
        "testbed/test_virtual::test_a_run_doesnt_depend_on_who_makes_the_oracle_or_on_its_company",
        "test_statistics::test_pairs_are_made_by_seed_and_unknown_ones_are_left_out",
        "test_statistics::test_bootstrap_is_the_same_each_time_and_holds_the_mean",
    ),
}
"""Beginning of a row of FAILURES.md -> the tests that show it."""


@cache
def functions_of(module: str) -> frozenset[str]:
    tree = ast.parse((TESTS / f"{module}.py").read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("row", SHOWN)
def test_the_tests_that_show_a_row_are_there(row: str) -> None:
    assert SHOWN[row]
    absent = [name for name in SHOWN[row] if name.split("::")[1] not in functions_of(name.split("::")[0])]
    assert not absent, f"{row}: renamed or gone"


@pytest.mark.skipif(not FAILURES.is_file(), reason=f"{FAILURES} is not there")
def test_every_row_is_shown() -> None:
    rows = [
        line.split("|")[1].strip()
        for line in FAILURES.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| (?!happened)", line)
    ]
    assert len(rows) == len(SHOWN)
    for row in rows:
        assert [begin for begin in SHOWN if row.startswith(begin)], row


# ------------------------------------------------------------------------------------------- Prometheus in every bad mood
NAMES = ("web", "api", "db")
Answer = Callable[[dict[str, str]], tuple[int, bytes]]


def series(query: dict[str, str], values: dict[str, str]) -> tuple[int, bytes]:
    """A range vector with one constant series a service."""
    label = "destination_workload" if "by (destination_workload)" in query["query"] else "deployment"
    first, last, step = (float(query[key]) for key in ("start", "end", "step"))
    moments = first + step * np.arange(int((last - first) / step + 1e-6) + 1)
    found = [
        {"metric": {label: name}, "values": [[moment, value] for moment in moments]}
        for name, value in values.items()
    ]
    return 200, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": found}}).encode()


def slow(query: dict[str, str]) -> tuple[int, bytes]:
    time.sleep(0.6)
    return series(query, dict.fromkeys(NAMES, "1"))


MOODS: dict[str, Answer] = {
    "fine": lambda query: series(query, dict.fromkeys(NAMES, "1")),
    "down": lambda query: (0, b""),
    "slow": slow,
    "414": lambda query: (414, b"Request-URI Too Large"),
    "500": lambda query: (500, b"oops"),
    "503": lambda query: (503, b""),
    "401": lambda query: (401, b""),
    "not JSON": lambda query: (200, b"<html>Sign in</html>"),
    "error": lambda query: (
        422,
        b'{"status":"error","errorType":"execution","error":"query processing would load too many samples"}',
    ),
    "empty": lambda query: series(query, {}),
    "NaN": lambda query: series(query, dict.fromkeys(NAMES, "NaN")),
    "one missing": lambda query: series(query, {"web": "1", "api": "1"}),
}


class Moody(http.server.ThreadingHTTPServer):
    """A Prometheus whose mood a test sets."""

    mood = "fine"


@pytest.fixture
def prometheus() -> Iterator[Moody]:
    class Handler(http.server.BaseHTTPRequestHandler):
        server: Moody

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, body = MOODS[self.server.mood]({key: values[0] for key, values in parse_qs(form).items()})
            if status == 0:
                return self.connection.close()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # the client ran out of patience
            return None

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with Moody(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def controlled(server: Moody, wish: float = 1.0) -> tuple[FakeCluster, Controller]:
    """Replicas of a fake cluster, its metrics over HTTP; the policy always wants `wish`."""
    fake = make_settings(NAMES, guard_rails={"scale_down_window": 0.0}).model_dump()
    where = {"url": f"http://127.0.0.1:{server.server_port}", "retries": 0, "timeout": 0.3}
    settings = Settings.model_validate({**fake, "cluster": {"kind": "kubernetes", "prometheus": where}})
    cluster = FakeCluster(NAMES)
    cluster.metrics = KubernetesCluster(settings).metrics  # type: ignore[method-assign]
    return cluster, Controller(cluster, ScriptedPolicy(lambda _now, _service: wish), settings)


def test_when_all_is_well_the_policy_is_followed(prometheus: Moody) -> None:
    cluster, controller = controlled(prometheus)
    controller.tick()
    assert cluster.replicas == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize("mood", [mood for mood in MOODS if mood not in ("fine", "one missing")])
def test_metrics_that_fail_over_http_are_never_read_as_idle(prometheus: Moody, mood: str) -> None:
    cluster, controller = controlled(prometheus)
    prometheus.mood = mood
    controller.run(60)
    rows = controller.decisions()
    assert cluster.writes == [] and len(rows) == 4 * 3
    assert set(rows["reason"]) == {"held_missing"} and set(rows["target"]) == {4}
    assert controller.failed_ticks == 0  # each tick decided: to hold
    assert controller.statistics.held == 12
    if mood != "NaN":  # an answer, just without a number in it
        assert controller.statistics.metrics_failures == 4
    prometheus.mood = "fine"
    controller.run(15)
    assert cluster.replicas == dict.fromkeys(NAMES, 1)


def test_only_the_service_whose_series_are_missing_is_held(prometheus: Moody) -> None:
    cluster, controller = controlled(prometheus)
    prometheus.mood = "one missing"
    rows = {row.service: row for row in controller.tick()}
    assert cluster.replicas == {"web": 1, "api": 1, "db": 4}
    assert rows["db"].reason == "held_missing"


# ------------------------------------------------------------------------------------------------------------------ time
@pytest.fixture(params=["America/New_York", "Asia/Kathmandu"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's clock is set to another zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


AUTUMN = utc_seconds("2026-11-01T05:30:00Z")
"""01:30 in New York, for the first time that night."""


def test_files_say_utc_whatever_the_machines_time_zone(elsewhere: None, tmp_path: Path) -> None:
    times = AUTUMN + 15.0 * np.arange(4)
    write_panel(
        MetricPanel(times, ("web",), ("req",), np.ones((4, 1, 1), np.float32)), tmp_path / "metrics.csv"
    )
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1] == "2026-11-01T05:30:00Z,1"
    np.testing.assert_array_equal(read_panel(tmp_path / "metrics.csv").times, times)
    write_calls(
        CallGraph(pd.DataFrame({"time": times, "caller": "a", "callee": "b", "calls_per_second": 1.0})),
        tmp_path / "calls.csv",
    )
    np.testing.assert_array_equal(read_calls(tmp_path / "calls.csv").frame["time"], times)
    cluster, recorder = FakeCluster(clock=AUTUMN), Recorder(tmp_path / "run")
    controller = Controller(cluster, ScriptedPolicy(lambda _now, _service: 5.0), make_settings(), recorder)
    controller.run(30)
    assert "2026-11-01T05:30:00Z,web" in (tmp_path / "run" / "decisions.csv").read_text()
    assert list(recorder.decisions()["time"].unique()) == [AUTUMN, AUTUMN + 15]
    run = Run(
        controller.describe(0, AUTUMN),
        cluster.latencies(AUTUMN, AUTUMN + 30, 15),
        recorder.decisions(),
        recorder.pods(),
    )
    write_run(run, tmp_path / "run")
    again = read_run(tmp_path / "run")
    assert again.info["start"] == "2026-11-01T05:30:00Z"
    pd.testing.assert_frame_equal(again.endpoints, run.endpoints, check_dtype=False)


def test_the_hour_that_comes_twice_is_two_hours(elsewhere: None) -> None:
    moments = AUTUMN + 1800.0 * np.arange(6)
    texts = [utc_text(moment) for moment in moments]
    assert texts == sorted(set(texts)) and texts[2] == "2026-11-01T06:30:00Z"
    assert [utc_seconds(text) for text in texts] == moments.tolist()
    assert (
        utc_seconds("2026-11-01T01:30:00-04:00") == AUTUMN
        and utc_seconds("2026-11-01T01:30:00-05:00") == AUTUMN + 3600
    )
    assert utc_seconds("2026-11-01T05:30:00") == AUTUMN  # without an offset it is UTC, not local


@pytest.mark.parametrize(
    "text", ["now", "today", "NOW", "tomorrow", "", "nan", "12:00", "05/01/2026", "1767571200"]
)
def test_a_time_is_a_date_and_never_the_present(text: str, tmp_path: Path) -> None:
    assert np.isnan(iso_seconds(pd.Series(["2026-01-05T00:00:00Z", text]))).tolist() == [False, True]
    with pytest.raises(ValueError):
        utc_seconds(text)


def test_offsets_are_understood_and_unquoted_times_in_yaml_too() -> None:
    np.testing.assert_array_equal(
        iso_seconds(pd.Series(["2026-01-05T01:00:00+01:00", "2026-01-05", "2026-01-05T00:00:00"])),
        [1767571200.0] * 3,
    )
    document = yaml.safe_load("{start: 2026-01-05T00:00:00Z}")
    base = make_settings().model_dump(exclude={"testbed"})
    assert utc_seconds(Settings.model_validate({**base, "testbed": document}).testbed.start) == 1767571200.0
