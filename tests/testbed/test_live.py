"""The three terminals of the README in real time (serve, Locust, predict_scale), and what that run tells."""

import csv
import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import requests
from helpers.needs import had
from helpers.paths import ROOT

import calculate
import metrics_fetch
from deepscaler.calls import read_calls
from deepscaler.panel import read_panel
from deepscaler.runs import read_run
from deepscaler.settings import load_settings
from testbed.applications.loading import load_application
from testbed.cluster.virtual import VirtualCluster
from testbed.engine.program import compile_program
from testbed.engine.simulator import LoadPlan
from testbed.live import prometheus_server
from testbed.live.debian import free_port

LOW, HIGH = 26, 52  # users; two pods of the frontend can serve 44
LOW_SECONDS, HIGH_SECONDS = 40, 80
SCRAPE = 5
TOLERANCES = {"pod": 0.01, "cpu": 0.2, "mem": 0.05, "req": 0.2, "res": 1.0}
"""How far the live features may be from the virtual ones, as means over 20 s.

More is allowed where chance has a part. Two sums of n exponential demands differ by sqrt(4 / n) in
proportion; four times that is allowed (40 % at 20 requests per second). Mean responses over 25 s at 70 %
load, where queues remember, differ by sqrt(2 * 2 (1 + .7) / (n (1 - .7)^2)), 27 % for n = 1,000; four times
that is a factor of two."""


@contextmanager
def started(command, log, **environment):
    """A process of ours, ended at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, **environment}
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def web():
    with requests.Session() as session:
        session.trust_env = False
        yield session


def awaited(path, process, seconds=60.0):
    """The JSON in a file that the process writes when it is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        time.sleep(0.1)
    raise AssertionError(f"{path} didn't come")


def counted(rows, label):
    return Counter({row["metric"].get(label, ""): int(float(row["value"][1])) for row in rows})


def query(session, addresses, text):
    answer = session.get(f"{addresses['prometheus']}/api/v1/query", params={"query": text}, timeout=10)
    return answer.json()["data"]["result"]


def at_gateway(session, addresses):
    """Endpoint -> answers, from the testbed's own counters."""
    found = Counter()
    for line in session.get(addresses["metrics"], timeout=10).text.splitlines():
        if line.startswith("testbed_gateway_requests_total"):
            found[line.partition('endpoint="')[2].partition('"')[0]] += int(line.rsplit(" ", 1)[1])
    return found


def median_step_seconds(session, addresses):
    page = session.get(addresses["metrics"], timeout=10).text
    return next(
        float(line.split()[-1])
        for line in page.splitlines()
        if line.startswith('testbed_step_seconds{quantile="0.5"}')
    )


def at_locust(directory):
    """Endpoint -> requests and failures, from the CSV of the one pass."""
    (path,) = directory.glob("*_stats.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Name"] != "Aggregated"]
    requested = Counter({f"{row['Type']} {row['Name']}": int(row["Request Count"]) for row in rows})
    return requested, sum(int(row["Failure Count"]) for row in rows)


def ready_replicas(kubeconfig):
    """Deployment -> ready replicas, by the official client."""
    from kubernetes import client, config

    configuration = client.Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    with client.ApiClient(configuration) as api:
        items = client.AppsV1Api(api).list_namespaced_deployment("boutique", _request_timeout=10).items
    return {item.metadata.name: item.status.ready_replicas or 0 for item in items}


def virtual_panel(scaled, seconds):
    """The same load and scalings in virtual time: features at 5 s, 10 s, … after the start.

    Args:
        scaled: (seconds after the start, service, replicas).
    """
    settings = load_settings(
        ROOT / "config/boutique.yaml",
        ["testbed.initial_replicas=2", "testbed.warmup=0", f"collect.step={SCRAPE}"],
    )
    weights = compile_program(load_application("boutique")).task_weights
    cluster = VirtualCluster(settings, plan=LoadPlan.closed([0.0, LOW_SECONDS], [LOW, HIGH], weights))
    origin = cluster.now()
    for moment, service, replicas in scaled:
        cluster.sleep_until(origin + moment)
        cluster.scale({service: replicas})
    cluster.sleep_until(origin + seconds)
    return cluster.metrics(origin + SCRAPE, origin + seconds, SCRAPE), origin


def mean_over(panel, feature, start, end):
    """Mean of a feature over (start, end] by service."""
    inside = (panel.times > start) & (panel.times <= end)
    return dict(zip(panel.services, np.nanmean(panel.feature(feature)[inside], axis=0), strict=True))


def mean_response(endpoints, start, end):
    """Seconds, of the requests answered in (start, end]."""
    rows = endpoints[(endpoints["time"] > start) & (endpoints["time"] <= end)]
    return rows["duration_seconds"].sum() / rows["done"].sum()


@pytest.mark.live
def test_the_load_doubles_and_the_controller_scales_a_live_cluster(tmp_path, web, monkeypatch):
    had(prometheus_server.install)
    state, runs, policy = tmp_path / "state", tmp_path / "runs", "hpa_80"
    if (ROOT / "model_states/demo/AdapGLA.json").exists():
        policy = "reactive_holistic"  # by the bundle's demand fit
    trace = tmp_path / "double.req"
    trace.write_text(f"{LOW}\n" * (LOW_SECONDS // 5) + f"{HIGH}\n" * (HIGH_SECONDS // 5), encoding="utf-8")
    serve = {
        "testbed.initial_replicas": 2,
        "testbed.serve.scrape_interval": SCRAPE,
        "testbed.serve.directory": state,
        **{
            f"testbed.serve.{name}_port": 0
            for name in ("gateway", "metrics", "jaeger", "kubernetes", "prometheus", "page")
        },
        "testbed.serve.controller_port": free_port(),
    }
    flags = [part for key, value in serve.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "testbed", "serve", "--config", "config/boutique.yaml", *flags]
    with started(command, tmp_path / "serve.log") as testbed:
        addresses = awaited(state / "serve.json", testbed)
        kubeconfig = state / "kubeconfig"
        assert ready_replicas(kubeconfig)["frontend"] == 2
        began = time.time()
        live = {
            "cluster.prometheus.url": addresses["prometheus"],
            "cluster.jaeger.url": addresses["jaeger"],
            "cluster.kubeconfig": kubeconfig,
            "collect.step": SCRAPE,
            "collect.window": "15s",
            "collect.calls_window": 60,
            "collect.output_dir": tmp_path / "data",
            "scale.run_dir": runs,
            "scale.metrics_port": serve["testbed.serve.controller_port"],
        }
        flags = [part for key, value in live.items() for part in ("--set", f"{key}={value}")]
        duration = LOW_SECONDS + HIGH_SECONDS
        load = [
            "sh",
            "sendFlow/sendLoop.sh",
            "--host",
            addresses["gateway"],
            "--trace",
            str(trace),
            "--passes",
            "1",
        ]
        load += ["--output", str(tmp_path / "locust")]
        scale = [sys.executable, "predict_scale.py", "--config", "config/live.yaml", *flags]
        scale += ["--policy", policy, "--duration", str(duration)]
        with (
            started(load, tmp_path / "locust.log", SENDFLOW_IDLE_STEPS="0") as locust,
            started(scale, tmp_path / "scale.log") as controller,
        ):
            time.sleep(LOW_SECONDS + HIGH_SECONDS / 2)
            step = median_step_seconds(web, addresses)
            told = web.get(f"{addresses['page']}/story.json", timeout=10).json()
            assert told["about"]["policy"] == policy
            assert policy == "hpa_80" or told["past"][-1][1] > 0  # an HPA reads no metrics of its own
            assert locust.wait(duration) == 0, (tmp_path / "locust.log").read_text(encoding="utf-8")
            ended = time.time()
            ready = ready_replicas(kubeconfig)
            assert controller.wait(30) == 0, (tmp_path / "scale.log").read_text(encoding="utf-8")

        # The same number of requests at Locust, at the gateway, and in Prometheus by either reporter.
        requested, failures = at_locust(tmp_path / "locust")
        assert failures == 0
        assert requested == at_gateway(web, addresses)
        frontend = 'destination_workload="frontend"'
        expected = dict.fromkeys(("destination", "source"), sum(requested.values()))
        text = f"sum by (reporter) (istio_requests_total{{{frontend}}})"
        deadline = time.monotonic() + 3 * SCRAPE
        while (
            in_prometheus := counted(query(web, addresses, text), "reporter")
        ) != expected and time.monotonic() < deadline:
            time.sleep(0.5)
        assert in_prometheus == expected

        # That run, collected from Prometheus and judged.
        monkeypatch.chdir(ROOT)
        assert (
            metrics_fetch.main(
                ["--config", "config/live.yaml", *flags, "--last", str(int(time.time() - began))]
            )
            == 0
        )
        jaeger = [
            "--set",
            f"collect.output_dir={tmp_path / 'jaeger'}",
            "--set",
            "cluster.call_graph=jaeger",
            "--last",
            "60",
        ]
        assert metrics_fetch.main(["--config", "config/live.yaml", *flags, *jaeger]) == 0
        testbed.terminate()
        assert testbed.wait(30) == 0
    assert (
        calculate.main(
            [
                "--config",
                "config/live.yaml",
                "--runs",
                str(runs),
                "--output",
                str(runs),
                "--set",
                "evaluate.warmup=10",
            ]
        )
        == 0
    )

    assert ready["frontend"] > 2
    run = read_run(runs / f"{policy}-0")
    raised = run.decisions[(run.decisions["service"] == "frontend") & (run.decisions["applied"] > 2)]
    assert len(raised) > 0
    doubled = began + LOW_SECONDS
    before, after = (
        mean_response(run.endpoints, doubled - 20, doubled),
        mean_response(run.endpoints, ended - 20, ended),
    )
    worst = max(
        mean_response(run.endpoints, moment, moment + 10) for moment in np.arange(doubled, ended - 20, 5)
    )
    told = f"mean response {before:.3f} s, {worst:.3f} s after the load doubled, {after:.3f} s at the end"
    told += f"; a step of the engine takes {1000 * step:.3f} ms"
    assert before < 0.1 and worst > 0.2, told
    assert after < 0.1, told
    panel = read_panel(tmp_path / "data/metrics.csv")
    pods = panel.feature("pod")[:, panel.services.index("frontend")]
    assert np.nanmin(pods) == 2 and np.nanmax(pods) == ready["frontend"]
    # Virtual and live parity: the busy services' features, before the load doubled and at the end.
    writes = run.decisions[run.decisions["applied"].notna()]
    twin, origin = virtual_panel(
        [(row.time - began, row.service, int(row.applied)) for row in writes.itertuples()], ended - began
    )
    for start, end, tolerances in (
        (15, 40, TOLERANCES),
        (duration - 20, duration, {**TOLERANCES, "res": None}),
    ):
        rates = mean_over(twin, "req", origin + start, origin + end)
        busy = [service for service, rate in rates.items() if rate > 20]
        assert len(busy) >= 6
        for feature, tolerance in tolerances.items():
            there, here = (
                mean_over(panel, feature, began + start, began + end),
                mean_over(twin, feature, origin + start, origin + end),
            )
            ratios = {service: there[service] / here[service] for service in busy}
            for service, ratio in ratios.items():
                noise = (
                    0.0 if feature in ("pod", "mem") else 4 * np.sqrt(4 / (rates[service] * (end - start)))
                )
                assert tolerance is None or max(ratio, 1 / ratio) - 1 <= max(tolerance, noise), (
                    feature,
                    service,
                    ratio,
                )
    istio, traced = (read_calls(tmp_path / name / "calls.csv").frame for name in ("data", "jaeger"))
    assert {(row.caller, row.callee) for row in istio.itertuples()} == {
        (row.caller, row.callee) for row in traced.itertuples()
    }
    summary = json.loads((runs / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs"][0]["policy"] == policy
    assert pd.notna(summary["runs"][0]["core_hours"])
