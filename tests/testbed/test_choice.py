"""What is chosen on validation seeds is tested only while it answers what is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers.experiment_runs import write_runs_of
from helpers.paths import ROOT

from testbed import experiment

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`main` on a small experiment whose runs are written by hand, with these flags and changed settings."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(experiment, "run_tasks", write_runs_of)
    monkeypatch.setattr(experiment, "write_experiment_page", lambda *_: None)

    def called(*flags: str, **changes: object) -> int:
        text = {
            "config": str(ROOT / "config" / "boutique.yaml"),
            "set": ["evaluate.warmup=0", "testbed.history=0"],
            "loads": {"steady": {}},
            "policies": ["slow", "hpa"],
            "variants": {"slow": {"policy": "hpa_60", "set": ["scale.hpa.sync_period=60"]}},
            "sweeps": {"hpa": {"policy": "hpa_{}", "values": [50, 70, 90]}},
            "seeds": [1000],
            "test_seeds": [2000],
            "output": str(tmp_path / "runs"),
            **changes,
        }
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump(text))
        return experiment.main([str(path), *flags])

    return called


def test_a_choice_is_tested_with_the_baseline_and_tells_the_seeds_that_ran(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All points cost the same here: the first is chosen, and the baseline is another."""
    changes = {"loads": {"steady": {"seeds": [1005, 1006]}}, "baseline": "hpa_90"}
    assert run(**changes) == 0
    chosen = json.loads((tmp_path / "runs" / "chosen.json").read_text())
    assert chosen["seeds"] == [1005, 1006] and chosen["points"] == {"steady": ["hpa_50"]}
    assert run("--test", **changes) == 0, capsys.readouterr().err
    tested = {place.name for place in (tmp_path / "runs" / "test" / "steady").iterdir()}
    assert tested == {"slow-2000", "hpa_50-2000", "hpa_90-2000"}
    summary = json.loads((tmp_path / "runs" / "test" / "summary.json").read_text())
    assert summary["cases"]["steady"]["paired"].keys() == {"slow", "hpa_50"}


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [1001]},
        {"loads": {"steady": {"set": ["testbed.load.low=30"]}}},
        {"loads": {"steady": {"seeds": [1001]}}},
        {"policies": ["hpa"]},
        {"variants": {"slow": {"policy": "hpa_60", "set": ["scale.hpa.sync_period=90"]}}},
        {"sweeps": {"hpa": {"policy": "hpa_{}", "values": [50, 70]}}},
        {"most_violations": 0.1},
        {"holds": {"measure": "p99_seconds", "at_most": 0.5}},
        {"set": ["evaluate.warmup=60", "testbed.history=0"]},
        {"set": ["evaluate.warmup=0", "testbed.history=0", "scale.prices.shortage=5"]},
    ],
    ids=str,
)
def test_a_choice_that_answers_something_else_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str], change: dict[str, object]
) -> None:
    assert run() == 0
    capsys.readouterr()
    assert run("--test", **change) == 1
    said = capsys.readouterr().err
    assert "chosen.json: what was chosen answers other " in said and said.count("\n") == 1
    assert "run the experiment again without --test" in said


@pytest.mark.parametrize("flags", [["--with", "scale.period=30"], ["--set", "seeds=[1001]"]], ids=str)
def test_flags_count_as_the_file_does(run: Run, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    assert run() == 0
    assert run("--test", *flags) == 1
    assert "what was chosen answers other " in capsys.readouterr().err


def test_what_the_choice_doesnt_depend_on_may_change(run: Run) -> None:
    assert run() == 0
    assert run("--test", "--workers", "1", "--only", "seed=2001", test_seeds=[2000, 2001], question="?") == 0
