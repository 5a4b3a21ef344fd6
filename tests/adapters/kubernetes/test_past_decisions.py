"""What controllers decided lately, read back from a real Prometheus by one that starts on another node."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings
from helpers.moments import START
from helpers.needs import had
from helpers.paper_shop import T0, settings_file

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.control.controller import Controller
from deepscaler.control.memory import Memory
from deepscaler.control.recorder import Recorder
from deepscaler.control.tick import Tick
from deepscaler.errors import MetricsError
from deepscaler.settings import load_settings
from testbed.cluster.exposition import STALE, Series, labels
from testbed.live import prometheus_server

TIMES = T0 + 15.0 * np.arange(41)
END = float(TIMES[-1])


@pytest.fixture(scope="module")
def server():
    had(prometheus_server.install)
    with prometheus_server.running() as running:
        yield running


def told(instance, app, mode, service="service", until=END, namespace=None, cluster=None, **replicas):
    """The series of one controller, which ends at `until`; each service has (proposed, applied) replicas.

    `namespace` is the application's (None: the controller is of a version that doesn't tell), `cluster` the
    one that the store says each series is from.
    """
    who = {"job": "deepscaler", "instance": instance} | ({"cluster": cluster} if cluster else {})
    where = {"app_namespace": namespace} if namespace else {}
    values = {labels("deepscaler_info", app=app, mode=mode, policy="deepscaler", **where, **who): 1.0}
    for name, (proposed, applied) in replicas.items():
        about = {service: name, **who}
        values[labels("deepscaler_applied_replicas", **about)] = applied
        if proposed is not None:
            values[labels("deepscaler_proposed_replicas", **about)] = proposed
    lived = until >= TIMES
    ends = TIMES[lived][-1] + 1.0
    return [
        Series(key, np.append(TIMES[lived], ends), np.append(np.full(lived.sum(), value), STALE))
        if ends < END
        else Series(key, TIMES, np.full(len(TIMES), value))
        for key, value in values.items()
    ]


def decided(tmp_path, server, app, *, seconds=120.0, dry_run=False, names=("web", "api")):
    path = settings_file(tmp_path, server, app, {name: {} for name in names})
    settings = load_settings(path, [f"app.name={app}", f"scale.dry_run={str(dry_run).lower()}"])
    found = KubernetesCluster(settings, clock=lambda: END).past_decisions(END - seconds, END)
    return found.set_index(["service", "time"]).sort_index()


def test_what_a_controller_elsewhere_wanted_comes_back(server, tmp_path):
    ours = told("10.0.0.1:9464", "one", "act", web=(7.4, 6), api=(None, 3))
    ahead = told("10.0.0.2:9464", "one", "standby", web=(7.2, 6), api=(None, 3))
    other = told("10.0.0.3:9464", "two", "act", web=(29.0, 29))
    shadow = told("10.0.0.4:9464", "one", "dry_run", web=(19.0, 6))
    prometheus_server.remote_write(server.url, [*ours, *ahead, *other, *shadow])
    found = decided(tmp_path, server, "one")
    assert len(found.loc["web"]) == 8 and found.loc["web", "predicted"].unique() == [7.4]
    assert found.loc["api", "predicted"].isna().all() and (found.loc["api", "current"] == 3).all()
    assert decided(tmp_path, server, "one", dry_run=True).loc["web", "predicted"].unique() == [19.0]


def test_one_that_is_gone_is_known_up_to_its_end_and_by_the_name_that_prometheus_gives_its_label(
    server, tmp_path
):
    """Targets of a ServiceMonitor have a label `service` of their own."""
    gone = told("10.0.1.1:9464", "three", "act", service="exported_service", until=END - 60, web=(7.0, 7))
    spec = labels("kube_deployment_spec_replicas", namespace="three", deployment="web", job="ksm")
    prometheus_server.remote_write(server.url, [*gone, Series(spec, TIMES, np.full(len(TIMES), 6.0))])
    found = decided(tmp_path, server, "three", names=("web",)).loc["web"]
    assert found["predicted"].notna().sum() == 4 and (found["current"] == [7] * 4 + [6] * 4).all()


def test_without_any_controller_the_replicas_asked_for_stand_in(server, tmp_path):
    spec = labels("kube_deployment_spec_replicas", namespace="four", deployment="web", job="ksm")
    prometheus_server.remote_write(server.url, [Series(spec, TIMES, 2.0 + (TIMES > END - 50))])
    found = decided(tmp_path, server, "four", names=("web",)).loc["web"]
    assert found["predicted"].isna().all() and list(found["current"]) == [2] * 4 + [3] * 4
    assert decided(tmp_path, server, "five").empty


def shop_of(tmp_path, server, app, *more, services=("web",)):
    """The cluster of an application in a namespace `app`, with more settings."""
    about = services if isinstance(services, dict) else {name: {} for name in services}
    path = settings_file(tmp_path, server, app, about)
    return KubernetesCluster(load_settings(path, [f"app.name={app}", *more]), clock=lambda: END)


def test_an_application_of_that_name_elsewhere_doesnt_count(server, tmp_path):
    """In another namespace, or in another cluster that the same store holds."""
    ours = told("10.2.0.1:9464", "seven", "act", namespace="seven", cluster="prod", web=(5.0, 5))
    theirs = told("10.2.0.2:9464", "seven", "act", namespace="test", cluster="prod", web=(21.0, 21))
    away = told("10.2.0.1:9464", "seven", "act", namespace="seven", cluster="away", web=(33.0, 33))
    prometheus_server.remote_write(server.url, [*ours, *theirs, *away])
    prod = shop_of(tmp_path, server, "seven", 'cluster.prometheus.matchers=cluster="prod"')
    assert prod.past_decisions(END - 120.0, END)["predicted"].unique() == [5.0]
    assert shop_of(tmp_path, server, "seven").past_decisions(END - 120.0, END)["predicted"].max() == 33.0


def test_the_replicas_of_a_cluster_elsewhere_dont_count(server, tmp_path):
    def asked(cluster, replicas):
        about = {"namespace": "eight", "deployment": "web", "cluster": cluster}
        return Series(labels("kube_deployment_spec_replicas", **about), TIMES, np.full(len(TIMES), replicas))

    prometheus_server.remote_write(server.url, [asked("prod", 4.0), asked("away", 9.0)])
    prod = shop_of(tmp_path, server, "eight", 'cluster.prometheus.matchers=cluster="prod"')
    assert prod.past_decisions(END - 120.0, END)["current"].unique() == [4]


@pytest.mark.parametrize("scaled", ["web-a", "web-canary"])
def test_of_several_deployments_that_which_is_scaled_counts(server, tmp_path, scaled):
    series = [
        Series(
            labels("kube_deployment_spec_replicas", namespace="nine", deployment=name), TIMES, 0 * TIMES + n
        )
        for name, n in (("web-a", 12.0), ("web-canary", 1.0))
    ]
    prometheus_server.remote_write(server.url, series)
    about = {"web": {"deployment": scaled, "workloads": ["web-a", "web-canary"]}}
    found = shop_of(tmp_path, server, "nine", services=about).past_decisions(END - 120.0, END)
    assert found["current"].unique() == [12 if scaled == "web-a" else 1]


def test_what_ways_cost_elsewhere_doesnt_count(server, tmp_path):
    series = told_costs("10.2.1.1:9464", "ten", "act", namespace="ten", cluster="prod", all=7.0)
    series += told_costs("10.2.1.2:9464", "ten", "act", namespace="test", cluster="prod", all=800.0)
    series += told_costs("10.2.1.3:9464", "ten", "act", namespace="ten", cluster="away", all=900.0)
    prometheus_server.remote_write(server.url, series)
    prod = shop_of(tmp_path, server, "ten", 'cluster.prometheus.matchers=cluster="prod"')
    assert prod.past_costs(END - 600.0, END)[1] == {"all": 7.0}


def told_costs(instance, app, mode, until=END, namespace=None, cluster=None, **costs):
    """The costs of one controller's ways, up to a time; likewise."""
    who, lived = {"job": "deepscaler", "instance": instance}, until >= TIMES
    ends = np.append(TIMES[lived], TIMES[lived][-1] + 1.0)
    who |= {"cluster": cluster} if cluster else {}
    where = {"app_namespace": namespace} if namespace else {}
    values = {labels("deepscaler_info", app=app, mode=mode, policy="deepscaler", **where, **who): 1.0}
    values |= {labels("deepscaler_way_cost_seconds", way=way, **who): cost for way, cost in costs.items()}
    return [Series(key, ends, np.append(np.full(lived.sum(), value), STALE)) for key, value in values.items()]


def costs_of(tmp_path, server, app, *, dry_run=False, since=600.0):
    path = settings_file(tmp_path, server, app, {"web": {}, "api": {}})
    settings = load_settings(path, [f"app.name={app}", f"scale.dry_run={str(dry_run).lower()}"])
    cluster = KubernetesCluster(settings, clock=lambda: END)
    return cluster, cluster.past_costs(END - since, END)


def test_what_ways_cost_comes_back_from_the_one_that_wrote(server, tmp_path):
    series = told_costs("10.1.0.1:9464", "costly", "act", END - 120.0, all=700.0, season=150.0)
    series += told_costs("10.1.0.2:9464", "costly", "standby", all=1.0, season=900.0)
    series += told_costs("10.1.0.3:9464", "other", "act", all=3.0)
    series += told_costs("10.1.0.4:9464", "costly", "dry_run", all=5.0)
    prometheus_server.remote_write(server.url, series)
    _, (time, costs) = costs_of(tmp_path, server, "costly")
    assert costs == {"all": 700.0, "season": 150.0} and END - 180.0 <= time <= END - 120.0
    assert costs_of(tmp_path, server, "costly", dry_run=True)[1][1] == {"all": 5.0}
    assert costs_of(tmp_path, server, "costly", since=90.0)[1][1] == {"all": 1.0, "season": 900.0}
    assert costs_of(tmp_path, server, "unknown")[1] == (-np.inf, {})


@dataclass
class Trying(ScriptedPolicy):
    """A policy that has only costs to remember."""

    costs: dict = field(default_factory=dict)

    def state(self):
        return {"trials": self.costs}

    def restore(self, state):
        self.costs = dict(state.get("trials", {}))


def remembered(directory, cluster, written=None, **costs):
    if written is not None:
        (directory / "policy.json").write_text(json.dumps({"trials": costs, "written": written}))
    policy = Trying(lambda _now, _service: 3.0)
    return policy, Memory(directory, lambda: policy, cluster)


def test_a_controller_on_another_node_goes_on_with_the_weights_of_the_one_before(server, tmp_path):
    prometheus_server.remote_write(
        server.url, told_costs("10.1.1.1:9464", "moved", "act", END - 30.0, all=50.0, season=10.0)
    )
    cluster, _ = costs_of(tmp_path, server, "moved")
    assert remembered(tmp_path, cluster)[0].costs == {"all": 50.0, "season": 10.0}  # no file
    assert remembered(tmp_path, cluster, END - 300.0, all=1.0)[0].costs == {"all": 50.0, "season": 10.0}
    assert remembered(tmp_path, cluster, END - 5.0, all=1.0)[0].costs == {"all": 1.0}  # the file is newer
    assert remembered(tmp_path, cluster, END + 900.0, all=1.0)[0].costs["season"] == 10.0  # a wrong clock


def test_without_the_store_the_weights_of_the_file_are_what_there_is(tmp_path, caplog):
    cluster = FakeCluster(metrics_down=(-np.inf, np.inf))
    policy, memory = remembered(tmp_path, cluster, START - 90.0, all=1.0)
    assert policy.costs == {"all": 1.0} and "known from policy.json alone" in caplog.text
    memory(Tick(START, 0.0, 0.0, "act", (), {}, None))
    assert json.loads((tmp_path / "policy.json").read_text()) == {"trials": {"all": 1.0}, "written": START}


def test_a_policy_without_trials_asks_nothing(tmp_path):
    cluster = FakeCluster()
    cluster.past_costs = lambda *_: pytest.fail("asked")
    policy = ScriptedPolicy(lambda _now, _service: 3.0)
    Memory(tmp_path, lambda: policy, cluster)


def controller_of(cluster, recorder=None):
    settings = make_settings(guard_rails={"scale_down_window": 120.0})
    return Controller(cluster, ScriptedPolicy(lambda _now, _service: 3.0), settings, recorder)


def test_a_controller_on_another_node_goes_on_with_the_window():
    wanted = [(START - 75.0, "web", 6, 5.4), (START - 30.0, "web", 6, 3.0), (START - 75.0, "db", 4, np.nan)]
    cluster = FakeCluster(replicas={"web": 6, "api": 3, "db": 3}, decided=wanted)
    controller_of(cluster).run(90.0)
    assert cluster.replicas["web"] == 3  # 75 s after the highest wish it is forgotten
    counts = [write["web"] for write in cluster.writes if "web" in write]
    assert counts == [6, 3][-len(counts) :]


def test_without_the_store_the_files_of_this_node_are_what_there_is(tmp_path, caplog):
    first = FakeCluster(replicas={"web": 6, "api": 3, "db": 3})
    settings = make_settings()
    policy = ScriptedPolicy(lambda _now, _service: 6.0)
    Controller(first, policy, settings, Recorder(tmp_path)).tick()
    second = FakeCluster(clock=first.clock + 15, replicas=first.replicas, metrics_down=(START, START + 16))
    second.metrics_down = (second.clock, second.clock + 0.5)
    controller = controller_of(second, Recorder(tmp_path))
    assert "known from decisions.csv alone: http://prometheus: connection refused" in caplog.text
    second.metrics_down = (np.inf, np.inf)
    controller.tick()
    assert second.replicas["web"] == 6


def test_a_store_that_cant_be_reached_is_told_as_such(tmp_path):
    class Nowhere:
        url = "http://127.0.0.1:9"

    with pytest.raises(MetricsError):
        decided(tmp_path, Nowhere, "six")
