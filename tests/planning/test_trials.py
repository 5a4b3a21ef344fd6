"""Ways of foreseeing on trial: what following each would have cost, and who leads when."""

import numpy as np
import pytest

from deepscaler.planning.plan import Prices, Running
from deepscaler.planning.scenarios import ANALOGS, TOGETHER, Desk, Moment, Scenarios
from deepscaler.planning.trials import Trials

STEP = 15.0
PRICES = Prices(100.0, 180.0)


class Says:
    """Ways that want a known number of replicas of the only service, whatever comes."""

    def __init__(self, **wanted):
        self.wanted = {
            name: Scenarios(np.full((1, 4, 1), float(count)), np.ones(1), name)
            for name, count in wanted.items()
        }

    def ways(self, moment):
        return self.wanted


class Planner:
    """Decides for what the first scenario says, and counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, found, running):
        self.asked += 1
        return found.rates[0, 0].astype(np.int64)


def moment(now, needed, planner=None, ready=2, remaining=()):
    desk = Desk(
        np.array([needed]), Running(np.array([ready]), (tuple(remaining),)), np.array([0.5]),
        np.array([30.0]), PRICES, planner or Planner(),
    )  # fmt: skip
    return Moment(now, np.ones((1, 1)), None, desk)


def played(trials, needs, start=0.0):
    """Who leads at each tick."""
    return [trials.scenarios(moment(start + STEP * tick, need)).source for tick, need in enumerate(needs)]


def test_what_a_way_costs_is_what_it_holds_lacks_and_starts():
    trials = Trials(Says(lean=2, ample=4), STEP, half_life=np.inf)
    played(trials, [2, 2])  # a tick of holding; ample has started two
    assert trials.costs == pytest.approx({"lean": 15.0, "ample": 15 * 4 / 2 + 2 * 180 / 2})
    trials.scenarios(moment(2 * STEP, 4))
    lean = 15.0 + 15 * (2 + 100 * 2) / 4  # two replicas were missing
    ample = 210.0 + 15 * (4 + 100 * 2) / 4  # its two were still starting
    assert trials.costs == pytest.approx({"lean": lean, "ample": ample})
    trials.scenarios(moment(3 * STEP, 4))
    assert trials.costs == pytest.approx(
        {"lean": lean + 15 * 202 / 4, "ample": ample + 15}
    )  # ready after 30 s


def test_replicas_that_are_starting_stop_first_and_cost_nothing_later():
    trials = Trials(Says(one=4, other=2), STEP, half_life=np.inf)
    trials.scenarios(moment(0.0, 2))
    trials._ways = Says(one=3, other=2)
    trials.scenarios(moment(STEP, 2))
    before = trials.costs["one"]
    trials.scenarios(moment(2 * STEP, 2))
    assert trials.costs["one"] - before == pytest.approx(15 * 3 / 2)


def test_the_first_way_leads_until_another_was_cheaper_by_the_head_start():
    calm = played(
        Trials(Says(ample=4, lean=2), STEP, half_life=np.inf, head_starts={"ample": 600.0}), [2] * 40
    )
    assert calm[:20] == ["ample"] * 20 and calm[-1] == "lean"
    changed = calm.index("lean")  # 180 s for two starts, then 15 s each tick
    assert 180 + 15 * (changed - 1) <= 600 < 180 + 15 * changed


def test_without_a_season_its_head_start_is_nobodys():
    both, lean = (Scenarios(np.full((1, 4, 1), float(n)), np.ones(1), str(n)) for n in (4, 2))

    class Ways:
        def ways(self, moment):
            return {"together": both, "season": both, "past": lean}

    starts = {"together": 300.0, "season": 9000.0}
    leaders = played(Trials(Ways(), STEP, half_life=np.inf, head_starts=starts), [2] * 20)
    changed = leaders.index("2")
    assert 180 + 15 * (changed - 1) <= 300 < 180 + 15 * changed


def test_a_season_that_is_none_leads_no_longer_than_its_head_start_lasts():
    """The season says that four are needed when two are, and two when four are."""
    false, needs = Says(season=2, together=4), [4] * 30
    leaders = played(Trials(false, STEP), needs)
    assert leaders[0] == "season" and leaders.count("season") < 5 and leaders[-1] == "together"


def test_a_way_that_was_prepared_leads_again_after_a_jump():
    trials = Trials(Says(ample=4, lean=2), STEP, half_life=3600.0)
    leaders = played(trials, [2] * 60 + [4] * 4 + [2] * 20)
    assert leaders[59] == "lean" and leaders[62] == "ample" and leaders[-1] == "ample"


def test_old_cost_fades_and_a_steady_loss_below_the_head_start_is_never_enough():
    half_life, needs = 1200.0, [20] * 800
    trials = Trials(Says(ample=21, lean=20), STEP, half_life=half_life, head_starts={"ample": 200.0})
    assert set(played(trials, needs)) == {"ample"}  # 5 % more for ever adds up to 87 s
    assert trials.costs["lean"] == pytest.approx(half_life / np.log(2), rel=0.02)


def test_where_there_is_nothing_to_choose_nothing_is_planned_on_paper():
    planner, found = Planner(), Scenarios(np.full((1, 4, 1), 3.0), np.ones(1), "season")

    class Same:
        def ways(self, moment):
            return {"together": found, "live": found, "network": found}

    trials = Trials(Same(), STEP)
    assert {trials.scenarios(moment(STEP * tick, 3, planner)).source for tick in range(5)} == {"season"}
    assert planner.asked == 0


def test_ways_that_agree_with_the_same_replicas_are_planned_once():
    planner, found = Planner(), Scenarios(np.full((1, 4, 1), 3.0), np.ones(1), "both")
    other = Scenarios(np.full((1, 4, 1), 2.0), np.ones(1), "other")

    class Two:
        def ways(self, moment):
            return {"together": found, "live": found, "network": other}

    trials = Trials(Two(), STEP)
    for tick in range(5):
        trials.scenarios(moment(STEP * tick, 3, planner))
    assert planner.asked == 10
    assert trials.costs["together"] == trials.costs["live"] != trials.costs["network"]


def test_after_a_pause_paper_starts_again_from_what_runs_and_keeps_the_costs():
    trials = Trials(Says(lean=2, ample=4), STEP, half_life=np.inf)
    played(trials, [2, 2])
    before = dict(trials.costs)
    trials.scenarios(moment(3600.0, 2))  # an hour later: nothing is charged for it
    assert trials.costs["lean"] == before["lean"]
    assert trials.costs["ample"] == pytest.approx(before["ample"] + 180)  # two starts, from the two that run


@pytest.mark.parametrize("back", [-3600.0, 0.0])
def test_a_clock_that_steps_back_charges_nothing(back):
    trials = Trials(Says(lean=2), STEP)
    played(trials, [2, 2])
    before = dict(trials.costs)
    trials.scenarios(moment(STEP + back, 2))
    assert trials.costs == before


def test_costs_of_an_earlier_controller_are_taken_over():
    trials = Trials(Says(ample=4, lean=2), STEP, head_starts={"ample": 500.0})
    trials.restore({"ample": 900.0, "lean": 300.0, "gone": float("nan"), "odd": "text"})
    assert trials.scenarios(moment(0.0, 2)).source == "lean"


def test_without_any_way_there_are_no_scenarios_and_without_a_desk_the_first_way_leads():
    assert Trials(Says(), STEP).scenarios(moment(0.0, 2)) is None
    assert Trials(Says(one=1, two=2), STEP).scenarios(Moment(0.0, np.ones((1, 1)), None)).source == "one"


def test_it_tells_who_led_and_what_each_cost():
    trials = Trials(Says(lean=2, ample=4), STEP, half_life=np.inf)
    played(trials, [2, 2])
    assert trials.describe() == {"led": {"lean": 2}, "cost_seconds": {"lean": 15.0, "ample": 210.0}}


def test_analogs_lead_alone_after_a_few_cheaper_ticks_and_the_live_past_after_a_whole_step():
    """The mixture holds a replica of two more than each of its parts, for half of what was needed."""
    needs = [2] * 120
    for name, most in ((ANALOGS, 20.0), ("past", 500.0)):
        led = played(Trials(Says(**{TOGETHER: 3, name: 2}), STEP, half_life=np.inf), needs)
        changed = led.index(name)
        started = 180.0 / 2
        assert most - 2 * STEP < started + changed * STEP / 2 <= max(most, started) + 2 * STEP
