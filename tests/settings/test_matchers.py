"""Label matchers that Prometheus would refuse at the first query are refused when settings are read."""

from __future__ import annotations

import pytest
import requests
from helpers.needs import had

from deepscaler.errors import SettingsError
from deepscaler.settings import load_settings
from deepscaler.settings.matchers import check_matchers
from testbed.live import prometheus_server

TAKEN = [
    "",
    ' a = "b" , c!="(" ,',
    r'a=~"b|c-.*",d!~"\\d+\\.x"',
    r'a=~"\\p{Greek}[[:alpha:]\\pL]+\\x{e9}\\z"',
    r'a=~"x(?i)y(?s-i:.)(?P<n>z){2,3}?(?P<n>z)[\\d-z]"',
    r'a=~"\\Qa(b\\E[]a+*(?=]\\("',
    r'a="\u00e9\x41\101\n\""',
    r'a=~"\\++?"',
    'a=~""',
]


@pytest.mark.parametrize("text", TAKEN)
def test_what_prometheus_takes_is_taken(text: str) -> None:
    assert check_matchers(text) == text


REFUSED = [
    ("prod", "expected matchers such as"),
    ("a='b'", "expected matchers such as"),
    (',a="b"', "expected matchers such as"),
    ('a="b",,c="d"', "expected matchers such as"),
    ('a="b" c="d"', "expected a comma before"),
    ('__name__="up"', "name their metrics themselves"),
    (r'a="b\.c"', r"no escape \.; in double quotes a backslash is written twice (\\.)"),
    (r'a="\ud800"', "is no character"),
    ('a=~"("', "missing )"),
    ('ok="b",a=~"[b"', 'a=~"[b": no regular expression of Prometheus (RE2): unterminated'),
    ('a!~"*x"', "nothing to repeat"),
    (r'a=~"\\"', "bad escape"),
    ('a=~"[z-a]"', "bad character range"),
    ('a=~"x{2,1}"', "min repeat greater"),
    ('a=~"x{1001}"', "repeats more than 1000 times"),
    ('a=~"(?!x)y"', "no look-around"),
    ('a=~"(?<=x)y"', "no look-around"),
    ('a=~"(?>x)"', "takes nothing back"),
    ('a=~"x++"', "takes nothing back"),
    (r'a=~"(x)\\1"', "refers to a group"),
    (r'a=~"x\\Z"', "not in RE2"),
    (r'a=~"\\C"', "not in RE2"),
    (r'a=~"\\u0041"', "not in RE2"),
    (r'a=~"\\x{110000}"', "no character"),
    ('a=~"[[:nope:]]"', "no class of characters"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED)
def test_what_prometheus_refuses_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError) as error:
        check_matchers(text)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_real_prometheus_takes_and_refuses_the_same() -> None:
    ours = {"a='b'", '__name__="up"'}  # it takes these, and we don't
    had(prometheus_server.install)
    with prometheus_server.running() as server:
        for text, taken in [*((one, True) for one in TAKEN), *((one, False) for one, _ in REFUSED)]:
            query = {"query": f"count({{job='j',{text}}})" if text else "count(up)"}
            answer = requests.get(f"{server.url}/api/v1/query", params=query, timeout=5).json()
            assert (answer["status"] == "success") == (taken or text in ours), (text, answer)


def test_the_message_names_the_key() -> None:
    with pytest.raises(SettingsError, match=r"cluster\.prometheus\.matchers: job=~\"a\(\": no regular"):
        load_settings("config/boutique.yaml", ["cluster.prometheus.matchers='job=~\"a(\"'"])
