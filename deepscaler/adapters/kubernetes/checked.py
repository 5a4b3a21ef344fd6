"""Objects of the Kubernetes API in which all that is read here has its type.

What comes over the network is checked once, object by object, and only those objects that concern the
application. One that isn't sound is left out and named, and costs its own service only. Of an object that is
sound, everything that these models name has its type or is null; other fields are whatever the server sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from deepscaler.adapters.kubernetes.api import ApiError, Object
from deepscaler.adapters.kubernetes.listed import remembered
from deepscaler.adapters.kubernetes.objects import span_seconds
from deepscaler.artefacts import one_line
from deepscaler.logs import OnChange
from deepscaler.quantities import parse_quantity


def _a_quantity(value: str | float) -> str | float:
    if parse_quantity(str(value).strip()) < 0:
        raise ValueError(f"{value!r} is negative")
    return value


def _a_span(value: str) -> str:
    span_seconds(value)
    return value


class Part(BaseModel):
    """What is read of an object, or of a part of one."""

    model_config = ConfigDict(strict=True, alias_generator=to_camel)


_Quantities = dict[str, Annotated[str | int | float, AfterValidator(_a_quantity)]] | None
Texts = dict[str, str] | None


class OwnerReference(Part):
    """An entry of `metadata.ownerReferences`."""

    kind: str | None = None
    name: str | None = None
    uid: str | None = None
    controller: bool | None = None


class Metadata(Part):
    """What every object has."""

    name: Annotated[str, Field(min_length=1)]
    uid: str | None = None
    labels: Texts = None
    annotations: Texts = None
    generation: int | None = None
    resource_version: str | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    owner_references: list[OwnerReference] | None = None


class AnyObject(Part):
    """An object of which only the metadata are read: a ReplicaSet, a pod of somebody else."""

    metadata: Metadata


class Resources(Part):
    """What a container, or a pod as a whole, states."""

    limits: _Quantities = None
    requests: _Quantities = None


class Container(Part):
    """A container of a pod, or its status."""

    name: str | None = None
    image: str | None = None
    resources: Resources | None = None
    restart_policy: str | None = None
    restart_count: int | None = None


class PodSpec(Part):
    """`spec` of a pod or of a pod template."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    resources: Resources | None = None
    overhead: _Quantities = None
    priority_class_name: str | None = None
    volumes: list[dict[str, Any]] | None = None


class _Condition(Part):
    type: str | None = None
    status: str | None = None
    last_transition_time: str | None = None


class _PodStatus(Part):
    phase: str = "Unknown"
    start_time: str | None = None
    conditions: list[_Condition] | None = None
    container_statuses: list[Container] | None = None


class PodObject(AnyObject):
    """A pod."""

    spec: PodSpec
    status: _PodStatus | None = None


class _TemplateMetadata(Part):
    labels: Texts = None


class _Template(Part):
    metadata: _TemplateMetadata | None = None
    spec: PodSpec


class _Strategy(Part):
    type: str | None = None


class _ReplicasSpec(Part):
    replicas: Annotated[int, Field(ge=0, lt=2**31)] = 1


class Replicated(AnyObject):
    """The number of replicas of a Deployment, and who changed it last."""

    spec: _ReplicasSpec


class _WorkloadSpec(Part):
    template: _Template
    strategy: _Strategy | None = None


class _SaidCondition(Part):
    type: str | None = None
    status: str | None = None
    reason: str | None = None
    message: str | None = None


class _SaidStatus(Part):
    conditions: list[_SaidCondition] | None = None


class _WorkloadStatus(_SaidStatus):
    replicas: Annotated[int, Field(ge=0, lt=2**31)] | None = None


class WorkloadObject(AnyObject):
    """A Deployment, StatefulSet or DaemonSet, but for its replicas."""

    spec: _WorkloadSpec
    status: _WorkloadStatus | None = None


class _Target(Part):
    kind: str | None = None
    name: str


class _Autoscaling(Part):
    scale_target_ref: _Target


class Autoscaler(AnyObject):
    """A HorizontalPodAutoscaler, or a ScaledObject of KEDA."""

    spec: _Autoscaling


class _HpaSpec(_Autoscaling):
    min_replicas: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    max_replicas: Annotated[int, Field(ge=1, lt=2**31)]


class HpaObject(AnyObject):
    """A HorizontalPodAutoscaler of autoscaling/v2."""

    spec: _HpaSpec
    status: _SaidStatus | None = None


class _BufferSpec(Part):
    replicas: int | None = None


class BufferObject(AnyObject):
    """A CapacityBuffer of autoscaling.x-k8s.io."""

    spec: _BufferSpec
    status: _SaidStatus | None = None


class _ScopeRule(Part):
    scope_name: str | None = None
    operator: str | None = None
    values: list[str] | None = None


class _ScopeSelector(Part):
    match_expressions: list[_ScopeRule] | None = None


class _QuotaSpec(Part):
    hard: _Quantities = None
    scopes: list[str] | None = None
    scope_selector: _ScopeSelector | None = None


class _QuotaStatus(Part):
    used: _Quantities = None


class Quota(AnyObject):
    """A ResourceQuota."""

    spec: _QuotaSpec
    status: _QuotaStatus | None = None


class _LimitRangeItem(Part):
    type: str | None = None
    max: _Quantities = None
    min: _Quantities = None
    default: _Quantities = None
    default_request: _Quantities = None
    max_limit_request_ratio: _Quantities = None


class _LimitRangeSpec(Part):
    limits: list[_LimitRangeItem] | None = None


class LimitRange(AnyObject):
    """A LimitRange."""

    spec: _LimitRangeSpec | None = None


class _ContainerUsage(Part):
    name: str | None = None
    usage: _Quantities = None


class PodUsage(AnyObject):
    """A PodMetrics object of metrics.k8s.io."""

    timestamp: str | None = None
    window: Annotated[str, AfterValidator(_a_span)] = ""
    containers: list[_ContainerUsage] | None = None


class _LeaseSpec(Part):
    holder_identity: str | None = None
    lease_duration_seconds: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    lease_transitions: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    acquire_time: str | None = None


class LeaseObject(AnyObject):
    """A Lease."""

    spec: _LeaseSpec | None = None


class _ServiceSpec(Part):
    selector: Texts = None
    type: str | None = None


class ServiceObject(AnyObject):
    """A Service."""

    spec: _ServiceSpec


class Route(AnyObject):
    """An object that leads traffic to Services: an Ingress, an HTTPRoute, a VirtualService."""

    spec: dict[str, Any]


Item = TypeVar("Item", bound=Object | None)


def check(kind: type[Part], item: Item, what: str) -> Item:
    """The object, if all that is read of it has its type.

    Args:
        kind: what it has to be.
        item: the object, as JSON has it.
        what: what it is called in the message: `Pod`.

    Raises:
        ApiError: it isn't sound; names the object, the field and what is wrong with it.
    """
    try:
        remembered(item, kind, partial(_is_sound, kind))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the object"
        why = first["msg"].removeprefix("Value error, ").partition(" or instance of ")[0]
        raise ApiError(f"{what} {called(item)} isn't sound: {where}: {one_line(why)}") from error
    return item


def _is_sound(kind: type[Part], item: object) -> bool:
    kind.model_validate(item)
    return True


def stated_name(item: object) -> str:
    """The name of an object that may not be sound; "" where it has none."""
    meta = item.get("metadata") if isinstance(item, Mapping) else None
    name = meta.get("name") if isinstance(meta, Mapping) else None
    return name if isinstance(name, str) else ""


def called(item: object) -> str:
    """The name of an object as messages have it; `?` where it has none."""
    return one_line(stated_name(item), 100) or "?"


class Checker:
    """Leaves out the objects that aren't sound, and logs each of them once.

    Args:
        on_change: tells of troubles.
    """

    def __init__(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self._unsound: dict[str, set[str]] = {}

    def sound(self, kind: type[Part], what: str, items: Iterable[Object], consequence: str) -> list[Object]:
        """Those objects of one kind that are sound.

        Args:
            kind: what they have to be.
            what: what they are called: `ResourceQuota`.
            items: the objects.
            consequence: what follows for one that isn't: `it isn't counted`.
        """
        found, unsound = [], dict[str, str]()
        for item in items:
            try:
                found.append(check(kind, item, what))
            except ApiError as error:
                unsound[f"{what} {called(item)}"] = f"{error}; {consequence}"
        self.tell(what, unsound)
        return found

    def tell(self, what: str, unsound: Mapping[str, str]) -> None:
        """Log the objects of one kind that aren't sound, by name, and those that are sound again."""
        for subject, text in unsound.items():
            self._on_change.trouble(subject, text)
        for subject in self._unsound.get(what, set()) - unsound.keys():
            self._on_change.well(subject)
        self._unsound[what] = set(unsound)
