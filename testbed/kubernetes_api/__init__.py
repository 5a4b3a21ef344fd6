"""The part of the Kubernetes API (v1.36) that kubectl, the official Python client and this project use.

    store = KubernetesStore(clock=time.time, on_scale=lambda namespace, name, replicas: ...)
    store.create(manifest)  # Namespaces, Deployments, Services, …
    store.sync_pods("shop", "web", [PodState("web-7d9c5b8f6d-bbbbc", created, ready_since), ...])
    with KubernetesApi(store, port=0) as api:
        api.write_kubeconfig("kubeconfig")

The package stands alone: it imports the standard library and PyYAML. Each module knows only those before it:

* `status`: failures. `schema`: shapes and types of objects. `ownership`: managedFields and server-side apply.
  `patching`: the other patches. `resources`: what is served, and discovery. `quantities`, `quotas`: what pods
  count, and what a namespace has left. `validation`, `autoscalers`, `event_rules`,
  `defaults`: what is refused, and what is filled in.
* `selectors`: label and field selectors. `tables`: what kubectl prints. `access`: rights. `store`: objects
  and their history. `workloads`: what runs. `watching`: lists, pages and watches.
* `protobuf`: what kubectl creates. `requests`: one request and its answer. `server`: HTTP.

tests/testbed/test_kubernetes_api.py compares it with the recorded answers of a real v1.36.

Differs: only those pods run that the serving side reports with `sync_pods`; a pod that a client has deleted
is Terminating until its time is over, and comes back under its name. A new template doesn't roll the pods,
autoscalers act only where the serving side lets them. Of custom resources only CapacityBuffers can be had
(`custom=`), and nothing acts on them. Of what else was seen to differ from a real server:

* Taken, though the real one refuses: maxSurge and maxUnavailable both 0, a nodePort out of its range,
  duplicate fields of JSON, unknown words for fieldValidation and resourceVersionMatch, continue together with
  resourceVersion, an empty SelfSubjectAccessReview, server-side apply with an unknown field.
* Refused, though the real one takes it: PUT of what isn't there, but for Leases; the field selector
  `spec.hostNetwork`; `limit=-1`; `kubectl create configmap` and `create quota` from kubectl 1.33 (protobuf).
* Missing: PodDisruptionBudgets, eviction, token requests, SelfSubjectRulesReview (`auth can-i --list`),
  SelfSubjectReview (`auth whoami`), SubjectAccessReview, /openapi/v2, aggregated discovery, the old path of
  watches, answers in YAML, 406, the fields that `kubectl explain` shows, `rollout undo`, HEAD and OPTIONS.
* Different: what owns pods takes them along at once, and so do namespaces, without a Terminating phase; the
  finalizer `orphan`; `remainingItemCount` with selectors; a changed uid is 409 (422); managedFields in an
  apply is 409 (400); an unknown field in a strict patch of `scale` is 400 (422); `scale` has no Table.
  LimitRanges hold for pods and containers only, quotas with the scope CrossNamespacePodAffinity count
  nothing, and quantities stay as they were sent.
"""

from testbed.kubernetes_api.access import Identity, Rule
from testbed.kubernetes_api.requests import KubernetesStore, Response
from testbed.kubernetes_api.server import KubernetesApi
from testbed.kubernetes_api.status import Refused
from testbed.kubernetes_api.workloads import PodState

__all__ = ["Identity", "KubernetesApi", "KubernetesStore", "PodState", "Refused", "Response", "Rule"]
