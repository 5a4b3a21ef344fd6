"""Deployments, pods, rivals and quotas as the Kubernetes API has them."""

import logging

import pytest
from helpers.kube_shop import CREATED, READY, T0, make
from helpers.kube_stub import DEPLOYMENTS, HPAS, PODS, QUOTAS, SCALED, USAGE, deployment, hpa, pod

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.control.guard_rails import decide
from deepscaler.errors import ClusterError
from deepscaler.policies.base import Proposal, Reason


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
    assert web.autoscalers == () and web.quotas == ()


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


def test_a_pod_belongs_to_the_deployment_that_owns_it(stub, tmp_path):
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


@pytest.mark.field
@pytest.mark.stress
@pytest.mark.parametrize("ready", [READY, CREATED, None])
def test_pods_are_listed_once_per_tick_also_where_no_start_up_was_ever_seen(stub, shop, ready):
    for name in ("web", "api"):
        for index in range(2):
            stub.put(PODS, pod(name, index, CREATED, ready))
    cluster, listed = shop(), []
    for _ in range(4):
        stub.seen.clear()
        cluster.workloads()
        assert len(cluster.pods()) == 4
        listed.append(stub.requests("GET").count(f"GET {PODS}"))
    assert listed == [2, 1, 1, 1]  # the first time also for the start-up times of the workloads


def test_a_ready_transition_long_after_the_start_is_no_start_up(stub, shop, tmp_path, caplog):
    """A kubelet restart made all pods of web, 48 h old, unready and ready again; no container restarted."""
    for index in range(2):
        stub.put(PODS, pod("web", index, "2026-01-03T00:00:00Z", "2026-01-04T23:00:00Z"))
    stub.put(PODS, pod("api", 2, "2026-01-03T00:00:00Z", "2026-01-04T23:00:00Z"))
    settings = make(stub, tmp_path)
    process = settings.process.model_copy(update={"boot_seconds": {"web": 9.0}})
    for configured, expected in ((settings.process, None), (process, 9.0)):
        cluster = cluster_of(settings, configured)
        with caplog.at_level(logging.WARNING):
            web, api = cluster.workloads()
        assert (web.boot_seconds, api.boot_seconds) == (expected, 12.0)
    assert "web: pod web-5d9c5b8f6d-00000 became ready 169200 s after its creation" in caplog.text
    assert caplog.text.count("web: pod") == 2  # once per controller, not once per pod
    stub.put(PODS, pod("web", 5, CREATED, "2026-01-05T00:00:31Z"))
    cluster.pods()
    assert cluster.workloads()[0].boot_seconds == 31.0


@pytest.mark.field
def test_the_limit_of_start_up_times_is_a_setting(stub, shop, tmp_path):
    stub.put(PODS, pod("web", 2, CREATED, "2026-01-05T00:20:00Z"))
    settings = make(stub, tmp_path)
    slow = settings.process.model_copy(update={"boot_limit": 3600.0})
    for process, median in ((settings.process, 12.0), (slow, 12.0)):
        cluster = cluster_of(settings, process)
        assert cluster.workloads()[0].boot_seconds == median  # 12, 12 and, within the limit, 1200
    for index in (0, 1):
        stub.put(PODS, pod("web", index, CREATED, None))
    assert cluster_of(settings, slow).workloads()[0].boot_seconds == 1200.0
    assert cluster_of(settings, settings.process).workloads()[0].boot_seconds is None


def cluster_of(settings, process):
    return KubernetesCluster(settings.model_copy(update={"process": process}))


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


def test_the_namespaces_quota_bounds_the_plan_sidecars_counted(stub, shop):
    """Of 4 cores others use 0.5. A pod takes 0.5 and its sidecar 0.2, so five replicas fit: 3.5 / 0.7."""
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
    claims = [{claim.quota: claim for claim in item.quotas} for item in workloads]
    assert [found["ResourceQuota/q limits.cpu"].free for found in claims] == pytest.approx([0.7, 0.7])
    assert [found["ResourceQuota/q limits.cpu"].takes for found in claims] == pytest.approx([0.7, 0.7])
    assert "ResourceQuota/best limits.cpu" not in claims[0]
    plan = decisions(workloads, {"web": 8.0, "api": 2.0})
    assert [(item.target, item.reason) for item in plan] == [(3, Reason.QUOTA), (2, Reason.UNCHANGED)]


def decisions(workloads, wishes):
    from deepscaler.control.decision import Stance
    from deepscaler.control.recommendations import RecommendationHistory
    from deepscaler.settings import GuardRails

    proposals = {name: Proposal(wish, Reason.FORECAST, predicted=wish) for name, wish in wishes.items()}
    return decide(proposals, workloads, RecommendationHistory(0.0), T0, rails=GuardRails(), stance=Stance())


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
