"""What the controller's user or service account must be allowed to do, and what of it is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from deepscaler.adapters.kubernetes.api import KubeApi
from deepscaler.settings import Mode


@dataclass(frozen=True)
class Right:
    """One permission as RBAC states it."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""

    def within(self, namespace: str) -> Right:
        """The same in a namespace."""
        return replace(self, namespace=namespace)

    def __str__(self) -> str:
        """`patch deployments.apps/scale in namespace shop`."""
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        part = f"/{self.subresource}" if self.subresource else ""
        return f"{self.verb} {kind}{part} in namespace {self.namespace}"


READS = (
    ("list", "apps", "deployments", ""),
    ("list", "", "pods", ""),
    ("list", "autoscaling", "horizontalpodautoscalers", ""),
)
WRITES = (("get", "apps", "deployments", ""), ("patch", "apps", "deployments", "scale"))
ADVISING_WRITES = (
    ("get", "autoscaling", "horizontalpodautoscalers", ""),
    ("patch", "autoscaling", "horizontalpodautoscalers", ""),
)
EVENTS = (("create", "events.k8s.io", "events", ""), ("patch", "events.k8s.io", "events", ""))
ANNOTATIONS = (("patch", "apps", "deployments", ""),)
BUFFERS = tuple(
    (verb, "autoscaling.x-k8s.io", "capacitybuffers", "") for verb in ("list", "create", "patch", "delete")
)
LEASE_VERBS = ("get", "create", "update")
MORE_READS = {
    Right("list", "", "resourcequotas"): "plans aren't kept within the namespace's quotas",
    Right("list", "", "limitranges"): "what they fill in and forbid doesn't count in plans",
    Right("list", "apps", "replicasets"): "names tell which pods a Deployment has",
    Right("list", "apps", "statefulsets"): "a service that is a StatefulSet isn't named as one",
    Right("list", "apps", "daemonsets"): "a service that is a DaemonSet isn't named as one",
    Right("list", "metrics.k8s.io", "pods"): "what pods use comes from Prometheus",
    Right("list", "keda.sh", "scaledobjects"): "of KEDA only the HPAs that it makes are seen",
}
"""Rights that the controller does without -> what it is without them."""


def reading_rights(namespace: str) -> list[Right]:
    """The rights that a dry run needs in `namespace`."""
    return [Right(*right, namespace=namespace) for right in READS]


def needed_rights(
    namespace: str,
    lease_namespace: str | None = None,
    modes: Collection[Mode] = frozenset({"act"}),
    events: bool = False,
) -> list[Right]:
    """All rights that reading and writing need in `namespace`, and those of a Lease where one is taken.

    Args:
        namespace: of the application.
        lease_namespace: where a Lease is to be taken; None: it isn't.
        modes: of the services.
        events: whether Events are written.
    """
    wanted = [*READS]
    wanted += WRITES if "act" in modes else ()
    wanted += ADVISING_WRITES if "advise" in modes else ()
    wanted += EVENTS if events else ()
    rights = [Right(*right, namespace=namespace) for right in wanted]
    if lease_namespace is not None:
        group, resource = "coordination.k8s.io", "leases"
        rights += [Right(verb, group, resource, namespace=lease_namespace) for verb in LEASE_VERBS]
    return rights


def missing_rights(api: KubeApi, rights: Iterable[Right]) -> list[Right]:
    """Those of `rights` that this user doesn't have, by one SelfSubjectAccessReview each.

    Raises:
        ApiError: the API server can't be asked.
    """
    return [right for right in rights if not _allows(api, right)]


def _allows(api: KubeApi, right: Right) -> bool:
    attributes = {
        "namespace": right.namespace,
        "verb": right.verb,
        "group": right.group,
        "resource": right.resource,
        "subresource": right.subresource,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = api.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
    status = answer.get("status")
    return isinstance(status, dict) and status.get("allowed") is True
