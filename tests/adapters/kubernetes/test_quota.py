"""Quotas that replicas consume: what the plan leaves room for is what comes up on the emulated API."""

import logging
import math

import pytest
from helpers.kube_shop import CREATED, READY, T0, make
from helpers.kube_stub import DEPLOYMENTS, PODS, QUOTAS, deployment, pod

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.kubernetes.pod_needs import effective, in_scopes, next_pod
from deepscaler.adapters.kubernetes.quota import NextPod, quota_claims
from deepscaler.control.controller import Controller
from deepscaler.policies.static import StaticPolicy
from testbed.kubernetes_api import PodState

pytestmark = pytest.mark.field


def container(name="web", cpu=(None, None), memory=(None, None), **more):
    """A container with (request, limit) of CPU and memory."""
    pairs = {"cpu": cpu, "memory": memory}
    resources = {
        kind: {key: pair[place] for key, pair in pairs.items() if pair[place] is not None}
        for place, kind in enumerate(("requests", "limits"))
    }
    return {
        "name": name,
        "image": name,
        "resources": {key: value for key, value in resources.items() if value},
        **more,
    }


WEB = container(cpu=("100m", "500m"), memory=("64Mi", "128Mi"))
SIDECAR = container("proxy", cpu=("100m", "1"), memory=("32Mi", "64Mi"), restartPolicy="Always")
SETUP = container("setup", cpu=("2", "2"), memory=("1Gi", "1Gi"))
BARE = container()
DEFAULTS = {
    "type": "Container",
    "default": {"cpu": "300m", "memory": "100Mi"},
    "defaultRequest": {"cpu": "200m"},
}


def quota(hard, **spec):
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "team", "namespace": "shop"},
        "spec": {"hard": hard, **spec},
    }


def priority(operator, *values):
    rule = {
        "scopeName": "PriorityClass",
        "operator": operator,
        **({"values": list(values)} if values else {}),
    }
    return {"scopeSelector": {"matchExpressions": [rule]}}


class Running:
    """The emulated API with web (2 pods) and api (2 pods), and what brings their pods up."""

    def __init__(self, emulated, spec, limit_range=None, hard=None):
        self.store = emulated.store
        if limit_range:
            meta = {"name": "defaults", "namespace": "shop"}
            self.store.create(
                {
                    "apiVersion": "v1",
                    "kind": "LimitRange",
                    "metadata": meta,
                    "spec": {"limits": [limit_range]},
                }
            )
        self.store.on_scale = self.bring_up
        if spec is not None:
            self.store.create({"apiVersion": "apps/v1", "kind": "Deployment", **self.manifest("own", spec)})
        if hard is not None:
            self.store.create(hard)

    def manifest(self, name, spec):
        item = deployment(name, replicas=1, namespace="shop")
        item["spec"]["template"]["spec"] = spec
        return {**item, "status": {}}

    def bring_up(self, namespace, name, replicas):
        states = [PodState(f"{name}-5d9c5b8f6d-{i:05d}", T0, T0 + 20) for i in range(replicas)]
        self.store.sync_pods(namespace, name, states)

    def pods(self, name):
        found = self.store.snapshot("/pods", "shop")
        return sum(key[1].startswith(f"{name}-") for key, _ in found)

    def status(self):
        return self.store.peek("/resourcequotas", "shop", "team")["status"]


def wanting(emulated, tmp_path, **replicas):
    services = dict.fromkeys(("web", "api", *replicas))
    scale = {"static_replicas": replicas, "guard_rails": {"max_step_up": 99, "max_replicas": 99}}
    settings = make(emulated, tmp_path, services, scale=scale)
    cluster = KubernetesCluster(settings)
    return Controller(cluster, StaticPolicy(replicas, 15.0), settings)


@pytest.mark.parametrize(
    ("hard", "scope", "spec", "limit_range", "expected"),
    [
        # web and api have 2 pods each of 100m/500m CPU, 128Mi/128Mi of memory
        pytest.param({"pods": "9"}, {}, {"containers": [WEB]}, None, 5, id="pods"),
        pytest.param({"count/pods": "8"}, {}, {"containers": [WEB]}, None, 4, id="count/pods"),
        pytest.param({"cpu": "1"}, {}, {"containers": [WEB]}, None, 6, id="cpu is requests.cpu"),
        pytest.param({"requests.cpu": "700m"}, {}, {"containers": [WEB]}, None, 3, id="requests.cpu"),
        pytest.param({"limits.cpu": "4"}, {}, {"containers": [WEB]}, None, 4, id="limits.cpu"),
        pytest.param({"limits.memory": "1Gi"}, {}, {"containers": [WEB]}, None, 4, id="limits.memory"),
        pytest.param({"memory": "1Gi"}, {}, {"containers": [WEB]}, None, 8, id="memory is requests.memory"),
        pytest.param(
            {"requests.memory": "4Gi"},
            {},
            {"containers": [WEB], "initContainers": [SETUP]},
            None,
            3,
            id="an init container takes more than what runs",
        ),
        pytest.param(
            {"limits.cpu": "8"},
            {},
            {"containers": [WEB], "initContainers": [SIDECAR]},
            None,
            4,
            id="a sidecar runs beside the others",
        ),
        pytest.param(
            {"limits.cpu": "14"},
            {},
            {"containers": [WEB], "initContainers": [SIDECAR, SETUP]},
            None,
            4,
            id="an init container runs beside the sidecars before it",
        ),
        pytest.param(
            {"limits.cpu": "3"},
            {},
            {"containers": [BARE]},
            DEFAULTS,
            3,
            id="the default limit of a LimitRange",
        ),
        pytest.param(
            {"requests.cpu": "1"}, {}, {"containers": [BARE]}, DEFAULTS, 3, id="its default request"
        ),
        pytest.param(
            {"requests.memory": "1Gi"},
            {},
            {"containers": [BARE]},
            DEFAULTS,
            5,
            id="a default limit is the request",
        ),
        pytest.param(
            {"pods": "3"}, {"scopes": ["BestEffort"]}, {"containers": [BARE]}, None, 3, id="scope BestEffort"
        ),
        pytest.param(
            {"pods": "3"}, {"scopes": ["BestEffort"]}, {"containers": [WEB]}, None, 20, id="scope of others"
        ),
        pytest.param(
            {"pods": "7"},
            {"scopes": ["NotBestEffort", "NotTerminating"]},
            {"containers": [WEB]},
            None,
            3,
            id="two scopes",
        ),
        pytest.param(
            {"pods": "4"},
            priority("In", "high"),
            {"containers": [WEB], "priorityClassName": "high"},
            None,
            4,
            id="priority class",
        ),
        pytest.param(
            {"pods": "4"}, priority("NotIn", "low"), {"containers": [WEB]}, None, 20, id="no priority class"
        ),
        pytest.param({"pods": "40", "limits.cpu": "4"}, {}, {"containers": [WEB]}, None, 4, id="two bounds"),
        pytest.param(
            {"services": "1", "count/deployments.apps": "3"},
            {},
            {"containers": [WEB]},
            None,
            20,
            id="no pods",
        ),
    ],
)
def test_the_plan_asks_for_what_comes_up(
    emulated, tmp_path, hard, scope, spec, limit_range, expected, caplog
):
    world = Running(emulated, spec, limit_range, quota(hard, **scope))
    controller = wanting(emulated, tmp_path, own=20)
    controller.cluster.pods()  # the pods that were seen tell what is injected
    with caplog.at_level(logging.WARNING):
        controller.tick()
    assert world.store.replicas("shop")["own"] == expected
    assert world.pods("own") == expected  # all of them came up,
    world.store.handle(
        "PATCH",
        "/apis/apps/v1/namespaces/shop/deployments/own/scale",
        headers={"Content-Type": "application/merge-patch+json"},
        body=b'{"spec": {"replicas": 20}}',
    )
    assert world.pods("own") == expected  # and no more would have
    if expected < 20:
        assert "own: gets" in caplog.text and "ResourceQuota/team" in caplog.text


def test_a_quota_that_refuses_every_pod_leaves_a_service_as_it_is(emulated, tmp_path):
    world = Running(emulated, {"containers": [BARE]}, None, quota({"limits.cpu": "100"}))
    controller = wanting(emulated, tmp_path, own=20, web=6)
    controller.tick()
    assert world.store.replicas("shop") == {"own": 1, "web": 6, "api": 2}


LARGE = container(cpu=("250m", "2"), memory=("64Mi", "1Gi"))
FORBIDDEN = {
    "a limit above the most": (
        {"type": "Container", "max": {"cpu": "1"}},
        [LARGE],
        "limit of cpu 2, at most 1",
    ),
    "a request below the least": (
        {"type": "Container", "min": {"memory": "128Mi"}},
        [LARGE],
        "request of memory 6.71089e+07, at least 128Mi",
    ),
    "limit and request too far apart": (
        {"type": "Container", "maxLimitRequestRatio": {"cpu": "4"}},
        [LARGE],
        "limit 2 of cpu to request 0.25, at most 4 to 1",
    ),
    "containers that are too much together": (
        {"type": "Pod", "max": {"cpu": "3"}},
        [LARGE, {**LARGE, "name": "second"}],
        "containers together: limit of cpu 4, at most 3",
    ),
    "a pod without the limit that it has to state": (
        {"type": "Pod", "max": {"memory": "1Gi"}},
        [BARE],
        "containers together: limit of memory missing, at most 1Gi",
    ),
    "a request above the limit that is filled in": (
        {"type": "Container", "default": {"cpu": "500m"}},
        [container(cpu=("1", None))],
        "request of cpu 1 above limit 0.5",
    ),
    "an init container that is too large": (
        {"type": "Container", "max": {"cpu": "1"}},
        [WEB, {**SETUP, "init": True}],
        "container setup: limit of cpu 2, at most 1",
    ),
}


@pytest.mark.parametrize("case", FORBIDDEN)
def test_a_service_whose_pods_a_limit_range_forbids_isnt_raised_and_is_told(case, emulated, tmp_path, caplog):
    """The LimitRange comes after the pod that runs; whatever is written, no further one could."""
    item, containers, said = FORBIDDEN[case]
    spec = {"containers": [one for one in containers if "init" not in one]}
    spec["initContainers"] = [
        {k: v for k, v in one.items() if k != "init"} for one in containers if "init" in one
    ]
    world = Running(emulated, spec)
    assert world.pods("own") == 1
    world.store.create(
        {
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": {"name": "team", "namespace": "shop"},
            "spec": {"limits": [item]},
        }
    )
    controller = wanting(emulated, tmp_path, own=4, web=3)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            row = next(row for row in controller.tick() if row.service == "own")
    assert (row.target, row.reason) == (1, "quota") and world.store.replicas("shop")["own"] == 1
    [told] = [one.message for one in caplog.records if one.message.startswith("own: gets")]
    assert "LimitRange/team: " in told and said in told
    world.store.handle(
        "PATCH",
        "/apis/apps/v1/namespaces/shop/deployments/own/scale",
        headers={"Content-Type": "application/merge-patch+json"},
        body=b'{"spec": {"replicas": 4}}',
    )
    world.bring_up("shop", "own", 4)
    assert world.pods("own") == 1  # it was right not to ask for more
    world.store.handle("DELETE", "/api/v1/namespaces/shop/limitranges/team")
    world.bring_up("shop", "own", 4)
    controller.tick()
    assert world.store.replicas("shop")["own"] == world.pods("own") == 4


@pytest.mark.parametrize(
    ("item", "spec"),
    [
        ({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "250m"}}, {"containers": [LARGE]}),
        ({"type": "Container", "max": {"cpu": "1"}}, {"containers": [BARE]}),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "8"}}, {"containers": [LARGE]}),
        (
            {"type": "Pod", "max": {"cpu": "4", "memory": "2Gi"}},
            {"containers": [LARGE, {**LARGE, "name": "b"}]},
        ),
        ({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}, {"containers": [BARE]}),
    ],
)
def test_a_limit_range_that_pods_keep_to_costs_nothing(item, spec, emulated, tmp_path):
    world = Running(emulated, spec, item)
    wanting(emulated, tmp_path, own=4).tick()
    assert world.store.replicas("shop")["own"] == world.pods("own") == 4


def test_a_deployment_that_fails_to_create_pods_isnt_raised_whoever_refuses_them(stub, shop):
    """An admission webhook, say, or a LimitRange that this user may not read."""
    item = deployment("web", replicas=4, namespace="shop")
    said = 'admission webhook "policy.example.org" denied the request'
    failing = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": said}
    item["status"] = {"replicas": 2, "conditions": [failing]}
    stub.put(DEPLOYMENTS, item)
    [web, _] = shop().workloads()
    [claim] = web.quotas
    assert claim.quota == f"Deployment/web: its pods can't be created: {said}" and not claim.admits
    item["status"]["replicas"] = 4  # the condition is of the past
    stub.put(DEPLOYMENTS, item)
    assert shop().workloads()[0].quotas == ()


def test_what_a_quota_leaves_is_shared_among_the_services(emulated, tmp_path):
    Running(emulated, None, None, quota({"pods": "10"}))
    controller = wanting(emulated, tmp_path, web=12, api=6)
    controller.tick()
    assert emulated.store.replicas("shop") == {"web": 6, "api": 4}  # .5 and .67 of what they asked for


def test_room_that_comes_back_is_used_and_said(emulated, tmp_path, caplog):
    world = Running(emulated, None, None, quota({"limits.memory": "640Mi"}))
    controller = wanting(emulated, tmp_path, web=4)
    with caplog.at_level(logging.WARNING):
        controller.tick()
        assert world.pods("web") == 3 and "ResourceQuota/team limits.memory" in caplog.text
        world.store.handle("DELETE", "/api/v1/namespaces/shop/resourcequotas/team")
        controller.tick()
    assert world.pods("web") == 4
    assert "web: no quota keeps it from more replicas any more" in caplog.text


def test_pods_that_are_going_still_count(emulated, tmp_path):
    world = Running(emulated, None, None, quota({"pods": "6"}))
    going = [PodState(f"api-5d9c5b8f6d-{i:05d}", T0, T0 + 20, T0 + 90 if i else None) for i in range(2)]
    world.store.sync_pods("shop", "api", going)
    controller = wanting(emulated, tmp_path, web=9)
    controller.tick()
    assert world.store.replicas("shop")["web"] == 3 == world.pods("web")  # api's second pod is to come again


def test_where_limit_ranges_cant_be_read_plans_go_on(stub, shop, caplog):
    stub.put(
        QUOTAS,
        {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5"}}, "status": {"used": {"pods": "4"}}},
    )
    with caplog.at_level(logging.WARNING):
        [web, _] = shop().workloads()
    assert [(item.quota, item.free, item.takes) for item in web.quotas] == [
        ("ResourceQuota/q pods", 1.0, 1.0)
    ]
    assert "limitranges can't be read, so what they fill in and forbid doesn't count" in caplog.text


def test_a_quota_without_a_status_counts_the_pods_of_the_services(stub, shop):
    stub.put(QUOTAS, {"metadata": {"name": "new"}, "spec": {"hard": {"pods": "5", "limits.cpu": "3"}}})
    [web, _] = shop().workloads()
    assert {item.quota: item.free for item in web.quotas} == {
        "ResourceQuota/new pods": 1.0,
        "ResourceQuota/new limits.cpu": pytest.approx(1.0),
    }


def test_a_pod_that_was_resized_doesnt_change_what_the_next_one_takes(stub, shop):
    resized = pod("web", 1, CREATED, READY, sidecar="200m")
    resized["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "3"
    stub.put(PODS, resized)
    stub.put(
        QUOTAS,
        {
            "metadata": {"name": "q"},
            "spec": {"hard": {"limits.cpu": "9"}},
            "status": {"used": {"limits.cpu": "4.7"}},
        },
    )
    cluster = shop()
    cluster.pods()
    assert cluster.workloads()[0].quotas[0].takes == pytest.approx(
        0.7
    )  # its template's limit and the sidecar's


# ------------------------------------------------------------------------------------------------------- pure
@pytest.mark.parametrize(
    ("containers", "init", "expected"),
    [
        ([WEB, WEB], [], 1.0),
        ([WEB], [SETUP], 2.0),
        ([WEB], [SIDECAR], 1.5),
        ([WEB], [SIDECAR, SETUP], 3.0),
        ([WEB], [SETUP, SIDECAR], 2.0),
        ([BARE], [], 0.0),
    ],
)
def test_effective_limits(containers, init, expected):
    assert effective({"containers": containers, "initContainers": init}, "limits", "cpu") == pytest.approx(
        expected
    )


def test_resources_of_the_whole_pod_and_the_overhead_of_its_runtime():
    spec = {"containers": [WEB], "overhead": {"cpu": "250m"}}
    assert effective(spec, "limits", "cpu") == 0.75 and effective(spec, "requests", "cpu") == 0.35
    assert effective({"containers": [BARE], "overhead": {"cpu": "250m"}}, "limits", "cpu") == 0.0
    whole = {"containers": [BARE], "resources": {"limits": {"cpu": "4"}}}
    assert effective(whole, "limits", "cpu") == 4.0
    [claim] = quota_claims([quota({"limits.cpu": "8"})], {"web": NextPod(whole, 1)})["web"]
    assert (claim.free, claim.takes) == (4.0, 4.0)


def test_of_a_limit_range_the_most_is_the_default_limit_and_the_least_the_default_request():
    ranges = [
        {
            "spec": {
                "limits": [
                    {"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Gi"}},
                    {"type": "Pod", "max": {"cpu": "9"}},
                ]
            }
        }
    ]
    spec = next_pod({"containers": [BARE, WEB]}, None, ranges)
    assert [item["resources"]["limits"].get("cpu") for item in spec["containers"]] == ["2", "500m"]
    assert spec["containers"][0]["resources"]["requests"] == {"cpu": "2", "memory": "1Gi"}


def test_a_scope_that_isnt_known_counts_nothing():
    assert not in_scopes({"containers": [WEB]}, {"scopes": ["CrossNamespacePodAffinity"]})
    assert in_scopes({"containers": [WEB]}, {})


def test_other_resources_are_counted_too():
    gpu = container() | {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    spec = {"containers": [gpu]}
    hard = {"requests.nvidia.com/gpu": "3", "requests.storage": "10Gi", "ephemeral-storage": "1Gi"}
    [claim] = quota_claims([quota(hard)], {"web": NextPod(spec, 2)})["web"]
    assert (claim.quota, claim.free, claim.takes) == ("ResourceQuota/team requests.nvidia.com/gpu", 1.0, 1.0)
    bare = quota_claims([quota({"memory": "1Gi"})], {"web": NextPod({"containers": [BARE]}, 2)})["web"]
    assert bare[0].takes == math.inf and bare[0].free == 2.0**30
