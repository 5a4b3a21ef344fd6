"""A small API server for tests, which keeps objects by path and notes every request.

It knows resourceVersions, the scale subresource and rights. It refuses as a real v1.36 does, in fewer words.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

READERS = {"GET"}
DEPLOYMENTS = "/apis/apps/v1/namespaces/shop/deployments"
PODS = "/api/v1/namespaces/shop/pods"
HPAS = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"
SCALED = "/apis/keda.sh/v1alpha1/namespaces/shop/scaledobjects"
QUOTAS = "/api/v1/namespaces/shop/resourcequotas"
REPLICA_SETS = "/apis/apps/v1/namespaces/shop/replicasets"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/shop/leases"
USAGE = "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods"
KNOWN = (
    DEPLOYMENTS,
    PODS,
    HPAS,
    QUOTAS,
    LEASES,
    "/apis/apps/v1/namespaces/shop/statefulsets",
    "/apis/apps/v1/namespaces/shop/daemonsets",
)
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class KubeStub:
    """Serves on a free port of 127.0.0.1 within a `with` block.

    Attributes:
        objects: path -> object.
        seen: (method, path, body) of every request.
        denied: (verb, resource) pairs that RBAC refuses: ("list", "pods"), ("patch", "deployments/scale").
        token: the one that is accepted; None: any.
        before: called with (method, path) before a request is answered.
        page: objects per page of a list.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.collections = set(KNOWN)
        self.seen: list[tuple[str, str, Any]] = []
        self.denied: set[tuple[str, str]] = set()
        self.token: str | None = None
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        self.page = 500
        self._version = 100
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                status, found = stub.reply(self.command, self.path, body, self.headers)
                text = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> KubeStub:
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    # --------------------------------------------------------------------------------------- what a test does
    def put(self, collection: str, item: dict[str, Any]) -> dict[str, Any]:
        """Create or replace an object, as somebody else would."""
        name = item["metadata"]["name"]
        self.collections.add(collection)
        return self._store(f"{collection}/{name}", copy.deepcopy(item))

    def edit(self, path: str, **changes: Any) -> None:
        """Change fields by their path (`spec__replicas=5`), as somebody else would."""
        item = copy.deepcopy(self.objects[path])
        for dotted, value in changes.items():
            *parents, last = dotted.split("__")
            place = item
            for part in parents:
                place = place.setdefault(part, {})
            place[last] = value
        self._store(path, item)

    def requests(self, *methods: str) -> list[str]:
        return [f"{method} {path}" for method, path, _ in self.seen if method in methods]

    @property
    def writes(self) -> list[str]:
        """Every request that isn't a GET."""
        return [f"{method} {path}" for method, path, _ in self.seen if method not in READERS]

    def replicas(self, name: str) -> int:
        return int(self.objects[f"{DEPLOYMENTS}/{name}"]["spec"]["replicas"])

    def kubeconfig(self, path: Any, token: str = "secret", contexts: tuple[str, ...] = ("here",)) -> str:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": contexts[0],
            "clusters": [
                {"name": "here", "cluster": {"server": self.url}},
                {"name": "dead", "cluster": {"server": "http://127.0.0.1:1"}},
            ],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [
                {
                    "name": name,
                    "context": {"cluster": "here" if name.startswith("here") else "dead", "user": "me"},
                }
                for name in contexts
            ],
        }
        path.write_text(yaml.safe_dump(document))
        return str(path)

    # ------------------------------------------------------------------------------------------------- inside
    def reply(self, method: str, target: str, body: Any, headers: Any) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer to one request."""
        url = urlsplit(target)
        path = url.path
        self.before(method, path)
        self.seen.append((method, path, body))
        if self.token is not None and headers.get("Authorization") != f"Bearer {self.token}":
            return refusal(401, "Unauthorized", "Unauthorized")
        if path == REVIEWS:
            return self._review(body)
        scale = path.endswith("/scale")
        path = path.removesuffix("/scale")
        collection = path if path in self.collections else path.rpartition("/")[0]
        if collection not in self.collections:
            return refusal(404, "NotFound", "the server could not find the requested resource")
        reading = "list" if path == collection else "get"
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, reading)
        resource = collection.rpartition("/")[2] + ("/scale" if scale else "")
        if (verb, resource) in self.denied:
            what = f'cannot {verb} resource "{resource}" in the namespace "shop"'
            return refusal(403, "Forbidden", f'{resource} is forbidden: User "me" {what}')
        if verb == "list":
            return 200, self._list(path, parse_qs(url.query))
        if verb == "create":
            return self._create(collection, resource, body)
        return self._one(verb, path, resource, body)

    def _review(self, body: Any) -> tuple[int, dict[str, Any]]:
        asked = body["spec"]["resourceAttributes"]
        sub = asked.get("subresource")
        resource = asked["resource"] + (f"/{sub}" if sub else "")
        return 201, {**body, "status": {"allowed": (asked["verb"], resource) not in self.denied}}

    def _create(self, collection: str, resource: str, body: Any) -> tuple[int, dict[str, Any]]:
        name = body["metadata"]["name"]
        if f"{collection}/{name}" in self.objects:
            return refusal(409, "AlreadyExists", f'{resource} "{name}" already exists')
        return 201, self._store(f"{collection}/{name}", body)

    def _one(self, verb: str, path: str, resource: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Read or change one object, or its scale."""
        scale, name, item = resource.endswith("/scale"), path.rpartition("/")[2], self.objects.get(path)
        if item is None:
            return refusal(404, "NotFound", f'{resource} "{name}" not found')
        if verb == "get":
            return 200, _scale(item) if scale else item
        given = ((body.get("metadata") or {}).get("resourceVersion")) if body else None
        if given not in (None, "", item["metadata"]["resourceVersion"]):
            said = f'Operation cannot be fulfilled on {resource} "{name}": the object has been modified'
            return refusal(409, "Conflict", said)
        if scale:
            item = self._store(path, {**item, "spec": {**item["spec"], "replicas": body["spec"]["replicas"]}})
            return 200, _scale(item)
        merged = {**item, **body, "metadata": {**item["metadata"], **body["metadata"]}}
        return 200, self._store(path, body if verb == "update" else merged)

    def _list(self, path: str, query: dict[str, list[str]]) -> dict[str, Any]:
        items = [item for key, item in sorted(self.objects.items()) if key.rpartition("/")[0] == path]
        first = int(query.get("continue", ["0"])[0])
        rest = first + self.page < len(items)
        return {
            "metadata": {"continue": str(first + self.page)} if rest else {},
            "items": items[first : first + self.page],
        }

    def _store(self, path: str, item: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        old = self.objects.get(path)
        generation = int(old["metadata"].get("generation", 1)) if old else 1
        if old and old.get("spec") != item.get("spec"):
            generation += 1
        meta = {**item["metadata"], "resourceVersion": str(self._version), "generation": generation}
        self.objects[path] = {**item, "metadata": meta}
        return self.objects[path]


def refusal(status: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    return status, {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": status,
    }


def _scale(item: dict[str, Any]) -> dict[str, Any]:
    meta = {key: item["metadata"][key] for key in ("name", "resourceVersion")}
    return {
        "kind": "Scale",
        "metadata": meta,
        "spec": {"replicas": item["spec"]["replicas"]},
        "status": {"replicas": 0},
    }


# ---------------------------------------------------------------------------------------------------- objects
def deployment(
    name: str, replicas: int = 2, cpu: str | None = "500m", request: str | None = "100m", **metadata: Any
) -> dict[str, Any]:
    """A Deployment with one container, both called `name`."""
    resources = {
        "limits": {"cpu": cpu, "memory": "128Mi"} if cpu else {},
        "requests": {"cpu": request} if request else {},
    }
    labels = {"app": name}
    return {
        "metadata": {"name": name, **metadata},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": name, "image": name, "resources": resources}]},
            },
        },
        "status": {"replicas": replicas, "readyReplicas": replicas},
    }


def pod(
    owner: str, index: int, created: str, ready: str | None, sidecar: str | None = None, **metadata: Any
) -> dict[str, Any]:
    """A pod of `deployment(owner)`; `ready` is when it became ready."""
    replica_set = {
        "kind": "ReplicaSet",
        "name": f"{owner}-5d9c5b8f6d",
        "uid": f"{owner}-5d9c5b8f6d",
        "controller": True,
    }
    containers = copy.deepcopy(deployment(owner)["spec"]["template"]["spec"]["containers"])
    if sidecar:
        containers.append(
            {"name": "istio-proxy", "resources": {"limits": {"cpu": sidecar}, "requests": {"cpu": sidecar}}}
        )
    condition = {
        "type": "Ready",
        "status": "True" if ready else "False",
        "lastTransitionTime": ready or created,
    }
    return {
        "metadata": {
            "name": f"{owner}-5d9c5b8f6d-{index:05d}",
            "uid": f"{owner}-{index}",
            "creationTimestamp": created,
            "labels": {"app": owner, "pod-template-hash": "5d9c5b8f6d"},
            "ownerReferences": [replica_set],
            **metadata,
        },
        "spec": {"containers": containers},
        "status": {
            "phase": "Running" if ready else "Pending",
            "startTime": created,
            "conditions": [condition],
            "containerStatuses": [{"restartCount": 0}],
        },
    }


def replica_set(name: str, owner: str, kind: str = "Deployment") -> dict[str, Any]:
    """A ReplicaSet of an object; its uid is its name."""
    reference = {"kind": kind, "name": owner, "uid": owner, "controller": True}
    return {"metadata": {"name": name, "uid": name, "ownerReferences": [reference]}}


def hpa(name: str, target: str, kind: str = "Deployment") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"scaleTargetRef": {"kind": kind, "name": target}, "maxReplicas": 9},
    }
