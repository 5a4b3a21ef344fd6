"""HorizontalPodAutoscalers of the emulated API act: on the live engine, and on what their objects say."""

import json

import numpy as np
import pytest
from helpers.peak import HPA, Peak, hpa

from deepscaler.settings import load_settings
from testbed.applications.loading import load_application
from testbed.engine.program import compile_program
from testbed.engine.simulator import LoadPlan, Simulator
from testbed.live.autoscaling import SYNC_SECONDS, HpaController
from testbed.live.deployments import Deployments
from testbed.live.serve import LiveTestbed
from testbed.live.wall_clock import WallClock


def test_it_follows_the_load_and_says_so_in_its_status():
    peak = Peak(at=60.0, end=1e9)
    peak.world.store.create(hpa(high=6))
    for _ in range(16):
        peak.step()
    status = peak.object["status"]
    conditions = {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}
    assert peak.replicas == 6 and status["desiredReplicas"] == 6
    assert conditions["ScalingLimited"] == ("True", "TooManyReplicas")
    assert conditions["ScalingActive"] == ("True", "ValidMetricFound")


@pytest.mark.parametrize(("low", "high", "replicas"), [(5, 12, 5), (1, 1, 1)])
def test_what_is_patched_is_what_it_does_next(low, high, replicas):
    peak = Peak(at=1e9)
    peak.world.store.create(hpa())
    peak.step()
    body = json.dumps({"spec": {"minReplicas": low, "maxReplicas": high}}).encode()
    where = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web"
    peak.world.store.handle("PATCH", where, "", {"Content-Type": "application/merge-patch+json"}, body)
    peak.step()
    assert peak.replicas == replicas


@pytest.mark.parametrize("namespace", ["default", "shop"])
def test_an_application_is_served_in_a_namespace_that_is_there_or_not(namespace):
    app = load_settings("config/boutique.yaml", [f"app.namespace={namespace}"]).app
    program = compile_program(load_application("boutique"))
    plan = LoadPlan.closed([0.0], [0], program.task_weights)
    simulator = Simulator(program, plan, seed=1, replicas=[1] * program.num_services)
    clock = WallClock(simulator, clock=lambda: 0.0)
    assert set(Deployments(program, app, clock).store.replicas(namespace)) == set(app.services)


def test_on_the_live_engine_an_idle_service_loses_its_surplus():
    """Nobody calls: after the stabilization window the autoscaler goes to its minimum."""
    app = load_settings("config/boutique.yaml").app
    program = compile_program(load_application("boutique"))
    plan = LoadPlan.closed([0.0], [0], program.task_weights)
    now = [0.0]
    simulator = Simulator(program, plan, seed=1, replicas=[4] * program.num_services)
    clock = WallClock(simulator, clock=lambda: now[0])
    deployments = Deployments(program, app, clock)
    controller = HpaController(deployments.store, deployments.measured, lambda: clock.epoch + clock.now)
    item = hpa("frontend", low=2)
    item["metadata"]["namespace"] = app.namespace
    deployments.store.create(item)
    replicas = []
    for _ in range(24):
        now[0] += SYNC_SECONDS
        clock.step()
        deployments.sample()
        controller.sync()
        deployments.sync()
        replicas.append(deployments.store.replicas(app.namespace)["frontend"])
    assert replicas[0] == 4 and replicas[-1] == 2
    assert int(clock.snapshot().spec[list(program.services).index("frontend")]) == 2
    assert all(np.isfinite(pod.usage_cores) for pod in deployments.measured(app.namespace, "frontend"))
    assert deployments.store.peek(HPA, app.namespace, "frontend")["status"]["desiredReplicas"] == 2


def test_live_it_acts_on_the_sample_before_as_in_the_virtual_cluster(tmp_path, monkeypatch):
    settings = load_settings("config/boutique.yaml", [f"testbed.serve.directory={tmp_path}"])
    now, ages = [0.0], []
    live = LiveTestbed(settings)
    monkeypatch.setattr(live.clock, "_clock", lambda: live.clock._start + now[0])
    service = settings.app.namespace, "frontend"

    def look():
        found = [pod.usage_time for pod in live.deployments.measured(*service)]
        ages.append({None if each is None else live.clock.epoch + live.clock.now - each for each in found})

    monkeypatch.setattr(live.autoscalers, "sync", look)
    for _ in range(4):
        now[0] += SYNC_SECONDS
        live.clock.step()
        live.autoscale()
    assert ages[:2] == [{None}, {None}]
    assert [*ages[2], *ages[3]] == pytest.approx([SYNC_SECONDS] * 2, abs=0.01)


def custom(kind, name="api"):
    """An autoscaler by a metric that nobody serves."""
    item = hpa(name)
    target = {"type": "AverageValue", "averageValue": "1k"}
    item["spec"]["metrics"] = [
        {"type": kind, kind.lower(): {"metric": {"name": "packets"}, "target": target}}
    ]
    return item


def conditions(peak, name):
    status = peak.world.store.peek(HPA, "shop", name)["status"]
    return {each["type"]: (each["status"], each["reason"], each["message"]) for each in status["conditions"]}


@pytest.mark.parametrize("kind", ["Pods", "External"])
def test_one_that_cant_be_used_says_why_and_stops_no_other(kind):
    peak = Peak(at=0.0, end=1e9)
    for item in (custom(kind), hpa(high=6)):
        peak.world.store.create(item)
    for _ in range(16):
        peak.step()
    status, reason, message = conditions(peak, "api")["ScalingActive"]
    assert (status, reason) == ("False", f"FailedGet{kind}Metric") and "packets" in message
    assert peak.replicas == 6


def test_one_that_cant_even_be_read_stops_no_other(monkeypatch):
    """Such as one that an older API has let in."""
    monkeypatch.setattr("testbed.kubernetes_api.defaults.autoscaler_faults", lambda obj: [])
    peak, item = Peak(at=0.0, end=1e9), hpa("api")
    item["spec"]["metrics"] = [{"type": "Resource", "resource": {"target": {"averageUtilization": 50}}}]
    for each in (item, hpa(high=6)):
        peak.world.store.create(each)
    for _ in range(16):
        peak.step()
    status, reason, message = conditions(peak, "api")["ScalingActive"]
    assert (status, reason) == (
        "False",
        "InvalidMetricSourceType",
    ) and "must specify a resource name" in message
    assert peak.replicas == 6


def test_after_a_failed_sync_what_it_wanted_stays_and_only_one_condition_says_why():
    peak = Peak(at=1e9, usual=0.01)
    peak.world.store.create(hpa())
    for _ in range(2):
        peak.step()
    peak.measured = peak.controller._pods = lambda namespace, name: []
    where = "/apis/apps/v1/namespaces/shop/deployments/web/scale"
    body = json.dumps({"spec": {"replicas": 5}}).encode()
    peak.world.store.handle("PATCH", where, "", {"Content-Type": "application/merge-patch+json"}, body)
    peak.step()
    status, found = peak.object["status"], conditions(peak, "web")
    assert (status["currentReplicas"], status["desiredReplicas"], peak.replicas) == (5, 2, 5)
    assert found["ScalingActive"][:2] == ("False", "FailedGetResourceMetric")
    assert {name for name, each in found.items() if "no metrics" in each[2]} == {"ScalingActive"}
    peak.controller.sync()
    assert conditions(peak, "web") == found


def test_two_on_one_deployment_hold_it():
    """The first of them acts once, since nothing is known yet of whom the other one asks about."""
    peak = Peak(at=0.0, end=1e9)
    second = hpa(high=12)
    second["metadata"]["name"] = "web-too"
    for item in (hpa(high=12), second):
        peak.world.store.create(item)
    replicas = []
    for _ in range(8):
        peak.step()
        replicas.append(peak.replicas)
    assert len(set(replicas)) == 1
    for name in ("web", "web-too"):
        status, reason, message = conditions(peak, name)["ScalingActive"]
        assert (status, reason) == ("False", "AmbiguousSelector") and "[shop/web shop/web-too]" in message
    where = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web-too"
    peak.world.store.handle("DELETE", where, "", {}, b"")
    for _ in range(8):
        peak.step()
    assert peak.replicas > replicas[-1] and conditions(peak, "web")["ScalingActive"][0] == "True"


@pytest.mark.parametrize(
    "reference",
    [
        {"kind": "StatefulSet", "name": "web", "apiVersion": "apps/v1"},
        {"kind": "Deployment", "name": "web", "apiVersion": "example.com/v1"},
        {"kind": "Deployment", "name": "gone", "apiVersion": "apps/v1"},
    ],
)
def test_what_isnt_there_is_not_scaled_and_neither_is_its_namesake(reference):
    peak, item = Peak(at=0.0, end=1e9), hpa()
    item["spec"]["scaleTargetRef"] = reference
    peak.world.store.create(item)
    for _ in range(4):
        peak.step()
    status, reason, message = conditions(peak, "web")["AbleToScale"]
    assert (status, reason, peak.replicas) == ("False", "FailedGetScale", 2)
    assert f"{reference['kind']} {reference['name']} of {reference['apiVersion']} not found" in message
