"""CapacityBuffers on the emulated API: made, changed and deleted as asked, and nobody else's is touched."""

import json
import logging
from dataclasses import dataclass

import pytest
from helpers.kube_shop import T0, Emulated, make

from deepscaler.adapters.kubernetes.buffers import PAUSE_SECONDS
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.kubernetes.giving_back import GivingBack
from testbed.kubernetes_api import Identity, Rule
from testbed.kubernetes_api.resources import CAPACITY_BUFFERS, Catalogue

STORAGE = "autoscaling.x-k8s.io/capacitybuffers"
WHERE = "/apis/autoscaling.x-k8s.io/v1beta1/namespaces/shop/capacitybuffers"
LIFE = 1200.0
MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass
class World:
    """A cluster that serves CapacityBuffers, and the port to it."""

    api: Emulated
    cluster: KubernetesCluster
    settings: object
    now: float = T0

    def reserve(self, web, later=60.0):
        self.cluster.reserve({} if web is None else {"web": web, "api": 0}, self.now + LIFE)
        self.now += later

    @property
    def buffers(self):
        return {key[1]: item for key, item in self.api.store.snapshot(STORAGE, "shop")}

    @property
    def requests(self):
        return [each for each in self.api.methods if "capacitybuffers" in each]

    @property
    def writes(self):
        return [each.split()[0] for each in self.requests if not each.startswith("GET")]


@pytest.fixture
def world(tmp_path, request):
    rules = getattr(request, "param", None)
    api = Emulated({"secret": Identity("me", rules)} if rules else None)
    api.store.served = Catalogue([CAPACITY_BUFFERS])
    with api.server:
        scale = {"capacity_buffer": {"enabled": True}}
        found = World(api, None, make(api, tmp_path, scale=scale, lease={"enabled": False}))
        found.cluster = KubernetesCluster(found.settings, clock=lambda: found.now, steady=lambda: found.now)
        found.cluster.workloads()
        yield found


def test_it_is_created_changed_and_deleted_and_written_only_on_change(world):
    world.reserve(0)
    assert world.writes == []
    world.reserve(5)
    [(name, item)] = world.buffers.items()
    assert name == "web-deepscaler" and item["spec"] == {
        "scalableRef": {"apiGroup": "apps", "kind": "Deployment", "name": "web"},
        "replicas": 5,
        "provisioningStrategy": "buffer.x-k8s.io/active-capacity",
    }
    deployment = world.api.store.peek("apps/deployments", "shop", "web")
    owners = item["metadata"]["ownerReferences"]
    assert [each["uid"] for each in owners] == [deployment["metadata"]["uid"]]
    for _ in range(5):
        world.reserve(5)
    assert world.writes == ["POST"]
    world.reserve(7)
    assert world.buffers["web-deepscaler"]["spec"]["replicas"] == 7
    world.reserve(0)
    assert world.buffers == {} and world.writes == ["POST", "PATCH", "DELETE"]
    assert world.api.store.peek("apps/deployments", "shop", "web") == deployment


def test_it_is_renewed_when_half_of_its_life_is_over(world):
    for _ in range(40):
        world.reserve(3)
    assert world.writes == ["POST", "PATCH", "PATCH", "PATCH"]  # forty minutes
    note = json.loads(world.buffers["web-deepscaler"]["metadata"]["annotations"]["deepscaler.io/spare"])
    assert set(note) == {"until", "by"}


def test_an_end_deletes_all_of_ours(world):
    world.cluster.reserve({"web": 2, "api": 1}, T0 + LIFE)
    assert set(world.buffers) == {"web-deepscaler", "api-deepscaler"}
    world.reserve(None)
    assert world.buffers == {}


def test_with_its_deployment_it_goes_too(world):
    world.reserve(2)
    world.api.store.handle("DELETE", "/apis/apps/v1/namespaces/shop/deployments/web")
    assert world.buffers == {}


def test_a_missing_definition_is_said_once_and_asked_for_again_much_later(world, caplog):
    world.api.store.served = Catalogue()
    for _ in range(int(PAUSE_SECONDS // 60.0)):
        world.reserve(2)
    assert len(world.requests) == 3  # each version once
    world.reserve(2)
    assert len(world.requests) == 6
    assert caplog.text.count("no room can be asked for on nodes") == 1
    assert "install the CapacityBuffers of your cluster-autoscaler or Karpenter" in caplog.text
    world.api.store.served = Catalogue([CAPACITY_BUFFERS])
    world.now += PAUSE_SECONDS
    world.reserve(2)
    assert world.buffers and "room on nodes can be asked for again" in caplog.text


READS = Rule(("get", "list"), ("deployments", "pods", "horizontalpodautoscalers"), namespaces=("shop",))


@pytest.mark.parametrize(
    ("world", "tries"),
    [([READS], 2), ([READS, Rule(("list",), ("capacitybuffers",), namespaces=("shop",))], 3)],
    indirect=["world"],
)
def test_missing_rights_are_said_once_and_held_off(world, tries, caplog):
    for _ in range(9):
        world.reserve(2)
    assert len(world.requests) == tries and world.buffers == {}
    assert caplog.text.count("no room can be asked for on nodes") == 1
    assert "add deploy/components/capacity-buffer" in caplog.text


def test_somebody_elses_is_left_alone_and_costs_the_others_nothing(world, caplog):
    theirs = {
        "apiVersion": "autoscaling.x-k8s.io/v1beta1",
        "kind": "CapacityBuffer",
        "metadata": {"name": "web-deepscaler", "namespace": "shop"},
        "spec": {"podTemplateRef": {"name": "big"}, "replicas": 1},
    }
    world.api.store.create(theirs)
    world.cluster.reserve({"web": 4, "api": 4}, T0 + LIFE)
    world.reserve(None)
    assert set(world.buffers) == {"web-deepscaler"} and world.writes == ["POST", "DELETE"]
    assert caplog.text.count("isn't DeepScaler's own and is left alone") == 1


@pytest.mark.stress
@pytest.mark.parametrize(
    "broken",
    [{"spec": {"replicas": "many"}}, {"status": {"conditions": "none"}}, {"metadata": {"labels": [1]}}],
)
def test_a_buffer_that_cant_be_right_is_left_alone(world, monkeypatch, caplog, broken):
    world.reserve(2)
    items = world.cluster._orchestrator._api.items

    def odd(path):
        return [
            {**item, **broken, "metadata": {**item["metadata"], **broken.get("metadata", {})}}
            for item in items(path)
        ]

    monkeypatch.setattr(world.cluster._orchestrator.buffers._api, "items", odd)
    for _ in range(3):
        world.reserve(5)
    assert world.writes == ["POST"] and caplog.text.count("CapacityBuffer web-deepscaler: ") == 1


def test_what_the_node_autoscaler_says_is_told_once(world, caplog):
    world.reserve(2)
    said = {"type": "LimitedByQuotas", "status": "True", "reason": "Full", "message": "quota team"}
    fine = {"type": "ReadyForProvisioning", "status": "True", "reason": "Ok", "message": ""}
    known = ("autoscaling.x-k8s.io/v1beta1", "CapacityBuffer", "shop", "web-deepscaler")
    world.api.store.set_status(*known, {"conditions": [fine, said]})
    for _ in range(3):
        world.reserve(2)
    assert caplog.text.count("web-deepscaler: LimitedByQuotas True (Full): quota team") == 1
    world.api.store.set_status(*known, {"conditions": [fine]})
    world.reserve(2)
    assert "nothing hinders it any more" in caplog.text


def test_who_no_longer_leads_writes_nothing(world, caplog):
    world.cluster._orchestrator.buffers.fence = lambda: 0.0
    world.reserve(2)
    assert world.writes == [] and "this controller no longer leads" in caplog.text


@pytest.mark.stress
@pytest.mark.parametrize("every", [False, True])
def test_after_a_crash_it_is_given_back_by_command(world, every, caplog):
    with caplog.at_level(logging.INFO):
        world.reserve(2)
    giving = GivingBack(world.settings)
    early = list(giving.run(T0 + LIFE - 1.0, every=every))
    assert len(early) == every and len(world.buffers) == 1 - every
    late = list(giving.run(T0 + LIFE, every=every))
    assert [*early, *late] == ["web-deepscaler: room on nodes given back"] and world.buffers == {}
    assert giving.failures == 0


@pytest.mark.parametrize("world", [None, [READS]], indirect=True)
def test_where_there_are_no_buffers_there_is_none_to_give_back(world):
    world.api.store.served = Catalogue()
    giving = GivingBack(world.settings)
    assert list(giving.run(T0, every=True)) == [] and giving.failures == 0
    world.api.store.served = Catalogue([CAPACITY_BUFFERS])
    assert list(giving.run(T0, every=True)) == [] and giving.failures == 0


def test_the_definition_is_served_as_it_is_published(world):
    def send(method, path, body, headers):
        return world.api.store.handle(method, path, "", headers, json.dumps(body).encode())

    def made(**spec):
        return {"metadata": {"name": "one"}, "spec": spec}

    plain = {"Content-Type": "application/json"}
    bad = ({"replicas": -1}, {"podTemplateRef": {"name": "a"}}, {"scalableRef": {"kind": "Deployment"}})
    for spec in bad:
        assert send("POST", WHERE, made(**spec), plain).status == 422
    good = made(replicas=3, scalableRef={"kind": "Deployment", "name": "web"})
    assert send("POST", WHERE, good, plain).status == 201
    answer = send("PATCH", f"{WHERE}/one", {"spec": {"replicas": 4}}, MERGE)
    assert json.loads(answer.body)["metadata"]["generation"] == 2
    strategic = {"Content-Type": "application/strategic-merge-patch+json"}
    assert send("PATCH", f"{WHERE}/one", {"spec": {"replicas": 4}}, strategic).status == 415
    told = json.loads(world.api.store.handle("GET", "/apis/autoscaling.x-k8s.io/v1beta1").body)
    assert [each["name"] for each in told["resources"]] == ["capacitybuffers", "capacitybuffers/status"]
