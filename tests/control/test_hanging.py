"""Nothing that hangs keeps the lead, looks healthy, or keeps the process from ending."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings
from helpers.kube_shop import CREATED, READY, T0, make
from helpers.kube_stub import DEPLOYMENTS, PODS, USAGE, KubeStub, deployment, pod
from helpers.paths import ROOT

from deepscaler.adapters.deadline import seconds_left, sharing
from deepscaler.adapters.jaeger import JaegerClient
from deepscaler.adapters.kubernetes.api import KubeApi
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.kubernetes.lease import LeaseElection
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.control.controller import PATIENCE_PERIODS, Controller
from deepscaler.control.serving import serving
from deepscaler.errors import ClusterError, DeepScalerError, MetricsError
from deepscaler.settings import ClusterSection, Jaeger, Prometheus, Settings

pytestmark = pytest.mark.stress
DRIPS = {
    "silence": b"",
    "drips in the headers": b"HTTP/1.1 200 OK\r\nX-Slow: " + b"z" * 10_000,
    "drips in the body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b" " * 10_000,
    "drips in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 10_000,
}


@pytest.fixture(params=DRIPS)
def dripping(request: pytest.FixtureRequest) -> Iterator[int]:
    """A server that sends one byte per 50 ms: its port."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            for byte in DRIPS[request.param] or b" ":
                if over.wait(0.05 if DRIPS[request.param] else 30.0):
                    return
                connection.sendall(bytes([byte]))

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        over.set()


def test_the_time_of_a_request_is_bounded_however_the_server_drips(dripping: int) -> None:
    client = PrometheusClient(Prometheus(url=f"http://127.0.0.1:{dripping}", timeout=0.4, retries=0))
    began = time.monotonic()
    for _ in range(7):
        with pytest.raises(MetricsError, match="no answer in 1 tries"):
            client.query("up", 0.0)
    assert time.monotonic() - began < 7 * 0.6
    assert sum(thread.name == "request" for thread in threading.enumerate()) <= 4 + 4


def test_a_controller_that_completes_no_tick_isnt_healthy_until_it_completes_one() -> None:
    cluster = FakeCluster(api_down=(0.0, float("inf")))
    settings = make_settings(metrics_port=0)
    wish = ScriptedPolicy(lambda _now, _service: 6.0)
    controller = Controller(cluster, wish, settings)
    with serving(controller, settings) as port:

        def health() -> tuple[int, str]:
            page = requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5)
            return page.status_code, page.text

        def ready() -> int:
            return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code

        assert health() == (200, "ok\n") and ready() == 503  # the first tick is on its way
        controller.run(75.0)  # fails
        assert health() == (503, "no tick was completed lately\n")
        assert "deepscaler_healthy 0" in requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        cluster.api_down = (0.0, 0.0)
        controller.run(15.0)
        assert health() == (200, "ok\n") and ready() == 200
        cluster.api_down = (0.0, float("inf"))
        for failed in range(1, PATIENCE_PERIODS + 1):
            controller.run(15.0)
            assert failed == PATIENCE_PERIODS - 1 or ready() == (200 if failed < PATIENCE_PERIODS else 503)
        cluster.api_down = (0.0, 0.0)
        controller.run(15.0)
        assert ready() == 200


def test_a_leader_that_isnt_healthy_stops_leading_and_another_takes_over() -> None:
    stub, now = KubeStub(), [1000.0]
    stub.server.server_close()
    app = make_settings().model_dump()["app"]
    settings = Settings.model_validate({"app": {**app, "namespace": "shop"}})

    class Direct:
        def send(self, method: str, path: str, body: object = None) -> object:
            status, answer = stub.reply(method, path, body, {})
            return answer if status < 300 else None

        def find(self, path: str) -> object:
            return self.send("GET", path)

    first, second = (LeaseElection(settings, Direct(), lambda: now[0], lambda: now[0]) for _ in range(2))
    healthy = [True]
    first.require(lambda: healthy[0])
    assert first.attempt() and not second.attempt()
    healthy[0] = False
    assert not first.attempt() and first.seconds_left() == 0.0  # a late write of the tick is fenced off
    for _ in range(10):
        now[0] += 2.0
        first.attempt()
        second.attempt()
    assert second.leading() and not first.leading()
    healthy[0] = True
    assert not first.attempt()


@pytest.mark.parametrize("hang", ["time.sleep(100)", "threading.Event().wait()"])
def test_a_signal_ends_the_process_within_seconds_whatever_hangs(hang: str) -> None:
    script = f"""
import os, sys, threading, time
from deepscaler.control import live
live.GRACE_SECONDS = 0.5
with live.stopping_on_signals():
    os.kill(os.getpid(), {int(signal.SIGTERM)})
    {hang}
"""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL and "ending at once" in done.stderr
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("what", ["jaeger", "kubernetes"])
def test_the_time_of_other_requests_is_bounded_however_the_server_drips(
    dripping: int, what: str, tmp_path: Path
) -> None:
    address = f"http://127.0.0.1:{dripping}"
    stub = KubeStub()
    stub.server.server_close()
    stub.url = address
    kubeconfig = stub.kubeconfig(tmp_path / "kubeconfig")
    section = ClusterSection(kubeconfig=kubeconfig, timeout=0.4, jaeger=Jaeger(url=address, timeout=0.4))
    asked = {
        "jaeger": lambda: JaegerClient(section.jaeger).dependencies(600.0, 300.0),
        "kubernetes": lambda: KubeApi(section, retries=1).get("/version"),
    }
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(DeepScalerError, match="no answer"):
            asked[what]()
    assert time.monotonic() - began < 3 * 0.8


def test_all_waits_of_a_tick_share_one_time(dripping: int, tmp_path: Path) -> None:
    """Neither Prometheus nor the API answers; each request alone might take 30 s, and there are many."""
    stub = KubeStub()
    stub.server.server_close()
    stub.url = f"http://127.0.0.1:{dripping}"
    settings = make(stub, tmp_path, timeout=30.0, scale={"tick_timeout": 0.9})
    prometheus = settings.cluster.prometheus.model_copy(update={"url": stub.url, "retries": 3})
    cluster = settings.cluster.model_copy(update={"prometheus": prometheus})
    settings = settings.model_copy(update={"cluster": cluster})
    controller = Controller(KubernetesCluster(settings), ScriptedPolicy(lambda *_: 6.0), settings)
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(ClusterError):
            controller.tick()
        assert time.monotonic() - began < 0.9 + 2.0  # one request alone might take 30 s


def test_time_is_left_for_writing_when_reading_takes_all_of_its_own(dripping: int, tmp_path: Path) -> None:
    """Prometheus drips; the API answers, and the usage of the pods asks for more of them."""
    with KubeStub() as stub:
        for name in ("web", "api"):
            stub.put(DEPLOYMENTS, deployment(name))
            for index in range(2):
                stub.put(PODS, pod(name, index, CREATED, READY))
                used = [{"name": name, "usage": {"cpu": "500m" if name == "web" else "1m"}}]
                item = {"metadata": {"name": f"{name}-5d9c5b8f6d-{index:05d}"}, "timestamp": READY}
                stub.put(USAGE, {**item, "window": "15s", "containers": used})
        settings = make(stub, tmp_path, scale={"tick_timeout": 3.0})
        prometheus = settings.cluster.prometheus.model_copy(update={"url": f"http://127.0.0.1:{dripping}"})
        cluster = settings.cluster.model_copy(update={"prometheus": prometheus})
        settings = settings.model_copy(update={"cluster": cluster})
        real = KubernetesCluster(settings, clock=lambda: T0 + 20.0)
        began = time.monotonic()
        controller = Controller(real, ScriptedPolicy(lambda *_: 6.0), settings)
        assert time.monotonic() - began < 3.0
        began = time.monotonic()
        rows = controller.tick()
        assert time.monotonic() - began < 3.0
        assert {row.service: row.reason for row in rows} == {"web": "floor", "api": "held_missing"}
        assert stub.replicas("web") > 2 and stub.replicas("api") == 2


def test_the_time_that_waits_share_is_that_of_their_own_thread() -> None:
    """A Lease is renewed in a thread of its own, whatever a tick has left."""
    found: list[float] = []
    with sharing(5.0), sharing(60.0):
        assert 4.0 < seconds_left() <= 5.0
        other = threading.Thread(target=lambda: found.append(seconds_left()))
        other.start()
        other.join()
    assert found == [float("inf")] and seconds_left() == float("inf")
