"""The HPA: its rules one by one, the policy, then every decision recorded from the real v1.36 controller."""

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import recordings

from deepscaler.cluster import Pod, Workload
from deepscaler.errors import MetricsError, SettingsError
from deepscaler.panel import MetricPanel
from deepscaler.policies.base import Observation, Proposal, Reason
from deepscaler.policies.hpa import api as hpa_api
from deepscaler.policies.hpa.api import parse_spec
from deepscaler.policies.hpa.limits import store_scale_event
from deepscaler.policies.hpa.policy import HpaPolicy, HpaTarget, millicores
from deepscaler.policies.hpa.recommendation import Measured, measure, metric_replicas, tolerances_for
from deepscaler.policies.hpa.reconcile import reconcile
from deepscaler.policies.hpa.spec import Behavior, Flags, HpaSpec, Metric, RatePolicy, ScalingRules
from deepscaler.policies.hpa.state import HpaState
from deepscaler.policies.hpa.usage import HpaPod, PodMetric, Sample, pod_requests
from deepscaler.policies.registry import make_policy
from deepscaler.quantities import canonical_quantity
from deepscaler.settings import Settings


# -------------------------------------------------------------------------------------------------- the rules
def pod(
    usage: int | None = None,
    *,
    request: int | None = 1000,
    phase: str = "Running",
    ready: str | None = "True",
    deleting: bool = False,
    started: float = 5000,
    since: float = 4990,
    age: float = 5,
    name: str = "",
) -> HpaPod:
    """A pod at time 0 with one container; times are ages. Old and ready for long unless told otherwise."""
    requests = {"c": {} if request is None else {"cpu": request, "memory": request}}
    sample = None if usage is None else Sample({"c": {"cpu": usage, "memory": usage}}, -age, 15)
    return HpaPod(name, phase, deleting, -started, ready, -since, requests, sample)


def many(count: int, usage: int | None = None, **changes: Any) -> list[HpaPod]:
    return [pod(usage, **changes) for _ in range(count)]


def named(pods: list[HpaPod]) -> list[HpaPod]:
    return [replace(one, name=one.name or f"p{index}") for index, one in enumerate(pods)]


YOUNG = {"started": 60, "since": 60, "ready": "False"}
FIFTY = Metric("cpu", utilization=50)
CALCULATIONS: list[tuple[str, Metric, int, list[HpaPod], int]] = [
    ("the upper edge of the tolerance is inside", FIFTY, 10, many(10, 550), 10),
    ("the lower edge of the tolerance is inside", FIFTY, 10, many(10, 450), 10),
    ("one percent above the edge is outside", FIFTY, 10, many(10, 560), 12),
    ("one percent below the edge is outside", FIFTY, 10, many(10, 440), 9),
    ("a utilisation is cut to whole percent first: 55.9 % is 55 %", FIFTY, 10, many(10, 559), 10),
    (
        "a utilisation is one of totals, no mean of ratios",
        FIFTY,
        10,
        [*many(9, 100, request=100), pod(0, request=9000)],
        2,
    ),
    (
        "ceil is of float64: (22 / 10) * 25 lies just above 55",
        Metric("cpu", utilization=10),
        25,
        many(25, 220),
        56,
    ),
    ("zero usage asks for zero", FIFTY, 3, many(3, 0), 0),
    ("fewer ready pods than replicas can give less at a ratio above 1", FIFTY, 8, many(2, 600), 3),
    ("more ready pods than replicas can give more at a ratio below 1", FIFTY, 2, many(10, 400), 8),
    ("a missing pod uses nothing on the way up", FIFTY, 4, [*many(3, 900), pod()], 6),
    ("a missing pod uses its whole request on the way down", FIFTY, 4, [*many(3, 100), pod()], 3),
    (
        "a missing pod uses the target where that is above the request",
        Metric("cpu", utilization=150),
        4,
        [*many(3, 600), pod()],
        3,
    ),
    ("a missing pod stays out at a ratio of exactly 1", FIFTY, 4, [*many(3, 500), pod()], 4),
    ("missing pods that turn up into down hold", FIFTY, 2, [pod(600), pod()], 2),
    ("missing pods that turn down into up hold", FIFTY, 2, [pod(400), pod()], 2),
    ("missing pods that bring the ratio into the tolerance hold", FIFTY, 9, [*many(8, 600), pod()], 9),
    ("a way down that would add replicas holds", FIFTY, 2, [*many(4, 100), pod()], 2),
    ("a way up that would remove replicas holds", FIFTY, 9, [*many(4, 900), pod()], 9),
    ("an unready pod uses nothing on the way up", FIFTY, 3, [*many(2, 900), pod(900, **YOUNG)], 4),
    ("an unready pod is left out on the way down", FIFTY, 3, [*many(2, 100), pod(900, **YOUNG)], 1),
    ("a pending pod is unready even with a metric", FIFTY, 3, [*many(2, 900), pod(900, phase="Pending")], 4),
    ("a pod being deleted is counted nowhere", FIFTY, 3, [*many(2, 900), pod(900, deleting=True)], 4),
    ("a failed pod is counted nowhere", FIFTY, 3, [*many(2, 900), pod(phase="Failed")], 4),
    ("a succeeded pod without a metric is missing", FIFTY, 4, [*many(3, 100), pod(phase="Succeeded")], 3),
    (
        "a pod that became unready later counts fully",
        FIFTY,
        3,
        [*many(2, 900), pod(900, ready="False", since=4000)],
        6,
    ),
    (
        "an old pod that was never ready is unready",
        FIFTY,
        3,
        [*many(2, 900), pod(900, ready="False", since=4971)],
        4,
    ),
    (
        "unready exactly one readiness delay after its start counts",
        FIFTY,
        3,
        [*many(2, 900), pod(900, ready="False", since=4970)],
        6,
    ),
    (
        "a pod as old as the initialization period is not young",
        FIFTY,
        3,
        [*many(2, 900), pod(900, started=300, since=5, age=5)],
        6,
    ),
    (
        "a young pod whose metric is one window old counts",
        FIFTY,
        3,
        [*many(2, 900), pod(900, started=60, since=20, age=5)],
        6,
    ),
    (
        "a young pod whose metric reaches back before it was ready",
        FIFTY,
        3,
        [*many(2, 900), pod(900, started=60, since=19, age=5)],
        4,
    ),
    ("a pod whose readiness is unknown counts", FIFTY, 3, [*many(2, 900), pod(900, ready="Unknown")], 6),
    ("a pod without a Ready condition is unready", FIFTY, 3, [*many(2, 900), pod(900, ready=None)], 4),
    (
        "memory doesn't look at readiness",
        Metric("memory", utilization=50),
        3,
        [*many(2, 900), pod(900, **YOUNG)],
        6,
    ),
    (
        "an average value is cut to whole units first",
        Metric("cpu", average_value=500),
        2,
        [pod(550), pod(551)],
        2,
    ),
    (
        "a missing pod uses exactly an average value's target on the way down",
        Metric("cpu", average_value=500),
        3,
        [*many(2, 100), pod()],
        2,
    ),
    ("an average value needs no request", Metric("cpu", average_value=500), 2, many(2, 900, request=None), 4),
]


@pytest.mark.parametrize(
    ("metric", "current", "pods", "replicas"),
    [row[1:] for row in CALCULATIONS],
    ids=[row[0] for row in CALCULATIONS],
)
def test_replicas_of_one_metric(metric, current, pods, replicas):
    found, _ = metric_replicas(HpaSpec(1, 100, (metric,)), metric, current, named(pods), 0.0)
    assert found == replicas


FAILURES: list[tuple[str, Metric, list[HpaPod], str]] = [
    ("no pod has a metric", FIFTY, many(2), "no metrics returned from resource metrics API"),
    ("no pod is ready", FIFTY, many(2, 900, **YOUNG), "did not receive metrics for targeted pods"),
    (
        "a pod has no request",
        FIFTY,
        [*many(2, 900), pod(900, request=None)],
        "missing request for cpu in container c of Pod p2",
    ),
    (
        "even one being deleted",
        FIFTY,
        [*many(2, 900), pod(request=None, deleting=True)],
        "missing request for cpu",
    ),
    ("requests add up to nothing", FIFTY, many(2, 900, request=0), "no metrics returned matched known pods"),
    (
        "the named container isn't there",
        Metric("cpu", 50, container="nope"),
        many(2, 900),
        "did not receive metrics",
    ),
]


@pytest.mark.parametrize(
    ("metric", "pods", "message"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES]
)
def test_a_metric_fails_where(metric, pods, message):
    with pytest.raises(MetricsError, match=message):
        metric_replicas(HpaSpec(1, 100, (metric,)), metric, 2, named(pods), 0.0)


def test_a_container_metric_reads_only_its_container():
    metric = Metric("cpu", 50, container="app")
    both = Sample({"app": {"cpu": 90}, "proxy": {}}, 0.0, 15)
    pods = [
        replace(pod(), name=f"p{i}", requests={"app": {"cpu": 100}, "proxy": {}}, sample=both)
        for i in range(2)
    ]
    assert metric_replicas(HpaSpec(1, 9, (metric,)), metric, 2, pods, 0.0)[0] == 4
    with pytest.raises(MetricsError, match="did not receive metrics"):
        metric_replicas(HpaSpec(1, 9, (FIFTY,)), FIFTY, 2, pods, 0.0)


def test_requests_on_the_level_of_the_pod_come_first():
    pods = named([replace(one, pod_requests={"cpu": 2000}) for one in many(2, 900)])
    assert pod_requests(pods, "cpu") == {"p0": 2000, "p1": 2000}
    assert pod_requests(pods, "cpu", "c") == {"p0": 1000, "p1": 1000}


def test_metrics_of_unknown_pods_count_as_entries_of_the_filled_set():
    strangers = {"gone": PodMetric(5000, 0.0, 15), "gone2": PodMetric(1, 0.0, 15)}
    found, usage = metric_replicas(
        HpaSpec(1, 99, (FIFTY,)), FIFTY, 3, named([*many(2, 900), pod()]), 0.0, strangers=strangers
    )
    assert (found, usage.utilization) == (6, 90)


def behavior(**directions: Any) -> dict[str, Any]:
    return {"behavior": directions}


def pods_policy(value: int, period: int, kind: str = "Pods") -> dict[str, Any]:
    return {"type": kind, "value": value, "periodSeconds": period}


NOW_DOWN = {"stabilizationWindowSeconds": 0}
# spec, then per sync: time, replicas before it (None: what the last one left), recommendation (None: it
# failed), replicas after
SYNCS: list[tuple[str, dict[str, Any], list[tuple[float, int | None, int | None, int]]]] = [
    ("a new HPA waits a window before it scales down", {},
     [(0, 5, 2, 5), (150, None, 2, 5), (301, None, 2, 2)]),
    ("an age equal to the window counts without behavior", {},
     [(0, 5, 2, 5), (300, None, 2, 5), (300.001, None, 2, 2)]),
    ("an age equal to the window is out with behavior", behavior(),
     [(0, 5, 2, 5), (299.999, None, 2, 5), (300, None, 2, 2)]),
    ("a sync at most doubles, but to 4 at least", {}, [(0, 1, 60, 4), (15, None, 60, 8), (30, None, 60, 16)]),
    ("doubling starts at 3", {}, [(0, 3, 60, 6)]),
    ("the window's maximum acts upwards too", {}, [(0, 2, 16, 4), (15, None, 3, 8), (30, None, 3, 16)]),
    ("a recommendation of 0 is raised to min", {"minReplicas": 2}, [(0, 3, 0, 3), (301, None, 0, 2)]),
    ("more than max is cut at once", {"maxReplicas": 6}, [(0, 9, None, 6)]),
    ("fewer than min is raised at once", {"minReplicas": 3}, [(0, 1, None, 3)]),
    ("a workload at zero is left alone", {"minReplicas": 3}, [(0, 0, 9, 0)]),
    ("it resumes when somebody starts it again", {}, [(0, 5, 5, 5), (15, 0, None, 0), (30, 1, 5, 4)]),
    ("an owner's scale-up is undone without waiting for the window", {}, [(0, 5, 5, 5), (15, 9, 5, 5)]),
    ("a failed sync changes nothing and records nothing", {},
     [(0, 5, 2, 5), (200, None, None, 5), (301, None, 2, 2)]),
    ("behavior adds 4 pods or doubles", behavior(), [(0, 1, 60, 5), (15, None, 60, 10), (30, None, 60, 20)]),
    ("a policy looks back one period, its edge is out", behavior(scaleUp={"policies": [pods_policy(2, 30)]}),
     [(0, 2, 9, 4), (15, None, 9, 4), (29.999, None, 9, 4), (30, None, 9, 6)]),
    ("50 + 10 % is 56 in float64", behavior(scaleUp={"policies": [pods_policy(10, 15, "Percent")]}),
     [(0, 50, 99, 56)]),
    ("30 - 90 % is 2 in float64",
     behavior(scaleDown={**NOW_DOWN, "policies": [pods_policy(90, 15, "Percent")]}), [(0, 30, 1, 2)]),
    ("Min takes the smallest change up", behavior(scaleUp={"selectPolicy": "Min"}),
     [(0, 2, 60, 4), (15, None, 60, 8), (30, None, 60, 12)]),
    ("Min takes the smallest change down",
     behavior(scaleDown={**NOW_DOWN, "selectPolicy": "Min",
     "policies": [pods_policy(4, 15), pods_policy(10, 15, "Percent")]}),
     [(0, 20, 20, 20), (15, None, 1, 18)]),
    ("Disabled allows no change", behavior(scaleUp={"selectPolicy": "Disabled"}), [(0, 5, 60, 5)]),
    ("an up window takes its lowest recommendation", behavior(scaleUp={"stabilizationWindowSeconds": 60}),
     [(0, 3, 8, 3), (59, None, 8, 3), (60, None, 6, 6)]),
    ("between the lowest and the highest nothing changes",
     behavior(scaleUp={"stabilizationWindowSeconds": 60}),
     [(0, 5, 3, 5), (15, None, 8, 5), (30, None, 4, 5)]),
    ("pods removed count for the other direction",
     behavior(scaleDown=NOW_DOWN, scaleUp={"policies": [pods_policy(1, 60)]}),
     [(0, 9, 9, 9), (15, None, 4, 4), (30, None, 40, 10)]),
    ("an event past its own direction's periods is overwritten",
     behavior(scaleDown={**NOW_DOWN, "policies": [pods_policy(9, 5)]},
     scaleUp={"policies": [pods_policy(1, 60)]}),
     [(0, 9, 9, 9), (10, None, 8, 8), (20, None, 7, 7), (30, None, 40, 9)]),
    ("of several such events the last one is overwritten",
     behavior(scaleDown={**NOW_DOWN, "policies": [pods_policy(9, 5)]},
     scaleUp={"policies": [pods_policy(1, 60)]}),
     [(0, 20, 19, 19), (3, None, 17, 17), (10, None, 16, 16), (20, None, 40, 19)]),
]  # fmt: skip


@pytest.mark.parametrize(("document", "syncs"), [row[1:] for row in SYNCS], ids=[row[0] for row in SYNCS])
def test_a_series_of_syncs(document, syncs):
    spec, state, left = parse_spec({"minReplicas": 1, "maxReplicas": 100, **document}), HpaState(), 0
    for now, before, recommendation, after in syncs:
        current = left if before is None else before
        decision = reconcile(spec, state, current, Measured(recommendation, "cpu"), now)
        assert (now, decision.target) == (now, after)
        state, left = (
            store_scale_event(decision.state, spec, current, decision.target, now),
            decision.target,
        )


def test_the_largest_of_several_metrics_wins():
    spec = HpaSpec(1, 20, (FIFTY, Metric("memory", 25)))
    assert measure(spec, 4, named(many(4, 500)), 0.0).replicas == 8


@pytest.mark.parametrize(
    ("usage", "recommendation"), [(900, 8), (500, 4), (100, None)], ids=["up", "same", "down"]
)
def test_where_one_of_several_metrics_fails_the_others_never_scale_down(usage, recommendation):
    spec = HpaSpec(1, 20, (FIFTY, Metric("cpu", 50, container="nope")))
    measured = measure(spec, 4, named(many(4, usage)), 0.0)
    assert measured.replicas == recommendation
    assert measured.failed_reason == "FailedGetContainerResourceMetric"


@pytest.mark.parametrize("kind", ["Pods", "Object", "External"])
def test_a_metric_that_nobody_serves_fails_and_lets_the_others_only_scale_up(kind):
    custom = {"type": kind, kind.lower(): {"metric": {"name": "packets"}, "target": {"type": "Value"}}}
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    both = parse_spec({"maxReplicas": 9, "metrics": [custom, {"type": "Resource", "resource": cpu}]})
    alone = parse_spec({"maxReplicas": 9, "metrics": [custom]})
    for spec, usage, replicas in ((both, 900, 4), (both, 100, None), (alone, 900, None)):
        found = measure(spec, 2, named(many(2, usage)), 0.0)
        assert (found.replicas, found.failed_reason) == (replicas, f"FailedGet{kind}Metric")
        assert "unable to get metric packets" in found.failed


def test_a_tolerance_of_one_direction_leaves_the_other_at_the_flag():
    spec = parse_spec({"maxReplicas": 9, **behavior(scaleUp={"tolerance": "500m"})})
    assert tolerances_for(spec) == (0.1, 0.5)


def test_policies_that_are_given_replace_the_whole_list_and_other_fields_are_filled():
    up = hpa_api.with_defaults({"maxReplicas": 5, **behavior(scaleUp={"policies": [pods_policy(1, 60)]})})[
        "behavior"
    ]["scaleUp"]
    assert up == {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [pods_policy(1, 60)]}
    assert (
        "stabilizationWindowSeconds"
        not in hpa_api.with_defaults({"maxReplicas": 5, **behavior()})["behavior"]["scaleDown"]
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "maxReplicas: Required"),
        ({"minReplicas": 0, "maxReplicas": 5}, "greater than or equal to 1"),
        ({"minReplicas": 6, "maxReplicas": 5}, "`minReplicas`"),
        ({"maxReplicas": 5, **behavior(scaleUp={"stabilizationWindowSeconds": 3601})}, "3600"),
        ({"maxReplicas": 5, **behavior(scaleUp={"policies": [pods_policy(1, 1801)]})}, "1800"),
        (
            {"maxReplicas": 5, **behavior(scaleUp={"policies": [pods_policy(0, 0, "Pod")]})},
            '"Pod".*value: Invalid.*periodSeconds: Invalid',
        ),
        ({"maxReplicas": 5, **behavior(scaleDown={"policies": []})}, "at least one Policy"),
        (
            {"maxReplicas": 5, **behavior(scaleDown={"selectPolicy": "max"})},
            'supported values: "Disabled", "Max", "Min"',
        ),
        ({"maxReplicas": 5, **behavior(scaleDown={"tolerance": "-0.1"})}, "-100m"),
        (
            {"maxReplicas": 5, **behavior(scaleDown={"tolerance": "a bit"})},
            "spec.behavior.scaleDown.tolerance: 'a bit' is not",
        ),
        (
            {"maxReplicas": 5, **behavior(scaledown={})},
            "behavior.scaledown: unknown key; allowed here: scaleUp, scaleDown",
        ),
        (
            {"maxReplicas": 5, **behavior(scaleUp={"stabilizationWindowSeconds": "60"})},
            "expected a whole number, found '60'",
        ),
        ({"maxReplicas": 5, "behavior": []}, "expected a mapping"),
        ({"maxReplicas": 5, "metrics": [{"type": "Packets"}]}, "Resource, ContainerResource, Pods"),
        ({"maxReplicas": 5, "metrics": [{"type": "Pods"}]}, r"metrics\[0\].pods: expected a mapping"),
    ],
)
def test_what_the_api_server_would_refuse_is_refused(document, message):
    with pytest.raises(SettingsError, match=message):
        parse_spec(document)


# ------------------------------------------------------------------------------------------------- the policy
NOON = 1767571200.0


def settings(**scale: Any) -> Settings:
    return Settings.model_validate(
        {
            "app": {
                "name": "shop",
                "services": {"web": {}, "db": {"scaled": False}},
                "entries": [{"name": "GET /", "service": "web"}],
            },
            "scale": {"guard_rails": {"min_replicas": 1, "max_replicas": 20}, **scale},
        }
    )


def seen(
    now: float, replicas: int, cores: float | None, limit: float | None = 0.3, request: float | None = 0.2
) -> Observation:
    """`web` with as many old, ready pods as replicas, and `db`, which isn't scaled."""
    empty = MetricPanel(np.empty(0), (), (), np.empty((0, 0, 0), np.float32))
    pods = [
        Pod(
            "web",
            f"web-{i}",
            "Running",
            False,
            now - 5000,
            True,
            now - 4990,
            cores,
            None if cores is None else now - 5,
            15.0,
            request,
        )
        for i in range(replicas)
    ]
    return Observation(
        now, empty, [Workload("web", replicas, limit, request), Workload("db", 1, 1.0, 1.0)], pods
    )


def test_the_share_of_the_limit_is_converted_into_a_share_of_the_request():
    policy = HpaPolicy(70, settings())
    proposals = policy.decide(seen(NOON, 4, 0.42))  # 210 % of the request, twice the target of 105 %
    assert policy.targets == {"web": HpaTarget(limit_percent=70, request_percent=105)}
    assert proposals == {"web": Proposal(8.0, Reason.HPA)}
    assert (policy.name, policy.period_seconds, policy.guarded) == ("hpa_70", 15.0, False)


def test_a_target_is_at_least_one_percent():
    policy = HpaPolicy(1, settings())
    policy.decide(seen(NOON, 1, 0.1, limit=0.1, request=1.0))
    assert policy.targets["web"].request_percent == 1


def test_without_metrics_replicas_are_held_and_the_reason_is_kept():
    policy = HpaPolicy(70, settings())
    assert policy.decide(seen(NOON, 4, None)) == {"web": Proposal(None, Reason.HELD_MISSING)}
    assert "no metrics returned" in policy.failures["web"]
    policy.decide(seen(NOON + 15, 4, 0.2))
    assert policy.failures == {}


@pytest.mark.field
def test_who_is_held_for_want_of_usage_samples_is_told_why_once(caplog):
    policy = HpaPolicy(70, settings())
    with caplog.at_level(logging.WARNING):
        for tick in range(5):
            policy.decide(seen(NOON + 15 * tick, 4, None))
        policy.decide(seen(NOON + 90, 4, 0.2))
    [why, well] = [record.getMessage() for record in caplog.records]
    assert why.startswith("web: hpa_70 can't decide: failed to get cpu utilization: ")
    assert "none of its pods has a sample of CPU usage: do metrics.k8s.io (metrics-server)" in why
    assert well == "web: hpa_70 decides again"


@pytest.mark.parametrize(
    ("limit", "request_", "message"), [(0.3, None, "missing request for cpu"), (None, 0.2, "no CPU limit")]
)
def test_without_a_cpu_request_or_limit_replicas_are_held_as_the_real_one_holds_them(
    limit, request_, message
):
    policy = HpaPolicy(70, settings())
    assert policy.decide(seen(NOON, 4, 0.2, limit, request_)) == {"web": Proposal(None, Reason.HELD_MISSING)}
    assert message in policy.failures["web"]
    assert policy.decide(seen(NOON + 15, 25, 0.2, limit, request_)) == {"web": Proposal(20.0, Reason.HPA)}


def test_limits_of_single_services_come_first():
    policy = HpaPolicy(70, settings(guard_rails={"max_replicas": 20, "per_service": {"web": (2, 5)}}))
    assert policy.decide(seen(NOON, 4, 0.9))["web"].target == 5
    assert policy.decide(seen(NOON + 15, 1, 0.9))["web"].target == 2


def test_a_workload_that_its_owner_scaled_to_zero_is_left_there():
    assert HpaPolicy(70, settings()).decide(seen(NOON, 0, 0.0)) == {
        "web": Proposal(None, Reason.SCALED_TO_ZERO)
    }


def test_a_scale_down_waits_exactly_the_window_at_exact_ticks():
    """The real syncs drift, so that the one 20 periods ago is out of a window of 300 s; here it would tie."""
    policy = HpaPolicy(70, settings())
    targets = [policy.decide(seen(NOON + 15 * tick, 4, 0.02))["web"].target for tick in range(21)]
    assert targets == [4] * 20 + [1]


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
@pytest.mark.parametrize("given", [None, {"scaleDown": {"policies": [pods_policy(1, 60)]}}])
def test_a_clock_that_is_set_moves_no_window_and_no_rate(jump, given):
    """The wall clock jumps with the fall of the load; pods and samples have their times by it."""
    decided = []
    for ahead in (0.0, jump):
        policy, replicas = HpaPolicy(70, settings(hpa={"behavior": given})), 8
        decided.append([])
        for tick in range(60):
            observed = seen(
                NOON + 15 * tick + (ahead if tick > 4 else 0), replicas, 0.02 if tick > 4 else 0.2
            )
            found = policy.decide(replace(observed, steady_now=NOON + 15 * tick))["web"].target
            replicas = replicas if found is None else int(found)
            decided[-1].append(replicas)
    assert decided[0] == decided[1]
    assert decided[0][4:24] == [8] * 20 and decided[0][-1] < 8


def test_flags_come_from_the_settings():
    policy = HpaPolicy(
        70, settings(hpa={"downscale_stabilization": 30.0, "sync_period": 10.0, "tolerance": 0.5})
    )
    assert policy.period_seconds == 10
    assert [policy.decide(seen(NOON + 10 * tick, 4, 0.12))["web"].target for tick in range(4)] == [
        4,
        4,
        4,
        4,
    ]  # 60 of 105 %: within
    assert policy.decide(seen(NOON + 40, 4, 0.1))["web"].target == 4
    assert policy.decide(seen(NOON + 70, 4, 0.1))["web"].target == 2


def test_a_rescale_counts_for_the_rates_only_once_it_is_seen():
    slow = {"behavior": {"scaleUp": {"policies": [pods_policy(2, 60)]}}}
    policy = HpaPolicy(70, settings(hpa=slow))
    assert policy.decide(seen(NOON, 4, 0.9))["web"].target == 6
    assert policy.decide(seen(NOON + 15, 4, 0.9))["web"].target == 6  # refused or a dry run
    assert policy.decide(seen(NOON + 30, 6, 0.9))["web"].target == 6  # written: wait for the period
    assert policy.decide(seen(NOON + 75, 6, 0.9))["web"].target == 8


def test_the_state_of_a_service_is_its_own():
    one, other = HpaPolicy(70, settings()), HpaPolicy(70, settings())
    one.decide(seen(NOON, 9, 0.2))
    assert (
        other.decide(seen(NOON + 301, 4, 0.02))["web"].target == 4
    )  # records its own initial recommendation


@pytest.mark.parametrize(("cores", "milli"), [(0.07, 70), (0.0701, 71), (0.0, 0), (1e-9, 1), (0.29, 290)])
def test_usage_is_whole_millicores_rounded_up(cores, milli):
    assert millicores(cores) == milli


@pytest.mark.parametrize("name", ["hpa", "hpa_", "hpa_0", "hpa_7.5", "hpa_70x"])
def test_names_without_a_percentage_are_refused(name):
    with pytest.raises(SettingsError, match="hpa_70"):
        make_policy(name, settings())


def test_a_broken_behavior_is_refused_where_the_policy_is_made():
    with pytest.raises(SettingsError, match=r"scale\.hpa: spec\.behavior\.scaleUp\.policies: Required value"):
        HpaPolicy(70, settings(hpa={"behavior": {"scaleUp": {"policies": []}}}))


# ----------------------------------------------------------------------------------------- recorded decisions
@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return recordings.hpa_decisions()


PHASES = {"R": "Running", "P": "Pending", "F": "Failed", "S": "Succeeded", "U": "Unknown"}
READY = {"T": "True", "F": "False", "U": "Unknown", None: None}


def pods_of(
    table: list[list[Any]], now: float, resources: tuple[str, ...] = ("cpu",), unit: int = 1
) -> list[HpaPod]:
    """Pods of a table with the columns of `pod_columns`."""

    def amounts(values: list[int | None]) -> dict[str, dict[str, int]]:
        return {
            f"c{i}": {} if value is None else dict.fromkeys(resources, value * unit)
            for i, value in enumerate(values)
        }

    pods = []
    for count, phase, deleting, started, ready, since, requests, usage, age, window in table:
        for _ in range(count):
            found = HpaPod(
                name=f"p{len(pods)}",
                phase=PHASES[phase],
                deleting=bool(deleting),
                start_time=None if started is None else now - started,
                ready=READY[ready],
                ready_since=now - since if ready else math.nan,
                requests=amounts(requests),
                sample=None if usage is None else Sample(amounts(usage), now - age, window),
            )
            pods.append(found)
    return pods


FLAGS = {
    "down_window": "downscale_stabilization_seconds",
    "tol": "tolerance",
    "cpu_init": "cpu_initialization_seconds",
    "delay": "initial_readiness_seconds",
}
"""Flags of the controller as a recorded vector names them."""


def flags_of(vector: dict[str, Any]) -> Flags:
    """Every flag that the vector carries; the others have Kubernetes' defaults."""
    return Flags(**{field: vector[key] for key, field in FLAGS.items() if key in vector})


def tolerant_spec(config: dict[str, Any], target: int | None) -> tuple[HpaSpec, Metric]:
    """Spec and metric of a calc vector: its tolerances in force, its flags."""
    assert set(config) <= {*FLAGS, "tol_up", "tol_down", "res", "container", "target_avg", "extra"}
    metric = Metric(
        config.get("res", "cpu"), target, config.get("target_avg"), config.get("container") or None
    )
    loose = ScalingRules(0, "Max", (RatePolicy("Percent", 100, 1),))
    behavior = Behavior(
        replace(loose, tolerance=config.get("tol_up")), replace(loose, tolerance=config.get("tol_down"))
    )
    return HpaSpec(1, 1_000_000, (metric,), behavior, flags_of(config)), metric


def agree(outcomes: Iterator[tuple[str, Any, Any]]) -> None:
    """Fail with the first outcomes whose recorded and found sides differ."""
    outcomes = list(outcomes)
    wrong = [(name, expected, found) for name, expected, found in outcomes if expected != found]
    assert outcomes
    assert not wrong, f"{len(wrong)} of {len(outcomes)} differ\n" + "\n".join(
        f"{name}: recorded {expected}, found {found}" for name, expected, found in wrong[:5]
    )


def test_every_recorded_calculation_is_reproduced(recorded):
    assert len(recorded["calc"]) == 718
    errors = [re.escape(text).replace("POD", r"p\d+") for text in recorded["header"]["errors"]]

    def outcomes():
        for name, target, current, config, table, expected in recorded["calc"]:
            spec, metric = tolerant_spec(config, target)
            pods = pods_of(table, 0.0, (metric.resource,))
            strangers = {pod: PodMetric(value, 0.0, 15.0) for pod, value in config.get("extra", {}).items()}
            try:
                replicas, usage = metric_replicas(spec, metric, current, pods, 0.0, strangers=strangers)
                yield name, expected, [replicas, usage.utilization, usage.average]
            except MetricsError as error:
                index = next(
                    (i for i, pattern in enumerate(errors) if re.fullmatch(pattern, str(error))), str(error)
                )
                yield name, expected, {"err": index}

    agree(outcomes())


def load_pods(
    load: int, replicas: int, request: int, without: int, resources: tuple[str, ...]
) -> list[HpaPod]:
    """`seq_pods`: ready for long, the load spread evenly; the last `without` have no metric (-1: all)."""
    count = 0 if without == -1 else replicas - without
    shares = [load // replicas + (i < load % replicas) for i in range(replicas)]
    table = [
        [1, "R", 0, 5000, "T", 4990, [request], [share] if i < count else None, 5, 15]
        for i, share in enumerate(shares)
    ]
    return pods_of(table, 0.0, resources)


def code(codes: list[str], condition: str | None) -> int | None:
    return (
        None
        if condition is None
        else next(i for i, text in enumerate(codes) if condition in (text, f"True/{text}"))
    )


def replay(sequence: dict[str, Any], codes: dict[str, list[str]]) -> Iterator[list[Any]]:
    """What each sync of a sequence decides, in the columns that are recorded."""
    assert set(sequence) <= {*FLAGS, "id", "spec", "replicas", "req", "rows", "life"}
    document, state, flags = sequence["spec"], HpaState(), flags_of(sequence)
    for row in sequence["rows"]:
        now, load, current = row[:3]
        events = (row[11] if len(row) > 11 else None) or {}
        document = {**document, **{f"{key}Replicas": events[key] for key in ("min", "max") if key in events}}
        spec = parse_spec(document, flags)
        state = HpaState() if "del" in events else state  # deleted and made again: nothing is remembered
        resources = tuple({metric.resource for metric in spec.metrics})
        if len(row) > 12:
            pods = pods_of(row[12] or [], now, resources)
        else:
            pods = load_pods(load, current, sequence["req"], events.get("nom", 0), resources)
            pods = [shifted(pod, now) for pod in pods]
        decision = reconcile(spec, state, current, measure(spec, current, pods, now), now)
        recorded_now = (
            decision.recommendation
            if state.recommendations or decision.recommendation is not None
            else current
        )
        state = store_scale_event(decision.state, spec, current, decision.target, now)
        status = state.status
        first = status.usages[0] if status.usages else None
        yield [
            recorded_now,
            decision.target,
            status.desired,
            first.utilization if first else None,
            code(codes["AbleToScale"], status.able_to_scale),
            code(codes["ScalingActive"], status.scaling_active),
            code(codes["ScalingLimited"], status.scaling_limited),
            int(decision.failed is not None),
        ]


def test_every_recorded_sequence_is_reproduced(recorded):
    assert (len(recorded["seq"]), sum(len(sequence["rows"]) for sequence in recorded["seq"])) == (244, 8858)

    def outcomes():
        for sequence in recorded["seq"]:
            expected = [row[3:11] for row in sequence["rows"]]
            found = list(replay(sequence, recorded["header"]["codes"]))
            at = next(
                (i for i, pair in enumerate(zip(expected, found, strict=True)) if pair[0] != pair[1]), 0
            )
            yield f"{sequence['id']} sync {at}", expected[at], found[at]

    agree(outcomes())


def replayed(loads: list[tuple[int, int, dict[str, int] | None]], **flags: float) -> list[int]:
    """Replicas after syncs 15 s apart of an HPA at 50 % of 1000 m; `loads`: load, replicas, events."""
    rows = [
        [15 * index, load, current, *[None] * 8, events]
        for index, (load, current, events) in enumerate(loads)
    ]
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
    }
    spec = {"maxReplicas": 20, "metrics": [metric]}
    sequence = {"id": "", "spec": spec, "replicas": loads[0][1], "req": 1000, "rows": rows, **flags}
    codes = {
        "AbleToScale": ["ReadyForNewScale", "ScaleDownStabilized", "SucceededRescale", "SucceededGetScale"],
        "ScalingActive": ["True/ValidMetricFound"],
        "ScalingLimited": ["False/DesiredWithinRange", "True/TooFewReplicas"],
    }
    return [found[1] for found in replay(sequence, codes)]


def test_a_vectors_tolerance_and_downscale_window_reach_the_rules():
    assert replayed([(2600, 4, None)]) == [6]
    assert replayed([(2600, 4, None)], tol=0.5) == [4]
    fall = [(2000, 4, None), (500, 4, None), (500, 4, None)]
    assert replayed(fall) == [4, 4, 4]
    assert replayed(fall, down_window=20) == [4, 4, 1]


def test_an_hpa_that_was_deleted_and_made_again_remembers_nothing():
    fall = [(2000, 4, None), (500, 4, None), (500, 2, None)]
    made_again = [*fall[:2], (500, 2, {"del": 1})]
    assert replayed(fall) == [4, 4, 4]  # the window still holds the 4 of before
    assert replayed(made_again) == [4, 4, 2]


def shifted(pod: HpaPod, by: float) -> HpaPod:
    """The same ages at a later time."""
    sample = pod.sample and replace(pod.sample, time=pod.sample.time + by)
    return replace(pod, start_time=pod.start_time + by, ready_since=pod.ready_since + by, sample=sample)


def test_every_first_status_of_the_running_controller_is_reproduced(recorded):
    vectors = {vector[0]: vector for vector in recorded["calc"]}

    def outcomes():
        for name, *expected in recorded["live_once"]:
            _, target, current, config, table, _ = vectors[name]
            spec, metric = tolerant_spec(config, target)
            up = replace(spec.behavior.up, policies=(RatePolicy("Pods", 1_000_000, 1),))
            spec = replace(spec, behavior=replace(spec.behavior, up=up))
            # Memory is scripted in whole bytes and the controller counts it in milli-bytes.
            unit = 1000 if metric.resource == "memory" else 1
            pods = pods_of(table, 0.0, (metric.resource,), unit)
            strangers = {
                pod: PodMetric(value * unit, 0.0, 15.0) for pod, value in config.get("extra", {}).items()
            }
            decision = reconcile(
                spec, HpaState(), current, measure(spec, current, pods, 0.0, strangers=strangers), 0.0
            )
            status = decision.state.status
            conditions = [
                status.able_to_scale.removeprefix("True/"),
                status.scaling_active,
                status.scaling_limited,
            ]
            found = [current, status.desired, None, None, *conditions]
            usage = status.usages[0] if status.usages else None
            if usage:
                found[2:4] = [usage.utilization, canonical_quantity(f"{usage.average}m")]
            if len(expected) > 7:
                found.append(f"the HPA was unable to compute the replica count: {decision.failed}")
            yield name, expected, found

    agree(outcomes())


@pytest.mark.parametrize(("section", "window"), [("live_seq_1s", 20.0), ("live_seq_default", 300.0)])
def test_every_sequence_of_the_running_controller_is_reproduced(recorded, section, window):
    """Recommendations are scripted there and so fed in; replicas, conditions and events are compared."""
    flags = Flags(downscale_stabilization_seconds=window)
    agree((sequence["id"], *live(sequence, flags)) for sequence in recorded[section])


def live(sequence, flags):
    """Expected and found: replicas after every sync, texts of events, and every status that was seen."""
    document, state, texts, written = sequence["spec"], HpaState(), [], []
    metric = "cpu resource utilization (percentage of request)"
    expected, found = [], []
    for row in sequence["rows"]:
        if row[1] in ("min", "max"):
            document = {**document, f"{row[1]}Replicas": row[2]}
        if row[1] == "deleted":  # nothing is remembered if it is made again
            state = HpaState()
        if row[1] in ("min", "max", "set", "deleted"):
            continue
        now, current = row[0], row[2] if row[1] == "failed" else row[1]
        measured = (
            Measured(None, failed_reason="FailedGetResourceMetric")
            if row[1] == "failed"
            else Measured(row[2], metric)
        )
        spec = parse_spec(document, flags)
        decision = reconcile(spec, state, current, measured, now)
        state = store_scale_event(decision.state, spec, current, decision.target, now)
        expected.append((now, row[2] if row[1] == "failed" else row[3]))
        found.append((now, decision.target))
        if decision.target != current:
            texts.append(f"New size: {decision.target}; reason: {decision.reason}")
        status = state.status
        written.append(
            [
                now,
                current,
                status.desired,
                status.able_to_scale,
                status.scaling_active,
                status.scaling_limited,
            ]
        )
    rescales = [
        text
        for reason, text, count in sequence["events"]
        if reason == "SuccessfulRescale"
        for _ in range(count)
    ]
    statuses = [
        next(entry for entry in reversed(written) if entry[0] <= line[0])[1:] for line in sequence["status"]
    ]
    return (expected, sorted(rescales), [line[1:] for line in sequence["status"]]), (
        found,
        sorted(texts),
        statuses,
    )


def test_every_recorded_answer_of_the_api_server_is_reproduced(recorded):
    def outcomes():
        for case in recorded["api"]:
            spec = hpa_api.with_defaults(case["spec"])
            found = hpa_api.problems(spec)
            text = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
            answer = spec if not found else f'HorizontalPodAutoscaler.autoscaling "d" is invalid: {text}'
            expected = case["answer"]
            if isinstance(expected, dict):
                expected = {key: value for key, value in expected.items() if key != "scaleTargetRef"}
            yield case["case"], (case["status"], expected), (422 if found else 201, answer)

    agree(outcomes())
