"""Shadow runs and their replays: the shadow changes nothing, and a replay makes what was and what will be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.paths import ROOT

import calculate
from deepscaler.evaluation.measures import evaluate_run
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.record import fitted_to
from deepscaler.policies.explore import SMOOTH_SECONDS
from deepscaler.runs import write_run
from deepscaler.settings import load_settings
from testbed.applications.loading import load_application
from testbed.applications.truth import expected_visits
from testbed.cluster.virtual import VirtualCluster
from testbed.experiments import replay as replaying
from testbed.experiments.recorded import endpoint_counts, fitted_application, recorded_load
from testbed.experiments.replay import _at_first, _busiest, _stage
from testbed.experiments.shadow import shadow_run

OVERRIDES = [
    "testbed.duration=4500",
    "testbed.load={shape: fluctuation, low: 20, high: 80}",
    "testbed.demand_sigma=0.3",
    "testbed.demand_seed=3",
    "testbed.balancing=two_choices",
]


@pytest.fixture(scope="module")
def settings():
    return load_settings(ROOT / "config" / "boutique.yaml", OVERRIDES)


@pytest.fixture(scope="module")
def record(settings):
    """An HPA at 70 % in charge, one at 50 % in its shadow, on a cluster with other demands."""
    return shadow_run(settings, "hpa_70", "hpa_50", 1000)


def test_a_shadow_decides_and_changes_nothing(settings, record):
    alone = shadow_run(settings, "hpa_70", None, 1000)
    assert record.pods.equals(alone.pods) and record.endpoints.equals(alone.endpoints)
    assert (record.info["mode"], record.info["policy"], record.info["acting"]) == (
        "dry_run",
        "hpa_50",
        "hpa_70",
    )
    assert record.decisions["applied"].isna().all()
    assert (record.decisions["target"] > record.decisions["current"]).any()


def test_the_users_of_a_closed_loop_are_found_again(settings, record):
    application = load_application("boutique")
    plan = recorded_load(record, settings, application)
    assert plan.users[1:].min() == pytest.approx(20, abs=8) and plan.users.max() == pytest.approx(80, abs=12)
    assert plan.mixes[0] == pytest.approx(
        [task.weight for task in application.tasks] / np.sum([task.weight for task in application.tasks]),
        abs=0.02,
    )


@pytest.fixture(scope="module")
def stage(settings, record):
    patch = pytest.MonkeyPatch()
    patch.setattr(replaying, "TRIED_SECONDS", 1800.0)
    yield _stage(record, settings, fitted_to(record, settings))
    patch.undo()


def test_requests_are_shared_out_as_makes_what_was(stage):
    assert stage.settings.testbed.balancing == "two_choices"


def test_a_policy_sees_the_recorded_rates_and_what_was_before_unless_users_wait(stage, record):
    cluster = stage.cluster(9001)
    start = cluster.now()
    cluster.sleep_until(start + 600)
    seen, made = (
        cluster.metrics(start + 15, start + 600, 15),
        VirtualCluster.metrics(cluster, start + 15, start + 600, 15),
    )
    told = record.panel.select(seen.services, seen.features).between(start, start + 600)
    assert (seen.times == told.times).all()
    factor = seen.feature("req") / told.feature("req")
    factor = factor[:, told.feature("req").min(axis=0) > 1.0]
    assert np.ptp(factor, axis=1).max() < 1e-5  # the same for all services
    assert np.abs(np.median(factor[20:]) - 1.0) < 0.02  # nobody waits long, there or here
    assert not np.array_equal(made.feature("req"), seen.feature("req"))
    for name in ("pod", "cpu", "res"):
        assert np.array_equal(made.feature(name), seen.feature(name), equal_nan=True)


def test_a_shadow_record_begins_with_what_its_policy_could_look_back_at(settings):
    short = settings.model_copy(update={"testbed": settings.testbed.model_copy(update={"duration": 60.0})})
    record = shadow_run(short, "hpa_70", "explore", 1000)
    first = record.endpoints["time"].min()
    assert record.panel.times[0] == first - SMOOTH_SECONDS
    replicas = dict(zip(record.decisions["service"][::-1], record.decisions["current"][::-1], strict=True))
    assert _at_first(record) == replicas == dict.fromkeys(short.app.services, short.testbed.initial_replicas)


def test_the_busiest_part_is_cut_out_of_a_long_record(record, monkeypatch):
    monkeypatch.setattr(replaying, "TRIED_SECONDS", 900.0)
    part = _busiest(record)
    assert len(part.endpoints["time"].unique()) == 60
    assert part.info["start"] == part.endpoints["time"].min() - 15
    assert part.decisions["time"].min() == part.info["start"]
    rate = part.endpoints["offered"].sum() / 900
    assert rate >= record.endpoints["offered"].sum() / 4500


def test_numbers_of_calls_and_demands_are_those_that_were_fitted(record):
    application = load_application("boutique")
    counts = endpoint_counts(record, application)
    described = counts / counts.sum() @ expected_visits(application)
    names = application.service_names
    visits = described * np.linspace(1.0, 2.0, len(names))
    demand = np.array([3 * service.demand_seconds for service in application.services])
    demand[1], visits[2] = np.nan, np.nan
    model = DemandModel(
        services=names, idle_cores=np.full(len(names), 0.01), demand_seconds=demand,
        limit_cores=np.ones(len(names)), boot_seconds=np.ones(len(names)), entries=(names[0],),
        visits=visits[None], external_share=np.ones(1), sla_seconds=0.2, think_seconds=None,
        rho_max=0.9, sla_margin=0.75, response=None, quality={},
    )  # fmt: skip
    found = fitted_application(application, record, model)
    known = np.isfinite(visits)
    assert (counts / counts.sum() @ expected_visits(found))[known] == pytest.approx(visits[known], rel=1e-4)
    for number, (new, old) in enumerate(zip(found.services, application.services, strict=True)):
        factor = 1.0 if number == 1 else 3.0
        assert new.demand_seconds == pytest.approx(factor * old.demand_seconds)


def test_the_page_foretells_what_happens_when_the_shadow_acts(
    settings, record, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(replaying.replay, "__defaults__", ((9001, 9002),))
    monkeypatch.setattr(replaying, "TRIED_SECONDS", 900.0)
    write_run(record, tmp_path / "run")
    arguments = [
        "--config",
        str(ROOT / "config" / "boutique.yaml"),
        "--counterfactual",
        str(tmp_path / "run"),
    ]
    assert calculate.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    real = evaluate_run(shadow_run(settings, "hpa_50", None, 1000), 300.0)
    foretold = found["by_replay"]
    assert foretold["core_hours"]["value"] == pytest.approx(real["core_hours"], rel=0.05)
    assert foretold["was_core_hours"] == pytest.approx(found["was"]["core_hours"], rel=0.01)
    assert abs(foretold["minutes"]["value"] - real["violation_minutes"]) <= 2
    assert found["by_response"] is not None or "too little load" in found["by_response_why"]
