"""Reading days of load from a real Prometheus: all is known in the end."""

import re

import pytest
from helpers.needs import had
from helpers.paths import ROOT

from testbed.experiments import weeks_bench
from testbed.live import prometheus_server


def test_all_minutes_are_known_in_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    had(prometheus_server.install)
    config = str(ROOT / "config/boutique.yaml")
    assert weeks_bench.main(["--config", config, "--days", "0.05"]) == 0
    told = capsys.readouterr().out
    assert re.match(r"72 of 72 minutes known after 1 readings: \d+\.\d\d s together", told), told


def test_settings_that_cant_be_read_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    had(prometheus_server.install)
    assert weeks_bench.main(["--config", "none.yaml"]) == 1
    assert capsys.readouterr().err.startswith("weeks_bench: none.yaml")
