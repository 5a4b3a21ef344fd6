"""The cluster port: which source tells what, what is refused before any request, the controller on it."""

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
from helpers.kube_shop import T0, config, make
from helpers.kube_stub import DEPLOYMENTS, HPAS, LEASES, USAGE, hpa
from helpers.paths import ROOT

import predict_scale
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.kubernetes.measured_objects import MeasuredObjects
from deepscaler.adapters.names import Names
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.adapters.queries import WORKLOAD_QUERIES
from deepscaler.artefacts import utc_text
from deepscaler.errors import ClusterError, MetricsError


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
        pytest.raises(ClusterError, match=message + ".*Prometheus can't help either: .*no answer"),
    ):
        cluster.workloads()
    monkeypatch.setattr(MeasuredObjects, "workloads", lambda _: [])
    for _ in range(3):
        assert cluster.workloads() == []
    assert (
        caplog.text.count("Deployments can't be read from the Kubernetes API, so they come from Prometheus")
        == 1
    )
    assert cluster.api_failures == {status: 4}
    stub.token = None
    stub.denied.clear()
    assert len(cluster.workloads()) == 2 and "Deployments: well again" in caplog.text


def test_without_a_metrics_server_prometheus_tells_usage(stub, shop, monkeypatch):
    cluster, name = shop(), "web-5d9c5b8f6d-00000"
    monkeypatch.setattr(
        PrometheusClient,
        "query",
        lambda _client, text, _now: [({"pod": name}, 0.25 if "increase" in text else T0)],
    )
    pods = {item.name: item for item in cluster.pods()}
    assert (pods[name].usage_cores, pods[name].usage_time, pods[name].usage_window_seconds) == (
        0.25,
        T0,
        60.0,
    )


def test_of_the_past_start_up_times_come_from_the_pods_of_today(stub, shop, tmp_path, monkeypatch):
    settings = make(stub, tmp_path)
    cluster = KubernetesCluster(settings, clock=lambda: T0, past=True)
    told = {"replicas": [({"deployment": "web"}, 3.0)], "boot": []}
    names, window = Names(settings.app), settings.collect.window

    def query(_client, text, _now):
        asked = {names.render(WORKLOAD_QUERIES[name], window=window): rows for name, rows in told.items()}
        return asked.get(text, [])

    monkeypatch.setattr(PrometheusClient, "query", query)
    assert [(item.replicas, item.boot_seconds) for item in cluster.workloads()] == [(3, 12.0)]
    told["boot"] = [
        ({"pod": f"web-5d9c5b8f6d-{index:05d}"}, value) for index, value in enumerate((5.0, 7.0, 90.0))
    ]
    assert cluster.workloads()[0].boot_seconds == 7.0
    told["boot"] = [({"pod": "web-5d9c5b8f6d-00000"}, 169200.0), ({"pod": "web-5d9c5b8f6d-00001"}, 8.0)]
    assert cluster.workloads()[0].boot_seconds == 8.0  # a Ready transition of two days later is no start-up
    stub.denied.add(("list", "pods"))
    told["boot"] = []
    assert cluster.workloads()[0].boot_seconds is None  # which the configured one would stand in for


def test_what_happens_without_prometheus_and_api(tmp_path, stub):
    cluster = KubernetesCluster(make(stub, tmp_path), clock=time.time, past=True)
    with pytest.raises(MetricsError):
        cluster.workloads()


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
    cluster = KubernetesCluster(
        make(stub, tmp_path), clock=lambda: 100.0, sleep=slept.append, steady=lambda: 5.0
    )
    cluster.sleep_until(35.0)
    cluster.sleep_until(4.0)
    assert cluster.now() == 100.0 and cluster.steady() == 5.0 and slept == [30.0, 0.0]


@pytest.mark.stress
def test_usage_from_the_future_is_unknown_and_that_is_said(stub, shop, caplog):
    now = [T0 + 600.0]
    for name, ahead in (("web", 30.0), ("api", 3600.0)):
        for index in range(2):
            item = {
                "metadata": {"name": f"{name}-5d9c5b8f6d-{index:05d}"},
                "timestamp": utc_text(now[0] + ahead),
                "window": "15s",
                "containers": [{"name": name, "usage": {"cpu": "200m"}}],
            }
            stub.put(USAGE, item)
    cluster = KubernetesCluster(shop()._settings, clock=lambda: now[0])
    assert {pod.service: pod.usage_cores for pod in cluster.pods()} == {"web": 0.2, "api": None}
    assert "usage of 2 pods is from the future, so it is unknown: is a clock wrong?" in caplog.text
    now[0] += 3600.0
    assert {pod.service: pod.usage_cores for pod in cluster.pods()} == {"web": 0.2, "api": 0.2}


def test_a_dry_run_sends_no_write_request_at_all(stub, shop, tmp_path, capsys):
    path = config(stub, tmp_path)
    assert predict_scale.main(["--config", path, "--once", "--dry-run"]) == 0
    assert predict_scale.main(["--config", path, "--duration", "0.2", "--dry-run"]) == 0
    assert "dry_run" in capsys.readouterr().out
    assert stub.writes == [] and stub.seen


def test_a_dry_run_is_counted_at_the_emulated_api(emulated, tmp_path, capsys):
    path = config(emulated, tmp_path)
    assert predict_scale.main(["--config", path, "--once", "--dry-run"]) == 0
    assert (
        emulated.writes == [] and emulated.methods and emulated.store.replicas("shop") == {"web": 2, "api": 2}
    )
    assert predict_scale.main(["--config", path, "--once"]) == 0
    assert emulated.store.replicas("shop") == {"web": 6, "api": 2} and "PATCH" in " ".join(emulated.writes)


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
    assert (
        "other autoscalers act on it: HorizontalPodAutoscaler/web-hpa; refused until it is gone"
        in caplog.text
    )
    assert "rival_autoscaler" in capsys.readouterr().out


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


@pytest.mark.field
def test_sigterm_ends_a_controller_whose_credential_plugin_hangs(emulated, tmp_path):
    path = config(emulated, tmp_path)
    kubeconfig = tmp_path / "kubeconfig"
    document = yaml.safe_load(kubeconfig.read_text())
    script = ["-c", f"touch {tmp_path}/started; exec sleep 30"]
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": script}
    for user in document["users"]:
        user["user"] = {"exec": {**plugin, "interactiveMode": "Never"}}
    kubeconfig.write_text(yaml.safe_dump(document))
    command = [
        sys.executable,
        "predict_scale.py",
        "--config",
        path,
        "--dry-run",
        "--set",
        "cluster.timeout=2",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if (tmp_path / "started").exists():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=15)
    finally:
        process.kill()
        process.wait()
