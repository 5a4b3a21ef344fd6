"""Refusals, as the API server words them in a Status.

`Refused` never leaves this package: `KubernetesStore.handle` turns it into the response that it describes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object or another JSON document."""


class Refused(Exception):
    """A request that is answered with a failure.

    Args:
        code: the HTTP status.
        reason: the word that clients compare; None leaves it out.
        message: what people read.
        details: name, group and kind of what it is about, and causes; None leaves it out.
        metadata: of the Status itself.
    """

    def __init__(
        self,
        code: int,
        reason: str | None,
        message: str,
        details: Object | None = None,
        metadata: Object | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata or {},
            "status": "Failure",
            "message": message,
        }
        if reason is not None:
            self.status["reason"] = reason
        if details is not None:
            self.status["details"] = details
        self.status["code"] = code


@dataclass(frozen=True)
class Cause:
    """One fault of an object: the kind of fault, what is wrong, and where (`spec.replicas`)."""

    reason: str
    message: str
    field: str


def about(name: str, group: str, kind: str) -> Object:
    """Details of a Status, without what is empty: the core group has no name, for example."""
    given = {"name": name, "group": group, "kind": kind}
    return {key: value for key, value in given.items() if value}


def qualified(name: str, group: str) -> str:
    """A name with its group, `deployments.apps`; in the core group just `pods`."""
    return f"{name}.{group}" if group else name


def bad_request(message: str) -> Refused:
    """The refusal 400: the request can't be understood."""
    return Refused(400, "BadRequest", message)


def not_found(plural: str, group: str, name: str) -> Refused:
    """The refusal 404: there is no such object."""
    return Refused(
        404, "NotFound", f'{qualified(plural, group)} "{name}" not found', about(name, group, plural)
    )


def already_exists(plural: str, group: str, name: str) -> Refused:
    """The refusal 409: the name is taken."""
    return Refused(
        409,
        "AlreadyExists",
        f'{qualified(plural, group)} "{name}" already exists',
        about(name, group, plural),
    )


def conflict(plural: str, group: str, name: str, why: str | None = None) -> Refused:
    """The refusal 409: the request was made with an old version in mind."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    return Refused(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}',
        about(name, group, plural),
    )


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> Refused:
    """The refusal 422: the object can be read but isn't valid."""
    said = [f"{cause.field}: {cause.message}" for cause in causes]
    text = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    listed = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    return Refused(
        422,
        "Invalid",
        f'{qualified(kind, group)} "{name}" is invalid: {text}',
        {**about(name, group, kind), "causes": listed},
    )


def success(details: Object) -> Object:
    """The answer to a delete."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
