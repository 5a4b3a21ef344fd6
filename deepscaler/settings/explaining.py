"""What is wrong with settings, in one line: where it stands, what was found and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from deepscaler.artefacts import one_line
from deepscaler.scrubbing import is_secret_name
from deepscaler.settings.base import Section
from deepscaler.settings.layers import EXTENDS, Document, Layer

Place = tuple[int | str, ...]
"""Keys and positions that lead to a value, as pydantic gives them."""


def explained(
    error: ValidationError, kind: type[Section], layers: Sequence[Layer], overrides: Sequence[str]
) -> str:
    """The first of pydantic's complaints in one line, with the number of further ones."""
    first = error.errors()[0]
    loc: Place = first["loc"]
    where = _whereabouts(loc, layers, overrides)
    dotted = ".".join(str(part) for part in loc)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return (
            f"{where}: {dotted}: unknown key; allowed here: {', '.join(_allowed_keys(kind, loc[:-1]))}{more}"
        )
    if first["type"] == "missing":
        return f"{where}: {dotted}: missing, and it has no default{more}"
    tell = not isinstance(first["input"], dict) and not holds_secrets(dotted)
    found = f" (found {one_line(repr(first['input']))})" if tell else ""
    return f"{where}: {dotted or 'settings'}: {first['msg'].removeprefix('Value error, ')}{found}{more}"


def _whereabouts(loc: Place, layers: Sequence[Layer], overrides: Sequence[str]) -> str:
    """The file in which the value at `loc` stands.

    It is the file asked for where `--set` gave the value, and that file with its bases where several of them
    say something about the value.
    """
    asked, *bases = layers
    if not bases or any(_overlap(parts_of(text.partition("=")[0]), loc) for text in overrides):
        return asked.name
    depths = [_depth(layer.document, loc) for layer in layers]
    deepest = [layer for layer, depth in zip(layers, depths, strict=True) if depth == max(depths)]
    if len(deepest) == 1 or not isinstance(_at(deepest[0].document, loc[: max(depths)]), dict):
        return deepest[0].name
    return f"{asked.name} ({EXTENDS} {', '.join(base.name for base in bases)})"


def _overlap(parts: list[str], loc: Place) -> bool:
    """Whether one of the two places lies within the other."""
    return all(part == str(other) for part, other in zip(parts, loc, strict=False))


def _depth(document: Document, loc: Place) -> int:
    """How many parts of `loc` lead somewhere in the document."""
    return next((depth for depth in range(len(loc), 0, -1) if _at(document, loc[:depth]) is not _NOTHING), 0)


_NOTHING = object()


def _at(document: Document, loc: Place) -> Any:
    """The value at `loc`, `_NOTHING` where there is none."""
    value: Any = document
    for part in loc:
        members = dict(enumerate(value)) if isinstance(value, list) else value
        if not isinstance(members, dict) or part not in members:
            return _NOTHING
        value = members[part]
    return value


def _allowed_keys(kind: type[BaseModel], where: Place) -> list[str]:
    names = [] if where else [EXTENDS]
    for part in where:
        info = kind.model_fields.get(str(part))
        annotation: Any = info.annotation if info else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        sections = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if sections:
            kind = sections[0]
    return [*names, *kind.model_fields]


def holds_secrets(key: str) -> bool:
    """Whether what stands under a dotted key may be a secret."""
    return is_secret_name(key) or "headers" in key


def parts_of(key: str) -> list[str]:
    """The parts of a dotted key."""
    return key.strip().split(".")
