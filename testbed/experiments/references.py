"""What the load of a run really asks of each service, and the policies that are told it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepscaler.labels.demand import DemandModel
from deepscaler.labels.required import Reach, peaks, required_labels
from deepscaler.labels.rule import required_replicas
from deepscaler.labels.visits import Visits
from deepscaler.learning.description import load_demand
from deepscaler.panel import MetricPanel
from deepscaler.policies.base import Policy
from deepscaler.policies.oracle import ForeseenPolicy, OraclePolicy
from deepscaler.policies.plan import ForeseenRates, PlanPolicy
from deepscaler.policies.planned import plan_policy
from deepscaler.policies.registry import FORESEEN
from deepscaler.runs import PolicyName
from deepscaler.settings import Settings
from sendFlow.shapes import ONCE
from testbed.applications.loading import load_application
from testbed.applications.truth import endpoint_shares, expected_visits
from testbed.cluster.emulation import make_program
from testbed.cluster.virtual import VirtualCluster

BEYOND = 900.0
"""Seconds past the end for which the oracle is told the load (its last value)."""
JUMP = 0.25
"""A load jumps if it changes by more than this share within two rows."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What the load of a run really asks of each service, taken from a run in which no service is ever short.

    Attributes:
        times: `[L]` seconds since the epoch, `collect.step` apart.
        rates: `[L, N]` requests per second, uncongested.
        model: the demands of the application itself.
        panel: what the metrics of that run show.
    """

    times: NDArray[np.float64]
    rates: NDArray[np.float64]
    model: DemandModel
    panel: MetricPanel


def true_demand(settings: Settings) -> DemandModel:
    """The demand model of the emulated application itself, services in the order of the configuration.

    It has no response part.
    """
    bed, process = settings.testbed, settings.process
    application = load_application(bed.application, sigma=bed.demand_sigma, seed=bed.demand_seed)
    program, services = make_program(settings), tuple(settings.app.services)
    order = [program.services.index(name) for name in services]
    shares, entry_of = endpoint_shares(application), program.endpoint_service
    entered = np.bincount(entry_of, weights=shares, minlength=program.num_services)
    entries = np.flatnonzero(entered > 0)
    per_endpoint = expected_visits(application)
    visits = np.stack([(shares * (entry_of == entry)) @ per_endpoint / entered[entry] for entry in entries])
    return DemandModel(
        services=services,
        idle_cores=program.idle_cores[order],
        demand_seconds=program.demand_seconds[order],
        limit_cores=program.limit_cores[order],
        boot_seconds=program.boot_seconds[order],
        entries=tuple(program.services[entry] for entry in entries),
        visits=visits[:, order],
        external_share=entered[entries] / entered.sum(),
        sla_seconds=min(entry.sla for entry in settings.app.entries),
        think_seconds=process.think_time,
        rho_max=process.fixed_rho_max,
        sla_margin=process.sla_margin,
        response=None,
        quality={"source": "the emulated application itself"},
        requests_per_think=process.requests_per_think,
    )


def find_truth(settings: Settings, seed: int) -> Truth:
    """Simulate the seed's load with more replicas than it can use."""
    bed = settings.testbed
    ample = bed.model_copy(update={"initial_replicas": settings.scale.guard_rails.max_replicas})
    cluster = VirtualCluster(settings.model_copy(update={"testbed": ample}), seed=seed)
    start, end = cluster.now(), cluster.end + BEYOND
    cluster.sleep_until(end)
    panel = cluster.metrics(start + settings.collect.step, end, settings.collect.step)
    return Truth(panel.times, panel.feature("req").astype(np.float64), true_demand(settings), panel)


def played(settings: Settings, seed: int) -> Settings:
    """The settings of one run: `testbed` with the run's duration, seed and load.

    A load that comes once begins after the history, and one that repeats began before it.
    """
    bed, scale = settings.testbed, settings.scale
    load = scale.load or bed.load
    if scale.shapes:
        load = load.model_copy(update={"shape": scale.shapes[seed % len(scale.shapes)]})
    if load.shape in ONCE:
        load = load.model_copy(update={"hold": load.hold + bed.history})
    lasts = bed.history + (scale.duration or bed.duration)
    bed = bed.model_copy(update={"duration": lasts, "seed": seed, "load": load})
    return settings.model_copy(update={"testbed": bed})


@dataclass(frozen=True, eq=False)
class Ahead:
    """What is known of a run before it begins.

    Attributes:
        oracle: the reference of the elasticity measures.
        needed: `time` and a column per service: replicas that the uncongested rates of each moment need.
        policies: those that are told the future, by name.
    """

    oracle: OraclePolicy
    needed: pd.DataFrame
    policies: Mapping[str, Policy]


def look_ahead(
    settings: Settings, seed: int, policies: Sequence[str] = (), truth: Truth | None = None
) -> Ahead:
    """The truth about a run's load, and those of `policies` that foresee it (such as `foreseen_85`).

    The truth is found by simulating the load, unless it is given.

    Raises:
        DataError: a policy foresees, and there is no demand fit.
    """
    settings = played(settings, seed)
    truth = find_truth(settings, seed) if truth is None else truth
    oracle = make_oracle(settings, truth)
    found: dict[str, Policy] = {"oracle": oracle}
    for name in policies:
        asked = PolicyName.parse(name)
        if asked.family == FORESEEN:
            rho_max = None if asked.knob is None else asked.knob / 100
            found[name] = make_foreseen(settings, truth, name, rho_max)
        elif name in ("plan_foreseen", "plan_informed"):
            found[name] = make_plan_foreseen(settings, truth, name)
    return Ahead(oracle, find_needed(settings, truth), found)


def find_needed(settings: Settings, truth: Truth) -> pd.DataFrame:
    """`time` and a column per service: replicas that the true rates of each moment need."""
    rho_max = settings.testbed.needed_rho_max or settings.process.fixed_rho_max
    replicas = required_replicas(replace(truth.model, response=None), truth.rates, rho_max)
    needed = pd.DataFrame(replicas, columns=list(truth.model.services))
    needed.insert(0, "time", truth.times)
    return needed


def make_oracle(settings: Settings, truth: Truth) -> OraclePolicy:
    """The `required` rule on the true future and the true demands of a run."""
    reach = Reach.of(settings.process, truth.model.boot_seconds, settings.collect.step)
    needed = required_replicas(truth.model, peaks(truth.rates, reach))
    return OraclePolicy(*_schedule(needed, reach, truth), settings.collect.step)


def make_foreseen(settings: Settings, truth: Truth, name: str, rho_max: float | None) -> OraclePolicy:
    """A policy that takes the labels of the fitted model for the true future load, without congestion.

    Args:
        settings: settings of the run.
        truth: what the load of the run asks.
        name: name of the policy.
        rho_max: highest utilisation of the CPU limit; None: that of the fit.

    Raises:
        DataError: there is no demand fit.
    """
    model = load_demand(settings)
    model = model if rho_max is None else replace(model, rho_max=rho_max, spare_cores=None)
    visits = Visits(truth.times[:1], model.visits[None])
    needed = required_labels(model, visits, truth.panel, settings.process).astype(np.float64)
    reach = Reach.of(settings.process, model.boot_seconds, settings.collect.step)
    return ForeseenPolicy(*_schedule(needed, reach, truth), settings.scale.period, name)


def make_plan_foreseen(settings: Settings, truth: Truth, name: str = "plan_foreseen") -> PlanPolicy:
    """The plan by cost that is told the true rates: the bound of every plan.

    As `plan_informed` it is told of a jump only when that begins: the bound for jumps that nothing announces.

    Raises:
        DataError: there is no demand fit.
    """
    rows = round(settings.scale.plan.horizon / settings.collect.step)
    load = truth.rates[:, list(truth.model.entry_columns)].sum(axis=1)
    surprises = find_jumps(load) if name == "plan_informed" else []
    source = ForeseenRates(truth.times, truth.rates, rows, surprises)
    return plan_policy(settings, load_demand(settings), source, name)


def find_jumps(load: NDArray[np.float64]) -> list[int]:
    """Rows with which a load `[L]` begins to jump.

    It jumps where the means of two rows before and after differ by more than `JUMP` of the larger one. The
    jump begins with the first row that is half as far from the mean before.
    """
    pairs = (load[1:] + load[:-1]) / 2  # the mean of each row and the next
    before, after = pairs[:-2], pairs[2:]
    far = JUMP * np.maximum(np.maximum(before, after), 1e-9)
    jumping = np.abs(after - before) > far
    begins = np.flatnonzero(jumping & ~np.concatenate([[False], jumping[:-1]]))
    return [int(row + 2 + np.argmax(np.abs(load[row + 2 :] - before[row]) > far[row] / 2)) for row in begins]


def _schedule(
    labels: NDArray[np.float64], reach: Reach, truth: Truth
) -> tuple[NDArray[np.float64], dict[str, list[int]]]:
    """When a controller applies each label (one step before its row), and the replicas per service."""
    needed = labels[reach.step :]
    known = np.isfinite(needed).all(axis=1)
    times = truth.times[: len(needed)][known]
    return times, {
        name: needed[known, column].astype(int).tolist() for column, name in enumerate(truth.model.services)
    }
