"""The Kubernetes half of the cluster port against a small API server, through the official client."""

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.kube_stub import (
    DEPLOYMENTS,
    HPAS,
    LEASES,
    PODS,
    QUOTAS,
    SCALED,
    USAGE,
    KubeStub,
    deployment,
    hpa,
    pod,
)
from helpers.paths import ROOT
from helpers.recordings import kubernetes_answers

import predict_scale
from deepscaler.adapters.kubernetes.api import ApiError, KubeApi, quantity, seconds_since_epoch, span_seconds
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.kubernetes.orchestrator import selects
from deepscaler.adapters.queries import WORKLOAD_QUERIES
from deepscaler.control.controller import Controller
from deepscaler.control.guard_rails import decide
from deepscaler.control.self_metrics import exposition, serving_metrics
from deepscaler.errors import ClusterError, MetricsError
from deepscaler.policies.base import Proposal, Reason
from deepscaler.settings import Settings
from testbed.kubernetes_api import Identity, KubernetesApi, KubernetesStore, PodState, Rule

CREATED, READY = "2026-01-05T00:00:00Z", "2026-01-05T00:00:12Z"
T0 = 1_767_571_200.0
NOWHERE = {"url": "http://127.0.0.1:1", "retries": 0}


@pytest.fixture
def stub():
    with KubeStub() as server:
        yield server


@pytest.fixture
def shop(stub, tmp_path):
    """web and api with two replicas each, all ready; returns what makes a cluster of them."""
    for name in ("web", "api"):
        stub.put(DEPLOYMENTS, deployment(name))
        for index in range(2):
            stub.put(PODS, pod(name, index, CREATED, READY))
    return lambda **changes: KubernetesCluster(make(stub, tmp_path, **changes))


def make(
    stub: KubeStub, tmp_path: Path, services=("web", "api"), scale=None, token="secret", **cluster
) -> Settings:
    config = stub.kubeconfig(tmp_path / "kubeconfig", token)
    return Settings.model_validate(
        {
            "app": {
                "name": "shop",
                "namespace": "shop",
                "services": services if isinstance(services, dict) else dict.fromkeys(services),
                "entries": [{"name": "GET /", "service": "web"}],
            },
            "cluster": {"kind": "kubernetes", "kubeconfig": config, "prometheus": NOWHERE, **cluster},
            "scale": scale or {},
        }
    )


# ---------------------------------------------------------------------------------------------------------------- reading
def test_a_workload_is_what_its_deployment_says(stub, shop):
    stub.put(DEPLOYMENTS, deployment("web", 3, annotations={"deepscaler.io/paused": "true"}))
    web, api = shop().workloads()
    assert (
        web.service,
        web.replicas,
        web.cpu_limit_cores,
        web.cpu_request_cores,
        web.memory_limit_bytes,
    ) == ("web", 3, 0.5, 0.1, 2**27)
    assert web.memory_request_bytes == 2**27  # a limit without a request is its own request
    assert web.annotations == {"deepscaler.io/paused": "true"} and (api.replicas, api.annotations) == (2, {})
    assert web.autoscalers == () and web.quota_cores is None


def test_limits_are_those_of_the_services_own_container(stub, tmp_path):
    item = deployment("web")
    item["spec"]["template"]["spec"]["containers"] = [
        {"name": "istio-proxy", "resources": {"limits": {"cpu": "2"}}},
        {"name": "server", "resources": {"limits": {"cpu": "300m"}}},
    ]
    stub.put(DEPLOYMENTS, item)
    [web] = KubernetesCluster(make(stub, tmp_path, {"web": {"container": "server"}})).workloads()
    assert web.cpu_limit_cores == 0.3


@pytest.mark.parametrize(
    ("collection", "item", "expected"),
    [
        (HPAS, hpa("web-hpa", "web"), ("HorizontalPodAutoscaler/web-hpa",)),
        (HPAS, hpa("other", "web-two"), ()),
        (HPAS, hpa("stateful", "web", "StatefulSet"), ()),
        (
            SCALED,
            {"metadata": {"name": "keda"}, "spec": {"scaleTargetRef": {"name": "web"}}},
            ("ScaledObject/keda",),
        ),
        (
            SCALED,
            {
                "metadata": {"name": "keda"},
                "spec": {"scaleTargetRef": {"name": "web", "kind": "StatefulSet"}},
            },
            (),
        ),
    ],
)
def test_rival_autoscalers_are_named(stub, shop, collection, item, expected):
    stub.put(collection, item)
    assert shop().workloads()[0].autoscalers == expected


def test_lists_are_read_page_by_page(stub, shop):
    stub.page = 1
    assert [item.service for item in shop().workloads()] == ["web", "api"]
    assert len(shop().pods()) == 4


def test_a_pod_is_what_the_api_says(stub, shop):
    stub.put(PODS, pod("web", 7, "2026-01-05T00:01:00Z", None, deletionTimestamp="2026-01-05T00:02:00Z"))
    pods = shop().pods()
    assert [item.service for item in pods] == ["api", "api", "web", "web", "web"]
    ready, starting = pods[-2:]
    assert (ready.phase, ready.ready, ready.start_time, ready.ready_since, ready.deleting) == (
        "Running",
        True,
        T0,
        T0 + 12,
        False,
    )
    assert ready.cpu_request_cores == 0.1
    assert (starting.phase, starting.ready, starting.ready_since, starting.deleting) == (
        "Pending",
        False,
        T0 + 60,
        True,
    )


def test_a_pod_belongs_to_the_deployment_that_selects_it(stub, tmp_path):
    for name in ("carts", "carts-db"):
        stub.put(DEPLOYMENTS, deployment(name))
        stub.put(PODS, pod(name, 1, CREATED, READY))
    pods = KubernetesCluster(make(stub, tmp_path, {"web": {}, "carts": {}, "carts-db": {}})).pods()
    assert {item.name: item.service for item in pods} == {
        "carts-5d9c5b8f6d-00001": "carts",
        "carts-db-5d9c5b8f6d-00001": "carts-db",
    }


def test_usage_comes_from_the_metrics_server(stub, shop):
    name = "web-5d9c5b8f6d-00000"
    usage = [{"name": "web", "usage": {"cpu": "123456789n"}}, {"name": "istio-proxy", "usage": {"cpu": "1"}}]
    stub.put(USAGE, {"metadata": {"name": name}, "timestamp": READY, "window": "15.5s", "containers": usage})
    found = {item.name: item for item in shop().pods()}
    assert (found[name].usage_cores, found[name].usage_time, found[name].usage_window_seconds) == (
        pytest.approx(0.123456789),
        T0 + 12,
        15.5,
    )
    assert found["api-5d9c5b8f6d-00000"].usage_cores is None


def test_without_a_metrics_server_prometheus_tells_usage(stub, shop, monkeypatch):
    cluster, name = shop(), "web-5d9c5b8f6d-00000"
    monkeypatch.setattr(
        cluster._brief, "query", lambda text, _now: [({"pod": name}, 0.25 if "rate" in text else T0)]
    )
    pods = {item.name: item for item in cluster.pods()}
    assert (pods[name].usage_cores, pods[name].usage_time, pods[name].usage_window_seconds) == (
        0.25,
        T0,
        60.0,
    )


def test_boot_times_are_measured_and_configured_ones_stand_in(stub, tmp_path, shop):
    settings = make(stub, tmp_path, ("web", "api", "db"))
    settings = settings.model_copy(
        update={"process": settings.process.model_copy(update={"boot_seconds": {"web": 99.0, "db": 7.0}})}
    )
    stub.put(DEPLOYMENTS, deployment("db"))
    stub.put(PODS, pod("web", 2, CREATED, "2026-01-05T00:00:30Z"))
    stub.put(PODS, pod("web", 3, CREATED, None))
    stub.put(PODS, pod("db", 0, CREATED, CREATED))
    restarted = pod("web", 4, CREATED, "2026-01-05T09:00:00Z")
    restarted["status"]["containerStatuses"] = [{"restartCount": 3}]
    stub.put(PODS, restarted)
    cluster = KubernetesCluster(settings)
    assert {item.service: item.boot_seconds for item in cluster.workloads()} == {
        "web": 12.0,
        "api": 12.0,
        "db": 7.0,
    }
    stub.edit(f"{PODS}/web-5d9c5b8f6d-00003", status=pod("web", 3, CREATED, "2026-01-05T00:00:40Z")["status"])
    for index in (0, 1):  # a later transition of a pod that is known tells nothing of its start
        stub.edit(
            f"{PODS}/web-5d9c5b8f6d-{index:05d}",
            status=pod("web", index, CREATED, "2026-01-05T08:00:00Z")["status"],
        )
    cluster.pods()
    assert cluster.workloads()[0].boot_seconds == 21.0  # median of 12, 12, 30, 40


# ------------------------------------------------------------------------------------------------------------------ quota
def test_the_namespaces_quota_bounds_the_plan_sidecars_counted(stub, shop):
    """4 cores: others use 0.5; a pod of ours takes 0.5 and its sidecar 0.2, so five replicas fit: 3.5 / 0.7."""
    for name in ("web", "api"):
        for index in range(2):
            stub.put(PODS, pod(name, index, CREATED, READY, sidecar="200m"))
    used = {"limits.cpu": str(0.5 + 4 * 0.7)}
    stub.put(
        QUOTAS,
        {"metadata": {"name": "wide"}, "spec": {"hard": {"limits.cpu": "40"}}, "status": {"used": used}},
    )
    stub.put(
        QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": {"limits.cpu": "4"}}, "status": {"used": used}}
    )
    stub.put(
        QUOTAS,
        {
            "metadata": {"name": "best"},
            "spec": {"hard": {"limits.cpu": "1"}, "scopes": ["BestEffort"]},
            "status": {},
        },
    )
    cluster = shop()
    cluster.workloads()
    workloads = cluster.workloads()
    assert [item.quota_cores for item in workloads] == pytest.approx([3.5, 3.5])
    assert [item.pod_cores for item in workloads] == pytest.approx([0.7, 0.7])
    plan = decisions(workloads, {"web": 8.0, "api": 2.0})
    assert [(item.target, item.reason) for item in plan] == [(3, Reason.QUOTA), (2, Reason.UNCHANGED)]


def decisions(workloads, wishes):
    from deepscaler.control.guard_rails import RecommendationHistory, Stance
    from deepscaler.settings import GuardRails

    proposals = {name: Proposal(wish, Reason.FORECAST, predicted=wish) for name, wish in wishes.items()}
    return decide(
        proposals,
        workloads,
        RecommendationHistory(0.0),
        T0,
        rails=GuardRails(),
        stance=Stance(True, True, frozenset()),
    )


# -------------------------------------------------------------------------------------------------------- when it can't be read
def test_statefulsets_are_named_as_unsupported(stub, tmp_path, caplog):
    stub.put(DEPLOYMENTS, deployment("web"))
    stub.put("/apis/apps/v1/namespaces/shop/statefulsets", deployment("db"))
    cluster = KubernetesCluster(make(stub, tmp_path, ("web", "db", "gone")))
    with caplog.at_level(logging.WARNING):
        assert [item.service for item in cluster.workloads()] == ["web"]
        cluster.workloads()
    assert (
        caplog.text.count("db: shop/db is a StatefulSet, which is not supported: only Deployments are scaled")
        == 1
    )
    assert caplog.text.count("gone: there is no Deployment shop/gone; check app.services.gone") == 1
    with pytest.raises(
        ClusterError, match=r"db: shop/db is a StatefulSet.*set app.services.db.scaled to false"
    ):
        cluster.check()


def test_a_namespace_without_the_deployments_is_refused(stub, tmp_path):
    with pytest.raises(
        ClusterError, match=r"namespace shop has none of the Deployments web, api; check app.namespace"
    ):
        KubernetesCluster(make(stub, tmp_path)).workloads()


@pytest.mark.parametrize(
    ("trouble", "status", "message"),
    [
        ("token", 401, r"HTTP 401 Unauthorized.*credentials are missing, wrong or expired"),
        (
            "right",
            403,
            r'HTTP 403 Forbidden: deployments is forbidden: User "me" cannot list resource "deployments"',
        ),
    ],
)
def test_refusals_are_loud_and_prometheus_stands_in(
    stub, shop, monkeypatch, caplog, trouble, status, message
):
    cluster = shop()
    if trouble == "token":
        stub.token = "another"
    else:
        stub.denied.add(("list", "deployments"))
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(ClusterError, match=message + ".*Prometheus can't stand in: .*no answer"),
    ):
        cluster.workloads()
    monkeypatch.setattr(cluster, "_measured_workloads", lambda: [])
    for _ in range(3):
        assert cluster.workloads() == []
    assert caplog.text.count("Deployments can't be read from the Kubernetes API, Prometheus stands in") == 1
    assert cluster.api_failures == {status: 4}
    stub.token = None
    stub.denied.clear()
    assert len(cluster.workloads()) == 2 and "Deployments: well again" in caplog.text


def test_a_token_renewed_on_disk_is_taken_up(stub, shop, tmp_path):
    cluster = shop()
    assert len(cluster.workloads()) == 2
    stub.token = "renewed"
    stub.kubeconfig(tmp_path / "kubeconfig", "renewed")
    assert len(cluster.workloads()) == 2


def test_the_context_chooses_the_cluster(stub, shop, tmp_path):
    settings = make(stub, tmp_path)
    stub.kubeconfig(tmp_path / "kubeconfig", contexts=("away", "here-too"))
    with pytest.raises(ClusterError, match="no answer"):
        KubernetesCluster(settings).workloads()
    there = settings.model_copy(
        update={"cluster": settings.cluster.model_copy(update={"context": "here-too"})}
    )
    assert len(KubernetesCluster(there).workloads()) == 2


def test_in_a_pod_the_service_account_is_used(stub, shop, tmp_path, monkeypatch):
    from kubernetes.config import incluster_config

    settings = make(stub, tmp_path)
    account = settings.model_copy(
        update={"cluster": settings.cluster.model_copy(update={"kubeconfig": None})}
    )
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match=r"no way to the Kubernetes API: .*set cluster.kubeconfig"):
        KubernetesCluster(account).workloads()
    seen = []

    def load(client_configuration):
        client_configuration.host = stub.url
        client_configuration.api_key["BearerToken"] = "bearer of-the-pod"
        seen.append(incluster_config)

    monkeypatch.setattr("kubernetes.config.load_incluster_config", load)
    assert len(KubernetesCluster(account).workloads()) == 2 and seen


def test_what_isnt_a_kubernetes_api_is_said(stub, shop, monkeypatch):
    monkeypatch.setattr(stub, "reply", lambda *_: (200, []))
    with pytest.raises(ClusterError, match="is this a Kubernetes API server"):
        shop().workloads()


# ---------------------------------------------------------------------------------------------------------------- writing
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
    monkeypatch.setattr(cluster, "_measured_workloads", lambda: list(truth))
    assert len(cluster.workloads()) == 2
    stub.edit(f"{DEPLOYMENTS}/web", spec__replicas=9)
    report = cluster.scale({"web": 5, "api": 3})
    assert report.applied == {"api": 3} and stub.replicas("web") == 9
    assert "conflict: 2 replicas were thought to be there, 9 are" in report.failed["web"]


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


@pytest.mark.parametrize("target", [0, -1, 2.0, np.float64(2), None, "2", True, float("nan")])
def test_replicas_that_arent_integers_of_at_least_one_send_nothing(stub, shop, target):
    with pytest.raises(ClusterError, match="api: replicas must be an integer of at least 1"):
        shop().scale({"web": 1, "api": target})
    assert not stub.seen


def test_only_known_and_scaled_services_are_scaled(stub, tmp_path):
    cluster = KubernetesCluster(make(stub, tmp_path, {"web": {}, "redis": {"scaled": False}}))
    with pytest.raises(ClusterError, match="unknown service 'b'; services: web, redis"):
        cluster.scale({"b": 1})
    with pytest.raises(ClusterError, match="redis is not scaled"):
        cluster.scale({"redis": 1})
    assert cluster.scale({}).applied == {} and not stub.seen


def test_the_clock_is_injected(stub, tmp_path):
    slept = []
    cluster = KubernetesCluster(make(stub, tmp_path), clock=lambda: 100.0, sleep=slept.append)
    cluster.sleep_until(130.0)
    cluster.sleep_until(90.0)
    assert cluster.now() == 100.0 and slept == [30.0, 0.0]


# ----------------------------------------------------------------------------------------------------------------- rights
def test_all_rights_are_enough(stub, shop):
    shop().check()
    assert len([path for path in stub.writes if "selfsubjectaccessreviews" in path]) == 8


@pytest.mark.parametrize(
    ("denied", "named"),
    [
        (("patch", "deployments/scale"), "patch deployments.apps/scale in namespace shop"),
        (("list", "horizontalpodautoscalers"), "list horizontalpodautoscalers.autoscaling in namespace shop"),
        (("list", "pods"), "list pods in namespace shop"),
        (("update", "leases"), "update leases.coordination.k8s.io in namespace shop"),
    ],
)
def test_a_missing_right_is_named(stub, shop, denied, named):
    stub.denied.add(denied)
    with pytest.raises(ClusterError, match=f"missing rights: {named}"):
        shop().check()


def test_without_a_lease_its_rights_arent_needed(stub, shop):
    stub.denied |= {(verb, "leases") for verb in ("get", "create", "update")}
    shop(lease={"enabled": False}).check()


# ------------------------------------------------------------------------------------------------------------- the script
def config(stub, tmp_path, **scale) -> str:
    settings = {"policy": "static", "static_replicas": {"web": 6}, "run_dir": str(tmp_path / "runs"), **scale}
    document = make(stub, tmp_path).model_dump(mode="json")
    document["scale"].update(settings)
    for part in ("prometheus", "jaeger"):
        document["cluster"][part] = {
            key: value for key, value in document["cluster"][part].items() if key in ("url", "retries")
        }
    path = tmp_path / "shop.yaml"
    path.write_text(json.dumps(document))
    return str(path)


def test_a_dry_run_sends_no_write_request_at_all(stub, shop, tmp_path, capsys):
    path = config(stub, tmp_path)
    assert predict_scale.main(["--config", path, "--once", "--dry-run"]) == 0
    assert predict_scale.main(["--config", path, "--duration", "0.2", "--dry-run"]) == 0
    assert "dry_run" in capsys.readouterr().out
    assert stub.writes == [] and stub.seen


def test_once_takes_the_lease_writes_and_gives_it_back(stub, shop, tmp_path):
    assert predict_scale.main(["--config", config(stub, tmp_path), "--once"]) == 0
    assert stub.replicas("web") == 6
    [lease] = [item for path, item in stub.objects.items() if "/leases/" in path]
    assert lease["metadata"]["name"] == "deepscaler-shop" and lease["spec"]["holderIdentity"] == ""
    order = [path.rpartition("/")[2] for path in stub.writes if "reviews" not in path]
    assert order == ["leases", "scale", "deepscaler-shop"]


def test_a_missing_right_ends_the_script_before_it_writes(stub, shop, tmp_path, capsys):
    stub.denied.add(("patch", "deployments/scale"))
    assert predict_scale.main(["--config", config(stub, tmp_path), "--once"]) == 1
    assert "missing rights: patch deployments.apps/scale in namespace shop" in capsys.readouterr().err
    assert stub.replicas("web") == 2 and not any("leases" in path for path in stub.writes)


def test_a_rival_is_refused_by_name_when_acting(stub, shop, tmp_path, capsys, caplog):
    stub.put(HPAS, hpa("web-hpa", "web"))
    with caplog.at_level(logging.WARNING):
        assert (
            predict_scale.main(
                ["--config", config(stub, tmp_path, static_replicas={"web": 6, "api": 4}), "--once"]
            )
            == 0
        )
    assert (stub.replicas("web"), stub.replicas("api")) == (2, 4)
    assert "other autoscalers on it: HorizontalPodAutoscaler/web-hpa; refused until it is gone" in caplog.text
    assert "rival_autoscaler" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------------ own metrics
def test_the_controllers_metrics_are_served(stub, shop, tmp_path):
    import requests
    from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings

    settings = make_settings(metrics_port=0)
    controller = Controller(
        FakeCluster(), ScriptedPolicy(lambda _time, _service: 6.0), settings, leading=lambda: False
    )
    controller.tick()
    with serving_metrics(controller, settings) as port:
        page = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).text == "ok\n"
        assert requests.get(f"http://127.0.0.1:{port}/nope", timeout=5).status_code == 404
    lines = page.splitlines()
    assert (
        'deepscaler_info{app="shop",policy="scripted",mode="standby"} 1' in lines
        and "deepscaler_leader 0" in lines
    )
    assert 'deepscaler_target_replicas{service="web"} 6' in lines and "deepscaler_ticks_total 1" in lines
    assert page == exposition(controller, "scripted", "shop")
    with serving_metrics(controller, make_settings()) as off:
        assert off is None


# ----------------------------------------------------------------------------------------------------------------- values
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("250m", 0.25),
        ("1.5", 1.5),
        ("2", 2.0),
        ("64Mi", 2**26),
        ("1G", 1e9),
        ("123456789n", 0.123456789),
        ("2e3", 2000.0),
        (None, None),
    ],
)
def test_quantities(text, value):
    assert quantity(text) == value


def test_a_quantity_that_is_none_is_refused():
    with pytest.raises(ClusterError, match="not a Kubernetes quantity: 'much'"):
        quantity("much")


def test_times_and_spans():
    assert seconds_since_epoch("2026-01-05T00:00:12.5Z") == T0 + 12.5 and seconds_since_epoch(None) is None
    assert span_seconds("1m30.5s") == 90.5 and span_seconds("20ms") == 0.02 and span_seconds("15s") == 15.0


def test_selectors():
    labels = {"app": "web", "tier": "front"}
    assert selects({"matchLabels": {"app": "web"}}, labels) and not selects(
        {"matchLabels": {"app": "api"}}, labels
    )
    rules = [
        ("tier", "In", ["front", "x"]),
        ("app", "NotIn", ["api"]),
        ("app", "Exists", []),
        ("old", "DoesNotExist", []),
    ]
    assert selects(
        {"matchExpressions": [{"key": key, "operator": how, "values": values} for key, how, values in rules]},
        labels,
    )
    assert not selects({"matchExpressions": [{"key": "old", "operator": "Exists"}]}, labels) and not selects(
        {}, labels
    )


def test_of_the_past_start_up_times_come_from_the_pods_of_today(stub, shop, monkeypatch):
    cluster = shop()
    cluster._past = True
    told = {"replicas": [({"deployment": "web"}, 3.0)], "boot": []}
    monkeypatch.setattr(
        cluster,
        "_now",
        lambda template: next(
            (rows for name, rows in told.items() if WORKLOAD_QUERIES[name] == template), []
        ),
    )
    assert [(item.replicas, item.boot_seconds) for item in cluster.workloads()] == [(3, 12.0)]
    told["boot"] = [
        ({"pod": f"web-5d9c5b8f6d-{index:05d}"}, value) for index, value in enumerate((5.0, 7.0, 90.0))
    ]
    assert cluster.workloads()[0].boot_seconds == 7.0
    stub.denied.add(("list", "pods"))
    told["boot"] = []
    assert cluster.workloads()[0].boot_seconds is None  # which the configured one would stand in for


def test_what_happens_without_prometheus_and_api(tmp_path, stub):
    cluster = KubernetesCluster(make(stub, tmp_path), clock=time.time, past=True)
    with pytest.raises(MetricsError):
        cluster.workloads()


# ------------------------------------------------------------------------------------------------- the emulated API server
class Emulated:
    """testbed's API server with `web` and `api`, two ready pods each, and every request counted by its method."""

    def __init__(self, tokens=None):
        self.store = KubernetesStore(clock=lambda: T0 + 100, **({"tokens": tokens} if tokens else {}))
        self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        for name in ("web", "api"):
            self.store.create(
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    **deployment(name, namespace="shop"),
                    "status": {},
                }
            )
            self.pods(name, 2)
        self.methods: list[str] = []
        handle = self.store.handle

        def counted(method, path, *rest):
            self.methods.append(f"{method} {path}")
            return handle(method, path, *rest)

        self.store.handle = counted
        self.server = KubernetesApi(self.store)

    def pods(self, name, ready, starting=0):
        states = [
            PodState(f"{name}-5d9c5b8f6d-{i:05d}", T0, T0 + 20 if i < ready else None)
            for i in range(ready + starting)
        ]
        self.store.sync_pods("shop", name, states)

    def kubeconfig(self, path, token="secret"):
        return str(self.server.write_kubeconfig(path, "shop", token))

    @property
    def writes(self):
        return [method for method in self.methods if not method.startswith("GET")]


@pytest.fixture
def emulated():
    world = Emulated()
    with world.server:
        yield world


def test_the_emulated_api_is_read_like_a_real_one(emulated, tmp_path):
    cluster = KubernetesCluster(make(emulated, tmp_path))
    web, api = cluster.workloads()
    assert (web.replicas, web.cpu_limit_cores, web.boot_seconds, api.replicas) == (2, 0.5, 20.0, 2)
    assert [(item.service, item.ready, item.ready_since) for item in cluster.pods()] == [
        (name, True, T0 + 20) for name in ("api", "api", "web", "web")
    ]
    item = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", **hpa("web-hpa", "web")}
    emulated.store.create({**item, "metadata": {"name": "web-hpa", "namespace": "shop"}})
    assert cluster.workloads()[0].autoscalers == ("HorizontalPodAutoscaler/web-hpa",)


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


def test_a_dry_run_is_counted_at_the_emulated_api(emulated, tmp_path, capsys):
    path = config(emulated, tmp_path)
    assert predict_scale.main(["--config", path, "--once", "--dry-run"]) == 0
    assert (
        emulated.writes == [] and emulated.methods and emulated.store.replicas("shop") == {"web": 2, "api": 2}
    )
    assert predict_scale.main(["--config", path, "--once"]) == 0
    assert emulated.store.replicas("shop") == {"web": 6, "api": 2} and "PATCH" in " ".join(emulated.writes)


def test_two_controllers_on_the_emulated_api_never_lead_together(emulated, tmp_path):
    settings = make(emulated, tmp_path, lease={"duration": 1, "renew_deadline": 0.6, "retry_period": 0.05})
    with (
        KubernetesCluster(settings).leadership() as first,
        KubernetesCluster(settings).leadership() as second,
    ):
        assert first is not None and second is not None
        assert first.leading() and not second.leading()
        first.release()
        assert second.wait(lambda _seconds: None) and not first.leading()


def test_sigterm_ends_the_controller_and_gives_the_lease_back(emulated, tmp_path):
    """The script as a process: it writes, is told to stop, and leaves no holder behind."""
    command = [
        sys.executable,
        "predict_scale.py",
        "--config",
        config(emulated, tmp_path, period=1.0),
        "--policy",
        "static",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        patched = f"PATCH {DEPLOYMENTS}/web/scale"
        with emulated.store.changed:
            assert emulated.store.changed.wait_for(lambda: patched in emulated.methods, 60)
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, error
    assert Path(out.strip()).name == "static-0" and "released" in error
    lease = json.loads(emulated.store.handle("GET", f"{LEASES}/deepscaler-shop").body)
    assert lease["spec"]["holderIdentity"] == "" and emulated.store.replicas("shop")["web"] == 6


def test_rights_of_the_emulated_api_are_checked(tmp_path):
    rules = [
        Rule(("get", "list"), namespaces=("shop",)),
        Rule(("create", "update"), ("leases",), namespaces=("shop",)),
    ]
    world = Emulated({"secret": Identity("reader", rules)})
    with world.server:
        settings = make(world, tmp_path)
        with pytest.raises(
            ClusterError, match=r"missing rights: patch deployments\.apps/scale in namespace shop\. Bind"
        ):
            KubernetesCluster(settings).check()
        cluster = KubernetesCluster(settings)
        cluster.workloads()
        assert "HTTP 403 Forbidden" in cluster.scale({"web": 3}).failed["web"]
        stale = KubernetesCluster(make(world, tmp_path, token="expired"))
        with pytest.raises(
            ClusterError,
            match="HTTP 401 Unauthorized: Unauthorized; the credentials are missing, wrong or expired",
        ):
            stale.workloads()


# ------------------------------------------------------------------------------------------------- recorded answers of v1.36
@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("patch scale with stale resourceVersion", 409, "HTTP 409 Conflict: Operation cannot be fulfilled"),
        ("patch scale negative", 422, "HTTP 422 Invalid: .*must be greater than or equal to 0"),
        (
            "unauthenticated (bad token)",
            401,
            "HTTP 401 Unauthorized: Unauthorized; the credentials are missing",
        ),
        (
            "forbidden list",
            403,
            'HTTP 403 Forbidden: deployments.apps is forbidden: User .* cannot list resource "deployments"',
        ),
        ("get missing", 404, 'HTTP 404 NotFound: deployments.apps "nope" not found'),
        ("discovery /apis/nope.io/v1", 404, "HTTP 404 Not Found"),
        ("list expired continue token", 410, "HTTP 410 Expired"),
    ],
)
def test_recorded_refusals_are_understood(stub, tmp_path, monkeypatch, name, status, said):
    [body] = [item["response"]["body"] for item in kubernetes_answers() if item["name"] == name]
    monkeypatch.setattr(stub, "reply", lambda *_: (status, body))
    with pytest.raises(ApiError, match=said) as caught:
        KubeApi(make(stub, tmp_path).cluster).get("/apis/apps/v1/namespaces/shop/deployments")
    assert caught.value.status == status


# ----------------------------------------------------------------------------------------------------- the roles of deploy/
@pytest.mark.parametrize("roles", [("shadow",), ("shadow", "act")])
def test_the_roles_in_deploy_are_enough_and_no_more_is_needed(roles, tmp_path, capsys):
    """Shadow reads and decides with one Role; acting needs the other, and its absence is named."""
    world = Emulated({"secret": Identity("system:serviceaccount:deepscaler:deepscaler")})
    for role in roles:
        text = (ROOT / "deploy" / f"rbac-{role}.yaml").read_text()
        for item in yaml.safe_load_all(text):
            world.store.create({**item, "metadata": {**item["metadata"], "namespace": "shop"}})
    with world.server:
        path = config(world, tmp_path)
        assert predict_scale.main(["--config", path, "--once", "--dry-run"]) == 0 and world.writes == []
        if "act" in roles:
            assert (
                predict_scale.main(["--config", path, "--once"]) == 0
                and world.store.replicas("shop")["web"] == 6
            )
        else:
            assert predict_scale.main(["--config", path, "--once"]) == 1
            assert (
                "missing rights: patch deployments.apps/scale in namespace shop; get leases.coordination"
                in capsys.readouterr().err
            )
