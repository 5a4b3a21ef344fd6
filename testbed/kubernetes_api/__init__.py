"""The part of the Kubernetes API (v1.36) that the official Python client, kubectl and this project's adapters use.

    store = KubernetesStore(clock=time.time, on_scale=lambda namespace, name, replicas: ...)
    store.create(manifest)                                  # Namespaces, Deployments, Services, …
    store.sync_pods("boutique", "frontend", [PodState("frontend-7d9c5b8f6d-bbbbc", created, ready_since), ...])
    with KubernetesApi(store, port=0) as api:
        api.write_kubeconfig("kubeconfig")

Modules, each knowing only those before it: `status` (failures), `schema` (shapes and types), `ownership` (managedFields,
server-side apply), `patching`, `resources` (what is served, discovery), `defaults` (and validation), `selectors`, `tables`,
`access` (rights), `store` (objects and history), `workloads` (what runs), `watching` (lists, pages, watches), `protobuf` (what
kubectl creates), `requests` (one request), `server` (HTTP).

Checked against recorded answers of v1.36 by tests/testbed/test_kubernetes_api.py. Differs: nothing runs here but what the serving side
says with `sync_pods`; templates don't roll, autoscalers aren't acted on, quotas not enforced, custom resources not served.
"""

from testbed.kubernetes_api.access import Identity, Rule
from testbed.kubernetes_api.requests import KubernetesStore, Response
from testbed.kubernetes_api.server import KubernetesApi
from testbed.kubernetes_api.status import Refused
from testbed.kubernetes_api.workloads import PodState

__all__ = ["Identity", "KubernetesApi", "KubernetesStore", "PodState", "Refused", "Response", "Rule"]
