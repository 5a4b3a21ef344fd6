"""The guard rails: a table of cases, then what holds for any input."""

from dataclasses import replace

import pandas as pd
import pytest
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deepscaler.cluster import QuotaClaim, Workload
from deepscaler.control.controller import Controller
from deepscaler.control.decision import Decision, Stance
from deepscaler.control.guard_rails import PAUSE_ANNOTATION, cores_of, decide, within_quotas
from deepscaler.control.recommendations import RecommendationHistory, round_replicas
from deepscaler.policies.base import Proposal, Reason
from deepscaler.settings import GuardRails

NAN, INF = float("nan"), float("inf")
NOW = 1000.0
RIVAL = {"autoscalers": ("HorizontalPodAutoscaler/web",)}


def workload(replicas: int = 4, service: str = "web", **kwargs: object) -> Workload:
    return Workload(service, replicas, **{"cpu_limit_cores": 1.0, "cpu_request_cores": 0.5, **kwargs})  # type: ignore[arg-type]


def paused(value: str) -> dict[str, object]:
    return {"annotations": {PAUSE_ANNOTATION: value}}


def rails(**kwargs: object) -> GuardRails:
    return GuardRails.model_validate(
        {"max_replicas": 100, "max_step_up": 100, "max_step_down": 100, "scale_down_window": 0.0, **kwargs}
    )


def remembered(
    *records: tuple[float, int], window: float = 120.0, service: str = "web"
) -> RecommendationHistory:
    history = RecommendationHistory(window)
    for time, replicas in records:
        history.record(service, time, replicas)
    return history


def one(
    proposal: Proposal,
    item: Workload,
    settings: GuardRails,
    history: RecommendationHistory | None = None,
    stance: Stance | None = None,
) -> Decision:
    history = history or RecommendationHistory(settings.scale_down_window)
    return decide({"web": proposal}, [item], history, NOW, rails=settings, stance=stance or Stance())[0]


# --------------------------------------------------------------------------------------------------- rounding
@pytest.mark.parametrize(
    ("target", "rounded"),
    [
        (1.0, 1), (0.0, 1), (-3.0, 1), (0.2, 1), (1.34, 1), (1.35, 1), (1.36, 2), (1.99, 2), (2.0, 2),
        (2.0000001, 2), (1.9999999999, 2), (2.35, 2), (2.350001, 3), (7.5, 8), (1e6, 1_000_000),
        (NAN, None), (INF, None), (-INF, None), (None, None),
    ],
)  # fmt: skip
def test_rounding_goes_up_beyond_the_threshold(target, rounded):
    result = round_replicas(target, 0.35)
    assert result == rounded
    assert result is None or type(result) is int


@pytest.mark.parametrize(("threshold", "rounded"), [(0.0, 3), (0.5, 2), (1.0, 2)])
def test_the_threshold_is_a_setting(threshold, rounded):
    assert round_replicas(2.4, threshold) == rounded


# -------------------------------------------------------------------------------------------------- the table
@pytest.mark.parametrize(
    ("name", "wish", "current", "settings", "expected"),
    [
        ("what is wanted is", 4.0, 4, {}, (4, Reason.UNCHANGED)),
        ("rounds to what is", 4.3, 4, {}, (4, Reason.UNCHANGED)),
        ("up", 7.0, 4, {}, (7, Reason.FORECAST)),
        ("up, rounded", 6.4, 4, {}, (7, Reason.FORECAST)),
        ("down", 2.0, 4, {}, (2, Reason.FORECAST)),
        ("down to 1 at least", 0.0, 4, {}, (1, Reason.FORECAST)),
        ("negative is 1", -5.0, 4, {}, (1, Reason.FORECAST)),
        ("nothing proposed holds", None, 4, {}, (4, Reason.HELD_STALE)),
        ("NaN holds", NAN, 4, {}, (4, Reason.HELD_MISSING)),
        ("infinity holds", INF, 4, {}, (4, Reason.HELD_MISSING)),
        ("minus infinity holds", -INF, 4, {}, (4, Reason.HELD_MISSING)),
        # forced
        ("forced up", 2.0, 4, {"forced": {"web": 9}}, (9, Reason.FORCED)),
        ("forced down at once", 9.0, 20, {"forced": {"web": 3}, "max_step_down": 1, "tolerance": 0.9},
         (3, Reason.FORCED)),
        ("forced without a proposal", None, 4, {"forced": {"web": 6}}, (6, Reason.FORCED)),
        ("forced, NaN", NAN, 4, {"forced": {"web": 6}}, (6, Reason.FORCED)),
        ("forced to what is", 9.0, 4, {"forced": {"web": 4}}, (4, Reason.FORCED)),
        ("others' forced values don't count", 5.0, 4, {"forced": {"api": 9}}, (5, Reason.FORECAST)),
        ("paused in the settings", 9.0, 4, {"paused": ["web"]}, (4, Reason.PAUSED)),
        ("paused out of bounds stays", 9.0, 4, {"paused": ["web"], "min_replicas": 6}, (4, Reason.PAUSED)),
        ("another is paused", 9.0, 4, {"paused": ["webshop"]}, (9, Reason.FORECAST)),
        # tolerance
        ("tolerated up", 11.0, 10, {"tolerance": 0.1}, (10, Reason.WITHIN_TOLERANCE)),
        ("tolerated down", 9.0, 10, {"tolerance": 0.1}, (10, Reason.WITHIN_TOLERANCE)),
        ("beyond the tolerance up", 12.0, 10, {"tolerance": 0.1}, (12, Reason.FORECAST)),
        ("beyond the tolerance down", 8.0, 10, {"tolerance": 0.1}, (8, Reason.FORECAST)),
        ("tolerance 0 lets all through", 11.0, 10, {"tolerance": 0.0}, (11, Reason.FORECAST)),
        ("unchanged isn't tolerated but unchanged", 10.0, 10, {"tolerance": 0.5}, (10, Reason.UNCHANGED)),
        ("tolerated, but below min", 4.0, 4, {"tolerance": 0.5, "min_replicas": 6}, (6, Reason.MIN_REPLICAS)),
        ("tolerated, but above max", 9.0, 10, {"tolerance": 0.5, "max_replicas": 8},
         (8, Reason.MAX_REPLICAS)),
        # steps
        ("step up", 20.0, 4, {"max_step_up": 3}, (7, Reason.STEP_LIMIT)),
        ("step up, exactly", 7.0, 4, {"max_step_up": 3}, (7, Reason.FORECAST)),
        ("step down", 1.0, 10, {"max_step_down": 4}, (6, Reason.STEP_LIMIT)),
        ("step down, exactly", 6.0, 10, {"max_step_down": 4}, (6, Reason.FORECAST)),
        ("step up limit is none down", 1.0, 10, {"max_step_up": 2}, (1, Reason.FORECAST)),
        ("step down limit is none up", 20.0, 10, {"max_step_down": 2}, (20, Reason.FORECAST)),
        # min and max
        ("below min", 1.0, 4, {"min_replicas": 2}, (2, Reason.MIN_REPLICAS)),
        ("above max", 50.0, 4, {"max_replicas": 30}, (30, Reason.MAX_REPLICAS)),
        ("at min", 2.0, 4, {"min_replicas": 2}, (2, Reason.FORECAST)),
        ("at max", 30.0, 4, {"max_replicas": 30}, (30, Reason.FORECAST)),
        ("a service's own min", 1.0, 4, {"per_service": {"web": (3, 5)}}, (3, Reason.MIN_REPLICAS)),
        ("a service's own max", 9.0, 4, {"per_service": {"web": (3, 5)}}, (5, Reason.MAX_REPLICAS)),
        ("another's bounds", 9.0, 4, {"per_service": {"api": (3, 5)}}, (9, Reason.FORECAST)),
        ("held below min is raised", None, 1, {"min_replicas": 2}, (2, Reason.MIN_REPLICAS)),
        ("held above max is lowered", None, 50, {"max_replicas": 30}, (30, Reason.MAX_REPLICAS)),
        ("min wins over the step", 50.0, 1, {"min_replicas": 10, "max_step_up": 2},
         (10, Reason.MIN_REPLICAS)),
        ("max wins over the step", 1.0, 80, {"max_replicas": 30, "max_step_down": 5},
         (30, Reason.MAX_REPLICAS)),
        # quota (a replica has 1 core)
        ("quota fits", 7.0, 4, {"quota_cores": 7.0}, (7, Reason.FORECAST)),
        ("quota reduces the raise", 9.0, 4, {"quota_cores": 6.5}, (6, Reason.QUOTA)),
        ("quota leaves no raise", 9.0, 4, {"quota_cores": 4.0}, (4, Reason.QUOTA)),
        ("quota below what runs: no raise, no cut", 9.0, 4, {"quota_cores": 2.0}, (4, Reason.QUOTA)),
        ("quota doesn't stop a scale-down", 2.0, 4, {"quota_cores": 1.0}, (2, Reason.FORECAST)),
        ("quota binds forced values", 2.0, 4, {"forced": {"web": 9}, "quota_cores": 6.0}, (6, Reason.QUOTA)),
        ("quota binds min", 2.0, 1, {"min_replicas": 5, "quota_cores": 3.0}, (3, Reason.QUOTA)),
    ],
)  # fmt: skip
def test_one_service(name, wish, current, settings, expected):
    proposal = Proposal(wish, Reason.HELD_STALE if wish is None else Reason.FORECAST, predicted=wish)
    decision = one(proposal, workload(current), rails(**settings))
    assert (decision.target, decision.reason) == expected, name
    assert type(decision.target) is int


@pytest.mark.parametrize(
    ("kwargs", "settings", "acting", "target", "reason"),
    [
        (paused("true"), {}, True, 4, Reason.PAUSED),
        (paused("True "), {}, True, 4, Reason.PAUSED),
        (paused("yes, until Monday"), {}, True, 4, Reason.PAUSED),
        (paused("false"), {}, True, 9, Reason.FORECAST),
        (paused("0"), {}, True, 9, Reason.FORECAST),
        (paused(""), {}, True, 9, Reason.FORECAST),
        (paused("true"), {"forced": {"web": 7}}, True, 4, Reason.PAUSED),
        (paused("true"), {}, False, 4, Reason.PAUSED),
        (RIVAL, {}, True, 4, Reason.RIVAL_AUTOSCALER),
        (RIVAL, {"forced": {"web": 7}}, True, 4, Reason.RIVAL_AUTOSCALER),
        (RIVAL, {"min_replicas": 6}, True, 4, Reason.RIVAL_AUTOSCALER),
        (RIVAL, {}, False, 9, Reason.FORECAST),
        ({**RIVAL, **paused("true")}, {}, True, 4, Reason.PAUSED),
        ({"replicas": 0}, {}, True, 0, Reason.SCALED_TO_ZERO),
        ({"replicas": 0}, {"forced": {"web": 7}}, True, 0, Reason.SCALED_TO_ZERO),
        ({"replicas": 0}, {"min_replicas": 3}, True, 0, Reason.SCALED_TO_ZERO),
        ({"replicas": 0, **RIVAL, **paused("true")}, {}, True, 0, Reason.SCALED_TO_ZERO),
    ],
)
def test_what_its_owner_or_a_rival_handles_is_left_alone(kwargs, settings, acting, target, reason):
    decision = one(
        Proposal(9.0, Reason.FORECAST), workload(**kwargs), rails(**settings), stance=Stance(acting=acting)
    )
    assert (decision.target, decision.reason) == (target, reason)


@pytest.mark.parametrize(
    ("wish", "records", "target", "reason"),
    [
        (2.0, [(NOW - 60, 5)], 5, Reason.STABILIZED),
        (2.0, [(NOW - 60, 5), (NOW - 30, 7)], 7, Reason.STABILIZED),
        (2.0, [(NOW - 119.9, 5)], 5, Reason.STABILIZED),
        (2.0, [(NOW - 120, 5)], 2, Reason.FORECAST),  # as old as the window: out
        (2.0, [(NOW - 500, 9), (NOW - 60, 3)], 3, Reason.STABILIZED),
        (2.0, [(NOW - 60, 2)], 2, Reason.FORECAST),
        (2.0, [(NOW - 60, 1)], 2, Reason.FORECAST),
        (2.0, [(NOW - 60, 50)], 8, Reason.STABILIZED),  # holds what is, never climbs
        (2.0, [], 2, Reason.FORECAST),
        (8.0, [(NOW - 60, 50)], 8, Reason.UNCHANGED),
        (9.0, [(NOW - 60, 50)], 9, Reason.FORECAST),  # up at once, and no further than wanted
    ],
)
def test_a_scale_down_waits_for_the_highest_recommendation_of_the_window(wish, records, target, reason):
    decision = one(
        Proposal(wish, Reason.FORECAST), workload(8), rails(scale_down_window=120.0), remembered(*records)
    )
    assert (decision.target, decision.reason) == (target, reason)


def test_the_history_remembers_recommendations_not_what_was_held():
    settings, history = rails(scale_down_window=120.0), RecommendationHistory(120.0)
    history.record("web", NOW, 8)
    targets = []
    for tick in range(10):
        now = NOW + 15 * (tick + 1)
        decision = decide(
            {"web": Proposal(2.0, Reason.FORECAST)},
            [workload(8)],
            history,
            now,
            rails=settings,
            stance=Stance(),
        )[0]
        history.record("web", now, decision.recommended)
        targets.append(decision.target)
    assert targets == [8] * 7 + [2] * 3


def test_a_policy_with_its_own_rails_is_bounded_only():
    settings = rails(scale_down_window=120.0, tolerance=0.9, max_step_down=1, min_replicas=2, quota_cores=9.0)
    history, stance = remembered((NOW - 10, 8)), Stance(guarded=False, no_scale_down=frozenset({"web"}))
    assert one(Proposal(3.0, Reason.HPA), workload(8), settings, history, stance).target == 3
    assert (
        one(Proposal(1.0, Reason.HPA), workload(8), settings, history, stance).reason is Reason.MIN_REPLICAS
    )
    assert one(Proposal(12.0, Reason.HPA), workload(8), settings, history, stance).reason is Reason.QUOTA


def test_trouble_stops_scale_downs_and_nothing_else():
    stance = Stance(no_scale_down=frozenset({"web"}))
    down = one(Proposal(2.0, Reason.FORECAST), workload(8), rails(), stance=stance)
    assert (down.target, down.reason, down.recommended) == (8, Reason.HELD_TROUBLE, 8)
    assert one(Proposal(9.0, Reason.FORECAST), workload(8), rails(), stance=stance).target == 9
    assert (
        one(Proposal(2.0, Reason.FORECAST), workload(8, "api"), rails(), stance=stance).target == 8
    )  # no proposal of its own


# ------------------------------------------------------------------------------------------------------ quota
def plan_of(*services: tuple[str, int, int]) -> list[Decision]:
    return [Decision(name, current, target, Reason.FORECAST, target) for name, current, target in services]


def targets(plan: list[Decision]) -> dict[str, int]:
    return {item.service: item.target for item in plan}


def within_quota(plan: list[Decision], cores: dict[str, float], quota: float) -> list[Decision]:
    """The plan within one quota of this many cores."""
    return within_quotas(
        plan,
        [
            workload(item.current, item.service, cpu_limit_cores=cores[item.service], cpu_request_cores=None)
            for item in plan
        ],
        quota,
    )


def within(plan: list[Decision], claims: dict[str, list[QuotaClaim]], pods: dict[str, int] | None = None):
    """The plan within the quotas of the namespace; their free part is beyond the pods that exist."""
    counts = {item.service: item.current for item in plan} | (pods or {})
    items = [
        workload(item.current, item.service, pods=counts[item.service], quotas=tuple(claims[item.service]))
        for item in plan
    ]
    return within_quotas(plan, items, None)


def test_a_plan_that_fits_is_left_as_it_is():
    plan = plan_of(("a", 1, 5), ("b", 5, 1))
    assert within_quota(plan, {"a": 1.0, "b": 1.0}, 6.0) == plan


def test_scale_downs_pay_for_scale_ups():
    assert targets(within_quota(plan_of(("a", 1, 5), ("b", 9, 5)), {"a": 1.0, "b": 1.0}, 10.0)) == {
        "a": 5,
        "b": 5,
    }


def test_the_smallest_share_of_the_wish_is_served_first():
    plan = within_quota(plan_of(("big", 2, 10), ("small", 2, 4)), {"big": 1.0, "small": 1.0}, 9.0)
    assert targets(plan) == {
        "big": 6,
        "small": 3,
    }  # .6 and .75 of what they asked for; any other split has a lower minimum
    assert {item.reason for item in plan} == {Reason.QUOTA}


def test_who_gets_all_it_asked_for_keeps_its_reason():
    plan = within_quota(plan_of(("a", 1, 2), ("b", 3, 9), ("c", 3, 3)), {"a": 1.0, "b": 1.0, "c": 1.0}, 10.0)
    assert targets(plan) == {"a": 2, "b": 5, "c": 3}
    assert [item.reason for item in plan] == [Reason.FORECAST, Reason.QUOTA, Reason.FORECAST]


def test_equal_shares_go_by_name_and_a_replica_that_does_not_fit_makes_room_for_smaller_ones():
    assert targets(within_quota(plan_of(("b", 1, 2), ("a", 1, 2)), {"a": 1.0, "b": 1.0}, 3.0)) == {
        "a": 2,
        "b": 1,
    }
    assert targets(within_quota(plan_of(("fat", 1, 4), ("thin", 3, 6)), {"fat": 4.0, "thin": 1.0}, 9.0)) == {
        "fat": 1,
        "thin": 5,
    }


def test_services_without_limit_count_by_their_request_or_not_at_all():
    assert cores_of(workload(cpu_limit_cores=None)) == 0.5
    assert cores_of(workload(cpu_limit_cores=None, cpu_request_cores=None)) == 0.0
    assert targets(within_quota(plan_of(("a", 1, 9), ("b", 1, 9)), {"a": 0.0, "b": 1.0}, 1.0)) == {
        "a": 9,
        "b": 1,
    }


@pytest.mark.field
def test_each_of_several_quotas_is_kept_and_the_one_that_binds_is_named():
    def claims(megabytes: float) -> list[QuotaClaim]:
        return [
            QuotaClaim("ResourceQuota/a pods", 6.0, 1.0),
            QuotaClaim("ResourceQuota/a limits.memory", 1000.0, megabytes),
        ]

    plan = within(plan_of(("fat", 1, 9), ("thin", 1, 9)), {"fat": claims(300.0), "thin": claims(10.0)})
    assert targets(plan) == {"fat": 4, "thin": 4}  # 3 and 3 more: no pod is left, 70 of the memory are
    plan = within(plan_of(("fat", 1, 9), ("thin", 1, 4)), {"fat": claims(400.0), "thin": claims(10.0)})
    assert targets(plan) == {"fat": 3, "thin": 4}
    assert [(item.reason, item.bound_by) for item in plan] == [
        (Reason.QUOTA, "ResourceQuota/a limits.memory"),
        (Reason.FORECAST, ""),
    ]


@pytest.mark.field
def test_a_service_whose_pods_a_quota_refuses_keeps_what_it_has_and_costs_the_others_nothing():
    refused = [QuotaClaim("ResourceQuota/q limits.cpu", 3.0, INF)]
    plan = within(
        plan_of(("bare", 2, 9), ("web", 1, 9)),
        {"bare": refused, "web": [QuotaClaim("ResourceQuota/q limits.cpu", 3.0, 1.0)]},
        pods={"bare": 0, "web": 1},
    )
    assert targets(plan) == {"bare": 2, "web": 4}


@pytest.mark.field
def test_pods_that_are_still_to_come_count_before_more_are_granted():
    claims = [QuotaClaim("ResourceQuota/q pods", 4.0, 1.0)]
    plan = plan_of(("api", 5, 5), ("web", 2, 9))
    assert targets(within(plan, {"api": claims, "web": claims}, pods={"api": 2, "web": 2})) == {
        "api": 5,
        "web": 3,
    }
    assert targets(within(plan, {"api": claims, "web": claims}, pods={"api": 9, "web": 2})) == {
        "api": 5,
        "web": 9,
    }  # api has 4 pods too many: they go


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 20), st.floats(0, 3), st.floats(0, 3)),
        min_size=1,
        max_size=5,
    ),
    st.floats(0, 30),
    st.floats(0, 30),
)
def test_no_quota_is_exceeded_by_what_is_granted(services, free_a, free_b):
    names = [f"s{index}" for index in range(len(services))]
    plan = plan_of(
        *((name, current, wish) for name, (current, wish, _, _) in zip(names, services, strict=True))
    )
    claims = {
        name: [QuotaClaim("a", free_a, a), QuotaClaim("b", free_b, b)]
        for name, (_, _, a, b) in zip(names, services, strict=True)
    }
    got = within(plan, claims)
    for place, free in ((2, free_a), (3, free_b)):
        taken = sum(
            (item.target - item.current) * service[place] for item, service in zip(got, services, strict=True)
        )
        lowest = sum(
            (min(item.target, item.current) - item.current) * service[place]
            for item, service in zip(plan, services, strict=True)
        )
        assert taken <= max(free, lowest) + 1e-6
    assert all(
        min(item.current, item.target) <= new.target <= item.target
        for item, new in zip(plan, got, strict=True)
    )
    assert within(list(reversed(plan)), claims) == list(reversed(got))


def test_those_left_alone_count_against_the_quota():
    items = [workload(6, "api", **RIVAL), workload(2)]
    proposals = {"api": Proposal(1.0, Reason.FORECAST), "web": Proposal(9.0, Reason.FORECAST)}
    plan = decide(
        proposals, items, RecommendationHistory(0.0), NOW, rails=rails(quota_cores=10.0), stance=Stance()
    )
    assert targets(plan) == {"api": 6, "web": 4}


BESIDE = Stance(beside=frozenset({"cart"}))


def pods_left(free: float, *replicas: tuple[str, int]) -> list[Workload]:
    """Services with so many replicas, and one quota that has room for so many pods more."""
    claim = QuotaClaim("ResourceQuota/team pods", free, 1.0)
    return [workload(count, name, pods=count, quotas=(claim,)) for name, count in replicas]


def decided(items: list[Workload], stance: Stance, cores: float | None = None, **wishes: float):
    proposals = {name: Proposal(wish, Reason.PLAN, planned=True) for name, wish in wishes.items()}
    settings = rails(quota_cores=cores, tolerance=0.0)
    return decide(proposals, items, RecommendationHistory(0.0), NOW, rails=settings, stance=stance)


@pytest.mark.parametrize("cores", [None, 15.0])
def test_a_scale_down_that_is_never_written_frees_nothing_of_a_quota(cores: float | None):
    items = [workload(10, "cart"), workload(5)] if cores else pods_left(0.0, ("cart", 10), ("web", 5))
    assert targets(decided(items, BESIDE, cores, cart=2.0, web=13.0)) == {"cart": 2, "web": 5}
    assert targets(decided(items, Stance(), cores, cart=2.0, web=13.0)) == {"cart": 2, "web": 13}


@pytest.mark.parametrize("cores", [None, 23.0])
def test_a_scale_up_that_is_never_written_takes_nothing_of_a_quota(cores: float | None):
    items = [workload(10, "cart"), workload(5)] if cores else pods_left(8.0, ("cart", 10), ("web", 5))
    plan = decided(items, BESIDE, cores, cart=30.0, web=11.0)
    assert targets(plan) == {"cart": 12, "web": 11}  # of 8, web takes 6
    assert plan[0].reason is Reason.QUOTA


def test_advice_alone_keeps_within_the_quota_and_counts_on_no_scale_down():
    items = pods_left(4.0, ("ad", 9), ("cart", 1), ("web", 1))
    advised = Stance(beside=frozenset({"ad", "cart", "web"}))
    assert targets(decided(items, advised, ad=2.0, cart=9.0, web=9.0)) == {"ad": 2, "cart": 3, "web": 3}


def test_in_a_dry_run_the_quota_is_shared_as_if_all_were_written():
    items = pods_left(0.0, ("cart", 10), ("web", 5))
    watched = replace(BESIDE, acting=False)
    assert targets(decided(items, watched, cart=2.0, web=13.0)) == {"cart": 2, "web": 13}


# ---------------------------------------------------------------------------------------------------- history
def test_a_restarted_controller_remembers_what_it_recommended():
    rows = pd.DataFrame(
        [
            (NOW - 200, "web", 8, 8, 20.0, None, 20, None, "forecast", "act"),  # out of the window
            (NOW - 90, "web", 8, 8, 5.6, None, 8, None, "stabilized", "act"),
            (NOW - 75, "web", 8, 8, 3.0, 7.0, 8, None, "stabilized", "act"),
            (NOW - 60, "api", 4, 4, None, None, 4, None, "held_stale", "act"),
            (NOW - 60, "db", 4, 4, None, None, 9, 9, "forced", "act"),
            (NOW - 60, "cart", 2, 2, 9.0, None, 2, None, "paused", "act"),
            (NOW - 60, "ad", 1, 1, None, None, 2, 2, "min_replicas", "act"),
        ],
        columns=[
            "time",
            "service",
            "current",
            "ready",
            "predicted",
            "floor",
            "target",
            "applied",
            "reason",
            "mode",
        ],
    )
    history = RecommendationHistory(120.0)
    history.restore(rows, NOW, 0.35)
    assert {name: history.highest(name, NOW) for name in ("web", "api", "db", "cart", "ad", "shop")} == {
        "web": 7, "api": 4, "db": 9, "cart": 2, "ad": 1, "shop": None,
    }  # fmt: skip
    assert history.highest("web", NOW + 40) == 7
    assert history.highest("web", NOW + 50) is None


@pytest.mark.field
def test_a_service_at_zero_is_forgotten_so_its_waking_is_seen_first():
    history = remembered((NOW - 100, 7), (NOW - 40, 0), (NOW - 20, 0))
    assert not history.knows("web") and history.highest("web", NOW) is None
    history.record("web", NOW, 10)
    down = one(Proposal(1.0, Reason.FORECAST), workload(10), rails(scale_down_window=120.0), history)
    assert (down.target, down.reason) == (10, Reason.STABILIZED)


@pytest.mark.field
def test_a_restart_while_a_service_is_at_zero_remembers_nothing_of_it():
    columns = ["time", "service", "current", "predicted", "floor", "target", "reason"]
    rows = pd.DataFrame(
        [
            (NOW - 90, "web", 8, 8.0, None, 8, "forecast"),
            (NOW - 60, "web", 0, None, None, 0, "scaled_to_zero"),
            (NOW - 60, "api", 0, None, None, 0, "scaled_to_zero"),
            (NOW - 30, "api", 6, 2.0, None, 6, "stabilized"),
        ],
        columns=columns,
    )
    history = RecommendationHistory(120.0)
    history.restore(rows, NOW, 0.35)
    assert not history.knows("web") and history.highest("api", NOW) == 2


@pytest.mark.field
@pytest.mark.parametrize("ticks_at_zero", [1, 2, 20])
def test_waking_from_zero_is_stabilised_like_any_scale_down(ticks_at_zero):
    cluster = FakeCluster(("web",), replicas={"web": 0})
    settings = make_settings(cluster.names, guard_rails={"scale_down_window": 120.0})
    controller = Controller(cluster, ScriptedPolicy(lambda _now, _service: 1.0), settings)
    controller.run(15.0 * ticks_at_zero)
    cluster.replicas["web"] = 10
    controller.run(120.0)
    assert cluster.writes == []
    assert set(controller.decisions()["reason"][ticks_at_zero:]) == {"stabilized"}
    controller.run(30.0)
    assert cluster.replicas["web"] == 1


def test_no_rows_restore_nothing():
    history = RecommendationHistory(120.0)
    history.restore(
        pd.DataFrame(columns=["time", "service", "current", "predicted", "floor", "target", "reason"]),
        NOW,
        0.35,
    )
    assert not history.knows("web")


# ------------------------------------------------------------------------------------------------- properties
SERVICES = ("ad", "cart", "web")
wishes = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 60))


@st.composite
def settings_of(draw: st.DrawFn, quota: bool) -> GuardRails:
    low = draw(st.integers(1, 10))
    return GuardRails(
        min_replicas=low,
        max_replicas=draw(st.integers(low, 40)),
        round_up_threshold=draw(st.floats(0, 1)),
        tolerance=draw(st.floats(0, 1)),
        scale_down_window=draw(st.sampled_from([0.0, 60.0, 300.0])),
        max_step_up=draw(st.integers(1, 40)),
        max_step_down=draw(st.integers(1, 40)),
        quota_cores=draw(st.floats(0, 200, exclude_min=True)) if quota else None,
    )


@st.composite
def situations(
    draw: st.DrawFn, quota: bool = True
) -> tuple[dict[str, Proposal], list[Workload], RecommendationHistory, GuardRails, Stance]:
    settings = draw(settings_of(quota))
    history = RecommendationHistory(settings.scale_down_window)
    for name in SERVICES:
        for age in draw(st.lists(st.floats(0, 400), max_size=3)):
            history.record(name, NOW - age, draw(st.integers(1, 60)))
    items = [
        workload(
            draw(st.integers(0, 50)),
            name,
            cpu_limit_cores=draw(st.sampled_from([None, 0.1, 1.0, 3.0])),
            **draw(st.sampled_from([{}, {}, {}, RIVAL, paused("true")])),
        )
        for name in SERVICES
    ]
    proposals = {
        name: Proposal(draw(wishes), Reason.FORECAST) for name in SERVICES if draw(st.integers(0, 9))
    }
    stance = Stance(
        draw(st.booleans()), draw(st.booleans()), frozenset(draw(st.sets(st.sampled_from(SERVICES))))
    )
    return proposals, items, history, settings, stance


@given(situations())
def test_targets_are_python_ints_of_at_least_one_and_within_bounds(situation):
    proposals, items, history, settings, stance = situation
    for decision in decide(proposals, items, history, NOW, rails=settings, stance=stance):
        assert type(decision.target) is int
        if decision.reason in (Reason.SCALED_TO_ZERO, Reason.PAUSED, Reason.RIVAL_AUTOSCALER):
            assert decision.target == decision.current
            continue
        assert 1 <= decision.target <= settings.max_replicas
        assert decision.target >= settings.min_replicas or decision.reason is Reason.QUOTA


@given(situations())
def test_what_was_decided_is_left_alone_once_it_is_there(situation):
    proposals, items, history, settings, stance = situation
    first = decide(proposals, items, history, NOW, rails=settings, stance=stance)
    again = {item.service: Proposal(float(item.target), Reason.FORECAST) for item in first if item.target}
    there = [replace(item, replicas=decision.target) for item, decision in zip(items, first, strict=True)]
    second = decide(again, there, history, NOW, rails=settings, stance=stance)
    assert [item.target for item in second] == [item.target for item in first]


@given(situations(quota=False), st.floats(0, 60))
def test_a_floor_only_raises(situation, floor):
    proposals, items, history, settings, stance = situation
    raised = {
        name: replace(proposal, target=max(proposal.target, floor))
        for name, proposal in proposals.items()
        if proposal.target is not None and abs(proposal.target) < 1e9
    }
    without = decide(
        {name: proposals[name] for name in raised}, items, history, NOW, rails=settings, stance=stance
    )
    with_floor = decide(raised, items, history, NOW, rails=settings, stance=stance)
    assert all(high.target >= low.target for high, low in zip(with_floor, without, strict=True))


@given(situations())
def test_the_quota_is_kept_unless_what_runs_is_already_beyond_it(situation):
    proposals, items, history, settings, stance = situation
    cores = {item.service: cores_of(item) for item in items}
    plan = decide(proposals, items, history, NOW, rails=settings, stance=stance)
    total = sum(cores[item.service] * item.target for item in plan)
    lowest = sum(cores[item.service] * min(item.target, item.current) for item in plan)
    assert total <= max(settings.quota_cores or 0.0, lowest) + 1e-6


@given(situations())
def test_deciding_leaves_the_history_alone(situation):
    proposals, items, history, settings, stance = situation
    before = {name: history.highest(name, NOW) for name in SERVICES}
    decide(proposals, items, history, NOW, rails=settings, stance=stance)
    assert {name: history.highest(name, NOW) for name in SERVICES} == before


def test_rails_of_unknown_services_are_refused_by_the_settings():
    with pytest.raises(ValidationError, match="unknown service 'cart'"):
        make_settings(guard_rails={"forced": {"cart": 3}})
