"""What runs in the emulated cluster: Pods, their ReplicaSet, and the statuses that follow from them."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.kubernetes_api import resources
from testbed.kubernetes_api.resources import Resource
from testbed.kubernetes_api.schema import time_text
from testbed.kubernetes_api.status import Object
from testbed.kubernetes_api.store import Key, Objects


@dataclass(frozen=True)
class PodState:
    """One pod as the serving side knows it. Times are seconds since the epoch.

    Attributes:
        name: of the pod.
        created: when.
        ready_since: when it became ready; None while it starts.
        deleting_since: when it began to drain; None unless it drains.
    """

    name: str
    created: float
    ready_since: float | None = None
    deleting_since: float | None = None


class Workloads(Objects):
    """Objects, and what the serving side says about those that run."""

    def prepare(self) -> None:
        """Begin with no pods."""
        self._pods: dict[Key, PodState] = {}
        self._synced: dict[Key, tuple[str, tuple[PodState, ...]]] = {}  # Deployment -> its version and pods

    def erased(self) -> None:
        """Let the next sync bring back what a client has deleted."""
        self._synced.clear()

    def replicas(self, namespace: str) -> dict[str, int]:
        """The wanted replicas of each Deployment."""
        return {key[1]: obj["spec"]["replicas"] for key, obj in self.snapshot("apps/deployments", namespace)}

    def set_status(self, api_version: str, kind: str, namespace: str, name: str, status: Object) -> None:
        """Set keys of the status of an object; None takes a key out. Nothing is written if nothing changes.

        Raises:
            KeyError: there is no such object.
        """
        resource = resources.of_kind(api_version, kind)
        with self.changed:
            old = None if resource is None else self.peek(resource.storage, namespace, name)
            if resource is None or old is None:
                raise KeyError(f"{kind} {namespace}/{name}")
            self._set_status(resource, old, {**(old.get("status") or {}), **status})

    def _set_status(self, resource: Resource, old: Object, status: Object) -> None:
        status = {key: value for key, value in status.items() if value is not None}
        if status != old.get("status"):
            self._commit(resource, "MODIFIED", {**old, "status": status}, old)

    def sync_pods(self, namespace: str, deployment: str, pods: Sequence[PodState]) -> None:
        """Bring the Pods of a Deployment, its ReplicaSet and their statuses to what runs.

        Nothing happens if the Deployment is unknown. A call costs next to nothing if nothing has changed, so
        call it as often as you like, for every Deployment.

        Differs: a Deployment keeps one ReplicaSet. A new template doesn't roll the pods.
        """
        with self.changed:
            owner = self.peek("apps/deployments", namespace, deployment)
            key = (namespace, deployment)
            if owner is None or self._synced.get(key) == (owner["metadata"]["resourceVersion"], tuple(pods)):
                return
            replica_set = self._replica_set(owner, pods)
            self._sync_objects(namespace, replica_set, pods)
            live = [pod for pod in pods if pod.deleting_since is None]
            ready = sum(pod.ready_since is not None for pod in live)
            counts = {"readyReplicas": ready or None, "availableReplicas": ready or None}
            of_replica_set = {
                "replicas": len(live),
                **counts,
                "observedGeneration": replica_set["metadata"]["generation"],
                "fullyLabeledReplicas": len(live) or None,
            }
            self._set_status(_REPLICA_SETS, replica_set, of_replica_set)
            of_deployment = {
                "observedGeneration": owner["metadata"]["generation"],
                "replicas": len(live) or None,
                **counts,
                "updatedReplicas": len(live) or None,
                "unavailableReplicas": len(live) - ready or None,
                "conditions": self._conditions(owner, len(live), ready),
            }
            self._set_status(_DEPLOYMENTS, owner, of_deployment)
            self._synced[key] = (self.read(_DEPLOYMENTS, *key)["metadata"]["resourceVersion"], tuple(pods))

    def _sync_objects(self, namespace: str, replica_set: Object, pods: Sequence[PodState]) -> None:
        """Delete the Pods that no longer run, then create and change the others."""
        kept, names = self._kept.setdefault("/pods", {}), {pod.name for pod in pods}
        gone = [
            (place, obj)
            for place, obj in kept.items()
            if place[0] == namespace
            and place[1] not in names
            and _owned_by(obj, replica_set["metadata"]["uid"])
        ]
        for place, obj in gone:
            self._pods.pop(place, None)
            self._commit(_PODS, "DELETED", obj, obj)
        for pod in pods:
            place = (namespace, pod.name)
            old = kept.get(place)
            if old is None or self._pods.get(place) != pod:
                new = _pod_object(old or self._new_pod(replica_set, pod), pod)
                self._commit(_PODS, "MODIFIED" if old else "ADDED", new, old)
                self._pods[place] = pod

    def _replica_set(self, owner: Object, pods: Sequence[PodState]) -> Object:
        """The ReplicaSet of a Deployment, created or brought to its replicas and template."""
        metadata, spec = owner["metadata"], owner["spec"]
        namespace = metadata["namespace"]
        old = next(
            (
                obj
                for _, obj in self.snapshot("apps/replicasets", namespace)
                if _owned_by(obj, metadata["uid"])
            ),
            None,
        )
        name = (
            old["metadata"]["name"]
            if old
            else pods[0].name.rpartition("-")[0]
            if pods
            else f"{metadata['name']}-7d9c5b8f6d"
        )
        digest = name.rpartition("-")[2]
        labels = {**(spec["template"]["metadata"].get("labels") or {}), "pod-template-hash": digest}
        selector = copy.deepcopy(spec["selector"])
        selector.setdefault("matchLabels", {})["pod-template-hash"] = digest
        template = {**spec["template"], "metadata": {**spec["template"]["metadata"], "labels": labels}}
        wanted = {"replicas": spec["replicas"], "selector": selector, "template": template}
        if old is not None:
            if old["spec"] == wanted:
                return old
            grown = {**old["metadata"], "generation": old["metadata"]["generation"] + 1}
            return self._commit(_REPLICA_SETS, "MODIFIED", {**old, "metadata": grown, "spec": wanted}, old)
        own = {"name": name, "labels": labels, "ownerReferences": [_reference(owner)]}
        body = {"kind": "ReplicaSet", "apiVersion": "apps/v1", "metadata": own, "spec": wanted}
        return self.insert(_REPLICA_SETS, namespace, body, None)

    def _new_pod(self, replica_set: Object, pod: PodState) -> Object:
        template, namespace = replica_set["spec"]["template"], replica_set["metadata"]["namespace"]
        given = {
            key: template["metadata"][key]
            for key in ("labels", "annotations")
            if template["metadata"].get(key)
        }
        metadata = {
            "name": pod.name,
            "generateName": replica_set["metadata"]["name"] + "-",
            "namespace": namespace,
        }
        metadata |= {
            "uid": str(uuid.uuid4()),
            "generation": 1,
            "creationTimestamp": time_text(pod.created),
            **given,
        }
        metadata["ownerReferences"] = [_reference(replica_set)]
        spec = {**template["spec"], "nodeName": "testbed"}
        return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": {}}

    def _conditions(self, owner: Object, live: int, ready: int) -> list[Object]:
        wanted = owner["spec"]["replicas"]
        known = {each["type"]: each for each in (owner.get("status") or {}).get("conditions") or ()}
        enough, done = ready >= wanted - wanted // 4, ready >= wanted and live == wanted
        found = []
        for kind, status, reason in (
            ("Available", enough, "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"),
            ("Progressing", True, "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"),
        ):
            before, now = known.get(kind, {}), time_text(self.clock())
            if before.get("status") == str(status) and before.get("reason") == reason:
                found.append(before)
                continue
            since = before["lastTransitionTime"] if before.get("status") == str(status) else now
            entry = {
                "type": kind,
                "status": str(status),
                "reason": reason,
                "lastUpdateTime": now,
                "lastTransitionTime": since,
            }
            found.append(entry)
        return found


# ----------------------------------------------------------------------------------------------------- pieces
def _served(api_version: str, kind: str) -> Resource:
    found = resources.of_kind(api_version, kind)
    assert found is not None
    return found


_PODS = _served("v1", "Pod")
_DEPLOYMENTS = _served("apps/v1", "Deployment")
_REPLICA_SETS = _served("apps/v1", "ReplicaSet")


def _owned_by(obj: Object, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or ())


def _reference(owner: Object) -> Object:
    same = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return {**same, "controller": True, "blockOwnerDeletion": True}


def _pod_object(base: Object, pod: PodState) -> Object:
    """The object of a pod, with the status of what runs."""
    ready = pod.ready_since is not None and pod.deleting_since is None
    since = time_text(
        pod.ready_since if ready and pod.ready_since is not None else pod.deleting_since or pod.created
    )
    created = time_text(pod.created)

    def condition(kind: str, status: bool, moment: str) -> Object:
        return {"type": kind, "status": str(status), "lastTransitionTime": moment}

    states = [
        {
            **{
                "name": each["name"],
                "image": each.get("image", ""),
                "imageID": "",
                "ready": ready,
                "started": ready,
                "restartCount": 0,
            },
            "state": {"running": {"startedAt": created}},
        }
        for each in base["spec"].get("containers") or ()
    ]
    status = {
        "phase": "Running",
        "conditions": [
            *(condition(kind, True, created) for kind in ("PodScheduled", "Initialized")),
            *(condition(kind, ready, since) for kind in ("ContainersReady", "Ready")),
        ],
        "startTime": created,
        "containerStatuses": states,
    }
    metadata = dict(base["metadata"])
    if pod.deleting_since is not None:
        metadata |= {"deletionTimestamp": time_text(pod.deleting_since), "deletionGracePeriodSeconds": 30}
    return {**base, "metadata": metadata, "status": status}
