"""The bench of a live tick runs, its parts add up, and no tick asks for more than it has to."""

from __future__ import annotations

import json

import pytest

from testbed.experiments.tick_bench import PARTS, bench, main


@pytest.mark.parametrize("policy", ["AdapGLA", "plan_bootstrap"])
def test_the_parts_of_a_tick_add_up(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--services", "3", "--policies", policy, "--ticks", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[f"{policy}/3"]
    assert tuple(found) == PARTS
    parts = sum(found[part]["first"] for part in PARTS[:-2])
    tick, rest = found["tick"]["first"], found["tick"]["first"] - parts
    assert 0 <= rest < tick and found["fetch"]["first"] > 0
    assert found["without_fetch"]["first"] == pytest.approx(tick - found["fetch"]["first"])


def test_the_scripted_cluster_is_understood_so_that_nothing_is_held() -> None:
    with bench(3, "plan_bootstrap") as tick:
        tick()
        seconds = tick()
    assert seconds["policy"] > 0 and seconds["write"] == 0  # the plan stood after the first tick
