"""The part of the Kubernetes API (v1.36) that kubectl, the official Python client and this project use.

    store = KubernetesStore(clock=time.time, on_scale=lambda namespace, name, replicas: ...)
    store.create(manifest)  # Namespaces, Deployments, Services, …
    store.sync_pods("shop", "web", [PodState("web-7d9c5b8f6d-bbbbc", created, ready_since), ...])
    with KubernetesApi(store, port=0) as api:
        api.write_kubeconfig("kubeconfig")

The package stands alone: it imports the standard library and PyYAML. Each module knows only those before it:

* `status`: failures. `schema`: shapes and types of objects. `ownership`: managedFields and server-side apply.
  `patching`: the other patches. `resources`: what is served, and discovery. `quantities`, `quotas`: what pods
  count, and what a namespace has left. `defaults`: defaults and validation.
* `selectors`: label and field selectors. `tables`: what kubectl prints. `access`: rights. `store`: objects
  and their history. `workloads`: what runs. `watching`: lists, pages and watches.
* `protobuf`: what kubectl creates. `requests`: one request and its answer. `server`: HTTP.

tests/testbed/test_kubernetes_api.py compares it with the recorded answers of a real v1.36.

Differs: only those pods run that the serving side reports with `sync_pods`. A new template doesn't roll the
pods, autoscalers don't act, and custom resources aren't served.
"""

from testbed.kubernetes_api.access import Identity, Rule
from testbed.kubernetes_api.requests import KubernetesStore, Response
from testbed.kubernetes_api.server import KubernetesApi
from testbed.kubernetes_api.status import Refused
from testbed.kubernetes_api.workloads import PodState

__all__ = ["Identity", "KubernetesApi", "KubernetesStore", "PodState", "Refused", "Response", "Rule"]
