"""Windows, step limits and tolerance per service in the words of an HPA, by settings and by annotation."""

import json
import logging

import pytest
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings

from deepscaler.cluster import ScaleReport, Workload
from deepscaler.control.behavior import ANNOTATION, Behaviors
from deepscaler.control.controller import Controller
from deepscaler.control.decision import Decision
from deepscaler.errors import SettingsError
from deepscaler.policies.base import Reason
from deepscaler.settings import GuardRails

TICK = 15.0


def policy(kind, value, period):
    return {"type": kind, "value": value, "periodSeconds": period}


def world(wish, behavior=None, annotation=None, replicas=10, **rails):
    """web with these rules; the wish is a function of seconds since the start."""
    cluster = FakeCluster(names=("web", "api"), replicas={"web": replicas, "api": 4})
    if annotation is not None:
        cluster.annotations["web"] = {ANNOTATION: annotation}
    start = cluster.clock
    scripted = ScriptedPolicy(
        lambda now, name: wish(now - start) if name == "web" else 4.0, history_seconds=0.0
    )
    given = {"scale_down_window": 0.0, "max_step_up": 1, "max_step_down": 1, "max_replicas": 200, **rails}
    given["behavior"] = {"web": behavior} if behavior is not None else {}
    controller = Controller(cluster, scripted, make_settings(("web", "api"), guard_rails=given))

    def run(ticks):
        found = []
        for _ in range(ticks):
            controller.tick()
            found.append(cluster.replicas["web"])
            cluster.sleep_until(cluster.clock + TICK)
        return found

    return cluster, controller, run


BOTH = [policy("Percent", 10, 60), policy("Pods", 4, 60)]
UP = {"scaleUp": {"policies": [policy("Percent", 50, 60)]}}
DOWN = {"scaleDown": {"stabilizationWindowSeconds": 0, "policies": [policy("Pods", 2, 60)]}}


@pytest.mark.parametrize(
    ("name", "wish", "behavior", "replicas"),
    [
        ("half more a minute", 100, UP, [15, 15, 15, 15, 23, 23]),
        ("two pods down a minute", 1, DOWN, [8, 8, 8, 8, 6, 6]),
        ("the larger of two", 100, {"scaleUp": {"policies": BOTH}}, [14, 14, 14, 14, 18, 18]),
        ("the smaller of two", 100, {"scaleUp": {"selectPolicy": "Min", "policies": BOTH}},
         [11, 11, 11, 11, 13, 13]),
        ("never down", 1, {"scaleDown": {"selectPolicy": "Disabled"}}, [10] * 6),
        ("a tolerance of its own", 11, {"scaleUp": {"tolerance": "0.1"}}, [10] * 6),
        ("and one that is exceeded", 12, {"scaleUp": {"tolerance": "0.1"}}, [12] * 6),
        ("a window down", 5, {"scaleDown": {"stabilizationWindowSeconds": 45}}, [10, 10, 10, 5, 5, 5]),
        ("a window up", 14, {"scaleUp": {"stabilizationWindowSeconds": 45}}, [10, 10, 10, 14, 14, 14]),
    ],
)  # fmt: skip
def test_rates_windows_and_tolerances_are_those_of_an_hpa(name, wish, behavior, replicas):
    for given in ({"behavior": behavior}, {"annotation": json.dumps(behavior)}):
        _, _, run = world(lambda _seconds: float(wish), **given)
        assert run(6) == replicas


def test_only_its_own_service_has_them_and_bounds_come_last():
    cluster, controller, run = world(lambda _seconds: 100.0, UP, max_replicas=12)
    assert run(2) == [12, 12] and cluster.replicas["api"] == 4
    assert controller.decisions().query("service == 'web'")["reason"].tolist()[0] == "max_replicas"


def test_the_reason_says_which_rule_it_was():
    _, controller, run = world(
        lambda seconds: 100.0 if seconds < 60 else 1.0, {**UP, "scaleDown": {}}, scale_down_window=120.0
    )
    run(6)
    reasons = controller.decisions().query("service == 'web'")["reason"].tolist()
    assert reasons == ["step_limit"] * 4 + ["stabilized"] * 2


def test_an_annotation_wins_and_a_bad_one_is_said_once_and_ignored(caplog):
    cluster, _, run = world(lambda _seconds: 100.0, UP, annotation='{"scaleUp": {"policies": []}}')
    with caplog.at_level(logging.WARNING):
        assert run(2) == [15, 15]  # the settings hold
        assert caplog.text.count("annotation deepscaler.io/behavior is ignored") == 1
        assert "must specify at least one Policy" in caplog.text
        cluster.annotations["web"] = {
            ANNOTATION: json.dumps({"scaleUp": {"policies": [policy("Pods", 30, 15)]}})
        }
        assert run(1) == [45]
        assert "web: annotation deepscaler.io/behavior: read" in caplog.text


@pytest.mark.stress
@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}x", "1", '"scaleUp"', "{" * 5000, '{"up": {}}', '{"scaleUp": 3}',
     '{"scaleUp": {"tolerance": "x"}}',
     '{"scaleDown": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 15}]}}',
     '{"scaleDown": {"stabilizationWindowSeconds": 3601}}'],
)  # fmt: skip
def test_whatever_an_annotation_says_scaling_goes_on(text, caplog):
    _, _, run = world(lambda _seconds: 12.0, annotation=text)
    assert run(3) == [11, 12, 12] and "is ignored" in caplog.text


@pytest.mark.parametrize(
    ("behavior", "message"),
    [
        ({"scaleUp": {"policies": []}}, r"behavior.web: spec.behavior.scaleUp.policies: Required value"),
        ({"up": {}}, r"behavior.web: spec.behavior.up: unknown key"),
    ],
)
def test_a_behavior_of_the_settings_that_an_api_server_refuses_is_refused(behavior, message):
    rails = GuardRails.model_validate({"behavior": {"web": behavior}})
    with pytest.raises(SettingsError, match=message):
        Behaviors(rails)


@pytest.mark.parametrize(("acting", "limit"), [({"web"}, 10), (set(), 8)])
def test_a_minimum_that_is_given_back_is_no_change_of_replicas(acting, limit):
    pods = {"scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}}
    behaviors, running = Behaviors(GuardRails(behavior={"web": pods})), [Workload("web", 6, 0.1, 0.1)]
    behaviors.rules(running, 0.0)
    behaviors.record([Decision("web", 6, 6, Reason.UNCHANGED, 6)], ScaleReport({"web": 4}), 0.0, acting)
    assert behaviors.rules(running, 15.0)["web"].limit(6, 20, 15.0)[0] == limit
