"""Secrets never show in errors, logs, effective settings or run directories."""

import base64
import json
import logging
import subprocess
import sys
from urllib.parse import quote

import pytest
import requests
from helpers.http_script import Script, matrix
from helpers.kube_stub import KubeStub
from helpers.paths import ROOT

from deepscaler.adapters.authentication import authentication
from deepscaler.adapters.jaeger import JaegerClient
from deepscaler.adapters.kubernetes.api import KubeApi
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.errors import DeepScalerError, MetricsError, SettingsError
from deepscaler.findings import Finding
from deepscaler.logs import Scrubbing
from deepscaler.scrubbing import hide, scrubbed
from deepscaler.settings import ClusterSection, Jaeger, Prometheus, load_settings
from deepscaler.settings.describe import effective

pytestmark = pytest.mark.stress
SECRET = "x7Qf-open+Sesame/93"
APP = "app: {name: shop, services: {web: }, entries: [{name: GET /, service: web}]}\n"


@pytest.mark.parametrize(
    "text",
    [
        f"http://me:{SECRET}@prometheus:9090/api",
        f"HTTPConnectionPool: http://{SECRET}@proxy:3128",
        f"https://host/path?access_token={SECRET}&other=1",
        f"(Caused by url: /api/v1/query?api-key={SECRET})",
        f"Location: https://login.example/cb?id_token={SECRET}",
        f"header {{'Authorization': 'Bearer {SECRET}'}}",
        f"Basic {base64.b64encode(SECRET.encode()).decode()} refused",
        f"the plugin said: password={SECRET}",
        json.dumps({"token": SECRET}),
        f"Authorization: ApiKey {SECRET}",
        f"client_secret: '{SECRET}' is wrong",
    ],
)
def test_what_looks_like_a_secret_is_taken_out_wherever_it_comes_from(text):
    assert SECRET not in scrubbed(text) and "…" in scrubbed(text)
    assert SECRET not in str(DeepScalerError(text))


@pytest.mark.parametrize(
    "text",
    [
        'http://127.0.0.1:30090/api/v1/query_range: HTTP 400 (parse error); query: up{job="a"}',
        "the credentials are missing, wrong or expired: set cluster.prometheus.token, token_file",
        "basic authentication; it needs `password` as well",
        "ResourceQuota/team limits.cpu: bearer token",
        "https://example.com/a?page=2&size=10",
        "token: expired; password: wrong; authorization: required",
        "Basic Authentication is needed, or set cluster.prometheus.token_file=/run/secrets/prometheus",
        "deepscaler_token_total=12345678",
    ],
)
def test_ordinary_messages_stay_as_they_are(text):
    assert scrubbed(text) == text


@pytest.mark.parametrize("written", ["basic dXNlcjpwYXNz", "Bearer abcdefGhijkl", "password=hunterHunter"])
def test_a_secret_of_letters_alone_is_told_by_its_capitals(written):
    assert scrubbed(written) == written[: -len(written.replace("=", " ").split()[1])] + "…"


@pytest.mark.parametrize("written", [str, repr, json.dumps, lambda text: quote(text, safe=""), str.encode])
def test_a_known_secret_is_taken_out_however_it_is_written(written):
    secret = 'pass"word\\ä 93!'
    hide(secret)
    assert "93" not in scrubbed(f"a {written(secret)} b" if written is not str.encode else f"a {secret} b")


def test_logs_and_their_tracebacks_hold_no_secret():
    hide(SECRET)
    try:
        raise ValueError(f"Invalid header value: {SECRET!r}")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "failed: %s", (SECRET,), sys.exc_info())
    text = Scrubbing("%(message)s").format(record)
    assert SECRET not in text and "Traceback" in text and "Invalid header value" in text


@pytest.mark.parametrize(
    "override",
    [
        f"cluster.prometheus.token=[{SECRET}",
        f"cluster.prometheus.token=*{SECRET}",
        f"cluster.prometheus.token=!{SECRET} x",
        f"cluster.prometheus.token={{a: {SECRET}}}",
        f"cluster.prometheus.token=[{SECRET}]",
        f'cluster.prometheus.token="{SECRET}\\nx"',
        f"cluster.prometheus.token:{SECRET}",
        f"cluster.prometheus.token {SECRET}",
        f"cluster.prometheus.token.x={SECRET}",
        f"cluster.prometheus.headers=[{SECRET}]",
        f"cluster.prometheus.headers={SECRET}",
        f"cluster.prometheus.headers={{Authorization: '{SECRET}\\n'}}x",
        f"cluster.prometheus.headers={{'a b': {SECRET}}}",
        f"cluster.prometheus.password={SECRET}",
        f"cluster.prometheus.url=http://me:{SECRET}@host",
        f"cluster.prometheus.url=[http://me:{SECRET}@host",
        f"cluster.prometheus.url=http://host/?token={SECRET}",
        f"cluster.jaeger.url=http://host#access_token={SECRET}",
        f"cluster.jaeger.token='{SECRET}\x07'",
    ],
)
def test_an_override_that_is_refused_doesnt_show_its_secret(tmp_path, override):
    path = tmp_path / "shop.yaml"
    path.write_text(APP)
    with pytest.raises(SettingsError) as error:
        load_settings(path, [override])
    assert SECRET not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("line", [f"*{SECRET}", f"!{SECRET} x", f"[{SECRET}", f"'{SECRET}", f"{{{SECRET}"])
def test_a_file_that_is_refused_doesnt_show_its_secret(tmp_path, line):
    path = tmp_path / "shop.yaml"
    path.write_text(f"{APP}cluster: {{prometheus: {{token: {line}}}}}\n")
    with pytest.raises(SettingsError) as error:
        load_settings(path)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "  \n"])
def test_a_token_with_a_line_break_at_its_end_is_that_token(ending):
    with Script(matrix()) as script:
        PrometheusClient(Prometheus(url=script.url, token=SECRET + ending)).query_range("up", 0.0, 0.0, 1.0)
        JaegerClient(Jaeger(url=script.url, headers={"X-Token": SECRET + ending}))._web.send(
            "GET", script.url, 5.0, headers={"X-Token": SECRET}
        )
    assert script.seen[0][2]["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("content", [f"{SECRET}\n{SECRET}\n", f"{SECRET}\x00", f"ä{SECRET}", ""])
def test_a_file_that_holds_no_token_is_refused_without_showing_it(tmp_path, content):
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(MetricsError, match="expected one line with the token") as error:
        authentication(Prometheus(token_file=str(path)))
    assert SECRET not in str(error.value)


def test_a_refusal_that_repeats_the_token_doesnt_show_it(tmp_path):
    said = (400, {"status": "error", "error": f"bad token {SECRET} in url http://me:{SECRET}@host"})
    with Script(said) as script, pytest.raises(MetricsError) as error:
        PrometheusClient(Prometheus(url=script.url, token=SECRET)).query_range("up", 0.0, 0.0, 1.0)
    assert SECRET not in str(error.value) and "bad token" in str(error.value)


def test_the_token_of_a_kubeconfig_is_known(tmp_path):
    with KubeStub() as stub:
        stub.denied = {("list", "pods")}
        config = stub.kubeconfig(tmp_path / "kubeconfig", token="kube-93-token")
        api = KubeApi(ClusterSection(kubeconfig=config))
        api.items("/apis/apps/v1/namespaces/shop/deployments")
    assert "kube-93-token" not in scrubbed("kube-93-token")


def test_a_proxy_with_a_password_isnt_shown(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://me:{quote(SECRET, safe='')}@127.0.0.1:1")
    client = PrometheusClient(Prometheus(url="http://prometheus.example", retries=0), requests.Session())
    with pytest.raises(MetricsError) as error:
        client.query("up", 0.0)
    assert SECRET not in str(error.value) and quote(SECRET, safe="") not in str(error.value)


def test_effective_settings_and_the_log_of_a_script_hold_no_secret(tmp_path):
    path = tmp_path / "shop.yaml"
    cluster = {"kind": "kubernetes", "kubeconfig": str(tmp_path / "none"), "prometheus": {"token": SECRET}}
    path.write_text(APP + json.dumps({"cluster": cluster})[1:-1])
    assert SECRET not in effective(path)
    done = subprocess.run(
        [
            sys.executable,
            "predict_scale.py",
            "--config",
            str(path),
            "--once",
            "--set",
            f"cluster.jaeger.token={SECRET}",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1 and "settings: " in done.stderr
    assert SECRET not in done.stderr + done.stdout


def test_a_check_says_no_secret_of_an_address():
    told = str(Finding("ok", "Prometheus", "http://bob:hunter2secret@store:9090 answers"))
    assert told == "ok       Prometheus: http://…@store:9090 answers"
