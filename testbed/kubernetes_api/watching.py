"""Lists and watches: what they select, how lists come in pages, and which changes a watcher sees."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from testbed.kubernetes_api.resources import Resource
from testbed.kubernetes_api.selectors import Test
from testbed.kubernetes_api.status import Object, Refused, bad_request
from testbed.kubernetes_api.store import Change, Key, Objects

BOOKMARK_SECONDS = 60.0
LAST_BOOKMARKS_SECONDS = 2.0  # a watch that ends soon gets one bookmark per second
TICK_SECONDS = 1.0
_CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new "
    "list without the continue parameter, or use the continue token in this response to retrieve the "
    "remainder of the results. Continuing with the provided token results in an inconsistent list - objects "
    "that were created, modified, or deleted between the time the first chunk was returned and now may show "
    "up in the list."
)
_EMPTY_WORKLOAD = {"template": {"metadata": {}, "spec": {"containers": None}}, "selector": None}
_EMPTY: dict[str, Object] = {
    "Deployment": {"spec": {"replicas": 0, **_EMPTY_WORKLOAD, "strategy": {}}, "status": {}},
    "ReplicaSet": {"spec": {**_EMPTY_WORKLOAD}, "status": {"replicas": 0}},
}


@dataclass(frozen=True)
class Selection:
    """What a list or a watch asks for. An empty `namespace` stands for all of them."""

    resource: Resource
    namespace: str
    test: Test

    def includes(self, obj: Object | None) -> bool:
        """Whether an object is selected."""
        return (
            obj is not None
            and (not self.namespace or obj["metadata"].get("namespace", "") == self.namespace)
            and self.test(obj)
        )


# --------------------------------------------------------------------------------------------------- versions
def version_number(text: str) -> int:
    """The number that a resourceVersion is.

    Raises:
        Refused: 500 if it is no number; this is what the API server says.
    """
    if not text.isdecimal():
        said = (
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
        raise Refused(500, None, said)
    return int(text)


def not_in_future(version: int, current: int) -> None:
    """Return if a version has been reached.

    Raises:
        Refused: 504 if it hasn't.
    """
    if version > current:
        said = f"Too large resource version: {version}, current: {current}"
        causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
        raise Refused(504, "Timeout", f"Timeout: {said}", {"causes": causes, "retryAfterSeconds": 1})


# ----------------------------------------------------------------------------------------------------- paging
def _token(version: int, start: str) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _untoken(token: str) -> tuple[int, str]:
    try:
        bare = token.rstrip("=")
        raw = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4)).decode("latin-1")
    except (binascii.Error, ValueError):
        raise bad_request("continue key is not valid: illegal base64 data") from None
    try:
        found = json.loads(raw)
        return int(found["rv"]), str(found["start"])
    except (ValueError, TypeError, KeyError):
        said = f"invalid character '{raw[:1]}' looking for beginning of value"
        raise bad_request(f"invalid continue token: continue key is not valid: {said}") from None


def page(
    store: Objects, selection: Selection, limit: int, token: str, version: str, exact: bool
) -> tuple[list[Object], Object]:
    """The objects of one page, and the metadata of the list.

    Args:
        store: where the objects are.
        selection: which of them are listed.
        limit: how many objects a page holds; 0 puts all of them on one.
        token: `continue` of the page before.
        version: `resourceVersion` of the request. It counts only with `exact`, or if it lies in the future.
        exact: whether the list is as it was at that version.

    Raises:
        Refused: 400 if the token can't be read; 410 if the version is forgotten; 504 if it hasn't been
            reached.
    """
    at, start = store.version, ""
    if token:
        asked, start = _untoken(token)
        at = store.version if asked < 0 else asked
        if store.expired(at):
            raise Refused(410, "Expired", _CONTINUE_EXPIRED, metadata={"continue": _token(-1, start)})
        start = start.removeprefix("/")
    elif version not in ("", "0"):
        not_in_future(version_number(version), store.version)
        at = int(version) if exact else at
    chosen = []
    for (namespace, name), obj in store.snapshot(selection.resource.storage, selection.namespace, at):
        place = name if selection.namespace or not namespace else f"{namespace}/{name}"
        if place >= start and selection.test(obj):
            chosen.append((place, obj))
    metadata: Object = {"resourceVersion": str(at)}
    if limit and len(chosen) > limit:
        rest, chosen = len(chosen) - limit, chosen[:limit]
        metadata |= {"continue": _token(at, f"/{chosen[-1][0]}\u0000"), "remainingItemCount": rest}
    return [obj for _, obj in chosen], metadata


# --------------------------------------------------------------------------------------------------- watching
def _seen(change: Change, selection: Selection) -> tuple[str, Object] | None:
    """What a watcher sees of a change. It sees objects enter and leave its selection as added and deleted."""
    before = change.type != "ADDED" and selection.includes(change.previous)
    after = change.type != "DELETED" and selection.includes(change.object)
    if after:
        return ("MODIFIED" if before else "ADDED"), change.object
    if not before or change.previous is None:
        return None
    last = change.object if change.type == "DELETED" else change.previous
    return "DELETED", {**last, "metadata": {**last["metadata"], "resourceVersion": str(change.version)}}


def _added(
    present: list[tuple[Key, Object]], selection: Selection, show: Callable[[Object], Object]
) -> Iterator[bytes]:
    return (_line("ADDED", show(obj)) for _, obj in present if selection.test(obj))


def _lines(changes: list[Change], selection: Selection, show: Callable[[Object], Object]) -> Iterator[bytes]:
    events = (_seen(change, selection) for change in changes)
    return (_line(event[0], show(event[1])) for event in events if event)


def _bookmark(resource: Resource, version: int, annotations: Object | None = None) -> Object:
    metadata: Object = {
        "resourceVersion": str(version),
        **({"annotations": annotations} if annotations else {}),
    }
    return {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "metadata": metadata,
        **_EMPTY.get(resource.kind, {}),
    }


def watch(
    store: Objects,
    selection: Selection,
    version: str,
    seconds: float,
    bookmarks: bool,
    initial: bool,
    show: Callable[[Object], Object],
) -> Iterator[bytes]:
    """The lines of a watch, one event each; blocks between them.

    Every second in which nothing happens gives an empty line, so that the caller can see whether its client
    is still there.

    Args:
        store: which objects are watched.
        selection: which of them the watcher wants.
        version: where the watch starts; "" or "0" begin with all objects as ADDED.
        seconds: when it ends, unless the store is closed before.
        bookmarks: whether the watcher wants bookmarks.
        initial: begin with all objects, closed by a bookmark (`sendInitialEvents`).
        show: gives an object as this watcher wants it.
    """
    after = 0 if version in ("", "0") else version_number(version)
    return _watch(store, selection, after, seconds, bookmarks, initial or after == 0, initial, show)


def _line(kind: str, obj: Object) -> bytes:
    event = {"type": kind, "object": obj}
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _watch(
    store: Objects,
    selection: Selection,
    after: int,
    seconds: float,
    bookmarks: bool,
    begin: bool,
    mark: bool,
    show: Callable[[Object], Object],
) -> Iterator[bytes]:
    storage, deadline = selection.resource.storage, time.monotonic() + seconds
    if begin:
        with store.changed:
            after, present = store.version, store.snapshot(storage, selection.namespace)
        yield from _added(present, selection, show)
    if mark:
        ended = _bookmark(selection.resource, after, {"k8s.io/initial-events-end": "true"})
        yield _line("BOOKMARK", show(ended))
    following = _next_bookmark(time.monotonic(), deadline)
    while news := _news(store, storage, after, deadline):
        found, after = news
        yield from _lines(found, selection, show)
        now = time.monotonic()
        if now >= deadline:
            return
        if bookmarks and now >= following:
            following = _next_bookmark(now, deadline)
            yield _line("BOOKMARK", show(_bookmark(selection.resource, after)))
        elif not found:
            yield b""  # lets the caller look whether its client is still there
    if not store.closed:
        expired = Refused(410, "Expired", f"too old resource version: {after} ({store.compacted})")
        yield _line("ERROR", expired.status)


def _news(store: Objects, storage: str, after: int, deadline: float) -> tuple[list[Change], int] | None:
    """The changes since a version, for which it waits a tick at most, and the newest version.

    None if the store is closed, or if the history no longer reaches back to `after`.
    """
    if store.closed:
        return None
    with store.changed:
        if not (store.expired(after) or store.changes(storage, after) or store.closed):
            store.changed.wait(max(min(TICK_SECONDS, deadline - time.monotonic()), 0.0))
        if store.expired(after):
            return None
        return store.changes(storage, after), store.version


def _next_bookmark(now: float, deadline: float) -> float:
    return min(now + BOOKMARK_SECONDS, max(deadline - LAST_BOOKMARKS_SECONDS, now + TICK_SECONDS))
