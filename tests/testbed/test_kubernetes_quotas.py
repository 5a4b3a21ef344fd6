"""Quotas and LimitRanges of the emulated API: what they refuse, count and fill in."""

import json

import pytest

from testbed.kubernetes_api import KubernetesStore, PodState

PODS = "/api/v1/namespaces/shop/pods"


def pod(name, **resources):
    container = {"name": "web", "image": "web", "resources": resources}
    meta = {"name": name, "namespace": "shop"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}


def deployment(name, replicas, **limits):
    labels = {"app": name}
    spec = {
        "containers": [{"name": "web", "image": "web", "resources": {"limits": limits} if limits else {}}]
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


class World:
    def __init__(self):
        self.told = []
        self.store = KubernetesStore(clock=lambda: 1000.0, on_scale=self.scale)
        self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})

    def scale(self, namespace, name, replicas):
        self.told.append((name, replicas))

    def object(self, kind, name, spec):
        meta = {"name": name, "namespace": "shop"}
        self.store.create({"apiVersion": "v1", "kind": kind, "metadata": meta, "spec": spec})

    def send(self, method, path, document=None):
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        body = json.dumps(document).encode() if document else b""
        answer = self.store.handle(method, path, headers={"Content-Type": kind}, body=body)
        return answer.status, json.loads(answer.body)

    def used(self, name="q"):
        return self.store.peek("/resourcequotas", "shop", name)["status"]["used"]


@pytest.fixture
def world():
    return World()


def test_a_pod_beyond_a_quota_is_refused_as_the_api_server_does(world):
    world.object("ResourceQuota", "q", {"hard": {"pods": "1", "limits.memory": "1Gi"}})
    assert world.used() == {"pods": "0", "limits.memory": "0"}
    assert world.send("POST", PODS, pod("a", limits={"memory": "512Mi"}))[0] == 201
    assert world.used() == {"pods": "1", "limits.memory": "512Mi"}
    status, said = world.send("POST", PODS, pod("b", limits={"memory": "768Mi"}))
    assert (status, said["reason"], said["message"]) == (
        403,
        "Forbidden",
        'pods "b" is forbidden: exceeded quota: q, requested: limits.memory=768Mi,pods=1, '
        "used: limits.memory=512Mi,pods=1, limited: limits.memory=1Gi,pods=1",
    )
    status, said = world.send("POST", PODS, pod("c"))
    assert said["message"] == 'pods "c" is forbidden: failed quota: q: must specify limits.memory for: web'


def test_a_limit_range_fills_in_and_refuses(world):
    item = {
        "type": "Container",
        "max": {"cpu": "1"},
        "min": {"cpu": "50m"},
        "defaultRequest": {"cpu": "100m"},
    }
    world.object("LimitRange", "l", {"limits": [item]})
    _, made = world.send("POST", PODS, pod("a"))
    assert made["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}}
    status, said = world.send("POST", PODS, pod("b", limits={"cpu": "2"}, requests={"cpu": "20m"}))
    assert status == 403 and said["message"] == (
        'pods "b" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, '
        "minimum cpu usage per Container is 50m, but request is 20m]"
    )


@pytest.mark.parametrize(
    ("item", "resources", "status", "said"),
    [
        ({"type": "Container", "min": {"cpu": "1"}}, {"limits": {"cpu": "2"}}, 201, ""),
        (
            {"type": "Container", "max": {"memory": "1Gi"}},
            {"requests": {"memory": "2Gi"}},
            422,
            'Pod "a" is invalid: spec.containers[0].resources.requests: Invalid value: "2Gi": must be less '
            "than or equal to memory limit of 1Gi",
        ),
        (
            {"type": "Container", "default": {"cpu": "500m"}},
            {"requests": {"cpu": "1"}},
            422,
            'Pod "a" is invalid: spec.containers[0].resources.requests: Invalid value: "1": must be less '
            "than or equal to cpu limit of 500m",
        ),
        (
            {"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}},
            {"limits": {"cpu": "1"}, "requests": {"cpu": "250m"}},
            403,
            'pods "a" is forbidden: cpu max limit to request ratio per Container is 2, but provided ratio is '
            "4.000000",
        ),
        (
            {"type": "Pod", "max": {"cpu": "1"}},
            {},
            403,
            'pods "a" is forbidden: maximum cpu usage per Pod is 1.  No limit is specified',
        ),
        (
            {"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "1"}},
            {"limits": {"cpu": "1500m"}, "requests": {"cpu": "500m"}},
            403,
            'pods "a" is forbidden: [maximum cpu usage per Pod is 1, but limit is 1500m, '
            "minimum cpu usage per Pod is 1, but request is 500m]",
        ),
        ({"type": "Pod", "max": {"cpu": "2"}}, {"limits": {"cpu": "2"}}, 201, ""),
    ],
)
def test_a_pod_that_a_limit_range_doesnt_let_in(world, item, resources, status, said):
    world.object("LimitRange", "l", {"limits": [item]})
    answer = world.send("POST", PODS, pod("a", **resources))
    assert (answer[0], answer[1].get("message", "")) == (status, said)


def test_other_objects_are_counted(world):
    world.object("ResourceQuota", "q", {"hard": {"count/deployments.apps": "1", "configmaps": "1"}})
    path = "/apis/apps/v1/namespaces/shop/deployments"
    assert world.send("POST", path, deployment("web", 1))[0] == 201
    status, said = world.send("POST", path, deployment("api", 1))
    assert status == 403 and said["message"] == (
        'deployments.apps "api" is forbidden: exceeded quota: q, requested: count/deployments.apps=1, '
        "used: count/deployments.apps=1, limited: count/deployments.apps=1"
    )
    assert world.used() == {"count/deployments.apps": "1", "configmaps": "0"}


def test_pods_beyond_a_quota_dont_come_up_and_the_deployment_says_so(world):
    world.object("ResourceQuota", "q", {"hard": {"requests.cpu": "500m"}})
    world.store.create(deployment("web", 4, cpu="200m"))
    states = [PodState(f"web-7d9c5b8f6d-{index}", 900.0, 910.0) for index in range(4)]
    world.store.sync_pods("shop", "web", states)
    assert len(world.store.snapshot("/pods", "shop")) == 2 and world.used() == {"requests.cpu": "400m"}
    status = world.store.peek("apps/deployments", "shop", "web")["status"]
    [failure] = [each for each in status["conditions"] if each["type"] == "ReplicaFailure"]
    assert status["replicas"] == 2 and failure["reason"] == "FailedCreate"
    assert "exceeded quota: q, requested: requests.cpu=200m" in failure["message"]
    world.send("PATCH", "/api/v1/namespaces/shop/resourcequotas/q", {"spec": {"hard": {"requests.cpu": "1"}}})
    world.store.sync_pods("shop", "web", states)
    status = world.store.peek("apps/deployments", "shop", "web")["status"]
    assert status["replicas"] == 4
    assert [each["type"] for each in status["conditions"]] == ["Available", "Progressing"]


def test_whoever_serves_is_told_of_replicas_that_may_run(world):
    world.object("ResourceQuota", "q", {"hard": {"pods": "5"}})
    world.store.create(deployment("web", 3))
    world.store.create(deployment("api", 4))
    assert world.told == [("web", 3), ("api", 2)]  # api's pods aren't there yet, but web's are promised

    def pods(name, count, going=0):
        return [
            PodState(f"{name}-7d9c5b8f6d-{index}", 900.0, 910.0, 990.0 if index < going else None)
            for index in range(count)
        ]

    world.store.sync_pods("shop", "web", pods("web", 3))
    world.store.sync_pods("shop", "api", pods("api", 2))
    world.send("PATCH", "/apis/apps/v1/namespaces/shop/deployments/web/scale", {"spec": {"replicas": 1}})
    assert world.told[2:] == [("web", 1)]
    world.store.sync_pods("shop", "web", pods("web", 3, going=2))
    assert world.told[3:] == []  # they are going, but not gone
    world.store.sync_pods("shop", "web", pods("web", 3)[2:])
    assert world.told[3:] == [("api", 4)]
