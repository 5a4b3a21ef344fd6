"""Other autoscalers that act on the same Deployments."""

from __future__ import annotations

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi
from deepscaler.adapters.kubernetes.objects import name_of
from deepscaler.logs import OnChange


def rival_autoscalers(api: KubeApi, namespace: str, on_change: OnChange) -> dict[str, list[str]]:
    """Deployment -> HorizontalPodAutoscalers and KEDA's ScaledObjects that act on it, as `kind/name`.

    KEDA makes an HPA for each ScaledObject; both are named. Where ScaledObjects can't be read, the HPAs tell enough.

    Raises:
        ApiError: the HPAs can't be read.
    """
    path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
    found = [("HorizontalPodAutoscaler", item) for item in api.items(path)]
    try:
        items = api.items(f"/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects")
        found += [("ScaledObject", item) for item in items]
        on_change.well("KEDA")
    except ApiError as error:
        if error.status != 404:  # 404: KEDA isn't installed
            text = f"KEDA's ScaledObjects can't be read, so only the HPAs that it makes are seen: {error}"
            on_change.trouble("KEDA", text)
    rivals: dict[str, list[str]] = {}
    for kind, item in found:
        target = item["spec"]["scaleTargetRef"]
        if (target.get("kind") or "Deployment") == "Deployment":
            rivals.setdefault(str(target["name"]), []).append(f"{kind}/{name_of(item)}")
    return rivals
