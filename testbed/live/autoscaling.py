"""The HorizontalPodAutoscalers of the emulated API, acting: the whole autoscaling/v2 controller beside it.

The rules are those of `deepscaler/policies/hpa`, which reproduce the recordings of a real v1.36. What an
autoscaler is told stands in its object: whoever patches `minReplicas` there changes what it does next.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from deepscaler.artefacts import utc_text
from deepscaler.cluster import Pod
from deepscaler.policies.hpa.api import parse_spec
from deepscaler.policies.hpa.limits import store_scale_event
from deepscaler.policies.hpa.policy import hpa_pod
from deepscaler.policies.hpa.recommendation import measure
from deepscaler.policies.hpa.reconcile import HpaDecision, reconcile
from deepscaler.policies.hpa.state import HpaState
from testbed.kubernetes_api import KubernetesStore

SYNC_SECONDS = 15.0
_API = "autoscaling/v2"
_STORAGE = "autoscaling/horizontalpodautoscalers"
_CONDITIONS = {
    "AbleToScale": "able_to_scale",
    "ScalingActive": "scaling_active",
    "ScalingLimited": "scaling_limited",
}
Pods = Callable[[str, str], Sequence[Pod]]
"""Namespace and Deployment -> its pods as the metrics server and the API know them now."""


class HpaController:
    """Syncs every autoscaler of a store; call `sync` each `SYNC_SECONDS`.

    Args:
        store: holds the autoscalers and the Deployments on which they act.
        pods: what they measure.
        clock: seconds since the epoch.
    """

    def __init__(self, store: KubernetesStore, pods: Pods, clock: Callable[[], float]) -> None:
        self._store, self._pods, self._clock = store, pods, clock
        self._states: dict[str, HpaState] = {}  # uid of the autoscaler -> what is remembered of it

    def sync(self) -> None:
        """Bring every Deployment on which an autoscaler acts to what it wants, and say so in its status."""
        found = {obj["metadata"]["uid"]: (key, obj) for key, obj in self._store.snapshot(_STORAGE, "")}
        self._states = {uid: state for uid, state in self._states.items() if uid in found}
        for uid, ((namespace, name), item) in found.items():
            self._sync(uid, namespace, name, item)

    def _sync(self, uid: str, namespace: str, name: str, item: dict[str, Any]) -> None:
        target = item["spec"]["scaleTargetRef"]["name"]
        deployment = self._store.peek("apps/deployments", namespace, target)
        if deployment is None:
            return
        told = {key: value for key, value in item["spec"].items() if key != "scaleTargetRef"}
        spec, current, now = parse_spec(told), int(deployment["spec"]["replicas"]), self._clock()
        state = self._states.get(uid, HpaState())
        measured = measure(spec, current, [hpa_pod(pod) for pod in self._pods(namespace, target)], now)
        decision = reconcile(spec, state, current, measured, now)
        state = decision.state
        if decision.target != current and self._scaled(namespace, target, decision.target):
            state = store_scale_event(state, spec, current, decision.target, now)
        self._states[uid] = state
        status = _status(item, decision, current, now)
        self._store.set_status(_API, "HorizontalPodAutoscaler", namespace, name, status)

    def _scaled(self, namespace: str, name: str, replicas: int) -> bool:
        """Whether the API took the replicas."""
        answer = self._store.handle(
            "PATCH",
            f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale",
            "fieldManager=kube-controller-manager",
            {"Content-Type": "application/merge-patch+json"},
            json.dumps({"spec": {"replicas": replicas}}).encode(),
        )
        return answer.status == 200


def _status(item: dict[str, Any], decision: HpaDecision, current: int, now: float) -> dict[str, Any]:
    """The status of an autoscaler after a sync; times move only where something has changed."""
    before = {each["type"]: each for each in (item.get("status") or {}).get("conditions") or ()}
    conditions = []
    for kind, name in _CONDITIONS.items():
        text = getattr(decision.state.status, name)
        if text is not None:
            status, _, reason = text.partition("/")
            old = before.get(kind, {})
            same = old.get("status") == status
            since = old["lastTransitionTime"] if same else utc_text(now)
            entry = {"type": kind, "status": status, "lastTransitionTime": since, "reason": reason}
            conditions.append({**entry, "message": decision.failed or reason})
    return {"currentReplicas": current, "desiredReplicas": decision.target, "conditions": conditions}
