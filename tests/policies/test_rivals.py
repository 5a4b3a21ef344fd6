"""The rivals: each by the table of its published rule, and all of them by name."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.bundles import write_bundle
from helpers.fakes import START, FakeCluster, make_settings

from deepscaler.calls import CallGraph, write_calls
from deepscaler.cluster import Workload
from deepscaler.errors import BundleError, DataError, SettingsError
from deepscaler.labels.demand import DemandModel, Response
from deepscaler.panel import MetricPanel
from deepscaler.planning.scenarios import Moment
from deepscaler.policies.ahead import Ahead, a_season_ago, following_the_trend, persisting
from deepscaler.policies.analog import AnalogHistory, distances_to_now, nearest
from deepscaler.policies.base import Observation, Reason
from deepscaler.policies.calls import Calls
from deepscaler.policies.hpa.policy import HpaPolicy
from deepscaler.policies.hpa.predictive import PredictiveHpaPolicy, holt_winters, predict
from deepscaler.policies.pbscaler import PbScalerPolicy, bottlenecks, choose, meets, wasted
from deepscaler.policies.registry import make_policy
from deepscaler.policies.rivals import RIVALS
from deepscaler.policies.showar import Pid, ShowarPolicy, steer, stepped
from deepscaler.policies.tracking import TargetTrackingPolicy, track
from deepscaler.settings import GuardRails

STEP = 15.0
NAMES = ("web", "api", "db")
NAN = math.nan
ONE_ENTRY = [0]


def demand(names=NAMES, response=None):
    """One core per replica, 0.1 s per request, one visit each per request at the first service."""
    ones = np.ones(len(names))
    return DemandModel(
        services=tuple(names), idle_cores=0 * ones, demand_seconds=0.1 * ones, limit_cores=ones,
        boot_seconds=30 * ones, entries=(names[0],), visits=ones[None], external_share=np.ones(1),
        sla_seconds=0.2, think_seconds=None, rho_max=0.9, sla_margin=0.75, response=response, quality={},
    )  # fmt: skip


def panel_of(names=NAMES, rows=20, **features):
    """Samples 15 s apart; a feature is a number, a list per row, or a mapping from service to either."""
    features = features or {"cpu": NAN}
    columns = []
    for value in features.values():
        by_service = value if isinstance(value, dict) else dict.fromkeys(names, value)
        columns.append(np.stack([np.broadcast_to(by_service[name], rows) for name in names], axis=1))
    values = np.stack(columns, axis=2).astype(np.float32)
    times = START - STEP * np.arange(rows - 1, -1, -1.0)
    return MetricPanel(times, tuple(names), tuple(features), values)


def seen(panel, replicas=4, pods=(), now=START):
    counts = replicas if isinstance(replicas, dict) else dict.fromkeys(panel.services, replicas)
    workloads = [Workload(name, count, 1.0, 0.5) for name, count in counts.items()]
    return Observation(now, panel, workloads, pods)


def targets(policy, observation):
    return {name: found.target for name, found in policy.decide(observation).items()}


# --------------------------------------------------------------------------------------- queueing and seasons
@pytest.mark.parametrize(
    ("rates", "highest"),
    [
        ([10, 10, 10, 10, 10], 10),
        ([10, 30, 10, 10, 10], 30),  # 45 s ago: within the minute
        ([30, 10, 10, 10, 10], 10),  # 60 s ago: not any more
        ([10, 10, 10, 10, 30], 30),
    ],
)
def test_persistence_is_the_highest_rate_of_the_last_minute(rates, highest):
    found = persisting(np.array(rates, float)[:, None], ONE_ENTRY, STEP, np.array([30.0]))
    assert found == [highest]


@pytest.mark.parametrize(
    ("slope", "boot", "highest"),
    [
        (0.1, 30.0, 100 + 0.1 * 105),  # per second, until start-up and 75 s have passed
        (0.1, 0.0, 100 + 0.1 * 75),
        (0.0, 30.0, 100.0),
        (-0.1, 30.0, 100 + 0.1 * 45),  # falling: what the last minute saw
    ],
)
def test_the_trend_goes_on_until_a_pod_is_ready(slope, boot, highest):
    ages = STEP * np.arange(-39, 1)
    found = following_the_trend(100 + slope * ages[:, None], ONE_ENTRY, STEP, np.array([boot]))
    assert found == pytest.approx([highest])


@pytest.mark.parametrize(
    ("ahead", "boot", "highest"),
    [
        (15.0, 0.0, 90.0),  # the wave rises in 15 s
        (75.0, 0.0, 90.0),  # the reach past start-up is 75 s
        (90.0, 0.0, 10.0),
        (90.0, 30.0, 90.0),
        (105.0, 30.0, 90.0),
        (120.0, 30.0, 10.0),
        (0.0, 0.0, 90.0),  # it rises now
        (-300.0, 0.0, 10.0),  # it fell long ago
    ],
)
def test_the_season_rule_takes_the_highest_rate_around_start_up_of_earlier_periods(ahead, boot, highest):
    """A square wave of 600 s that is at 90 for 150 s; `ahead`: seconds until it rises next."""
    ages = STEP * np.arange(-400, 1)
    wave = np.where((ages - ahead) % 600 < 150, 90.0, 10.0)[:, None]
    assert a_season_ago(wave, ONE_ENTRY, STEP, np.array([boot])) == pytest.approx([highest])


@pytest.mark.parametrize("rates", [np.full((400, 1), 50.0), np.arange(400.0)[:, None], np.ones((10, 1))])
def test_without_a_season_there_is_no_season_rule(rates):
    assert a_season_ago(rates, ONE_ENTRY, STEP, np.array([30.0])) is None


def test_the_rule_sizes_all_services_by_the_rate_to_come_at_live_limits():
    policy = Ahead(
        demand(), persisting, floor=None, history_seconds=300.0, step=STEP, rho_max=0.8, name="queueing"
    )
    seen_now = seen(panel_of(req=45.0, res=0.05))
    assert targets(policy, seen_now) == {"web": 6, "api": 6, "db": 6}  # 4.5 cores at 80 %
    halved = [replace(seen_now.workloads[0], cpu_limit_cores=0.5), *seen_now.workloads[1:]]
    assert targets(policy, replace(seen_now, workloads=halved)) == {"web": 12, "api": 6, "db": 6}


def test_what_came_before_the_first_sample_is_no_history():
    """A constant made of nothing would hide the season that the samples have."""
    wave = np.where(STEP * np.arange(160) % 600 < 150, 90.0, 10.0)
    policy = Ahead(
        demand(), a_season_ago, floor=None, history_seconds=9000.0, step=STEP, rho_max=0.9, name="season"
    )
    short = targets(policy, seen(panel_of(rows=160, req=wave, res=0.05)))
    padded = np.concatenate([np.full(440, NAN), wave])
    assert short == {"web": 10, "api": 10, "db": 10}  # it rises within start-up and 75 s
    assert targets(policy, seen(panel_of(rows=600, req=padded, res=np.where(padded > 0, 0.05, NAN)))) == short


def test_without_requests_the_rule_holds():
    policy = Ahead(demand(), persisting, floor=None, history_seconds=300.0, step=STEP, rho_max=0.8, name="q")
    found = policy.decide(seen(panel_of(req={"web": 45.0, "api": NAN, "db": NAN}, res=0.05)))
    assert {item.reason for item in found.values()} <= {Reason.FORECAST, Reason.HELD_MISSING}
    found = policy.decide(seen(panel_of(req=NAN, res=NAN)))
    assert {item.target for item in found.values()} == {None}


# ----------------------------------------------------------------------------------------------------- analog
def test_moments_are_alike_if_all_services_did_the_same_before_them():
    ages = np.arange(200.0)
    rates = np.stack([np.sin(ages / 10), np.cos(ages / 10)], axis=1) + 5.0
    distances = distances_to_now(rates, 8)
    assert np.isinf(distances[:7]).all() and distances[-1] == 0.0
    by_hand = (((rates[100 - 7 : 101] - rates[-8:]) / rates.std(axis=0)) ** 2).sum()
    assert distances[100] == pytest.approx(by_hand)


def test_the_nearest_moments_lie_apart():
    assert nearest(np.array([np.inf, 3.0, 1.0, 2.0, 5.0, 4.0]), 3, 2).tolist() == [2, 5]
    assert nearest(np.array([3.0, 1.0, 2.0]), 1, 1).tolist() == [1]
    assert nearest(np.full(3, np.inf), 2, 1).tolist() == []


def test_what_followed_like_moments_is_expected_and_not_what_followed_others():
    """A small bump of one service announces a large one of the other, five minutes later, at odd times."""
    rates = np.full((700, 2), 10.0)
    for moment in (80, 210, 305, 470, 590, 688):
        rates[moment : moment + 8, 0] += 5.0
        rates[moment + 20 : moment + 40, 1] += 40.0
    found = AnalogHistory(40, 12, STEP).scenarios(Moment(0.0, rates, None))
    level = found.weights @ found.rates[:, 12:24, 1].mean(axis=1)
    assert level > 35.0 and found.weights.sum() == pytest.approx(1.0)
    calm = AnalogHistory(40, 12, STEP).scenarios(Moment(0.0, rates[:680], None))
    assert calm.weights @ calm.rates[:, 12:24, 1].mean(axis=1) < 20.0


def test_a_short_history_is_no_source():
    assert AnalogHistory(40, 12, STEP).scenarios(Moment(0.0, np.ones((50, 2)), None)) is None


# ------------------------------------------------------------------------------------------------ predictive
@pytest.mark.parametrize(
    ("values", "season", "ahead", "expected"),
    [
        ([4.0], 0, 2, [4.0, 4.0]),
        ([4.0, 4.0, 4.0], 0, 1, [4.0]),
        # level .9 x 6 + .1 x 4 = 5.8, trend .1 x 1.8 = .18
        ([4.0, 6.0], 0, 2, [5.98, 6.16]),
        ([1.0, 5.0, 1.0, 5.0], 2, 3, [1.0, 5.0, 1.0]),
        # the season's first value is one higher: level .9 x (2+2) + .1 x 3 = 3.9, trend .09, season -1.91;
        # then level .9 x (5-2) + .1 x 3.99 = 3.099, trend .0009
        ([1.0, 5.0, 2.0, 5.0], 2, 1, [3.099 + 0.0009 - 1.91]),
    ],
)
def test_holt_winters(values, season, ahead, expected):
    assert holt_winters(values, season, ahead) == pytest.approx(expected)


def test_recommendations_that_repeat_are_foreseen_by_the_start_up():
    wave = [2.0 if row % 40 < 20 else 6.0 for row in range(40 * 5 + 18)]  # it rises in 2 syncs
    assert predict(wave, STEP, boot_seconds=0.0) == 2
    assert predict(wave, STEP, boot_seconds=30.0) == 6


def test_the_larger_of_the_hpa_and_its_prediction_decides():
    cluster = FakeCluster(usage={"web": 0.7, "api": 0.7, "db": 0.7}, replicas=dict.fromkeys(NAMES, 4))
    settings = make_settings()
    plain, predictive = HpaPolicy(70, settings), PredictiveHpaPolicy(70, settings)
    raised = []
    for tick in range(8):
        cluster.usage = dict.fromkeys(NAMES, 0.7 + 0.05 * tick)
        watched = Observation(cluster.now(), panel_of(), cluster.workloads(), cluster.pods())
        low, high = plain.decide(watched)["web"].target, predictive.decide(watched)["web"].target
        assert high >= low
        raised.append(high > low)
        cluster.sleep_until(cluster.now() + STEP)
    assert any(raised) and not raised[0]  # the rise goes on


# ----------------------------------------------------------------------------------------- hpa of the request
@pytest.mark.parametrize(
    ("name", "limit", "expected"),
    [("hpa_70", 1.0, 4), ("hpa_r140", 1.0, 4), ("hpa_r70", 1.0, 8), ("hpa_r70", None, 8)],
)
def test_hpa_r_is_a_share_of_the_request(name, limit, expected):
    """Four pods of a request of 0.5 use 0.7 cores each."""
    cluster = FakeCluster(usage=dict.fromkeys(NAMES, 0.7), limit_cores=limit)
    policy = make_policy(name, make_settings())
    found = policy.decide(Observation(cluster.now(), panel_of(), cluster.workloads(), cluster.pods()))
    assert found["web"].target == expected and policy.name == name
    assert policy.targets["web"].request_percent == {"hpa_r70": 70}.get(name, 140)


# -------------------------------------------------------------------------------------------- target tracking
@pytest.mark.parametrize(
    ("minutes", "ready", "replicas", "warming", "expected"),
    [
        ([0.9, 0.9], 4, 4, False, 4),  # two breaches are none
        ([0.9, 0.9, 0.9], 4, 4, False, 6),  # ceil(4 x .9 / .7)
        ([0.9, 0.6, 0.9, 0.9], 4, 4, False, 4),
        ([0.9, NAN, 0.9, 0.9], 4, 4, False, 4),
        ([0.7, 0.7, 0.7], 4, 4, False, 4),  # at the target is no breach
        ([0.9, 0.9, 0.9], 4, 6, True, 6),  # two that warm up were ordered for this
        ([1.0, 1.0, 1.4], 4, 6, True, 8),  # more is needed than was ordered
        ([0.3] * 14, 4, 4, False, 4),
        ([0.3] * 15, 4, 4, False, 2),  # ceil(4 x .3 / .7)
        ([0.3] * 15, 4, 4, True, 4),
        ([0.63] * 15, 4, 4, False, 4),  # not below 90 % of the target
        ([0.6] * 15, 10, 10, False, 9),
        ([0.0] * 15, 4, 4, False, 1),
    ],
)
def test_target_tracking(minutes, ready, replicas, warming, expected):
    assert track(minutes, 0.7, ready, replicas, warming).replicas == expected


def test_target_tracking_reads_minutes_and_warms_up_for_five_of_them():
    policy = TargetTrackingPolicy(70)
    busy = panel_of(rows=60, cpu=0.9, pod=4.0)
    assert targets(policy, seen(busy)) == dict.fromkeys(NAMES, 6)
    calm = panel_of(rows=60, cpu=0.2, pod=6.0)
    assert targets(policy, seen(calm, 6, now=START + 240))["web"] == 6
    assert targets(policy, seen(calm, 6, now=START + 300))["web"] == 2
    assert targets(policy, seen(panel_of(rows=60, cpu=NAN, pod=6.0)))["web"] is None


@pytest.mark.parametrize(
    ("starting", "busy", "percent", "expected"),
    [
        (0, 0.98, 40, 10),  # ceil(4 x .98 / .4)
        (3, 0.98, 40, 10),  # 7 are ordered, of which 4 serve
        (3, 0.69, 40, 7),  # the 7 that were ordered are enough
        (4, 0.66, 70, 8),  # not below 90 % of the target
        (4, 0.6, 70, 4),  # ceil(4 x .6 / .7)
    ],
)
def test_target_tracking_goes_by_the_replicas_that_serve(starting, busy, percent, expected):
    """Four serve. `cpu` is the share of all containers' limits, those of starting pods included."""
    ordered = 4 + starting
    cluster = FakeCluster(replicas=dict.fromkeys(NAMES, ordered), unready=dict.fromkeys(NAMES, starting))
    policy, panel = TargetTrackingPolicy(percent), panel_of(rows=80, cpu=busy * 4 / ordered, pod=4.0)
    for minute in range(16):
        now = START + 60 * minute
        later = replace(panel, times=panel.times + 60 * minute)
        found = targets(policy, Observation(now, later, cluster.workloads(), cluster.pods()))
        assert found["web"] in (expected, ordered)
    assert found["web"] == expected


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_is_set_neither_prolongs_nor_ends_the_warm_up_of_target_tracking(jump):
    policy = TargetTrackingPolicy(70)
    targets(policy, seen(panel_of(rows=60, cpu=0.9, pod=4.0)))
    calm = panel_of(rows=60, cpu=0.2, pod=6.0)
    calm = replace(calm, times=calm.times + jump)
    for seconds, expected in ((240, 6), (300, 2)):
        now = seen(calm, 6, now=START + seconds + jump)
        assert targets(policy, replace(now, steady_now=START + seconds))["web"] == expected


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_is_set_neither_hurries_nor_delays_pbscalers_look_for_waste(jump):
    policy = PbScalerPolicy(FITTED, Calls(CALLS), GuardRails().bounds)
    fallen = panel_of(req=[10.0] * 16 + [1.0] * 4, res=0.01)
    for seconds, expected in ((0, 3), (60, 4), (120, 3)):
        now = seen(fallen, now=START + (jump if seconds else 0))
        assert targets(policy, replace(now, steady_now=START + seconds))["web"] == expected


# ----------------------------------------------------------------------------------------------------- showar
@pytest.mark.parametrize(
    ("state", "response", "output", "integral"),
    [
        (Pid(), 0.2, 0.0, 0.0),
        (Pid(), 0.26, 0.02 + 0.3, 0.3),  # .06 / 3, and .06 / 3 x 15 s
        (Pid(0.3, 0.26), 0.2, 0.3 - 0.06 / 45, 0.3),
        (Pid(0.3, 0.2), 0.14, -0.02 + 0.0 - 0.06 / 45, 0.0),  # the integral is 0 at least
        (Pid(0.3, 0.5), 0.5, 0.1 + 0.4, 0.4),  # and twice the SLO at most
    ],
)
def test_the_controller_of_showar(state, response, output, integral):
    found, after = steer(state, response, 0.2)
    assert (found, after.integral) == (pytest.approx(output), pytest.approx(integral))


@pytest.mark.parametrize(
    ("replicas", "output", "expected"),
    [
        (4, 0.221, 5),
        (4, 0.22, 4),
        (4, 0.181, 4),
        (4, 0.179, 3),
        (30, 0.3, 33),
        (25, 0.3, 27),
        (30, 0.0, 27),
        (1, 0.0, 1),
    ],
)
def test_showar_changes_a_tenth_of_the_pods_at_least_one(replicas, output, expected):
    assert stepped(replicas, output, 0.2) == expected


def test_showar_waits_until_the_callees_are_ready():
    calls = Calls([("web", "api"), ("api", "db")])
    cluster = FakeCluster(unready={"db": 1})
    slow = Observation(START, panel_of(res=0.2), cluster.workloads(), cluster.pods())
    assert targets(ShowarPolicy(0.2, calls), slow) == {"web": 5, "api": 4, "db": 5}
    assert targets(ShowarPolicy(0.2, calls), replace(slow, panel=panel_of(res=NAN))) == dict.fromkeys(NAMES)


# --------------------------------------------------------------------------------------------------- pbscaler
CALLS = [("web", "api"), ("api", "db")]
FITTED = demand(response=Response(0.01, 1.0, "random"))


def test_the_bottleneck_is_where_the_slow_calls_lead():
    ramp = np.linspace(0.1, 0.2, 20)
    panel = panel_of(res={"web": ramp, "api": ramp, "db": ramp}, cpu={"web": 0.2, "api": 0.2, "db": ramp})
    assert bottlenecks({"web", "api", "db"}, CALLS, panel, 0.2)[0] == "db"
    assert bottlenecks({"web"}, CALLS, panel, 0.2) == ["web"]
    assert bottlenecks({"api"}, CALLS, panel, 0.2)[0] == "api"  # what it calls is fast


@pytest.mark.parametrize(
    ("now", "before", "fallen"),
    [
        ([10, 11, 9, 10], [20, 21, 19, 20], True),
        ([19, 21, 18, 20], [20, 21, 19, 20], False),  # .9 x 20 isn't reached
        ([17, 21, 14, 18], [20, 21, 19, 20], False),  # not surely
        ([30, 31, 29, 30], [20, 21, 19, 20], False),
        ([10, NAN, NAN, NAN], [20, 21, 19, 20], False),
    ],
)
def test_waste_is_a_rate_that_fell(now, before, fallen):
    rates = [*([before[0], before[1], before[2], before[3]] * 4), *now]
    assert wasted(panel_of(("web",), req=rates)) == (["web"] if fallen else [])


@pytest.mark.parametrize(
    ("rate", "choices", "expected"),
    [
        (10.0, {"web": range(2, 9)}, 2),
        (44.0, {"web": range(2, 9)}, 8),  # 10 ms + .15 s x / (1 - x) with x = .55; it is .63 at seven
        (200.0, {"web": range(2, 9)}, 2),  # nothing keeps the SLO: the fewest
        (1.0, {"web": range(1, 3)}, 1),
    ],
)
def test_the_fewest_pods_that_keep_the_slo(rate, choices, expected):
    model = demand(("web",), Response(0.01, 1.5, "random"))
    found = choose(model, {"web": rate}, {"web": 1}, choices)
    kept = [count for count in choices["web"] if meets(model, {"web": rate}, {"web": count})]
    assert found == {"web": kept[0] if kept else choices["web"][0]} == {"web": expected}


def test_without_a_response_fit_utilisation_says_whether_the_slo_is_kept():
    rates = dict.fromkeys(NAMES, 45.0)
    assert meets(demand(), rates, dict.fromkeys(NAMES, 5))
    assert not meets(demand(), rates, dict(zip(NAMES, (5, 4, 5), strict=True)))


def test_pbscaler_raises_two_bottlenecks_every_tick_and_takes_one_pod_every_other_minute():
    policy = PbScalerPolicy(FITTED, Calls(CALLS), GuardRails(max_replicas=8).bounds)
    slow = {"web": 0.1, "api": 0.1, "db": 0.1}  # a p90 of .23 s
    found = targets(policy, seen(panel_of(res=slow, req=30.0), 2))
    assert sorted(found.values())[0] == 2 and sum(value > 2 for value in found.values()) == 2
    assert max(targets(policy, seen(panel_of(res=slow, req=500.0), 7)).values()) == 7  # 8 pods at most
    ramp = np.where(np.arange(20) < 16, 20.0, 2.0) + np.tile([0.1, -0.1], 10)
    calm = panel_of(res=0.02, req=ramp)
    assert targets(policy, seen(calm, 3)) == dict.fromkeys(NAMES, 2)
    assert targets(policy, seen(calm, 3, now=START + 105)) == dict.fromkeys(NAMES, 3)
    assert targets(policy, seen(calm, 3, now=START + 120)) == dict.fromkeys(NAMES, 2)
    assert targets(policy, seen(panel_of(cpu=0.5), 3)) == dict.fromkeys(NAMES)


def test_pbscaler_keeps_within_the_bounds_of_each_service_and_no_others():
    rails = GuardRails(max_replicas=40, per_service={"api": (1, 6), "db": (3, 40)})
    policy = PbScalerPolicy(FITTED, Calls(CALLS), rails.bounds)
    rates = {"web": 140.0, "api": 10.0, "db": 140.0}
    slow = panel_of(res={"web": 0.2, "api": 0.2, "db": 0.02}, req=rates)
    found = targets(policy, seen(slow, {"web": 7, "api": 4, "db": 40}))
    assert found["web"] > 14 and found["api"] in (5, 6) and found["db"] == 40
    assert targets(policy, seen(slow, {"web": 39, "api": 5, "db": 40})) == {"web": 39, "api": 5, "db": 40}
    ramp = np.where(np.arange(20) < 16, 20.0, 2.0) + np.tile([0.1, -0.1], 10)
    assert targets(policy, seen(panel_of(res=0.02, req=ramp), 3)) == {"web": 2, "api": 2, "db": 3}


@pytest.mark.parametrize("rate", [5.0, 20.0, 60.0, 400.0])
def test_of_all_choices_of_two_services_the_fewest_pods_that_keep_the_slo_are_chosen(rate):
    now, rates = (
        dict(zip(NAMES, (1, 1, 9), strict=True)),
        dict(zip(NAMES, (rate, 2 * rate, rate), strict=True)),
    )
    choices = {"api": range(2, 20), "web": range(2, 15)}
    tried = [{**now, "api": api, "web": web} for api in choices["api"] for web in choices["web"]]
    kept = [each for each in tried if meets(FITTED, rates, each)]
    expected = min(kept, key=lambda each: sum(each.values())) if kept else tried[0]
    assert choose(FITTED, rates, now, choices) == expected


# ----------------------------------------------------------------------------------------------- the registry
@pytest.fixture
def shop(tmp_path):
    """Settings of a shop with a demand fit and recorded calls."""
    for name, label in (("AdapGLA", "required"), ("paper", "observed")):
        write_bundle(tmp_path / f"{name}.pt", NAMES, label=label, demand=demand().to_dict())
    rows = [(START, caller, callee, 1.0) for caller, callee in CALLS]
    frame = pd.DataFrame(rows, columns=["time", "caller", "callee", "calls_per_second"])
    write_calls(CallGraph(frame), tmp_path / "calls.csv")
    settings = make_settings(bundle=str(tmp_path / "AdapGLA.pt"))
    collect = settings.collect.model_copy(update={"output_dir": str(tmp_path)})
    return settings.model_copy(update={"collect": collect})


@pytest.mark.parametrize(
    "name",
    [
        *(family for family in RIVALS if not family.startswith("hpa")), "plan_analog", "hpa_r70",
        "predictive_hpa_60", "target_tracking_50", "season_85", "queueing_persistence_80",
    ],
)  # fmt: skip
def test_rivals_go_by_their_names_and_decide(name, shop):
    policy = make_policy(name, shop)
    cluster = FakeCluster(usage=dict.fromkeys(NAMES, 0.5))
    panel = cluster.metrics(START - 3600 + STEP, START, STEP)
    for tick in range(3):
        found = policy.decide(Observation(START + 60 * tick, panel, cluster.workloads(), cluster.pods()))
        assert set(found) == set(NAMES) and policy.name == name
        assert all(item.target is None or item.target >= 1 for item in found.values())


@pytest.mark.parametrize(
    "name", ["hpa_r", "hpa_r0", "season_100", "showar_70", "pbscaler_1", "target_tracking_0", "plan_analog_7"]
)
def test_a_number_that_a_rival_hasnt_is_refused(name, shop):
    with pytest.raises(SettingsError, match=r"unknown; allowed: .*hpa_r<percent of the CPU request>"):
        make_policy(name, shop)


def test_the_published_system_needs_a_bundle_of_its_own(shop, tmp_path):
    policy = make_policy("deepscaler_paper", shop)
    assert policy.name == "deepscaler_paper" and policy.period_seconds == 60.0  # no floor
    write_bundle(tmp_path / "paper.pt", NAMES, demand=demand().to_dict())
    with pytest.raises(BundleError, match="trained for label required, deepscaler_paper needs observed"):
        make_policy("deepscaler_paper", shop)
    (tmp_path / "paper.pt").unlink()
    with pytest.raises(BundleError, match=r"paper\.pt: no such bundle"):
        make_policy("deepscaler_paper", shop)


@pytest.mark.parametrize("name", ["showar", "pbscaler"])
def test_who_goes_by_calls_names_the_command_that_collects_them(name, shop, tmp_path):
    (tmp_path / "calls.csv").unlink()
    with pytest.raises(DataError, match=r"python metrics_fetch\.py"):
        make_policy(name, shop)
