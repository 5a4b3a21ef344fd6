"""The Prometheus client against a scripted HTTP server, and the query templates."""

import base64
import threading

import numpy as np
import pytest
import yaml
from helpers.http_script import Script, matrix

from deepscaler.adapters.prometheus import PrometheusClient, grid
from deepscaler.errors import MetricsError, SettingsError
from deepscaler.settings import Prometheus, load_settings

T0 = 1767571200.0


def client(script, waits=None, **settings):
    waits = [] if waits is None else waits
    return PrometheusClient(Prometheus.model_validate({"url": script.url, **settings}), sleep=waits.append)


def settings(tmp_path, services, **prometheus):
    document = {
        "app": {
            "name": "shop",
            "namespace": "shop",
            "services": services,
            "entries": [{"name": "GET /", "service": next(iter(services))}],
        },
        "cluster": {
            "kind": "kubernetes",
            "prometheus": prometheus,
            "kubeconfig": str(tmp_path / "kubeconfig"),
        },
    }
    (tmp_path / "app.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return load_settings(tmp_path / "app.yaml")


# -------------------------------------------------------------------------------------------------- alignment
def test_samples_go_where_their_time_says_and_gaps_stay_missing():
    answer = matrix(
        ({"job": "a"}, {T0 + 30: "3", T0 + 45: "NaN", T0 + 60: "+Inf"}), ({"job": "b"}, {T0: "-1e3"})
    )
    with Script(answer) as script:
        found = client(script).query_range("up", T0, T0 + 74.9, 15.0)
    np.testing.assert_array_equal(found.times, T0 + 15 * np.arange(5))
    np.testing.assert_array_equal(
        found.values, [[np.nan, np.nan, 3, np.nan, np.inf], [-1000, np.nan, np.nan, np.nan, np.nan]]
    )
    assert [labels["job"] for labels in found.labels] == ["a", "b"]


def test_a_query_is_a_post_form():
    with Script(matrix()) as script:
        client(script, url=script.url + "/prom/").query_range('up{a="b"}', T0, T0 + 60, 15.0)
        method, path, headers, _ = script.seen[0]
    assert (method, path) == ("POST", "/prom/api/v1/query_range")
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert script.forms() == [
        {
            "query": 'up{a="b"}',
            "start": f"{T0:.3f}",
            "end": f"{T0 + 60:.3f}",
            "step": "15.000",
            "nocache": "1",
        }
    ]


def test_a_long_range_goes_in_chunks_that_neither_overlap_nor_leave_a_gap():
    answers = [
        matrix(({"job": "a"}, {T0 + 60 * k: str(k) for k in part})) for part in (range(3), range(3, 6), [6])
    ]
    with Script(*answers) as script:
        found = client(script).query_range("up", T0, T0 + 360, 60.0, chunk_points=3)
    np.testing.assert_array_equal(found.values, [np.arange(7.0)])
    asked = [(float(form["start"]) - T0, float(form["end"]) - T0) for form in script.forms()]
    assert asked == [(0, 120), (180, 300), (360, 360)]


@pytest.mark.field
@pytest.mark.parametrize("off", [0.0, 0.0004, 1.0, 7.0, 14.9])
def test_an_answer_on_the_stores_own_grid_is_taken_where_it_is_less_than_a_step_old(off):
    answer = matrix(({}, {round(T0 + 15 * k, 3): str(k) for k in range(5)}))
    with Script(answer) as script:
        found = client(script).query_range("up", T0 + off, T0 + off + 60, 15.0)
    np.testing.assert_array_equal(found.times, T0 + off + 15 * np.arange(5))
    np.testing.assert_array_equal(found.values, [np.arange(5.0)])


@pytest.mark.field
def test_samples_around_the_asked_times_are_left_out_and_gaps_stay_gaps():
    answer = matrix(({}, {T0 - 25: "1", T0 - 5: "2", T0 + 10: "3", T0 + 40: "4", T0 + 55: "5", T0 + 70: "6"}))
    with Script(answer) as script:
        found = client(script).query_range("up", T0, T0 + 60, 15.0)
    np.testing.assert_array_equal(found.values, [[2, 3, np.nan, 4, 5]])


@pytest.mark.field
@pytest.mark.parametrize("off", [-3600.0, 3600.0])
def test_an_answer_for_another_time_is_refused_and_not_read_as_missing(off):
    with (
        Script(matrix(({}, {T0 + off: "1"}))) as script,
        pytest.raises(MetricsError, match="answered for other times than asked"),
    ):
        client(script).query_range("up", T0, T0 + 60, 15.0)


def test_the_grid_ends_at_or_before_the_end():
    assert (
        list(grid(0.0, 59.9, 15.0)) == [0, 15, 30, 45]
        and len(grid(0.0, 0.3, 0.1)) == 4
        and len(grid(1.0, 0.0, 1.0)) == 0
    )


# --------------------------------------------------------------------------------------------------- failures
BUSY = (503, {"status": "error", "error": "busy"})


@pytest.mark.parametrize("trouble", [BUSY, (429, "slow down"), (500, ""), (None, "")])
def test_passing_trouble_is_tried_again_with_growing_waits(trouble):
    waits = []
    with Script(trouble, trouble, matrix(({}, {T0: "1"}))) as script:
        found = client(script, waits).query_range("up", T0, T0, 15.0)
    assert found.values.tolist() == [[1.0]] and waits == [0.5, 1.0]


def test_the_server_may_ask_for_a_longer_wait_but_not_for_ever():
    waits = []
    later, never = (429, "", {"Retry-After": "7"}), (503, "", {"Retry-After": "86400"})
    with Script(later, never, matrix()) as script:
        client(script, waits).query_range("up", T0, T0, 15.0)
    assert waits == [7.0, 30.0]


def test_lasting_trouble_ends_with_what_the_server_said():
    with (
        Script(BUSY) as script,
        pytest.raises(MetricsError, match=r"HTTP 503 \(busy\); gave up after 3 tries"),
    ):
        client(script, retries=2).query_range("up", T0, T0, 15.0)
    assert len(script.seen) == 3


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            (401, "Unauthorized"),
            "HTTP 401 (Unauthorized); the credentials are missing, wrong or expired: "
            "set cluster.prometheus.token",
        ),
        (
            (403, {"error": "no right\nto query"}),
            "HTTP 403 (no right to query); these credentials may not query",
        ),
        ((404, "<html>"), "no Prometheus API at this address"),
        ((400, {"status": "error", "error": "parse error"}), "HTTP 400 (parse error); query: up"),
        ((422, {"status": "error", "error": "too many samples"}), "HTTP 422 (too many samples); query: up"),
        ((302, "", {"Location": "https://login.example/"}), "HTTP 302 leads to https://login.example/"),
        ((200, "<html>Sign in</html>"), "the answer is not JSON (text/html)"),
        ((200, {"status": "error", "error": "oops"}), "answered without success (oops)"),
        ((200, []), "answered without success"),
        ((200, {"status": "success", "data": {"resultType": "vector", "result": []}}), "resultType 'vector'"),
        ((200, {"status": "success", "data": None}), "not the answer of a range query"),
        (matrix(({}, {T0: "x"})), "not the answer"),
        (
            (200, {"status": "success", "data": {"resultType": "matrix", "result": [{"values": []}]}}),
            "not the answer",
        ),
    ],
)
def test_every_refusal_is_one_line_with_address_and_advice_and_isnt_retried(answer, expected):
    with Script(answer) as script, pytest.raises(MetricsError) as error:
        client(script).query_range("up", T0, T0, 15.0)
    assert expected in str(error.value) and script.url in str(error.value) and "\n" not in str(error.value)
    assert len(script.seen) == 1


def test_nobody_at_the_address_names_the_address_and_the_setting():
    with Script(matrix()) as script:
        pass  # closed again: its port refuses
    waits = []
    with pytest.raises(MetricsError, match=f"{script.url}.*no answer in 4 tries.*Set cluster.prometheus.url"):
        client(script, waits).query_range("up", T0, T0, 15.0)
    assert waits == [0.5, 1.0, 2.0]


def test_a_server_that_never_answers_runs_into_the_time_out():
    release = threading.Event()

    with Script(matrix()) as script:
        handler = script.server.RequestHandlerClass
        handler.do_POST = lambda self: (release.wait(10), setattr(self, "close_connection", True))
        try:
            with pytest.raises(MetricsError, match=r"no answer in 1 tries.*timed out"):
                client(script, timeout=0.2, retries=0).query_range("up", T0, T0, 15.0)
        finally:
            release.set()


PARTIAL = [
    {"warnings": ["store x is gone"]},
    {"warnings": ["PromQL info: not a counter", "remote_read: timeout"]},
    {"isPartial": True},
    {"warnings": 5},
]


@pytest.mark.field
@pytest.mark.parametrize("said", PARTIAL)
def test_a_partial_answer_is_marked_and_refused_where_it_has_to_be_whole(caplog, said):
    status, document = matrix()
    with Script((status, {**document, **said})) as script:
        assert client(script).query_range("up", T0, T0, 15.0).partial
        assert "the answer is partial" in caplog.text
        with pytest.raises(MetricsError, match=r"the answer is partial .*run it again"):
            PrometheusClient(Prometheus(url=script.url), whole=True).query_range("up", T0, T0, 15.0)


@pytest.mark.field
@pytest.mark.parametrize("said", [{}, {"warnings": ["PromQL warning: mixed"]}, {"warnings": []}])
def test_remarks_on_the_query_dont_make_an_answer_partial(said):
    status, document = matrix(({}, {T0: "1"}))
    with Script((status, {**document, "isPartial": False, **said})) as script:
        assert not client(script).query_range("up", T0, T0, 15.0).partial


# --------------------------------------------------------------------------------------------- authentication
def sent(**prometheus):
    with Script(matrix()) as script:
        client(script, **prometheus).query_range("up", T0, T0, 15.0)
        return script.seen[0][2]


def test_a_bearer_token_is_sent(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "token").write_text("from-file\n")
    assert sent(token="secret")["Authorization"] == "Bearer secret"
    assert sent(token_file=str(tmp_path / "token"))["Authorization"] == "Bearer from-file"
    assert "Authorization" not in sent()


def test_a_rotated_token_file_is_read_again(tmp_path):
    token = tmp_path / "token"
    with Script(matrix()) as script:
        one = client(script, token_file=str(token))
        for text in ("old", "new"):
            token.write_text(text)
            one.query_range("up", T0, T0, 15.0)
    assert [headers["Authorization"] for _, _, headers, _ in script.seen] == ["Bearer old", "Bearer new"]


def test_basic_authentication_and_extra_headers_are_sent():
    headers = sent(username="me", password="pass", headers={"X-Scope-OrgID": "tenant"})
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"me:pass").decode()
    assert headers["X-Scope-Orgid"] == "tenant"


@pytest.mark.parametrize("key", ["token_file", "ca_file"])
def test_a_missing_file_of_authentication_is_named(tmp_path, key):
    with Script(matrix()) as script, pytest.raises(MetricsError, match=f"cluster.prometheus.{key} .*gone"):
        client(script, **{key: str(tmp_path / "gone")}).query_range("up", T0, T0, 15.0)
    assert not script.seen


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"token": "a", "username": "b", "password": "c"},
            "give one of token, token_file, username; found token and username",
        ),
        ({"username": "b"}, "username and password go together"),
        ({"url": "prometheus:9090"}, "cluster.prometheus.url"),
        ({"url": "http://me:pass@prometheus:9090"}, "cluster.prometheus.url"),
    ],
)
def test_contradicting_settings_are_refused(tmp_path, given, expected):
    with pytest.raises(SettingsError, match=expected):
        settings(tmp_path, {"a": {}}, **given)


def test_secrets_print_as_stars(tmp_path):
    printed = settings(tmp_path, {"a": {}}, username="me", password="sesame", headers={"X-Key": "sesame"})
    assert "sesame" not in printed.model_dump_json() and "sesame" not in repr(printed)


@pytest.mark.stress
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([{"metric": {}, "values": [[T0]]}], "values.0"),
        ([{"metric": {}, "values": [T0, "1"]}], "values.0"),
        ([{"metric": {}, "values": {"0": "1"}}], "values"),
        ([{"metric": {}, "values": [[T0, None]]}], "values.0.1"),
        ([{"metric": {}, "values": [[1e300, "1"]]}], "values.0.0"),
        ([{"metric": {}, "values": [["NaN", "1"]]}], "values.0.0"),
        ([{"metric": [], "values": []}], "metric"),
        ([{"metric": {"a": 1}, "values": []}], "metric.a"),
        (["series"], "0"),
        ({}, "result"),
        (None, "result"),
    ],
)
def test_series_that_cant_be_right_are_refused_by_their_place(data, expected):
    answer = 200, {"status": "success", "data": {"resultType": "matrix", "result": data}}
    with (
        Script(answer) as script,
        pytest.raises(MetricsError, match="not the answer of a range query") as error,
    ):
        client(script).query_range("up", T0, T0, 15.0)
    assert expected in str(error.value)


@pytest.mark.stress
@pytest.mark.parametrize("said", [5, {"a": 1}, [None], [["deep"]], True])
def test_warnings_of_any_kind_are_a_sign_of_a_partial_answer(said):
    status, answer = matrix(({}, {T0: "1"}))
    with Script((status, {**answer, "warnings": said})) as script:
        assert client(script).query_range("up", T0, T0, 15.0).partial


@pytest.mark.stress
@pytest.mark.parametrize("text", ["[" * 100_000, '{"status":' * 5000, '{"status": NaN}', '"\\ud800"', "\x00"])
def test_a_text_that_is_no_json_within_bounds_is_refused(text):
    with Script((200, text)) as script, pytest.raises(MetricsError, match="the answer is not JSON"):
        client(script).query_range("up", T0, T0, 15.0)
