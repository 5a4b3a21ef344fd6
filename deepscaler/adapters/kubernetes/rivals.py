"""Other autoscalers that act on the same Deployments."""

from __future__ import annotations

from dataclasses import dataclass, field

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi, Object
from deepscaler.adapters.kubernetes.checked import Autoscaler, Checker, HpaObject, called, stated_name
from deepscaler.adapters.kubernetes.objects import name_of
from deepscaler.logs import OnChange


@dataclass
class Rivals:
    """Other autoscalers, by the Deployment on which they act.

    Attributes:
        names: HorizontalPodAutoscalers and KEDA's ScaledObjects, as `kind/name`.
        hpas: those HorizontalPodAutoscalers that are sound, as the API gave them.
    """

    names: dict[str, list[str]] = field(default_factory=dict)
    hpas: dict[str, list[Object]] = field(default_factory=dict)

    def add(self, kind: str, item: Object) -> None:
        """Count a sound object, if it acts on a Deployment."""
        target = item["spec"]["scaleTargetRef"]
        if (target.get("kind") or "Deployment") != "Deployment":
            return
        self.names.setdefault(str(target["name"]), []).append(f"{kind}/{name_of(item)}")
        if kind == "HorizontalPodAutoscaler":
            self.hpas.setdefault(str(target["name"]), []).append(item)


def rival_autoscalers(api: KubeApi, namespace: str, on_change: OnChange, checker: Checker) -> Rivals:
    """The HorizontalPodAutoscalers and KEDA's ScaledObjects that act on Deployments.

    KEDA makes an HPA for each ScaledObject; both are named. Where ScaledObjects can't be read, the HPAs tell
    enough. Of one that isn't sound it can't be told what it acts on; it is taken as a rival of the Deployment
    that it is called like.

    Raises:
        ApiError: the HPAs can't be read.
    """
    path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
    found = {"HorizontalPodAutoscaler": api.items(path)}
    try:
        items = api.items(f"/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects")
        found["ScaledObject"] = items
        on_change.well("KEDA")
    except ApiError as error:
        if error.status != 404:  # 404: KEDA isn't installed
            text = f"KEDA's ScaledObjects can't be read, so only the HPAs that it makes are seen: {error}"
            on_change.trouble("KEDA", text)
    rivals = Rivals()
    for kind, items in found.items():
        model = Autoscaler if kind == "ScaledObject" else HpaObject
        sound = checker.sound(model, kind, items, "it is taken to act on what is called like it")
        for item in items:
            if any(item is other for other in sound):
                rivals.add(kind, item)
            else:
                rivals.names.setdefault(stated_name(item), []).append(f"{kind}/{called(item)}")
    return rivals
