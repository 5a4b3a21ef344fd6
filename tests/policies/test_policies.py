"""The policies: what each proposes, and what making one asks for."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bundles import write_bundle
from helpers.fakes import START, FakeCluster, make_settings
from hypothesis import given
from hypothesis import strategies as st

from deepscaler.control.controller import Controller
from deepscaler.control.self_metrics import exposition
from deepscaler.control.watch import Watch
from deepscaler.errors import BundleError, DataError, MetricsError, SettingsError
from deepscaler.labels.demand import DemandModel
from deepscaler.learning.bundle_file import read_bundle_file
from deepscaler.learning.description import check_bundle, expected_by, load_demand
from deepscaler.panel import MetricPanel
from deepscaler.policies.base import Observation, Proposal, Reason
from deepscaler.policies.deepscaler import DeepScalerPolicy
from deepscaler.policies.explore import ExplorePolicy
from deepscaler.policies.oracle import ForeseenPolicy, OraclePolicy
from deepscaler.policies.reactive import (
    FrontPolicy,
    OneByOnePolicy,
    ReactiveFloor,
    ReactivePolicy,
    usage_floor,
)
from deepscaler.policies.registry import POLICIES, make_policy
from deepscaler.policies.static import StaticPolicy
from deepscaler.settings import Floor, Settings

NAN = float("nan")
NAMES = ("web", "api", "db")


def observe(cluster: FakeCluster, seconds: float = 120.0) -> Observation:
    return Observation(
        cluster.now(),
        cluster.metrics(cluster.now() - seconds + 15, cluster.now(), 15.0),
        cluster.workloads(),
        cluster.pods(),
    )


def demand_of(names: Sequence[str] = NAMES, seconds: float = 0.1, entry: str = "web") -> DemandModel:
    """One core a replica, one visit each per request at the entry, no idle use and no response part."""
    ones = np.ones(len(names))
    return DemandModel(
        services=tuple(names), idle_cores=0 * ones, demand_seconds=seconds * ones, limit_cores=ones,
        boot_seconds=20 * ones,
        entries=(entry,), visits=ones[None], external_share=np.ones(1), sla_seconds=0.2, think_seconds=None,
        rho_max=0.9,
        sla_margin=0.75, response=None, quality={},
    )  # fmt: skip


class FakeForecaster:
    """Forecasts what it is told; counts how often it is asked."""

    history_seconds = 4800.0

    def __init__(
        self, table: Sequence[Sequence[float]], services: tuple[str, ...] = NAMES, label: str = "required"
    ) -> None:
        self.services, self.label, self.table, self.asked = services, label, np.array(table, np.float32), []

    def forecast(self, panel: MetricPanel) -> np.ndarray:
        self.asked.append(float(panel.times[-1]))
        return self.table


def deepscaler(
    forecaster: FakeForecaster, demand: DemandModel | None = None, floor: bool = True
) -> DeepScalerPolicy:
    return DeepScalerPolicy(forecaster, ReactiveFloor(demand, Floor()) if floor else None, 60.0, 15.0)


# --------------------------------------------------------------------------------------------- static, oracle
def test_static_proposes_what_is_set_or_what_is():
    cluster = FakeCluster(replicas={"api": 7})
    proposals = StaticPolicy({"web": 3}, 60.0).decide(observe(cluster))
    assert {name: proposal.target for name, proposal in proposals.items()} == {"web": 3, "api": 7, "db": 4}


def test_static_holds_its_replicas_against_edits():
    cluster = FakeCluster()
    settings = make_settings(static_replicas={"web": 3})
    Controller(cluster, make_policy("static", settings), settings).run(60.0)
    assert cluster.writes == [{"web": 3}]


@pytest.mark.parametrize(
    ("age", "row"), [(-100, 0), (0, 0), (59, 0), (60, 1), (60 - 1e-9, 1), (130, 2), (9999, 2)]
)
def test_the_oracle_looks_up_the_row_of_now(age, row):
    policy = OraclePolicy([START, START + 60, START + 120], {"web": [1, 5, 9]})
    observation = Observation(START + age, observe(FakeCluster()).panel, [], [])
    assert policy.decide(observation)["web"].target == [1, 5, 9][row]
    assert policy.replicas_at([START + age]) == {"web": [[1, 5, 9][row]]}


@pytest.mark.parametrize(
    ("times", "table"), [([], {}), ([2.0, 1.0], {"web": [1, 1]}), ([1.0, 2.0], {"web": [1]})]
)
def test_a_broken_oracle_is_refused(times, table):
    with pytest.raises(SettingsError, match="oracle"):
        OraclePolicy(times, table)


# ---------------------------------------------------------------------------------------------------- explore
def explore(seed: int = 1, utilisation: tuple[float, float] = (0.35, 0.95)) -> ExplorePolicy:
    return ExplorePolicy(seed, utilisation, (180.0, 600.0))


def explored(
    seed: int,
    cluster: FakeCluster | None = None,
    ticks: int = 240,
    utilisation: tuple[float, float] = (0.35, 0.95),
) -> np.ndarray:
    """Targets `[ticks, N]` at a constant usage of six replicas' worth."""
    policy, cluster = (
        explore(seed, utilisation),
        cluster
        or FakeCluster(values={(name, "cpu"): 0.6 for name in NAMES}, replicas=dict.fromkeys(NAMES, 10)),
    )
    targets = []
    for _ in range(ticks):
        targets.append([policy.decide(observe(cluster))[name].target for name in NAMES])
        cluster.sleep_until(cluster.now() + 15)
    return np.array(targets)


def test_exploring_covers_the_range_and_never_starves():
    targets = np.concatenate([explored(seed) for seed in range(5)])
    utilisation = 6.0 / targets
    assert utilisation.max() <= 0.98
    assert utilisation.max() > 0.85
    assert utilisation.min() < 0.45
    assert len(np.unique(targets)) >= 8


def test_exploring_redraws_each_service_at_its_own_times_every_few_minutes():
    changes = np.diff(explored(3), axis=0) != 0
    assert (changes.sum(axis=0) >= 4).all()
    assert (changes.sum(axis=0) <= 20).all()
    assert not (changes.sum(axis=1) == 3).any()


def test_exploring_depends_on_the_seed_only():
    assert np.array_equal(explored(1), explored(1))
    assert not np.array_equal(explored(1), explored(2))


def test_pods_that_start_dont_make_a_service_look_idle():
    """Half of a limit over eight containers are four limits in use, though only five are ready."""
    cluster = FakeCluster(values={("web", "cpu"): 0.5}, replicas={"web": 8}, unready={"web": 3})
    floor = ReactiveFloor(None, Floor(rho_max=0.8)).replicas(observe(cluster))
    assert floor["web"] == math.ceil(4 / 0.8)
    cluster.unready["web"] = 0
    assert ReactiveFloor(None, Floor(rho_max=0.8)).replicas(observe(cluster))["web"] == math.ceil(4 / 0.8)
    targets = []
    for unready in (0, 3):
        cluster.unready["web"] = unready
        targets.append(explore(utilisation=(0.5, 0.51)).decide(observe(cluster))["web"].target)
    assert targets[0] == targets[1]


def test_a_saturated_service_is_relieved_by_its_ready_replicas():
    """Four are saturated; those that start use nothing yet, and count in the share of the limit."""
    cluster = FakeCluster(values={("web", "cpu"): 4 / 8}, replicas={"web": 8}, unready={"web": 4})
    policy = explore(utilisation=(0.94, 0.95))
    first = policy.decide(observe(cluster))["web"].target
    cluster.replicas["web"], cluster.unready["web"] = 12, 8  # more are starting: no reason for still more
    cluster.values["web", "cpu"] = 4 / 12
    assert first >= 5
    assert policy.decide(observe(cluster))["web"].target == first


def test_exploring_without_data_holds():
    cluster = FakeCluster(values={("web", "cpu"): NAN})
    assert explore().decide(observe(cluster))["web"].target is None


def on_a_real_cluster(**explore: object) -> Settings:
    settings = make_settings(explore={"allow": True, **explore})
    return settings.model_copy(update={"cluster": settings.cluster.model_copy(update={"kind": "kubernetes"})})


def test_exploring_a_real_cluster_has_to_be_asked_for():
    make_policy("explore", make_settings())  # the testbed's needs no leave
    make_policy("explore", on_a_real_cluster())
    with pytest.raises(SettingsError, match=r"with --set scale\.explore\.allow=true") as error:
        make_policy("explore", on_a_real_cluster(allow=False))
    assert "\n" not in str(error.value)
    dry = on_a_real_cluster(allow=False)
    make_policy("explore", dry.model_copy(update={"scale": dry.scale.model_copy(update={"dry_run": True})}))


def test_exploring_a_real_cluster_keeps_to_the_guard_rails():
    """One replica's worth is used: draws ask for 1 to 4 replicas, the rails allow 2 to 3 and steps of one."""
    settings = on_a_real_cluster(seconds=[30, 60])
    rails = settings.scale.guard_rails.model_copy(
        update={"min_replicas": 2, "max_replicas": 3, "max_step_down": 1, "scale_down_window": 0.0}
    )
    settings = settings.model_copy(update={"scale": settings.scale.model_copy(update={"guard_rails": rails})})
    cluster = FakeCluster(values={(name, "cpu"): 0.25 for name in NAMES})  # of 4 replicas
    Controller(cluster, make_policy("explore", settings), settings).run(3600.0)
    asked = [write[name] for write in cluster.writes for name in write]
    assert set(asked) == {2, 3}


@pytest.mark.parametrize(
    ("risk", "values"),
    [
        ("slow", {("web", "res"): 0.11}),
        ("response unknown", {("web", "res"): NAN}),
        ("requests unknown", {("web", "req"): NAN}),
    ],
)
def test_exploring_pauses_while_the_sla_is_at_risk(risk, values):
    settings = on_a_real_cluster(seconds=[15, 30])
    calm = {(name, "cpu"): 0.2 for name in NAMES}
    cluster = FakeCluster(values={**calm, **values, ("api", "cpu"): 0.9}, replicas=dict.fromkeys(NAMES, 6))
    policy = make_policy("explore", settings)
    for _ in range(40):
        proposals = policy.decide(observe(cluster))
        assert {proposal.reason for proposal in proposals.values()} == {Reason.SLA_AT_RISK}
        assert proposals["db"].target == 6  # nothing is taken away
        assert proposals["api"].target >= math.ceil(6 * 0.9 / 0.7)  # the busy one is relieved
        cluster.sleep_until(cluster.now() + 15)


def test_exploring_goes_on_after_five_calm_minutes():
    cluster = FakeCluster(values={("web", "res"): lambda time: 0.3 if time < START + 60 else 0.05})
    policy, reasons = make_policy("explore", on_a_real_cluster()), []
    for _ in range(40):
        reasons.append((cluster.now() - START, policy.decide(observe(cluster))["db"].reason))
        cluster.sleep_until(cluster.now() + 15)
    paused = [age for age, reason in reasons if reason is Reason.SLA_AT_RISK]
    assert paused == [15.0 * k for k in range(len(paused))]
    assert 60 + 300 - 15 <= paused[-1] < 60 + 60 + 300  # the minute's mean has to fall first


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_is_set_changes_neither_draws_nor_pauses_of_exploring(jump):
    """From the fifth tick on, the wall clock is an hour off."""
    risky = {("web", "res"): lambda time: 0.3 if time < START + 30 else 0.05}
    decided = []
    for ahead in (0.0, jump):
        cluster = FakeCluster(values=risky)
        policy = make_policy("explore", on_a_real_cluster())
        decided.append([])
        for tick in range(60):
            seen, wall = observe(cluster), ahead if tick >= 4 else 0.0
            panel = replace(seen.panel, times=seen.panel.times + wall)
            moved = replace(seen, now=seen.now + wall, steady_now=seen.now, panel=panel)
            decided[-1].append(policy.decide(moved))
            cluster.sleep_until(cluster.now() + 15)
    assert decided[0] == decided[1]
    reasons = [proposals["db"].reason for proposals in decided[0]]
    assert {Reason.SLA_AT_RISK, Reason.EXPLORE} == set(reasons)
    assert len({proposals["db"].target for proposals in decided[0]}) > 1


def test_an_entry_without_requests_is_at_no_risk():
    cluster = FakeCluster(values={("web", "res"): NAN, ("web", "req"): 0.0})
    assert (
        make_policy("explore", on_a_real_cluster()).decide(observe(cluster))["web"].reason is Reason.EXPLORE
    )


# --------------------------------------------------------------------------------------------- reactive floor
def test_the_floor_sizes_all_services_by_the_rate_at_the_entry_at_once():
    cluster = FakeCluster(
        values={("web", "req"): 45.0}
    )  # 4.5 cores / .9; the others still see 10 requests a second
    floors = ReactiveFloor(demand_of(), Floor(rho_max=0.9)).replicas(observe(cluster))
    assert floors == {"web": 5, "api": 5, "db": 5}


def test_the_floor_of_a_service_that_the_fit_does_not_know_goes_by_cores_in_use():
    cluster = FakeCluster(values={("db", "cpu"): 0.95})
    floors = ReactiveFloor(demand_of(("web", "api")), Floor(rho_max=0.9)).replicas(observe(cluster))
    assert floors == {"web": 2, "api": 2, "db": 5}  # .95 x 4 / .9
    assert ReactiveFloor(None, Floor(rho_max=0.9)).replicas(observe(cluster))["web"] == 3  # .5 x 4 / .9


def test_a_floor_that_leaves_it_to_the_fit_keeps_room_for_bursts_and_one_with_a_number_does_not():
    cluster = FakeCluster(values={("web", "req"): 45.0})
    model = replace(demand_of(), spare_cores=np.array([0.0, 1.0, 3.0]))
    auto = ReactiveFloor(model, Floor(rho_max="auto")).replicas(observe(cluster))
    assert auto == {"web": 5, "api": 6, "db": 7}  # 4.5 cores of 5.34 and 6.55 are used, n / (n + spare)
    assert set(ReactiveFloor(model, Floor()).replicas(observe(cluster)).values()) == {5}
    assert (
        ReactiveFloor(None, Floor(rho_max="auto")).replicas(observe(cluster))["web"] == 3
    )  # by cores, at .9


@pytest.mark.field
@pytest.mark.parametrize(("limit", "floor"), [(1.0, 5), (0.5, 10), (2.0, 3), (None, 10)])
def test_the_floor_sizes_by_the_live_limit_and_says_once_that_it_changed(limit, floor, caplog):
    cluster = FakeCluster(values={("web", "req"): 45.0})
    seen, reactive = observe(cluster), ReactiveFloor(demand_of(), Floor(rho_max=0.9))
    web = replace(seen.workloads[0], cpu_limit_cores=limit, cpu_request_cores=0.5)
    for _ in range(3):
        assert reactive.replicas(replace(seen, workloads=[web, *seen.workloads[1:]]))["web"] == floor
    said = caplog.text.count("web: its replicas have")
    assert said == (0 if limit == 1.0 else 1) and "api" not in caplog.text


def test_the_floor_leaves_out_what_it_knows_nothing_of():
    cluster = FakeCluster(values={("db", feature): NAN for feature in ("cpu", "req")})
    assert set(ReactiveFloor(demand_of(), Floor()).replicas(observe(cluster))) == {"web", "api"}
    empty = Observation(START, observe(cluster).panel.between(START, START + 1), [], [])
    assert ReactiveFloor(demand_of(), Floor()).replicas(empty) == {}


def test_the_reactive_policy_is_the_floor_and_holds_without_it():
    cluster = FakeCluster(values={("db", feature): NAN for feature in ("cpu", "req")})
    proposals = ReactivePolicy(ReactiveFloor(demand_of(), Floor())).decide(observe(cluster))
    assert (proposals["web"].target, proposals["web"].floor, proposals["web"].reason) == (2, 2, Reason.FLOOR)
    assert proposals["db"].target is None


def test_the_front_alone_or_one_service_per_minute_gets_its_floor():
    cluster = FakeCluster(values={("web", "req"): 45.0, ("api", "req"): 27.0, ("db", "req"): 18.0})
    floor = ReactiveFloor(demand_of(), Floor(rho_max=0.9))
    seen = observe(cluster)
    floors = ReactivePolicy(floor).decide(seen)
    moved = {item.service for item in seen.workloads if floors[item.service].target != item.replicas}
    assert len(moved) > 1
    front = FrontPolicy(floor, ["web"]).decide(seen)
    assert front["web"] == floors["web"]
    assert {front[name] for name in ("api", "db")} == {Proposal(None, Reason.UNCHANGED)}
    policy = OneByOnePolicy(floor, seconds=60.0)
    for seconds, acts in ((0, True), (15, False), (45, False), (60, True)):
        found = policy.decide(replace(seen, now=seen.now + seconds))
        chosen = [name for name in moved if found[name].target is not None]
        assert len(chosen) == acts
        assert not acts or floors[chosen[0]].target == max(floors[name].target for name in moved)
    for seconds, acts in ((90, False), (120, True)):
        set_back = replace(seen, now=seen.now + seconds - 3600, steady_now=seen.now + seconds)
        found = policy.decide(set_back)
        assert sum(found[name].target is not None for name in moved) == acts


def test_usage_floors_need_a_limit_and_a_fresh_sample():
    cluster = FakeCluster(usage={"web": 0.9, "api": 0.9})
    assert usage_floor(cluster.workloads(), cluster.pods(), START, 60.0, 0.9) == {"web": 4, "api": 4}
    assert (
        usage_floor(cluster.workloads(), cluster.pods(), START, 10.0, 0.9) == {}
    )  # the fake's samples are 15 s old
    cluster.limit_cores = None
    assert usage_floor(cluster.workloads(), cluster.pods(), START, 60.0, 0.9) == {
        "web": 8,
        "api": 8,
    }  # against the request


# ------------------------------------------------------------------------------------------------- deepscaler
def test_a_tick_that_comes_early_puts_no_forecast_off():
    cluster, forecaster = FakeCluster(), FakeForecaster([[3.2, 4.0, 5.0]])
    policy = deepscaler(forecaster, demand_of())
    for tick in range(9):
        cluster.sleep_until(START + 15 * tick - (0.2 if tick % 4 == 0 and tick else 0.0))
        policy.decide(observe(cluster))
    assert [round(moment - START) for moment in forecaster.asked] == [0, 60, 120]


def test_the_forecast_is_refreshed_each_period_and_the_floor_each_tick():
    cluster, forecaster = FakeCluster(), FakeForecaster([[3.2, 4.0, 5.0]])
    policy = deepscaler(forecaster, demand_of())
    assert policy.period_seconds == 15.0
    assert policy.history_seconds == 4800.0
    targets = []
    for tick in range(9):
        if tick == 2:
            cluster.values["web", "req"] = 63.0
        targets.append(policy.decide(observe(cluster))["web"])
        cluster.sleep_until(cluster.now() + 15)
    assert [moment - START for moment in forecaster.asked] == [0, 60, 120]
    assert targets[0].target == pytest.approx(3.2)
    assert targets[0].reason is Reason.FORECAST
    assert (targets[2].target, targets[2].reason, targets[2].floor) == (7, Reason.FLOOR, 7)
    assert targets[2].predicted == pytest.approx(3.2)


def test_without_a_floor_only_the_forecast_counts():
    policy = deepscaler(FakeForecaster([[1.0, 1.0, 1.0]]), floor=False)
    assert policy.period_seconds == 60.0
    proposals = policy.decide(observe(FakeCluster(values={(name, "cpu"): 1.0 for name in NAMES})))
    assert {proposal.target for proposal in proposals.values()} == {1.0}
    assert proposals["web"].floor is None


@pytest.mark.parametrize(("label", "target"), [("required", 2.0), ("observed", 6.0)])
def test_the_lead_is_in_the_label_or_covered_by_the_horizon(label, target):
    forecaster = FakeForecaster([[2.0, 2.0, 2.0], [6.0, 1.0, 1.0], [3.0, 1.0, 1.0]], label=label)
    assert deepscaler(forecaster, floor=False).decide(observe(FakeCluster()))["web"].target == target


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_a_forecast_that_is_not_finite_holds_and_the_floor_may_still_raise(bad):
    policy = deepscaler(FakeForecaster([[bad, bad, 4.0]]), demand_of())
    cluster = FakeCluster(values={("api", "req"): 90.0})
    proposals = policy.decide(observe(cluster))
    assert (proposals["web"].target, proposals["web"].reason) == (None, Reason.HELD_MISSING)
    assert (proposals["api"].target, proposals["api"].reason) == (10, Reason.FLOOR)
    assert proposals["db"].target == 4


def test_one_bad_step_of_the_horizon_is_not_passed_over():
    forecaster = FakeForecaster([[2.0, 2.0, 2.0], [NAN, 2.0, 2.0]], label="observed")
    assert deepscaler(forecaster, floor=False).decide(observe(FakeCluster()))["web"].target is None


def test_no_forecast_at_all_leaves_the_floor(caplog):
    class Short(FakeForecaster):
        def forecast(self, panel):
            raise MetricsError("needs 80 steps, found 3")

    policy = deepscaler(Short([[0, 0, 0]]), demand_of())
    proposals = policy.decide(observe(FakeCluster(values={("web", "req"): 90.0})))
    assert [proposals[name].target for name in NAMES] == [10, 10, 10]
    assert "needs 80 steps" in caplog.text
    assert deepscaler(Short([[0, 0, 0]]), demand_of()).decide(observe(FakeCluster()))["web"].target is None


def test_a_service_that_the_bundle_does_not_know_has_the_floor_alone():
    forecaster = FakeForecaster([[3.0, 3.0]], services=("web", "api"))
    proposal = deepscaler(forecaster, demand_of(("web", "api"))).decide(observe(FakeCluster()))["db"]
    assert (proposal.target, proposal.reason, proposal.predicted) == (3, Reason.FLOOR, None)
    proposal = deepscaler(forecaster, floor=False).decide(observe(FakeCluster()))["db"]
    assert (proposal.target, proposal.reason) == (None, Reason.UNKNOWN_SERVICE)


def test_services_gone_from_the_cluster_are_left_out():
    forecaster = FakeForecaster([[3.0, 3.0, 3.0, 9.0]], services=(*NAMES, "gone"))
    assert set(deepscaler(forecaster, demand_of((*NAMES, "gone"))).decide(observe(FakeCluster()))) == set(
        NAMES
    )


class Failing(FakeForecaster):
    """Forecasts once, and fails in one way ever after."""

    def __init__(self, how: object) -> None:
        super().__init__([[9.0, 9.0, 9.0]])
        self.how = how

    def forecast(self, panel: MetricPanel) -> np.ndarray:
        table = super().forecast(panel)
        if len(self.asked) > 1 and isinstance(self.how, Exception):
            raise self.how
        return table if len(self.asked) == 1 else self.how  # type: ignore[return-value]


@pytest.mark.stress
@pytest.mark.parametrize(
    "how",
    [
        MetricsError("no sample"),
        BundleError("another step"),
        RuntimeError("a tensor on another device"),
        MemoryError(),
        np.zeros((1, 7)),
        np.zeros(()),
        None,
    ],
    ids=str,
)
@pytest.mark.parametrize("floor", [True, False])
def test_a_forecast_that_cant_be_renewed_is_used_for_two_periods_and_the_floor_goes_on(how, floor):
    cluster = FakeCluster(replicas=dict.fromkeys(NAMES, 2), values={("web", "req"): 38.0})
    policy = deepscaler(Failing(how), demand_of(), floor=floor)
    found = []
    for _ in range(12):
        found.append(policy.decide(observe(cluster))["web"])
        cluster.sleep_until(cluster.now() + 15)
    assert [proposal.predicted for proposal in found] == [9.0] * 8 + [None] * 4
    last = Proposal(found[-1].floor, Reason.FLOOR, floor=found[-1].floor)
    assert found[-1] == (last if floor else Proposal(None, Reason.HELD_MISSING))
    assert not floor or found[-1].floor > 3.8
    assert policy.describe() == {"forecasts": {"made": 1, "failed": 2}, "bundle_sha256": None}


@pytest.mark.stress
def test_a_forecast_comes_back_after_failures_and_its_life_is_the_same_whatever_becomes_of_the_clock():
    cluster, forecaster = FakeCluster(), Failing(MetricsError("no sample"))
    policy = deepscaler(forecaster, demand_of())
    policy.decide(observe(cluster))
    cluster.sleep_until(cluster.now() + 600)
    assert policy.decide(observe(cluster))["web"].predicted is None
    forecaster.how = np.full((1, 3), 5.0)
    cluster.sleep_until(cluster.now() + 60)
    assert policy.decide(observe(cluster))["web"].predicted == 5.0
    forecaster.how = np.full((1, 3), 6.0)
    for jump in (-3600, 3600):
        seen = observe(cluster)
        for seconds, predicted in ((30, forecaster.how[0, 0] - 1), (60, forecaster.how[0, 0])):
            moved = replace(seen, now=seen.now + jump, steady_now=seen.now + seconds)
            assert policy.decide(moved)["web"].predicted == predicted
        cluster.sleep_until(cluster.now() + 60)
        forecaster.how = forecaster.how + 1


@given(st.lists(st.floats(0, 40), min_size=3, max_size=3), st.floats(0, 200))
def test_the_floor_only_raises_the_forecast(forecast, rate):
    cluster = FakeCluster(values={("web", "req"): rate})
    with_floor = deepscaler(FakeForecaster([forecast]), demand_of()).decide(observe(cluster))
    without = deepscaler(FakeForecaster([forecast]), floor=False).decide(observe(cluster))
    for name in NAMES:
        assert with_floor[name].target == max(without[name].target, with_floor[name].floor)


def test_under_the_controller_a_low_forecast_cannot_starve_a_service_that_burns():
    cluster = FakeCluster(values={("web", "req"): 45.0})
    settings = make_settings(guard_rails={"scale_down_window": 0.0})
    Controller(cluster, deepscaler(FakeForecaster([[1.0, 1.0, 1.0]]), demand_of()), settings).run(120.0)
    assert cluster.replicas == {"web": 5, "api": 5, "db": 5}


# ----------------------------------------------------------------------------------------------- the registry
def shop(tmp_path: Path, **scale: object) -> Settings:
    settings = make_settings(bundle=str(tmp_path / "AdapGLA.pt"), **scale)
    return settings.model_copy(
        update={"process": settings.process.model_copy(update={"output_dir": str(tmp_path / "data")})}
    )


def describe(tmp_path: Path, **parts: Any) -> None:
    """A bundle of the shop with these parts."""
    whole = {"services": NAMES, "demand": demand_of().to_dict(), **parts}
    write_bundle(tmp_path / "AdapGLA.pt", **whole)


@pytest.mark.parametrize("name", ["hpa", "hpa_", "hpa_0", "hpa_70x", "deepscalar", "", "HPA_70"])
def test_an_unknown_policy_is_refused_with_the_names_there_are(name, tmp_path):
    with pytest.raises(SettingsError) as error:
        make_policy(name, shop(tmp_path))
    assert all(known in str(error.value) for known in (*POLICIES, "oracle", "foreseen", "hpa_70"))


@pytest.mark.parametrize("name", ["static", "explore", "hpa_70", "reactive_holistic"])
def test_policies_go_by_their_names(name, tmp_path):
    describe(tmp_path)
    policy = make_policy(name, shop(tmp_path))
    assert policy.name == name
    assert policy.period_seconds > 0


@pytest.mark.parametrize("name", ["oracle", "foreseen", "foreseen_85"])
def test_who_is_told_the_future_is_handed_in_or_refused(name, tmp_path):
    told = OraclePolicy([START], {"web": [3]})
    assert make_policy(name, shop(tmp_path), ahead={name: told}) is told
    with pytest.raises(SettingsError, match="runs on the testbed only"):
        make_policy(name, shop(tmp_path), ahead={"other": told})


def test_what_is_foreseen_is_a_forecast_to_the_guard_rails():
    policy = ForeseenPolicy([START, START + 60], {"web": [3, 1]}, 60.0, "foreseen_85")
    assert policy.guarded and (policy.name, policy.period_seconds) == ("foreseen_85", 60.0)
    assert policy.decide(Observation(START + 61, observe(FakeCluster()).panel, [], [])) == {
        "web": Proposal(1.0, Reason.FORECAST, predicted=1.0)
    }


def test_a_missing_bundle_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(BundleError, match=r"no such bundle; make it with: python main\.py"):
        make_policy("deepscaler", shop(tmp_path))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"app": "bookinfo"}, "trained for application bookinfo, the configuration says shop"),
        (
            {"features": ["cpu", "req"]},
            r"features \['cpu', 'req'\], the configuration says \['cpu', 'pod', 'req', 'res'\]",
        ),
        ({"step": 30.0}, r"step in seconds 30\.0, the configuration says 60\.0"),
        ({"label": "feature:req"}, "forecasts 'feature:req', not one of required, observed, offered"),
        (
            {"services": ["web", "carts"]},
            "knows 1 of 3 services.*unknown to it: api, db; it knows: web, carts",
        ),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused_naming_both_sides(parts, message, tmp_path):
    describe(tmp_path, **parts)
    with pytest.raises(BundleError, match=message):
        make_policy("deepscaler", shop(tmp_path))


def test_another_order_and_a_few_unknown_services_fit(tmp_path):
    describe(tmp_path, services=["db", "web"], features=["req", "res", "cpu", "pod"])
    file = read_bundle_file(tmp_path / "AdapGLA.pt")
    check_bundle(file.description, "it", expected_by(shop(tmp_path)))


@pytest.mark.parametrize("name", ["deepscaler", "reactive_holistic"])
def test_a_broken_bundle_is_refused(name, tmp_path):
    (tmp_path / "AdapGLA.pt").write_text("{")
    with pytest.raises(BundleError, match="no bundle with a checksum"):
        make_policy(name, shop(tmp_path))


@pytest.mark.stress
@pytest.mark.parametrize("beside", [None, "{", '{"app": "shop", "services": ["web"]}'])
def test_nothing_beside_the_bundle_decides(beside, tmp_path):
    """The application is refused by what stands in the `.pt`, and accepted without what lies beside it."""
    own = tmp_path / "AdapGLA.json"
    for app, fits in (("bookinfo", False), ("shop", True)):
        describe(tmp_path, app=app)
        own.unlink()
        (tmp_path / "AdapGLA.affinity.csv").unlink()
        if beside is not None:
            own.write_text(beside)
        if fits:
            assert make_policy("deepscaler", shop(tmp_path)).name == "deepscaler"
        else:
            with pytest.raises(BundleError, match="trained for application bookinfo, the configuration says"):
                make_policy("deepscaler", shop(tmp_path))


@pytest.mark.stress
def test_the_hash_that_is_recorded_is_of_the_bytes_that_were_loaded(tmp_path):
    path, settings, cluster = tmp_path / "AdapGLA.pt", shop(tmp_path), FakeCluster()
    write_bundle(path)
    loaded = sha256(path.read_bytes()).hexdigest()
    controller = Controller(cluster, make_policy("deepscaler", settings), settings)
    write_bundle(path, means=[9, 9, 9])  # swapped while the controller runs
    assert sha256(path.read_bytes()).hexdigest() != loaded
    controller.tick()
    assert controller.describe(0, START)["bundle_sha256"] == loaded
    assert f'bundle_sha256="{loaded}"' in exposition(Watch(controller, settings)).decode()
    static = Controller(cluster, make_policy("static", settings), settings)
    assert "bundle_sha256" not in static.describe(0, START)


def test_the_demand_fit_comes_from_the_bundle_else_from_the_data_set(tmp_path):
    settings = shop(tmp_path)
    with pytest.raises(DataError, match=r"make one with: python data_process\.py"):
        load_demand(settings)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.json").write_text(json.dumps({"demand": demand_of(seconds=0.2).to_dict()}))
    assert load_demand(settings).demand_seconds.tolist() == [0.2] * 3
    describe(tmp_path)
    assert load_demand(settings).demand_seconds.tolist() == [0.1] * 3
    describe(tmp_path, demand=None)
    assert load_demand(settings).demand_seconds.tolist() == [0.2] * 3
    (tmp_path / "data" / "meta.json").write_text(json.dumps({"demand": None}))
    with pytest.raises(DataError, match="holds no demand fit"):
        load_demand(settings)


# ---------------------------------------------------------------------------------------------- a real bundle
def test_a_trained_bundle_scales_all_services_in_one_pass_matched_by_name(tmp_path):
    write_bundle(tmp_path / "AdapGLA.pt", ("db", "gone", "api", "web"), (7, 9, 5, 3))
    settings, cluster = shop(tmp_path), FakeCluster()
    policy = make_policy("deepscaler", settings)
    assert policy.history_seconds == 300.0
    Controller(cluster, policy, settings).tick()
    assert cluster.writes == [{"api": 5, "db": 7}]
    assert cluster.replicas["web"] == 4  # 3 waits for the stabilization window
    Controller(cluster, make_policy("deepscaler_nofloor", settings), settings).run(180.0)
    assert cluster.replicas == {"web": 3, "api": 5, "db": 7}


def test_a_service_new_to_the_bundle_goes_by_the_floor_and_one_without_data_is_held(tmp_path):
    write_bundle(tmp_path / "AdapGLA.pt", ("web", "api"), (3, 5))
    settings = shop(tmp_path)
    cluster = FakeCluster(values={("db", "cpu"): 1.2, ("api", "req"): NAN})
    rows = {
        row.service: row for row in Controller(cluster, make_policy("deepscaler", settings), settings).tick()
    }
    assert (rows["db"].target, rows["db"].reason, rows["db"].predicted) == (6, "floor", None)  # 1.2 x 4 / .9
    assert (rows["api"].target, rows["api"].reason) == (4, "held_missing")
    assert rows["web"].predicted == 3.0


def test_an_observed_horizon_that_does_not_cover_the_start_up_is_told(tmp_path, caplog):
    write_bundle(tmp_path / "AdapGLA.pt", label="observed", demand=demand_of().to_dict())
    make_policy("deepscaler", shop(tmp_path))
    assert "the bundle looks 60 s ahead, but the start-up of a pod and one period take 80 s" in caplog.text


@pytest.mark.parametrize(("think", "seconds"), [("fitted", 1.5), (None, None), (0.5, 0.5)])
def test_the_think_time_of_the_fit_can_be_replaced_and_null_is_an_open_load(tmp_path, think, seconds):
    settings = shop(tmp_path)
    scale = settings.scale.model_copy(update={"think_time": think})
    (tmp_path / "data").mkdir()
    fitted = replace(demand_of(seconds=0.2), think_seconds=1.5)
    (tmp_path / "data" / "meta.json").write_text(json.dumps({"demand": fitted.to_dict()}))
    assert load_demand(settings.model_copy(update={"scale": scale})).think_seconds == seconds
