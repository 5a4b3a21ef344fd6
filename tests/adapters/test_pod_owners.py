"""Which pods' metrics count for a service: owner metrics decide, then the API, and at last names."""

import re

import numpy as np
import pytest
from helpers import stores
from helpers.kube_stub import DEPLOYMENTS, PODS, KubeStub, deployment, pod
from helpers.paper_shop import SCRAPE, T0, Shop, settings_file, wave

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.kubernetes.measured_objects import MeasuredObjects
from deepscaler.adapters.names import Names
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.settings import Settings, load_settings
from testbed.cluster.exposition import Series, exposition_series, labels

pytestmark = pytest.mark.field
LONG = "recommendation-service-of-the-northern-european-shops"  # 53 characters
LONGEST = "a-service-with-a-name-that-is-as-long-as-those-of-services-can"
LENGTH = 20
JOB = "frontend-loadgen-c6vwp"


@pytest.fixture(scope="module", params=stores.STORES)
def store(request):
    with stores.running(request.param) as server:
        yield server


def written(store, namespace, tmp_path, services, change=lambda _: True, extra=(), ours=lambda _: False):
    """Settings, and the series of a shop in a store: all for which `change` holds, and others."""
    settings = load_settings(settings_file(tmp_path, store, namespace, services))
    series = exposition_series(
        Shop(settings.app, LENGTH, requests_per_second=wave(LENGTH, len(services))).snapshots(), settings.app
    )
    found = []
    for one in series:
        pairs = dict(one.labels)
        for key in ("pod", "owner_name", "replicaset"):
            for spec in settings.app.services.values():
                if spec.deployment and len(spec.deployment) >= 47 and key in pairs:
                    hashed = re.fullmatch(rf"{spec.deployment}-\w+-(\w+)", pairs[key])
                    if key == "pod" and hashed:
                        pairs[key] = f"{spec.deployment}-7d9c5b8f6d-"[:58] + hashed[1]
        name = pairs.pop("__name__")
        if change(name) and not ours(pairs):
            found.append(Series(labels(name, **pairs), one.times, one.values))
    store.write([*found, *extra])
    return settings


def job(namespace, owner=True):
    """A Job's pod that looks like one of frontend's, in name and container, and is busy."""
    times = T0 + SCRAPE * np.arange(LENGTH)
    where = {"namespace": namespace, "pod": JOB}
    inside = {**where, "container": "frontend", "image": "k6", "job": "kubelet"}
    series = [
        Series(
            labels("container_cpu_usage_seconds_total", cpu="total", **inside), times, 3.0 * np.arange(LENGTH)
        ),
        Series(labels("container_memory_working_set_bytes", **inside), times, np.full(LENGTH, 9e7)),
        Series(labels("container_spec_cpu_period", **inside), times, np.full(LENGTH, 1e5)),
        Series(labels("container_spec_cpu_quota", **inside), times, np.full(LENGTH, 1e5)),
        Series(labels("kube_pod_status_phase", phase="Running", **where), times, np.ones(LENGTH)),
    ]
    if owner:
        kind = {"owner_kind": "Job", "owner_name": "frontend-loadgen", "owner_is_controller": "true"}
        series.append(Series(labels("kube_pod_owner", **kind, **where), times, np.ones(LENGTH)))
    return series


def features(cluster, service):
    panel = cluster.metrics(T0 + 2 * SCRAPE, T0 + (LENGTH - 1) * SCRAPE, SCRAPE)
    return {name: panel.feature(name)[:, panel.services.index(service)] for name in ("pod", "cpu", "mem")}


def without_owners(name):
    return not name.endswith("_owner")


def without_deployments(name):
    return not name.startswith("kube_deployment")


@pytest.mark.parametrize(
    "keep", [lambda _: True, without_owners, without_deployments], ids=["all", "no owners", "no deployments"]
)
@pytest.mark.parametrize("name", [LONG, LONGEST, *("x" * length for length in (46, 47, 48, 57, 58))], ids=len)
def test_pods_of_a_deployment_with_a_long_name_count(store, tmp_path, name, keep, request):
    namespace = re.sub(r"[\W_]", "-", request.node.callspec.id.lower())
    services = {"web": {}, "long": {"deployment": name, "container": "server"}}
    settings = written(store, namespace, tmp_path, services, keep)
    for service in services:
        found = features(KubernetesCluster(settings), service)
        np.testing.assert_allclose(found["pod"], 2)
        np.testing.assert_allclose(found["cpu"], 0.5, rtol=1e-5)
        np.testing.assert_allclose(found["mem"], 0.25, rtol=1e-5)


def test_a_jobs_pod_with_the_name_and_container_of_a_service_doesnt_count(store, tmp_path):
    settings = written(store, "jobs", tmp_path, {"frontend": {}}, without_deployments, job("jobs"))
    found = features(KubernetesCluster(settings), "frontend")
    np.testing.assert_allclose(found["pod"], 2)
    np.testing.assert_allclose(found["cpu"], 0.5, rtol=1e-5)
    client = PrometheusClient(settings.cluster.prometheus)
    measured = MeasuredObjects(settings, client, lambda: T0 + (LENGTH - 1) * SCRAPE)
    assert [item.name for item in measured.pods() if item.name == JOB] == []
    assert len(measured.pods()) == 2 and measured.workloads()[0].replicas == 2


def test_an_adopted_replica_set_and_a_stateful_set_count_by_their_owners(store, tmp_path):
    services = {"web": {}, "db": {"scaled": False}}
    times = T0 + SCRAPE * np.arange(LENGTH)
    extra = []
    for name, owner, kind in (("legacy-x", "legacy", "ReplicaSet"), ("db-0", "db", "StatefulSet")):
        where = {"namespace": "adopted", "pod": name}
        container = "web" if kind == "ReplicaSet" else "db"
        inside = {**where, "container": container, "job": "kubelet"}
        by = {"owner_kind": kind, "owner_name": owner, "owner_is_controller": "true"}
        extra += [
            Series(
                labels("container_cpu_usage_seconds_total", cpu="total", **inside),
                times,
                1.5 * np.arange(LENGTH),
            ),
            Series(labels("container_memory_working_set_bytes", **inside), times, np.full(LENGTH, 3e7)),
            Series(labels("container_spec_cpu_period", **inside), times, np.full(LENGTH, 1e5)),
            Series(labels("container_spec_cpu_quota", **inside), times, np.full(LENGTH, 2e4)),
            Series(labels("kube_pod_owner", **by, **where), times, np.ones(LENGTH)),
        ]
    owner = {"owner_kind": "Deployment", "owner_name": "web", "owner_is_controller": "true"}
    extra.append(
        Series(
            labels("kube_replicaset_owner", namespace="adopted", replicaset="legacy", **owner),
            times,
            np.ones(LENGTH),
        )
    )
    settings = written(
        store,
        "adopted",
        tmp_path,
        services,
        without_deployments,
        extra,
        lambda pairs: pairs.get("owner_name") == "db" or pairs.get("pod", "").startswith("db-"),
    )
    assert features(KubernetesCluster(settings), "web")["pod"].tolist() == [3.0] * 18
    db = features(KubernetesCluster(settings), "db")["pod"]
    assert db.tolist() == [1.0] * 18


def test_where_owner_metrics_lack_the_api_tells_whose_a_pod_is(store, tmp_path):
    """Without either, the Job's pod would be taken for one of frontend's."""
    settings = written(
        store,
        "told",
        tmp_path,
        {"frontend": {}},
        lambda name: without_owners(name) and without_deployments(name),
        job("told", owner=False),
    )
    assert features(KubernetesCluster(settings), "frontend")["pod"].max() == 3
    with KubeStub() as stub:
        for path in (DEPLOYMENTS, PODS):
            stub.collections.add(path.replace("/shop/", "/told/"))
        owner = [{"kind": "Job", "name": "frontend-loadgen", "uid": "j", "controller": True}]
        item = pod("frontend", 0, "2026-01-05T00:00:00Z", None, ownerReferences=owner)
        item["metadata"]["name"] = JOB
        stub.put(PODS.replace("/shop/", "/told/"), item)
        stub.put(DEPLOYMENTS.replace("/shop/", "/told/"), deployment("frontend"))
        section = settings.cluster.model_copy(update={"kubeconfig": stub.kubeconfig(tmp_path / "config")})
        cluster = KubernetesCluster(settings.model_copy(update={"cluster": section}))
        found = features(cluster, "frontend")
        np.testing.assert_allclose(found["pod"], 2)
        np.testing.assert_allclose(found["cpu"], 0.5, rtol=1e-5)


def test_names_that_begin_alike_are_never_guessed_by_the_beginning():
    one, other = "x" * 60, "x" * 61
    document = {
        "app": {
            "name": "shop",
            "services": {
                "one": {"deployment": one},
                "other": {"deployment": other},
                "long": {"deployment": LONG},
            },
            "entries": [{"name": "GET /", "service": "one"}],
        }
    }
    names = Names(Settings.model_validate(document).app)
    assert names.service("pod", "x" * 58 + "abcde") is None
    assert names.service("pod", f"{LONG}-7d9c" + "abcde") == "long"
    assert names.service("pod", f"{LONG}-abcdeabcde-abcde-abcde") is None
    names.strangers = [f"{LONG}-7d9c" + "abcde"]
    assert names.service("pod", f"{LONG}-7d9c" + "abcde") is None
