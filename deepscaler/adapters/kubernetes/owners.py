"""Which Deployment a pod belongs to: by owner references, pod -> ReplicaSet -> Deployment.

Names and labels alone don't tell. A Job's pod may carry a Deployment's labels, and the pods of a Deployment
with a long name carry only the beginning of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi, Object
from deepscaler.adapters.kubernetes.checked import AnyObject, Checker
from deepscaler.adapters.kubernetes.listed import remembered
from deepscaler.logs import OnChange

_LOG = logging.getLogger(__name__)


class PodOwners:
    """Remembers the Deployment of each ReplicaSet, so that these are listed only when a new one shows up.

    Args:
        api: carries the requests.
        path: of the namespace's ReplicaSets.
    """

    def __init__(self, api: KubeApi, path: str) -> None:
        self._api, self._path = api, path
        self._deployments: dict[str, str | None] = {}  # uid of a ReplicaSet -> its Deployment
        self._on_change = OnChange(_LOG)
        self._checker = Checker(self._on_change)

    def deployments(self, pods: Iterable[Object]) -> list[tuple[str, Object]]:
        """Deployment and pod, of those pods that belong to one, in their order.

        Where ReplicaSets can't be read, the name of a pod's ReplicaSet stands in: the Deployment controller
        calls it `<Deployment>-<pod-template-hash>`, and that hash is a label of the pod.
        """
        owned = [
            (owner, pod) for pod in pods if (owner := remembered(pod, "owner", _replica_set)) is not None
        ]
        guesses = dict(owner for owner, _ in owned)
        read = self._read() if guesses.keys() - self._deployments.keys() else self._deployments
        self._deployments = {uid: read.get(uid, guess) for uid, guess in guesses.items()}
        found = [(self._deployments[uid], pod) for (uid, _), pod in owned]
        return [(name, pod) for name, pod in found if name is not None]

    def _read(self) -> Mapping[str, str | None]:
        """The Deployment of every ReplicaSet of the namespace by its uid; what is known if that fails."""
        try:
            items = self._api.items(self._path)
        except ApiError as error:
            text = f"ReplicaSets can't be read, so their names tell which Deployment has which pods: {error}"
            self._on_change.trouble("ReplicaSets", text)
            return self._deployments
        self._on_change.well("ReplicaSets")
        found: dict[str, str | None] = {}
        consequence = "its name tells which Deployment has its pods"
        for item in self._checker.sound(AnyObject, "ReplicaSet", items, consequence):
            owner = _controller(item, "Deployment")
            found[str(item["metadata"].get("uid"))] = None if owner is None else str(owner.get("name"))
        return found


def _controller(item: Object, kind: str) -> Object | None:
    """The owner reference of the controller of an object, if that is of this kind."""
    for owner in item["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner.get("kind") == kind:
            return dict(owner)
    return None


def _replica_set(pod: Object) -> tuple[str, str | None] | None:
    """The uid of a pod's ReplicaSet, and the Deployment by its name; None where none controls the pod."""
    owner = _controller(pod, "ReplicaSet")
    return None if owner is None else (str(owner.get("uid")), _by_hash(owner, pod))


def _by_hash(replica_set: Object, pod: Object) -> str | None:
    """The Deployment by the name of its ReplicaSet and the hash that its pods carry as a label."""
    template = (pod["metadata"].get("labels") or {}).get("pod-template-hash")
    name = str(replica_set.get("name"))
    return name.removesuffix(f"-{template}") if template and name.endswith(f"-{template}") else None
