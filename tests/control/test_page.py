"""The page to watch: what it is told, that it is safe to serve, and what a browser makes of it."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from importlib import resources

import numpy as np
import pytest
import requests
from helpers.browser import DESKTOP, PHONE, Browser
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings
from helpers.seer import BUDGET, Seer, watched
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from deepscaler.control import http_port, story
from deepscaler.control.controller import Controller
from deepscaler.control.http_port import MOST_STREAMS
from deepscaler.control.sentences import PHRASES
from deepscaler.control.serving import Routes, serving
from deepscaler.control.story import Stories
from deepscaler.control.watch import Watch
from deepscaler.control.watching import FILES, Page
from deepscaler.errors import ClusterError
from deepscaler.policies.base import Reason
from deepscaler.scrubbing import hide

UPLOT = {
    "uplot.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uplot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}
"""uPlot 1.6.32 as its package has it: dist/uPlot.iife.min.js, dist/uPlot.min.css and LICENSE."""


class Served:
    """A controller whose page is served."""

    def __init__(self, url: str, policy: Seer, watch: Watch) -> None:
        self.url, self.policy, self.watch = url, policy, watch

    def tick(self, wants: float) -> None:
        self.policy.wants = wants
        self.watch.controller.run(15.0)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    _, policy, watch = watched(400.0)
    with http_port.http_port("127.0.0.1", 0, Routes(watch), "scale.metrics_port") as port:
        yield Served(f"http://127.0.0.1:{port}/", policy, watch)


def answers(address: str, port: int) -> int:
    return requests.get(f"http://{address}:{port}/", timeout=5).status_code


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("localhost", ["127.0.0.1"]),
        ("", ["127.0.0.1"]),
        ("::1", ["[::1]"]),
        ("::", ["[::1]", "127.0.0.1"]),
    ],
)
def test_it_is_served_over_ipv4_and_ipv6(address, reached):
    if ":" in address:
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"this machine has no IPv6: {error}")
    ok = http_port.Answer(200, http_port.PLAIN, b"ok\n")
    with http_port.http_port(address, 0, lambda _path: ok, "port") as port:
        assert [answers(host, port) for host in reached] == [200] * len(reached)


def refused(**of_scale: object) -> str:
    """What is said where this can't be served."""
    settings = make_settings(**of_scale)
    controller = Controller(FakeCluster(), ScriptedPolicy(lambda _now, _service: 3.0), settings)
    with pytest.raises(ClusterError) as error, serving(controller, settings):
        pass
    return str(error.value)


@pytest.mark.parametrize(
    ("address", "shown"),
    [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "[2001:db8::1]"), ("no..name", "no..name")],
)
def test_an_address_that_cant_be_served_names_its_own_setting(address, shown):
    said = refused(metrics_port=30999, metrics_address=address)
    assert f"served on {shown}:30999 (" in said and said.endswith("set scale.metrics_address")


def test_a_port_that_is_taken_names_its_own_setting():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert refused(metrics_port=taken.getsockname()[1]).endswith("set scale.metrics_port")


def messages(served: Served, count: int) -> Iterator[tuple[str, dict]]:
    """The first `count` events of a stream, without its pulses."""
    with requests.get(f"{served.url}events", stream=True, timeout=10) as answer:
        while count:
            name, data, _ = (answer.raw.readline().decode().strip().partition(": ")[2] for _ in range(3))
            if name != "pulse":
                count -= 1
                yield name, json.loads(data)


# ------------------------------------------------------------------------------------------------ the story
def test_every_reason_has_a_sentence() -> None:
    assert set(PHRASES) == set(Reason)


def test_the_story_tells_the_past_and_what_is_foreseen() -> None:
    _, _, watch = watched(400.0)
    told = json.loads(Stories(watch).newest().text())
    assert told["about"]["services"] == ["web", "api", "db"]
    assert told["about"]["entries"] == [{"service": "web", "sla": 0.2}]
    time_, load, foreseen, responses, ready, proposed, floor, applied = told["past"][-1]
    assert (time_, load, foreseen) == (watch.snapshot.now, 10.0, 12.0)
    assert responses == pytest.approx([0.05])
    assert (ready, proposed, floor, applied) == ([6] * 3, [6] * 3, [5] * 3, [6] * 3)
    now = told["now"]
    assert now["services"][0]["why"] == "web stays at 6: 6 needed in 90 s in 40 of 48 scenarios."
    assert now["band"]["middle"] == [12.0] * 40 and now["plan"]["services"][0][2] == [7.0] * 40
    assert now["plan"]["services"][1] is None and now["season"] == 720.0
    assert [(source["name"], source["weight"]) for source in now["sources"]] == [
        ("season", 0.75), ("network", 0.25), ("all", None),
    ]  # fmt: skip
    assert now["sources"][1]["done"][0]["error"] == pytest.approx(0.5)
    budget = {"asked": 30.0, "consumed": 12.0, "unit": BUDGET, "price": 130.0, "note": "kept"}
    assert now["budget"] == budget
    assert now["model"]["calls"] == [[0, 1, 1.0]] and now["model"]["influence"] == [[0, 2, 1.0]]


def test_what_the_metrics_say_of_the_time_before_the_first_tick_is_shown() -> None:
    """The controller starts with ten minutes of metrics: load and ready pods are known, decisions aren't."""
    _, _, watch = watched(20.0)
    past = json.loads(Stories(watch).newest().text())["past"]
    assert len(past) > 20 and past[0][1] == 10.0 and past[0][4] == [4, 4, 4]
    assert past[0][5] == past[0][7] == [None] * 3 and past[-1][7] == [6, 6, 6]


def test_what_isnt_known_is_null_and_a_large_past_is_thinned(monkeypatch) -> None:
    cluster = FakeCluster(values={("web", "req"): float("nan"), ("db", "cpu"): float("nan")})
    settings = make_settings()
    watch = Watch(Controller(cluster, Seer(lambda *_: None), settings), settings)
    empty = json.loads(Stories(watch).newest().text())
    assert (empty["past"], empty["now"]) == ([], None)
    watch.controller.policy.consumed = float("nan")
    watch.controller.run(60.0)
    told = json.loads(Stories(watch).newest().text())
    assert told["now"]["budget"]["consumed"] is None
    assert told["past"][-1][1] is None and told["now"]["inputs"]["oldest"]["age"] is None
    monkeypatch.setattr(story, "MOST_CELLS", 60)
    thinned = Stories(watch).newest().past
    assert len(thinned) <= 6 and thinned[-1][0] == told["past"][-1][0]


def test_secrets_stay_out_of_the_story() -> None:
    hide("hunter2-hunter2")
    _, policy, watch = watched(20.0)
    policy.why = "asked with hunter2-hunter2 and https://user:password@example.org"
    watch.controller.run(15.0)
    text = Stories(watch).newest().text()
    assert "hunter2" not in text and "password" not in text and "asked with" in text


# ----------------------------------------------------------------------------------------------- the server
def test_the_charts_library_is_the_one_that_was_pinned() -> None:
    directory = resources.files("deepscaler.control") / "page"
    assert {name: sha256((directory / name).read_bytes()).hexdigest() for name in UPLOT} == UPLOT
    assert b"uPlot (v1.6.32)" in (directory / "uplot.js").read_bytes()
    assert {item.name for item in directory.iterdir()} == {name for name, _ in FILES.values()}


def test_every_file_is_served_with_headers_that_let_nothing_in_from_outside(served) -> None:
    for path in (*FILES, "/metrics", "/healthz", "/nope"):
        answer = requests.get(served.url.rstrip("/") + path, timeout=5)
        assert answer.status_code == (404 if path == "/nope" else 200)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'") and "http" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] == "deepscaler "
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert requests.request(method, served.url, timeout=5).status_code == 501


def test_a_stream_begins_with_the_whole_story_and_goes_on_with_what_is_new(served) -> None:
    stream = messages(served, 2)
    name, first = next(stream)
    assert name == "story" and len(first["past"]) > 20
    served.tick(6.0)
    name, second = next(stream)
    assert name == "step" and "about" not in second
    assert [moment[0] for moment in second["past"]] == [served.watch.snapshot.now]


def test_a_stream_that_finds_the_clock_set_back_begins_anew() -> None:
    told = [story.Story({"app": "shop"}, [[time_]], {}) for time_ in (100.0, 160.0, 40.0)]
    asked = iter(told)
    parts = Page(lambda: next(asked, told[-1]), dict).events(threading.Event())
    found = [part for part in (next(parts) for _ in range(4)) if b"pulse" not in part]
    assert [part.split(b"\n")[0] for part in found] == [b"event: story", b"event: step", b"event: story"]


@pytest.mark.stress
def test_clients_are_few_and_slow_ones_are_cut_off(monkeypatch) -> None:
    """Whoever opens many streams, or speaks byte by byte, keeps neither the probes nor the ticks waiting."""
    monkeypatch.setattr(http_port, "LONGEST_SECONDS", 0.5)
    _, _, watch = watched(20.0)
    with ExitStack() as stack:
        port = stack.enter_context(http_port.http_port("127.0.0.1", 0, Routes(watch), "scale.metrics_port"))
        for _ in range(MOST_STREAMS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            client.sendall(b"GET /events HTTP/1.1\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.0 200 OK"
        refused = requests.get(f"http://127.0.0.1:{port}/events", timeout=5)
        assert refused.status_code == 503 and "too many watch" in refused.text
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 5)) for _ in range(40)]
        for client in slow:
            client.sendall(b"GET /metr")
        began = time.monotonic()
        watch.controller.run(150.0)  # none of them is answered while these ticks are made
        assert watch.controller.statistics.ticks == 12 and time.monotonic() - began < 5.0
        assert all(_closed(client) for client in slow)
        assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200


def _closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


# ---------------------------------------------------------------------------------------------- the browser
def wait_for(browser: Browser, script: str, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not browser.run(f"return Boolean({script})"):
        assert time.monotonic() < end, (script, browser.complaints())
        time.sleep(0.05)


DRAWN = "document.querySelectorAll('.service canvas').length === 3 && document.querySelector('#load canvas')"
NAME = "(one) => one.getAttribute('aria-label') || one.textContent || one.closest('label').textContent"
UPDATES = "Number(document.body.dataset.updates)"


def text_of(browser: Browser, id: str) -> str:
    return str(browser.run(f"return document.getElementById('{id}').textContent"))


def test_the_page_draws_itself_and_follows_the_ticks(served, browser) -> None:
    served.tick(6.0)
    browser.open(served.url)
    wait_for(browser, DRAWN)
    assert text_of(browser, "headline") == "All 3 services stay as they are, at 18 replicas in all."
    assert "foreseen at 12/s (9 to 13) by the season (75 %) and the network (25 %)" in text_of(
        browser, "foreseen"
    )
    assert text_of(browser, "season") == "The load repeats every 12 min."
    assert text_of(browser, "trials") == (
        "Followed on paper, the season would have cost least lately. In time of holding what was needed: "
        "several together 5 min more, the network's quantiles 15 min more."
    )
    assert "budget" in text_of(browser, "budget").lower() and "a1b2" in text_of(browser, "bundle")
    assert browser.run("return document.querySelectorAll('#influence path.new').length") == 1
    before = browser.run(f"return {UPDATES}")
    served.tick(9.0)
    wait_for(browser, f"{UPDATES} > {before}")
    assert text_of(browser, "headline") == (
        "DeepScaler changes 3 of 3 services to 27 replicas in all: web 6 → 9, api 6 → 9, db 6 → 9."
    )
    assert browser.complaints() == [] and browser.outside() == []


def test_the_page_is_worked_by_keyboard_alone(served, browser) -> None:
    browser.open(served.url)
    wait_for(browser, DRAWN)
    focus = "document.activeElement"
    keys = ActionChains(browser.driver)
    keys.send_keys(Keys.TAB).perform()
    assert browser.run(f"return {focus}.textContent") == "To the services"
    keys.send_keys(Keys.TAB, Keys.TAB, Keys.ENTER).perform()
    pressed = (
        "[...document.querySelectorAll('.ranges button')].map((one) => one.getAttribute('aria-pressed'))"
    )
    assert browser.run(f"return {pressed}") == ["false", "true", "false"]
    keys.send_keys(Keys.TAB, Keys.TAB, "db").perform()
    shown = "[...document.querySelectorAll('.service')].filter((one) => !one.hidden).length"
    assert browser.run(f"return {shown}") == 1
    keys.send_keys(Keys.TAB, Keys.SPACE).perform()
    wait_for(browser, "document.querySelectorAll('#table tbody tr').length === 3")
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_page_fits_a_phone_and_a_desk_by_day_and_by_night(served, browser, width, dark, tmp_path) -> None:
    browser.open(served.url, width, dark)
    wait_for(browser, "document.querySelector('#load canvas')")
    assert browser.overhang() == 0
    names = browser.run(f"return [...document.querySelectorAll('button, input, [role=img]')].map({NAME})")
    assert isinstance(names, list) and all(str(name).strip() for name in names)
    colors = "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    ink, ground = (
        np.array([int(part) for part in str(text)[4:-1].split(",")]) for text in browser.run(colors)
    )
    assert (ink.mean() > ground.mean()) == dark and math.fabs(ink.mean() - ground.mean()) > 120
    assert browser.complaints() == [] and browser.outside() == []


def test_a_controller_that_is_gone_is_told_on_the_page(browser) -> None:
    _, _, watch = watched(20.0)
    with http_port.http_port("127.0.0.1", 0, Routes(watch), "scale.metrics_port") as port:
        browser.open(f"http://127.0.0.1:{port}/")
        wait_for(browser, "document.querySelector('#state.well')")
    browser.run("state.heard -= 20000")
    wait_for(browser, "document.querySelector('#state.ill')")
    assert "no connection for" in text_of(browser, "state")
