"""Counters known on paper go into a real Prometheus by remote write and come back as features over HTTP."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import requests
from helpers import stores
from helpers.needs import had
from helpers.paper_shop import LIMIT, SCRAPE, T0, Shop, settings_file, wave

import metrics_fetch
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.artefacts import utc_text
from deepscaler.calls import EXTERNAL, read_calls
from deepscaler.cluster import LATENCY_BUCKETS, Workload
from deepscaler.errors import ClusterError, MetricsError
from deepscaler.panel import read_panel
from deepscaler.settings import Prometheus, load_settings
from testbed.cluster.exposition import (
    ISTIO_BOUNDS_SECONDS,
    STALE,
    CounterSnapshot,
    Durations,
    PodCounters,
    Series,
    ServiceCounters,
    exposition_series,
    exposition_text,
    labels,
    pod_name,
)
from testbed.live import prometheus_server
from testbed.live.prometheus_server import remote_write, running


def start_or_skip():
    """In CI a missing Prometheus is a failure, elsewhere a skip that says why."""
    had(prometheus_server.install)
    return running()


@pytest.fixture(scope="module", params=stores.STORES)
def shared(request):
    """One server of each kind for the tests that write near T0, each into its own namespace."""
    with stores.running(request.param) as store:
        yield store


@pytest.fixture
def own():
    with start_or_skip() as server:
        yield server


# -------------------------------------------------------------------------------------------------- the panel
def test_the_five_features_come_back_as_written(shared, tmp_path):
    path = settings_file(tmp_path, shared, "five", {"web": {}, "carts": {}, "carts-db": {}})
    shop = Shop(load_settings(path).app, 41, requests_per_second=wave(41, 3))
    shared.write(exposition_series(shop.snapshots(), shop.app))
    end = utc_text(shop.times[-1])
    assert (
        metrics_fetch.main(
            [
                "--config",
                str(path),
                "--start",
                utc_text(T0),
                "--end",
                end,
                "--set",
                "collect.calls_window=150",
            ]
        )
        == 0
    )
    panel = read_panel(tmp_path / "data" / "metrics.csv")
    np.testing.assert_array_equal(panel.times, shop.times)
    assert np.isnan(panel.values[0][:, [1, 3, 4]]).all()  # a rate needs two samples: missing, not zero
    later = panel.values[1:]
    np.testing.assert_allclose(later[..., 0], 2)
    np.testing.assert_allclose(later[..., 1], 0.5, rtol=1e-5)
    np.testing.assert_allclose(panel.values[..., 2], 0.25)
    np.testing.assert_allclose(later[..., 3], np.broadcast_to([0.01, 0.02, 0.03], (40, 3)), rtol=1e-5)
    np.testing.assert_allclose(
        later[..., 4], 1.25 * shop.rates[1:], rtol=1e-5
    )  # each request once, though two sidecars report it
    facts = json.loads(
        (tmp_path / "data" / "workloads.json").read_text()
    )  # limits as they were then, not as they are today
    assert {name: fact["cpu_limit_cores"] for name, fact in facts.items()} == dict.fromkeys(
        panel.services, LIMIT
    )
    calls = read_calls(tmp_path / "data" / "calls.csv")
    assert calls.frame["time"].nunique() == 4
    np.testing.assert_allclose(
        calls.external_rates(panel.services), [1.25 * shop.rates[1:, 0].mean(), 0, 0], rtol=0.02
    )
    np.testing.assert_allclose(
        calls.mean_rates(panel.services)[0, 1:], 1.25 * shop.rates[1:, 1:].mean(axis=0), rtol=0.02
    )
    assert calls.mean_rates(panel.services)[1:].sum() == 0


def test_cpu_speaks_of_the_same_pods_on_both_sides_while_replicas_change(shared, tmp_path):
    settings = load_settings(settings_file(tmp_path, shared, "changing", {"web": {}}))
    pods = np.repeat([2, 6, 1, 4], 10)[:, None]
    shop = Shop(settings.app, 40, requests_per_second=wave(40, 1), pods=pods)
    shared.write(exposition_series(shop.snapshots(), shop.app))
    panel = KubernetesCluster(settings).metrics(T0, shop.times[-1], SCRAPE)
    np.testing.assert_array_equal(panel.feature("pod"), pods)  # at once: a vanished series doesn't count on
    np.testing.assert_allclose(panel.feature("cpu")[1:], 0.5, rtol=1e-5)
    np.testing.assert_allclose(panel.feature("mem"), 0.25, rtol=1e-5)


def test_requests_of_a_vanished_pod_end_with_it(shared, tmp_path):
    settings = load_settings(settings_file(tmp_path, shared, "vanished", {"web": {}}))
    times = T0 + SCRAPE * np.arange(20)
    route = {
        "reporter": "destination",
        "destination_workload": "web",
        "destination_workload_namespace": "vanished",
    }
    ends = np.where(np.arange(11) < 10, 150.0 * np.arange(11), STALE)
    series = exposition_series(
        Shop(settings.app, 20, requests_per_second=0 * wave(20, 1)).snapshots(), settings.app
    )
    series += [Series(labels("istio_requests_total", pod="a", **route), times, 150.0 * np.arange(20))]
    series += [Series(labels("istio_requests_total", pod="b", **route), times[:11], ends)]
    shared.write(series)
    requests_a_second = KubernetesCluster(settings).metrics(T0, times[-1], SCRAPE).feature("req")[1:, 0]
    np.testing.assert_allclose(requests_a_second, [20] * 9 + [10] * 10)


def test_a_second_run_appends_what_one_run_would_have_read(shared, tmp_path):
    path = settings_file(tmp_path, shared, "resumed", {"web": {}, "carts": {}})
    shop = Shop(load_settings(path).app, 41, requests_per_second=wave(41, 2))
    shared.write(exposition_series(shop.snapshots(), shop.app))
    arguments = ["--config", str(path), "--start", utc_text(T0), "--set", "collect.calls_window=150"]
    for end in (T0 + 200, T0 + 600):
        assert metrics_fetch.main([*arguments, "--end", utc_text(end)]) == 0
    whole = ["--set", f"collect.output_dir={tmp_path / 'whole'}", "--end", utc_text(T0 + 600)]
    assert metrics_fetch.main([*arguments, *whole]) == 0
    for name in ("metrics.csv", "calls.csv"):
        assert (tmp_path / "data" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_service_missing_for_a_while_stays_missing_and_the_others_dont(shared, tmp_path):
    settings = load_settings(settings_file(tmp_path, shared, "missing", {"web": {}, "carts": {}}))
    shop = Shop(settings.app, 40, requests_per_second=wave(40, 2))
    shared.write(exposition_series(shop.snapshots({(k, "carts") for k in range(10, 30)}), shop.app))
    panel = KubernetesCluster(settings).metrics(T0, shop.times[-1], SCRAPE)
    gone = slice(10 + 5, 30)  # irate's minute still sees the samples before
    assert np.isnan(panel.values[gone, 1]).all()
    assert np.isfinite(panel.values[1:, 0]).all() and np.isfinite(panel.values[31:, 1]).all()
    np.testing.assert_allclose(panel.feature("req")[31:, 1], 1.25 * shop.rates[31:, 1], rtol=1e-5)


def test_idle_is_zero_requests_and_no_response_time(shared, tmp_path):
    settings = load_settings(settings_file(tmp_path, shared, "idle", {"web": {}, "carts": {}}))
    rates = wave(12, 2)
    rates[6:, 1] = 0
    shop = Shop(settings.app, 12, requests_per_second=rates)
    shared.write(exposition_series(shop.snapshots(), shop.app))
    panel = KubernetesCluster(settings).metrics(T0, shop.times[-1], SCRAPE)
    assert (panel.feature("req")[6:, 1] == 0).all() and np.isnan(panel.feature("res")[6:, 1]).all()


def test_names_that_contain_one_another_or_regex_characters_arent_mixed(shared, tmp_path):
    mine = {"carts": {}, "carts-db": {}, "shop.v1": {}}
    settings = load_settings(settings_file(tmp_path, shared, "names", mine))
    shop = Shop(settings.app, 8, requests_per_second=wave(8, 3))
    shared.write(exposition_series(shop.snapshots(), shop.app))
    others = settings_file(
        tmp_path, shared, "names", {"shopxv1": {}, "carts-db-old": {}, "my-carts": {}, "cart": {}}
    )
    foreign = Shop(
        load_settings(others).app, 8, requests_per_second=100 * wave(8, 4), pods=np.full((8, 4), 9)
    )
    shared.write(exposition_series(foreign.snapshots(), foreign.app))
    panel = KubernetesCluster(settings).metrics(T0, shop.times[-1], SCRAPE)
    np.testing.assert_allclose(panel.feature("req")[1:], 1.25 * shop.rates[1:], rtol=1e-5)
    np.testing.assert_array_equal(panel.feature("pod"), 2)
    np.testing.assert_allclose(panel.feature("cpu")[1:], 0.5, rtol=1e-5)


def test_containers_that_are_all_called_server_are_told_by_their_pods(shared, tmp_path):
    server = {"container": "server"}
    settings = load_settings(
        settings_file(
            tmp_path, shared, "server", {"web": server, "carts": {**server, "deployment": "carts-v2"}}
        )
    )
    shop = Shop(settings.app, 8, requests_per_second=wave(8, 2), pods=np.tile([1, 3], (8, 1)))
    series = exposition_series(shop.snapshots(), shop.app)
    shared.write(series)
    panel = KubernetesCluster(settings).metrics(T0, shop.times[-1], SCRAPE)
    np.testing.assert_array_equal(panel.feature("pod"), shop.pods)
    np.testing.assert_allclose(panel.feature("cpu")[1:], 0.5, rtol=1e-5)
    np.testing.assert_allclose(panel.feature("mem"), 0.25, rtol=1e-5)


def test_pause_containers_sidecars_and_pod_totals_dont_count(shared, tmp_path):
    settings = load_settings(settings_file(tmp_path, shared, "pause", {"web": {}}))
    shop = Shop(settings.app, 8, requests_per_second=wave(8, 1))
    series = exposition_series(shop.snapshots(), shop.app)
    extra = []
    for one in series:
        pairs = dict(one.labels)
        if pairs["__name__"].startswith("container_"):
            for container in ("", "POD", "istio-proxy"):
                other = {**pairs, "container": container, "id": f"/{container}"}
                extra.append(Series(tuple(sorted(other.items())), one.times, one.values * 7))
    shared.write(series + extra)
    panel = KubernetesCluster(settings).metrics(T0, shop.times[-1], SCRAPE)
    np.testing.assert_allclose(panel.values[1:, 0, :3], np.broadcast_to([2, 0.5, 0.25], (7, 3)), rtol=1e-5)


def test_without_kube_state_metrics_running_containers_are_counted(shared, tmp_path):
    settings = load_settings(settings_file(tmp_path, shared, "nokube", {"web": {}, "carts": {}}))
    shop = Shop(settings.app, 20, requests_per_second=wave(20, 2), pods=np.tile([3, 1], (20, 1)))
    series = [
        one
        for one in exposition_series(shop.snapshots(), shop.app)
        if not dict(one.labels)["__name__"].startswith("kube_")
    ]
    shared.write(series)
    cluster = KubernetesCluster(settings, clock=lambda: float(shop.times[-1]), past=True)
    np.testing.assert_array_equal(cluster.metrics(T0, shop.times[-1], SCRAPE).feature("pod"), shop.pods)
    web, carts = cluster.workloads()
    assert (web.replicas, web.cpu_limit_cores, web.cpu_request_cores, web.memory_limit_bytes) == (
        3,
        LIMIT,
        None,
        120e6,
    )
    assert (carts.replicas, carts.memory_limit_bytes) == (1, 240e6)


def test_without_a_limit_cpu_is_taken_against_the_request(shared, tmp_path):
    settings = load_settings(settings_file(tmp_path, shared, "request", {"web": {}}))
    shop = Shop(settings.app, 8, requests_per_second=wave(8, 1), limit=None, utilisation=1.5)
    shared.write(exposition_series(shop.snapshots(), shop.app))
    panel = KubernetesCluster(settings).metrics(T0, shop.times[-1], SCRAPE)
    np.testing.assert_allclose(panel.feature("cpu")[1:, 0], 1.5, rtol=1e-5)


def test_a_service_with_neither_limit_nor_request_is_refused_by_name(shared, tmp_path, capsys):
    path = settings_file(tmp_path, shared, "bare", {"web": {}, "bare": {}})
    app = load_settings(path).app
    both = Shop(app, 8, requests_per_second=wave(8, 2))
    none = Shop(app, 8, requests_per_second=wave(8, 2), limit=None, request=None)
    snapshots = [
        CounterSnapshot(one.time, {"web": one.services["web"], "bare": two.services["bare"]})
        for one, two in zip(both.snapshots(), none.snapshots(), strict=True)
    ]
    shared.write(exposition_series(snapshots, app))
    assert (
        metrics_fetch.main(["--config", str(path), "--start", utc_text(T0), "--end", utc_text(T0 + 105)]) == 1
    )
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("metrics_fetch: ")]
    assert "cpu of bare: neither a CPU limit nor a CPU request" in line and "web" not in line
    assert not (tmp_path / "data").exists()


# ----------------------------------------------------------------------------------------------- the requests
class Counting(requests.adapters.HTTPAdapter):
    def __init__(self):
        super().__init__()
        self.sent = []

    def send(self, request, **options):
        self.sent.append(request)
        return super().send(request, **options)


def counted(path):
    adapter = Counting()
    session = requests.Session()
    session.mount("http://", adapter)
    return KubernetesCluster(load_settings(path), session), adapter


def test_requests_dont_grow_with_services_and_the_url_has_no_limit(shared, tmp_path):
    sent = {}
    for count in (2, 300):
        services = {f"a-rather-long-name-of-a-service-{n}": {} for n in range(count)}
        path = settings_file(tmp_path, shared, f"many{count}", services)
        app = load_settings(path).app
        shop = Shop(app, 4, requests_per_second=wave(4, count), pods=np.ones((4, count), int))
        series = [
            one
            for one in exposition_series(shop.snapshots(), app)
            if not dict(one.labels)["__name__"].endswith("_bucket")
        ]
        shared.write(series)
        cluster, adapter = counted(path)
        if count == 300 and shared.name == "victoria_metrics":  # it takes 16 KiB unless told otherwise
            with pytest.raises(MetricsError, match=r"start it with -search\.maxQueryLen=1MiB"):
                cluster.metrics(T0, T0 + 45, SCRAPE)
            return
        panel = cluster.metrics(T0, T0 + 45, SCRAPE)
        assert np.isfinite(panel.values[2:]).all()
        sent[count] = len(adapter.sent)
        assert all(request.method == "POST" and len(request.url) < 100 for request in adapter.sent)
    assert sent == {2: 10, 300: 10}


def test_more_than_eleven_thousand_points_are_fetched_in_chunks(own, tmp_path):
    path = settings_file(tmp_path, own, "long", {"web": {}})
    shop = Shop(load_settings(path).app, 820, requests_per_second=wave(820, 1))
    remote_write(own.url, exposition_series(shop.snapshots(), shop.app))
    whole = PrometheusClient(Prometheus(url=own.url, retries=0))
    with pytest.raises(MetricsError, match="exceeded maximum resolution of 11,000 points"):
        whole.query_range("vector(1)", T0, T0 + 12_000, 1.0, chunk_points=12_000)
    cluster, adapter = counted(path)
    panel = cluster.metrics(T0, T0 + 12_000, 1.0)
    assert len(panel) == 12_001 and len(adapter.sent) == 2 * 10
    np.testing.assert_allclose(panel.feature("req")[15::15, 0], 1.25 * shop.rates[1:801, 0], rtol=1e-5)
    assert np.isfinite(panel.values[15:]).all()


def test_nan_and_infinity_come_through_http(shared):
    client = PrometheusClient(Prometheus(url=shared.url))
    assert np.isnan(client.query_range("vector(0) / 0", T0, T0 + 30, 15.0).values).all()
    assert np.isposinf(client.query_range("vector(1) / 0", T0, T0 + 30, 15.0).values).all()


def test_a_query_of_ones_own_may_give_the_whole_ratio(shared, tmp_path):
    own_query = {
        "req": {
            "query": 'sum by (app) (irate(app_requests{ns="{namespace}",app=~"{services}"}[{window}]))',
            "label": "app",
        }
    }
    settings = load_settings(settings_file(tmp_path, shared, "ownquery", {"web": {}}, queries=own_query))
    shop = Shop(settings.app, 8, requests_per_second=wave(8, 1))
    mine = Series(labels("app_requests", ns="ownquery", app="web"), shop.times, 60 * np.arange(8.0))
    shared.write([*exposition_series(shop.snapshots(), shop.app), mine])
    panel = KubernetesCluster(settings).metrics(T0, shop.times[-1], SCRAPE)
    np.testing.assert_allclose(panel.feature("req")[1:, 0], 4, rtol=1e-6)


def test_no_such_series_is_one_line_with_the_query(shared, tmp_path, capsys):
    path = settings_file(tmp_path, shared, "nowhere", {"web": {}})
    assert (
        metrics_fetch.main(["--config", str(path), "--start", utc_text(T0), "--end", utc_text(T0 + 105)]) == 1
    )
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("metrics_fetch: ")]
    assert (
        "Prometheus answered but knows no such series" in line
        and 'kube_deployment_status_replicas_ready{namespace="nowhere"' in line
    )


# ------------------------------------------------------------------------------- calls, latencies and objects
def test_callers_that_are_no_services_are_external(shared, tmp_path):
    services = {"web": {}, "reviews": {"workloads": ["reviews-v1", "reviews-v2"]}}
    settings = load_settings(settings_file(tmp_path, shared, "callers", services))
    times = T0 + SCRAPE * np.arange(21)

    def traffic(rate, source, namespace, to, reporter="destination"):
        pairs = {
            "source_workload": source,
            "source_workload_namespace": namespace,
            "destination_workload": to,
            "reporter": reporter,
        }
        return Series(
            labels("istio_requests_total", destination_workload_namespace="callers", **pairs),
            times,
            rate * (times - T0),
        )

    series = [
        traffic(1, "unknown", "unknown", "web"),
        traffic(2, "istio-ingressgateway", "istio-system", "web"),
        traffic(4, "web", "another", "web"),  # the same name elsewhere is not this service
        traffic(8, "loadgenerator", "callers", "web"),
        traffic(16, "web", "callers", "reviews-v1"),
        traffic(32, "web", "callers", "reviews-v2"),
        traffic(64, "reviews-v2", "callers", "reviews-v1"),
        traffic(128, "web", "callers", "reviews-v1", reporter="source"),
    ]
    shared.write(series)
    calls = KubernetesCluster(settings).calls(T0, T0 + 300)
    assert {(row.caller, row.callee): round(row.calls_per_second, 3) for row in calls.frame.itertuples()} == {
        (EXTERNAL, "web"): 15,
        ("web", "reviews"): 48,
        ("reviews", "reviews"): 64,
    }
    assert set(calls.frame["time"]) == {T0 + 300}


def test_latencies_count_what_enters_the_application(shared, tmp_path):
    settings = load_settings(settings_file(tmp_path, shared, "entry", {"web": {}, "carts": {}}))
    times = T0 + SCRAPE * np.arange(21)
    route = {
        "reporter": "destination",
        "destination_workload": "web",
        "destination_workload_namespace": "entry",
    }
    outside = {"source_workload": "istio-ingressgateway", "source_workload_namespace": "istio-system"}
    inside = {"source_workload": "carts", "source_workload_namespace": "entry"}
    grown = times - T0
    series = []
    for source, factor in ((outside, 1.0), (inside, 50.0)):
        for code, rate in (("200", 10.0), ("404", 2.0), ("503", 1.0), ("0", 0.5)):
            pairs = {**route, **source, "response_code": code}
            series.append(Series(labels("istio_requests_total", **pairs), times, factor * rate * grown))
            series.append(
                Series(
                    labels("istio_request_duration_milliseconds_sum", **pairs),
                    times,
                    factor * rate * 120 * grown,
                )
            )
            # half took up to 0.1 s, half between 0.1 and 0.25 s
            for bound in (*ISTIO_BOUNDS_SECONDS, np.inf):
                share = 1.0 if bound >= 0.25 else 0.5 if bound >= 0.1 else 0.0
                bucket = {**pairs, "le": "+Inf" if np.isinf(bound) else f"{bound * 1000:g}"}
                count = factor * rate * share * grown
                series.append(
                    Series(labels("istio_request_duration_milliseconds_bucket", **bucket), times, count)
                )
    shared.write(series)
    table = KubernetesCluster(settings).latencies(T0, T0 + 300, 60.0)
    assert list(table["time"]) == [T0 + 60 * k for k in range(1, 6)] and set(table["endpoint"]) == {"GET /"}
    half = 12 * 60 / 2  # spread evenly over (50, 100] ms and over (100, 250] ms; the SLO is 150 ms
    counts = {"offered": 13.5 * 60, "failed": 1.5 * 60, "done": 12 * 60, "duration_seconds": 12 * 60 * 0.12}
    counts |= {"slow": half * 2 / 3, "le_0.05": 0, "le_0.075": half / 2, "le_0.1": half / 2}
    counts |= {"le_0.15": half / 3, "le_0.2": half / 3, "le_0.25": half / 3, "le_1": 0, "le_inf": 0}
    for column, expected in counts.items():
        np.testing.assert_allclose(table[column], expected, rtol=1e-6, atol=1e-6, err_msg=column)
    buckets = table[[f"le_{bound:g}" for bound in LATENCY_BUCKETS] + ["le_inf"]]
    np.testing.assert_allclose(buckets.sum(axis=1), table["done"], rtol=1e-6)
    load = KubernetesCluster(settings).entered(T0 - 120, T0 + 300, 60.0)
    np.testing.assert_allclose(load[2:], 13.5, rtol=1e-6)
    assert not np.nan_to_num(load[:2]).any()  # the time before is unknown, or began with nothing


def test_objects_are_read_from_kube_state_metrics(shared, tmp_path):
    settings = load_settings(settings_file(tmp_path, shared, "objects", {"web": {}, "carts": {}}))
    shop = Shop(settings.app, 8, requests_per_second=wave(8, 2), pods=np.tile([1, 3], (8, 1)))
    info = {
        "namespace": "objects",
        "horizontalpodautoscaler": "web-hpa",
        "scaletargetref_kind": "Deployment",
        "scaletargetref_name": "web",
    }
    hpa = Series(labels("kube_horizontalpodautoscaler_info", **info), shop.times, np.ones(8))
    shared.write([*exposition_series(shop.snapshots(), shop.app), hpa])
    cluster = KubernetesCluster(settings, clock=lambda: float(shop.times[-1]), past=True)
    web, carts = cluster.workloads()
    assert (web.service, web.replicas, web.cpu_limit_cores, web.cpu_request_cores) == ("web", 1, LIMIT, 0.1)
    assert (web.memory_limit_bytes, web.memory_request_bytes) == (120e6, 60e6)
    assert (
        web.autoscalers == ("HorizontalPodAutoscaler/web-hpa",)
        and carts.autoscalers == ()
        and carts.replicas == 3
    )
    pods = cluster.pods()
    assert [pod.service for pod in pods] == ["carts"] * 3 + ["web"]
    pod = pods[-1]
    assert (pod.phase, pod.ready, pod.deleting, pod.start_time, pod.cpu_request_cores) == (
        "Running",
        True,
        False,
        T0,
        0.1,
    )
    assert pod.usage_time == shop.times[-1] and pod.usage_cores == pytest.approx(0.5 * LIMIT)


# ------------------------------------------------------------------------------------------------- the server
def test_a_metrics_page_is_what_prometheus_parses(tmp_path):
    if prometheus_server.find() is None:
        start_or_skip()
    server = type("Nowhere", (), {"url": "http://127.0.0.1:1"})
    app = load_settings(settings_file(tmp_path, server, "page", {"web": {}})).app
    [snapshot] = Shop(app, 1, requests_per_second=wave(1, 1)).snapshots()
    page = exposition_text(snapshot, app)
    promtool = prometheus_server.find().with_name("promtool")
    if promtool.exists():
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False
        )
        assert "error while linting" not in checked.stderr and "parse" not in checked.stderr.lower(), (
            checked.stderr
        )
    assert 'kube_deployment_spec_replicas{deployment="web",namespace="page"} 2.0\n' in page


def test_the_server_ends_with_its_block_and_leaves_nothing(tmp_path):
    with start_or_skip() as server:
        assert requests.get(f"{server.url}/-/ready", timeout=5).status_code == 200
        assert server.url.startswith("http://127.0.0.1:")
    assert not Path(f"/proc/{server.pid}").exists() and not server.directory.exists()
    with pytest.raises(MetricsError, match="is Prometheus running there"):
        remote_write(server.url, [Series(labels("x"), np.array([T0]), np.array([1.0]))])


def test_samples_out_of_bounds_are_refused_aloud(own):
    one = Series(labels("x"), np.array([T0]), np.array([1.0]))
    remote_write(own.url, [one])
    with pytest.raises(MetricsError, match=r"HTTP 400 \(.*out of bounds|too old"):
        remote_write(own.url, [Series(labels("x"), np.array([T0 - 1e6]), np.array([1.0]))])


def test_no_program_says_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(prometheus_server, "UNPACKED", tmp_path / "debian")
    assert prometheus_server.find() is None
    with (
        pytest.raises(ClusterError, match=r"python -m testbed\.live\.prometheus_server --install"),
        running(),
    ):
        pass
    assert prometheus_server.main(["--install"]) == 1
    assert "no apt-get on this machine; put a prometheus program on PATH" in capsys.readouterr().err


def test_a_server_that_cant_start_gives_its_log(own):
    port = int(own.url.rpartition(":")[2])
    with pytest.raises(ClusterError, match="address already in use"), running(port=port):
        pass


def test_four_days_of_ten_services_are_read_whole(own, tmp_path):
    length, count = 4 * 1440 + 1, 10
    path = settings_file(tmp_path, own, "days", {f"s{n}": {} for n in range(count)}, step=60.0, window="2m")
    app = load_settings(path).app
    rates = wave(length, count)
    counts = np.cumsum(rates * 60, axis=0)
    snapshots = []
    for k in range(length):
        services = {}
        for n, service in enumerate(app.services):
            caller = EXTERNAL if n == 0 else "s0"
            services[service] = ServiceCounters(
                pods=tuple(PodCounters(pod_name(service, j), 0.1 * 60 * k, 5e7) for j in range(2)),
                spec_replicas=2,
                cpu_limit_cores=LIMIT,
                cpu_request_cores=0.1,
                memory_limit_bytes=1e8,
                requests={(caller, 200): counts[k, n]},
                durations={(caller, 200): Durations(0.01 * counts[k, n], counts[k, n])},
            )
        snapshots.append(CounterSnapshot(T0 + 60 * k, services))
    remote_write(own.url, exposition_series(snapshots, app))
    panel = KubernetesCluster(load_settings(path)).metrics(T0, T0 + 60 * (length - 1), 60.0)
    np.testing.assert_allclose(panel.feature("req")[1:], rates[1:], rtol=1e-4)
    assert np.isfinite(panel.values[1:]).all() and len(panel) == length


# ---------------------------------------------------------------------------- K1: one source of share, limit
def without(series, *prefixes):
    return [one for one in series if not dict(one.labels)["__name__"].startswith(prefixes)]


def api_says(cluster, monkeypatch, **amounts):
    """The Kubernetes API knows these amounts of `web`."""
    item = Workload("web", 2, amounts.get("limit"), 0.1, memory_limit_bytes=120e6)
    monkeypatch.setattr(cluster._orchestrator, "workloads", lambda: [item])


@pytest.mark.field
def test_a_limit_that_cadvisor_drops_comes_from_kube_state_metrics(shared, tmp_path):
    settings = load_settings(settings_file(tmp_path, shared, "dropped", {"web": {}}))
    shop = Shop(settings.app, 8, requests_per_second=wave(8, 1))
    series = without(exposition_series(shop.snapshots(), shop.app), "container_spec_")
    shared.write(series)
    cluster = KubernetesCluster(settings, clock=lambda: float(shop.times[-1]), past=True)
    panel = cluster.metrics(T0, shop.times[-1], SCRAPE)
    np.testing.assert_allclose(panel.values[1:, 0, :3], np.broadcast_to([2, 0.5, 0.25], (7, 3)), rtol=1e-5)
    assert cluster.workloads()[0].cpu_limit_cores == LIMIT


@pytest.mark.field
@pytest.mark.parametrize("limit", [LIMIT, None])
def test_a_limit_that_prometheus_doesnt_know_comes_from_the_api(shared, tmp_path, monkeypatch, caplog, limit):
    namespace = f"unknown{'-request' if limit is None else ''}"
    settings = load_settings(settings_file(tmp_path, shared, namespace, {"web": {}}))
    shop = Shop(settings.app, 8, requests_per_second=wave(8, 1))
    dropped = ("container_spec_", "kube_pod_container_resource_limits")
    shared.write(without(exposition_series(shop.snapshots(), shop.app), *dropped))
    cluster = KubernetesCluster(settings, clock=lambda: float(shop.times[-1]), past=True)
    api_says(cluster, monkeypatch, limit=limit)
    panel = cluster.metrics(T0, shop.times[-1], SCRAPE)
    share = 0.5 if limit else 1.0  # of the limit, or of the request, which is half of it
    np.testing.assert_allclose(panel.feature("cpu")[1:, 0], share, rtol=1e-5)
    np.testing.assert_allclose(panel.feature("mem")[1:, 0], 0.25, rtol=1e-5)
    [web] = cluster.workloads()
    assert (web.cpu_limit_cores, web.cpu_request_cores, web.memory_limit_bytes) == (limit, 0.1, 120e6)
    said = "the limit is the Kubernetes API's" if limit else "it is a share of the request"
    assert f"cpu of web: {'Prometheus knows no limit' if limit else 'no limit is known'}" in caplog.text
    assert said in caplog.text


@pytest.mark.field
def test_a_service_that_showed_a_limit_is_never_compared_with_its_request(shared, tmp_path, monkeypatch):
    settings = load_settings(settings_file(tmp_path, shared, "lost", {"web": {}}))
    shop = Shop(settings.app, 41, requests_per_second=wave(41, 1))
    series = exposition_series(shop.snapshots(), shop.app)
    limits = ("container_spec_", "kube_pod_container_resource_limits")
    ends = [
        Series(one.labels, one.times[:9], np.append(one.values[:8], STALE))
        for one in series
        if dict(one.labels)["__name__"].startswith(limits)
    ]
    shared.write([*without(series, *limits), *ends])
    cluster = KubernetesCluster(settings)
    monkeypatch.setattr(cluster._orchestrator, "workloads", lambda: [])
    np.testing.assert_allclose(cluster.metrics(T0, T0 + 105, SCRAPE).feature("cpu")[1:], 0.5, rtol=1e-5)
    assert np.isnan(cluster.metrics(T0 + 300, T0 + 405, SCRAPE).feature("cpu")).all()


# ----------------------------------------------------------------------------- K2: series of several sources
def again(series, prefixes, **extra):
    """The same series once more, with labels of another scrape or cluster."""
    return [
        Series(tuple(sorted({**dict(one.labels), **extra}.items())), one.times, one.values)
        for one in series
        if dict(one.labels)["__name__"].startswith(prefixes)
    ]


@pytest.mark.field
@pytest.mark.parametrize("prefixes", [("container_",), ("kube_",), ("container_", "kube_")])
def test_what_several_scrapes_report_counts_once(shared, tmp_path, prefixes):
    namespace = f"twice-{'-'.join(prefixes).replace('_', '')}"
    settings = load_settings(settings_file(tmp_path, shared, namespace, {"web": {}}))
    shop = Shop(settings.app, 8, requests_per_second=wave(8, 1))
    series = exposition_series(shop.snapshots(), shop.app)
    shared.write([*series, *again(series, prefixes, instance="10.0.0.9:10250", job="kubelet")])
    cluster = KubernetesCluster(settings, clock=lambda: float(shop.times[-1]), past=True)
    panel = cluster.metrics(T0, shop.times[-1], SCRAPE)
    np.testing.assert_allclose(panel.values[1:, 0, :3], np.broadcast_to([2, 0.5, 0.25], (7, 3)), rtol=1e-5)
    pods = cluster.pods()
    assert [(pod.cpu_request_cores, pod.usage_cores) for pod in pods] == [
        (0.1, pytest.approx(0.5 * LIMIT))
    ] * 2
    [web] = cluster.workloads()
    assert (web.replicas, web.cpu_limit_cores, web.cpu_request_cores) == (2, LIMIT, 0.1)


@pytest.mark.field
def test_istio_reports_scraped_under_two_jobs_count_once(shared, tmp_path):
    settings = load_settings(settings_file(tmp_path, shared, "twojobs", {"web": {}}))
    shop = Shop(settings.app, 21, requests_per_second=wave(21, 1))
    series = exposition_series(shop.snapshots(), shop.app)
    first = again(series, ("istio_",), pod="web-a", instance="10.0.0.1:15020", job="pods")
    second = again(series, ("istio_",), pod="web-a", instance="10.0.0.1:15090", job="envoy-stats")
    other_pod = again(series, ("istio_",), pod="web-b", instance="10.0.0.2:15020", job="pods")
    shared.write([*without(series, "istio_"), *first, *second, *other_pod])
    cluster = KubernetesCluster(settings)
    served = 2 * 1.25 * shop.rates[1:, 0]  # by two pods
    np.testing.assert_allclose(
        cluster.metrics(T0, shop.times[-1], SCRAPE).feature("req")[1:, 0], served, 1e-5
    )
    rate = cluster.calls(T0, T0 + 300).external_rates(("web",))
    np.testing.assert_allclose(rate, served.mean(), rtol=0.03)
    offered = cluster.latencies(T0, T0 + 300, 60.0)["offered"]
    np.testing.assert_allclose(offered.mean(), 60 * served.mean(), rtol=0.05)


@pytest.mark.field
def test_matchers_keep_other_clusters_out_of_every_query(shared, tmp_path):
    path = settings_file(tmp_path, shared, "clusters", {"web": {}})
    settings = load_settings(path, ['cluster.prometheus.matchers=\'cluster="a", job!="old"\''])
    shop = Shop(settings.app, 21, requests_per_second=wave(21, 1))
    busy = Shop(settings.app, 21, requests_per_second=9 * wave(21, 1), pods=np.full((21, 1), 7), limit=1.0)
    for one, name in ((shop, "a"), (busy, "b")):
        shared.write(again(exposition_series(one.snapshots(), one.app), ("",), cluster=name))
    cluster = KubernetesCluster(settings, clock=lambda: float(shop.times[-1]), past=True)
    panel = cluster.metrics(T0, shop.times[-1], SCRAPE)
    np.testing.assert_allclose(panel.values[1:, 0, :3], np.broadcast_to([2, 0.5, 0.25], (20, 3)), rtol=1e-5)
    np.testing.assert_allclose(panel.feature("req")[1:, 0], 1.25 * shop.rates[1:, 0], rtol=1e-5)
    assert len(cluster.pods()) == 2 and cluster.workloads()[0].cpu_limit_cores == LIMIT
    expected = 1.25 * shop.rates[1:, 0].mean()
    np.testing.assert_allclose(cluster.calls(T0, T0 + 300).external_rates(("web",)), expected, rtol=0.02)
    offered = cluster.latencies(T0, T0 + 300, 60.0)["offered"]
    np.testing.assert_allclose(offered.mean(), 60 * expected, rtol=0.02)


# ---------------------------------------------------------------- K8: reports of another shape
def entered(namespace, rates, reporter="destination", grown=20.0, **more):
    """Requests per second from outside at `web`, by the labels response_code and grpc_response_status."""
    times = T0 + SCRAPE * np.arange(21)
    where = {"destination_workload": "web", "destination_workload_namespace": namespace, "reporter": reporter}
    where |= {"source_workload": "gateway", "source_workload_namespace": "istio-system", **more}
    out = []
    for (code, grpc), rate in rates.items():
        pairs = {**where, "response_code": code, **({"grpc_response_status": grpc} if grpc else {})}
        count = rate * (times - T0)
        out.append(Series(labels("istio_requests_total", **pairs), times, count))
        for part, factor in (("sum", grown), ("count", 1.0)):
            name = f"istio_request_duration_milliseconds_{part}"
            out.append(Series(labels(name, **pairs), times, factor * count))
    return out


@pytest.mark.field
@pytest.mark.parametrize("reporters", [("waypoint",), ("destination", "waypoint"), ("destination", "source")])
def test_the_destination_reports_or_else_its_waypoint(shared, tmp_path, reporters):
    namespace = f"ambient-{'-'.join(reporters)}"
    settings = load_settings(settings_file(tmp_path, shared, namespace, {"web": {}}))
    shop = Shop(settings.app, 21, requests_per_second=wave(21, 1))
    series = without(exposition_series(shop.snapshots(), shop.app), "istio_")
    for reporter in reporters:
        series += entered(namespace, {("200", ""): 8.0}, reporter)
    shared.write(series)
    cluster = KubernetesCluster(settings)
    panel = cluster.metrics(T0, T0 + 300, SCRAPE)
    np.testing.assert_allclose(panel.feature("req")[1:, 0], 8, rtol=1e-5)
    np.testing.assert_allclose(panel.feature("res")[1:, 0], 0.02, rtol=1e-5)
    np.testing.assert_allclose(cluster.calls(T0, T0 + 300).external_rates(("web",)), 8, rtol=1e-5)
    np.testing.assert_allclose(cluster.latencies(T0, T0 + 300, 60.0)["done"], 480, rtol=1e-5)


@pytest.mark.field
@pytest.mark.parametrize(
    ("rates", "share"),
    [
        ({("200", "0"): 2.0, ("200", "14"): 8.0}, 0.8),
        ({("200", ""): 5.0, ("200", "4"): 2.0, ("200", "13"): 2.0, ("503", "14"): 1.0}, 0.5),
        ({("200", "0"): 5.0, ("200", "5"): 4.0, ("200", "16"): 1.0}, 0.0),  # the request was to blame
        ({("200", "14"): 3.0}, 1.0),
    ],
)
def test_grpc_errors_of_the_server_count_as_failures(shared, tmp_path, rates, share):
    namespace = f"grpc{round(10 * share)}"
    settings = load_settings(settings_file(tmp_path, shared, namespace, {"web": {}}))
    shared.write(entered(namespace, rates))
    table = KubernetesCluster(settings).latencies(T0, T0 + 300, 60.0)
    np.testing.assert_allclose(table["failed"] / table["offered"], share, atol=1e-6)
    np.testing.assert_allclose(table["done"], 60 * sum(rates.values()) * (1 - share), atol=1e-4)


@pytest.mark.field
def test_entry_queries_can_be_set(shared, tmp_path):
    template = (
        'sum by (app) (rate(own_requests{{ns="{{namespace}}",ok=~"{}",app=~"{{services}}"}}[{{window}}]))'
    )
    own = {
        name: {"query": template.format(ok), "label": "app"}
        for name, ok in (("offered", ".*"), ("done", "yes"))
    }
    settings = load_settings(settings_file(tmp_path, shared, "own", {"web": {}}, entry_queries=own))
    times = T0 + SCRAPE * np.arange(21)
    one, two = (
        Series(labels("own_requests", ns="own", app="web", ok=ok), times, rate * (times - T0))
        for ok, rate in (("yes", 3.0), ("no", 1.0))
    )
    shared.write([one, two])
    table = KubernetesCluster(settings).latencies(T0, T0 + 300, 60.0)
    np.testing.assert_allclose(table[["offered", "done", "failed"]], [[240, 180, 60]] * 5, rtol=1e-5)
