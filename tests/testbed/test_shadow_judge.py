"""How a shadow is judged: on clusters that a replay doesn't know, and against what happened."""

import pytest
from helpers.paths import ROOT

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
