"""The trial of all experiments: what is too large is left out, and the others are tried."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers.paths import ROOT

from testbed.experiments import smoke
from testbed.experiments.matrix import Task


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Experiments of ten services and of three."""
    paths = []
    for name, config in (("large", "boutique"), ("small", "bookinfo")):
        text = {
            "config": str(ROOT / "config" / f"{config}.yaml"),
            "loads": {"square": {"set": ["testbed.load.shape=square"]}},
            "policies": ["hpa_70"],
            "seeds": [1000],
        }
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump(text))
    return [str(path) for path in paths]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """The runs that were asked for; none is made."""
    tasks: list[Task] = []
    monkeypatch.setattr(smoke, "run_tasks", lambda due, *_, **__: tasks.extend(due))
    monkeypatch.setattr(smoke, "summarise", lambda *_: {})
    monkeypatch.setattr(smoke, "write_experiment_page", lambda *_: None)
    return tasks


@pytest.mark.parametrize(
    ("most", "results"),
    [
        ("0", ["left out", "left out"]),
        ("-1", ["left out", "left out"]),
        ("9", ["left out", "ok"]),
        ("50", ["ok", "ok"]),
    ],
)
def test_an_experiment_that_is_too_large_is_left_out_and_the_others_are_tried(
    files: list[str],
    ran: list[Task],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    most: str,
    results: list[str],
) -> None:
    assert smoke.main([*files, "--most", most, "--output", str(tmp_path / "smoke")]) == 0
    lines = capsys.readouterr().out.splitlines()[-2:]
    for line, result in zip(lines, results, strict=True):
        said = f"left out: more than {most} services (--most)" if result == "left out" else "ok"
        assert line.endswith(said)
    assert len(ran) == results.count("ok")


@pytest.mark.parametrize("workers", ["0", "-2"])
def test_fewer_than_one_process_is_refused(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        smoke.main(["no.yaml", "--workers", workers])
    assert f"argument --workers: expected 1 or more, found {workers}" in capsys.readouterr().err
