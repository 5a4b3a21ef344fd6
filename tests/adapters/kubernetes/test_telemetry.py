"""Series of Prometheus become features of services."""

import logging

import numpy as np
import pytest
from helpers.http_script import Script, matrix
from helpers.kube_shop import make

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.kubernetes.limits import Limits
from deepscaler.adapters.kubernetes.telemetry import Telemetry, cumulative
from deepscaler.adapters.prometheus import PrometheusClient, RangeVector, grid
from deepscaler.adapters.queries import FEATURE_QUERIES
from deepscaler.cluster import ENDPOINT_COLUMNS
from deepscaler.errors import MetricsError
from deepscaler.settings import Settings

T0 = 1_767_571_200.0


@pytest.mark.parametrize(
    "entered, waited",
    [
        ([{}, {}], np.nan),  # nobody outside is known
        ([{"v1": "0.3", "v2": "0.5"}, {"v1": "1", "v2": "1"}], 0.4),
        ([{"v1": "0", "v2": "0"}, {"v1": "0", "v2": "0"}], np.nan),  # none of late
        ([{"v1": "0.3"}, {}], np.nan),
        ([{"v1": "NaN", "v2": "0.3"}, {"v1": "0", "v2": "1"}], 0.3),
        ([{"v1": "-3"}, {"v1": "1"}], np.nan),
        ([{"v1": "+Inf"}, {"v1": "1"}], np.nan),
    ],
)
def test_series_of_one_service_are_added_before_they_are_divided(entered, waited, caplog):
    """reviews: 2 of 4 cores in v1, 1 of 1 in v2: 3 / 5, not 0.5 + 1. Users may wait longer than callers."""
    answers = {
        "cpu": [{"v1": "2", "v2": "1"}, {"v1": "4", "v2": "1"}],
        "mem": [{"v1": "1"}, {"v1": "2"}],
        "res": [{"v1": "0.3", "v2": "0.1"}, {"v1": "1", "v2": "3"}],
        "req": [{"v1": "1", "v2": "3"}],
        "pod": [{"v1": "2", "v2": "1"}],
    }
    script = [
        matrix(*(({FEATURE_QUERIES[feature].label: name}, {T0: text}) for name, text in answer.items()))
        for feature, parts in [*((name, answers[name]) for name in FEATURE_QUERIES), ("res", entered)]
        for answer in parts
    ]
    with Script(*script) as server, caplog.at_level(logging.WARNING):
        services = {"reviews": {"workloads": ["v1", "v2"]}, "gone": {}}
        entries = [{"name": "GET /", "service": "reviews"}]
        document = {
            "app": {"name": "shop", "namespace": "shop", "services": services, "entries": entries},
            "cluster": {"kind": "kubernetes", "prometheus": {"url": server.url}},
        }
        panel = KubernetesCluster(Settings.model_validate(document)).metrics(T0, T0, 15.0)
    np.testing.assert_allclose(panel.values[0, 0], [3, 0.6, 0.5, 0.1, 4], rtol=1e-6)
    np.testing.assert_allclose(panel.waited, [waited], rtol=1e-6)
    assert np.isnan(panel.values[0, 1]).all() and "gone: no samples of pod, cpu, mem, res, req" in caplog.text


def test_metrics_that_a_service_never_had_are_named_once(caplog, monkeypatch):
    """A store that speaks TCP has no requests; an hour without any, or a shorter span, is nothing new."""
    known = {"web": {"res", "req"}, "redis": set()}

    def answer(_self, query, start, end, step, **_):
        times = grid(start, end, step)
        of_requests = "istio" in query
        label = "destination_workload" if of_requests else "deployment"
        names = [name for name in known if not of_requests or "req" in known[name]]
        return RangeVector(times, tuple({label: name} for name in names), np.ones((len(names), len(times))))

    monkeypatch.setattr(PrometheusClient, "query_range", answer)
    services = {"web": {}, "redis": {"scaled": False}}
    entries = [{"name": "GET /", "service": "web"}]
    app = {"name": "shop", "namespace": "shop", "services": services, "entries": entries}
    settings = Settings.model_validate({"app": app, "cluster": {"kind": "kubernetes"}})
    telemetry = Telemetry(settings, PrometheusClient(settings.cluster.prometheus), live=True)

    def told(tick, rows=40):
        caplog.clear()
        telemetry.metrics(T0 + 60.0 * tick - 15.0 * rows, T0 + 60.0 * tick, 15.0)
        return [record.getMessage() for record in caplog.records if "samples" in record.getMessage()]

    advice = "check app.services.redis (deployment, container, workloads)"
    assert told(0) == [f"redis: no samples of res, req; {advice}"]
    assert told(1) == told(2, rows=4) == told(3) == []
    known["redis"] = {"req"}
    assert told(4) == ["redis: samples of all metrics are there"]
    known["redis"] = set()
    assert told(5, rows=4) == told(6) == []


def test_counts_between_the_bounds_of_a_histogram_are_spread_evenly():
    """10 up to 0.1 s, 30 up to 0.2 s, 40 in all."""
    buckets = {0.1: np.array([10.0]), 0.2: np.array([30.0]), np.inf: np.array([40.0])}
    at = np.array([0.05, 0.1, 0.15, 0.2, 1.0, np.inf])
    np.testing.assert_allclose(cumulative(buckets, at, 1)[:, 0], [5, 10, 20, 30, 30, 40])


def test_without_a_histogram_counts_are_unknown():
    assert np.isnan(cumulative({np.inf: np.ones(3)}, np.array([0.1, np.inf]), 3)).all()


@pytest.mark.field
@pytest.mark.parametrize(("mean", "kept"), [(0.54, True), (1.0, True), (1.08, False), (2.0, False)])
def test_a_mean_share_above_the_limit_is_missing_and_named(caplog, mean, kept):
    used = mean + 0.03 * np.array([[1.0, -1, 1, -1, 1, -1], [0.0] * 6])
    shares = Limits(("web", "idle"), dict).shares("cpu", used, np.ones((2, 6)), lambda _: np.ones((2, 6)))
    assert np.isfinite(shares[0]).all() == kept and ("cpu of web: more than" in caplog.text) != kept


@pytest.mark.field
def test_a_share_of_the_request_may_be_above_one():
    unknown, known = np.full((1, 6), np.nan), np.full((1, 6), 0.1)
    shares = Limits(("web",), dict).shares("cpu", 3 * known, unknown, lambda _: known)
    np.testing.assert_allclose(shares, 3)


@pytest.mark.field
def test_a_run_shorter_than_a_step_has_no_response_times_and_no_error(stub, tmp_path):
    cluster = KubernetesCluster(make(stub, tmp_path))  # whose Prometheus isn't there
    found = cluster.latencies(T0, T0 + 14.0, 15.0)
    assert list(found.columns) == list(ENDPOINT_COLUMNS) and found.empty
    with pytest.raises(MetricsError):
        cluster.latencies(T0, T0 + 15.0, 15.0)


@pytest.mark.stress
@pytest.mark.parametrize("value", [-3.0, 1e30, -1e30])
def test_impossible_values_are_missing_and_named_when_they_begin(value, caplog):
    settings = Settings.model_validate(
        {
            "app": {
                "name": "shop",
                "namespace": "shop",
                "services": {"web": {}, "api": {}},
                "entries": [{"name": "GET /", "service": "web"}],
            }
        }
    )
    telemetry = Telemetry(settings, PrometheusClient(settings.cluster.prometheus))
    values = np.full((4, 2, 5), 0.5)
    values[2, 0, 4] = value
    for _ in range(3):
        kept = telemetry._plausible(values)
    assert np.isnan(kept[2, 0, 4]) and np.isfinite(kept).sum() == kept.size - 1
    assert caplog.text.count("req of web: 1 of 4 values are impossible") == 1
    telemetry._plausible(np.full((4, 2, 5), 0.5))
    assert "req of web: well again" in caplog.text
