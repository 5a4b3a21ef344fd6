"""The stages before and after scaling (collect, process, evaluate), and the file that holds all stages."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from deepscaler.settings.app import App, ClusterSection, check_name
from deepscaler.settings.base import (
    RHO_MAX,
    Count,
    Feature,
    Moment,
    Name,
    NotNegative,
    Positive,
    RhoMax,
    Section,
    Share,
)
from deepscaler.settings.scaling import Mode, Scale
from deepscaler.settings.testbed import Load, Testbed

_SPAN = r"^([0-9]+(ms|s|m|h|d))*0*[1-9][0-9]*(ms|s|m|h|d)([0-9]+(ms|s|m|h|d))*$"
"""A Prometheus duration above 0."""
Promql = Annotated[str, Field(min_length=1)]
"""A query, which isn't empty; whether it can be read, Prometheus says."""


class Query(Section):
    """One PromQL template for all services; `deepscaler/adapters/queries.py` says which placeholders it has.

    Series that belong to one service are added up; a ratio of sums is written with `divide_by`.
    """

    query: Promql = Field(description="PromQL template")
    label: Name = Field(
        description="label that tells a series' service: container, deployment, pod or destination_workload"
    )
    divide_by: Promql | None = Field(
        None, description="PromQL template of the denominator, with the same label; null: no ratio"
    )


class CallsQuery(Query):
    """The PromQL template of the calls per second between each pair; `label` names the callee's label."""

    caller: Name = Field(
        "source_workload",
        description="label that tells the caller; a value that isn't a service is called `external`",
    )


BUILT_IN_PRIORS = ("call", "od", "structural", "cc", "identity")
"""Priors that are made from the collected data; any other name is the path of a CSV."""
EntryPart = Literal["offered", "done", "milliseconds", "buckets"]
"""What is asked of requests that enter: their rate; rate, time and histogram of those that were answered."""


class EntryQuery(Section):
    """One PromQL template for the requests from outside; `{workloads}` are those of the entries."""

    query: Promql = Field(description="PromQL template; rates per second (buckets: by `le` in milliseconds)")
    label: Name = Field("destination_workload", description="label that tells a series' service")


class Collect(Section):
    """What metrics_fetch.py reads from the cluster."""

    step: Positive = Field(15.0, description="seconds between samples")
    start: Moment | None = Field(
        None, description="time of the first sample (ISO 8601, UTC); null: `last` seconds before the end"
    )
    end: Moment | None = Field(
        None,
        description="time of the last sample (ISO 8601, UTC); null: now (testbed: start plus `last` seconds)",
    )
    last: Positive = Field(
        3600.0, description="seconds back from now (testbed: seconds from testbed.start on)"
    )
    output_dir: str = Field("data/app", description="directory for metrics.csv, calls.csv and workloads.json")
    window: Annotated[str, Field(pattern=_SPAN)] = Field("1m", description="range of rate() in the queries")
    calls_window: Positive = Field(300.0, description="seconds that each row of calls.csv covers")
    chunk_points: Annotated[int, Field(ge=2, le=11000)] = Field(
        10000, description="most points per series that one request asks for"
    )
    queries: dict[Feature, Query] = Field(
        {}, description="PromQL templates by feature, instead of the built-in ones"
    )
    calls_query: CallsQuery | None = Field(
        None, description="PromQL template of the calls, instead of the built-in one"
    )
    entry_queries: dict[EntryPart, EntryQuery] = Field(
        {},
        description="PromQL templates of the requests that enter, instead of the built-in ones: offered, "
        "done (answered without failure), milliseconds (of the done) and buckets (of the done)",
    )


class Process(Section):
    """What data_process.py makes of the collected metrics."""

    step: Positive = Field(
        60.0, description="seconds in a time step of the network; a multiple of collect.step"
    )
    features: list[Name] = Field(
        ["pod", "cpu", "res", "req"],
        description="metrics that the network sees; these are the published four. Of collected metrics pod, "
        "cpu, mem, res and req; of a CSV from elsewhere (`--csv`) any",
    )
    window: Count = Field(80, description="time steps that the network looks back")
    horizon: Count = Field(1, description="time steps that the network forecasts")
    label: str = Field(
        "required",
        description="what the network learns: required (the cheapest replicas that would have met the SLA), "
        "observed (the replicas there were), offered (request rates, from which scenarios are made; needs "
        "process.step equal to collect.step) or `feature:<name>`",
    )
    split: tuple[float, float, float] = Field(
        (0.6, 0.2, 0.2),
        description="shares of training, validation and test, in time order",
        strict=False,
    )
    season: Positive | None = Field(
        None,
        description="seconds after which the load repeats; null: the season is looked for in the training "
        "labels and, if they have none, in every feature",
    )
    priors: list[str] | None = Field(
        None,
        description="prior graphs: call, od, structural, cc, identity or a CSV of [N, N] with service names "
        "or, without names, in the order of the services; null: call; without recorded calls structural; "
        "without response times cc",
    )
    prior_cutoff: Share = Field(
        0.3, description="od and cc: entries below this share of the graph's largest are cut"
    )
    rho_max: RhoMax = Field(
        RHO_MAX,
        description="required: utilisation of the CPU limit that is never exceeded; auto: the demand fit "
        "finds the room that each service needs for bursts (docs/labels.md)",
    )
    sla_margin: Positive = Field(
        0.75, description="required: share of the SLA that the predicted response time may take"
    )
    look_back: NotNegative = Field(
        60.0, description="required: seconds in the past that a label still covers"
    )
    look_ahead: NotNegative = Field(
        60.0, description="required: seconds that a label covers after a pod started now is ready"
    )
    lead: bool = Field(True, description="required: false: labels don't look ahead (the ablation 'lead 0')")
    rate_window: Positive = Field(
        30.0,
        description="required: seconds over which request rates are averaged; few, so that no step is hidden",
    )
    think_time: Positive | None = Field(
        None, description="closed loop: seconds between a user's tasks; null: open loop"
    )
    requests_per_think: Positive = Field(
        1.0, description="closed loop: entry requests per task (a page that redirects makes two)"
    )
    visit_window: Positive = Field(
        1800.0, description="required: seconds over which the visits per request are averaged"
    )
    boot_seconds: dict[str, NotNegative] = Field(
        {}, description="seconds until a pod is ready, by service, where the cluster doesn't tell"
    )
    boot_limit: Positive = Field(
        900.0,
        description="a measured start-up of more seconds is implausible (a pod that became unready and ready "
        "again) and isn't counted",
    )
    plots: bool = Field(
        True, description="required: draw labels.png, the page that says how far the labels can be trusted"
    )
    output_dir: str = Field(
        "data/app", description="directory for dataset.npz, meta.json, labels.json, labels.png and graphs/"
    )

    @property
    def fixed_rho_max(self) -> float:
        """`rho_max` as a number; without one, the default."""
        return RHO_MAX if self.rho_max == "auto" else self.rho_max

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.label not in ("required", "observed", "offered") and not self.label.startswith("feature:"):
            raise ValueError("label: allowed are required, observed, offered, feature:<name>")
        unknown = [name for name in self.features if name not in get_args(Feature)]
        if unknown and not self.label.startswith("feature:"):
            raise ValueError(
                f"features: {', '.join(unknown)} is none of {', '.join(get_args(Feature))}; other names are "
                "for a CSV from elsewhere, with label=feature:<name>"
            )
        if min(self.split) < 0 or min(self.split[:2]) <= 0 or abs(sum(self.split) - 1) > 1e-6:
            raise ValueError(
                "split: three shares that add up to 1, the first two above 0 (validation chooses the epoch "
                "that is kept); the third may be 0, then errors are those of validation"
            )
        return self


class Evaluate(Section):
    """What calculate.py and similarity.py compare."""

    runs: str = Field("runs/app", description="directory whose run directories are compared")
    baseline: str = Field("hpa_70", description="policy that the others are paired with")
    warmup: NotNegative = Field(300.0, description="seconds at the start of each run that are left out")
    output_dir: str = Field("runs/app", description="directory for summary.json and the pictures")
    timelines: Annotated[int, Field(ge=0)] = Field(
        3, description="number of seeds that get a timeline picture"
    )
    timeline_policies: list[str] = Field(
        [],
        description="policies in these pictures, at most 4; "
        "empty: deepscaler, the baseline and the best of the others",
    )
    graphs: list[str] = Field(
        [],
        description="similarity.py: CSV files of graphs; empty: those of the data directory and the bundle",
    )
    edge_threshold: Share = Field(
        0.1, description="similarity.py: weights of at most this share of a graph's largest are no edges"
    )


_OF_SHAPES = ("low", "high", "noise", "period", "longest_period", "hold", "course")
"""Keys of a load that a trace takes no notice of."""


def _replays(load: dict[str, Any]) -> bool:
    """Whether a load names a trace: that of the README, or a file."""
    name = str(load.get("shape", "")).partition("#")[0]
    return name == "req" or bool(Path(name).suffix)


class Settings(Section):
    """`config/<app>.yaml`: the application and its cluster, and one section for each stage."""

    app: App
    cluster: ClusterSection = ClusterSection()
    collect: Collect = Collect()
    process: Process = Process()
    scale: Scale = Scale()
    evaluate: Evaluate = Evaluate()
    testbed: Testbed = Testbed()

    @model_validator(mode="before")
    @classmethod
    def _whole_load(cls, data: Any) -> Any:
        """`scale.load` says what differs from `testbed.load`; each is refused where it stands."""
        scale, bed = (data.get(name) if isinstance(data, dict) else None for name in ("scale", "testbed"))
        own = scale.get("load") if isinstance(scale, dict) else None
        base = bed.get("load") if isinstance(bed, dict) else None
        if not isinstance(own, dict) or not isinstance(base, dict):
            return data
        try:
            Load.model_validate(base)
        except ValidationError:
            return data
        taken = {key: value for key, value in base.items() if key not in _OF_SHAPES or not _replays(own)}
        return {**data, "scale": {**data["scale"], "load": {**taken, **own}}}

    @property
    def lease_name(self) -> str:
        """Name of the Lease by which replicas of the controller elect the one that writes."""
        return self.cluster.lease.name or f"deepscaler-{self.app.name}".lower().replace("_", "-")

    @property
    def modes(self) -> frozenset[Mode]:
        """What may be written for any of the services that are scaled."""
        scaled = [name for name, service in self.app.services.items() if service.scaled]
        return frozenset(self.scale.mode_of(name) for name in scaled)

    @property
    def watching(self) -> bool:
        """Whether nothing at all may be written to the cluster."""
        return self.modes <= {"shadow"}

    @model_validator(mode="after")
    def _names_fit_kubernetes(self) -> Self:
        if self.cluster.kind != "kubernetes":
            return self
        self.app.check_names()
        lease = self.cluster.lease
        if lease.enabled:
            where = "cluster.lease.name" if lease.name else "app.name, of which the Lease has its name"
            advice = "" if lease.name else " (or set cluster.lease.name)"
            check_name(f"{where}{advice}", self.lease_name, dots=True)
            check_name("cluster.lease.namespace", lease.namespace or self.app.namespace)
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ratio = self.process.step / self.collect.step
        if ratio < 0.5 or not math.isclose(ratio, round(ratio), rel_tol=1e-9):
            raise ValueError(
                f"process.step {self.process.step:g} is not a multiple of collect.step {self.collect.step:g}"
            )
        by_service: dict[str, Iterable[str]] = {
            "scale.guard_rails.forced": self.scale.guard_rails.forced,
            "scale.guard_rails.per_service": self.scale.guard_rails.per_service,
            "scale.guard_rails.paused": self.scale.guard_rails.paused,
            "scale.guard_rails.behavior": self.scale.guard_rails.behavior,
            "scale.static_replicas": self.scale.static_replicas,
            "scale.modes": self.scale.modes,
            "process.boot_seconds": self.process.boot_seconds,
        }
        for index, entry in enumerate(self.scale.guard_rails.calendar):
            by_service[f"scale.guard_rails.calendar[{index}].services"] = entry.services
        for index, constraint in enumerate(self.scale.guard_rails.constraints):
            by_service[f"scale.guard_rails.constraints[{index}].takes"] = constraint.takes
        for where, names in by_service.items():
            for name in names:
                if name not in self.app.services:
                    raise ValueError(
                        f"{where}: unknown service {name!r}; services: {', '.join(self.app.services)}"
                    )
        return self
