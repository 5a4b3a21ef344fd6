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
