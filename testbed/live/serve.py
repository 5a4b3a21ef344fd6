"""The live testbed: the engine in real time behind real network interfaces.

These are a gateway, /metrics, a real Prometheus, the APIs of Jaeger and Kubernetes, and a page to watch. All
listen on 127.0.0.1. `running` starts everything, the one child process (Prometheus) included, and stops it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from deepscaler.artefacts import write_json
from deepscaler.control.http_port import http_port
from deepscaler.errors import ClusterError
from deepscaler.settings import Settings
from testbed.cluster.emulation import make_program, make_simulator
from testbed.engine.simulator import LoadPlan
from testbed.kubernetes_api import KubernetesApi
from testbed.live import prometheus_server
from testbed.live.autoscaling import SYNC_SECONDS as AUTOSCALER_SECONDS
from testbed.live.autoscaling import HpaController
from testbed.live.deployments import SYNC_SECONDS, Deployments
from testbed.live.gateway import Gateway
from testbed.live.monitoring import HISTORY_SECONDS, Dependencies, MetricsPage
from testbed.live.page import SAMPLE_SECONDS, BedPage
from testbed.live.started import Server
from testbed.live.wall_clock import WallClock

HOST = "127.0.0.1"
CALL_SECONDS = 30.0
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Addresses:
    """Where the parts are; `prometheus` and `page` are None where none was started."""

    gateway: str
    metrics: str
    jaeger: str
    kubernetes: str
    kubeconfig: str
    prometheus: str | None
    prometheus_pid: int | None
    page: str | None


class Loop:
    """An event loop in a thread of its own, and the web servers in it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http", daemon=True)
        self._runners: list[web.AppRunner] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._thread.start()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    def serve(self, application: web.Application, port: int, setting: str) -> str:
        """Serve on the port, 0 for a free one; returns the URL.

        Raises:
            ClusterError: the port is taken.
        """
        try:
            return f"http://{HOST}:{self._call(self._serve(application, port))}"
        except OSError as error:
            raise _taken(port, setting, error) from error

    async def _serve(self, application: web.Application, port: int) -> int:
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, HOST, port).start()
        return int(runner.addresses[0][1])

    def every(self, seconds: float, work: Callable[[], object]) -> None:
        """Do this again and again in another thread; a failure is logged and doesn't end the turns."""

        async def turns() -> None:
            while True:
                try:
                    await asyncio.to_thread(work)
                except Exception:
                    LOG.exception("%s failed, going on", getattr(work, "__qualname__", work))
                await asyncio.sleep(seconds)

        async def start() -> None:
            self._tasks.append(asyncio.get_running_loop().create_task(turns()))

        self._call(start())

    def close(self) -> None:
        """Close the servers, cancel what runs, end the thread."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for runner in self._runners:
            await runner.cleanup()
        await asyncio.get_running_loop().shutdown_default_executor()


def _taken(port: int, setting: str, error: OSError) -> ClusterError:
    return ClusterError(
        f"port {port}: {error.strerror or error}; choose another: --set testbed.serve.{setting}=0"
    )


class LiveTestbed:
    """The parts of a running testbed; `running` makes one.

    Attributes:
        failed: set when the engine has failed.
        addresses: known once it runs.
    """

    addresses: Addresses

    def __init__(self, settings: Settings) -> None:
        seed = settings.testbed.seed
        self.settings, self.serve = settings, settings.testbed.serve
        self.directory = Path(self.serve.directory)
        self.program = make_program(settings)
        simulator = make_simulator(
            settings, self.program, LoadPlan.closed([0.0], [0], self.program.task_weights), seed
        )
        simulator.advance(0.0)  # compiled before the first request waits
        self.failed = threading.Event()
        self.clock = WallClock(simulator, pause=self.serve.step, on_failure=self.failed.set)
        self.gateway = Gateway(self.program, self.clock)
        self.page = MetricsPage(self.program, settings.app, self.clock, self.gateway.answered)
        self.dependencies = Dependencies(self.program, settings.app, self.clock)
        self.deployments = Deployments(self.program, settings.app, self.clock)
        self.autoscalers = HpaController(
            self.deployments.store, self.deployments.measured, lambda: self.clock.epoch + self.clock.now
        )
        controller = f"http://{HOST}:{self.serve.controller_port}"
        self.watched = BedPage(self.program, settings.app, self.clock, controller)

    def start(self, stack: ExitStack) -> None:
        """Start everything; `stack` stops it."""
        serve = self.serve
        self.directory.mkdir(parents=True, exist_ok=True)
        loop = Loop()
        stack.callback(loop.close)
        stack.callback(self.clock.stop)  # before the servers, so that nothing waits for an answer
        self.clock.start()
        gateway = loop.serve(self.gateway.application(), serve.gateway_port, "gateway_port")
        metrics = loop.serve(self.page.application(), serve.metrics_port, "metrics_port")
        jaeger = loop.serve(self.dependencies.application(), serve.jaeger_port, "jaeger_port")
        kubernetes = self._kubernetes(stack)
        kubeconfig = kubernetes.write_kubeconfig(self.directory / "kubeconfig", self.settings.app.namespace)
        loop.every(HISTORY_SECONDS, self.dependencies.sample)
        loop.every(SYNC_SECONDS, self.deployments.sync)
        loop.every(AUTOSCALER_SECONDS, self.autoscale)
        prometheus = self._prometheus(stack, metrics)
        page = self._page(stack, loop)
        self.addresses = Addresses(
            gateway=gateway,
            metrics=f"{metrics}/metrics",
            jaeger=jaeger,
            kubernetes=kubernetes.url,
            kubeconfig=str(kubeconfig),
            prometheus=prometheus.url if prometheus else None,
            prometheus_pid=prometheus.pid if prometheus else None,
            page=page,
        )
        state = self.directory / "serve.json"
        write_json(state, {**asdict(self.addresses), "pid": os.getpid(), "application": self.program.name})
        stack.callback(state.unlink, missing_ok=True)

    def autoscale(self) -> None:
        """Let the HorizontalPodAutoscalers that somebody has created act, on the sample before.

        What the metrics server answers a real one with is as old, as in the virtual cluster.
        """
        self.autoscalers.sync()
        self.deployments.sample()

    def _kubernetes(self, stack: ExitStack) -> KubernetesApi:
        port = self.serve.kubernetes_port
        try:
            return stack.enter_context(KubernetesApi(self.deployments.store, port))
        except OSError as error:
            raise _taken(port, "kubernetes_port", error) from error

    def _page(self, stack: ExitStack, loop: Loop) -> str | None:
        port = self.serve.page_port
        if port is None:
            return None
        page = http_port(HOST, port, self.watched.answer, "testbed.serve.page_port")
        opened = stack.enter_context(page)
        loop.every(SAMPLE_SECONDS, self.watched.sample)
        return f"http://{HOST}:{opened}"

    def _prometheus(self, stack: ExitStack, metrics: str) -> Server | None:
        port = self.serve.prometheus_port
        if port is None:
            return None
        prometheus_server.install()
        interval = f"{round(self.serve.scrape_interval * 1000)}ms"
        target = {
            "job_name": "testbed",
            "scrape_interval": interval,
            "scrape_timeout": interval if self.serve.scrape_interval < 10 else "10s",
            "honor_labels": True,  # the page speaks for several exporters
            "static_configs": [{"targets": [metrics.removeprefix("http://")]}],
        }
        data = (self.directory / "prometheus").resolve()
        return stack.enter_context(
            prometheus_server.running(port=port or None, scrape_configs=[target], data=data)
        )


@contextmanager
def running(settings: Settings) -> Iterator[LiveTestbed]:
    """Start the testbed of these settings, and stop it at the end.

    Raises:
        ClusterError: a port is taken, or Prometheus can't be had.
        SettingsError: the settings and the emulated application don't fit.
    """
    live = LiveTestbed(settings)
    with ExitStack() as stack:
        live.start(stack)
        yield live
