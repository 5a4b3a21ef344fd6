"""Writing `spec.replicas` through the `scale` subresource, and never over somebody else's change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi, Object
from deepscaler.adapters.kubernetes.checked import Replicated, check

_TRIES = 5
_CONFLICT = 409
FIELD_MANAGER = "deepscaler"
"""How `managedFields` names this controller."""
OUR_DOMAIN = "deepscaler.io/"
"""Annotations of this controller begin so."""
LAST_DECISION = f"{OUR_DOMAIN}last-decision"
"""The one annotation that this controller writes on Deployments (`Annotator`)."""
Fence = Callable[[], float]
"""Seconds for which writing is still allowed; 0 or less: it is not."""


@dataclass(frozen=True)
class DeploymentState:
    """What matters of a Deployment for a decision about its replicas.

    Attributes:
        version: `metadata.resourceVersion`, which moves on with every change, also of the status.
        generation: moves on when the spec changes.
    """

    replicas: int
    version: str
    generation: int
    annotations: Mapping[str, str]

    @classmethod
    def of(cls, item: Object) -> DeploymentState:
        """The state of a Deployment as the API gives it."""
        meta = item["metadata"]
        return cls(
            replicas=int(item["spec"].get("replicas", 1)),
            version=str(meta.get("resourceVersion", "")),
            generation=int(meta.get("generation") or 0),
            annotations=dict(meta.get("annotations") or {}),
        )

    @property
    def orders(self) -> Mapping[str, str]:
        """The annotations by which its owner tells us something (paused, behavior)."""
        return {
            name: value
            for name, value in self.annotations.items()
            if name.startswith(OUR_DOMAIN) and name != LAST_DECISION
        }

    def same_but_for_status(self, other: DeploymentState) -> bool:
        """Whether at most the status differs, because pods became ready; then one decision holds for both."""
        return (self.replicas, self.generation, self.annotations) == (
            other.replicas,
            other.generation,
            other.annotations,
        )


class ReplicaWriter:
    """Writes replicas to Deployments that are still as they were when the replicas were decided.

    Args:
        api: carries the requests.
        path: of the namespace's Deployments.

    Attributes:
        fence: asked before each write for how long writing is still allowed; None: there is no limit.
    """

    def __init__(self, api: KubeApi, path: str) -> None:
        self._api, self._path = api, path
        self._read_before: dict[str, DeploymentState] = {}
        self._believed: dict[str, int] = {}
        self._orders: dict[str, Mapping[str, str]] = {}  # as they were read last
        self.fence: Fence | None = None

    def remember(self, deployments: Mapping[str, DeploymentState]) -> None:
        """The Deployments by name, as they are now: the next writes are based on them."""
        self._read_before = dict(deployments)
        self._believed = {}
        self._orders = {name: state.orders for name, state in deployments.items()}

    def believe(self, replicas: Mapping[str, int]) -> None:
        """Replicas by Deployment from another source than the API: the next writes are based on them.

        They may be older than our own writes. Before a write, the Deployment is read alone: it isn't
        overwritten if somebody has set other replicas or annotations since it was read last.
        """
        self._read_before, self._believed = {}, dict(replicas)

    def write(self, name: str, replicas: int) -> None:
        """Set the replicas of one Deployment.

        The write carries the resourceVersion that was read. Where the object has changed since, it is read
        again. If only its status has changed, the write is repeated on the new version. If somebody edited
        the spec or the annotations, theirs stand.

        Raises:
            ApiError: a conflict with somebody's edit, a refusal, or no answer.
        """
        state = self._read_before.pop(name, None) or self._read(name)
        if name in self._believed:
            if state.replicas == replicas:
                return None  # what was believed is older than our own write
            self._check_belief(name, state)
        for _ in range(_TRIES):
            try:
                return self._patch(name, replicas, state.version)
            except ApiError as error:
                if error.status != _CONFLICT:
                    raise
                state = self._unless_edited(name, state, error)
        raise ApiError(
            f"conflict: its status changed {_TRIES} times while it was being written; "
            "the next tick tries again",
            _CONFLICT,
        )

    def _check_belief(self, name: str, state: DeploymentState) -> None:
        """Raise a conflict if the decision wasn't made for this Deployment as it is now."""
        believed = self._believed[name]
        if believed != state.replicas:
            text = f"the decision was made for {believed} replicas, there are {state.replicas}"
            raise ApiError(f"conflict: {text}; not written", _CONFLICT)
        if state.orders != self._orders.get(name, {}):
            orders = ", ".join(f"{key}: {value}" for key, value in state.orders.items()) or "none"
            text = f"the decision was made without knowing its annotations (now {orders})"
            raise ApiError(f"conflict: {text}; not written", _CONFLICT)

    def _patch(self, name: str, replicas: int, version: str) -> None:
        body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
        answer = self._api.send(
            "PATCH",
            f"{self._path}/{name}/scale",
            body,
            query={"fieldManager": FIELD_MANAGER},
            time_out=self._seconds_left(),
        )
        spec = answer.get("spec")
        got = spec.get("replicas") if isinstance(spec, dict) else None
        if got != replicas:
            raise ApiError(
                f"asked for {replicas} replicas, but the API server set {got}; "
                "is a webhook or a policy acting on it?"
            )

    def _unless_edited(self, name: str, before: DeploymentState, conflict: ApiError) -> DeploymentState:
        """The Deployment as it is now, if a decision made on `before` still holds for it."""
        now = self._read(name)
        if not now.same_but_for_status(before):
            raise ApiError(
                f"conflict: somebody changed it since it was read ({before.replicas} replicas then, "
                f"{now.replicas} now); their change stands until the next tick",
                _CONFLICT,
            ) from conflict
        return now

    def _read(self, name: str) -> DeploymentState:
        return DeploymentState.of(check(Replicated, self._api.get(f"{self._path}/{name}"), "Deployment"))

    def _seconds_left(self) -> float | None:
        """Time-out of a write that ends it before the lease does."""
        left = None if self.fence is None else self.fence()
        if left is not None and left <= 0:
            raise ApiError("not written: this controller no longer leads")
        return left
