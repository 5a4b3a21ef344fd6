"""What the JSON of Kubernetes objects says."""

import pytest
from helpers.kube_shop import T0

from deepscaler.adapters.kubernetes.objects import (
    actual_amounts,
    quantity,
    seconds_since_epoch,
    selects,
    span_seconds,
)
from deepscaler.errors import ClusterError


def test_a_quantity_that_is_absent_is_unknown():
    assert quantity("250m") == 0.25 and quantity(" 2 ") == 2.0 and quantity(None) is None


def test_a_quantity_that_is_none_is_refused():
    with pytest.raises(ClusterError, match="'much' is not a Kubernetes quantity such as 100m"):
        quantity("much")


def test_times_and_spans():
    assert seconds_since_epoch("2026-01-05T00:00:12.5Z") == T0 + 12.5 and seconds_since_epoch(None) is None
    assert span_seconds("1m30.5s") == 90.5 and span_seconds("20ms") == 0.02 and span_seconds("15s") == 15.0


def test_selectors():
    labels = {"app": "web", "tier": "front"}
    assert selects({"matchLabels": {"app": "web"}}, labels) and not selects(
        {"matchLabels": {"app": "api"}}, labels
    )
    rules = [
        ("tier", "In", ["front", "x"]),
        ("app", "NotIn", ["api"]),
        ("app", "Exists", []),
        ("old", "DoesNotExist", []),
    ]
    assert selects(
        {"matchExpressions": [{"key": key, "operator": how, "values": values} for key, how, values in rules]},
        labels,
    )
    assert not selects({"matchExpressions": [{"key": "old", "operator": "Exists"}]}, labels) and not selects(
        {}, labels
    )


@pytest.mark.field
@pytest.mark.parametrize(("actual", "expected"), [({"limits": {"cpu": "100m"}}, 0.1), (None, 0.2), ({}, 0.2)])
def test_a_container_has_the_limit_that_it_was_resized_to(actual, expected):
    stated = {"name": "web", "resources": {"limits": {"cpu": "200m"}}}
    status = {"name": "web"} if actual is None else {"name": "web", "resources": actual}
    other = {"name": "istio-proxy", "resources": {"limits": {"cpu": "2"}}}
    pod = {"spec": {"containers": [other, stated]}, "status": {"containerStatuses": [other, status]}}
    assert actual_amounts(pod, "web", "cpu")["limits"] == expected
