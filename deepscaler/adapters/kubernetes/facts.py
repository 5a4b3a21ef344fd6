"""What a pod or a Deployment says of itself, found out once while lists have it as it is."""

from __future__ import annotations

from functools import partial

from deepscaler.adapters.kubernetes.api import Object
from deepscaler.adapters.kubernetes.listed import remembered
from deepscaler.adapters.kubernetes.objects import (
    Amounts,
    actual_amounts,
    amounts,
    manager_of_replicas,
    name_of,
    own_container,
    ready_condition,
    seconds_since_epoch,
)
from deepscaler.adapters.kubernetes.replicas import DeploymentState
from deepscaler.cluster import Pod


def pod_of(service: str, container: str, item: Object) -> Pod:
    """A pod of a service, whose usage is left unknown.

    Args:
        service: that it belongs to.
        container: the service's own one.
        item: the pod.
    """
    return remembered(item, (Pod, service, container), partial(_pod, service, container))


def live_cpu_limit(container: str, item: Object) -> float | None:
    """The CPU limit that a container of a pod has now, in cores; None for none."""
    return remembered(item, ("live", container), partial(_live_cpu_limit, container))


def stated_amounts(container: str, deployment: Object) -> tuple[Amounts, Amounts]:
    """What a container of a Deployment's pod template states of CPU and of memory."""
    return remembered(deployment, ("stated", container), partial(_stated_amounts, container))


def state_of(deployment: Object) -> DeploymentState:
    """What of a Deployment its next write is based on."""
    return remembered(deployment, DeploymentState, DeploymentState.of)


def manager_of(deployment: Object) -> str:
    """The field manager that set its replicas last; "" if none did."""
    return remembered(deployment, "manager", manager_of_replicas)


def _pod(service: str, container: str, item: Object) -> Pod:
    status = item.get("status") or {}
    ready, since = ready_condition(status)
    return Pod(
        service=service,
        name=name_of(item),
        phase=str(status.get("phase", "Unknown")),
        deleting=bool(item["metadata"].get("deletionTimestamp")),
        start_time=seconds_since_epoch(status.get("startTime")),
        ready=ready,
        ready_since=since,
        usage_cores=None,
        usage_time=None,
        usage_window_seconds=0.0,
        cpu_request_cores=amounts(own_container(item["spec"], container), "cpu")["requests"],
    )


def _live_cpu_limit(container: str, item: Object) -> float | None:
    return actual_amounts(item, container, "cpu")["limits"]


def _stated_amounts(container: str, deployment: Object) -> tuple[Amounts, Amounts]:
    own = own_container(deployment["spec"]["template"]["spec"], container)
    return amounts(own, "cpu"), amounts(own, "memory")
