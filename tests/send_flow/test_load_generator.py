"""The load generators: traces, routes, World Cup logs; then real Locust against a small server on loopback.

Locust patches the process that imports it, so it runs in processes of its own and never in this one.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from helpers.paths import ROOT, WORLDCUP98, WORLDCUP98_MISSING
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscaler.errors import DataError, SettingsError
from deepscaler.settings import Load
from deepscaler.settings.loading import read_document
from sendFlow import answers, make_trace, routes, shapes, trace, worldcup98
from testbed import shapes as testbed_shapes

SENDLOOP = ROOT / "sendFlow" / "sendLoop.sh"
APPLICATIONS = {name: read_document(ROOT / "testbed" / "apps" / f"{name}.yaml") for name in routes.ROUTES}


# ---------------------------------------------------------------------------------------------------- playing
def test_a_round_is_played_as_often_as_asked_and_then_ends() -> None:
    one = trace.Series(np.array([3.0, 7.4]), 5.0).with_idle_ends(1)
    assert [trace.users_at(one, elapsed, rounds=2) for elapsed in (0, 4.9, 5, 10, 15, 20, 25, 39.9)] == [
        0,
        0,
        3,
        7,
        0,
        0,
        3,
        0,
    ]
    assert trace.users_at(one, 20, rounds=1) is None and trace.users_at(one, 40, rounds=2) is None
    assert trace.users_at(one, 1e9 + 5, rounds=0) == 3


def test_scale_and_period_stretch_a_trace() -> None:
    one = trace.read_trace(trace.README_TRACE).with_idle_ends().adjusted(scale=0.5, step=2.0)
    values = trace.read_req(trace.README_TRACE)
    assert trace.users_at(one, 10.0) == round(values[0] / 2)
    assert trace.users_at(one, 913 * 2.0) is None and trace.users_at(one, 913 * 2.0 - 0.1) == 0


# ----------------------------------------------------------------------------------------------------- shapes
@pytest.mark.parametrize("shape", [name for name in shapes.SHAPES if name not in make_trace.WITH_A_COURSE])
def test_every_shape_can_be_made_and_is_the_testbeds(shape: str, tmp_path: Path) -> None:
    out = tmp_path / "made.req"
    assert (
        make_trace.main(["--shape", shape, "--seed", "7", "--out", str(out), "--low", "20", "--high", "90"])
        == 0
    )
    virtual = testbed_shapes.users(Load(shape=shape, low=20, high=90), 3600, 7)[1]
    assert trace.read_req(out).tolist() == virtual.tolist()


def test_a_shape_can_be_made_as_the_readme_says(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "sendFlow/make_trace.py",
        "--shape",
        "sharp_increase",
        "--seed",
        "1",
        "--out",
        str(tmp_path / "x.req"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert "720 values" in done.stdout
    values = trace.read_req(tmp_path / "x.req")
    assert values[:200].mean() == pytest.approx(25, abs=1) and values[-300:].mean() == pytest.approx(
        95, abs=1
    )


def test_a_shape_with_low_above_high_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        make_trace.main(["--shape", "square", "--low", "9", "--high", "5", "--out", str(tmp_path / "x.req")])
    assert "--low: 9 is above --high 5" in capsys.readouterr().err


@pytest.mark.parametrize("shape", shapes.SHAPES)
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"high": 1e300}, r"testbed\.load\.high: 1e\+300 users, more than 1,000,000,000; lower it"),
        ({"low": 1e300, "high": 1e300}, r"testbed\.load\.low: 1e\+300 users"),
        ({"low": 1.7e308, "high": 1.7e308}, r"testbed\.load\.low: 1\.7e\+308 users"),
        ({"noise": 1e300}, r"testbed\.load\.noise: 1e\+300 users"),
        ({"scale": 1e300}, r"testbed\.load\.low: 2\.5e\+301 users.*lower it or testbed\.load\.scale"),
        ({"period": 1e-300}, r"testbed\.load\.period: 1e-300 s makes more than 100,000 periods"),
        ({"step": 1e-320}, r"testbed\.load\.step: .* more than 50,000,000; raise the step"),
    ],
)
def test_a_load_beyond_all_bounds_is_refused_by_its_setting(
    shape: str, changes: dict[str, float], named: str
) -> None:
    for kind in ("closed", "open"):
        with pytest.raises(SettingsError, match=named):
            testbed_shapes.users(Load.model_validate({"shape": shape, "kind": kind, **changes}), 3600, 7)


@pytest.mark.parametrize("value", [1.1e9, 1e19, 1e300, np.inf, np.nan])
def test_no_number_of_users_wraps_around(tmp_path: Path, value: float) -> None:
    with pytest.raises(SettingsError, match=r"testbed\.load: .*lower testbed\.load\.high"):
        shapes.as_users(np.array([3.0, value]))
    assert shapes.as_users(np.array([-1e300, 1e9])).tolist() == [1, 1_000_000_000]
    load = Load(shape=small_trace(tmp_path, 1, 2), scale=1e300)
    with pytest.raises(SettingsError, match=r"or testbed\.load\.scale"):
        testbed_shapes.users(load, 100, 7)


# ----------------------------------------------------------------------------------------------------- routes
@pytest.mark.parametrize("application", routes.ROUTES)
def test_every_endpoint_has_a_url_and_every_url_an_endpoint(application: str) -> None:
    endpoints = set(APPLICATIONS[application]["endpoints"])
    assert {route.endpoint for route in routes.ROUTES[application]} == endpoints
    entries = read_document(ROOT / "config" / f"{application}.yaml")["app"]["entries"]
    assert {entry["name"] for entry in entries} <= endpoints
    words = {
        word: f"a b/{word}"
        for route in routes.ROUTES[application]
        for word in re.findall(r"\{(\w+)\}", route.pattern)
    }
    for route in routes.ROUTES[application]:
        assert (
            routes.endpoint_of(application, route.method, re.sub(r"\{\w+\}", "x", route.pattern))
            == route.endpoint
        )
        method, path = routes.url_of(application, route.endpoint, **words)
        assert routes.endpoint_of(application, method, path + "?q=/cart") == route.endpoint
        assert method == route.endpoint.split(" ")[0]
        if route.redirect:
            assert routes.endpoint_of(application, "GET", route.redirect)


def test_what_is_no_url_of_an_application_has_no_endpoint() -> None:
    for method, path in (
        ("GET", "/favicon.ico"),
        ("DELETE", "/cart"),
        ("GET", "/product/"),
        ("GET", "/product/a/b"),
        ("GET", "//"),
    ):
        assert routes.endpoint_of("boutique", method, path) is None
    assert routes.endpoint_of("boutique", "HEAD", "/cart") == "GET /cart"


def test_redirects_are_those_of_the_virtual_tasks() -> None:
    follows = {route.endpoint: f"GET {route.redirect}" for route in routes.BOUTIQUE if route.redirect}
    for task in APPLICATIONS["boutique"]["tasks"].values():
        for asked, following in zip(task["requests"], [*task["requests"][1:], ""], strict=True):
            assert follows.get(asked, following) == following


# -------------------------------------------------------------------------------------------------- world cup
START = worldcup98.FIRST + 120 * 86400


def log_of(times: list[int]) -> bytes:
    """An official log: 20-byte big-endian records."""
    return b"".join(struct.pack(">IIIIBBBB", when, 7, 9, 1234, 0, 2, 1, 4) for when in times)


@settings(deadline=None, max_examples=30)
@given(
    times=st.lists(st.integers(START, START + 3600), min_size=1, max_size=200),
    seconds=st.sampled_from([1, 5, 7, 60]),
    parts=st.integers(1, 3),
)
def test_counts_do_not_depend_on_files_order_or_packing(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], seconds: int, parts: int
) -> None:
    directory = tmp_path_factory.mktemp("logs")
    paths = []
    for part in range(parts):
        packed = gzip.compress(log_of(times[part::parts])) if part % 2 else log_of(times[part::parts])
        paths.append(directory / f"wc_day{part}")
        paths[-1].write_bytes(packed)
    counts = worldcup98.count(paths, seconds)
    wanted = Counter(when // seconds for when in times)
    assert counts.first == min(wanted) and len(counts.values) == max(wanted) - min(wanted) + 1
    assert {counts.first + i: int(value) for i, value in enumerate(counts.values) if value} == dict(wanted)


def test_a_log_becomes_a_trace_with_the_wanted_maximum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = [START] * 10 + [START + 61] * 40 + [START + 185] * 20
    (tmp_path / "wc_day66_1.gz").write_bytes(gzip.compress(log_of(times)))
    out = tmp_path / "wc.req"
    assert worldcup98.main([str(tmp_path / "wc_day66_1.gz"), "--out", str(out), "--max-users", "80"]) == 0
    assert trace.read_req(out).tolist() == [20, 80, 0, 40]
    assert "4 values of 60 s from 1998-05-01T00:00:00Z, 70 requests" in capsys.readouterr().out
    bounds = ["--start", "1998-05-01T00:01:00", "--end", "1998-05-01T00:02:00Z"]
    assert (
        worldcup98.main([str(tmp_path / "wc_day66_1.gz"), "--out", str(tmp_path / "cut.csv"), *bounds]) == 0
    )
    assert (tmp_path / "cut.csv").read_text(encoding="utf-8") == "time,requests\n1998-05-01T00:01:00Z,40\n"


def test_per_minute_counts_give_the_same_trace_as_the_log_they_count(tmp_path: Path) -> None:
    times = sorted(START + 7 * i % 1800 for i in range(900))
    (tmp_path / "log").write_bytes(log_of(times))
    for out, source in (
        (tmp_path / "counts.csv", "log"),
        (tmp_path / "a.req", "log"),
        (tmp_path / "b.req", "counts.csv"),
    ):
        assert worldcup98.main([str(tmp_path / source), "--out", str(out)]) == 0
    assert trace.read_req(tmp_path / "a.req").tolist() == trace.read_req(tmp_path / "b.req").tolist()


def test_finer_and_coarser_values_keep_every_request(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    path.write_text(
        "time,requests\n" + "".join(f"{START + 60 * i},{10 * i + 5}\n" for i in range(20)), encoding="utf-8"
    )
    for seconds in (5, 7, 60, 300):
        assert worldcup98.count([path], seconds).values.sum() == pytest.approx(
            sum(10 * i + 5 for i in range(20))
        )


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    path = tmp_path / "long"
    with path.open("wb") as file:
        for minute in range(20):
            file.write(log_of([START + 60 * minute]) * 40_000)
    import tracemalloc

    tracemalloc.start()
    counts = worldcup98.count([path], 60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts.values.tolist() == [40_000] * 20
    assert path.stat().st_size == 16_000_000 and peak < 6_000_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (log_of([START])[:-3], "cut off"),
        (log_of([START, 5]), "record 2 is dated 1970"),
        (struct.pack("<IIIIBBBB", START, 1, 1, 1, 0, 2, 1, 4), "no World Cup 1998 log"),
        (gzip.compress(log_of([START] * 5000), mtime=0)[:-20], "can't be read after"),
        (b"", "no requests"),
    ],
)
def test_a_broken_log_is_refused_by_name(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "wc_day1").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        worldcup98.count([tmp_path / "wc_day1"], 60)
    assert "wc_day1" in str(caught.value)


def test_a_missing_log_ends_the_script_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert worldcup98.main([str(tmp_path / "none"), "--out", str(tmp_path / "x.req")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "none" in error
    assert not (tmp_path / "x.req").exists()


@pytest.mark.parametrize("name", ["counts.csv", "counts.csv.gz"])
def test_counts_may_be_packed(tmp_path: Path, name: str) -> None:
    text = b"time,requests\n0,10\n60,30\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert worldcup98.main([str(tmp_path / name), "--out", str(tmp_path / "x.req")]) == 0
    assert trace.read_req(tmp_path / "x.req").tolist() == [33, 100]


@pytest.mark.parametrize(
    ("rows", "arguments", "said"),
    [
        ("1e10,1\n2e10,3\n", ["--seconds", "1"], "the files span 20,000,000,000 values of 1 s, more than"),
        ("0,1e-310\n60,0\n", [], "the largest value is 1e-310 requests, too few to be scaled"),
        ("-7e10,1\n-6e10,1\n", [], "counts.csv:2: expected a time, found '-7e10'"),
        (None, [], "counts.csv: no such file\n"),
    ],
)
def test_counts_that_make_no_trace_end_the_script_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: str | None, arguments: list[str], said: str
) -> None:
    if rows is not None:
        (tmp_path / "counts.csv").write_text("time,requests\n" + rows, encoding="utf-8")
    files = [str(tmp_path / "counts.csv"), "--out", str(tmp_path / "x.req")]
    assert worldcup98.main([*files, *arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error and "make_trace" not in error
    assert not (tmp_path / "x.req").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seconds", "9" * 23], "--seconds: expected an integer from 1 to 31,622,400, found"),
        (["--seconds", "0"], "--seconds: expected an integer from 1 to 31,622,400, found '0'"),
        (["--seconds", "9" * 5000], "--seconds: expected an integer from 1 to 31,622,400, found"),
        (["--max-users", "9" * 23], "--max-users: expected an integer from 1 to 1,000,000,000, found"),
        (["--max-users", "-1"], "--max-users: expected an integer from 1 to 1,000,000,000, found '-1'"),
        (["--out", "x.csv.gz"], "--output/--out: expected a name that ends in .req (users) or .csv"),
        (["--out", "x.json"], "--output/--out: expected a name that ends in .req (users) or .csv"),
    ],
)
def test_a_flag_beyond_its_bounds_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        worldcup98.main(["log", "--out", "x.req", *arguments])
    assert ended.value.code == 2 and said in capsys.readouterr().err.splitlines()[-1]


def test_the_real_counts_keep_their_peak_and_sum(tmp_path: Path) -> None:
    if not WORLDCUP98.exists():
        pytest.skip(WORLDCUP98_MISSING)
    counts = worldcup98.count([WORLDCUP98], 60)
    with WORLDCUP98.open(encoding="utf-8") as file:
        rows = {row["time"]: float(row["requests"]) for row in csv.DictReader(file)}
    assert len(counts.values) >= len(rows)
    assert counts.values.max() == pytest.approx(max(rows.values())) == pytest.approx(229_426)
    assert counts.values.sum() == pytest.approx(
        sum(rows.values()), rel=2e-6
    )  # the few missing minutes are bridged
    assert (
        worldcup98.main(
            [
                str(WORLDCUP98),
                "--out",
                str(tmp_path / "wc.req"),
                "--start",
                "1998-06-30",
                "--end",
                "1998-07-01",
            ]
        )
        == 0
    )
    users = trace.read_req(tmp_path / "wc.req")
    assert (len(users), users.max()) == (1440, 100)


# --------------------------------------------------------------------------------------------- a small server
class Application(ThreadingHTTPServer):
    """Answers an application's URLs as the testbed does, asks for its token, and remembers what was asked."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name = name
        self.lock = threading.Lock()
        self.asked: list[tuple[int, str]] = []
        """Port of the client (one connection: one user) and endpoint."""
        self.unknown: list[str] = []
        self.refused: list[str] = []
        self.tokens: set[str] = set()
        self.expire_after = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self) -> Counter[str]:
        with self.lock:
            return Counter(endpoint for _, endpoint in self.asked)

    def reply(self, port: int, method: str, path: str, token: str) -> tuple[int, dict[str, str], bytes]:
        route = routes.route_of(self.name, method, path)
        with self.lock:
            if route is None:
                self.unknown.append(f"{method} {path}")
                return 404, {}, b""
            self.asked.append((port, route.endpoint))
            if needs_token(route.endpoint) and self.name == "train_ticket" and token not in self.tokens:
                self.refused.append(route.endpoint)
                return 403, {}, b""
            if route.redirect:
                return 302, {"Location": self.url + route.redirect}, b""
            given = secrets.token_hex(8)
            if route.endpoint == "POST /users/login":
                self.tokens.add(given)
            elif self.expire_after and len(self.asked) > self.expire_after:
                self.expire_after = 0
                self.tokens.clear()
        kind, body = answers.answer(self.name, route.endpoint, given)
        return 200, {"Content-Type": kind}, body


def needs_token(endpoint: str) -> bool:
    return endpoint not in {"GET /verifycode", "POST /users/login"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer, else delayed acknowledgements make each take 40 ms

    def respond(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        status, headers, body = cast(Application, self.server).reply(
            self.client_address[1], self.command, self.path, token
        )
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = respond

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Any]:
    running: list[Application] = []

    def start(name: str) -> Application:
        server = Application(name)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def sendloop(arguments: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("SENDFLOW_", "LOCUST_"))
    }
    return subprocess.Popen(
        ["sh", str(SENDLOOP), *arguments],
        env={**clean, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 45.0) -> str:
    """Its output once it has ended; killed, children included, when it doesn't."""
    try:
        return process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def rows_of(directory: Path, suffix: str = "_stats.csv") -> list[list[dict[str, str]]]:
    """The rows of each pass."""
    found = []
    for path in sorted(directory.glob(f"*{suffix}")):
        with path.open(encoding="utf-8", newline="") as file:
            found.append(list(csv.DictReader(file)))
    return found


def requests_in(rows: list[dict[str, str]]) -> Counter[str]:
    """Requests by endpoint."""
    return Counter({f"{row['Type']} {row['Name']}": int(row["Request Count"]) for row in rows if row["Type"]})


def small_trace(tmp_path: Path, *values: int) -> str:
    trace.write_req(tmp_path / "small.req", list(values))
    return str(tmp_path / "small.req")


def living(group: int) -> list[str]:
    """Command lines of the processes of a session that aren't zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = entry.joinpath("stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == group and state != "Z":
                found.append(entry.joinpath("cmdline").read_text().replace("\0", " "))
        except (OSError, ValueError):
            continue
    return found


# ------------------------------------------------------------------------------------------------- the script
def test_sendloop_is_posix_shell() -> None:
    for shell in ("sh", "dash"):
        try:
            subprocess.run([shell, "-n", str(SENDLOOP)], check=True, timeout=10)
        except FileNotFoundError:
            continue
    text = SENDLOOP.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/sh\n")
    for word in ("[[", "function ", "local ", "$'", "<<<", "&>", "pkill", "killall"):
        assert word not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--application", "sockshop"], "expected boutique, boutique_real, bookinfo or train_ticket"),
        (["--trace", "none.req"], "--trace none.req: no such file"),
        (["--workers", "two"], "--workers: expected an integer from 0 to 1000, found 'two'"),
        (["--workers", "1001"], "--workers: expected an integer from 0 to 1000, found '1001'"),
        (["--passes", "9" * 20], "--passes: expected an integer from 0 to 999999999, found '9999"),
        (["--passes", ""], "--passes: expected an integer from 0 to 999999999, found ''"),
        (["--passes", "-1"], "--passes: expected an integer from 0 to 999999999, found '-1'"),
        (["--master-port", "99999"], "--master-port: expected an integer from 1 to 65535, found '99999'"),
        (["--master-port", "0"], "--master-port: expected an integer from 1 to 65535, found '0'"),
        (["--host", ""], "--host '': expected a URL such as http://localhost:30001"),
        (["--host", "localhost:9"], "--host 'localhost:9': expected a URL such as http://localhost:30001"),
        (["--host", "ftp://localhost"], "--host 'ftp://localhost': expected a URL such as http://"),
        (["--host", "http://:80"], "--host 'http://:80': expected a URL such as http://localhost:30001"),
        (["--host", "http://a b"], "--host 'http://a b': expected a URL such as http://localhost:30001"),
        (["--host"], "--host: a value is missing"),
        (["--users", "3"], "unknown argument --users"),
    ],
)
def test_sendloop_refuses_what_it_does_not_know(arguments: list[str], said: str) -> None:
    process = sendloop(arguments)
    assert said in finish(process)
    assert process.returncode == 2


def test_sendloop_says_its_defaults() -> None:
    process = sendloop(["--help"])
    said = finish(process)
    assert process.returncode == 0
    for word in ("http://localhost:30001", "sendFlow/random-100max.req", "boutique", "--workers", "Ctrl-C"):
        assert word in said


TASKS = """
import importlib, json, sys
found = {}
for module, names in (
    ("load_generator", ["BoutiqueUser", "BoutiqueRealUser", "BookinfoUser"]),
    ("load_generator_train", ["TrainTicketUser"]),
):
    for name in names:
        user = getattr(importlib.import_module("sendFlow." + module), name)
        weights = {task.__name__: user.tasks.count(task) for task in user.tasks}
        bases = [base.__name__ for base in user.__mro__]
        found[user.application] = [weights, user.host, user.wait_time(None), bases]
print(json.dumps(found))
"""


def test_tasks_weights_and_waits_are_those_of_the_virtual_users() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TASKS], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert set(found) == set(APPLICATIONS)
    for name, (weights, host, wait, bases) in found.items():
        assert weights == {task: declared["weight"] for task, declared in APPLICATIONS[name]["tasks"].items()}
        think = APPLICATIONS[name]["think_seconds"]
        low, high = think if isinstance(think, list) else (think, think)
        assert low <= wait <= high and (low, high) == ((1, 10) if name == "boutique_real" else (1, 1))
        assert host == "http://localhost:30001" and "FastHttpUser" in bases
    assert found["boutique"][0] == {
        "index": 1,
        "setCurrency": 2,
        "browse": 10,
        "viewCart": 2,
        "addToCart": 3,
        "checkout": 1,
    }


def test_the_pure_parts_do_not_import_locust() -> None:
    pure = ["flags", "trace", "shapes", "routes", "answers", "worldcup98", "make_trace"]
    imports = ", ".join(["sys", "testbed.shapes", *(f"sendFlow.{name}" for name in pure)])
    code = f"import {imports}; print([name for name in ('locust', 'gevent') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


CHOOSE = """
import json, sys
from deepscaler.errors import SettingsError
from sendFlow.load_generator import application_of
said = {}
for text in sys.argv[1:]:
    try:
        said[text] = application_of(text)
    except SettingsError as error:
        said[text] = str(error)
print(json.dumps(said))
"""
CHOICES = {
    "boutique": "boutique",
    "config/bookinfo.yaml": "bookinfo",
    "config/demo.yaml": "boutique",
    "config/live.yaml": "boutique",
    "config/bookinfo_scenarios.yaml": "bookinfo",
    "{0}/own.yml": "bookinfo",
    "train_ticket": "train_ticket: .*sendLoop.sh --application train_ticket",
    "config/train_ticket.yaml": "train_ticket.yaml: .*sendLoop.sh --application train_ticket",
    "config/train_ticket_scenarios.yaml": "scenarios.yaml: .*sendLoop.sh --application train_ticket",
    "config/boutique_real.yaml": "boutique_real",
    "sockshop": "sockshop: expected one of boutique, boutique_real, bookinfo or train_ticket",
    "{0}/none.yaml": "none.yaml: no such file",
    "{0}/bare.yaml": "bare.yaml: expected testbed.application",
    "{0}/number.yaml": "number.yaml: expected testbed.application",
    "{0}/text.yaml": "text.yaml: expected testbed.application",
    "{0}/broken.yaml": "broken.yaml: .*not valid YAML",
    "{0}/circle.yaml": "circle",
}
"""What `--application` may be given, and the application or what is said."""


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process makes of all `CHOICES`."""
    directory = tmp_path_factory.mktemp("choices")
    for name, text in {
        "own.yml": "testbed: {application: bookinfo}",
        "bare.yaml": "app: {name: shop}",
        "number.yaml": "testbed: {application: 3}",
        "text.yaml": "testbed: boutique",
        "broken.yaml": "testbed: {",
        "circle.yaml": "extends: circle.yaml",
    }.items():
        (directory / name).write_text(text + "\n", encoding="utf-8")
    given = [choice.format(directory) for choice in CHOICES]
    command = [sys.executable, "-c", CHOOSE, *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    said = json.loads(done.stdout.splitlines()[-1])
    return {choice: said[text] for choice, text in zip(CHOICES, given, strict=True)}


@pytest.mark.parametrize("choice", CHOICES)
def test_an_application_is_a_name_or_a_yaml_that_may_extend_another(
    chosen: dict[str, str], choice: str
) -> None:
    if CHOICES[choice] in {"boutique", "boutique_real", "bookinfo"}:
        assert chosen[choice] == CHOICES[choice]
    else:
        assert re.search(CHOICES[choice], chosen[choice]) and "\n" not in chosen[choice]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--idle-steps", "99999999999"], "--idle-steps: expected an integer from 0 to 100,000, found"),
        (["--loop", "9" * 400], "--loop: expected an integer from 0 to 1,000,000,000, found"),
        (["--period", "1e-300"], "--period: expected a number from 0.001 to 10,000,000, found '1e-300'"),
        (["--scale", "inf"], "--scale: expected a number from 1e-09 to 1,000,000,000, found 'inf'"),
        (["--scale", "1e9"], "with --scale 1e+09 it reaches 1e+11 users, more than 1,000,000,000; lower"),
    ],
)
def test_locust_refuses_a_load_beyond_all_bounds(arguments: list[str], said: str) -> None:
    locust = [sys.executable, "-m", "locust", "-f", "sendFlow/load_generator.py", "--headless"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SENDFLOW_")}
    done = subprocess.run(
        [*locust, "--host", "http://127.0.0.1:9", *arguments],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in {1, 2}
    assert said in done.stderr and "Traceback" not in done.stderr


# ----------------------------------------------------------------------------------------------------- locust
def sequences(server: Application) -> dict[int, list[str]]:
    """What each connection asked, in order."""
    found: dict[int, list[str]] = {}
    for port, endpoint in server.asked:
        found.setdefault(port, []).append(endpoint)
    return found


@pytest.mark.live
@pytest.mark.parametrize("application", ["boutique", "bookinfo"])
def test_a_pass_asks_what_the_virtual_users_ask_and_counts_what_the_server_counts(
    serve: Any, tmp_path: Path, application: str
) -> None:
    server = serve(application)
    chosen = application if application == "bookinfo" else str(ROOT / "config" / "boutique.yaml")
    settings = {
        "SENDFLOW_HOST": server.url,
        "SENDFLOW_APPLICATION": chosen,
        "SENDFLOW_PERIOD": "1.1",
        "SENDFLOW_IDLE_STEPS": "0",
    }
    process = sendloop(
        ["--passes", "1", "--trace", small_trace(tmp_path, 4, 8), "--output", str(tmp_path)], settings
    )
    said = finish(process)
    assert process.returncode == 0, said
    [rows] = rows_of(tmp_path)
    assert server.count() and requests_in(rows) == server.count()
    assert not server.unknown and not any(int(row["Failure Count"]) for row in rows)
    assert set(server.count()) <= set(APPLICATIONS[application]["endpoints"])
    tasks = [task["requests"] for task in APPLICATIONS[application]["tasks"].values()]
    for asked in sequences(server).values():
        assert splits_into(asked, tasks), asked
    assert len(sequences(server)) >= 8
    assert max(int(row["User Count"]) for row in rows_of(tmp_path, "_stats_history.csv")[0]) == 8


def splits_into(asked: list[str], tasks: list[list[str]]) -> bool:
    """Whether a user's requests are whole tasks, one after the other."""
    reached = {0}
    for at in range(len(asked)):
        if at in reached:
            reached |= {at + len(task) for task in tasks if asked[at : at + len(task)] == task}
    return len(asked) in reached


@pytest.mark.live
def test_train_ticket_users_log_in_and_use_the_token_they_were_given(serve: Any, tmp_path: Path) -> None:
    server = serve("train_ticket")
    server.expire_after = 120
    arguments = [
        "--application",
        "train_ticket",
        "--host",
        server.url,
        "--passes",
        "1",
        "--period",
        "2",
        "--output",
        str(tmp_path),
    ]
    process = sendloop([*arguments, "--trace", small_trace(tmp_path, 40, 40), "--", "--idle-steps", "0"])
    said = finish(process)
    assert process.returncode == 0, said
    [rows] = rows_of(tmp_path)
    assert requests_in(rows) == server.count() and not server.unknown
    assert len(sequences(server)) >= 40
    assert all(asked[:2] == ["GET /verifycode", "POST /users/login"] for asked in sequences(server).values())
    failed = sum(int(row["Failure Count"]) for row in rows if row["Type"])
    assert failed == len(server.refused) > 0  # the tokens that expired half-way, and nothing else
    assert server.asked[-1][1] and len(server.refused) < 100 < len(server.asked) - server.expire_after
    for endpoint in ("POST /trips/left", "POST /trips2/left", "POST /preserve", "POST /inside_payment"):
        assert server.count()[endpoint], server.count()


@pytest.mark.live
def test_two_workers_give_the_totals_that_the_server_counts(serve: Any, tmp_path: Path) -> None:
    server = serve("boutique")
    arguments = [
        "--host",
        server.url,
        "--workers",
        "2",
        "--passes",
        "1",
        "--period",
        "1.1",
        "--output",
        str(tmp_path),
    ]
    process = sendloop(
        [*arguments, "--trace", small_trace(tmp_path, 6, 6), "--master-port", str(free_port())],
        {"SENDFLOW_IDLE_STEPS": "0"},
    )
    said = finish(process)
    assert process.returncode == 0, said
    [rows] = rows_of(tmp_path)
    assert server.count() and requests_in(rows) == server.count()
    assert len(sequences(server)) == 6
    assert living(process.pid) == []


@pytest.mark.live
@pytest.mark.parametrize(("sent", "workers"), [(signal.SIGINT, "0"), (signal.SIGTERM, "2")])
def test_ctrl_c_leaves_no_child_and_a_whole_csv(
    serve: Any, tmp_path: Path, sent: signal.Signals, workers: str
) -> None:
    server = serve("boutique")
    arguments = [
        "--host",
        server.url,
        "--workers",
        workers,
        "--output",
        str(tmp_path),
        "--master-port",
        str(free_port()),
    ]
    process = sendloop(
        [*arguments, "--trace", small_trace(tmp_path, *[3] * 50)], {"SENDFLOW_IDLE_STEPS": "0"}
    )
    deadline = time.monotonic() + 30
    while sum(server.count().values()) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(living(process.pid)) == 2 + int(workers)
    os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)
    said = finish(process, 25)
    assert process.returncode == 0 and "stopped" in said, said
    assert living(process.pid) == []
    [rows] = rows_of(tmp_path)
    assert requests_in(rows) == server.count()


@pytest.mark.live
def test_a_dead_gateway_is_counted_as_failures_and_the_loop_goes_on(tmp_path: Path) -> None:
    arguments = [
        "--host",
        f"http://127.0.0.1:{free_port()}",
        "--passes",
        "2",
        "--output",
        str(tmp_path),
        "--period",
        "1",
    ]
    process = sendloop([*arguments, "--trace", small_trace(tmp_path, 2)], {"SENDFLOW_IDLE_STEPS": "0"})
    said = finish(process)
    assert process.returncode == 0, said
    passes = rows_of(tmp_path)
    assert len(passes) == 2 and all(sum(requests_in(rows).values()) >= 2 for rows in passes)
    for rows in passes:
        assert all(row["Request Count"] == row["Failure Count"] for row in rows)


def test_a_broken_trace_ends_locust_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.req").write_text("3\nmany\n", encoding="utf-8")
    process = sendloop(
        ["--host", "http://127.0.0.1:9", "--output", str(tmp_path), "--trace", str(tmp_path / "bad.req")]
    )
    said = finish(process)
    assert process.returncode == 2
    assert "load shape:" in said and "bad.req:2" in said and "Traceback" not in said
    assert living(process.pid) == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
