"""`python -m deepscaler.adapters.discover` against a small API server."""

import copy
import time

import pytest
import yaml
from helpers.http_script import Script, matrix
from helpers.kube_stub import DEPLOYMENTS, HPAS, KubeStub, deployment, hpa

from deepscaler.adapters.discover.__main__ import main
from deepscaler.settings import load_settings

SERVICES = "/api/v1/namespaces/shop/services"
STATEFUL = "/apis/apps/v1/namespaces/shop/statefulsets"
INGRESSES = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses"
VIRTUAL = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices"
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes"


def service(name, kind="ClusterIP", **selector):
    return {"metadata": {"name": name}, "spec": {"type": kind, "selector": selector}}


def workload(name, app, container="server", image="shop/app:v1", **spec):
    item = deployment(name)
    template = item["spec"]["template"]
    template["metadata"]["labels"] = {"app": app, "version": name[-2:]}
    template["spec"]["containers"][0].update({"name": container, "image": image})
    template["spec"].update(spec.pop("pod", {}))
    item["spec"].update(spec)
    return item


@pytest.fixture
def stub():
    with KubeStub() as server:
        for name in ("web", "reviews", "store"):
            server.put(SERVICES, service(name, app=name))
        server.put(SERVICES, service("web-external", "LoadBalancer", app="web"))
        server.put(DEPLOYMENTS, workload("web", "web"))
        server.put(DEPLOYMENTS, workload("reviews-v1", "reviews", "reviews"))
        server.put(DEPLOYMENTS, workload("reviews-v2", "reviews", "reviews"))
        server.put(DEPLOYMENTS, workload("store-v1", "store", "redis", "docker.io/library/redis:7@sha256:0"))
        server.put(DEPLOYMENTS, deployment("worker", cpu=None, request=None))
        server.put(STATEFUL, workload("ledger", "ledger", "ledger"))
        yield server


def run(stub, tmp_path, *flags, output="shop.yaml"):
    config = stub.kubeconfig(tmp_path / "kubeconfig")
    return main(["--namespace", "shop", "--kubeconfig", config, "--output", str(tmp_path / output), *flags])


def line(text, name):
    [found] = [line for line in text.splitlines() if line.strip().startswith(f"{name}:")]
    return found


def test_the_draft_is_valid_settings_with_every_name(stub, tmp_path, capsys):
    assert run(stub, tmp_path) == 0
    settings = load_settings(tmp_path / "shop.yaml")
    services = settings.app.services
    assert list(services) == ["ledger", "reviews", "store", "web", "worker"]
    assert (services["reviews"].deployment, services["reviews"].workloads) == (
        "reviews-v1",
        ["reviews-v1", "reviews-v2"],
    )
    assert services["reviews"].container is None and services["web"].container == "server"
    assert services["store"].deployment == "store-v1" and services["store"].workloads is None
    assert [name for name, item in services.items() if not item.scaled] == ["ledger", "store"]
    assert [entry.service for entry in settings.app.entries] == ["web"]
    assert (
        settings.cluster.kind == "kubernetes"
        and settings.scale.dry_run
        and settings.collect.output_dir == "data/shop"
    )
    assert "5 services, 3 of them scaled, 1 entries" in capsys.readouterr().out


def test_what_is_worth_knowing_stands_beside_the_service(stub, tmp_path):
    stub.put(HPAS, hpa("web-hpa", "web"))
    assert run(stub, tmp_path) == 0
    text = (tmp_path / "shop.yaml").read_text()
    assert "cpu limit 0.5, memory limit 128Mi" in line(
        text, "reviews"
    ) and "CHECK deployment: reviews-v1 is scaled" in line(text, "reviews")
    assert "CHECK image redis: a store" in line(
        text, "store"
    ) and "a StatefulSet: only Deployments are scaled" in line(text, "ledger")
    assert "CHECK no CPU limit and no CPU request" in line(text, "worker")
    assert "HorizontalPodAutoscaler/web-hpa acts on web: remove it" in line(text, "web")
    assert "by Services of type NodePort or LoadBalancer" in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"strategy": {"type": "Recreate"}}, "its strategy is Recreate"),
        (
            {"pod": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]}},
            "it has a persistent volume",
        ),
    ],
)
def test_what_may_not_run_twice_is_drafted_unscaled(stub, tmp_path, changes, reason):
    stub.put(DEPLOYMENTS, workload("web", "web", **copy.deepcopy(changes)))
    assert run(stub, tmp_path) == 0
    assert not load_settings(tmp_path / "shop.yaml").app.services["web"].scaled
    assert reason in line((tmp_path / "shop.yaml").read_text(), "web")


def test_sidecars_arent_the_container(stub, tmp_path):
    item = workload("web", "web")
    item["spec"]["template"]["spec"]["containers"].insert(0, {"name": "istio-proxy"})
    stub.put(DEPLOYMENTS, item)
    assert run(stub, tmp_path) == 0
    assert load_settings(tmp_path / "shop.yaml").app.services["web"].container == "server"
    item["spec"]["template"]["spec"]["containers"].append({"name": "other"})
    stub.put(DEPLOYMENTS, item)
    assert run(stub, tmp_path, "--force") == 0
    assert "CHECK container: one of server, other" in line((tmp_path / "shop.yaml").read_text(), "web")


@pytest.mark.parametrize(
    ("collection", "spec", "how"),
    [
        (
            VIRTUAL,
            {
                "gateways": ["gw"],
                "http": [{"route": [{"destination": {"host": "reviews.shop.svc.cluster.local"}}]}],
            },
            "Istio's",
        ),
        (ROUTES, {"rules": [{"backendRefs": [{"name": "reviews", "port": 80}]}]}, "HTTPRoutes"),
        (
            INGRESSES,
            {"rules": [{"http": {"paths": [{"backend": {"service": {"name": "reviews"}}}]}}]},
            "Ingresses",
        ),
    ],
)
def test_entries_by_what_routes_lead_to(stub, tmp_path, collection, spec, how):
    stub.put(collection, {"metadata": {"name": "route"}, "spec": spec})
    assert run(stub, tmp_path) == 0
    assert [entry.service for entry in load_settings(tmp_path / "shop.yaml").app.entries] == ["reviews"]
    assert how in (tmp_path / "shop.yaml").read_text()


def test_a_route_within_the_mesh_is_no_entry(stub, tmp_path):
    spec = {"http": [{"route": [{"destination": {"host": "reviews"}}]}]}
    stub.put(VIRTUAL, {"metadata": {"name": "route"}, "spec": spec})
    assert run(stub, tmp_path) == 0
    assert [entry.service for entry in load_settings(tmp_path / "shop.yaml").app.entries] == ["web"]


def test_entries_by_traffic_win(stub, tmp_path, monkeypatch):
    moment = 1_767_571_200.0
    monkeypatch.setattr(time, "time", lambda: moment)
    with Script(
        matrix(
            ({"destination_workload": "web"}, {moment: "3"}),
            ({"destination_workload": "reviews-v2"}, {moment: "5"}),
        )
    ) as server:
        assert run(stub, tmp_path, "--prometheus", server.url) == 0
        assert 'source_workload_namespace!="shop"' in server.forms()[0]["query"]
    settings = load_settings(tmp_path / "shop.yaml")
    assert [entry.service for entry in settings.app.entries] == [
        "reviews",
        "web",
    ] and settings.cluster.prometheus.url == server.url
    assert "traffic from outside in the last hour" in (tmp_path / "shop.yaml").read_text()


def test_without_prometheus_the_objects_decide_and_that_is_said(stub, tmp_path, capsys):
    assert run(stub, tmp_path, "--prometheus", "http://127.0.0.1:1") == 0
    assert "entries by traffic unknown" in capsys.readouterr().err
    assert [entry.service for entry in load_settings(tmp_path / "shop.yaml").app.entries] == ["web"]


def test_a_guess_is_marked(stub, tmp_path):
    del stub.objects[f"{SERVICES}/web-external"]
    assert run(stub, tmp_path) == 0
    assert "entries:  # CHECK a guess" in (tmp_path / "shop.yaml").read_text()


def test_to_stdout_and_only_by_reading(stub, tmp_path, capsys):
    config = stub.kubeconfig(tmp_path / "kubeconfig")
    assert main(["--namespace", "shop", "--kubeconfig", config, "--output", "-", "--name", "my-shop"]) == 0
    document = yaml.safe_load(capsys.readouterr().out)
    assert document["app"]["name"] == "my-shop" and document["scale"]["run_dir"] == "runs/my_shop"
    assert stub.writes == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--namespace", "empty"), "namespace empty: no Deployments"),
        (
            ("--namespace", "shop", "--prometheus", "prometheus:9090"),
            "--prometheus prometheus:9090: expected http://host:port",
        ),
        (("--namespace", "shop", "--kubeconfig", "/nowhere/config"), "no way to the Kubernetes API"),
    ],
)
def test_errors_are_one_line(stub, tmp_path, capsys, flags, message):
    stub.collections.add("/apis/apps/v1/namespaces/empty/deployments")
    config = stub.kubeconfig(tmp_path / "kubeconfig")
    assert main(["--kubeconfig", config, "--output", str(tmp_path / "a.yaml"), *flags]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("discover: ") and message in error and "\n" not in error
    assert not (tmp_path / "a.yaml").exists()


def test_a_file_that_is_there_stays(stub, tmp_path, capsys):
    (tmp_path / "shop.yaml").write_text("mine")
    assert run(stub, tmp_path) == 1
    assert "exists already" in capsys.readouterr().err and (tmp_path / "shop.yaml").read_text() == "mine"
    assert run(stub, tmp_path, "--force") == 0
