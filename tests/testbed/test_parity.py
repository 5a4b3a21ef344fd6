"""The features and calls of the virtual cluster equal what is read of the same run from real stores.

Both speak of the same scrapes, so a rate over the last two of them is the same number. Only the last bits of
a float32 may differ, and the microseconds to which the exposition rounds durations. The one exception, the
first failure of a service, has a test of its own.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import stores
from helpers.moments import START
from helpers.paths import ROOT
from helpers.small_applications import mesh_settings

import metrics_fetch
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.artefacts import utc_text
from deepscaler.calls import CallGraph, read_calls
from deepscaler.control.controller import Controller
from deepscaler.panel import MetricPanel, read_panel
from deepscaler.policies.registry import make_policy
from deepscaler.settings import Settings, load_settings
from testbed import VirtualCluster
from testbed.cluster.exposition import exposition_series

SECONDS = 900.0
STEP = 15.0
RELATIVE = {"pod": 0.0, "cpu": 2e-6, "mem": 2e-6, "req": 2e-6, "res": 2e-5}
"""Relative tolerances of float32 differences of counters; for `res` also of sums in whole microseconds."""

JUMPS = {"shape": "square", "low": 20.0, "high": 70.0, "period": 400.0}
FLOOD = {"shape": "sharp_increase", "low": 5.0, "high": 200.0}


@dataclass(frozen=True)
class Both:
    """The same minutes from the virtual cluster, and as `metrics_fetch.py` and `latencies` read them."""

    cluster: VirtualCluster
    panel: MetricPanel
    calls: CallGraph
    latencies: pd.DataFrame

    @property
    def ours(self) -> MetricPanel:
        return self.cluster.metrics(START, START + SECONDS, STEP)


@cache
def simulated(application: str, policy: str, **testbed: Any) -> tuple[str, VirtualCluster]:
    """The settings and the end of a quarter of an hour of an application."""
    document = yaml.safe_load((ROOT / "config" / f"{application}.yaml").read_text())
    shape = {"explore": JUMPS, "static": FLOOD}[policy]
    document["testbed"].update(warmup=180.0, duration=SECONDS, load=shape, **testbed)
    document["scale"]["explore"] = {"seconds": [45, 120], "allow": True, "sla_share": 1.0}
    document["collect"]["calls_window"] = 150.0
    settings = Settings.model_validate(document)
    cluster = VirtualCluster(settings, keep_counters=True)
    cluster.scale({"adservice": 1} if policy == "static" else {})
    Controller(cluster, make_policy(policy, settings), settings).run(SECONDS)
    return yaml.safe_dump(document, sort_keys=False), cluster


def read_back(directory: Path, store: str, application: str, policy: str, **testbed: Any) -> Both:
    """Write the counters of a simulation into a store, and fetch them."""
    text, cluster = simulated(application, policy, **testbed)
    document = yaml.safe_load(text)
    document["collect"]["output_dir"] = str(directory / "data")
    with stores.running(store) as server:
        document["cluster"] = {"kind": "kubernetes", "prometheus": {"url": server.url, "retries": 0}}
        config = directory / "app.yaml"
        config.write_text(yaml.safe_dump(document, sort_keys=False))
        settings = load_settings(config)
        server.write(exposition_series(cluster.counters(), settings.app))
        assert (
            metrics_fetch.main(
                ["--config", str(config), "--start", utc_text(START), "--end", utc_text(START + SECONDS)]
            )
            == 0
        )
        latencies = KubernetesCluster(settings).latencies(START, START + SECONDS, STEP)
    return Both(
        cluster,
        read_panel(directory / "data" / "metrics.csv"),
        read_calls(directory / "data" / "calls.csv"),
        latencies,
    )


@pytest.fixture(
    scope="module", params=list(itertools.product(stores.STORES, ["boutique", "bookinfo"])), ids="-".join
)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Replicas that move under a load that jumps."""
    store, application = request.param
    return read_back(tmp_path_factory.mktemp(application), store, application, "explore")


@pytest.fixture(scope="module", params=stores.STORES)
def starved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Too few pods of the ad service alone: calls to it time out, and nobody minds."""
    return read_back(
        tmp_path_factory.mktemp("starved"), request.param, "boutique", "static", initial_replicas=20
    )


def different(ours: np.ndarray, theirs: np.ndarray, relative: float) -> np.ndarray:
    """Where two panels differ; a missing value equals a missing value."""
    return ~np.isclose(ours, theirs, rtol=relative, atol=1e-9, equal_nan=True)


def test_replicas_moved(both: Both) -> None:
    pods = both.cluster.pod_history(START, START + SECONDS)
    assert (pods.groupby("service")["spec"].agg(np.ptp) >= 1).all()
    assert pods["starting"].max() >= 1 and (pods.groupby("service")["ready"].diff() < 0).any()


@pytest.mark.parametrize(("feature", "relative"), RELATIVE.items())
def test_every_sample_of_a_feature_is_the_same(both: Both, feature: str, relative: float) -> None:
    """No cell differs, those of pods that have just come or gone included."""
    ours, theirs = both.ours, both.panel
    assert theirs.services == ours.services and theirs.features == ours.features
    np.testing.assert_array_equal(theirs.times, ours.times)
    assert np.isfinite(ours.feature(feature)).mean() > 0.95
    differ = different(ours.feature(feature), theirs.feature(feature), relative)
    assert not differ.any(), [
        (ours.times[row] - START, ours.services[column]) for row, column in np.argwhere(differ)
    ]


def test_calls_are_the_same_windows_pairs_and_rates(both: Both) -> None:
    keys = ["time", "caller", "callee"]
    ours, theirs = (
        calls.frame.set_index(keys).sort_index()
        for calls in (both.cluster.calls(START, START + SECONDS), both.calls)
    )
    assert len(ours) == 6 * len(both.cluster.program.edges)
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=1e-8)


def test_latencies_agree_over_the_whole_run(both: Both) -> None:
    """Rates over a minute are means of what the steps saw, within 2 %: the ends count once or not at all."""
    ours = both.cluster.latencies(START, START + SECONDS, STEP)
    assert both.latencies["done"].sum() == pytest.approx(ours["done"].sum(), rel=0.02)
    assert both.latencies["duration_seconds"].sum() == pytest.approx(ours["duration_seconds"].sum(), rel=0.03)
    assert both.latencies["failed"].sum() == ours["failed"].sum() == 0
    assert both.latencies["le_inf"].sum() == 0


def test_only_the_first_failures_between_two_services_are_seen_later_by_prometheus(starved: Both) -> None:
    """A counter of code 503 begins with the first failure, and a rate needs a second sample.

    So the failed requests of that one scrape are missing from `req` (and `calls`), nothing else is.
    """
    ours, theirs = starved.ours, starved.panel
    counters = starved.cluster.counters()
    born = set()
    for before, now in itertools.pairwise(counters):
        for service, seen in now.services.items():
            if {key for key in seen.requests if key[1] != 200} - before.services[service].requests.keys():
                born.add((now.time, service))
    assert {service for _, service in born} == {"adservice"}
    for feature, relative in RELATIVE.items():
        differ = different(ours.feature(feature), theirs.feature(feature), relative)
        where = {(float(ours.times[row]), ours.services[column]) for row, column in np.argwhere(differ)}
        assert where <= (born if feature in ("req", "res") else set()), feature
        assert len(where) <= 3
    served = starved.panel.feature("req").sum() / starved.ours.feature("req").sum()
    assert 0.995 < served <= 1


@pytest.mark.parametrize("store", stores.STORES)
def test_what_users_waited_is_the_same_where_services_call_entries(store: str, tmp_path: Path) -> None:
    settings = mesh_settings(tmp_path)
    cluster = VirtualCluster(settings, keep_counters=True)
    cluster.sleep_until(START + 300)
    with stores.running(store) as server:
        server.write(exposition_series(cluster.counters(), settings.app))
        real = {"kind": "kubernetes", "prometheus": {"url": server.url, "retries": 0}}
        read = KubernetesCluster(Settings.model_validate({**settings.model_dump(), "cluster": real}))
        theirs = read.metrics(START, START + 300, STEP)
    ours = cluster.metrics(START, START + 300, STEP)
    assert ours.waited is not None and theirs.waited is not None and np.isfinite(ours.waited).all()
    np.testing.assert_allclose(theirs.waited, ours.waited, rtol=2e-5)
    differ = different(ours.feature("res"), theirs.feature("res"), RELATIVE["res"])
    assert not differ.any() and (ours.waited > 1.1 * ours.feature("res")[:, 1]).all()
