"""The HorizontalPodAutoscalers of the emulated API, acting: the whole autoscaling/v2 controller beside it.

The rules are those of `deepscaler/policies/hpa`, which reproduce the recordings of a real v1.36. What an
autoscaler is told stands in its object: whoever patches `minReplicas` there changes what it does next.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from deepscaler.artefacts import utc_text
from deepscaler.cluster import Pod
from deepscaler.errors import SettingsError
from deepscaler.policies.hpa.api import parse_spec
from deepscaler.policies.hpa.limits import store_scale_event
from deepscaler.policies.hpa.policy import hpa_pod
from deepscaler.policies.hpa.recommendation import Measured, measure
from deepscaler.policies.hpa.reconcile import reconcile
from deepscaler.policies.hpa.spec import HpaSpec
from deepscaler.policies.hpa.state import HpaState
from testbed.kubernetes_api import KubernetesStore

SYNC_SECONDS = 15.0
_API = "autoscaling/v2"
_STORAGE = "autoscaling/horizontalpodautoscalers"
_DEPLOYMENTS = "apps/deployments"
_CONDITIONS = {
    "AbleToScale": "able_to_scale",
    "ScalingActive": "scaling_active",
    "ScalingLimited": "scaling_limited",
}
Pods = Callable[[str, str], Sequence[Pod]]
"""Namespace and Deployment -> its pods as the metrics server and the API know them now."""


class _Target(NamedTuple):
    """What an autoscaler scales: a Deployment, by its namespace and name."""

    namespace: str
    name: str


class _Outcome(NamedTuple):
    """What comes of one sync of an autoscaler.

    Attributes:
        state: what to remember.
        current: the replicas that were found; None if the target wasn't.
        failed: condition -> why it is false.
    """

    state: HpaState
    current: int | None
    failed: dict[str, str]


class HpaController:
    """Syncs every autoscaler of a store; call `sync` each `SYNC_SECONDS`.

    Args:
        store: holds the autoscalers and the Deployments on which they act.
        pods: what they measure.
        clock: seconds since the epoch.

    Differs: of what a cluster can scale only Deployments run here; whatever else is named isn't found.
    """

    def __init__(self, store: KubernetesStore, pods: Pods, clock: Callable[[], float]) -> None:
        self._store, self._pods, self._clock = store, pods, clock
        self._states: dict[str, HpaState] = {}  # uid of the autoscaler -> what is remembered of it
        self._selecting: dict[str, tuple[_Target, str]] = {}  # uid -> whose pods it has asked for, its name

    def sync(self) -> None:
        """Bring every Deployment on which an autoscaler acts to what it wants, and say so in its status.

        One that can't act says why in its status, and the others go on.
        """
        found = {obj["metadata"]["uid"]: (key, obj) for key, obj in self._store.snapshot(_STORAGE, "")}
        self._states = {uid: state for uid, state in self._states.items() if uid in found}
        self._selecting = {uid: selecting for uid, selecting in self._selecting.items() if uid in found}
        for uid, ((namespace, name), item) in found.items():
            outcome = self._sync(uid, namespace, item)
            self._states[uid] = outcome.state
            status = _status(item, outcome, self._clock())
            with suppress(KeyError):  # deleted meanwhile
                self._store.set_status(_API, "HorizontalPodAutoscaler", namespace, name, status)

    def _sync(self, uid: str, namespace: str, item: dict[str, Any]) -> _Outcome:
        state, reference = self._states.get(uid, HpaState()), item["spec"]["scaleTargetRef"]
        target = _Target(namespace, reference["name"])
        deployment = self._store.peek(_DEPLOYMENTS, *target) if _is_deployment(reference) else None
        if deployment is None:
            status = replace(state.status, able_to_scale="False/FailedGetScale")
            return _Outcome(replace(state, status=status), None, {"AbleToScale": _not_found(reference)})
        current, now = int(deployment["spec"]["replicas"]), self._clock()
        try:
            spec = parse_spec({key: value for key, value in item["spec"].items() if key != "scaleTargetRef"})
        except SettingsError as error:
            status = replace(state.status, scaling_active="False/InvalidMetricSourceType")
            return _Outcome(replace(state, status=status), current, {"ScalingActive": str(error)})
        measured = self._measured(uid, item, spec, target, current)
        decision = reconcile(spec, state, current, measured, now)
        state = decision.state
        if decision.target != current and self._scaled(target, decision.target):
            state = store_scale_event(state, spec, current, decision.target, now)
        failed = decision.failed if decision.recommendation is None else None
        return _Outcome(state, current, {"ScalingActive": failed} if failed else {})

    def _measured(
        self, uid: str, item: dict[str, Any], spec: HpaSpec, target: _Target, current: int
    ) -> Measured:
        """What the metrics ask for; nothing where several autoscalers ask about the same pods.

        An autoscaler's pods are known once it has looked at metrics itself, so the first of two acts once.

        Source: validateAndParseSelector.
        """
        if not (current and spec.min_replicas <= current <= spec.max_replicas):
            return Measured(None)  # the limits decide alone
        name = f"{target.namespace}/{item['metadata']['name']}"
        self._selecting[uid] = target, name
        rivals = sorted(rival for selected, rival in self._selecting.values() if selected == target)
        if len(rivals) > 1:
            why = f"pods of Deployment {target.name} are controlled by multiple HPAs: [{' '.join(rivals)}]"
            return Measured(None, failed=why, failed_reason="AmbiguousSelector")
        pods = [hpa_pod(pod) for pod in self._pods(*target)]
        return measure(spec, current, pods, self._clock())

    def _scaled(self, target: _Target, replicas: int) -> bool:
        """Whether the API took the replicas."""
        answer = self._store.handle(
            "PATCH",
            f"/apis/apps/v1/namespaces/{target.namespace}/deployments/{target.name}/scale",
            "fieldManager=kube-controller-manager",
            {"Content-Type": "application/merge-patch+json"},
            json.dumps({"spec": {"replicas": replicas}}).encode(),
        )
        return answer.status == 200


def _is_deployment(reference: dict[str, Any]) -> bool:
    """Whether it names a Deployment; of its apiVersion only the group counts."""
    group = str(reference.get("apiVersion", "")).partition("/")[0]
    return group == "apps" and bool(reference["kind"] == "Deployment")


def _not_found(reference: dict[str, Any]) -> str:
    named = f"{reference['kind']} {reference['name']} of {reference.get('apiVersion') or 'no apiVersion'}"
    return f"the HPA controller was unable to get the target's current scale: {named} not found"


def _status(item: dict[str, Any], outcome: _Outcome, now: float) -> dict[str, Any]:
    """The status of an autoscaler after a sync; times move only where something has changed."""
    before = {each["type"]: each for each in (item.get("status") or {}).get("conditions") or ()}
    status, conditions = outcome.state.status, []
    for kind, name in _CONDITIONS.items():
        text = getattr(status, name)
        if text is not None:
            value, _, reason = text.partition("/")
            old = before.get(kind, {})
            since = old["lastTransitionTime"] if old.get("status") == value else utc_text(now)
            entry = {"type": kind, "status": value, "lastTransitionTime": since, "reason": reason}
            known = old["message"] if old.get("reason") == reason else reason
            conditions.append({**entry, "message": outcome.failed.get(kind) or known})
    current = {} if outcome.current is None else {"currentReplicas": outcome.current}
    return {**current, "desiredReplicas": status.desired, "conditions": conditions}
