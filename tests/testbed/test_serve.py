"""The live testbed over loopback: clock, gateway, monitoring, the way to the Kubernetes API, shutdown."""

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import yaml
from helpers.needs import had
from helpers.paths import ROOT

from deepscaler.control.http_port import Answer, http_port
from deepscaler.errors import ClusterError, SettingsError
from deepscaler.settings import load_settings
from sendFlow.routes import ROUTES, url_of
from testbed.applications.loading import load_application
from testbed.engine import kernel as core
from testbed.engine.program import compile_program
from testbed.engine.simulator import LoadPlan, Simulator
from testbed.live import gateway, prometheus_server
from testbed.live.gateway import SECONDS_HEADER, routes_of
from testbed.live.serve import Loop, running
from testbed.live.wall_clock import WallClock

SEGMENTS = {
    "product": "OLJCESPC7Z",
    "account": "a",
    "date": "d",
    "start": "s",
    "end": "e",
    "trip": "t",
    "order": "o",
    "table": "configs",
}


# ------------------------------------------------------------------------------------------------- the driver
class Witness(Simulator):
    """A simulator that remembers what was done to it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen, self.scaled = [], []

    def advance(self, until, arrivals=None):
        if arrivals is not None and len(arrivals):
            self.seen.append(arrivals.copy())
        return super().advance(until, arrivals)

    def scale(self, service, replicas):
        self.scaled.append((self.now, service, replicas))
        super().scale(service, replicas)


def simulator(kind=Simulator, application="boutique"):
    program = compile_program(load_application(application))
    plan = LoadPlan.closed([0.0], [0], program.task_weights)
    return kind(program, plan, seed=1, replicas=[2] * program.num_services)


def virtual_finishes(witness, until):
    """(endpoint, start) -> finish of the same arrivals and scalings in virtual time."""
    twin, arrivals, done = simulator(), np.concatenate(witness.seen), []
    for moment, service, replicas in [*witness.scaled, (until, None, None)]:
        done.append(
            twin.advance(moment, arrivals[(arrivals["time"] > twin.now) & (arrivals["time"] <= moment)])
        )
        if service is not None:
            twin.scale(service, replicas)
    return {(int(row["endpoint"]), float(row["start"])): float(row["time"]) for row in np.concatenate(done)}


def test_requests_finish_when_the_virtual_run_says_whenever_the_steps_come():
    now, random, witness = [0.0], np.random.default_rng(1), simulator(Witness)
    clock = WallClock(witness, clock=lambda: now[0])
    waiting = []
    for _ in range(300):
        now[0] += random.exponential(0.01)
        endpoint = int(random.integers(len(witness.program.endpoints)))
        waiting.append((endpoint, now[0], clock.submit(endpoint)))
        if random.uniform() < 0.3:
            clock.step()
    now[0] += 60.0
    clock.step()
    expected = virtual_finishes(witness, now[0])
    assert len(expected) == 300
    for endpoint, start, future in waiting:
        answer = future.result(0)
        assert (answer.start, answer.finish, answer.ok) == (start, expected[endpoint, start], True)


def test_the_thread_and_many_clients_give_the_virtual_finish_times_with_scaling_under_way():
    witness = simulator(Witness)
    clock = WallClock(witness)
    clock.start()

    def client(number):
        found = []
        for turn in range(20):
            endpoint = (number + turn) % len(witness.program.endpoints)
            found.append((endpoint, clock.submit(endpoint).result(10)))
        return found

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, number) for number in range(8)]
        clock.scale(0, 5)
        clock.scale(4, 1)
        answers = [pair for one in clients for pair in one.result()]
    clock.stop()
    expected = virtual_finishes(witness, witness.now)
    assert len(answers) == 160
    assert {(endpoint, answer.start): answer.finish for endpoint, answer in answers} == expected


def test_a_stopped_clock_answers_those_who_wait_and_takes_no_more():
    clock = WallClock(simulator())
    waiting = clock.submit(0)
    clock.stop()
    with pytest.raises(ClusterError, match="shutting down"):
        waiting.result(0)
    with pytest.raises(ClusterError, match="shutting down"):
        clock.submit(0)


def test_an_engine_that_fails_is_reported_and_nobody_waits_for_ever():
    class Broken(Simulator):
        def advance(self, until, arrivals=None):
            raise RuntimeError("the engine's tables overflowed within one event")

    failed = threading.Event()
    clock = WallClock(simulator(Broken), on_failure=failed.set)
    waiting = clock.submit(0)
    clock.start()
    with pytest.raises(ClusterError, match="engine failed"):
        waiting.result(10)
    assert failed.wait(10)
    clock.stop()


# ------------------------------------------------------------------------------------------- over the network
def fast_application(directory):
    """Boutique whose pods are ready within a second."""
    document = yaml.safe_load((ROOT / "testbed/apps/boutique.yaml").read_text(encoding="utf-8"))
    document["readiness_period_seconds"] = 0.1
    for service in document["services"].values():
        service["boot_seconds"] = 0.8
    path = directory / "boutique.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def overrides(directory, **more):
    values = {
        "testbed.application": str(fast_application(directory)),
        "testbed.serve.directory": str(directory / "state"),
        **{
            f"testbed.serve.{name}_port": 0 for name in ("gateway", "metrics", "jaeger", "kubernetes", "page")
        },
        "testbed.serve.controller_port": 9,
        "testbed.serve.prometheus_port": "null",
        **more,
    }
    return [f"{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with running(
        load_settings(ROOT / "config/boutique.yaml", overrides(tmp_path_factory.mktemp("live")))
    ) as testbed:
        yield testbed


@pytest.fixture
def web():
    with requests.Session() as session:
        session.trust_env = False
        yield session


def ask(session, url, method="GET", **options):
    return session.request(method, url, timeout=20, allow_redirects=False, **options)


def parsed(text):
    """(name, frozenset of labels) -> value of a page in Prometheus's text format."""
    found = {}
    for line in text.splitlines():
        series, value = line.rsplit(" ", 1)
        name, _, inside = series.partition("{")
        found[name, frozenset(part for part in inside.removesuffix("}").split(",") if part)] = float(value)
    return found


def total(page, name, *labels):
    """Sum over the series of this name that carry these labels."""
    return sum(value for (metric, inside), value in page.items() if metric == name and set(labels) <= inside)


def page_of(session, live):
    return parsed(ask(session, live.addresses.metrics).text)


def test_every_url_of_boutique_is_answered_and_redirects_as_the_real_shop_does(live, web):
    for route in ROUTES["boutique"]:
        method, path = url_of("boutique", route.endpoint, **SEGMENTS)
        response = ask(
            web, live.addresses.gateway + path, method, data={"product_id": "OLJCESPC7Z", "quantity": 1}
        )
        assert (response.status_code, response.headers.get("Location", "")) == (
            302 if route.redirect else 200,
            route.redirect,
        )
        assert 0 < float(response.headers[SECONDS_HEADER]) < 5


def test_a_browser_that_follows_a_redirect_makes_two_requests(live, web):
    before = live.gateway.answered.copy()
    response = web.post(live.addresses.gateway + "/cart", data={"product_id": "X"}, timeout=20)
    assert response.status_code == 200
    assert live.gateway.answered - before == {("POST /cart", 302): 1, ("GET /cart", 200): 1}


@pytest.mark.live
def test_an_answer_comes_at_its_simulated_finish_time(live, web):
    late = []
    for _ in range(30):
        began = time.monotonic()
        response = ask(web, live.addresses.gateway + "/")
        late.append(time.monotonic() - began - float(response.headers[SECONDS_HEADER]))
    assert min(late) >= 0
    assert np.median(late) < 0.05


@pytest.mark.parametrize("application", ["bookinfo", "boutique", "train_ticket"])
def test_every_endpoint_of_an_application_has_a_url(application):
    program = compile_program(load_application(application))
    assert {route.endpoint for route in routes_of(program)} == set(program.endpoints)


def test_an_application_without_a_table_of_urls_is_asked_by_its_endpoints_names():
    routes = routes_of(compile_program(load_application("synthetic:30")))
    assert (routes[0].method, routes[0].pattern, routes[0].endpoint) == ("GET", "/0", "GET /0")


def raw(live, data, pause=0.0):
    """What the gateway says to these bytes, until it closes or is quiet."""
    host, port = live.addresses.gateway.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        for part in data:
            connection.sendall(part)
            time.sleep(pause)
        connection.settimeout(2)
        try:
            return connection.recv(4096)
        except TimeoutError:
            return b""


def test_bad_requests_are_refused_and_the_gateway_goes_on(live, web):
    address = live.addresses.gateway
    assert ask(web, address + "/nowhere").status_code == 404
    assert ask(web, address + "/product/a/b").status_code == 404
    assert ask(web, address + "/", "DELETE").status_code == 405
    assert ask(web, address + "/cart", "POST", data=b"x" * (2 << 20)).status_code == 413
    assert raw(live, [b"complete nonsense\r\n\r\n"]).startswith(b"HTTP/1.0 400")
    assert b" 400 " in raw(live, [b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: minus\r\n\r\n"])
    assert b" 400 " in raw(live, [b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"])
    raw(live, [b"POST /cart HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"])
    raw(live, [b"POST /cart HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf a body"])
    assert ask(web, address + "/").status_code == 200
    assert (
        live.gateway.unknown[404] >= 2 and live.gateway.unknown[405] >= 1 and live.gateway.unknown[413] >= 1
    )
    assert live.gateway.unknown[500] == 0


def test_a_body_that_never_comes_is_not_waited_for(live, monkeypatch):
    monkeypatch.setattr(gateway, "BODY_SECONDS", 0.2)
    before = live.gateway.answered.copy()
    answer = raw(live, [b"POST /cart HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf"])
    assert answer.startswith(b"HTTP/1.1 408")
    assert live.gateway.answered == before


@pytest.mark.live
def test_slow_clients_are_served_and_disturb_nobody(live, web):
    parts = [bytes([byte]) for byte in b"GET /cart HTTP/1.1\r\nHost: x\r\n\r\n"]
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(raw, live, parts, 0.02) for _ in range(4)]
        quick = [ask(web, live.addresses.gateway + "/cart").elapsed.total_seconds() for _ in range(5)]
        assert all(one.result().startswith(b"HTTP/1.1 200") for one in slow)
    assert min(quick) < 0.5


def test_a_client_that_leaves_is_no_loss_and_its_request_is_finished(live, web):
    before = page_of(web, live)
    host, port = live.addresses.gateway.removeprefix("http://").split(":")
    for _ in range(10):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert eventually(lambda: offered(page_of(web, live)) - offered(before) == 10)
    assert ask(web, live.addresses.gateway + "/").status_code == 200


def offered(page):
    return total(page, "istio_requests_total", 'destination_workload="frontend"', 'reporter="destination"')


def eventually(true, seconds=10.0):
    """Has it become true within the time?"""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


def test_one_connection_serves_many_requests(live):
    request = b"POST /setCurrency HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    host, port = live.addresses.gateway.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(request)
            assert connection.recv(4096).startswith(b"HTTP/1.1 302")


def test_the_metrics_page_counts_what_the_gateway_answered_once_for_each_reporter(live, web):
    before, answered = page_of(web, live), live.gateway.answered.copy()
    for _ in range(5):
        for method, path in (("GET", "/"), ("GET", "/product/1"), ("POST", "/cart")):
            ask(web, live.addresses.gateway + path, method)
    after, new = page_of(web, live), live.gateway.answered - answered
    assert sum(new.values()) == 15
    frontend = 'destination_workload="frontend"'
    for reporter in ("destination", "source"):
        labels = (
            frontend,
            f'reporter="{reporter}"',
            'response_code="200"',
            'source_workload="istio-ingressgateway"',
        )
        assert (
            total(after, "istio_requests_total", *labels) - total(before, "istio_requests_total", *labels)
            == 15
        )
        count = "istio_request_duration_milliseconds_count"
        assert total(after, count, *labels) - total(before, count, *labels) == 15
    assert (
        total(after, "testbed_gateway_requests_total") - total(before, "testbed_gateway_requests_total") == 15
    )
    assert total(after, "testbed_gateway_requests_total", 'endpoint="POST /cart"', 'code="302"') >= 5
    calls = ('destination_workload="currencyservice"', 'source_workload="frontend"', 'reporter="source"')
    assert (
        total(after, "istio_requests_total", *calls) - total(before, "istio_requests_total", *calls)
        == 5 * 10 + 5 * 2
    )


def test_simulated_durations_are_in_the_histogram(live, web):
    before = page_of(web, live)
    seconds = [float(ask(web, live.addresses.gateway + "/").headers[SECONDS_HEADER]) for _ in range(10)]
    after, labels = (
        page_of(web, live),
        ('destination_workload="frontend"', 'reporter="destination"', 'response_code="200"'),
    )
    name = "istio_request_duration_milliseconds"
    gained = {
        metric: total(after, metric, *labels) - total(before, metric, *labels)
        for metric in (f"{name}_sum", f"{name}_count")
    }
    assert gained == {f"{name}_sum": pytest.approx(1000 * sum(seconds)), f"{name}_count": 10}
    for bound in (25, 50, 100, 250, 500):
        bucket = (*labels, f'le="{bound}"')
        gain = total(after, f"{name}_bucket", *bucket) - total(before, f"{name}_bucket", *bucket)
        assert gain == sum(1000 * value <= bound for value in seconds)


def test_pods_are_on_the_page_with_real_times(live, web):
    page, now = page_of(web, live), time.time()
    starts = [value for (name, _), value in page.items() if name == "kube_pod_start_time"]
    assert len(starts) == 4 * len(live.program.services)
    assert all(now - 120 < value <= now for value in starts)
    assert total(page, "kube_deployment_spec_replicas", 'namespace="boutique"') == 40


def test_jaeger_tells_who_called_whom_in_the_time_asked_for(live, web):
    address = live.addresses.jaeger
    for _ in range(3):
        ask(web, live.addresses.gateway + "/product/1")
    for prefix in ("", "/jaeger"):
        now = round(time.time() * 1000)
        answer = ask(
            web, f"{address}{prefix}/api/dependencies", params={"endTs": now, "lookback": 3_600_000}
        ).json()
        assert answer["errors"] is None
        calls = {(row["parent"], row["child"]): row["callCount"] for row in answer["data"]}
        assert calls["istio-ingressgateway", "frontend"] >= 3
        assert (
            calls["recommendationservice", "productcatalogservice"]
            == calls["frontend", "recommendationservice"]
        )
    past = ask(
        web, f"{address}/api/dependencies", params={"endTs": now - 7_200_000, "lookback": 3_600_000}
    ).json()
    assert past["data"] == []
    broken = ask(web, f"{address}/api/dependencies", params={"endTs": "tomorrow"})
    assert broken.status_code == 400 and "endTs" in broken.json()["errors"][0]["msg"]


def test_calls_between_two_samples_are_their_difference(live, web):
    live.dependencies.sample()
    middle = time.time()
    for _ in range(2):
        ask(web, live.addresses.gateway + "/")
    calls = live.dependencies.between(middle, time.time())
    assert calls["istio-ingressgateway", "frontend"] == 2
    assert calls["frontend", "currencyservice"] == 20


def test_requests_fail_with_503_while_no_pod_is_ready_and_are_counted_as_such(live, web):
    frontend = live.program.services.index("frontend")
    live.clock.scale(frontend, 0)
    assert eventually(lambda: ask(web, live.addresses.gateway + "/").status_code == 503)
    live.clock.scale(frontend, 4)
    assert eventually(lambda: ask(web, live.addresses.gateway + "/").status_code == 200)
    failed = total(
        page_of(web, live),
        "istio_requests_total",
        'destination_workload="frontend"',
        'reporter="source"',
        'response_code="503"',
    )
    assert failed == live.gateway.answered["GET /", 503] > 0


@pytest.fixture
def api(live):
    """The official client, by the kubeconfig that was written."""
    from kubernetes import client, config

    configuration = client.Configuration()
    config.load_kube_config(live.addresses.kubeconfig, client_configuration=configuration)
    with client.ApiClient(configuration) as connected:
        yield client.AppsV1Api(connected), client.CoreV1Api(connected)


def test_the_api_has_the_deployments_with_the_resources_of_the_application(live, api):
    found = {item.metadata.name: item for item in api[0].list_namespaced_deployment("boutique").items}
    assert set(found) == set(live.program.services)
    resources = found["adservice"].spec.template.spec.containers[0].resources
    assert resources.requests == {"cpu": "200m", "memory": "180Mi"}
    assert resources.limits == {"cpu": "300m", "memory": "300Mi"}


def test_scaling_through_the_api_makes_pods_that_are_ready_after_their_boot(live, web, api):
    name, (apps, core_api) = "shippingservice", api

    def ready():
        return apps.read_namespaced_deployment_status(name, "boutique").status.ready_replicas

    def pods():
        return core_api.list_namespaced_pod("boutique", label_selector=f"app={name}").items

    assert eventually(lambda: ready() == 4)
    known = set(live.clock.pod_times()["uid"].tolist())
    apps.patch_namespaced_deployment_scale(name, "boutique", {"spec": {"replicas": 6}})
    assert eventually(lambda: len(pods()) == 6)
    assert ready() == 4
    assert eventually(lambda: ready() == 6)
    boots = [pod["ready_at"] - pod["created"] for pod in live.clock.pod_times() if pod["uid"] not in known]
    assert len(boots) == 2 and min(boots) > 0.7  # a boot takes 0.72 to 0.9 s
    page = page_of(web, live)
    assert total(page, "kube_deployment_status_replicas_ready", f'deployment="{name}"') == 6
    assert {pod.metadata.name for pod in pods()} == {
        part.split('"')[1]
        for (metric, labels) in page
        if metric == "kube_pod_start_time"
        for part in labels
        if part.startswith(f'pod="{name}-')
    }
    apps.patch_namespaced_deployment_scale(name, "boutique", {"spec": {"replicas": 3}})
    assert eventually(lambda: len(pods()) == 3 and ready() == 3)
    assert live.clock.snapshot().spec[live.program.services.index(name)] == 3
    apps.patch_namespaced_deployment_scale(name, "boutique", {"spec": {"replicas": 4}})
    assert eventually(lambda: ready() == 4)


def test_a_pod_that_drains_is_told_so_until_its_requests_are_done(live, web, api):
    name = "emailservice"
    live.clock.scale(live.program.services.index(name), 4)
    apps, core_api = api
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(requests.post, live.addresses.gateway + "/cart/checkout", timeout=20)
            for _ in range(8)
        ]
        apps.patch_namespaced_deployment_scale(name, "boutique", {"spec": {"replicas": 1}})
        assert all(one.result().status_code == 200 for one in asked)
    assert eventually(
        lambda: len(core_api.list_namespaced_pod("boutique", label_selector=f"app={name}").items) == 1
    )
    apps.patch_namespaced_deployment_scale(name, "boutique", {"spec": {"replicas": 4}})


def test_kubectl_sees_and_scales_the_deployments(live):
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on PATH")

    def kubectl(*words):
        command = ["kubectl", "--kubeconfig", live.addresses.kubeconfig, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout

    assert "paymentservice" in kubectl("get", "deploy")
    assert "scaled" in kubectl("scale", "deploy/paymentservice", "--replicas=5")
    assert eventually(lambda: "5/5" in kubectl("get", "deploy", "paymentservice"))
    kubectl("scale", "deploy/paymentservice", "--replicas=4")


def test_deployments_that_are_no_service_run_nowhere(live, api):
    container = {"name": "other", "image": "other:1"}
    template = {"metadata": {"labels": {"app": "other"}}, "spec": {"containers": [container]}}
    body = {
        "metadata": {"name": "other"},
        "spec": {"selector": {"matchLabels": {"app": "other"}}, "template": template},
    }
    api[0].create_namespaced_deployment("boutique", {"apiVersion": "apps/v1", "kind": "Deployment", **body})
    time.sleep(0.5)
    assert not api[0].read_namespaced_deployment("other", "boutique").status.ready_replicas
    api[0].delete_namespaced_deployment("other", "boutique")


def test_work_in_the_background_goes_on_after_a_failure(caplog):
    turns, loop = [], Loop()

    def work():
        turns.append(len(turns))
        if len(turns) == 1:
            raise ValueError("once")

    loop.every(0.01, work)
    assert eventually(lambda: len(turns) > 3)
    loop.close()
    assert "going on" in caplog.text


def test_an_application_and_settings_that_differ_are_refused(tmp_path):
    settings = load_settings(ROOT / "config/boutique.yaml", ["testbed.application=bookinfo"])
    with pytest.raises(SettingsError, match="productpage"), running(settings):
        pass


def test_a_taken_port_is_named_with_the_setting_and_nothing_stays(tmp_path, live):
    taken = live.addresses.gateway.rsplit(":", 1)[1]
    settings = load_settings(
        ROOT / "config/boutique.yaml", overrides(tmp_path, **{"testbed.serve.gateway_port": taken})
    )
    threads = threading.active_count()
    with pytest.raises(ClusterError, match=r"gateway_port"), running(settings):
        pass
    assert threading.active_count() == threads


# --------------------------------------------------------------------------------------------------- the page
def test_the_page_shows_the_application_until_a_controller_tells_more(live, web, monkeypatch):
    page = live.watched
    page.sample()
    answered = [ask(web, live.addresses.gateway).status_code for _ in range(20)]
    page.sample()
    told = web.get(f"{live.addresses.page}/story.json", timeout=5).json()
    assert answered == [200] * 20 and told["now"] is None and "predict_scale.py" in told["about"]["note"]
    busy = [row for row in told["past"] if row[1] > 1]  # the testbed samples the page, too, at its own times
    time_, _, _, responses, ready, proposed, _, applied = busy[-1]
    assert abs(time_ - time.time()) < 10 and 0 < responses[0] < 5
    assert ready == applied == [live.clock.snapshot().spec[0]] * len(ready) and set(proposed) == {None}
    assert web.get(live.addresses.page, timeout=5).text.startswith("<!doctype html>")
    decided = b'{"about":{"app":"shop","policy":"hpa_70"},"past":[[1.0,2.0]],"now":null}'
    answers = [decided]
    kind = "application/json"
    with http_port("127.0.0.1", 0, lambda _: Answer(200, kind, answers[-1]), "none") as port:
        monkeypatch.setattr(page, "_controller", f"http://127.0.0.1:{port}")
        for text in (decided, b"{", b"[]", b'{"about":1,"past":[],"now":null}'):
            answers.append(text)
            page.sample()
            told = web.get(f"{live.addresses.page}/story.json", timeout=5).json()
            assert told["about"]["policy"] == "hpa_70" and told["past"] == [[1.0, 2.0]]
    page.sample()
    told = web.get(f"{live.addresses.page}/story.json", timeout=5).json()
    assert told["about"]["policy"] is None and len(told["past"]) > 1


# ------------------------------------------------------------------------------------------------ the command
def children(pid):
    """Processes whose parent is `pid`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_and_leaves_nothing_behind(tmp_path, number):
    had(prometheus_server.install)
    values = overrides(tmp_path, **{"testbed.serve.prometheus_port": 0})
    command = [
        sys.executable,
        "-m",
        "testbed",
        "serve",
        *(part for value in values for part in ("--set", value)),
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            lines = [process.stdout.readline()]
            while lines[-1] and "predict_scale.py" not in lines[-1]:
                lines.append(process.stdout.readline())
            url = lines[1].split()[-1]
            with requests.Session() as session:
                session.trust_env = False
                assert ask(session, url).status_code == 200
            started = children(process.pid)
            assert len(started) == 1
            process.send_signal(number)
            _, log = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, "Traceback" in log) == (0, False), log
    assert "predict_scale.py --config config/live.yaml" in lines[-1]
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    with (
        pytest.raises(OSError),
        socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=1),
    ):
        pass
    assert not (tmp_path / "state" / "serve.json").exists()


def test_the_engine_takes_arrivals_in_the_order_of_the_door():
    """`core.ARRIVAL` is filled by position."""
    assert core.ARRIVAL.names == ("time", "id", "endpoint")
