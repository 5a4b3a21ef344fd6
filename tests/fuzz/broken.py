"""Strategies for broken inputs: sound ones in which something was changed."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

FUZZ = hypothesis_settings.get_profile("fuzz")
ODD_TEXTS = st.sampled_from(
    [
        *("", " ", "null", "NaN", "inf", "-1", "0", "1e999", "9" * 40, "x", "../kube-system", "a\nb", "\x00"),
        *("2026-01-05T00:00:00Z", "0001-01-01T00:00:00", "9999-12-31T23:59:59+14:00", "ä€😀", "%s{0}{x}"),
        *("250m", "-5Gi", "1e30Ei", "web", "web-5d9c5b8f6d-00000", "[" * 300, "a" * 3000),
    ]
)
ODD_NUMBERS = st.sampled_from([0, 1, -1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e300, -1e300, 5e-324, 1767571200])
ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    ODD_NUMBERS,
    ODD_TEXTS,
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8).filter(lambda text: text.isprintable()),
    st.just([]),
    st.just({}),
    st.lists(ODD_TEXTS | ODD_NUMBERS | st.none(), max_size=3),
    st.dictionaries(ODD_TEXTS, ODD_TEXTS | st.none(), max_size=2),
)
"""Values that a program expects least."""


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in members:
        found += _places(item, (*at, key))
    return found


_EDITS = st.lists(
    st.tuples(
        st.integers(0, 2**16), st.sampled_from(["replace", "replace", "replace", "delete", "double"]), ODD
    ),
    max_size=3,
)


def changed(sound: Any) -> st.SearchStrategy[Any]:
    """JSON values like `sound` in which up to three parts are replaced, taken out or doubled."""

    def edited(edits: list[tuple[int, str, Any]]) -> Any:
        value = copy.deepcopy(sound)
        for number, how, odd in edits:
            places = _places(value)
            if places:
                *parents, last = places[number % len(places)]
                holder = value
                for part in parents:
                    holder = holder[part]
                _edit(holder, last, how, odd)
        return value

    return _EDITS.map(edited)


def _edit(holder: Any, last: Any, how: str, odd: Any) -> None:
    if how == "replace":
        holder[last] = copy.deepcopy(odd)
    elif how == "delete":
        del holder[last]
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(holder[last]))
    else:
        holder[f"{last}2"] = copy.deepcopy(holder[last])


def torn(sound: bytes, tokens: list[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes like `sound` in which up to three pieces are inserted, taken out or replaced."""
    pieces = st.sampled_from([*tokens, *tokens, b"", b"\x00", b"\xff\xfe", b"9" * 40]) | st.binary(max_size=4)
    lengths = st.sampled_from([0, 0, 1, 2, 5, 30])

    def edited(edits: list[tuple[int, int, bytes]]) -> bytes:
        value = sound
        for number, length, piece in edits:
            start = number % (len(value) + 1)
            value = value[:start] + piece + value[start + length :]
        return value[: len(value) // 2] if len(edits) == 3 and edits[0][0] % 4 == 0 else value

    return st.lists(st.tuples(st.integers(0, 2**20), lengths, pieces), max_size=3).map(edited)


def json_texts(sound: Any) -> st.SearchStrategy[bytes]:
    """Bodies of HTTP answers: mostly JSON in which something was changed, else bytes that are no JSON."""
    text = json.dumps(sound).encode()
    return changed(sound).map(lambda value: json.dumps(value).encode()) | torn(
        text, [b"{", b"[", b'"', b",", b"null"]
    )
