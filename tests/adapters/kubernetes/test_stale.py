"""While a list of the Kubernetes API fails, owners' orders stand, and nobody is accused of our own writes."""

import logging

import pytest
from helpers.fakes import ScriptedPolicy
from helpers.kube_shop import make
from helpers.kube_stub import DEPLOYMENTS, HPAS, hpa

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.control.controller import Controller
from deepscaler.errors import MetricsError


class Shop:
    """A controller on the stub, and kube-state-metrics that say what the test says."""

    def __init__(self, stub, settings, measured):
        self.stub, self.wish, self.measured = stub, 6.0, measured
        self.controller = Controller(
            KubernetesCluster(settings),
            ScriptedPolicy(lambda now, service: self.wish, history_seconds=0.0),
            settings,
        )

    def tick(self, *failing):
        """Reasons and applied replicas by service; these lists fail."""
        self.stub.denied |= {("list", name) for name in failing}
        rows = self.controller.tick()
        self.stub.denied -= {("list", name) for name in failing}
        return {row.service: (row.reason, row.applied) for row in rows}

    def replicas(self):
        return self.stub.replicas("web"), self.stub.replicas("api")


@pytest.fixture
def controlled(stub, shop, tmp_path, monkeypatch):
    shop()  # puts web and api there

    def started(**more):
        measured = {"web": 2.0, "api": 2.0}

        def query(_, text, now):
            known = measured if "kube_deployment_spec_replicas" in text else {}
            return [({"deployment": name}, count) for name, count in known.items()]

        def down(*_, **__):
            raise MetricsError("down")

        monkeypatch.setattr(PrometheusClient, "query", query)
        monkeypatch.setattr(PrometheusClient, "query_range", down)
        return Shop(stub, make(stub, tmp_path, **more), measured)

    return started


@pytest.mark.parametrize("failing", [("deployments",), ("horizontalpodautoscalers",)], ids="".join)
def test_a_pause_and_a_rival_are_still_known(stub, controlled, failing):
    stub.edit(f"{DEPLOYMENTS}/web", metadata__annotations={"deepscaler.io/paused": "true"})
    stub.put(HPAS, hpa("api", "api"))
    made = controlled()
    expected = {"web": ("paused", None), "api": ("rival_autoscaler", None)}
    assert made.tick() == expected
    assert made.tick(*failing) == made.tick(*failing) == expected
    assert made.replicas() == (2, 2) and not stub.writes
    stub.edit(f"{DEPLOYMENTS}/web", metadata__annotations={})
    assert made.tick()["web"] == ("forecast", 6)  # the list is read again


def test_a_behavior_is_still_known(stub, controlled):
    slow = '{"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}'
    stub.edit(f"{DEPLOYMENTS}/web", metadata__annotations={"deepscaler.io/behavior": slow})
    made = controlled()
    assert made.tick()["web"][1] == 3
    made.measured["web"] = 3.0
    assert made.tick("deployments")["web"][1] is None


@pytest.mark.parametrize("known", [True, False], ids=["known before", "never read"])
@pytest.mark.parametrize("order", ["deepscaler.io/paused", "deepscaler.io/behavior"])
def test_an_order_that_came_meanwhile_stops_the_write(stub, controlled, known, order, caplog):
    made = controlled()
    made.wish = 2.0
    if known:
        made.tick()
    stub.edit(f"{DEPLOYMENTS}/web", metadata__annotations={order: "true", "others/say": "something"})
    made.wish = 6.0
    rows = made.tick("deployments")
    assert rows["api"] == ("forecast", 6) and rows["web"][1] is None and made.replicas() == (2, 6)
    assert f"without knowing its annotations (now {order}: true); not written" in caplog.text


def test_our_own_note_on_a_deployment_is_no_order(stub, controlled):
    made = controlled()
    made.wish = 2.0
    made.tick()
    stub.edit(f"{DEPLOYMENTS}/web", metadata__annotations={"deepscaler.io/last-decision": "{}"})
    made.wish = 6.0
    assert made.tick("deployments")["web"] == ("forecast", 6)


def test_what_prometheus_hasnt_seen_yet_is_nobodys_edit(controlled, caplog):
    """kube-state-metrics is a scrape behind: it says what was before our own write."""
    made = controlled()
    with caplog.at_level(logging.WARNING):
        for wish in (6, 8, 10, 12):
            made.wish = float(wish)
            assert made.tick()["web"] == ("forecast", wish)
            made.tick("deployments")  # made.measured is as it was before the write
            made.measured.update(web=wish, api=wish)
    assert made.replicas() == (12, 12)
    assert made.controller.statistics.foreign_edits == 0 and made.controller.statistics.failed_writes == 0
    assert "set" not in caplog.text.split("Deployments can't be read")[1] and "conflict" not in caplog.text


def test_edits_of_others_are_still_noticed_once_the_list_is_back(stub, controlled, caplog):
    made = controlled()
    made.tick()
    stub.edit(f"{DEPLOYMENTS}/web", spec__replicas=3)
    made.tick("deployments")  # believes 2, finds 3: theirs stand
    assert made.replicas() == (3, 6)
    made.tick()
    assert made.controller.statistics.foreign_edits == 1
    assert "web: somebody set 3 replicas; this controller left it at 6" in caplog.text


def test_minimums_stay_while_autoscalers_cant_be_read(stub, controlled):
    stub.put(HPAS, hpa("web", "web"))
    made = controlled(scale={"modes": {"web": "advise"}})
    made.tick()
    raised = stub.objects[f"{HPAS}/web"]["spec"]["minReplicas"]
    written = len(stub.writes)
    for failing in ("horizontalpodautoscalers", "deployments") * 3:
        assert made.tick(failing)["web"][1] is None
    assert stub.objects[f"{HPAS}/web"]["spec"]["minReplicas"] == raised
    assert not [text for text in stub.writes[written:] if "autoscalers" in text]
    assert not made.controller.statistics.foreign_edits
