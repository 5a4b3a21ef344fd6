"""Reading days of load from a real Prometheus: all is known in the end."""

import re
from types import ModuleType

import pytest
from helpers.needs import had
from helpers.paths import ROOT

from testbed.experiments import memory_bench, runs_bench, soak, wall_clock, weeks_bench
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


@pytest.mark.parametrize("command", [weeks_bench, memory_bench, runs_bench, soak, wall_clock])
@pytest.mark.parametrize("number", ["nan", "inf", "-3", "0", "x"])
def test_lengths_of_no_time_are_refused(
    command: ModuleType, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths = {weeks_bench: "--days", runs_bench: "--day", wall_clock: "--minutes"}
    with pytest.raises(SystemExit):
        command.build_parser().parse_args([f"{lengths.get(command, '--hours')}={number}"])
    assert f"expected a number above 0, found '{number}'" in capsys.readouterr().err
