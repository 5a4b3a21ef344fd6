"""`mode: advise` on the emulated API beside a complete HPA: raised ahead of a peak, and always given back."""

import json
import logging
import signal
import subprocess
import sys
import time

import pytest
from helpers.fakes import ScriptedPolicy
from helpers.kube_shop import T0, config
from helpers.paths import ROOT
from helpers.peak import BOOT, TICK, Peak, hpa

import predict_scale
from deepscaler.cluster import Advice, Autoscaler, Workload
from deepscaler.control.advice import LONGEST_SECONDS, Change, advisable, change, lead_seconds
from deepscaler.control.decision import Decision
from deepscaler.policies.base import Reason
from deepscaler.settings import Scale

LEAD = 120.0
RAILS = {"scale_down_window": 0.0, "max_step_up": 99, "max_step_down": 99}


# ------------------------------------------------------------------------------------------ the pure decision
def decided(target, current=4, reason=Reason.FORECAST):
    return Decision("web", current, target, reason, target)


def standing(minimum=2, raised=8, left=100.0):
    return {"minimum": raised, "advice": Advice(minimum, raised, T0 + left, "me")}


EDITED = {"minimum": 3, "advice": Advice(2, 8, T0 + 99)}


def asked(decision, **autoscaler):
    given = {"minimum": 2, "maximum": 12, **autoscaler}
    return change(decision, Autoscaler("web", **given), T0, LEAD, "me")


@pytest.mark.parametrize(
    ("name", "decision", "autoscaler", "raised"),
    [
        ("more than there is", decided(7), {}, (2, 7)),
        ("as many as there are", decided(4), {}, None),
        ("fewer than there are", decided(1), {}, None),
        ("never above the maximum", decided(40), {}, (2, 12)),
        ("at the maximum already", decided(40, current=12), {}, None),
        ("the owner's minimum is enough", decided(7), {"minimum": 9}, None),
        ("a higher one replaces a raise", decided(10), standing(), (2, 10)),
        ("a raise that is fresh is left", decided(8), standing(), None),
        ("a lower wish leaves it, too", decided(6), standing(), None),
        ("one that is needed is renewed", decided(8), standing(left=59.0), (2, 8)),
        ("one that is over is lowered", decided(6), standing(left=-1.0), (2, 6)),
        ("a floor raises, even while data are missing", decided(7, reason=Reason.FLOOR), {}, (2, 7)),
        ("the owner's edit is the new minimum", decided(7), EDITED, (3, 7)),
    ],
)  # fmt: skip
def test_a_minimum_is_raised_while_more_is_wanted_than_there_is(name, decision, autoscaler, raised):
    found = asked(decision, **autoscaler)
    if raised is None:
        assert found is None
    else:
        assert found == Change(Advice(*raised, T0 + LEAD, "me"), decision.reason.value)


@pytest.mark.parametrize(
    ("decision", "autoscaler", "why"),
    [
        (decided(8, current=8), standing(left=0.0), "its time is over"),
        (decided(8, current=8), standing(left=LONGEST_SECONDS + 60), "its time is over"),  # another's clock
        (decided(4, reason=Reason.HELD_MISSING), standing(), "in doubt (held_missing)"),
        (decided(4, reason=Reason.HELD_STALE), standing(), "in doubt (held_stale)"),
        (decided(4, reason=Reason.PAUSED), standing(), "in doubt (paused)"),
        (decided(0, current=0, reason=Reason.SCALED_TO_ZERO), standing(), "in doubt (scaled_to_zero)"),
        (decided(4), EDITED, "somebody set a minimum of 3, which stands"),
    ],
)  # fmt: skip
def test_it_is_given_back_when_its_time_is_over_and_in_doubt(decision, autoscaler, why):
    assert asked(decision, **autoscaler) == Change(None, why)
    if autoscaler["advice"].raised == autoscaler["minimum"]:
        assert asked(decision, minimum=2) is None  # nothing stands


@pytest.mark.parametrize(
    ("boot", "seconds", "lead"),
    [(None, None, 75.0), (45.0, None, 120.0), (9e9, None, 3600.0), (45.0, 30.0, 30.0)],
)
def test_the_lead_is_a_start_up_a_forecast_and_a_sync(boot, seconds, lead):
    workload = Workload("web", 2, 1.0, 1.0, boot_seconds=boot)
    assert lead_seconds(workload, Scale.model_validate({"advise": {"seconds": seconds}})) == lead


def test_only_one_autoscaler_that_nobody_manages_is_advised():
    one = Autoscaler("web", 1, 5)
    kinds = {
        "one": ((one,), ("HorizontalPodAutoscaler/web",)),
        "two": ((one, one), ("HorizontalPodAutoscaler/web", "HorizontalPodAutoscaler/other")),
        "KEDA's": ((Autoscaler("web", 1, 5, owner="ScaledObject/web"),), ("HorizontalPodAutoscaler/web",)),
        "KEDA's, named": ((one,), ("HorizontalPodAutoscaler/web", "ScaledObject/web")),
        "torn": ((Autoscaler("web", 1, 5, unsound="annotation"),), ("HorizontalPodAutoscaler/web",)),
        "none": ((), ()),
    }
    fit = {
        name: advisable(Workload("web", 2, 1.0, 1.0, hpas=hpas, autoscalers=names)) is not None
        for name, (hpas, names) in kinds.items()
    }
    assert [name for name, advised in fit.items() if advised] == ["one"]


# ------------------------------------------------------------------------------------------ beside a real HPA
@pytest.fixture
def peak():
    world = Peak()
    with world.server:
        yield world


def foresight(peak, seconds=BOOT + 2 * TICK):
    """A policy that knows what comes within so many seconds."""

    def wish(now, service):
        return max(peak.needed(now), peak.needed(now + seconds)) if service == "web" else 2.0

    return ScriptedPolicy(wish, history_seconds=0.0)


def run(peak, until, controller=None):
    while peak.clock.now < T0 + until:
        if controller is not None:
            controller.tick()
        peak.step()


def test_the_hpa_is_ahead_of_the_peak_by_advice_and_few_writes_are_made(peak, tmp_path):
    peak.world.store.create(hpa())
    alone = Peak()
    alone.world.store.create(hpa())
    run(alone, 750.0)
    controller = peak.advisor(tmp_path, foresight(peak), guard_rails=RAILS)
    run(peak, 150.0, controller)
    assert peak.minimum == 10 and peak.replicas == 10 and json.loads(peak.advice)["minReplicas"] == 2
    run(peak, 750.0, controller)
    assert peak.short == 0.0 and alone.short > 300.0  # replica-seconds that the HPA alone was short of
    assert peak.minimum == 2 and peak.advice is None
    assert len(peak.patches) == 2  # raised once, given back once
    assert set(peak.world.writes) == {
        "PATCH /apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web"
    }
    rows = controller.decisions().query("service == 'web'")
    assert set(rows["mode"]) == {"advise"} and rows["applied"].dropna().tolist() == [10.0, 2.0]
    assert {item["type"] for item in peak.object["status"]["conditions"]} == {
        "AbleToScale",
        "ScalingActive",
        "ScalingLimited",
    }


def test_it_never_asks_for_more_than_the_hpas_maximum(peak, tmp_path):
    peak.world.store.create(hpa(high=6))
    run(peak, 300.0, peak.advisor(tmp_path, foresight(peak), guard_rails=RAILS))
    assert peak.replicas == 6 and peak.minimum in (2, 6)
    assert all("422" not in str(each) for each in peak.patches)


def test_what_it_raised_is_given_back_when_it_ends_and_when_data_are_missing(peak, tmp_path):
    peak.world.store.create(hpa())
    controller = peak.advisor(tmp_path, foresight(peak), guard_rails=RAILS)
    run(peak, 120.0, controller)
    assert peak.minimum == 10
    controller.end()
    assert peak.minimum == 2 and peak.advice is None
    controller.policy.wish = lambda _now, _service: 11.0 if peak.clock.now < T0 + 150.0 else float("nan")
    run(peak, 150.0, controller)
    assert peak.minimum == 11
    run(peak, 165.0, controller)  # a forecast that is none: held
    assert peak.minimum == 2 and peak.advice is None


@pytest.mark.stress
@pytest.mark.parametrize("late", [0.0, 30.0])
def test_after_a_crash_the_next_one_gives_back_in_time(peak, tmp_path, late):
    """The controller vanishes; the one that leads next finds in the annotation what to do, and until when."""
    peak.world.store.create(hpa())
    seconds = 90.0
    crashed = peak.advisor(tmp_path, foresight(peak), guard_rails=RAILS, advise={"seconds": seconds})
    run(peak, 120.0, crashed)
    assert peak.minimum == 10
    died = peak.clock.now
    run(peak, 120.0 + late)
    calm = ScriptedPolicy(lambda _now, _service: 2.0, history_seconds=0.0)
    run(peak, 300.0, next_ := peak.advisor(tmp_path, calm, guard_rails=RAILS, advise={"seconds": seconds}))
    given_back = next_.decisions().query("service == 'web' and applied == 2")["time"].min()
    assert given_back - died <= seconds + TICK
    assert peak.minimum == 2 and peak.advice is None


@pytest.mark.stress
def test_after_kill_9_a_cron_job_gives_back(peak, tmp_path, capsys, caplog):
    """Nobody starts again: `--give-back` reads when the advice ends, and ends it, as a CronJob does."""
    peak.clock.now = time.time()
    peak.world.store.create(hpa())
    settings = {"mode": "advise", "advise": {"seconds": 2.5}, "static_replicas": {"web": 7}, "dry_run": False}
    path = config(peak.world, tmp_path, **settings)
    command = [sys.executable, "predict_scale.py", "--config", path]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 30.0
            while peak.minimum != 7:
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGKILL)
    assert predict_scale.main(["--config", path, "--give-back", "expired"]) == 0
    assert peak.minimum == 7  # its time isn't over
    until = json.loads(peak.advice)["until"]
    with caplog.at_level(logging.INFO):
        while peak.minimum == 7:
            assert predict_scale.main(["--config", path, "--give-back", "expired"]) == 0
            assert time.monotonic() < end + 30.0
            time.sleep(0.2)
    assert (peak.minimum, peak.advice) == (2, None) and until
    assert "web: minimum 2 given back" in capsys.readouterr().out


def test_all_that_is_raised_is_given_back_on_demand(peak, tmp_path, capsys, caplog):
    peak.clock.now = time.time()
    note = json.dumps({"minReplicas": 3, "raisedTo": 9, "until": "2999-01-01T00:00:00Z", "by": "a"})
    torn = hpa("api", annotations={"deepscaler.io/advice": "9"})
    for item in (hpa(low=9, annotations={"deepscaler.io/advice": note}), torn):
        peak.world.store.create(item)
    path = config(peak.world, tmp_path, mode="shadow", dry_run=True)
    assert predict_scale.main(["--config", path, "--give-back", "all"]) == 1
    said = capsys.readouterr()
    assert "web: minimum 3 given back" in said.out and peak.minimum == 3 and peak.advice is None
    assert "annotation deepscaler.io/advice: '9' can't be read" in caplog.text


def test_what_the_owner_sets_meanwhile_stands(peak, tmp_path, caplog):
    peak.world.store.create(hpa())
    controller = peak.advisor(tmp_path, foresight(peak), guard_rails=RAILS)
    run(peak, 120.0, controller)
    body = json.dumps({"spec": {"minReplicas": 4}}).encode()
    where = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web"
    peak.world.store.handle("PATCH", where, "", {"Content-Type": "application/merge-patch+json"}, body)
    with caplog.at_level(logging.INFO):
        run(peak, 135.0, controller)
    assert peak.minimum == 4 and peak.advice is None
    assert "somebody set a minimum of 4, which stands" in caplog.text


def test_who_keeps_undoing_raises_is_given_way_to(peak, tmp_path, caplog):
    """A GitOps tool sets the minimum back each minute."""
    peak.world.store.create(hpa())
    wish = ScriptedPolicy(lambda _now, service: 11.0 if service == "web" else 2.0, history_seconds=0.0)
    controller = peak.advisor(tmp_path, wish, guard_rails=RAILS)
    body = json.dumps({"spec": {"minReplicas": 2}, "metadata": {"annotations": None}}).encode()
    where = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web"
    merge = {"Content-Type": "application/merge-patch+json"}
    for _ in range(12):
        run(peak, peak.clock.now - T0 + 60.0, controller)
        peak.world.store.handle("PATCH", where, "", merge, body)
        body_of_replicas = json.dumps({"spec": {"replicas": 2}}).encode()
        deployment = "/apis/apps/v1/namespaces/shop/deployments/web"
        peak.world.store.handle("PATCH", deployment, "", merge, body_of_replicas)
    assert "rival_autoscaler" in set(controller.decisions()["reason"])
    ours = [each for each in peak.world.writes if each.startswith("PATCH") and "autoscalers" in each]
    assert len(ours) - 12 <= 5
    assert "can't be advised" in caplog.text


@pytest.mark.parametrize("kind", ["KEDA", "none", "act"])
def test_where_there_is_nothing_to_advise_nothing_is_written(peak, tmp_path, caplog, kind):
    owner = {
        "kind": "ScaledObject",
        "name": "web",
        "uid": "1",
        "controller": True,
        "apiVersion": "keda.sh/v1alpha1",
    }
    if kind != "none":
        peak.world.store.create(hpa(ownerReferences=[owner] if kind == "KEDA" else []))
    scale = {"mode": "act"} if kind == "act" else {}
    controller = peak.advisor(tmp_path, foresight(peak), guard_rails=RAILS, **scale)
    run(peak, 120.0, controller)
    assert peak.world.writes == []
    reasons = set(controller.decisions().query("service == 'web'")["reason"])
    expected = {
        "KEDA": ("belongs to ScaledObject/web, which would undo it", {"rival_autoscaler"}),
        "none": (
            "no HorizontalPodAutoscaler acts on it, so there is nothing to advise",
            {"unchanged", "forecast"},
        ),
        "act": ("refused until it is gone", {"rival_autoscaler"}),
    }
    text, words = expected[kind]
    assert text in caplog.text and reasons == words


def test_where_every_service_is_in_the_shadow_there_is_no_lease_either(peak, tmp_path, capsys):
    modes = {"web": "shadow", "api": "shadow"}
    path = config(peak.world, tmp_path, mode="act", modes=modes, dry_run=False, events=True)
    assert predict_scale.main(["--config", path, "--once"]) == 0
    assert peak.world.writes == [] and "dry_run" in capsys.readouterr().out


def test_modes_of_single_services(peak, tmp_path):
    """web is advised, api is acted on; a shadow service gets nothing at all."""
    peak.world.store.create(hpa())
    wish = ScriptedPolicy(lambda _now, service: 5.0, history_seconds=0.0)
    controller = peak.advisor(
        tmp_path, wish, guard_rails=RAILS, mode="shadow", modes={"web": "advise", "api": "act"}
    )
    run(peak, 30.0, controller)
    assert peak.minimum == 5 and peak.world.store.replicas("shop") == {"web": 5, "api": 5}
    assert controller.decisions().groupby("service")["mode"].first().to_dict() == {
        "web": "advise",
        "api": "act",
    }
    quiet = peak.advisor(
        tmp_path, wish, guard_rails=RAILS, mode="act", modes={"web": "shadow", "api": "shadow"}
    )
    before = len(peak.world.writes)
    run(peak, 60.0, quiet)
    assert len(peak.world.writes) == before and set(quiet.decisions()["mode"]) == {"dry_run"}
