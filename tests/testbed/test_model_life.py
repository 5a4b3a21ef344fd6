"""The life of a model in little: bundles are written instead of trained, all else is as in the experiment."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.bundles import write_bundle

from deepscaler.learning.generations import candidate_of, promote, roll_back
from deepscaler.settings import load_settings
from testbed.experiments.model_life import BETTER, CONFIG, REFUSED, PacedCluster, led
from testbed.live.debian import free_port


def bundle(path: Path, replicas: int) -> Path:
    return write_bundle(path, ("web",), [replicas], app="single")


@pytest.mark.stress
def test_no_tick_is_missed_while_models_come_break_and_go(tmp_path: Path) -> None:
    path, port = bundle(tmp_path / "AdapGLA.pt", 3), free_port()

    def train(*arguments: str) -> int:
        if "--rollback" in arguments:
            roll_back(path)
            return 0
        if f"--init_from={path}" not in arguments:  # the worse one
            return REFUSED
        bundle(candidate_of(path), 6)
        promote(path)
        return BETTER

    own = {"bundle": path, "run_dir": tmp_path / "runs", "metrics_port": port}
    settings = load_settings(CONFIG, [f"scale.{key}={value}" for key, value in own.items()])
    stages, made, lost = led(settings, PacedCluster(settings, speed=40.0), port, train)
    assert [stage.name for stage in stages if not stage.wanted] == [] and len(stages) == 6
    assert made >= 12 and lost == 0
