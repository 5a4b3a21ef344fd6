"""metrics_fetch.py: what it writes, how it goes on after an interruption, and what it refuses."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.paths import ROOT

import metrics_fetch
from deepscaler.artefacts import utc_seconds, utc_text
from deepscaler.calls import EXTERNAL, CallGraph, read_calls
from deepscaler.cluster import Workload
from deepscaler.errors import MetricsError
from deepscaler.panel import FEATURES, MetricPanel, read_panel

T0 = utc_seconds("2026-01-05T00:00:00Z")


def settings_file(tmp_path, services=("web", "carts"), kind="kubernetes", **collect):
    document = {
        "app": {
            "name": "shop",
            "services": {name: {} for name in services},
            "entries": [{"name": "GET /", "service": services[0]}],
        },
        "cluster": {
            "kind": kind,
            "prometheus": {"url": "http://127.0.0.1:9", "retries": 0},
            "kubeconfig": str(tmp_path / "none"),
        },
        "collect": {"output_dir": str(tmp_path / "data"), "calls_window": 60.0, **collect},
    }
    path = tmp_path / "app.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return str(path)


class FakeCluster:
    """Every sample is a function of its time, service and feature; what was asked is kept."""

    def __init__(self, settings, start=None, end=None, bar=None):
        self.services, self.window, self.asked = (
            tuple(settings.app.services),
            settings.collect.calls_window,
            [],
        )

    def workloads(self):
        return [Workload(name, 1, 0.2, 0.1) for name in self.services]

    def metrics(self, start, end, step):
        self.asked.append((start, end))
        times = start + step * np.arange(round((end - start) / step) + 1)
        rows = np.array([sum(map(ord, name)) for name in self.services])
        values = (times[:, None, None] - T0) + rows[None, :, None] + np.arange(5)[None, None, :] / 8
        values[times % 120 == 0, 0, 3] = np.nan
        return MetricPanel(times, self.services, tuple(FEATURES), values.astype(np.float32))

    def calls(self, start, end):
        window = min(self.window, end - start)
        times = np.arange(start + window, end + 1e-6, window)
        return CallGraph(
            pd.DataFrame(
                {
                    "time": times,
                    "caller": EXTERNAL,
                    "callee": self.services[0],
                    "calls_per_second": times - T0,
                }
            )
        )


@pytest.fixture
def clusters(monkeypatch):
    made = []

    def connect(settings, start, end, bar):
        made.append(FakeCluster(settings))
        return made[-1]

    monkeypatch.setattr(metrics_fetch, "connect", connect)
    return made


def fetch(config, first, last, *more):
    return metrics_fetch.main(
        ["--config", config, "--start", utc_text(T0 + first), "--end", utc_text(T0 + last), *more]
    )


def refused(capsys):
    """The one line on stderr that isn't a log."""
    captured = capsys.readouterr()
    logged = re.compile(r"\d{4}-\d\d-\d\dT\S+Z (INFO|WARNING) |metrics:")
    [line] = [line for line in captured.err.splitlines() if not logged.match(line)]
    assert captured.out == ""
    return line


def test_both_files_and_one_line_come_out(tmp_path, clusters, capsys):
    assert fetch(settings_file(tmp_path), 0, 300) == 0
    panel = read_panel(tmp_path / "data" / "metrics.csv")
    assert (
        panel.step == 15
        and len(panel) == 21
        and panel.services == ("web", "carts")
        and panel.features == tuple(FEATURES)
    )
    assert list(read_calls(tmp_path / "data" / "calls.csv").frame["time"] - T0) == [60, 120, 180, 240, 300]
    assert capsys.readouterr().out == (
        f"{tmp_path}/data/metrics.csv: 21 samples (21 new) of 2 services, "
        "2026-01-05T00:00:00Z to 2026-01-05T00:05:00Z, 1.4 % missing; calls.csv: 5 windows\n"
    )


def test_a_second_run_goes_on_where_the_first_ended_and_equals_one_run(tmp_path, clusters, capsys):
    config = settings_file(tmp_path)
    for last in (130, 130, 200, 300):
        assert fetch(config, 0, last) == 0
    assert clusters[1:] and [asked for cluster in clusters for asked in cluster.asked] == [
        (T0, T0 + 120), (T0 + 135, T0 + 195), (T0 + 210, T0 + 300)
    ]  # fmt: skip
    assert "nothing to fetch" in capsys.readouterr().out
    (tmp_path / "once").mkdir()
    assert fetch(settings_file(tmp_path / "once"), 0, 300) == 0
    for name in ("metrics.csv", "calls.csv"):
        assert (tmp_path / "data" / name).read_text() == (tmp_path / "once" / "data" / name).read_text()


def test_a_gap_that_was_asked_for_stays_absent_and_is_logged(tmp_path, clusters, caplog):
    config = settings_file(tmp_path)
    assert fetch(config, 0, 120) == fetch(config, 607, 727) == 0
    times = read_panel(tmp_path / "data" / "metrics.csv").times - T0
    assert list(times) == [*range(0, 121, 15), *range(615, 721, 15)]
    assert "samples up to 2026-01-05T00:10:15Z stay absent" in caplog.text
    assert list(read_calls(tmp_path / "data" / "calls.csv").frame["time"] - T0) == [60, 120, 675]


def test_nothing_is_put_before_what_is_there(tmp_path, clusters, caplog):
    config = settings_file(tmp_path)
    assert fetch(config, 600, 720) == fetch(config, 0, 780) == 0
    assert read_panel(tmp_path / "data" / "metrics.csv").times[0] == T0 + 600
    assert "nothing earlier is added" in caplog.text


def test_services_are_appended_by_name(tmp_path, clusters):
    assert fetch(settings_file(tmp_path), 0, 120) == 0
    assert fetch(settings_file(tmp_path, services=("carts", "web")), 0, 240) == 0
    panel = read_panel(tmp_path / "data" / "metrics.csv")
    np.testing.assert_array_equal(np.diff(panel.feature("req"), axis=0), 15)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"services": ("web", "payment")}, "it holds services web, carts, the settings ask for web, payment"),
        ({"step": 30.0}, "its step is 15 s, collect.step is 30 s"),
    ],
)
def test_another_application_or_step_isnt_mixed_in(tmp_path, clusters, capsys, change, expected):
    assert fetch(settings_file(tmp_path), 0, 120) == 0
    before = (tmp_path / "data" / "metrics.csv").read_bytes()
    capsys.readouterr()
    assert fetch(settings_file(tmp_path, **change), 0, 240) == 1
    assert expected in (line := refused(capsys)) and "set another collect.output_dir" in line
    assert (tmp_path / "data" / "metrics.csv").read_bytes() == before and len(clusters) == 1


def test_other_features_arent_mixed_in(tmp_path, clusters, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "metrics.csv").write_text("time,web_cpu,carts_cpu\n2026-01-05T00:00:00Z,1,2\n")
    assert fetch(settings_file(tmp_path), 0, 240) == 1
    assert "it holds features cpu, the settings ask for pod, cpu, mem, res, req" in refused(capsys)


# ---------------------------------------------------------------------------------------------- interruptions
def test_a_write_that_fails_leaves_the_previous_files(tmp_path, clusters, monkeypatch):
    config = settings_file(tmp_path)
    assert fetch(config, 0, 120) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}

    def half(frame, target, **options):
        Path(target).write_text("time,web_po")
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", half)
    with pytest.raises(OSError, match="No space left"):
        fetch(config, 0, 240)
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == before


KILLED = """
import sys
sys.path[:0] = [{root!r}, {root!r} + "/tests", {root!r} + "/tests/scripts"]
from pathlib import Path
import metrics_fetch
from test_metrics_fetch import FakeCluster
metrics_fetch.connect = FakeCluster
whole = Path.write_text
def half(path, text, **options):
    if "web_pod" not in text:
        return whole(path, text, **options)
    with path.open("w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        print("half", flush=True)
        sys.stdin.read()
Path.write_text = half
metrics_fetch.main({argv!r})
"""


def test_a_kill_in_the_middle_of_writing_leaves_the_previous_file_and_the_next_run_goes_on(
    tmp_path, clusters
):
    config = settings_file(tmp_path)
    assert fetch(config, 0, 120) == 0
    before = (tmp_path / "data" / "metrics.csv").read_bytes()
    argv = ["--config", config, "--start", utc_text(T0), "--end", utc_text(T0 + 300)]
    code = KILLED.format(root=str(ROOT), argv=argv)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout.readline() == b"half\n"
        os.kill(child.pid, signal.SIGKILL)
    assert (tmp_path / "data" / "metrics.csv").read_bytes() == before
    assert fetch(config, 0, 300) == 0  # calls.csv was ahead of metrics.csv: still no window twice
    assert len(read_panel(tmp_path / "data" / "metrics.csv")) == 21
    assert list(read_calls(tmp_path / "data" / "calls.csv").frame["time"] - T0) == [60, 120, 180, 240, 300]


@pytest.mark.field
@pytest.mark.parametrize(("part", "file"), [("calls", "calls.csv"), ("workloads", "workloads.json")])
def test_a_part_that_fails_doesnt_cost_the_samples_and_is_fetched_later(
    tmp_path, clusters, monkeypatch, capsys, part, file
):
    def gone(*_):
        raise MetricsError("connection refused")

    config = settings_file(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(FakeCluster, part, gone)
        assert fetch(config, 0, 240) == 1
    assert f"metrics_fetch: {file} couldn't be brought up to date" in capsys.readouterr().err
    assert (
        len(read_panel(tmp_path / "data" / "metrics.csv")) == 17 and not (tmp_path / "data" / file).exists()
    )
    assert fetch(config, 0, 300) == 0
    assert (tmp_path / "data" / "workloads.json").exists()
    assert list(read_calls(tmp_path / "data" / "calls.csv").frame["time"] - T0) == [60, 120, 180, 240, 300]


def test_lost_calls_are_fetched_again(tmp_path, clusters):
    config = settings_file(tmp_path)
    assert fetch(config, 0, 120) == 0
    (tmp_path / "data" / "calls.csv").unlink()
    assert fetch(config, 0, 240) == 0
    assert list(read_calls(tmp_path / "data" / "calls.csv").frame["time"] - T0) == [60, 120, 180, 240]


# --------------------------------------------------------------------------------------------------- the span
@pytest.mark.parametrize("text", ["4 days", "-1", "0", "", "d"])
def test_other_spans_are_refused(tmp_path, capsys, text):
    assert metrics_fetch.main(["--config", settings_file(tmp_path), f"--last={text}"]) == 1
    assert f"--last {text}: expected seconds" in refused(capsys)


def test_on_a_cluster_the_last_hour_ends_now_and_never_later(tmp_path, clusters, monkeypatch):
    monkeypatch.setattr(metrics_fetch.time, "time", lambda: T0 + 7207.3)
    config = settings_file(tmp_path)
    assert metrics_fetch.main(["--config", config]) == 0
    assert clusters[0].asked == [(T0 + 3615, T0 + 7200)]
    assert fetch(config, 0, 1e6) == 0
    assert len(clusters) == 1  # the future isn't written as missing


def test_times_in_the_settings_need_no_quotes(tmp_path, clusters):
    times = ["--set", "collect.start=2026-01-05T00:00:00Z", "--set", "collect.end=2026-01-05T00:05:00Z"]
    assert metrics_fetch.main(["--config", settings_file(tmp_path), *times]) == 0
    assert clusters[0].asked == [(T0, T0 + 300)]


def test_the_command_line_wins_over_the_settings(tmp_path, clusters):
    config = settings_file(tmp_path, start="2026-01-05T00:00:00Z", end="2026-01-05T01:00:00Z")
    assert metrics_fetch.main(["--config", config, "--last", "2m", "--end", "2026-01-05T00:10:00Z"]) == 0
    assert clusters[0].asked == [(T0 + 480, T0 + 600)]


def test_on_the_testbed_the_span_begins_at_its_start(tmp_path, monkeypatch):
    import testbed

    made = []

    def collect(settings, start, end):
        made.append((start, end))
        return FakeCluster(settings)

    monkeypatch.setattr(testbed, "collect", collect)
    config, february_first = settings_file(tmp_path, kind="testbed"), "testbed.start='2026-02-01T00:00:00Z'"
    assert metrics_fetch.main(["--config", config, "--last", "5m", "--set", february_first]) == 0
    february = utc_seconds("2026-02-01T00:00:00Z")
    assert made == [(february, february + 300)]
    assert metrics_fetch.main(["--config", config, "--last", "10m", "--set", february_first]) == 0
    assert (
        made[1] == (february + 315, february + 600)
        and len(read_panel(tmp_path / "data" / "metrics.csv")) == 41
    )


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--start", "yesterday"], "--start yesterday: not an ISO 8601 time"),
        (
            ["--start", "2026-01-05T01:00:00Z", "--end", "2026-01-05T00:00:00Z"],
            "nothing between start 2026-01-05T01:00:00Z and end",
        ),
        (
            ["--set", "collect.start=noon"],
            "collect.start: not an ISO 8601 time such as 2026-01-05T00:00:00Z (found 'noon')",
        ),
        (["--set", "collect.stepp=15"], "collect.stepp: unknown key; allowed here: step, start"),
        (["--config", "missing.yaml"], "missing.yaml: no such file"),
    ],
)
def test_a_wrong_command_line_is_one_line(tmp_path, capsys, argv, expected):
    assert metrics_fetch.main(["--config", settings_file(tmp_path), *argv]) == 1
    line = refused(capsys)
    assert line.startswith("metrics_fetch: ") and expected in line


def test_no_prometheus_is_one_line_and_exit_1(tmp_path, capsys):
    assert fetch(settings_file(tmp_path), 0, 120) == 1
    line = refused(capsys)
    assert (
        "http://127.0.0.1:9/api/v1/query_range: no answer in 1 tries" in line
        and "is Prometheus running there?" in line
    )
    assert not (tmp_path / "data").exists()
