r"""Label matchers of PromQL, read before Prometheus reads them: `cluster="prod", job!~"old|test-.*"`.

Prometheus refuses a matcher only when it is asked, and then refuses every query that carries it.

Source: PromQL's strings (Go's, https://prometheus.io/docs/prometheus/latest/querying/basics/#string-literals)
and the syntax of RE2 (https://github.com/google/re2/wiki/Syntax).
Differs: Python's `re` compiles what is translated into its syntax; a rare pattern that RE2 refuses may pass
    (an unknown script in \p{...}, repetitions of repetitions). Of strings, only those in double quotes pass.
"""

from __future__ import annotations

import re
import warnings

_MATCHER = re.compile(
    r'\s*(?P<label>[a-zA-Z_][a-zA-Z0-9_]*)\s*(?P<how>=~|!~|!=|=)\s*"(?P<value>([^"\\\n]|\\.)*)"\s*'
)
_ESCAPE = re.compile(
    r'\\(?:(?P<plain>[abfnrtv\\"])|(?P<octal>[0-3][0-7]{2})'
    r"|x(?P<byte>[0-9a-fA-F]{2})|u(?P<short>[0-9a-fA-F]{4})|U(?P<long>[0-9a-fA-F]{8})|(?P<wrong>.))"
)
_PLAIN = dict(zip('abfnrtv\\"', '\a\b\f\n\r\t\v\\"', strict=True))
_PIECE = re.compile(
    r"""\\Q(?P<literal>.*?)(?:\\E|$)
      |\\(?P<kind>[pP])(?:\{\^?\w+\}|[A-Z])
      |(?P<code>\\x\{[0-9a-fA-F]+\})
      |\\(?P<escape>.)
      |(?P<within>\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\])
      |\(\?P?<(?P<name>\w+)>
      |\(\?(?P<flags>[imsU]*(?:-[imsU]+)?)(?P<end>[:)])
      |(?P<group>\(\?.{1,2})
      |(?P<times>[*+?}]\+)
      |\{(?P<least>\d+)(?:,(?P<most>\d*))?\}""",
    re.VERBOSE | re.DOTALL,
)
_MOST_TIMES = 1000
_CLASSES = (
    *("alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space"),
    *("upper", "word", "xdigit"),
)


def check_matchers(text: str) -> str:
    """The text, if Prometheus takes it between the braces of a selector.

    Raises:
        ValueError: it doesn't; one line that says which matcher is wrong, and why.
    """
    at = 0
    while at < len(text.rstrip()):
        found = _MATCHER.match(text, at)
        if found is None:
            raise ValueError(
                f'expected matchers such as cluster="prod", job!~"old|test-.*"; found {text[at:].strip()!r}'
            )
        _check(found["label"], found["how"], found["value"])
        at = found.end()
        if at < len(text) and text[at] != ",":
            raise ValueError(f"expected a comma before {text[at:].strip()!r}")
        at += 1
    return text


def _check(label: str, how: str, value: str) -> None:
    where = f'{label}{how}"{value}"'
    if label == "__name__":
        raise ValueError(f"{where}: the queries name their metrics themselves")
    try:
        plain = _unquoted(value)
        if how in ("=~", "!~"):
            _compile(plain)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _unquoted(value: str) -> str:
    """What a string of PromQL means."""
    return _ESCAPE.sub(_character, value)


def _character(found: re.Match[str]) -> str:
    if found["wrong"]:
        raise ValueError(
            f"PromQL knows no escape {found[0]}; in double quotes a backslash is written twice (\\{found[0]})"
        )
    if found["plain"]:
        return _PLAIN[found["plain"]]
    code = int(found["octal"], 8) if found["octal"] else int(found[found.lastgroup or 0], 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise ValueError(f"{found[0]} is no character")
    return chr(code)


def _compile(pattern: str) -> None:
    """Refuse what is no regular expression of RE2."""
    try:
        translated = _PIECE.sub(_translated, pattern)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(translated)
    except (re.error, OverflowError, RecursionError) as error:
        reason = error.msg if isinstance(error, re.error) else str(error)
        raise ValueError(f"no regular expression of Prometheus (RE2): {reason}") from error


def _translated(found: re.Match[str]) -> str:
    """A piece of RE2's syntax in Python's, as far as it matters whether it can be read."""
    kind = found.lastgroup
    if kind in ("literal", "kind", "code"):
        return re.escape(found["literal"]) if kind == "literal" else _one(found[0])
    if kind == "escape":
        return _escape(found[0], found["escape"])
    if kind == "within":
        return _within(found[0])
    if kind == "name":
        return "("  # two groups may have one name
    if kind == "end":
        return "(?:" if found["end"] == ":" else ""
    if kind in ("group", "times"):
        raise re.error(f"{found[0]} is not in RE2, which has no look-around and takes nothing back")
    if max(int(found["least"]), int(found["most"] or 0)) > _MOST_TIMES:
        raise re.error(f"{found[0]} repeats more than {_MOST_TIMES} times")
    return found[0]


def _within(brackets: str) -> str:
    r"""Of the characters in brackets, the named become one, and a `-` after `\d` is a character."""
    plain = re.sub(r"(\\[dDwWsS])-", r"\1\\-", brackets)
    named = r"\[:\^?\w+:\]|\\[pP](?:\{\^?\w+\}|[A-Z])|\\x\{\w+\}"
    return re.sub(named, lambda piece: _one(piece[0]), plain)


def _one(text: str) -> str:
    """Stands for the named class, or the character by its number, that RE2 knows."""
    if text.startswith("[:") and text.strip("[:^]") not in _CLASSES:
        raise re.error(f"{text} is no class of characters")
    if text.startswith(r"\x{") and int(text[3:-1], 16) > 0x10FFFF:
        raise re.error(f"{text} is no character")
    return "x"


def _escape(text: str, letter: str) -> str:
    if letter.isdigit() and letter != "0":
        raise re.error(f"{text} refers to a group, which RE2 can't")
    if letter == "z":
        return r"\Z"
    if letter == "Z":
        raise re.error(r"\Z is not in RE2; the whole value has to match anyway")
    if letter in "CuUN":
        raise re.error(f"{text} is not in RE2")
    return text
