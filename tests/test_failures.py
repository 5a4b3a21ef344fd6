"""The cases of docs/failures.md name tests that exist; and Prometheus and the clock in every bad mood."""

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
from helpers.paths import ROOT, TESTS

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.artefacts import utc_seconds, utc_text
from deepscaler.calls import CallGraph, read_calls, write_calls
from deepscaler.control.controller import Controller
from deepscaler.control.recorder import Recorder
from deepscaler.panel import MetricPanel, iso_seconds, read_panel, write_panel
from deepscaler.runs import Run, read_run, write_run
from deepscaler.settings import Settings

CASES = {
    title.strip(): re.findall(r"^- `tests/(.+)::(test_\w+)`$", text, flags=re.MULTILINE)
    for title, text in re.findall(
        r"^### (.+)\n((?:(?!#).*\n)*)", (ROOT / "docs/failures.md").read_text(encoding="utf-8"), re.MULTILINE
    )
}
"""What docs/failures.md says: title of a case -> (file, name) of the tests that show it."""


@cache
def functions_of(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("case", CASES)
def test_the_tests_that_show_a_case_are_there(case: str) -> None:
    assert CASES[case], "docs/failures.md names no test for it"
    absent = [f"{file}::{name}" for file, name in CASES[case] if name not in functions_of(file)]
    assert not absent, "docs/failures.md names tests that were renamed or are gone"


def test_every_line_of_the_page_is_read() -> None:
    lines = (ROOT / "docs/failures.md").read_text(encoding="utf-8").splitlines()
    assert len(CASES) == sum(line.startswith("### ") for line in lines) >= 20
    assert sum(map(len, CASES.values())) == sum(line.startswith("- ") for line in lines)


# ------------------------------------------------------------------------------- Prometheus in every bad mood
NAMES = ("web", "api", "db")
Answer = Callable[[dict[str, str]], tuple[int, bytes]]


def series(query: dict[str, str], values: dict[str, str]) -> tuple[int, bytes]:
    """A range vector with one constant series per service."""
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


# ------------------------------------------------------------------------------------------------------- time
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
