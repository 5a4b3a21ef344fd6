"""predict_scale.py from the command line."""

import json
import sys
import types
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers.bundles import write_bundle
from helpers.fakes import START, FakeCluster

import predict_scale
from deepscaler.cluster import ENDPOINT_COLUMNS
from deepscaler.errors import MetricsError
from deepscaler.runs import read_run

SHOP = {
    "app": {
        "name": "shop",
        "services": {"web": None, "api": None, "db": None},
        "entries": [{"name": "GET /", "service": "web"}],
    },
    "cluster": {"kind": "kubernetes"},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings of a shop on a live cluster."""
    scale = {
        "run_dir": str(tmp_path / "runs"),
        "bundle": str(tmp_path / "AdapGLA.pt"),
        "policy": "static",
        "static_replicas": {"web": 6},
    }
    path = tmp_path / "shop.yaml"
    path.write_text(yaml.safe_dump({**SHOP, "scale": scale}))
    return path


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """What the script connects to."""
    fake = FakeCluster()
    monkeypatch.setattr(predict_scale, "connect", lambda _settings: fake)
    return fake


def run(config: Path, *flags: str) -> int:
    return predict_scale.main(["--config", str(config), *flags])


def test_a_live_run_leaves_a_whole_run_directory(config, cluster, tmp_path, capsys):
    assert run(config, "--duration", "300") == 0
    directory = tmp_path / "runs" / "static-0"
    assert capsys.readouterr().out.strip() == str(directory)
    found = read_run(directory)
    assert found.info["policy"] == "static"
    assert found.info["start"] == "2026-01-05T00:00:00Z"
    assert list(found.decisions["time"].unique() - START) == [0, 60, 120, 180, 240]
    assert found.decisions["applied"].dropna().tolist() == [6]
    assert list(found.endpoints.columns) == list(ENDPOINT_COLUMNS)
    assert len(found.endpoints) == 20
    assert len(found.pods) == 20 * 3
    assert found.panel is not None
    assert len(found.panel) == 20


def test_decisions_are_on_disk_after_each_tick(config, cluster, tmp_path):
    sizes = []
    cluster.hooks.append(
        lambda _now: sizes.append(len(pd.read_csv(tmp_path / "runs" / "static-0" / "decisions.csv")))
    )
    assert run(config, "--duration", "120") == 0
    assert {3, 6} <= set(sizes)


def test_a_second_run_goes_on_in_the_same_directory(config, cluster, tmp_path):
    assert run(config, "--duration", "60") == 0
    assert run(config, "--duration", "60") == 0
    found = read_run(tmp_path / "runs" / "static-0")
    assert list(found.decisions["time"].unique() - START) == [0, 60]
    assert list(found.pods["time"].unique() - START) == [15 * index for index in range(8)]


def test_decisions_outlive_metrics_that_are_gone_at_the_end(config, cluster, tmp_path, monkeypatch, caplog):
    def gone(_start: float, _end: float, _step: float) -> pd.DataFrame:
        raise MetricsError("connection refused")

    monkeypatch.setattr(cluster, "latencies", gone)
    assert run(config, "--duration", "60") == 0
    found = read_run(tmp_path / "runs" / "static-0")
    assert len(found.decisions) == 3
    assert found.info["limits"] == {"web": 1.0, "api": 1.0, "db": 1.0}
    assert "the run directory is incomplete, endpoints.csv is missing: connection refused" in caplog.text


@pytest.mark.field
@pytest.mark.parametrize(
    ("broken", "missing"),
    [
        ({"latencies"}, ["endpoints.csv"]),
        ({"metrics"}, ["metrics.csv"]),
        ({"workloads"}, ["run.json"]),
        ({"workloads", "latencies"}, ["run.json", "endpoints.csv"]),
        (set(), None),
    ],
)
def test_one_part_of_a_run_that_is_gone_doesnt_cost_the_others(
    config, cluster, tmp_path, monkeypatch, broken, missing
):
    def gone(*_: object) -> pd.DataFrame:
        raise MetricsError("connection refused")

    cluster.hooks.append(
        lambda now: (
            [monkeypatch.setattr(cluster, name, gone) for name in broken] if now > START + 100 else None
        )
    )
    assert run(config, "--duration", "120") == 0
    directory = tmp_path / "runs" / "static-0"
    info = json.loads((directory / "run.json").read_text())
    assert info.get("missing") == missing and info["policy"] == "static"
    assert (directory / "metrics.csv").exists() == ("metrics" not in broken)
    assert len(pd.read_csv(directory / "decisions.csv")) == 6
    assert bool(len(pd.read_csv(directory / "endpoints.csv"))) == ("latencies" not in broken)


def test_a_dry_run_sends_no_write(config, cluster, tmp_path):
    assert run(config, "--duration", "120", "--dry-run") == 0
    assert cluster.writes == []
    assert read_run(tmp_path / "runs" / "static-0").info["mode"] == "dry_run"


def test_once_prints_one_tick_and_writes_no_run(config, cluster, tmp_path, capsys):
    assert run(config, "--once") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == [
        "service",
        "current",
        "ready",
        "predicted",
        "floor",
        "target",
        "applied",
        "reason",
        "mode",
    ]
    assert shown[1].split() == ["web", "4", "4", "6", "-", "6", "6", "static", "act"]
    assert cluster.writes == [{"web": 6}]
    assert not (tmp_path / "runs").exists()


def test_flags_win_over_the_yaml_and_over_set(config, cluster, tmp_path):
    assert (
        run(
            config,
            "--set",
            "scale.policy=explore",
            "--set",
            "scale.policies=[hpa_70, static]",
            "--policy",
            "static",
            "--duration",
            "15",
        )
        == 0
    )
    assert (tmp_path / "runs" / "static-0" / "run.json").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--policy", "hpb_70"), "policy 'hpb_70' is unknown; allowed: deepscaler"),
        (("--policy", "deepscaler"), "AdapGLA.pt: no such bundle; make it with: python main.py"),
        (("--policy", "deepscaler", "--model_path", "elsewhere/a.pt"), "elsewhere/a.pt: no such bundle"),
        (("--policy", "oracle"), "runs on the testbed only"),
        (
            ("--set", "scale.policies=[static, explore]"),
            "one policy at a time acts on a live cluster, found static, explore",
        ),
        (("--set", "scale.polices=[]"), "scale.polices: unknown key"),
        (("--duration", "-5"), "scale.duration"),
    ],
)
def test_errors_are_one_line_and_exit_1(config, cluster, capsys, flags, message):
    assert run(config, *flags) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.startswith("predict_scale: ")
    assert "\n" not in error
    assert cluster.writes == []


def test_a_bundle_of_another_application_is_refused(config, cluster, tmp_path, capsys):
    write_bundle(tmp_path / "AdapGLA.pt", app="bookinfo")
    assert run(config, "--policy", "deepscaler") == 1
    assert "trained for application bookinfo, the configuration says shop" in capsys.readouterr().err


def test_on_the_testbed_every_policy_runs_on_every_seed(config, monkeypatch, capsys):
    asked = []
    fake = types.ModuleType("testbed.experiments.runs")
    fake.run_many = lambda settings, policies, seeds: (
        asked.append((settings.scale.dry_run, policies, seeds)) or [Path("runs/a-1"), Path("runs/b-1")]
    )
    monkeypatch.setitem(sys.modules, "testbed.experiments.runs", fake)
    here = ("--set", "cluster.kind=testbed")
    assert run(config, *here, "--set", "scale.policies=[static, hpa_70]", "--set", "scale.seeds=[3, 4]") == 0
    assert run(config, *here, "--dry-run") == 0
    assert asked == [(False, ["static", "hpa_70"], [3, 4]), (True, ["static"], [1])]
    assert capsys.readouterr().out.splitlines()[0].endswith("2 runs of static, hpa_70")
