"""One request to the API: who asks, what the request means, and the answer."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import yaml

from testbed.kubernetes_api import (
    ownership,
    patching,
    protobuf,
    resources,
    schema,
    selectors,
    tables,
    validation,
    watching,
)
from testbed.kubernetes_api.access import Attempt, Identity
from testbed.kubernetes_api.defaults import scale_faults
from testbed.kubernetes_api.ownership import Path, Writer
from testbed.kubernetes_api.resources import Resource
from testbed.kubernetes_api.status import (
    Cause,
    Object,
    Refused,
    about,
    bad_request,
    conflict,
    invalid,
    not_found,
    success,
)
from testbed.kubernetes_api.workloads import Workloads

WATCH_SECONDS = 1800.0
_LOG = logging.getLogger(__name__)
_JSON = {"Content-Type": "application/json"}
_TEXT = {"Content-Type": "text/plain; charset=utf-8"}
_PATCHES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
_BODIES = ("application/json", "application/yaml", "")


@dataclass(frozen=True)
class Response:
    """An answer.

    The body of a watch is an iterator that blocks between its parts. An empty part says that nothing happened
    for a second.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | Iterator[bytes]


class KubernetesStore(Workloads):
    """The objects of the emulated cluster and the API to them, whatever carries the requests."""

    def handle(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Response:
        """Answer one request. Never raises; may be called from any thread.

        Args:
            method: of HTTP.
            path: percent-encoded or not, without the query.
            query: what stood behind the question mark.
            headers: names may be in upper or lower case.
            body: what was sent.
        """
        lowered = {name.lower(): value for name, value in (headers or {}).items()}
        try:
            options = dict(parse_qsl(query, keep_blank_values=True))
            request = _Request(self, method.upper(), unquote(path), options, lowered, body)
            response = request.answer()
        except Refused as refused:
            response = _json(refused.status, refused.code)
        except RecursionError:
            response = _json(bad_request("the object is nested too deeply").status, 400)
        except Exception as error:  # as an API server outlives what goes wrong in one request
            _LOG.exception("%s %s", method, path)
            response = _json(Refused(500, "InternalError", f"{type(error).__name__}: {error}").status, 500)
        self.tell()
        return response


def _json(document: Object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return Response(status, {**_JSON, **(headers or {})}, text.encode("utf-8", "surrogatepass"))


@dataclass
class _Request:
    store: KubernetesStore
    method: str
    path: str
    options: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    kind: str = ""
    warnings: list[str] = field(default_factory=list)

    # ------------------------------------------------------------------------------------------------ routing
    def answer(self) -> Response:
        identity = self.store.access.identify(self.headers)
        known = self._discovery()
        if known is not None:
            return known
        target = self._target()
        if target is None:
            return Response(404, _TEXT, b"404 page not found\n")
        verb, resource = self._verb(target), target.resource
        self.kind = "Scale" if target.sub == "scale" else resource.kind
        if resource.plural != "selfsubjectaccessreviews":  # anyone may ask what they may do
            where = target.name if resource.plural == "namespaces" else target.namespace
            what = resource.plural + (f"/{target.sub}" if target.sub else "")
            self.store.access.require(identity, Attempt(verb, resource.group, what, where, target.name))
        if verb == "watch":
            return self._watch(target)
        with self.store.changed:
            return self._serve(verb, target, identity)

    def _target(self) -> _Target | None:
        """What the path names; None if it leads to no group and version that is served.

        Raises:
            Refused: 404 if the group has no such resource.
        """
        parts = [part for part in self.path.split("/") if part]
        if parts[:2] == ["api", "v1"]:
            group, version, rest = "", "v1", parts[2:]
        elif parts[:1] == ["apis"] and len(parts) >= 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            return None
        if not rest or (group, version) not in self.store.served.group_versions():
            return None
        namespace = ""
        if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        plural, name, sub = (*rest, "", "")[:3]
        resource = self.store.served.find(group, version, plural)
        target = None if resource is None else _Target(resource, namespace, name, sub)
        if target is None or len(rest) > 3 or not target.exists:
            raise Refused(404, "NotFound", "the server could not find the requested resource", {})
        return target

    def _verb(self, target: _Target) -> str:
        watching_ = self.options.get("watch", "false") in ("true", "1")
        if target.name:
            verb = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(self.method)
            allowed = ("get", "patch", "update") if target.sub else target.resource.verbs
            verb = "watch" if verb == "get" and watching_ and not target.sub else verb
        else:
            verb = {
                "GET": "watch" if watching_ else "list",
                "POST": "create",
                "DELETE": "deletecollection",
            }.get(self.method)
            allowed = target.resource.verbs
            if verb == "create" and target.resource.namespaced and not target.namespace:
                verb = None
        if verb is None or verb not in allowed:
            raise Refused(
                405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {}
            )
        return verb

    def _serve(self, verb: str, target: _Target, identity: Identity) -> Response:
        if target.sub == "scale":
            return self._scale(verb, target)
        if target.resource.plural == "selfsubjectaccessreviews":
            return self._review(identity)
        serve: Callable[[_Target], Response] = {
            "get": self._get,
            "list": self._list,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_all,
        }[verb]
        return serve(target)

    def _discovery(self) -> Response | None:
        """The answer to a question that needs neither an object nor a right; None if it is another one."""
        if self.path in ("/healthz", "/readyz", "/livez"):
            return Response(200, _TEXT, b"ok")
        document = self.store.served.discovery(self.path, self.headers.get("host", "127.0.0.1"))
        if document is not None and self.method != "GET":
            raise Refused(
                405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {}
            )
        return None if document is None else _json(document)

    # ------------------------------------------------------------------------------------------------ reading
    def _get(self, target: _Target) -> Response:
        found = self.store.read(target.resource, target.namespace, target.name)
        return self._shown(target.resource, found)

    def _selection(self, target: _Target) -> watching.Selection:
        by_label = selectors.labels(self.options.get("labelSelector", ""))
        by_field = selectors.fields(self.options.get("fieldSelector", ""), target.resource.fields)
        name = target.name
        return watching.Selection(
            target.resource,
            target.namespace,
            lambda obj: by_label(obj) and by_field(obj) and (not name or obj["metadata"]["name"] == name),
        )

    def _number(self, name: str) -> int:
        text = self.options.get(name, "") or "0"
        if not text.isdecimal():
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
        return int(text)

    def _list(self, target: _Target) -> Response:
        resource = target.resource
        found, metadata = watching.page(
            self.store,
            self._selection(target),
            self._number("limit"),
            self.options.get("continue", ""),
            self.options.get("resourceVersion", ""),
            self.options.get("resourceVersionMatch") == "Exact",
        )
        shown = [_served(resource, obj) for obj in found]
        style = self._style()
        if style == "Table":
            include = self.options.get("includeObject", "Metadata")
            return _json(tables.table(resource, found, self.store.clock(), metadata, include))
        if style == "PartialObjectMetadataList":
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return _json({**head, "metadata": metadata, "items": [tables.partial(obj) for obj in shown]})
        return _json(_list_of(resource, shown, metadata))

    def _style(self) -> str:
        """What the first media type that is understood asks for: `Table`, `PartialObjectMetadata…` or ""."""
        for part in self.headers.get("accept", "").split(","):
            words = [word.strip() for word in part.split(";")]
            if words[0] not in ("application/json", "*/*", "application/*"):
                continue
            style = next((word[3:] for word in words if word.startswith("as=")), "")
            if style in ("", "Table", "PartialObjectMetadata", "PartialObjectMetadataList") and (
                not style or "v=v1" in words
            ):
                return style
        return ""

    def _shown(self, resource: Resource, obj: Object, status: int = 200) -> Response:
        """One object as this client wants it, with the warnings of this request."""
        headers = (
            {"Warning": ", ".join(f"299 - {json.dumps(text)}" for text in self.warnings)}
            if self.warnings
            else {}
        )
        style, metadata = self._style(), {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        if style == "Table" and self.method == "GET":
            include = self.options.get("includeObject", "Metadata")
            return _json(
                tables.table(resource, [obj], self.store.clock(), metadata, include), status, headers
            )
        shown = tables.partial(obj) if style == "PartialObjectMetadata" else _served(resource, obj)
        return _json(shown, status, headers)

    def _watch(self, target: _Target) -> Response:
        selection, resource, style = self._selection(target), target.resource, self._style()
        include = self.options.get("includeObject", "Metadata")

        def show(obj: Object) -> Object:
            if style == "Table":
                rows = [obj] if "name" in obj["metadata"] else []
                metadata = {"resourceVersion": obj["metadata"]["resourceVersion"]}
                return tables.table(resource, rows, self.store.clock(), metadata, include)
            return tables.partial(obj) if style.startswith("Partial") else _served(resource, obj)

        lines = watching.watch(
            self.store,
            selection,
            self.options.get("resourceVersion", ""),
            float(self._number("timeoutSeconds") or WATCH_SECONDS),
            self.options.get("allowWatchBookmarks") in ("true", "1"),
            self.options.get("sendInitialEvents") in ("true", "1"),
            show,
        )
        return Response(200, _JSON, lines)

    # ------------------------------------------------------------------------------------------------ writing
    @property
    def _dry_run(self) -> bool:
        return self.options.get("dryRun") == "All"

    def _writer(self, target: _Target, operation: str = "Update") -> Writer:
        agent = self.headers.get("user-agent", "unknown").partition("/")[0]
        manager = self.options.get("fieldManager") or agent
        return Writer(manager, operation, target.resource.api_version, target.sub)

    @property
    def _unrecognized(self) -> str:
        return f"the object provided is unrecognized (must be of type {self.kind})"

    def _document(self) -> Any:
        kind = self.headers.get("content-type", "").partition(";")[0].strip()
        if kind == protobuf.MEDIA_TYPE:
            try:
                known = protobuf.decode(self.body)
            except ValueError as error:
                raise bad_request(f"{self._unrecognized}: {error}") from None
            if known is not None:
                return known
        if kind not in _BODIES and kind not in _PATCHES:
            said = (
                "the body of the request was in an unknown format - "
                "accepted media types include: application/json, application/yaml"
            )
            raise Refused(415, "UnsupportedMediaType", said, {})
        try:
            if kind.endswith("yaml"):
                return yaml.safe_load(self.body.decode())
            return json.loads(self.body.decode(), parse_constant=_no_constant)
        except yaml.YAMLError as error:
            raise bad_request(f"error decoding YAML: {' '.join(str(error).split())}") from None
        except ValueError as error:
            raise bad_request(f"{self._unrecognized}: {_unreadable(error, self.body)}") from None

    def _decoded(self, target: _Target, kind: str, document: Any) -> Object:
        """An object that was sent whole, in the version that is kept.

        Raises:
            Refused: 400 if it isn't of the kind that the address takes, or doesn't fit that kind.
        """
        resource = target.resource
        version = resource.version if kind == resource.kind else "v1"
        if not isinstance(document, dict):
            raise bad_request(f"{self._unrecognized}: it is no object")
        expected = resource.api_version if kind == resource.kind else "autoscaling/v1"
        sent_kind, sent_version = document.get("kind") or kind, document.get("apiVersion") or expected
        if (sent_kind, sent_version) != (kind, expected):
            sent, group = str(sent_version).rpartition("/")[2], (resource.group or "core").partition(".")[0]
            said = f"converting ({sent}.{sent_kind}) to ({group}.{kind}): unknown conversion"
            raise bad_request(f'{sent_kind} in version "{sent}" cannot be handled as a {kind}: {said}')
        unknown: list[str] = []
        stored = resource.stored(document) if resource.stored and kind == resource.kind else document
        refused = f'{kind} in version "{version}" cannot be handled as a {kind}'
        try:
            found = schema.decode(stored, kind, unknown)
        except schema.Mismatch as error:
            raise bad_request(f"{refused}: {error}") from None
        validation.require_quantities(found, kind, version)
        self._report(unknown, kind, version)
        if not isinstance(found.get("metadata", {}), dict) or not isinstance(found.get("spec", {}), dict):
            raise bad_request(f"{refused}: metadata and spec must be objects")
        where = (found.get("metadata") or {}).get("namespace", "")
        if where and where != target.namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        return found

    def _report(self, unknown: list[str], kind: str, version: str) -> None:
        said = [f'unknown field "{path}"' for path in unknown]
        mode = self.options.get("fieldValidation", "Warn")
        if said and mode == "Strict":
            why = f"strict decoding error: {', '.join(said)}"
            raise bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')
        if mode == "Warn":
            self.warnings += said

    def _named(self, target: _Target, obj: Object) -> None:
        name = (obj.get("metadata") or {}).get("name")
        if name and name != target.name:
            raise bad_request(
                f"the name of the object ({name}) does not match the name on the URL ({target.name})"
            )

    def _create(self, target: _Target) -> Response:
        validation.require_options("CreateOptions", self.options)
        obj = self._decoded(target, target.resource.kind, self._document())
        made = self.store.insert(target.resource, target.namespace, obj, self._writer(target), self._dry_run)
        return self._shown(target.resource, made, 201)

    def _update(self, target: _Target) -> Response:
        validation.require_options("UpdateOptions", self.options)
        obj = self._decoded(target, target.resource.kind, self._document())
        self._named(target, obj)
        if self._makes(target, obj):
            made = self.store.insert(
                target.resource, target.namespace, obj, self._writer(target), self._dry_run
            )
            return self._shown(target.resource, made, 201)
        old = self.store.read(target.resource, target.namespace, target.name)
        new = self.store.modify(target.resource, old, obj, self._writer(target), target.sub, self._dry_run)
        return self._shown(target.resource, new)

    def _makes(self, target: _Target, obj: Object) -> bool:
        """Whether a PUT creates its object, as that of a Lease does which isn't there."""
        found = self.store.peek(target.resource.storage, target.namespace, target.name)
        version = (obj.get("metadata") or {}).get("resourceVersion")
        return found is None and target.resource.kind == "Lease" and version in (None, "", "0")

    def _patch(self, target: _Target) -> Response:
        validation.require_options("PatchOptions", self.options)
        resource, style = target.resource, self._patch_style(target.resource.custom)
        if style == "apply":
            return self._apply(target)
        old = self.store.read(resource, target.namespace, target.name)
        patched = self._patched(style, _served(resource, old), resource.kind)
        obj = self._redecoded(patched, resource, resource.kind)
        self._named(target, obj)
        new = self.store.modify(resource, old, obj, self._writer(target), target.sub, self._dry_run)
        return self._shown(resource, new)

    def _patch_style(self, custom: bool = False) -> str:
        style = _PATCHES.get(self.headers.get("content-type", "").partition(";")[0].strip())
        if style is None:
            raise Refused(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
        if style == "strategic" and custom:
            said = (
                "the body of the request was in an unknown format - accepted media types include: "
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
            )
            raise Refused(415, "UnsupportedMediaType", said, {})
        return style

    def _patched(self, style: str, obj: Object, kind: str) -> Object:
        patch = self._document()
        if style == "json":
            return patching.json_patch(obj, patch)
        if not isinstance(patch, dict):
            raise bad_request("json: cannot unmarshal the patch into a map")
        if style == "merge":
            merged: Object = patching.merge_patch(obj, patch)
            return merged
        try:
            return patching.strategic_merge(obj, patch, kind)
        except (TypeError, AttributeError):
            raise bad_request("the strategic merge patch doesn't fit the object") from None

    def _redecoded(self, patched: Object, resource: Resource, kind: str) -> Object:
        """What a patch has made, checked again.

        Raises:
            Refused: 422 if a value is of the wrong type.
        """
        unknown: list[str] = []
        try:
            stored = resource.stored(patched) if resource.stored and kind == resource.kind else patched
            obj = schema.decode(stored, kind, unknown)
            if not isinstance(obj.get("metadata"), dict) or not isinstance(obj.get("spec", {}), dict):
                raise schema.Mismatch(f"{kind}.metadata and {kind}.spec must be objects")
        except (schema.Mismatch, TypeError, AttributeError) as error:
            text = json.dumps(patched, separators=(",", ":"), ensure_ascii=False)
            said = f"Invalid value: {json.dumps(text, ensure_ascii=False)}: {error}"
            raise invalid("", "", "", [Cause("FieldValueInvalid", said, "patch")]) from None
        self._report(unknown, kind, resource.version)
        return obj

    def _apply(self, target: _Target) -> Response:
        """Server-side apply: fields that are named are set and owned.

        Fields that this manager named before and no longer names are removed.
        """
        resource = target.resource
        wanted = self._applied(target, resource.kind)
        writer, force = self._writer(target, "Apply"), self.options.get("force") in ("true", "1")
        old = self.store.peek(resource.storage, target.namespace, target.name)
        if old is None:
            if target.sub:
                raise not_found(resource.plural, resource.group, target.name)
            _, owned = ownership.apply({"metadata": {}}, wanted, resource.kind, writer, force)
            made = self.store.insert(resource, target.namespace, wanted, writer, self._dry_run, owned)
            return self._shown(resource, made, 201)
        version = wanted.get("metadata", {}).pop("resourceVersion", None)
        if version not in (None, "", old["metadata"]["resourceVersion"]):
            raise conflict(resource.plural, resource.group, target.name)
        merged, owned = ownership.apply(old, wanted, resource.kind, writer, force)
        new = self.store.modify(resource, old, merged, writer, target.sub, self._dry_run, owned)
        return self._shown(resource, new)

    def _applied(self, target: _Target, kind: str) -> Object:
        if not self.options.get("fieldManager"):
            raise invalid(
                *("PatchOptions", "meta.k8s.io", ""),
                [Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager")],
            )
        wanted = self._decoded(target, kind, self._document())
        self._named(target, wanted)
        wanted.setdefault("metadata", {})["name"] = target.name
        return wanted

    def _delete(self, target: _Target) -> Response:
        resource, store = target.resource, self.store
        old = store.read(resource, target.namespace, target.name)
        options = self._delete_options()
        validation.require_options("DeleteOptions", {**self.options, **options})
        wanted, metadata = options.get("preconditions") or {}, old["metadata"]
        for key, name, why in (
            ("uid", "UID", "deleted and then recreated"),
            ("resourceVersion", "ResourceVersion", "modified"),
        ):
            if wanted.get(key) not in (None, metadata[key]):
                said = (
                    f"the {name} in the precondition ({wanted[key]}) does not match the {name} in record "
                    f"({metadata[key]}). The object might have been {why}"
                )
                raise conflict(resource.kind, resource.group, target.name, said)
        dry_run = self._dry_run or bool(options.get("dryRun"))
        kept = store.erase(resource, old, self._policy(options), dry_run, self._grace(options))
        if kept is not None:
            return self._shown(resource, kept)
        details = about(target.name, resource.group, resource.plural)
        return _json(success({**details, "uid": metadata["uid"]}))

    def _delete_options(self) -> Object:
        found = self._document() if self.body.strip() else {}
        return found if isinstance(found, dict) else {}

    def _policy(self, options: Object) -> str:
        return str(options.get("propagationPolicy") or self.options.get("propagationPolicy") or "Background")

    def _grace(self, options: Object) -> float | None:
        """Seconds that a pod has to end; None: as its spec says."""
        given = str(options.get("gracePeriodSeconds", self.options.get("gracePeriodSeconds")))
        return float(given) if given.lstrip("-").isdecimal() else None

    def _delete_all(self, target: _Target) -> Response:
        resource, options = target.resource, self._delete_options()
        validation.require_options("DeleteOptions", {**self.options, **options})
        found, _ = watching.page(self.store, self._selection(target), 0, "", "", False)
        for obj in found:
            grace = self._grace(options)
            self.store.erase(resource, obj, self._policy(options), self._dry_run, grace)
        shown = [_served(resource, obj) for obj in found]
        return _json(_list_of(resource, shown, {"resourceVersion": str(self.store.version)}))

    # --------------------------------------------------------------------------- scale, and asking for rights
    def _scale(self, verb: str, target: _Target) -> Response:
        resource = target.resource
        old = self.store.read(resource, target.namespace, target.name)
        if verb == "get":
            return _json(_scale_of(old))
        validation.require_options("PatchOptions" if verb == "patch" else "UpdateOptions", self.options)
        owned: set[Path] | None = None
        writer = self._writer(target)
        style = self._patch_style() if verb == "patch" else ""
        if style == "apply":
            sent = self._applied(target, "Scale")
            writer = Writer(writer.manager, "Apply", resource.api_version, "scale")
            wanted = {"metadata": {}, "spec": sent.get("spec") or {}}
            force = self.options.get("force") in ("true", "1")
            _, owned = ownership.apply(old, wanted, resource.kind, writer, force)
            sent = {**sent, "spec": sent.get("spec") or {"replicas": old["spec"]["replicas"]}}
        elif style:
            patched = self._patched(style, _scale_of(old, whole=True), "Scale")
            sent = self._redecoded(patched, resource, "Scale")
            self._named(target, sent)
        else:
            sent = self._decoded(target, "Scale", self._document())
            self._named(target, sent)
        replicas = (sent.get("spec") or {}).get("replicas", 0)
        found = scale_faults(replicas)
        if found:
            raise invalid("Scale", "autoscaling", target.name, found)
        identity = {key: (sent.get("metadata") or {}).get(key) for key in ("resourceVersion", "uid")}
        metadata = {**old["metadata"], "resourceVersion": identity["resourceVersion"], "uid": identity["uid"]}
        body = {**copy.deepcopy(old), "metadata": metadata}
        body["spec"]["replicas"] = replicas
        new = self.store.modify(resource, old, body, writer, "", self._dry_run, owned)
        return _json(_scale_of(new))

    def _review(self, identity: Identity) -> Response:
        kind, version = "SelfSubjectAccessReview", "authorization.k8s.io/v1"
        target = _Target(self.store.served.of_kind(version, kind) or resources.RESOURCES[0], "", "", "")
        obj = self._decoded(target, kind, self._document())
        asked = (obj.get("spec") or {}).get("resourceAttributes") or {}
        verb, group, plural, namespace, name, sub = (
            asked.get(key, "") for key in ("verb", "group", "resource", "namespace", "name", "subresource")
        )
        attempt = Attempt(verb, group, f"{plural}/{sub}" if sub else plural, namespace, name)
        reason = self.store.access.reason(identity, attempt)
        status: Object = {"allowed": reason is not None, **({"reason": reason} if reason else {})}
        head = {"kind": obj.get("kind", kind), "apiVersion": version, "metadata": {}}
        review: Object = {**head, "spec": obj.get("spec") or {}, "status": status}
        ownership.track(None, review, self.kind, self._writer(target), schema.time_text(self.store.clock()))
        return _json(review, 201)


@dataclass(frozen=True)
class _Target:
    """What an address names: a collection, an object or a subresource of an object."""

    resource: Resource
    namespace: str
    name: str
    sub: str

    @property
    def exists(self) -> bool:
        """Whether the resource has such addresses."""
        subresources = {"": True, "scale": self.resource.scale, "status": self.resource.status}
        return subresources.get(self.sub, False) and (self.resource.namespaced or not self.namespace)


def _served(resource: Resource, obj: Object) -> Object:
    return resource.served(obj) if resource.served else obj


def _list_of(resource: Resource, shown: list[Object], metadata: Object) -> Object:
    items = [{key: value for key, value in obj.items() if key not in ("kind", "apiVersion")} for obj in shown]
    head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
    return {**head, "metadata": metadata, "items": items}


def _scale_of(obj: Object, whole: bool = False) -> Object:
    """The Scale of a workload.

    With `whole` it names the owners of the replicas, which the API shows in only one error.
    """
    known = obj["metadata"]
    metadata = {
        key: known[key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    }
    if whole:
        metadata["managedFields"] = [
            {**{key: value for key, value in entry.items() if key != "time"}, "apiVersion": "autoscaling/v1"}
            for entry in known.get("managedFields") or ()
            if entry.get("subresource") == "scale"
        ]
    replicas = obj["spec"].get("replicas", 0)
    status = {"replicas": (obj.get("status") or {}).get("replicas", 0), "selector": tables.selector_text(obj)}
    head = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata}
    return {**head, "spec": {"replicas": replicas} if replicas else {}, "status": status}


def _no_constant(name: str) -> float:
    raise ValueError(f"invalid character '{name[:1]}' looking for beginning of value")


def _unreadable(error: ValueError, body: bytes) -> str:
    text = body.decode(errors="replace")
    said = str(error)
    if isinstance(error, json.JSONDecodeError):
        found = text[error.pos : error.pos + 1]
        wanted = "object key string" if "property name" in error.msg else "value"
        said = (
            f"invalid character '{found}' looking for beginning of {wanted}"
            if found
            else "unexpected end of JSON input"
        )
    return f"couldn't get version/kind; json parse error: {said} ({text[:200]})"
