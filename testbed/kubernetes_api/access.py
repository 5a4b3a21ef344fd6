"""Who may do what, by the rules of a token and by the Roles and bindings that were created."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from testbed.kubernetes_api.status import Object, Refused, about, qualified

ANYTHING = ("*",)


@dataclass(frozen=True)
class Rule:
    """Verbs that are allowed on resources, of which `deployments/scale` is one of its own.

    `*` stands for any verb, resource or group. Where `namespaces` is None the rule holds in all of them.
    """

    verbs: Sequence[str]
    resources: Sequence[str] = ANYTHING
    groups: Sequence[str] = ANYTHING
    namespaces: Sequence[str] | None = None


EVERYTHING = (Rule(ANYTHING),)


@dataclass(frozen=True)
class Identity:
    """Who asks: the name of a user, and rules that hold beside those of the Roles bound to it."""

    user: str
    rules: Sequence[Rule] = ()


ADMIN = Identity("system:admin", EVERYTHING)
ANONYMOUS = Identity("system:anonymous")


@dataclass(frozen=True)
class Attempt:
    """What is asked for. `resource` includes the subresource (`deployments/scale`)."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""


Kept = Callable[[str], Iterable[Object]]
"""Gives the objects kept under `rbac.authorization.k8s.io/<plural>`."""


class Access:
    """Decides what the users of one store may do.

    Args:
        tokens: the identity behind each bearer token. None lets everyone do everything, whatever token is
            sent.
        kept: gives the Roles and bindings.
    """

    def __init__(self, tokens: Mapping[str, Identity] | None, kept: Kept) -> None:
        self._tokens = tokens
        self._kept = kept

    def identify(self, headers: Mapping[str, str]) -> Identity:
        """The identity that the headers, named in lower case, stand for.

        Raises:
            Refused: 401 if the token is unknown; 403 if it may not impersonate.
        """
        if self._tokens is None:
            identity = ADMIN
        elif "authorization" not in headers:
            identity = ANONYMOUS
        else:
            scheme, _, token = headers["authorization"].partition(" ")
            known = self._tokens.get(token.strip())
            if scheme.lower() != "bearer" or known is None:
                raise Refused(401, "Unauthorized", "Unauthorized")
            identity = known
        wanted = headers.get("impersonate-user")
        if wanted:
            self.require(identity, Attempt("impersonate", "", "users", name=wanted))
            return Identity(wanted)
        return identity

    def require(self, identity: Identity, attempt: Attempt) -> None:
        """Return if the attempt is allowed.

        Raises:
            Refused: 403 if it isn't.
        """
        if self.reason(identity, attempt) is not None:
            return
        kind = attempt.resource.partition("/")[0]
        what = qualified(kind, attempt.group) + (f' "{attempt.name}"' if attempt.name else "")
        where = f'in the namespace "{attempt.namespace}"' if attempt.namespace else "at the cluster scope"
        said = (
            f'{what} is forbidden: User "{identity.user}" cannot {attempt.verb} '
            f'resource "{attempt.resource}" in API group "{attempt.group}" {where}'
        )
        raise Refused(403, "Forbidden", said, about(attempt.name, attempt.group, kind))

    def reason(self, identity: Identity, attempt: Attempt) -> str | None:
        """Why the attempt is allowed, which may be empty; None if it isn't allowed."""
        for rule in identity.rules:
            if (rule.namespaces is None or attempt.namespace in rule.namespaces) and _covers(
                rule.verbs, rule.groups, rule.resources, attempt
            ):
                return ""
        local = (
            each for each in self._kept("rolebindings") if each["metadata"]["namespace"] == attempt.namespace
        )
        for binding in (*local, *self._kept("clusterrolebindings")):
            found = self._through(binding, identity, attempt)
            if found:
                return found
        return None

    def _through(self, binding: Object, identity: Identity, attempt: Attempt) -> str | None:
        """The reason why a binding allows the attempt; None if it doesn't."""
        subject = next((each for each in binding.get("subjects") or () if _is(each, identity.user)), None)
        if subject is None:
            return None
        role = binding["roleRef"]
        namespace = binding["metadata"].get("namespace", "")
        plural = "roles" if role["kind"] == "Role" else "clusterroles"
        for each in self._kept(plural):
            if each["metadata"]["name"] != role["name"] or (
                plural == "roles" and each["metadata"]["namespace"] != namespace
            ):
                continue
            if any(_allows(rule, attempt) for rule in each.get("rules") or ()):
                kind = "RoleBinding" if namespace else "ClusterRoleBinding"
                bound = _within(binding["metadata"]["name"], namespace)
                who = _within(subject["name"], subject.get("namespace", ""))
                return (
                    f'RBAC: allowed by {kind} "{bound}" of {role["kind"]} "{role["name"]}" '
                    f'to {subject["kind"]} "{who}"'
                )
        return None


def _allows(rule: Object, attempt: Attempt) -> bool:
    """Whether a rule of a Role covers an attempt."""
    names = rule.get("resourceNames")
    return (not names or attempt.name in names) and _covers(
        rule.get("verbs") or (), rule.get("apiGroups") or (), rule.get("resources") or (), attempt
    )


def _within(name: str, namespace: str) -> str:
    return f"{name}/{namespace}" if namespace else name


def _is(subject: Object, user: str) -> bool:
    if subject.get("kind") == "ServiceAccount":
        return user == f"system:serviceaccount:{subject.get('namespace', '')}:{subject.get('name')}"
    if subject.get("kind") == "Group":
        return subject.get("name") == (
            "system:unauthenticated" if user == ANONYMOUS.user else "system:authenticated"
        )
    return bool(subject.get("name") == user)


def _covers(verbs: Sequence[str], groups: Sequence[str], resources: Sequence[str], attempt: Attempt) -> bool:
    sub = attempt.resource.partition("/")[2]
    return (
        ("*" in verbs or attempt.verb in verbs)
        and ("*" in groups or attempt.group in groups)
        and ("*" in resources or attempt.resource in resources or bool(sub and f"*/{sub}" in resources))
    )
