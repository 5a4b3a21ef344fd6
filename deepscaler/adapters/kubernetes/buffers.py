"""CapacityBuffers: room on nodes for pods that may soon be needed, which the node autoscaler then brings.

A buffer stands only while room is needed. The annotation `deepscaler.io/spare` says until when it was asked
for and by whom, so that whoever comes after a crash can take it back; the Deployment owns it, and takes it
along.

Source: the API autoscaling.x-k8s.io of the Kubernetes cluster-autoscaler, which Karpenter implements as well.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi, Object
from deepscaler.adapters.kubernetes.checked import BufferObject, check, stated_name
from deepscaler.adapters.kubernetes.replicas import FIELD_MANAGER, Fence
from deepscaler.artefacts import one_line, parse_json, utc_seconds, utc_text
from deepscaler.logs import OnChange

_LOG = logging.getLogger(__name__)
GROUP, RESOURCE = "autoscaling.x-k8s.io", "capacitybuffers"
VERSIONS = ("v1", "v1beta1", "v1alpha1")
"""The newest that the cluster serves is used; what is written is the same in all of them."""
SPARE = "deepscaler.io/spare"
"""The annotation, a JSON object: `until`, `by`."""
OWN = ("deepscaler.io/own", "true")
"""The label of our own buffers; no others are ever changed."""
PAUSE_SECONDS = 600.0
"""So long nothing is asked again where there are no CapacityBuffers, or no right to them."""
_ABSENT, _FORBIDDEN = 404, 403
WITHOUT = (_ABSENT, _FORBIDDEN)
"""HTTP status where there are no CapacityBuffers, or no right to them."""
_LONGEST = 240


class Buffers:
    """Keeps one buffer per service, and never fails: what goes wrong is logged once.

    Args:
        api: carries the requests.
        namespace: of the Deployments.
        clock: seconds since the epoch.
        holder: who writes.

    Attributes:
        fence: asked before each write for how long writing is still allowed; None: there is no limit.
    """

    def __init__(self, api: KubeApi, namespace: str, clock: Callable[[], float], holder: str) -> None:
        self._api, self._namespace, self._clock, self._holder = api, namespace, clock, holder
        self._again = -float("inf")
        self._on_change = OnChange(_LOG)
        self.fence: Fence | None = None

    def keep(
        self, spare: Mapping[str, int], deployments: Mapping[str, tuple[str, str]], until: float
    ) -> None:
        """Make the buffers of these Deployments what they should be; those without room to ask for go.

        Args:
            spare: service -> pods to have room for; services that aren't named get none.
            deployments: service -> name and uid of its Deployment.
            until: what the buffers say of their end.
        """
        now = self._clock()
        if 0 < self._again - now <= PAUSE_SECONDS:
            return
        try:
            version, found = listed(self._api, self._namespace)
            for service, deployment in deployments.items():
                self._try(version, found, spare.get(service, 0), deployment, (now, until))
        except ApiError as error:
            self._again = now + PAUSE_SECONDS if error.status in WITHOUT else now
            remedy = {
                _ABSENT: "; install the CapacityBuffers of your cluster-autoscaler or Karpenter, or set "
                "scale.capacity_buffer.enabled to false",
                _FORBIDDEN: "; add deploy/components/capacity-buffer",
            }.get(error.status, "")
            self._on_change.trouble("buffers", f"no room can be asked for on nodes: {error}{remedy}")
        else:
            self._on_change.well("buffers", "room on nodes can be asked for again")

    def _try(
        self,
        version: str,
        found: Mapping[str, Object],
        count: int,
        deployment: tuple[str, str],
        times: tuple[float, float],
    ) -> None:
        """Settle one buffer; where it alone can't be, the others go on."""
        name = buffer_of(deployment[0])
        try:
            item = check(BufferObject, found[name], "CapacityBuffer") if name in found else None
            if item is not None and not owned(item):
                raise ApiError("it isn't DeepScaler's own and is left alone; rename or delete it")
            self._settle(version, item, count, deployment, times)
        except ApiError as error:
            if error.status in WITHOUT:
                raise
            self._on_change.trouble(name, f"CapacityBuffer {name}: {error}")
        else:
            self._tell(name, item)

    def _settle(
        self,
        version: str,
        item: Object | None,
        count: int,
        deployment: tuple[str, str],
        times: tuple[float, float],
    ) -> None:
        """Create, change or delete one buffer, or leave it as it is."""
        name, where = buffer_of(deployment[0]), path_of(version, self._namespace)
        now, until = times
        if item is None:
            if count:
                self._send("POST", where, self._body(version, deployment, count, until))
                _LOG.info("%s: room for %d pods asked for on nodes", deployment[0], count)
        elif not count:
            self._send("DELETE", f"{where}/{name}", None)
            _LOG.info("%s: room on nodes is needed no more", deployment[0])
        elif item["spec"].get("replicas") != count or expiry(item) - now < (until - now) / 2:
            change = {"metadata": {"annotations": self._note(until)}, "spec": {"replicas": count}}
            self._send("PATCH", f"{where}/{name}", change)
            if item["spec"].get("replicas") != count:
                _LOG.info("%s: room for %d pods asked for on nodes", deployment[0], count)

    def _send(self, method: str, path: str, body: Any) -> None:
        left = None if self.fence is None else self.fence()
        if left is not None and left <= 0:
            raise ApiError("not written: this controller no longer leads")
        query = None if method == "DELETE" else {"fieldManager": FIELD_MANAGER}
        try:
            self._api.send(method, path, body, query=query, time_out=left)
        except ApiError as error:
            if method != "DELETE" or error.status != _ABSENT:  # somebody was quicker
                raise

    def _note(self, until: float) -> dict[str, str]:
        return {SPARE: json.dumps({"until": utc_text(until), "by": self._holder})}

    def _body(self, version: str, deployment: tuple[str, str], count: int, until: float) -> dict[str, Any]:
        name, uid = deployment
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": uid}
        return {
            "apiVersion": f"{GROUP}/{version}",
            "kind": "CapacityBuffer",
            "metadata": {
                "name": buffer_of(name),
                "namespace": self._namespace,
                "labels": dict([OWN]),
                "annotations": self._note(until),
                "ownerReferences": [owner],
            },
            "spec": {
                "scalableRef": {"apiGroup": "apps", "kind": "Deployment", "name": name},
                "replicas": count,
            },
        }

    def _tell(self, name: str, item: Object | None) -> None:
        """Log what the node autoscaler says of a buffer that it can't provide."""
        said = hindrance(item or {})
        if said:
            self._on_change.trouble(name, f"CapacityBuffer {name}: {said}")
        else:
            self._on_change.well(name, f"CapacityBuffer {name}: nothing hinders it any more")


def buffer_of(deployment: str) -> str:
    """The name of a Deployment's buffer."""
    return f"{deployment[:_LONGEST].rstrip('-.')}-deepscaler"


def path_of(version: str, namespace: str) -> str:
    """Where the buffers of a namespace are."""
    return f"/apis/{GROUP}/{version}/namespaces/{namespace}/{RESOURCE}"


def listed(api: KubeApi, namespace: str) -> tuple[str, dict[str, Object]]:
    """The newest version that is served, and the buffers by name.

    Raises:
        ApiError: no version is served (404), the right is missing (403), or no answer.
    """
    for version in VERSIONS:
        try:
            items = api.items(path_of(version, namespace))
        except ApiError as error:
            if error.status != _ABSENT or version == VERSIONS[-1]:
                raise
        else:
            return version, {stated_name(item): item for item in items}
    raise AssertionError("unreachable")


def owned(item: Object) -> bool:
    """Whether a buffer is one of ours."""
    return (item["metadata"].get("labels") or {}).get(OWN[0]) == OWN[1]


def expiry(item: Object) -> float:
    """When a buffer of ours is over, seconds since the epoch; minus infinity if it doesn't say so."""
    text = (item["metadata"].get("annotations") or {}).get(SPARE, "")
    try:
        return utc_seconds(str(parse_json(text)["until"]))
    except (ValueError, KeyError, TypeError):
        return -float("inf")


def hindrance(item: Object) -> str:
    """Why the node autoscaler doesn't provide a buffer, in its own words; "" where it does."""
    bad = {"ReadyForProvisioning": "False", "LimitedByQuotas": "True"}
    found = (item.get("status") or {}).get("conditions") or ()
    said = [
        f"{each.get('type')} {each['status']} ({each.get('reason')}): {one_line(each.get('message'), 200)}"
        for each in found
        if each.get("status") == bad.get(str(each.get("type")), "")
    ]
    return "; ".join(said)
