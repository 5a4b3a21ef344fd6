"""Leader election: two candidates, one Lease, one clock that the test moves."""

import logging
import threading

import pytest
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings
from helpers.kube_stub import DEPLOYMENTS, LEASES, PODS, KubeStub, deployment, pod, refusal
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deepscaler.adapters.kubernetes.api import ApiError
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.kubernetes.lease import LeaseElection
from deepscaler.control.controller import Controller
from deepscaler.control.recorder import ACTING, STANDBY
from deepscaler.errors import ClusterError
from deepscaler.settings import Settings

PATH = f"{LEASES}/deepscaler-shop"


class Direct:
    """The stub without the network: what `KubeApi` asks is answered at once, or not at all while `down`."""

    def __init__(self, stub):
        self.stub, self.down, self.delay = stub, False, lambda: None

    def find(self, path):
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def get(self, path):
        return self.send("GET", path)

    def send(self, method, path, body=None, **_):
        if self.down:
            raise ApiError("no answer")
        self.delay()
        status, answer = self.stub.reply(method, path, body, {})
        if status > 299:
            raise ApiError(f"HTTP {status}", status)
        return answer


class World:
    """A stub, a clock, and candidates on it."""

    def __init__(self, count=2, **lease):
        self.stub, self.now = KubeStub(), 1000.0
        self.stub.server.server_close()
        document = make_settings().model_dump()
        self.settings = Settings.model_validate(
            {
                "app": {**document["app"], "namespace": "shop"},
                "cluster": {"kind": "kubernetes", "lease": lease},
            }
        )
        self.apis = [Direct(self.stub) for _ in range(count)]
        self.candidates = [
            LeaseElection(self.settings, api, steady=lambda: self.now, wall=lambda: 1.7e9 + self.now)
            for api in self.apis
        ]

    def leaders(self):
        return [index for index, candidate in enumerate(self.candidates) if candidate.leading()]

    def turn(self, seconds=2.0):
        """Each candidate tries once, then time passes."""
        for candidate in self.candidates:
            candidate.attempt()
            assert len(self.leaders()) <= 1
        self.now += seconds
        return self.leaders()


@pytest.fixture
def world():
    return World()


def test_the_first_leads_and_the_other_waits(world):
    assert [world.turn() for _ in range(20)] == [[0]] * 20
    spec = world.stub.objects[PATH]["spec"]
    assert spec["holderIdentity"] == world.candidates[0].identity and spec["leaseDurationSeconds"] == 15
    assert spec["acquireTime"] < spec["renewTime"] and spec["renewTime"].endswith("Z")
    assert world.candidates[1].holder == world.candidates[0].identity


def test_a_leader_that_cant_renew_stops_before_the_other_starts(world):
    world.turn()
    world.apis[0].down = True
    seen = [(world.now, world.turn(0.5)) for _ in range(60)]
    led_until = max(now for now, leaders in seen if leaders == [0])
    nobody = [now for now, leaders in seen if not leaders]
    taken = min(now for now, leaders in seen if leaders == [1])
    assert led_until - 1000 <= 10 and taken - 1000 >= 15 and len(nobody) >= 9


def test_who_comes_back_waits_and_doesnt_write(world):
    world.turn()
    world.apis[0].down = True
    for _ in range(12):
        world.turn()
    world.apis[0].down = False
    assert [world.turn() for _ in range(5)] == [[1]] * 5
    assert world.stub.objects[PATH]["spec"]["leaseTransitions"] == 1


def test_a_short_outage_changes_nothing(world, caplog):
    world.turn()
    for api in world.apis:
        api.down = True
    assert [world.turn() for _ in range(3)] == [[0]] * 3
    assert "leading for 6 s more" in caplog.text or "leading for 8 s more" in caplog.text
    for api in world.apis:
        api.down = False
    assert [world.turn() for _ in range(10)] == [[0]] * 10


def test_a_process_that_slept_knows_that_its_time_is_over(world):
    """Suspended, stopped, starved: nothing ran in between, and the first question already gets a no."""
    world.turn()
    assert world.candidates[0].leading()
    world.now += 3600
    assert not world.candidates[0].leading() and world.candidates[0].seconds_left() == 0.0


def test_a_renewal_counts_from_its_start(world):
    """The answer took 6 s: others may have seen the record as early as the request was sent."""

    def slow():
        world.now += 3.0

    world.apis[0].delay = slow
    world.candidates[0].attempt()
    assert world.candidates[0].seconds_left() == pytest.approx(10 - 6)


def test_released_it_is_taken_at_once(world):
    world.turn()
    world.candidates[0].release()
    assert world.leaders() == []
    assert world.turn() == [1]
    assert not world.candidates[0].attempt()  # who has released doesn't come back


def test_only_ones_own_lease_is_released(world):
    world.turn()
    world.candidates[1].release()
    assert world.stub.objects[PATH]["spec"]["holderIdentity"] == world.candidates[0].identity
    world.apis[0].down = True
    world.candidates[0].release()
    assert world.leaders() == []


def test_of_two_that_try_at_once_one_wins(world):
    """Both read an abandoned Lease, both write: the resourceVersion lets one through."""
    world.turn()
    world.now += 100
    second, first = world.candidates
    first._observed = (world.stub.objects[PATH]["metadata"]["resourceVersion"], 0.0)
    answer = world.apis[0].send

    def meanwhile(method, path, body=None, **options):
        if method == "PUT":
            world.apis[0].send = answer
            assert first.attempt()
        return answer(method, path, body, **options)

    world.apis[0].send = meanwhile
    second._renewed = None
    assert not second.attempt() and world.leaders() == [1]


def test_a_refused_lease_is_logged_and_nobody_leads(world, caplog):
    world.stub.denied |= {("create", "leases")}
    assert world.turn() == [] and "HTTP 403; not writing" in caplog.text


def test_two_candidates_of_one_configured_identity_are_told_apart():
    world = World(identity="deepscaler")
    assert len({candidate.identity for candidate in world.candidates}) == 2
    assert all(candidate.identity.startswith("deepscaler_") for candidate in world.candidates)
    assert world.turn() == [0]


def test_times_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="retry_period < renew_deadline < duration"):
        World(duration=10, renew_deadline=10.0)


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 9.0),
            st.lists(st.booleans(), min_size=3, max_size=3),
            st.sampled_from([(0, 1, 2), (2, 1, 0), (1,), ()]),
        ),
        min_size=5,
        max_size=60,
    )
)
def test_never_two_at_once_whatever_fails(script):
    """Three candidates, outages of any, rounds that are left out, any pace: at no moment do two lead."""
    world = World(3)
    for passes, down, order in script:
        for api, dead in zip(world.apis, down, strict=True):
            api.down = dead
        for index in order:
            world.candidates[index].attempt()
            assert len(world.leaders()) <= 1
        for _ in range(4):
            world.now += passes / 4
            assert len(world.leaders()) <= 1


# ----------------------------------------------------------------------------------------------------------- controllers
def test_of_two_controllers_one_writes_and_the_other_takes_over_warm():
    """Both decide each tick; the standby's rows say so, and its history holds the scale-down when it takes over."""
    world, cluster = World(), FakeCluster(replicas={"web": 4})
    wish = [8.0]
    controllers = []
    for candidate in world.candidates:
        policy = ScriptedPolicy(lambda _now, _service: wish[0])
        controllers.append(Controller(cluster, policy, make_settings(), leading=candidate.leading))
    world.turn(1.0)
    standby = controllers[1].tick()  # before the leader: all is still to be written
    assert [(row.mode, row.target, row.applied) for row in standby] == [
        (STANDBY, 8, None)
    ] * 3 and cluster.writes == []
    assert {row.mode for row in controllers[0].tick()} == {ACTING} and cluster.writes == [
        {"web": 8, "api": 8, "db": 8}
    ]
    world.apis[0].down = True
    for _ in range(20):
        world.turn(1.0)
    wish[0] = 2.0
    cluster.clock += 20
    second = [controller.tick() for controller in controllers]
    assert [rows[0].mode for rows in second] == [STANDBY, ACTING] and len(cluster.writes) == 1
    assert second[1][0].reason == "stabilized"  # it remembers the 8 that the other wrote
    assert controllers[1].statistics.foreign_edits == 0


def test_a_lost_lease_stops_the_pass_under_way(tmp_path):
    """Three services to write; the Lease runs out after the first."""
    with KubeStub() as stub:
        names = ("web", "api", "db")
        for name in names:
            stub.put(DEPLOYMENTS, deployment(name))
            stub.put(PODS, pod(name, 0, "2026-01-05T00:00:00Z", "2026-01-05T00:00:09Z"))
        cluster = KubernetesCluster(live(stub, tmp_path))
        cluster.workloads()
        left = iter([3.0, 0.0, 0.0])
        cluster._orchestrator.writer.fence = lambda: next(left)
        report = cluster.scale(dict.fromkeys(names, 5))
        assert report.applied == {"web": 5} and set(report.failed) == {"api", "db"}
        assert "this controller no longer leads" in report.failed["api"]
        assert [stub.replicas(name) for name in names] == [5, 2, 2]


def live(stub, tmp_path, **lease):
    app = {**make_settings().model_dump()["app"], "namespace": "shop"}
    cluster = {
        "kind": "kubernetes",
        "kubeconfig": stub.kubeconfig(tmp_path / "kubeconfig"),
        "prometheus": {"url": "http://127.0.0.1:1", "retries": 0},
        "lease": {"duration": 1, "renew_deadline": 0.6, "retry_period": 0.05, **lease},
    }
    return Settings.model_validate({"app": app, "cluster": cluster})


def test_over_the_wire_a_second_controller_is_refused_and_the_end_releases(tmp_path, caplog):
    """The official client, real threads: `leadership` renews by itself, and gives the Lease back."""
    with KubeStub() as stub:
        for name in ("web", "api", "db"):
            stub.put(DEPLOYMENTS, deployment(name))
        settings = live(stub, tmp_path)
        renewed = threading.Event()
        with caplog.at_level(logging.INFO), KubernetesCluster(settings).leadership() as election:
            assert election is not None and election.leading()
            stub.before = lambda method, path: method == "PUT" and renewed.set()
            assert renewed.wait(5)
            refused = pytest.raises(
                ClusterError, match=f"{election.identity} holds it, so nothing was written"
            )
            with refused, KubernetesCluster(settings).leadership(wait=True):
                raise AssertionError("two lead")
            assert election.leading()
        assert not election.leading() and stub.objects[PATH]["spec"]["holderIdentity"] == ""
        with KubernetesCluster(settings).leadership(wait=True) as following:
            assert following is not None and following.leading()


def test_a_server_that_refuses_ends_the_leading(tmp_path, monkeypatch):
    with KubeStub() as stub:
        for name in ("web", "api", "db"):
            stub.put(DEPLOYMENTS, deployment(name))
        answer = stub.reply
        with KubernetesCluster(live(stub, tmp_path)).leadership() as election:
            assert election is not None and election.leading()
            over = threading.Event()
            monkeypatch.setattr(
                stub, "reply", lambda *request: over.set() or refusal(503, "ServiceUnavailable", "busy")
            )
            assert over.wait(5)
            deadline = threading.Event()
            for _ in range(100):
                if not election.leading():
                    break
                deadline.wait(0.05)
            assert not election.leading()
            monkeypatch.setattr(stub, "reply", answer)


def test_with_the_lease_off_that_is_said(tmp_path, caplog):
    with KubeStub() as stub:
        stub.put(DEPLOYMENTS, deployment("web"))
        with KubernetesCluster(live(stub, tmp_path, enabled=False)).leadership() as election:
            assert election.leading()
    assert "cluster.lease is off" in caplog.text and not any("/leases" in path for path in stub.writes)
