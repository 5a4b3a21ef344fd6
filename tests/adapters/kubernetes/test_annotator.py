"""The annotation of the last decision on the emulated API: nothing else changes, and nobody is fought."""

import json

import pytest
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings
from helpers.kube_shop import T0, Emulated, make

from deepscaler.adapters.kubernetes.annotator import EVERY_SECONDS, LAST_DECISION, PAUSE_SECONDS, ROUNDS
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.cluster import Happening
from deepscaler.control.controller import Controller
from testbed.kubernetes_api import Identity, Rule

UP = Happening("web", "ScaledUp", "Scale", "2 -> 5 replicas (forecast)", target=5)
DOWN = Happening("web", "ScaledDown", "Scale", "5 -> 3 replicas (forecast)", target=3)
WHERE = "/apis/apps/v1/namespaces/shop/deployments/web"
MERGE = {"Content-Type": "application/merge-patch+json"}
READS = Rule(("get", "list"), ("deployments", "pods", "horizontalpodautoscalers"), namespaces=("shop",))


class World:
    """A cluster whose Deployments are annotated."""

    def __init__(self, api, tmp_path):
        self.api, self.now = api, T0
        settings = make(api, tmp_path, scale={"annotations": True}, lease={"enabled": False})
        self.cluster = KubernetesCluster(settings, clock=lambda: self.now, steady=lambda: self.now)
        self.cluster.workloads()

    def tell(self, *happenings, later=15.0):
        """One tick: read, tell, and time passes."""
        self.cluster.workloads()
        self.cluster.annotate(happenings)
        self.now += later

    @property
    def web(self):
        return self.api.store.peek("apps/deployments", "shop", "web")

    @property
    def note(self):
        text = (self.web["metadata"].get("annotations") or {}).get(LAST_DECISION)
        return None if text is None else json.loads(text)

    def edit(self, annotation):
        body = {"metadata": {"annotations": {LAST_DECISION: annotation}}}
        self.api.store.handle("PATCH", WHERE, "", MERGE, json.dumps(body).encode())
        self.api.methods.pop()

    @property
    def patches(self):
        return [each for each in self.api.methods if each == f"PATCH {WHERE}"]


@pytest.fixture
def world(tmp_path, request):
    rules = getattr(request, "param", None)
    api = Emulated({"secret": Identity("me", rules)} if rules else None)
    with api.server:
        yield World(api, tmp_path)


def test_it_says_reason_target_source_and_time_and_nothing_else_changes(world):
    before = world.web
    pods = world.api.store.snapshot("/pods", "shop")
    world.tell(UP)
    assert world.note == {
        "reason": "ScaledUp",
        "target": 5,
        "why": "2 -> 5 replicas (forecast)",
        "source": "deepscaler.io/controller",
        "by": world.note["by"],
        "at": "2026-01-05T00:00:00Z",
    }
    assert world.web["spec"] == before["spec"]  # the template, so nothing is rolled out
    assert world.api.store.snapshot("/pods", "shop") == pods
    # Kubernetes counts annotations of a Deployment in its generation, and so does the emulated API
    assert world.web["metadata"]["generation"] == before["metadata"]["generation"] + 1
    [owned] = [each for each in world.web["metadata"]["managedFields"] if each["manager"] == "deepscaler"]
    assert set(owned["fieldsV1"]) == {"f:metadata"}
    assert world.api.writes == world.patches and len(world.patches) == 1


def test_it_is_written_once_a_minute_at_most_and_then_the_newest(world):
    for _ in range(4):
        world.tell(UP, DOWN, UP)
    world.tell(DOWN)
    assert len(world.patches) == 2 and world.note["reason"] == "ScaledDown"
    for _ in range(40):
        world.tell()
    assert len(world.patches) == 2  # where nothing happens, nothing is written
    world.tell(UP, later=EVERY_SECONDS / 2)
    world.tell(DOWN, later=EVERY_SECONDS / 2)
    assert world.note["reason"] == "ScaledUp"
    world.tell()
    assert world.note["reason"] == "ScaledDown" and len(world.patches) == 4


@pytest.mark.parametrize("annotation", [None, "something else"])
def test_who_keeps_taking_it_away_is_given_way_to(world, annotation, caplog):
    for _ in range(9):
        world.tell(UP, later=EVERY_SECONDS)
        world.edit(annotation)
    assert len(world.patches) == ROUNDS
    assert caplog.text.count("it isn't written there any more until this controller starts anew") == 1
    world.cluster.annotate([Happening("api", "ScaledUp", "Scale", "2 -> 5 replicas", target=5)])
    api = world.api.store.peek("apps/deployments", "shop", "api")
    assert LAST_DECISION in api["metadata"]["annotations"]  # others go on


@pytest.mark.parametrize("world", [[READS]], indirect=True)
def test_without_the_right_it_is_said_once_and_held_off(world, caplog):
    for _ in range(int(PAUSE_SECONDS // 60)):
        world.tell(UP, later=60.0)
    assert len(world.patches) == 1 and world.note is None
    assert caplog.text.count("Deployments can't be annotated") == 1
    assert "add deploy/components/annotations" in caplog.text
    world.tell(UP)
    assert len(world.patches) == 2


def test_who_no_longer_leads_writes_nothing(world):
    world.cluster._orchestrator.annotator.fence = lambda: 0.0
    world.tell(UP)
    assert world.patches == []


@pytest.mark.parametrize(
    ("scale", "count"),
    [({"annotations": True}, 2), ({}, 0), ({"annotations": True, "mode": "shadow"}, 0)],
)
def test_a_controller_annotates_where_it_is_switched_on_and_never_in_the_shadow(scale, count):
    cluster = FakeCluster(("web", "db"))
    policy = ScriptedPolicy(lambda _now, _service: 6.0)
    Controller(cluster, policy, make_settings(("web", "db"), **scale)).run(60.0)
    assert [each.target for each in cluster.annotated] == [6] * count and cluster.told == []


def test_replicas_are_written_beside_annotations_without_a_conflict(world):
    settings = world.cluster._settings
    wishes = iter([5.0, 3.0, 6.0, 2.0] * 4)
    wish = {}

    def wanted(now, service):
        return wish.setdefault((now, service), next(wishes) if service == "web" else 2.0)

    policy = ScriptedPolicy(wanted, history_seconds=0.0)
    controller = Controller(world.cluster, policy, settings)
    for _ in range(6):
        controller.tick()
        world.now += EVERY_SECONDS
    assert controller.statistics.failed_writes == 0 and controller.statistics.foreign_edits == 0
    assert len(world.patches) >= 3 and world.note["target"] == world.web["spec"]["replicas"]
