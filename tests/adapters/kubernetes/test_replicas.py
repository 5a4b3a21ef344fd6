"""Writes of replicas: what is sent, and whose change stands."""

import numpy as np
import pytest
from helpers.kube_shop import make
from helpers.kube_stub import DEPLOYMENTS

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.kubernetes.measured_objects import MeasuredObjects
from deepscaler.control.controller import Controller
from deepscaler.policies.static import StaticPolicy


def test_scaling_patches_the_scale_subresource_with_the_version_that_was_read(stub, shop):
    cluster = shop()
    cluster.workloads()
    version = stub.objects[f"{DEPLOYMENTS}/web"]["metadata"]["resourceVersion"]
    report = cluster.scale({"web": np.int64(5)})
    assert report.applied == {"web": 5} and not report.failed and stub.replicas("web") == 5
    assert [entry for entry in stub.seen if entry[0] != "GET"] == [
        (
            "PATCH",
            f"{DEPLOYMENTS}/web/scale",
            {"metadata": {"resourceVersion": version}, "spec": {"replicas": 5}},
        )
    ]


def test_somebody_elses_edit_is_a_conflict_and_stands(stub, shop):
    cluster = shop()
    cluster.workloads()
    stub.edit(f"{DEPLOYMENTS}/web", spec__replicas=9)
    report = cluster.scale({"web": 5, "api": 3})
    assert report.applied == {"api": 3} and stub.replicas("web") == 9
    assert "conflict" in report.failed["web"] and "2 replicas then, 9 now" in report.failed["web"]
    assert cluster.workloads()[0].replicas == 9
    assert cluster.scale({"web": 5}).applied == {"web": 5}  # the next tick decides on what is


def test_a_pause_set_meanwhile_is_a_conflict(stub, shop):
    cluster = shop()
    cluster.workloads()
    stub.edit(f"{DEPLOYMENTS}/web", metadata__annotations={"deepscaler.io/paused": "true"})
    assert "conflict" in cluster.scale({"web": 5}).failed["web"] and stub.replicas("web") == 2


def test_a_changed_status_is_no_conflict(stub, shop):
    cluster = shop()
    cluster.workloads()
    stub.edit(f"{DEPLOYMENTS}/web", status__readyReplicas=1)
    assert cluster.scale({"web": 5}).applied == {"web": 5} and stub.replicas("web") == 5


def test_a_status_that_never_rests_ends_as_a_conflict(stub, shop):
    cluster = shop()
    cluster.workloads()

    def churn(method, path):
        if method == "PATCH":
            stub.edit(f"{DEPLOYMENTS}/web", status__readyReplicas=len(stub.seen))

    stub.before = churn
    assert "conflict: its status changed 5 times" in cluster.scale({"web": 5}).failed["web"]
    assert stub.writes == [f"PATCH {DEPLOYMENTS}/web/scale"] * 5 and stub.replicas("web") == 2


def test_an_edit_between_two_tries_is_still_seen(stub, shop):
    """The first PATCH meets a changed status, and the owner edits before the second."""
    cluster = shop()
    cluster.workloads()
    tries = []

    def meddle(method, path):
        if method == "PATCH":
            tries.append(path)
            changes = {"status__readyReplicas": 1} if len(tries) == 1 else {"spec__replicas": 7}
            stub.edit(f"{DEPLOYMENTS}/web", **changes)

    stub.before = meddle
    assert "2 replicas then, 7 now" in cluster.scale({"web": 5}).failed["web"] and stub.replicas("web") == 7


def test_replicas_read_from_prometheus_are_checked_before_a_write(stub, shop, monkeypatch):
    cluster = shop()
    truth = cluster.workloads()
    stub.denied.add(("list", "deployments"))
    monkeypatch.setattr(MeasuredObjects, "workloads", lambda _: list(truth))
    assert len(cluster.workloads()) == 2
    stub.edit(f"{DEPLOYMENTS}/web", spec__replicas=9)
    report = cluster.scale({"web": 5, "api": 3})
    assert report.applied == {"api": 3} and stub.replicas("web") == 9
    assert "conflict: the decision was made for 2 replicas, there are 9" in report.failed["web"]


def test_one_refusal_doesnt_stop_the_rest(stub, shop, tmp_path):
    cluster = shop()
    cluster.workloads()
    del stub.objects[f"{DEPLOYMENTS}/web"]
    report = cluster.scale({"web": 5, "api": 3})
    assert (
        report.applied == {"api": 3}
        and "Deployment shop/web: " in report.failed["web"]
        and "HTTP 404 NotFound" in report.failed["web"]
    )
    stub.denied.add(("patch", "deployments/scale"))
    assert 'cannot patch resource "deployments/scale"' in cluster.scale({"api": 4}).failed["api"]


def test_the_emulated_api_is_scaled_and_pods_that_become_ready_are_no_conflict(emulated, tmp_path):
    cluster, other = (KubernetesCluster(make(emulated, tmp_path)) for _ in range(2))
    cluster.workloads()
    emulated.pods("web", 1, starting=1)  # moves the resourceVersion on
    assert cluster.scale({"web": 4}).applied == {"web": 4} and emulated.store.replicas("shop")["web"] == 4
    emulated.pods("web", 2, starting=2)
    pods = [item for item in cluster.pods() if item.service == "web"]
    assert [item.ready for item in pods] == [True, True, False, False]
    cluster.workloads()
    other.workloads()
    assert other.scale({"api": 7}).applied == {"api": 7}
    report = cluster.scale({"api": 3, "web": 5})
    assert (
        report.applied == {"web": 5}
        and "conflict" in report.failed["api"]
        and emulated.store.replicas("shop")["api"] == 7
    )


@pytest.mark.field
def test_who_set_the_replicas_last_is_known_and_this_controller_signs_its_writes(emulated, tmp_path):
    cluster = KubernetesCluster(make(emulated, tmp_path))
    path = "/apis/apps/v1/namespaces/shop/deployments/web"

    def patch(where, replicas, manager):
        headers = {"Content-Type": "application/merge-patch+json"}
        body = b'{"spec": {"replicas": %d}}' % replicas
        emulated.store.handle("PATCH", where, f"fieldManager={manager}", headers, body)
        return cluster.workloads()[0].manager

    assert cluster.workloads()[0].manager == "testbed"  # it was created so
    assert patch(f"{path}/scale", 3, "keeper") == "keeper"
    assert cluster.scale({"web": 5}).applied == {"web": 5}
    assert cluster.workloads()[0].manager == "deepscaler"
    assert patch(path, 4, "kubectl-edit") == "kubectl-edit"
    assert patch(f"{path}/scale", 4, "keeper") == "kubectl-edit"  # this changed nothing


@pytest.mark.field
def test_a_patcher_on_the_emulated_api_is_refused_by_its_field_manager(emulated, tmp_path, caplog):
    settings = make(emulated, tmp_path, scale={"dry_run": False})
    controller = Controller(KubernetesCluster(settings), StaticPolicy({"web": 6, "api": 3}, 15.0), settings)
    headers = {"Content-Type": "application/merge-patch+json"}
    for _ in range(12):
        controller.tick()
        path = "/apis/apps/v1/namespaces/shop/deployments/web/scale"
        emulated.store.handle("PATCH", path, "fieldManager=keeper", headers, b'{"spec": {"replicas": 3}}')
    writes = [write for write in emulated.writes if write.endswith("web/scale")]
    assert len(writes) == 12 + 3 and emulated.store.replicas("shop") == {"web": 3, "api": 3}
    assert "web: other autoscalers act on it: field manager keeper; refused until it is gone" in caplog.text
    assert controller.last_rows[0].reason == "rival_autoscaler"
