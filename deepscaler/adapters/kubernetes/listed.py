"""Objects that a list has as it had them before are the same Python objects again.

Most pods and Deployments don't change from tick to tick. What was found out about one then, that it is sound
and what its fields mean, needn't be found out again.
"""

from __future__ import annotations

import marshal
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeVar

from deepscaler.artefacts import parse_json

Found = TypeVar("Found")
Seen = TypeVar("Seen")
_ITEMS = re.compile(rb'"items"\s*:\s*\[')
_EMPTY = b"]}"
_WITHOUT_REFERENCES = 2
"""A format of marshal in which equal bytes say equal values of equal types: 1, 1.0 and True differ."""


class Listed(dict[str, Any]):
    """An object of a list, which nobody changes.

    Attributes:
        found_out: what was made of it.
    """

    __slots__ = ("found_out",)

    def __init__(self, item: Mapping[str, Any]) -> None:
        super().__init__(item)
        self.found_out: dict[Hashable, Any] = {}


def remembered(item: Seen, what: Hashable, make: Callable[[Seen], Found]) -> Found:
    """`make(item)`, made only once while lists have the object as it is; an error is made each time.

    Args:
        item: the object.
        what: tells this from all else that is made of the object.
        make: depends on nothing but the object and `what`.
    """
    if not isinstance(item, Listed):
        return make(item)
    if what not in item.found_out:
        item.found_out[what] = make(item)
    found: Found = item.found_out[what]
    return found


@dataclass(frozen=True, eq=False)
class _Page:
    """A page of a list.

    Attributes:
        digest: of its text from the first object on.
        said: what that text says; its `items` are objects that may have been met before.
        objects: digest -> object.
    """

    digest: bytes
    said: dict[str, Any] = field(repr=False)
    objects: dict[bytes, Listed] = field(repr=False)


class Lists:
    """Reads the pages of lists; remembers those of the newest reading."""

    def __init__(self) -> None:
        self._pages: dict[str, dict[int, _Page]] = {}

    def page(self, path: str, number: int, body: bytes) -> Any:
        """What `parse_json` says of a page; objects that the list had before are the same ones.

        A text is read in two parts, before and from the first object on, if each of them becomes an object
        of JSON with what the other one would open or close. Otherwise it is read as one.

        Args:
            path: of the list.
            number: of the page, from 0.
            body: its text.

        Raises:
            ValueError: as `parse_json`.
        """
        mark = _ITEMS.search(body)
        top = None if mark is None else _object(body[: mark.end()] + _EMPTY)
        if mark is None or top is None:
            return parse_json(body)
        rest, pages = memoryview(body)[mark.start() :], self._pages.setdefault(path, {})
        digest = _digest(rest)
        known = pages.get(number)
        if known is None or known.digest != digest:
            said = _object(b"{" + rest)
            if said is None:
                return parse_json(body)
            known = pages[number] = _page(digest, said, list(pages.values()))
        return {**top, **known.said}

    def ended(self, path: str, pages: int) -> None:
        """Forget what the list had on later pages than these."""
        kept = self._pages.get(path, {})
        self._pages[path] = {number: page for number, page in kept.items() if number < pages}


def _page(digest: bytes, said: dict[str, Any], earlier: Iterable[_Page]) -> _Page:
    objects, items = dict[bytes, Listed](), said.get("items")
    for place, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            content = _digest(marshal.dumps(item, _WITHOUT_REFERENCES))
            known = (page.objects[content] for page in earlier if content in page.objects)
            said["items"][place] = objects[content] = next(known, None) or Listed(item)
    return _Page(digest, said, objects)


def _object(text: bytes) -> dict[str, Any] | None:
    """What a text states; None if that isn't an object of JSON."""
    try:
        found = parse_json(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _digest(content: bytes | memoryview) -> bytes:
    return blake2b(content, digest_size=16).digest()
