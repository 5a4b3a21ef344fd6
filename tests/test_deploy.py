"""What deploy/ holds: rendered, valid, with no right too many or too few, and running as its pods would."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import kustomize
from helpers.bundles import write_bundle
from helpers.live_shop import ACCOUNT, REPLICAS, TOKEN, LiveShop, live_shop
from helpers.paths import ROOT
from helpers.peak import hpa
from helpers.pod import Image, Node, Running, lay_out, read_dockerfile, require_pods
from kubernetes import client

from deepscaler.adapters.kubernetes import rights
from deepscaler.learning.bundle import load_bundle
from deepscaler.settings import load_settings
from testbed.kubernetes_api.access import Attempt, Identity

DEPLOY = ROOT / "deploy"
MODES = ("shadow", "advise", "act")
WAYS = ("bundle-image", "bundle-url", "bundle-claim", "bundle-configmap")
EXTRAS = ("service-monitor", "more-reads", "events", "annotations", "capacity-buffer")
RETRAINING = ("bundle-claim", "retraining")
BESIDE_ADVICE = ("give-back",)
MODELS: dict[tuple[str, str], Any] = {
    ("apps/v1", "Deployment"): client.V1Deployment,
    ("batch/v1", "CronJob"): client.V1CronJob,
    ("batch/v1", "Job"): client.V1Job,
    ("networking.k8s.io/v1", "NetworkPolicy"): client.V1NetworkPolicy,
    ("policy/v1", "PodDisruptionBudget"): client.V1PodDisruptionBudget,
    ("rbac.authorization.k8s.io/v1", "Role"): client.V1Role,
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): client.V1RoleBinding,
    ("v1", "ConfigMap"): client.V1ConfigMap,
    ("v1", "PersistentVolumeClaim"): client.V1PersistentVolumeClaim,
    ("v1", "Service"): client.V1Service,
    ("v1", "ServiceAccount"): client.V1ServiceAccount,
}
pytestmark = pytest.mark.field
Objects = list[dict[str, Any]]


def plan_of(mode: str, way: str, *extras: str) -> dict[str, Any]:
    plan = yaml.safe_load((DEPLOY / "overlays" / mode / "kustomization.yaml").read_text(encoding="utf-8"))
    first = [name for name in extras if name in BESIDE_ADVICE]  # the bundle's component names its image
    names = [*first, way, *(name for name in extras if name not in first)]
    plan["components"] = [f"../../components/{name}" for name in names]
    return dict(plan)


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """deploy/, for kustomizations that aren't in the repository."""
    return Path(shutil.copytree(DEPLOY, tmp_path_factory.mktemp("copy") / "deploy"))


def variant(copy: Path, mode: str, way: str, *extras: str) -> Path:
    """An overlay as a user would write it, beside those that are there."""
    directory = copy / "overlays" / "-".join((mode, way, *extras))
    if not directory.exists():
        shutil.copytree(copy / "overlays" / mode, directory)
        (directory / "kustomization.yaml").write_text(yaml.safe_dump(plan_of(mode, way, *extras)))
    return directory


def combinations() -> list[tuple[str, ...]]:
    extras = [(mode, *more) for mode in MODES for more in ((WAYS[0], *EXTRAS), RETRAINING)]
    extras.append(("advise", WAYS[0], *BESIDE_ADVICE))
    return [(mode, way) for mode in MODES for way in WAYS] + extras


def one(objects: Objects, kind: str, name: str = "deepscaler") -> dict[str, Any]:
    [found] = [item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def controller(objects: Objects) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod's specification and its container."""
    template = one(objects, "Deployment")["spec"]["template"]["spec"]
    [container] = template["containers"]
    return template, container


def in_order(value: Any, field: str = "") -> Any:
    """`value` with its lists by name in the order of the names, since a patch may add in front or behind."""
    if isinstance(value, dict):
        return {key: in_order(item, key) for key, item in value.items()}
    if isinstance(value, list):
        out = [in_order(item) for item in value]
        key = kustomize.MERGE_KEYS.get(field)
        return sorted(out, key=lambda item: str(item[key])) if key else out
    return value


def by_name(objects: Objects) -> dict[tuple[str, str], Any]:
    return {(item["kind"], item["metadata"]["name"]): in_order(item) for item in objects}


# -------------------------------------------------------------------------------------------------- rendering
@pytest.mark.parametrize("chosen", [*combinations(), ("training",)], ids="-".join)
def test_our_renderer_renders_as_kubectl_does(chosen: tuple[str, ...], copy: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on this machine")
    directory = copy / "training" if chosen == ("training",) else variant(copy, *chosen)
    ran = subprocess.run(
        ["kubectl", "kustomize", str(directory)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert by_name(kustomize.render(directory)) == by_name(list(yaml.safe_load_all(ran.stdout)))


@pytest.mark.parametrize("mode", MODES)
def test_the_plain_manifests_are_the_rendered_overlays(mode: str) -> None:
    plain = list(yaml.safe_load_all((DEPLOY / f"{mode}.yaml").read_text(encoding="utf-8")))
    again = f"make it again with: kubectl kustomize deploy/overlays/{mode}"
    assert by_name(plain) == by_name(kustomize.render(DEPLOY / "overlays" / mode)), again


@pytest.mark.parametrize("chosen", [*combinations(), ("training",)], ids="-".join)
def test_every_object_is_one_that_its_api_knows_field_by_field(chosen: tuple[str, ...], copy: Path) -> None:
    objects = kustomize.render(copy / "training" if chosen == ("training",) else variant(copy, *chosen))
    for item in objects:
        if item["kind"] in ("ServiceMonitor", "PrometheusRule"):  # the Prometheus Operator's
            assert set(item) == {"apiVersion", "kind", "metadata", "spec"}
            continue
        model = MODELS[(item["apiVersion"], item["kind"])].model_validate(item)
        assert model.model_dump(by_alias=True, exclude_none=True) == item, "a field under another name"
        assert item["metadata"]["namespace"] == ("boutique" if "Role" in item["kind"] else "deepscaler")


def test_the_operator_gets_the_alerts_that_are_tested(copy: Path) -> None:
    objects = kustomize.render(variant(copy, "act", WAYS[0], *EXTRAS))
    plain = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))
    assert one(objects, "PrometheusRule")["spec"] == plain


def test_a_patch_that_fits_nothing_and_a_field_that_isnt_known_are_refused(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    file = tmp_path / "deploy/base/controller/deployment.yaml"
    file.write_text(file.read_text().replace("- --dry-run\n", "- --once\n"))
    with pytest.raises(AssertionError, match="'--once' isn't '--dry-run'"):
        kustomize.render(tmp_path / "deploy/overlays/act")
    (tmp_path / "deploy/overlays/act/kustomization.yaml").write_text("resources: []\nvars: []\n")
    with pytest.raises(AssertionError, match="'vars'"):
        kustomize.render(tmp_path / "deploy/overlays/act")


# ------------------------------------------------------------------------------------------ what they promise
@pytest.mark.parametrize("mode", MODES)
def test_replicas_share_no_volume_and_probes_ask_a_port_that_is_there(mode: str, copy: Path) -> None:
    for way in WAYS:
        objects = kustomize.render(variant(copy, mode, way))
        template, container = controller(objects)
        claims = [item for item in objects if item["kind"] == "PersistentVolumeClaim"]
        assert all("ReadWriteOnce" not in item["spec"]["accessModes"] for item in claims)
        assert one(objects, "Deployment")["spec"]["replicas"] == {"shadow": 1, "advise": 2, "act": 2}[mode]
        assert ("--dry-run" in container["args"]) == (mode == "shadow")
        assert ("--set=scale.mode=advise" in container["args"]) == (mode == "advise")
        assert template["securityContext"]["runAsNonRoot"] is True
        ports = {item["name"] for item in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in ports
        volumes = {item["name"] for item in template["volumes"]}
        for each in (container, *template.get("initContainers", ())):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {item["name"] for item in each["volumeMounts"]} <= volumes
            assert {"requests", "limits"} == set(each["resources"])
        budget = one(objects, "PodDisruptionBudget")["spec"]
        policy = one(objects, "NetworkPolicy")["spec"]
        labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"].items() <= labels
        assert policy["podSelector"]["matchLabels"].items() <= labels


def test_the_network_policy_lets_through_what_the_arguments_name() -> None:
    objects = kustomize.render(DEPLOY / "overlays/act")
    _, container = controller(objects)
    policy = one(objects, "NetworkPolicy")["spec"]
    [address] = re.findall(r"prometheus\.url=http://[\w-]+\.([\w-]+)\.svc:(\d+)", " ".join(container["args"]))
    [rule] = [item for item in policy["egress"] if "to" in item]
    [selected] = rule["to"]
    assert selected["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": address[0]}
    assert [item["port"] for item in rule["ports"]] == [int(address[1])]
    [page] = [item["containerPort"] for item in container["ports"]]
    assert [item["port"] for item in policy["ingress"][0]["ports"]] == [page]
    assert f"--set=scale.metrics_port={page}" in container["args"]


def allowed(objects: Objects, name: str = "deepscaler") -> set[tuple[str, str, str]]:
    """Verb, group and resource of each right that a Role gives."""
    return {
        (verb, group, resource)
        for rule in one(objects, "Role", name)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_each_mode_has_the_rights_that_it_needs_and_no_more() -> None:
    shadow, advise, act = (allowed(kustomize.render(DEPLOY / "overlays" / mode)) for mode in MODES)
    reads = {(verb, group, what) for verb, group, what, _ in rights.READS}
    assert shadow == reads and {verb for verb, _, _ in shadow} == {"list"}
    for mode, found in (("act", act), ("advise", advise)):
        asked = rights.needed_rights("boutique", "boutique", {mode})
        parts = {(item.verb, item.group, f"{item.resource}/{item.subresource}".rstrip("/")) for item in asked}
        assert found == parts and len(found) == 8
    assert not {item for item in advise if item[0] in ("patch", "update") and item[1] == "apps"}


def test_giving_back_needs_no_more_rights_than_advising_and_runs_as_the_controller_does(copy: Path) -> None:
    objects = kustomize.render(variant(copy, "advise", WAYS[0], *BESIDE_ADVICE))
    template, container = controller(objects)
    pod = one(objects, "CronJob", "deepscaler-give-back")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [job] = pod["containers"]
    assert pod["serviceAccountName"] == template["serviceAccountName"]
    for same in ("securityContext", "image"):
        assert job[same] == container[same]
    assert pod["securityContext"] == template["securityContext"]
    verbs = {verb for verb, _, what in allowed(objects) if what == "horizontalpodautoscalers"}
    assert verbs == {"list", "get", "patch"}  # what `GivingBack` asks for


def test_the_role_is_bound_to_the_controllers_own_account() -> None:
    for mode in MODES:
        objects = kustomize.render(DEPLOY / "overlays" / mode)
        template, _ = controller(objects)
        binding = one(objects, "RoleBinding")
        assert binding["roleRef"]["name"] == one(objects, "Role")["metadata"]["name"]
        account = {"name": template["serviceAccountName"], "namespace": "deepscaler"}
        assert binding["subjects"] == [{"kind": "ServiceAccount", **account}]
        assert one(objects, "ServiceAccount")["metadata"] == account


# -------------------------------------------------------------------------------------------------- the image
def stages() -> dict[str, Image]:
    return read_dockerfile(DEPLOY / "Dockerfile")


BLOCK = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""
MODULES = {"PyYAML": "yaml", "protobuf": "google"}
RUNS = {
    "controller": (
        "import deepscaler.adapters.fetch_bundle, deepscaler.adapters.kubernetes.cluster",
        "import deepscaler.control.live, deepscaler.learning.forecaster, deepscaler.policies.hpa.policy",
        "import scipy.sparse.csgraph, predict_scale; predict_scale.main(['--help'])",
    ),
    "training": (
        "import main, data_process, metrics_fetch, deepscaler.learning.train, deepscaler.pictures.history",
        "import deepscaler.pictures.labels, deepscaler.adapters.kubernetes.cluster; main.main(['--help'])",
    ),
}


@pytest.mark.parametrize("stage", RUNS)
def test_an_image_holds_all_that_it_runs_and_no_more(stage: str, tmp_path: Path) -> None:
    """The files that deploy/Dockerfile copies, alone in a directory, with the packages that it installs."""
    image = stages()[stage]
    sent = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert all(f"!{source}" in sent or f"!{source}/" in sent for source in image.copies)
    lay_out(image, tmp_path)
    required = {line.split("==")[0] for line in (ROOT / "requirements.txt").read_text().split()}
    assert image.packages <= required
    absent = {MODULES.get(name, name) for name in required - image.packages}
    script = BLOCK.format(absent=absent) + "\n".join(RUNS[stage])
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path / image.directory.lstrip("/"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0 and ran.stdout.startswith("usage:"), ran.stderr


def test_the_controllers_image_has_no_script_but_its_own() -> None:
    image = stages()["controller"]
    assert {name for name in image.copies if name.endswith(".py")} == {"predict_scale.py"}
    assert image.entrypoint == ["python", "predict_scale.py"]
    [stage] = read_dockerfile(DEPLOY / "bundle.Dockerfile").values()
    assert set(stage.copies.values()) == {"/etc/deepscaler/bundle/bundle.pt"}


# --------------------------------------------------------------------------------------------------- run them
SETTINGS = load_settings(ROOT / "config/boutique.yaml")


WANTED = 5
"""Replicas that the bundle forecasts for every service, whatever it sees; there are two."""


@pytest.fixture
def shop() -> Iterator[LiveShop]:
    require_pods()
    with live_shop(SETTINGS.app) as running:
        yield running


@pytest.fixture
def node(shop: LiveShop) -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="pod-") as name:
        started = Node(Path(name), shop.api, shop.prometheus, TOKEN)
        yield started
        started.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    services = list(SETTINGS.app.services)
    path = tmp_path / "boutique" / "AdapGLQ.pt"
    return write_bundle(path, services, [WANTED] * len(services), app="boutique")


class Pods:
    """Starts pods from rendered objects: what the API server and a kubelet do with them.

    Args:
        node: where.
        shop: what they meet; it gets the Role and its binding.
        objects: rendered.
        bundle: the file that `docs/cluster.md` brings into the cluster.
    """

    def __init__(self, node: Node, shop: LiveShop, objects: Objects, bundle: Path) -> None:
        self.node, self.objects, self.bundle = node, objects, bundle
        self.template, self.container = controller(objects)
        for kind in ("Role", "RoleBinding"):
            shop.store.create(one(objects, kind))
        self.shared = node.directory / "bundle"  # a claim or a ConfigMap: the same for every pod
        self.shared.mkdir()
        self.variables: dict[str, str] = {}

    def start(self, stack: ExitStack, name: str = "deepscaler-0") -> Running:
        """Run the init containers, then the controller; returns when its startup probe is answered."""
        volumes = {item["name"]: self._volume(item, name) for item in self.template["volumes"]}
        given = {"variables": self.variables, "volumes": volumes, "name": name}
        start = partial(self.node.running, self.template, **given)
        for item in self.template.get("initContainers", ()):
            with start(container=item, image=stages()["controller"]) as running:
                assert running.process.wait(60) == 0, running.log.read_text()
        [image] = read_dockerfile(DEPLOY / "bundle.Dockerfile").values()
        baked = (image, self.bundle.parent) if "boutique" in self.container["image"] else None
        controller_of = start(container=self.container, image=stages()["controller"], bundle=baked)
        running = stack.enter_context(controller_of)
        running.await_probe(self.container)
        return running

    def _volume(self, item: dict[str, Any], pod: str) -> Path:
        source = item.get("configMap", item.get("persistentVolumeClaim"))
        if source == {"name": "deepscaler-config"}:
            directory = self.node.directory / "config"
            directory.mkdir(exist_ok=True)
            shutil.copy(ROOT / "config/boutique.yaml", directory / "app.yaml")
        elif source is not None:
            claimed = {"claimName": "deepscaler-bundle", "readOnly": True}
            assert source in ({"name": "deepscaler-bundle"}, claimed)
            directory = self.shared
            shutil.copy(self.bundle, directory / "bundle.pt")
        else:
            assert "emptyDir" in item
            directory = self.node.directory / f"{pod}-{item['name']}"
            directory.mkdir()
        return directory


def samples(running: Running) -> dict[str, float]:
    """The controller's own metrics."""
    lines = running.get("metrics", "/metrics")[1].splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def await_that(running: Running, what: Callable[[], bool], seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert running.process.poll() is None and time.monotonic() < end, running.log.read_text()
        time.sleep(0.2)


def ended(running: Running) -> int:
    running.process.terminate()
    return running.process.wait(30)


@pytest.mark.parametrize("way", WAYS)
def test_the_shadow_runs_as_its_pod_and_changes_nothing(
    way: str, shop: LiveShop, node: Node, copy: Path, bundle: Path
) -> None:
    objects = kustomize.render(variant(copy, "shadow", way))
    with ExitStack() as stack:
        pods = Pods(node, shop, objects, bundle)
        if way == "bundle-url":
            files = stack.enter_context(serving(bundle.parent))
            digest = sha256(bundle.read_bytes()).hexdigest()
            pods.variables = {"URL": f"{node.serve_bundles(files)}/AdapGLQ.pt", "SHA256": digest}
        running = pods.start(stack)
        await_that(running, lambda: samples(running).get("deepscaler_ticks_total", 0) >= 1)
        found = samples(running)
        about = {"app": "boutique", "app_namespace": "boutique", "policy": "deepscaler", "mode": "dry_run"}
        about["bundle_sha256"] = sha256(bundle.read_bytes()).hexdigest()
        labels = ",".join(f'{name}="{value}"' for name, value in sorted(about.items()))
        assert found[f"deepscaler_info{{{labels}}}"] == 1
        for service in SETTINGS.app.services:
            assert found[f'deepscaler_predicted_replicas{{service="{service}"}}'] == WANTED
            assert found[f'deepscaler_target_replicas{{service="{service}"}}'] > REPLICAS
        assert running.get("metrics", "/healthz")[0] == 200
        assert ended(running) == 0, running.log.read_text()
        [decisions] = (node.directory / "deepscaler-0-runs").glob("deepscaler-*/decisions.csv")
        assert len(decisions.read_text().splitlines()) > len(SETTINGS.app.services)
    assert set(shop.replicas().values()) == {REPLICAS} and shop.leases() == []
    may = partial(shop.store.access.reason, Identity(ACCOUNT))
    assert may(Attempt("list", "apps", "deployments", "boutique")) is not None
    for attempt in (("patch", "apps", "deployments/scale"), ("create", "coordination.k8s.io", "leases")):
        assert may(Attempt(*attempt, "boutique")) is None


def test_two_replicas_act_by_turns(shop: LiveShop, node: Node, copy: Path, bundle: Path) -> None:
    objects = kustomize.render(variant(copy, "act", "bundle-claim"))
    count = one(objects, "Deployment")["spec"]["replicas"]
    with ExitStack() as stack:
        pods = Pods(node, shop, objects, bundle)
        running = [pods.start(stack, f"deepscaler-{index}") for index in range(count)]
        await_that(running[0], lambda: min(shop.replicas().values()) > REPLICAS)
        assert [samples(one)["deepscaler_leader"] for one in running] == [1, 0]
        [holder] = shop.leases()
        assert holder.startswith("deepscaler-0_")
        assert ended(running[0]) == 0, running[0].log.read_text()
        await_that(running[1], lambda: samples(running[1])["deepscaler_leader"] == 1)
        [holder] = shop.leases()
        assert holder.startswith("deepscaler-1_")
        assert ended(running[1]) == 0, running[1].log.read_text()
        assert shop.leases() == [""]  # given back


ADVISED = 4.0
"""Seconds that a raised minimum stands in the test below."""
GIVEN_BACK = 60.0
"""So long after that docs/modes.md states for the CronJob, which starts each minute."""
HPAS = "autoscaling/horizontalpodautoscalers"


def minimums(shop: LiveShop) -> set[int]:
    return {item["spec"]["minReplicas"] for _, item in shop.store.snapshot(HPAS, "boutique")}


def written(shop: LiveShop) -> list[str]:
    """A list that gets each write of a pod from now on: method and resource."""
    found, handle = list[str](), shop.store.handle

    def noting(method: str, path: str, *rest: Any, **more: Any) -> Any:
        parts = path.rsplit("/namespaces/", maxsplit=1)[-1].split("/")
        if method != "GET" and "selfsubject" not in path:
            found.append(f"{method} {parts[1]}")
        return handle(method, path, *rest, **more)

    shop.store.handle = noting  # type: ignore[method-assign]
    return found


def test_a_pod_advises_and_after_kill_9_the_cron_job_gives_back_in_time(
    shop: LiveShop, node: Node, copy: Path, bundle: Path
) -> None:
    objects = kustomize.render(variant(copy, "advise", "bundle-claim", *BESIDE_ADVICE))
    controller(objects)[1]["args"].append(f"--set=scale.advise.seconds={ADVISED}")
    names = list(shop.replicas())
    for name in names:
        shop.store.create(hpa(name, low=REPLICAS, high=WANTED - 1, namespace="boutique"))
    writes = written(shop)
    with ExitStack() as stack:
        pods = Pods(node, shop, objects, bundle)
        running = pods.start(stack)
        await_that(running, lambda: min(minimums(shop)) > REPLICAS)
        assert samples(running)["deepscaler_leader"] == 1
        running.kill()
        killed = time.time()
    assert minimums(shop) <= {WANTED - 2, WANTED - 1}  # never above the HPA's maximum
    assert writes.count("PATCH horizontalpodautoscalers") == len(names)
    assert set(writes) - {"PUT leases"} == {"POST leases", "PATCH horizontalpodautoscalers"}
    assert set(shop.replicas().values()) == {REPLICAS}
    template = one(objects, "CronJob", "deepscaler-give-back")["spec"]["jobTemplate"]["spec"]["template"][
        "spec"
    ]
    [container] = template["containers"]
    turn = 0
    while minimums(shop) != {REPLICAS} and time.time() - killed <= ADVISED + GIVEN_BACK:
        turn += 1  # a CronJob starts one after the other, and has the rights of the overlay only
        volumes = {"config": node.directory / "config", "tmp": node.directory / f"tmp-{turn}"}
        volumes["tmp"].mkdir()
        job = node.running(template, container, stages()["controller"], volumes, {}, name=f"give-back-{turn}")
        with job as giving:
            assert giving.process.wait(60) == 0, giving.log.read_text()
    assert minimums(shop) == {REPLICAS}
    assert time.time() - killed <= ADVISED + GIVEN_BACK
    assert writes.count("PATCH horizontalpodautoscalers") == 2 * len(names)  # raised once, given back once


def test_a_pod_without_a_bundle_or_a_right_ends_with_one_line(
    shop: LiveShop, node: Node, copy: Path, bundle: Path
) -> None:
    objects = kustomize.render(variant(copy, "act", "bundle-claim"))
    one(objects, "Role")["rules"].pop()
    with ExitStack() as stack:
        pods = Pods(node, shop, objects, bundle)
        with pytest.raises(AssertionError, match=r"exit 1:[^$]*missing rights: get leases.*create leases"):
            pods.start(stack)
        bundle.write_bytes(b"")
        with pytest.raises(AssertionError, match=r"exit 1:[^$]*bundle\.pt: no bundle with a checksum"):
            pods.start(stack, "deepscaler-1")
    assert set(shop.replicas().values()) == {REPLICAS}


SMALLER = {
    "collect": ["--last=125m"],
    "process": ["--set=process.window=20"],
    "train": [
        *("--num_epoch=1", "--num_iter=1", "--set=train.random_graphs=0", "--set=train.refit_epochs=0"),
        *("--set=model.AdapGLQ.channels=8", "--set=model.AdapGLQ.blocks=1"),
    ],
}
"""What each container of the training Job is given behind its own arguments: two days would take hours."""


def test_the_training_job_writes_the_bundle_that_a_controller_starts_with(copy: Path, tmp_path: Path) -> None:
    require_pods()
    objects = kustomize.render(variant(copy, "shadow", "bundle-claim"))
    template = one(kustomize.render(copy / "training"), "Job", "deepscaler-training")["spec"]["template"][
        "spec"
    ]
    with ExitStack() as stack:
        shop = stack.enter_context(live_shop(SETTINGS.app, 520))
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="pod-"))
        node = stack.enter_context(closing(Node(Path(name), shop.api, shop.prometheus, TOKEN)))
        pods = Pods(node, shop, objects, tmp_path / "none.pt")
        volumes = {item["name"]: tmp_path / item["name"] for item in template["volumes"]}
        for path in volumes.values():
            path.mkdir()
        shutil.copy(ROOT / "config/boutique.yaml", volumes["config"] / "app.yaml")
        for item in [*template["initContainers"], *template["containers"]]:
            item["args"] = [*item["args"], *SMALLER[item["name"]]]
            started = node.running(
                template, item, stages()["training"], volumes, {}, name="deepscaler-training"
            )
            with started as running:
                assert running.process.wait(300) == 0, running.log.read_text()
        pods.bundle = volumes["bundle"] / "bundle.pt"
        assert load_bundle(pods.bundle).meta["app"] == "boutique"
        retrain(copy, node, volumes)
        started_pod = pods.start(stack)
        await_that(started_pod, lambda: samples(started_pod).get("deepscaler_ticks_total", 0) >= 1)
        assert ended(started_pod) == 0


def retrain(copy: Path, node: Node, volumes: dict[str, Path]) -> None:
    """Run what the CronJob trains, on the data that the training Job collected."""
    objects = kustomize.render(variant(copy, "shadow", *RETRAINING))
    job = one(objects, "CronJob", "deepscaler-retraining")["spec"]["jobTemplate"]["spec"]
    template = job["template"]["spec"]
    [container] = template["containers"]
    before = (volumes["bundle"] / "bundle.pt").read_bytes()
    for name, data, status in (("judged", [], 0), ("failing", ["--data_dir=/none"], 1)):
        item = {**container, "args": [*container["args"], *SMALLER["train"], *data]}
        with node.running(template, item, stages()["training"], volumes, {}, name=name) as running:
            assert running.process.wait(300) == status, running.log.read_text()
        said = running.log.read_text()
        expected = "stays: the new bundle: " if status == 0 else "/none/dataset.npz: no such file"
        assert expected in said
    assert (volumes["bundle"] / "bundle.pt").read_bytes() == before
    verdict = yaml.safe_load((volumes["bundle"] / "bundle.gate.json").read_text())
    assert verdict["taken"] is False and "too few to tell" in verdict["why"]


def test_the_retraining_reads_and_writes_as_the_training_does_and_is_judged(copy: Path) -> None:
    job = one(kustomize.render(copy / "training"), "Job", "deepscaler-training")["spec"]["template"]["spec"]
    objects = kustomize.render(variant(copy, "act", *RETRAINING))
    spec = one(objects, "CronJob", "deepscaler-retraining")["spec"]
    again = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid" and spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    for mine, theirs in zip(again["initContainers"], job["initContainers"], strict=True):
        ours = [text for text in mine["args"] if not text.startswith("--last=")]
        assert ours == [text for text in theirs["args"] if not text.startswith("--last=")]
        assert {**mine, "args": []} == {**theirs, "args": []}
    [mine], [theirs] = again["containers"], job["containers"]
    assert mine["args"][: len(theirs["args"])] == theirs["args"]
    assert mine["args"][len(theirs["args"]) :] == ["--init_from=/bundle/bundle.pt", "--gate"]
    assert {**again, "initContainers": [], "containers": []} == {
        **job,
        "initContainers": [],
        "containers": [],
    }
    claim = [item for item in again["volumes"] if item["name"] == "bundle"]
    template, _ = controller(objects)
    [read] = [item for item in template["volumes"] if item["name"] == "bundle"]
    name = claim[0]["persistentVolumeClaim"]["claimName"]
    assert read["persistentVolumeClaim"] == {"claimName": name, "readOnly": True}


def test_more_reads_are_those_that_the_check_asks_for(copy: Path) -> None:
    objects = kustomize.render(variant(copy, "act", WAYS[0], *EXTRAS))
    asked = {(item.verb, item.group, item.resource) for item in rights.MORE_READS}
    assert allowed(objects, "deepscaler-more-reads") == asked
    assert {verb for verb, _, _ in asked} == {"list"}


def test_events_have_a_role_of_their_own_that_writes_nothing_else(copy: Path) -> None:
    objects = kustomize.render(variant(copy, "act", WAYS[0], *EXTRAS))
    assert allowed(objects, "deepscaler-events") == {
        (verb, group, what) for verb, group, what, _ in rights.EVENTS
    }
    assert "--set=scale.events=true" in controller(objects)[1]["args"]
    for mode in MODES:  # without the component there is neither the right nor the wish
        bare = kustomize.render(DEPLOY / "overlays" / mode)
        assert not any("events" in str(item) for item in bare)


def test_annotations_have_a_role_of_their_own_and_no_overlay_has_it(copy: Path) -> None:
    objects = kustomize.render(variant(copy, "act", WAYS[0], *EXTRAS))
    assert allowed(objects, "deepscaler-annotations") == {("patch", "apps", "deployments")}
    assert "--set=scale.annotations=true" in controller(objects)[1]["args"]
    for mode in MODES:
        bare = kustomize.render(DEPLOY / "overlays" / mode)
        assert not any(
            "annotations=true" in str(item) or "deepscaler-annotations" in str(item) for item in bare
        )
        assert ("patch", "apps", "deployments") not in allowed(bare)


def test_room_on_nodes_has_a_role_of_its_own_that_reaches_nothing_else(copy: Path) -> None:
    objects = kustomize.render(variant(copy, "advise", WAYS[0], *EXTRAS))
    asked = {(verb, group, what) for verb, group, what, _ in rights.BUFFERS}
    assert allowed(objects, "deepscaler-capacity-buffer") == asked and len(asked) == 4
    assert "--set=scale.capacity_buffer.enabled=true" in controller(objects)[1]["args"]
    for mode in MODES:  # without the component there is neither the right nor the wish
        bare = kustomize.render(DEPLOY / "overlays" / mode)
        assert not any("capacity" in str(item) for item in bare)


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """A web server of the files in a directory."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
