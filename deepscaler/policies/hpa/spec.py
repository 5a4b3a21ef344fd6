"""What an HPA is told: the `spec` of its document, and the flags of the controller that runs it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Flags:
    """Flags of the controller, with the defaults of Kubernetes.

    Source: RecommendedDefaultHPAControllerConfiguration.
    """

    downscale_stabilization_seconds: float = 300.0
    tolerance: float = 0.1
    cpu_initialization_seconds: float = 300.0
    initial_readiness_seconds: float = 30.0


@dataclass(frozen=True)
class Metric:
    """A Resource metric, or a ContainerResource metric if `container` is set. One of the two targets is set.

    Attributes:
        resource: the name of the resource, or of the custom metric.
        utilization: the target in percent of the request.
        average_value: the target per pod, in the unit of the resource.
        custom: Pods, Object or External, if it is none of a resource; nobody serves it, so it always fails.
    """

    resource: str
    utilization: int | None = None
    average_value: int | None = None
    container: str | None = None
    custom: str | None = None

    @property
    def kind(self) -> str:
        """Its `type` in the document."""
        return self.custom or ("Resource" if self.container is None else "ContainerResource")

    @property
    def value(self) -> str:
        """What is read of it, in the words of the controller."""
        if self.custom:
            return f"{self.custom.lower()} metric value"
        return f"{self.resource} {'usage' if self.utilization is None else 'utilization'}"


@dataclass(frozen=True)
class RatePolicy:
    """Allows a change of `value` pods (kind Pods) or percent (kind Percent) within `period_seconds`."""

    kind: str
    value: int
    period_seconds: int


@dataclass(frozen=True)
class ScalingRules:
    """One direction of `spec.behavior` with its defaults; a window of None means the controller's flag."""

    window_seconds: float | None
    select: str
    policies: tuple[RatePolicy, ...]
    tolerance: float | None = None


@dataclass(frozen=True)
class Behavior:
    """`spec.behavior`: the rules of both directions."""

    up: ScalingRules
    down: ScalingRules


@dataclass(frozen=True)
class HpaSpec:
    """`spec` of one HorizontalPodAutoscaler, and the flags of the controller that runs it."""

    min_replicas: int
    max_replicas: int
    metrics: tuple[Metric, ...]
    behavior: Behavior | None = None
    flags: Flags = field(default_factory=Flags)
