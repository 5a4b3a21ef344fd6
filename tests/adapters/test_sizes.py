"""Answers that are too large, plain or compressed, are refused before they fill the memory."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers.kube_stub import KubeStub
from helpers.paths import ROOT

pytestmark = pytest.mark.stress
MIB = 2**20
BOMB = gzip.compress(b" " * (64 * MIB), 9) * 40  # members one after the other: 2.5 GiB in 2.6 MB
CHILD = """
import re, resource, sys
import deepscaler.adapters.kubernetes.cluster, kubernetes, urllib3, requests
from deepscaler.adapters.jaeger import JaegerClient
from deepscaler.adapters.kubernetes.api import KubeApi
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.errors import DeepScalerError
from deepscaler.settings import ClusterSection, Jaeger, Prometheus
what, address, kubeconfig = sys.argv[1:]
ask = {
    "prometheus": lambda: PrometheusClient(Prometheus(url=address, retries=0)).query("up", 0.0),
    "jaeger": lambda: JaegerClient(Jaeger(url=address)).dependencies(600.0, 300.0),
    "kubernetes": lambda: KubeApi(ClusterSection(kubeconfig=kubeconfig)).get("/version"),
}[what]
ask_nothing = KubeApi(ClusterSection(kubeconfig=kubeconfig))._connected()

def kib(name):
    return int(re.search(name + r":\\s*(\\d+) kB", open("/proc/self/status").read())[1])

resource.setrlimit(resource.RLIMIT_AS, (1024 * kib("VmSize") + 400 * 2**20,) * 2)
before = kib("VmHWM")
try:
    ask()
except DeepScalerError as error:
    print(error)
print((kib("VmHWM") - before) // 1024)
"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.server.kind
        self.send_response(500 if kind == "a refusal of any length" else 200)
        self.send_header("Content-Type", "application/json")
        if kind == "a gzip bomb":
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(BOMB)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(BOMB)
            return
        if kind == "a length that is announced":
            self.send_header("Content-Length", str(2**40))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with suppress(OSError):
            for _ in range(400):  # MiB
                self.wfile.write(b"100000\r\n" + b" " * MIB + b"\r\n")
        self.close_connection = True

    do_GET = do_POST = answer

    def handle(self) -> None:
        with suppress(OSError):  # the client hangs up
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("what", ["prometheus", "jaeger", "kubernetes"])
@pytest.mark.parametrize(
    "kind", ["a gzip bomb", "chunks without an end", "a length that is announced", "a refusal of any length"]
)
def test_an_answer_that_is_too_large_is_refused_within_bounds(tmp_path, what, kind):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.kind, server.daemon_threads = kind, True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stub = KubeStub()
    stub.server.server_close()
    stub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        child = subprocess.run(
            [sys.executable, "-c", CHILD, what, stub.url, stub.kubeconfig(tmp_path / "kubeconfig")],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=120,
            check=False,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert child.returncode == 0, child.stderr
    message, grown = child.stdout.strip().rsplit("\n", 1)
    assert "more than 64 MiB" in message and "\n" not in message
    assert int(grown) < 250
    print(f"{what}, {kind}: {grown} MiB")
