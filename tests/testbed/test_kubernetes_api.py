"""The emulated Kubernetes API, compared with the recorded answers of a real one and used by real clients."""

from __future__ import annotations

import copy
import http.client
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import kubernetes_replay
from helpers.moments import START
from helpers.recordings import kubernetes_answers
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

from testbed.kubernetes_api import (
    Identity,
    KubernetesApi,
    KubernetesStore,
    PodState,
    Refused,
    Rule,
    patching,
    watching,
)
from testbed.kubernetes_api.tables import age

DEPLOYMENTS = "/apis/apps/v1/namespaces/gold/deployments"
WEB = f"{DEPLOYMENTS}/web"
SCALE = f"{WEB}/scale"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/gold/leases"
JSON, MERGE, STRATEGIC, APPLY = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
REST = {
    "discovery /apis": "names only the groups that are served: 6 of the recorded 20",
    "discovery /api/v1": "names only the resources that are served: no endpoints, exec, logs, volumes, …",
}
"""Recordings that the emulated API answers differently, each with the reason."""


def deployment(name: str = "web", replicas: int = 2, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    container = {"name": name, "image": f"img/{name}:1", "resources": {"limits": {"cpu": "200m"}}}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "gold", "labels": labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec},
    }


def service(name: str = "web") -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "gold"},
        "spec": spec,
    }


@pytest.fixture
def store() -> KubernetesStore:
    made = KubernetesStore(clock=lambda: START)
    made.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gold"}})
    made.create(deployment())
    return made


def ask(
    store: KubernetesStore,
    method: str,
    path: str,
    body: Any = None,
    content: str = "application/json",
    **headers: str,
) -> Any:
    """The status and the document that answer one request."""
    path, _, query = path.partition("?")
    text = "" if body is None else body if isinstance(body, str) else json.dumps(body)
    sent = {"Content-Type": content, **{name.replace("_", "-"): value for name, value in headers.items()}}
    response = store.handle(method, path, query, sent, text.encode())
    assert isinstance(response.body, bytes)
    return response.status, json.loads(response.body)


def events(store: KubernetesStore, query: str, path: str = DEPLOYMENTS) -> Iterator[dict[str, Any] | None]:
    """The events of a watch; None whenever nothing happens."""
    response = store.handle("GET", path, f"watch=true&{query}")
    assert response.status == 200 and not isinstance(response.body, bytes)
    return (json.loads(line) if line else None for line in response.body)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches notice at once that nothing happens."""
    monkeypatch.setattr(watching, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(watching, "LAST_BOOKMARKS_SECONDS", 100.0)


# ------------------------------------------------------------------------------------------------- recordings
def test_recorded_answers_are_given_alike(quick: None) -> None:
    outcomes = kubernetes_replay.replay(kubernetes_answers())
    unlike = {outcome.name: outcome.differences for outcome in outcomes if outcome.differences}
    assert len(outcomes) == 110
    assert {name: differences for name, differences in unlike.items() if name not in REST} == {}
    for name in REST.keys() & unlike.keys():  # what is said is right, but not all of it
        assert all(difference.endswith("is missing") for difference in unlike[name])


def test_another_answer_than_recorded_is_noticed(quick: None) -> None:
    recordings = kubernetes_answers()[:50]
    answers = {recording["name"]: recording["response"] for recording in recordings}
    answers["patch scale merge"]["body"]["spec"]["replicas"] = 6
    answers["get missing"]["body"]["reason"] = "Gone"
    answers["create duplicate"]["status"] = 400
    del answers["get scale"]["body"]["status"]["selector"]
    unlike = {outcome.name for outcome in kubernetes_replay.replay(recordings) if outcome.differences}
    assert unlike - REST.keys() == {"patch scale merge", "get missing", "create duplicate", "get scale"}


# ----------------------------------------------------------------------------------------- the facts, for all
FACTS: list[tuple[str, str, str, Any, str, int, dict[str, Any]]] = [
    # what, method, path, body, content type, status, values by dotted path
    (
        "a scale reads",
        "GET",
        SCALE,
        None,
        "",
        200,
        {"kind": "Scale", "spec.replicas": 2, "status.selector": "app=web"},
    ),
    ("a merge patch scales", "PATCH", SCALE, {"spec": {"replicas": 5}}, MERGE, 200, {"spec.replicas": 5}),
    (
        "a strategic patch scales",
        "PATCH",
        SCALE,
        {"spec": {"replicas": 5}},
        STRATEGIC,
        200,
        {"spec.replicas": 5},
    ),
    (
        "a JSON patch scales",
        "PATCH",
        SCALE,
        [{"op": "replace", "path": "/spec/replicas", "value": 5}],
        JSON,
        200,
        {"spec.replicas": 5},
    ),
    (
        "a failed test stops",
        "PATCH",
        SCALE,
        [{"op": "test", "path": "/spec/replicas", "value": 9}],
        JSON,
        422,
        {"reason": "Invalid"},
    ),
    ("null scales to none", "PATCH", SCALE, {"spec": {"replicas": None}}, MERGE, 200, {"spec": {}}),
    (
        "not below none",
        "PATCH",
        SCALE,
        {"spec": {"replicas": -1}},
        MERGE,
        422,
        {"reason": "Invalid", "details.kind": "Scale"},
    ),
    ("no halves", "PATCH", SCALE, {"spec": {"replicas": 2.5}}, MERGE, 422, {"reason": "Invalid"}),
    ("no text", "PATCH", SCALE, {"spec": {"replicas": "4"}}, MERGE, 422, {"reason": "Invalid"}),
    (
        "a plain body is no patch",
        "PATCH",
        SCALE,
        {"spec": {"replicas": 5}},
        "application/json",
        415,
        {"reason": "UnsupportedMediaType"},
    ),
    (
        "stale patch",
        "PATCH",
        SCALE,
        {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 5}},
        MERGE,
        409,
        {"reason": "Conflict"},
    ),
    (
        "stale put",
        "PUT",
        SCALE,
        {"metadata": {"name": "web", "resourceVersion": "1"}, "spec": {}},
        "",
        409,
        {"reason": "Conflict"},
    ),
    (
        "put needs no version",
        "PUT",
        SCALE,
        {"metadata": {"name": "web"}, "spec": {"replicas": 3}},
        "",
        200,
        {"spec.replicas": 3},
    ),
    (
        "put of another",
        "PUT",
        SCALE,
        {"metadata": {"name": "cart"}, "spec": {"replicas": 3}},
        "",
        400,
        {"reason": "BadRequest"},
    ),
    ("a scale can't be made", "POST", SCALE, {}, "", 405, {"reason": "MethodNotAllowed"}),
    ("nor deleted", "DELETE", SCALE, None, "", 405, {"reason": "MethodNotAllowed"}),
    (
        "unknown",
        "GET",
        f"{DEPLOYMENTS}/nope/scale",
        None,
        "",
        404,
        {"reason": "NotFound", "details.kind": "deployments"},
    ),
    ("taken", "POST", DEPLOYMENTS, deployment(), "", 409, {"reason": "AlreadyExists"}),
    (
        "no selector",
        "POST",
        DEPLOYMENTS,
        deployment("bad", selector=None),
        "",
        422,
        {"reason": "Invalid", "details.kind": "Deployment"},
    ),
    (
        "other kind",
        "POST",
        DEPLOYMENTS,
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}},
        "",
        400,
        {"reason": "BadRequest"},
    ),
    (
        "no namespace",
        "POST",
        DEPLOYMENTS.replace("gold", "none"),
        {"metadata": {"name": "a"}},
        "",
        404,
        {"details.kind": "namespaces"},
    ),
    ("no JSON", "POST", DEPLOYMENTS, "{nope", "", 400, {"reason": "BadRequest"}),
    (
        "strict",
        "POST",
        f"{DEPLOYMENTS}?fieldValidation=Strict",
        deployment("new", extra=1),
        "",
        400,
        {"reason": "BadRequest"},
    ),
    (
        "rehearsed",
        "POST",
        f"{DEPLOYMENTS}?dryRun=All",
        deployment("new"),
        "",
        201,
        {"metadata.resourceVersion": None},
    ),
    (
        "selector stays",
        "PATCH",
        WEB,
        {"spec": {"selector": {"matchLabels": {"app": "x"}}}},
        MERGE,
        422,
        {"reason": "Invalid"},
    ),
    (
        "bad label selector",
        "GET",
        f"{DEPLOYMENTS}?labelSelector=%3D%3D",
        None,
        "",
        400,
        {"reason": "BadRequest"},
    ),
    (
        "bad field selector",
        "GET",
        f"{DEPLOYMENTS}?fieldSelector=spec.replicas%3D1",
        None,
        "",
        400,
        {"reason": "BadRequest"},
    ),
    ("future version", "GET", f"{DEPLOYMENTS}?resourceVersion=99999", None, "", 504, {"reason": "Timeout"}),
    ("no version", "GET", f"{DEPLOYMENTS}?watch=true&resourceVersion=abc", None, "", 500, {"code": 500}),
    ("bad page", "GET", f"{DEPLOYMENTS}?limit=1&continue=zzz", None, "", 400, {"reason": "BadRequest"}),
    ("other uid", "DELETE", WEB, {"preconditions": {"uid": "0"}}, "", 409, {"reason": "Conflict"}),
    ("deleted", "DELETE", WEB, None, "", 200, {"status": "Success", "details.name": "web"}),
    (
        "a lease lasts",
        "POST",
        LEASES,
        {"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 0}},
        "",
        422,
        {"reason": "Invalid"},
    ),
    (
        "a lease's time",
        "POST",
        LEASES,
        {"metadata": {"name": "l"}, "spec": {"renewTime": "now"}},
        "",
        400,
        {"reason": "BadRequest"},
    ),
    (
        "unserved resource",
        "GET",
        "/apis/apps/v1/namespaces/gold/widgets",
        None,
        "",
        404,
        {"reason": "NotFound"},
    ),
]


def at(document: Any, path: str) -> Any:
    for step in path.split("."):
        document = document.get(step) if isinstance(document, dict) else None
    return document


@pytest.mark.parametrize(
    ("method", "path", "body", "content", "status", "values"),
    [row[1:] for row in FACTS],
    ids=[row[0] for row in FACTS],
)
def test_facts(
    store: KubernetesStore,
    method: str,
    path: str,
    body: Any,
    content: str,
    status: int,
    values: dict[str, Any],
) -> None:
    found, document = ask(store, method, path, body, content or "application/json")
    assert found == status, document
    assert {name: at(document, name) for name in values} == values


def test_a_patch_that_changes_nothing_keeps_the_version(store: KubernetesStore) -> None:
    before = ask(store, "GET", WEB)[1]["metadata"]
    _, same = ask(store, "PATCH", SCALE, {"spec": {"replicas": 2}}, MERGE)
    assert same["metadata"]["resourceVersion"] == before["resourceVersion"]
    ask(store, "PATCH", SCALE, {"spec": {"replicas": 3}}, MERGE)
    ask(store, "PATCH", WEB, {"metadata": {"labels": {"tier": "front"}}}, MERGE)
    after = ask(store, "GET", WEB)[1]["metadata"]
    assert (
        after["generation"] == before["generation"] + 1
    )  # a change of the spec counts, one of a label doesn't
    assert int(after["resourceVersion"]) == int(before["resourceVersion"]) + 2


def test_patch_types_treat_lists_of_containers_differently(store: KubernetesStore) -> None:
    sidecar = {"spec": {"template": {"spec": {"containers": [{"name": "proxy", "image": "img/proxy:1"}]}}}}

    def names() -> list[str]:
        return [each["name"] for each in ask(store, "GET", WEB)[1]["spec"]["template"]["spec"]["containers"]]

    assert ask(store, "PATCH", WEB, sidecar, STRATEGIC)[0] == 200
    assert sorted(names()) == ["proxy", "web"]
    assert ask(store, "PATCH", WEB, sidecar, MERGE)[0] == 200
    assert names() == ["proxy"]


def test_apply_owns_what_it_names_and_takes_back_what_it_no_longer_names(store: KubernetesStore) -> None:
    wanted: dict[str, Any] = {
        **deployment("rec"),
        "metadata": {"name": "rec", "labels": {"app": "rec", "tier": "back"}},
    }
    path = f"{DEPLOYMENTS}/rec"
    assert ask(store, "PATCH", f"{path}?fieldManager=ds", wanted, APPLY)[0] == 201
    wanted["metadata"]["labels"] = {"app": "rec"}
    status, applied = ask(store, "PATCH", f"{path}?fieldManager=ds", yaml.safe_dump(wanted), APPLY)
    assert (status, applied["metadata"]["labels"]) == (200, {"app": "rec"})
    other = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "rec"},
        "spec": {"replicas": 7},
    }
    status, refused = ask(store, "PATCH", f"{path}?fieldManager=other", other, APPLY)
    assert (status, refused["details"]["causes"][0]["field"]) == (409, ".spec.replicas")
    status, forced = ask(store, "PATCH", f"{path}?fieldManager=other&force=true", other, APPLY)
    assert (status, forced["spec"]["replicas"]) == (200, 7)
    owners = [
        entry["manager"]
        for entry in forced["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
    ]
    assert owners == ["other"]
    assert len(forced["spec"]["template"]["spec"]["containers"]) == 1  # what others own stays


def test_pages_show_one_moment(store: KubernetesStore) -> None:
    store.create(deployment("cart"))
    _, first = ask(store, "GET", f"{DEPLOYMENTS}?limit=1")
    assert [each["metadata"]["name"] for each in first["items"]] == ["cart"]
    assert first["metadata"]["remainingItemCount"] == 1
    ask(store, "DELETE", WEB)
    following = f"{DEPLOYMENTS}?limit=1&continue={first['metadata']['continue']}"
    _, second = ask(store, "GET", following)
    assert [each["metadata"]["name"] for each in second["items"]] == ["web"]  # as it was
    assert "continue" not in second["metadata"]
    store.compact()
    status, expired = ask(store, "GET", following)
    assert (status, expired["reason"]) == (410, "Expired")
    status, rest = ask(store, "GET", f"{DEPLOYMENTS}?limit=1&continue={expired['metadata']['continue']}")
    assert (status, rest["items"]) == (200, [])  # the rest as it is now


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("app=web", {"web"}),
        ("app!=web", {"cart", "bare"}),
        ("app in (web, cart),tier", {"cart"}),
        ("app notin (web)", {"cart", "bare"}),
        ("!app", {"bare"}),
        ("", {"web", "cart", "bare"}),
    ],
)
def test_label_selectors(store: KubernetesStore, selector: str, names: set[str]) -> None:
    cart, bare = deployment("cart"), deployment("bare")
    cart["metadata"]["labels"]["tier"] = "back"
    bare["metadata"] = {"name": "bare", "namespace": "gold"}
    store.create(cart)
    store.create(bare)
    path = f"{DEPLOYMENTS}?labelSelector={selector.replace('=', '%3D').replace(' ', '%20')}"
    assert {each["metadata"]["name"] for each in ask(store, "GET", path)[1]["items"]} == names


# ---------------------------------------------------------------------------------------------------- watches
def test_a_watch_sees_what_enters_changes_and_leaves_its_selection(
    store: KubernetesStore, quick: None
) -> None:
    seen = events(store, "labelSelector=app%3Dcart&timeoutSeconds=60")
    assert next(seen) is None
    store.create(deployment("cart"))
    ask(store, "PATCH", f"{DEPLOYMENTS}/cart/scale", {"spec": {"replicas": 9}}, MERGE)
    ask(store, "PATCH", f"{DEPLOYMENTS}/cart", {"metadata": {"labels": {"app": "other"}}}, MERGE)
    ask(store, "PATCH", f"{DEPLOYMENTS}/cart/scale", {"spec": {"replicas": 8}}, MERGE)
    found = [next(seen) for _ in range(4)]
    assert [each and (each["type"], each["object"]["spec"]["replicas"]) for each in found] == [
        *(("ADDED", 2), ("MODIFIED", 9), ("DELETED", 9)),
        None,
    ]


def test_a_watch_goes_on_from_a_version_and_is_told_when_it_is_forgotten(
    store: KubernetesStore, quick: None
) -> None:
    version = store.version
    ask(store, "PATCH", SCALE, {"spec": {"replicas": 3}}, MERGE)
    first = next(events(store, f"resourceVersion={version}"))
    assert first is not None and (first["type"], first["object"]["spec"]["replicas"]) == ("MODIFIED", 3)
    store.compact()
    [error] = list(events(store, f"resourceVersion={version}"))
    assert error is not None and (error["type"], error["object"]["code"], error["object"]["reason"]) == (
        "ERROR",
        410,
        "Expired",
    )


def test_a_watch_that_falls_behind_the_history_ends_with_an_error(quick: None) -> None:
    small = KubernetesStore(history=5)
    seen = events(small, "timeoutSeconds=60", "/api/v1/namespaces/default/configmaps")
    assert next(seen) is None
    for number in range(20):
        small.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{number}"}})
    assert [each and each["type"] for each in seen] == ["ERROR"]


def test_bookmarks_carry_the_newest_version(store: KubernetesStore, quick: None) -> None:
    seen = events(store, "sendInitialEvents=true&allowWatchBookmarks=true&timeoutSeconds=60")
    first, mark = next(seen), next(seen)
    assert first is not None and first["type"] == "ADDED"
    assert mark is not None and mark["object"]["metadata"] == {
        "resourceVersion": str(store.version),
        "annotations": {"k8s.io/initial-events-end": "true"},
    }
    store.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "elsewhere", "namespace": "gold"}}
    )
    later = next(each for each in seen if each is not None)
    assert (later["type"], later["object"]["metadata"]["resourceVersion"]) == ("BOOKMARK", str(store.version))


# --------------------------------------------------------------------------------------- for the serving side
def test_on_scale_is_told_of_creation_changes_and_deletion_once_each() -> None:
    told: list[tuple[str, str, int]] = []
    store = KubernetesStore(on_scale=lambda *what: told.append(what))
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gold"}})
    store.create(deployment())
    ask(store, "PATCH", SCALE, {"spec": {"replicas": 4}}, MERGE)
    ask(store, "PATCH", SCALE, {"spec": {"replicas": 4}}, MERGE)
    ask(store, "PATCH", f"{SCALE}?dryRun=All", {"spec": {"replicas": 9}}, MERGE)
    ask(store, "PATCH", WEB, {"metadata": {"labels": {"tier": "front"}}}, MERGE)
    store.sync_pods("gold", "web", [PodState("web-7d9c5b8f6d-bbbbb", START)])
    ask(store, "DELETE", WEB)
    assert told == [("gold", "web", 2), ("gold", "web", 4), ("gold", "web", 0)]


def test_on_scale_ends_with_the_last_number_whoever_comes_first() -> None:
    told: list[int] = []
    store = KubernetesStore(on_scale=lambda _, __, replicas: told.append(replicas))
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gold"}})
    store.create(deployment())

    def scale(first: int) -> None:
        for number in range(first, first + 50):
            ask(store, "PATCH", SCALE, {"spec": {"replicas": number}}, MERGE)

    threads = [threading.Thread(target=scale, args=(100 * part,)) for part in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told[-1] == store.replicas("gold")["web"]


def test_replica_sets_pods_and_statuses_follow(store: KubernetesStore) -> None:
    ready = PodState("web-7d9c5b8f6d-bbbbb", START, START + 12)
    starting = PodState("web-7d9c5b8f6d-ccccc", START + 5)
    store.sync_pods("gold", "web", [ready, starting])
    status = ask(store, "GET", WEB)[1]["status"]
    assert {
        key: status[key] for key in ("replicas", "readyReplicas", "unavailableReplicas", "observedGeneration")
    } == {
        **{"replicas": 2, "readyReplicas": 1, "unavailableReplicas": 1},
        "observedGeneration": 1,
    }
    _, pod = ask(store, "GET", "/api/v1/namespaces/gold/pods/web-7d9c5b8f6d-bbbbb")
    states = {each["type"]: each for each in pod["status"]["conditions"]}
    created, since = (
        datetime.fromisoformat(text)
        for text in (pod["metadata"]["creationTimestamp"], states["Ready"]["lastTransitionTime"])
    )
    assert (since - created).total_seconds() == 12  # its boot time can be measured
    [replica_set] = ask(store, "GET", "/apis/apps/v1/namespaces/gold/replicasets")[1]["items"]
    assert replica_set["metadata"]["name"] == "web-7d9c5b8f6d"
    assert pod["metadata"]["ownerReferences"][0]["uid"] == replica_set["metadata"]["uid"]
    version = store.version
    store.sync_pods("gold", "web", [ready, starting])
    assert store.version == version  # nothing is written if nothing has changed
    store.sync_pods("gold", "web", [PodState(ready.name, START, START + 12, deleting_since=START + 60)])
    _, pods = ask(store, "GET", "/api/v1/namespaces/gold/pods?labelSelector=app%3Dweb")
    assert ["deletionTimestamp" in each["metadata"] for each in pods["items"]] == [True]
    assert "readyReplicas" not in ask(store, "GET", WEB)[1]["status"]
    ask(store, "DELETE", WEB)
    for kind in ("/api/v1/namespaces/gold/pods", "/apis/apps/v1/namespaces/gold/replicasets"):
        assert ask(store, "GET", kind)[1]["items"] == []  # they go with their owner


def test_a_changed_deployment_is_observed_at_the_next_sync_and_a_deleted_pod_comes_back(
    store: KubernetesStore,
) -> None:
    pods = [PodState("web-7d9c5b8f6d-bbbbb", START, START + 1)]
    store.sync_pods("gold", "web", pods)
    ask(
        store,
        "PATCH",
        WEB,
        {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "img/web:2"}]}}}},
        STRATEGIC,
    )
    ask(store, "DELETE", f"/api/v1/namespaces/gold/pods/{pods[0].name}")
    store.sync_pods("gold", "web", pods)
    found = ask(store, "GET", WEB)[1]
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"] == 2
    assert ask(store, "GET", f"/api/v1/namespaces/gold/pods/{pods[0].name}")[0] == 200


def test_services_keep_their_addresses_when_replaced(store: KubernetesStore) -> None:
    made = store.create(service())
    body = service()
    body["spec"]["ports"][0]["port"] = 81
    status, replaced = ask(store, "PUT", "/api/v1/namespaces/gold/services/web", body)
    assert (status, replaced["spec"]["clusterIP"]) == (200, made["spec"]["clusterIP"])
    assert replaced["spec"]["ports"][0]["port"] == 81


def test_autoscalers_are_the_same_objects_in_both_versions(store: KubernetesStore) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    old = {
        "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 4, "targetCPUUtilizationPercentage": 60},
    }
    assert ask(store, "POST", "/apis/autoscaling/v1/namespaces/gold/horizontalpodautoscalers", old)[0] == 201
    _, new = ask(store, "GET", "/apis/autoscaling/v2/namespaces/gold/horizontalpodautoscalers/web")
    assert new["apiVersion"] == "autoscaling/v2"
    assert new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 60
    _, back = ask(store, "GET", "/apis/autoscaling/v1/namespaces/gold/horizontalpodautoscalers/web")
    assert (back["spec"]["targetCPUUtilizationPercentage"], back["spec"]["minReplicas"]) == (60, 1)


# ----------------------------------------------------------------------------------------------------- rights
def test_tokens_have_their_own_rules_and_unknown_ones_none() -> None:
    reader = Identity(
        "system:serviceaccount:gold:reader", (Rule(("get", "list"), ("deployments",), ("apps",), ("gold",)),)
    )
    store = KubernetesStore(tokens={"r": reader})
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gold"}})
    store.create(deployment())
    assert ask(store, "GET", WEB, Authorization="Bearer r")[0] == 200
    status, refused = ask(store, "PATCH", SCALE, {"spec": {"replicas": 5}}, MERGE, Authorization="Bearer r")
    assert (status, refused["reason"]) == (403, "Forbidden")
    assert (
        'cannot patch resource "deployments/scale" in API group "apps" in the namespace "gold"'
        in refused["message"]
    )
    assert ask(store, "GET", DEPLOYMENTS.replace("gold", "default"), Authorization="Bearer r")[0] == 403
    assert ask(store, "GET", WEB, Authorization="Bearer x")[0] == 401
    assert ask(store, "GET", WEB)[0] == 403


def test_roles_that_are_bound_grant_and_the_review_says_so() -> None:
    account = Identity("system:serviceaccount:gold:deepscaler")
    store = KubernetesStore(tokens={"ds": account})
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gold"}})
    store.create(deployment())
    asked = {
        "namespace": "gold",
        "verb": "patch",
        "group": "apps",
        "resource": "deployments",
        "subresource": "scale",
    }

    def allowed() -> bool:
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        status, review = ask(
            store, "POST", path, {"spec": {"resourceAttributes": asked}}, Authorization="Bearer ds"
        )
        assert status == 201
        return bool(review["status"]["allowed"])

    assert not allowed()
    group = "rbac.authorization.k8s.io"
    rule = {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"]}
    head = {"apiVersion": f"{group}/v1", "metadata": {"name": "ds", "namespace": "gold"}}
    store.create({**head, "kind": "Role", "rules": [rule]})
    subject = {"kind": "ServiceAccount", "name": "deepscaler", "namespace": "gold"}
    store.create(
        {
            **head,
            "kind": "RoleBinding",
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "ds"},
            "subjects": [subject],
        }
    )
    assert allowed()
    assert ask(store, "PATCH", SCALE, {"spec": {"replicas": 5}}, MERGE, Authorization="Bearer ds")[0] == 200
    assert ask(store, "PATCH", WEB, {"spec": {"replicas": 5}}, MERGE, Authorization="Bearer ds")[0] == 403


# ---------------------------------------------------------------------------------------------------- patches
@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/list/0", "value": 9}], {"list": [9, 1, 2], "a/b": 1}),
        ([{"op": "add", "path": "/list/-", "value": 9}], {"list": [1, 2, 9], "a/b": 1}),
        ([{"op": "remove", "path": "/a~1b"}], {"list": [1, 2]}),
        ([{"op": "move", "from": "/list/1", "path": "/moved"}], {"list": [1], "a/b": 1, "moved": 2}),
        ([{"op": "copy", "from": "/list", "path": "/copied"}], {"list": [1, 2], "a/b": 1, "copied": [1, 2]}),
        ([{"op": "test", "path": "/list/0", "value": True}], None),
        ([{"op": "replace", "path": "/nothing", "value": 1}], None),
        ([{"op": "remove", "path": "/list/7"}], None),
        ([{"op": "add", "path": "/list/01x", "value": 1}], None),
    ],
)
def test_json_patch(operations: list[dict[str, Any]], result: dict[str, Any] | None) -> None:
    document = {"list": [1, 2], "a/b": 1}
    before = copy.deepcopy(document)
    if result is None:
        with pytest.raises(Refused):
            patching.json_patch(document, operations)
    else:
        assert patching.json_patch(document, operations) == result
    assert document == before


def test_strategic_merge_deletes_replaces_and_orders() -> None:
    old = {
        "spec": {
            "template": {
                "spec": {
                    "containers": [
                        {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]},
                        {"name": "b"},
                    ]
                }
            }
        }
    }

    def patched(containers: list[Any], **more: Any) -> Any:
        patch = {"spec": {"template": {"spec": {"containers": containers, **more}}}}
        return patching.strategic_merge(old, patch, "Deployment")["spec"]["template"]["spec"]["containers"]

    assert [each["name"] for each in patched([{"name": "b", "$patch": "delete"}])] == ["a"]
    assert patched([{"$patch": "replace"}, {"name": "c"}]) == [{"name": "c"}]
    assert patched([{"name": "a", "env": [{"name": "X", "value": "2"}]}])[0] == {
        **old_first(old),
        "env": [{"name": "X", "value": "2"}],
    }
    order = {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}
    assert [each["name"] for each in patched([{"name": "b", "image": "2"}], **order)] == ["b", "a"]


def old_first(document: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = document["spec"]["template"]["spec"]["containers"][0]
    return first


NAMES = (
    *(
        "name",
        "metadata",
        "spec",
        "labels",
        "selector",
        "matchLabels",
        "matchExpressions",
        "key",
        "template",
        "replicas",
        "containers",
    ),
    *(
        "ports",
        "env",
        "valueFrom",
        "resources",
        "limits",
        "status",
        "rules",
        "subjects",
        "roleRef",
        "metrics",
        "scaleTargetRef",
    ),
    *("finalizers", "volumes", "strategy", "annotations"),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["", "a", "1", "In"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=15,
)
PATHS = [
    *(
        f"{group}/namespaces/gold/{plural}"
        for group, plural in (("/apis/apps/v1", "deployments"), ("/api/v1", "pods"))
    ),
    *(f"/apis/autoscaling/{version}/namespaces/gold/horizontalpodautoscalers" for version in ("v1", "v2")),
    *("/api/v1/namespaces/gold/services", "/apis/rbac.authorization.k8s.io/v1/namespaces/gold/rolebindings"),
]


@settings(max_examples=150, deadline=None)
@given(
    VALUES,
    st.sampled_from(PATHS),
    st.sampled_from([JSON, MERGE, STRATEGIC, APPLY]),
    st.sampled_from([WEB, SCALE, f"{WEB}/status"]),
)
def test_no_body_breaks_it(body: Any, path: str, content: str, target: str) -> None:
    store = KubernetesStore()
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gold"}})
    store.create(deployment())
    if isinstance(body, dict) and isinstance(body.setdefault("metadata", {}), dict):
        body["metadata"]["name"] = "new"
    found = [
        ask(store, "POST", path, body)[0],
        ask(store, "GET", path, Accept="application/json;as=Table;v=v1;g=meta.k8s.io")[0],
    ]
    found += [
        ask(store, "PATCH", f"{target}?fieldManager=me&force=true", body, content)[0],
        ask(store, "PUT", target, body)[0],
    ]
    found += [ask(store, "PATCH", target, [{"op": "replace", "path": "/spec", "value": body}], JSON)[0]]
    assert max(found) < 500


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (125, "2m5s"),
        (600, "10m"),
        (4 * 3600 + 120, "4h2m"),
        (30 * 3600, "30h"),
        (3 * 86400 + 7200, "3d2h"),
    ],
)
def test_ages_read_like_kubectls(seconds: float, text: str) -> None:
    assert age(seconds) == text


# ---------------------------------------------------------------------------------------------- over the wire
@pytest.fixture
def api(store: KubernetesStore, tmp_path: Path) -> Iterator[KubernetesApi]:
    with KubernetesApi(store) as served:
        served.write_kubeconfig(tmp_path / "kubeconfig", "gold")
        yield served


def test_the_server_survives_what_isnt_http_and_stops_cleanly(store: KubernetesStore) -> None:
    before = threading.active_count()
    with KubernetesApi(store) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=5)
        for method, headers in (
            ("POST", {"Content-Length": "nonsense"}),
            ("POST", {"Content-Length": "99999999"}),
            ("BREW", {}),
        ):
            connection.putrequest(method, "/api")
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            assert connection.getresponse().status in (400, 413, 501)
            connection.close()
        connection.request("GET", "/version")
        assert json.loads(connection.getresponse().read())["minor"] == "36"
        idle, watching_ = connection, http.client.HTTPConnection("127.0.0.1", served.port, timeout=5)
        watching_.request("GET", f"{DEPLOYMENTS}?watch=true")
        stream = watching_.getresponse()
        assert b"ADDED" in stream.readline()
    stream.close()
    idle.close()
    watching_.close()
    assert threading.active_count() == before


@pytest.fixture
def python(api: KubernetesApi, tmp_path: Path) -> Iterator[client.ApiClient]:
    configuration = client.Configuration()
    config.load_kube_config(str(tmp_path / "kubeconfig"), client_configuration=configuration)
    with client.ApiClient(configuration) as made:
        yield made
        made.rest_client.pool_manager.clear()


def test_the_python_client_lists_creates_patches_and_scales(python: client.ApiClient) -> None:
    apps, core = client.AppsV1Api(python), client.CoreV1Api(python)
    assert [each.metadata.name for each in apps.list_namespaced_deployment("gold").items] == ["web"]
    created = apps.create_namespaced_deployment("gold", deployment("cart"))
    assert created.spec.strategy.type == "RollingUpdate"
    patched = apps.patch_namespaced_deployment(
        "cart", "gold", {"metadata": {"annotations": {"deepscaler/x": "1"}}}
    )
    assert patched.metadata.annotations == {"deepscaler/x": "1"}
    scale = apps.read_namespaced_deployment_scale("cart", "gold")
    scale.spec.replicas = 3
    fresh = apps.replace_namespaced_deployment_scale("cart", "gold", scale)
    assert (fresh.spec.replicas, fresh.status.selector) == (3, "app=cart")
    with pytest.raises(ApiException) as stale:
        apps.replace_namespaced_deployment_scale("cart", "gold", scale)
    assert (stale.value.status, json.loads(stale.value.body)["reason"]) == (409, "Conflict")
    assert (
        apps.patch_namespaced_deployment_scale("cart", "gold", {"spec": {"replicas": 5}}).spec.replicas == 5
    )
    core.create_namespaced_service("gold", service())
    assert core.read_namespaced_service("web", "gold").spec.cluster_ip.startswith("10.")
    apps.delete_namespaced_deployment("cart", "gold")
    with pytest.raises(ApiException) as gone:
        apps.read_namespaced_deployment("cart", "gold")
    assert gone.value.status == 404


def test_the_python_client_watches(python: client.ApiClient, store: KubernetesStore) -> None:
    apps, seen = client.AppsV1Api(python), []
    version = apps.list_namespaced_deployment("gold").metadata.resource_version
    stream = watch.Watch()
    scale(store, 6)
    for event in stream.stream(
        apps.list_namespaced_deployment, "gold", resource_version=version, timeout_seconds=20
    ):
        seen.append((event["type"], event["object"].spec.replicas))
        if len(seen) == 2:
            stream.stop()
        scale(store, 7)
    assert seen == [("MODIFIED", 6), ("MODIFIED", 7)]


def scale(store: KubernetesStore, replicas: int) -> None:
    assert ask(store, "PATCH", SCALE, {"spec": {"replicas": replicas}}, MERGE)[0] == 200


def test_the_python_client_reads_pods_autoscalers_events_and_rights(
    python: client.ApiClient, store: KubernetesStore
) -> None:
    store.sync_pods("gold", "web", [PodState("web-7d9c5b8f6d-bbbbb", START, START + 9)])
    [pod] = client.CoreV1Api(python).list_namespaced_pod("gold", label_selector="app=web").items
    assert [each.type for each in pod.status.conditions if each.status == "True"][-1] == "Ready"
    autoscalers = client.AutoscalingV2Api(python)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    body = {
        "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 4},
    }
    autoscalers.create_namespaced_horizontal_pod_autoscaler("gold", body)
    store.set_status(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "gold",
        "web",
        {"currentReplicas": 2, "desiredReplicas": 3},
    )
    assert autoscalers.read_namespaced_horizontal_pod_autoscaler("web", "gold").status.desired_replicas == 3
    event = client.CoreV1Event(
        metadata={"generateName": "web."},
        involved_object={"kind": "Deployment", "name": "web", "namespace": "gold"},
        reason="Scaled",
        message="2 -> 3",
        type="Normal",
        first_timestamp=datetime(2026, 1, 5, tzinfo=UTC),
    )
    client.CoreV1Api(python).create_namespaced_event("gold", event)
    [kept] = (
        client.CoreV1Api(python)
        .list_namespaced_event("gold", field_selector="involvedObject.name=web,reason=Scaled")
        .items
    )
    assert kept.message == "2 -> 3"
    asked = {
        "namespace": "gold",
        "verb": "patch",
        "group": "apps",
        "resource": "deployments",
        "subresource": "scale",
    }
    review = client.V1SelfSubjectAccessReview(spec={"resourceAttributes": asked})
    assert client.AuthorizationV1Api(python).create_self_subject_access_review(review).status.allowed


def test_two_lease_locks_never_hold_at_once(api: KubernetesApi, tmp_path: Path) -> None:
    config.load_kube_config(str(tmp_path / "kubeconfig"))  # the lock uses only the default configuration
    try:
        one, other = (LeaseLock("deepscaler", "gold", name) for name in ("one", "other"))

        def record(name: str, second: int = 0) -> LeaderElectionRecord:
            return LeaderElectionRecord(
                name, "15", str(datetime(2026, 1, 5)), str(datetime(2026, 1, 5, 0, 0, second))
            )

        assert one.get("deepscaler", "gold")[0] is False
        assert one.create("deepscaler", "gold", record("one"))
        assert not other.create("deepscaler", "gold", record("other"))
        assert other.get("deepscaler", "gold")[1].holder_identity == "one"
        assert one.update("deepscaler", "gold", record("one", 5))
        assert not other.update("deepscaler", "gold", record("other", 6))  # it read an older version
        assert one.get("deepscaler", "gold")[1].holder_identity == "one"
        for lock in (one, other):
            lock.api_instance.api_client.close()
            lock.api_instance.api_client.rest_client.pool_manager.clear()
    finally:
        client.Configuration.set_default(None)


# ---------------------------------------------------------------------------------------------------- kubectl
Kubectl = Callable[..., str]


@pytest.fixture
def kubectl(api: KubernetesApi, tmp_path: Path) -> Kubectl:
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("no kubectl on this machine")
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path)}

    def run(*arguments: str, fails: bool = False) -> str:
        command = [program, "--cache-dir", str(tmp_path / "cache"), *arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + (done.stderr if fails else "")

    return run


def test_kubectl_gets_scales_and_describes(kubectl: Kubectl, store: KubernetesStore) -> None:
    store.sync_pods("gold", "web", [PodState("web-7d9c5b8f6d-bbbbb", START, START + 9)])
    assert kubectl("get", "deploy").split()[:10] == [
        "NAME",
        "READY",
        "UP-TO-DATE",
        "AVAILABLE",
        "AGE",
        "web",
        "1/2",
        "1",
        "1",
        "0s",
    ]
    assert "scaled" in kubectl("scale", "deploy/web", "--replicas=4")
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "4"
    assert "web-7d9c5b8f6d-bbbbb" in kubectl("get", "pods,rs", "-o", "wide")
    assert "Available" in kubectl("describe", "deploy", "web")
    assert "NotFound" in kubectl("get", "deploy", "nope", fails=True)
    assert kubectl("auth", "can-i", "patch", "deployments", "--subresource=scale").strip() == "yes"
    assert "created" in kubectl("create", "namespace", "shop")


def test_kubectl_applies_both_ways(kubectl: Kubectl, tmp_path: Path) -> None:
    manifest = tmp_path / "shop.yaml"
    cart = deployment("cart")

    def write(replicas: int) -> str:
        cart["spec"]["replicas"] = replicas
        manifest.write_text(yaml.safe_dump_all([cart, service("cart")]), encoding="utf-8")
        return str(manifest)

    assert kubectl("apply", "-f", write(2)).split() == [
        "deployment.apps/cart",
        "created",
        "service/cart",
        "created",
    ]
    assert "configured" not in kubectl("apply", "-f", write(2))
    assert "deployment.apps/cart configured" in kubectl("apply", "-f", write(3))
    kubectl("scale", "deploy/cart", "--replicas=6")
    assert ".spec.replicas" in kubectl("apply", "--server-side", "-f", write(4), fails=True)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", write(4))
    assert kubectl("get", "deploy", "cart", "-o", "jsonpath={.spec.replicas}") == "4"
    cart["spec"]["replicaz"] = 1
    assert "unknown field" in kubectl("apply", "-f", write(4), fails=True)
    assert "deleted" in kubectl("delete", "deploy/cart", "svc/cart")


def test_kubectl_watches(kubectl: Kubectl, store: KubernetesStore, tmp_path: Path) -> None:
    program = shutil.which("kubectl")
    assert program is not None
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path)}
    with subprocess.Popen(
        [program, "get", "deploy", "-w"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        late = threading.Timer(30.0, process.kill)  # readline has no time-out of its own
        late.start()
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().split()[:2] for _ in range(2)]
            scale(store, 3)
            lines.append(process.stdout.readline().split()[:2])
        finally:
            late.cancel()
            process.terminate()
    assert lines == [["NAME", "READY"], ["web", "0/2"], ["web", "0/3"]]
