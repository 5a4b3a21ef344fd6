"""The policy of the plan by cost: what runs, when the floor decides, and what the guard rails leave to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.fakes import make_settings

from deepscaler.artefacts import utc_text
from deepscaler.cluster import Pod, Workload
from deepscaler.control.decision import Stance
from deepscaler.control.guard_rails import decide
from deepscaler.control.recommendations import RecommendationHistory
from deepscaler.labels.demand import DemandModel
from deepscaler.panel import MetricPanel
from deepscaler.planning.plan import Prices, plan_replicas
from deepscaler.planning.scenarios import Scenarios
from deepscaler.policies.base import Observation, Proposal, Reason
from deepscaler.policies.plan import PlanPolicy, running_now
from deepscaler.policies.planned import plan_policy

NOW, STEP = 10_000.0, 15.0
MODEL = DemandModel(
    services=("web", "db"),
    idle_cores=np.zeros(2),
    demand_seconds=np.array([0.009, 0.018]),
    limit_cores=np.array([0.1, 0.2]),
    boot_seconds=np.array([30.0, np.nan]),
    entries=("web",),
    visits=np.array([[1.0, 1.0]]),
    external_share=np.array([1.0]),
    sla_seconds=0.2,
    think_seconds=None,
    rho_max=0.9,
    sla_margin=0.75,
    response=None,
    quality={},
)
"""Each replica carries ten requests per second."""


class Told:
    """Says that the rates go on as they are given, for ten steps."""

    def __init__(self, *rates):
        self.rates, self.asked = np.array(rates, np.float64), 0

    def scenarios(self, moment):
        self.asked += 1
        if not len(self.rates):
            return None
        return Scenarios(np.tile(self.rates, (1, 10, 1)), np.ones(1), "truth")


class Floor:
    """A reactive floor of fixed replicas."""

    history_seconds = 60.0

    def __init__(self, **replicas):
        self._replicas = {name: float(value) for name, value in replicas.items()}

    def replicas(self, observation):
        return self._replicas


def workload(service, replicas=2):
    return Workload(service, replicas, {"db": 0.2}.get(service, 0.1), 0.1)


def pod(service, name, ready, start=NOW - 1000, deleting=False):
    return Pod(
        service=service, name=name, phase="Running", deleting=deleting, start_time=start,
        ready=ready, ready_since=start, usage_cores=None, usage_time=None,
        usage_window_seconds=None, cpu_request_cores=None,
    )  # fmt: skip


def observed(*workloads, pods=()):
    values = np.ones((4, 2, 2), np.float32) * np.array([20.0, 0.01], np.float32)
    panel = MetricPanel(NOW - STEP * np.arange(3, -1, -1.0), ("web", "db"), ("req", "res"), values)
    pods = pods or [
        pod(item.service, f"{item.service}-{number}", True)
        for item in workloads
        for number in range(item.replicas)
    ]
    return Observation(NOW, panel, workloads, pods)


def policy(source, floor=None):
    return PlanPolicy(MODEL, source, floor, Prices(100.0, 180.0), 3600.0, STEP, "plan_test")


def test_what_the_scenarios_need_is_proposed_for_all_services_at_once():
    found = policy(Told([35.0, 12.0])).decide(observed(workload("web"), workload("db")))
    assert found == {
        "web": Proposal(4.0, Reason.PLAN, 4.0, None, True, "4 needed now in 1 of 1 scenarios"),
        "db": Proposal(2.0, Reason.PLAN, 2.0, None, True, "2 needed now in 1 of 1 scenarios"),
    }


@pytest.mark.parametrize(("surprise", "passed"), [(None, 0.0), (1.0, 1.0)])
def test_settings_for_comparison_change_what_the_plan_sees(monkeypatch, surprise, passed):
    seen = []

    def noted(needs, weights, *arguments):
        seen.append((needs, arguments[-1]))
        return plan_replicas(needs, weights, *arguments)

    class Two(Told):
        def scenarios(self, moment):
            rates = np.stack([np.full((10, 2), 5.0 + 30 * k) for k in range(8)])
            return Scenarios(rates, np.full(8, 0.125), "truth")

    monkeypatch.setattr("deepscaler.policies.plan.plan_replicas", noted)
    settings = make_settings(plan={"surprise": surprise, "apart": "services"}, floor={"enabled": False})
    plan_policy(settings, MODEL, Two(), "plan_test").decide(observed(workload("web"), workload("db")))
    (needs, told) = seen[0]
    assert told == passed
    assert (needs[:, 0, 0] != needs[:, 0, 1]).any()  # services no longer rise together
    assert (needs == needs[:, :1]).all()  # steps still do


def test_the_floor_only_raises():
    found = policy(Told([35.0, 12.0]), Floor(web=5, db=1)).decide(observed(workload("web"), workload("db")))
    assert (found["web"].target, found["web"].reason) == (5.0, Reason.FLOOR)
    assert (found["db"].target, found["db"].reason) == (2.0, Reason.PLAN)


def test_without_a_plan_the_floor_decides_and_waits_for_the_window_as_ever():
    found = policy(Told(), Floor(web=3)).decide(observed(workload("web"), workload("db")))
    assert found["web"] == Proposal(3.0, Reason.FLOOR, floor=3.0)
    assert found["db"] == Proposal(None, Reason.HELD_MISSING)


def test_a_service_that_the_fit_doesnt_know_goes_by_the_floor():
    found = policy(Told([35.0, 12.0]), Floor(cache=2)).decide(observed(workload("web"), workload("cache")))
    assert found["cache"] == Proposal(2.0, Reason.FLOOR, floor=2.0)


def test_scenarios_that_are_not_finite_are_no_plan():
    found = policy(Told([np.nan, 12.0]), Floor(web=3, db=1)).decide(observed(workload("web"), workload("db")))
    assert {item.reason for item in found.values()} == {Reason.FLOOR}


def test_it_remembers_since_when_which_source_decided():
    source = Told([35.0, 12.0])
    planning = policy(source, Floor(web=3, db=1))
    seen = observed(workload("web"), workload("db"))
    for rates in ([[35.0, 12.0]], [[35.0, 12.0]], [], [[np.nan, 12.0]], [[35.0, 12.0]]):
        source.rates = np.array(rates)
        planning.decide(seen)
    assert [name for _, name in planning.describe()["scenario_sources"]] == ["truth", "none", "truth"]
    assert planning.describe()["scenario_sources"][0][0] == utc_text(NOW)


def test_a_limit_that_changed_after_the_fit_counts_at_once():
    halved = Workload("web", 2, 0.05, 0.05)
    found = policy(Told([35.0, 12.0])).decide(observed(halved, workload("db")))
    assert found["web"].target == 7.0 and found["db"].target == 2.0


def test_replicas_that_start_count_from_when_they_will_be_ready():
    pods = [pod("web", "a", True), pod("web", "b", False, NOW - 20), pod("web", "gone", True, deleting=True)]
    running = running_now(
        ("web", "db"), np.array([30.0, 0.0]), observed(workload("web", 4), workload("db", 1), pods=pods)
    )
    assert running.ready.tolist() == [1, 0]
    assert running.remaining == ((10.0, 30.0, 30.0), (1.0,))


def test_pods_beyond_the_spec_do_not_count():
    pods = [pod("web", name, True) for name in "abc"]
    running = running_now(("web",), np.array([30.0]), observed(workload("web", 2), pods=pods))
    assert running.ready.tolist() == [2] and running.remaining == ((),)


@pytest.mark.parametrize(
    ("planned", "target", "reason"), [(True, 2, Reason.PLAN), (False, 6, Reason.STABILIZED)]
)
def test_a_plan_waits_for_no_stabilization_window_and_everything_else_does(planned, target, reason):
    rails = make_settings().scale.guard_rails
    history = RecommendationHistory(rails.scale_down_window)
    history.record("web", NOW - 10, 6)
    proposal = {"web": Proposal(2.0, Reason.PLAN, 2.0, planned=planned)}
    found = decide(proposal, [workload("web", 6)], history, NOW, rails=rails, stance=Stance())
    assert (found[0].target, found[0].reason) == (target, reason)


def test_trouble_holds_a_plan_as_well():
    rails = make_settings().scale.guard_rails
    proposal = {"web": Proposal(2.0, Reason.PLAN, 2.0, planned=True)}
    stance = Stance(no_scale_down=frozenset({"web"}))
    found = decide(
        proposal, [workload("web", 6)], RecommendationHistory(0.0), NOW, rails=rails, stance=stance
    )
    assert (found[0].target, found[0].reason) == (6, Reason.HELD_TROUBLE)


@pytest.mark.parametrize("unknown", [1, 3, 100])
def test_the_time_before_the_first_sample_is_no_history(unknown):
    """A controller that has just started asks for hours and gets minutes: the rest isn't a constant load."""
    seen = []

    class Source:
        def scenarios(self, moment):
            seen.append((len(moment.rates), len(moment.panel)))

    observation = observed(workload("web"), workload("db"))
    panel = observation.panel
    values = np.concatenate([np.full((unknown, 2, 2), np.nan, np.float32), panel.values])
    times = NOW - STEP * np.arange(len(values) - 1, -1, -1.0)
    late = replace(observation, panel=MetricPanel(times, panel.services, panel.features, values))
    policy(Source()).decide(late)
    assert seen == [(4, 4)]


def never_called(observation, service):
    panel = observation.panel
    values = panel.values.copy()
    values[:, panel.services.index(service)] = np.nan
    return replace(observation, panel=replace(panel, values=values))


def test_a_service_of_which_nothing_was_ever_known_goes_by_the_floor():
    apart = replace(MODEL, entries=("web", "db"), visits=np.eye(2), external_share=np.array([0.5, 0.5]))
    seen = never_called(observed(workload("web"), workload("db", 4)), "db")
    source, prices = Told([35.0, 0.0]), Prices(100.0, 180.0)
    found = PlanPolicy(apart, source, Floor(web=1), prices, 600.0, STEP, "plan_test").decide(seen)
    assert (found["web"].target, found["web"].reason) == (4.0, Reason.PLAN)
    assert found["db"] == Proposal(None, Reason.HELD_MISSING)


def test_a_service_that_nobody_calls_needs_one_replica():
    apart = replace(MODEL, entries=("web", "db"), visits=np.eye(2), external_share=np.array([0.5, 0.5]))
    seen = observed(workload("web"), workload("db", 4))
    seen.panel.values[:, 1, 0] = 0.0
    source, prices = Told([35.0, 0.0]), Prices(100.0, 180.0)
    found = PlanPolicy(apart, source, Floor(web=1), prices, 600.0, STEP, "plan_test").decide(seen)
    assert (found["db"].target, found["db"].reason) == (1.0, Reason.PLAN)


def test_a_service_that_neither_the_fit_nor_the_floor_knows_is_said_to_be_unknown():
    found = policy(Told([35.0, 12.0])).decide(observed(workload("web"), workload("cache")))
    assert found["cache"] == Proposal(None, Reason.UNKNOWN_SERVICE)


def test_the_time_before_the_first_request_is_no_history():
    """Pods and their usage are known for hours, requests since the mesh came."""
    seen = []

    class Source:
        def scenarios(self, moment):
            seen.append((len(moment.rates), len(moment.panel)))

    observation = observed(workload("web"), workload("db"))
    observation.panel.values[:2, :, 0] = np.nan
    policy(Source()).decide(observation)
    assert seen == [(2, 2)]


@pytest.mark.parametrize("phase", ["Failed", "Succeeded", "Unknown"])
def test_pods_that_have_ended_are_not_starting(phase):
    pods = [
        pod("web", "a", True),
        pod("web", "b", True),
        replace(pod("web", "evicted", False), phase=phase),
        pod("web", "c", False, NOW - 5),
    ]
    running = running_now(("web",), np.array([120.0]), observed(workload("web", 3), pods=pods))
    assert running.ready.tolist() == [2] and running.remaining == ((115.0,),)


@pytest.mark.parametrize(("most", "target"), [(30, 31.0), (3000, 2000.0)])
def test_a_need_beyond_the_maximum_is_one_more_so_that_the_rail_says_so(most, target):
    prices, source = Prices(100.0, 180.0), Told([20_000.0, 12.0])
    planning = PlanPolicy(MODEL, source, None, prices, 600.0, STEP, "plan_test", most=(most, most))
    found = planning.decide(observed(workload("web"), workload("db")))
    assert (found["web"].target, found["db"].target) == (target, 2.0)


def test_the_rail_that_cuts_a_need_says_so():
    rails = make_settings(guard_rails={"max_replicas": 30}).scale.guard_rails
    found = {"web": Proposal(31.0, Reason.PLAN, 31.0, planned=True)}
    history = RecommendationHistory(rails.scale_down_window)
    [cut] = decide(found, [workload("web", 28)], history, NOW, rails=rails, stance=Stance())
    assert (cut.target, cut.reason) == (30, Reason.MAX_REPLICAS)
