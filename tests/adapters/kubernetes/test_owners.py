"""Which Deployment a pod belongs to: owner references decide, whatever names and labels say."""

import logging

import pytest
from helpers.kube_shop import CREATED, READY, T0, make
from helpers.kube_stub import DEPLOYMENTS, PODS, REPLICA_SETS, deployment, pod, replica_set

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from testbed.kubernetes_api import PodState

pytestmark = pytest.mark.field
LONG = "recommendation-service-of-the-northern-european-shops"  # 53 characters: pods carry 46 of them


def owned_by(kind, name="owner", **more):
    return [{"kind": kind, "name": name, "uid": name, "controller": True, **more}]


@pytest.mark.parametrize(
    "owners",
    [
        pytest.param(owned_by("Job", "frontend-loadgen"), id="Job"),
        pytest.param(owned_by("StatefulSet", "web"), id="StatefulSet"),
        pytest.param(owned_by("ReplicaSet", "web-5d9c5b8f6d", controller=False), id="not its controller"),
        pytest.param(owned_by("ReplicaSet", "rollout-7f"), id="ReplicaSet of a Rollout"),
        pytest.param(owned_by("ReplicaSet", "bare"), id="ReplicaSet of nobody"),
        pytest.param([], id="nobody"),
    ],
)
def test_pods_of_others_dont_count_though_they_carry_the_labels_of_a_service(stub, shop, owners):
    for name in ("web", "api"):
        stub.put(REPLICA_SETS, replica_set(f"{name}-5d9c5b8f6d", name))
    stub.put(REPLICA_SETS, replica_set("rollout-7f", "web", "Rollout"))
    stub.put(REPLICA_SETS, {"metadata": {"name": "bare", "uid": "bare"}})
    stub.put(PODS, pod("web", 9, CREATED, "2026-01-05T09:00:00Z", ownerReferences=owners))
    cluster = shop()
    assert [item.service for item in cluster.pods()] == ["api", "api", "web", "web"]
    assert cluster.workloads()[0].boot_seconds == 12.0


@pytest.mark.parametrize("listed", [True, False])
def test_a_long_name_that_pods_carry_only_the_beginning_of(stub, tmp_path, listed):
    stub.put(DEPLOYMENTS, deployment(LONG))
    item = pod(LONG, 0, CREATED, READY)
    item["metadata"]["name"] = f"{LONG}-5d9c5b8f6d-"[:58] + "x7k2p"
    stub.put(PODS, item)
    if listed:
        stub.put(REPLICA_SETS, replica_set(f"{LONG}-5d9c5b8f6d", LONG))
    pods = KubernetesCluster(make(stub, tmp_path, {"web": {}, "long": {"deployment": LONG}})).pods()
    assert [(found.service, found.ready) for found in pods] == [("long", True)]


def test_an_adopted_replica_set_of_another_name_belongs_to_its_deployment(stub, shop):
    stub.put(REPLICA_SETS, replica_set("legacy", "web"))
    stub.put(PODS, pod("old", 0, CREATED, READY, ownerReferences=owned_by("ReplicaSet", "legacy")))
    assert [item.service for item in shop().pods()].count("web") == 3


def test_replica_sets_are_listed_only_when_a_new_one_shows_up(stub, shop):
    for name in ("web", "api"):
        stub.put(REPLICA_SETS, replica_set(f"{name}-5d9c5b8f6d", name))
    cluster = shop()
    for _ in range(3):
        assert len(cluster.pods()) == 4
    assert stub.requests("GET").count(f"GET {REPLICA_SETS}") == 1
    stub.put(REPLICA_SETS, replica_set("web-66", "web"))
    stub.put(PODS, pod("web", 7, CREATED, None, ownerReferences=owned_by("ReplicaSet", "web-66")))
    assert len(cluster.pods()) == 5 and len(cluster.pods()) == 5
    assert stub.requests("GET").count(f"GET {REPLICA_SETS}") == 2


def test_without_the_right_to_list_replica_sets_their_names_tell(stub, shop, caplog):
    stub.collections.add(REPLICA_SETS)
    stub.denied.add(("list", "replicasets"))
    stub.put(PODS, pod("web", 9, CREATED, READY, ownerReferences=owned_by("Job", "frontend-loadgen")))
    with caplog.at_level(logging.WARNING):
        assert [item.service for item in shop().pods()] == ["api", "api", "web", "web"]
    assert "ReplicaSets can't be read, so their names tell which Deployment has which pods" in caplog.text


def test_the_emulated_api_and_its_owner_references(emulated, tmp_path):
    labels = {"app": "web"}
    job = {"apiVersion": "batch/v1", "kind": "Job", "name": "loadgen", "uid": "j", "controller": True}
    meta = {"name": "web-loadgen-c6vwp", "namespace": "shop", "labels": labels, "ownerReferences": [job]}
    spec = {"containers": [{"name": "web", "image": "k6"}]}
    emulated.store.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    emulated.store.sync_pods("shop", "web", [PodState("web-1", T0, T0 + 20), PodState("web-2", T0, T0 + 30)])
    pods = KubernetesCluster(make(emulated, tmp_path)).pods()
    assert [item.name for item in pods if item.service == "web"] == ["web-1", "web-2"]
