"""The client of the Kubernetes API: lists, credentials, contexts, and what a refusal says."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import yaml
from helpers.http_script import Script, matrix
from helpers.kube_shop import make
from helpers.kube_stub import DEPLOYMENTS, KubeStub, deployment
from helpers.recordings import kubernetes_answers

from deepscaler import __version__
from deepscaler.adapters.kubernetes.api import ApiError, KubeApi
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.kubernetes.replicas import DeploymentState, ReplicaWriter
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.errors import ClusterError
from deepscaler.settings import ClusterSection, Prometheus


def test_lists_are_read_page_by_page(stub, shop):
    stub.page = 1
    assert [item.service for item in shop().workloads()] == ["web", "api"]
    assert len(shop().pods()) == 4


@pytest.mark.stress
def test_requests_name_their_sender_to_the_api_and_to_prometheus(stub, shop, tmp_path, caplog):
    agents = []
    reply = stub.reply
    stub.reply = lambda method, path, body, headers: (
        agents.append(headers["User-Agent"]),
        reply(method, path, body, headers),
    )[1]
    shop().workloads()
    with Script(matrix()) as script:
        PrometheusClient(Prometheus(url=script.url)).query("up", 0.0)
        agents += [headers["User-Agent"] for _, _, headers, _ in script.seen]
    assert set(agents) == {f"deepscaler/{__version__}"} and len(agents) > 2


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


def with_plugin(stub, tmp_path, script):
    """Settings whose kubeconfig names a credential plugin: a script that notes the pid of each start."""
    settings = make(stub, tmp_path, timeout=0.3)
    path = tmp_path / "kubeconfig"
    document = yaml.safe_load(path.read_text())
    command = ["-c", f"echo $$ >> {tmp_path}/starts; {script}"]
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": command}
    document["users"][0]["user"] = {"exec": {**plugin, "interactiveMode": "Never"}}
    path.write_text(yaml.safe_dump(document))
    return settings


@pytest.mark.field
def test_a_credential_plugin_that_hangs_is_bounded_and_started_once(stub, tmp_path):
    api = KubeApi(with_plugin(stub, tmp_path, "exec sleep 8").cluster)
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(ApiError, match=r"weren't there within 0.3 s; does the credential plugin .*hang"):
            api.get(DEPLOYMENTS)
    assert time.monotonic() - began < 5 and not stub.seen
    (plugin,) = (tmp_path / "starts").read_text().split()
    os.kill(int(plugin), signal.SIGKILL)  # else it ends, and the client's library logs, within a later test
    for thread in threading.enumerate():
        if thread.name == "credentials":
            thread.join(timeout=10)


@pytest.mark.field
def test_a_credential_plugin_that_is_slow_is_heard_in_the_end(stub, shop, tmp_path):
    stub.token = "of-the-plugin"
    credential = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",' + (
        '"status":{"token":"of-the-plugin"}}'
    )
    api = KubeApi(with_plugin(stub, tmp_path, f"sleep 0.6; echo '{credential}'").cluster)
    for _ in range(20):
        try:
            assert len(api.items(DEPLOYMENTS)) == 2
            break
        except ApiError as error:
            assert "credential plugin" in str(error)
    assert len((tmp_path / "starts").read_text().split()) == 1 and stub.seen


CREDENTIAL = (
    '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"fresh"}}'
)


@pytest.mark.parametrize(
    ("before", "script", "pause"),
    [
        ("the token runs out", f"sleep 0.8; echo '{CREDENTIAL}'", 0.0),
        ("not connected yet", f"sleep 0.8; echo '{CREDENTIAL}'", 0.0),
        ("the token runs out", f"echo '{CREDENTIAL}'", 0.35),
    ],
    ids=["token renewed slowly", "first token comes slowly", "slow refusal"],
)
def test_no_write_is_sent_after_its_time(stub, shop, tmp_path, before, script, pause):
    settings = make(stub, tmp_path, timeout=5.0)
    api = KubeApi(settings.cluster)
    if before == "the token runs out":
        api.get(DEPLOYMENTS)
    with_plugin(stub, tmp_path, script)
    stub.token = "fresh"
    stub.seen.clear()
    began, arrived = time.monotonic(), []

    def answering(method, _path):
        arrived.append((method, time.monotonic() - began))
        time.sleep(pause)

    stub.before = answering
    writer = ReplicaWriter(api, DEPLOYMENTS)
    writer.remember({"web": DeploymentState.of(stub.objects[f"{DEPLOYMENTS}/web"])})
    writer.fence = lambda: began + 0.4 - time.monotonic()
    with pytest.raises(ApiError):
        writer.write("web", 6)
    assert time.monotonic() - began < 0.7
    time.sleep(0.6)  # for what would come late
    assert all(moment < 0.4 for _, moment in arrived)
    stub.before = lambda _method, _path: None
    assert api.get(f"{DEPLOYMENTS}/web")  # its credentials are there by now


def test_a_connection_that_is_made_late_carries_no_write(stub, tmp_path):
    settings = make(stub, tmp_path, timeout=5.0)
    path = tmp_path / "kubeconfig"
    with socket.socket() as server, ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):  # no more fit into its queue, so that connections hang
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        path.write_text(path.read_text().replace(stub.url, f"http://127.0.0.1:{server.getsockname()[1]}"))
        began = time.monotonic()
        with pytest.raises(ApiError, match="no answer"):
            KubeApi(settings.cluster).send("PATCH", f"{DEPLOYMENTS}/web", {}, time_out=0.4)
        for thread in threading.enumerate():
            if thread.name == "request":
                thread.join()
        assert time.monotonic() - began < 0.7


def test_what_isnt_a_kubernetes_api_is_said(stub, shop, monkeypatch):
    monkeypatch.setattr(stub, "reply", lambda *_: (200, []))
    with pytest.raises(ClusterError, match="is this a Kubernetes API server"):
        shop().workloads()


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
    api = KubeApi(make(stub, tmp_path).cluster)
    with pytest.raises(ApiError, match=said) as caught:
        api.get("/apis/apps/v1/namespaces/shop/deployments")
    assert caught.value.status == status
    # What isn't there is an answer as good as any: KEDA, the metrics server.
    assert set(api.upstream.requests().errors) == ({f"http_{status}"} if status != 404 else set())


@pytest.fixture
def authority(tmp_path):
    """Certificates of an authority, and of 127.0.0.1, without key identifiers, as older tools make them."""
    if shutil.which("openssl") is None and not os.environ.get("CI"):
        pytest.skip("no openssl on this machine, which makes the certificates")
    (tmp_path / "openssl.cnf").write_text(
        "[req]\ndistinguished_name = name\n[name]\n[authority]\nbasicConstraints = critical, CA:TRUE\n"
        "subjectKeyIdentifier = none\nauthorityKeyIdentifier = none\n[server]\n"
        "subjectAltName = IP:127.0.0.1\nsubjectKeyIdentifier = none\nauthorityKeyIdentifier = none\n"
    )
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -config openssl.cnf"
    signed = "-CA ca.pem -CAkey ca.key -keyout server.key -out server.pem"
    for command in (
        f"{make} -subj /CN=authority -extensions authority -keyout ca.key -out ca.pem",
        f"{make} -subj /CN=authority -extensions authority -keyout other.key -out other.pem",
        f"{make} -subj /CN=127.0.0.1 -extensions server {signed}",
    ):
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@pytest.mark.field
@pytest.mark.parametrize(("version", "strict"), [((3, 11), True), ((3, 13), True), ((3, 13), False)])
def test_an_authority_without_key_identifiers(authority, monkeypatch, version, strict):
    """Python 3.13 refuses it, and the setting makes it acceptable; another authority never is."""
    monkeypatch.setattr("urllib3.util.ssl_.sys", SimpleNamespace(version_info=version))
    stub = KubeStub()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    stub.server.socket = context.wrap_socket(stub.server.socket, server_side=True)
    stub.url = stub.url.replace("http:", "https:")
    with stub:
        stub.put(DEPLOYMENTS, deployment("web"))
        stub.kubeconfig(authority / "kubeconfig")
        document = yaml.safe_load((authority / "kubeconfig").read_text())
        document["clusters"][0]["cluster"]["certificate-authority"] = str(authority / "ca.pem")
        (authority / "kubeconfig").write_text(yaml.safe_dump(document))
        section = ClusterSection.model_validate(
            {"kubeconfig": str(authority / "kubeconfig"), "strict_certificates": strict}
        )
        if version >= (3, 13) and strict:
            with pytest.raises(ApiError, match=r"Key Identifier.*set cluster\.strict_certificates to false"):
                KubeApi(section, retries=0).items(DEPLOYMENTS)
        else:
            assert len(KubeApi(section, retries=0).items(DEPLOYMENTS)) == 1
        document["clusters"][0]["cluster"]["certificate-authority"] = str(authority / "other.pem")
        (authority / "kubeconfig").write_text(yaml.safe_dump(document))
        with pytest.raises(ApiError, match=r"check certificate-authority|Key Identifier"):
            KubeApi(section, retries=0).items(DEPLOYMENTS)
