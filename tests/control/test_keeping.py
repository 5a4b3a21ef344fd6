"""A run directory keeps all that was measured, however the run ends and whatever the store goes through."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.fakes import START, FakeCluster, ScriptedPolicy, make_settings
from helpers.paths import ROOT

from deepscaler.adapters.kubernetes.objects import quantity
from deepscaler.artefacts import utc_seconds, utc_text
from deepscaler.control import check
from deepscaler.control.keeping import FILES, GAP_SECONDS, MOST_BYTES, Keeper
from deepscaler.control.live import run_live
from deepscaler.control.recorder import Recorder
from deepscaler.control.tables import Table, moment, whole
from deepscaler.errors import MetricsError
from deepscaler.runs import read_run

pytestmark = pytest.mark.stress
STEP, HOUR = 60.0, 3600.0
DEPLOY = ROOT / "deploy"


class Cluster(FakeCluster):
    """Whose entries had requests from `busy` on only, and whose store is down from `down` to `up`.

    What lies between `down` and `up` altogether the store never knows if `lost`.
    """

    busy, down, up, lost = -np.inf, np.inf, np.inf, False

    def latencies(self, start, end, step):
        self._known(start, end)
        if self.down <= self.clock < self.up or end < self.busy:
            raise MetricsError("no requests at the entries")
        return super().latencies(start, end, step)

    def metrics(self, start, end, step):
        self._known(start, end)
        if self.down <= self.clock < self.up:
            raise MetricsError("connection refused")
        return super().metrics(start, end, step)

    def _known(self, start, end):
        if self.lost and self.down <= start and end <= self.up:
            raise MetricsError("knows no such series")


def watched(cluster: Cluster, keeper: Keeper, seconds: float) -> None:
    """Tick each minute for so long."""
    for now in cluster.clock + STEP * np.arange(1, seconds / STEP + 1):
        cluster.clock = now
        keeper(SimpleNamespace(now=now))


def times(path: Path) -> np.ndarray:
    return np.array([utc_seconds(text) for text in pd.read_csv(path)["time"]])


def test_a_shadow_that_a_signal_ends_keeps_all_hours_and_those_before_it(tmp_path):
    cluster, hours = FakeCluster(("web",)), 3

    def wish(now: float, _service: str) -> float:
        if now >= START + hours * HOUR:
            os.kill(os.getpid(), signal.SIGTERM)
        return 3.0

    policy = ScriptedPolicy(wish, period_seconds=STEP, history_seconds=2 * HOUR)
    settings = make_settings(("web",), run_dir=str(tmp_path), dry_run=True)
    settings = settings.model_copy(update={"collect": settings.collect.model_copy(update={"step": STEP})})
    run = read_run(run_live(cluster, policy, settings))
    whole = START + STEP * np.arange(1, 60 * hours + 1)
    assert run.endpoints["time"].tolist() == whole.tolist() and "missing" not in run.info
    assert run.panel.times.tolist() == [START + STEP * row for row in range(-119, 60 * hours + 1)]
    assert run.decisions["time"].nunique() == 60 * hours + 1


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"down": START + HOUR, "up": START + 3 * HOUR},
        {"busy": START + 2.5 * HOUR},
        {"busy": START + 2.5 * HOUR, "down": START + 3 * HOUR, "up": START + 3.2 * HOUR},
    ],
    ids=["calm", "the store was down", "no request for hours", "both"],
)
def test_what_couldnt_be_read_is_read_later(tmp_path, state):
    cluster = Cluster(("web",))
    vars(cluster).update(state)
    watched(cluster, Keeper(tmp_path, cluster, STEP, START), 4 * HOUR)
    for name in FILES:  # the process was killed: what is on disk has to do
        there = times(tmp_path / name)
        assert there.tolist() == [START + STEP * (row + 1) for row in range(len(there))], name
        assert there[-1] >= cluster.clock - 600.0


@pytest.mark.parametrize("lost", [False, True], ids=["away", "without samples"])
@pytest.mark.parametrize("hours", [20, 30, 75])
def test_a_hole_of_days_costs_its_own_rows_only(tmp_path, caplog, hours, lost):
    cluster = Cluster(("web",))
    cluster.down, cluster.up, cluster.lost = START + HOUR, START + (1 + hours) * HOUR, lost
    keeper = Keeper(tmp_path, cluster, STEP, START)
    for now in START + 300.0 * np.arange(1, (hours + 5) * 12 + 1):
        cluster.clock = now
        keeper(SimpleNamespace(now=now))
    for name in FILES:
        there = times(tmp_path / name)
        assert there[-1] >= cluster.clock - 600.0 and (np.diff(there) % STEP == 0).all(), name
        assert np.diff(there).max() <= max(hours * HOUR - GAP_SECONDS, 0.0) + 1800.0, name
        said = [record.message for record in caplog.records if record.message.startswith(f"{name}: nothing")]
        assert len(said) == (2 if hours > 24 else 0), said  # when it begins, and what it came to
    assert len(caplog.records) <= 10


def test_a_history_of_days_before_the_run_is_kept(tmp_path, caplog):
    cluster = Cluster(("web",))
    keeper = Keeper(tmp_path, cluster, 300.0, START, history=3 * GAP_SECONDS)
    cluster.clock += HOUR
    keeper.finish("metrics.csv")
    assert times(tmp_path / "metrics.csv")[0] <= START - 3 * GAP_SECONDS + HOUR + 300.0
    assert not caplog.records


def test_the_end_reads_through_hours_without_a_request(tmp_path):
    cluster = Cluster(("web",))
    cluster.busy = START + 3 * HOUR
    keeper = Keeper(tmp_path, cluster, STEP, START)
    cluster.clock += 4 * HOUR
    keeper.finish("endpoints.csv")
    assert len(times(tmp_path / "endpoints.csv")) == 4 * 60
    cluster.down, cluster.clock = START, cluster.clock + HOUR
    with pytest.raises(MetricsError):
        keeper.finish("endpoints.csv")


@pytest.mark.parametrize("pause", [0.0, 2 * HOUR, 3 * GAP_SECONDS], ids=["none", "two hours", "days"])
def test_a_controller_goes_on_where_the_one_before_was_killed(tmp_path, pause):
    cluster = Cluster(("web",))
    watched(cluster, Keeper(tmp_path, cluster, STEP, START), HOUR)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("2026-01-05T")  # torn
    cluster.clock += pause
    later = cluster.clock
    watched(cluster, Keeper(tmp_path, cluster, STEP, START), HOUR)
    for name in FILES:
        gaps = np.diff(times(tmp_path / name))
        assert (gaps > 0).all() and (gaps > STEP).sum() == (pause > GAP_SECONDS), name
        assert times(tmp_path / name)[-1] > later


def test_all_files_of_a_run_directory_fit_into_the_volume_of_the_pod(tmp_path):
    tables = [
        *Keeper(tmp_path, FakeCluster(), STEP, START)._tables.values(),
        *Recorder(tmp_path)._tables.values(),
    ]
    assert sum(table.most_bytes for table in tables) == MOST_BYTES
    for path in (DEPLOY / "base/controller/deployment.yaml", *DEPLOY.glob("*.yaml")):
        for item in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if item and item.get("kind") == "Deployment":
                volumes = {each["name"]: each for each in item["spec"]["template"]["spec"]["volumes"]}
                room = quantity(volumes["runs"]["emptyDir"]["sizeLimit"])
                assert room >= 1.2 * MOST_BYTES, path


def test_a_check_asks_for_as_much_room_as_the_files_take(tmp_path, monkeypatch):
    for free, state in ((MOST_BYTES - 1, "note"), (MOST_BYTES, "ok")):
        monkeypatch.setattr("shutil.disk_usage", lambda _path, free=free: SimpleNamespace(free=free))
        assert check._disk(tmp_path).state == state


@pytest.mark.parametrize("rows", [1, 7, 50])
def test_no_file_grows_beyond_its_bound_and_larger_ones_of_before_go(tmp_path, rows):
    columns = {"time": moment, "value": whole}
    lines = [f"{utc_text(START + second)},{second}\n" for second in range(1000)]
    Table(tmp_path / "t.csv", columns, largest=10**6).append("".join(lines[:200]), 200)
    growing = Table(tmp_path / "t.csv", columns, largest=2000, kept=2)
    assert len(growing.since(START)) == 200
    for first in range(200, 1000, rows):
        growing.append("".join(lines[first : first + rows]), rows)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 3 and max(sizes) <= 2000 and sum(sizes) <= growing.most_bytes
    assert growing.last_time() == START + 999
