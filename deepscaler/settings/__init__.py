"""Settings: one YAML an application, two for training, then `--set section.key=value`. Unknown keys are refused."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from deepscaler.artefacts import utc_seconds
from deepscaler.errors import SettingsError

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Feature = Literal["pod", "cpu", "mem", "res", "req"]


def _text_of_time(value: Any) -> Any:
    """YAML reads an unquoted 2026-01-05T00:00:00Z as a time: back to text, and checked. Pydantic judges other types."""
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, str):
        try:
            utc_seconds(value)
        except ValueError as error:
            raise ValueError("not an ISO 8601 time such as 2026-01-05T00:00:00Z") from error
    return value


Moment = Annotated[str, BeforeValidator(_text_of_time)]


class Section(BaseModel):
    """A block of settings: strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# ---------------------------------------------------------------------------------------------- application and cluster
class Service(Section):
    """How one service is found in the cluster; every name is the service's own by default."""

    deployment: str | None = Field(None, description="Deployment that is scaled")
    container: str | None = Field(None, description="container whose CPU and memory count")
    workloads: list[str] | None = Field(
        None, description="Istio workloads whose requests count (reviews-v1, reviews-v2, …)"
    )
    scaled: bool = Field(True, description="false: observed, never scaled")


class Entry(Section):
    """An entry endpoint and its objectives."""

    name: str = Field(description="endpoint as the load generator and the report name it")
    service: str = Field(description="service that receives it")
    sla: Positive = Field(0.2, description="bound on the mean response time of a minute, s")
    slo: Positive = Field(0.5, description="bound on one request's response time, s")


class App(Section):
    """The application: names only."""

    name: str
    namespace: str = "default"
    services: dict[str, Service]
    entries: list[Entry]

    @model_validator(mode="before")
    @classmethod
    def _bare_services(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("services"), dict):
            data = {**data, "services": {name: value or {} for name, value in data["services"].items()}}
        return data

    @model_validator(mode="after")
    def _entries_name_services(self) -> Self:
        for entry in self.entries:
            if entry.service not in self.services:
                raise ValueError(
                    f"entry {entry.name!r} names unknown service {entry.service!r}; services: {', '.join(self.services)}"
                )
        return self


class Prometheus(Section):
    """Where metrics come from on a real cluster: anything that speaks Prometheus's query API. Secrets print as stars."""

    url: Annotated[str, Field(pattern=r"^https?://[^/\s@]+(/\S*)?$")] = "http://127.0.0.1:30090"
    token: SecretStr | None = Field(None, description="bearer token")
    token_file: str | None = Field(None, description="file with the bearer token, read again at each request")
    username: str | None = Field(None, description="basic authentication, with `password`")
    password: SecretStr | None = None
    ca_file: str | None = Field(None, description="certificate authority of an https server")
    headers: dict[str, SecretStr] = Field({}, description="sent with each request (X-Scope-OrgID: tenant)")
    timeout: Positive = Field(30.0, description="seconds a request may take")
    retries: Annotated[int, Field(ge=0)] = Field(
        3, description="further tries after a connection error, 5xx or 429"
    )

    @model_validator(mode="after")
    def _one_authentication(self) -> Self:
        given = [key for key in ("token", "token_file", "username") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of token, token_file, username; found {' and '.join(given)}")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        return self


class Jaeger(Section):
    """Jaeger's query service, where the call graph comes from it."""

    url: Annotated[str, Field(pattern=r"^https?://[^/\s@]+(/\S*)?$")] = Field(
        "http://127.0.0.1:16686", description="with its path prefix (Istio's sample: /jaeger)"
    )
    token: SecretStr | None = Field(None, description="bearer token")
    headers: dict[str, SecretStr] = Field({}, description="sent with each request")
    sampling: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of requests that are traced (Istio's default: 0.01)"
    )
    timeout: Positive = Field(30.0, description="seconds a request may take")


class Lease(Section):
    """The Kubernetes Lease by which replicas of the controller elect the one that writes."""

    enabled: bool = Field(True, description="false: nothing keeps two controllers apart")
    name: str | None = Field(None, description="deepscaler-<app.name> by default")
    namespace: str | None = Field(None, description="the application's by default")
    identity: str | None = Field(
        None, description="of this controller, a random suffix is added; by default the host's (pod's) name"
    )
    duration: Annotated[int, Field(ge=1)] = Field(
        15, description="seconds without a renewal after which another may take over"
    )
    renew_deadline: Positive = Field(
        10.0, description="seconds after its last renewal at which a leader stops writing"
    )
    retry_period: Positive = Field(2.0, description="seconds between tries to take or renew it")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.retry_period < self.renew_deadline < self.duration:
            raise ValueError(
                "needs retry_period < renew_deadline < duration, so that a leader stops writing before another starts; "
                f"found {self.retry_period:g}, {self.renew_deadline:g}, {self.duration}"
            )
        return self


class ClusterSection(Section):
    """Which cluster the scripts talk to."""

    kind: Literal["testbed", "kubernetes"] = "testbed"
    prometheus: Prometheus = Prometheus()
    kubeconfig: str | None = Field(
        None, description="by default KUBECONFIG, ~/.kube/config, then the pod's service account"
    )
    context: str | None = Field(None, description="of the kubeconfig; by default its current one")
    timeout: Positive = Field(10.0, description="seconds a request to the Kubernetes API may take")
    call_graph: Literal["istio", "jaeger"] = Field("istio", description="where calls.csv comes from")
    jaeger: Jaeger = Jaeger()
    lease: Lease = Lease()


# ------------------------------------------------------------------------------------------------------------- stages
class Query(Section):
    """One PromQL template for all services; see `deepscaler/adapters/queries.py` for the placeholders.

    Series that belong to one service are added up; a ratio of sums is written with `divide_by`.
    """

    query: str
    label: str = Field(
        description="label that tells the service of a series: container, deployment, pod, destination_workload"
    )
    divide_by: str | None = Field(None, description="template of the denominator, with the same label")


class CallsQuery(Query):
    """Calls per second of every pair; `label` names the callee's label."""

    caller: str = Field(
        "source_workload", description="label that tells the caller; a value that is no service is `external`"
    )


class Collect(Section):
    """metrics_fetch.py"""

    step: Positive = Field(15.0, description="seconds between samples")
    start: Moment | None = Field(
        None, description="ISO 8601, UTC; the first sample; without it `last` seconds before the end"
    )
    end: Moment | None = Field(
        None, description="ISO 8601, UTC; without it now (testbed: `last` seconds after the start)"
    )
    last: Positive = Field(3600.0, description="seconds back from now (testbed: from testbed.start)")
    output_dir: str = Field("data/app", description="metrics.csv and calls.csv go here")
    window: Annotated[str, Field(pattern=r"^([0-9]+(ms|s|m|h|d))+$")] = Field(
        "1m", description="range of rate() in the queries"
    )
    calls_window: Positive = Field(300.0, description="seconds a row of calls.csv")
    chunk_points: Annotated[int, Field(ge=2, le=11000)] = Field(
        10000, description="points a series and request"
    )
    queries: dict[Feature, Query] = Field({}, description="overrides of the built-in PromQL templates")
    calls_query: CallsQuery | None = None


class Process(Section):
    """data_process.py"""

    step: Positive = Field(60.0, description="seconds a time step of the model; a multiple of collect.step")
    features: list[Feature] = ["pod", "cpu", "res", "req"]
    window: Annotated[int, Field(ge=1)] = 80
    horizon: Annotated[int, Field(ge=1)] = 1
    label: str = Field("required", description="required | observed | feature:<name>")
    split: tuple[float, float, float] = Field(
        (0.6, 0.2, 0.2), description="training, validation, test; in time order", strict=False
    )
    priors: list[str] | None = Field(
        None,
        description="call, od, structural, cc, identity or a CSV of [N, N] with service names; "
        "None: call, without recorded calls structural, without response times cc",
    )
    prior_cutoff: Share = Field(
        0.3, description="od and cc: weaker entries, relative to the largest, are cut"
    )
    rho_max: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.9, description="required: utilisation of the limit never exceeded"
    )
    sla_margin: Positive = Field(
        0.75, description="required: share of the SLA the predicted response may take"
    )
    look_back: Annotated[float, Field(ge=0)] = Field(
        60.0, description="required: seconds behind that still count"
    )
    look_ahead: Annotated[float, Field(ge=0)] = Field(60.0, description="required: seconds beyond boot")
    lead: bool = Field(True, description="false: the ablation 'lead 0' (no look-ahead)")
    rate_window: Positive = Field(
        30.0,
        description="required: seconds a request rate is averaged over; short, so that a step isn't hidden",
    )
    think_time: Positive | None = Field(
        None, description="closed loop: seconds between a user's tasks; None: open loop"
    )
    requests_per_think: Positive = Field(
        1.0, description="closed loop: entry requests a task (a page that redirects makes two)"
    )
    visit_window: Positive = Field(1800.0, description="required: seconds over which visits are averaged")
    boot_seconds: dict[str, float] = Field(
        {}, description="pod start-up by service where the cluster doesn't tell"
    )
    plots: bool = Field(
        True, description="required: draw labels.png, the page that says how far the labels can be trusted"
    )
    output_dir: str = Field(
        "data/app", description="dataset.npz, meta.json, labels.json, labels.png and graphs/ go here"
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.label not in ("required", "observed") and not self.label.startswith("feature:"):
            raise ValueError("label: allowed are required, observed, feature:<name>")
        if (
            len(self.split) != 3
            or min(self.split) < 0
            or self.split[0] <= 0
            or abs(sum(self.split) - 1) > 1e-6
        ):
            raise ValueError("split: three shares that add up to 1, the first above 0")
        return self


class GuardRails(Section):
    """Bounds on every decision."""

    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 30
    per_service: dict[str, tuple[int, int]] = Field(
        {}, description="[min, max] of single services", strict=False
    )
    round_up_threshold: Share = 0.35
    tolerance: Annotated[float, Field(ge=0)] = Field(0.0, description="relative change that is ignored")
    scale_down_window: Annotated[float, Field(ge=0)] = Field(
        120.0, description="stabilization: seconds whose highest target holds"
    )
    max_step_up: Annotated[int, Field(ge=1)] = 20
    max_step_down: Annotated[int, Field(ge=1)] = 20
    forced: dict[str, int] = Field({}, description="replicas set by hand")
    paused: list[str] = Field([], description="services left alone")
    quota_cores: float | None = Field(None, description="sum of CPU limits that targets may take")

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
    """The reactive floor: the `required` rule on the present, demand-corrected rate."""

    enabled: bool = True
    seconds: Positive = Field(30.0, description="the rate is taken over this last stretch")
    rho_max: Annotated[float, Field(gt=0, lt=1)] = 0.9


class Hpa(Section):
    """The Kubernetes autoscaling/v2 controller's flags."""

    sync_period: Positive = 15.0
    downscale_stabilization: Annotated[float, Field(ge=0)] = 300.0
    tolerance: Annotated[float, Field(ge=0)] = 0.1
    cpu_initialization_period: Annotated[float, Field(ge=0)] = 300.0
    initial_readiness_delay: Annotated[float, Field(ge=0)] = 30.0
    behavior: dict[str, Any] | None = None


class Explore(Section):
    """The exploring policy, which varies replicas on purpose so that telemetry shows what they do."""

    allow: bool = Field(
        False, description="on a real cluster it acts only with true (the testbed needs no leave)"
    )
    target: tuple[float, float] = Field(
        (0.35, 0.95), description="range of target utilisation of the limit", strict=False
    )
    seconds: tuple[float, float] = Field(
        (180.0, 600.0), description="targets are redrawn so often", strict=False
    )
    sla_share: Share = Field(
        0.5,
        description="real cluster: an entry response above this share of its SLA ends exploring for `calm_seconds`",
    )
    calm_seconds: Positive = Field(
        300.0, description="real cluster: exploring begins again after so long below that"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, (low, high) in {"target": self.target, "seconds": self.seconds}.items():
            if not 0 < low <= high:
                raise ValueError(f"{name}: needs 0 < low <= high, found [{low:g}, {high:g}]")
        return self


class MixChange(Section):
    """Users do other things from now on: dependencies really change."""

    after_seconds: Annotated[float, Field(ge=0)] = Field(description="since testbed.start")
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        description="of the application's tasks; those not named keep theirs"
    )


class Load(Section):
    """Offered load: users of a closed loop or a rate of an open one."""

    shape: str = Field("mixed", description="a name of testbed.shapes or a path to a .req or CSV trace")
    kind: Literal["closed", "open"] = "closed"
    low: Positive = 25.0
    high: Positive = 95.0
    noise: Annotated[float, Field(ge=0)] = 2.0
    period: Positive = Field(700.0, description="seconds of a fluctuation or square wave")
    step: Positive = Field(5.0, description="seconds a value of the trace")
    scale: Positive = Field(1.0, description="the trace is multiplied by this")
    mix: list[MixChange] = Field(
        [],
        description="changes of the request mix, in time order; none: the application's weights throughout",
    )


class Scale(Section):
    """predict_scale.py"""

    policy: str = Field(
        "deepscaler",
        description="deepscaler, reactive_holistic, hpa_<percent of limit>, static, explore; testbed: foreseen, oracle",
    )
    policies: list[str] = Field([], description="several, one run each (testbed); overrides `policy`")
    seeds: list[int] = Field([], description="testbed: one run a seed; empty: testbed.seed")
    bundle: str = "model_states/app/AdapGLA.pt"
    period: Positive = Field(60.0, description="seconds between forecasts")
    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="of the forecast: .9 scales on its upper bound"
    )
    duration: Positive | None = Field(
        None, description="seconds to run; None: until stopped (testbed: the load's length)"
    )
    run_dir: str = Field("runs/app", description="<policy>-<seed>/ goes below")
    guard_rails: GuardRails = GuardRails()
    floor: Floor = Floor()
    hpa: Hpa = Hpa()
    explore: Explore = Explore()
    stale_after: Positive = Field(
        120.0, description="seconds after which a service's metrics are stale: it is held"
    )
    fill_samples: Annotated[int, Field(ge=0)] = Field(
        4, description="missing samples that the last known value stands in for"
    )
    error_share: Share = Field(
        0.05, description="a drop in traffic while more requests than this fail is no reason to scale down"
    )
    min_known_services: Share = Field(0.5, description="share of services the bundle must know")
    static_replicas: dict[str, int] = {}
    dry_run: bool = False
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        None, description="serve the controller's own metrics at /metrics there; None: don't"
    )
    metrics_address: str = Field("127.0.0.1", description="address of that page; 0.0.0.0 in a pod")
    workers: Annotated[int, Field(ge=1)] = Field(2, description="testbed: runs side by side")
    load: Load | None = Field(None, description="testbed: the load of these runs; None: testbed.load")
    shapes: list[str] = Field(
        [], description="testbed: load shapes taken in turn, one a seed; empty: load.shape"
    )


class Evaluate(Section):
    """calculate.py and similarity.py"""

    runs: str = Field("runs/app", description="directory whose run directories are compared")
    baseline: str = Field("hpa_70", description="policy that others are paired with")
    warmup: Annotated[float, Field(ge=0)] = Field(300.0, description="seconds cut from the start of each run")
    output_dir: str = Field("runs/app", description="summary.json and pictures go here")
    timelines: Annotated[int, Field(ge=0)] = Field(3, description="pictures of the first n seeds")
    timeline_policies: list[str] = Field(
        [], description="at most 4; empty: deepscaler, the baseline and the best of the rest"
    )
    graphs: list[str] = Field(
        [], description="similarity.py: CSV files; empty: those of the data directory and the bundle"
    )
    edge_threshold: Share = Field(
        0.1, description="similarity.py: weights at most this share of a graph's largest are no edges"
    )


# ------------------------------------------------------------------------------------------------------------ testbed
Port = Annotated[int, Field(ge=0, le=65535)]


class Serve(Section):
    """`python -m testbed serve`: everything on 127.0.0.1; port 0 takes any free one."""

    gateway_port: Port = Field(30001, description="the application's URLs")
    prometheus_port: Port | None = Field(30090, description="null: no Prometheus is started")
    kubernetes_port: Port = 30443
    jaeger_port: Port = 16686
    metrics_port: Port = Field(30091, description="the /metrics page that Prometheus scrapes")
    scrape_interval: Positive = Field(15.0, description="seconds between Prometheus's scrapes")
    step: Positive = Field(0.005, description="seconds between two steps of the engine")
    directory: str = Field("runs/serve", description="kubeconfig, serve.json and Prometheus's data go here")


class Testbed(Section):
    """The emulated cluster."""

    application: str = Field(
        "boutique", description="a file of testbed/apps without .yaml, a path, or synthetic:N[:DRAW]"
    )
    start: Moment = "2026-01-05T00:00:00Z"
    seed: int = 1
    warmup: Annotated[float, Field(ge=0)] = Field(300.0, description="virtual seconds before `start`")
    duration: Positive = Field(3600.0, description="seconds of load")
    load: Load = Load()
    balancing: Literal["random", "round_robin", "least_request", "two_choices"] = "least_request"
    demand_sigma: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="log-normal spread of CPU demands and call counts around the file's, drawn by demand_seed",
    )
    demand_seed: int = Field(
        1, description="which draw of demands and counts: one application whatever the seed of load and run"
    )
    initial_replicas: Annotated[int, Field(ge=1)] = 2
    serve: Serve = Serve()


class Settings(Section):
    """`config/<app>.yaml`: one section a stage."""

    app: App
    cluster: ClusterSection = ClusterSection()
    collect: Collect = Collect()
    process: Process = Process()
    scale: Scale = Scale()
    evaluate: Evaluate = Evaluate()
    testbed: Testbed = Testbed()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.process.step / self.collect.step) % 1:
            raise ValueError(
                f"process.step {self.process.step:g} is not a multiple of collect.step {self.collect.step:g}"
            )
        by_service: dict[str, Iterable[str]] = {
            "scale.guard_rails.forced": self.scale.guard_rails.forced,
            "scale.guard_rails.per_service": self.scale.guard_rails.per_service,
            "scale.guard_rails.paused": self.scale.guard_rails.paused,
            "scale.static_replicas": self.scale.static_replicas,
            "process.boot_seconds": self.process.boot_seconds,
        }
        for where, names in by_service.items():
            for name in names:
                if name not in self.app.services:
                    raise ValueError(
                        f"{where}: unknown service {name!r}; services: {', '.join(self.app.services)}"
                    )
        return self


# ----------------------------------------------------------------------------------------------------------- training
class Optimiser(Section):
    """Adam and its cosine schedule."""

    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    gradient_clip: Positive | None = 5.0


class Graph(Section):
    """The graph learner and the EM loop around it."""

    learner: Literal["gates", "antisymmetric", "none"] = "gates"
    trainer: Literal["em", "end_to_end"] = "em"
    max_graph_num: Annotated[int, Field(ge=1)] = Field(3, description="|S|: candidate graphs kept")
    embedding_size: Annotated[int, Field(ge=1)] = 8
    learning_rate: Positive = Field(1e-2, description="of the graph learner")
    sparsity_weight: Annotated[float, Field(ge=0)] = 0.005
    union_temperature: Literal["spread", "raw"] = Field(
        "spread", description="raw: softmax of -loss as published"
    )
    union_share: Share = Field(
        0.8, description="share of the iterations in which A* is the union; then the newest graph"
    )
    new_edge_term: Literal["smooth", "sign"] = Field(
        "smooth", description="antisymmetric; sign: as published, without gradient"
    )
    new_edge_budget: Positive = Field(0.05, description="δ")
    threshold: Annotated[float, Field(ge=0)] = Field(0.0, description="antisymmetric: ε·N; 0.5 as published")


class Comparison(Section):
    """`--model_name all`: the budget of every network (`--full`: their own sizes, the data's window, the epochs above)."""

    seeds: list[int] = Field([1, 2, 3], min_length=1, description="one training each")
    window: Annotated[int, Field(ge=1)] = Field(20, description="steps; shorter where the data's is")
    channels: Annotated[int, Field(ge=2)] = Field(64, description="of every network that has channels")
    epochs: Annotated[int, Field(ge=1)] = Field(
        12, description="epochs at most; graph and network in one step (end to end)"
    )
    patience: Annotated[int, Field(ge=1)] = Field(5, description="epochs without a new best")
    processor_seconds: Positive = Field(
        45.0, description="of training, after which no further epoch begins (AdapGLD, DCRNN)"
    )
    learning_rate: Positive = 2e-3
    unrounded: bool = Field(True, description="as `unrounded` of a training, for every row")
    workers: Annotated[int, Field(ge=1)] = Field(
        2, description="trainings side by side on a CPU, one thread each"
    )


class Train(Section):
    """`train_config.yaml`."""

    optimiser: Optimiser = Optimiser()
    graph: Graph = Graph()
    comparison: Comparison = Comparison()
    num_epoch: Annotated[int, Field(ge=1)] = Field(5, description="epochs an M- or E-step")
    num_iter: Annotated[int, Field(ge=1)] = Field(20, description="EM iterations")
    patience: Annotated[int, Field(ge=1)] = Field(
        5, description="epochs of a step, and iterations of a run that may stop early, without a new best"
    )
    stop_early: bool = Field(
        False, description="the run may stop early under a cosine too; at a constant rate it always may"
    )
    processor_seconds: Positive | None = Field(
        None, description="of training, after which no further iteration begins; None: no bound"
    )
    early_stopping: Literal["best", "previous"] = Field("best", description="previous: as published")
    unrounded: bool = Field(
        False,
        description="`required`: learn the requirement before it is rounded up, round forecasts up: closer, but leaner; see README",
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="of matrix products while training (autocast)"
    )
    compile: bool = Field(False, description="torch.compile the network; needs a C++ compiler on a CPU")
    seed: int = 1
    random_graphs: Annotated[int, Field(ge=0)] = Field(
        5, description="rivals of the 'is the graph real?' block"
    )
    refit_epochs: Annotated[int, Field(ge=0)] = Field(
        5, description="that block: epochs a fresh predictor is fitted with each graph; 0: none"
    )
    refit_seeds: Annotated[int, Field(ge=1)] = Field(
        1, description="that block: fresh predictors a graph, paired by seed"
    )
    refit_graphs: list[str] = Field(
        [], description="that block: rivals that are refitted beside the learned graph; empty: the main ones"
    )
    graph_seeds: Annotated[int, Field(ge=0)] = Field(
        0, description="further whole trainings of other seeds: is their graph alike?"
    )


class DataSettings(Section):
    """Where the training data lies."""

    data_dir: str = "data/boutique"
    batch_size: Annotated[int, Field(ge=1)] = 64
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, …")
    threads: Annotated[int, Field(ge=0)] = Field(0, description="CPU threads; 0: all")
    stride: Annotated[int, Field(ge=1)] = Field(1, description="training takes every n-th window")
    evaluation_stride: Annotated[int, Field(ge=1)] = Field(
        1, description="validation and test take every n-th window"
    )
    longest_season: Annotated[int, Field(ge=0)] = Field(
        2000, description="steps; longest season looked for in training labels; 0: none"
    )


class AdapGLASizes(Section):
    """As published."""

    graph_channels: Annotated[int, Field(ge=2)] = 128
    time_channels: Annotated[int, Field(ge=1)] = 128
    order: Annotated[int, Field(ge=1)] = Field(3, description="K: Chebyshev terms T_0..T_{K-1}")
    kernel: Annotated[int, Field(ge=1)] = 5
    blocks: Annotated[int, Field(ge=1)] = 2
    attention: bool = Field(True, description="false: no temporal attention, for comparison")


class AdapGLTSizes(Section):
    """As published."""

    graph_channels: Annotated[int, Field(ge=2)] = 128
    time_channels: Annotated[int, Field(ge=1)] = 128
    order: Annotated[int, Field(ge=1)] = Field(3, description="K: Chebyshev terms T_0..T_{K-1}")
    blocks: Annotated[int, Field(ge=1)] = 2


class DiffusionSizes(Section):
    """Of AdapGLD and DCRNN: Li et al. 2018, appendix E."""

    channels: Annotated[int, Field(ge=1)] = 64
    diffusion: Annotated[int, Field(ge=0)] = Field(
        2, description="steps of the random walks in both directions"
    )
    layers: Annotated[int, Field(ge=1)] = Field(2, description="of the encoder, and of the decoder")


class STIDSizes(Section):
    """Shao et al. 2022, with the authors' dropout."""

    channels: Annotated[int, Field(ge=1)] = Field(32, description="of each of the three embeddings")
    layers: Annotated[int, Field(ge=1)] = 3
    slots: Annotated[int, Field(ge=1)] = Field(
        288, description="times of day that have an embedding; 288: five minutes each"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.15


class LSTMSizes(Section):
    """Of an ordinary LSTM."""

    channels: Annotated[int, Field(ge=1)] = 128
    layers: Annotated[int, Field(ge=1)] = 2


class GCNSizes(Section):
    """Of an ordinary GCN."""

    channels: Annotated[int, Field(ge=1)] = 128
    layers: Annotated[int, Field(ge=1)] = 2


class ASTGCNSizes(Section):
    """Guo et al. 2019, section 5.2."""

    channels: Annotated[int, Field(ge=1)] = 64
    order: Annotated[int, Field(ge=1)] = Field(3, description="K: Chebyshev terms T_0..T_{K-1}")
    kernel: Annotated[int, Field(ge=1)] = 3
    blocks: Annotated[int, Field(ge=1)] = 2


class AdapGLSSizes(Section):
    """This project's own."""

    channels: Annotated[int, Field(ge=1)] = 64
    blocks: Annotated[int, Field(ge=1)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    twin: bool = Field(True, description="false: no expert for shifts of level, no online weights")
    present: bool = Field(True, description="false: starts from the newest complete label, for comparison")


class NoSizes(Section):
    """A network without hyper-parameters."""


class ModelConfig(Section):
    """`train_datasets_speed.yaml`: data set, device and one block of hyper-parameters a network."""

    dataset: DataSettings = DataSettings()
    AdapGLA: AdapGLASizes = AdapGLASizes()
    AdapGLT: AdapGLTSizes = AdapGLTSizes()
    AdapGLD: DiffusionSizes = DiffusionSizes()
    AdapGLS: AdapGLSSizes = AdapGLSSizes()
    AR: NoSizes = NoSizes()
    STID: STIDSizes = STIDSizes()
    LSTM: LSTMSizes = LSTMSizes()
    GCN: GCNSizes = GCNSizes()
    ASTGCN: ASTGCNSizes = ASTGCNSizes()
    DCRNN: DiffusionSizes = DiffusionSizes()
    Persistence: NoSizes = NoSizes()
    SeasonalNaive: NoSizes = NoSizes()


# ------------------------------------------------------------------------------------------------------------ loading
Model = TypeVar("Model", bound=Section)


def load_settings(path: str | Path, overrides: list[str] | None = None) -> Settings:
    """Read `config/<app>.yaml` and apply `section.key=value` texts.

    Raises:
        SettingsError: one line with file, dotted key, value and what is allowed.
    """
    return load_section(Settings, path, overrides or [])


def load_section(kind: type[Model], path: str | Path, overrides: list[str]) -> Model:
    """Read any settings file as `kind`; see `load_settings`."""
    path = Path(path)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file; the shipped ones are in config/") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise SettingsError(
            f"{path}:{line} not valid YAML ({getattr(error, 'problem', None) or error})"
        ) from error
    if not isinstance(document, dict):
        raise SettingsError(
            f"{path}: expected sections ({', '.join(kind.model_fields)}), found {type(document).__name__}"
        )
    for text in overrides:
        _override(document, text)
    try:
        return kind.model_validate(_floats(document, kind))
    except ValidationError as error:
        raise SettingsError(_explain(error, path, kind, document)) from error


def _override(document: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise SettingsError(f"--set {text}: expected section.key=value")
    place = document
    for part in parts[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise SettingsError(f"--set {text}: {part!r} is not a section")
    try:
        place[parts[-1]] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SettingsError(f"--set {text}: {value!r} is not a YAML value") from error


def _floats(value: Any, kind: type[BaseModel]) -> Any:
    """YAML reads 1e-3 as text: turn such texts into floats where only a number is allowed. Pydantic judges the rest."""
    if not isinstance(value, dict):
        return value
    out = dict(value)
    for name, info in kind.model_fields.items():
        if name not in out:
            continue
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            out[name] = _floats(out[name], annotation)
        elif annotation is float and isinstance(out[name], str):
            with contextlib.suppress(ValueError):  # pydantic names it
                out[name] = float(out[name])
    return out


def _explain(error: ValidationError, path: Path, kind: type[BaseModel], document: dict[str, Any]) -> str:
    first = error.errors()[0]
    dotted = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        allowed = _allowed_keys(kind, first["loc"][:-1])
        return f"{path}: {dotted}: unknown key; allowed here: {', '.join(allowed)}{more}"
    if first["type"] == "missing":
        return f"{path}: {dotted}: missing, and it has no default{more}"
    found = f" (found {first['input']!r})" if not isinstance(first["input"], dict) else ""
    return f"{path}: {dotted or 'settings'}: {first['msg'].removeprefix('Value error, ')}{found}{more}"


def _allowed_keys(kind: type[BaseModel], where: tuple[int | str, ...]) -> list[str]:
    for part in where:
        info = kind.model_fields.get(str(part))
        annotation: Any = info.annotation if info else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        sections = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if sections:
            kind = sections[0]
    return list(kind.model_fields)


def main(argv: list[str] | None = None) -> int:
    """Print the JSON schema of one of the three files: `python -m deepscaler.settings --schema`."""
    kinds: dict[str, type[Section]] = {"app": Settings, "train": Train, "model": ModelConfig}
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--schema", nargs="?", const="app", choices=tuple(kinds), required=True)
    print(json.dumps(kinds[parser.parse_args(argv).schema].model_json_schema(), indent=2))
    return 0
