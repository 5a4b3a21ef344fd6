"""The emulated cluster and the load that is offered to it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from deepscaler.settings.base import (
    Moment,
    NotNegative,
    Port,
    Positive,
    Replicas,
    Section,
    Seed,
    Share,
    Span,
)

Delay = Annotated[int, Field(ge=0, le=20)]


class MixChange(Section):
    """A moment from which users do other things, so that the dependencies between services really change."""

    after_seconds: NotNegative = Field(description="seconds after testbed.start at which the mix changes")
    weights: dict[str, NotNegative] = Field(
        description="new weights of the application's tasks; tasks that aren't named keep theirs"
    )


class Load(Section):
    """Offered load: the number of users of a closed loop, or the rate of an open one, over time."""

    shape: str = Field(
        "mixed",
        description="name of a shape in testbed/shapes.py, or path to a trace: .req or .txt (users, line by "
        "line) or CSV (a column `time` and one of counts, which are divided by the seconds between rows)",
    )
    kind: Literal["closed", "open"] = Field(
        "closed",
        description="closed: values are users who wait for each answer; open: values are arrivals per second",
    )
    low: Positive = Field(25.0, description="lowest value of the shape")
    high: Positive = Field(95.0, description="highest value of the shape")
    noise: NotNegative = Field(2.0, description="standard deviation of the noise that is added to each value")
    period: Positive = Field(
        700.0,
        description="seconds of one period of a fluctuation, square wave or cycle, or from burst to burst",
    )
    longest_period: Positive | None = Field(
        None, description="the seed draws the period between `period` and this, evenly on a log scale"
    )
    hold: NotNegative = Field(
        0.0,
        description="seconds before a shape that comes once (an increase or a decrease) begins; until then "
        "it stays at its first value. A run adds `testbed.history`, so that the shape is what is judged",
    )
    course: list[Annotated[tuple[NotNegative, Share], Field(strict=False)]] = Field(
        [(0.0, 0.5)],
        min_length=1,
        description="shapes course and cycle: [seconds, level] in time order, linear between them; level 0 "
        "is `low`, 1 is `high`. A cycle begins again after each period, and the seed draws where it begins",
    )
    step: Positive = Field(
        5.0, description="seconds for which each value of the trace holds, however far apart its rows are"
    )
    scale: Positive = Field(
        1.0,
        description="factor by which the trace is multiplied; where a CSV counts users and not requests: the "
        "seconds between its rows",
    )
    mix: list[MixChange] = Field(
        [],
        description="changes of the request mix in time order; empty: the application's weights throughout",
    )

    @model_validator(mode="after")
    def _in_time_order(self) -> Self:
        moments = {
            "course": [seconds for seconds, _ in self.course],
            "mix": [change.after_seconds for change in self.mix],
        }
        for name, times in moments.items():
            for before, after in pairwise(times):
                if after < before:
                    raise ValueError(f"{name}: {after:g} s stands behind {before:g} s; give it in time order")
        return self


class Serve(Section):
    """`python -m testbed serve`: everything listens on 127.0.0.1; port 0 takes any free one."""

    gateway_port: Port = Field(30001, description="port of the application's URLs")
    prometheus_port: Port | None = Field(
        30090, description="port of a real Prometheus server; null: none is started"
    )
    kubernetes_port: Port = Field(30443, description="port of the emulated Kubernetes API")
    jaeger_port: Port = Field(16686, description="port of the emulated Jaeger query service")
    metrics_port: Port = Field(30091, description="port of the /metrics page that Prometheus scrapes")
    page_port: Port | None = Field(30080, description="port of the page to watch; null: none is served")
    controller_port: Port = Field(
        30092, description="the page shows what a controller with this `scale.metrics_port` decides"
    )
    scrape_interval: Positive = Field(15.0, description="seconds between Prometheus's scrapes")
    step: Positive = Field(0.005, description="seconds between two steps of the engine")
    directory: str = Field(
        "runs/serve", description="directory for the kubeconfig, serve.json and Prometheus's data"
    )


class Testbed(Section):
    """The emulated cluster."""

    application: str = Field(
        "boutique", description="a file of testbed/apps without .yaml, a path, or synthetic:N[:DRAW]"
    )
    start: Moment = Field("2026-01-05T00:00:00Z", description="time at which the load begins")
    seed: Seed = Field(1, description="seed of all that is random in a run: load, requests, start-up times")
    warmup: NotNegative = Field(300.0, description="virtual seconds of load before `start`")
    history: Span = Field(
        0.0,
        description="seconds of load and control before the judged part of a run; `duration` comes on top",
    )
    earlier: Span = Field(
        0.0,
        description="seconds of load before `start` that only the metrics know, minute by minute: weeks of "
        "history without simulating them",
    )
    duration: Positive = Field(3600.0, description="seconds of load from `start` on")
    load: Load = Load()
    balancing: Literal["random", "round_robin", "least_request", "two_choices"] = Field(
        "least_request",
        description="how requests are shared out among the replicas of a service: at random, in turn, to the "
        "least busy of all, or to the less busy of two, as Istio does by default",
    )
    demand_sigma: NotNegative = Field(
        0.0,
        description="log-normal spread of CPU demands and call counts around those of the application; "
        "0: exactly those",
    )
    demand_seed: Seed = Field(
        1,
        description="which draw of demands and counts is used; "
        "the application stays the same whatever the seed of load and run",
    )
    usage_seconds: Positive | None = Field(
        None,
        description="seconds between two samples of the metrics server that HPAs read; "
        "null: it samples at every scrape, that is every collect.step",
    )
    usage_delay: Delay | None = Field(
        None,
        description="what HPAs read is so many samples of the metrics server older than its newest; "
        "null: one, or none where usage_seconds is set",
    )
    metrics_delay: Delay = Field(
        0, description="what all other policies read is so many scrapes older than the newest"
    )
    boot_seconds: Positive | None = Field(
        None, description="seconds until a pod of any service is ready; null: those of the application"
    )
    needed_rho_max: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="utilisation of the CPU limit at which the realised cost counts what a load needed; "
        "null: `process.rho_max`, or 0.9 where that is auto",
    )
    initial_replicas: Replicas = Field(2, description="replicas of each service when the testbed starts")
    serve: Serve = Serve()
