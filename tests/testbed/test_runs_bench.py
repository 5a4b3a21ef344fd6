"""How large runs are and how fast they are read."""

from __future__ import annotations

import pytest
from helpers.paths import ROOT

from testbed.experiments.runs_bench import main


def test_the_measurement_says_how_large_runs_are_and_how_long_reading_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = ["--config", str(ROOT / "config/boutique.yaml")]
    assert main([*config, "--runs", "3", "--hour", "420", "--day", "480"]) == 0
    rows = [line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()[2:]]
    assert [name.rstrip() for name, _ in rows][2:] == [
        "3 runs read from their tables, CPU s",
        "3 runs read again, CPU s",
    ]
    values = [float(value) for _, value in rows]
    assert 0 < values[1] <= values[0] < 1 and values[3] <= values[2]
