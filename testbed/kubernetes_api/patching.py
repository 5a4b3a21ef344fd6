"""The three patch formats that don't need to know who owns a field."""

from __future__ import annotations

import copy
from typing import Any

from testbed.kubernetes_api.schema import ANY, FieldType, item_key, type_of
from testbed.kubernetes_api.status import Object, Refused, bad_request

_DIRECTIVES = ("$patch", "$retainKeys", "$setElementOrder/", "$deleteFromPrimitiveList/")


def merge_patch(target: Any, patch: Any) -> Any:
    """The target after a patch by RFC 7386: null removes a field, and lists are replaced."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


# ------------------------------------------------------------------------------------------------- JSON patch
def json_patch(target: Object, operations: Any) -> Object:
    """The target after a patch by RFC 6902.

    Raises:
        Refused: 400 if it isn't a list of operations; 422 if one of them can't be done.
    """
    if not isinstance(operations, list) or not all(isinstance(each, dict) for each in operations):
        raise bad_request("json: cannot unmarshal the patch into a list of operations")
    document: Any = {"": copy.deepcopy(target)}
    try:
        for step in operations:
            _operate(document, step)
    except (LookupError, ValueError, TypeError):
        said = "the server rejected our request due to an error in our request"
        raise Refused(422, "Invalid", said, {}) from None
    if not isinstance(document.get(""), dict):
        raise bad_request("the patch leaves no object")
    result: Object = document[""]
    return result


def _operate(document: Any, step: Object) -> None:
    name, path = step["op"], _pointer(step["path"])
    if name == "add":
        _put(document, path, step["value"], insert=True)
    elif name == "remove":
        _take(document, path)
    elif name == "replace":
        _find(document, path)
        _put(document, path, step["value"], insert=False)
    elif name == "test":
        if not _equal(_find(document, path), step.get("value")):
            raise ValueError("test failed")
    elif name == "move":
        _put(document, path, _take(document, _pointer(step["from"])), insert=True)
    elif name == "copy":
        _put(document, path, copy.deepcopy(_find(document, _pointer(step["from"]))), insert=True)
    else:
        raise ValueError(name)


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _pointer(text: str) -> list[str]:
    """The steps of a JSON pointer; the first, empty one leads to the document."""
    if text and not text.startswith("/"):
        raise ValueError(text)
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")]


def _at(container: Any, step: str) -> Any:
    if isinstance(container, dict):
        return step
    if not isinstance(container, list):
        raise TypeError("nothing below a scalar")
    if not step.isdecimal():
        raise ValueError(step)
    return int(step)


def _find(document: Any, path: list[str]) -> Any:
    for step in path:
        document = document[_at(document, step)]
    return document


def _take(document: Any, path: list[str]) -> Any:
    container = _find(document, path[:-1])
    return container.pop(_at(container, path[-1]))


def _put(document: Any, path: list[str], value: Any, insert: bool) -> None:
    container, step = _find(document, path[:-1]), path[-1]
    if isinstance(container, list) and insert:
        at = len(container) if step == "-" else _at(container, step)
        if at > len(container):
            raise IndexError(step)
        container.insert(at, value)
    else:
        container[_at(container, step)] = value


# -------------------------------------------------------------------------------------------- strategic merge
def strategic_merge(target: Object, patch: Object, kind: str) -> Object:
    """The target after a merge patch in which lists of named things, as containers, merge by their first key.

    Understands `$patch: delete|replace|merge`, `$retainKeys` and `$deleteFromPrimitiveList/…`.
    `$setElementOrder/…` only orders.
    """
    merged: Object = _strategic(target, patch, type_of(kind))
    return merged


def _strategic(target: Any, patch: Any, kind: FieldType) -> Any:
    if isinstance(patch, dict) and kind.keys is None:
        return _strategic_map(target if isinstance(target, dict) else {}, patch, kind)
    if isinstance(patch, list) and kind.keys and not kind.is_set:
        return _strategic_list(target if isinstance(target, list) else [], patch, kind)
    if isinstance(patch, list) and kind.is_set and isinstance(target, list):
        return [*target, *(item for item in patch if item not in target)]
    return _plain(patch)


def _strategic_map(target: Object, patch: Object, kind: FieldType) -> Object:
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    merged = {} if directive == "replace" else dict(target)
    retained = patch.get("$retainKeys")
    if retained is not None:
        merged = {key: value for key, value in merged.items() if key in retained}
    for key, value in patch.items():
        _strategic_field(merged, key, value, kind)
    for key, order in patch.items():
        name = key.partition("/")[2]
        if key.startswith("$setElementOrder/") and isinstance(merged.get(name), list):
            merged[name] = _ordered(merged[name], order, kind.field(name) or ANY)
    return merged


def _strategic_field(merged: Object, key: str, value: Any, kind: FieldType) -> None:
    """Change one field of a map in place."""
    if key.startswith("$deleteFromPrimitiveList/"):
        name = key.partition("/")[2]
        merged[name] = [item for item in merged.get(name) or [] if item not in value]
    elif key.startswith(_DIRECTIVES):
        pass  # what the whole map obeys
    elif value is None:
        merged.pop(key, None)
    else:
        merged[key] = _strategic(merged.get(key), value, kind.field(key) or ANY)


def _strategic_list(target: list[Any], patch: list[Any], kind: FieldType) -> list[Any]:
    assert kind.keys
    keys = kind.keys[:1]
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [
            _plain(item)
            for item in patch
            if not (isinstance(item, dict) and item.get("$patch") == "replace" and len(item) == 1)
        ]
    items = {item_key(item, keys): item for item in target}
    fresh = {}
    for item in patch:
        key = item_key(item, keys)
        if isinstance(item, dict) and item.get("$patch") == "delete":
            items.pop(key, None)
        elif key in items:
            items[key] = _strategic(items[key], item, kind.item)
        else:
            fresh[key] = _plain(item)
    return [*fresh.values(), *items.values()]  # as the API server does: what is new comes first


def _ordered(items: list[Any], order: list[Any], kind: FieldType) -> list[Any]:
    keys = (kind.keys or ("=",))[:1]
    place = {item_key(item, keys): at for at, item in enumerate(order)}
    return sorted(items, key=lambda item: place.get(item_key(item, keys), len(place)))


def _plain(value: Any) -> Any:
    """A value as a patch adds it: without nulls and directives."""
    if isinstance(value, dict):
        return {
            key: _plain(each) for key, each in value.items() if each is not None and not key.startswith("$")
        }
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value
