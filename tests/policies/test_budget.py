"""A plan with a budget: which minutes violate, what it spends beyond the prior price, what it remembers."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.fakes import make_settings
from hypothesis import settings
from pydantic import ValidationError

from deepscaler.cluster import Pod, Workload
from deepscaler.control.memory import FILE, Memory
from deepscaler.control.tick import Tick
from deepscaler.labels.demand import DemandModel
from deepscaler.panel import MetricPanel
from deepscaler.planning.budget import Budget, Minute
from deepscaler.planning.plan import Prices
from deepscaler.planning.scenarios import Scenarios
from deepscaler.policies.base import Observation
from deepscaler.policies.budget import BudgetWatch, violating_minutes
from deepscaler.policies.plan import PlanPolicy

STEP, MINUTE, SLA = 15.0, 60.0, 0.2
ONE = np.ones((1, 1))
MODEL = DemandModel(
    services=("web", "db"),
    idle_cores=np.zeros(2),
    demand_seconds=np.array([0.009, 0.018]),
    limit_cores=np.array([0.1, 0.2]),
    boot_seconds=np.array([30.0, 60.0]),
    entries=("web",),
    visits=np.array([[1.0, 1.0]]),
    external_share=np.array([1.0]),
    sla_seconds=SLA,
    think_seconds=None,
    rho_max=0.9,
    sla_margin=0.75,
    response=None,
    quality={},
)
"""Each replica carries ten requests per second."""


class Doubtful:
    """Says that the load doubles from the next step but one on, with this probability."""

    def __init__(self, weight):
        self._weight = weight

    def scenarios(self, moment):
        courses = np.tile(np.array([15.0, 15.0]), (2, 20, 1))
        courses[1, 1:] *= 2
        return Scenarios(courses, np.array([1 - self._weight, self._weight]), "told")


def panel_of(minutes, responses, requests=20.0):
    """A panel of so many samples per minute; the entry's response is given for each minute."""
    times = STEP * np.arange(1, 4 * minutes + 1)
    values = np.full((len(times), 2, 2), 0.01, np.float32)
    values[:, :, 0] = requests
    values[:, 0, 1] = np.repeat(responses, 4)
    return MetricPanel(times, ("web", "db"), ("req", "res"), values)


def test_a_minute_violates_by_the_mean_that_requests_weigh():
    panel = panel_of(2, [0.1, 0.1])
    panel.values[4:, 0, 0] = [10, 10, 10, 90]
    panel.values[4:, 0, 1] = [0.5, 0.5, 0.5, 0.09]  # the mean of samples is 0.4, that of requests below 0.2
    found = violating_minutes(panel, ("web",), ONE, SLA, MINUTE, -1, 1)
    assert found == {0: False, 1: False}
    panel.values[7, 0, 1] = 0.12
    assert violating_minutes(panel, ("web",), ONE, SLA, MINUTE, -1, 1) == {0: False, 1: True}


def test_calls_between_entries_dont_weigh():
    panel = panel_of(1, [0.5])
    panel.values[:, 1, 0] = 60.0  # the page calls it three times; nobody else does
    entries = ("web", "db")
    assert violating_minutes(panel, entries, np.eye(2), SLA, MINUTE, -1, 0) == {0: False}
    among = np.array([[1.0, 3.0], [0.0, 1.0]])
    assert violating_minutes(panel, entries, among, SLA, MINUTE, -1, 0) == {0: True}


def test_minutes_without_requests_or_samples_are_unknown():
    panel = panel_of(3, [0.1, np.nan, 0.3])
    assert violating_minutes(panel, ("web",), ONE, SLA, MINUTE, -1, 3) == {
        0: False,
        1: None,
        2: True,
        3: None,
    }
    assert violating_minutes(panel, ("web",), ONE, SLA, MINUTE, 1, 2) == {2: True}
    assert violating_minutes(panel, ("gone",), ONE, SLA, MINUTE, 0, 1) == {1: None}


@settings(max_examples=50, deadline=None)
def watched(share=0.1, spending=None, day=10, prior=100.0, bounds=((1, 100),) * 2):
    budget = Budget(share, prior, spending, day)
    return BudgetWatch(budget, Prices(prior, 180.0), MODEL, SLA, STEP, None if spending is None else bounds)


def run(policy, minutes, responses, first=0, bounds=((1, 100),) * 2):
    """Decide at each sample of these minutes; what is decided runs at the next, within the bounds."""
    panel, found, limits = (
        panel_of(first + minutes, responses),
        [],
        dict(zip(("web", "db"), bounds, strict=True)),
    )
    replicas = {name: min(max(2, fewest), most) for name, (fewest, most) in limits.items()}
    for row in range(4 * first, 4 * (first + minutes)):
        part = slice(max(row - 80, 0), row + 1)
        seen = MetricPanel(panel.times[part], panel.services, panel.features, panel.values[part])
        items = [Workload(name, replicas[name], cores, cores) for name, cores in (("web", 0.1), ("db", 0.2))]
        pods = [
            pod(name, f"{name}-{number}", True) for name, count in replicas.items() for number in range(count)
        ]
        found.append(policy.decide(Observation(float(panel.times[row]), seen, items, pods)))
        wanted = {name: int(proposal.target) for name, proposal in found[-1].items()}
        replicas = {name: min(max(wanted[name], fewest), most) for name, (fewest, most) in limits.items()}
    return found


def pod(service, name, ready):
    return Pod(
        service=service, name=name, phase="Running", deleting=False, start_time=0.0, ready=ready,
        ready_since=0.0, usage_cores=None, usage_time=None, usage_window_seconds=None, cpu_request_cores=None,
    )  # fmt: skip


def planned(watch, weight=0.3):
    source, prices = Doubtful(weight), Prices(100.0, 180.0)
    return PlanPolicy(MODEL, source, None, prices, 3600.0, STEP, "plan_test", budget=watch)


def test_calm_days_make_the_plan_leaner_and_describe_says_why():
    policy = planned(watched(share=0.3))
    assert run(policy, 25, [0.05] * 25)[0]["web"].target == 3.0
    assert run(policy, 1, [0.05] * 26, first=25)[0]["web"].target == 2.0  # from two replicas again
    said = policy.describe()["budget"]
    assert said["asked"] == 0.3
    assert (said["consumed"], said["unknown"]) == (0.0, 0)
    assert said["price"] < said["prior_price"] == 100.0
    assert said["note"] == "the lowest price already keeps it"
    outlook = policy.outlook().budget
    assert (outlook.asked, outlook.consumed) == (0.3, 0.0)


def test_violations_beyond_the_budget_raise_the_price_up_to_the_ceiling_on_spending():
    free, capped = (planned(watched(spending=most), weight=0.05) for most in (9.0, 1.2))
    for policy in (free, capped):
        run(policy, 19, [0.05] * 2 + [0.3] * 17)
    said = free.describe()["budget"]
    assert said["price"] > 1000.0
    assert 1.3 < said["spending"] <= 1.5  # three replicas instead of the prior's two
    said = capped.describe()["budget"]
    assert 1.0 < said["spending"] < 1.25
    assert said["price"] < free.describe()["budget"]["price"]
    assert said["note"].startswith("can't be met: more would spend over 1.2 times")


def test_what_happened_before_the_controller_began_isnt_its_doing():
    policy = planned(watched(day=10))
    run(policy, 5, [0.9] * 20 + [0.05] * 5, first=20)
    assert policy.describe()["budget"]["violating"] == 0


def test_a_restart_goes_on_and_judges_the_minutes_between(tmp_path):
    first = planned(watched(day=10))
    memory = Memory(tmp_path, lambda: first)
    run(first, 30, [0.05] * 30)
    memory(Tick(1800.0, 0.0, 0.0, "act", (), {}, None))
    again = planned(watched(day=10))
    Memory(tmp_path, lambda: again)
    assert again.describe()["budget"] == pytest.approx(first.describe()["budget"])
    run(again, 1, [0.05] * 30 + [0.3] * 4 + [0.05], first=34)
    said = again.describe()["budget"]
    assert (said["violating"], said["known"]) == (4, 10)


def test_a_broken_memory_is_left_out_and_the_policy_begins_anew(tmp_path, caplog):
    for text in ("{", '{"budget": {"minutes": 3}}', "[]"):
        (tmp_path / FILE).write_text(text)
        policy = planned(watched(day=10))
        Memory(tmp_path, lambda policy=policy: policy)
        assert policy.describe()["budget"]["known"] == 0
    assert len(caplog.records) == 3


def test_a_policy_without_a_budget_leaves_no_file(tmp_path):
    policy = PlanPolicy(MODEL, Doubtful(0.3), None, Prices(100.0, 180.0), 3600.0, STEP, "plan_test")
    Memory(tmp_path, lambda: policy)(Tick(0.0, 0.0, 0.0, "act", (), {}, None))
    assert not (tmp_path / FILE).exists()


def test_a_number_is_short_for_a_share():
    short = make_settings(budget=0.01).scale.budget
    assert short == make_settings(budget={"share": 0.01}).scale.budget
    assert (short.share, short.spending, short.window) == (0.01, 1.5, 86400.0)
    assert make_settings().scale.budget is None
    for wrong in (1.5, 0, {"share": 0.01, "spending": 0.9}, {"spending": 2.0}):
        with pytest.raises(ValidationError, match=r"scale\.budget"):
            make_settings(budget=wrong)


def test_a_step_longer_than_a_minute_is_judged_as_the_evaluation_judges_it():
    panel = MetricPanel(
        120.0 * np.arange(1, 4), ("web", "db"), ("req", "res"),
        np.array([[[9.0, 0.3]] * 2, [[9.0, 0.1]] * 2, [[9.0, 0.3]] * 2], np.float32),
    )  # fmt: skip
    assert violating_minutes(panel, ("web",), ONE, SLA, 120.0, -1, 2) == {0: True, 1: False, 2: True}


@pytest.mark.parametrize(
    ("bounds", "spending"), [(((1, 100),) * 2, 1.4), (((3, 100),) * 2, 1.0), (((1, 1),) * 2, 1.0)]
)
def test_what_the_rails_decide_is_no_spending_of_the_price(bounds, spending):
    policy = planned(watched(spending=9.0, bounds=bounds), weight=0.05)
    run(policy, 19, [0.05] * 2 + [0.3] * 17, bounds=bounds)
    assert policy.describe()["budget"]["spending"] == pytest.approx(spending, abs=0.1)


def test_a_service_that_its_owner_set_to_nothing_spends_nothing_at_any_price():
    watch = watched(spending=9.0)
    policy = planned(watch, weight=0.05)
    run(policy, 19, [0.05] * 2 + [0.3] * 17, bounds=((1, 100), (0, 0)))
    assert watch.shadow(19 * MINUTE).ready.tolist()[1] == 0


def test_a_clock_that_was_set_back_is_not_taken_for_the_first_day():
    budget = Budget(0.01, 100.0, None)
    budget.observe(Minute(number, number % 50 == 0) for number in range(3000))
    price = budget.price
    budget.rewind(-5)
    budget.observe([Minute(-4, False)])
    account = budget.account()
    assert account.price == price != account.prior_price
    assert account.note == "less than a day is known: the price stays"
