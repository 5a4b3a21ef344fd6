"""Objects of the API that can't be right cost their own service only, and are named."""

import logging
import time

import pytest
from helpers.kube_shop import CREATED, READY, make
from helpers.kube_stub import (
    DEPLOYMENTS,
    HPAS,
    PODS,
    QUOTAS,
    REPLICA_SETS,
    USAGE,
    deployment,
    hpa,
    pod,
    replica_set,
)

from deepscaler.adapters.kubernetes.checked import PodObject, Replicated, WorkloadObject, check
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.control.controller import Controller
from deepscaler.errors import ClusterError
from deepscaler.policies.base import Observation, Proposal, Reason

pytestmark = pytest.mark.stress
WEB_POD = f"{PODS}/web-5d9c5b8f6d-00000"
GONE = object()
BROKEN_PODS = {
    "spec": None,
    "spec.containers": {"name": "web"},
    "spec.containers.0": "web",
    "spec.containers.0.resources.limits.cpu": "much",
    "spec.containers.0.resources.limits.memory": "-1Gi",
    "spec.containers.0.resources.requests": ["100m"],
    "spec.initContainers": 7,
    "status": "Running",
    "status.conditions": "Ready",
    "status.conditions.0": None,
    "status.startTime": 1767571200,
    "status.containerStatuses.0.restartCount": "none",
    "metadata.labels": ["app"],
    "metadata.ownerReferences": {"kind": "ReplicaSet"},
    "metadata.creationTimestamp": 5,
}
BROKEN_DEPLOYMENTS = {
    "spec.template": GONE,
    "spec.template.spec": None,
    "spec.template.spec.containers": 3,
    "spec.template.spec.containers.0.resources.limits.cpu": "1e999",
    "spec.template.spec.containers.0.resources": "500m",
    "status": [],
    "status.replicas": "two",
}
LOST_DEPLOYMENTS = {
    "spec": None,
    "spec.replicas": "three",
    "metadata.annotations": {"deepscaler.io/paused": True},
    "metadata.resourceVersion": 17,
}


def broken(item, where, value):
    """The object with another value at a dotted place."""
    *parents, last = where.split(".")
    place = item
    for part in parents:
        place = place[int(part) if isinstance(place, list) else part]
    if value is GONE:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return item


class Doubling:
    """A policy that wants twice the replicas of every service."""

    name, period_seconds, history_seconds, guarded = "doubling", 15.0, 300.0, True
    load_seconds = 0.0

    def decide(self, observation: Observation):
        return {item.service: Proposal(2.0 * item.replicas, Reason.STATIC) for item in observation.workloads}

    def describe(self):
        return {}


def tick(cluster, settings):
    """Reason and target by service; metrics are there for every service."""
    controller = Controller(cluster, Doubling(), settings)
    controller._gate.judge = lambda *_: good_quality(cluster)
    controller._gate.no_scale_down = lambda *_: frozenset()
    return {row.service: (row.reason, row.target) for row in controller.tick()}


def good_quality(cluster):
    from helpers.fakes import FakeCluster

    from deepscaler.control.quality import assess

    fake = FakeCluster(cluster.services)
    panel = fake.metrics(fake.clock - 300, fake.clock, 15.0)
    return assess(panel, ("cpu",), fake.clock, 4, 120.0)


@pytest.mark.parametrize("where", BROKEN_PODS)
def test_a_pod_that_cant_be_right_holds_its_service_and_no_other(stub, shop, tmp_path, caplog, where):
    cluster = shop()
    stub.objects[WEB_POD] = broken(stub.objects[WEB_POD], where, BROKEN_PODS[where])
    assert tick(cluster, make(stub, tmp_path)) == {"web": ("held_unsound", 2), "api": ("static", 4)}
    assert caplog.text.count("Pod web-5d9c5b8f6d-00000 isn't sound: ") == 1
    assert "web is held" in caplog.text
    caplog.clear()
    stub.objects[WEB_POD] = pod("web", 0, CREATED, READY)
    assert tick(cluster, make(stub, tmp_path)) == {"web": ("static", 4), "api": ("static", 8)}
    assert "Pod web-5d9c5b8f6d-00000: well again" in caplog.text


@pytest.mark.parametrize("where", BROKEN_DEPLOYMENTS)
def test_a_deployment_that_cant_be_right_holds_its_service_and_no_other(stub, shop, tmp_path, caplog, where):
    path = f"{DEPLOYMENTS}/web"
    stub.objects[path] = broken(stub.objects[path], where, BROKEN_DEPLOYMENTS[where])
    assert tick(shop(), make(stub, tmp_path)) == {"web": ("held_unsound", 2), "api": ("static", 4)}
    assert caplog.text.count("Deployment web isn't sound: ") == 1


@pytest.mark.parametrize("where", LOST_DEPLOYMENTS)
def test_a_deployment_without_a_number_of_replicas_is_left_alone(stub, shop, tmp_path, caplog, where):
    path = f"{DEPLOYMENTS}/web"
    stub.objects[path] = broken(stub.objects[path], where, LOST_DEPLOYMENTS[where])
    assert tick(shop(), make(stub, tmp_path)) == {"api": ("static", 4)}
    assert f"Deployment web isn't sound: {where}" in caplog.text and "no Deployment" not in caplog.text


def test_deployments_that_are_all_broken_are_an_error_that_names_them(stub, shop):
    for name in ("web", "api"):
        stub.objects[f"{DEPLOYMENTS}/{name}"]["spec"] = 5
    with pytest.raises(ClusterError, match=r"api isn't sound: spec: .*web isn't sound: spec: "):
        shop().workloads()


@pytest.mark.parametrize("item", [{"metadata": {"name": "web"}}, {"metadata": {"name": "web"}, "spec": {}}])
def test_an_autoscaler_that_cant_be_right_counts_as_a_rival_of_what_it_is_called_like(
    stub, shop, item, caplog
):
    stub.put(HPAS, item)
    stub.put(HPAS, hpa("other", "api"))
    web, api = shop().workloads()
    assert web.autoscalers == ("HorizontalPodAutoscaler/web",)
    assert api.autoscalers == ("HorizontalPodAutoscaler/other",)
    assert "HorizontalPodAutoscaler web isn't sound: spec" in caplog.text


@pytest.mark.parametrize("spec", [None, {"hard": {"limits.cpu": "lots"}}, {"hard": []}, {"scopes": 3}])
def test_a_quota_that_cant_be_right_is_left_out_and_the_others_count(stub, shop, caplog, spec):
    stub.put(QUOTAS, {"metadata": {"name": "odd"}, "spec": spec})
    before = shop().workloads()
    assert "ResourceQuota odd isn't sound: spec" in caplog.text
    stub.put(QUOTAS, {"metadata": {"name": "team"}, "spec": {"hard": {"limits.cpu": "4"}}, "status": {}})
    assert shop().workloads() != before


@pytest.mark.parametrize(
    "change", [{"timestamp": 3}, {"window": 15}, {"containers": "web"}, {"window": "9" * 40 + "h"}]
)
def test_a_usage_that_cant_be_right_is_unknown_and_the_others_count(stub, shop, caplog, change):
    for name in ("web", "api"):
        item = {"metadata": {"name": f"{name}-5d9c5b8f6d-00000"}, "timestamp": READY, "window": "15s"}
        item["containers"] = [{"name": name, "usage": {"cpu": "100m"}}]
        stub.put(USAGE, {**item, **(change if name == "web" else {})})
    used = {item.name: item.usage_cores for item in shop().pods()}
    assert used["web-5d9c5b8f6d-00000"] is None and used["api-5d9c5b8f6d-00000"] == 0.1
    assert "PodMetrics web-5d9c5b8f6d-00000 isn't sound" in caplog.text


def test_a_replica_set_that_cant_be_right_is_told_by_its_name(stub, shop, caplog):
    stub.put(
        REPLICA_SETS,
        {**replica_set("web-5d9c5b8f6d", "web"), "metadata": {"name": "web-5d9c5b8f6d", "uid": 3}},
    )
    stub.put(REPLICA_SETS, replica_set("api-5d9c5b8f6d", "api"))
    assert [item.service for item in shop().pods()] == ["api", "api", "web", "web"]
    assert "ReplicaSet web-5d9c5b8f6d isn't sound: metadata.uid" in caplog.text


def test_objects_of_others_are_not_looked_at(stub, shop, caplog):
    """A pod and a Deployment that aren't the application's may be whatever they are."""
    stub.put(DEPLOYMENTS, {"metadata": {"name": "stranger"}, "spec": "none"})
    stub.put(PODS, {"metadata": {"name": "stranger-1"}, "spec": "none"})
    with caplog.at_level(logging.WARNING):
        assert len(shop().workloads()) == 2 and len(shop().pods()) == 4
    assert "sound" not in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        {"items": {"a": 1}},
        {"items": [None]},
        {"items": ["web"]},
        {"items": [], "metadata": ["more"]},
        {"items": [], "metadata": {"continue": 5}},
        {"items": "web"},
    ],
)
def test_a_malformed_list_is_an_error(stub, tmp_path, monkeypatch, answer):
    monkeypatch.setattr(stub, "reply", lambda *_: (200, answer))
    with pytest.raises(ClusterError, match=r"shop/deployments: (not a list|the list holds)"):
        KubernetesCluster(make(stub, tmp_path)).workloads()


def test_a_list_without_an_end_is_an_error(stub, tmp_path, monkeypatch):
    monkeypatch.setattr(stub, "reply", lambda *_: (200, {"items": [], "metadata": {"continue": "more"}}))
    monkeypatch.setattr("deepscaler.adapters.kubernetes.api._MOST_PAGES", 5)
    with pytest.raises(ClusterError, match="the list has no end"):
        KubernetesCluster(make(stub, tmp_path)).workloads()


@pytest.mark.parametrize(
    "lease", [{"spec": 3}, {"metadata": None}, {"spec": {"leaseDurationSeconds": "long"}}]
)
def test_a_lease_that_cant_be_right_is_not_led_by(stub, tmp_path, caplog, lease):
    from deepscaler.adapters.kubernetes.lease import LeaseElection

    election = LeaseElection(make(stub, tmp_path))
    monkey = {"metadata": {"name": election.name, "resourceVersion": "1"}, **lease}
    stub.objects[f"{election._path}/{election.name}"] = monkey
    assert not election.attempt() and "Lease " in caplog.text and "isn't sound" in caplog.text


def test_checking_a_thousand_services_takes_a_small_part_of_a_tick():
    """Three pods, a Deployment each; the bound is far above what it takes, for slow machines."""
    deployments = [deployment(f"service-{index}") for index in range(1000)]
    pods = [pod(f"service-{index % 1000}", index, CREATED, READY) for index in range(3000)]
    began = time.process_time()
    for item in deployments:
        check(Replicated, item, "Deployment")
        check(WorkloadObject, item, "Deployment")
    for item in pods:
        check(PodObject, item, "Pod")
    seconds = time.process_time() - began
    print(f"{seconds / 4:.4f} s per 1,000 objects")
    assert seconds < 1.0
