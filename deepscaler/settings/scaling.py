"""How replicas are decided: the policy, the bounds on its decisions, and the runs of predict_scale.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from deepscaler.settings.base import (
    RHO_MAX,
    Count,
    NotNegative,
    Port,
    Positive,
    Replicas,
    RhoMax,
    Section,
    Seeds,
    Share,
)
from deepscaler.settings.rails import CalendarEntry, Constraint
from deepscaler.settings.testbed import Load

Mode = Literal["shadow", "advise", "act"]
"""What may be written to the cluster: nothing, minimums of HPAs, replicas of Deployments."""


class GuardRails(Section):
    """Bounds on every decision, whatever the policy proposes."""

    min_replicas: Count = Field(1, description="fewest replicas of a service")
    max_replicas: Replicas = Field(30, description="most replicas of a service")
    per_service: dict[str, Annotated[tuple[int, int], Field(strict=False)]] = Field(
        {}, description="[min, max] replicas of single services, instead of the two above"
    )
    round_up_threshold: Share = Field(
        0.35, description="a fraction of a replica above this is rounded up, any other is rounded down"
    )
    tolerance: NotNegative = Field(
        0.0, description="relative change that is too small to act on (0.1: one of less than 10 %)"
    )
    scale_down_window: NotNegative = Field(
        120.0,
        description="stabilization window: replicas don't fall below the highest target of this many seconds",
    )
    max_step_up: Count = Field(20, description="most replicas added to a service in one decision")
    max_step_down: Count = Field(20, description="most replicas taken from a service in one decision")
    forced: dict[str, int] = Field({}, description="replicas of single services, set by hand")
    paused: list[str] = Field([], description="services whose replicas are left alone")
    behavior: dict[str, dict[str, Any]] = Field(
        {},
        description="windows, step limits (percent and pods per period) and tolerance of single services, as "
        "`spec.behavior` of an autoscaling/v2 HorizontalPodAutoscaler; they replace the settings above",
    )
    calendar: list[CalendarEntry] = Field(
        [], description="higher minimums at certain times, by cron or by dates"
    )
    constraints: list[Constraint] = Field(
        [], description="what several services share, and which of them are cut, in order, until it suffices"
    )
    quota_cores: Positive | None = Field(
        None, description="most CPU cores that the limits of all targets may add up to; null: no bound"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} > max_replicas {self.max_replicas}")
        for name, (low, high) in self.per_service.items():
            if not 1 <= low <= high:
                raise ValueError(f"per_service.{name}: needs 1 <= min <= max, found [{low}, {high}]")
        for name, value in self.forced.items():
            low, high = self.bounds(name)
            if not low <= value <= high:
                raise ValueError(
                    f"forced.{name}: {value} is outside the service's [min, max] [{low}, {high}]"
                )
            if name in self.paused:
                raise ValueError(f"forced.{name}: the service is in `paused` as well; choose one")
        return self

    def bounds(self, service: str) -> tuple[int, int]:
        """Fewest and most replicas of `service`."""
        return self.per_service.get(service, (self.min_replicas, self.max_replicas))


class Floor(Section):
    """The reactive floor: no target is below what the present request rate requires."""

    enabled: bool = Field(True, description="false: the forecast alone decides")
    seconds: Positive = Field(30.0, description="seconds up to now over which the request rate is taken")
    rho_max: RhoMax = Field(
        RHO_MAX,
        description="highest utilisation of the CPU limit that the floor allows; auto: what the demand fit "
        "says (`process.rho_max`)",
    )

    @property
    def fixed_rho_max(self) -> float:
        """`rho_max` as a number, for services that the demand fit doesn't know; without one, the default."""
        return RHO_MAX if self.rho_max == "auto" else self.rho_max

    @property
    def stated_rho_max(self) -> float | None:
        """`rho_max` where it is a number; None where the demand fit says it."""
        return None if self.rho_max == "auto" else self.rho_max


class PlanPrices(Section):
    """What the plan by cost weighs against the price of holding a replica."""

    shortage: Positive = Field(
        100.0, description="price of one missing replica, in units of holding one for the same time"
    )
    start: NotNegative = Field(180.0, description="price of one start, in seconds of holding a replica")


class Budget(Section):
    """A budget of violating minutes, which moves the shortage price of the plan by cost."""

    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="share of minutes whose mean entry response may exceed the SLA"
    )
    spending: Annotated[float, Field(ge=1)] | None = Field(
        1.5,
        description="most core-hours that a day may take, in multiples of those at `scale.prices`; "
        "null: no ceiling",
    )
    window: Annotated[float, Field(ge=3600)] = Field(
        86400.0,
        description="seconds over which the share is kept; the first such span runs at `scale.prices`",
    )


def _budget(value: Any) -> Any:
    """`budget: 0.01` is short for `budget: {share: 0.01}`."""
    return {"share": value} if isinstance(value, float | int) and not isinstance(value, bool) else value


def _or_number(schema: dict[str, Any]) -> None:
    """Lets editors accept the short form."""
    schema["anyOf"].append({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})


class PlanSettings(Section):
    """The policies `plan_*`: replicas by cost over scenarios of what may come."""

    horizon: Positive = Field(600.0, description="seconds that scenarios look ahead")
    scenarios: Annotated[int, Field(ge=1)] = Field(48, description="scenarios per decision")
    history: Positive = Field(
        10800.0, description="seconds of live history that scenarios and seasons are drawn from"
    )
    long_history: NotNegative = Field(
        2419200.0,
        description="seconds of the load at the entries, minute by minute, in which days and weeks are "
        "looked for; 0: none",
    )
    without: Literal["seasons"] | None = Field(
        None, description="for comparison: no season of the live history is looked for; null: one is"
    )
    surprise: Share | None = Field(
        None,
        description="for comparison: weight of courses that nobody foresees even shortly before; 0: each "
        "course is planned for as if it were known (hindsight), 1: none is (two stages); null: as each "
        "source says",
    )
    apart: Literal["services", "steps"] | None = Field(
        None,
        description="for comparison: scenarios of services, or moreover of their steps, are drawn "
        "independently of each other; null: jointly",
    )


class Health(Section):
    """When the controller says that its model should be trained again; all is measured over the last day."""

    error_ratio: Positive = Field(
        2.0, description="decisions lack or waste so many times what the bundle's did on validation"
    )
    drift: Positive = Field(
        0.25,
        description="median over services of the population stability index of a feature against training; "
        "0.1 is little, 0.25 much",
    )


class Hpa(Section):
    """The rival `hpa_<percent>`: flags and behavior of the Kubernetes autoscaling/v2 controller."""

    sync_period: Positive = Field(15.0, description="seconds between two decisions")
    downscale_stabilization: NotNegative = Field(
        300.0, description="replicas don't fall below the highest recommendation of this many seconds"
    )
    tolerance: NotNegative = Field(
        0.1, description="distance of the metric from its target, relative to it, that is too small to act on"
    )
    cpu_initialization_period: NotNegative = Field(
        300.0, description="seconds after a pod's start in which its CPU counts only while it is ready"
    )
    initial_readiness_delay: NotNegative = Field(
        30.0, description="seconds after a pod's start in which it counts as not ready yet if it is unready"
    )
    behavior: dict[str, Any] | None = Field(
        None, description="`spec.behavior` of an autoscaling/v2 HorizontalPodAutoscaler; null: its defaults"
    )


class Explore(Section):
    """The exploring policy, which varies replicas on purpose so that telemetry shows what they do."""

    allow: bool = Field(
        False, description="on a real cluster the policy acts only with true (the testbed needs no leave)"
    )
    target: tuple[float, float] = Field(
        (0.35, 0.95),
        description="range from which the target utilisation of the CPU limit is drawn",
        strict=False,
    )
    seconds: tuple[float, float] = Field(
        (180.0, 600.0),
        description="range of seconds after which a service's target is drawn anew",
        strict=False,
    )
    sla_share: Share = Field(
        0.5,
        description="real cluster: exploring stops for `calm_seconds` when the response of an entry is above "
        "this share of its SLA",
    )
    calm_seconds: Positive = Field(
        300.0, description="real cluster: seconds below that share after which exploring begins again"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, (low, high) in {"target": self.target, "seconds": self.seconds}.items():
            if not 0 < low <= high:
                raise ValueError(f"{name}: needs 0 < low <= high, found [{low:g}, {high:g}]")
        return self


class Advise(Section):
    """`mode: advise`: an HPA stays in charge, and its `minReplicas` is raised ahead of a peak."""

    seconds: Annotated[float, Field(gt=0, le=3600)] | None = Field(
        None,
        description="seconds that a raised minimum stands after the last decision that wanted more replicas "
        "than there were; null: a start-up of the service's pods, `scale.period` and 15 s, at least 60",
    )


class CapacityBuffer(Section):
    """Room on nodes before a peak: CapacityBuffers, which the cluster-autoscaler and Karpenter understand."""

    enabled: bool = Field(
        False,
        description="true: a CapacityBuffer per service asks for room for the pods that may be needed beyond "
        "those that are there; it needs the rights of deploy/components/capacity-buffer, and in `shadow` "
        "there are none",
    )
    horizon: Positive = Field(
        600.0, description="seconds ahead that it covers; the plan foresees no more than `scale.plan.horizon`"
    )
    most: Count = Field(20, description="most pods of one service that it asks room for")


class Scale(Section):
    """What predict_scale.py does."""

    policy: str = Field(
        "deepscaler",
        description="deepscaler, plan_bootstrap, reactive_holistic, static, explore or a rival: "
        "`hpa_<percent of limit>` and those listed in docs/decisions.md; on the testbed also foreseen, "
        "plan_foreseen, plan_informed and oracle",
    )
    policies: list[str] = Field(
        [], description="testbed: several policies, one run for each; they replace `policy`"
    )
    seeds: Seeds = Field([], description="testbed: one run for each seed; empty: testbed.seed")
    bundle: str = Field("model_states/app/AdapGLA.pt", description="trained bundle of the policy deepscaler")
    quantile_bundle: str | None = Field(
        None, description="trained bundle of the policy deepscaler_quantile; null: that of deepscaler"
    )
    period: Positive = Field(60.0, description="seconds between forecasts")
    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="quantile of the forecast that is scaled on; 0.9: its upper bound"
    )
    duration: Positive | None = Field(
        None, description="seconds to run; null: until stopped (testbed: the length of the load)"
    )
    run_dir: str = Field("runs/app", description="directory below which each run has `<policy>-<seed>/`")
    guard_rails: GuardRails = GuardRails()
    floor: Floor = Floor()
    think_time: Positive | Literal["fitted"] | None = Field(
        "fitted",
        description="how the floor and the plan tell hidden demand from slow responses: seconds between "
        "the tasks of a user of a closed loop; null: the load is open and nothing is corrected; "
        "fitted: as the demand fit says",
    )
    prices: PlanPrices = PlanPrices()
    budget: Annotated[Budget | None, BeforeValidator(_budget)] = Field(
        None,
        description="plans by cost: share of violating minutes that is acceptable (0.01), which then moves "
        "`prices.shortage`; null: fixed prices",
        json_schema_extra=_or_number,
    )
    plan: PlanSettings = PlanSettings()
    health: Health = Health()
    hpa: Hpa = Hpa()
    explore: Explore = Explore()
    tick_timeout: Positive = Field(
        30.0,
        description="seconds that all requests of a tick share on a live cluster; "
        "the last third of them is for writing",
    )
    stale_after: Positive = Field(
        120.0,
        description="seconds without a usable sample after which a service's metrics are stale: it is held",
    )
    fill_samples: Annotated[int, Field(ge=0)] = Field(
        4, description="missing samples in a row that the last known value stands in for"
    )
    error_share: Share = Field(
        0.05,
        description="while more requests than this share fail, a drop in traffic is no reason to scale down",
    )
    min_known_services: Share = Field(
        0.5, description="share of the application's services that the bundle must know"
    )
    static_replicas: dict[str, int] = Field({}, description="replicas of single services under policy static")
    mode: Mode = Field(
        "act",
        description="what may be written to the cluster: nothing (shadow), a higher `minReplicas` of the HPA "
        "that is in charge of a service (advise), or replicas of Deployments (act)",
    )
    modes: dict[str, Mode] = Field({}, description="modes of single services, instead of `mode`")
    advise: Advise = Advise()
    events: bool = Field(
        False,
        description="true: Events on the Deployments say what was done and why; it needs the rights of "
        "deploy/components/events, and in `shadow` there are none",
    )
    annotations: bool = Field(
        False,
        description="true: an annotation on each Deployment says what was decided last, why and when; it "
        "needs the right to patch Deployments (deploy/components/annotations), and in `shadow` there is none",
    )
    capacity_buffer: CapacityBuffer = CapacityBuffer()
    dry_run: bool = Field(
        False,
        description="true: `mode: shadow` for all services, by another name; "
        "a file that gives both and means different things is refused",
    )
    metrics_port: Port | None = Field(
        None,
        description="port on which the controller serves a page to watch it, and /metrics; null: it doesn't",
    )
    metrics_address: str = Field(
        "127.0.0.1",
        description="address on which they are served; in a pod 0.0.0.0, or :: where pods have IPv6",
    )
    workers: Count = Field(2, description="testbed: runs side by side")
    load: Load | None = Field(
        None,
        description="testbed: the load of these runs; keys that it doesn't name are those of testbed.load; "
        "null: all of them are",
    )
    shapes: list[str] = Field(
        [], description="testbed: load shapes that the seeds take in turn; empty: the load's own shape"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_meaning(cls, data: Any) -> Any:
        """Brings `mode`, `modes` and `dry_run` to one meaning."""
        if not isinstance(data, dict):
            return data
        dry, modes = data.get("dry_run"), data.get("modes") or {}
        mode = data.get("mode", "shadow" if dry is True else "act")
        writing = [mode, *(modes.values() if isinstance(modes, dict) else ())]
        quiet = all(each == "shadow" for each in writing)
        if isinstance(dry, bool) and dry != quiet:
            raise ValueError(
                f"dry_run: {str(dry).lower()} and mode: {mode}{f', modes: {modes}' if modes else ''} "
                "mean different things; give `mode` alone"
            )
        return {**data, "mode": mode, "dry_run": quiet}

    def mode_of(self, service: str) -> Mode:
        """What may be written for one service."""
        return "shadow" if self.dry_run else self.modes.get(service, self.mode)
