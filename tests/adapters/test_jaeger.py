"""Jaeger's /api/dependencies against a scripted HTTP server."""

import json
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest
from helpers.http_script import Script

from deepscaler.adapters.jaeger import Dependency, JaegerClient, service_of
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.names import Names
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


# ---------------------------------------------------------------------------------------------------- batches
DAY = 86_400.0
NOON = T0 + DAY / 2


class Batches(JaegerClient):
    """Jaeger with records of (time, parent, child, calls), as its storage has them."""

    def __init__(self, records):
        super().__init__(Jaeger())
        self.records, self.asked = records, 0

    def dependencies(self, end, lookback):
        self.asked += 1
        return [
            Dependency(parent, child, calls)
            for time, parent, child, calls in self.records
            if end - lookback <= time <= end
        ]


def an_hour(records, served, start=NOON, end=NOON + 3600):
    return rates_of(Batches(records).calls(Names(app()), start, end, 300.0, traffic=served))


def a_day(day, web=87.0, db=174.0, dated=0.0):
    """The record of a day: requests per second that enter web, and those that web sends to db."""
    time = T0 + day * DAY + dated
    return [(time, "gateway", "web", web * DAY), (time, "web", "db-v1", db * DAY)]


def traffic(web, db):
    """Requests served: functions of the time, in requests per second."""

    def rates(times, window):
        return pd.DataFrame(
            {"web": [web(time) for time in times], "db": [db(time) for time in times]}, index=times
        )

    return rates


def flat(value):
    return lambda _time: value


def rates_of(graph):
    table = graph.frame.pivot_table(index="time", columns="callee", values="calls_per_second")
    return table["web"].to_numpy(), table["db"].to_numpy()


@pytest.mark.field
@pytest.mark.parametrize(
    "dated", [0.0, 3600.0, DAY / 2 + 100.0, DAY - 1.0], ids=["midnight", "one", "noon", "end"]
)
@pytest.mark.parametrize("known", [True, False])
def test_a_record_of_a_day_is_no_window_of_it(dated, known):
    """87 requests per second are 7.5 million per day; in one window of five minutes that would be 25,056."""
    records = [*a_day(-1, dated=dated), *a_day(0, dated=dated)]
    served = traffic(flat(87.0), flat(174.0)) if known else None
    graph = Batches(records).calls(Names(app()), T0 + 1800, T0 + DAY - 1800, 300.0, traffic=served)
    web, db = rates_of(graph)
    np.testing.assert_allclose(web, 87.0, rtol=1e-6)
    np.testing.assert_allclose(db, 174.0, rtol=1e-6)
    assert len(web) == 276


@pytest.mark.field
def test_while_the_record_of_today_isnt_written_yesterdays_tells():
    graph = Batches(a_day(-1)).calls(
        Names(app()), NOON, NOON + 3600, 300.0, traffic=traffic(flat(50.0), flat(100.0))
    )
    web, db = rates_of(graph)
    assert len(web) == 12
    # As many calls per request as yesterday, when as many requests were served.
    np.testing.assert_allclose(web, 50.0)
    np.testing.assert_allclose(db, 100.0)


@pytest.mark.field
def test_the_calls_of_a_record_follow_the_requests():
    def day_long(base):
        return lambda time: base * (1 + (time > NOON)) if time % DAY else base * 1.5

    served = traffic(day_long(58.0), day_long(116.0))
    graph = Batches([*a_day(-1), *a_day(0)]).calls(
        Names(app()), NOON - 900, NOON + 900, 300.0, traffic=served
    )
    web, db = rates_of(graph)
    np.testing.assert_allclose(web, [58.0] * 3 + [116.0] * 3)
    np.testing.assert_allclose(db, 2 * web)


@pytest.mark.field
def test_calls_are_never_more_than_the_requests_served():
    records = [*a_day(-1, web=200.0), *a_day(0, web=200.0)]  # traced twice, for example
    graph = Batches(records).calls(
        Names(app()), NOON, NOON + 3600, 300.0, traffic=traffic(flat(87.0), flat(174.0))
    )
    web, db = rates_of(graph)
    np.testing.assert_allclose(web, 87.0)
    np.testing.assert_allclose(db, 174.0)


@pytest.mark.field
@pytest.mark.parametrize("known", [True, False])
def test_records_of_each_window_are_left_as_they_are(known):
    rates = 80 + 10 * np.sin(np.arange(12))
    records = [(NOON + 300 * k + 150, "gateway", "web", 300 * rate) for k, rate in enumerate(rates)]
    records += [(NOON + 300 * k + 150, "web", "db-v1", 600 * rate) for k, rate in enumerate(rates)]
    jaeger = Batches(records)
    served = traffic(flat(80.0), flat(160.0)) if known else None
    web, db = rates_of(jaeger.calls(Names(app()), NOON, NOON + 3600, 300.0, traffic=served))
    np.testing.assert_allclose(web, rates)
    np.testing.assert_allclose(db, 2 * rates)
    assert jaeger.asked == 12


@pytest.mark.field
def test_requests_that_cant_be_read_bound_nothing(caplog):
    def down(_times, _window):
        raise MetricsError("http://prometheus: no answer")

    np.testing.assert_allclose(an_hour([*a_day(-1), *a_day(0)], down)[0], 87.0)
    assert "so they don't bound Jaeger's calls" in caplog.text and "a record stands for a day" in caplog.text
