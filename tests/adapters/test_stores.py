"""Prometheus and VictoriaMetrics, where they differ: the numbers are the same, or they are missing."""

import json
import time
from itertools import product

import numpy as np
import pytest
import requests
from helpers import stores
from helpers.paper_shop import SCRAPE, T0, Shop, settings_file, wave

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.settings import Prometheus, load_settings
from testbed.cluster.exposition import Series, exposition_series, labels

pytestmark = pytest.mark.field


@pytest.fixture(scope="module", params=stores.STORES)
def store(request):
    with stores.running(request.param) as server:
        yield server


@pytest.fixture(scope="module")
def both():
    with stores.running("prometheus") as one, stores.running("victoria_metrics") as other:
        yield one, other


@pytest.mark.parametrize(
    ("points", "phase", "query"),
    list(product((1, 10, 49, 50, 80), (0.0, 7.0), ("newest_{n}", "irate(newest_{n}[1m])"))),
)
def test_the_newest_samples_are_seen_however_many_are_asked_for(store, points, phase, query):
    """Neither the grid on which VictoriaMetrics answers 50 points and more, nor its repeats, get through.

    Each sample counts more than the one before, so that each value tells which sample it is of.
    """
    now = time.time()
    times = now - SCRAPE * np.arange(100, -1, -1.0)
    values = np.cumsum(SCRAPE * np.arange(101.0))
    name = f"newest_{points}_{phase:g}_{len(query)}"
    store.write([Series(labels(name), times, values)])
    asked = now - phase
    client = PrometheusClient(Prometheus(url=store.url, retries=0))
    found = client.query_range(
        query.replace("newest_{n}", name), asked - (points - 1) * SCRAPE, asked, SCRAPE
    )
    newest = 101 - (1 if phase == 0 else 2) - np.arange(points - 1, -1, -1)  # the last sample not after each
    expected = newest if query.startswith("irate") else values[newest]
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-6)


@pytest.mark.parametrize("points", [20, 60])
def test_a_live_tick_reads_what_a_fetch_reads(store, tmp_path, points):
    """The controller asks at its own times, `metrics_fetch.py` at multiples of the step."""
    namespace = f"live{points}"
    settings = load_settings(settings_file(tmp_path, store, namespace, {"web": {}, "carts": {}}))
    shop = Shop(
        settings.app, 90, requests_per_second=wave(90, 2), pods=2 + np.arange(90)[:, None] // [30, 17]
    )
    now = np.floor(time.time() / SCRAPE) * SCRAPE
    shop.times = now - SCRAPE * np.arange(89, -1, -1.0)
    store.write(exposition_series(shop.snapshots(), shop.app))
    cluster = KubernetesCluster(settings)
    start = now - (points - 1) * SCRAPE
    live = cluster.metrics(start + 4.0, now + 4.0, SCRAPE)
    fetched = cluster.metrics(start, now, SCRAPE)
    assert len(live) == points and np.isfinite(fetched.values[1:]).all()
    np.testing.assert_allclose(live.values, fetched.values, rtol=1e-5, equal_nan=True)
    np.testing.assert_array_equal(live.feature("pod"), shop.pods[-points:])


def scrapes_lost(series, lost):
    """The series without some of the scrapes `[L]`."""
    kept = [~lost[np.rint((one.times - T0) / SCRAPE).astype(int)] for one in series]
    return [
        Series(one.labels, one.times[keep], one.values[keep]) for one, keep in zip(series, kept, strict=True)
    ]


def some(*where):
    lost = np.zeros(60, bool)
    for part in where:
        lost[part] = True
    return lost


FAULTS = {
    "none": some(),
    "one scrape": some(7, 19, 33),
    "some scrapes": np.random.default_rng(1).random(60) < 0.15,
    "a minute": some(slice(20, 24)),
    "minutes": some(slice(20, 30)),
    "the end": some(slice(30, 60)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_where_scrapes_are_lost_both_have_the_same_or_nothing(both, tmp_path, fault):
    """VictoriaMetrics forgets a series sooner, and takes the sample before a gap into account."""
    panels, calls = [], []
    for store in both:
        namespace = "lost" + "".join(fault.split())
        settings = load_settings(
            settings_file(tmp_path, store, namespace, {"web": {}, "carts": {}}, calls_window=150)
        )
        series = exposition_series(
            Shop(settings.app, 60, requests_per_second=wave(60, 2)).snapshots(), settings.app
        )
        store.write(scrapes_lost(series, FAULTS[fault]))
        cluster = KubernetesCluster(settings)
        panels += [cluster.metrics(T0 + off, T0 + 59 * SCRAPE + off, SCRAPE) for off in (0.0, 7.0)]
        calls.append(cluster.calls(T0, T0 + 50 * SCRAPE).frame)
    for ours, theirs in ((panels[0], panels[2]), (panels[1], panels[3])):
        known = np.isfinite(ours.values) & np.isfinite(theirs.values)
        np.testing.assert_allclose(ours.values[known], theirs.values[known], rtol=1e-5)
        assert known.mean() > (0.4 if fault == "the end" else 0.75)
        lost = FAULTS[fault]
        if fault in ("none", "one scrape"):
            np.testing.assert_array_equal(np.isfinite(ours.values), np.isfinite(theirs.values))
        assert not np.isfinite(theirs.values[3:][lost[3:] & lost[2:-1] & lost[1:-2] & lost[:-3]]).any()
    one, other = (frame.set_index(["time", "caller", "callee"])["calls_per_second"] for frame in calls)
    if fault in ("none", "one scrape", "some scrapes"):
        np.testing.assert_allclose(one, other.reindex(one.index), rtol=0.06)
    assert (other <= 1.25 * 4).all() and (one <= 1.25 * 4).all()  # never above the highest rate


def test_pods_that_come_and_go_within_a_window_count_for_their_time_only(both, tmp_path):
    """Generations of a pod serve 10 requests per second, one after the other, for 100 s each."""
    route = {
        "reporter": "destination",
        "source_workload": "gateway",
        "source_workload_namespace": "come",
        "destination_workload": "web",
        "destination_workload_namespace": "come",
        "response_code": "200",
    }
    series = []
    for generation in range(6):
        times = T0 + 100 * generation + np.arange(5.0, 100.0, 5.0)
        counts = 10 * (times - times[0] + 5.0)
        series.append(Series(labels("istio_requests_total", pod=f"web-{generation}", **route), times, counts))
    for store in both:
        settings = load_settings(settings_file(tmp_path, store, "come", {"web": {}}, calls_window=300))
        store.write(series)
        calls = KubernetesCluster(settings).calls(T0, T0 + 600).frame
        assert len(calls) == 2
        np.testing.assert_allclose(calls["calls_per_second"], 10.0, rtol=0.06)


def test_history_can_be_imported_as_lines_of_json(tmp_path):
    times = T0 + SCRAPE * np.arange(200)
    with stores.running("victoria_metrics") as store:
        line = {
            "metric": {"__name__": "x", "pod": "a"},
            "values": list(range(200)),
            "timestamps": [1000 * int(t) for t in times],
        }
        requests.post(f"{store.url}/api/v1/import", data=json.dumps(line), timeout=10).raise_for_status()
        store.write([Series(labels("y"), times[:1], np.ones(1))])  # returns when all can be queried
        found = PrometheusClient(Prometheus(url=store.url)).query_range("x", T0, times[-1], SCRAPE)
    np.testing.assert_array_equal(found.values, [np.arange(200)])
