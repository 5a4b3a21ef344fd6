"""Replays the recorded answers of a real API server against the emulated one and says where they differ."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from testbed.kubernetes_api import Identity, KubernetesStore, Response, Rule

FIRST_VERSION = 205  # the recorded server's, before the first recorded change
CLUSTER = "/apis/apps/v1/namespaces/gold/deployments"
TOKEN = {"Authorization": "Bearer admin", "User-Agent": "python-requests/2"}
# What no client relies on: random values, the wall clock, the build of the server, prose for people.
IGNORED = {
    *(
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "time",
        "storageVersionHash",
        "serverAddress",
        "description",
    ),
    *("gitCommit", "goVersion", "compiler"),
}


@dataclass(frozen=True)
class Outcome:
    """One recording: its number and name, and the first differences, if any."""

    number: int
    name: str
    differences: list[str]


def replay(recordings: list[dict[str, Any]]) -> list[Outcome]:
    """Send every recorded request in order to an empty store that begins where the recorded server began."""
    tokens = {"admin": Identity("system:admin", (Rule(("*",)),))}
    store = KubernetesStore(tokens=tokens, controllers=False, version=FIRST_VERSION)
    uids: dict[str, str] = {}
    return [
        Outcome(
            number,
            recording["name"],
            list(_differences(_play(store, number, recording, uids), recording["response"])),
        )
        for number, recording in enumerate(recordings)
    ]


def send(
    store: KubernetesStore,
    method: str,
    path: str,
    body: Any = None,
    content: str = "application/json",
    **headers: str,
) -> Response:
    """Send one request of the administrator; `headers` come beside the usual ones or in their place."""
    path, _, query = path.partition("?")
    data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return store.handle(method, path, query, {**TOKEN, "Content-Type": content, **headers}, data)


def _meanwhile(store: KubernetesStore, number: int) -> None:
    """Write what others wrote on the recorded server before the request with this number was answered.

    The versions that the recorded answers show say what it was.
    """
    merge = "application/merge-patch+json"
    if number == 91:
        send(store, "PATCH", f"{CLUSTER}/frontend/scale", {"spec": {"replicas": 6}}, merge)
        labels = {"app": "tmp"}
        limits = {
            "limits": {"cpu": "500m", "memory": "512Mi"},
            "requests": {"cpu": "100m", "memory": "128Mi"},
        }
        container = {"name": "tmp", "image": "img/tmp", "resources": limits}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        send(store, "POST", CLUSTER, {"metadata": {"name": "tmp", "labels": labels}, "spec": spec})
        send(store, "DELETE", f"{CLUSTER}/tmp")
    elif number == 94:
        _advance(store, 230)
        send(store, "PATCH", f"{CLUSTER}/cart", {"metadata": {"labels": {"app": "cart2"}}}, merge)
    elif number == 97:
        _advance(store, 232)
        send(store, "PATCH", f"{CLUSTER}/frontend/scale", {"spec": {"replicas": 1}}, merge)
    elif number == 106:
        _advance(store, 243)
        store.compact()
    elif number == 108:
        _advance(store, 246)


def _advance(store: KubernetesStore, version: int) -> None:
    """Make changes elsewhere, as others did, up to a version."""
    while store.version < version:
        lease = {"metadata": {"generateName": "node-"}, "spec": {"holderIdentity": "node"}}
        send(store, "POST", "/apis/coordination.k8s.io/v1/namespaces/gold/leases", lease)


def _play(
    store: KubernetesStore, number: int, recording: dict[str, Any], uids: dict[str, str]
) -> dict[str, Any]:
    request, recorded = recording["request"], recording["response"]
    headers = dict(request.get("headers") or {})
    if recording["name"].startswith("unauthenticated"):
        headers["Authorization"] = "Bearer wrong"
    path, _, query = request["path"].partition("?")
    sent = {**TOKEN, **headers}
    if recording["name"] == "unauthenticated (no token)":
        del sent["Authorization"]
    if number in (106, 108):
        _meanwhile(store, number)
    body = request.get("body")
    text = "" if body is None else body if isinstance(body, str) else json.dumps(body)
    for theirs, ours in uids.items():
        text = text.replace(theirs, ours)
    content = {"Content-Type": request["content_type"]} if request.get("content_type") else {}
    response = store.handle(request["method"], path, query, {**sent, **content}, text.encode())
    found: dict[str, Any] = {"status": response.status, "headers": dict(response.headers)}
    if isinstance(response.body, bytes):
        text = response.body.decode()
        parsed: Any = json.loads(text) if "json" in response.headers["Content-Type"] else text
        _learn_uid(uids, recorded.get("body"), parsed)
        return {**found, "watch": [{"event": parsed}]} if "watch" in recorded else {**found, "body": parsed}
    if number != 106:
        found["watch"] = list(_events(store, number, response.body, len(recorded["watch"])))
    else:
        found["watch"] = [{"event": json.loads(line)} for line in response.body if line]
    return found


def _learn_uid(uids: dict[str, str], recorded: Any, found: Any) -> None:
    """Remember which uid was drawn here for the recorded one, so that later requests can send it."""
    with contextlib.suppress(KeyError, TypeError):  # no object, or none with a uid
        uids[recorded["metadata"]["uid"]] = found["metadata"]["uid"]


def _events(
    store: KubernetesStore, number: int, lines: Iterator[bytes], wanted: int
) -> Iterator[dict[str, Any]]:
    """The events of a watch: as many as were recorded, and one more if it comes within a moment."""
    first = [next(lines)] if number == 97 else []  # seen before the others write
    _meanwhile(store, number)
    count = 0
    for line in itertools.chain(first, lines):
        if line:
            event = json.loads(line)
            if count == wanted and event["type"] == "BOOKMARK":
                return
            count += 1
            yield {"event": event}
        elif count >= wanted:
            return


# -------------------------------------------------------------------------------------------------- comparing
def _differences(found: dict[str, Any], recorded: dict[str, Any]) -> Iterator[str]:
    if found["status"] != recorded["status"]:
        yield f"status {found['status']}, recorded {recorded['status']}"
    if found["headers"].get("Warning") != recorded["headers"].get("Warning"):
        yield f"warning {found['headers'].get('Warning')}"
    kind = recorded["headers"].get("Content-Type", "application/json")
    if found["headers"]["Content-Type"] != kind:
        yield f"content type {found['headers']['Content-Type']}, recorded {kind}"
    if "watch" in recorded:
        yield from _unlike(
            [each["event"] for each in found.get("watch", [])],
            [each["event"] for each in recorded["watch"]],
            "watch",
        )
    else:
        yield from _unlike(found.get("body"), recorded.get("body"), "")


def _unlike(found: Any, recorded: Any, path: str) -> Iterator[str]:
    """The differences between two values at a path."""
    if isinstance(found, dict) and isinstance(recorded, dict):
        for key in sorted((found.keys() | recorded.keys()) - IGNORED):
            if key in found and key in recorded:
                yield from _unlike_field(key, found, recorded, path)
            else:
                yield f"{path}.{key} {'is missing' if key in recorded else 'is more than recorded'}"
    elif isinstance(found, list) and isinstance(recorded, list):
        yield from _unlike_list(found, recorded, path)
    elif found != recorded and _plain(found) != _plain(recorded):
        yield f"{path} {found!r}, recorded {recorded!r}"


def _unlike_field(key: str, found: dict[str, Any], recorded: dict[str, Any], path: str) -> Iterator[str]:
    one, other = found[key], recorded[key]
    if key == "managedFields":
        yield from _unlike(sorted(one, key=_entry), sorted(other, key=_entry), f"{path}.{key}")
    elif key == "name" and "generateName" in recorded:
        if not str(one).startswith(recorded["generateName"]):
            yield f"{path}.{key} {one}"
    else:
        yield from _unlike(one, other, f"{path}.{key}")


def _unlike_list(found: list[Any], recorded: list[Any], path: str) -> Iterator[str]:
    if path in (".resources", ".groups") and all(map(_is_named, [*found, *recorded])):
        one, other = ({each["name"]: each for each in listed} for listed in (found, recorded))
        yield from _unlike(one, other, path)
        return
    if len(found) != len(recorded):
        yield f"{path} has {len(found)} items, recorded {len(recorded)}"
    for at, (one, other) in enumerate(zip(found, recorded, strict=False)):
        yield from _unlike(one, other, f"{path}[{at}]")


def _is_named(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str)


def _entry(entry: dict[str, Any]) -> tuple[str, ...]:
    """What to sort entries of managedFields by: their order means nothing."""
    return entry["manager"], entry["operation"], entry.get("subresource", "")


def _plain(value: Any) -> Any:
    """A text without what is drawn at random or read from the clock."""
    if not isinstance(value, str):
        return value
    value = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID", value)
    value = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", value)
    return re.sub(r"frontend\.[bcdfghjklmnpqrstvwxz2456789]{5}\b", "frontend.SUFFIX", value)
