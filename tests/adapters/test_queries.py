"""The PromQL templates, and the names that lead from series back to services."""

import re

import pytest

from deepscaler.adapters.names import Names, alternatives, duration, seconds
from deepscaler.adapters.queries import FEATURE_QUERIES
from deepscaler.errors import MetricsError, SettingsError
from deepscaler.settings import App


def names(services):
    return Names(App.model_validate({"name": "x", "namespace": "ns", "services": services, "entries": []}))


def test_names_are_escaped_once_for_the_regex_and_once_for_the_string():
    assert alternatives(["a.b", "c-d", 'q"']) == r"a\\.b|c-d|q\""
    text = names({"a.b": {}, "c": {"container": "server"}}).render(FEATURE_QUERIES["req"].query, window="1m")
    assert (
        r'destination_workload=~"a\\.b|c"' in text
        and 'destination_workload_namespace="ns"' in text
        and "[1m]" in text
    )
    assert 'reporter="destination"' in text


def test_services_are_the_names_that_the_label_carries():
    known = names({"reviews": {"container": "app", "workloads": ["reviews-v1", "reviews-v2"]}, "web": {}})
    rendered = {
        label: known.render("{services}", label, window="1m")
        for label in ("container", "deployment", "destination_workload")
    }
    both = "reviews-v1|reviews-v2|web"
    assert rendered == {"container": "app|web", "deployment": both, "destination_workload": both}
    assert known.scaled == {"reviews": "reviews-v1", "web": "web"}


@pytest.mark.parametrize("query", FEATURE_QUERIES.values(), ids=FEATURE_QUERIES)
def test_no_placeholder_is_left_over(query):
    for template in filter(None, (query.query, query.divide_by)):
        text = names({"a": {}}).render(template, query.label, window="1m")
        assert not re.search(r"\{[a-z]+\}", text)


@pytest.mark.parametrize(
    ("pod", "service"),
    [
        ("carts-7d9c5b8f6d-bbbbc", "carts"),
        ("carts-db-7d9c5b8f6d-bbbbc", "carts-db"),
        ("carts-db-0", "carts-db"),
        ("my-carts-7d9c5b8f6d-bbbbc", None),
        ("carts-dba-7d9c5b8f6d-bbbbc", None),
        ("carts", None),
    ],
)
def test_a_pod_belongs_to_the_deployment_it_is_named_after(pod, service):
    assert names({"carts": {}, "carts-db": {}}).service("pod", pod) == service


def test_a_shared_container_name_cant_tell_services():
    known = names({"a": {"container": "server"}, "b": {"container": "server"}})
    with pytest.raises(MetricsError, match="label 'container' can't tell a, b apart"):
        known.service("container", "server")


def test_two_services_cant_claim_one_workload():
    with pytest.raises(SettingsError, match="b and a both claim the workload 'a'"):
        names({"a": {}, "b": {"workloads": ["a"]}})


def test_durations():
    assert seconds("1m30s") == 90 and seconds("500ms") == 0.5 and duration(300.0) == "300000ms"
