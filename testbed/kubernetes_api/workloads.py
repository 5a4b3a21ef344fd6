"""What runs in the emulated cluster: Pods, their ReplicaSet, and the statuses that follow from them."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from testbed.kubernetes_api import quotas, resources
from testbed.kubernetes_api.resources import Resource
from testbed.kubernetes_api.schema import time_text
from testbed.kubernetes_api.status import Object, Refused, invalid
from testbed.kubernetes_api.store import Key, Objects
from testbed.kubernetes_api.validation import object_faults


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
        self._running: dict[Key, int] = {}  # Deployment -> how many pods it has that aren't going
        self._recounting = False
        self._ending: dict[str, float] = {}  # uid of a pod that a client deleted -> when its time is over

    # ------------------------------------------------------------------------------------------------- quotas
    def _of(self, plural: str, namespace: str) -> list[Object]:
        """The objects of a core resource in a namespace."""
        return [obj for (where, _), obj in self._kept.get(f"/{plural}", {}).items() if where == namespace]

    def admit(self, resource: Resource, obj: Object) -> None:
        """Complete a pod by the LimitRanges; refuse what they or a quota don't let in."""
        namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
        if resource.kind == "Pod":
            obj["spec"] = quotas.with_limits(obj["spec"], self._of("limitranges", namespace))
            self._within_limits(obj, namespace, name)
            quotas.require(self._of("resourcequotas", namespace), obj, name)
            return
        for quota in self._of("resourcequotas", namespace):
            key = quotas.counted(resource, quota)
            if key:
                quotas.exceed(quota, {key: Decimal(1)}, {}, resource.plural, resource.group, name)

    def _within_limits(self, pod: Object, namespace: str, name: str) -> None:
        """Return if the LimitRanges let a pod in that they have completed.

        Raises:
            Refused: 403 if they don't; 422 if what they filled in makes no valid pod.
        """
        faults = object_faults({"kind": "Pod", "metadata": {}, "spec": pod["spec"]})
        if faults:
            raise invalid("Pod", "", name, faults)
        outside = quotas.outside(pod["spec"], self._of("limitranges", namespace))
        if outside:
            said = outside[0] if len(outside) == 1 else f"[{', '.join(outside)}]"
            raise quotas.forbidden("pods", "", name, said)

    def committed(self, resource: Resource, namespace: str) -> None:
        """Bring the status of the namespace's quotas to what is used."""
        if self._recounting or resource.plural not in self._counted(namespace):
            return
        self._recounting = True
        try:
            self._recount(namespace)
        finally:
            self._recounting = False

    def _counted(self, namespace: str) -> set[str]:
        """The resources whose changes may change what is used of the namespace's quotas."""
        limits = self._of("resourcequotas", namespace)
        counted = {
            each.plural for each in self.served.resources for one in limits if quotas.counted(each, one)
        }
        return counted | {"pods", "resourcequotas"} if limits else counted

    def _recount(self, namespace: str) -> None:
        for quota in self._of("resourcequotas", namespace):
            counts = {
                key: sum(place[0] == namespace for place in self._kept.get(each.storage, {}))
                for each in self.served.resources
                if each.served is None and (key := quotas.counted(each, quota))
            }
            self._set_status(_QUOTAS, quota, quotas.used(quota, self._of("pods", namespace), counts))

    def wanted(self, key: Key, obj: Object) -> int:
        """The replicas that may run: those that run already, and as many more as quotas and ranges admit."""
        replicas: int = obj["spec"]["replicas"]
        namespace = key[0]
        limits = self._of("resourcequotas", namespace)
        if not limits and not self._of("limitranges", namespace):
            return replicas
        running = max(self._told.get(key, 0), self._running.get(key, 0))
        reserved = [
            self._next(other)
            for place, other in self._kept.get("apps/deployments", {}).items()
            if place[0] == namespace
            for _ in range(self._told.get(place, 0) - self._running.get(place, 0))
        ]
        pod = self._next(obj)
        while running < replicas:
            try:
                self._within_limits(pod, namespace, key[1])
                quotas.require(limits, pod, key[1], reserved)
            except Refused:
                break
            running += 1
            reserved.append(pod)
        return min(running, replicas)

    def _next(self, deployment: Object) -> Object:
        """The pod that a Deployment creates next, as far as quotas go."""
        spec = deployment["spec"]["template"]["spec"]
        return {
            "spec": quotas.with_limits(spec, self._of("limitranges", deployment["metadata"]["namespace"]))
        }

    def let_end(self, resource: Resource, old: Object, grace: float | None) -> Object | None:
        """A pod that runs on a node is Terminating until its time is over; the next sync then removes it."""
        if resource.kind != "Pod" or not old["spec"].get("nodeName"):
            return None
        seconds = old["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
        if seconds <= 0:
            return None
        metadata = {
            **old["metadata"],
            "deletionTimestamp": time_text(self.clock() + seconds),
            "deletionGracePeriodSeconds": int(seconds),
        }
        self._ending[old["metadata"]["uid"]] = self.clock() + seconds
        self._synced.clear()
        return self._commit(resource, "MODIFIED", {**old, "metadata": metadata}, old)

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
        resource = self.served.of_kind(api_version, kind)
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
        call it as often as you like, for every Deployment. New pods that a quota or a LimitRange doesn't
        admit don't come up; they are tried again at the next call.

        Differs: a Deployment keeps one ReplicaSet. A new template doesn't roll the pods.
        """
        with self.changed:
            owner = self.peek("apps/deployments", namespace, deployment)
            key = (namespace, deployment)
            if owner is None or self._synced.get(key) == (owner["metadata"]["resourceVersion"], tuple(pods)):
                return
            replica_set = self._replica_set(owner, pods)
            admitted, failure, ending = self._sync_objects(namespace, replica_set, pods)
            live = [pod for pod in admitted if pod.deleting_since is None]
            self._running[key] = len(live)
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
                "conditions": self._conditions(owner, len(live), ready, failure),
            }
            self._set_status(_DEPLOYMENTS, owner, of_deployment)
            if not failure and not ending:
                version = self.read(_DEPLOYMENTS, *key)["metadata"]["resourceVersion"]
                self._synced[key] = (version, tuple(pods))
            if self._of("resourcequotas", namespace):  # what one gives back, another may wait for
                self._pending += [place for place in self._told if place[0] == namespace]
        self.tell()

    def _sync_objects(
        self, namespace: str, replica_set: Object, pods: Sequence[PodState]
    ) -> tuple[list[PodState], str, bool]:
        """Delete the Pods that no longer run, then create and change the others.

        Returns those that run now, why others weren't admitted ("": all were), and whether some are ending
        because a client deleted them.
        """
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
        admitted, failure, ending = list[PodState](), "", False
        for pod in pods:
            place = (namespace, pod.name)
            old = kept.get(place)
            if old is not None and (over := self._ending.get(old["metadata"]["uid"])) is not None:
                ending = True
                if self.clock() >= over:
                    del self._ending[old["metadata"]["uid"]]
                    self._pods.pop(place, None)
                    self._commit(_PODS, "DELETED", old, old)
                continue
            if old is None or self._pods.get(place) != pod:
                try:
                    new = _pod_object(old or self._new_pod(replica_set, pod), pod)
                except Refused as refused:
                    failure = str(refused)
                    continue
                self._commit(_PODS, "MODIFIED" if old else "ADDED", new, old)
                self._pods[place] = pod
            admitted.append(pod)
        return admitted, failure, ending

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
        new: Object = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": {}}
        self.admit(_PODS, new)
        return new

    def _conditions(self, owner: Object, live: int, ready: int, failure: str) -> list[Object]:
        wanted = owner["spec"]["replicas"]
        known = {each["type"]: each for each in (owner.get("status") or {}).get("conditions") or ()}
        enough, done = ready >= wanted - wanted // 4, ready >= wanted and live == wanted
        found = []
        for kind, status, reason in (
            ("Available", enough, "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"),
            ("Progressing", True, "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"),
            *([("ReplicaFailure", True, "FailedCreate")] if failure else []),
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
                **({"message": failure} if kind == "ReplicaFailure" else {}),
                "lastUpdateTime": now,
                "lastTransitionTime": since,
            }
            found.append(entry)
        return found


# ----------------------------------------------------------------------------------------------------- pieces
def _served(api_version: str, kind: str) -> Resource:
    found = resources.Catalogue().of_kind(api_version, kind)
    assert found is not None
    return found


_PODS = _served("v1", "Pod")
_DEPLOYMENTS = _served("apps/v1", "Deployment")
_REPLICA_SETS = _served("apps/v1", "ReplicaSet")
_QUOTAS = _served("v1", "ResourceQuota")


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
