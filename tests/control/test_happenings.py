"""Events on Deployments: what is told, in the limits of a real server, aggregated, within a budget."""

import logging
import shutil
import subprocess

import pytest
from helpers.fakes import ScriptedPolicy
from helpers.kube_shop import T0, make
from helpers.peak import Peak, hpa

from deepscaler.adapters.kubernetes.announcer import AGAIN_SECONDS, BURST, SERIES_SECONDS, Announcer
from deepscaler.adapters.kubernetes.api import KubeApi
from deepscaler.cluster import Autoscaler, Condition, Happening
from deepscaler.control.happenings import held_by
from testbed.kubernetes_api import Identity, Rule

RAILS = {"scale_down_window": 0.0, "max_step_up": 99, "max_step_down": 99}
UP = Happening("web", "ScaledUp", "Scale", "2 -> 5 replicas (forecast)")
DEPLOYMENT = {"web": ("web", "uid-of-web")}


@pytest.fixture
def peak():
    world = Peak()
    with world.server:
        yield world


@pytest.fixture
def announcer(peak, tmp_path):
    return Announcer(KubeApi(make(peak.world, tmp_path).cluster), "shop", peak.clock)


def told(peak):
    found = [item for _, item in peak.world.store.snapshot("events", "shop")]
    return sorted(found, key=lambda item: item["eventTime"])


def scripted(*wishes):
    """Wants each of these replicas of web in turn."""
    left = list(wishes)
    return ScriptedPolicy(
        lambda _now, name: (left.pop(0) if len(left) > 1 else left[0]) if name == "web" else 2.0,
        history_seconds=0.0,
    )


def tick(peak, controller, times):
    for _ in range(times):
        controller.tick()
        peak.step()


def test_writes_holds_and_their_reasons_are_told_once_each(peak, tmp_path):
    controller = peak.advisor(
        tmp_path, scripted(5.0, 5.0, 3.0, float("nan")), mode="act", events=True, guard_rails=RAILS
    )
    tick(peak, controller, 6)
    assert [(each["reason"], each["type"], each["message"]) for each in told(peak)] == [
        ("ScaledUp", "Normal", "2 -> 5 replicas (forecast)"),
        ("ScaledDown", "Normal", "5 -> 3 replicas (forecast)"),
        ("Held", "Warning", "replicas stay at 3 (held_missing)"),
    ]
    uid = peak.world.store.peek("apps/deployments", "shop", "web")["metadata"]["uid"]
    assert {each["involvedObject"]["uid"] for each in told(peak)} == {uid}


def test_advice_and_what_the_autoscaler_says_of_itself_are_told(peak, tmp_path, caplog):
    peak.world.store.create(hpa(low=2, high=3))
    peak.at = 0.0
    controller = peak.advisor(
        tmp_path, scripted(2.0, 2.0, 3.0), mode="advise", events=True, guard_rails=RAILS
    )
    with caplog.at_level(logging.INFO):
        tick(peak, controller, 1)
        peak.step()
        tick(peak, controller, 2)
    reasons = [each["reason"] for each in told(peak)]
    assert "AutoscalerHolds" in reasons
    said = next(each["message"] for each in told(peak) if each["reason"] == "AutoscalerHolds")
    assert said == "HorizontalPodAutoscaler/web: ScalingLimited True (TooManyReplicas)"
    assert f"web: {said}" in caplog.text


def test_in_the_shadow_the_autoscalers_reasons_are_logged_and_nothing_is_written(peak, tmp_path, caplog):
    peak.world.store.create(hpa(low=2, high=3))
    peak.at = 0.0
    controller = peak.advisor(tmp_path, scripted(9.0), mode="shadow", events=True, guard_rails=RAILS)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            peak.step()
        tick(peak, controller, 2)
    assert peak.world.writes == [] and told(peak) == []
    assert "ScalingLimited True (TooManyReplicas)" in caplog.text


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Condition("ScalingLimited", "True", "TooManyReplicas"), True),
        (Condition("ScalingLimited", "False", "DesiredWithinRange"), False),
        (Condition("AbleToScale", "False", "FailedGetScale"), True),
        (Condition("AbleToScale", "True", "ScaleDownStabilized"), False),
        (Condition("ScalingActive", "False", "FailedGetResourceMetric"), True),
        (Condition("ScalingActive", "False", "ScalingDisabled"), False),  # its owner set 0 replicas
    ],
)
def test_an_autoscaler_holds_where_a_condition_keeps_it_from_its_wish(condition, holds):
    assert bool(held_by([Autoscaler("web", 1, 5, conditions=(condition,))])) == holds


# ------------------------------------------------------------------------------------------ how it is written
def test_the_same_again_is_counted_in_a_series_that_is_written_now_and_then(peak, announcer):
    for _ in range(int(AGAIN_SECONDS // 15)):
        announcer.announce([UP], DEPLOYMENT)
        peak.clock.now += 15.0
    [event] = told(peak)
    assert event["series"]["count"] == pytest.approx(AGAIN_SECONDS / 15, abs=SERIES_SECONDS / 15)
    assert len(peak.world.writes) <= 1 + AGAIN_SECONDS / SERIES_SECONDS
    announcer.announce([UP], DEPLOYMENT)
    assert len(told(peak)) == 2  # what happens much later is another Event


@pytest.mark.stress
def test_a_flood_stays_within_the_budget_and_says_so(peak, announcer):
    for count in range(200):
        announcer.announce([Happening("web", "ScaledUp", "Scale", f"to {count}")], DEPLOYMENT)
    assert len(told(peak)) == BURST
    peak.clock.now += 3600.0
    announcer.announce([UP], DEPLOYMENT)
    assert told(peak)[-1]["message"].endswith(
        f"({200 - int(BURST)} others since the last Event aren't shown)"
    )


@pytest.mark.stress
@pytest.mark.parametrize("name", ["web", "x" * 253, "a.b-" * 60 + "c"])
@pytest.mark.parametrize("note", ["ü" * 3000, "", "two\nlines", "\u0000\u202e"])
def test_any_name_and_any_text_fit_the_servers_limits(peak, announcer, name, note):
    announcer.announce([Happening("web", "R" * 300, "A" * 300, note, warning=True)], {"web": (name, "")})
    [event] = told(peak)
    assert len(event["message"].encode()) <= 1024 and len(event["reason"]) == 128


def test_without_the_right_it_is_said_once_and_scaling_goes_on(tmp_path, caplog):
    from helpers.kube_shop import Emulated

    rules = [
        Rule(("get", "list"), namespaces=("shop",)),
        Rule(("patch",), ("deployments/scale",), namespaces=("shop",)),
    ]
    world = Emulated({"secret": Identity("me", rules)})
    with world.server:
        announcer = Announcer(KubeApi(make(world, tmp_path).cluster), "shop", lambda: T0)
        for _ in range(3):
            announcer.announce([UP], DEPLOYMENT)
    assert (
        caplog.text.count("Events can't be written") == 1
        and "events.events.k8s.io is forbidden" in caplog.text
    )


def test_kubectl_describes_them(peak, announcer, tmp_path):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on this machine")
    uid = peak.world.store.peek("apps/deployments", "shop", "web")["metadata"]["uid"]
    announcer.announce([UP], {"web": ("web", uid)})
    command = ["kubectl", "--kubeconfig", str(tmp_path / "kubeconfig"), "describe", "deployment", "web"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "ScaledUp" in ran.stdout and "2 -> 5 replicas (forecast)" in ran.stdout, ran.stderr
