"""What the emulated API refuses, takes and lets end, as a real server was seen to do beside it."""

import json

import pytest
from helpers.recordings import hpa_decisions

from deepscaler.policies.hpa import api as hpa_api
from testbed.kubernetes_api import KubernetesStore, PodState

SHOP = "/api/v1/namespaces/shop"
DEPLOYMENTS = "/apis/apps/v1/namespaces/shop/deployments"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/lead"


def deployment(labels=None, template=None, **resources):
    container = {"name": "web", "image": "web", "resources": resources}
    return {
        "metadata": {"name": "web", "labels": labels or {}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web", **(template or {})}},
                "spec": {"containers": [container]},
            },
        },
    }


def config_map(**data):
    return {"metadata": {"name": "c"}, "data": data}


class World:
    def __init__(self):
        self.now = 1_767_571_200.0
        self.store = KubernetesStore(clock=lambda: self.now)
        self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})

    def send(self, method, path, document=None):
        path, _, query = path.partition("?")
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        body = json.dumps(document).encode() if document is not None else b""
        answer = self.store.handle(method, path, query, {"Content-Type": kind}, body)
        return answer.status, json.loads(answer.body)


@pytest.fixture
def world():
    return World()


@pytest.mark.parametrize(
    ("path", "document", "status", "message"),
    [
        (
            f"{SHOP}/configmaps",
            config_map(a="x" * 2**20, b="y"),
            422,
            "Too long: may not be more than 1048576 bytes",
        ),
        (
            f"{SHOP}/configmaps",
            config_map(**{"a/b": "x"}),
            422,
            'data[a/b]: Invalid value: "a/b": a valid config key',
        ),
        (
            f"{SHOP}/secrets",
            {"metadata": {"name": "s"}, "data": {"a": "x" * (2**20 + 1)}},
            422,
            "data: Too long",
        ),
        (
            f"{SHOP}/services",
            {
                "metadata": {"name": "s", "annotations": {"a": "x" * 1_600_000}},
                "spec": {"ports": [{"port": 80}]},
            },
            500,
            "etcdserver: request is too large",
        ),
        (
            DEPLOYMENTS,
            deployment(labels={"app": "Online Boutique"}),
            422,
            'metadata.labels: Invalid value: "Online Boutique": a valid label must be',
        ),
        (DEPLOYMENTS, deployment(labels={"app": "x" * 64}), 422, "must be no more than 63 bytes"),
        (
            DEPLOYMENTS,
            deployment(template={"a b": "x"}),
            422,
            'spec.template.labels: Invalid value: "a b": name part must consist',
        ),
        (
            DEPLOYMENTS,
            deployment(limits={"cpu": "1 core"}),
            400,
            "quantities must match the regular expression",
        ),
        (
            DEPLOYMENTS,
            deployment(limits={"cpu": "0.5.1"}),
            400,
            "quantities must match the regular expression",
        ),
        (DEPLOYMENTS, deployment(limits={"cpu": "-1"}), 422, "must be greater than or equal to 0"),
        (
            DEPLOYMENTS,
            deployment(limits={"cpu": "1"}, requests={"cpu": "1100m"}),
            422,
            'resources.requests: Invalid value: "1100m": must be less than or equal to cpu limit of 1',
        ),
        (
            f"{DEPLOYMENTS}?dryRun=foo",
            deployment(),
            422,
            'dryRun: Unsupported value: "foo": supported values: "All"',
        ),
        (
            f"{DEPLOYMENTS}?fieldManager={'m' * 129}",
            deployment(),
            422,
            "fieldManager: Too long: may not be more than 128 bytes",
        ),
        (
            f"{SHOP}/configmaps",
            {"metadata": {"name": "c", "resourceVersion": "7"}},
            500,
            "resourceVersion should not be set on objects to be created",
        ),
        (
            f"{SHOP}/resourcequotas",
            {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "many"}}},
            400,
            "quantities must match",
        ),
    ],
)
def test_what_is_refused(world, path, document, status, message):
    before = world.store.version
    found, said = world.send("POST", path, document)
    assert (found, message in said["message"]) == (status, True), said["message"]
    assert world.store.version == before  # nothing was kept


@pytest.mark.parametrize(
    ("path", "document"),
    [
        (f"{SHOP}/configmaps", config_map(a="x" * 2**20)),
        (f"{SHOP}/configmaps", config_map(**{"._-a": "x"})),
        (DEPLOYMENTS, deployment(labels={"app": "", "example.com/a.b_c": "x" * 63})),
        (DEPLOYMENTS, deployment(limits={"cpu": "1e-1", "memory": "1.5Gi"}, requests={"cpu": "100m"})),
        (DEPLOYMENTS, deployment(limits={"cpu": 1, "memory": 128e6})),
        (f"{DEPLOYMENTS}?fieldManager={'m' * 128}", deployment()),
        (f"{SHOP}/configmaps", {"metadata": {"name": "c", "resourceVersion": "0"}}),
    ],
)
def test_what_is_taken(world, path, document):
    assert world.send("POST", path, document)[0] == 201


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("option", ["dryRun=foo", "propagationPolicy=Later"])
def test_unknown_options_change_nothing(world, method, option):
    world.send("POST", DEPLOYMENTS, deployment())
    before = world.store.version
    if method != "DELETE" and option.startswith("propagation"):
        return  # only a delete has this option
    body = None if method == "DELETE" else deployment() | {"spec": {**deployment()["spec"], "replicas": 7}}
    status, said = world.send(method, f"{DEPLOYMENTS}/web?{option}", body)
    assert status == 422 and "Unsupported value" in said["message"]
    assert world.store.version == before
    if method == "DELETE":
        status, said = world.send(method, f"{DEPLOYMENTS}/web", {"propagationPolicy": "Later"})
        assert status == 422 and '"Foreground", "Background", "Orphan", "nil"' in said["message"]


def test_a_scale_with_an_unknown_dry_run_is_refused(world):
    world.send("POST", DEPLOYMENTS, deployment())
    assert world.send("PATCH", f"{DEPLOYMENTS}/web/scale?dryRun=foo", {"spec": {"replicas": 7}})[0] == 422
    assert world.store.replicas("shop") == {"web": 2}


def test_a_put_makes_a_lease_and_nothing_else(world):
    lease = {"metadata": {"name": "lead"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}}
    status, made = world.send("PUT", LEASE, lease)
    assert status == 201 and made["metadata"]["uid"]
    assert world.send("PUT", LEASE, lease)[0] == 200
    world.send("DELETE", LEASE)
    old = {**lease, "metadata": made["metadata"]}
    assert world.send("PUT", LEASE, old)[0] == 404  # it was read before it was deleted
    assert world.send("PUT", f"{DEPLOYMENTS}/web", deployment())[0] == 404


def pods(world, count=2):
    return [PodState(f"web-7d9c5b8f6d-{index}", world.now - 60.0, world.now - 50.0) for index in range(count)]


def test_a_deleted_pod_is_terminating_until_its_time_is_over(world):
    world.send("POST", DEPLOYMENTS, deployment())
    states = pods(world)
    world.store.sync_pods("shop", "web", states)
    status, said = world.send("DELETE", f"{SHOP}/pods/{states[0].name}")
    assert status == 200 and said["kind"] == "Pod" and said["metadata"]["deletionGracePeriodSeconds"] == 30
    assert said["metadata"]["deletionTimestamp"] == "2026-01-05T00:00:30Z"
    world.now += 29
    world.store.sync_pods("shop", "web", states)
    _, found = world.send("GET", f"{SHOP}/pods")
    assert ["deletionTimestamp" in item["metadata"] for item in found["items"]] == [True, False]
    assert world.store.peek("apps/deployments", "shop", "web")["status"]["replicas"] == 1
    world.now += 2
    world.store.sync_pods("shop", "web", states)
    assert len(world.send("GET", f"{SHOP}/pods")[1]["items"]) == 1
    world.store.sync_pods("shop", "web", states)
    _, found = world.send("GET", f"{SHOP}/pods")
    assert ["deletionTimestamp" in item["metadata"] for item in found["items"]] == [False, False]
    assert found["items"][0]["metadata"]["uid"] != said["metadata"]["uid"]


@pytest.mark.parametrize("how", ["?gracePeriodSeconds=0", None])
def test_without_a_time_to_end_a_pod_is_gone_at_once(world, how):
    world.send("POST", DEPLOYMENTS, deployment())
    world.store.sync_pods("shop", "web", pods(world))
    body = None if how else {"gracePeriodSeconds": 0}
    assert world.send("DELETE", f"{SHOP}/pods/web-7d9c5b8f6d-0{how or ''}", body)[1]["status"] == "Success"
    assert len(world.send("GET", f"{SHOP}/pods")[1]["items"]) == 1


def test_a_terminating_pod_still_counts_against_a_quota(world):
    spec = {"hard": {"pods": "2"}}
    world.send("POST", f"{SHOP}/resourcequotas", {"metadata": {"name": "q"}, "spec": spec})
    world.send("POST", DEPLOYMENTS, deployment())
    world.store.sync_pods("shop", "web", pods(world))
    world.send("DELETE", f"{SHOP}/pods/web-7d9c5b8f6d-0")
    world.store.sync_pods("shop", "web", pods(world, 3))
    assert world.store.peek("/resourcequotas", "shop", "q")["status"]["used"] == {"pods": "2"}
    assert len(world.send("GET", f"{SHOP}/pods")[1]["items"]) == 2


# --------------------------------------------------------------------------------------- autoscalers, Events
AUTOSCALERS = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"
EVENTS = "/apis/events.k8s.io/v1/namespaces/shop/events"


def autoscaler(**spec):
    target = {"kind": "Deployment", "name": "x", "apiVersion": "apps/v1"}
    return {"metadata": {"name": "d"}, "spec": {"scaleTargetRef": target, **spec}}


def test_an_autoscaler_is_answered_as_the_recorded_server_did(world):
    for case in hpa_decisions()["api"]:
        status, answer = world.send("POST", AUTOSCALERS, autoscaler(**case["spec"]))
        assert status == case["status"], case["case"]
        found = answer["spec"] if status == 201 else answer["message"]
        assert found == case["answer"], case["case"]
        world.send("DELETE", f"{AUTOSCALERS}/d")


PERCENT, VALUE = (
    {"type": "Utilization", "averageUtilization": 50},
    {"type": "AverageValue", "averageValue": "50m"},
)


def of_resource(target, **source):
    return {"type": "Resource", "resource": {"name": "cpu", "target": target, **source}}


def of_container(target, **source):
    inner = {"name": "cpu", "container": "app", "target": target, **source}
    return {"type": "ContainerResource", "containerResource": inner}


def custom(kind, target, **source):
    inner = {"metric": {"name": "packets"}, "target": target, **source}
    return {"type": kind, kind.lower(): inner}


@pytest.mark.parametrize(
    "metric",
    [
        of_resource(PERCENT),
        of_resource(VALUE),
        of_container(PERCENT),
        of_resource(PERCENT, name=""),
        of_container(PERCENT, container=""),
        of_resource({**PERCENT, **VALUE}),
        of_resource({"type": "Utilization"}),
        of_resource({"averageUtilization": 50}),
        of_container({"type": "Share", "averageUtilization": 0}),
        of_resource({"type": "AverageValue", "averageValue": "0"}),
    ],
)
def test_of_a_resource_the_api_takes_what_the_autoscaler_can_use_and_nothing_else(world, metric):
    """The API stands alone, so the rule is written twice: here and in `deepscaler/policies/hpa`."""
    spec = {"minReplicas": 1, "maxReplicas": 5, "metrics": [metric]}
    status, answer = world.send("POST", AUTOSCALERS, autoscaler(**spec))
    found = hpa_api.problems(hpa_api.with_defaults(spec))
    text = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
    expected = f'HorizontalPodAutoscaler.autoscaling "d" is invalid: {text}' if found else ""
    assert (status, answer.get("message", "")) == (422 if found else 201, expected)


@pytest.mark.parametrize(
    "metric",
    [
        custom("Pods", {"type": "AverageValue", "averageValue": "1k"}),
        custom("External", {"type": "Value", "value": "30"}),
        custom(
            "Object", {"type": "Value", "value": 30}, describedObject={"kind": "Ingress", "name": "front"}
        ),
    ],
)
def test_a_metric_that_a_real_server_takes_is_taken(world, metric):
    status, made = world.send("POST", AUTOSCALERS, autoscaler(maxReplicas=5, metrics=[metric]))
    assert (status, made["spec"]["metrics"]) == (201, [metric])


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            {"resource": {"name": "cpu", "target": PERCENT}},
            "metrics[0].type: Required value: must specify a metric",
        ),
        (
            {"type": "Packets"},
            '"Packets": supported values: "ContainerResource", "External", "Object", "Pods", "Res',
        ),
        ({"type": "Pods"}, "metrics[0].pods: Required value: must populate information"),
        (
            {**custom("Pods", VALUE), **of_resource(PERCENT)},
            "metrics[0].pods: Forbidden: must populate the given",
        ),
        (
            custom("Pods", {"type": "Value", "value": "1"}),
            "averageValue: Required value: must specify a positive",
        ),
        (
            custom("Pods", VALUE, metric={}),
            "metrics[0].pods.metric.name: Required value: must specify a metric name",
        ),
        (custom("Object", VALUE), "metrics[0].object.describedObject.kind: Required value"),
        (
            custom("External", {"type": "Value"}),
            "averageValue: Required value: must set either a target value for",
        ),
        (
            custom("External", {**VALUE, "value": "1"}),
            "target.value: Forbidden: may not set both a target value",
        ),
    ],
)
def test_a_metric_that_a_real_server_refuses_is_refused(world, metric, message):
    status, answer = world.send("POST", AUTOSCALERS, autoscaler(maxReplicas=5, metrics=[metric]))
    assert status == 422 and message in answer["message"]


def test_a_minimum_is_patched_within_the_maximum_and_only_on_the_version_that_was_read(world):
    _, made = world.send("POST", AUTOSCALERS, autoscaler(maxReplicas=5))
    version = made["metadata"]["resourceVersion"]
    raise_to = {"metadata": {"resourceVersion": version, "annotations": {"a/b": "c"}}, "spec": {}}
    raise_to["spec"]["minReplicas"] = 4
    status, raised = world.send("PATCH", f"{AUTOSCALERS}/d", raise_to)
    assert (status, raised["spec"]["minReplicas"], raised["spec"]["maxReplicas"]) == (200, 4, 5)
    assert world.send("PATCH", f"{AUTOSCALERS}/d", raise_to)[0] == 409
    status, answer = world.send("PATCH", f"{AUTOSCALERS}/d", {"spec": {"minReplicas": 6}})
    assert status == 422 and "spec.maxReplicas: Invalid value: 5: must be greater than" in answer["message"]


def event(**changes):
    regarding = {"kind": "Deployment", "apiVersion": "apps/v1", "name": "web", "namespace": "shop"}
    return {
        "metadata": {"name": "web.17"},
        "regarding": regarding,
        "reason": "Forecast",
        "action": "Scale",
        "note": "2 -> 5 replicas",
        "type": "Normal",
        "eventTime": "2026-01-05T00:00:00.000000Z",
        "reportingController": "deepscaler.io/controller",
        "reportingInstance": "deepscaler-0",
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eventTime": None}, "eventTime: Required value"),
        ({"reportingController": ""}, "reportingController: Required value"),
        ({"reportingController": "a b"}, "reportingController: Invalid value"),
        ({"reportingInstance": ""}, "reportingInstance: Required value"),
        ({"reportingInstance": "x" * 129}, "reportingInstance: Invalid value"),
        ({"action": "x" * 129}, 'action: Invalid value: "": can have at most 128 characters'),
        ({"reason": ""}, "reason: Required value"),
        ({"note": "x" * 1025}, 'message: Invalid value: "": can have at most 1024 characters'),
        ({"type": "Info"}, 'type: Invalid value: "": has invalid value: Info'),
        ({"deprecatedCount": 3}, 'count: Invalid value: "": needs to be unset'),
        ({"regarding": {"kind": "Deployment", "name": "web", "namespace": "other"}}, "does not match"),
        ({"series": {"count": 1, "lastObservedTime": "2026-01-05T00:00:00Z"}}, "series.count"),
    ],
)
def test_an_event_that_a_real_server_refuses_is_refused(world, changes, message):
    status, answer = world.send("POST", EVENTS, event(**changes))
    assert status == 422 and message in answer["message"]


def test_of_an_event_only_the_series_may_change(world):
    assert world.send("POST", EVENTS, event())[0] == 201
    series = {"series": {"count": 2, "lastObservedTime": "2026-01-05T00:05:00.000000Z"}}
    status, answer = world.send("PATCH", f"{EVENTS}/web.17", series)
    assert (status, answer["series"]["count"]) == (200, 2)
    status, answer = world.send("PATCH", f"{EVENTS}/web.17", {"note": "another"})
    assert status == 422 and 'message: Invalid value: "": field is immutable' in answer["message"]


@pytest.mark.parametrize(
    "behavior",
    [
        {"scaleUp": {"policies": "all"}},
        {"scaleUp": {"policies": [{"type": "Pods", "value": "1"}]}},
        {"scaleDown": {"stabilizationWindowSeconds": 1.5}},
        {"scaleDown": 3},
    ],
)
def test_a_behavior_of_another_type_isnt_decoded(world, behavior):
    status, answer = world.send("POST", AUTOSCALERS, autoscaler(maxReplicas=5, behavior=behavior))
    assert status == 400 and "cannot unmarshal" in answer["message"]
