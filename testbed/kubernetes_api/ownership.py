"""Who owns which field: `metadata.managedFields`, and server-side apply that rests on it.

A path is a tuple of elements as the API writes them. `f:spec` is a field, `k:{"name":"web"}` an item of a
list whose items are told apart by their keys, and `v:"x"` a member of a set.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from testbed.kubernetes_api.schema import ANY, FieldType, children, item_key, list_element, type_of
from testbed.kubernetes_api.status import Object, Refused

Path = tuple[str, ...]
_SET_BY_SERVER = [
    "name",
    "namespace",
    "uid",
    "selfLink",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
]
_NOT_OWNED = {
    *(("f:apiVersion",), ("f:kind",), ("f:status",)),
    *(("f:metadata", f"f:{name}") for name in _SET_BY_SERVER),
}


@dataclass(frozen=True)
class Writer:
    """Who writes, and how: the key of an entry of managedFields."""

    manager: str
    operation: str
    api_version: str
    subresource: str = ""


@dataclass(frozen=True)
class _Node:
    kind: str  # "leaf", "map" (shows when it is new), "struct" (always there), "item"
    value: Any


def _flatten(obj: Object, kind: str) -> dict[Path, _Node]:
    """All paths of an object, parents first."""
    found: dict[Path, _Node] = {}

    def visit(path: Path, value: Any, of: FieldType, item: bool) -> None:
        if path in _NOT_OWNED or value is None or value == "":
            return
        below = children(value, of)
        if path and (value or path != ("f:metadata",)):
            shape = "item" if item else "leaf" if below is None else "map" if of.optional else "struct"
            found[path] = _Node(shape, value if below is None else None)
        for element, child, each in below or ():
            visit((*path, element), each, child, isinstance(value, list))

    visit((), obj, type_of(kind), False)
    return found


def _drop_scalars(obj: Object, kind: str) -> Object:
    """The object without what only the server sets."""
    return {key: value for key, value in obj.items() if not (kind == "Namespace" and key == "spec")}


# ---------------------------------------------------------------------------------------------- FieldsV1 form
def encode(paths: Iterable[Path]) -> Object:
    """The nested form that managedFields holds."""
    root: Object = {}
    ordered = sorted(paths, key=len)
    parents = {path[:length] for path in ordered for length in range(len(path))}
    for path in ordered:
        node = root
        for element in path:
            node = node.setdefault(element, {})
        if path in parents:
            node["."] = {}
    return root


def decode(fields: Object) -> set[Path]:
    """The paths of the nested form."""
    found: set[Path] = set()

    def visit(path: Path, node: Object) -> None:
        if path and (not node or "." in node):
            found.add(path)
        for element, below in node.items():
            if element != ".":
                visit((*path, element), below)

    visit((), fields)
    return found


def _read(obj: Object) -> list[tuple[Writer, set[Path], str]]:
    entries = obj.get("metadata", {}).get("managedFields") or []
    return [
        (
            Writer(
                entry.get("manager", ""),
                entry.get("operation", ""),
                entry.get("apiVersion", ""),
                entry.get("subresource", ""),
            ),
            decode(entry.get("fieldsV1") or {}),
            entry.get("time", ""),
        )
        for entry in entries
    ]


def _write(obj: Object, entries: list[tuple[Writer, set[Path], str]]) -> None:
    listed = []
    for writer, paths, moment in entries:
        if paths:
            entry: Object = {
                "manager": writer.manager,
                "operation": writer.operation,
                "apiVersion": writer.api_version,
            }
            entry |= {"time": moment} if moment else {}
            entry |= {"fieldsType": "FieldsV1", "fieldsV1": encode(paths)}
            entry |= {"subresource": writer.subresource} if writer.subresource else {}
            listed.append(entry)
    if listed:
        obj["metadata"]["managedFields"] = listed
    else:
        obj["metadata"].pop("managedFields", None)


def is_owned(obj: Object, path: Path) -> bool:
    """Whether some manager owns a path."""
    return any(path in paths for _, paths, _ in _read(obj))


# ---------------------------------------------------------------------------------------------------- updates
def _changed(before: dict[Path, _Node], after: dict[Path, _Node]) -> set[Path]:
    """The paths that are new or hold another value."""
    changed: set[Path] = set()
    for path, node in after.items():
        appears = path not in before and (node.kind != "struct" or path[:-1] in changed)
        if before.get(path) != node if node.kind == "leaf" else appears:
            changed.add(path)
    return changed


def track(
    old: Object | None,
    new: Object,
    kind: str,
    writer: Writer | None,
    moment: str,
    owned: set[Path] | None = None,
) -> None:
    """Bring the managedFields of `new` up to date with what changed between `old` and `new`.

    Args:
        old: the object before; None if `new` is created.
        new: the object after, changed in place.
        kind: of the object.
        writer: who made the changes. None takes changed fields from their owners and gives them to nobody.
        moment: when, as the API writes it.
        owned: what the writer owns from now on, after an apply. None: what it changed beside what it owned.
    """
    before = _flatten(_drop_scalars(old, kind), kind) if old else {}
    after = _flatten(_drop_scalars(new, kind), kind)
    changed, gone = _changed(before, after), before.keys() - after.keys()
    entries = _read(old or new)
    known = any(writer == each for each, _, _ in entries)
    updated: list[tuple[Writer, set[Path], str]] = []
    for each, paths, when in entries:
        if each == writer:
            now = ((paths | changed) - gone) if owned is None else owned
            updated.append((each, now, moment if now != paths or changed else when))
        else:
            updated.append((each, paths - changed - gone, when))
    if writer is not None and not known:
        updated.append((writer, changed if owned is None else owned, moment))
    _write(new, updated)


# ------------------------------------------------------------------------------------------ server-side apply
def apply(live: Object, wanted: Object, kind: str, writer: Writer, force: bool) -> tuple[Object, set[Path]]:
    """The live object after an apply, and the paths that the writer owns now.

    The wanted fields are set. Fields that the writer owned and no longer names are taken out.

    Raises:
        Refused: 409 if another manager owns a field that would change and `force` isn't set.
    """
    present, desired = _flatten(live, kind), _flatten(wanted, kind)
    owned = {path for path, node in desired.items() if node.kind in ("leaf", "item")}
    others = [(each, paths) for each, paths, _ in _read(live) if each != writer]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {_named(each)}", "field": _dotted(path)}
        for path in sorted(owned)
        for each, paths in others
        if path in paths
        and desired[path].kind == "leaf"
        and (path not in present or present[path].value != desired[path].value)
    ]
    if causes and not force:
        raise _conflicts(causes)
    merged = _merge(live, wanted, type_of(kind))
    previous = set().union(*(paths for each, paths, _ in _read(live) if each == writer))
    held = set().union(*(paths for _, paths in others))
    for path in sorted(previous - owned - held, key=len, reverse=True):
        if not any(other[: len(path)] == path for other in held | owned):
            _remove(merged, path, type_of(kind))
    return merged, owned


def _conflicts(causes: list[dict[str, str]]) -> Refused:
    """409: fields that others own, grouped by their owners."""
    if len(causes) == 1:
        said = f"1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        fields: dict[str, list[str]] = {}
        for cause in causes:
            owner = cause["message"].replace("conflict", "conflicts", 1)
            fields.setdefault(owner, []).append(f"- {cause['field']}")
        lines = [line for owner, listed in fields.items() for line in (f"{owner}:", *listed)]
        said = f"{len(causes)} conflicts: " + "\n".join(lines)
    return Refused(409, "Conflict", f"Apply failed with {said}", {"causes": causes})


def _named(writer: Writer) -> str:
    text = f'"{writer.manager}"'
    if writer.subresource:
        text += f' with subresource "{writer.subresource}"'
    return text if writer.operation == "Apply" else f"{text} using {writer.api_version}"


def _dotted(path: Path) -> str:
    text = ""
    for element in path:
        sort, rest = element[:1], element[2:]
        if sort == "k":
            pairs = json.loads(rest)
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in pairs.items()) + "]"
        else:
            text += f".{rest}" if sort == "f" else f"[={rest}]"
    return text


def _merge(live: Any, wanted: Any, kind: FieldType) -> Any:
    if kind.atomic or type(live) is not type(wanted):
        return copy.deepcopy(wanted)
    if isinstance(wanted, dict) and kind.keys is None:
        merged = dict(live)
        for key, value in wanted.items():
            merged[key] = (
                _merge(live[key], value, kind.field(key) or ANY) if key in live else copy.deepcopy(value)
            )
        return merged
    if isinstance(wanted, list) and kind.keys:
        items = {item_key(item, kind.keys): item for item in live}
        for item in wanted:
            key = item_key(item, kind.keys)
            items[key] = _merge(items[key], item, kind.item) if key in items else copy.deepcopy(item)
        return list(items.values())
    return copy.deepcopy(wanted)


def _remove(value: Any, path: Path, kind: FieldType) -> bool:
    """Take a path and the maps that it leaves empty out of a value; whether the value itself is empty now."""
    element, rest = path[0], path[1:]
    if element.startswith("f:") and isinstance(value, dict):
        key = element[2:]
        if key in value and (not rest or _remove(value[key], rest, kind.field(key) or ANY)):
            del value[key]
        return not value
    if isinstance(value, list) and kind.keys:
        for at, item in enumerate(value):
            if list_element(item, kind.keys) == element:
                if not rest or _remove(item, rest, kind.item):
                    del value[at]
                break
        return not value
    return False
