"""The objects of the emulated cluster, their versions and their history; no HTTP.

An object that is kept is never changed in place, so it can be handed out without copying.
"""

from __future__ import annotations

import bisect
import copy
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from testbed.kubernetes_api import ownership, resources
from testbed.kubernetes_api.access import Access, Identity
from testbed.kubernetes_api.defaults import faults, fill_in
from testbed.kubernetes_api.ownership import Path, Writer
from testbed.kubernetes_api.resources import Catalogue, Resource
from testbed.kubernetes_api.schema import time_text
from testbed.kubernetes_api.status import Cause, Object, Refused, already_exists, conflict, invalid, not_found
from testbed.kubernetes_api.validation import require_size

OnScale = Callable[[str, str, int], None]
Key = tuple[str, str]
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_REPLICAS = ("f:spec", "f:replicas")
_FOREGROUND = "foregroundDeletion"
_NAME_REQUIRED = Cause(
    "FieldValueRequired", "Required value: name or generateName is required", "metadata.name"
)
_SERVER_SIDE = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_CLIENT_SIDE = ("labels", "annotations", "ownerReferences", "finalizers")


@dataclass(frozen=True)
class Change:
    """One entry of the history: what an object became at a version, and what it was before."""

    version: int
    storage: str
    key: Key
    type: str
    object: Object
    previous: Object | None


class Objects:
    """Objects, versions, history. Every method may be called from any thread.

    Args:
        clock: gives the time of what is created, in seconds since the epoch.
        tokens: the identity behind each bearer token; None lets everyone do everything.
        on_scale: called with namespace, name and replicas whenever the wanted replicas of a Deployment have
            changed. A new Deployment counts as changed, and a deleted one wants 0. Calls come in the order of
            the changes, while no lock of the store is held.
        controllers: whether to delete what a deleted object owned, as a cluster's controllers do. False: an
            API server alone.
        version: where resourceVersion starts.
        history: how many changes a watch can be behind.
        custom: custom resources that are served, such as `resources.CAPACITY_BUFFERS`.

    Attributes:
        served: the resources that are served.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        tokens: Mapping[str, Identity] | None = None,
        on_scale: OnScale | None = None,
        controllers: bool = True,
        version: int = 0,
        history: int = 10_000,
        custom: Sequence[Resource] = (),
    ) -> None:
        self.clock, self.served = clock, Catalogue(custom)
        self.on_scale = on_scale
        self.access = Access(
            tokens, lambda plural: list(self._kept.get(f"rbac.authorization.k8s.io/{plural}", {}).values())
        )
        self.changed = threading.Condition(threading.RLock())
        self.closed = False
        self._controllers = controllers
        self._version = version
        self._compacted = 0
        self._history = history
        self._kept: dict[str, dict[Key, Object]] = {}
        self._log: list[Change] = []
        self._pending: list[Key] = []
        self._told: dict[Key, int] = {}
        self._telling = threading.RLock()  # whoever is told may bring pods, which may tell more
        self._addresses = 0
        self._node_ports = 30000
        self.prepare()
        for name in ("default", "kube-system") if controllers else ():
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def prepare(self) -> None:
        """Prepare a subclass: called before the first object is kept."""

    # ------------------------------------------------------------------------------------------------ reading
    @property
    def version(self) -> int:
        """The version that the newest change made."""
        return self._version

    def peek(self, storage: str, namespace: str, name: str) -> Object | None:
        """An object; None if there is none of this name."""
        with self.changed:
            return self._kept.get(storage, {}).get((namespace, name))

    def read(self, resource: Resource, namespace: str, name: str) -> Object:
        """An object.

        Raises:
            Refused: 404 if there is none of this name.
        """
        found = self.peek(resource.storage, namespace, name)
        if found is None:
            raise not_found(resource.plural, resource.group, name)
        return found

    def snapshot(self, storage: str, namespace: str, version: int | None = None) -> list[tuple[Key, Object]]:
        """The objects of a namespace ("" for all) by name, as they are now or as they were at a version.

        Raises:
            Refused: 410 if the version is older than the history.
        """
        with self.changed:
            kept = dict(self._kept.get(storage, {}))
            if version is not None and version < self._version:
                self._take_back(kept, storage, version)
        return sorted((key, obj) for key, obj in kept.items() if not namespace or key[0] == namespace)

    def _take_back(self, kept: dict[Key, Object], storage: str, version: int) -> None:
        """Bring `kept` back to what it was at a version."""
        if version < self._compacted:
            raise Refused(410, "Expired", "The resourceVersion for the provided list is too old.")
        for change in reversed(self.changes(storage, version)):
            if change.previous is None:
                kept.pop(change.key, None)
            else:
                kept[change.key] = change.previous

    def expired(self, version: int) -> bool:
        """Whether the history no longer reaches back to a version."""
        return version < self._compacted

    @property
    def compacted(self) -> int:
        """The oldest version that the history reaches back to."""
        return self._compacted

    def changes(self, storage: str, after: int) -> list[Change]:
        """The changes since a version."""
        with self.changed:
            return [change for change in self._log[self._place(after) :] if change.storage == storage]

    def _place(self, version: int) -> int:
        return bisect.bisect_right(self._log, version, key=lambda change: change.version)

    def compact(self, version: int | None = None) -> None:
        """Forget the history up to a version, or all of it."""
        with self.changed:
            self._compacted = self._version if version is None else version
            self._log = self._log[self._place(self._compacted) :]

    # ------------------------------------------------------------------------------------------------ writing
    def _commit(self, resource: Resource, kind: str, obj: Object, previous: Object | None) -> Object:
        """Keep an object under the next version, or forget it if `kind` is DELETED."""
        self._version += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
        metadata, storage = obj["metadata"], resource.storage
        key = (metadata.get("namespace", ""), metadata["name"])
        kept = self._kept.setdefault(storage, {})
        if kind == "DELETED":
            kept.pop(key, None)
        else:
            kept[key] = obj
        self._log.append(Change(self._version, storage, key, kind, obj, previous))
        if len(self._log) > 2 * self._history:
            self._compacted = self._log[-self._history - 1].version
            self._log = self._log[-self._history :]
        if storage == "apps/deployments":
            self._pending.append(key)
        self.changed.notify_all()
        self.committed(resource, key[0])
        return self._kept[storage].get(key, obj)

    def admit(self, resource: Resource, obj: Object) -> None:
        """Let a subclass complete an object that is about to be created, or refuse it.

        Raises:
            Refused: it may not be created.
        """

    def committed(self, resource: Resource, namespace: str) -> None:
        """Tell a subclass that something has changed."""

    def wanted(self, key: Key, obj: Object) -> int:
        """The replicas of a Deployment that `on_scale` is told."""
        replicas: int = obj["spec"]["replicas"]
        return replicas

    def tell(self) -> None:
        """Tell `on_scale` what has changed. Call it without holding a lock that `on_scale` may wait for."""
        if self.on_scale is None:
            return
        with self._telling:
            while True:
                with self.changed:
                    if not self._pending:
                        return
                    key = self._pending.pop(0)
                    found = self._kept.get("apps/deployments", {}).get(key)
                    replicas = self.wanted(key, found) if found else 0
                    if self._told.get(key) == replicas and found:
                        continue
                    if found:
                        self._told[key] = replicas
                    elif self._told.pop(key, None) is None:
                        continue
                self.on_scale(*key, replicas)

    def insert(
        self,
        resource: Resource,
        namespace: str,
        body: Object,
        writer: Writer | None,
        dry_run: bool = False,
        owned: set[Path] | None = None,
    ) -> Object:
        """Create an object from what a client sent, already decoded.

        Raises:
            Refused: 404 if the namespace doesn't exist; 403 if a quota or a LimitRange doesn't admit it;
                409 if the name is taken; 422 if it isn't valid; 500 if it is too large or has a version.
        """
        if (body.get("metadata") or {}).get("resourceVersion") not in (None, "", "0"):
            raise Refused(500, None, "resourceVersion should not be set on objects to be created")
        obj = self._completed(resource, namespace, body)
        name = obj["metadata"]["name"]
        with self.changed:
            if resource.namespaced and (("", namespace) not in self._kept.get("/namespaces", {})):
                raise not_found("namespaces", "", namespace)
            fill_in(obj, resource)
            found = faults(obj, None, resource)
            if found:
                raise invalid(
                    resource.kind, "" if resource.plural == "events" else resource.group, name, found
                )
            if (namespace, name) in self._kept.get(resource.storage, {}):
                raise already_exists(resource.plural, resource.group, name)
            require_size(obj)
            self.admit(resource, obj)
            if resource.kind == "Service":
                self._address(obj)
            if writer is not None:
                ownership.track(None, obj, resource.kind, writer, time_text(self.clock()), owned)
            return obj if dry_run else self._commit(resource, "ADDED", obj, None)

    def _completed(self, resource: Resource, namespace: str, body: Object) -> Object:
        given = dict(body.get("metadata") or {})
        for name in (
            "resourceVersion",
            "managedFields",
            "selfLink",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "uid",
        ):
            given.pop(name, None)
        name = given.get("name") or ""
        if not name and given.get("generateName"):
            name = given["generateName"] + "".join(random.choices(_SUFFIX_LETTERS, k=5))
        if not name:
            raise invalid(resource.kind, resource.group, "", [_NAME_REQUIRED])
        metadata: Object = {"name": name}
        metadata |= {"generateName": given["generateName"]} if given.get("generateName") else {}
        metadata |= {"namespace": namespace} if resource.namespaced else {}
        metadata["uid"] = str(uuid.uuid4())
        if resource.generation:
            metadata["generation"] = 1
        metadata["creationTimestamp"] = time_text(self.clock())
        metadata |= {
            key: value for key, value in given.items() if key not in metadata and value not in ({}, [])
        }
        kept = _content(body)
        if resource.status:
            kept.pop("status", None)
        return {
            "kind": resource.kind,
            "apiVersion": _stored_version(resource),
            "metadata": metadata,
            **copy.deepcopy(kept),
        }

    def _address(self, obj: Object) -> None:
        """Give a Service its cluster address and its node ports."""
        spec = obj["spec"]
        if spec["type"] == "ExternalName":
            return
        if not spec.get("clusterIP"):
            self._addresses += 1
            spec["clusterIP"] = f"10.96.{self._addresses // 250}.{self._addresses % 250 + 1}"
        spec["clusterIPs"] = [spec["clusterIP"]]
        if spec["type"] in ("NodePort", "LoadBalancer"):
            for port in spec.get("ports") or ():
                if not port.get("nodePort"):
                    self._node_ports += 1
                    port["nodePort"] = self._node_ports

    def modify(
        self,
        resource: Resource,
        old: Object,
        body: Object,
        writer: Writer | None,
        subresource: str = "",
        dry_run: bool = False,
        owned: set[Path] | None = None,
    ) -> Object:
        """Put `body` in the place of `old`, except for what clients can't set; write only changes.

        Args:
            resource: what kind of object it is.
            old: the object before.
            body: what the client sent, already decoded.
            writer: who writes; None leaves managedFields as they are.
            subresource: "status" if only the status is taken; else the status stays.
            dry_run: only say what would be written.
            owned: see `ownership.track`.

        Raises:
            Refused: 409 if `body` names another version or uid than `old` has; 422 if it isn't valid.
        """
        _same_object(resource, old, body)
        new = _replaced(resource, old, body, subresource)
        if resource.kind == "Service":
            _keep_addresses(new, old)
        fill_in(new, resource)
        found = faults(new, old, resource)
        if found:
            raise invalid(resource.kind, resource.group, old["metadata"]["name"], found)
        require_size(new)
        if resource.kind == "Service":
            self._address(new)
        if resource.generation and _is_new_generation(resource, new, old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if writer is not None:
            # a Scale's replicas are tracked only once somebody owns them, and 0 is the same as giving them up
            lost = not new.get("spec", {}).get("replicas") or not ownership.is_owned(old, _REPLICAS)
            by = None if writer.subresource == "scale" and owned is None and lost else writer
            ownership.track(old, new, resource.kind, by, time_text(self.clock()), owned)
        return self._put(resource, new, old, dry_run)

    def _put(self, resource: Resource, new: Object, old: Object, dry_run: bool) -> Object:
        """Keep what was modified; a deleted object goes with the last finalizer that it waited for."""
        with self.changed:
            if _alike(new, old):
                return old
            if dry_run:
                return new
            if "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers"):
                return self._erase(resource, new)
            return self._commit(resource, "MODIFIED", new, old)

    def erase(
        self,
        resource: Resource,
        old: Object,
        policy: str = "Background",
        dry_run: bool = False,
        grace: float | None = None,
    ) -> Object | None:
        """Delete an object and what it owns; the object as it is now if something keeps it, else None.

        Args:
            resource: what kind of object it is.
            old: the object.
            policy: what becomes of what it owns.
            dry_run: change nothing.
            grace: seconds that a pod has to end; None: as its spec says.
        """
        with self.changed:
            kept = None if dry_run else self.let_end(resource, old, grace)
            if kept is not None:
                return kept
            finalizers = list(old["metadata"].get("finalizers") or ())
            if policy == "Foreground" and _FOREGROUND not in finalizers:
                finalizers.append(_FOREGROUND)
            if dry_run:
                return None
            if finalizers:
                metadata: Object = {
                    "deletionTimestamp": time_text(self.clock()),
                    "deletionGracePeriodSeconds": 0,
                    "finalizers": finalizers,
                }
                if resource.generation:
                    metadata["generation"] = old["metadata"]["generation"] + 1
                marked = self._commit(
                    resource, "MODIFIED", {**old, "metadata": {**old["metadata"], **metadata}}, old
                )
                if self._controllers and finalizers == [_FOREGROUND]:
                    self._erase(resource, marked)
                return marked
            if resource.kind == "Namespace":
                self._empty(old["metadata"]["name"])
            self._erase(resource, old, orphan=policy == "Orphan")
            return None

    def _erase(self, resource: Resource, old: Object, orphan: bool = False) -> Object:
        gone = self._commit(resource, "DELETED", old, old)
        self.erased()
        if self._controllers and not orphan:
            self._collect(old["metadata"]["uid"])
        return gone

    def let_end(self, resource: Resource, old: Object, grace: float | None) -> Object | None:
        """Let a subclass keep an object that takes time to end: what it is until then; None: it goes now."""
        del resource, old, grace
        return None

    def erased(self) -> None:
        """Tell a subclass that an object has been deleted."""

    def _collect(self, uid: str) -> None:
        """Delete what the owner with this uid has left behind."""
        for resource in self.served.resources:
            if resource.served is None:
                for obj in list(self._kept.get(resource.storage, {}).values()):
                    if any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or ()):
                        self._erase(resource, obj)

    def _empty(self, namespace: str) -> None:
        for resource in self.served.resources:
            if resource.namespaced and resource.served is None:
                for (where, _), obj in list(self._kept.get(resource.storage, {}).items()):
                    if where == namespace:
                        self._commit(resource, "DELETED", obj, obj)

    # ------------------------------------------------------------------------------ for the process around it
    def create(self, manifest: Object) -> Object:
        """Create an object from a manifest, without going through HTTP.

        Raises:
            Refused: the API would refuse it too.
            KeyError: the kind isn't served.
        """
        resource = self.served.of_kind(manifest["apiVersion"], manifest["kind"])
        if resource is None:
            raise KeyError(f"{manifest['apiVersion']} {manifest['kind']} isn't served")
        body = resource.stored(manifest) if resource.stored else manifest
        namespace = manifest["metadata"].get("namespace", "default") if resource.namespaced else ""
        created = self.insert(resource, namespace, body, Writer("testbed", "Update", manifest["apiVersion"]))
        self.tell()
        return created

    def close(self) -> None:
        """End every watch."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()


# ----------------------------------------------------------------------------------------------------- pieces
def _stored_version(resource: Resource) -> str:
    if resource.stored is None:
        return resource.api_version
    return next(
        each.api_version
        for each in resources.RESOURCES
        if each.storage == resource.storage and each.stored is None
    )


def _same_object(resource: Resource, old: Object, body: Object) -> None:
    """Return if `body` may take the place of `old`.

    Raises:
        Refused: 409 if it was made of another version, or of another object of the same name.
    """
    was, given = old["metadata"], body.get("metadata") or {}
    if given.get("resourceVersion") not in (None, "", was["resourceVersion"]):
        raise conflict(resource.plural, resource.group, was["name"])
    if given.get("uid") not in (None, "", was["uid"]):
        raise conflict(resource.plural, resource.group, was["name"], _uid_text(given["uid"], was["uid"]))


def _replaced(resource: Resource, old: Object, body: Object, subresource: str) -> Object:
    """A copy of `body` with what clients can't set taken from `old`."""
    was, given = old["metadata"], body.get("metadata") or {}
    by_client = was if subresource == "status" else given
    metadata = {key: was[key] for key in ("name", "generateName", *_SERVER_SIDE[1:]) if key in was}
    metadata["resourceVersion"] = was["resourceVersion"]
    metadata |= {key: by_client[key] for key in _CLIENT_SIDE if by_client.get(key)}
    if "managedFields" in was:
        metadata["managedFields"] = was["managedFields"]
    if subresource == "status":
        kept = {**_content(old), "status": body.get("status") or {}}
    else:
        kept = _content(body)
        if resource.status and "status" in old:
            kept["status"] = old["status"]
    return copy.deepcopy({"kind": old["kind"], "apiVersion": old["apiVersion"], "metadata": metadata, **kept})


def _content(obj: Object) -> Object:
    """All of an object but what says which one it is."""
    return {key: value for key, value in obj.items() if key not in ("metadata", "kind", "apiVersion")}


def _is_new_generation(resource: Resource, new: Object, old: Object) -> bool:
    """Whether the wish has changed: the spec, or for a Deployment also an annotation."""
    notes = [obj["metadata"].get("annotations") for obj in (new, old)]
    return new.get("spec") != old.get("spec") or (resource.kind == "Deployment" and notes[0] != notes[1])


def _uid_text(given: str, known: str) -> str:
    return (
        f"the UID in the precondition ({given}) does not match the UID in record ({known}). "
        "The object might have been deleted and then recreated"
    )


def _keep_addresses(new: Object, old: Object) -> None:
    """A Service that is replaced without its addresses keeps them."""
    if old["spec"].get("clusterIP") and new["spec"].get("type", "ClusterIP") != "ExternalName":
        for key in ("clusterIP", "clusterIPs"):
            new["spec"].setdefault(key, old["spec"].get(key))
    ports = {
        (port.get("port"), port.get("protocol", "TCP")): port.get("nodePort")
        for port in old["spec"].get("ports") or ()
    }
    if new["spec"].get("type") in ("NodePort", "LoadBalancer"):
        for port in new["spec"].get("ports") or ():
            known = ports.get((port.get("port"), port.get("protocol", "TCP")))
            if known:
                port.setdefault("nodePort", known)


def _alike(new: Object, old: Object) -> bool:
    """Whether nothing but the times of managedFields differs."""

    def timeless(obj: Object) -> Object:
        entries = [{**entry, "time": None} for entry in obj["metadata"].get("managedFields") or ()]
        return {**obj, "metadata": {**obj["metadata"], "managedFields": entries}}

    return timeless(new) == timeless(old)
