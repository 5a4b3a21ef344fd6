"""How a shadow is judged: on clusters that a replay doesn't know, and against what happened."""

from types import SimpleNamespace

import pytest
from helpers.paths import ROOT

from deepscaler.errors import DataError
from deepscaler.labels.fit import COLLECT
from deepscaler.policies.registry import TOLD
from deepscaler.reports.counterfactual import replayed
from deepscaler.settings import load_settings
from testbed.experiments import shadow_judge


def test_a_judged_cluster_differs_in_what_a_replay_does_not_know():
    settings = load_settings(ROOT / "config" / "boutique.yaml", [])
    beds = [shadow_judge.other_cluster(settings, seed, 4800.0).testbed for seed in range(1000, 1007)]
    assert len({bed.demand_seed for bed in beds}) == 7 and {bed.demand_sigma for bed in beds} == {0.3}
    assert {bed.balancing for bed in beds} == {"two_choices", "round_robin", "random"}
    day = beds[-1].load
    assert day.shape == "course" and day.course[-1][0] == 4800.0


def measured(core_hours, violation_minutes):
    return {"core_hours": core_hours, "violation_minutes": violation_minutes, "minutes": 100}


@pytest.mark.parametrize(
    ("real", "said"),
    [
        (
            measured(3.05, 2),
            "cost within 3 %: 1; violating minutes within 1 point: 1; inside the interval: cost 1",
        ),
        (
            measured(3.2, 3),
            "cost within 3 %: 0; violating minutes within 1 point: 0; inside the interval: cost 1",
        ),
        (measured(9.0, 40), "within 1 point: 0; inside the interval: cost 0, violating minutes 0"),
    ],
)
def test_what_was_foretold_is_counted_against_what_happened(real, said):
    class Found:
        replay = replayed(measured(4.0, 3), [measured(4.0, 3)], [measured(3.0, 1)])

    judged = shadow_judge.Judged("square 1000", Found(), None, real)
    assert said in shadow_judge.counted([judged])


def test_what_happens_again_has_the_same_users_and_other_luck():
    settings = load_settings(ROOT / "config" / "boutique.yaml", ["evaluate.warmup=0"])
    settings = shadow_judge.other_cluster(settings, 1000, 240.0, "square")
    runs = list(shadow_judge.other_runs(settings, "hpa_70", 1000, 2))
    offered = [run.endpoints["offered"].sum() for run in runs]
    assert offered[0] == pytest.approx(offered[1], rel=0.05)
    assert not runs[0].endpoints.equals(runs[1].endpoints)

    class Found:
        was, decided_core_hours, replay, response = measured(4.0, 3), 3.0, None, None

    again = [measured(3.1, 2), measured(2.95, 12)]
    cells = shadow_judge.row(shadow_judge.Judged("square 1000", Found(), None, measured(3.0, 1), again))
    assert cells["happened again"] == "2.95-3.10 / 2-12"


@pytest.fixture
def unplayed(monkeypatch):
    """Nothing may be played."""
    monkeypatch.setattr(shadow_judge, "judge", lambda *_: pytest.fail("it was played"))


HOUR = "expected 3600 to 2678400; the demands are fitted to the run, and that takes an hour at least"
FUTURE = "it is told the future, which nobody is told here"


@pytest.mark.usefixtures("unplayed")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seconds", "600"], f"--seconds 600.0: {HOUR}"),
        (["--seconds", "3599"], f"--seconds 3599.0: {HOUR}"),
        (["--seconds", "1e12"], f"--seconds 1000000000000.0: {HOUR}"),
        (["--seeds", "1000", "-5"], "--seeds -5: expected 0 to 4294967295"),
        (["--seeds", str(10**400)], "expected 0 to 4294967295"),
        (["--replays", "-1"], "--replays -1: expected 0 to 4"),
        (["--replays", "5"], "--replays 5: expected 0 to 4"),
        (["--again", "-1"], "--again -1: expected 0 to 1000"),
        *((["--policy", name], f"--policy {name}: {FUTURE}") for name in (*TOLD, "foreseen_85")),
        *((["--acting", name], f"--acting {name}: {FUTURE}") for name in (*TOLD, "foreseen_85")),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_played(capsys, arguments, says):
    assert shadow_judge.main(["--config", str(ROOT / "config" / "boutique.yaml"), *arguments]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("shadow_judge: --") and says in said.err and said.err.count("\n") == 1
    assert not said.out


@pytest.mark.parametrize(
    ("why", "says"),
    [
        (
            f"demand fit: 9 usable minutes; collect longer under a load that varies: {COLLECT}",
            "seed 7: demand fit: 9 usable minutes; let the run last longer (--seconds), or under less load",
        ),
        ("no requests; load the application", "seed 7: no requests; load the application"),
    ],
)
def test_too_few_minutes_ask_for_a_longer_run_and_not_for_telemetry(monkeypatch, why, says):
    def fails(*_):
        raise DataError(why)

    monkeypatch.setattr(shadow_judge, "fitted_to", fails)
    monkeypatch.setattr(shadow_judge, "load_demand", lambda _: None)
    settings = load_settings(ROOT / "config" / "boutique.yaml", [])
    with pytest.raises(DataError) as caught:
        shadow_judge.foretold(SimpleNamespace(info={"seed": 7}), settings, "plan_bootstrap", 0)
    assert str(caught.value) == says
