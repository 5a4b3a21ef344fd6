"""Label and field selectors of list, watch and deletecollection."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from testbed.kubernetes_api.status import Object, bad_request

Test = Callable[[Object], bool]
_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|[^\s=!,()]+)")


class _Tokens:
    """The words of a label selector, one at a time."""

    def __init__(self, text: str) -> None:
        self._words = _TOKEN.findall(text)
        self._at = 0

    def peek(self) -> str:
        return self._words[self._at] if self._at < len(self._words) else ""

    def take(self) -> str:
        word = self.peek()
        self._at += 1
        return word

    def expect(self, fits: bool, wanted: str) -> None:
        if not fits:
            raise bad_request(f"found '{self.peek()}', expected: {wanted}")


def _is_word(token: str) -> bool:
    return bool(token) and token not in ("==", "!=", "=", "!", ",", "(", ")")


def labels(text: str) -> Test:
    """The test that a label selector such as `app=web,tier in (a,b),!canary` stands for.

    Raises:
        Refused: 400 if it can't be read.
    """
    if not text.strip():
        return lambda _: True
    tokens = _Tokens(text)
    tests = [_requirement(tokens)]
    while tokens.peek():
        tokens.expect(tokens.peek() == ",", "',' or 'end of string'")
        tokens.take()
        tests.append(_requirement(tokens))
    return lambda obj: all(test(obj["metadata"].get("labels") or {}) for test in tests)


def _requirement(tokens: _Tokens) -> Callable[[Mapping[str, str]], bool]:
    negated = tokens.peek() == "!"
    if negated:
        tokens.take()
    tokens.expect(_is_word(tokens.peek()), "identifier" if negated else "!, identifier, or 'end of string'")
    key = tokens.take()
    if negated:
        return lambda found: key not in found
    sign = tokens.peek()
    if sign in ("", ","):
        return lambda found: key in found
    tokens.expect(sign in ("=", "==", "!=", "in", "notin"), "in, notin, =, ==, !=, gt, lt")
    tokens.take()
    if sign in ("in", "notin"):
        values = _values(tokens)
        return (
            (lambda found: found.get(key) in values)
            if sign == "in"
            else (lambda found: found.get(key) not in values)
        )
    value = tokens.take() if _is_word(tokens.peek()) else ""
    return (
        (lambda found: found.get(key) != value) if sign == "!=" else (lambda found: found.get(key) == value)
    )


def _values(tokens: _Tokens) -> set[str]:
    tokens.expect(tokens.peek() == "(", "'('")
    tokens.take()
    values = set()
    while tokens.peek() not in (")", ""):
        if tokens.peek() == ",":
            tokens.take()
            continue
        tokens.expect(_is_word(tokens.peek()), "identifier")
        values.add(tokens.take())
    tokens.expect(tokens.peek() == ")", "',' or ')'")
    tokens.take()
    return values


def fields(text: str, known: Sequence[str]) -> Test:
    """The test that a field selector such as `metadata.name=web,status.phase!=Running` stands for.

    Raises:
        Refused: 400 if it can't be read, or names a field that objects can't be selected by.
    """
    allowed = ["metadata.name", "metadata.namespace", *known]
    tests: list[Test] = []
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"([^=!]+)(!=|==|=)([^=!]*)", part)
        if found is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        key, sign, value = found.groups()
        if key not in allowed:
            listed = ", ".join(f'"{name}"' for name in allowed)
            raise bad_request(f'"{key}" is not a known field selector: only {listed}')
        tests.append(_field_test(key, sign != "!=", value))
    return lambda obj: all(test(obj) for test in tests)


def _field_test(key: str, equal: bool, value: str) -> Test:
    return lambda obj: (_value(obj, key) == value) == equal


def _value(obj: Object, key: str) -> str:
    found: Any = obj
    for step in key.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    if key == "source" and isinstance(found, dict):
        found = found.get("component")
    return "" if found is None else str(found).lower() if isinstance(found, bool) else str(found)
