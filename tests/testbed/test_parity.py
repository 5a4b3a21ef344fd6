"""One scenario with scaling, told by the virtual cluster and read back from a real Prometheus: the same features and calls.

Both speak of the same scrapes, so a rate over the last two of them is the same number; only the last bits of a float32 may
differ, and microseconds to which the exposition rounds durations. The one exception has a test of its own: the first failure.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.moments import START
from helpers.paths import ROOT

import metrics_fetch
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.artefacts import utc_text
from deepscaler.calls import CallGraph, read_calls
from deepscaler.control.controller import Controller
from deepscaler.errors import ClusterError
from deepscaler.panel import MetricPanel, read_panel
from deepscaler.policies.registry import make_policy
from deepscaler.settings import load_settings
from testbed import VirtualCluster
from testbed.cluster.exposition import exposition_series
from testbed.live import prometheus_server

SECONDS = 900.0
STEP = 15.0
RELATIVE = {"pod": 0.0, "cpu": 2e-6, "mem": 2e-6, "req": 2e-6, "res": 2e-5}
"""Relative tolerances of float32 values from differences of counters; `res` adds microseconds to which sums are rounded."""


@dataclass(frozen=True)
class Both:
    """The same minutes: of the virtual cluster, and as `metrics_fetch.py` and `latencies` read them over HTTP."""

    cluster: VirtualCluster
    panel: MetricPanel
    calls: CallGraph
    latencies: pd.DataFrame

    @property
    def ours(self) -> MetricPanel:
        return self.cluster.metrics(START, START + SECONDS, STEP)


def read_back(directory: Path, application: str, policy: str, **testbed: Any) -> Both:
    """Simulate a quarter of an hour, write its counters into Prometheus and fetch them. In CI a missing Prometheus fails, else it skips."""
    try:
        prometheus_server.install()
    except ClusterError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    document = yaml.safe_load((ROOT / "config" / f"{application}.yaml").read_text())
    document["testbed"].update(warmup=180.0, duration=SECONDS, **testbed)
    document["scale"]["explore"] = {"seconds": [45, 120], "allow": True, "sla_share": 1.0}
    document["collect"].update(output_dir=str(directory / "data"), calls_window=150.0)
    with prometheus_server.running() as server:
        document["cluster"] = {"kind": "kubernetes", "prometheus": {"url": server.url, "retries": 0}}
        config = directory / "app.yaml"
        config.write_text(yaml.safe_dump(document, sort_keys=False))
        settings = load_settings(config)
        cluster = VirtualCluster(settings, keep_counters=True)
        cluster.scale({"adservice": 1} if policy == "static" else {})
        Controller(cluster, make_policy(policy, settings), settings).run(SECONDS)
        prometheus_server.remote_write(server.url, exposition_series(cluster.counters(), settings.app))
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


@pytest.fixture(scope="module", params=["boutique", "bookinfo"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Replicas that move under a load that jumps."""
    load = {"shape": "square", "low": 20.0, "high": 70.0, "period": 400.0}
    return read_back(tmp_path_factory.mktemp(request.param), request.param, "explore", load=load)


@pytest.fixture(scope="module")
def starved(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Too few pods of the ad service alone: calls to it time out, and nobody minds."""
    load = {"shape": "sharp_increase", "low": 5.0, "high": 200.0}
    return read_back(tmp_path_factory.mktemp("starved"), "boutique", "static", load=load, initial_replicas=20)


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
    """Rates over a minute are means of what the steps saw: ends of the run count once or not at all, hence 2 %."""
    ours = both.cluster.latencies(START, START + SECONDS, STEP)
    assert both.latencies["done"].sum() == pytest.approx(ours["done"].sum(), rel=0.02)
    assert both.latencies["duration_seconds"].sum() == pytest.approx(ours["duration_seconds"].sum(), rel=0.03)
    assert both.latencies["failed"].sum() == ours["failed"].sum() == 0
    assert both.latencies["le_inf"].sum() == 0


def test_only_the_first_failures_between_two_services_are_seen_later_by_prometheus(starved: Both) -> None:
    """A counter of code 503 comes into being with its first failure; a rate needs a second sample. Requests of that one scrape
    that failed are missing from `req` (and `calls`), nothing else is."""
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
