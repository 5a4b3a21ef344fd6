"""`predict_scale.py --check`: all that a start needs, against an API with rights and a real Prometheus."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import kustomize
from helpers.bundles import write_bundle
from helpers.live_shop import REPLICAS, LiveShop, live_shop
from helpers.paths import ROOT

import predict_scale
from deepscaler.adapters.store import UNKNOWN, store_kind
from deepscaler.settings import Prometheus, load_settings
from deepscaler.upstream import Upstream

CONFIG = ROOT / "config/boutique.yaml"
APP = load_settings(CONFIG).app
SERVICES = list(APP.services)
NOWHERE = "http://127.0.0.1:9"
FIRST_CELL = re.compile(r"^\| (`[^|]+) \|", flags=re.MULTILINE)
pytestmark = pytest.mark.field


@pytest.fixture
def shop() -> Iterator[LiveShop]:
    with live_shop(APP) as running:
        yield running


@pytest.fixture
def acting(shop: LiveShop) -> LiveShop:
    """With the rights of deploy/overlays/act."""
    for item in kustomize.render(ROOT / "deploy/overlays/act"):
        if "Role" in item["kind"]:
            shop.store.create(item)
    return shop


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "b.pt", SERVICES, app="boutique")


def check(
    shop: LiveShop, directory: Path, capsys: pytest.CaptureFixture[str], *more: str, config: Path = CONFIG
) -> tuple[int, list[str]]:
    """Its exit status and its lines."""
    given = ["--config", str(config), "--model_path", str(directory / "b.pt"), "--check"]
    status = predict_scale.main([*given, *shop.flags(directory), *more])
    return status, capsys.readouterr().out.splitlines()


def about(lines: list[str], state: str) -> list[str]:
    """What the lines of a state are about."""
    return [line[9:].split(": ")[0] for line in lines[:-1] if line.startswith(state)]


def test_all_that_a_start_needs_is_there_and_nothing_is_written(
    acting: LiveShop, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {item["metadata"]["name"]: item for item in deployments(acting)}
    status, lines = check(acting, tmp_path, capsys)
    assert status == 0 and lines[-1] == "ready: 26 ok, 7 to know of, 0 missing"
    fine = about(lines, "ok")
    assert [one for one in fine if not one.startswith("right")] == [
        *("settings", "Prometheus", "store", "clock", "metric pod", "metric cpu", "metric mem", "metric res"),
        *("metric req", "requests at the entries", "window of metrics", "Kubernetes API", "Deployments"),
        *("Lease", "bundle", "fit", "policy deepscaler", "disk"),
    ]
    assert sum(one.startswith("right") for one in fine) == 8
    page = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
    listed = {
        name.removesuffix(" …") for row in FIRST_CELL.findall(page) for name in re.findall("`([^`]+)`", row)
    }
    assert [one for one in fine if not one.startswith(tuple(listed))] == []
    assert all("deploy/components/more-reads" in line for line in lines if line.startswith("note"))
    text = "\n".join(lines)
    assert "store: Prometheus 2." in text and "metric cpu: 10 of 10 services answer" in text
    assert f"sha256 {sha256(bundle.read_bytes()).hexdigest()}" in text
    assert "the bundle knows 10 of 10 live services" in text
    assert "boutique/deepscaler-boutique: nobody holds it" in text
    assert {item["metadata"]["name"]: item for item in deployments(acting)} == before
    assert acting.leases() == [] and not list((tmp_path / "runs").iterdir())


def deployments(shop: LiveShop) -> list[dict[str, Any]]:
    answer = shop.store.handle("GET", "/apis/apps/v1/namespaces/boutique/deployments", "", ADMIN)
    return list(json.loads(answer.body)["items"])


ADMIN = {"Authorization": "Bearer deepscalers-own"}


def test_a_dry_run_needs_three_rights_and_no_lease(
    shop: LiveShop, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines = check(shop, tmp_path, capsys, "--dry-run")
    assert status == 1
    reads = ("deployments.apps", "pods", "horizontalpodautoscalers.autoscaling")
    rights = [f"right to list {what} in namespace boutique" for what in reads]
    assert about(lines, "MISSING") == [*rights, "Deployments"]
    assert sum("deploy/overlays/shadow" in line for line in lines) == 3
    for item in kustomize.render(ROOT / "deploy/overlays/shadow"):
        if "Role" in item["kind"]:
            shop.store.create(item)
    status, lines = check(shop, tmp_path, capsys, "--dry-run")
    assert status == 0 and "Lease" not in about(lines, "ok")


def broken_bundle(directory: Path) -> None:
    (directory / "b.pt").write_bytes((directory / "b.pt").read_bytes()[:-7])


def other_bundle(directory: Path) -> None:
    write_bundle(directory / "b.pt", SERVICES, app="bookinfo")


def no_bundle(directory: Path) -> None:
    (directory / "b.pt").unlink()


def no_directory(directory: Path) -> None:
    (directory / "runs").write_text("a file\n")


@pytest.mark.parametrize(
    ("change", "flags", "what", "message"),
    [
        (None, {"cluster.prometheus.url": NOWHERE}, "Prometheus", "Set cluster.prometheus.url"),
        (None, {"cluster.kubeconfig": "none"}, "Kubernetes API", "cluster.kubeconfig"),
        (None, {"app.namespace": "elsewhere"}, "metric pod", "check app.namespace and app.services"),
        (None, {"app.namespace": "elsewhere"}, "right to list pods in namespace elsewhere", "bind a Role"),
        (broken_bundle, {}, "policy deepscaler", "python main.py"),
        (other_bundle, {}, "policy deepscaler", "trained for application bookinfo, the configuration says"),
        (no_bundle, {}, "policy deepscaler", "no such bundle; make it with: python main.py"),
        (no_directory, {}, "disk", "set scale.run_dir to a directory"),
        (None, {"scale.policy": "oracle", "scale.policies": "[]"}, "policy oracle", "on the testbed only"),
        (None, {"scale.quantile": "0.9"}, "policy deepscaler", "choose one, or train AdapGLS"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(
    change: Callable[[Path], None] | None,
    flags: dict[str, str],
    what: str,
    message: str,
    acting: LiveShop,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if change is not None:
        change(tmp_path)
    more = [flag for key, value in flags.items() for flag in ("--set", f"{key}={value}")]
    status, lines = check(acting, tmp_path, capsys, *more)
    assert status == 1 and lines[-1].startswith("not ready: ")
    assert what in about(lines, "MISSING")
    [line] = [line for line in lines if line.startswith(f"MISSING  {what}: ")]
    assert message in line


@pytest.mark.parametrize("number", range(8))
def test_each_right_is_asked_for(
    number: int, shop: LiveShop, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for item in kustomize.render(ROOT / "deploy/overlays/act"):
        if item["kind"] == "Role":
            item["rules"] = single = [
                {**rule, "verbs": [verb]} for rule in item["rules"] for verb in rule["verbs"]
            ]
            gone = single.pop(number)
        if "Role" in item["kind"]:
            shop.store.create(item)
    status, lines = check(shop, tmp_path, capsys)
    missing = [one for one in about(lines, "MISSING") if one.startswith("right")]
    assert status == 1 and len(missing) == 1
    kind, _, part = gone["resources"][0].partition("/")
    assert missing[0].startswith(f"right to {gone['verbs'][0]} {kind}") and part in missing[0]


def test_what_acts_on_the_services_too_and_what_is_no_deployment(
    acting: LiveShop, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "frontend"}
    acting.store.create(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "theirs", "namespace": "boutique"},
            "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3},
        }
    )
    status, lines = check(acting, tmp_path, capsys)
    [line] = [line for line in lines if line.startswith("MISSING  frontend: ")]
    assert status == 1 and "HorizontalPodAutoscaler/theirs acts on it" in line
    assert check(acting, tmp_path, capsys, "--dry-run")[0] == 0
    advice = line.rpartition(" or ")[2].split()
    assert check(acting, tmp_path, capsys, *advice)[0] == 0


def test_services_that_the_bundle_or_the_cluster_doesnt_know_are_named(
    acting: LiveShop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "b.pt", [*SERVICES[:-1], "gone"], app="boutique")
    config = tmp_path / "more.yaml"
    config.write_text(yaml.safe_dump({"extends": str(CONFIG), "app": {"services": {"ghost": None}}}))
    status, lines = check(acting, tmp_path, capsys, config=config)
    text = "\n".join(lines)
    assert status == 0 and {"fit", "Deployments", "metric req"} <= set(about(lines, "note"))
    assert f"left to the floor: {SERVICES[-1]}; not live: gone" in text
    assert "10 of 11 scaled services have one; none has ghost" in text and "no sample of ghost" in text


def test_a_lease_that_another_holds_is_no_obstacle(
    acting: LiveShop, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acting.store.create(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "deepscaler-boutique", "namespace": "boutique"},
            "spec": {"holderIdentity": "another_1", "leaseDurationSeconds": 15},
        }
    )
    status, lines = check(acting, tmp_path, capsys)
    assert status == 0 and any(
        "another_1 holds it, and this controller would stand by" in one for one in lines
    )
    assert set(acting.replicas().values()) == {REPLICAS}


def test_on_the_testbed_only_bundle_and_disk_are_needed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--config", str(CONFIG), "--set", f"scale.run_dir={tmp_path / 'runs'}", "--check"]
    flags += ["--set", "scale.policies=[deepscaler, hpa_70]"]
    assert predict_scale.main([*flags, "--model_path", str(bundle)]) == 0
    assert about(capsys.readouterr().out.splitlines(), "ok") == [
        *("settings", "cluster", "bundle", "policy deepscaler", "policy hpa_70", "disk")
    ]


@pytest.mark.parametrize(
    ("ahead", "state", "text"),
    [
        (2.0, "ok", "agrees with that of Prometheus"),
        (-70.0, "note", "70 s ahead of that of Prometheus"),
        (3600.0, "MISSING", "3600 s behind that of Prometheus; set it; from 120 s on all services are held"),
    ],
)
def test_a_clock_that_isnt_prometheus_is_said(
    ahead: float,
    state: str,
    text: str,
    acting: LiveShop,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answered(upstream: Upstream, _status: int, _date: str | None = None) -> None:
        upstream.clock_ahead = ahead

    monkeypatch.setattr(Upstream, "answered", answered)
    status, lines = check(acting, tmp_path, capsys)
    [line] = [line for line in lines if line[9:].startswith("clock: ")]
    assert line.startswith(state) and text in line and status == (state == "MISSING")


BUILD = "/api/v1/status/buildinfo"


@pytest.mark.parametrize(
    ("pages", "headers", "kind"),
    [
        ({BUILD: {"version": "2.42.0", "goVersion": "go1.19"}}, {}, "Prometheus 2.42.0"),
        ({BUILD: {"version": "2.24.0"}}, {"X-Server-Hostname": "vm"}, "VictoriaMetrics"),
        ({BUILD: {"version": "0.34.1"}, "/api/v1/stores": {"store": []}}, {}, "Thanos"),
        ({BUILD: {"version": "2.10.0", "application": "Grafana Mimir"}}, {}, "Grafana Mimir 2.10.0"),
        ({}, {}, UNKNOWN),
        ({BUILD: [1, 2]}, {}, UNKNOWN),
    ],
)
def test_stores_are_told_apart(pages: dict[str, Any], headers: dict[str, str], kind: str) -> None:
    class Store(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path in pages
            body = (
                json.dumps({"status": "success", "data": pages.get(self.path)}).encode() if found else b"no"
            )
            self.send_response(200 if found else 404)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        assert store_kind(Prometheus(url=f"http://127.0.0.1:{server.server_port}/")) == kind
        server.shutdown()
        thread.join()
    assert store_kind(Prometheus(url=NOWHERE)) == UNKNOWN
