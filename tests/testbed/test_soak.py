"""The soak: faults do what their names say, it finds what it looks for, and the controller stands it."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import ROOT

from deepscaler.control.controller import Controller
from deepscaler.control.recorder import Recorder
from deepscaler.errors import ClusterError, MetricsError
from deepscaler.policies.base import Proposal, Reason
from testbed.cluster.faults import KINDS, Fault, FaultyCluster, Killed, draw_faults, failing_disk
from testbed.cluster.virtual import VirtualCluster
from testbed.experiments import soak as soaking
from testbed.experiments import soaked
from testbed.experiments.soak import main, make_settings, soak
from testbed.experiments.soaked import Soaked, place_of

pytestmark = pytest.mark.stress
BOUTIQUE = str(ROOT / "config/boutique.yaml")


def faulty(kind: str, start: float = 30.0, seconds: float = 60.0) -> FaultyCluster:
    """A cluster with one fault, so many seconds after its start."""
    inner = VirtualCluster(make_settings(BOUTIQUE, 0.2, 1000), seed=1000)
    begin = inner.now() + start
    return FaultyCluster(inner, [Fault(kind, begin, begin + seconds)], 1000)


def test_faults_come_one_after_the_other_and_every_kind_as_often() -> None:
    faults = draw_faults(0.0, 86_400.0, 1)
    assert faults == draw_faults(0.0, 86_400.0, 1) != draw_faults(0.0, 86_400.0, 2)
    assert all(one.end < other.start for one, other in itertools.pairwise(faults))
    assert faults[-1].end < 86_400.0 - 300
    counts = Counter(fault.kind for fault in faults)
    assert set(counts) == set(KINDS) and max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_acts_from_its_start_to_its_end_and_does_what_its_name_says(kind: str) -> None:
    cluster = faulty(kind)
    step, start = 15.0, cluster.steady()
    span = (start - 300.0, start + 30.0, step)

    def state() -> dict[str, object]:
        now = cluster.steady()
        found: dict[str, object] = {"clock": cluster.now() - now}
        try:
            panel = cluster.metrics(now - 300.0, now, step)
            found["partial"] = panel.partial
            found["late"] = bool(np.isnan(panel.feature("req")[-3:]).all())
        except MetricsError:
            found["metrics"] = "out"
        try:
            found["replicas"] = {item.service: item.replicas for item in cluster.workloads()}
            found["failed"] = bool(cluster.scale(dict.fromkeys(cluster.services, 4)).failed)
        except ClusterError:
            found["api"] = "out"
        with failing_disk(lambda: cluster.active("disk_full")):
            found["full"] = cluster.active("disk_full")
        return found

    calm = state()
    try:
        cluster.sleep_until(start + 45.0)
        killed = False
    except Killed:
        killed = True
    among = {name: value for name, value in state().items() if calm.get(name) != value}
    expected = {
        "metrics_out": {"metrics"},
        "metrics_partial": {"partial"},
        "metrics_late": {"late"},
        "api_out": {"api"},
        "write_errors": {"failed"},
        "restart": set(),
        "edit": {"replicas"},
        "clock_back": {"clock"},
        "clock_forward": {"clock", "late"},
        "disk_full": {"full"},
    }
    allowed = expected[kind] | ({"late"} if kind == "clock_back" else set())
    assert expected[kind] - {"late"} <= set(among) <= allowed and killed == (kind == "restart"), span
    cluster.sleep_until(start + 120.0)
    assert {name: value for name, value in state().items() if calm.get(name) != value} == {}


class Reckless(soaking.ReactivePolicy):
    """Takes everything away, whatever the metrics say."""

    history_seconds = 0.0
    guarded = False

    def decide(self, observation):
        count = 4.0 if int(observation.now / 15) % 2 else 1.0
        return {item.service: Proposal(count, Reason.STATIC) for item in observation.workloads}


def test_replicas_that_are_taken_away_while_metrics_are_out_are_found(tmp_path: Path) -> None:
    cluster = faulty("metrics_out", seconds=120.0)
    settings = make_settings(BOUTIQUE, 0.2, 1000)
    policy = Reckless(soaking.ReactiveFloor(None, settings.scale.floor))
    policy.history_seconds = 0.0
    Controller(cluster, policy, settings, Recorder(tmp_path)).run(150.0)
    assert {kind for _, kind, _ in cluster.unsafe} == {"metrics_out"} and len(cluster.unsafe) >= 10


@pytest.mark.parametrize("policy", soaking.POLICIES)
def test_the_controller_stands_every_kind_of_fault(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def dense(start: float, seconds: float, seed: int) -> list[Fault]:
        return [
            Fault(kind, start + 120.0 * k, start + 120.0 * k + (0.0 if kind == "edit" else 60.0))
            for k, kind in enumerate(KINDS, 1)
        ]

    monkeypatch.setattr(soaking, "draw_faults", dense)
    found = soak(BOUTIQUE, policy, 1400.0 / 3600.0, 1000, faulty=True)
    assert found.crash == "" and found.unsafe == []
    assert found.ticks >= 85 and 3 <= found.failed_ticks <= 5  # those while the API was out
    assert [fault.kind for fault in found.faults] == list(KINDS)
    assert max(found.recoveries) <= 60.0


def test_a_crash_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def bad(name: str, settings: object) -> object:
        policy = Reckless(soaking.ReactiveFloor(None, settings.scale.floor))  # type: ignore[attr-defined]
        monkeypatch.setattr(policy, "decide", lambda _observation: 1 / 0)
        return policy

    monkeypatch.setattr(soaking, "make_policy", bad)
    found = soak(BOUTIQUE, "plan_bootstrap", 0.1, 1000, faulty=True)
    assert "ZeroDivisionError" in found.crash
    lines = soaked.report([replace(found, crash="", faulty=False), found]).splitlines()
    assert [line.split()[:5] for line in lines[2:4]] == [[who, "0", "0", "1", "0"] for who in ("1000", "all")]


def test_violating_minutes_are_put_down_to_the_fault_before_or_to_none() -> None:
    """Minutes 1 to 3 are in a fault, 4 to 8 soon after it, and its twin has violating minutes of its own."""
    among = Soaked(1, True, {}, minutes=list(range(1, 30)), violating=[1, 2, 8, 9, 10])
    among.faults, among.recoveries = [Fault("api_out", 70.0, 200.0), Fault("edit", 900.0, 900.0)], [5.0, None]
    calm = replace(among, faulty=False, violating=[2, 20], faults=[], recoveries=[])
    assert [minute for minute, cause in among.causes.items() if cause == "api_out"] == list(range(1, 9))
    assert [minute for minute, cause in among.causes.items() if cause == "edit"] == list(range(15, 21))
    lines = {line.split()[0]: line.split()[1:] for line in soaked.report([calm, among]).splitlines() if line}
    assert lines["api_out"] == ["1", "5", "5", "5", "8", "3", "(1)"]
    assert lines["edit"] == ["1", "inf", "inf", "inf", "6", "0", "(1)"]
    assert lines["none"] == ["15", "2", "(0)"] and lines["restart"] == ["0", "0", "(0)"]
    assert "seed 1, violating minutes: api_out 1-2, api_out 8, none 9-10" in soaked.report([calm, among])


def test_the_soak_is_one_command_that_goes_on_where_it_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--config", BOUTIQUE, "--hours", "0.4", "--seeds", "1", "--workers", "1"]
    arguments += ["--policy", "reactive_holistic", "--out", str(tmp_path)]
    soaking.soak_into(tmp_path, BOUTIQUE, "reactive_holistic", 0.4, 1000, faulty=False)
    kept = place_of(tmp_path, 1000, faulty=False).stat()
    assert main([*arguments, "--table"]) == 0
    assert "1 runs have no twin yet" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["seed"] for one in found["faults"]] == [1000] and found["calm"][0]["recoveries"] == []
    assert found["calm"][0]["minutes"] == list(range(10, 24)) and found["calm"][0]["ticks"] == 96
    assert place_of(tmp_path, 1000, faulty=False).stat() == kept
    monkeypatch.setattr(soaking, "soak", None)  # nothing is run any more
    assert main(arguments) == 0 and "1000" in capsys.readouterr().out
    assert main([*arguments, "--hours", "2"]) == 1
    assert "'hours': 0.4" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"seed": "x"}'])
def test_a_directory_without_sound_runs_is_refused(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        place_of(tmp_path, 1000, faulty=True).write_text(content)
    assert main(["--out", str(tmp_path), "--table"]) == 1
    assert "soak" in capsys.readouterr().err
