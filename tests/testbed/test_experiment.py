"""The experiment runner: what it runs, resumes, refuses and prints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.paths import ROOT

from deepscaler.settings import Experiment, load_section
from testbed.experiment import main, plan_jobs

SHIPPED = sorted((ROOT / "config" / "experiments").glob("*.yaml"))


@pytest.fixture
def experiment(tmp_path):
    """A small experiment's file: one load, two policies that need no data, one seed."""

    def write(**changes):
        text = {
            "config": str(ROOT / "config" / "boutique.yaml"),
            "set": ["testbed.history=120", "scale.duration=180", "evaluate.warmup=0"],
            "loads": {"steady": {"set": ["scale.load={shape: steady, low: 10, high: 20}"]}},
            "policies": ["hpa_70", "oracle"],
            "seeds": [1000],
            "workers": 1,
            "output": str(tmp_path / "runs"),
            **changes,
        }
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump(text))
        return str(path)

    return write


def test_it_runs_resumes_and_refuses_runs_of_other_settings(experiment, tmp_path, capsys):
    path = experiment()
    assert main([path]) == 0
    first = capsys.readouterr()
    lines = first.out.splitlines()
    assert lines[0].split()[:2] == ["steady", "seeds"] and {line.split()[0] for line in lines[1:]} == {
        "hpa_70",
        "oracle",
    }
    assert "expected" in first.err
    summary = json.loads((tmp_path / "runs" / "summary.json").read_text())
    assert summary["steady"]["oracle"]["mean"]["minutes"] == 3  # the history isn't judged
    assert summary["steady"]["hpa_70"]["mean"]["realised_cost"] > 0
    run = tmp_path / "runs" / "steady" / "hpa_70-1000"
    kept = (run / "run.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "runs" / "steady" / "oracle-1000")
    assert main([path]) == 0
    assert capsys.readouterr().out == first.out
    assert (run / "run.json").stat().st_mtime_ns == kept
    assert main([experiment(set=["scale.duration=240", "evaluate.warmup=0"])]) == 1
    message = capsys.readouterr().err
    assert "a run of other settings" in message and message.count("\n") == 1


def test_an_unknown_load_is_named(experiment, capsys):
    assert main([experiment(), "--loads", "stormy"]) == 1
    assert capsys.readouterr().err == "experiment: --loads: unknown load 'stormy'; loads: steady\n"


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_shipped_experiments_load_and_judge_validation_seeds(path: Path, monkeypatch):
    monkeypatch.chdir(ROOT)
    experiment = load_section(Experiment, path, [])
    jobs = list(plan_jobs(experiment, None))
    assert {job.load for job in jobs} == set(experiment.loads)
    assert all(1000 <= job.seed < 2000 for job in jobs)
    assert "plan_bootstrap" in experiment.policies and "oracle" in experiment.policies
