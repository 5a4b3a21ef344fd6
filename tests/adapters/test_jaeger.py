"""Jaeger's /api/dependencies against a scripted HTTP server."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from helpers.http_script import Script

from deepscaler.adapters.jaeger import JaegerClient, service_of
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.queries import Names
from deepscaler.calls import EXTERNAL
from deepscaler.errors import MetricsError, SettingsError
from deepscaler.settings import App, Jaeger, Settings, load_settings

T0 = 1_767_571_200.0
SERVICES = {"web": {}, "reviews": {"workloads": ["reviews-v1", "reviews-v2"]}, "db": {"deployment": "db-v1"}}


def app(**services) -> App:
    entries = [{"name": "GET /", "service": "web"}]
    return App.model_validate(
        {"name": "shop", "namespace": "shop", "services": services or SERVICES, "entries": entries}
    )


def links(*triples, errors=None):
    data = [{"parent": parent, "child": child, "callCount": count} for parent, child, count in triples]
    return 200, {"data": data, "total": 0, "limit": 0, "offset": 0, "errors": errors}


def client(script, **settings) -> JaegerClient:
    return JaegerClient(Jaeger.model_validate({"url": f"{script.url}/jaeger", **settings}))


def test_a_window_is_one_request_in_milliseconds_below_the_prefix():
    with Script(links(), links(("web", "db-v1", 30))) as script:
        graph = client(script, headers={"X-Scope-OrgID": "me"}, token="secret").calls(
            Names(app()), T0, T0 + 700, 300.0
        )
    assert [urlsplit(path).path for _, path, _, _ in script.seen] == ["/jaeger/api/dependencies"] * 2
    spans = [parse_qs(urlsplit(path).query) for _, path, _, _ in script.seen]
    assert spans == [{"endTs": [str(round((T0 + end) * 1000))], "lookback": ["300000"]} for end in (300, 600)]
    assert (script.seen[0][2]["Authorization"], script.seen[0][2]["X-Scope-Orgid"]) == ("Bearer secret", "me")
    assert graph.frame.to_dict("records") == [
        {"time": T0 + 600, "caller": "web", "callee": "db", "calls_per_second": 0.1}
    ]


def test_names_lead_to_services_and_the_rest_of_the_world_is_external():
    answer = links(
        ("istio-ingressgateway.istio-system", "web.shop", 60),
        ("web.shop", "reviews-v1.shop", 20),
        ("web.shop", "reviews-v2.shop", 10),
        ("web.other", "web.shop", 6),
        ("web.shop", "web.shop", 99),
        ("web.shop", "elsewhere.shop", 99),
        ("web.shop", "db-v1.other", 99),
    )
    with Script(answer) as script:
        graph = client(script, sampling=0.5).calls(Names(app()), T0, T0 + 60, 60.0)
    found = {(row.caller, row.callee): row.calls_per_second for row in graph.frame.itertuples()}
    assert found == {(EXTERNAL, "web"): pytest.approx(66 / 60 * 2), ("web", "reviews"): pytest.approx(1.0)}


@pytest.mark.parametrize(
    ("traced", "service"),
    [
        ("web", "web"),
        ("reviews-v2", "reviews"),
        ("reviews.shop", "reviews"),
        ("db", "db"),
        ("db-v1", "db"),
        ("db-v", None),
        ("web.x", None),
    ],
)
def test_a_traced_name_is_matched_exactly(traced, service):
    assert service_of(Names(app()), traced) == service


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {"message": "page not found"}), "HTTP 404 .*check cluster.jaeger"),
        (links(errors=[{"code": 500, "msg": "storage is down"}]), "storage is down"),
        ((200, {"status": "success"}), "not an answer of /api/dependencies; is this Jaeger"),
        (
            links(("a", "b", 3)),
            "no calls of this application in this time; Jaeger knows a, b; check app.namespace",
        ),
        (links(), "Jaeger knows no services at all"),
        ((200, {"data": None, "errors": None}), "Jaeger knows no services at all"),
    ],
)
def test_what_is_wrong_is_said(answer, message):
    with Script(answer) as script, pytest.raises(MetricsError, match=message):
        client(script).calls(Names(app()), T0, T0 + 60, 60.0)


def test_no_server_is_said():
    with pytest.raises(
        MetricsError, match=r"no answer .*set cluster.jaeger.url|no answer .*Set cluster.jaeger.url"
    ):
        JaegerClient(Jaeger(url="http://127.0.0.1:1")).dependencies(T0, 60.0)


def test_the_cluster_takes_its_call_graph_from_jaeger_where_that_is_set():
    with Script(links(("web", "db-v1", 30))) as script:
        cluster = {"kind": "kubernetes", "call_graph": "jaeger", "jaeger": {"url": script.url}}
        settings = Settings.model_validate({"app": app().model_dump(), "cluster": cluster})
        graph = KubernetesCluster(settings).calls(
            T0, T0 + 60
        )  # shorter than collect.calls_window: one window
    assert graph.frame["calls_per_second"].tolist() == [0.5] and script.seen[0][1].startswith(
        "/api/dependencies?"
    )


def test_the_source_is_one_of_two(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(json.dumps({"app": app().model_dump(), "cluster": {"call_graph": "zipkin"}}))
    with pytest.raises(SettingsError, match=r"cluster\.call_graph"):
        load_settings(path)


@pytest.mark.stress
@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": "web"},
        {"data": [None]},
        {"data": [{"parent": "web", "child": "db"}]},
        {"data": [{"parent": "web", "child": "db", "callCount": "many"}]},
        {"data": [{"parent": "web", "child": "db", "callCount": -1}]},
        {"data": [{"parent": 1, "child": "db", "callCount": 1}]},
        [],
        "[" * 10_000,
    ],
)
def test_an_answer_that_cant_be_right_is_refused(answer):
    with (
        Script((200, answer)) as script,
        pytest.raises(MetricsError, match="not an answer of /api/dependencies"),
    ):
        client(script).dependencies(T0, 300.0)
