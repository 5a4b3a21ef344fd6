"""The six scripts, one after another, on small settings.

They run for every application, twice from the same seed, on after a kill, and on input that is no good.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers.paths import ROOT

import calculate
import data_process
import main as training
import metrics_fetch
import predict_scale
import similarity
from deepscaler.errors import DataError
from deepscaler.learning.history import read_history
from deepscaler.panel import read_panel
from deepscaler.runs import read_run

SCRIPTS = {
    "metrics_fetch": metrics_fetch,
    "data_process": data_process,
    "main": training,
    "predict_scale": predict_scale,
    "similarity": similarity,
    "calculate": calculate,
}
SIZES = {"graph_channels": 4, "time_channels": 4, "order": 2, "kernel": 3, "blocks": 1}
POLICIES = ["deepscaler", "reactive_holistic", "hpa_70"]


@dataclass(frozen=True)
class Place:
    """A directory with the settings of one application, and what the scripts left there."""

    directory: Path
    application: str

    @property
    def config(self) -> Path:
        return self.directory / "app.yaml"

    def arguments(self, stage: str) -> list[str]:
        if stage == "main":
            return [
                "--model_config_path",
                "model.yaml",
                "--train_config_path",
                "train.yaml",
                "--model_save_path",
                "states/AdapGLA.pt",
            ]
        return ["--config", "app.yaml"]

    def run(self, stage: str, *more: str) -> int:
        """Run a script in this directory; all that its settings name lies below it."""
        with contextlib.chdir(self.directory):
            return int(SCRIPTS[stage].main([*self.arguments(stage), *more]))

    def files(self, below: str = "") -> dict[str, str]:
        """A hash of the bytes of each file that isn't hidden, by its path."""
        found = (
            sorted((self.directory / below).rglob("*"))
            if (self.directory / below).is_dir()
            else [self.directory / below]
        )
        return {
            str(path.relative_to(self.directory)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in found
            if path.is_file() and not path.name.startswith(".")
        }


def make_place(directory: Path, application: str, hours: float, policies: list[str], **load: Any) -> Place:
    """Settings of `config/<application>.yaml` with everything small and in `directory`."""
    document = yaml.safe_load((ROOT / "config" / f"{application}.yaml").read_text())
    document["collect"].update(last=hours * 3600, output_dir="data")
    document["process"].update(window=6, output_dir="data", priors=["call", "od"])
    document["scale"].update(
        policies=policies, seeds=[2000], duration=600, bundle="states/AdapGLA.pt", run_dir="runs", workers=1
    )
    document["evaluate"].update(runs="runs", output_dir="runs", warmup=60)
    document["testbed"].update(
        load={"shape": "fluctuation", "low": 20.0, "high": 60.0, "period": 600.0, **load}, warmup=120.0
    )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "app.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    dataset = {"data_dir": "data", "device": "cpu", "threads": 1, "batch_size": 32}
    (directory / "model.yaml").write_text(yaml.safe_dump({"dataset": dataset, "AdapGLA": SIZES}))
    (directory / "train.yaml").write_text(
        yaml.safe_dump({"num_epoch": 1, "num_iter": 2, "random_graphs": 1, "refit_epochs": 0})
    )
    return Place(directory, application)


@pytest.fixture(scope="module")
def boutique(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """All six stages on two hours of Online Boutique."""
    torch.set_num_threads(1)
    place = make_place(tmp_path_factory.mktemp("pipeline") / "boutique", "boutique", 2.0, POLICIES)
    for stage in SCRIPTS:
        assert place.run(stage) == 0, stage
    return place


@pytest.fixture
def copy(boutique: Place, tmp_path: Path) -> Place:
    """A copy of the finished pipeline to damage."""
    shutil.copytree(boutique.directory, tmp_path / "copy")
    return Place(tmp_path / "copy", "boutique")


# ------------------------------------------------------------------------------------------------- all stages
def test_every_stage_leaves_what_the_next_one_reads(boutique: Place) -> None:
    left = {Path(name).name for name in boutique.files()}
    assert {
        "metrics.csv",
        "calls.csv",
        "workloads.json",
        "dataset.npz",
        "meta.json",
        "call.csv",
        "od.csv",
    } <= left
    assert {"AdapGLA.pt", "AdapGLA.json", "AdapGLA.affinity.csv"} <= left
    assert {
        "endpoints.csv",
        "decisions.csv",
        "pods.csv",
        "run.json",
        "summary.json",
        "similarity.json",
        "similarity.png",
    } <= left
    panel = read_panel(boutique.directory / "data" / "metrics.csv")
    assert len(panel) == 481 and len(panel.services) == 10 and np.isfinite(panel.feature("req")).all()
    assert not [name for name in os.listdir(boutique.directory / "data") if name.startswith(".")]


def test_the_runs_speak_of_the_same_load_and_the_summary_of_all_policies(boutique: Place) -> None:
    runs = {policy: read_run(boutique.directory / "runs" / f"{policy}-2000") for policy in POLICIES}
    offered = [run.endpoints["offered"].sum() for run in runs.values()]
    assert max(offered) < 1.05 * min(offered)
    assert {run.info["seed"] for run in runs.values()} == {2000}
    reasons = set(runs["deepscaler"].decisions["reason"])
    assert reasons & {"forecast", "floor", "stabilized", "unchanged"} and not reasons & {
        "held_missing",
        "held_stale",
        "unknown_service",
    }
    summary = json.loads((boutique.directory / "runs" / "summary.json").read_text())
    assert set(summary["policies"]) == set(POLICIES)
    for measures in summary["policies"].values():
        assert 0 <= measures["violation_rate"] <= 1 and measures["core_hours"] > 0


@pytest.mark.parametrize("application", ["bookinfo", "train_ticket"])
def test_another_application_needs_another_yaml_only(
    tmp_path: Path, application: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    place = make_place(tmp_path, application, 2.0, ["deepscaler", "hpa_70"], high=30.0)
    for stage in SCRIPTS:
        assert place.run(stage) == 0, stage
    run = read_run(tmp_path / "runs" / "deepscaler-2000")
    services = set(yaml.safe_load((ROOT / "config" / f"{application}.yaml").read_text())["app"]["services"])
    assert set(run.decisions["service"]) == services
    assert "deepscaler" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------- the same twice
def test_the_same_seed_makes_the_same_files(boutique: Place, copy: Place) -> None:
    """Collect, process, train and scale once more from nothing.

    All bytes are the same, except for clocks beside a bundle and a run.
    """
    for below in ("data", "states", "runs"):
        shutil.rmtree(copy.directory / below)
    for stage in ("metrics_fetch", "data_process", "main", "predict_scale"):
        assert copy.run(stage) == 0
    first, second = boutique.files(), copy.files()
    clocks = {name for name in second if name.endswith(("run.json", "states/AdapGLA.json"))}
    compared = set(second) - clocks - {"states/AdapGLA.history.csv"}
    assert {Path(name).name for name in compared} >= {
        "metrics.csv",
        "calls.csv",
        "dataset.npz",
        "meta.json",
        "AdapGLA.pt",
        "decisions.csv",
    }
    assert {name: second[name] for name in compared} == {name: first[name] for name in compared}
    assert len(clocks) == 1 + len(POLICIES)
    for name in clocks:
        one, two = (json.loads((place.directory / name).read_text()) for place in (boutique, copy))
        for info in (one, two):
            for clock in ("wall_seconds", "decision_seconds", "run"):
                info.pop(clock, None)
        assert one == two
    courses = [
        read_history(place.directory / "states/AdapGLA.history.csv").drop(columns="seconds")
        for place in (boutique, copy)
    ]
    pd.testing.assert_frame_equal(*courses)


# --------------------------------------------------------------------------------------------- killed writing
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
KILLED = """
import os, sys
sys.path.insert(0, {root!r})
whole = os.fsync
def half(handle):
    path = os.readlink(f"/proc/self/fd/{{handle}}")
    if os.path.basename(path).startswith({name!r}):
        os.truncate(path, os.path.getsize(path) // 2)
        print("half", flush=True)
        sys.stdin.read()
    whole(handle)
os.fsync = half
import {stage} as script
script.main({argv!r})
"""


def killed(place: Place, stage: str, temporary: str, changes: list[str]) -> None:
    """Kill a stage when half of the file with this temporary name is written."""
    code = KILLED.format(
        root=str(ROOT), name=temporary, stage=stage, argv=[*place.arguments(stage), *changes]
    )
    command = [sys.executable, "-c", code]
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
    }
    with subprocess.Popen(command, cwd=place.directory, **pipes) as child:
        assert child.stdout is not None
        assert b"half\n" in iter(child.stdout.readline, b"")
        os.kill(child.pid, signal.SIGKILL)


@needs_proc
@pytest.mark.parametrize(
    ("stage", "name", "changes"),
    [
        ("metrics_fetch", "data/metrics.csv", ["--last", "130m"]),
        ("data_process", "data/dataset.npz", ["--set", "process.window=5"]),
        ("main", "states/AdapGLA.pt", ["--set", "train.seed=2"]),
        ("similarity", "runs/similarity.json", ["--set", "evaluate.edge_threshold=0.9"]),
        ("calculate", "runs/summary.json", ["--set", "evaluate.warmup=120"]),
    ],
)
def test_a_stage_that_is_killed_while_it_writes_leaves_the_artefact_before_it_whole(
    copy: Place, stage: str, name: str, changes: list[str]
) -> None:
    before = copy.files(name)
    assert name in before
    written = name.replace(".pt", ".candidate.pt")  # a bundle takes its place once it is whole
    killed(copy, stage, f".{Path(written).name}.", changes)
    assert copy.files(name) == before
    assert copy.run(stage, *changes) == 0
    assert copy.files(name) != before


@needs_proc
def test_a_run_that_is_killed_while_it_writes_leaves_the_run_before_it_whole(copy: Place) -> None:
    before = copy.files("runs/hpa_70-2000")
    changes = ["--policy", "hpa_70", "--set", "testbed.load.high=40", "--duration", "60"]
    killed(copy, "predict_scale", "..run.json.", changes)  # all files are written, none has its name yet
    assert copy.files("runs/hpa_70-2000") == before
    assert copy.run("calculate") == 0
    killed(
        copy, "predict_scale", ".run.json.", changes
    )  # in the middle of the exchange: no mixture is taken for a run
    with pytest.raises(DataError, match=r"hpa_70-2000: no run\.json; make runs with"):
        read_run(copy.directory / "runs" / "hpa_70-2000")
    assert copy.run("predict_scale", *changes) == 0
    assert read_run(copy.directory / "runs" / "hpa_70-2000").info["duration_seconds"] == 60


# -------------------------------------------------------------------------------------------------- bad input
def refused(place: Place, stage: str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """The one line on stderr, beside logs, of a script that ends with 1 and prints nothing on stdout."""
    capsys.readouterr()
    assert place.run(stage, *more) == 1
    said = capsys.readouterr()
    logged = re.compile(r"\d{4}-\d\d-\d\dT\S+Z (INFO|WARNING|ERROR) ")
    [line] = [line for line in said.err.splitlines() if line.startswith(f"{stage}: ")]
    others = [
        text
        for text in said.err.splitlines()
        if text.strip() and text != line and not logged.match(text) and "\r" not in text
    ]
    assert said.out == "" and not [
        text for text in others if "it/s" not in text and "epoch" not in text and "request" not in text
    ]
    return line


@pytest.mark.parametrize("stage", [stage for stage in SCRIPTS if stage != "main"])
def test_a_typo_in_the_yaml_is_named_with_what_is_allowed(
    copy: Place, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = copy.config.read_text()
    copy.config.write_text(text.replace("duration: 600", "duratoin: 600"))
    assert "app.yaml: scale.duratoin: unknown key; allowed here: policy, policies" in refused(
        copy, stage, capsys
    )
    copy.config.write_text(text.replace("scale:", "scale"))
    assert "not valid YAML" in refused(copy, stage, capsys)
    copy.config.unlink()
    assert "app.yaml: no such file; the shipped ones are in config/" in refused(copy, stage, capsys)


@pytest.mark.parametrize(("file", "key"), [("train.yaml", "num_iter"), ("model.yaml", "batch_size")])
def test_a_typo_in_the_training_files_too(
    copy: Place, file: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy.directory / file
    path.write_text(path.read_text().replace(f"{key}:", f"{key}s:"))
    line = refused(copy, "main", capsys)
    assert f"{key}s: unknown key; allowed here" in line and file in line


def test_an_unknown_service_is_named_with_those_that_are_known(
    copy: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(copy, "predict_scale", capsys, "--set", "scale.static_replicas={paymnt: 2}")
    assert "scale.static_replicas: unknown service 'paymnt'; services: frontend, adservice" in line
    document = yaml.safe_load(copy.config.read_text())
    document["app"]["services"]["redis"] = None
    copy.config.write_text(yaml.safe_dump(document, sort_keys=False))
    assert "not emulated: redis; not configured: none" in refused(
        copy, "metrics_fetch", capsys, "--set", "collect.output_dir=elsewhere"
    )
    assert "column 'redis_pod' is missing" in refused(copy, "data_process", capsys)


def kubernetes(url: str) -> list[str]:
    options = (
        "cluster.kind=kubernetes",
        f"cluster.prometheus={{url: '{url}', retries: 0}}",
        "collect.output_dir=none",
    )
    return [part for option in options for part in ("--set", option)]


def test_no_prometheus_is_one_line(copy: Place, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(copy, "metrics_fetch", capsys, *kubernetes("http://127.0.0.1:9"))
    assert "http://127.0.0.1:9" in line and "refused" in line.lower()
    assert not (copy.directory / "none").exists()


@pytest.fixture
def empty_prometheus() -> Iterator[str]:
    """Answers every query with nothing."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b'{"status":"success","data":{"resultType":"matrix","result":[]}}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_prometheus_without_such_series_is_one_line(
    copy: Place, empty_prometheus: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(copy, "metrics_fetch", capsys, *kubernetes(empty_prometheus))
    assert (
        "knows no such series in this time; check app.namespace and app.services" in line
        and "kube_deployment" in line
    )
    assert not (copy.directory / "none").exists()


def drop_column(text: str) -> str:
    rows = [line.split(",") for line in text.splitlines()]
    column = rows[0].index("cartservice_cpu")
    return "\n".join(",".join(row[:column] + row[column + 1 :]) for row in rows) + "\n"


def first_cell(row: int, text: str) -> Callable[[str], str]:
    """Put `text` into the column after the time."""

    def damage(whole: str) -> str:
        lines = whole.splitlines()
        cells = lines[row - 1].split(",")
        lines[row - 1] = ",".join([cells[0], text, *cells[2:]])
        return "\n".join(lines) + "\n"

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (drop_column, "data/metrics.csv: column 'cartservice_cpu' is missing (1 of 40 expected columns are)"),
        (first_cell(42, "four"), "data/metrics.csv: line 42, column 'frontend_pod': 'four' is not a number"),
        (
            lambda text: text.replace("2026-01-05T00:10:00Z", "now", 1),
            "data/metrics.csv: line 42: time 'now' is not ISO 8601",
        ),
        (first_cell(42, "1,2,3"), "data/metrics.csv: not a readable CSV"),
        (lambda text: "", "data/metrics.csv: not a readable CSV"),
        (lambda text: text.splitlines()[0] + "\n", "data/metrics.csv: no rows"),
        (lambda text: "\n".join(text.splitlines()[:100]) + "\n", "usable minutes"),
    ],
    ids=["column missing", "no number", "no time", "broken line", "empty", "no rows", "too short"],
)
def test_broken_metrics_are_one_line_that_says_where(
    copy: Place, damage: Callable[[str], str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy.directory / "data" / "metrics.csv"
    path.write_text(damage(path.read_text()))
    before = copy.files("data")
    assert says in refused(copy, "data_process", capsys)
    assert copy.files("data") == before


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("2026-01-05T00:05:00Z", "today", "data/calls.csv: line 2 is broken"),
        ("callee", "called", "data/calls.csv: column 'callee' is missing"),
        ("2026-01-05T00:10:00Z", "2026-01-05T00:10:00Z,1,2,3", "data/calls.csv: not a readable CSV"),
    ],
)
def test_broken_calls_are_one_line_that_says_where(
    copy: Place, old: str, new: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy.directory / "data" / "calls.csv"
    head, _, rest = path.read_text().partition("\n")
    path.write_text(f"{head.replace(old, new)}\n{rest.replace(old, new, 1)}")
    assert says in refused(copy, "data_process", capsys)


def test_a_series_too_short_for_the_window_is_one_line(
    copy: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(copy, "data_process", capsys, "--set", "process.window=110")
    assert (
        "train split: 289 rows of 15 s, a window and its horizon take 444: that is too short; collect longer"
        in line
    )


@pytest.mark.parametrize(
    ("stage", "makes", "gone"),
    [
        ("data_process", "metrics_fetch.py", "data"),
        ("main", "data_process.py", "data"),
        ("predict_scale", "main.py", "states"),
        ("calculate", "predict_scale.py", "runs"),
    ],
)
def test_what_isnt_there_names_the_command_that_makes_it(
    copy: Place, stage: str, makes: str, gone: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copy.directory / gone)
    assert f"python {makes}" in refused(copy, stage, capsys)


def test_a_bundle_of_another_application_is_refused_naming_both(
    copy: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_place(tmp_path / "other", "bookinfo", 1.0, ["deepscaler"])
    bundle = str(copy.directory / "states" / "AdapGLA.pt")
    line = refused(other, "predict_scale", capsys, "--model_path", bundle)
    assert f"{bundle}: trained for application boutique, the configuration says bookinfo" in line
    assert not (other.directory / "runs").exists()
