"""Other autoscalers that act on the same Deployments."""

from __future__ import annotations

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi
from deepscaler.adapters.kubernetes.checked import Autoscaler, Checker, called
from deepscaler.adapters.kubernetes.objects import name_of
from deepscaler.logs import OnChange


def rival_autoscalers(
    api: KubeApi, namespace: str, on_change: OnChange, checker: Checker
) -> dict[str, list[str]]:
    """Deployment -> HorizontalPodAutoscalers and KEDA's ScaledObjects that act on it, as `kind/name`.

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
    rivals: dict[str, list[str]] = {}
    for kind, items in found.items():
        sound = checker.sound(Autoscaler, kind, items, "it is taken to act on what is called like it")
        for item in sound:
            target = item["spec"]["scaleTargetRef"]
            if (target.get("kind") or "Deployment") == "Deployment":
                rivals.setdefault(str(target["name"]), []).append(f"{kind}/{name_of(item)}")
        for item in items:
            if not any(item is other for other in sound):
                rivals.setdefault(called(item), []).append(f"{kind}/{called(item)}")
    return rivals
