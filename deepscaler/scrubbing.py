"""Secrets are kept out of messages: what errors say and what is logged goes through `scrubbed`.

Two things are taken out of a text: every secret that was read from the settings or from the files that they
name, however it is written; and what looks like a secret, wherever it comes from: a user with a password in a
URL, a token among a URL's parameters, what follows `Bearer`, what `password` or `token` is said to be.
"""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote

HIDDEN = "…"
FEWEST_CHARACTERS = 8
"""A shorter secret is not searched for: it could be an ordinary word of a message."""
_SECRET_WORDS = "token|secret|passw|pwd|api[-_]?key|access[-_]?key|auth|credential|signature|cookie"
_SECRET_NAME = re.compile(_SECRET_WORDS, re.IGNORECASE)
_SECRET_KEYS = "password|passwd|token|client[-_]?secret|api[-_]?key|access[-_]?key|authorization"
_CODED = r"(?=\S*[\d+/=_-])|(?=\S(?-i:\S*[A-Z]))"
"""Begins what is no ordinary word: it has a digit or a sign in it, or a capital letter behind its first."""
_PATTERNS = (
    (re.compile(r"(?<=://)\S*@"), f"{HIDDEN}@"),
    (
        re.compile(rf"(?i)([?&;][^=&\s'\"]*(?:{_SECRET_WORDS}|key|sig)[^=&\s'\"]*=)[^&\s'\"<>()]+"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(rf"(?i)\b(bearer|basic)(\s+)(?:{_CODED}|(?=\S*\.))[^\s'\",;)]{{8,}}"), rf"\1\2{HIDDEN}"),
    (
        re.compile(
            rf"(?i)((?<![a-z])(?:{_SECRET_KEYS})[\"']?\s*[:=]\s*[\"']?(?:apikey\s+|token\s+)?)"
            rf"(?:{_CODED})[^\s'\",;)]{{8,}}"
        ),
        rf"\1{HIDDEN}",
    ),
)
_known: set[str] = set()


def is_secret_name(name: str) -> bool:
    """Whether what is called so is a secret: the header `Authorization`, the parameter `token`."""
    return _SECRET_NAME.search(name) is not None


def hide(secret: str) -> None:
    """From now on `scrubbed` takes this secret out of texts, also where it is quoted or encoded."""
    for text in (secret, *secret.splitlines()):
        if len(text.strip()) >= FEWEST_CHARACTERS:
            encoded = base64.b64encode(text.encode(errors="replace")).decode()
            forms = (
                text,
                text.strip(),
                repr(text)[1:-1],
                json.dumps(text)[1:-1],
                quote(text, safe=""),
                encoded,
            )
            _known.update(forms)


def scrubbed(text: str) -> str:
    """The text without secrets; each is replaced by `…`."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
