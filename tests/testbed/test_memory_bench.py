"""The bench of the controller's memory finds what grows, and nothing else."""

from __future__ import annotations

import pytest
from helpers.paths import ROOT

from deepscaler.control.tally import Tally
from testbed.experiments import memory_bench
from testbed.experiments.memory_bench import _place, main


def test_what_a_part_of_the_controller_hoards_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hoard: list[bytes] = []
    counts = Tally.counts

    def hoarding(self: Tally) -> object:
        hoard.append(bytes(100_000))
        return counts(self)

    monkeypatch.setattr(Tally, "counts", hoarding)
    monkeypatch.setattr(memory_bench, "FIRST_SECONDS", 60.0)
    assert main(["--hours", "0.05", "--every", "0.025"]) == 0
    first, second = (line.split(" MiB; ") for line in capsys.readouterr().out.splitlines())
    assert float(second[0].split("+")[1]) - float(first[0].split("+")[1]) == pytest.approx(0.57, abs=0.15)
    assert "control/watch.py" in second[1].split(", ")[0]


def test_an_allocation_belongs_to_the_nearest_wing() -> None:
    controller, engine = (
        (str(ROOT / "deepscaler/control/tick.py"), 3),
        (str(ROOT / "testbed/engine/core.py"), 7),
    )
    assert _place([engine, controller, ("/lib/json.py", 1)]) == "deepscaler/control/tick.py:3"
    assert _place([controller, engine, ("/lib/numpy.py", 1)]) == ""
    assert _place([("/lib/json.py", 1)]) == ""
