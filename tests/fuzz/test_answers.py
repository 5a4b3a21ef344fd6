"""What servers answer: every body gives a value or an error that names what is wrong."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from fuzz.broken import FUZZ, changed, json_texts
from helpers.kube_shop import CREATED, READY, T0
from helpers.kube_stub import deployment, hpa, pod, replica_set
from hypothesis import given
from hypothesis import strategies as st

from deepscaler.adapters.discover.draft import draft
from deepscaler.adapters.discover.entries import entries_of
from deepscaler.adapters.discover.services import services_of
from deepscaler.adapters.jaeger import JaegerClient
from deepscaler.adapters.kubernetes.api import KubeApi
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.kubernetes.lease import LeaseElection
from deepscaler.adapters.kubernetes.measured_objects import MeasuredObjects
from deepscaler.adapters.kubernetes.orchestrator import Orchestrator
from deepscaler.adapters.kubernetes.telemetry import Telemetry
from deepscaler.adapters.names import Names
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.adapters.web import Reply
from deepscaler.artefacts import parse_json
from deepscaler.errors import ClusterError, DeepScalerError, MetricsError
from deepscaler.settings import ClusterSection, Jaeger, Prometheus, Settings

SETTINGS = Settings.model_validate(
    {
        "app": {
            "name": "shop",
            "namespace": "shop",
            "services": {"web": {}, "api": {}},
            "entries": [{"name": "GET /", "service": "web"}],
        },
        "cluster": {"kind": "kubernetes", "prometheus": {"url": "http://prometheus", "retries": 0}},
    }
)
LABELS = {
    **{"deployment": "web", "destination_workload": "web", "source_workload": "api", "le": "100"},
    **{"pod": "web-5d9c5b8f6d-00000", "resource": "cpu", "phase": "Running"},
    **{"horizontalpodautoscaler": "web", "scaletargetref_name": "web"},
}
POINTS = [[T0 + 15 * index, "0.5"] for index in range(4)]
MATRIX = {
    "status": "success",
    "warnings": ["store down"],
    "data": {
        "resultType": "matrix",
        "result": [
            {"metric": LABELS, "values": POINTS},
            {
                "metric": {**LABELS, "deployment": "api", "destination_workload": "api", "le": "+Inf"},
                "values": POINTS,
            },
        ],
    },
}
LINKS = {"data": [{"parent": "web", "child": "api", "callCount": 30}], "errors": None}


class Answering:
    """Gives the same answer to every request."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def send(self, *_: object, **__: object) -> Reply:
        return Reply(200, "OK", {"Content-Type": "application/json"}, self.body)


def prometheus(body: bytes) -> PrometheusClient:
    client = PrometheusClient(Prometheus(url="http://prometheus", retries=0))
    client._web = Answering(body)
    return client


@FUZZ
@given(json_texts(MATRIX))
def test_prometheus(body: bytes) -> None:
    with suppress(MetricsError):
        found = prometheus(body).query_range("up", T0, T0 + 45, 15.0)
        assert found.values.shape == (len(found.labels), 4) and found.values.dtype == np.float64


@FUZZ
@given(json_texts(MATRIX), st.sampled_from(["metrics", "calls", "latencies", "workloads", "pods", "usage"]))
def test_what_is_made_of_prometheus_answers(body: bytes, what: str) -> None:
    client = prometheus(body)
    telemetry, measured = Telemetry(SETTINGS, client), MeasuredObjects(SETTINGS, client, lambda: T0)
    with suppress(DeepScalerError):
        if what == "metrics":
            values = telemetry.metrics(T0, T0 + 45, 15.0).values
            assert not np.isinf(values).any() and not (values < 0).any()
        elif what in ("calls", "latencies"):
            getattr(telemetry, what)(*((T0, T0 + 45) if what == "calls" else (T0, T0 + 45, 15.0)))
        elif what == "usage":
            measured.usage(client)
        else:
            getattr(measured, what)()


@FUZZ
@given(json_texts(LINKS))
def test_jaeger(body: bytes) -> None:
    client = JaegerClient(Jaeger(url="http://jaeger"))
    client._web = Answering(body)
    with suppress(MetricsError):
        rates = client.calls(Names(SETTINGS.app), T0, T0 + 300, 300.0).frame["calls_per_second"]
        assert (rates >= 0).all()


# ------------------------------------------------------------------------------------------------- kubernetes
def _usage(name: str) -> dict[str, Any]:
    used = [{"name": name, "usage": {"cpu": "100m", "memory": "20Mi"}}]
    return {
        "metadata": {"name": f"{name}-5d9c5b8f6d-00000"},
        "timestamp": READY,
        "window": "15s",
        "containers": used,
    }


QUOTA = {
    "metadata": {"name": "team"},
    "spec": {"hard": {"limits.cpu": "10", "pods": "20"}, "scopes": ["NotTerminating"]},
    "status": {"used": {"limits.cpu": "2"}},
}
LIMIT_RANGE = {
    "metadata": {"name": "usual"},
    "spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]},
}
SERVICE = {"metadata": {"name": "web"}, "spec": {"type": "NodePort", "selector": {"app": "web"}}}
INGRESS = {
    "metadata": {"name": "entry"},
    "spec": {"rules": [{"http": {"paths": [{"backend": {"service": {"name": "web"}}}]}}]},
}
LEASE = {
    "metadata": {"name": "deepscaler-shop", "resourceVersion": "3"},
    "spec": {
        "holderIdentity": "other",
        "leaseDurationSeconds": 15,
        "leaseTransitions": 1,
        "acquireTime": CREATED,
    },
}
LISTS: dict[str, list[Any]] = {
    "deployments": [deployment("web"), deployment("api")],
    "pods": [pod(name, index, CREATED, READY, "100m") for name in ("web", "api") for index in range(2)],
    "replicasets": [replica_set(f"{name}-5d9c5b8f6d", name) for name in ("web", "api")],
    "horizontalpodautoscalers": [hpa("web", "web")],
    "scaledobjects": [hpa("api", "api")],
    "resourcequotas": [QUOTA],
    "limitranges": [LIMIT_RANGE],
    "metrics": [_usage("web"), _usage("api")],
    "services": [SERVICE],
    "ingresses": [INGRESS],
}


class Api(KubeApi):
    """An API server without a network: lists by their names, objects by their paths."""

    def __init__(self, lists: dict[str, Any], one: Any = None) -> None:
        super().__init__(ClusterSection(kind="kubernetes"))
        self.lists, self.one = lists, one

    def _once(self, method: str, path: str, *_: object) -> tuple[str, int, bytes]:
        name = "metrics" if "metrics.k8s.io" in path else path.rpartition("/")[2]
        if name in self.lists:
            found = self.lists[name]
            answer = found if isinstance(found, dict) and "raw" in found else {"items": found}
            answer = answer.get("raw", answer)
        else:
            answer = self.one if self.one is not None else {"items": []}
        return path, 200, json.dumps(answer).encode()


def use(api: Api) -> None:
    """Everything that reads from the API."""
    orchestrator = Orchestrator(SETTINGS, api)
    for read in (
        orchestrator.workloads,
        lambda: orchestrator.pods(orchestrator.usage()),
        orchestrator.unsupported,
        orchestrator.boot_seconds,
        lambda: orchestrator.scale({"web": 3}),
        lambda: orchestrator.missing_rights("shop"),
    ):
        with suppress(ClusterError):
            read()


@FUZZ
@given(st.data())
def test_kubernetes_objects(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(LISTS)))
    api = Api(
        {**LISTS, name: data.draw(changed(LISTS[name]))}, data.draw(st.none() | changed(deployment("web")))
    )
    use(api)
    with suppress(DeepScalerError):
        services = services_of(api, "shop")
        entries, how = entries_of(api, services, "shop", None, T0)
        draft("shop", "shop", services, entries, how, ClusterSection(kind="kubernetes"), None)


@FUZZ
@given(st.sampled_from(sorted(LISTS)), json_texts({"items": [], "metadata": {"continue": ""}}))
def test_kubernetes_lists(name: str, body: bytes) -> None:
    try:
        found = parse_json(body)
    except ValueError:
        return
    meta = found.get("metadata") if isinstance(found, dict) else None
    if isinstance(found, dict) and not (isinstance(meta, dict) and meta.get("continue")):
        use(Api({**LISTS, name: {"raw": found}}))


@FUZZ
@given(changed([deployment("web"), pod("web", 0, CREATED, READY), _usage("web"), QUOTA]))
def test_an_object_of_one_service_costs_that_service_only(items: Any) -> None:
    """The metadata stay as they are, so it is known whose object it is."""
    if not isinstance(items, list) or len(items) != 4 or not all(isinstance(item, dict) for item in items):
        return
    kinds, lists = ("deployments", "pods", "metrics", "resourcequotas"), {}
    for kind, item, sound in zip(
        kinds, items, (deployment("web"), LISTS["pods"][0], _usage("web"), QUOTA), strict=True
    ):
        others = [each for each in LISTS[kind] if each["metadata"]["name"] != sound["metadata"]["name"]]
        lists[kind] = [*others, {**item, "metadata": sound["metadata"]}]
    orchestrator = Orchestrator(SETTINGS, Api({**LISTS, **lists}))
    [api] = [item for item in orchestrator.workloads() if item.service == "api"]
    assert not api.unsound and api.replicas == 2 and api.cpu_limit_cores == 0.5
    pods = [item for item in orchestrator.pods(orchestrator.usage()) if item.service == "api"]
    assert [item.unsound for item in pods] == ["", ""] and all(item.ready for item in pods)
    assert pods[0].usage_cores == pytest.approx(0.1)


@FUZZ
@given(changed(LEASE))
def test_a_lease(item: Any) -> None:
    election = LeaseElection(SETTINGS, Api({}, item))
    election.attempt()
    election.release()


def test_the_inputs_that_were_not_changed_are_sound() -> None:
    """Otherwise the tests above would show nothing."""
    body = json.dumps(MATRIX).encode()
    assert len(prometheus(body).query_range("up", T0, T0 + 45, 15.0).labels) == 2
    orchestrator = Orchestrator(SETTINGS, Api(LISTS))
    assert [item.unsound for item in orchestrator.workloads()] == ["", ""]
    assert [item.unsound for item in orchestrator.pods(orchestrator.usage())] == [""] * 4
    assert KubernetesCluster(SETTINGS).services == ("web", "api")
    assert services_of(Api(LISTS), "shop")[1].name == "web"
