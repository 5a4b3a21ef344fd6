"""What is remembered of lists changes nothing but the time that reading them takes."""

import pytest
from helpers.kube_shop import CREATED, READY, make
from helpers.kube_stub import DEPLOYMENTS, PODS, REPLICA_SETS, deployment, pod, replica_set

from deepscaler.adapters.kubernetes.api import KubeApi
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.kubernetes.listed import Listed, Lists, remembered
from deepscaler.artefacts import parse_json

pytestmark = pytest.mark.stress
WEB_POD = f"{PODS}/web-5d9c5b8f6d-00000"
SAID = (
    '{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":[{"a":1},{"a":2}]}',
    '{"kind":"PodList","metadata":{"resourceVersion":"8"},"items":[{"a":1},{"a":2}]}',
    '{"items":[{"a":1},{"a":2}],"metadata":{"continue":"x"}}',
    '{"items":[{"a":1},{"a":true}]}',
    '{"items":[{"a":1.0},{"a":2}]}',
    '{"items":[{"a":-0.0},{"a":0.0},{"a":0},{"a":false},{"a":null},{}]}',
    '{"items":[{"a":1,"b":2},{"b":2,"a":1}]}',
    '{"items":[{"a":12345678901234567890123456789}]}',
    '{"items": [ {"a" : 1} , {"a":2} ] , "kind" : "PodList" }\n',
    '{"items"\n:\t[{"a":1}]}',
    '{"items":[]}',
    '{"items":null}',
    '{"items":[1,"a",null,[{"a":1}],{"a":1}]}',
    '{"metadata":{"note":"\\"items\\":["},"items":[{"a":1}]}',
    '{"metadata":{"note":"\\\\"},"items":[{"a":1}]}',
    '{"metadata":{"items":[{"a":3}]},"items":[{"a":1}]}',
    '{"metadata":{"items":[]}}',
    '{"items":[{"a":1}],"items":[{"a":2}]}',
    '{"items":[{"a":1}],"items":7}',
    '{"kind":"A","items":[{"a":1}],"kind":"B"}',
    '{"items":[{"items":[{"a":1}]}]}',
    '[{"items":[{"a":1}]}]',
    '"\\"items\\":["',
    '{"a":"items":[{"a":1}]}',
    '{"a":"x"items":[{"a":1}]}',
    '{"items":[{"a":1}]',
    '{"items":[{"a":1}]}}',
    '{"items":[{"a":1}]} {"items":[]}',
    '{"items":[{"a":NaN}]}',
    '{"a":Infinity,"items":[{"a":1}]}',
    '{"items":[{"a":1},]}',
    '{"items":[' + "[" * 250 + "]" * 250 + "]}",
    '{"a":' * 120 + '{"items":[' + "[" * 120 + "]" * 120 + "]}" + "}" * 120,
    '{"items":[{"ü":"\\ud83d\\ude00"}]}',
    '{"items":[{"a":"\\ud800"}]}',
    "",
    "{}",
)
"""Lists, what isn't one, and what is no JSON."""


def exactly(value):
    """Tells 1, 1.0 and True apart, and in which order keys stand."""
    if isinstance(value, dict):
        return [(key, exactly(each)) for key, each in value.items()]
    return [exactly(each) for each in value] if isinstance(value, list) else repr(value)


def said(read, body):
    try:
        return exactly(read(body))
    except ValueError:
        return "no JSON"


@pytest.mark.parametrize("before", range(len(SAID)))
def test_a_page_says_what_its_text_says_whatever_was_read_before(before):
    lists = Lists()
    for text in SAID:
        for body in (SAID[before].encode(), text.encode()):
            assert said(lambda body: lists.page("pods", 0, body), body) == said(parse_json, body), body


def test_bytes_that_are_no_text_are_no_page():
    for body in (b'{"items":[{"a":"\xff"}]}', b'{"\xff":1,"items":[{"a":1}]}'):
        with pytest.raises(ValueError, match=r"unicode|invalid"):
            Lists().page("pods", 0, body)


def test_objects_are_the_same_as_long_as_they_are_unchanged_on_whichever_page(stub, shop, tmp_path):
    stub.page = 2
    shop()
    api = KubeApi(make(stub, tmp_path).cluster)
    first = api.items(PODS)
    again = api.items(PODS)
    assert len(again) == 4
    assert all(left is right for left, right in zip(first, again, strict=True))
    del stub.objects[f"{PODS}/api-5d9c5b8f6d-00000"]  # what follows moves to other places and pages
    stub.edit(WEB_POD, status__phase="Failed")
    last = {item["metadata"]["name"]: item for item in api.items(PODS)}
    before = {item["metadata"]["name"]: item for item in first}
    assert [name for name, item in last.items() if item is not before[name]] == [WEB_POD.rpartition("/")[2]]


def test_what_failed_is_tried_again_and_what_is_no_list_isnt_remembered():
    made = []

    def make_it(item):
        made.append(item)
        if len(made) == 1:
            raise ValueError("not yet")
        return len(made)

    item = Listed({"a": 1})
    with pytest.raises(ValueError, match="not yet"):
        remembered(item, "it", make_it)
    assert [remembered(item, "it", make_it) for _ in range(3)] == [2, 2, 2]
    assert [remembered({"a": 1}, "it", make_it) for _ in range(2)] == [3, 4]


CHANGES = {
    "nothing": {},
    "a number where a truth value is the same": {"status__containerStatuses": [{"restartCount": True}]},
    "a limit in place": {
        "status__containerStatuses": [{"name": "web", "resources": {"limits": {"cpu": "75m"}}}]
    },
    "readiness": {"status__conditions": [{"type": "Ready", "status": "False"}]},
    "deletion": {"metadata__deletionTimestamp": READY},
    "another owner": {"metadata__ownerReferences": []},
    "another identity": {"metadata__uid": "new"},
    "an unsound part": {"spec__containers": "web"},
    "a missing part": {"status": None},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_cluster_that_remembers_says_the_same_as_a_new_one(stub, shop, change):
    stub.edit(WEB_POD, status__containerStatuses=[{"restartCount": 1}])
    kept, usage = shop(), f"{DEPLOYMENTS}/api"
    for _ in range(2):
        kept.workloads(), kept.pods()
    stub.edit(WEB_POD, **CHANGES[change])
    stub.edit(usage, spec__replicas=7, metadata__annotations={"a": change})
    for _ in range(2):
        new = shop()
        assert (kept.pods(), kept.workloads()) == (new.pods(), new.workloads())
    assert {item.service: item.replicas for item in kept.workloads()}["api"] == 7


def test_a_deployment_with_a_name_of_more_than_a_hundred_characters_is_found(stub, tmp_path):
    name = "orders-of-" + "the-northern-" * 8 + "shops"
    assert len(name) > 100
    stub.put(DEPLOYMENTS, deployment(name))
    stub.put(REPLICA_SETS, replica_set("cut-5d9c5b8f6d", name))
    item = pod("cut", 0, CREATED, READY)
    stub.put(PODS, item)
    cluster = KubernetesCluster(make(stub, tmp_path, {"web": {"deployment": name}}))
    assert [found.service for found in cluster.workloads()] == ["web"]
    assert [found.service for found in cluster.pods()] == ["web"]
