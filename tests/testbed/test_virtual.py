"""The virtual cluster behind the port: its samples, counts, pods, and that a seed is a load for everybody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.moments import START
from helpers.paths import ROOT, WORLDCUP98, WORLDCUP98_MISSING
from helpers.small_applications import TWO, mesh_settings, two_settings

import predict_scale
from deepscaler.artefacts import utc_seconds, utc_text, write_json
from deepscaler.calls import EXTERNAL
from deepscaler.cluster import ENDPOINT_COLUMNS
from deepscaler.control.controller import Controller
from deepscaler.errors import ClusterError, DataError, DeepScalerError, SettingsError, WriteError
from deepscaler.panel import MetricPanel, write_panel
from deepscaler.policies.registry import make_policy
from deepscaler.runs import read_run
from deepscaler.settings import Settings, load_settings
from testbed import VirtualCluster, collect
from testbed.applications.loading import load_application
from testbed.cluster.emulation import make_program
from testbed.cluster.exposition import deployment_of
from testbed.engine.simulator import LoadPlan
from testbed.experiments.references import Truth, find_needed, look_ahead, true_demand
from testbed.experiments.runs import run_many, run_one, seed_use, warm_up_of

STEP = 15.0
DRAWS = ((1, 1), (1, 2000), (2, 1))
"""demand_seed and seed."""


def boutique(*overrides: str) -> Settings:
    """Online Boutique, three minutes of warm-up."""
    return load_settings(ROOT / "config" / "boutique.yaml", ["testbed.warmup=180", *overrides])


@pytest.fixture(scope="module")
def scaled() -> VirtualCluster:
    """Ten minutes of Boutique under the exploring policy, after three of warm-up."""
    return collect(boutique("testbed.load={shape: fluctuation, low: 20, high: 60}"), START, START + 600)


# ---------------------------------------------------------------------------------------------------- samples
def test_samples_are_stamped_with_their_end_and_missing_before_the_start(scaled: VirtualCluster) -> None:
    panel = scaled.metrics(START - 300, START + 660, STEP)
    assert list(panel.times[:2] - START) == [-300, -285] and panel.step == STEP
    first = round(120 / STEP) + 1  # scrapes begin one step after the start of the warm-up
    assert np.isnan(panel.values[:first]).all()
    assert np.isfinite(panel.values[first:61][:, :, [0, 1, 2, 4]]).all()
    assert np.isnan(panel.values[61:]).all()  # the future


def test_a_coarser_step_takes_every_other_sample_and_times_between_two_take_the_older(
    scaled: VirtualCluster,
) -> None:
    fine, coarse = scaled.metrics(START, START + 600, STEP), scaled.metrics(START, START + 600, 60.0)
    np.testing.assert_array_equal(coarse.values, fine.values[::4])
    np.testing.assert_array_equal(scaled.metrics(START + 7, START + 7, STEP).values, fine.values[:1])


def test_looking_doesnt_change_the_future() -> None:
    settings = boutique("testbed.load={shape: steady, low: 20, high: 20}")
    calm, watched = VirtualCluster(settings), VirtualCluster(settings)
    for moment in range(0, 300, 7):
        watched.sleep_until(START + moment)
        (
            watched.metrics(START, START + 60, STEP),
            watched.pods(),
            watched.workloads(),
            watched.calls(START, START + 60),
        )
    for cluster in (calm, watched):
        cluster.sleep_until(START + 300)
    np.testing.assert_array_equal(
        calm.metrics(START, START + 300, STEP).values, watched.metrics(START, START + 300, STEP).values
    )


def test_cpu_without_load_is_the_idle_share_of_the_limit_and_res_is_missing(tmp_path: Path) -> None:
    settings = two_settings(tmp_path)
    cluster = VirtualCluster(settings, plan=LoadPlan.open([0.0], [0.0], [1.0]))
    cluster.sleep_until(START + 60)
    panel = cluster.metrics(START, START + 60, STEP)
    np.testing.assert_allclose(panel.feature("cpu"), [[0.05 / 0.5, 0.0]] * 5, rtol=1e-6, atol=0)
    np.testing.assert_array_equal(panel.feature("req"), 0)
    np.testing.assert_array_equal(panel.feature("pod"), 2)
    np.testing.assert_allclose(panel.feature("mem"), 32 / 128, rtol=1e-6)
    assert np.isnan(panel.feature("res")).all()


def test_cpu_is_work_over_limit_and_req_is_visits_over_time(tmp_path: Path) -> None:
    """20 tasks per second are 40 requests at `front` (10 ms each) and 40 at `back` (5 ms), two pods each."""
    cluster = VirtualCluster(two_settings(tmp_path, duration=1800.0))
    before = cluster._simulator.cpu_total()
    cluster.sleep_until(START + 1800)
    panel = cluster.metrics(START + STEP, START + 1800, STEP)
    work = (cluster._simulator.cpu_total() - before) / 1800
    np.testing.assert_allclose(
        panel.feature("cpu").mean(axis=0, dtype=np.float64), work / (2 * np.array([0.5, 1.0])), rtol=1e-6
    )
    error = 3 * np.sqrt(
        2 * 40 * np.array([0.01, 0.005]) ** 2 * 2 / 1800
    )  # of sums of exponential demands, arrivals in pairs
    assert (np.abs(work - [0.4 + 2 * 0.05, 0.2]) < error).all()
    np.testing.assert_allclose(panel.feature("req").mean(axis=0), 40, atol=3 * 2 * np.sqrt(20 / 1800))


def test_what_users_waited_is_told_where_services_call_entries(tmp_path: Path) -> None:
    one = VirtualCluster(two_settings(tmp_path))
    assert one.metrics(START, START, STEP).waited is None  # the response of its only entry tells it
    cluster = VirtualCluster(mesh_settings(tmp_path))
    cluster.sleep_until(START + 300)
    panel = cluster.metrics(START + STEP, START + 300, STEP)
    counts = cluster.latencies(START, START + 300, STEP)
    sums = counts.groupby("time")[["duration_seconds", "done"]].sum()
    np.testing.assert_allclose(panel.waited, sums["duration_seconds"] / sums["done"], rtol=1e-5)
    served = panel.feature("req").astype(np.float64)
    by_services = (panel.feature("res") * served).sum(axis=1) / served.sum(axis=1)
    assert np.mean(panel.waited / by_services) > 1.1
    assert np.isnan(cluster.metrics(START + 600, START + 615, STEP).waited).all()


def test_cpu_of_a_pod_counts_from_its_second_scrape_and_pods_that_start_arent_ready(tmp_path: Path) -> None:
    cluster = VirtualCluster(two_settings(tmp_path), plan=LoadPlan.open([0.0], [0.0], [1.0]))
    assert cluster.scale({"front": 5}).applied == {"front": 5}
    cluster.sleep_until(START + 15)
    pods = cluster.pod_history(START, START + 15).set_index("service")
    assert pods.loc["front", ["spec", "starting", "ready"]].tolist() == [5, 3, 2]
    cluster.sleep_until(START + 60)
    panel = cluster.metrics(START, START + 60, STEP)
    assert panel.feature("pod")[:, 0].tolist() == [2, 2, 5, 5, 5]  # 18-22 s, up to whole readiness periods
    np.testing.assert_allclose(
        panel.feature("cpu")[:, 0], 0.1, rtol=1e-5
    )  # idle from the start: the mean over pods is the same


# ----------------------------------------------------------------------------------------------------- counts
def test_every_request_that_was_offered_is_done_failed_or_under_way(scaled: VirtualCluster) -> None:
    table = scaled.latencies(START - 180, START + 600, STEP)
    assert table["offered"].sum() == table["done"].sum() + table["failed"].sum() + scaled.in_flight
    assert table["offered"].sum() > 10_000
    buckets = [name for name in ENDPOINT_COLUMNS if name.startswith("le_")]
    np.testing.assert_array_equal(table[buckets].sum(axis=1), table["done"])
    assert (table["slow"] <= table["done"]).all()


def test_requests_still_balance_when_pods_are_taken_and_too_few() -> None:
    settings = boutique("testbed.initial_replicas=1", "testbed.load={shape: steady, low: 60, high: 60}")
    cluster = VirtualCluster(settings)
    for k in range(20):
        cluster.sleep_until(START + 15 * k + 3)
        cluster.scale(dict.fromkeys(cluster.services, 3 if k % 2 else 1))
    cluster.sleep_until(START + 300)
    table = cluster.latencies(START - 180, START + 300, STEP)
    assert table["offered"].sum() == table["done"].sum() + table["failed"].sum() + cluster.in_flight
    assert cluster.in_flight > 10


def test_latencies_of_a_longer_step_are_sums_and_an_unfinished_one_is_left_out(
    scaled: VirtualCluster,
) -> None:
    fine, coarse = scaled.latencies(START, START + 600, STEP), scaled.latencies(START, START + 590, 60.0)
    assert list(coarse.columns) == list(ENDPOINT_COLUMNS)
    assert sorted(coarse["time"].unique() - START) == list(range(60, 541, 60))
    fine["time"] = START + np.ceil((fine["time"] - START) / 60) * 60
    sums = fine[fine["time"] <= START + 540].groupby(["time", "endpoint"]).sum().sort_index()
    pd.testing.assert_frame_equal(
        sums, coarse.set_index(["time", "endpoint"]).sort_index(), check_exact=False, rtol=1e-12
    )
    assert scaled.latencies(START, START, STEP).empty


def test_calls_add_up_to_the_requests_of_each_service(scaled: VirtualCluster) -> None:
    calls = scaled.calls(START, START + 600)
    assert sorted(calls.frame["time"].unique() - START) == [300, 600]
    req = scaled.metrics(START + STEP, START + 600, STEP).feature("req").mean(axis=0, dtype=np.float64)
    into = calls.mean_rates(scaled.services).sum(axis=0) + calls.external_rates(scaled.services)
    np.testing.assert_allclose(into, req, rtol=1e-6)
    table = scaled.latencies(START, START + 600, STEP)
    assert calls.external_rates(("frontend",))[0] * 600 == pytest.approx(
        table["done"].sum() + table["failed"].sum()
    )
    assert set(calls.frame.loc[calls.frame["caller"] == EXTERNAL, "callee"]) == {"frontend"}


def test_a_span_shorter_than_a_window_of_calls_is_one_window(scaled: VirtualCluster) -> None:
    short = scaled.calls(START + 60, START + 180).frame
    assert set(short["time"] - START) == {180}
    assert scaled.calls(START + 60, START + 60).frame.empty


# ------------------------------------------------------------------------------------------------ pods, scale
def test_usage_of_pods_is_that_of_the_scrape_before_the_last(scaled: VirtualCluster) -> None:
    pods = [pod for pod in scaled.pods() if pod.usage_cores is not None]
    assert len(pods) >= 10
    assert {pod.usage_time for pod in pods} == {scaled.now() - STEP}
    panel = scaled.metrics(START + 585, START + 585, STEP)
    for name in scaled.services:
        cores = [pod.usage_cores for pod in pods if pod.service == name]
        limit = next(item.cpu_limit_cores for item in scaled.workloads() if item.service == name)
        if (
            scaled.metrics(START + 570, START + 600, STEP)
            .feature("pod")[:, scaled.services.index(name)]
            .std()
            == 0
        ):
            ratio = panel.values[0, scaled.services.index(name), 1]
            assert np.mean(cores) / limit == pytest.approx(ratio, rel=1e-4), name


def test_a_new_pod_has_no_usage_until_two_scrapes_saw_it_and_a_third_came(tmp_path: Path) -> None:
    cluster = VirtualCluster(two_settings(tmp_path))
    cluster.scale({"back": 3})
    known = []
    for k in range(1, 5):
        cluster.sleep_until(START + 15 * k)
        newest = max(
            (pod for pod in cluster.pods() if pod.service == "back"), key=lambda pod: pod.start_time or 0
        )
        known.append((newest.ready, newest.usage_cores is not None, newest.usage_time))
        assert newest.start_time == START
        assert newest.ready_since is not None and newest.ready_since >= START + (18 if newest.ready else 0)
    assert [item[:2] for item in known] == [(False, False), (True, False), (True, True), (True, True)]
    assert [item[2] for item in known] == [None, None, START + 30, START + 45]


def test_a_pod_that_is_taken_drains_and_goes(tmp_path: Path) -> None:
    cluster = VirtualCluster(two_settings(tmp_path, initial_replicas=4))
    cluster.scale({"front": 1, "back": 1})
    draining = [pod for pod in cluster.pods() if pod.deleting]
    assert len({pod.name for pod in cluster.pods()}) == len(cluster.pods())
    assert len(draining) <= 6
    cluster.sleep_until(START + 30)
    assert [pod.service for pod in cluster.pods()] == ["front", "back"] and not any(
        pod.deleting for pod in cluster.pods()
    )


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (0, "whole number from 1, found 0"),
        (-1, "whole number from 1"),
        (2.5, "whole number from 1, found 2.5"),
        (None, "found None"),
        (True, "found True"),
        (np.int64(2), "whole number from 1"),
    ],
)
def test_what_is_no_number_of_replicas_is_refused_and_the_rest_is_set(
    tmp_path: Path, target: Any, why: str
) -> None:
    cluster = VirtualCluster(two_settings(tmp_path))
    report = cluster.scale({"front": target, "back": 3})
    assert report.applied == {"back": 3}
    assert why in report.failed["front"]
    assert [item.replicas for item in cluster.workloads()] == [2, 3]


def test_unknown_and_unscaled_services_are_refused_by_name(tmp_path: Path) -> None:
    cluster = VirtualCluster(two_settings(tmp_path, {"front": None, "back": {"scaled": False}}))
    report = cluster.scale({"redis": 2, "back": 3, "front": 1})
    assert report.applied == {"front": 1}
    assert report.failed == {
        "redis": "unknown service; the application has front, back",
        "back": "not scaled (app.services.back.scaled: false)",
    }


def test_pods_are_called_after_their_deployment(tmp_path: Path) -> None:
    services = {
        "front": {"deployment": "front-v1", "workloads": ["front-v1"]},
        "back": {"workloads": ["back-v2", "back-v1"]},
    }
    cluster = VirtualCluster(two_settings(tmp_path, services), keep_counters=True)
    cluster.sleep_until(START + 15)
    names = {(pod.service, pod.name.rsplit("-", 2)[0]) for pod in cluster.pods()}
    assert names == {("front", "front-v1"), ("back", "back-v2")}
    exposed = cluster.counters()[-1].services
    assert {pod.name for pod in cluster.pods()} == {
        pod.name for service in exposed.values() for pod in service.pods
    }


def test_an_arrival_of_an_open_load_is_a_user_who_does_one_task() -> None:
    settings = boutique(
        "testbed.load={shape: steady, low: 20, high: 20, noise: 0, kind: open}", "testbed.initial_replicas=8"
    )
    cluster = VirtualCluster(settings)
    cluster.sleep_until(START + 300)
    program = cluster.program
    per_task = np.average(np.diff(program.task_ptr), weights=program.task_weights)
    assert per_task == pytest.approx(1.58, abs=0.01)
    offered = cluster.latencies(START, START + 300, 300.0)["offered"].sum()
    assert offered / 300 == pytest.approx(20 * per_task, rel=0.05)


@pytest.mark.parametrize("application", ["boutique", "boutique_real"])
def test_the_counters_tell_the_responses_that_are_measured(application: str) -> None:
    """Also where calls travel, and the way to an entry is no part of its own response."""
    load = "testbed.load={shape: steady, low: 60, high: 60}"
    settings = load_settings(f"config/{application}.yaml", [load, "testbed.initial_replicas=6"])
    cluster = VirtualCluster(settings, keep_counters=True)
    cluster.sleep_until(START + 60)
    panel = cluster.metrics(START, START + 60, STEP)
    before, now = cluster.counters()[-2:]
    for service, measured in zip(panel.services, panel.feature("res")[-1], strict=True):
        taken, count = (
            sum(getattr(each, name) for each in now.services[service].durations.values())
            - sum(getattr(each, name) for each in before.services[service].durations.values())
            for name in ("sum_seconds", "count")
        )
        assert taken / count == pytest.approx(measured, rel=1e-5), service
    for each in now.services["frontend"].durations.values():
        assert each.buckets[-1] == each.count > 0


# ---------------------------------------------------------------------------------------------------- by name
def test_the_order_of_the_services_is_the_configurations_and_the_numbers_go_by_name() -> None:
    usual = boutique("testbed.load={shape: steady, low: 30, high: 30}")
    services = dict(reversed(usual.app.services.items()))
    turned = usual.model_copy(update={"app": usual.app.model_copy(update={"services": services})})
    panels, pods, calls, workloads = [], [], [], []
    for settings in (usual, turned):
        cluster = VirtualCluster(settings)
        cluster.scale({"frontend": 6, "cartservice": 1})
        cluster.sleep_until(START + 120)
        panels.append(cluster.metrics(START, START + 120, STEP))
        pods.append(
            cluster.pod_history(START, START + 120).sort_values(["time", "service"], ignore_index=True)
        )
        calls.append(cluster.calls(START, START + 120).frame)
        workloads.append({item.service: item for item in cluster.workloads()})
    assert panels[1].services == tuple(services) == panels[0].services[::-1]
    np.testing.assert_array_equal(
        panels[0].values, panels[1].select(panels[0].services, panels[0].features).values
    )
    pd.testing.assert_frame_equal(*pods)
    pd.testing.assert_frame_equal(*calls)
    assert workloads[0] == workloads[1] and list(workloads[1]) == list(services)


def test_services_and_entries_that_differ_from_the_applications_are_refused_naming_both_sides(
    tmp_path: Path,
) -> None:
    settings = two_settings(tmp_path, {"front": None, "cache": None})
    with pytest.raises(
        SettingsError, match=r"app\.services: differs .* not emulated: cache; not configured: back"
    ):
        VirtualCluster(settings)
    good = two_settings(tmp_path)
    entry = good.app.entries[0].model_copy(update={"name": "pgae"})
    other = good.model_copy(update={"app": good.app.model_copy(update={"entries": [entry]})})
    with pytest.raises(
        SettingsError, match=r"app\.entries: differs .* not emulated: pgae; not configured: page, ping"
    ):
        VirtualCluster(other)


def test_nothing_is_known_before_the_start_of_the_testbed() -> None:
    with pytest.raises(ClusterError, match=r"collect\.start lies 60 s before testbed\.start"):
        collect(boutique(), START - 60, START + 60)


# --------------------------------------------------------------------------------------------------- the seed
def test_the_same_seed_collects_the_same_bytes_and_another_one_doesnt(tmp_path: Path) -> None:
    texts = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        cluster = collect(boutique(f"testbed.seed={seed}"), START, START + 300)
        write_panel(cluster.metrics(START, START + 300, STEP), tmp_path / name)
        texts.append((tmp_path / name).read_bytes())
    assert texts[0] == texts[1] != texts[2]


def runnable(tmp_path: Path, *overrides: str) -> Settings:
    """Runs of five minutes, with the true demand as the fit."""
    own = [
        f"scale.run_dir={tmp_path}",
        f"scale.bundle={tmp_path}/none.pt",
        f"process.output_dir={tmp_path}/data",
        "scale.workers=1",
    ]
    settings = boutique(
        "scale.duration=300", "testbed.load={shape: sharp_increase, low: 15, high: 50}", *own, *overrides
    )
    demand = true_demand(settings).to_dict()
    write_json(tmp_path / "data" / "meta.json", {"demand": demand})
    return settings


def run_files(directory: Path) -> dict[str, str]:
    """Name -> text; of run.json without what the clock on the wall says."""
    files = {path.name: path.read_text() for path in directory.iterdir() if path.name != "run.json"}
    info = json.loads((directory / "run.json").read_text())
    assert info.pop("wall_seconds") > 0 and len(info.pop("decision_seconds")) == info["counters"]["ticks"]
    info["settings"]["scale"].pop("run_dir")
    return {**files, "run.json": json.dumps(info, sort_keys=True)}


@pytest.mark.parametrize("policy", ["hpa_70", "reactive_holistic"])
def test_the_same_seed_makes_the_same_run_directory(tmp_path: Path, policy: str) -> None:
    settings = runnable(tmp_path)
    first = run_files(run_one(settings, policy, 2000))
    other = settings.model_copy(
        update={"scale": settings.scale.model_copy(update={"run_dir": str(tmp_path / "again")})}
    )
    assert run_files(run_one(other, policy, 2000)) == first
    assert run_files(run_one(settings, policy, 2001))["metrics.csv"] != first["metrics.csv"]
    info = json.loads(first["run.json"])
    assert (info["policy"], info["seed"], info["seed_use"], info["shape"]) == (
        policy,
        2000,
        "test",
        "sharp_increase",
    )
    assert set(info["oracle"]) == set(settings.app.services) and len(info["oracle_times"]) == 5


def test_a_run_doesnt_depend_on_who_makes_the_oracle_or_on_its_company(tmp_path: Path) -> None:
    settings = runnable(tmp_path)
    alone = {policy: run_files(run_one(settings, policy, 2000)) for policy in ("hpa_70", "oracle")}
    given = run_files(run_one(settings, "hpa_70", 2000, look_ahead(settings, 2000)))
    both = {path.name: run_files(path) for path in run_many(settings, ["oracle", "hpa_70"], [2000, 2001])}
    assert given == alone["hpa_70"] == both["hpa_70-2000"]
    assert alone["oracle"] == both["oracle-2000"]
    assert list(both) == ["oracle-2000", "oracle-2001", "hpa_70-2000", "hpa_70-2001"]
    assert read_run(tmp_path / "oracle-2000").info["oracle"] == json.loads(given["run.json"])["oracle"]


def test_a_foreseen_load_is_met_before_it_comes_and_rho_max_is_in_the_name(tmp_path: Path) -> None:
    settings = runnable(tmp_path, "testbed.load.noise=0", "scale.duration=600")
    specs = {}
    for name in ("foreseen", "foreseen_50"):
        run = read_run(run_one(settings, name, 2000))
        specs[name] = run.pods.pivot_table(index="time", columns="service", values="spec")["frontend"]
        assert run.info["policy"] == name and set(run.decisions["reason"]) <= {
            "forecast",
            "unchanged",
            "stabilized",
        }
    assert run.panel is not None
    rate = run.panel.feature("req")[:, run.panel.services.index("frontend")]
    came = run.panel.times[np.flatnonzero(rate > 0.5 * rate.max())[0]]
    rose = specs["foreseen"].index[specs["foreseen"] == specs["foreseen"].max()]
    boot = 18.0
    assert (
        came - boot - 60 - 60 - 15 <= rose[rose > START + 130][0] <= came - boot
    )  # the label's lead, a period and a scrape
    assert specs["foreseen_50"].iloc[-1] > specs["foreseen"].iloc[-1]


@pytest.mark.parametrize(
    ("overrides", "rho_max"),
    [
        ([], 0.9),
        (["process.rho_max=0.8"], 0.8),
        (["process.rho_max=auto"], 0.9),
        (["process.rho_max=auto", "testbed.needed_rho_max=0.6"], 0.6),
    ],
)
def test_what_a_load_needed_is_told_at_one_utilisation_whatever_the_fit_says(
    overrides: list[str], rho_max: float
) -> None:
    settings = boutique(*overrides)
    model = true_demand(settings)
    rates = np.linspace(0, 400, 50)[:, None] * model.visits[0]
    nothing = MetricPanel(
        np.arange(50.0), model.services, (), np.empty((50, len(model.services), 0), np.float32)
    )
    truth = Truth(nothing.times, rates, model, nothing)
    needed = find_needed(settings, truth).drop(columns="time").to_numpy()
    exact = model.demand_seconds * rates / (rho_max * model.limit_cores - model.idle_cores)
    np.testing.assert_array_equal(needed, np.maximum(np.ceil(exact - 1e-9), 1))


def test_what_is_foreseen_needs_a_demand_fit(tmp_path: Path) -> None:
    settings = runnable(tmp_path)
    (tmp_path / "data" / "meta.json").unlink()
    with pytest.raises(DataError, match=r"python data_process\.py"):
        run_one(settings, "foreseen", 2000)


def test_two_processes_make_the_same_runs_as_one(tmp_path: Path) -> None:
    settings = runnable(tmp_path)
    one = [run_files(path) for path in run_many(settings, ["hpa_70"], [2000, 2001])]
    scale = settings.scale.model_copy(update={"run_dir": str(tmp_path / "two"), "workers": 2})
    several = run_many(settings.model_copy(update={"scale": scale}), ["hpa_70"], [2000, 2001])
    for first, second in zip(one, map(run_files, several), strict=True):
        first_info, second_info = (json.loads(files.pop("run.json")) for files in (first, second))
        assert first == second
        assert (
            first_info["settings"]["scale"].pop("workers") == 1
            and second_info["settings"]["scale"].pop("workers") == 2
        )
        assert first_info == second_info


def test_an_error_in_one_process_comes_back_as_itself(tmp_path: Path) -> None:
    settings = runnable(tmp_path, "scale.workers=2", "scale.duration=30")
    (tmp_path / "hpa_80-2000").touch()
    with pytest.raises(WriteError, match=r"hpa_80-2000/run\.json: can't be written"):
        run_many(settings, ["hpa_80", "hpa_70"], [2000])


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("nobody", "policy 'nobody' is unknown"),
        ("deepscaler", r"none\.pt: no such bundle; make it with: python main\.py"),
        ("deepscaler_quantile", r"none\.pt: no such bundle"),
        ("reactive_holistic", r"meta\.json"),
        ("plan_bootstrap", r"meta\.json"),
        ("foreseen_85", r"meta\.json"),
        ("plan_informed", r"meta\.json"),
    ],
)
def test_what_a_policy_lacks_is_said_before_a_load_is_played(
    policy: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = runnable(tmp_path)
    (tmp_path / "data" / "meta.json").unlink()
    monkeypatch.setattr("testbed.experiments.runs.look_ahead", lambda *_: pytest.fail("a load was played"))
    with pytest.raises(DeepScalerError, match=said):
        run_many(settings, ["hpa_70", policy], [2000])


def test_two_policies_on_one_seed_meet_the_same_users() -> None:
    """Common random numbers: who asks, what for and how much work it is doesn't depend on replicas."""
    settings = boutique(
        "testbed.load={shape: sharp_increase, low: 15, high: 50, kind: open, noise: 0}",
        "testbed.duration=600",
    )
    offered, plans, specs = [], [], []
    for policy in ("hpa_70", "explore"):
        cluster = VirtualCluster(settings, seed=7)
        Controller(cluster, make_policy(policy, settings), settings).run(600)
        table = cluster.latencies(START, START + 600, 600.0)
        first = [
            "GET /product",
            "POST /cart",
            "POST /setCurrency",
            "POST /cart/checkout",
        ]  # come when their users do, whatever is slow
        offered.append(table.set_index("endpoint")["offered"].loc[first].tolist())
        specs.append(cluster.pod_history(START, START + 600)["spec"].tolist())
        plans.append((cluster.plan.times.tolist(), cluster.plan.rates.tolist()))
    assert plans[0] == plans[1]
    assert offered[0] == offered[1] and min(offered[0]) > 100
    assert specs[0] != specs[1]


def test_a_draw_of_demands_and_counts_stays_the_same_whatever_the_seed_of_the_load() -> None:
    drawn = [
        boutique("testbed.demand_sigma=0.3", f"testbed.demand_seed={draw}", f"testbed.seed={seed}")
        for draw, seed in DRAWS
    ]
    one, again, other = (true_demand(settings) for settings in drawn)
    np.testing.assert_array_equal(one.demand_seconds, again.demand_seconds)
    np.testing.assert_array_equal(one.visits, again.visits)
    clusters = [VirtualCluster(settings, seed=settings.testbed.seed) for settings in drawn[:2]]
    np.testing.assert_array_equal(*(cluster.program.demand_seconds for cluster in clusters))
    assert (one.demand_seconds != other.demand_seconds).all()
    assert (one.visits != other.visits).sum() == one.visits.size - 1  # of all but the entry itself


def test_seeds_say_what_they_are_for() -> None:
    assert [seed_use(seed) for seed in (1, 999, 1000, 1999, 2000, 2999, 3000)] == [
        "train", "train", "validate", "validate", "test", "test", "other",
    ]  # fmt: skip


def test_the_true_demand_is_the_applications_own() -> None:
    settings = boutique()
    model, application = true_demand(settings), load_application("boutique")
    by_name = dict(zip(model.services, model.demand_seconds, strict=True))
    assert by_name["frontend"] == pytest.approx(0.007)
    assert model.services == tuple(settings.app.services)
    assert set(model.services) == set(application.service_names)
    assert model.visits[0][model.services.index("frontend")] == pytest.approx(1.0)
    assert deployment_of(settings.app, "frontend") == "frontend"


# ------------------------------------------------------------------------------------------------ a real load
@pytest.mark.skipif(not WORLDCUP98.is_file(), reason=WORLDCUP98_MISSING)
def test_the_counts_of_the_world_cup_are_a_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A 50th of the hour before the opening match, against the HPA: the load offered is what was counted."""
    shape = f"{WORLDCUP98}#1998-06-10T15:25:00Z"
    document = yaml.safe_load((ROOT / "config" / "boutique.yaml").read_text())
    document["testbed"].update(
        load={"shape": shape, "kind": "open", "step": 60.0, "scale": 0.02}, warmup=60.0
    )
    document["scale"].update(
        policies=["hpa_60"], seeds=[2000], duration=1200.0, run_dir=str(tmp_path / "runs"), workers=1
    )
    (tmp_path / "cup.yaml").write_text(yaml.safe_dump(document))
    assert predict_scale.main(["--config", str(tmp_path / "cup.yaml")]) == 0
    assert capsys.readouterr().out.strip() == f"{tmp_path}/runs/hpa_60-2000"
    run = read_run(tmp_path / "runs" / "hpa_60-2000")
    counts = pd.read_csv(WORLDCUP98, index_col="time")["requests"]
    minutes = [utc_text(utc_seconds("1998-06-10T15:25:00Z") + 60 * k) for k in range(20)]
    tasks = counts.loc[minutes].to_numpy() / 60 * 0.02  # a second
    asked = (
        run.endpoints.groupby(np.ceil((run.endpoints["time"] - START) / 60))["offered"].sum().to_numpy() / 60
    )
    assert tasks[-1] > 1.25 * tasks[0]
    np.testing.assert_allclose(asked[1:].sum() / tasks[1:].sum(), 30 / 19, rtol=0.03)  # requests a task
    np.testing.assert_allclose(asked, tasks * 30 / 19, rtol=0.2)
    assert run.info["shape"] == shape
    assert run.decisions["applied"].notna().any()


def test_a_mix_of_unknown_tasks_or_of_none_is_refused_by_name() -> None:
    key = "testbed.load.mix"
    with pytest.raises(
        SettingsError, match="unknown task 'brows'; tasks of 'boutique': index, setCurrency, browse"
    ):
        VirtualCluster(
            load_settings(
                ROOT / "config/demo.yaml", [f"{key}=[{{after_seconds: 60, weights: {{brows: 1}}}}]"]
            )
        )
    nothing = "{index: 0, setCurrency: 0, browse: 0, viewCart: 0, addToCart: 0, checkout: 0}"
    with pytest.raises(SettingsError, match="after 60 s no task"):
        VirtualCluster(
            load_settings(ROOT / "config/demo.yaml", [f"{key}=[{{after_seconds: 60, weights: {nothing}}}]"])
        )


def test_autoscalers_see_the_proxys_cpu_and_request_beside_those_of_the_pod(tmp_path: Path) -> None:
    """10 requests to the front each make one call (half of them two): messages are counted on both sides."""
    seen = {}
    for call_ms in (0, 2):
        settings = two_settings(tmp_path)
        path = Path(settings.testbed.application)
        path.write_text(TWO + f"proxy: {{request_millicores: 10, idle_millicores: 5, call_ms: {call_ms}}}\n")
        cluster = VirtualCluster(settings, seed=4)
        cluster.sleep_until(cluster.now() + 600)
        seen[call_ms] = {service: [] for service in ("front", "back")}
        for pod in cluster.pods():
            seen[call_ms][pod.service].append(pod.usage_cores)
        requests = {pod.service: pod.cpu_request_cores for pod in cluster.pods()}
        assert requests == pytest.approx({"front": 0.11, "back": 0.21})
    rates = cluster.metrics(cluster.now(), cluster.now(), STEP).feature("req")[0]
    more = {service: np.subtract(seen[2][service], seen[0][service]) for service in seen[0]}
    for column, (service, calls) in enumerate((("front", 2.0), ("back", 1.0))):  # in, and on average one out
        expected = 0.002 * calls * rates[column] / len(more[service])
        assert more[service] == pytest.approx([expected] * len(more[service]), rel=0.1)


def test_a_slow_metrics_server_shows_one_sample_until_the_next(tmp_path: Path) -> None:
    settings = two_settings(tmp_path, usage_seconds=60.0)
    cluster = VirtualCluster(settings, seed=4)
    start, found = cluster.now(), []
    for _ in range(12):
        cluster.sleep_until(cluster.now() + STEP)
        pod = cluster.pods()[0]
        found.append((pod.usage_time, pod.usage_cores, pod.usage_window_seconds, cluster.now()))
    times = sorted({moment for moment, usage, *_ in found if moment is not None and usage is not None})
    assert len(times) in (3, 4) and np.diff(times).tolist() == [60.0] * (len(times) - 1)
    assert all(0 <= now - moment < 60 for moment, _, _, now in found if moment is not None)
    assert {window for _, _, window, _ in found} == {60.0} and start > 0
    for moment in times:
        assert len({usage for at, usage, _, _ in found if at == moment}) == 1


@pytest.mark.parametrize("proxy", ["", "proxy: {request_millicores: 10, idle_millicores: 5, call_ms: 2}\n"])
def test_a_slow_metrics_server_shows_no_proxy_between_its_samples(proxy: str, tmp_path: Path) -> None:
    settings = two_settings(tmp_path, usage_seconds=60.0)
    path = Path(settings.testbed.application)
    path.write_text(TWO + proxy)
    cluster, seen = VirtualCluster(settings, seed=4), {}
    for _ in range(20):
        cluster.sleep_until(cluster.now() + STEP)
        for pod in cluster.pods():
            seen.setdefault((pod.name, pod.usage_time), set()).add(pod.usage_cores)
    assert len(seen) > 10 and {len(values) for values in seen.values()} == {1}


@pytest.mark.parametrize("seconds", [5.0, 10.0, 15.0, 20.0, 40.0, 60.0, 100.0])
def test_usage_is_cores_whatever_the_metrics_server_takes_its_time(seconds: float, tmp_path: Path) -> None:
    """The mean over an hour is what the containers used, also where samples don't fall on scrapes."""
    cluster = VirtualCluster(two_settings(tmp_path, usage_seconds=seconds, duration=3600.0), seed=4)
    seen: dict[str, list[float]] = {"front": [], "back": []}
    for _ in range(200):
        cluster.sleep_until(cluster.now() + STEP)
        for service, values in seen.items():
            used = [pod.usage_cores for pod in cluster.pods() if pod.service == service]
            values.append(sum(cores for cores in used if cores is not None))
    panel = cluster.metrics(cluster.now() - 199 * STEP, cluster.now(), STEP)
    for column, (service, limit) in enumerate(
        (item.service, item.cpu_limit_cores) for item in cluster.workloads()
    ):
        true = (panel.feature("cpu") * panel.feature("pod"))[:, column].mean() * (limit or 0.0)
        assert np.mean(seen[service][20:]) == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize(("told", "age"), [({}, 15), ({"usage_delay": 0}, 0), ({"usage_delay": 3}, 45)])
def test_what_hpas_read_is_as_old_as_it_is_told(told: dict[str, int], age: int, tmp_path: Path) -> None:
    cluster = VirtualCluster(two_settings(tmp_path, **told), seed=4)
    newest = VirtualCluster(two_settings(tmp_path, usage_delay=0), seed=4)
    newest.sleep_until(cluster.now() + 600 - age)
    cluster.sleep_until(cluster.now() + 600)
    assert {pod.usage_time for pod in cluster.pods()} == {cluster.now() - age}
    assert [pod.usage_cores for pod in cluster.pods()] == [pod.usage_cores for pod in newest.pods()]


@pytest.mark.parametrize("delay", [0, 1, 4])
def test_metrics_are_as_old_as_they_are_told(delay: int, tmp_path: Path) -> None:
    late, newest = (VirtualCluster(two_settings(tmp_path, metrics_delay=late), seed=4) for late in (delay, 0))
    for cluster in (late, newest):
        cluster.sleep_until(cluster.now() + 600)
    end = late.now()
    np.testing.assert_array_equal(
        late.metrics(end - 300, end, STEP).values,
        newest.metrics(end - 300 - delay * STEP, end - delay * STEP, STEP).values,
    )
    first = late.metrics(START - 300, START - 300 + delay * STEP, STEP).values
    assert np.isnan(first).all()


# ------------------------------------------------------------------------------------------ weeks of the load
def test_the_load_at_the_entries_is_what_their_endpoints_were_offered(scaled: VirtualCluster) -> None:
    load = scaled.entered(START, START + 600, 60.0)
    offered = scaled.latencies(START, START + 600, 60.0).groupby("time")["offered"].sum()
    np.testing.assert_allclose(load, offered.to_numpy() / 60, rtol=1e-9)
    assert np.isnan(scaled.entered(START - 1200, START - 600, 60.0)).all()
    assert np.isnan(scaled.entered(START + 600, START + 900, 60.0)).all()


@pytest.mark.parametrize("kind", ["open", "closed"])
def test_a_load_of_earlier_days_is_known_minute_by_minute_and_goes_on_where_it_ended(
    kind: str, tmp_path: Path
) -> None:
    trace = tmp_path / "day.txt"
    values = np.repeat([10, 20, 30, 40, 50, 60], 30)  # half an hour each
    trace.write_text("".join(f"{value}\n" for value in values))
    load = {"shape": str(trace), "kind": kind, "step": 60.0}
    settings = two_settings(tmp_path, load=load, earlier=150 * 60.0, duration=600.0, warmup=300.0)
    cluster = VirtualCluster(settings, seed=1)
    cluster.sleep_until(START + 600)
    begun = START - 300.0  # the warm-up has the first value of the run
    earlier = cluster.entered(begun - 150 * 60, begun, 60.0).reshape(5, 30).mean(axis=1)
    now = cluster.entered(START, START + 600, 60.0).mean()
    np.testing.assert_allclose(earlier / now, np.array([10, 20, 30, 40, 50]) / 60, rtol=0.06)
    again = cluster.entered(begun - 3600, begun, 60.0)
    np.testing.assert_array_equal(again, cluster.entered(begun - 150 * 60, begun, 60.0)[-60:])
    assert np.isnan(cluster.entered(begun - 160 * 60, begun - 150 * 60, 60.0)).all()


@pytest.mark.parametrize(("name", "told"), [("boutique", {}), ("bookinfo", {}), ("boutique_real", None)])
def test_a_run_says_how_long_pods_are_slow_where_they_are(name, told):
    program = make_program(load_settings(ROOT / f"config/{name}.yaml"))
    found = warm_up_of(program)
    if told is None:
        told = {"warm_up": {key: {"seconds": 60.0, "slowdown": 4.0} for key in program.services}}
    assert found == told
